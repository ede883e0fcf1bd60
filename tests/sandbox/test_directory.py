"""A guest's file system: in this process, and in confined ones where wasmtime works in it (directory_child.py)."""

import base64
import contextlib
import errno
import io
import json
import os
import signal
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.guests import ROOT
from tests.sandbox.probe import USER
from ww.sandbox import directory
from ww.sandbox.confine import FILE_SYSTEM, GIVEN, MISSING
from ww.sandbox.directory import Directory, Usage, make, remove
from ww.sandbox.invocation import GuestFault, RunLimits

on_linux = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere nothing is mounted")

MIB = 1 << 20
# Of WASI: NOSPC, FBIG, PERM, LOOP, NOTSUP, BADF, NOENT.
NOSPC, FBIG, PERM, LOOP, NOTSUP, BADF, NOENT = 51, 22, 63, 32, 58, 8, 44


def limits(files: int = MIB, count: int = 100, artifacts: int = MIB, artifact_count: int = 100) -> RunLimits:
    return RunLimits(
        10,
        1 << 30,
        1 << 20,
        files_bytes=files,
        files_count=count,
        artifact_bytes=artifacts,
        artifact_count=artifact_count,
    )


def zip_of(**files: bytes) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as writer:
        for name, content in files.items():
            writer.writestr(name.replace("__", "/"), content)
    return made.getvalue()


def unzip(data: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(data)) as reader:
        return {name: reader.read(name) for name in reader.namelist()}


