"""The WASI functions that are ours: driven on a store, beside wasmtime's own."""

import ctypes
import gc
import hashlib
import os
import struct
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
import wasmtime
from hypothesis import given, settings
from hypothesis import strategies as st
from wasmtime import _ffi as ffi

from tests.guests import ROOT, wat
from ww.sandbox import wasi_poll
from ww.sandbox.determinism import START_NS, STEP_NS, RandomStream, VirtualClock
from ww.sandbox.wasi import Originals, Preview1, State
from ww.sandbox.wasi_originals import FUNCTIONS
from ww.sandbox.wasi_poll import SUBSCRIPTIONS_MAX

SUBSCRIPTION = struct.Struct("<QBxxxxxxxIxxxxQQHxxxxxx")
EVENT = struct.Struct("<QHBxxxxxQHxxxxxx")
FILESTAT = struct.Struct("<QQBxxxxxxxQQQQQ")
PAGE = 1 << 16
HOUR = 3600 * 10**9
REALTIME, MONOTONIC = 0, 1
RELATIVE, ABSOLUTE = 0, 1
BADF, INVAL, NOMEM = 8, 28, 48
SIGNATURES = {
    **FUNCTIONS,
    "fd_close": ("i32",),
    "path_open": ("i32", "i32", "i32", "i32", "i32", "i64", "i64", "i32", "i32"),
}


def _guest() -> bytes:
    """Assemble a guest that exports each function that it imports, and can do nothing else."""
    imports = ['(import "wasi_snapshot_preview1" "proc_exit" (func $proc_exit (param i32)))']
    exports = ['(func (export "proc_exit") (param i32) (call $proc_exit (local.get 0)) unreachable)']
    for name, kinds in SIGNATURES.items():
        kind = f"(param {' '.join(kinds)}) (result i32)"
        given_ = " ".join(f"(local.get {index})" for index in range(len(kinds)))
        imports.append(f'(import "wasi_snapshot_preview1" "{name}" (func ${name} {kind}))')
        exports.append(f'(func (export "{name}") {kind} (call ${name} {given_}))')
    return wat(f'{" ".join(imports)} (memory (export "memory") 8) {" ".join(exports)}')


GUEST = _guest()
TOP = 8 * PAGE
ENDED = (wasmtime.Trap, wasmtime.WasmtimeError)
"""Of traps in words wasmtime-py makes the second."""


class World:
    """An engine with all kinds of linkers."""

    def __init__(self, config: wasmtime.Config | None = None) -> None:
        config = config or wasmtime.Config()
        config.epoch_interruption = True
        self.engine = wasmtime.Engine(config)
        self.original = wasmtime.Linker(self.engine)
        self.original.define_wasi()
        originals = Originals(self.engine)
        self.ours = Preview1(self.engine, originals=originals)
        self.deterministic = Preview1(self.engine, deterministic=True, originals=originals)
        self.reactor = Preview1(self.engine, reactor=True, originals=originals)
        self.module = wasmtime.Module(self.engine, GUEST)


@pytest.fixture(scope="module")
def world() -> World:
    return World()


class Clock:
    """A watch that is also the time: who waits gets there at once."""

    def __init__(self) -> None:
        self.now_ns = 10**12
        self.waits: list[float] = []
        self.over_at_ns: int | None = None

    def interrupted(self) -> bool:
        return self.over_at_ns is not None and self.now_ns >= self.over_at_ns

    def wait(self, seconds: float) -> None:
        self.waits.append(seconds)
        self.now_ns += max(1, round(seconds * 1e9))

    def monotonic_ns(self) -> int:
        return self.now_ns

    def time_ns(self) -> int:
        return START_NS + self.now_ns


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(wasi_poll, "time", clock)
    return clock


class Guest:
    """An instance, and its memory."""

    def __init__(
        self,
        world: World,
        host: Preview1 | None,
        watch: Any = None,
        *,
        seed: int = 0,
        stdin: bytes = b"",
        folder: Path | None = None,
        module: wasmtime.Module | None = None,
        instances: int = 2,
        memories: int = 2,
    ) -> None:
        self.host = host
        self.store = wasmtime.Store(world.engine)
        self.store.set_limits(memory_size=TOP, instances=instances, memories=memories)
        self.store.set_epoch_deadline(1)
        wasi = wasmtime.WasiConfig()
        if folder is not None:
            wasi.preopen_dir(str(folder), "/")
        self.store.set_wasi(wasi)
        if host is not None:
            host.state.reset(watch or Clock(), seed, stdin)
        linker = world.original if host is None else host.linker
        self.exports = linker.instantiate(self.store, module or world.module).exports(self.store)

    def __call__(self, name: str, *arguments: int) -> int:
        return self.exports[name](self.store, *(_signed(argument) for argument in arguments))

    def read(self, at: int, size: int) -> bytes:
        return bytes(self.exports["memory"].read(self.store, at, at + size))

    def write(self, at: int, data: bytes) -> None:
        self.exports["memory"].write(self.store, data, at)

    def poll(self, *subscriptions: bytes) -> tuple[int, list[tuple[int, ...]]]:
        """Return the errno, and the events."""
        self.write(1024, b"".join(subscriptions))
        error = self("poll_oneoff", 1024, PAGE, len(subscriptions), 8)
        if error:
            return error, []
        (count,) = struct.unpack("<I", self.read(8, 4))
        return 0, list(EVENT.iter_unpack(self.read(PAGE, EVENT.size * count)))

    def time(self, clock: int) -> int:
        assert self("clock_time_get", clock, 0, 16) == 0
        return int.from_bytes(self.read(16, 8), "little")

    def random(self, size: int) -> bytes:
        assert self("random_get", 1024, size) == 0
        return self.read(1024, size)

    def open(self, name: str, oflags: int = 0, rights: int = 0x1FFFFFFF) -> int:
        self.write(1024, name.encode())
        assert self("path_open", 3, 0, 1024, len(name), oflags, rights, rights, 0, 8) == 0
        return int.from_bytes(self.read(8, 4), "little")


