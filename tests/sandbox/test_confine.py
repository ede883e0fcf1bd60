"""What an escaped guest can do, tried from within real sandbox processes (probe.py), and what guests still can.

Each protection is left out in turn: what is behind it must hold without it.
"""

import contextlib
import json
import logging
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import until
from tests.guests import FLOOD, GROW_4_GIB, SLEEP_FOR_EVER, START_WITH_4_GIB, function, guest, wat
from tests.sandbox.probe import AS_USER, DONE, SPACE_BYTES, SPACE_COUNT, USER, WITHOUT_KERNEL, WITHOUT_MOUNT, WORK_IN
from tests.sandbox.test_pool import Sandbox, children
from ww.errors import BadModule, WwError
from ww.identity import Identity
from ww.sandbox import confine, linux
from ww.sandbox.child import Child
from ww.sandbox.confine import ESSENTIAL, GIVEN, MISSING, NEEDLESS, ConfinementConfig
from ww.sandbox.directory import make, remove
from ww.sandbox.limits import SandboxLimits
from ww.sandbox.modules import ModuleCache
from ww.sandbox.pool import SandboxPool

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(sys.platform != "linux", reason="elsewhere there is next to nothing to confine with"),
]
as_root = pytest.mark.skipif(os.getuid() != 0, reason="root alone can be another user")

PROTECTIONS = [
    "priority", "limits", "descriptors", "network", "file system size", "directory", "root directory", "user",
    "capabilities", "privileges", "parent", "files", "system calls",
]  # fmt: skip
HAS_TO_WORK = {"thread", "machine code", "own signal", "lower a limit", "memfd"}
# What no other protection would refuse. None of it leads out: a process without rights, a socket without a network.
BY_CALLS_ALONE = {"fork", "socket", "unix socket", "socketpair", "signal by input", "limit another", "keyctl"}
# Where there is no empty directory there is none to be the root, and where no user namespace no right to make it that.
WITH = {"directory": "root directory", "network": "root directory"}
# And what only this one holds.
BY_ITSELF = {"limits": {"raise NOFILE", "raise FSIZE", "raise CORE"}, "system calls": BY_CALLS_ALONE}


NOWHERE = confine._Root(None)


class Probe(Child):
    """A sandbox process with an escaped guest in it."""

    module = "tests.sandbox.probe"

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def states(self) -> dict[str, str]:
        return {protection.name: protection.state for protection in self.protections}

    async def tries(self, ground: dict[str, Any], *only: str) -> dict[str, str]:
        class Request:
            def to_bytes(self) -> bytes:
                return json.dumps(ground | ({"only": only} if only else {})).encode()

        return dict(json.loads(await self.ask(Request(), 20)))

    async def gets(self, ground: dict[str, Any]) -> set[str]:
        """Return what the guest can do that it need not."""
        said = await self.tries(ground)
        done = {name for name, outcome in said.items() if outcome == DONE}
        assert done >= HAS_TO_WORK, said
        return done - HAS_TO_WORK


@contextlib.asynccontextmanager
async def a_probe(role: str = "executor", nice: int = 5, without: tuple[str, ...] = ()) -> AsyncIterator[Probe]:
    probe = Probe(role, SandboxLimits(files_bytes_max=0), ConfinementConfig(nice, without))
    await probe.start()
    try:
        assert list(probe.states) == PROTECTIONS
        yield probe
    finally:
        await probe.aclose()


@contextlib.contextmanager
def ground_of(user: int) -> Iterator[dict[str, Any]]:
    """Make all that a guest could do harm to, of that user and for everybody to reach."""
    folder = Path(tempfile.mkdtemp(prefix="ww-test-"))
    victim = subprocess.Popen(["sleep", "100"], user=user if user != os.getuid() else None)
    try:
        folder.chmod(0o755)
        Identity.load(folder / "gateway.key").close()
        (folder / "cache").mkdir(mode=0o700)
        (folder / "cache" / "module.wasm").write_bytes(guest("noop"))
        for path in (folder, *folder.rglob("*")):
            os.chown(path, user, -1)
        with socket.create_server(("127.0.0.1", 0)) as listening:
            yield {
                "key": str(folder / "gateway.key"),
                "cache": str(folder / "cache"),
                "anywhere": str(folder / "escaped"),
                "victim": victim.pid,
                "memory": int(Path(f"/proc/{victim.pid}/maps").read_text().partition("-")[0], 16),
                "address": listening.getsockname(),
            }
        assert victim.poll() is None
        assert sorted(path.name for path in folder.rglob("*")) == ["cache", "gateway.key", "module.wasm"]
        assert (folder / "gateway.key").stat().st_mode & 0o777 == 0o600
    finally:
        victim.kill()
        victim.wait()
        shutil.rmtree(folder)


