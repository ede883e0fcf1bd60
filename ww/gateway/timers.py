"""When tasks are due.

Holds times and tasks. Knows no clock: the scheduler asks it with its own `now` (monotonic seconds).
"""

import asyncio
import heapq

from ww.gateway.task import Task


class Timers:
    """When tasks are due, each at most once."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int]] = []
        self._due: dict[int, tuple[float, Task]] = {}
        self._changed = asyncio.Event()

    def set(self, task: Task, due: float) -> None:
        """Be due at `due`, or at the earlier time that was set before."""
        known = self._due.get(task.number)
        if known is None or due < known[0]:
            self._due[task.number] = (due, task)
            heapq.heappush(self._heap, (due, task.number))
            if self._heap[0] == (due, task.number):
                self._changed.set()

    def forget(self, task: Task) -> None:
        """Be due never."""
        self._due.pop(task.number, None)
        if len(self._heap) > 2 * len(self._due) + 64:
            self._heap = [(due, number) for number, (due, _) in self._due.items()]
            heapq.heapify(self._heap)

    def due(self, now: float) -> list[Task]:
        """Take out the tasks whose time has come, in that order."""
        tasks = []
        while self._heap and self._heap[0][0] <= now:
            due, number = heapq.heappop(self._heap)
            if (entry := self._due.get(number)) is not None and entry[0] == due:
                del self._due[number]
                tasks.append(entry[1])
        return tasks

    def first(self) -> tuple[float | None, asyncio.Event]:
        """Return the earliest time, and an event that is set when an earlier one comes."""
        self._changed.clear()
        return (self._heap[0][0] if self._heap else None), self._changed
