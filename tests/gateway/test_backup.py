"""Copies of what a gateway keeps: whole, of one moment, taken and looked at while it runs; and what is not whole."""

import asyncio
import hashlib
import io
import os
import signal
import tarfile
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from tests.gateway.stored import LARGE, add, change, end, ids, result, results_of, rows, spec
from ww.cli import main
from ww.errors import StoreError, UsageError
from ww.gateway.backup import backup, restore
from ww.gateway.database import newest_backup
from ww.gateway.integrity import defects
from ww.gateway.segments import directory_of
from ww.gateway.store import Store, StoreConfig

pytestmark = pytest.mark.anyio

MODULE, ZIP, ARTIFACT, INPUTS = b"module", b"zip", b"artifact", b"inputs"


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """A state directory with the files that `fill` names."""
    gateway = tmp_path / "state" / "gateway"
    for folder, name, data in (
        ("modules", f"{sha256(MODULE)}.wasm", MODULE),
        ("modules", f"{sha256(ZIP)}.zip", ZIP),
        ("modules", f"{sha256(INPUTS)}.inputs", INPUTS),
        ("modules", f"{sha256(b'unnamed')}.wasm", b"unnamed"),
        ("artifacts", f"{sha256(ARTIFACT)}.zip", ARTIFACT),
    ):
        (gateway / folder).mkdir(parents=True, exist_ok=True)
        (gateway / folder / name).write_bytes(data)
    return tmp_path / "state"


@pytest.fixture
def gateway(state: Path) -> Path:
    return state / "gateway"


@pytest.fixture
async def store(gateway: Path) -> AsyncIterator[Store]:
    """A store that is open, with something of everything in it."""
    async with Store(gateway / "ww.db", StoreConfig(segment_bytes=3 * LARGE)) as store:
        await fill(store)
        yield store


async def fill(store: Store) -> None:
    common = {"module": sha256(MODULE), "files": sha256(ZIP)}
    one, _ = await add(
        store, spec("one", repeats=9, inputs=sha256(INPUTS), **common), spec("two", stdin=b"i" * LARGE, **common)
    )
    await end(store, one, *(result(run, stdout=bytes([run]) * LARGE) for run in range(8)))
    await end(store, one, result(8, artifacts=sha256(ARTIFACT)))


def found(gateway: Path) -> list[str]:
    return list(defects(gateway))


async def test_a_backup_of_a_running_gateway_is_all_of_it_at_one_moment(
    store: Store, state: Path, gateway: Path, tmp_path: Path
) -> None:
    async def submit() -> None:
        for i in range(40):
            (number,) = await add(store, spec(f"more{i}", module=sha256(MODULE)))
            await end(store, number, result(stdout=b"m" * LARGE))

    writing = asyncio.create_task(submit())
    size = await asyncio.to_thread(backup, gateway, tmp_path / "b")
    await writing
    await asyncio.to_thread(restore, tmp_path / "b", tmp_path / "new")
    assert (tmp_path / "b").stat().st_size == size
    assert (tmp_path / "b").stat().st_mode & 0o077 == 0
    assert sorted(os.listdir(tmp_path)) == ["b", "new", "state"], "nothing else is left"
    restored = tmp_path / "new" / "gateway"
    assert found(restored) == []
    assert {path.name for path in (restored / "modules").iterdir()} == {
        f"{sha256(MODULE)}.wasm", f"{sha256(ZIP)}.zip", f"{sha256(INPUTS)}.inputs"
    }  # fmt: skip
    async with Store(restored / "ww.db") as again:
        kept = await ids(again)
        assert kept[-2:] == ["two", "one"]
        assert kept[:-2] == [f"more{i}" for i in reversed(range(len(kept) - 2))]
        assert await results_of(again, 1, limit=99, after=-1) == await results_of(store, 1, limit=99, after=-1)
        assert (await again.task("two")) == (await store.task("two"))
        await end(again, (await add(again, spec("new")))[0], result(stdout=b"n" * LARGE))
    assert newest_backup(gateway / "ww.db") == tmp_path / "b"


async def test_a_backup_replaces_nothing_and_neither_does_restoring(
    store: Store, state: Path, gateway: Path, tmp_path: Path
) -> None:
    (tmp_path / "b").write_bytes(b"precious")
    with pytest.raises(UsageError, match=r"^b is there already: a backup replaces nothing$"):
        backup(gateway, tmp_path / "b")
    assert (tmp_path / "b").read_bytes() == b"precious"
    backup(gateway, tmp_path / "c")
    with pytest.raises(UsageError, match="this state directory has a gateway's data"):
        restore(tmp_path / "c", state)
    assert found(gateway) == []


async def test_a_damaged_gateway_is_not_backed_up(store: Store, gateway: Path, tmp_path: Path) -> None:
    (gateway / "modules" / f"{sha256(MODULE)}.wasm").unlink()
    with pytest.raises(StoreError, match=r"\.wasm is named and is not there: see ww db check"):
        backup(gateway, tmp_path / "b")
    os.truncate(directory_of(gateway / "ww.db") / "000000000002.seg", 5)
    with pytest.raises(StoreError, match=r"000000000002\.seg is shorter than what is named in it"):
        backup(gateway, tmp_path / "b")
    assert os.listdir(tmp_path) == ["state"]