@pytest.fixture
def ground() -> Iterator[dict[str, Any]]:
    with ground_of(os.getuid()) as ground:
        yield ground


@pytest.fixture
def users_ground() -> Iterator[dict[str, Any]]:
    with ground_of(USER) as ground:
        yield ground


def is_stopped(pid: int) -> bool:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"


def skip_unless_given(probe: Probe, but_for: tuple[str, ...] = ()) -> None:
    lacking = [p for p in probe.protections if p.state == MISSING and p.name not in but_for]
    if lacking:
        pytest.skip(f"this host does not give {lacking}")


@pytest.mark.parametrize("role", ["executor", "compiler"])
async def test_an_escaped_guest_is_refused_everything(role: str, ground: dict[str, Any]) -> None:
    async with a_probe(role) as probe:
        assert {name for name in ESSENTIAL if probe.states[name] != GIVEN} == set()
        said = await probe.tries(ground)
    assert {name for name, outcome in said.items() if outcome == DONE} == HAS_TO_WORK
    by_the_filter = ["fork", "vfork", "execve", "execve by descriptor", "socket", "connect", "bind", "unix socket",
                     "socketpair", "ptrace", "read memory", "signal", "signal a thread", "signal by input", "mount",
                     "unshare", "setns", "bpf", "keyctl", "io_uring_setup", "userfaultfd", "chmod", "read the key",
                     "read /etc/passwd", "add to the cache", "change the cache", "type into a terminal"]  # fmt: skip
    assert {name: said[name] for name in by_the_filter} == dict.fromkeys(by_the_filter, "EPERM")
    assert said["clone3"] == "ENOSYS", "libc would not fall back to clone otherwise"


@as_root
async def test_an_escaped_guest_of_an_ordinary_users_worker_is_refused_everything(users_ground: dict[str, Any]) -> None:
    async with a_probe(without=(AS_USER,)) as probe:
        assert probe.states["user"] == NEEDLESS
        assert await probe.gets(users_ground) == set()


@pytest.mark.parametrize("without", PROTECTIONS)
async def test_what_is_behind_a_protection_holds_without_it(without: str, ground: dict[str, Any]) -> None:
    async with a_probe(without=(without,)) as probe:
        skip_unless_given(probe, but_for=(without, WITH.get(without, "")))
        assert await probe.gets(ground) <= BY_ITSELF.get(without, set())


@as_root
@pytest.mark.parametrize("without", ["network", "root directory", "privileges", "files", "system calls"])
async def test_what_is_behind_a_protection_holds_for_an_ordinary_user(
    without: str, users_ground: dict[str, Any]
) -> None:
    async with a_probe(without=(without, AS_USER)) as probe:
        skip_unless_given(probe, but_for=(without, WITH.get(without, "")))
        assert await probe.gets(users_ground) <= BY_ITSELF.get(without, set())


@as_root
async def test_without_any_protection_the_attempts_succeed(ground: dict[str, Any]) -> None:
    tried = ["read the key", "read /etc/passwd", "read by a descriptor", "read the cache", "list the cache",
             "change the cache", "read memory by a file", "read the environment", "read memory", "ptrace", "signal",
             "signal a thread", "limit another", "connect", "bind", "send a datagram", "socketpair",
             "fork", "vfork", "raise priority"]  # fmt: skip
    async with a_probe(without=tuple(PROTECTIONS)) as probe:
        assert set(probe.states.values()) == {MISSING}
        assert await probe.tries(ground, *tried) == dict.fromkeys(tried, DONE)


async def test_the_kernel_says_so_too(ground: dict[str, Any]) -> None:
    async with a_probe(nice=7) as probe:
        skip_unless_given(probe)
        process = Path(f"/proc/{probe.pid}")
        tasks = list((process / "task").iterdir())
        assert len(tasks) == 2, "the guest's thread, and the one that watches over it"
        for task in tasks:
            said = dict(line.split(":\t", 1) for line in (task / "status").read_text().splitlines() if ":\t" in line)
            assert (said["NoNewPrivs"], said["Seccomp"]) == ("1", "2")
            assert {int(said[name], 16) for name in ("CapInh", "CapPrm", "CapEff", "CapAmb")} == {0}
            if os.getuid() == 0:
                assert int(said["CapBnd"], 16) == 0
                assert set(said["Uid"].split()) == set(said["Gid"].split()) == {str(0x70000000 + probe.pid)}
                assert said["Groups"].strip() == ""
        assert os.getpriority(os.PRIO_PROCESS, probe.pid) == os.getpriority(os.PRIO_PROCESS, 0) + 7
        limits = {line[:26].strip(): line[26:].split()[:2] for line in (process / "limits").read_text().splitlines()}
        assert limits["Max open files"] == ["64", "64"]
        assert limits["Max core file size"] == ["0", "0"]
        assert limits["Max file size"] == [str(256 << 20)] * 2


