"""Brings due runs and free slots together, and sees each attempt through.

Holds the slots that are leased and what is on them. Must not know HTTP, nor when runs are due (agenda.py). A slot, once
leased, takes due runs until nothing is due, and is given back then. Nothing else is on a slot with a run that may call
others: what it waits for could wait behind it. Short runs of one task travel in groups, of about
20 ms each, and several groups are on their way at once: a group is only transport, and each run has its own limits, end
and recovery. What takes long: oversight.py. Next in a task's life: lease.py and then ../worker.py.
"""

import asyncio
import logging
from collections.abc import Callable, Collection, Coroutine, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from ww.clock import Clock
from ww.errors import BadModule, Disconnected, Draining, WwError
from ww.gateway.agenda import Agenda
from ww.gateway.calls import CallsServer
from ww.gateway.group import Group, Slot, group_size
from ww.gateway.inputs import Inputs, Record
from ww.gateway.lease import Ended, Lease, RemoteGroup
from ww.gateway.modules import ModuleStore
from ww.gateway.observer import Observer
from ww.gateway.patience import Patience
from ww.gateway.pool import WorkerPool
from ww.gateway.recorder import Recorder
from ww.gateway.spread import Spreading
from ww.gateway.task import Attempt, Effects, Need, Outcome, RunResult, Task
from ww.gateway.watch import Watches
from ww.identity import PeerId
from ww.records import NOTHING

log = logging.getLogger("ww.gateway")

# Groups on one slot at once: one runs, one waits beside it, and one is on its way.
_LANES_MAX: Final = 3
# How long a slot is kept after a short run when nothing is due.
_KEPT_S: Final = 0.02
# How long a slot that is lent is gone on with: the run that lends it may have gone on meanwhile.
_LENT_S: Final = 0.1
# A run this short takes less time than its way to the worker and back.
_SHORT_S: Final = 0.005


@dataclass(frozen=True, slots=True)
class DispatchConfig:
    """How attempts are watched over."""

    attempt_slack_s: float = 120.0
    """Seconds beyond a run's duration until a worker that still says nothing is given up: it may have to fetch and
    compile the module first."""
    cancel_grace_s: float = 5.0
    """Seconds a worker has to answer a cancel."""
    absent_max_s: float = 30.0
    """How long a run that is for one worker alone waits for it to come back."""
    speculate: bool = False
    """Whether a run that takes much longer than its like gets a second attempt once nothing else of its task waits."""


def _give_up(more: "asyncio.Future[list[Attempt]]") -> None:
    if not more.done():
        more.set_result([])


class _OurFault(WwError):
    """An attempt that this gateway could not even begin."""


