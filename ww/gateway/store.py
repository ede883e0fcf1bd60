"""What a gateway remembers: tasks and the results of their runs, in SQLite.

Holds what may be asked of it and the statements for that. Must not know when runs are due or who runs them. A call that
writes returns when its rows are on disk (WAL, synchronous=FULL); the writer and the reader are threads of their own, so
a flush never stalls the loop. Payloads above 16 KiB are in files beside the database.

There is a row for each task and for each run that ended. Runs under way have none: a gateway that is killed runs them
again. Read next: writer.py (commits and failures), database.py (tables), segments.py (payloads), retention.py.
"""

import asyncio
import functools
import logging
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final, Self, TypeVar

from ww.clock import Clock, SystemClock
from ww.errors import StoreError
from ww.gateway import retention, rows, segments
from ww.gateway.database import advice, connect, open_database
from ww.gateway.housekeeping import Housekeeping
from ww.gateway.quorum import make_task
from ww.gateway.rows import CUT_PLACES, INLINE_BYTES_MAX, RUN_COLUMNS, STREAM_PLACES, TASK_COLUMNS, TaskRow
from ww.gateway.segments import Extent, Segments
from ww.gateway.storage import SELECT_SPANS, OnResults, Span, StoreConfig
from ww.gateway.task import Policy, RunResult, RunState, Spec, Task
from ww.gateway.writer import Transaction, Writer

__all__ = ["Store", "StoreConfig", "TaskRow"]

T = TypeVar("T")
log = logging.getLogger("ww.gateway")

_RUN_VALUES: Final = f"({', '.join('?' * len(RUN_COLUMNS))})"
# Many rows a statement: each statement lets go of the interpreter lock, and has to get it back.
_ROWS_AT_ONCE: Final = 16
_INSERT_RUN: Final = f"INSERT INTO runs ({', '.join(RUN_COLUMNS)}) VALUES {_RUN_VALUES}"
_INSERT_RUNS: Final = _INSERT_RUN + f", {_RUN_VALUES}" * (_ROWS_AT_ONCE - 1)
_INSERT_TASK: Final = (
    "INSERT INTO tasks (number, id, spec, repeats, created_at, owner, module, files, inputs, spec_bytes)"
    " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
)
# What failed as a whole has counted its runs already.
_ADD_ENDED: Final = (
    "UPDATE tasks SET succeeded = succeeded + iif(reason = '', ?1, 0), failed = failed + iif(reason = '', ?2, 0),"
    " result_bytes = result_bytes + ?5, finished_at ="
    " iif(finished_at IS NULL AND succeeded + ?1 + failed + ?2 = repeats, ?3, finished_at) WHERE number = ?4"
)
_SELECT_RUN: Final = f"SELECT {', '.join(RUN_COLUMNS)} FROM runs"
# Of any task that ever was: a number is never used twice. Of one that was refused only results may be there.
_SELECT_LAST: Final = (
    "SELECT max(coalesce((SELECT seq FROM sqlite_sequence WHERE name = 'tasks'), 0),"
    " coalesce((SELECT max(task) FROM forgetting), 0))"
)
_SELECT_PLACED: Final = _SELECT_RUN.replace("SELECT ", "SELECT position, ", 1)
_SELECT_TASK: Final = f"SELECT {', '.join(TASK_COLUMNS)} FROM tasks"


