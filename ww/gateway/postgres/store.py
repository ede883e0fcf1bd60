"""What a gateway remembers, in PostgreSQL: see storage.py for what may be asked of it.

Holds the statements. Must not know when runs are due or who runs them. A call that writes returns when its rows are
committed there (synchronous_commit on). All lies in rows, output of any size too; modules, files and artifacts stay in
the state directory. One gateway at a time has the tables. Read next: writer.py (commits and failures), tables.py.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final, Self, TypeVar

from ww.clock import Clock, SystemClock
from ww.errors import StoreError
from ww.gateway import rows
from ww.gateway.housekeeping import Housekeeping
from ww.gateway.postgres import retention
from ww.gateway.postgres.address import PostgresAddress
from ww.gateway.postgres.session import FAILURES, Fate, PostgresConfig, Session, fate, line, reading
from ww.gateway.postgres.writer import Writer
from ww.gateway.quorum import make_task
from ww.gateway.retention import limits_at
from ww.gateway.rows import INLINE_BYTES_MAX, RUN_COLUMNS, TASK_COLUMNS, TaskRow
from ww.gateway.storage import SELECT_SPANS, OnResults, Span, StoreConfig
from ww.gateway.task import Policy, RunResult, RunState, Spec, Task

T = TypeVar("T")

# Payloads have no place of their own here.
_COLUMNS: Final = tuple(name for name in RUN_COLUMNS if not name.endswith("_payload"))
_DETAIL: Final = _COLUMNS.index("detail")
_WITHOUT: Final = (None,) * (len(RUN_COLUMNS) - len(_COLUMNS))
_INSERT_RUN: Final = (
    f"INSERT INTO runs ({', '.join(_COLUMNS)}) VALUES ({', '.join(f'${n}' for n, _ in enumerate(_COLUMNS, 1))})"
)
_SELECT_RUN: Final = f"SELECT {', '.join(_COLUMNS)} FROM runs"
_SELECT_PLACED: Final = _SELECT_RUN.replace("SELECT ", "SELECT position, ", 1)
_SELECT_TASK: Final = f"SELECT {', '.join('stdin' if c == 'spec_payload' else c for c in TASK_COLUMNS)} FROM tasks"
# What is large is not sent for a list of them.
_LIST_TASK: Final = _SELECT_TASK.replace(
    "stdin", f"CASE WHEN length(stdin) > {INLINE_BYTES_MAX} THEN ''::bytea ELSE stdin END AS stdin", 1
)
_INSERT_TASK: Final = (
    "INSERT INTO tasks (id, spec, stdin, repeats, created_at, owner, module, files, inputs)"
    " VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) RETURNING number"
)
# What failed as a whole has counted its runs already.
_ADD_ENDED: Final = """
UPDATE tasks SET
  succeeded = tasks.succeeded + CASE WHEN reason = '' THEN more.succeeded ELSE 0 END,
  failed = tasks.failed + CASE WHEN reason = '' THEN more.failed ELSE 0 END,
  result_bytes = result_bytes + size,
  finished_at = CASE
    WHEN tasks.finished_at IS NULL AND tasks.succeeded + more.succeeded + tasks.failed + more.failed = repeats
    THEN more.finished_at ELSE tasks.finished_at END
FROM unnest($1::bigint[], $2::bigint[], $3::double precision[], $4::bigint[], $5::bigint[])
  AS more (succeeded, failed, finished_at, number, size)
