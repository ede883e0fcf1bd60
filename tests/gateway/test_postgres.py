"""A store on PostgreSQL: one gateway at a time, and a server that is killed, stopped, full, read-only or gone."""

import asyncio
import contextlib
import dataclasses
import gc
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.test_http_perimeter import write_certificate
from tests.gateway.places import PostgresPlace, until_rows
from tests.gateway.postgres_server import PASSWORD, Server, running_server, why_no_server
from tests.gateway.stored import LARGE, WALL, add, end, ids, result, results_of, spec
from ww.errors import StoreError, UsageError
from ww.gateway.postgres import tables
from ww.gateway.postgres.address import PostgresAddress, read_address
from ww.gateway.postgres.check import check
from ww.gateway.postgres.session import Session
from ww.gateway.postgres.store import PostgresStore
from ww.gateway.storage import StoreConfig
from ww.gateway.task import RunState

pytestmark = [pytest.mark.anyio, pytest.mark.skipif(bool(why_no_server()), reason=why_no_server())]

QUICK = {"reconnect_first_s": 0.01, "reconnect_max_s": 0.05}
CONFIG = StoreConfig(housekeep_every_s=0.05, probe_every_s=0.02, busy_timeout_s=0.2)


@pytest.fixture
def place(postgres: Server) -> PostgresPlace:
    return PostgresPlace(postgres)


@pytest.fixture(scope="module")
def mortal() -> Iterator[Server]:
    """A server that may be killed without others noticing."""
    with running_server() as server:
        yield server


async def healthy(store: PostgresStore) -> None:
    async with asyncio.timeout(30):
        while store.health():  # noqa: ASYNC110 what is waited for has no event
            await asyncio.sleep(0.005)


async def in_trouble(store: PostgresStore) -> str:
    async with asyncio.timeout(30):
        while not store.health():  # noqa: ASYNC110 what is waited for has no event
            await asyncio.sleep(0.005)
    return store.health()


# One gateway at a time.


async def test_a_second_gateway_is_refused_and_another_schema_is_not(place: PostgresPlace) -> None:
    async with place.open(CONFIG) as store:
        await add(store, spec())
        with pytest.raises(UsageError, match=rf"^another gateway uses the schema {place.schema} of this database"):
            async with place.open(CONFIG):
                pass
        async with PostgresPlace(place.server).open(CONFIG) as other:
            assert await ids(other) == []
    async with place.open(CONFIG) as store:
        assert await ids(store) == ["t"]


async def test_a_gateway_that_starts_waits_for_the_session_before_to_end(place: PostgresPlace) -> None:
    async with place.open(CONFIG):
        starting = place.open()
        entering = asyncio.create_task(starting.__aenter__())
        await asyncio.sleep(0.05)
        assert not entering.done()
    await entering
    await starting.__aexit__()


async def test_a_store_that_another_gateway_has_used_since_writes_nothing_more(place: PostgresPlace) -> None:
    async with place.open(CONFIG, **QUICK) as store:
        await add(store, spec("mine"))
        await place.change("UPDATE store SET epoch = epoch + 1")
        with pytest.raises(StoreError, match="another gateway has written to the database since: stop this one"):
            await add(store, spec("late"))
        for _ in range(3):
            with pytest.raises(StoreError, match="another gateway"):
                await add(store, spec("later"))
        assert "another gateway" in store.health()
        assert await ids(store) == ["mine"], "what is there can be read"


async def test_a_store_whose_lock_another_session_has_writes_nothing(
    place: PostgresPlace,
) -> None:
    async with place.open(CONFIG, **QUICK) as store:
        await add(store, spec("mine"))
        locked = "SELECT pid, (classid::bigint << 32) | objid::bigint FROM pg_locks WHERE locktype = 'advisory'"
        here = f"{locked} AND objid = '{place.schema}'::regnamespace::oid"
        ((pid, number),) = await place.rows(here)
        other = await place._connect()
        taking = asyncio.create_task(other.execute(f"SELECT pg_advisory_lock({number})"))
        waiting = f"SELECT 1 FROM pg_locks WHERE NOT granted AND objid = {number & 0xFFFFFFFF}"
        await until_rows(place, waiting, bool)
        await place.rows(f"SELECT pg_terminate_backend({pid})")
        await taking
        async with asyncio.timeout(20):
            while "another session has the lock" not in store.health():  # noqa: ASYNC110 it has no event
                await asyncio.sleep(0.01)
        with pytest.raises(StoreError, match="another session has the lock of the schema"):
            await add(store, spec("refused"))
        await other.close()
        await healthy(store)
        await add(store, spec("again"))
        assert await ids(store) == ["again", "mine"]


