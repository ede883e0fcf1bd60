"""What a gateway remembers: tasks and the results of their runs, in SQLite.

Holds the tables and the one writer. Must not know when runs are due or who runs them. A call that writes returns when
its rows are on disk (WAL, synchronous=FULL): many callers share one transaction, since a commit costs a disk flush
however much is in it. The writer and the reader are threads of their own: a flush never stalls the loop.

There is a row for each task and for each run that ended. Runs under way have none: a gateway that is killed runs them
again.
"""

import asyncio
import base64
import json
import os
import queue
import sqlite3
import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, fields
from operator import attrgetter
from pathlib import Path
from typing import Any, Final, Self, TypeVar

from ww.errors import StoreError, UsageError
from ww.gateway.task import Outcome, Policy, RunResult, RunState, Spec, Task

T = TypeVar("T")

_GROUP_MAX: Final = 1024
_FORGET_EVERY: Final = 64
_VERSION: Final = 2
_SCHEMA: Final = """
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
"""
# What makes a database of each version one of the next.
_MIGRATIONS: Final = {
    1: """
ALTER TABLE runs ADD COLUMN fuel INTEGER;
ALTER TABLE runs ADD COLUMN queue_s REAL NOT NULL DEFAULT 0;
ALTER TABLE runs ADD COLUMN compile_s REAL NOT NULL DEFAULT 0;
ALTER TABLE runs ADD COLUMN instantiate_s REAL NOT NULL DEFAULT 0;
ALTER TABLE runs ADD COLUMN files_bytes INTEGER NOT NULL DEFAULT 0;
ALTER TABLE runs ADD COLUMN artifacts TEXT NOT NULL DEFAULT '';
ALTER TABLE runs ADD COLUMN artifacts_bytes INTEGER NOT NULL DEFAULT 0;
CREATE INDEX runs_artifacts ON runs (artifacts) WHERE artifacts <> '';
UPDATE tasks SET spec = iif(
  spec ->> 'entry' = '',
  json_set(spec, '$.kind', 'command'),
  json_set(spec, '$.kind', 'function', '$.arguments',
    json_array(coalesce(spec ->> 'input', 0), coalesce(spec ->> 'difficulty', 0)))
);
""",
}
_OUTCOME: Final = tuple(f.name for f in fields(Outcome))
_outcome_values: Final = attrgetter(*_OUTCOME)
_RUN_COLUMNS: Final = (
    "run", "state", "worker", "attempts", "queued_at", "started_at", "finished_at", *_OUTCOME,
)  # fmt: skip
_RUN_VALUES: Final = f"({', '.join('?' * (len(_RUN_COLUMNS) + 1))})"
# Many rows a statement: each statement lets go of the interpreter lock, and has to get it back.
_ROWS_AT_ONCE: Final = 16
_INSERT_RUN: Final = f"INSERT INTO runs (task, {', '.join(_RUN_COLUMNS)}) VALUES {_RUN_VALUES}"
_INSERT_RUNS: Final = _INSERT_RUN + f", {_RUN_VALUES}" * (_ROWS_AT_ONCE - 1)
_ADD_ENDED: Final = (
    "UPDATE tasks SET succeeded = succeeded + ?1, failed = failed + ?2, finished_at ="
    " iif(finished_at IS NULL AND succeeded + ?1 + failed + ?2 = repeats, ?3, finished_at) WHERE number = ?4"
)
_SELECT_RUN: Final = f"SELECT {', '.join(_RUN_COLUMNS)} FROM runs"
_SELECT_TASK: Final = "SELECT number, spec, created_at, finished_at, cancelled, succeeded, failed FROM tasks"


@dataclass(frozen=True, slots=True)
class TaskRow:
    """A task as it is on disk. Times are seconds since the epoch."""

    number: int
    spec: Spec
    created_at: float
    finished_at: float | None
    cancelled: bool
    succeeded: int
    failed: int

    @property
    def status(self) -> str:
        """The status of a task that has ended."""
        if self.cancelled:
            return RunState.CANCELLED
        return RunState.FAILED if self.failed else RunState.SUCCEEDED

    @property
    def has_ended(self) -> bool:
        return self.finished_at is not None


@dataclass(slots=True)
class _Write:
    """One caller's share of a transaction."""

    work: Callable[[sqlite3.Connection], Any]
    done: asyncio.Future[Any]


