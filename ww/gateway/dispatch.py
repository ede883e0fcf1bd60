"""Brings due runs and free slots together, and sees each attempt through.

Holds the slots that are leased and what is on them. Must not know HTTP, nor when runs are due (agenda.py). A slot, once
leased, takes one due run after the other and is given back when nothing is due. While its runs are shorter than their
way there and back, it is sent several at a time, each on a lane; one that turns out long sends those behind it back to
the queue. Next in a task's life: lease.py and then ../worker.py.
"""

import asyncio
import logging
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, Final

from ww.clock import Clock
from ww.errors import BadModule, Disconnected, Draining, WwError
from ww.gateway.agenda import Agenda
from ww.gateway.lease import Lease, RemoteGroup
from ww.gateway.modules import ModuleStore
from ww.gateway.observer import Observer
from ww.gateway.pool import WorkerPool
from ww.gateway.recorder import Recorder
from ww.gateway.task import Attempt, Effects, Need, Outcome, Task
from ww.gateway.watch import Watches
from ww.records import NOTHING

log = logging.getLogger("ww.gateway")

_LANES_MAX: Final = 8
# A run this short takes less time than its way to the worker and back.
_SHORT_S: Final = 0.005
# A slot that did not end its oldest run between two looks is stuck.
_LOOK_EVERY_S: Final = 0.05
# Of the needs that go next, those that may have slots kept for them.
_RESERVING_MAX: Final = 16
# A straggler takes longer than this many times what runs of its task take, and than this many seconds.
_STRAGGLER_TIMES: Final = 3.0
_STRAGGLER_S: Final = 1.0


@dataclass(frozen=True, slots=True)
class DispatchConfig:
    """How attempts are watched over."""

    attempt_slack_s: float = 120.0
    """Seconds beyond a run's duration until a worker that still says nothing is given up: it may have to fetch and
    compile the module first."""
    cancel_grace_s: float = 5.0
    """Seconds a worker has to answer a cancel."""
    speculate: bool = False
    """Whether a run that takes much longer than its like gets a second attempt once nothing else of its task waits."""


class _OurFault(WwError):
    """An attempt that this gateway could not even begin."""


@dataclass(eq=False, slots=True)
class _Slot:
    """A lease and what is on it."""

    lease: Lease
    lanes: int = 0
    is_usable: bool = True
    is_short: bool = False
    """Whether its latest run was short."""
    attempts: dict[Attempt, RemoteGroup] = field(default_factory=dict)
    """Under way, in the order in which the worker runs them."""
    oldest_seen: Attempt | None = None