@as_root
async def test_nothing_is_inherited_and_nothing_is_left_open() -> None:
    with socket.socket() as other:
        os.set_inheritable(other.fileno(), True)
        async with a_probe() as probe:
            process = Path(f"/proc/{probe.pid}")
            opened = [os.readlink(fd) for fd in (process / "fd").iterdir()]
            rest = sorted(name.partition(":")[0] for name in opened if name != os.devnull)
            # Input, output, errors, artifacts and control, and the second and third again as 1 and 2; which of its own
            # pages differ from their files; where its last words and its answers go.
            assert rest == ["/memfd"] * 7 + [f"/proc/{probe.pid}/pagemap", "pipe", "socket"]
            assert os.readlink(process / "cwd").endswith(" (deleted)")
            assert os.readlink(process / "root").endswith(" (deleted)")
            for kind in ("net", "ipc"):
                assert os.readlink(process / "ns" / kind) != os.readlink(f"/proc/self/ns/{kind}")
            assert (process / "environ").read_bytes().count(b"\0") == 2


@pytest.fixture(params=[pytest.param(AS_USER, marks=as_root), "~whoever-it-is"])
def user(request: pytest.FixtureRequest) -> str:
    """Say whose process it is, for a probe."""
    return str(request.param)


def mounts(pid: int | str = "self") -> str:
    return Path(f"/proc/{pid}/mountinfo").read_text()


@contextlib.contextmanager
def a_folder_for(user: str) -> Iterator[Path]:
    folder, lock = make()
    os.close(lock)
    try:
        os.chown(folder, USER if user == AS_USER else os.getuid(), -1)
        yield folder
    finally:
        remove(folder)
        assert not folder.exists()


def users_of(user: str) -> int:
    return USER if user == AS_USER else os.getuid()


WITH_FILES = {"work with files", "write here"}
# As nothing else bounds it, somebody has to watch.
UNBOUNDED = {"fill the disk", "make files for ever"}
# Only a list of calls, or a mount, keeps a pipe from being made: in its own directory, between it and itself.
WITHOUT_THIS_TOO = {"system calls": {*BY_CALLS_ALONE, "make a pipe"}}


async def test_a_file_system_of_its_own_is_all_that_it_has(user: str) -> None:
    with ground_of(users_of(user)) as ground, a_folder_for(user) as folder:
        async with a_probe(without=(user, f"{WORK_IN}{folder}")) as probe:
            skip_unless_given(probe)
            assert await probe.gets(ground) == WITH_FILES
            said = {p.name: p.detail for p in probe.protections}
            assert said["limits"].startswith("256 descriptors,")
            assert said["file system size"] == f"{SPACE_BYTES >> 20} MiB and {SPACE_COUNT} files in memory"
            assert os.listdir(folder) == [], "it is mounted for the process alone"
            assert str(folder) not in mounts()


@pytest.mark.parametrize("without", ["", "root directory"])
async def test_the_folder_need_not_be_kept_where_something_is_mounted_over_it(user: str, without: str) -> None:
    with ground_of(users_of(user)) as ground, a_folder_for(user) as folder:
        async with a_probe(without=(user, without, f"{WORK_IN}{folder}")) as probe:
            skip_unless_given(probe, but_for=(without,))
            remove(folder)
            assert await probe.gets(ground) == WITH_FILES


async def test_the_file_system_takes_no_more_than_it_may(user: str) -> None:
    with ground_of(users_of(user)) as ground, a_folder_for(user) as folder:
        async with a_probe(without=(user, f"{WORK_IN}{folder}")) as probe:
            skip_unless_given(probe)
            said = await probe.tries(ground, "fill the disk", "make files for ever")
    assert set(said.values()) == {"ENOSPC"}


