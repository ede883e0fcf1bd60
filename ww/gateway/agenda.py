"""When runs are due, and which due run goes next.

Holds the tasks that wait for their time and those whose time has come. Must not know workers or disks: dispatch.py asks
for the next run that it can place. Due times are followed by the monotonic clock, so setting the clock starts nothing
twice and skips nothing.
"""

import asyncio
from collections.abc import Callable
from typing import Any

from ww.clock import Clock
from ww.gateway.ready import ReadyQueue
from ww.gateway.task import Attempt, Task
from ww.gateway.timers import Timers


class Agenda:
    """All tasks that have a run to begin."""

    def __init__(self, clock: Clock, on_ready: Callable[[Task], None]) -> None:
        """on_ready is called with each task that gets a due run."""
        self._clock = clock
        self._on_ready = on_ready
        self._timers = Timers()
        self.ready = ReadyQueue()
        # How many due runs the tasks in `ready` have: known exactly for those whose runs are all due at once.
        self._queued: dict[int, int] = {}
        self._queued_sum = 0
        self._spaced: dict[int, Task] = {}

    def put(self, task: Task) -> None:
        """Put a task where its next run is waited for."""
        if (due := task.next_due()) is None:
            if task in self.ready:
                self.discard(task)  # what its runs wanted of further peers, nobody wants any more
            return
        if task in self.ready:
            # Some of its runs may have come back.
            self._uncount(task)
            self._count(task)
            return
        if due > self._clock.now():
            self._timers.set(task, due)
            return
        self.ready.add(task)
        self._count(task)
        self._on_ready(task)

    def discard(self, task: Task) -> None:
        """Let no run of a task begin any more."""
        self._timers.forget(task)
        self.ready.discard(task)
        self._uncount(task)

    def begin(self, task: Task, slots: int, count: int = 1, worker: str = "") -> list[Attempt]:
        """Begin runs of a ready task on that many slots of a worker, one after the other, at most count of them."""
        attempts = task.begin(self._clock.now(), self._clock.wall(), count, worker)
        self.ready.take(task, slots * len(attempts))
        self._uncount(task)
        self.put(task)
        return attempts

    def begin_next(
        self, fits: Callable[[Task], bool], slots: int, count: Callable[[Task], int], worker: str
    ) -> list[Attempt]:
        """Begin the runs that should go next of those that fit; none when no due run does. count says how many."""
        if not len(self.ready):
            return []
        for task in self.ready.heads():
            if fits(task) and (attempts := self.begin(task, slots, count(task), worker)):
                return attempts
        return []

    @property
    def is_moving(self) -> bool:
        """Whether a run is due that some worker could serve."""
        return bool(self.ready.heads())

    def queue_length(self) -> int:
        """Return how many runs are due and wait for a slot."""
        now = self._clock.now()
        return self._queued_sum + sum(task.queued(now) for task in self._spaced.values())

    def oldest_wait_s(self) -> float:
        """Return how long the oldest due run has waited."""
        now = self._clock.now()
        return now - min((task.oldest_due(now) for task in self.ready.tasks()), default=now)

    async def ring(self) -> None:
        """Make tasks ready when their time comes, for ever."""
        while True:
            for task in self._timers.due(self._clock.now()):
                self.put(task)
            first, changed = self._timers.first()
            waits: list[asyncio.Future[Any]] = [asyncio.ensure_future(changed.wait())]
            if first is not None:
                waits.append(asyncio.ensure_future(self._clock.sleep(first - self._clock.now())))
            try:
                await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for wait in waits:
                    wait.cancel()

    def _count(self, task: Task) -> None:
        if task.spec.delay_s:
            self._spaced[task.number] = task
            return
        count = self._queued[task.number] = task.queued(self._clock.now())
        self._queued_sum += count

    def _uncount(self, task: Task) -> None:
        self._spaced.pop(task.number, None)
        self._queued_sum -= self._queued.pop(task.number, 0)