async def test_a_server_that_lost_what_was_acknowledged_gets_nothing_more(
    place: PostgresPlace, caplog: pytest.LogCaptureFixture
) -> None:
    async with place.open(CONFIG, **QUICK) as store:
        await add(store, *(spec(f"t{i}") for i in range(3)))
        await add(store, spec("last"))
        await lose_session(place, "UPDATE store SET serial = 0")
        async with asyncio.timeout(20):
            while "lost what had been written" not in store.health():  # noqa: ASYNC110 it has no event
                await asyncio.sleep(0.01)
        with pytest.raises(StoreError, match="lost what had been written"):
            await add(store, spec("refused"))
        assert len(await ids(store)) == 4


async def lose_session(place: PostgresPlace, *statements: str) -> None:
    """End the session that writes, as a server does, right after those statements."""
    await place.change(
        "; ".join(
            (
                *statements,
                "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND granted"
                f" AND objid = '{place.schema}'::regnamespace::oid",
            )
        )
    )


# A session that breaks.


async def test_a_session_that_ends_while_nobody_uses_it_is_replaced(place: PostgresPlace) -> None:
    words: list[str] = []
    async with place.open(CONFIG, **QUICK) as store:
        await add(store, spec("a"))
        for name in "bcd":
            await lose_session(place)
            async with asyncio.timeout(20):
                while True:
                    try:
                        await add(store, spec(name))
                        break
                    except StoreError as error:
                        words.append(str(error))
                        await asyncio.sleep(0.005)
        assert await ids(store) == ["d", "c", "b", "a"]
    assert all("the connection was lost" in each or "its server is stopping" in each for each in words), words


@pytest.mark.parametrize("is_there", [True, False])
async def test_a_commit_that_got_no_answer_is_looked_up(
    place: PostgresPlace, monkeypatch: pytest.MonkeyPatch, is_there: bool
) -> None:
    """The session breaks with the COMMIT: after the server did it, and before it saw it."""
    async with place.open(CONFIG, **QUICK) as store:
        (number,) = await add(store, spec("before", repeats=9))
        session = store._writer._session
        store._writer._session = Breaking(session, is_there)
        outcomes = await asyncio.wait_for(
            asyncio.gather(
                store.add_task(spec("doubtful"), WALL),
                end(store, number, result(0), result(1)),
                store.cancel_task(number, WALL),
                return_exceptions=True,
            ),
            30,
        )
        if is_there:
            assert outcomes == [number + 1, None, True]
        else:
            assert [isinstance(outcome, StoreError) for outcome in outcomes] == [True] * 3
            await healthy(store)
            outcomes = [await store.add_task(spec("doubtful"), WALL), await end(store, number, result(0), result(1))]
        assert await ids(store) == ["doubtful", "before"]
        assert [each.run for each in await results_of(store, number, limit=9, after=-1)] == [0, 1]
        await healthy(store)


class Breaking:
    """A session that is gone at its next COMMIT, which the server gets or not."""

    def __init__(self, session: Session, gets_it: bool) -> None:
        self._session = session
        self._gets_it = gets_it

    async def execute(self, statement: str, *values: Any) -> Any:
        if statement == "COMMIT":
            if self._gets_it:
                await self._session.execute(statement)
            self._session.terminate()
            raise ConnectionResetError("gone")
        return await self._session.execute(statement, *values)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._session, name)


async def test_a_server_that_hangs_counts_as_gone(place: PostgresPlace) -> None:
    async with place.open(CONFIG, timeout_s=0.3, **QUICK) as store:
        await add(store, spec("a"))
        blocking = await place._connect()
        await blocking.execute("BEGIN; LOCK TABLE tasks IN EXCLUSIVE MODE")
        with pytest.raises(StoreError, match="the database cannot be written: its server says nothing"):
            await add(store, spec("b"))
        await blocking.execute("ROLLBACK")
        await blocking.close()
        await healthy(store)
        await add(store, spec("c"))
        assert await ids(store) == ["c", "a"]


# A server that refuses.


