"""To which workers a task's next run may go, for tasks whose runs do not go to whoever is free.

Holds the three other ways and what they remember of each task. Must not know slots or how runs get there: dispatch.py
asks before it takes a slot, and tells what went where.
"""

import math
import random
import sys
from collections.abc import Collection
from typing import Final

from ww.gateway.pool import WorkerPool
from ww.gateway.quorum import ReplicatedTask
from ww.gateway.spec import Spread
from ww.gateway.task import Task
from ww.identity import PeerId

# A task of them is forgotten: its runs are shared out anew from then on.
_REMEMBERED_MAX: Final = 4096


class Spreading:
    """What went where."""

    def __init__(self, pool: WorkerPool) -> None:
        self._pool = pool
        self._counts: dict[int, dict[PeerId, int]] = {}
        """By task: how many of its runs each worker was given."""
        self._chosen: dict[int, PeerId] = {}
        """By task: where its next run goes."""

    def targets(self, task: Task, now: float) -> Collection[PeerId] | None:
        """Return the workers that its next run may go to; None: it may go to any."""
        spread = task.spec.spread
        if isinstance(task, ReplicatedTask):
            return task.targets(self._pool.able(task.need), now)
        if spread == Spread.PULL:
            return None
        able = self._pool.able(task.need)
        if spread == Spread.EVERYWHERE:
            wanted = task.waits_for(now)
            return {peer_id for peer_id in able if str(peer_id) in wanted}
        if spread == Spread.RANDOM:
            chosen = self._chosen.get(task.number)
            if able and chosen not in able:
                chosen = self._chosen[task.number] = random.choice(able)
                _bound(self._chosen)
            return () if chosen is None or not able else (chosen,)
        counts = self._counts_of(task, able)
        fewest = min((counts[peer_id] for peer_id in able), default=0)
        return [peer_id for peer_id in able if counts[peer_id] == fewest]

    def allows(self, task: Task, peer_id: PeerId, now: float) -> bool:
        """Whether its next run may go to that peer."""
        if isinstance(task, ReplicatedTask):
            return task.serves(peer_id, now)  # without a look at all the others
        only = self.targets(task, now)
        return only is None or peer_id in only

    def most(self, task: Task, peer_id: PeerId, now: float) -> int:
        """Return how many of its due runs may go to a worker at once."""
        if task.spec.spread != Spread.ROUNDROBIN or not (able := self._pool.able(task.need)):
            return sys.maxsize
        counts = self._counts_of(task, able)
        share = math.ceil((sum(counts[each] for each in able) + task.queued(now)) / len(able))
        return max(1, share - counts.get(peer_id, share))

    def begun(self, task: Task, peer_id: PeerId, count: int) -> None:
        """Note that so many runs of a task went to a worker."""
        self._chosen.pop(task.number, None)
        if (counts := self._counts.get(task.number)) is not None:
            counts[peer_id] = counts.get(peer_id, 0) + count

    def forget(self, task: Task) -> None:
        """Forget a task that has ended."""
        self._chosen.pop(task.number, None)
        self._counts.pop(task.number, None)

    def _counts_of(self, task: Task, able: Collection[PeerId]) -> dict[PeerId, int]:
        counts = self._counts.setdefault(task.number, {})
        _bound(self._counts)
        # Who comes later does not make up for the time before it came.
        fewest = min((counts[peer_id] for peer_id in able if peer_id in counts), default=0)
        for peer_id in able:
            counts.setdefault(peer_id, fewest)
        return counts


def _bound(remembered: dict[int, PeerId] | dict[int, dict[PeerId, int]]) -> None:
    while len(remembered) > _REMEMBERED_MAX:
        del remembered[next(iter(remembered))]