def nest(top: Path, depth: int) -> None:
    """Make folders in folders, each with a file, deeper than a path can be."""
    here = os.open(top, os.O_RDONLY)
    for _ in range(depth):
        os.mkdir("d", dir_fd=here)
        os.close(os.open("file", os.O_CREAT | os.O_WRONLY, dir_fd=here))
        below = os.open("d", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(here)


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> Iterator[Directory]:
    """Open a directory where nothing is mounted."""
    # Not in tmp_path: what is nested so deeply pytest cannot remove.
    made, lock = make()
    os.close(lock)
    monkeypatch.chdir(made)
    opened = Directory(is_mounted=False)
    yield opened
    opened.close()
    opened.close()
    remove(made)


def test_what_is_filled_in_is_measured_collected_and_cleared(here: Directory) -> None:
    here.fill(b"", limits())
    assert here.used() == Usage(0, 0)
    here.fill(zip_of(a__b=b"text", c=bytes(5000)), limits())
    assert here.used() == Usage(4096 + 8192, 3)
    assert unzip(here.collect(["/a", "c"], limits())) == {"a/b": b"text", "c": bytes(5000)}
    here.clear()
    assert os.listdir() == []
    assert here.used() == Usage(0, 0)
    here.clear()


@pytest.mark.parametrize(
    ("files", "room", "words"),
    [
        (b"no zip", limits(), "no zip"),
        (zip_of(a=bytes(5000)), limits(files=4999), "holds 5000 bytes when it is unpacked, the limit is 4999"),
        (zip_of(a=b"1", b=b"2"), limits(files=5000), "reached 8192 bytes, the limit is 5000"),
        (zip_of(a=b"1", b=b"2"), limits(count=1), "has 2 entries, the limit is 1 files and folders"),
    ],
    ids=["no zip", "declared", "pages", "count"],
)
def test_files_that_are_not_to_be_unpacked_end_the_run(
    here: Directory, files: bytes, room: RunLimits, words: str
) -> None:
    with pytest.raises(GuestFault, match=words) as fault:
        here.fill(files, room)
    assert fault.value.reason == "files"
    here.clear()
    assert os.listdir() == []


def test_a_full_disk_ends_the_run_and_another_failure_does_not(
    here: Directory, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(directory.archive, "unpack", refuse)
    number = errno.ENOSPC
    with pytest.raises(GuestFault, match="the file system takes no more after 0 bytes"):
        here.fill(b"zip", limits())
    number = errno.EIO
    with pytest.raises(OSError, match="Input/output error"):
        here.fill(b"zip", limits())


@pytest.mark.parametrize(
    ("paths", "room", "words"),
    [
        (["a", "nothing"], limits(), "there is no 'nothing'"),
        (["/"], limits(artifacts=4), "the files have 5 bytes, the limit is 4"),
        (["/"], limits(artifact_count=1), "2 files are more than the limit, 1"),
        (["a", "../../etc/passwd"], limits(), "has '..' in it"),
    ],
)
def test_artifacts_that_cannot_be_given_end_the_run(
    here: Directory, paths: list[str], room: RunLimits, words: str
) -> None:
    here.fill(zip_of(a=b"1", d__b=b"2345"), limits())
    with pytest.raises(GuestFault, match=words) as fault:
        here.collect(paths, room)
    assert fault.value.reason == "artifacts"


def test_folders_to_open_are_made_and_stay_inside(here: Directory) -> None:
    here.fill(zip_of(data__file=b"text"), limits())
    assert here.dirs([]) == [(".", "/")]
    assert here.dirs(["/data", "out/logs/", "./data", "/", "/data"]) == [
        ("./data", "/data"), ("./out/logs", "out/logs/"), ("./data", "./data"), (".", "/"),
    ]  # fmt: skip
    assert sorted(os.listdir()) == ["data", "out"]
    os.symlink("/etc", "etc")
    for name in ("..", "/../etc", "data/file", "etc", "etc/x", "a\0b", "", "x" * 300, "x\\y"):
        with pytest.raises(GuestFault) as fault:
            here.dirs([name])
        assert fault.value.reason == "files"
        assert str(fault.value).isprintable()
    assert os.listdir("out") == ["logs"]


def test_what_is_over_the_limits_is_said_with_the_figure(here: Directory) -> None:
    here.fill(zip_of(a__b=b"text", c=bytes(5000)), limits())
    assert here.fault(limits(files=12_288, count=3)) is None
    for room, words in (
        (limits(files=12_287), "the file system reached 12288 bytes, the limit is 12287"),
        (limits(count=2), "the file system reached 3 files and folders, the limit is 2"),
    ):
        fault = here.fault(room)
        assert fault is not None
        assert (fault.reason, fault.detail) == ("files", words)


def test_holes_count_where_they_may_be_filled_later(here: Directory) -> None:
    Path("hole").touch()
    os.truncate("hole", 100 * MIB)
    assert here.used() == Usage(100 * MIB, 1)


def test_watching_takes_a_small_part_of_the_time(here: Directory, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(directory.time, "monotonic", lambda: now)

    def walk(_: int) -> Usage:
        nonlocal now, walks
        now, walks = now + 0.01, walks + 1
        return Usage(0, 0)

    walks = 0
    monkeypatch.setattr(directory, "_walk", walk)
    while now < 110:
        assert here.watch(limits()) is None
        now += 0.01
    assert 48 <= walks <= 52, "a tenth of a second's walk in two seconds"
    monkeypatch.setattr(directory, "_walk", lambda _: Usage(2 * MIB, 1))
    now += 1
    assert here.watch(limits()) is not None


def test_nested_deeper_than_paths_are_long_is_no_way_out(here: Directory) -> None:
    nest(Path(), 2100)
    fault = here.fault(limits(count=10_000))
    assert fault is not None
    assert "a path of more than 4000 bytes" in fault.detail
    with pytest.raises(GuestFault, match=r"has 102[56] bytes, the limit is 1024"):
        here.collect(["/"], limits())
    here.clear()
    assert os.listdir() == []
    nest(Path(), 2100)
    made = Path.cwd()
    remove(made)
    assert not made.exists()


def test_clearing_takes_names_as_they_come(here: Directory) -> None:
    for name in ("0", "1", "2/0/0/1", "2/1/0", "0-x/1/2", "\u00fc/ /\n"):
        (Path(name) if name in ("0",) else Path("top", name)).mkdir(parents=True)
    Path("3").write_text("a file")
    Path("top/4").write_text("a file")
    os.symlink("..", "top/up")
    os.symlink("/etc", "top/2/etc")
    for folder in ("5", "6"):
        Path(folder, "0", "0").mkdir(parents=True)
    here.clear()
    assert os.listdir() == []
    assert Path("/etc").exists()


def test_removing_follows_no_link_and_may_be_done_twice(tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    kept.mkdir()
    (kept / "file").touch()
    (tmp_path / "link").symlink_to(kept)
    with pytest.raises(OSError, match=r"Not a directory|symbolic links"):
        remove(tmp_path / "link")
    made, lock = make()
    os.close(lock)
    assert made.stat().st_mode & 0o777 == 0o700
    (made / "link").symlink_to(kept)
    remove(made)
    remove(made)
    assert not made.exists()
    assert os.listdir(kept) == ["file"]


def test_removing_needs_no_leave_of_who_made_what_is_there() -> None:
    made, lock = make()
    os.close(lock)
    program = f"""
import os
from pathlib import Path
from ww.sandbox.directory import remove
if os.getuid() == 0:
    os.setresuid({USER}, {USER}, {USER})
os.chdir({str(made)!r})
for name in ("a", "a/b", "a/b/c", "d"):
    os.mkdir(name)
Path("a/b/c/file").touch()
for name in ("a/b/c", "a/b", "a", "d"):
    os.chmod(name, 0)
remove(Path({str(made)!r}))
"""
    if os.getuid() == 0:
        os.chown(made, USER, -1)
    try:
        subprocess.run([sys.executable, "-c", program], check=True, cwd=ROOT, timeout=20)
        assert not made.exists()
    finally:
        remove(made)


# In confined processes, with wasmtime.


class Confined:
    """A process of directory_child.py, killed for any system call that is not on the list."""

    def __init__(self, folder: Path, **told: Any) -> None:
        self.folder = folder
        told = {"directory": str(folder), "bytes_max": 8 * MIB, "count_max": 100, **told}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.sandbox.directory_child", json.dumps(told)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT, env={"PYTHONPATH": str(ROOT)},
        )  # fmt: skip
        self.states = {name: state for name, (state, _) in self._said()["states"].items()}

    def _said(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, f"it was killed: {self._process.wait()}"
        return json.loads(line)

    def ask(self, do: str, room: RunLimits | None = None, **request: Any) -> Any:
        room = room or limits(8 * MIB)
        given = {
            name: getattr(room, name) for name in ("files_bytes", "files_count", "artifact_bytes", "artifact_count")
        }
        assert self._process.stdin is not None
        print(json.dumps({"do": do, "limits": given, **request}), file=self._process.stdin, flush=True)
        return self._said()

    def does(self, do: str, room: RunLimits | None = None, **request: Any) -> Any:
        return self.ask(do, room, **request)["ok"]

    def run(self, *args: str, dirs: tuple[str, ...] = ()) -> list[str]:
        return list(self.does("run", args=args, dirs=dirs).splitlines())

    def fill(self, files: bytes, room: RunLimits | None = None) -> Any:
        return self.ask("fill", room, zip=base64.b64encode(files).decode())

    def collect(self, *paths: str) -> dict[str, bytes]:
        return unzip(base64.b64decode(self.does("collect", paths=paths)))

    def kill(self) -> None:
        self._process.kill()
        self._process.communicate()


@contextlib.contextmanager
def confined(*, as_user: bool = False, **told: Any) -> Iterator[Confined]:
    folder, lock = make()
    os.close(lock)
    process = None
    try:
        if as_user:
            os.chown(folder, USER, -1)
        process = Confined(folder, as_user=as_user, **told)
        yield process
    finally:
        if process is not None:
            process.kill()
        remove(folder)


def each_user() -> list[bool]:
    return [False, True] if os.getuid() == 0 else [False]


@pytest.fixture(params=[(user, mounted) for user in each_user() for mounted in (True, False)])
def child(request: pytest.FixtureRequest) -> Iterator[Confined]:
    """Start a process: of root's or of a user's, where something can be mounted or not."""
    if sys.platform != "linux":
        pytest.skip("elsewhere nothing is mounted")
    as_user, mounted = request.param
    with confined(as_user=as_user, no_mount=not mounted) as process:
        if mounted and process.states[FILE_SYSTEM] != GIVEN:
            pytest.skip("this host lets nobody mount")
        assert process.states[FILE_SYSTEM] == (GIVEN if mounted else MISSING)
        yield process


def is_bounded(child: Confined) -> bool:
    return child.states[FILE_SYSTEM] == GIVEN


def test_every_file_function_works_and_none_is_a_call_that_is_refused(child: Confined) -> None:
    said = dict(line.rpartition(" ")[::2] for line in child.run("all"))
    assert len(said) > 50
    refused = {call.removeprefix("__wasi_"): int(number) for call, number in said.items() if number != "0"}
    by_wasmtime = {
        "fd_allocate(fd, 0, 8192)": NOTSUP,
        "fd_sync(folder)": BADF,
        "fd_fdstat_set_rights(fd, flags.fs_rights_base, flags.fs_rights_inheriting)": NOTSUP,
        'path_open(folder, 1, "synced", __WASI_OFLAGS_CREAT, rights, rights, __WASI_FDFLAGS_SYNC, &other)': NOTSUP,
        "fd_write(other, &out, 1, &size)": BADF,
        'path_unlink_file(folder, "synced")': NOENT,
        'path_symlink("/etc/passwd", folder, "absolute")': PERM,
    }
    out = {
        'path_open(folder, 1, "relative", 0, rights, rights, 0, &other)': PERM,
        'path_open(folder, 0, "relative", 0, rights, rights, 0, &other)': LOOP,
        'path_open(folder, 1, "../etc/passwd", 0, rights, rights, 0, &other)': PERM,
        'path_open(folder, 1, "/etc/passwd", 0, rights, rights, 0, &other)': PERM,
    }
    assert refused == by_wasmtime | out
    assert child.does("used") == [0, 0]


def test_a_guest_gets_its_files_and_gives_its_artifacts(child: Confined) -> None:
    assert child.fill(zip_of(data__in=b"given", other=b"x"))["ok"] is None
    said = child.run("cat", "data/in", "put", "data/out", "made", "mkdir", "empty", "link", "in", "data/link")
    assert said == ["cat 0 given", "put 0", "mkdir 0", "link 0"]
    assert child.collect("data", "empty") == {"data/in": b"given", "data/out": b"made", "empty/": b""}
    size, count = child.does("used")
    assert (size, count) == (3 * 4096 + (0 if is_bounded(child) else 4096), 6)
    child.does("clear")
    assert child.does("used") == [0, 0]
    assert child.run("cat", "/data/in") == [f"cat {NOENT} "], "nothing is left to the next run"
    child.run("put", "there", "x")
    assert os.listdir(child.folder) == ([] if is_bounded(child) else ["there"])


def test_only_the_folders_that_are_named_are_open(child: Confined) -> None:
    child.fill(zip_of(data__in=b"given", secret=b"x"))
    said = child.run(
        "cat", "/data/in", "cat", "/secret", "cat", "/data/../secret", "put", "/out/a", "b", dirs=("/data", "/out")
    )
    assert said[0] == "cat 0 given"
    assert all(line.split()[1] != "0" for line in said[1:3])
    assert said[3] == "put 0"
    assert child.collect("out") == {"out/a": b"b"}


@on_linux
@pytest.mark.parametrize("as_user", each_user())
def test_a_guest_can_fill_no_more_than_there_is(as_user: bool) -> None:
    with confined(as_user=as_user) as child:
        if not is_bounded(child):
            pytest.skip("this host lets nobody mount")
        assert child.run("fill", "big") == [f"fill {NOSPC} {8 * MIB + 4096}"]
        assert child.does("fault") == f"the file system reached {8 * MIB + 4096} bytes, the limit is {8 * MIB}"
        child.does("clear")
        assert child.run("many", "1000") == [f"many {NOSPC} 101"]
        assert child.does("fault") == "the file system reached 101 files and folders, the limit is 100"
        child.does("clear")
        # A run may have less than there is: as a zip, and as a file.
        fault = child.fill(zip_of(a=bytes(4096), b=bytes(4097)), limits(8193))
        assert (fault["fault"], fault["detail"]) == ("files", "the file system reached 12288 bytes, the limit is 8193")
        child.does("clear")
        child.does("cap", most=10_000)
        assert child.run("fill", "big") == [f"fill {FBIG} 10000"]
        child.does("clear")
        fault = child.fill(zip_of(a=bytes(10_001)))
        assert fault["detail"] == "the file system takes no more after 12288 bytes"
        child.does("clear")
        assert child.does("used") == [0, 0]


def test_a_guest_may_have_many_files_open_and_not_all_there_are(child: Confined) -> None:
    child.run("put", "a", "x")
    said = child.run(*("open", "a") * 400)
    assert 200 < said.count("open 0") < 256
    assert set(said) == {"open 0", "open 29"}, "wasmtime says IO of it"


@on_linux
def test_a_guests_deepest_folders_are_cleared() -> None:
    with confined(count_max=2000) as child:
        assert child.run("deep", "1500", "put", "d/d/file", "x") == ["deep 0 1500", "put 0"]
        assert child.does("used")[1] == 1501
        assert child.does("clear") < 5
        assert child.does("used") == [0, 0]
        assert child.does("clear", times=1000) < 1, "it runs between runs"


@on_linux
@pytest.mark.parametrize("as_user", each_user())
def test_nothing_is_left_where_a_process_is_killed(as_user: bool) -> None:
    folder, lock = make()
    os.close(lock)
    try:
        if as_user:
            os.chown(folder, USER, -1)
        child = Confined(folder, as_user=as_user)
        bounded = is_bounded(child)
        child.run("fill", "big")
        os.kill(child._process.pid, signal.SIGKILL)
        child.kill()
        assert bounded == (os.listdir(folder) == [])
    finally:
        remove(folder)
    assert not folder.exists()
