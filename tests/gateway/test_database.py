"""The database file through its versions, and what is refused instead of being made worse."""

import os
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.gateway.stored import LARGE, WALL, add, change, end, ids, result, results_of, rows, spec
from ww.errors import StoreError
from ww.gateway.store import Store
from ww.gateway.task import Outcome, Spec

pytestmark = pytest.mark.anyio


@pytest.fixture
def path(tmp_path: Path) -> Path:
    (tmp_path / "gateway").mkdir()
    return tmp_path / "gateway" / "ww.db"


# Versions, by their SQL as it was.

VERSION_1 = """
CREATE TABLE tasks (
  number INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, spec TEXT NOT NULL, repeats INTEGER NOT NULL,
  created_at REAL NOT NULL, finished_at REAL, cancelled INTEGER NOT NULL DEFAULT 0,
  succeeded INTEGER NOT NULL DEFAULT 0, failed INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX tasks_open ON tasks (number) WHERE finished_at IS NULL;
CREATE INDEX tasks_ended ON tasks (number) WHERE finished_at IS NOT NULL;
CREATE TABLE runs (
  position INTEGER PRIMARY KEY, task INTEGER NOT NULL, run INTEGER NOT NULL, state TEXT NOT NULL,
  worker TEXT NOT NULL, attempts INTEGER NOT NULL, queued_at REAL NOT NULL, started_at REAL,
  finished_at REAL NOT NULL, reason TEXT NOT NULL, detail TEXT NOT NULL, result TEXT, exit_code INTEGER,
  stdout BLOB NOT NULL, stderr BLOB NOT NULL, stdout_truncated INTEGER NOT NULL, stderr_truncated INTEGER NOT NULL,
  wall_s REAL NOT NULL, cpu_s REAL NOT NULL, memory_bytes INTEGER NOT NULL, memory_limit_bytes INTEGER NOT NULL
);
CREATE UNIQUE INDEX runs_of_task ON runs (task, run);
CREATE INDEX runs_latest ON runs (task, position);
INSERT INTO tasks VALUES (1, 'ended', '{"id":"ended","module":"aa","entry":"run","description":"d","complete":0,
  "duration_s":5.0,"start_s":0.0,"delay_s":0.0,"repeats":1,"input":9223372036854775807,"difficulty":null,"args":[],
  "env":[],"stdin":"AAE=","memory_bytes":1048576,"output_bytes":100}', 1, 1700000000.0, 1700000000.0, 0, 1, 0);
INSERT INTO tasks VALUES (2, 'open', '{"id":"open","module":"bb","entry":"","description":"","complete":0,
  "duration_s":5.0,"start_s":0.0,"delay_s":0.0,"repeats":2,"input":1,"difficulty":null,"args":["x"],
  "env":[["K","v"]],"stdin":"","memory_bytes":1048576,"output_bytes":100}', 2, 1700000000.0, NULL, 0, 0, 1);
INSERT INTO runs VALUES (1, 1, 0, 'succeeded', 'w', 1, 1699999998.0, 1699999999.0, 1700000000.0, '', '', '12', NULL,
  x'00FF', x'', 0, 1, 0.5, 0.25, 65536, 1048576);
INSERT INTO runs VALUES (2, 2, 1, 'failed', 'w', 1, 1699999998.0, 1699999999.0, 1700000000.0, 'trap', 'd', NULL, NULL,
  x'', x'', 0, 0, 0.5, 0.25, 65536, 1048576);
PRAGMA user_version = 1;
"""