class Store:
    """One gateway's database. Open it with `async with`."""

    def __init__(self, path: Path) -> None:
        """Keep everything in the file at path, which is made when it is not there."""
        self._path = path
        self._queue: queue.SimpleQueue[_Write | None] = queue.SimpleQueue()
        self._writer: threading.Thread | None = None
        self._reader = ThreadPoolExecutor(1, "ww-store-reader")
        self._read_connection: sqlite3.Connection | None = None

    async def __aenter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        connection = await asyncio.to_thread(self._open)
        self._read_connection = await self._loop.run_in_executor(self._reader, self._connect)
        self._writer = threading.Thread(target=self._write_all, args=(connection,), name="ww-store-writer")
        self._writer.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._writer is not None:
            self._queue.put(None)
            await asyncio.to_thread(self._writer.join)
        if self._read_connection is not None:
            await self._loop.run_in_executor(self._reader, self._read_connection.close)
        self._reader.shutdown(wait=False)

    # Writing: every call returns when it is on disk.

    async def add_task(self, spec: Spec, created_at: float, *, keep: int) -> int:
        """Remember a task that is not there yet and return its number. Forgets ended tasks beyond the newest keep."""
        row = (spec.id, _spec_to_json(spec), spec.repeats, created_at)

        def work(connection: sqlite3.Connection) -> int:
            cursor = connection.execute("INSERT INTO tasks (id, spec, repeats, created_at) VALUES (?, ?, ?, ?)", row)
            assert cursor.lastrowid is not None
            # Now and then, so that few submissions pay for it.
            if cursor.lastrowid % min(_FORGET_EVERY, keep // 8 + 1) == 0:
                _forget_beyond(connection, keep)
            return cursor.lastrowid

        return await self._write(work)

    async def add_results(self, results: Sequence[tuple[int, RunResult]]) -> None:
        """Remember the ends of runs, each with its task's number; a task is finished with the last of its runs."""
        rows = [_result_to_row(task, result) for task, result in results]
        ended: dict[int, list[RunResult]] = {}
        for task, result in results:
            ended.setdefault(task, []).append(result)
        sums = [
            (
                sum(result.state is RunState.SUCCEEDED for result in of_task),
                sum(result.state is RunState.FAILED for result in of_task),
                max(result.finished_at for result in of_task),
                task,
            )
            for task, of_task in ended.items()
        ]

        def work(connection: sqlite3.Connection) -> None:
            _insert_runs(connection, rows)
            connection.executemany(_ADD_ENDED, sums)

        await self._write(work)

    async def cancel_task(self, task: int, cancelled_at: float) -> bool:
        """Remember that a task was cancelled. Returns False, and changes nothing, when it had ended."""

        def work(connection: sqlite3.Connection) -> bool:
            found = connection.execute(
                "UPDATE tasks SET cancelled = 1, finished_at = ? WHERE number = ? AND finished_at IS NULL",
                (cancelled_at, task),
            )
            return found.rowcount > 0

        return await self._write(work)

    # Reading.

    async def open_tasks(self, now: float, wall: float, policy: Policy | None = None) -> list[Task]:
        """Return the tasks that have not ended, oldest first, with what is known of their runs."""

        def work(connection: sqlite3.Connection) -> list[Task]:
            tasks = []
            for row in connection.execute(f"{_SELECT_TASK} WHERE finished_at IS NULL ORDER BY number").fetchall():
                stored = _row_to_task(row)
                times = {"created_at": stored.created_at, "now": now, "wall": wall}
                task = Task(stored.spec, number=stored.number, **times, policy=policy)
                for run, state in connection.execute("SELECT run, state FROM runs WHERE task = ?", (stored.number,)):
                    task.restore(run, RunState(state))
                tasks.append(task)
            return tasks

        return await self._read(work)

    async def task(self, id: str) -> TaskRow | None:
        """Return the task of that id."""

        def work(connection: sqlite3.Connection) -> TaskRow | None:
            row = connection.execute(f"{_SELECT_TASK} WHERE id = ?", (id,)).fetchone()
            return None if row is None else _row_to_task(row)

        return await self._read(work)

    async def tasks(self, *, limit: int, before: int | None = None) -> list[TaskRow]:
        """Return up to limit tasks, newest first; before a task's number, those that are older than it."""

        def work(connection: sqlite3.Connection) -> list[TaskRow]:
            rows = connection.execute(
                f"{_SELECT_TASK} WHERE number < ? ORDER BY number DESC LIMIT ?", (before or 1 << 62, limit)
            )
            return [_row_to_task(row) for row in rows.fetchall()]

        return await self._read(work)

    async def latest_results(
        self, tasks: Iterable[int], *, limit: int, output_bytes_max: int
    ) -> dict[int, list[RunResult]]:
        """Return the latest results of each of those tasks, latest first.

        At most limit of each, and fewer once the output of all together passes output_bytes_max.
        """
        numbers = tuple(tasks)

        def work(connection: sqlite3.Connection) -> dict[int, list[RunResult]]:
            query = f"{_SELECT_RUN} WHERE task = ? ORDER BY position DESC LIMIT ?"
            found: dict[int, list[RunResult]] = {number: [] for number in numbers}
            left = output_bytes_max
            for number in numbers:
                for row in connection.execute(query, (number, limit)):
                    result = _row_to_result(row)
                    left -= len(result.outcome.stdout) + len(result.outcome.stderr)
                    if left < 0:
                        return found
                    found[number].append(result)
            return found

        return await self._read(work)

    async def results(self, task: int, *, limit: int, after: int) -> list[RunResult]:
        """Return up to limit results of a task by run number, those beyond run number after."""

        def work(connection: sqlite3.Connection) -> list[RunResult]:
            query = f"{_SELECT_RUN} WHERE task = ? AND run > ? ORDER BY run LIMIT ?"
            return [_row_to_result(row) for row in connection.execute(query, (task, after, limit))]

        return await self._read(work)

    async def results_since(self, task: int, *, position: int, limit: int) -> list[tuple[int, RunResult]]:
        """Return up to limit results of a task in the order in which they came, each with its position.

        Only those beyond that position, 0 for all. Positions grow over all tasks, and mean the same after a restart.
        """

        def work(connection: sqlite3.Connection) -> list[tuple[int, RunResult]]:
            query = _SELECT_RUN.replace("SELECT ", "SELECT position, ", 1)
            query += " WHERE task = ? AND position > ? ORDER BY position LIMIT ?"
            return [(row[0], _row_to_result(row[1:])) for row in connection.execute(query, (task, position, limit))]

        return await self._read(work)

    async def modules(self) -> set[str]:
        """Return the digests of all modules and files that a remembered task names."""

        def work(connection: sqlite3.Connection) -> set[str]:
            rows = connection.execute("SELECT DISTINCT spec ->> 'module', spec ->> 'files' FROM tasks")
            return {digest for row in rows for digest in row if digest}

        return await self._read(work)

    async def artifacts(self) -> set[str]:
        """Return the digests of all artifacts that a remembered run has."""

        def work(connection: sqlite3.Connection) -> set[str]:
            return {row[0] for row in connection.execute("SELECT DISTINCT artifacts FROM runs WHERE artifacts <> ''")}

        return await self._read(work)

    # The threads.

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self._path, isolation_level=None, check_same_thread=False, timeout=10)
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
        return connection

    def _open(self) -> sqlite3.Connection:
        try:
            # SQLite gives the files beside it the permissions that it finds here.
            os.close(os.open(self._path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600))
            self._path.chmod(0o600)
        except OSError as error:
            raise StoreError(f"the database {self._path.name} cannot be opened: {error.strerror}") from None
        try:
            connection = self._connect()
            try:
                self._bring_up(connection)
            except BaseException:
                connection.close()
                raise
        except sqlite3.Error as error:
            raise StoreError(f"the database {self._path.name} cannot be opened: {error}") from None
        return connection

    def _bring_up(self, connection: sqlite3.Connection) -> None:
        """Make a database what this version reads. Each step is done or not: a gateway may be killed here."""
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        if version == 0:
            connection.executescript(f"BEGIN; {_SCHEMA} PRAGMA user_version = {_VERSION}; COMMIT;")
            return
        while version in _MIGRATIONS:
            step = f"BEGIN; {_MIGRATIONS[version]} PRAGMA user_version = {version + 1}; COMMIT;"
            connection.executescript(step)
            version += 1
        if version != _VERSION:
            raise UsageError(
                f"the database {self._path.name} has version {version}, this ww reads version {_VERSION}:"
                " use another --state or another ww"
            )

    async def _write(self, work: Callable[[sqlite3.Connection], T]) -> T:
        done: asyncio.Future[T] = self._loop.create_future()
        self._queue.put(_Write(work, done))
        return await done

    async def _read(self, work: Callable[[sqlite3.Connection], T]) -> T:
        def guarded() -> T:
            assert self._read_connection is not None
            try:
                return work(self._read_connection)
            except sqlite3.Error as error:
                raise StoreError(f"the database cannot be read: {error}") from None

        return await self._loop.run_in_executor(self._reader, guarded)

    def _write_all(self, connection: sqlite3.Connection) -> None:
        """Commit what waits, as one transaction, until told to stop."""
        stopping = False
        while not stopping:
            waiting = [self._queue.get()]
            while len(waiting) < _GROUP_MAX and not self._queue.empty():
                waiting.append(self._queue.get())
            stopping = None in waiting
            group = [write for write in waiting if write is not None]
            results, error = _commit(connection, group) if group else ([], None)
            if error is not None and len(group) > 1:
                # One caller's trouble is not the others': try each alone.
                for write in group:
                    self._tell([write], *_commit(connection, [write]))
            else:
                self._tell(group, results, error)
        connection.close()

    def _tell(self, group: list[_Write], results: list[Any], error: StoreError | None) -> None:
        def tell() -> None:
            for index, write in enumerate(group):
                if write.done.cancelled():
                    continue
                if error is not None:
                    write.done.set_exception(error)
                else:
                    write.done.set_result(results[index])

        self._loop.call_soon_threadsafe(tell)


