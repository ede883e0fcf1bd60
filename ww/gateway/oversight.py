"""What nobody asks for: an eye on what takes long, waits in vain, or is not there any more.

Holds runs that wait behind a long one, reservations, stragglers' second attempts, and runs whose only worker is gone.
Must not know HTTP. dispatch.py does what is decided here.
"""

import logging
from typing import Final

from ww.clock import Clock
from ww.gateway.agenda import Agenda
from ww.gateway.dispatch import DispatchConfig, Dispatcher
from ww.gateway.group import Slot
from ww.gateway.patience import FIRST_S
from ww.gateway.pool import WorkerPool
from ww.gateway.recorder import Recorder
from ww.gateway.spec import Need, Spread
from ww.gateway.task import Task
from ww.gateway.watch import Watches

log = logging.getLogger("ww.gateway")

_LOOK_EVERY_S: Final = FIRST_S
# Of the needs that go next, those that may have slots kept for them.
_RESERVING_MAX: Final = 16
# A straggler takes longer than this many times what runs of its task take, and than this many seconds.
_STRAGGLER_TIMES: Final = 3.0
_STRAGGLER_S: Final = 1.0


class Oversight:
    """One gateway's."""

    def __init__(
        self,
        dispatcher: Dispatcher,
        agenda: Agenda,
        pool: WorkerPool,
        recorder: Recorder,
        watches: Watches,
        clock: Clock,
        config: DispatchConfig,
    ) -> None:
        self._dispatcher = dispatcher
        self._agenda = agenda
        self._pool = pool
        self._recorder = recorder
        self._watches = watches
        self._clock = clock
        self._config = config
        self._everywhere: dict[int, Task] = {}
        """Open tasks each of whose runs has a worker of its own, by number."""

    def take_up(self, task: Task) -> None:
        """Have an eye on a task from now on."""
        if task.spec.spread == Spread.EVERYWHERE:
            self._everywhere[task.number] = task

    def forget(self, task: Task) -> None:
        """Do so no more: it has ended."""
        self._everywhere.pop(task.number, None)

    async def unstick(self) -> None:
        """Send runs that wait behind a long one back to the queue, for ever."""
        looked_at = self._clock.now()
        while True:
            await self._dispatcher.shared.wait()
            shared = [slot for slot in self._dispatcher.slots if slot.is_shared()]
            if not shared:
                self._dispatcher.shared.clear()
                continue
            # A look that comes late says that this process was held up, and nothing of the workers: what they said
            # meanwhile may not have been read yet.
            now = self._clock.now()
            gap_s = now - looked_at
            looked_at, late_s = now, gap_s - _LOOK_EVERY_S if gap_s > 2 * _LOOK_EVERY_S else 0.0
            for slot in shared:
                oldest = slot.oldest()
                if oldest is not slot.oldest_seen:
                    slot.oldest_seen, slot.oldest_since = oldest, now
                    continue
                slot.oldest_since += late_s
                enough_s = self._patience_with(slot, now) + (_LOOK_EVERY_S if late_s else 0.0)
                if oldest is not None and now - slot.oldest_since >= enough_s:
                    self._send_back(slot)
            await self._clock.sleep(_LOOK_EVERY_S)

    def _patience_with(self, slot: Slot, now: float) -> float:
        # A little less, since a sum of such times may be a little less.
        return 0.9 * self._dispatcher.patience.of(slot.lease.peer_id, now)

    def _send_back(self, slot: Slot) -> None:
        """Put all but a slot's oldest run back into the queue."""
        slot.is_short, slot.stuck_at = False, slot.oldest_seen
        behind = [attempt for group in slot.groups for attempt in group.left.values()][1:]
        behind = [attempt for attempt in behind if attempt.task.is_active(attempt)]
        self._dispatcher.stop(behind)
        self._dispatcher.give_back(behind, slot)
        for task in dict.fromkeys(attempt.task for attempt in behind):
            self._agenda.put(task)
            self._watches.notify(task.spec.id)

    def look_around(self) -> None:
        """Do what nobody asks for: keep reservations to what is wanted, and give stragglers a second attempt."""
        self._pool.release({demand.need for demand in self._agenda.ready.demands()})
        ahead: list[Need] = []
        waiting = self._agenda.ready.heads()
        for task in waiting[:_RESERVING_MAX]:
            need, only = task.need, self._dispatcher.targets(task)
            if self._pool.has_room(need, only) or not self._pool.reserve(need, ahead, only):
                ahead.append(need)  # it is not for want of several slots at once that it waits
        self._give_up_absent()
        if self._config.speculate and not any(self._pool.has_room(task.need) for task in waiting):
            self._second_attempts()
        self._dispatcher.wake()

    def _give_up_absent(self) -> None:
        """End runs that were for a worker alone which has been gone for long."""
        now, wall = self._clock.now(), self._clock.wall()
        for task in self._everywhere.values():
            gone = {each for each in task.waits_for(now) if self._pool.absent_s(each) > self._config.absent_max_s}
            if gone:
                self._agenda.discard(task)
                self._recorder.put_now(task, task.give_up(gone, now, wall))
                self._agenda.put(task)

    def _second_attempts(self) -> None:
        now, wall = self._clock.now(), self._clock.wall()
        for slot in list(self._dispatcher.slots):
            if (first := slot.oldest()) is not None:
                task = first.task
                is_late = now - first.began > max(_STRAGGLER_S, _STRAGGLER_TIMES * task.expected_s)
                if (
                    task.spec.spread != Spread.PULL
                    or task.spec.is_replicated  # several are at it anyhow
                    or task.spec.grants  # what it calls would be called twice
                    or not (is_late and task.expected_s)
                    or task.next_due() is not None
                    or not self._pool.has_free_slot
                ):
                    continue
                lease = self._pool.take(task.need, task.spec.module, avoiding=(slot.lease.peer_id,))
                if lease is None:
                    continue
                second = task.begin_again(first, now, wall)
                if second is None:
                    lease.close()
                    continue
                log.info("run %s/%d takes long on %s: a second attempt", task.spec.id, first.run, first.worker)
                self._dispatcher.use(lease, [second])
