"""The filter as the kernel would run it, on both architectures: instruction by instruction, without a kernel."""

import errno
import re
import struct
from pathlib import Path

import pytest

from ww.sandbox import seccomp
from ww.sandbox.seccomp import ARCHITECTURES, Architecture

PID = 4321
ALLOW, KILL = 0x7FFF0000, 0x80000000
EPERM, ENOSYS = 0x50000 | errno.EPERM, 0x50000 | errno.ENOSYS
THREAD = 0x3D0F00  # what glibc asks of clone for a thread
FORK = 0x1200011
HEADERS = {
    "x86_64": Path("/usr/include/x86_64-linux-gnu/asm/unistd_64.h"),
    "aarch64": Path("/usr/include/asm-generic/unistd.h"),
}

each_architecture = pytest.mark.parametrize("machine", ARCHITECTURES)


def judge(program: bytes, audit: int, number: int, *arguments: int) -> int:
    """Run a BPF program over a system call and return what it says."""
    data = struct.pack("<IIQ6Q", number, audit, 0, *arguments, *(0,) * (6 - len(arguments)))
    at = accumulator = 0
    while True:
        code, yes, no, value = struct.unpack_from("<HBBI", program, at * 8)
        at += 1
        if code == 0x20:
            (accumulator,) = struct.unpack_from("<I", data, value)
        elif code == 0x54:
            accumulator &= value
        elif code in (0x15, 0x35):
            at += yes if (accumulator == value if code == 0x15 else accumulator >= value) else no
        else:
            assert code == 0x06
            return int(value)


class Filter:
    def __init__(self, machine: str, *, with_files: bool = False) -> None:
        self.architecture: Architecture = ARCHITECTURES[machine]
        self.allowed = seccomp.calls(self.architecture, with_files=with_files)
        self.program = seccomp.assemble(self.architecture, self.allowed, PID)

    def __call__(self, call: int | str, *arguments: int) -> int:
        number = self.architecture.calls[call] if isinstance(call, str) else call
        return judge(self.program, self.architecture.audit, number, *arguments)


@each_architecture
def test_what_is_not_on_the_list_is_refused(machine: str) -> None:
    say = Filter(machine)
    assert len(say.program) // 8 < 4096, "the kernel's limit"
    for number in range(600):
        if number in say.architecture.calls.values():
            continue
        expected = ALLOW if number in say.allowed else EPERM if number < 435 else ENOSYS
        assert say(number) == expected, number


@each_architecture
def test_calls_by_the_numbers_of_another_architecture_end_the_process(machine: str) -> None:
    say = Filter(machine)
    others = {architecture.audit for architecture in ARCHITECTURES.values()} | {0x40000003}  # i386
    for audit in others - {say.architecture.audit}:
        assert judge(say.program, audit, say.allowed[0]) == KILL


def test_the_x32_numbers_are_no_way_round() -> None:
    say = Filter("x86_64")
    assert {say(0x40000000 | number) for number in range(600)} == {ENOSYS}


@each_architecture
def test_a_thread_may_be_started_and_nothing_else(machine: str) -> None:
    say = Filter(machine)
    assert say("clone", THREAD) == ALLOW
    assert say("clone", FORK) == EPERM
    assert say("clone", 0x4100 | 17) == EPERM  # vfork
    for namespace in (0x20000, 0x2000000, 0x4000000, 0x8000000, 0x10000000, 0x20000000, 0x40000000):
        assert say("clone", THREAD | namespace) == EPERM
    assert say(435) == ENOSYS


@each_architecture
def test_no_other_process_is_touched(machine: str) -> None:
    say = Filter(machine)
    for own in ("tgkill", "prlimit64"):
        assert say(own, PID, 1) == ALLOW
        assert say(own, PID - 1, 1) == EPERM
    assert say("prlimit64", 0) == ALLOW
    assert say("tgkill", (1 << 32) - 1) == EPERM


@each_architecture
def test_only_some_ways_to_use_a_descriptor_or_the_process(machine: str) -> None:
    say = Filter(machine)
    f_setown, f_setsig, f_setlease, f_notify, tiocsti, fioasync = 8, 10, 1024, 1026, 0x5412, 0x5452
    assert {say("fcntl", 0, command) for command in (0, 1, 2, 3, 4, 1030, 1033, 1034)} == {ALLOW}
    assert {say("fcntl", 0, command) for command in (f_setown, f_setsig, f_setlease, f_notify, 15)} == {EPERM}
    assert {say("ioctl", 0, command) for command in (0x5401, 0x541B, 0x5421, 0x5451)} == {ALLOW}
    assert {say("ioctl", 0, command) for command in (tiocsti, fioasync, 0x8901, 0)} == {EPERM}
    assert say("prctl", 15) == ALLOW
    assert {say("prctl", option) for option in (1, 4, 8, 22, 24, 38, 47, 53)} == {EPERM}


@each_architecture
def test_files_are_for_those_that_have_a_folder(machine: str) -> None:
    without, with_files = Filter(machine), Filter(machine, with_files=True)
    openat = {"x86_64": 257, "aarch64": 56}[machine]
    assert (without(openat), with_files(openat)) == (EPERM, ALLOW)
    assert set(without.allowed) < set(with_files.allowed)
    for chmod in {"x86_64": (90, 91, 268, 92, 93, 161), "aarch64": (52, 53, 54, 55, 51)}[machine]:
        assert with_files(chmod) == EPERM


@each_architecture
def test_the_numbers_are_the_kernels(machine: str) -> None:
    if not HEADERS[machine].exists():
        pytest.skip("the kernel's headers are not installed")
    text = HEADERS[machine].read_text()
    known = {
        name: int(number) for name, number in re.findall(r"#define __NR(?:3264)?_(\w+) (\d+)$", text, re.MULTILINE)
    }
    if machine == "aarch64":
        known["newfstatat"] = known["fstatat"]
    words = (seccomp._COMPUTING + seccomp._FILES).split()
    listed = dict(zip(words[::3], words[1 + ARCHITECTURES[machine].column :: 3], strict=True))
    listed |= {name: str(number) for name, number in ARCHITECTURES[machine].calls.items()}
    assert {name: known.get(name, "-") for name in listed} == {
        name: number if number == "-" else int(number) for name, number in listed.items()
    }