def _commit(connection: sqlite3.Connection, group: list[_Write]) -> tuple[list[Any], StoreError | None]:
    try:
        connection.execute("BEGIN IMMEDIATE")
        results = [write.work(connection) for write in group]
        connection.execute("COMMIT")
    except (sqlite3.Error, OverflowError, ValueError) as error:  # the latter two: values that cannot be bound
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        return [], StoreError(f"the database cannot be written: {error}")
    return results, None


def _insert_runs(connection: sqlite3.Connection, rows: list[tuple[Any, ...]]) -> None:
    whole = len(rows) - len(rows) % _ROWS_AT_ONCE
    for first in range(0, whole, _ROWS_AT_ONCE):
        connection.execute(_INSERT_RUNS, [value for row in rows[first : first + _ROWS_AT_ONCE] for value in row])
    connection.executemany(_INSERT_RUN, rows[whole:])


def _forget_beyond(connection: sqlite3.Connection, keep: int) -> None:
    query = "SELECT number FROM tasks WHERE finished_at IS NOT NULL ORDER BY number DESC LIMIT ? OFFSET ?"
    old = connection.execute(query, (2 * _FORGET_EVERY, keep)).fetchall()
    connection.executemany("DELETE FROM runs WHERE task = ?", old)
    connection.executemany("DELETE FROM tasks WHERE number = ?", old)


