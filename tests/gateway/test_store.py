"""What a gateway remembers: on disk before anybody is told, once, and the same after a restart."""

import asyncio
import shutil
import sqlite3
from collections.abc import AsyncIterator, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from tests.gateway.stored import LARGE, WALL, add, end, ids, result, results_of, rows, spec
from ww.errors import StoreError, UsageError
from ww.gateway.store import Store

pytestmark = pytest.mark.anyio


@contextmanager
def refusing(path: Path, action: str) -> Iterator[None]:
    """Have the database refuse an action, such as `INSERT ON tasks`, as a full disk does."""
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(f"CREATE TRIGGER full BEFORE {action} BEGIN SELECT RAISE(ABORT, 'disk full'); END")
        yield
        connection.execute("DROP TRIGGER full")


def make_read_only(path: Path) -> None:
    """Give a database a write version newer than any there is (SQLite file format, 1.3.3): modes do not stop root."""
    content = bytearray(path.read_bytes())
    content[18] = 3
    path.write_bytes(content)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ww.db"


@pytest.fixture
async def store(path: Path) -> AsyncIterator[Store]:
    async with Store(path) as store:
        yield store


# When it is there.


async def test_a_gateway_that_is_killed_loses_nothing_it_has_told(store: Store, path: Path, tmp_path: Path) -> None:
    numbers = await add(store, *(spec(f"t{i}") for i in range(50)))
    await store.add_results([(number, result(stdout=b"x" * LARGE)) for number in numbers])
    killed = tmp_path / "killed"
    killed.mkdir()
    for name in ("ww.db", "ww.db-wal"):  # as they are at this moment, with nothing closed
        shutil.copy(path.with_name(name), killed)
    shutil.copytree(path.with_name("ww.db-payloads"), killed / "ww.db-payloads")
    async with Store(killed / "ww.db") as again:
        assert len(await again.tasks(limit=100)) == 50
        assert await again.open_tasks(0.0, WALL) == []
        assert (await results_of(again, numbers[7], limit=9, after=-1))[0].outcome.stdout == b"x" * LARGE


# Payloads.


async def test_large_payloads_are_in_segments_and_the_same_after_a_restart(path: Path) -> None:
    submitted = spec(repeats=3, stdin=bytes(range(256)) * 200, args=("\u56db",), env=(("K", "v"),), owner="o")
    wordy = spec("wordy", description="d" * LARGE)
    outcomes = [
        result(0, stdout=b"o" * LARGE, stderr=b"\0\xff" * LARGE),
        result(1, stdout=b"o", stderr=b"e" * LARGE),
        result(2, stdout=b"x" * (16 << 10)),
    ]
    async with Store(path) as store:
        number, _ = await add(store, submitted, wordy)
        await end(store, number, *outcomes)
    assert rows(path, "SELECT count(*) FROM payloads") == [(5,)]
    assert rows(path, "SELECT max(length(spec)) FROM tasks") == [(0,)]
    assert rows(path, "SELECT max(length(stdout)), max(length(stderr)) FROM runs") == [(16 << 10, 0)]
    async with Store(path) as store:
        found = [await store.task(row.spec.id) for row in await store.tasks(limit=9)]
        assert [row.spec for row in found if row is not None] == [wordy, submitted]
        assert (await store.open_tasks(0.0, WALL))[0].spec == wordy
        assert await results_of(store, number, limit=9, after=-1) == outcomes
        assert [each for _, each in await store.results_since(number, position=0, limit=9)] == outcomes
        latest = await store.latest_results((number,), limit=9, output_bytes_max=1 << 30)
        assert latest[number] == outcomes[::-1]
        await end(store, (await add(store, spec("more")))[0], result(stdout=b"m" * LARGE))
    assert len(list(path.with_name("ww.db-payloads").glob("*.seg"))) == 1, "a restart goes on in the same file"


