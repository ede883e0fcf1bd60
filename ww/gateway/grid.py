"""A task's runs as a grid, kept up to date for all who look at it.

Holds one board for each task that somebody looks at: its cells, and which of them changed lately. Must not know who
looks: streams.py tells it. A board is filled from disk once; then it reads what ended since, without what that said,
and compares what runs now with what it shows. Nothing is queued for a reader: a slow one is told all cells anew.
"""

import asyncio
import logging
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, Final, NamedTuple

import orjson

from ww.clock import Clock
from ww.errors import NotFound, StoreError
from ww.gateway.cells import Cells
from ww.gateway.request import shown
from ww.gateway.storage import Storage, TaskRow
from ww.gateway.task import RunState, Task
from ww.gateway.watch import Watch, Watches

log = logging.getLogger("ww.gateway")

_EVERY_S: Final = 0.25
_TASK_EVERY_S: Final = 0.5
# Runs whose states are read at a time: what else is read waits meanwhile.
_SPAN_RUNS: Final = 10_000
_PAGE_MAX: Final = 10_000
# Looks that a reader may miss and still be told what changed; 16 s.
_PATCHES_MAX: Final = 64
# Cells whose text is made by a thread.
_MANY_CELLS: Final = 5_000
_UNTIL_CHANGED_S: Final = 3600.0

Known = Task | TaskRow


class Sources:
    """What boards ask."""

    def __init__(
        self,
        store: Storage,
        watches: Watches,
        clock: Clock,
        *,
        current: Callable[[TaskRow], Awaitable[Known]],
        summary: Callable[[Known], dict[str, Any]],
    ) -> None:
        """current says what is known of a task now, summary how that looks as JSON."""
        self.store = store
        self.watches = watches
        self.clock = clock
        self.current = current
        self.summary = summary
        self.turn = asyncio.Lock()
        """Held while many states are read: what others ask the store waits for those of one board alone."""


class _Seen(NamedTuple):
    """What was known at one moment of the runs of a task that has not ended."""

    due: int
    """How many of them, from the first on, have begun or might."""
    running: set[int]
    waiting: list[int]
    """Of those that ran when it was last looked, those that are to begin again."""