def _signed(value: int) -> int:
    """i32 and i64 are signed in wasmtime-py; what needs 64 bits here is small."""
    return value - (1 << 32) if 1 << 31 <= value < 1 << 32 else value


def on_clock(userdata: int, timeout_ns: int, clock: int = MONOTONIC, flags: int = RELATIVE) -> bytes:
    return SUBSCRIPTION.pack(userdata, 0, clock, timeout_ns, 0, flags)


def on_read(userdata: int, fd: int) -> bytes:
    return SUBSCRIPTION.pack(userdata, 1, fd, 0, 0, 0)


def on_write(userdata: int, fd: int) -> bytes:
    return SUBSCRIPTION.pack(userdata, 2, fd, 0, 0, 0)


def clock_event(userdata: int) -> tuple[int, ...]:
    return (userdata, 0, 0, 0, 0)


# proc_exit


@pytest.mark.parametrize("code", [0, 1, 125, 126, 255, 0x7FFFFFFF, 0xFFFFFFFF])
def test_exit_code_is_kept_whole_and_ends_the_guest(world: World, code: int) -> None:
    guest = Guest(world, world.ours)
    assert world.ours.state.exit_code is None
    with pytest.raises(ENDED, match="exit"):
        guest("proc_exit", code)
    assert world.ours.state.exit_code == code
    assert not world.ours.state.interrupted


# poll_oneoff of clocks


@pytest.mark.parametrize("which", [REALTIME, MONOTONIC])
def test_relative_sleep_takes_its_time_in_slices(world: World, clock: Clock, which: int) -> None:
    guest, start_ns = Guest(world, world.ours, clock), clock.now_ns
    assert guest.poll(on_clock(7, 100_000_000, which)) == (0, [clock_event(7)])
    assert clock.now_ns == start_ns + 100_000_000
    assert max(clock.waits) * 1e9 <= wasi_poll.SLICE_NS


def test_absolute_sleep_ends_at_its_time(world: World, clock: Clock) -> None:
    guest, start_ns = Guest(world, world.ours, clock), clock.now_ns
    assert guest.poll(on_clock(7, clock.time_ns() + 50_000_000, REALTIME, ABSOLUTE)) == (0, [clock_event(7)])
    assert clock.now_ns == start_ns + 50_000_000
    assert guest.poll(on_clock(8, 1, REALTIME, ABSOLUTE)) == (0, [clock_event(8)])
    assert clock.now_ns == start_ns + 50_000_000
    # What the guest's own monotonic clock says is past when it is heard of here.
    assert guest.poll(on_clock(9, guest.time(MONOTONIC), MONOTONIC, ABSOLUTE)) == (0, [clock_event(9)])
    assert clock.now_ns == start_ns + 50_000_000
    assert guest.poll(on_clock(9, guest.time(MONOTONIC) + HOUR, MONOTONIC, ABSOLUTE)) == (0, [clock_event(9)])
    assert start_ns + HOUR * 0.9 < clock.now_ns <= start_ns + HOUR + 50_000_000


def test_sleep_of_nothing_does_not_wait(world: World, clock: Clock) -> None:
    assert Guest(world, world.ours, clock).poll(on_clock(7, 0)) == (0, [clock_event(7)])
    assert not clock.waits


def test_of_several_clocks_those_that_are_due_have_events_in_order(world: World, clock: Clock) -> None:
    guest = Guest(world, world.ours, clock)
    error, events = guest.poll(
        on_clock(1, HOUR), on_clock(2, 5_000, REALTIME), on_clock(3, 5_000), on_clock(4, 5_001), on_clock(5, 4_999)
    )
    assert (error, events) == (0, [clock_event(5)])
    error, events = guest.poll(on_clock(1, HOUR), on_clock(2, 5_000, REALTIME), on_clock(3, 5_000))
    assert (error, events) == (0, [clock_event(2), clock_event(3)])


def test_longest_sleep_is_no_overflow(world: World, clock: Clock) -> None:
    guest = Guest(world, world.ours, clock)
    assert guest.poll(on_clock(1, 2**64 - 1), on_clock(2**64 - 1, 1)) == (0, [clock_event(2**64 - 1)])


@pytest.mark.parametrize(
    "subscription", [on_clock(1, 1, 2), on_clock(1, 1, 3), on_clock(1, 1, 4), on_clock(1, 1, MONOTONIC, 2)]
)
def test_unknown_clocks_and_flags_are_invalid(world: World, subscription: bytes) -> None:
    for host in (None, world.ours, world.deterministic):
        guest = Guest(world, host)
        assert guest.poll(subscription) == (INVAL, [])
        assert guest.poll(on_clock(1, 0), subscription) == (INVAL, [])


def test_empty_poll_is_invalid(world: World) -> None:
    assert Guest(world, world.ours)("poll_oneoff", 0, 0, 0, 0) == INVAL