WHERE tasks.number = more.number
RETURNING tasks.number
"""
_DOOM_ORPHANS: Final = "INSERT INTO forgetting SELECT unnest($1::bigint[]) ON CONFLICT DO NOTHING"
_CANCEL: Final = "UPDATE tasks SET cancelled = true, finished_at = $2 WHERE number = $1 AND finished_at IS NULL"
_FAIL: Final = (
    "UPDATE tasks SET failed = repeats - succeeded, finished_at = $2, reason = $3"
    " WHERE number = $1 AND finished_at IS NULL"
)
# Sizes are known without what they are of being read.
_LATEST: Final = f"""
SELECT {", ".join(_COLUMNS)} FROM (
  SELECT latest.*, sum(octet_length(stdout) + octet_length(stderr)) OVER (ORDER BY place, position DESC) AS total, place
  FROM unnest($1::bigint[]) WITH ORDINALITY AS wanted (number, place),
    LATERAL (SELECT * FROM runs WHERE task = number ORDER BY position DESC LIMIT $2) AS latest
) AS found WHERE total <= $3 ORDER BY place, position DESC
"""
_OPEN_RUNS: Final = (
    "SELECT task, run, state FROM runs WHERE task IN (SELECT number FROM tasks WHERE finished_at IS NULL)"
    " ORDER BY task, run"
)
# What a cursor brings at a time.
_TASKS_AT_ONCE: Final = 64
_RUNS_AT_ONCE: Final = 4096


class PostgresStore:
    """One gateway's tables. Open it with `async with`."""

    def __init__(
        self,
        address: PostgresAddress,
        config: StoreConfig | None = None,
        clock: Clock | None = None,
        postgres: PostgresConfig | None = None,
    ) -> None:
        """Keep everything in the address's schema, which is made when it is not there."""
        self.on_results: OnResults | None = None
        self._address = address
        self._config = config or StoreConfig()
        self._clock = clock or SystemClock()
        self._postgres = postgres or PostgresConfig()
        self._writer = Writer(address, self._postgres, self._clock, self._config.busy_timeout_s)
        self._forgetting = asyncio.Lock()
        self._housekeeping = Housekeeping(
            self._config, self._clock, health=self.health, probe=self._writer.probe, housekeep=self.housekeep
        )

    async def __aenter__(self) -> Self:
        self._group = await asyncio.TaskGroup().__aenter__()
        try:
            self._readers = await reading(self._address, self._postgres)
            await self._writer.start(self._group)
        except BaseException:
            await self._group.__aexit__(None, None, None)
            raise
        self._keeping = self._group.create_task(self._housekeeping.always())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._keeping.cancel()
        await self._writer.stop()
        await self._group.__aexit__(None, None, None)
        self._readers.terminate()

    def health(self) -> str:
        """Say why writing is refused at present, or nothing."""
        return self._writer.trouble

    # Writing.

    def reserve(self) -> None:
        """Return nothing: a task's number is the server's to give."""
        return

    async def add_task(self, spec: Spec, created_at: float, number: int | None = None) -> int:
        """Remember a task that is not there yet and return its number."""
        assert number is None
        text, stdin = rows.spec_to_parts(spec)
        files = spec.module, spec.files, spec.inputs
        row = (spec.id, text, stdin, spec.repeats, created_at, spec.owner, *files)
        return await self._writer.write(_add_tasks, row, len(text) + len(stdin))

    async def add_results(self, results: Sequence[tuple[int, RunResult]]) -> None:
        """Remember the ends of runs, each with its task's number; a task is finished with the last of its runs."""
        size = sum(rows.result_bytes(result) for _, result in results)
        first = await self._writer.write(_add_results, results, size)
        if self.on_results is not None:
            self.on_results(first, results)
        self._housekeeping.note_growth(len({task for task, _ in results}), size)

    async def cancel_task(self, task: int, cancelled_at: float) -> bool:
        """Remember that a task was cancelled. Returns False, and changes nothing, when it had ended."""
        return await self._writer.write(_end_tasks, (_CANCEL, task, cancelled_at))

    async def fail_task(self, task: int, failed_at: float, reason: str) -> bool:
        """Remember that a task failed as a whole, all its runs without a result too. Returns as cancel_task does."""
        return await self._writer.write(_end_tasks, (_FAIL, task, failed_at, _text(reason) or "failed"))

    # Reading.

    async def open_tasks(self, now: float, wall: float, policy: Policy | None = None) -> list[Task]:
        """Return the tasks that have not ended, oldest first, with what is known of their runs."""

        async def work(session: Session) -> list[Task]:
            tasks: list[Task] = []
            # One moment of both, and never more of either than a cursor brings.
            async with session.transaction(isolation="repeatable_read", readonly=True):
                ended = aiter(session.cursor(_OPEN_RUNS, prefetch=_RUNS_AT_ONCE))
                run = await anext(ended, None)
                query = f"{_SELECT_TASK} WHERE finished_at IS NULL ORDER BY number"
                async for row in session.cursor(query, prefetch=_TASKS_AT_ONCE):
                    stored = _task_of(row)
                    task = make_task(
                        stored.spec, number=stored.number, created_at=stored.created_at, now=now, wall=wall,
                        policy=policy,
                    )  # fmt: skip
                    # In their order, so that a task keeps a count of them and not each.
                    while run is not None and run[0] == stored.number:
                        task.restore(run[1], RunState(run[2]))
                        run = await anext(ended, None)
                    tasks.append(task)
            return tasks

        return await self._read(work)

    async def task(self, id: str) -> TaskRow | None:
        """Return the task of that id."""
        found = await self._fetch(f"{_SELECT_TASK} WHERE id = $1", _text(id))
        return _task_of(found[0]) if found else None

    async def tasks(self, *, limit: int, before: int | None = None, owner: str | None = None) -> list[TaskRow]:
        """Return up to limit tasks, newest first; see Storage."""
        condition, values = ("owner = $3 AND ", (_text(owner),)) if owner is not None else ("", ())
        query = f"{_LIST_TASK} WHERE {condition}number < $2 ORDER BY number DESC LIMIT $1"
        return [_task_of(row) for row in await self._fetch(query, limit, before or 1 << 62, *values)]

    async def latest_results(
        self, tasks: Iterable[int], *, limit: int, output_bytes_max: int
    ) -> dict[int, list[RunResult]]:
        """Return the latest results of each of those tasks, latest first; see Storage."""
        found: dict[int, list[RunResult]] = {number: [] for number in tasks}
        for row in await self._fetch(_LATEST, list(found), limit, output_bytes_max):
            found[row[0]].append(_result_of(row))
        return found

    async def results_by_run(
        self, task: int, *, limit: int, after: int, output_bytes_max: int | None = None
    ) -> list[tuple[int, RunResult]]:
        """Return up to limit results of a task by run number, each with its position; see Storage."""
        return await self._results("run", task, after, limit, output_bytes_max)

    async def results_since(
        self, task: int, *, position: int, limit: int, output_bytes_max: int | None = None
    ) -> list[tuple[int, RunResult]]:
        """Return up to limit results of a task in the order in which they came; see Storage."""
        return await self._results("position", task, position, limit, output_bytes_max)

    async def _results(
        self, column: str, task: int, after: int, limit: int, output_bytes_max: int | None
    ) -> list[tuple[int, RunResult]]:
        """Return results in the order of a column, with their positions."""
        condition, values = f"task = $1 AND {column} > $2", [task, after, limit]
        if output_bytes_max is not None:
            # Sizes first, so that what is too much is not sent.
            page = f"SELECT {column}, stdout, stderr FROM runs WHERE {condition} ORDER BY {column} LIMIT $3"
            sizes = f"SELECT {column}, sum(length(stdout) + length(stderr)) OVER (ORDER BY {column}) AS size"
            fits = f"(SELECT max({column}) FROM ({sizes} FROM ({page}) AS page) AS sized WHERE size <= $4)"
            first = f"(SELECT min({column}) FROM runs WHERE {condition})"
            condition += f" AND {column} <= coalesce({fits}, {first})"
            values.append(output_bytes_max)
        query = f"{_SELECT_PLACED} WHERE {condition} ORDER BY {column} LIMIT $3"
        return [(row[0], _result_of(row[1:])) for row in await self._fetch(query, *values)]

    async def spans(self, task: int, *, first: int, count: int) -> list[Span]:
        """Return how those of a task's runs ended that did, of count runs from first on; see Storage."""
        found = await self._fetch(SELECT_SPANS.format("$1", "$2", "$3"), task, first, first + count)
        return [(run, length, RunState(state)) for run, length, state in found]

    async def ends_since(self, task: int, *, position: int, limit: int) -> list[tuple[int, int, RunState]]:
        """Return up to limit ends of a task's runs beyond that position; see Storage."""
        query = "SELECT position, run, state FROM runs WHERE task = $1 AND position > $2 ORDER BY position LIMIT $3"
        return [(place, run, RunState(state)) for place, run, state in await self._fetch(query, task, position, limit)]

    async def last_position(self, task: int) -> int:
        """Return the position of the latest result of a task, 0 where there is none."""
        ((position,),) = await self._fetch("SELECT coalesce(max(position), 0) FROM runs WHERE task = $1", task)
        return int(position)

    async def modules(self) -> set[str]:
        """Return the digests of all modules, files and inputs that a remembered task names."""
        query = "SELECT module FROM tasks UNION SELECT files FROM tasks WHERE files <> ''"
        query += " UNION SELECT inputs FROM tasks WHERE inputs <> ''"
        return {digest for (digest,) in await self._fetch(query)}

    async def modules_of(self, owner: str) -> set[str]:
        """Return the digests of the modules that the remembered tasks of an owner name."""
        return {row[0] for row in await self._fetch("SELECT DISTINCT module FROM tasks WHERE owner = $1", owner)}

    async def artifacts(self) -> set[str]:
        """Return the digests of all artifacts that a remembered run has."""
        query = "SELECT DISTINCT artifacts FROM runs WHERE artifacts <> ''"
        return {digest for (digest,) in await self._fetch(query)}

    # Housekeeping.

    async def housekeep(self) -> None:
        """Forget what is beyond the limits. In small steps, until nothing is left to do."""
        # Of two at a time one would take for too much what the other is about to forget.
        async with self._forgetting:
            self._housekeeping.begins()
            limits = limits_at(self._clock.wall(), self._config)
            # Looked for by a session that reads, so that a store at rest writes nothing.
            while numbers := await self._read(lambda session: retention.doomed(session, limits)):
                await self._writer.write(retention.doom, numbers)
            if await self._read(retention.is_sweeping):
                while await self._writer.write(retention.sweep, None):
                    pass

    # The sessions that read.

    async def _fetch(self, query: str, *values: Any) -> list[Any]:
        async def work(session: Session) -> list[Any]:
            found: list[Any] = await session.fetch(query, *values)
            return found

        return await self._read(work)

    async def _read(self, work: Callable[[Session], Coroutine[Any, Any, T]]) -> T:
        """Have something read; twice, where the session turns out to be one that the server has ended meanwhile."""
        for is_last in (False, True):
            async with self._reader() as session:
                try:
                    return await work(session)
                except FAILURES as error:
                    if is_last or fate(error, session) is not Fate.LOST or isinstance(error, TimeoutError):
                        raise StoreError(f"the database cannot be read: {line(error)}") from None
        raise AssertionError

    @asynccontextmanager
    async def _reader(self) -> AsyncIterator[Session]:
        try:
            session = await self._readers.acquire(timeout=self._postgres.timeout_s)
        except FAILURES as error:
            raise StoreError(f"the database cannot be read: {line(error)}") from None
        try:
            yield session
        finally:
            await self._readers.release(session)