class Board:
    """One task's."""

    def __init__(self, sources: Sources, row: TaskRow, patches_max: int = _PATCHES_MAX) -> None:
        self._sources = sources
        self._row = row
        self._cells = Cells(row.spec.repeats)
        self._position = 0
        self._running: set[int] = set()
        self._due = 0
        """How many of the runs were due."""
        self.version = 0
        """Of the cells; 0 until they were read."""
        self._whole_at = 0
        self._patches: deque[tuple[int, set[int]]] = deque(maxlen=patches_max)
        self.task: dict[str, Any] = {}
        """As it is to be told."""
        self.task_version = 0
        self._task_at = float("-inf")
        self._is_task_owed = False
        self.is_over = False
        """Whether nothing further will change here."""
        self.is_broken = False
        """Whether that is because something failed."""
        self._made: dict[int, bytes] = {}
        """Text made for this version, by the version that a reader had; 0 is all."""
        self._news = asyncio.Event()

    async def run(self) -> None:
        """Follow the task to its end, or the gateway's."""
        try:
            with self._sources.watches.open(self._row.spec.id) as watch:
                await self._fill()
                while not (await self._look() or watch.is_closed):
                    self._tell()
                    await asyncio.sleep(0 if watch.is_closed else _EVERY_S)
                    await self._wait(watch)
        except NotFound:
            pass  # it was forgotten
        except StoreError as error:
            self.is_broken = True
            log.error("the grid of %s breaks off: %s", shown(self._row.spec.id), error)
        except Exception:
            self.is_broken = True
            log.exception("the grid of %s breaks off", shown(self._row.spec.id))
        finally:
            self.is_over = True
            self._tell()

    async def news(self, timeout_s: float) -> bool:
        """Wait until something changed; False when nothing did for so long."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._news.wait()
        except TimeoutError:
            return False
        return True

    async def cells_since(self, version: int) -> tuple[int, str, bytes] | None:
        """Return what a reader is told that has the cells as of a version; None: nothing.

        That is the version that it has then, the event and its data.
        """
        now = self.version
        if version == now:
            return None
        is_whole = version < self._whole_at or not self._patches or self._patches[0][0] > version + 1
        key = 0 if is_whole else version
        data = self._made.get(key)
        if data is None:
            data = await self._whole() if is_whole else self._patch(version)
            if now == self.version:
                self._made[key] = data
        return now, "grid" if is_whole else "patch", data

    async def _whole(self) -> bytes:
        position = self._position  # what comes while the text is made is told again
        many = self._cells.count > _MANY_CELLS
        text = await asyncio.to_thread(self._cells.text) if many else self._cells.text()
        return orjson.dumps(
            {
                "position": position,
                "repeats": self._row.spec.repeats,
                "per_cell": self._cells.per_cell,
                "count": self._cells.count,
                "cells": text,
            }
        )

    def _patch(self, version: int) -> bytes:
        changed = set[int]().union(*(cells for at, cells in self._patches if at > version))
        return orjson.dumps({"position": self._position, "cells": self._cells.text_of(changed)})

    # Following.

    async def _fill(self) -> None:
        number, repeats = self._row.number, self._row.spec.repeats
        # In this order: what comes after the position is read again.
        self._position = await self._sources.store.last_position(number)
        for first in range(0, repeats if self._position else 0, _SPAN_RUNS):
            async with self._sources.turn:
                spans = await self._sources.store.spans(number, first=first, count=_SPAN_RUNS)
            for span in spans:
                self._cells.put_span(*span)
            self._cells.take_changed()  # nobody was told of others

    async def _look(self) -> bool:
        """Bring the cells up to date; return whether that was the last time."""
        # In this order: what had ended at the look is on disk when it is read.
        known = await self._sources.current(self._row)
        task, is_last = self._sources.summary(known), not isinstance(known, Task)
        seen = self._see(known) if isinstance(known, Task) else None
        await self._read_ends()
        if seen is not None:
            self._show(seen)
        elif isinstance(known, TaskRow):
            self._cells.end(RunState.CANCELLED if known.cancelled else RunState.FAILED)
        self._take_changes()
        self._note_task(task, is_last=is_last)
        return is_last

    async def _read_ends(self) -> None:
        while True:
            store, number = self._sources.store, self._row.number
            ends = await store.ends_since(number, position=self._position, limit=_PAGE_MAX)
            by_state: dict[RunState, list[int]] = {}
            for _, run, state in ends:
                by_state.setdefault(state, []).append(run)
            for state, runs in by_state.items():
                self._cells.put(runs, state)
            if ends:
                self._position = ends[-1][0]
            if len(ends) < _PAGE_MAX:
                return

    def _see(self, task: Task) -> _Seen:
        running = task.under_way()
        waiting = [run for run in self._running - running if task.is_waiting(run)]
        return _Seen(task.due_runs(self._sources.clock.now()), running, waiting)

    def _show(self, seen: _Seen) -> None:
        """Show what was seen of the runs that have not ended since."""
        if seen.due > self._due:
            self._cells.put_span(self._due, seen.due - self._due, RunState.QUEUED, only=RunState.SCHEDULED)
            self._due = seen.due
        self._running = {run for run in seen.running if not self._cells.has_ended(run)}
        self._cells.put((run for run in seen.waiting if not self._cells.has_ended(run)), RunState.QUEUED)
        self._cells.put(self._running, RunState.RUNNING)

    def _take_changes(self) -> None:
        changed = self._cells.take_changed()
        if changed is None or changed or not self.version:
            self.version += 1
            self._made.clear()
            if changed is None or self.version == 1:
                self._whole_at = self.version
                self._patches.clear()
            else:
                self._patches.append((self.version, changed))

    def _note_task(self, task: dict[str, Any], *, is_last: bool) -> None:
        now = asyncio.get_running_loop().time()
        self._is_task_owed = task != self.task
        if self._is_task_owed and (is_last or now >= self._task_at + _TASK_EVERY_S):
            self.task, self._task_at, self._is_task_owed = task, now, False
            self.task_version += 1

    def _tell(self) -> None:
        news, self._news = self._news, asyncio.Event()
        if self.is_over:
            self._news.set()  # for whoever comes late
        news.set()

    async def _wait(self, watch: Watch) -> None:
        """Return when there may be something new."""
        until_s = _UNTIL_CHANGED_S
        if self._is_task_owed:
            until_s = max(0.0, self._task_at + _TASK_EVERY_S - asyncio.get_running_loop().time())
        task = await self._sources.current(self._row)
        if not isinstance(task, Task):
            return
        if self._due < self._row.spec.repeats:
            until_s = min(until_s, max(0.0, task.due_at(self._due) - self._sources.clock.now()))
        await watch.changes(until_s)


class Boards:
    """Those that somebody looks at."""

    def __init__(self, sources: Sources) -> None:
        self._sources = sources
        self.patches_max = _PATCHES_MAX
        self._open: dict[int, tuple[Board, asyncio.Task[None]]] = {}
        self._readers: dict[int, int] = {}

    @property
    def count(self) -> int:
        return len(self._open)

    @asynccontextmanager
    async def board(self, row: TaskRow) -> AsyncIterator[Board]:
        """Look at a task's board."""
        number = row.number
        if number not in self._open:
            made = Board(self._sources, row, self.patches_max)
            self._open[number] = made, asyncio.create_task(made.run())
        self._readers[number] = self._readers.get(number, 0) + 1
        board, following = self._open[number]
        try:
            yield board
        finally:
            self._readers[number] -= 1
            if not self._readers[number]:
                del self._readers[number], self._open[number]
                following.cancel()
                await asyncio.gather(following, return_exceptions=True)


class GridReader:
    """What one reader of a grid is told."""

    def __init__(self, boards: Boards, row: TaskRow) -> None:
        self._boards = boards
        self._row = row

    async def events(self, *, idle_s: float) -> AsyncGenerator[list[tuple[str, bytes]]]:
        """Give what is to be told, events and their data, to the task's end; nothing when there was nothing for idle_s.

        StoreError when the disk could not be read: then that was not all.
        """
        async with self._boards.board(self._row) as board:
            version = task_version = 0
            while True:
                is_over = board.is_over
                events = []
                if (cells := await board.cells_since(version)) is not None:
                    version, kind, data = cells
                    events.append((kind, data))
                if board.task_version != task_version:
                    task_version = board.task_version
                    events.append(("task", orjson.dumps(board.task)))
                if events:
                    yield events
                    del events
                elif is_over:
                    if board.is_broken:
                        raise StoreError("the grid breaks off")
                    return
                elif not await board.news(idle_s):
                    yield []