@pytest.mark.parametrize("count", [SUBSCRIPTIONS_MAX + 1, 1 << 31, (1 << 32) - 1])
def test_too_many_subscriptions_are_refused(world: World, count: int) -> None:
    assert Guest(world, world.ours)("poll_oneoff", 1024, PAGE, count, 8) == NOMEM


def test_as_many_subscriptions_as_are_allowed(world: World, clock: Clock) -> None:
    guest = Guest(world, world.ours, clock)
    error, events = guest.poll(*[on_read(place, 0) for place in range(SUBSCRIPTIONS_MAX - 1)], on_clock(1 << 40, HOUR))
    assert error == 0
    assert [event[0] for event in events] == list(range(SUBSCRIPTIONS_MAX - 1))


# The end of a run


class Bell:
    """A watch that another thread rings."""

    def __init__(self) -> None:
        self._over = threading.Event()
        self.waiting = threading.Event()

    def ring(self) -> None:
        self._over.set()

    def interrupted(self) -> bool:
        self.waiting.set()
        return self._over.is_set()

    def wait(self, seconds: float) -> None:
        self._over.wait(seconds)


@pytest.mark.parametrize("forever", [2**64 - 1, HOUR])
def test_sleeping_guest_ends_when_its_run_is_over(world: World, forever: int) -> None:
    bell, ended = Bell(), []

    def run() -> None:
        guest = Guest(world, world.ours, bell)
        with pytest.raises(wasmtime.Trap) as caught:
            guest.poll(on_clock(1, forever))
        ended.append(caught.value.trap_code)

    thread = threading.Thread(target=run)
    thread.start()
    assert bell.waiting.wait(10)
    bell.ring()
    thread.join(10)
    assert ended == [wasmtime.TrapCode.INTERRUPT]
    assert world.ours.state.interrupted
    assert world.ours.state.exit_code is None
    assert Guest(world, world.ours).poll(on_clock(1, 0)) == (0, [clock_event(1)])
    assert not world.ours.state.interrupted


def test_run_is_looked_at_once_a_slice(world: World, clock: Clock) -> None:
    clock.over_at_ns = clock.now_ns + 1_000_000_000
    guest = Guest(world, world.ours, clock)
    with pytest.raises(wasmtime.Trap):
        guest.poll(on_clock(1, HOUR))
    assert world.ours.state.interrupted
    assert clock.now_ns - clock.over_at_ns <= wasi_poll.SLICE_NS


# stdin of a test is not the guest's to have; its own process has one that is silent.
SILENT = """
import sys, threading, time
import wasmtime
from tests.sandbox.test_wasi import *
world = World()
def guest(watch):
    made = Guest(world, world.ours, watch)
    wasi = wasmtime.WasiConfig()
    wasi.inherit_stdin()
    made.store.set_wasi(wasi)
    return made
class Soon:
    end = time.monotonic() + 0.1
    def interrupted(self): return time.monotonic() > self.end
    def wait(self, seconds): raise AssertionError
assert guest(Bell()).poll(on_read(1, 0), on_clock(2, 30_000_000)) == (0, [clock_event(2)])
assert guest(Bell()).poll(on_read(1, 0), on_write(3, 1), on_clock(2, HOUR)) == (0, [(3, 0, 2, 1, 0)])
try:
    guest(Soon()).poll(on_read(1, 0))
except wasmtime.Trap as trap:
    assert trap.trap_code is wasmtime.TrapCode.INTERRUPT
assert world.ours.state.interrupted
print("silent", flush=True)
assert guest(Bell()).poll(on_read(1, 0)) == (0, [(1, 0, 1, 1, 0)])
print("heard", flush=True)
"""


def test_descriptor_that_is_never_ready_holds_nobody() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", SILENT], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT
    ) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        assert child.stdout.readline() == "silent\n"
        child.stdin.write("x\n")
        child.stdin.flush()
        assert child.stdout.readline() == "heard\n"
        child.stdin.close()
    assert child.returncode == 0


# poll_oneoff of descriptors

fds = st.sampled_from([0, 1, 2, 3, 4, 5, 6, 7, 0x7FFFFFFF, 0xFFFFFFFF])
subscription_lists = st.lists(
    st.one_of(
        st.builds(on_read, st.integers(0, 2**64 - 1), fds),
        st.builds(on_write, st.integers(0, 2**64 - 1), fds),
        st.builds(on_read, st.integers(0, 2**64 - 1), st.sampled_from([0, 4])),
        st.builds(on_write, st.integers(0, 2**64 - 1), st.sampled_from([1, 2, 4])),
        st.builds(on_clock, st.integers(0, 9), st.sampled_from([0, HOUR]), st.sampled_from([0, 0, 1, 1, 1, 2, 4])),
        st.builds(on_clock, st.integers(0, 9), st.just(1), st.just(REALTIME), st.sampled_from([1, 1, 1, 2])),
        st.builds(SUBSCRIPTION.pack, st.just(1), st.sampled_from([3, 255]), *[st.just(0)] * 4),
    ),
    max_size=6,
)