VERSION_2 = """
CREATE TABLE tasks (
  number INTEGER PRIMARY KEY AUTOINCREMENT,
  id TEXT NOT NULL UNIQUE,
  spec TEXT NOT NULL,
  repeats INTEGER NOT NULL,
  created_at REAL NOT NULL,
  finished_at REAL,
  cancelled INTEGER NOT NULL DEFAULT 0,
  succeeded INTEGER NOT NULL DEFAULT 0,
  failed INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX tasks_open ON tasks (number) WHERE finished_at IS NULL;
CREATE INDEX tasks_ended ON tasks (number) WHERE finished_at IS NOT NULL;
CREATE TABLE runs (
  position INTEGER PRIMARY KEY,
  task INTEGER NOT NULL,
  run INTEGER NOT NULL,
  state TEXT NOT NULL,
  worker TEXT NOT NULL,
  attempts INTEGER NOT NULL,
  queued_at REAL NOT NULL,
  started_at REAL,
  finished_at REAL NOT NULL,
  reason TEXT NOT NULL,
  detail TEXT NOT NULL,
  result TEXT,
  exit_code INTEGER,
  stdout BLOB NOT NULL,
  stderr BLOB NOT NULL,
  stdout_truncated INTEGER NOT NULL,
  stderr_truncated INTEGER NOT NULL,
  wall_s REAL NOT NULL,
  cpu_s REAL NOT NULL,
  memory_bytes INTEGER NOT NULL,
  memory_limit_bytes INTEGER NOT NULL,
  fuel INTEGER,
  queue_s REAL NOT NULL,
  compile_s REAL NOT NULL,
  instantiate_s REAL NOT NULL,
  files_bytes INTEGER NOT NULL,
  artifacts TEXT NOT NULL,
  artifacts_bytes INTEGER NOT NULL
);
CREATE UNIQUE INDEX runs_of_task ON runs (task, run);
CREATE INDEX runs_latest ON runs (task, position);
CREATE INDEX runs_artifacts ON runs (artifacts) WHERE artifacts <> '';
INSERT INTO tasks VALUES (1, 'ended', '{"id":"ended","module":"aa","kind":"function","entry":"run","arguments":[1,2],
  "description":"d","complete":0,"duration_s":5.0,"start_s":0.0,"delay_s":0.0,"repeats":2,"input":1,"difficulty":2,
  "args":["x"],"env":[["K","v"]],"stdin":"AAE=","memory_bytes":1048576,"output_bytes":100,"files":"ff","dirs":["d"],
  "files_bytes":5,"artifacts":["/"],"artifact_bytes":6,"deterministic":true,"seed":3,"fuel":4,"cpu_s":0.5}',
  2, 1700000000.0, 1700000000.0, 0, 1, 1);
INSERT INTO tasks VALUES (2, 'open', '{"id":"open","module":"bb","kind":"command","entry":"","repeats":2,
  "duration_s":5.0,"memory_bytes":1048576,"output_bytes":100,"stdin":"","owner":"o","labels":[["a","b"]]}',
  2, 1700000000.0, NULL, 0, 0, 1);
INSERT INTO runs VALUES (1, 1, 0, 'succeeded', 'w', 1, 1699999998.0, 1699999999.0, 1700000000.0, '', '', '12', NULL,
  x'00FF', x'', 0, 1, 0.5, 0.25, 65536, 1048576, 7, 0.5, 0.25, 0.125, 9, 'cc', 11);
INSERT INTO runs VALUES (2, 1, 1, 'failed', 'w', 1, 1699999998.0, 1699999999.0, 1700000000.0, 'trap', 'd', NULL, NULL,
  zeroblob(50000), x'', 0, 0, 0.5, 0.25, 65536, 1048576, NULL, 0, 0, 0, 0, '', 0);
INSERT INTO runs VALUES (3, 2, 1, 'failed', 'w', 1, 1699999998.0, 1699999999.0, 1700000000.0, 'trap', 'd', NULL, NULL,
  x'', x'', 0, 0, 0.5, 0.25, 65536, 1048576, NULL, 0, 0, 0, 0, '', 0);
PRAGMA user_version = 2;
"""


TABLES = ("tasks", "runs", "payloads", "forgetting", "store")


def columns(path: Path) -> list[Any]:
    """Return the columns of a database's tables, in no order, and its indices."""
    tables = [sorted((table, *row[1:4]) for row in rows(path, f"PRAGMA table_info({table})")) for table in TABLES]
    return [*tables, sorted(rows(path, "SELECT name, sql FROM sqlite_master WHERE type = 'index'"))]


