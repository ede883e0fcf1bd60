"""The results of a task, told to one reader in order, from any place on, while the task still runs.

Holds what one reader was told. Must not know who that is: streams.py tells it over HTTP. Nothing is queued for a
reader: it is woken (watch.py) and reads what follows from the store, a page at a time.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Final, NamedTuple

from ww.errors import ClosedError
from ww.gateway.inputs import Inputs
from ww.gateway.pace import Pace
from ww.gateway.storage import Storage, TaskRow
from ww.gateway.task import RunResult, Task
from ww.gateway.watch import Watch

# Results read at a time, and the output that they may hold.
_PAGE_MAX: Final = 256
_PAGE_BYTES_MAX: Final = 2 << 20


class Told(NamedTuple):
    """One result."""

    position: int
    """Its place in the order in which results came: it only grows."""
    result: RunResult
    name: str
    """Of its run; or empty."""


async def named(spec_inputs: str, inputs: Inputs, placed: Sequence[tuple[int, RunResult]]) -> list[Told]:
    """Return results with the names of their runs, of a task with those inputs. StoreError when they cannot be read."""
    if not spec_inputs or not placed:
        return [Told(position, result, "") for position, result in placed]
    names = await inputs.names(spec_inputs, [result.run for _, result in placed])
    return [Told(position, result, name) for (position, result), name in zip(placed, names, strict=True)]


class ResultReader:
    """What one reader is told of one task's results."""

    def __init__(
        self,
        store: Storage,
        inputs: Inputs,
        row: TaskRow,
        *,
        current: Callable[[TaskRow], Awaitable[Task | TaskRow]],
        by_run: bool,
        after: int | None,
        follow: bool,
    ) -> None:
        """Tell of the task in that row what follows a position, or by_run a run number; None: all.

        current says what is known of it now. Without follow, what is there.
        """
        self._store = store
        self._inputs = inputs
        self._row = row
        self._current = current
        self._by_run = by_run
        self._after = after if after is not None else -1 if by_run else 0
        self._follow = follow
        self._pace = Pace()

    async def pages(self, watch: Watch, *, idle_s: float) -> AsyncIterator[list[Told]]:
        """Give what is to be told, some at a time, until the task has ended and all was told.

        Gives nothing when there was nothing for idle_s. watch is of this task alone. NotFound when the task was
        forgotten meanwhile, ClosedError when the gateway stops: then that was not all.
        """
        loop = asyncio.get_running_loop()
        told_at = loop.time()
        while True:
            # In this order: what had ended at the look is on disk when it is read.
            is_final = isinstance(await self._current(self._row), TaskRow)
            page = await self._next(is_final)
            if page:
                yield page
                told_at = loop.time()
                del page
                continue
            if is_final or not self._follow:
                return
            if watch.is_closed:
                raise ClosedError("the gateway is stopping")
            await self._pace.wait(watch, told_at + idle_s)
            if loop.time() >= told_at + idle_s:
                yield []
                told_at = loop.time()

    async def _next(self, is_final: bool) -> list[Told]:
        """Return what comes next, nothing where it is not there yet."""
        number, most = self._row.number, {"limit": _PAGE_MAX, "output_bytes_max": _PAGE_BYTES_MAX}
        if not self._by_run:
            placed = await self._store.results_since(number, position=self._after, **most)
            if placed:
                self._after = placed[-1][0]
            return await named(self._row.spec.inputs, self._inputs, placed)
        placed = await self._store.results_by_run(number, after=self._after, **most)
        if not is_final:
            # One is told when all before it were: those that have none yet may still get one.
            placed = placed[: _in_row(placed, self._after + 1)]
        if placed:
            self._after = placed[-1][1].run
        return await named(self._row.spec.inputs, self._inputs, placed)


def _in_row(placed: Sequence[tuple[int, RunResult]], first: int) -> int:
    """Return how many results are those of the run first, of the one behind it, and so on."""
    for count, (_, result) in enumerate(placed):
        if result.run != first + count:
            return count
    return len(placed)