@given(subscription_lists)
@settings(max_examples=300, deadline=None)
def test_events_are_those_of_wasmtime(shared: Any, subscriptions: list[bytes]) -> None:
    world, folder = shared

    def guest(host: Preview1 | None) -> Guest:
        made = Guest(world, host, folder=folder)
        assert (made.open("full"), made.open("empty")) == (4, 5)
        return made

    # wasmtime reads from files beforehand in another thread, and says of some only that they are ready in a moment: the
    # truth about one is what it says when asked for nothing else. Of a clock that is late, only that it is no error.
    original = guest(None)
    singles = [original.poll(one, *([] if one[8] in (1, 2) else [on_write(0, 1)])) for one in subscriptions]
    error = next((error for error, _ in singles if error), 0)
    read = [SUBSCRIPTION.unpack(one) for one in subscriptions]
    of_descriptors = [(place, events[0]) for place, (_, events) in enumerate(singles) if events and read[place][1]]
    of_clocks = [(place, clock_event(one[0])) for place, one in enumerate(read) if one[1] == 0 and one[3] != HOUR]
    of_stdio = [(place, event) for place, event in of_descriptors if read[place][2] < 3]

    asked = [*subscriptions, on_clock(10, 0)]
    of_clocks.append((len(subscriptions), clock_event(10)))
    all_ = [event for _, event in sorted(of_descriptors + of_clocks)]
    least = [event for _, event in sorted(of_stdio + of_clocks)]
    wrong = (error, [])
    assert guest(world.deterministic).poll(*asked) == (wrong if error else (0, all_))
    got = guest(world.ours).poll(*asked)
    if error:
        assert got == wrong
    else:
        rest = iter(all_)
        assert all(event in rest for event in got[1])
        rest = iter(got[1])
        assert all(event in rest for event in least)


@pytest.fixture(scope="module")
def shared(world: World, tmp_path_factory: pytest.TempPathFactory) -> tuple[World, Path]:
    folder = tmp_path_factory.mktemp("folder")
    (folder / "full").write_bytes(b"12345")
    (folder / "empty").write_bytes(b"")
    return world, folder


def test_ready_descriptor_comes_before_a_later_clock(world: World, clock: Clock) -> None:
    guest = Guest(world, world.ours, clock)
    assert guest.poll(on_clock(1, HOUR), on_write(2, 1), on_read(3, 0)) == (0, [(2, 0, 2, 1, 0), (3, 0, 1, 1, 0)])
    assert not clock.waits


def test_subscriptions_stay_as_they_were(world: World) -> None:
    guest, data = Guest(world, world.ours), on_clock(1, HOUR) + on_read(3, 0)
    guest.poll(on_clock(1, HOUR), on_read(3, 0))
    assert guest.read(1024, len(data)) == data


# Hostile guests

OUT = TOP - 4
WRONG = [
    ("poll_oneoff", (TOP, PAGE, 1, 8)),
    ("poll_oneoff", (OUT, PAGE, 1, 8)),
    ("poll_oneoff", (0xFFFFFFF8, PAGE, 1, 8)),
    ("poll_oneoff", (1024, TOP - 24, 1, 8)),
    ("poll_oneoff", (1024, 0xFFFFFFE0, 1, 8)),
    ("poll_oneoff", (1024, PAGE, 1, TOP)),
    ("poll_oneoff", (1024, PAGE, 1, 0xFFFFFFFC)),
    ("poll_oneoff", (1028, PAGE, 1, 8)),
    ("poll_oneoff", (1024, PAGE + 4, 1, 8)),
    ("poll_oneoff", (1024, PAGE, 1, 10)),
    ("clock_time_get", (0, 0, OUT)),
    ("clock_time_get", (0, 0, 0xFFFFFFF8)),
    ("clock_time_get", (0, 0, 12)),
    ("clock_res_get", (0, TOP)),
    ("random_get", (OUT, 5)),
    ("random_get", (0, 0xFFFFFFFF)),
    ("random_get", (0xFFFFFFFF, 0xFFFFFFFF)),
    ("fd_filestat_get", (0, TOP - 56)),
    ("path_filestat_get", (3, 0, TOP, 1, 1024)),
    ("path_filestat_get", (3, 0, 0, 0xFFFFFFFF, 1024)),
    ("path_filestat_get", (3, 0, 1024, 1, 0xFFFFFFC0)),
    ("fd_readdir", (3, TOP - 100, 101, 0, 8)),
    ("fd_readdir", (3, 0, 0xFFFFFFFF, 0, 8)),
    ("fd_readdir", (3, 1024, 100, 0, TOP)),
    ("fd_read", (0, TOP, 1, 8)),
    ("fd_read", (0, 0xFFFFFFF8, 1, 8)),
    ("fd_read", (0, 1024, 1, TOP)),
]


@pytest.mark.parametrize(("name", "arguments"), WRONG)
def test_wrong_pointers_are_traps(world: World, tmp_path: Path, name: str, arguments: tuple[int, ...]) -> None:
    host = {"poll_oneoff": world.ours, "fd_read": world.reactor}.get(name, world.deterministic)
    guest = Guest(world, host, folder=tmp_path)
    with pytest.raises(wasmtime.Trap) as caught:
        guest(name, *arguments)
    assert caught.value.trap_code in (wasmtime.TrapCode.MEMORY_OUT_OF_BOUNDS, wasmtime.TrapCode.HEAP_MISALIGNED)
    assert host.state.ended.startswith(f"{name}: pointer ")
    assert not host.state.failure


@pytest.mark.parametrize("vector", [(TOP, 1), (OUT, 5), (0xFFFFFFFF, 0xFFFFFFFF)])
@pytest.mark.parametrize("fd", [0, 4])
def test_wrong_vectors_are_traps(world: World, tmp_path: Path, fd: int, vector: tuple[int, int]) -> None:
    (tmp_path / "file").write_bytes(b"12345")
    guest = Guest(world, world.reactor, stdin=b"12345", folder=tmp_path)
    guest.open("file")
    guest.write(1024, struct.pack("<II", *vector))
    with pytest.raises(ENDED, match="out of bounds"):
        guest("fd_read", fd, 1024, 1, 8)
    assert world.reactor.state.ended == "fd_read: pointer out of bounds"