class Dispatcher:
    """The leased slots."""

    def __init__(
        self,
        agenda: Agenda,
        pool: WorkerPool,
        recorder: Recorder,
        modules: ModuleStore,
        watches: Watches,
        clock: Clock,
        observer: Observer,
        config: DispatchConfig,
        spawn: Callable[[Coroutine[Any, Any, None]], None],
    ) -> None:
        """spawn runs a coroutine beside the others until it ends."""
        self._agenda = agenda
        self._pool = pool
        self._recorder = recorder
        self._modules = modules
        self._watches = watches
        self._clock = clock
        self._observer = observer
        self._config = config
        self._spawn = spawn
        self._slots: set[_Slot] = set()
        self._under_way: dict[Attempt, RemoteGroup] = {}
        self._wake = asyncio.Event()
        self._shared = asyncio.Event()  # a slot has several lanes
        self.late_outcomes = 0
        """Outcomes that came when their attempt did not count any more."""

    def wake(self) -> None:
        """Look again: something is due, or a slot is free."""
        self._wake.set()

    # Matching.

    async def match(self) -> None:
        """Match due runs with free slots, for ever."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            without_room: set[Need] = set()
            # Nothing is due: thousands of offers need not be looked at for each that comes.
            while (
                len(self._agenda.ready)
                and self._pool.has_free_slot
                and (found := self._place(without_room)) is not None
            ):
                self._use(*found)

    def _place(self, without_room: set[Need]) -> tuple[Lease, Attempt] | None:
        """Begin the run that should go next of those for which slots are free; for some needs there are known to be
        none."""
        for task in self._agenda.ready.heads():
            need = task.need
            if need in without_room:
                continue
            lease = self._pool.take(need, task.spec.module, shunned=task.shuns)
            if lease is None:
                without_room.add(need)
                continue
            attempt = self._agenda.begin(task, lease.slots)
            if attempt is not None:
                return lease, attempt
            lease.close()
        return None

    def _next(self, slot: _Slot) -> Attempt | None:
        """Begin the run that should go next of those that a slot can take."""
        lease = slot.lease
        return self._agenda.begin_next(lambda task: self._pool.may_go_on(lease, task.need), lease.slots)

    def _use(self, lease: Lease, attempt: Attempt) -> None:
        """Run on a lease what is due, beginning with attempt, until nothing is."""
        slot = _Slot(lease)
        self._slots.add(slot)
        self._add_lane(slot, attempt)

    def _add_lane(self, slot: _Slot, attempt: Attempt) -> None:
        slot.lanes += 1
        self._spawn(self._run_lane(slot, attempt))

    async def _run_lane(self, slot: _Slot, attempt: Attempt) -> None:
        """Run one run after the other."""
        try:
            following: Attempt | None = attempt
            while following is not None:
                task = following.task
                await self._run(slot, following)
                following = self._next(slot) if slot.is_usable and (slot.is_short or slot.lanes == 1) else None
                if following is not None and slot.is_short and slot.lanes < _LANES_MAX:
                    self._widen(slot, task)
        finally:
            slot.lanes -= 1
            if slot.lanes == 0:
                slot.lease.close()
                self._slots.discard(slot)
                if len(self._agenda.ready):
                    self.wake()

    def _widen(self, slot: _Slot, task: Task) -> None:
        """Use one more lane, unless another slot could do it."""
        if not self._pool.has_room(task.need) and (attempt := self._next(slot)) is not None:
            self._add_lane(slot, attempt)
            self._shared.set()

    # Attempts.

    async def _run(self, slot: _Slot, attempt: Attempt) -> None:
        """See one attempt through."""
        task = attempt.task
        attempt.worker = str(slot.lease.peer_id)
        self._observer.dispatched(attempt.waited_s)
        self._watches.notify(task.spec.id)
        try:
            outcome = await self._outcome(slot, attempt)
        except Draining:
            task.give_back(attempt, self._clock.now())
            slot.is_usable = False
            # It gets nothing more, or it could send everything back for ever.
            self._pool.leave(slot.lease.peer)
            self._observer.attempt_ended("returned")
            effects = Effects()
        except Exception as error:
            # A worker may answer anything; whatever it is, only this attempt is lost by it.
            if not isinstance(error, WwError):
                log.exception("a worker's answer could not be read")
            effects = self._lose(slot, attempt, error)
        else:
            effects = self._end(slot, attempt, outcome)
        for other in effects.stop:
            self.stop(other)
        if effects.result is not None:
            await self._recorder.put(task, effects.result)
        else:
            self._watches.notify(task.spec.id)
        self._agenda.put(task)

    def _lose(self, slot: _Slot, attempt: Attempt, error: Exception) -> Effects:
        task = attempt.task
        slot.is_usable = False
        # One whose connection broke is gone anyhow.
        if not isinstance(error, Disconnected | _OurFault) and task.is_active(attempt):
            self._pool.attempt_ended(slot.lease, task.spec.module, well=False, was_lost=True)
        where = f"run {task.spec.id}/{attempt.run}: attempt {attempt.number} on {attempt.worker}"
        log.info("%s is lost: %s", where, error)
        self._observer.attempt_ended("lost")
        return task.lose(attempt, str(error), self._clock.now(), self._clock.wall())

    def _end(self, slot: _Slot, attempt: Attempt, outcome: Outcome) -> Effects:
        task = attempt.task
        if not task.is_active(attempt):
            self.late_outcomes += 1
            self._observer.attempt_ended("late")
            self._recorder.let_go(outcome)
            return Effects()
        # What brings files along or back is long on its way.
        slot.is_short = outcome.wall_s < _SHORT_S and not (task.spec.files or task.spec.artifacts)
        task.charged_s += (outcome.wall_s - self._agenda.ready.charge_of(task)) * slot.lease.slots
        crashed = outcome.reason == "crash"
        self._pool.attempt_ended(slot.lease, task.spec.module, well=not crashed)
        self._observer.attempt_ended("crash" if crashed else "guest" if outcome.reason else "ok")
        effects = task.end(attempt, outcome, self._clock.now(), self._clock.wall())
        if effects.result is None:
            self._recorder.let_go(outcome)
        return effects

    async def _outcome(self, slot: _Slot, attempt: Attempt) -> Outcome:
        task, files = attempt.task, b""
        if not slot.lease.is_prepared(task):
            try:
                files = await self._modules.read_files(task.spec.files)
            except WwError as error:
                raise _OurFault(str(error)) from None
            if not task.is_active(attempt):
                return Outcome(reason="cancelled")
        remote = slot.attempts[attempt] = self._under_way[attempt] = slot.lease.start(task, [NOTHING], files)
        del files
        patience_s = task.spec.duration_s + self._config.attempt_slack_s
        try:
            async with asyncio.timeout(patience_s):
                (_, outcome, artifacts), *_ = await remote.ended()
        except BadModule as error:
            return Outcome(reason="compile", detail=str(error))
        except TimeoutError:
            raise WwError(f"the worker said nothing for {patience_s:g} s") from None
        finally:
            del slot.attempts[attempt], self._under_way[attempt]
        if outcome.reason == "cancelled" and task.is_active(attempt):
            raise WwError("the worker stopped it")
        return await self._recorder.keep_artifacts(attempt, outcome, artifacts) if artifacts else outcome

    def stop(self, attempt: Attempt) -> None:
        """Have the worker stop an attempt; nobody waits for that."""
        if (remote := self._under_way.get(attempt)) is not None:
            self._spawn(self._cancel(remote))

    async def _cancel(self, remote: RemoteGroup) -> None:
        try:
            async with asyncio.timeout(self._config.cancel_grace_s):
                await remote.cancel()
        except (WwError, TimeoutError) as error:
            log.info("a run could not be stopped: %s", error)

    # What takes long.

    async def unstick(self) -> None:
        """Send runs that wait behind a long one back to the queue, for ever."""
        looked_at = self._clock.now()
        while True:
            await self._shared.wait()
            shared = [slot for slot in self._slots if slot.lanes > 1]
            if not shared:
                self._shared.clear()
                continue
            # A look that comes late says that this process was held up, and nothing of the workers.
            is_late = self._clock.now() - looked_at > 2 * _LOOK_EVERY_S
            looked_at = self._clock.now()
            for slot in shared:
                oldest = next(iter(slot.attempts), None)
                if oldest is not None and oldest is slot.oldest_seen and not is_late:
                    self._send_back(slot)
                slot.oldest_seen = oldest
            await self._clock.sleep(_LOOK_EVERY_S)

    def _send_back(self, slot: _Slot) -> None:
        """Put all but a slot's oldest run back into the queue."""
        slot.is_short = False
        for attempt in list(slot.attempts)[1:]:
            if attempt.task.is_active(attempt):
                self.stop(attempt)
                attempt.task.give_back(attempt, self._clock.now())
                self._agenda.put(attempt.task)
                self._watches.notify(attempt.task.spec.id)

    def look_around(self) -> None:
        """Do what nobody asks for: keep reservations to what is wanted, and give stragglers a second attempt."""
        self._pool.release({demand.need for demand in self._agenda.ready.demands()})
        ahead: list[Need] = []
        waiting = self._agenda.ready.heads()
        for task in waiting[:_RESERVING_MAX]:
            need = task.need
            if self._pool.has_room(need) or not self._pool.reserve(need, ahead):
                ahead.append(need)  # it is not for want of several slots at once that it waits
        if self._config.speculate and not any(self._pool.has_room(task.need) for task in waiting):
            self._second_attempts()
        self.wake()

    def _second_attempts(self) -> None:
        now, wall = self._clock.now(), self._clock.wall()
        for slot in list(self._slots):
            for first in list(slot.attempts):
                task = first.task
                is_late = now - first.began > max(_STRAGGLER_S, _STRAGGLER_TIMES * task.expected_s)
                if not (is_late and task.expected_s) or task.next_due() is not None or not self._pool.has_free_slot:
                    continue
                lease = self._pool.take(task.need, task.spec.module, avoiding=frozenset({slot.lease.peer_id}))
                if lease is None:
                    continue
                second = task.begin_again(first, now, wall)
                if second is None:
                    lease.close()
                    continue
                log.info("run %s/%d takes long on %s: a second attempt", task.spec.id, first.run, first.worker)
                self._use(lease, second)