async def test_where_nothing_can_be_mounted_a_folder_is_all_that_it_has(user: str) -> None:
    with ground_of(users_of(user)) as ground, a_folder_for(user) as folder:
        async with a_probe(without=(user, f"{WORK_IN}{folder}", WITHOUT_MOUNT)) as probe:
            assert {p.name for p in probe.protections if p.state == MISSING} == {"file system size"}
            assert await probe.gets(ground) == WITH_FILES | UNBOUNDED
        assert {"escaped", "moved", "filled"} < set(os.listdir(folder))


@pytest.mark.parametrize("without", PROTECTIONS)
async def test_what_is_behind_a_protection_holds_with_files_too(without: str, user: str) -> None:
    with ground_of(users_of(user)) as ground, a_folder_for(user) as folder:
        async with a_probe(without=(without, user, f"{WORK_IN}{folder}")) as probe:
            skip_unless_given(probe, but_for=(without, WITH.get(without, "")))
            allowed = WITH_FILES | (UNBOUNDED if without == "file system size" else set())
            allowed |= WITHOUT_THIS_TOO.get(without, BY_ITSELF.get(without, set()))
            assert await probe.gets(ground) <= allowed


async def test_a_process_that_cannot_go_to_its_folder_gets_no_files(ground: dict[str, Any]) -> None:
    gone, lock = make()
    os.close(lock)
    remove(gone)
    async with a_probe(without=(f"{WORK_IN}{gone}",)) as probe:
        assert probe.states["directory"] == MISSING
        assert await probe.gets(ground) == set()


async def test_a_user_without_a_number_mounts_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    root = confine._Root(confine.Space(Path("/nonexistent"), 1, 1))
    monkeypatch.setattr(linux, "unshare", lambda _: None)
    monkeypatch.setattr(os, "geteuid", lambda: 65534)
    assert confine._take("name", root.mount, ()).detail == "its user has no number in its namespace"


async def test_nothing_is_left_of_a_process_that_is_killed(user: str) -> None:
    before = mounts()
    with ground_of(users_of(user)) as ground, a_folder_for(user) as folder:
        async with a_probe(without=(user, f"{WORK_IN}{folder}")) as probe:
            skip_unless_given(probe)
            await probe.tries(ground, "fill the disk")
            os.kill(probe.pid, signal.SIGKILL)
        assert os.listdir(folder) == []
        os.rmdir(folder)
    assert mounts() == before


@as_root
async def test_nothing_else_is_mounted_where_it_is(user: str) -> None:
    with a_folder_for(user) as folder:
        async with a_probe(without=(user, f"{WORK_IN}{folder}")) as probe:
            skip_unless_given(probe)
            (mounted,) = mounts(probe.pid).splitlines()
            assert " / / " in mounted
            for words in ("nosuid", "nodev", "noexec", " - tmpfs ", f"nr_inodes={SPACE_COUNT + 2}"):
                assert words in mounted


async def test_where_the_kernel_gives_nothing_it_is_told_and_the_process_runs() -> None:
    async with a_probe(without=(WITHOUT_KERNEL,)) as probe:
        lacking = {p.name: p.detail for p in probe.protections if p.state == MISSING}
    of_linux = ["network", "root directory", "capabilities", "privileges", "parent", "files", "system calls"]
    of_linux += ["user"] if os.getuid() == 0 else []
    assert lacking == dict.fromkeys(of_linux, "the kernel does not have it")