class Store:
    """One gateway's database. Open it with `async with`."""

    def __init__(self, path: Path, config: StoreConfig | None = None, clock: Clock | None = None) -> None:
        """Keep everything in the file at path, which is made when it is not there, and in a folder beside it."""
        self._path = path
        self._config = config or StoreConfig()
        self._clock = clock or SystemClock()
        self._segments = Segments(segments.directory_of(path), roll_bytes=self._config.segment_bytes)
        self._writer = Writer(path, self._segments, self._config.busy_timeout_s)
        self.on_results: OnResults | None = None
        self._reader = ThreadPoolExecutor(1, "ww-store-reader")
        self._read_connection: sqlite3.Connection | None = None
        self._housekeeping = Housekeeping(
            self._config,
            self._clock,
            health=self.health,
            probe=lambda: self._writer.write(lambda transaction: transaction.probe()),
            housekeep=self.housekeep,
        )
        self._last_number = 0
        """Of a task that was added, or is being added."""
        self._stuck: frozenset[int] = frozenset()
        """Segments that stay, since what is in them is damaged."""

    async def __aenter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        connection = await asyncio.to_thread(self._open)
        try:
            self._read_connection = await self._loop.run_in_executor(self._reader, self._connect_reader)
        except BaseException:
            connection.close()
            raise
        self._writer.start(connection)
        self._group = await asyncio.TaskGroup().__aenter__()
        self._keeping = self._group.create_task(self._housekeeping.always())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._keeping.cancel()
        await self._group.__aexit__(None, None, None)
        await asyncio.to_thread(self._writer.stop)
        if self._read_connection is not None:
            await self._loop.run_in_executor(self._reader, self._read_connection.close)
        self._reader.shutdown(wait=False)

    def health(self) -> str:
        """Say why writing is refused at present, or nothing."""
        return self._writer.trouble

    # Writing: every call returns when it is on disk.

    def reserve(self) -> int:
        """Return a number for a task that is to be added."""
        self._last_number += 1
        return self._last_number

    async def add_task(self, spec: Spec, created_at: float, number: int | None = None) -> int:
        """Remember a task that is not there yet and return its number: the one that was reserved for it, if one was."""
        key = self.reserve() if number is None else number
        text = rows.spec_to_text(spec)
        data = rows.spec_to_bytes(spec) if text is None else b""
        size = len(data) if text is None else len(text)
        files = spec.module, spec.files, spec.inputs
        row = (key, spec.id, text or "", spec.repeats, created_at, spec.owner, *files, size)

        def work(transaction: Transaction) -> int:
            transaction.connection.execute(_INSERT_TASK, row)
            if data:
                update = "UPDATE tasks SET spec_payload = ? WHERE number = ?"
                transaction.connection.execute(update, (transaction.put(key, data), key))
            return key

        return await self._writer.write(work)

    async def add_results(self, results: Sequence[tuple[int, RunResult]]) -> None:
        """Remember the ends of runs, each with its task's number; a task is finished with the last of its runs."""
        made = [rows.result_to_row(task, result) for task, result in results]
        large = [
            (index, stream, payload)
            for index, row in enumerate(made)
            for stream, payload in STREAM_PLACES
            if len(row[stream]) > INLINE_BYTES_MAX
        ]
        sums = rows.ended_sums(results)

        def work(transaction: Transaction) -> int:
            ready = made
            if large:
                ready = list(made)
                for index, stream, payload in large:
                    row = list(ready[index])
                    row[payload], row[stream] = transaction.put(row[0], row[stream]), b""
                    ready[index] = tuple(row)
            _insert_runs(transaction.connection, ready)
            (last,) = transaction.connection.execute("SELECT last_insert_rowid()").fetchone()
            if transaction.connection.executemany(_ADD_ENDED, sums).rowcount < len(sums):
                _doom_orphans(transaction.connection, [of_task[3] for of_task in sums])
            return int(last) - len(ready) + 1

        first = await self._writer.write(work)
        if self.on_results is not None:
            self.on_results(first, results)
        self._housekeeping.note_growth(len(sums), sum(of_task[4] for of_task in sums))

    async def cancel_task(self, task: int, cancelled_at: float) -> bool:
        """Remember that a task was cancelled. Returns False, and changes nothing, when it had ended."""
        return await self._end_task("cancelled = 1, finished_at = ?", (cancelled_at, task))

    async def fail_task(self, task: int, failed_at: float, reason: str) -> bool:
        """Remember that a task failed as a whole, all its runs without a result too. Returns as cancel_task does."""
        changes = "failed = repeats - succeeded, finished_at = ?, reason = ?"
        return await self._end_task(changes, (failed_at, reason or "failed", task))

    async def _end_task(self, changes: str, values: tuple[Any, ...]) -> bool:
        def work(transaction: Transaction) -> bool:
            update = f"UPDATE tasks SET {changes} WHERE number = ? AND finished_at IS NULL"
            return transaction.connection.execute(update, values).rowcount > 0

        return await self._writer.write(work)

    # Reading.

    async def open_tasks(self, now: float, wall: float, policy: Policy | None = None) -> list[Task]:
        """Return the tasks that have not ended, oldest first, with what is known of their runs.

        StoreError, with the newest backup, when one of them is damaged.
        """

        def work(connection: sqlite3.Connection) -> list[Task]:
            tasks = []
            query = f"{_SELECT_TASK} WHERE finished_at IS NULL ORDER BY number"
            for stored in self._tasks_of(connection, query, ()):
                task = make_task(
                    stored.spec, number=stored.number, created_at=stored.created_at, now=now, wall=wall, policy=policy
                )
                # In their order, so that a task keeps a count of them and not each.
                ended = "SELECT run, state FROM runs WHERE task = ? ORDER BY run"
                for run, state in connection.execute(ended, (stored.number,)):
                    task.restore(run, RunState(state))
                tasks.append(task)
            return tasks

        try:
            return await self._read(work)
        except StoreError as error:
            raise StoreError(f"{error}; {advice(self._path)}") from None

    async def task(self, id: str) -> TaskRow | None:
        """Return the task of that id."""
        query = f"{_SELECT_TASK} WHERE id = ?"
        return await self._read(lambda connection: next(self._tasks_of(connection, query, (id,)), None))

    async def tasks(self, *, limit: int, before: int | None = None, owner: str | None = None) -> list[TaskRow]:
        """Return up to limit tasks, newest first; before a task's number, those that are older than it.

        Only those of an owner where one is given. Large stdin is left out: a list may be of a thousand tasks.
        """
        condition, values = ("owner = ? AND ", (owner,)) if owner is not None else ("", ())
        query = f"{_SELECT_TASK} WHERE {condition}number < ? ORDER BY number DESC LIMIT ?"
        given = (*values, before or 1 << 62, limit)
        return await self._read(lambda connection: list(self._tasks_of(connection, query, given, is_list=True)))

    async def latest_results(
        self, tasks: Iterable[int], *, limit: int, output_bytes_max: int
    ) -> dict[int, list[RunResult]]:
        """Return the latest results of each of those tasks, latest first.

        At most limit of each, and fewer once the output of all together passes output_bytes_max. Of output that is
        damaged nothing is left here, so that one run's does not hide all others: `results_by_run` says what is wrong.
        """
        numbers = tuple(tasks)

        def work(connection: sqlite3.Connection) -> dict[int, list[RunResult]]:
            query = f"{_SELECT_RUN} WHERE task = ? ORDER BY position DESC LIMIT ?"
            found: dict[int, list[RunResult]] = {number: [] for number in numbers}
            left = output_bytes_max
            for number in numbers:
                for row in connection.execute(query, (number, limit)):
                    result = self._result_of(connection, row, is_lenient=True)
                    left -= len(result.outcome.stdout) + len(result.outcome.stderr)
                    if left < 0:
                        return found
                    found[number].append(result)
            return found

        return await self._read(work)

    async def results_by_run(
        self, task: int, *, limit: int, after: int, output_bytes_max: int | None = None
    ) -> list[tuple[int, RunResult]]:
        """Return up to limit results of a task by run number, each with its position; see Storage."""
        return await self._results("run", task, after, limit, output_bytes_max)

    async def results_since(
        self, task: int, *, position: int, limit: int, output_bytes_max: int | None = None
    ) -> list[tuple[int, RunResult]]:
        """Return up to limit results of a task in the order in which they came, each with its position; see Storage."""
        return await self._results("position", task, position, limit, output_bytes_max)

    async def _results(
        self, column: str, task: int, after: int, limit: int, output_bytes_max: int | None
    ) -> list[tuple[int, RunResult]]:
        """Return results in the order of a column, with their positions."""
        query = f"{_SELECT_PLACED} WHERE task = ? AND {column} > ? ORDER BY {column} LIMIT ?"

        def work(connection: sqlite3.Connection) -> list[tuple[int, RunResult]]:
            found: list[tuple[int, RunResult]] = []
            left = output_bytes_max
            for row in connection.execute(query, (task, after, limit)):
                result = self._result_of(connection, row[1:])
                if left is not None:
                    left -= len(result.outcome.stdout) + len(result.outcome.stderr)
                    if left < 0 and found:
                        break
                found.append((row[0], result))
            return found

        return await self._read(work)

    async def spans(self, task: int, *, first: int, count: int) -> list[Span]:
        """Return how those of a task's runs ended that did, of count runs from first on; see Storage."""
        query, values = SELECT_SPANS.format("?", "?", "?"), (task, first, first + count)

        def work(connection: sqlite3.Connection) -> list[Span]:
            return [(run, length, RunState(state)) for run, length, state in connection.execute(query, values)]

        return await self._read(work)

    async def ends_since(self, task: int, *, position: int, limit: int) -> list[tuple[int, int, RunState]]:
        """Return up to limit ends of a task's runs beyond that position; see Storage."""
        query = "SELECT position, run, state FROM runs WHERE task = ? AND position > ? ORDER BY position LIMIT ?"

        def work(connection: sqlite3.Connection) -> list[tuple[int, int, RunState]]:
            found = connection.execute(query, (task, position, limit))
            return [(place, run, RunState(state)) for place, run, state in found]

        return await self._read(work)

    async def last_position(self, task: int) -> int:
        """Return the position of the latest result of a task, 0 where there is none."""

        def work(connection: sqlite3.Connection) -> int:
            found: int | None = connection.execute("SELECT max(position) FROM runs WHERE task = ?", (task,)).fetchone()[
                0
            ]
            return found or 0

        return await self._read(work)

    async def modules_of(self, owner: str) -> set[str]:
        """Return the digests of the modules that a remembered task of that owner names."""

        def work(connection: sqlite3.Connection) -> set[str]:
            query = "SELECT DISTINCT module FROM tasks WHERE owner = ?"
            return {digest for (digest,) in connection.execute(query, (owner,))}

        return await self._read(work)

    async def modules(self) -> set[str]:
        """Return the digests of all modules, files and inputs that a remembered task names."""

        def work(connection: sqlite3.Connection) -> set[str]:
            query = "SELECT DISTINCT module FROM tasks UNION SELECT DISTINCT files FROM tasks WHERE files <> ''"
            query += " UNION SELECT DISTINCT inputs FROM tasks WHERE inputs <> ''"
            return {digest for (digest,) in connection.execute(query)}

        return await self._read(work)

    async def artifacts(self) -> set[str]:
        """Return the digests of all artifacts that a remembered run has."""

        def work(connection: sqlite3.Connection) -> set[str]:
            return {row[0] for row in connection.execute("SELECT DISTINCT artifacts FROM runs WHERE artifacts <> ''")}

        return await self._read(work)

    # Housekeeping.

    async def housekeep(self) -> None:
        """Forget what is beyond the limits and give its room back. In small steps, until nothing is left to do."""
        self._housekeeping.begins()
        limits = retention.limits_at(self._clock.wall(), self._config)
        # Looked for by the thread that reads, so that a store at rest writes nothing.
        while numbers := await self._read(lambda connection: retention.doomed(connection, limits)):
            await self._writer.write(functools.partial(_doom, numbers=numbers))
        if await self._read(retention.is_sweeping):
            while await self._writer.write(lambda t: retention.sweep(t.connection)):
                pass
        while await self._read(retention.has_to_give):
            await self._writer.write(lambda t: retention.give_back(t.connection))
        await self._compact()

    async def _compact(self) -> None:
        of = self._segments
        while (segment := await self._read(lambda c: retention.mostly_dead(c, of, self._stuck))) is not None:
            try:
                while await self._writer.write(functools.partial(retention.move_some, segment=segment)):
                    pass
            except StoreError as error:
                if self.health():
                    raise
                log.error("%s", error)
                self._stuck |= {segment}
        if await self._read(lambda connection: retention.unnamed(connection, of)):
            gone = await self._writer.write(lambda t: retention.unnamed(t.connection, of))
            # By the thread that reads, so that nothing is being read of them.
            await self._read(lambda _: of.remove(gone))

    # The threads.

    def _open(self) -> sqlite3.Connection:
        connection = open_database(self._path, self._config.busy_timeout_s)
        try:
            (self._last_number,) = connection.execute(_SELECT_LAST).fetchone()
            self._segments.open(retention.named_ends(connection))
        except (OSError, sqlite3.Error) as error:
            connection.close()
            why = error.strerror if isinstance(error, OSError) else error
            raise StoreError(f"the payloads beside {self._path.name} cannot be opened: {why}") from None
        return connection

    def _connect_reader(self) -> sqlite3.Connection:
        try:
            return connect(self._path, self._config.busy_timeout_s)
        except sqlite3.Error as error:
            raise StoreError(f"the database {self._path.name} cannot be opened: {error}") from None

    async def _read(self, work: Callable[[sqlite3.Connection], T]) -> T:
        def guarded() -> T:
            assert self._read_connection is not None
            try:
                return work(self._read_connection)
            except (sqlite3.Error, OSError) as error:
                why = error.strerror if isinstance(error, OSError) else error
                raise StoreError(f"the database cannot be read: {why}") from None

        return await self._loop.run_in_executor(self._reader, guarded)

    def _tasks_of(
        self, connection: sqlite3.Connection, query: str, values: tuple[Any, ...], *, is_list: bool = False
    ) -> Iterator[TaskRow]:
        for row in connection.execute(query, values).fetchall():
            text, payload = row[1:3]
            if payload is None:
                spec = rows.text_to_spec(text)
            elif is_list:
                head = segments.head(self._segments.directory, self._extent(connection, payload), rows.SPEC_END)
                try:
                    spec = rows.bytes_to_spec(head)
                except (ValueError, TypeError, KeyError):
                    raise StoreError(f"payload {payload} is damaged: see ww db check") from None
            else:
                spec = rows.bytes_to_spec(self._payload(connection, payload))
            yield rows.task_row(row, spec)

    def _result_of(
        self, connection: sqlite3.Connection, row: tuple[Any, ...], *, is_lenient: bool = False
    ) -> RunResult:
        """Return a row's result with its output, without what is damaged of that where that is asked for."""
        if any(row[payload] is not None for _, payload in STREAM_PLACES):
            whole = list(row)
            for (stream, payload), is_cut in zip(STREAM_PLACES, CUT_PLACES, strict=True):
                if row[payload] is None:
                    continue
                try:
                    whole[stream] = self._payload(connection, row[payload])
                except StoreError:
                    if not is_lenient:
                        raise
                    whole[is_cut] = True
            row = tuple(whole)
        return rows.row_to_result(row)

    def _payload(self, connection: sqlite3.Connection, number: int) -> bytes:
        return segments.read(self._segments.directory, self._extent(connection, number))

    def _extent(self, connection: sqlite3.Connection, number: int) -> Extent:
        query = "SELECT segment, start, length, crc FROM payloads WHERE id = ?"
        place = connection.execute(query, (number,)).fetchone()
        if place is None:
            raise StoreError(f"payload {number} is named and is not there: see ww db check")
        return Extent(*place)


def _doom(transaction: Transaction, numbers: list[int]) -> None:
    retention.doom(transaction.connection, numbers)


def _insert_runs(connection: sqlite3.Connection, ready: list[tuple[Any, ...]]) -> None:
    whole = len(ready) - len(ready) % _ROWS_AT_ONCE
    for first in range(0, whole, _ROWS_AT_ONCE):
        connection.execute(_INSERT_RUNS, [value for row in ready[first : first + _ROWS_AT_ONCE] for value in row])
    connection.executemany(_INSERT_RUN, ready[whole:])


def _doom_orphans(connection: sqlite3.Connection, numbers: list[int]) -> None:
    """Have the results of those tasks that were forgotten meanwhile forgotten too."""
    for number in numbers:
        if connection.execute("SELECT 1 FROM tasks WHERE number = ?", (number,)).fetchone() is None:
            connection.execute("INSERT OR IGNORE INTO forgetting VALUES (?)", (number,))