async def test_what_the_server_refuses_changes_nothing_and_may_be_tried_again(place: PostgresPlace) -> None:
    config = StoreConfig(housekeep_every_s=0.05, probe_every_s=1e6)  # nobody else tries
    async with place.open(config) as store:
        (number,) = await add(store, spec(repeats=2))
        writes = {
            "INSERT ON tasks": lambda: add(store, spec("new")),
            "INSERT ON runs": lambda: end(store, number, result()),
            "UPDATE ON tasks": lambda: store.cancel_task(number, WALL),
        }
        for action, write in writes.items():
            before = list(await store.tasks(limit=10)), await results_of(store, number, limit=10, after=-1)
            await place.refuse(action, "no space left in base/1/2", "53100")
            with pytest.raises(StoreError, match=r"^the database cannot be written: the disk of its server is full$"):
                await write()
            assert "full" in store.health()
            assert (list(await store.tasks(limit=10)), await results_of(store, number, limit=10, after=-1)) == before
            await place.take(action)
            await write()
            assert store.health() == ""
            assert (list(await store.tasks(limit=10)), await results_of(store, number, limit=10, after=-1)) != before


async def test_a_server_that_is_read_only_is_noticed_and_tried_until_it_is_not(mortal: Server) -> None:
    place = PostgresPlace(mortal)
    async with place.open(CONFIG, **QUICK) as store:
        await add(store, spec("a"))
        mortal.sql("ALTER DATABASE ww SET default_transaction_read_only = on")
        await lose_session(place, "SET default_transaction_read_only = off")
        await in_trouble(store)
        async with asyncio.timeout(20):
            while "read-only" not in store.health():  # noqa: ASYNC110 it has no event
                await asyncio.sleep(0.01)
        assert await ids(store) == ["a"]
        mortal.sql("ALTER DATABASE ww RESET default_transaction_read_only", database="postgres")
        await healthy(store)
        await add(store, spec("b"))
        assert await ids(store) == ["b", "a"]


async def test_texts_that_postgresql_does_not_take_are_made_ones_that_it_does(place: PostgresPlace) -> None:
    async with place.open(CONFIG) as store:
        (number,) = await add(store, spec(description="a\0b", args=("\ud800",), stdin=b"\0"))
        await end(store, number, result(detail="zero \0 and half \ud800 of one"))
        row = await store.task("t")
        assert row is not None
        assert (row.spec.description, row.spec.args, row.spec.stdin) == ("a\0b", ("\ud800",), b"\0")
        (found,) = await results_of(store, number, limit=9, after=-1)
        assert found.outcome.detail == "zero \ufffd and half ? of one"
        assert await store.task("no\0body") is None


async def test_large_payloads_are_the_same_after_a_restart(place: PostgresPlace) -> None:
    submitted = spec(repeats=2, stdin=bytes(range(256)) * 2000, description="d" * LARGE)
    outcomes = [result(0, stdout=b"o" * 3_000_000, stderr=b"\0\xff" * LARGE), result(1, stdout=b"x" * LARGE)]
    async with place.open(CONFIG) as store:
        (number,) = await add(store, submitted)
        await end(store, number, outcomes[0])
        assert (await store.open_tasks(0.0, WALL))[0].spec == submitted
        await end(store, number, outcomes[1])
    async with place.open(CONFIG) as store:
        found = await store.task(submitted.id)
        assert found is not None
        assert found.spec == submitted
        assert await results_of(store, number, limit=9, after=-1) == outcomes
        latest = await store.latest_results((number,), limit=9, output_bytes_max=LARGE)
        assert latest == {number: outcomes[1:]}


# A server that is killed.


async def test_a_server_that_is_killed_under_load_has_what_was_acknowledged(mortal: Server) -> None:
    place = PostgresPlace(mortal)
    acknowledged: list[str] = []
    refusals: list[str] = []

    async def client(store: PostgresStore, name: int) -> None:
        for count in itertools.count():
            id = f"t{name}-{count}"
            number = None
            while number is None:
                try:
                    number = await store.add_task(spec(id), WALL)
                except StoreError as error:
                    refusals.append(str(error))
                    await asyncio.sleep(0.01)
            while True:
                try:
                    await end(store, number, result(stdout=id.encode() * 100))
                    break
                except StoreError as error:
                    refusals.append(str(error))
                    await asyncio.sleep(0.01)
            acknowledged.append(id)

    async with place.open(StoreConfig(keep=None), **QUICK) as store:
        clients = [asyncio.create_task(client(store, name)) for name in range(8)]
        for _ in range(3):
            enough = len(acknowledged) + 150
            async with asyncio.timeout(40):
                while len(acknowledged) < enough:
                    assert not any(each.done() for each in clients)
                    await asyncio.sleep(0.005)
            await asyncio.to_thread(mortal.kill)
            assert "cannot be written" in await in_trouble(store)
            with pytest.raises(StoreError, match=r"^the database cannot be read: "):
                await store.task("t0-0")
            await asyncio.to_thread(mortal.start)
            await healthy(store)
        for each in clients:
            each.cancel()
        ended = await asyncio.gather(*clients, return_exceptions=True)
        assert {type(each) for each in ended} == {asyncio.CancelledError}
    assert refusals
    # They were told the truth: what was refused is not there when it is tried again.
    assert [each for each in refusals if "duplicate" in each] == []
    async with place.open(StoreConfig(keep=None)) as store:
        there = {row.spec.id: row for row in await store.tasks(limit=100_000)}
        for id in acknowledged:
            assert there[id].status == RunState.SUCCEEDED
            (found,) = await results_of(store, there[id].number, limit=9, after=-1)
            assert found.outcome.stdout == id.encode() * 100
    assert [line async for line in check(place.address, Path("/nonexistent")) if not line.startswith("modules/")] == []