@pytest.mark.parametrize("memory", ["", '(global (export "memory") i32 (i32.const 0))'])
def test_guest_without_memory_is_trapped(world: World, memory: str) -> None:
    module = wasmtime.Module(
        world.engine,
        wat(
            f"""(import "wasi_snapshot_preview1" "poll_oneoff" (func $poll (param i32 i32 i32 i32) (result i32)))
            {memory}
            (func (export "run") (drop (call $poll (i32.const 0) (i32.const 0) (i32.const 1) (i32.const 0))))"""
        ),
    )
    with pytest.raises(ENDED, match="no memory"):
        Guest(world, world.ours, module=module)("run")


def test_memory_may_grow_between_calls(world: World, clock: Clock) -> None:
    module = wasmtime.Module(
        world.engine,
        wat(
            """(import "wasi_snapshot_preview1" "poll_oneoff" (func $poll (param i32 i32 i32 i32) (result i32)))
            (memory (export "memory") 0)
            (func (export "run") (result i32)
              (drop (call $poll (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0)))
              (drop (memory.grow (i32.const 1)))
              (i32.store (i32.const 16) (i32.const 1))
              (call $poll (i32.const 0) (i32.const 104) (i32.const 1) (i32.const 200)))"""
        ),
    )
    assert Guest(world, world.ours, clock, module=module)("run") == 0


class Broken:
    def interrupted(self) -> bool:
        raise MemoryError("of the watch")

    def wait(self, seconds: float) -> None:
        raise KeyboardInterrupt


def test_error_of_ours_ends_the_guest_and_nothing_else(world: World) -> None:
    guest = Guest(world, world.ours, Broken())
    with pytest.raises(ENDED, match="host function failed"):
        guest.poll(on_clock(1, HOUR))
    assert world.ours.state.failure == "poll_oneoff: MemoryError('of the watch')"
    assert not world.ours.state.interrupted
    again = Guest(world, world.ours)
    assert not world.ours.state.failure
    assert again.poll(on_clock(1, 0)) == (0, [clock_event(1)])


# Deterministic runs


def test_random_stream_is_the_one_that_is_documented() -> None:
    def block(seed: int, counter: int) -> bytes:
        name = b"ww random" + struct.pack("<QQ", seed, counter)
        return hashlib.shake_256(name).digest(1024)

    assert RandomStream(5).read(3000) == (block(5, 0) + block(5, 1) + block(5, 2))[:3000]
    stream = RandomStream(5)
    assert b"".join(stream.read(size) for size in (0, 1, 1023, 1, 1025, 950)) == RandomStream(5).read(3000)
    assert RandomStream(-1).read(8) == RandomStream(2**64 - 1).read(8)
    assert RandomStream(0).read(16).hex() == "2212e01584b43e4407cb86b38a9249f4"
    assert RandomStream(2**63).read(16).hex() == "862366555eb0e1f797e0525854daf137"


def test_virtual_clock_goes_on_when_read_and_when_slept() -> None:
    clock = VirtualClock()
    assert [clock.read_ns(), clock.read_ns()] == [STEP_NS, 2 * STEP_NS]
    clock.sleep_until(10**9)
    assert clock.read_ns() == 10**9 + STEP_NS
    clock.sleep_until(5)
    assert clock.read_ns() == 10**9 + 2 * STEP_NS
    clock.sleep_until(2**64 - 1)
    assert clock.read_ns() + START_NS < 2**63


def _everything(world: World, folder: Path, seed: int) -> tuple[object, ...]:
    """Return all that a deterministic guest can learn."""
    guest = Guest(world, world.deterministic, seed=seed, folder=folder)
    seen: list[object] = [guest.time(REALTIME), guest.time(MONOTONIC), guest.random(100)]
    seen.append(guest.poll(on_clock(1, 10**9), on_clock(2, HOUR)))
    seen.append(guest.poll(on_read(1, 0), on_clock(2, HOUR)))
    seen += [guest.time(REALTIME), guest.random(5000), guest.time(MONOTONIC)]
    for fd in range(4):
        guest("fd_filestat_get", fd, 1024)
        seen.append(guest.read(1024, FILESTAT.size))
    return (*seen, _names(guest))


