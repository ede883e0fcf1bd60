"""What happens to a task, told to one reader in order.

Holds what one reader has been told. Must not know who that is: streams.py tells it over HTTP as server-sent events,
websocket.py over a WebSocket. Nothing is queued for a reader. It is woken (watch.py), reads what ended since its
position from disk, a page at a time, and compares what runs now with what it told: a slow one costs its page alone.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Final

from ww.errors import NotFound
from ww.gateway.pace import Pace
from ww.gateway.results import Told
from ww.gateway.storage import Storage, TaskRow
from ww.gateway.task import RunResult, RunState, Task
from ww.gateway.view import told_json
from ww.gateway.watch import Watch

_TASK_EVERY_S: Final = 0.1
# Results read at a time, and the output that they may hold.
_PAGE_MAX: Final = 256
_PAGE_BYTES_MAX: Final = 2 << 20

Known = Task | TaskRow


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that is told."""

    kind: str
    """task or run."""
    position: int
    """Up to where all that ended was told, this included: whoever comes back with it is told what follows."""
    data: dict[str, Any]


@dataclass(frozen=True, slots=True)
class _Look:
    """What was known of a task at one moment."""

    task: dict[str, Any]
    is_ending: bool
    """Whether it has its last status, which is told when all else was."""
    is_final: bool
    """Whether all of its results are on disk."""
    ended: int | None
    """Runs whose results were on disk; None: unknown."""
    running: dict[int, tuple[int, str]]
    """Attempts under way, and on which worker, by run."""
    queued: frozenset[int] = field(default_factory=frozenset)
    """Of the runs that were told to be running, those that are not."""


class Reader:
    """What one reader is told of one task."""

    def __init__(
        self,
        store: Storage,
        row: TaskRow,
        *,
        current: Callable[[TaskRow], Awaitable[Known]],
        shown: Callable[[Known], dict[str, Any]],
        named: Callable[[TaskRow, list[tuple[int, RunResult]]], Awaitable[list[Told]]],
        now: Callable[[], float],
    ) -> None:
        """Tell of the task in that row; current says what is known of it now, shown how that looks as JSON, and named
        how its runs are called."""
        self._store = store
        self._row = row
        self._current = current
        self._shown = shown
        self._named = named
        self._now = now
        self._position = 0
        self._running: dict[int, int] = {}
        """Attempts that were told to be under way, by run."""
        self._task: dict[str, Any] | None = None
        """As it was told."""
        self._task_at = 0.0
        self._is_owed = False
        """Whether the task has changed since it was told, but not long enough after that."""
        self._ended_read: int | None = None
        self._pace = Pace()
        output_bytes = 2 * row.spec.output_bytes
        self._page = max(1, min(_PAGE_MAX, _PAGE_BYTES_MAX // output_bytes))

    async def begin(self, after: int | None) -> bool:
        """Go on after that position, None: with what ends from now on. False when nothing is left to tell."""
        if after is None:
            self._position = await self._store.last_position(self._row.number)
            return True
        self._position = after
        if after == 0:
            return True
        look = await self._look()
        # The end itself has a position too, the one behind the last run's.
        return not look.is_final or after <= await self._store.last_position(self._row.number)

    async def events(self, watch: Watch, *, idle_s: float) -> AsyncIterator[list[Event]]:
        """Give what is to be told, some at a time and in order, until the task has ended or the gateway stops.

        Gives nothing when there was nothing for idle_s. watch is of this task alone.
        """
        loop = asyncio.get_running_loop()
        told_at = loop.time()
        while True:
            events, is_over, has_more = await self._next(loop.time())
            if events:
                yield events
                told_at = loop.time()
                del events
            if is_over:
                return
            if has_more:
                continue
            if watch.is_closed:
                return
            await self._wait(watch, told_at + idle_s)
            if loop.time() >= told_at + idle_s:
                yield []
                told_at = loop.time()

    async def _wait(self, watch: Watch, until: float) -> None:
        """Return when there may be something new."""
        if self._is_owed:
            until = min(until, self._task_at + _TASK_EVERY_S)
        await self._pace.wait(watch, until)

    async def _next(self, now: float) -> tuple[list[Event], bool, bool]:
        """Return what is to be told now, whether that is the end, and whether there is more already."""
        # In this order: what had ended at the look is on disk when it is read.
        try:
            look = await self._look()
        except NotFound:
            return [], True, False  # it was forgotten
        events: list[Event] = []
        if self._task is None and not look.is_ending:
            events.append(self._tell_task(look, now))
        results = []
        if look.ended is None or look.ended != self._ended_read:
            results = await self._store.results_since(self._row.number, position=self._position, limit=self._page)
        for told in await self._named(self._row, results):
            self._position = told.position
            self._running.pop(told.result.run, None)
            events.append(Event("run", told.position, told_json(told, self._row.spec.id)))
        has_more = len(results) == self._page
        if not has_more:
            self._ended_read = look.ended
            events += self._tell_running(look, {result.run for _, result in results})
        self._is_owed = look.task != self._task and not look.is_ending
        if look.is_final and not has_more:
            self._position += 1
            return [*events, Event("task", self._position, look.task)], True, False
        if self._is_owed and now >= self._task_at + _TASK_EVERY_S:
            events.append(self._tell_task(look, now))
        return events, False, has_more

    def _tell_task(self, look: _Look, now: float) -> Event:
        self._task, self._task_at, self._is_owed = look.task, now, False
        return Event("task", self._position, look.task)

    def _tell_running(self, look: _Look, ended: set[int]) -> list[Event]:
        """Tell what began and what went back to the queue, of the runs that have not ended."""
        changes: list[dict[str, Any]] = [
            {"run": run, "state": RunState.QUEUED, "attempts": self._running.pop(run)}
            for run in sorted(look.queued & self._running.keys())
        ]
        for run, (attempt, worker) in look.running.items():
            # One without a worker is just being given to it.
            if worker and run not in ended and self._running.get(run) != attempt:
                self._running[run] = attempt
                changes.append({"run": run, "state": RunState.RUNNING, "worker": worker, "attempt": attempt})
        return [Event("run", self._position, change) for change in changes]

    async def _look(self) -> _Look:
        known = await self._current(self._row)
        task = self._shown(known)
        if isinstance(known, TaskRow):
            return _Look(task, True, True, None, {})
        active = {attempt.run: (attempt.number, attempt.worker) for attempt in known.active}
        ended = None if known.has_ended else known.succeeded + known.failed
        gone = self._running.keys() - active.keys()
        now = self._now()
        queued = frozenset(run for run in gone if known.state_of(run, now) is not RunState.RUNNING)
        # As long as the scheduler has it, a result of it may be on its way to disk.
        return _Look(task, known.has_ended, False, ended, active, queued)