async def test_a_store_that_is_closed_while_its_server_is_gone_ends(mortal: Server) -> None:
    place = PostgresPlace(mortal)
    try:
        async with asyncio.timeout(30):
            async with place.open(CONFIG, **QUICK) as store:
                await add(store, spec())
                await asyncio.to_thread(mortal.kill)
                await in_trouble(store)
            with pytest.raises(StoreError):
                await add(store, spec("late"))
    finally:
        await asyncio.to_thread(mortal.start)
    async with place.open(CONFIG) as store:
        assert await ids(store) == ["t"]


# Tables.


async def test_tables_of_version_1_get_a_place_for_inputs(
    place: PostgresPlace,
) -> None:
    async with place.open(CONFIG) as store:
        await add(store, spec("old", module="aa"))
    await place.change("ALTER TABLE tasks DROP COLUMN inputs", "UPDATE store SET version = 1")
    async with place.open(CONFIG) as store:
        await add(store, spec("batch", inputs="bb"))
        assert await ids(store) == ["batch", "old"]
        assert {"aa", "bb"} <= await store.modules()
    assert await place.rows("SELECT version FROM store") == [(len(tables.STEPS),)]


async def test_a_step_is_taken_once_and_a_later_version_is_refused(
    place: PostgresPlace, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with place.open(CONFIG) as store:
        await add(store, spec())
    version = len(tables.STEPS)
    monkeypatch.setattr(tables, "STEPS", [*tables.STEPS, "ALTER TABLE tasks ADD COLUMN later text DEFAULT 'x'"])
    for _ in range(2):
        async with place.open(CONFIG) as store:
            assert await ids(store) == ["t"]
    assert await place.rows("SELECT version, (SELECT min(later) FROM tasks) FROM store") == [(version + 1, "x")]
    monkeypatch.undo()
    with pytest.raises(UsageError, match=rf"has version {version + 1}, this ww reads version {version}: use another"):
        async with place.open(CONFIG):
            pass


async def test_a_step_that_fails_is_not_taken(place: PostgresPlace, monkeypatch: pytest.MonkeyPatch) -> None:
    async with place.open(CONFIG):
        pass
    version = len(tables.STEPS)
    monkeypatch.setattr(tables, "STEPS", [*tables.STEPS, "DROP TABLE forgetting; SELECT nothing"])
    with pytest.raises(StoreError, match="cannot be made"):
        async with place.open(CONFIG):
            pass
    assert await place.rows("SELECT version, (SELECT count(*) FROM forgetting) FROM store") == [(version, 0)]


async def test_a_schema_of_something_else_is_left_alone(place: PostgresPlace) -> None:
    place.server.sql(f"CREATE SCHEMA {place.schema}; CREATE TABLE {place.schema}.theirs (x int)")
    with pytest.raises(UsageError, match="has tables of something else: name another with --store-schema"):
        async with place.open(CONFIG):
            pass
    assert await place.rows("SELECT count(*) FROM pg_tables WHERE schemaname = current_schema()") == [(1,)]
    with pytest.raises(UsageError, match="something else"):
        _ = [line async for line in check(place.address, Path("/nonexistent"))]


# Looking.


async def test_a_check_finds_what_contradicts_itself(place: PostgresPlace, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=f"there is no store in the schema {place.schema}"):
        _ = [line async for line in check(place.address, tmp_path)]
    async with place.open(CONFIG) as store:
        one, two = await add(store, spec("a"), spec("b", repeats=2))
        await end(store, one, result())
        await end(store, two, result(0))
        assert [line async for line in check(place.address, tmp_path)] == [
            f"modules/{'0' * 64}.wasm: it is named and is not there"
        ]
    await place.change(
        "UPDATE tasks SET succeeded = 3 WHERE id = 'a'",
        "UPDATE runs SET task = 99 WHERE task = (SELECT number FROM tasks WHERE id = 'b')",
        "UPDATE tasks SET spec = '{' WHERE id = 'b'",
    )
    found = [line async for line in check(place.address, tmp_path) if not line.startswith("modules/")]
    assert found == [
        "task a: it counts 3 runs as succeeded and 0 as failed, its results say otherwise",
        "task b: it counts 1 runs as succeeded and 0 as failed, its results say otherwise",
        "1 results are of no task (its number was 99)",
        "task b: what was submitted cannot be read",
    ]


# Who may come.


async def test_a_password_is_asked_for_and_its_lack_is_one_clear_line(place: PostgresPlace) -> None:
    url = place.server.tcp_url
    for password in (None, "wrong"):
        address = PostgresAddress(url, "127.0.0.1", "ww", schema=place.schema, password=password)
        with pytest.raises(StoreError) as error:
            async with PostgresStore(address):
                pass
        assert str(error.value).startswith("the database ww at 127.0.0.1 cannot be reached: "), error
        assert "wrong" not in str(error.value).partition(": ")[2].replace("the password is wrong", "")
    address = PostgresAddress(url, "127.0.0.1", "ww", schema=place.schema, password=PASSWORD)
    assert PASSWORD not in f"{address!r} {address}"
    async with PostgresStore(address) as store:
        await add(store, spec())


async def test_sessions_that_cannot_write_say_so(place: PostgresPlace) -> None:
    place.server.sql(f"CREATE ROLE reader_{place.schema} LOGIN")
    url = place.server.url.replace("ww@", f"reader_{place.schema}@")
    with pytest.raises(StoreError, match=rf"^the schema {place.schema} cannot be made: permission denied for database"):
        async with PostgresStore(PostgresAddress(url, "/", "ww", schema=place.schema)):
            pass


@contextlib.contextmanager
def without_broken_handshakes() -> Iterator[None]:
    """Hear nothing of the future that asyncpg leaves behind when a server hangs up in the midst of its handshake."""
    loop = asyncio.get_running_loop()
    told = loop.get_exception_handler()

    def tell(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        if "connection_lost() call" not in str(context.get("exception")):
            (told or asyncio.AbstractEventLoop.default_exception_handler)(loop, context)

    loop.set_exception_handler(tell)
    try:
        yield
    finally:
        gc.collect()
        loop.set_exception_handler(told)


async def test_a_server_on_another_machine_has_to_say_who_it_is(mortal: Server, tmp_path: Path) -> None:
    schema = PostgresPlace(mortal).schema

    def address(sslmode: str, host: str = "localhost", root: Path | None = None) -> PostgresAddress:
        parameters = f"?sslmode={sslmode}" * bool(sslmode) + f"&sslrootcert={root}" * (root is not None)
        read = read_address(f"postgresql://ww@{host}:{mortal.port}/ww{parameters}")
        return dataclasses.replace(read, password=PASSWORD, schema=schema)

    # As is asked for elsewhere when nothing is said; what is spoken to is this machine all the same.
    elsewhere = dataclasses.replace(address(""), host="db.example.org")
    assert not elsewhere.is_local
    assert await refusal(elsewhere) == "the database ww at db.example.org cannot be reached: it does not speak TLS"
    certificate, key = write_certificate(tmp_path, "localhost")
    await asyncio.to_thread(mortal.encrypt, certificate.read_bytes(), key.read_bytes())
    assert "cannot be reached: its certificate is not trusted: self-signed" in await refusal(elsewhere)
    for trusting in (address("verify-full", root=certificate), address("require"), address("")):
        async with PostgresStore(trusting) as store:
            session = store._writer._session
            assert await session.fetchval("SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()")
    refused = await refusal(address("verify-full", "127.0.0.1", certificate))
    assert "its certificate is not trusted: IP address mismatch" in refused
    other, _ = write_certificate(tmp_path, "other.example.org")
    assert "its certificate is not trusted" in await refusal(address("verify-full", root=other))
    assert "a file that the address names is not there" in await refusal(
        address("verify-full", root=tmp_path / "missing")
    )


async def refusal(address: PostgresAddress) -> str:
    with without_broken_handshakes(), pytest.raises(StoreError) as error:
        async with PostgresStore(address):
            pass
    assert "\n" not in str(error.value)
    return str(error.value)
