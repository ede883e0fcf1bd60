"""Decides which run goes next, and sees each through to a result on disk.

Holds the tasks that have not ended and the slots that are leased. Must not know HTTP. A submission is on disk before
`submit` returns; a result is on disk before it shows. A slot, once leased, takes one due run after the other and is
given back when nothing is due. While its runs are shorter than their way there and back, it is sent several at a time,
each on a lane; one that turns out long sends those behind it back to the queue.
Next in a task's life: pool.py, then worker.py.
"""

import asyncio
import contextlib
import logging
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, field, replace
from typing import Any, Final, Self

from ww.clock import Clock
from ww.errors import BadModule, Conflict, Draining, NotFound, Overloaded, StoreError, WwError
from ww.gateway.artifacts import ArtifactStore
from ww.gateway.modules import ModuleStore
from ww.gateway.pool import Lease, RemoteAttempt, WorkerPool
from ww.gateway.request import shown
from ww.gateway.store import Store
from ww.gateway.task import Attempt, Outcome, RunResult, RunState, Spec, Task
from ww.gateway.timers import Timers
from ww.gateway.watch import Watches

log = logging.getLogger("ww.gateway")

_STORE_RETRY_S: Final = 1.0
# Results on their way to disk; slots wait when there are more.
_UNWRITTEN_MAX: Final = 1024
# While more runs are due, results wait this long for others, so that many share one commit.
_LINGER_S: Final = 0.005
_LANES_MAX: Final = 8
# A run this short takes less time than its way to the worker and back.
_SHORT_S: Final = 0.005
# A slot that did not end its oldest run between two looks is stuck.
_LOOK_EVERY_S: Final = 0.05


@dataclass(frozen=True, slots=True)
class SchedulerConfig:
    """How much a scheduler takes on."""

    tasks_max: int = 100_000
    """Tasks that have not ended; a further one is refused for now."""
    keep: int = 10_000
    """Tasks that have ended and are remembered."""
    attempt_slack_s: float = 120.0
    """Seconds beyond a run's duration until a worker that still says nothing is given up: it may have to fetch and
    compile the module first."""
    cancel_grace_s: float = 5.0
    """Seconds a worker has to answer a cancel."""


@dataclass(eq=False, slots=True)
class _Slot:
    """A leased slot and what is on it."""

    lease: Lease
    lanes: int = 0
    is_usable: bool = True
    is_short: bool = False
    """Whether its latest run was short."""
    attempts: dict[Attempt, RemoteAttempt] = field(default_factory=dict)
    """Under way, in the order in which the worker runs them."""
    oldest_seen: Attempt | None = None


