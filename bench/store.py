"""The store's statements in SQLite and PostgreSQL, through sqlite3, SQLAlchemy Core and asyncpg; and large payloads.

    scripts/setup bench && .venv/bin/python bench/store.py [--rows N] [--directory DIR]

One JSON line a case; times depend on the disk, so the flush alone comes first. Both ways into SQLite use the same file,
tables, log mode and transactions, and all make the same objects of what they read. PostgreSQL is started for it, on the
same disk and with its own settings, where it is there. What was decided by it: docs/architecture.md.
"""

import argparse
import asyncio
import json
import os
import sqlite3
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Final, Protocol

ROOT: Final = Path(__file__).resolve().parent.parent
sys.path[0] = str(ROOT)

import asyncpg  # noqa: E402
import sqlalchemy  # noqa: E402

from tests.gateway.postgres_server import running_server, why_no_server  # noqa: E402
from ww.gateway import rows, segments  # noqa: E402
from ww.gateway.database import connect, open_database  # noqa: E402
from ww.gateway.postgres.tables import STEPS  # noqa: E402
from ww.gateway.rows import RUN_COLUMNS, TASK_COLUMNS  # noqa: E402
from ww.gateway.segments import Segments  # noqa: E402
from ww.gateway.task import Outcome, RunResult, RunState, Spec  # noqa: E402

_GROUPS: Final = (1, 64)
_PAGE: Final = 100
_TASK_VALUES: Final = ("id", "spec", "repeats", "created_at", "module", "spec_bytes")


def report(case: str, **figures: float) -> None:
    print(json.dumps({"case": case} | {name: float(f"{value:.4g}") for name, value in figures.items()}), flush=True)


def flush_ms(directory: Path, count: int) -> float:
    """Return the median time of a flush after 4 KiB were appended."""
    times_s = []
    with tempfile.TemporaryFile(dir=directory) as file:
        for _ in range(count):
            os.write(file.fileno(), bytes(4096))
            start = time.perf_counter()
            os.fdatasync(file.fileno())
            times_s.append(time.perf_counter() - start)
    return statistics.median(times_s) * 1e3


def spec(number: int) -> Spec:
    return Spec(
        id=f"task-{number:08}", module="0" * 64, kind="function", entry="run", duration_s=5.0, memory_bytes=1 << 20,
        output_bytes=1 << 16, input=number, difficulty=3, arguments=(number, 3),
    )  # fmt: skip


def task_values(number: int) -> tuple[Any, ...]:
    text = rows.spec_to_text(spec(number))
    assert text is not None
    return f"task-{number:08}", text, 1, 1.7e9, "0" * 64, len(text)


def result(run: int, stdout: bytes = b"2832\n") -> RunResult:
    return RunResult(
        run=run, state=RunState.SUCCEEDED, outcome=Outcome(result="2832", stdout=stdout, wall_s=0.001), worker="w" * 52,
        attempts=1, queued_at=1.7e9, started_at=1.7e9, finished_at=1.7e9,
    )  # fmt: skip


class Way(Protocol):
    """What the store asks of a database."""

    def add_tasks(self, values: Sequence[tuple[Any, ...]]) -> None:
        """One transaction, one statement a task, as each wants its number."""

    def add_results(self, values: Sequence[tuple[Any, ...]]) -> None:
        """One transaction of results of task 1."""

    def task(self, id: str) -> rows.TaskRow:
        """One task by its id."""

    def results(self, limit: int) -> list[RunResult]:
        """A page of task 1."""