async def test_a_backup_that_is_interrupted_stops_at_once_and_leaves_nothing(
    store: Store, gateway: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    left: list[int] = []

    def interrupt(status: int, remaining: int, total: int) -> None:
        left.append(remaining)
        raise KeyboardInterrupt

    monkeypatch.setattr("ww.gateway.backup._PAGES_A_STEP", 1)
    monkeypatch.setattr("ww.gateway.backup._step", interrupt)
    with pytest.raises(KeyboardInterrupt):
        backup(gateway, tmp_path / "b")
    assert len(left) == 1
    assert left[0] > 0, "not all was copied before it was heard"
    assert os.listdir(tmp_path) == ["state"]


async def test_many_steps_are_one_moment(
    store: Store, gateway: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[int] = []

    def write(status: int, remaining: int, total: int) -> None:
        steps.append(remaining)
        change(gateway / "ww.db", "UPDATE tasks SET created_at = created_at + 1")

    monkeypatch.setattr("ww.gateway.backup._PAGES_A_STEP", 1)
    monkeypatch.setattr("ww.gateway.backup._step", write)
    before = rows(gateway / "ww.db", "SELECT created_at FROM tasks")
    backup(gateway, tmp_path / "b")
    assert steps == sorted(steps, reverse=True), "it never begins anew"
    restore(tmp_path / "b", tmp_path / "new")
    assert rows(tmp_path / "new" / "gateway" / "ww.db", "SELECT created_at FROM tasks") == before


@pytest.mark.parametrize("command", ["backup", "restore"])
async def test_sigterm_ends_it_as_ctrl_c_does(command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def terminated(*_: object) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        raise AssertionError("it went on")

    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(f"ww.cli.db.{command}", terminated)
    with pytest.raises(SystemExit) as end:
        main(["db", command, str(tmp_path / "b"), "--state", str(tmp_path)])
    assert end.value.code == 143
    assert signal.getsignal(signal.SIGTERM) is before


def rewritten(source: Path, change: Callable[[str, bytes], list[tuple[str, bytes]]]) -> None:
    """Write a backup again, each member as change says."""
    target = io.BytesIO()
    with tarfile.open(source) as old, tarfile.open(fileobj=target, mode="w") as new:
        for member in old:
            for name, data in change(member.name, old.extractfile(member).read()):  # type: ignore[union-attr]
                info = tarfile.TarInfo(name)
                info.size = len(data)
                new.addfile(info, io.BytesIO(data))
    source.write_bytes(target.getvalue())


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        (lambda name, data: [(name, data[:-1] + b"!" if name.endswith("1.seg") else data)], "b is damaged: task "),
        (lambda name, data: [] if name.endswith(".wasm") else [(name, data)], "it is named and is not there"),
        (lambda name, data: [(name, b"?" if name.endswith(".wasm") else data)], "it is not what its name says"),
        (lambda name, data: [] if name == "ww.db" else [(name, data)], r"b is no backup of ww: it has no ww\.db"),
        (lambda name, data: [(name, data), (f"../{name}", data)], "b is no backup of ww: it has '"),
        (lambda name, data: [(name, data), ("/etc/x", data)], "b is no backup of ww: it has '"),
        (lambda name, data: [(name, b'{"format": 2}' if "json" in name else data)], "a backup of another kind"),
        (lambda name, data: [(name, data[:9000] if name == "ww.db" else data)], "b is damaged|cannot be read"),
    ],
)
async def test_a_changed_backup_is_refused_and_leaves_nothing(
    store: Store, gateway: Path, tmp_path: Path, changed: Callable[[str, bytes], list[tuple[str, bytes]]], why: str
) -> None:
    backup(gateway, tmp_path / "b")
    rewritten(tmp_path / "b", changed)
    with pytest.raises((StoreError, UsageError), match=why) as error:
        restore(tmp_path / "b", tmp_path / "new")
    assert "\n" not in str(error.value)
    assert os.listdir(tmp_path / "new") == []


@pytest.mark.parametrize("content", [b"", b"garbage" * 999])
async def test_what_is_no_backup_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "b").write_bytes(content)
    with pytest.raises(UsageError, match="b is no backup of ww"):
        restore(tmp_path / "b", tmp_path / "new")
    with pytest.raises(UsageError, match="there is no file c"):
        restore(tmp_path / "c", tmp_path / "new")


