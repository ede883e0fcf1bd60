"""Decides which run goes next, and sees each through to a result on disk.

Holds the tasks that have not ended and one coroutine for each leased slot. Must not know HTTP. A submission is on disk
before `submit` returns; a result is on disk before it shows. A slot, once leased, takes one due run after the other and
is given back when nothing is due. Next in a task's life: pool.py, then worker.py.
"""

import asyncio
import heapq
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Final, Self

from ww.clock import Clock
from ww.errors import BadModule, Conflict, Draining, NotFound, Overloaded, StoreError, WwError
from ww.gateway.modules import ModuleStore
from ww.gateway.pool import Lease, RemoteAttempt, WorkerPool
from ww.gateway.store import Store
from ww.gateway.task import Attempt, Outcome, RunResult, Spec, Task

log = logging.getLogger("ww.gateway")

_STORE_RETRY_S: Final = 1.0
# Results on their way to disk; slots wait when there are more.
_UNWRITTEN_MAX: Final = 1024


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


class Scheduler:
    """The queue of runs. Open it with `async with`."""

    def __init__(self, store: Store, modules: ModuleStore, clock: Clock, config: SchedulerConfig) -> None:
        self._store = store
        self._clock = clock
        self._config = config
        self._wake = asyncio.Event()
        self.pool = WorkerPool(modules.path, wall=clock.wall, on_offer=self._wake.set)
        self._tasks: dict[str, Task] = {}
        self._being_added: dict[str, tuple[Spec, asyncio.Event]] = {}
        self._ready: deque[Task] = deque()
        self._is_ready: set[int] = set()
        self._timers = _Timers()
        self._remote: dict[Attempt, RemoteAttempt] = {}
        self._unwritten = asyncio.Semaphore(_UNWRITTEN_MAX)
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

    async def submit(self, spec: Spec, keep_module: Callable[[], Awaitable[None]]) -> bool:
        """Take a task on; its module, by keep_module, and then the task are on disk on return.

        Returns False when the same task is there already. Raises Conflict when another one has its id, Overloaded when
        too many tasks are open, StoreError when the disk refuses.
        """
        while (other := self._being_added.get(spec.id)) is not None:
            await other[1].wait()
        if len(self._tasks) + len(self._being_added) >= self._config.tasks_max:
            raise Overloaded(f"{self._config.tasks_max} tasks have not ended, the limit", 10)
        added = asyncio.Event()
        self._being_added[spec.id] = (spec, added)
        try:
            if await self._is_there(spec):
                return False
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

    async def modules_in_use(self) -> set[str]:
        """Return the digests of the modules that a task here names, or is about to."""
        digests = await self._store.modules()
        return digests | {spec.module for spec, _ in self._being_added.values()}

    async def cancel(self, id: str) -> None:
        """End a task: queued runs never start, running guests are stopped. Does nothing when it has ended.

        Raises NotFound when there is no such task.
        """
        task = self._tasks.get(id)
        if task is None:
            if await self._store.task(id) is None:
                raise NotFound(f"no task {id!r}")
            return
        for attempt in task.active:
            if (remote := self._remote.get(attempt)) is not None:
                self._spawn(self._stop(remote))
        wall = self._clock.wall()
        results = task.cancel(wall)
        self._timers.forget(task)
        await self._store.cancel_task(task.number, wall, results)
        self._forget(task)

    def task(self, id: str) -> Task | None:
        """Return a task that has not ended."""
        return self._tasks.get(id)

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
                self._spawn(self._use(lease, attempt))

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

    async def _use(self, lease: Lease, attempt: Attempt | None) -> None:
        """Run on one slot what is due, one run after the other."""
        with lease:
            while attempt is not None and await self._run(lease, attempt):
                attempt = self._next()

    async def _run(self, lease: Lease, attempt: Attempt) -> bool:
        """See one attempt through. Returns whether the slot can be used for another."""
        task, usable = attempt.task, True
        attempt.worker = str(lease.peer_id)
        try:
            outcome = await self._outcome(lease, attempt)
        except Draining:
            task.give_back(attempt, self._clock.now())
            self._enqueue(task)
            return False
        except Exception as error:
            # A worker may answer anything; whatever it is, only this attempt is lost by it.
            if not isinstance(error, WwError):
                log.exception("a worker's answer could not be read")
            where = f"run {task.spec.id}/{attempt.run}: attempt {attempt.number} on {attempt.worker}"
            log.info("%s is lost: %s", where, error)
            result = task.lose(attempt, str(error), self._clock.now(), self._clock.wall())
            usable = False
        else:
            if not task.is_active(attempt):
                self.late_outcomes += 1
            result = task.end(attempt, outcome, self._clock.now(), self._clock.wall())
        if result is not None:
            await self._unwritten.acquire()
            self._spawn(self._record(task, result))
        self._enqueue(task)
        return usable

    async def _outcome(self, lease: Lease, attempt: Attempt) -> Outcome:
        remote = self._remote[attempt] = lease.start(attempt.task.spec)
        patience_s = attempt.task.spec.duration_s + self._config.attempt_slack_s
        try:
            async with asyncio.timeout(patience_s):
                return await remote.outcome()
        except BadModule as error:
            return Outcome(reason="compile", detail=str(error))
        except TimeoutError:
            raise WwError(f"the worker said nothing for {patience_s:g} s") from None
        finally:
            del self._remote[attempt]

    async def _record(self, task: Task, result: RunResult) -> None:
        """Put a result on disk, however long the disk refuses, and then make it the run's state."""
        while True:
            try:
                await self._store.add_result(task.number, result)
                break
            except StoreError as error:
                log.error("run %s/%d: its result waits: %s", task.spec.id, result.run, error)
                await self._clock.sleep(_STORE_RETRY_S)
        self._unwritten.release()
        task.commit(result, self._clock.wall())
        if task.has_ended:
            self._forget(task)

    async def _stop(self, remote: RemoteAttempt) -> None:
        try:
            async with asyncio.timeout(self._config.cancel_grace_s):
                await remote.cancel()
        except (WwError, TimeoutError) as error:
            log.info("a cancelled run could not be stopped: %s", error)

    def _forget(self, task: Task) -> None:
        """Leave a task that has ended to the store."""
        if self._tasks.get(task.spec.id) is task:
            del self._tasks[task.spec.id]


class _Timers:
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