def test_deterministic_runs_are_the_same(world: World, tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        for file in ("b", "a", "c") if name == "one" else ("c", "b", "a"):
            (tmp_path / name / file).write_bytes(b"12345")
    first = _everything(world, tmp_path / "one", 1)
    assert _everything(world, tmp_path / "two", 1) == first
    # Another engine is as good as another process.
    assert _everything(World(), tmp_path / "two", 1) == first
    other = _everything(world, tmp_path / "two", 2)
    assert other[2] != first[2]
    assert (other[:2], other[7:]) == (first[:2], first[7:])
    assert first[0] == START_NS + STEP_NS
    assert first[1] == 2 * STEP_NS
    assert first[2] == RandomStream(1).read(100)


def test_deterministic_sleep_takes_no_time(world: World) -> None:
    clock = Clock()
    guest = Guest(world, world.deterministic, clock)
    start = guest.time(REALTIME)
    assert guest.poll(on_clock(1, HOUR), on_clock(2, HOUR, REALTIME), on_clock(3, HOUR + 1)) == (
        0,
        [clock_event(1), clock_event(2)],
    )
    assert guest.time(REALTIME) == start + HOUR + STEP_NS
    assert guest.poll(on_clock(4, START_NS + 3 * HOUR, REALTIME, ABSOLUTE)) == (0, [clock_event(4)])
    assert guest.time(MONOTONIC) == 3 * HOUR + STEP_NS
    assert guest.poll(on_clock(5, HOUR, MONOTONIC, ABSOLUTE)) == (0, [clock_event(5)])
    assert guest.time(MONOTONIC) == 3 * HOUR + 2 * STEP_NS
    for _ in range(3):
        assert guest.poll(on_clock(6, 2**64 - 1)) == (0, [clock_event(6)])
    assert not clock.waits


def test_deterministic_clocks_are_those_of_wasmtime(world: World) -> None:
    for name, arguments in (("clock_time_get", (0, 16)), ("clock_res_get", (16,))):
        for which in range(4):
            assert Guest(world, world.deterministic)(name, which, *arguments) == Guest(world, None)(
                name, which, *arguments
            )
        assert Guest(world, world.deterministic)(name, 4, *arguments) == INVAL
    guest = Guest(world, world.deterministic)
    guest("clock_res_get", MONOTONIC, 16)
    assert int.from_bytes(guest.read(16, 8), "little") == STEP_NS


def test_much_randomness_is_made_in_pieces_and_ends_with_the_run(world: World) -> None:
    assert Guest(world, world.deterministic, seed=3).random(3 * PAGE) == RandomStream(3).read(3 * PAGE)
    clock = Clock()
    clock.over_at_ns = 0
    guest = Guest(world, world.deterministic, clock)
    with pytest.raises(wasmtime.Trap):
        guest("random_get", 0, TOP)
    assert world.deterministic.state.interrupted


def test_deterministic_files_tell_no_time_and_no_place(world: World, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"12345")
    (tmp_path / "folder").mkdir()
    guest = Guest(world, world.deterministic, folder=tmp_path)
    seen = []
    for name in ("file", "folder"):
        guest.write(2048, name.encode())
        assert guest("path_filestat_get", 3, 0, 2048, len(name), 1024) == 0
        seen.append(FILESTAT.unpack(guest.read(1024, FILESTAT.size)))
    assert guest("fd_filestat_get", guest.open("file"), 1024) == 0
    seen.append(FILESTAT.unpack(guest.read(1024, FILESTAT.size)))
    file = (0, 0, 4, 1, 5, START_NS, START_NS, START_NS)
    assert seen == [file, (0, 0, 3, 1, 0, START_NS, START_NS, START_NS), file]


def test_deterministic_files_have_the_errors_of_wasmtime(world: World, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"12345")
    seen = []
    for host in (None, world.deterministic):
        guest, errors = Guest(world, host, folder=tmp_path), []
        fd = guest.open("file")
        guest.write(2048, b"absent..//etc")
        for folder in (3, fd, 9, 0):
            errors += [guest("fd_filestat_get", folder, 1024)] if folder == 9 else []
            errors += [guest("path_filestat_get", folder, 0, 2048, 6, 1024)]
            errors += [guest("path_filestat_get", folder, 0, 2054, 3, 1024)]
            errors += [guest("path_filestat_get", folder, 0, 2057, 4, 1024)]
            errors += [guest("fd_readdir", folder, 1024, 0, 0, 8), guest("fd_readdir", folder, 1024, 100, 7, 8)]
        seen.append(errors)
    assert seen[0] == seen[1]
    assert guest("path_filestat_get", 3, 0, 2048, 5000, 1024) == 37


def _names(guest: Guest, size: int = 4096, fd: int = 3) -> list[tuple[str, int, int, int]]:
    """List a folder as libc does, with a buffer of that size: names, kinds, inodes and where each goes on."""
    names, cookie = [], 0
    while True:
        assert guest("fd_readdir", fd, PAGE, size, cookie, 8) == 0
        used = int.from_bytes(guest.read(8, 4), "little")
        data, at = guest.read(PAGE, used), 0
        while at + 24 <= used:
            cookie_, inode, length, kind = struct.unpack_from("<QQIBxxx", data, at)
            if at + 24 + length > used:
                break
            names.append((data[at + 24 : at + 24 + length].decode(), kind, inode, cookie_))
            at, cookie = at + 24 + length, cookie_
        if used < size:
            return names


@pytest.mark.parametrize("size", [300, 4096, PAGE, 2 * PAGE])
@pytest.mark.parametrize("count", [0, 3, 1500])
def test_deterministic_folders_are_sorted(world: World, tmp_path: Path, count: int, size: int) -> None:
    names = sorted(f"{hashlib.sha256(bytes([n % 256, n // 256])).hexdigest()}-é" for n in range(count))
    for name in names:
        (tmp_path / name).touch()
    (tmp_path / "folder").mkdir()
    listed = _names(Guest(world, world.deterministic, folder=tmp_path), size)
    wanted = [".", "..", *sorted([*names, "folder"], key=str.encode)]
    assert [name for name, *_ in listed] == wanted
    assert [(kind == 3) for _, kind, *_ in listed] == [name in (".", "..", "folder") for name in wanted]
    assert {inode for _, _, inode, _ in listed} == {0}
    assert [cookie for *_, cookie in listed] == list(range(1, len(wanted) + 1))
    if size > 300:  # wasmtime looks at all of the folder for each part
        assert sorted(name for name, *_ in _names(Guest(world, None, folder=tmp_path), size)) == sorted(wanted)


def test_deterministic_folder_is_read_anew_from_its_start(world: World, tmp_path: Path) -> None:
    guest = Guest(world, world.deterministic, folder=tmp_path)
    assert [name for name, *_ in _names(guest)] == [".", ".."]
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "inner").touch()
    assert [name for name, *_ in _names(guest)] == [".", "..", "folder"]
    fd = guest.open("folder", 2, 2)
    assert [name for name, *_ in _names(guest, fd=fd)] == [".", "..", "inner"]
    assert guest("fd_readdir", 3, PAGE, 4096, 2, 8) == 0
    assert guest.read(PAGE + 24, 6) == b"folder"
    assert guest("fd_close", fd) == 0
    assert guest("fd_readdir", fd, PAGE, 4096, 1, 8) == BADF


