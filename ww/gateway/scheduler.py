"""What a gateway has taken on: every task from its submission to its end.

Holds the tasks that have not ended. Must not know HTTP. A submission is on disk before `submit` returns; a result is on
disk before it shows. When runs are due: agenda.py. Next in a task's life: dispatch.py.
"""

import asyncio
import contextlib
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, Self, TypeVar

from ww.clock import Clock
from ww.errors import Conflict, NotFound, Overloaded, StoreError
from ww.gateway.agenda import Agenda
from ww.gateway.artifacts import ArtifactStore
from ww.gateway.breaker import BreakerConfig
from ww.gateway.calls import CallsConfig, Nesting
from ww.gateway.dispatch import DispatchConfig, Dispatcher
from ww.gateway.inputs import Inputs
from ww.gateway.modules import ModuleStore
from ww.gateway.observer import Nobody, Observer
from ww.gateway.oversight import Oversight
from ww.gateway.pool import WorkerPool
from ww.gateway.pulse import PulseConfig
from ww.gateway.quorum import ReplicatedTask, make_task
from ww.gateway.recorder import Recorder
from ww.gateway.request import shown
from ww.gateway.spec import Spread
from ww.gateway.storage import Storage
from ww.gateway.task import Demand, Need, Policy, Spec, Task
from ww.gateway.watch import Watches
from ww.identity import PeerId
from ww.uuid7 import is_recent

log = logging.getLogger("ww.gateway")

T = TypeVar("T")

_LOOK_EVERY_S: Final = 0.25
# How long a task whose result is waited for may run before it is put on disk: a short run's result goes with it.
_HOLD_S: Final = 0.002
# Tasks that are given up together, in one commit.
_GIVEN_UP_AT_ONCE: Final = 1024


@dataclass(frozen=True, slots=True)
class SchedulerConfig:
    """How much a scheduler takes on."""

    tasks_max: int = 100_000
    """Tasks that have not ended; a further one is refused for now."""
    tasks_bytes_max: int = 256 << 20
    """What those may take in memory, with their stdin."""
    needs_max: int = 1000
    """Distinct needs (cpus, memory, labels, what a worker must not lack) that they may have."""
    unsatisfiable_ttl_s: float = 86_400.0
    """Seconds that a due run waits while no connected worker could ever serve it; then its task has failed."""
    calls: CallsConfig = field(default_factory=CallsConfig)
    """What runs may have called."""
    dispatch: DispatchConfig = field(default_factory=DispatchConfig)
    disagreements_max: int = 3
    """Runs on which a peer may say something else than a quorum of others; with one more it is refused."""
    breaker: BreakerConfig = field(default_factory=BreakerConfig)
    pulse: PulseConfig = field(default_factory=PulseConfig)
    policy: Policy = field(default_factory=Policy)