async def test_an_older_database_keeps_its_tasks_and_goes_on(path: Path, tmp_path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(VERSION_1)
    common = {"duration_s": 5.0, "memory_bytes": 1 << 20, "output_bytes": 100}
    called = spec("ended", module="aa", description="d", input=2**63 - 1, arguments=(2**63 - 1, 0), stdin=b"\0\1")
    program = Spec(
        id="open", module="bb", kind="command", entry="", repeats=2, input=1, args=("x",), env=(("K", "v"),), **common
    )
    for _ in range(2):
        async with Store(path) as store:
            assert [row.spec for row in await store.tasks(limit=10)] == [program, called]
            (task,) = await store.open_tasks(0.0, WALL)
            assert (task.spec.id, task.spec.argv, task.failed) == ("open", ("1", "x"), 1)
            (first,) = await results_of(store, 1, limit=10, after=-1)
            assert first.outcome == Outcome(
                result="12", stdout=b"\0\xff", stderr_truncated=True, wall_s=0.5, cpu_s=0.25, memory_bytes=65536,
                memory_limit_bytes=1 << 20,
            )  # fmt: skip
            assert await store.modules() == {"aa", "bb"}
            assert await store.artifacts() == set()
    async with Store(path) as store:
        await end(store, 2, result(0, artifacts="a" * 64, fuel=3))
        assert [row.has_ended for row in await store.tasks(limit=10)] == [True, True]
        assert await store.artifacts() == {"a" * 64}
    async with Store(tmp_path / "new.db"):
        pass
    assert columns(path) == columns(tmp_path / "new.db")


async def test_an_older_database_that_cannot_be_brought_up_is_left_as_it_was(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(VERSION_1)
        connection.execute("CREATE TRIGGER full BEFORE UPDATE ON tasks BEGIN SELECT RAISE(ABORT, 'disk full'); END")
    before = columns(path)
    with pytest.raises(StoreError, match="cannot be opened: disk full"):
        async with Store(path):
            pass
    assert columns(path) == before
    assert rows(path, "PRAGMA user_version") == [(1,)]
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("DROP TRIGGER full")
    async with Store(path) as store:
        assert await ids(store) == ["open", "ended"]


async def test_a_database_of_version_2_keeps_its_tasks_and_goes_on(path: Path, tmp_path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(VERSION_2)
    for _ in range(2):
        async with Store(path) as store:
            assert [(row.spec.id, row.status, row.reason) for row in await store.tasks(limit=9) if row.has_ended] == [
                ("ended", "failed", "")
            ]
            assert [row.spec.id for row in await store.tasks(limit=9, owner="o")] == ["open"]
            assert [row.spec.id for row in await store.tasks(limit=9, owner="")] == ["ended"]
            (task,) = await store.open_tasks(0.0, WALL)
            assert (task.spec.labels, task.failed) == ((("a", "b"),), 1)
            first, second = await results_of(store, 1, limit=9, after=-1)
            assert first.outcome == Outcome(
                result="12", stdout=b"\0\xff", stderr_truncated=True, wall_s=0.5, cpu_s=0.25, memory_bytes=65536,
                memory_limit_bytes=1 << 20, fuel=7, queue_s=0.5, compile_s=0.25, instantiate_s=0.125, files_bytes=9,
                artifacts="cc", artifacts_bytes=11,
            )  # fmt: skip
            assert second.outcome.stdout == bytes(50_000), "what was in the row stays there"
            assert await store.modules() == {"aa", "ff", "bb"}
            assert await store.artifacts() == {"cc"}
    assert rows(path, "SELECT result_bytes > 50000, spec_bytes > 100 FROM tasks WHERE number = 1") == [(1, 1)]
    assert rows(path, "PRAGMA auto_vacuum") == [(2,)]
    async with Store(path) as store:
        assert await store.fail_task(2, WALL, "why")
        await end(store, (await add(store, spec("new")))[0], result(stdout=b"x" * LARGE))
        assert await ids(store) == ["new", "open", "ended"]
    async with Store(tmp_path / "new.db"):
        pass
    assert columns(path) == columns(tmp_path / "new.db")


async def test_a_version_3_gets_a_place_for_inputs(path: Path, tmp_path: Path) -> None:
    async with Store(path) as store:
        await add(store, spec("old", module="aa"))
    # As it was: version 4 is one column and its index, and version 5 is nothing of tables.
    change(path, "DROP INDEX tasks_inputs", "ALTER TABLE tasks DROP COLUMN inputs", "PRAGMA user_version = 3")
    for _ in range(2):
        async with Store(path) as store:
            assert (await store.tasks(limit=9))[-1].spec == spec("old", module="aa")
            assert "aa" in await store.modules()
            if len(await ids(store)) == 1:
                await add(store, spec("batch", inputs="bb"))
            assert "bb" in await store.modules()
    async with Store(tmp_path / "new.db"):
        pass
    assert columns(path) == columns(tmp_path / "new.db")
    assert rows(path, "PRAGMA user_version") == [(6,)]


async def test_a_version_2_that_cannot_be_brought_up_is_left_as_it_was(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(VERSION_2)
        connection.execute("CREATE TRIGGER full BEFORE UPDATE ON tasks BEGIN SELECT RAISE(ABORT, 'disk full'); END")
    before = columns(path)
    with pytest.raises(StoreError, match=r"^the database ww\.db cannot be opened: disk full$"):
        async with Store(path):
            pass
    assert columns(path) == before
    assert rows(path, "PRAGMA user_version") == [(2,)]


# What is damaged is refused, and left alone.


async def filled(path: Path) -> None:
    async with Store(path) as store:
        for number in await add(store, *(spec(f"t{i}", description="d" * 1000) for i in range(100))):
            await end(store, number, result(stdout=b"x" * 3000))
        await end(store, (await add(store, spec("large")))[0], result(stdout=b"x" * LARGE))


def zero_pages(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[8 * 4096 : 60 * 4096] = bytes(52 * 4096)
    path.write_bytes(content)


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def empty(path: Path) -> None:
    os.truncate(path, 0)


def garbage(path: Path) -> None:
    path.write_bytes(b"garbage" * 1000)


def content(path: Path) -> dict[Path, bytes]:
    """Return what is on disk of a database and its payloads."""
    files = [path, *path.with_name("ww.db-payloads").glob("*.seg")]
    return {file: file.read_bytes() for file in files if file.exists()}


@pytest.mark.parametrize("damage", [zero_pages, cut, empty, garbage, Path.unlink])
@pytest.mark.parametrize("has_backup", [True, False])
async def test_a_damaged_database_is_refused_with_the_newest_backup(path: Path, damage: Any, has_backup: bool) -> None:
    await filled(path)
    backups = [path.with_name("old.backup"), path.parent.parent / "new.backup"]
    if has_backup:
        for age, backup in zip((200, 100), backups, strict=True):
            backup.touch()
            os.utime(backup, (WALL - age, WALL - age))
    damage(path)
    before = content(path)
    with pytest.raises(StoreError, match=r"^the database ww\.db ") as error:
        async with Store(path):
            pass
    line = str(error.value)
    assert "\n" not in line
    assert f"the newest backup is {backups[1]}: ww db restore" in line if has_backup else "no backup of it" in line
    assert content(path) == before


def damaged(path: Path, payload: int) -> None:
    change(path, f"UPDATE payloads SET crc = crc + 1 WHERE id = {payload}")


async def test_damaged_output_hides_no_other_result_from_a_list(path: Path) -> None:
    async with Store(path) as store:
        (number,) = await add(store, spec(repeats=2))
        await end(store, number, result(0, stdout=b"o" * LARGE, stderr=b"e" * LARGE), result(1, stdout=b"p" * LARGE))
        damaged(path, 1)
        latest = await store.latest_results([number], limit=9, output_bytes_max=1 << 30)
        shown = [(len(each.outcome.stdout), each.outcome.stdout_truncated) for each in latest[number]]
        assert shown == [(LARGE, False), (0, True)]
        assert latest[number][1].outcome.stderr == b"e" * LARGE
        with pytest.raises(StoreError, match="a payload is damaged"):
            await results_of(store, number, limit=9, after=-1)


async def test_a_damaged_task_that_has_not_ended_is_refused_with_the_newest_backup(path: Path) -> None:
    async with Store(path) as store:
        await add(store, spec(stdin=b"i" * LARGE))
        damaged(path, 1)
        (path.parent / "old.backup").touch()
        with pytest.raises(StoreError, match=r"^a payload is damaged: .*; the newest backup is /.*/old\.backup: ww db"):
            await store.open_tasks(0.0, 0.0)


async def test_damaged_stdin_hides_no_task_from_a_list(path: Path) -> None:
    async with Store(path) as store:
        await add(store, spec("damaged", stdin=b"i" * LARGE), spec("sound"))
        (segment,) = path.with_name("ww.db-payloads").glob("*.seg")
        content = segment.read_bytes()
        segment.write_bytes(content[:-1] + b"!")
        assert sorted(await ids(store)) == ["damaged", "sound"]
        with pytest.raises(StoreError, match="a payload is damaged"):
            await store.task("damaged")
        for broken in (content.replace(b"\0", b"0"), b"!" + content):
            segment.write_bytes(broken)
            with pytest.raises(StoreError, match=r"payload .*is damaged"):
                await store.tasks(limit=9)