async def test_what_another_system_says_is_no_crash(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(linux, "_LIBC", None)
    monkeypatch.delattr(os, "setresuid")
    for step in (
        confine._leave_namespaces,
        confine._drop_capabilities,
        confine._end_with_parent,
        lambda: confine._restrict_files(NOWHERE),
        lambda: confine._restrict_calls(NOWHERE),
    ):
        assert confine._take("name", step, ()) == confine.Protection("name", MISSING, "only Linux has it")
    assert confine._take("name", lambda: str(os.setresuid), ()).detail == "this system does not have it"


@pytest.mark.parametrize(
    ("version", "bits", "size"),
    [(1, 13, 8), (2, 14, 8), (3, 15, 8), (4, 15, 16), (5, 16, 16), (6, 16, 24), (99, 16, 24)],
)
async def test_each_landlock_is_asked_for_what_it_knows(
    version: int, bits: int, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[Any, ...]] = []

    def syscall(number: int, *arguments: Any) -> int:
        asked.append(arguments)
        return version if len(asked) == 1 else os.open(os.devnull, os.O_RDONLY) if len(asked) == 2 else 0

    monkeypatch.setattr(linux, "syscall", syscall)
    assert confine._restrict_files(NOWHERE) == f"Landlock {version}: none"
    (ruleset, its_size, _), _ = asked[1:]
    assert (int.from_bytes(ruleset[:8], "little"), its_size) == ((1 << bits) - 1, size)


async def test_a_landlock_that_is_switched_off_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def syscall(number: int, *arguments: Any) -> int:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(linux, "syscall", syscall)
    taken = confine._take("files", lambda: confine._restrict_files(NOWHERE), ())
    assert "switched off" in taken.detail


async def test_a_worker_that_could_not_end_a_child_of_another_user_keeps_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(linux, "effective_capabilities", lambda: ~(1 << 5))
    assert "CAP_KILL" in confine._take("user", lambda: confine._change_user(NOWHERE), ()).detail


async def test_numbers_that_a_container_does_not_have_are_nobodys() -> None:
    tried: list[int] = []

    def change(number: int) -> None:
        tried.append(number)
        if number != 65534:
            raise OSError(22, "Invalid argument")

    assert confine._become(change) == 65534
    assert tried == [0x70000000 + os.getpid(), 65534]


async def test_what_is_missing_is_logged_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    cache = ModuleCache(tmp_path / "cache", quota_bytes=1 << 30)
    config = ConfinementConfig(without=("network", "files"))
    limits = SandboxLimits(runs_per_child=1)
    with caplog.at_level(logging.INFO, "ww.sandbox"):
        async with SandboxPool(cache, slots=2, limits=limits, confinement=config) as pool:
            sandbox = Sandbox(pool, cache)
            for i in range(3):
                assert (await sandbox.call(guest("noop"), i, 0)).value == i
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == 1, said
    for words in ("network (left out)", "files (left out)", "ww doctor"):
        assert words in said[0]


async def test_last_words_are_logged(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Child, "module", "tests.sandbox.nothing_there")
    with pytest.raises(WwError, match="does not start"):
        await Child("executor", SandboxLimits(), ConfinementConfig()).start()
    assert "No module named" in caplog.text


TRAPS = {
    "unreachable": function("unreachable"),
    "stack_overflow": function("(call $run (i32.const 0) (i32.const 0))"),
    "integer_division_by_zero": function("(i32.div_u (i32.const 1) (local.get 0))"),
    "memory_out_of_bounds": function("(i32.load (i32.const 65536))", "(memory 1)"),
    "indirect_call_to_null": function("(call_indirect (param) (result i32) (i32.const 0))", "(table 1 funcref)"),
}


async def test_no_guest_needs_a_call_that_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Child, "module", "tests.sandbox.strict_executor")
    cache = ModuleCache(tmp_path / "cache", quota_bytes=1 << 30)
    async with SandboxPool(cache, slots=1, limits=SandboxLimits(memory_bytes_max=256 << 20)) as pool:
        sandbox = Sandbox(pool, cache)
        assert (await sandbox.call(guest("hash"), 7, 3)).value == 7379
        before = children()
        given = b"x" * 50_000
        for code in (0, 7, 126, 255):
            env = [{"key": "EXIT", "value": str(code)}]
            outcome = await sandbox.run(guest("echo"), args=["a"], stdin=given, env=env)
            assert (outcome.exit_code, outcome.stdout) == (code, b"a\n" + given)
        for kind, module in TRAPS.items():
            assert (await sandbox.call(module)).detail == kind
        assert (await sandbox.run(FLOOD, output_bytes=1000)).stdout_truncated
        assert (await sandbox.call(guest("spin"), 0, 0, duration_s=0.1)).reason == "deadline"
        assert (await sandbox.call(START_WITH_4_GIB)).reason == "memory"
        assert (await sandbox.call(GROW_4_GIB)).detail == "memory_out_of_bounds"
        with pytest.raises(BadModule):
            await sandbox.prepare(wat("")[:-1] + b"\x01nonsense")
        many = wat("".join(f"(func (result i32) {'(i32.const 1) (drop) ' * 200} (i32.const {i}))" for i in range(400)))
        await sandbox.prepare(many)
        for pid in before:
            # Stopped and continued: what the kernel then calls anew is a call too.
            os.kill(pid, signal.SIGSTOP)
            await until(lambda pid=pid: is_stopped(pid))  # type: ignore[misc]
            os.kill(pid, signal.SIGCONT)
            await until(lambda pid=pid: not is_stopped(pid))  # type: ignore[misc]
        assert (await sandbox.call(guest("noop"), 3, 0)).value == 3
        assert children() == before, "one was killed"
        assert (await sandbox.run(SLEEP_FOR_EVER, duration_s=0.1)).reason == "deadline"