# Reactors

REACTOR = wat(
    """
    (import "wasi_snapshot_preview1" "fd_read" (func $read (param i32 i32 i32 i32) (result i32)))
    (memory (export "memory") 1)
    ;; Reads so many bytes to 1024, as often as it takes, and returns how many came.
    (func (export "ProcessStdio") (param $size i32) (result i32) (local $have i32)
      (loop $again
        (i32.store (i32.const 0) (i32.add (i32.const 1024) (local.get $have)))
        (i32.store (i32.const 4) (i32.sub (local.get $size) (local.get $have)))
        (drop (call $read (i32.const 0) (i32.const 0) (i32.const 1) (i32.const 8)))
        (local.set $have (i32.add (local.get $have) (i32.load (i32.const 8))))
        (br_if $again (i32.and (i32.ne (i32.load (i32.const 8)) (i32.const 0))
                               (i32.lt_u (local.get $have) (local.get $size)))))
      (local.get $have))
    """
)


def test_reactor_reads_what_the_host_puts_there_between_calls(world: World) -> None:
    module = wasmtime.Module(world.engine, REACTOR)
    guest = Guest(world, world.reactor, module=module, instances=1, memories=1)
    state = world.reactor.state
    for data in (b"first", b"", b"x" * 60_000):
        state.resume(Clock(), data)
        assert guest("ProcessStdio", len(data)) == len(data)
        assert guest.read(1024, len(data)) == data
    state.resume(Clock(), b"short")
    assert guest("ProcessStdio", 10) == 5
    state.resume(Clock(), b"more than is read")
    assert guest("ProcessStdio", 4) == 4
    state.resume(Clock(), b"next")
    assert guest("ProcessStdio", 4) == 4
    assert guest.read(1024, 4) == b"next"


def test_reactors_of_several_stores_take_turns(world: World) -> None:
    module = wasmtime.Module(world.engine, REACTOR)
    guests = []
    for number in range(3):
        world.reactor.state = State()
        guests.append((Guest(world, world.reactor, module=module), world.reactor.state, b"%d" % number))
    for _ in range(3):
        for guest, state, data in guests:
            world.reactor.state = state
            state.resume(Clock(), data)
            assert guest("ProcessStdio", 1) == 1
            assert guest.read(1024, 1) == data


def test_stdin_fills_one_vector_after_the_other(world: World) -> None:
    guest = Guest(world, world.reactor, stdin=b"123456789")
    guest.write(1024, struct.pack("<8I", 2048, 2, 5000, 0, 3000, 4, 4000, 100))
    assert guest("fd_read", 0, 1024, 4, 8) == 0
    assert guest.read(8, 4) == b"\x09\0\0\0"
    assert (guest.read(2048, 3), guest.read(3000, 5), guest.read(4000, 4)) == (b"12\0", b"3456\0", b"789\0")
    assert guest("fd_read", 0, 1024, 4, 8) == 0
    assert guest.read(8, 4) == bytes(4)
    assert guest("fd_read", 0, 1024, 0, 8) == 0
    assert guest("fd_read", 0, 1024, 1025, 8) == INVAL