def _spec_to_json(spec: Spec) -> str:
    return json.dumps(asdict(spec) | {"stdin": base64.b64encode(spec.stdin).decode()}, separators=(",", ":"))


def _row_to_task(row: tuple[Any, ...]) -> TaskRow:
    number, text, created_at, finished_at, cancelled, succeeded, failed = row
    values = json.loads(text)
    values["stdin"] = base64.b64decode(values["stdin"])
    for name in ("args", "arguments", "dirs", "artifacts"):
        values[name] = tuple(values.get(name, ()))
    for name in ("env", "labels"):
        values[name] = tuple((key, value) for key, value in values.get(name, ()))
    return TaskRow(number, Spec(**values), created_at, finished_at, bool(cancelled), succeeded, failed)


def _result_to_row(task: int, result: RunResult) -> tuple[Any, ...]:
    outcome = result.outcome
    return (
        task, result.run, result.state, result.worker, result.attempts, result.queued_at, result.started_at,
        result.finished_at, *_outcome_values(outcome),
    )  # fmt: skip


def _row_to_result(row: tuple[Any, ...]) -> RunResult:
    run, state, worker, attempts, queued_at, started_at, finished_at, *outcome = row
    values = dict(zip(_OUTCOME, outcome, strict=True))
    for name in ("stdout_truncated", "stderr_truncated"):
        values[name] = bool(values[name])
    return RunResult(
        run=run,
        state=RunState(state),
        outcome=Outcome(**values),
        worker=worker,
        attempts=attempts,
        queued_at=queued_at,
        started_at=started_at,
        finished_at=finished_at,
    )