class Dispatcher:
    """The leased slots."""

    def __init__(
        self,
        agenda: Agenda,
        pool: WorkerPool,
        recorder: Recorder,
        modules: ModuleStore,
        inputs: Inputs,
        watches: Watches,
        clock: Clock,
        observer: Observer,
        config: DispatchConfig,
        spawn: Callable[[Coroutine[Any, Any, None]], None],
        calls_for: Callable[[Task], CallsServer],
        on_outvoted: Callable[[Sequence[str]], None],
    ) -> None:
        """spawn runs a coroutine beside the others until it ends; calls_for makes what a run of a task with grants may
        ask of the cluster; on_outvoted is told of peers that said something else than a quorum of others did."""
        self._agenda = agenda
        self._pool = pool
        self._recorder = recorder
        self._modules = modules
        self._inputs = inputs
        self._watches = watches
        self._clock = clock
        self._observer = observer
        self._config = config
        self._spawn = spawn
        self._calls_for = calls_for
        self._on_outvoted = on_outvoted
        self.slots: set[Slot] = set()
        """Those that are leased."""
        self._kept: dict[Slot, asyncio.Future[list[Attempt]]] = {}
        """Slots that wait a moment for more."""
        self._groups: dict[Attempt, Group] = {}
        """By attempt under way."""
        self._wake = asyncio.Event()
        self._spreading = Spreading(pool)
        self.shared = asyncio.Event()
        """Set when runs wait behind another one on a slot."""
        self.patience = Patience()
        """With slots that seem stuck."""
        self.late_outcomes = 0
        """Outcomes that came when their attempt did not count any more."""

    @property
    def running(self) -> int:
        """How many attempts are under way."""
        return len(self._groups)

    def wake(self) -> None:
        """Look again: something is due, or a slot is free."""
        self._wake.set()

    def targets(self, task: Task) -> Collection[PeerId] | None:
        """Return the peers that a task's next run may go to; None: any."""
        return self._spreading.targets(task, self._clock.now())

    # Matching.

    async def match(self) -> None:
        """Match due runs with free slots, for ever."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            self._use_kept()
            without_room: set[Need] = set()
            # Nothing is due: thousands of offers need not be looked at for each that comes.
            while (
                len(self._agenda.ready)
                and self._pool.has_free_slot
                and (found := self._place(without_room)) is not None
            ):
                self.use(*found)

    def _use_kept(self) -> None:
        """Let the slots that wait for more have what is due."""
        for slot, more in list(self._kept.items()):
            if not len(self._agenda.ready):
                return
            if not more.done() and (attempts := self._next(slot)):
                more.set_result(attempts)

    def _place(self, without_room: set[Need]) -> tuple[Lease, list[Attempt]] | None:
        """Begin the runs that should go next of those for which slots are free; for some needs there are known to be
        none."""
        for task in self._agenda.ready.heads():
            need = task.need
            if need in without_room:
                continue
            lease = self._pool.take(need, task.spec.module, only=self.targets(task), shunned=task.shuns)
            if lease is None:
                without_room.add(need)
                continue
            attempts = self._agenda.begin(task, lease.slots, self._size(task, lease), str(lease.peer_id))
            if attempts:
                self._spreading.begun(task, lease.peer_id, len(attempts))
                return lease, attempts
            lease.close()
        return None

    def _next(self, slot: Slot, *, is_beside: bool = False) -> list[Attempt]:
        """Begin the runs that should go next of those that a slot can take, beside others or when those have ended."""
        lease, is_alone = slot.lease, slot.lanes == 1 and not is_beside

        def fits(task: Task) -> bool:
            if not self._pool.may_go_on(lease, task.need) or (task.spec.grants and not is_alone):
                return False
            return self._spreading.allows(task, lease.peer_id, self._clock.now())

        attempts = self._agenda.begin_next(fits, lease.slots, lambda task: self._size(task, lease), str(lease.peer_id))
        if attempts:
            self._spreading.begun(attempts[0].task, lease.peer_id, len(attempts))
        return attempts

    def _size(self, task: Task, lease: Lease) -> int:
        spec = task.spec
        input_bytes = self._inputs.mean_bytes(spec.inputs) if spec.inputs else 0
        size = group_size(task, self._clock.now(), self._pool.slots, input_bytes)
        return size if size == 1 else min(size, self._spreading.most(task, lease.peer_id, self._clock.now()))

    def use(self, lease: Lease, attempts: list[Attempt]) -> None:
        """Run on a lease what is due, beginning with attempts, until nothing is."""
        slot = Slot(lease, self._clock.now())
        self.slots.add(slot)
        self._add_lane(slot, attempts)

    def _add_lane(self, slot: Slot, attempts: list[Attempt]) -> None:
        slot.lanes += 1
        self._spawn(self._run_lane(slot, attempts))

    async def _run_lane(self, slot: Slot, attempts: list[Attempt]) -> None:
        """Run one group after the other."""
        try:
            while attempts:
                task = attempts[0].task
                await self._run(slot, attempts)
                is_over = slot.lease.depth and self._clock.now() - slot.since >= _LENT_S
                may_go_on = slot.is_usable and (slot.is_short or slot.lanes == 1) and not is_over
                attempts = self._next(slot) if may_go_on else []
                if attempts and slot.is_short and slot.lanes < _LANES_MAX and not attempts[0].task.spec.grants:
                    self._widen(slot, task)
                elif not attempts and may_go_on and slot.is_short and slot.lanes == 1:
                    attempts = await self._keep(slot)
        finally:
            slot.lanes -= 1
            if slot.lanes == 0:
                slot.lease.close()
                self.slots.discard(slot)
                if len(self._agenda.ready):
                    self.wake()

    async def _keep(self, slot: Slot) -> list[Attempt]:
        """Keep a slot for a moment though nothing is due: who sends one short run after the other saves an offer."""
        loop = asyncio.get_running_loop()
        more: asyncio.Future[list[Attempt]] = loop.create_future()
        timer = loop.call_later(_KEPT_S, _give_up, more)
        self._kept[slot] = more
        try:
            return await more
        finally:
            timer.cancel()
            del self._kept[slot]

    def _widen(self, slot: Slot, task: Task) -> None:
        """Use one more lane, unless another slot could do it."""
        if not self._pool.has_room(task.need, self.targets(task)) and (attempts := self._next(slot, is_beside=True)):
            self._add_lane(slot, attempts)
            self.shared.set()

    # Attempts.

    async def _run(self, slot: Slot, attempts: list[Attempt]) -> None:
        """See a group of attempts through."""
        task, worker = attempts[0].task, str(slot.lease.peer_id)
        group = Group(slot, task, dict(enumerate(attempts)))
        for attempt in attempts:
            attempt.worker = worker
            self._groups[attempt] = group
        self._observer.dispatched(attempts[0].waited_s, len(attempts))
        self._watches.notify(task.spec.id)
        try:
            await self._see_through(group)
        except Draining:
            slot.is_usable = False
            # It gets nothing more, or it could send everything back for ever.
            self._pool.leave(slot.lease.peer)
            self._observer.attempt_ended("returned", len(group.left))
            self.give_back(list(group.left.values()), slot)
        except Exception as error:
            # A worker may answer anything; whatever it is, only these attempts are lost by it.
            if not isinstance(error, WwError):
                log.exception("a worker's answer could not be read")
            await self._recorder.put(task, self._lose(group, error))
        finally:
            if group.calls is not None:
                group.calls.close()
            if group in slot.groups:
                slot.groups.remove(group)
            for attempt in group.left.values():
                del self._groups[attempt]
        self._watches.notify(task.spec.id)
        self._agenda.put(task)

    async def _see_through(self, group: Group) -> None:
        """Start a group, and take what is heard of it until all has ended."""
        task, lease = group.task, group.slot.lease
        try:
            records, files = await self._inputs_of(group)
        except WwError as error:
            raise _OurFault(str(error)) from None
        if not any(map(task.is_active, group.left.values())):
            return
        if task.spec.grants:
            group.calls = self._calls_for(task)
        remote = group.remote = lease.start(task, records, files, group.calls)
        group.slot.groups.append(group)
        if len(group.left) > 1:
            self.shared.set()
        del records, files
        patience_s = task.spec.duration_s + self._config.attempt_slack_s
        while group.left:
            try:
                async with asyncio.timeout(patience_s):
                    ended = await remote.ended()
            except BadModule as error:
                outcome = Outcome(reason="compile", detail=str(error))
                ended = [Ended(place, outcome, b"") for place in group.left]
            except TimeoutError:
                raise WwError(f"the worker said nothing for {patience_s:g} s") from None
            ended = [each if not each.artifacts else await self._with_artifacts(group, each) for each in ended]
            if results := self._end(group, ended):
                await self._recorder.put(task, results)

    async def _with_artifacts(self, group: Group, ended: Ended) -> Ended:
        attempt = group.left[ended.place]
        return ended._replace(
            outcome=await self._recorder.keep_artifacts(attempt, ended.outcome, ended.artifacts), artifacts=b""
        )

    async def _inputs_of(self, group: Group) -> tuple[Sequence[Record], bytes]:
        """Return what the runs of a group are given, and the zip of their task's files where that has to be sent."""
        spec, files = group.task.spec, b""
        if not group.slot.lease.is_prepared(group.task):
            files = await self._modules.read_files(spec.files)
        if not spec.inputs:
            return [NOTHING] * len(group.left), files
        runs = [attempt.run for attempt in group.left.values()]
        records = self._inputs.cached(spec.inputs, runs)
        return await self._inputs.records(spec.inputs, runs) if records is None else records, files

    def _end(self, group: Group, ended: Sequence[Ended]) -> list[RunResult]:
        """Take the outcomes of runs; return the results that are to be put on disk. A few microseconds a run count."""
        slot, task, left, groups = group.slot, group.task, group.left, self._groups
        now, wall = self._clock.now(), self._clock.wall()
        results: list[RunResult] = []
        stopped: list[Attempt] = []
        well, wall_s, is_voted = 0, 0.0, task.spec.is_replicated
        if slot.stuck_at is not None:
            self._judge_stuck(group, ended, now)
        for place, outcome, _ in ended:
            attempt = left.pop(place)
            del groups[attempt]
            if outcome.reason or is_voted or not task.is_active(attempt):
                effects = self._end_otherwise(slot, attempt, outcome)
            else:
                well += 1
                wall_s += outcome.wall_s
                effects = task.end(attempt, outcome, now, wall)
            if effects.stop:
                stopped += effects.stop
            if effects.result is not None:
                results.append(effects.result)
            if effects.outvoted:
                self._on_outvoted(effects.outvoted)
        self.stop(stopped)
        if is_voted:
            # Others may be wanted, who wait for nothing else.
            self._agenda.put(task)
            self.wake()
        if well:
            self._account(slot, task, wall_s, well)
            self._observer.attempt_ended("ok", well)
        self._note_length(slot, task, ended[-1].outcome)
        return results

    @staticmethod
    def _note_length(slot: Slot, task: Task, latest: Outcome) -> None:
        """Note whether the runs on a slot are short; of what was stopped, that says nothing."""
        if slot.stuck_at is not None:
            slot.is_short = False
        elif latest.reason != "cancelled":
            slot.is_short = latest.wall_s < _SHORT_S and not task.spec.is_bulky

    def _judge_stuck(self, group: Group, ended: Sequence[Ended], now: float) -> None:
        """See whether the run that a slot seemed stuck at did take long."""
        slot = group.slot
        for place, outcome, _ in ended:
            if group.left[place] is slot.stuck_at:
                slot.stuck_at = None
                if outcome.reason != "cancelled":
                    took_s = outcome.compile_s + outcome.wall_s
                    self.patience.judge(slot.lease.peer_id, now - slot.oldest_since, took_s, now)

    def _end_otherwise(self, slot: Slot, attempt: Attempt, outcome: Outcome) -> Effects:
        """Take an outcome that is not well, or does not count any more."""
        task, now, wall = attempt.task, self._clock.now(), self._clock.wall()
        if not task.is_active(attempt):
            self.late_outcomes += 1
            self._observer.attempt_ended("late")
            self._recorder.let_go(outcome)
            return Effects()
        if self._pool.is_refused(slot.lease.peer_id):
            self._observer.attempt_ended("lost")
            effects = task.lose(attempt, "its worker is refused", now, wall)
        elif outcome.reason == "cancelled":
            self._pool.attempt_ended(slot.lease, task.spec.module, well=False, was_lost=True)
            self._observer.attempt_ended("lost")
            effects = task.lose(attempt, "the worker stopped it", now, wall)
        else:
            self._account(slot, task, outcome.wall_s, 1, crashed=outcome.reason == "crash")
            ending = outcome.reason if outcome.reason in ("", "crash") else "guest"
            self._observer.attempt_ended(ending or "ok")
            effects = task.end(attempt, outcome, now, wall)
        if effects.result is None or effects.result.outcome.artifacts != outcome.artifacts:
            self._recorder.let_go(outcome)
        if effects.result is None and not task.spec.is_replicated:
            self._agenda.put(task)
        return effects

    def _account(self, slot: Slot, task: Task, wall_s: float, count: int, *, crashed: bool = False) -> None:
        """Charge a task for runs that took so long together, and note what that says of their worker."""
        task.charged_s += (wall_s - count * self._agenda.ready.charge_of(task)) * slot.lease.slots
        self._pool.attempt_ended(slot.lease, task.spec.module, well=not crashed, count=count)

    def _lose(self, group: Group, error: Exception) -> list[RunResult]:
        """Lose the attempts of a group of which nothing will be heard; return the results that follow."""
        slot, task = group.slot, group.task
        slot.is_usable = False
        now, wall = self._clock.now(), self._clock.wall()
        active = [attempt for attempt in group.left.values() if task.is_active(attempt)]
        # One whose connection broke is gone anyhow.
        if active and not isinstance(error, Disconnected | _OurFault):
            self._pool.attempt_ended(slot.lease, task.spec.module, well=False, was_lost=True)
        if active:
            first = active[0]
            others = f" and {len(active) - 1} more" if len(active) > 1 else ""
            where = f"run {task.spec.id}/{first.run}{others}: attempt {first.number} on {first.worker}"
            log.info("%s is lost: %s", where, error)
        self._observer.attempt_ended("lost", len(group.left))
        self._spreading.begun(task, slot.lease.peer_id, -len(active))
        effects = [task.lose(attempt, str(error), now, wall) for attempt in active]
        self.stop(attempt for each in effects for attempt in each.stop)
        return [each.result for each in effects if each.result is not None]

    def give_back(self, attempts: Sequence[Attempt], slot: Slot) -> None:
        """Put runs back that their worker did not begin, as if they had not been taken."""
        now = self._clock.now()
        for attempt in attempts:
            attempt.task.give_back(attempt, now)
            self._spreading.begun(attempt.task, slot.lease.peer_id, -1)

    def forget(self, task: Task) -> None:
        """Forget what is remembered of a task that has ended."""
        self._spreading.forget(task)
        if task.spec.inputs:
            self._inputs.forget(task.spec.inputs)

    def stop(self, attempts: Iterable[Attempt]) -> None:
        """Have the workers stop attempts; nobody waits for that."""
        by_group: dict[Group, set[Attempt]] = {}
        for attempt in attempts:
            if (group := self._groups.get(attempt)) is not None:
                by_group.setdefault(group, set()).add(attempt)
        for group, stopped in by_group.items():
            if group.calls is not None:
                group.calls.close()
            if group.remote is not None:
                places = [place for place, attempt in group.left.items() if attempt in stopped]
                self._spawn(self._cancel(group.remote, places))

    async def _cancel(self, remote: RemoteGroup, places: Sequence[int]) -> None:
        try:
            async with asyncio.timeout(self._config.cancel_grace_s):
                await remote.cancel(places)
        except (WwError, TimeoutError) as error:
            log.info("a run could not be stopped: %s", error)