# The kinds of writes: each does all of them that share a transaction.


async def _add_tasks(session: Session, added: list[tuple[Any, ...]]) -> list[int]:
    return [number for (number,) in await session.fetchmany(_INSERT_TASK, added)]


async def _add_results(session: Session, added: list[Sequence[tuple[int, RunResult]]]) -> list[int]:
    """Insert results, and return of each share the position of the first."""
    results = [each for of_one in added for each in of_one]
    # Not by COPY, which takes half the time: asyncpg leaves a future behind when the connection breaks in it.
    await session.executemany(_INSERT_RUN, [_run_of(task, result) for task, result in results])
    # Nobody else adds any: positions follow each other.
    ((last,),) = await session.fetch("SELECT max(position) FROM runs") if results else ((0,),)
    sums = rows.ended_sums(results)
    known = await session.fetch(_ADD_ENDED, *map(list, zip(*sums, strict=True)))
    if len(known) < len(sums):
        # Tasks that were forgotten meanwhile: their results are forgotten too.
        await session.execute(_DOOM_ORPHANS, sorted({of_task[3] for of_task in sums} - {row[0] for row in known}))
    firsts, first = [], int(last) - len(results) + 1
    for of_one in added:
        firsts.append(first)
        first += len(of_one)
    return firsts


async def _end_tasks(session: Session, ended: list[tuple[Any, ...]]) -> list[bool]:
    return [await session.execute(statement, *values) == "UPDATE 1" for statement, *values in ended]


# Rows.


def _run_of(task: int, result: RunResult) -> tuple[Any, ...]:
    row = rows.result_to_row(task, result)[: len(_COLUMNS)]
    detail = result.outcome.detail
    # What strangers wrote.
    if detail and not (detail.isascii() and detail.isprintable()):
        row = (*row[:_DETAIL], _text(detail), *row[_DETAIL + 1 :])
    return row


def _task_of(row: Any) -> TaskRow:
    return rows.task_row(tuple(row), rows.parts_to_spec(row[1], row[2]))


def _result_of(row: Any) -> RunResult:
    return rows.row_to_result((*row, *_WITHOUT))


def _text(text: str) -> str:
    """Make a text one that PostgreSQL takes: it has neither zero characters nor halves of any."""
    return text.encode(errors="replace").decode().replace("\0", "\N{REPLACEMENT CHARACTER}")
