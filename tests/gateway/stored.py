"""Tasks and results for tests of what is kept, and looks at it past the store."""

import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

from ww.gateway.storage import Storage
from ww.gateway.task import Outcome, RunResult, RunState, Spec

WALL = 1_700_000_000.0
LARGE = 20 << 10
"""Bytes that are too many for a row."""


def spec(id: str = "t", **values: Any) -> Spec:
    base: dict[str, Any] = {"id": id, "module": "0" * 64, "kind": "function", "entry": "run", "duration_s": 5.0}
    return Spec(**(base | {"memory_bytes": 1 << 20, "output_bytes": 100} | values))


def result(run: int = 0, state: RunState = RunState.SUCCEEDED, finished_at: float = WALL, **outcome: Any) -> RunResult:
    return RunResult(
        run=run,
        state=state,
        outcome=Outcome(**outcome),
        worker="w",
        attempts=1,
        queued_at=WALL - 2,
        started_at=WALL - 1,
        finished_at=finished_at,
    )


async def add(store: Storage, *specs: Spec) -> list[int]:
    """Add tasks at the same time and return their numbers."""
    return await asyncio.gather(*(store.add_task(each, WALL) for each in specs))


async def results_of(
    store: Storage, task: int, *, limit: int, after: int, output_bytes_max: int | None = None
) -> list[RunResult]:
    """Return results of a task by run number, without their positions."""
    found = await store.results_by_run(task, limit=limit, after=after, output_bytes_max=output_bytes_max)
    return [result for _, result in found]


async def end(store: Storage, number: int, *results: RunResult) -> None:
    await store.add_results([(number, each) for each in results])


async def ids(store: Storage) -> list[str]:
    return [row.spec.id for row in await store.tasks(limit=1000)]


def rows(path: Path, query: str) -> list[Any]:
    """Ask the database past the store, as another process would."""
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute(query).fetchall()


def change(path: Path, *statements: str) -> None:
    """Change the database past the store."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        for statement in statements:
            connection.execute(statement)