def test_other_descriptors_are_read_as_by_wasmtime(world: World, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(os.urandom(100_000))
    seen = []
    for host in (None, world.reactor):
        guest, got, errors = Guest(world, host, folder=tmp_path), [], []
        fd = guest.open("file")
        for size in (0, 10, 50_000, 50_000, 50_000):
            guest.write(1024, struct.pack("<4I", 5, 0, PAGE, size))
            assert guest("fd_read", fd, 1024, 2, 8) == 0
            got.append(guest.read(PAGE, int.from_bytes(guest.read(8, 4), "little")))
        errors = [guest("fd_read", other, 1024, 2, 8) for other in (1, 2, 3, 9, 0xFFFFFFFF)]
        seen.append((got, errors))
    assert seen[0] == seen[1]
    assert b"".join(seen[0][0]) == (tmp_path / "file").read_bytes()


# Stores and engines


def _pooled() -> wasmtime.Config:
    config = wasmtime.Config()
    pool = ffi.wasmtime_pooling_allocation_config_new()
    ffi.wasmtime_pooling_allocation_config_total_memories_set(pool, 2)
    ffi.wasmtime_pooling_allocation_config_total_core_instances_set(pool, 2)
    ffi.wasmtime_pooling_allocation_config_total_tables_set(pool, 1)
    ffi.wasmtime_pooling_allocation_config_max_memory_size_set(pool, TOP)
    ffi.wasmtime_pooling_allocation_strategy_set(config.ptr(), pool)
    ffi.wasmtime_pooling_allocation_config_delete(pool)
    return config


def test_pool_of_two_slots_is_enough(tmp_path: Path) -> None:
    world = World(_pooled())
    (tmp_path / "file").write_bytes(b"12345")
    for _ in range(20):
        for host in (world.ours, world.deterministic, world.reactor):
            guest = Guest(world, host, folder=tmp_path)
            assert guest.poll(on_read(1, 0), on_clock(2, HOUR)) == (0, [(1, 0, 1, 1, 0)])
            assert [name for name, *_ in _names(guest)] == [".", "..", "file"]
            guest.store.close()
    # Another store holds the second slot.
    held, guest = Guest(world, world.ours), Guest(world, world.ours)
    with pytest.raises(ENDED, match="limit"):
        guest.poll(on_read(1, 0))
    held.store.close()
    guest.store.close()


@pytest.mark.parametrize(("instances", "memories"), [(1, 2), (2, 1)])
def test_store_without_room_traps_the_guest_that_needs_it(world: World, instances: int, memories: int) -> None:
    guest = Guest(world, world.ours, instances=instances, memories=memories)
    assert guest.poll(on_clock(1, 0)) == (0, [clock_event(1)])
    with pytest.raises(ENDED, match="resource limit exceeded"):
        guest.poll(on_read(1, 0))


def test_room_is_taken_once_a_store(world: World) -> None:
    guest = Guest(world, world.ours)
    state = world.ours.state
    for _ in range(3):
        assert guest.poll(on_read(1, 0)) == (0, [(1, 0, 1, 1, 0)])
    state.reset(Clock())
    assert guest.poll(on_read(1, 0)) == (0, [(1, 0, 1, 1, 0)])


def test_guest_past_its_epoch_ends_inside_of_wasmtimes_function_too(world: World) -> None:
    world_ = World()
    guest = Guest(world_, world_.ours)
    assert guest.poll(on_read(1, 0)) == (0, [(1, 0, 1, 1, 0)])
    bell = Clock()
    bell.interrupted = lambda: world_.engine.increment_epoch() and False  # type: ignore[method-assign]
    world_.ours.state.reset(bell)
    with pytest.raises(wasmtime.Trap) as caught:
        guest.poll(on_read(1, 0))
    assert caught.value.trap_code is wasmtime.TrapCode.INTERRUPT


def test_asking_wasmtime_takes_no_fuel_of_the_guest() -> None:
    config = wasmtime.Config()
    config.consume_fuel = True
    world, used = World(config), []
    for host in (None, world.ours):
        store = wasmtime.Store(world.engine)
        store.set_wasi(wasmtime.WasiConfig())
        store.set_fuel(10_000)
        store.set_epoch_deadline(1)
        linker = world.original if host is None else host.linker
        guest = Guest.__new__(Guest)
        guest.store, guest.exports = store, linker.instantiate(store, world.module).exports(store)
        assert guest.poll(on_read(1, 0), on_read(2, 0)) == (0, [(1, 0, 1, 1, 0), (2, 0, 1, 1, 0)])
        used.append(10_000 - store.get_fuel())
    assert used[0] == used[1] > 0


def _resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_ten_thousand_calls_leave_nothing(world: World, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"12345")
    kept = []

    def use(rounds: int) -> None:
        for round_ in range(rounds):
            guest = Guest(world, world.deterministic, folder=tmp_path, seed=round_)
            guest.write(2048, b"file")
            guest.poll(on_read(1, 0), on_clock(2, 5), on_clock(3, 0, MONOTONIC, ABSOLUTE))
            guest.poll(on_read(1, 99))
            guest("clock_time_get", 0, 0, 16)
            guest("random_get", 1024, 100)
            guest("fd_readdir", 3, PAGE, 4096, 0, 8)
            guest("path_filestat_get", 3, 0, 2048, 4, 1024)
            for name, arguments in (("proc_exit", (5,)), ("clock_time_get", (0, 0, 3)), ("poll_oneoff", (3, 0, 1, 0))):
                with pytest.raises(ENDED):
                    guest(name, *arguments)
            guest = Guest(world, world.ours, Broken())
            with pytest.raises(ENDED):
                guest.poll(on_clock(1, HOUR))

    for rounds in (200, 1000):
        use(rounds)
        gc.collect()
        kept.append((len(gc.get_objects()), _resident_bytes()))
    assert kept[1][0] - kept[0][0] < 100
    assert kept[1][1] - kept[0][1] < 2 << 20


def test_callbacks_outlive_whoever_made_them(world: World) -> None:
    host = Preview1(world.engine)
    gc.collect()
    ctypes.memset(ctypes.create_string_buffer(1 << 20), 1, 1 << 20)
    assert Guest(world, host).poll(on_clock(1, 0)) == (0, [clock_event(1)])


def test_guest_that_runs_out_of_stack_in_a_function_is_trapped(world: World) -> None:
    module = wasmtime.Module(
        world.engine,
        wat(
            """(import "wasi_snapshot_preview1" "poll_oneoff" (func $poll (param i32 i32 i32 i32) (result i32)))
            (memory (export "memory") 1)
            (func $down (export "run")
              (i32.store8 (i32.const 1032) (i32.const 1))
              (drop (call $poll (i32.const 1024) (i32.const 2048) (i32.const 1) (i32.const 8)))
              (call $down))"""
        ),
    )
    for _ in range(3):
        with pytest.raises(wasmtime.Trap) as caught:
            Guest(world, world.ours, module=module)("run")
        assert caught.value.trap_code is wasmtime.TrapCode.STACK_OVERFLOW
        assert not world.ours.state.failure
