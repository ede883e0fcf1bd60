"""What is forgotten of tasks that have ended, in PostgreSQL.

Holds the steps; each is a small part of a transaction, so that none keeps the others waiting. Must not know when they
are taken: store.py does. A task is gone at once; its runs go bit by bit, by the table `forgetting`, also after a
restart. Their room is the server's to use again: autovacuum gives it back, to the rows that come next or to the disk.
"""

from typing import Any, Final

from ww.gateway.postgres.session import Session
from ww.gateway.retention import Limits

_TASKS_A_STEP: Final = 128
_ROWS_A_STEP: Final = 4096

_BEYOND: Final = (
    "SELECT number FROM tasks WHERE finished_at IS NOT NULL ORDER BY finished_at DESC, number DESC LIMIT $1 OFFSET $2"
)
_OLD: Final = (
    "SELECT number FROM tasks WHERE finished_at IS NOT NULL AND finished_at < $2 ORDER BY finished_at LIMIT $1"
)
_SIZE: Final = "SELECT coalesce(sum(result_bytes), 0)::bigint FROM tasks"
# As many of those that ended first as hold the excess.
_LARGE: Final = (
    "SELECT number FROM (SELECT number, sum(result_bytes) OVER (ORDER BY finished_at, number) - result_bytes AS before"
    " FROM tasks WHERE finished_at IS NOT NULL AND finished_at <= $3 ORDER BY finished_at, number LIMIT $1) AS oldest"
    " WHERE before < $2"
)


async def doomed(session: Session, limits: Limits) -> list[int]:
    """Return some of the tasks beyond the limits."""
    found: list[int] = []
    if limits.count is not None:
        found += await _numbers(session, _BEYOND, limits.count)
    if limits.ended_after is not None:
        found += await _numbers(session, _OLD, limits.ended_after)
    excess_bytes = await session.fetchval(_SIZE) - limits.result_bytes
    if excess_bytes > 0:
        found += await _numbers(session, _LARGE, excess_bytes, limits.fresh_after)
    return sorted(set(found))


async def _numbers(session: Session, query: str, *values: Any) -> list[int]:
    return [number for (number,) in await session.fetch(query, _TASKS_A_STEP, *values)]


async def doom(session: Session, groups: list[list[int]]) -> list[None]:
    """Forget those tasks, which have ended."""
    await session.execute(
        "WITH gone AS (DELETE FROM tasks WHERE number = ANY($1) RETURNING number)"
        " INSERT INTO forgetting SELECT number FROM gone ON CONFLICT DO NOTHING",
        [number for group in groups for number in group],
    )
    return [None] * len(groups)


async def is_sweeping(session: Session) -> bool:
    """Whether something of forgotten tasks is left."""
    return await session.fetchval("SELECT 1 FROM forgetting LIMIT 1") is not None


async def sweep(session: Session, callers: list[None]) -> list[bool]:
    """Remove some of the runs of forgotten tasks. Returns whether there are more."""
    some = "SELECT task FROM forgetting ORDER BY task LIMIT $1"
    tasks = [task for (task,) in await session.fetch(some, _TASKS_A_STEP)]
    delete = "DELETE FROM runs WHERE position IN (SELECT position FROM runs WHERE task = ANY($1) LIMIT $2)"
    removed = int((await session.execute(delete, tasks, _ROWS_A_STEP)).rpartition(" ")[2])
    if removed < _ROWS_A_STEP:
        await session.execute("DELETE FROM forgetting WHERE task = ANY($1)", tasks)
    return [removed == _ROWS_A_STEP or await is_sweeping(session)] * len(callers)