async def test_a_cut_off_backup_is_refused(store: Store, gateway: Path, tmp_path: Path) -> None:
    backup(gateway, tmp_path / "b")
    size = (tmp_path / "b").stat().st_size
    for length in (size // 8, size // 2, size - 12_000):
        os.truncate(tmp_path / "b", length)
        with pytest.raises((StoreError, UsageError), match=r"^b is|cut off"):
            restore(tmp_path / "b", tmp_path / f"new{length}")
        backup(gateway, tmp_path / f"b{length}")
        os.replace(tmp_path / f"b{length}", tmp_path / "b")


# Looking.


async def test_a_gateway_without_large_payloads_is_whole_and_so_is_its_backup(gateway: Path, tmp_path: Path) -> None:
    async with Store(gateway / "ww.db") as store:
        (number,) = await add(store, spec("small", module=sha256(MODULE)))
        await end(store, number, result(stdout=b"little"))
    assert found(gateway) == []
    backup(gateway, tmp_path / "b")
    restore(tmp_path / "b", tmp_path / "new")
    async with Store(tmp_path / "new" / "gateway" / "ww.db") as again:
        assert await ids(again) == ["small"]


async def test_what_only_ended_tasks_were_run_with_may_be_removed(gateway: Path, tmp_path: Path) -> None:
    async with Store(gateway / "ww.db") as store:
        ended, _ = await add(store, spec("ended", module=sha256(MODULE)), spec("open", module=sha256(MODULE)))
        await end(store, ended, result())
        (gateway / "modules" / f"{sha256(MODULE)}.wasm").unlink()
        assert found(gateway) == [f"modules/{sha256(MODULE)}.wasm: it is named and is not there"]
        await store.cancel_task(ended + 1, 1.0)
    assert found(gateway) == []
    backup(gateway, tmp_path / "b")
    restore(tmp_path / "b", tmp_path / "new")


@pytest.mark.parametrize(
    ("statement", "line"),
    [
        ("UPDATE tasks SET succeeded = 3 WHERE id = 'one'", "task one: it counts 3 runs as succeeded and 0 as failed"),
        ("DELETE FROM runs WHERE run = 5", "task one: it counts 9 runs as succeeded"),
        ("DELETE FROM tasks WHERE id = 'one'", "9 results are of no task (its number was 1)"),
        ("UPDATE tasks SET finished_at = NULL", "task one: all its runs have ended, it has not"),
        ("DELETE FROM payloads WHERE id = 2", "task one, run 0: its output is not there"),
        ("DELETE FROM payloads WHERE task = 2", "task two: what was submitted is not there"),
        ("UPDATE payloads SET crc = crc + 1 WHERE id = 3", "task one: payload 3, in segment 2 at 0, is damaged"),
        (
            "UPDATE payloads SET segment = 77 WHERE id = 3",
            "payload 3, in segment 77 at 0, cannot be read (no such",
        ),
        ("UPDATE tasks SET spec = '{' WHERE id = 'one'", "task one: what was submitted cannot be read"),
        (f"UPDATE tasks SET module = '{'e' * 64}'", f"modules/{'e' * 64}.wasm: it is named and is not there"),
        (f"UPDATE runs SET artifacts = '{'e' * 64}'", f"artifacts/{'e' * 64}.zip: it is named and is not there"),
    ],
)
async def test_each_defect_is_a_line_and_looking_changes_nothing(
    store: Store, state: Path, gateway: Path, statement: str, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["db", "check", "--state", str(state)]) == 0
    assert capsys.readouterr().out == "ok: 2 tasks, 9 results, 9 payloads\n"
    change(gateway / "ww.db", statement)
    before = rows(gateway / "ww.db", "SELECT * FROM tasks")
    assert any(line in each for each in found(gateway)), found(gateway)
    assert main(["db", "check", "--state", str(state)]) == 1
    assert line in capsys.readouterr().out
    assert rows(gateway / "ww.db", "SELECT * FROM tasks") == before


async def test_damaged_pages_are_found(state: Path, gateway: Path, capsys: pytest.CaptureFixture[str]) -> None:
    async with Store(gateway / "ww.db") as store:
        await add(store, *(spec(f"t{i}", description="d" * 3000, module=sha256(MODULE)) for i in range(50)))
    content = bytearray((gateway / "ww.db").read_bytes())
    content[12 * 4096 : 30 * 4096] = bytes(18 * 4096)
    (gateway / "ww.db").write_bytes(content)
    assert main(["db", "check", "--state", str(state)]) == 1
    said = capsys.readouterr().out.splitlines()
    assert said
    assert all(line.startswith("the database: ") for line in said)


async def test_what_is_forgotten_while_it_is_looked_at_is_no_defect(state: Path, gateway: Path) -> None:
    async with Store(gateway / "ww.db", StoreConfig(keep=0)) as store:
        await fill(store)
        looking = defects(gateway)
        await store.housekeep()
        for path in (gateway / "artifacts").iterdir():
            path.unlink()
        assert list(looking) == []


@pytest.mark.parametrize("command", [["check"], ["backup", "FILE"]])
def test_where_there_is_no_database_it_is_said(
    command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [str(tmp_path / "file") if word == "FILE" else word for word in command]
    assert main(["db", *words, "--state", str(tmp_path)]) == 1
    assert capsys.readouterr().err == "ww: there is no database here: see --state\n"