class Plain:
    """Statements as text, as the store has them."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def add_tasks(self, values: Sequence[tuple[Any, ...]]) -> None:
        insert = f"INSERT INTO tasks ({', '.join(_TASK_VALUES)}) VALUES (?, ?, ?, ?, ?, ?)"
        with self._transaction():
            for row in values:
                assert self._connection.execute(insert, row).lastrowid

    def add_results(self, values: Sequence[tuple[Any, ...]]) -> None:
        insert = f"INSERT INTO runs ({', '.join(RUN_COLUMNS)}) VALUES ({', '.join('?' * len(RUN_COLUMNS))})"
        with self._transaction():
            self._connection.executemany(insert, values)
            update = "UPDATE tasks SET succeeded = succeeded + ?1 WHERE number = ?2"
            self._connection.execute(update, (len(values), 1))

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._connection.execute("BEGIN IMMEDIATE")
        yield
        self._connection.execute("UPDATE store SET serial = serial + 1")
        self._connection.execute("COMMIT")

    def task(self, id: str) -> rows.TaskRow:
        row = self._connection.execute(f"SELECT {', '.join(TASK_COLUMNS)} FROM tasks WHERE id = ?", (id,)).fetchone()
        return rows.task_row(row, rows.text_to_spec(row[1]))

    def results(self, limit: int) -> list[RunResult]:
        query = f"SELECT {', '.join(RUN_COLUMNS)} FROM runs WHERE task = ? AND run > ? ORDER BY run LIMIT ?"
        return [rows.row_to_result(row) for row in self._connection.execute(query, (1, -1, limit))]


class Core:
    """The same through SQLAlchemy Core: tables and expressions, which it compiles once and keeps."""

    def __init__(self, connection: sqlalchemy.Connection) -> None:
        self._connection = connection
        tables = sqlalchemy.MetaData()
        tables.reflect(connection)
        connection.commit()
        self._tasks, self._runs, self._store = tables.tables["tasks"], tables.tables["runs"], tables.tables["store"]

    def add_tasks(self, values: Sequence[tuple[Any, ...]]) -> None:
        insert = sqlalchemy.insert(self._tasks)
        with self._connection.begin():
            for row in values:
                made = self._connection.execute(insert, dict(zip(_TASK_VALUES, row, strict=True)))
                assert made.inserted_primary_key
            self._count()

    def add_results(self, values: Sequence[tuple[Any, ...]]) -> None:
        tasks = self._tasks
        with self._connection.begin():
            given = [dict(zip(RUN_COLUMNS, row, strict=True)) for row in values]
            self._connection.execute(sqlalchemy.insert(self._runs), given)
            changed = tasks.c.succeeded + sqlalchemy.bindparam("more")
            update = sqlalchemy.update(tasks).where(tasks.c.number == 1).values(succeeded=changed)
            self._connection.execute(update, {"more": len(values)})
            self._count()

    def _count(self) -> None:
        self._connection.execute(sqlalchemy.update(self._store).values(serial=self._store.c.serial + 1))

    def task(self, id: str) -> rows.TaskRow:
        query = sqlalchemy.select(*(self._tasks.c[name] for name in TASK_COLUMNS)).where(self._tasks.c.id == id)
        with self._connection.begin():
            row = tuple(self._connection.execute(query).one())
        return rows.task_row(row, rows.text_to_spec(row[1]))

    def results(self, limit: int) -> list[RunResult]:
        runs = self._runs
        query = sqlalchemy.select(*(runs.c[name] for name in RUN_COLUMNS)).where(runs.c.task == 1, runs.c.run > -1)
        with self._connection.begin():
            found = self._connection.execute(query.order_by(runs.c.run).limit(limit))
            return [rows.row_to_result(tuple(row)) for row in found]


class Asyncpg:
    """The same statements in PostgreSQL, as the store has them there."""

    _COLUMNS: Final = tuple(name for name in RUN_COLUMNS if not name.endswith("_payload"))

    def __init__(self, runner: asyncio.Runner, session: Any) -> None:
        self._runner = runner
        self._session = session

    def add_tasks(self, values: Sequence[tuple[Any, ...]]) -> None:
        insert = (
            "INSERT INTO tasks (id, spec, repeats, created_at, module, stdin, owner, files)"
            " VALUES ($1, $2, $3, $4, $5, '', '', '') RETURNING number"
        )

        async def add() -> None:
            await self._begin()
            assert len(await self._session.fetchmany(insert, [row[:5] for row in values])) == len(values)
            await self._session.execute("COMMIT")

        self._runner.run(add())

    def add_results(self, values: Sequence[tuple[Any, ...]]) -> None:
        places = ", ".join(f"${number}" for number, _ in enumerate(self._COLUMNS, 1))
        insert = f"INSERT INTO runs ({', '.join(self._COLUMNS)}) VALUES ({places})"
        made = [row[: len(self._COLUMNS)] for row in values]

        async def add() -> None:
            await self._begin()
            await self._session.executemany(insert, made)
            await self._session.execute("UPDATE tasks SET succeeded = succeeded + $1 WHERE number = $2", len(values), 1)
            await self._session.execute("COMMIT")

        self._runner.run(add())

    async def _begin(self) -> None:
        await self._session.execute("BEGIN; UPDATE store SET serial = serial + 1")

    def task(self, id: str) -> rows.TaskRow:
        query = f"SELECT {', '.join(TASK_COLUMNS).replace('spec_payload', 'NULL')} FROM tasks WHERE id = $1"
        row = tuple(self._runner.run(self._session.fetchrow(query, id)))
        return rows.task_row(row, rows.text_to_spec(row[1]))

    def results(self, limit: int) -> list[RunResult]:
        query = f"SELECT {', '.join(self._COLUMNS)} FROM runs WHERE task = $1 AND run > $2 ORDER BY run LIMIT $3"
        found = self._runner.run(self._session.fetch(query, 1, -1, limit))
        return [rows.row_to_result((*row, None, None)) for row in found]


@contextmanager
def in_postgres(directory: Path | None) -> Iterator[Way]:
    with running_server(directory) as server, asyncio.Runner() as runner:
        session = runner.run(asyncpg.connect(server.url))
        for step in STEPS:
            runner.run(session.execute(step))
        yield Asyncpg(runner, session)
        runner.run(session.close())


@contextmanager
def plain(path: Path) -> Iterator[Way]:
    with closing(open_database(path, 5.0)) as connection:
        yield Plain(connection)


@contextmanager
def core(path: Path) -> Iterator[Way]:
    open_database(path, 5.0).close()
    engine = sqlalchemy.create_engine("sqlite://", creator=lambda: connect(path, 5.0), poolclass=sqlalchemy.StaticPool)

    def begin(connection: sqlalchemy.Connection) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    sqlalchemy.event.listen(engine, "begin", begin)
    with engine.connect() as connection:
        yield Core(connection)
    engine.dispose()


def seconds_each(count: int, once: Callable[[int], object]) -> float:
    """Return the time of one of count calls."""
    start = time.perf_counter()
    for index in range(count):
        once(index)
    return (time.perf_counter() - start) / count


def measure(name: str, way: Way, count: int) -> None:
    way.add_tasks([task_values(0)])
    following, run = 1, 0
    for group in _GROUPS:
        commits = max(20, count // group // (8 if group == 1 else 1))

        def add_tasks(index: int, first: int = following, group: int = group) -> None:
            way.add_tasks([task_values(first + index * group + i) for i in range(group)])

        def add_results(index: int, first: int = run, group: int = group) -> None:
            way.add_results([rows.result_to_row(1, result(first + index * group + i)) for i in range(group)])

        tasks_s, results_s = seconds_each(commits, add_tasks), seconds_each(commits, add_results)
        following, run = following + commits * group, run + commits * group
        report(f"{name}_add_tasks", group=group, commit_ms=tasks_s * 1e3, tasks_per_s=group / tasks_s)
        report(f"{name}_add_results", group=group, commit_ms=results_s * 1e3, results_per_s=group / results_s)
    each_s = seconds_each(count // 4, lambda index: way.task(f"task-{index % following:08}"))
    report(f"{name}_read_task", task_us=each_s * 1e6)
    each_s = seconds_each(count // 40, lambda _: way.results(_PAGE))
    report(f"{name}_read_results", page=_PAGE, page_ms=each_s * 1e3)


def payloads_in(name: str, way: Way, count: int, size: int) -> None:
    """Results with output, 64 a commit."""
    data, first = os.urandom(size), 1 << 40

    def commit(index: int) -> None:
        way.add_results([rows.result_to_row(1, result(first + index * 64 + i, data)) for i in range(64)])

    report(f"payloads_in_{name}", size=size, results_per_s=64 / seconds_each(count // 64, commit))


def payloads(directory: Path, count: int, size: int) -> None:
    """Results with output, 64 a commit: in rows, and in a segment beside them."""
    data = os.urandom(size)
    for name in ("rows", "segments"):
        with closing(open_database(directory / f"payloads-{name}.db", 5.0)) as connection:
            way = Plain(connection)
            way.add_tasks([task_values(0)])
            store = Segments(segments.directory_of(directory / f"payloads-{name}.db"), roll_bytes=64 << 20)
            store.open({})

            def commit(index: int, name: str = name, way: Way = way, store: Segments = store) -> None:
                made = [rows.result_to_row(1, result(index * 64 + i, data)) for i in range(64)]
                if name == "segments":
                    places = [store.append(data) for _ in made]
                    store.sync()
                    made = [rows.result_to_row(1, result(index * 64 + i)) for i in range(len(places))]
                way.add_results(made)

            each_s = seconds_each(count // 64, commit)
            store.close()
        report(f"payloads_in_{name}", size=size, results_per_s=64 / each_s)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=8000, help="tasks, and results, of a case (8000)")
    parser.add_argument("--directory", type=Path, help="a folder on the disk to measure (the temporary one)")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.directory) as name:
        directory = Path(name)
        report("flush", flush_ms=flush_ms(directory, 200))
        for label, way in (("sqlite3", plain), ("sqlalchemy", core)):
            with way(directory / f"{label}.db") as opened:
                measure(label, opened, arguments.rows)
        if why := why_no_server():
            print(f"no PostgreSQL: {why}", file=sys.stderr)
        else:
            with in_postgres(arguments.directory) as opened:
                measure("postgres", opened, arguments.rows)
                payloads_in("postgres", opened, 1024, 100_000)
        payloads(directory, 1024, 100_000)
        report("flush", flush_ms=flush_ms(directory, 200))


if __name__ == "__main__":
    main()
