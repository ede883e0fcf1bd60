"""The order in which due runs go: by priority, then by depth, then by turns, then by age.

Holds the tasks that have a due run. Must not know workers: whoever asks says which needs it can meet. Within one
priority what other runs wait for goes first, and then the task that has had least slot time, so that neither a batch of
a million runs nor one of hour-long runs holds up a small task. Tasks with the same Need share one heap, so that a need
nobody can meet now costs one look and not one for each of its tasks. Source of the turns: start-time fair queueing
(Goyal, Vin, Cheng 1996).
"""

import heapq
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from ww.gateway.task import Demand, Need, Task

# What a run is charged that nobody has timed.
_UNKNOWN_S: Final = 0.001

_Key = tuple[int, int, float, int]


@dataclass(slots=True)
class _Lane:
    """The tasks of one Need."""

    demand: Demand
    heap: list[_Key] = field(default_factory=list)
    turns: dict[int, float] = field(default_factory=dict)
    """By priority: the slot time that whoever of them went last had had."""


class ReadyQueue:
    """Tasks, each at most once."""

    def __init__(self) -> None:
        self._lanes: dict[Need, _Lane] = {}
        self._tasks: dict[int, tuple[_Key, Task]] = {}
        self._turns: dict[int, float] = {}
        """By priority: the slot time that whoever went last, with whatever need, had had."""

    def __len__(self) -> int:
        return len(self._tasks)

    def __contains__(self, task: Task) -> bool:
        return task.number in self._tasks

    def add(self, task: Task) -> None:
        """Put a task where its turn is. One that comes, or comes back, has had as much as whoever went last."""
        if task.number in self._tasks:
            return
        need, priority = task.need, task.spec.priority
        lane = self._lanes.get(need)
        if lane is None:
            lane = self._lanes[need] = _Lane(Demand(need))
        task.demand = lane.demand
        # As those it competes with: one that waited long for a rare worker has had little, and tells nothing of them.
        task.charged_s = max(task.charged_s, lane.turns.get(priority, self._turns.get(priority, 0.0)))
        key = (-priority, -need.depth, task.charged_s, task.number)
        self._tasks[task.number] = (key, task)
        heapq.heappush(lane.heap, key)

    def discard(self, task: Task) -> None:
        """Take a task out, wherever it is."""
        if self._tasks.pop(task.number, None) is None:
            return
        lane = self._lanes[task.need]
        if len(lane.heap) > 64 and len(lane.heap) > 2 * len(self._tasks):
            lane.heap = [key for key in lane.heap if self._is_current(key)]
            heapq.heapify(lane.heap)

    def heads(self) -> list[Task]:
        """Return the first task of each need that can be met at all, in the order in which they should go."""
        lanes = [lane for lane in self._lanes.values() if not lane.demand.reason]
        if len(lanes) == 1:
            key = self._head(lanes[0])
            return [self._tasks[key[-1]][1]] if key is not None else []
        keys = sorted(key for lane in lanes if (key := self._head(lane)) is not None)
        return [self._tasks[key[-1]][1] for key in keys]

    def take(self, task: Task, slots: int) -> None:
        """Take a task out because runs of it go, on that many slots in all; `add` it again when another is due."""
        self._turns[task.spec.priority] = self._lanes[task.need].turns[task.spec.priority] = task.charged_s
        task.charged_s += self.charge_of(task) * slots
        self.discard(task)

    @staticmethod
    def charge_of(task: Task) -> float:
        """Return the slot time that a run is charged before anybody knows how long it takes."""
        return task.expected_s or _UNKNOWN_S

    def demands(self) -> list[Demand]:
        """Return each need that somebody has, or had a moment ago."""
        return [lane.demand for lane in self._lanes.values()]

    def tasks_of(self, demand: Demand) -> list[Task]:
        """Return those who have that need."""
        lane = self._lanes.get(demand.need)
        return [] if lane is None else [self._tasks[key[-1]][1] for key in lane.heap if self._is_current(key)]

    def prune(self) -> None:
        """Forget the needs that nobody has any more."""
        for need in [need for need, lane in self._lanes.items() if self._head(lane) is None]:
            del self._lanes[need]

    def tasks(self) -> Iterator[Task]:
        """Give all tasks."""
        return (task for _, task in self._tasks.values())

    def _is_current(self, key: _Key) -> bool:
        entry = self._tasks.get(key[-1])
        return entry is not None and entry[0] == key

    def _head(self, lane: _Lane) -> _Key | None:
        while lane.heap:
            if self._is_current(lane.heap[0]):
                return lane.heap[0]
            heapq.heappop(lane.heap)
        return None