class Scheduler:
    """Every open task. Open it with `async with`."""

    def __init__(
        self,
        store: Storage,
        modules: ModuleStore,
        artifacts: ArtifactStore,
        clock: Clock,
        config: SchedulerConfig,
        observer: Observer | None = None,
    ) -> None:
        self._store = store
        self._clock = clock
        self._config = config
        self._tasks: dict[str, Task] = {}
        self._tasks_bytes = 0  # of those on their way to the disk too
        self._needs: Counter[Need] = Counter()
        self._being_added: dict[str, tuple[Spec, asyncio.Event]] = {}
        self._children: set[asyncio.Task[None]] = set()
        self._has_changed = False  # who could be given runs, since needs were judged
        observer = observer or Nobody()
        self.inputs = Inputs(modules.inputs_path)
        """What the runs of batches are given."""
        self.watches = Watches()
        """Who is told when a task changes: a run of it began, ended or went back, or it did itself."""
        self.on_workers: list[Callable[[], object]] = []
        """Are called when workers came, went, or may be given other things."""
        self.agenda = Agenda(clock, self._on_ready)
        self.recorder = Recorder(
            store, artifacts, clock, observer, is_busy=lambda: self.agenda.is_moving, on_written=self._on_written
        )
        self.pool = WorkerPool(
            modules.path,
            clock=clock,
            on_offer=lambda: self.dispatcher.wake(),
            on_workers=self._on_workers,
            breaker=config.breaker,
            disagreements_max=config.disagreements_max,
            pulse=config.pulse,
        )
        self._is_closing = False
        self.on_refused: Callable[[PeerId, int], Coroutine[Any, Any, None]] | None = None
        """Called with a peer that is to be let in no more, and on how many runs it was outvoted."""
        self.nesting = Nesting(self, store, modules, config.calls, self._spawn)
        parts = self.agenda, self.pool, self.recorder, modules, self.inputs, self.watches
        after = config.dispatch, self._spawn, self.nesting.calls_for, self._on_outvoted
        self.dispatcher = Dispatcher(*parts, clock, observer, *after)
        overseen = self.dispatcher, self.agenda, self.pool, self.recorder, self.watches
        self._oversight = Oversight(*overseen, clock, config.dispatch)

    async def __aenter__(self) -> Self:
        now, wall = self._clock.now(), self._clock.wall()
        nested = []
        for task in await self._store.open_tasks(now, wall, self._config.policy):
            if task.spec.parent:
                # What called for it runs no more; it begins again, and calls again.
                nested.append(self._store.cancel_task(task.number, wall))
            else:
                self._take_up(task)
        await asyncio.gather(*nested)
        if self._tasks:
            log.info("%d unfinished tasks go on", len(self._tasks))
        self._group = await asyncio.TaskGroup().__aenter__()
        for loop in (self.dispatcher.match, self._oversight.unstick, self.agenda.ring, self.recorder.record):
            self._spawn(loop())
        self._spawn(self._look_around())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._is_closing = True
        for child in list(self._children):
            child.cancel()
        await self._group.__aexit__(None, None, None)

    def _spawn(self, coroutine: Coroutine[Any, Any, None]) -> None:
        child = self._group.create_task(coroutine)
        self._children.add(child)
        child.add_done_callback(self._children.discard)

    # What is asked for.

    async def submit(
        self, spec: Spec, keep_module: Callable[[], Awaitable[None]], *, is_new: bool = False, is_awaited: bool = False
    ) -> int:
        """Take a task on; its module, by keep_module, and then the task are on disk on return.

        is_new says that nobody can have used the id before. is_awaited says that who submits waits for the result too:
        then the first run may begin before the task is on disk, and both be written together. Returns the task's
        number, 0 when the same task is there already. Raises Conflict when another one has its id, Overloaded when too
        much is open, StoreError when the disk refuses.
        """
        while (other := self._being_added.get(spec.id)) is not None:
            await other[1].wait()
        added = asyncio.Event()
        self._being_added[spec.id] = (spec, added)
        self._tasks_bytes += spec.size_bytes
        try:
            number = self._store.reserve() if is_awaited and spec.repeats == 1 else None
            # With a number of its own the task's row says, when it is written, whether the id was used. Until then it
            # would hide a task that has ended: so only where that is not to be expected.
            is_likely_new = is_new or (number is not None and is_recent(spec.id))
            if (spec.id in self._tasks or not is_likely_new) and await self.is_there(spec):
                return 0
            self._check_room(spec)
            await keep_module()
            wall = self._clock.wall()
            if spec.spread == Spread.EVERYWHERE:
                spec = self._with_workers(spec)
            if number is not None:
                return await self._submit_early(spec, number, wall)
            return await _written(self._store.add_task(spec, wall), lambda number: self._add(spec, number, wall))
        finally:
            del self._being_added[spec.id]
            self._tasks_bytes -= spec.size_bytes
            added.set()
            self.watches.notify(spec.id)

    async def _submit_early(self, spec: Spec, number: int, wall: float) -> int:
        """Begin a task, and put it on disk when its first run has ended, or soon. Returns and raises as submit does."""
        loop = asyncio.get_running_loop()
        refusal: asyncio.Future[StoreError | None] = loop.create_future()
        now, policy = self._clock.now(), self._config.policy
        task = make_task(spec, number=number, created_at=wall, now=now, wall=wall, policy=policy)
        self.recorder.hold(task, lambda: self._spawn(self._put_early(task, refusal)))
        timer = loop.call_later(_HOLD_S, self.recorder.release, task)
        self._take_up(task)
        try:
            error = await asyncio.shield(refusal)
        except asyncio.CancelledError:
            # Until it is on disk nobody may be told that it is there.
            self.recorder.release(task)
            await refusal
            raise
        finally:
            timer.cancel()
            self.recorder.release(task)
        if error is None:
            return number
        if await self.is_there(spec):
            return 0
        raise error

    async def _put_early(self, task: Task, refusal: "asyncio.Future[StoreError | None]") -> None:
        error: StoreError | None = None
        try:
            await self._store.add_task(task.spec, task.created_at, task.number)
        except StoreError as refused:
            error = refused
            self._take_back(task)
        except asyncio.CancelledError:
            error = StoreError("the gateway is stopping")
            self._forget(task)
            raise
        finally:
            if not refusal.done():
                refusal.set_result(error)

    def _take_back(self, task: Task) -> None:
        """Have a task not there: it could not be put on disk."""
        self.agenda.discard(task)
        self.dispatcher.stop(task.active)
        task.cancel(self._clock.wall())
        self._forget(task)

    async def is_there(self, spec: Spec) -> bool:
        """Whether that very task was taken on before. Conflict when another one has its id."""
        live = self._tasks.get(spec.id)
        known = live.spec if live is not None else None
        if known is None and (row := await self._store.task(spec.id)) is not None:
            known = row.spec
        if known is not None and spec.spread == Spread.EVERYWHERE:
            known = replace(known, repeats=spec.repeats, workers=spec.workers)
        if known is not None and known != spec:
            raise Conflict(f"id: {spec.id!r} is taken by a task with other content", "id")
        return known is not None

    def _with_workers(self, spec: Spec) -> Spec:
        """Complete a task that runs everywhere. Overloaded when nobody is there who could run it."""
        workers = tuple(map(str, self.pool.able(spec.need)))
        if not workers:
            raise Overloaded("spread: no worker is here that could run it, and everywhere means each that is", 10)
        return replace(spec, repeats=len(workers), workers=workers)

    def _check_room(self, spec: Spec) -> None:
        limits = self._config
        if len(self._tasks) + len(self._being_added) > limits.tasks_max:
            raise Overloaded(f"{limits.tasks_max} tasks have not ended, the limit", 10)
        if self._tasks_bytes > limits.tasks_bytes_max:
            raise Overloaded(f"the tasks that have not ended hold {limits.tasks_bytes_max} bytes, the limit", 10)
        if _need_of(spec) in self._needs:
            return
        adding = {_need_of(other) for other, _ in self._being_added.values()}
        if len(self._needs.keys() | adding) > limits.needs_max:
            raise Overloaded(f"the open tasks have {limits.needs_max} distinct needs, the limit", 10)

    async def cancel(self, id: str) -> None:
        """End a task: queued runs never start, running guests are stopped. Does nothing when it has ended.

        Raises NotFound when there is no such task, StoreError when the disk refuses: then nothing is changed.
        """
        if (adding := self._being_added.get(id)) is not None:
            await adding[1].wait()
        task = self._tasks.get(id)
        if task is None:
            if await self._store.task(id) is None:
                raise NotFound(f"no task {shown(id)}")
            return
        # What has ended is put on disk first: it must not change.
        grace_s = self._config.dispatch.cancel_grace_s
        if not await self.recorder.is_written(task, grace_s):
            raise StoreError("the results of its runs wait for the disk")
        wall = self._clock.wall()

        def stop(is_cancelled: bool) -> None:
            if not is_cancelled:
                return
            self.dispatcher.stop(task.active)
            self.agenda.discard(task)
            self.recorder.put_now(task, task.cancel(wall))
            if not task.is_ending:
                self._forget(task)

        # On disk before anything else, because an end shows only once it is there.
        if not task.has_ended:
            await _written(self._store.cancel_task(task.number, wall), stop)
            await self.recorder.is_written(task, grace_s)

    # What is known.

    def task(self, id: str) -> Task | None:
        """Return a task that has not ended."""
        return self._tasks.get(id)

    def open_tasks(self) -> Iterable[Task]:
        """Return all tasks that have not ended."""
        return self._tasks.values()

    def is_being_added(self, id: str) -> bool:
        """Whether a submission of that id is on its way to the disk."""
        return id in self._being_added

    def queue_length(self) -> int:
        """Return how many runs are due and wait for a slot."""
        return self.agenda.queue_length()

    @property
    def is_stopping(self) -> bool:
        """Whether nothing that is asked for from now on is done."""
        return self._is_closing or self.watches.is_closed

    @property
    def late_outcomes(self) -> int:
        """How many outcomes came when their attempt did not count any more."""
        return self.dispatcher.late_outcomes

    async def modules_in_use(self) -> set[str]:
        """Return the digests of the modules and files that a task here names, or is about to."""
        # Looked at before the disk is: what is added while it is read may be in neither afterwards.
        being_added = {
            digest for spec, _ in self._being_added.values() for digest in (spec.module, spec.files, spec.inputs)
        }
        return await self._store.modules() | being_added

    def is_named(self, digest: str) -> bool:
        """Whether a task that has not ended names a module, or is about to."""
        open_specs = (task.spec for task in self._tasks.values())
        adding = (spec for spec, _ in self._being_added.values())
        return any(spec.module == digest for specs in (open_specs, adding) for spec in specs)

    async def wait_ended(self, id: str, timeout_s: float) -> None:
        """Wait until that task has ended, and no longer than timeout_s; not at all when there is no such open task."""
        task = self._tasks.get(id)
        if task is None:
            return
        with self.watches.open(id, only_ends=True) as watch, contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                while not (task.has_ended or watch.is_closed):
                    await watch.changes()

    # What happens.

    def _add(self, spec: Spec, number: int, created_at: float) -> None:
        now, wall, policy = self._clock.now(), self._clock.wall(), self._config.policy
        self._take_up(make_task(spec, number=number, created_at=created_at, now=now, wall=wall, policy=policy))

    def _take_up(self, task: Task) -> None:
        self._tasks[task.spec.id] = task
        self._tasks_bytes += task.spec.size_bytes
        self._needs[_need_of(task.spec)] += 1
        self._oversight.take_up(task)
        self.agenda.put(task)

    def _forget(self, task: Task) -> None:
        """Leave a task that has ended to the store."""
        if self._tasks.get(task.spec.id) is task:
            del self._tasks[task.spec.id]
            self.dispatcher.forget(task)
            self._oversight.forget(task)
            self._tasks_bytes -= task.spec.size_bytes
            need = _need_of(task.spec)
            self._needs[need] -= 1
            if not self._needs[need]:
                del self._needs[need]
        self.watches.notify(task.spec.id, has_ended=True)

    def _on_workers(self) -> None:
        self._has_changed = True
        for listener in self.on_workers:
            listener()
        # What could not be served may go on at once; what cannot any more, later.
        for demand in self.agenda.ready.demands():
            if demand.reason:
                self._judge(demand)
        self.dispatcher.wake()

    def _on_ready(self, task: Task) -> None:
        demand = task.demand
        if demand is not None and not demand.is_judged:
            self._judge(demand)
        self.dispatcher.wake()

    def _on_written(self, task: Task) -> None:
        if task.has_ended and not task.is_ending:
            self._forget(task)
        else:
            self.watches.notify(task.spec.id)

    # Whom nobody believes.

    def _on_outvoted(self, peers: Sequence[str]) -> None:
        log.info("outvoted on a run: %s", ", ".join(peers))
        for peer in self.pool.disagreements.note(peers):
            self._refuse(PeerId.parse(peer), self.pool.disagreements.of(peer))

    def _refuse(self, peer_id: PeerId, count: int) -> None:
        """Let a peer have nothing to say any more."""
        log.warning("peer %s is refused: on %d runs it was outvoted (--disagreements-max)", peer_id, count)
        self.pool.refuse(peer_id)
        for task in self._tasks.values():
            if isinstance(task, ReplicatedTask):
                task.drop_votes(str(peer_id))
                self.agenda.put(task)
        self.dispatcher.wake()
        if self.on_refused is not None:
            self._spawn(self.on_refused(peer_id, count))

    # What cannot be served.

    async def _look_around(self) -> None:
        """Do now and then what nobody asks for, for ever."""
        while True:
            await self._clock.sleep(_LOOK_EVERY_S)
            self.agenda.ready.prune()
            has_changed, self._has_changed = self._has_changed, False
            for demand in self.agenda.ready.demands():
                if has_changed or self._why_starved(demand):
                    self._judge(demand)
            self._oversight.look_around()
            for demand in self.agenda.ready.demands():
                if demand.reason and self._clock.now() - demand.since >= self._config.unsatisfiable_ttl_s:
                    await self._give_up(demand)

    def _judge(self, demand: Demand) -> None:
        """See whether a need can be met by any connected worker."""
        reason = self.pool.why_not(demand.need) or self._why_starved(demand)
        if reason and not demand.reason:
            demand.since = self._clock.now()
        demand.reason, demand.is_judged = reason, True

    def _why_starved(self, demand: Demand) -> str:
        """Say which further peers the runs of a task wait for on which those that are here do not agree."""
        for task in self.agenda.ready.tasks_of(demand) if demand.need.quorum > 1 else ():
            if isinstance(task, ReplicatedTask) and task.waits_for_votes:
                able = self.pool.able(demand.need)
                if able and task.is_starved(able, self._clock.now()):
                    return f"quorum {demand.need.quorum}: the {len(able)} peers that could run it do not agree"
        return ""

    async def _give_up(self, demand: Demand) -> None:
        """End the tasks of a need whose time is over."""
        now = self._clock.now()
        latest, oldest, over = now - self._config.unsatisfiable_ttl_s, now, []
        for task in self.agenda.ready.tasks_of(demand):
            if (due := task.oldest_due(now)) <= latest and not (task.active or task.is_ending):
                over.append(task)
            else:
                oldest = min(oldest, max(due, latest + _LOOK_EVERY_S))
        if len(over) <= _GIVEN_UP_AT_ONCE:
            demand.since = oldest  # until then nobody's time is over
        reason = f"unsatisfiable: {demand.reason}"
        giving_up = (self._give_up_task(task, reason) for task in over[:_GIVEN_UP_AT_ONCE])
        if errors := [error for error in await asyncio.gather(*giving_up) if error is not None]:
            log.error("tasks that could not be given up: %d, first %s", len(errors), errors[0])

    async def _give_up_task(self, task: Task, reason: str) -> StoreError | None:
        """End a task that nobody can serve; return what the disk said when it refuses."""
        self.agenda.discard(task)
        wall = self._clock.wall()
        try:
            if await self._store.fail_task(task.number, wall, reason):
                task.fail(reason, wall)
                self._forget(task)
        except StoreError as error:
            self.agenda.put(task)
            if task.demand is not None:
                task.demand.since = min(task.demand.since, task.oldest_due(self._clock.now()))
            return error
        return None


def _need_of(spec: Spec) -> Need:
    """Return what a run needs as the limit counts it: what it calls needs nothing else."""
    return spec.need if not spec.depth else replace(spec.need, depth=0)


async def _written(writing: Coroutine[Any, Any, T], then: Callable[[T], None]) -> T:
    """Do what follows from what is on disk, also when whoever asked for it gives up before that; return that."""
    work = asyncio.ensure_future(writing)
    try:
        value = await asyncio.shield(work)
    except asyncio.CancelledError:
        then(await work)
        raise
    then(value)
    return value