class Scheduler:
    """The queue of runs. Open it with `async with`."""

    def __init__(
        self, store: Store, modules: ModuleStore, artifacts: ArtifactStore, clock: Clock, config: SchedulerConfig
    ) -> None:
        self._store = store
        self._modules = modules
        self._artifacts = artifacts
        self._held: Counter[str] = Counter()
        """Digests of artifacts whose results are not on disk yet."""
        self._clock = clock
        self._config = config
        self._wake = asyncio.Event()
        self.pool = WorkerPool(modules.path, wall=clock.wall, on_offer=self._wake.set)
        self._tasks: dict[str, Task] = {}
        self._being_added: dict[str, tuple[Spec, asyncio.Event]] = {}
        self._ready: deque[Task] = deque()
        self._is_ready: set[int] = set()
        self._timers = Timers()
        self._slots: set[_Slot] = set()
        self._shared = asyncio.Event()  # a slot has several lanes
        self._unwritten: list[tuple[Task, RunResult]] = []
        self._to_write = asyncio.Event()
        self.watches = Watches()
        """Who is told when a task changes: a run of it began, ended or went back, or it did itself."""
        self._written = asyncio.Event()
        self._children: set[asyncio.Task[None]] = set()
        self.late_outcomes = 0
        """Outcomes that came when their attempt did not count any more."""

    async def __aenter__(self) -> Self:
        now, wall = self._clock.now(), self._clock.wall()
        for task in await self._store.open_tasks(now, wall):
            self._tasks[task.spec.id] = task
            self._enqueue(task)
        if self._tasks:
            log.info("%d unfinished tasks go on", len(self._tasks))
        self._group = await asyncio.TaskGroup().__aenter__()
        self._spawn(self._dispatch())
        self._spawn(self._ring())
        self._spawn(self._record())
        self._spawn(self._unstick())
        return self

    async def __aexit__(self, *_: object) -> None:
        for child in list(self._children):
            child.cancel()
        await self._group.__aexit__(None, None, None)

    def _spawn(self, coroutine: Coroutine[Any, Any, None]) -> None:
        child = self._group.create_task(coroutine)
        self._children.add(child)
        child.add_done_callback(self._children.discard)

    # What HTTP asks for.

    async def submit(self, spec: Spec, keep_module: Callable[[], Awaitable[None]], *, is_new: bool = False) -> bool:
        """Take a task on; its module, by keep_module, and then the task are on disk on return.

        is_new says that nobody can have used the id before. Returns False when the same task is there already. Raises
        Conflict when another one has its id, Overloaded when too many tasks are open, StoreError when the disk refuses.
        """
        while (other := self._being_added.get(spec.id)) is not None:
            await other[1].wait()
        added = asyncio.Event()
        self._being_added[spec.id] = (spec, added)
        try:
            if not is_new and await self._is_there(spec):
                return False
            if len(self._tasks) + len(self._being_added) > self._config.tasks_max:
                raise Overloaded(f"{self._config.tasks_max} tasks have not ended, the limit", 10)
            await keep_module()
            wall = self._clock.wall()
            number = await self._store.add_task(spec, wall, keep=self._config.keep)
            task = Task(spec, number=number, created_at=wall, now=self._clock.now(), wall=wall)
            self._tasks[spec.id] = task
        finally:
            del self._being_added[spec.id]
            added.set()
        self._enqueue(task)
        return True

    async def _is_there(self, spec: Spec) -> bool:
        live = self._tasks.get(spec.id)
        known = live.spec if live is not None else None
        if known is None and (row := await self._store.task(spec.id)) is not None:
            known = row.spec
        if known is not None and known != spec:
            raise Conflict(f"id: {spec.id!r} is taken by a task with other content", "id")
        return known is not None

    def queue_length(self) -> int:
        """Return how many runs are due and wait for a slot."""
        now = self._clock.now()
        return sum(task.counts(now)[RunState.QUEUED] for task in self._ready)

    async def modules_in_use(self) -> set[str]:
        """Return the digests of the modules and files that a task here names, or is about to."""
        # Looked at before the disk is: what is added while it is read may be in neither afterwards.
        being_added = {digest for spec, _ in self._being_added.values() for digest in (spec.module, spec.files)}
        return await self._store.modules() | being_added

    async def _artifacts_in_use(self) -> set[str]:
        """Return the digests of the artifacts that a remembered run has, or is about to."""
        held = set(self._held)
        return await self._store.artifacts() | held

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
        if not await self._is_written(task):
            raise StoreError("the results of its runs wait for the disk")
        wall = self._clock.wall()
        # Before anything else, because an end shows only once it is on disk.
        if task.has_ended or not await self._store.cancel_task(task.number, wall):
            return
        for attempt in task.active:
            self._stop(attempt)
        self._unwritten += [(task, result) for result in task.cancel(wall)]
        self._to_write.set()
        self._timers.forget(task)
        if await self._is_written(task):
            self._forget(task)

    async def _is_written(self, task: Task) -> bool:
        """Wait until no result of a task is on its way to disk; False when the disk takes too long."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._config.cancel_grace_s):
                while any(other is task for other, _ in self._unwritten):
                    await self._next_write()
        return not any(other is task for other, _ in self._unwritten)

    def task(self, id: str) -> Task | None:
        """Return a task that has not ended."""
        return self._tasks.get(id)

    def is_being_added(self, id: str) -> bool:
        """Whether a submission of that id is on its way to the disk."""
        return id in self._being_added

    async def wait_ended(self, id: str, timeout_s: float) -> None:
        """Wait until that task has ended, and no longer than timeout_s; not at all when there is no such open task."""
        task = self._tasks.get(id)
        if task is None:
            return
        with self.watches.open(id, only_ends=True) as watch, contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                while not (task.has_ended or watch.is_closed):
                    await watch.changes()

    # Dispatch.

    async def _dispatch(self) -> None:
        """Match due runs with free slots, for ever."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._ready and (lease := self.pool.take()) is not None:
                attempt = self._next()
                if attempt is None:
                    lease.close()
                    break
                self._use(lease, attempt)

    async def _ring(self) -> None:
        """Make tasks ready when their time comes, for ever."""
        while True:
            for task in self._timers.due(self._clock.now()):
                self._enqueue(task)
            first, changed = self._timers.first()
            waits: list[asyncio.Future[Any]] = [asyncio.ensure_future(changed.wait())]
            if first is not None:
                waits.append(asyncio.ensure_future(self._clock.sleep(first - self._clock.now())))
            try:
                await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for wait in waits:
                    wait.cancel()

    def _enqueue(self, task: Task) -> None:
        """Put a task where its next run is waited for."""
        due = task.next_due()
        if due is None or task.number in self._is_ready:
            return
        if due > self._clock.now():
            self._timers.set(task, due)
            return
        self._is_ready.add(task.number)
        self._ready.append(task)
        if self.pool.has_free_slot:
            self._wake.set()

    def _next(self) -> Attempt | None:
        """Take the next due run. Tasks take turns, so that a large one does not starve a small one."""
        while self._ready:
            task = self._ready.popleft()
            self._is_ready.discard(task.number)
            attempt = task.begin(self._clock.now(), self._clock.wall())
            self._enqueue(task)
            if attempt is not None:
                return attempt
        return None

    def _use(self, lease: Lease, attempt: Attempt) -> None:
        """Run on a slot what is due, beginning with attempt, until nothing is."""
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
                await self._run(slot, following)
                is_usable = slot.is_usable and not self.pool.is_draining(slot.lease.peer_id)
                following = self._next() if is_usable and (slot.is_short or slot.lanes == 1) else None
                if following is not None and slot.is_short and slot.lanes < _LANES_MAX:
                    self._widen(slot)
        finally:
            slot.lanes -= 1
            if slot.lanes == 0:
                slot.lease.close()
                self._slots.discard(slot)

    def _widen(self, slot: _Slot) -> None:
        """Use one more lane, unless another slot could do it."""
        if not self.pool.has_free_slot and (attempt := self._next()) is not None:
            self._add_lane(slot, attempt)
            self._shared.set()

    async def _run(self, slot: _Slot, attempt: Attempt) -> None:
        """See one attempt through."""
        task = attempt.task
        attempt.worker = str(slot.lease.peer_id)
        self.watches.notify(task.spec.id)
        try:
            outcome = await self._outcome(slot, attempt)
        except Draining:
            task.give_back(attempt, self._clock.now())
            self._enqueue(task)
            slot.is_usable = False
            return
        except Exception as error:
            # A worker may answer anything; whatever it is, only this attempt is lost by it.
            if not isinstance(error, WwError):
                log.exception("a worker's answer could not be read")
            where = f"run {task.spec.id}/{attempt.run}: attempt {attempt.number} on {attempt.worker}"
            log.info("%s is lost: %s", where, error)
            result = task.lose(attempt, str(error), self._clock.now(), self._clock.wall())
            slot.is_usable = False
        else:
            if task.is_active(attempt):
                # What brings files along or back is long on its way.
                moves_files = bool(task.spec.files or task.spec.artifacts)
                slot.is_short = outcome.wall_s < _SHORT_S and not moves_files
            else:
                self.late_outcomes += 1
            result = task.end(attempt, outcome, self._clock.now(), self._clock.wall())
            if result is None:
                self._let_go(outcome)
        if result is not None:
            while len(self._unwritten) >= _UNWRITTEN_MAX:
                await self._next_write()
            self._unwritten.append((task, result))
            self._to_write.set()
        self._enqueue(task)

    async def _outcome(self, slot: _Slot, attempt: Attempt) -> Outcome:
        task, files = attempt.task, b""
        if not self.pool.is_prepared(task):
            files = await self._modules.read_files(task.spec.files)
            if not task.is_active(attempt):
                return Outcome(reason="cancelled")
        remote = slot.attempts[attempt] = slot.lease.start(task, files)
        del files
        patience_s = task.spec.duration_s + self._config.attempt_slack_s
        try:
            async with asyncio.timeout(patience_s):
                outcome, artifacts = await remote.outcome()
        except BadModule as error:
            return Outcome(reason="compile", detail=str(error))
        except TimeoutError:
            raise WwError(f"the worker said nothing for {patience_s:g} s") from None
        finally:
            del slot.attempts[attempt]
        return await self._with_artifacts(attempt, outcome, artifacts) if artifacts else outcome

    async def _with_artifacts(self, attempt: Attempt, outcome: Outcome, data: bytes) -> Outcome:
        """Store a run's artifacts, however long the disk refuses, and return its outcome with them.

        PeerError when they are not what was asked for. When there is no room for them the run has failed.
        """
        digest = await self._artifacts.examine(data, bytes_max=attempt.task.spec.artifact_bytes)
        outcome = replace(outcome, artifacts=digest, artifacts_bytes=len(data))
        self._held[digest] += 1
        refused = False
        while attempt.task.is_active(attempt):
            try:
                await self._artifacts.keep(data, digest, self._artifacts_in_use)
                break
            except Overloaded as error:
                self._let_go(outcome)
                reason, detail = outcome.reason or "artifacts", outcome.detail or str(error)
                return replace(outcome, reason=reason, detail=detail, artifacts="", artifacts_bytes=0)
            except StoreError as error:
                if not refused:
                    log.error("artifacts wait until the disk takes them: %s", error)
                refused = True
                await self._clock.sleep(_STORE_RETRY_S)
        return outcome

    def _let_go(self, outcome: Outcome) -> None:
        """Note that an outcome's artifacts are on disk with it, or that it does not count."""
        if outcome.artifacts:
            self._held[outcome.artifacts] -= 1
            if not self._held[outcome.artifacts]:
                del self._held[outcome.artifacts]

    async def _unstick(self) -> None:
        """Send runs that wait behind a long one back to the queue, for ever."""
        while True:
            await self._shared.wait()
            shared = [slot for slot in self._slots if slot.lanes > 1]
            if not shared:
                self._shared.clear()
                continue
            for slot in shared:
                oldest, *behind = slot.attempts or (None,)
                if oldest is None or oldest is not slot.oldest_seen:
                    slot.oldest_seen = oldest
                    continue
                slot.is_short = False
                for attempt in behind:
                    if attempt is not None and attempt.task.is_active(attempt):
                        self._stop(attempt)
                        attempt.task.give_back(attempt, self._clock.now())
                        self._enqueue(attempt.task)
            await self._clock.sleep(_LOOK_EVERY_S)

    async def _record(self) -> None:
        """Put results on disk, however long the disk refuses, and then make them the runs' states; for ever."""
        refused = False
        while True:
            await self._to_write.wait()
            if self._ready:
                await self._clock.sleep(_LINGER_S)
            self._to_write.clear()
            results = self._unwritten[:_UNWRITTEN_MAX]
            try:
                await self._store.add_results([(task.number, result) for task, result in results])
            except StoreError as error:
                if not refused:
                    log.error("results wait until the disk takes them: %s", error)
                refused = True
                self._to_write.set()
                await self._clock.sleep(_STORE_RETRY_S)
                continue
            refused = False
            del self._unwritten[: len(results)]
            self._written.set()
            wall = self._clock.wall()
            for task, result in results:
                self._let_go(result.outcome)
                task.commit(result, wall)
                self.watches.notify(task.spec.id)
                if task.has_ended:
                    self._forget(task)

    async def _next_write(self) -> None:
        self._written.clear()
        await self._written.wait()

    def _stop(self, attempt: Attempt) -> None:
        """Have the worker stop an attempt; nobody waits for that."""
        for slot in self._slots:
            if (remote := slot.attempts.get(attempt)) is not None:
                self._spawn(self._cancel(remote))

    async def _cancel(self, remote: RemoteAttempt) -> None:
        try:
            async with asyncio.timeout(self._config.cancel_grace_s):
                await remote.cancel()
        except (WwError, TimeoutError) as error:
            log.info("a run could not be stopped: %s", error)

    def _forget(self, task: Task) -> None:
        """Leave a task that has ended to the store."""
        if self._tasks.get(task.spec.id) is task:
            del self._tasks[task.spec.id]
        self.watches.notify(task.spec.id, has_ended=True)