async def test_a_damaged_payload_is_told_and_nothing_else_is_touched(store: Store, path: Path) -> None:
    (number,) = await add(store, spec(repeats=2))
    await end(store, number, result(0, stdout=b"x" * LARGE), result(1))
    (segment,) = path.with_name("ww.db-payloads").glob("*.seg")
    segment.write_bytes(b"y" + segment.read_bytes()[1:])
    with pytest.raises(StoreError, match=r"^a payload is damaged: ww db check says which$"):
        await results_of(store, number, limit=9, after=-1)
    assert [each.run for each in await results_of(store, number, limit=9, after=0)] == [1]


# Reading.


async def test_an_owner_sees_their_own_tasks_a_page_at_a_time(store: Store, path: Path) -> None:
    numbers = await add(store, *(spec(f"t{i}", owner="ab"[i % 2]) for i in range(6)))
    assert [row.spec.id for row in await store.tasks(limit=2, owner="a")] == ["t4", "t2"]
    assert [row.spec.id for row in await store.tasks(limit=2, owner="a", before=numbers[2])] == ["t0"]
    assert await store.tasks(limit=2, owner="c") == []
    query = "SELECT number FROM tasks WHERE owner = 'a' AND number < 9 ORDER BY number DESC LIMIT 2"
    assert "tasks_of_owner (owner=? AND number<?)" in rows(path, f"EXPLAIN QUERY PLAN {query}")[0][3]


# A disk that refuses.


@pytest.mark.parametrize("action", ["INSERT ON tasks", "INSERT ON runs", "UPDATE ON tasks"])
async def test_what_the_disk_refuses_changes_nothing_and_may_be_tried_again(
    store: Store, path: Path, action: str
) -> None:
    (number,) = await add(store, spec(repeats=2))
    before = list(await store.tasks(limit=10)), await results_of(store, number, limit=10, after=-1)
    writes = {
        "INSERT ON tasks": lambda: add(store, spec("new")),
        "INSERT ON runs": lambda: end(store, number, result()),
        "UPDATE ON tasks": lambda: store.cancel_task(number, WALL),
    }
    with refusing(path, action):
        with pytest.raises(StoreError, match=r"^the database cannot be written: disk full$"):
            await writes[action]()
        assert (list(await store.tasks(limit=10)), await results_of(store, number, limit=10, after=-1)) == before
    await writes[action]()
    assert (list(await store.tasks(limit=10)), await results_of(store, number, limit=10, after=-1)) != before


async def test_a_read_only_database_is_read_and_refuses_writes(path: Path) -> None:
    async with Store(path) as store:
        await add(store, spec())
    make_read_only(path)
    async with Store(path) as store:
        with pytest.raises(StoreError, match="cannot be written: attempt to write a readonly database"):
            await add(store, spec("new"))
        assert await ids(store) == ["t"]


@pytest.mark.parametrize("content", [b"garbage" * 1000, b"SQLite format 3\0" + b"\xff" * 5000])
def test_a_file_that_is_no_database_is_one_clear_error_and_left_alone(path: Path, content: bytes) -> None:
    async def open_it() -> None:
        async with Store(path):
            pass

    path.write_bytes(content)
    with pytest.raises(StoreError, match=r"^the database ww\.db cannot be opened: ") as error:
        asyncio.run(open_it())
    assert str(path.parent) not in str(error.value)
    assert path.read_bytes() == content


async def test_a_place_where_no_file_can_be_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="cannot be opened"):
        async with Store(tmp_path / "missing" / "ww.db"):
            pass


async def test_a_database_of_another_version_is_not_touched(path: Path) -> None:
    async with Store(path) as store:
        await add(store, spec())
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA user_version = 99")
    with pytest.raises(UsageError, match=r"ww\.db has version 99, this ww reads version \d+: use another"):
        async with Store(path):
            pass
    assert rows(path, "SELECT id FROM tasks") == [("t",)]


async def test_only_its_owner_may_read_the_database(store: Store, path: Path) -> None:
    await add(store, spec(env=(("TOKEN", "secret"),)))
    assert {file.name: file.stat().st_mode & 0o077 for file in path.parent.glob("ww.db*")} == {
        "ww.db": 0,
        "ww.db-wal": 0,
        "ww.db-shm": 0,
        "ww.db-payloads": 0,
    }
