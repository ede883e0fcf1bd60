"""The child processes of a node: one for each slot to run guests, and one to compile.

Holds who is idle, who waits, and the replacing of children that ended. Must not know workers or the network. A guest
can end its own process and no other; whoever waits for it gets a result in bounded time. Next in a task's life:
group.py.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Coroutine, Sequence
from typing import Any, Final, Self

from ww.errors import ClosedError, UsageError, WwError
from ww.records import read_outcomes
from ww.sandbox import directory
from ww.sandbox.calls import Calls
from ww.sandbox.child import Child
from ww.sandbox.codec import result_of
from ww.sandbox.compile import Compiling
from ww.sandbox.confine import MISSING, ConfinementConfig, Protection
from ww.sandbox.group import SandboxGroup
from ww.sandbox.inputs import GROUP_MAX, Inputs, Task
from ww.sandbox.invocation import Invocation, Result, RunLimits
from ww.sandbox.limits import SandboxLimits
from ww.sandbox.modules import ModuleCache

__all__ = ["GROUP_MAX", "SandboxGroup", "SandboxPool"]

log = logging.getLogger("ww.sandbox")

NESTING: Final = 4
"""Guests that may wait for what they called, for each slot."""
_RESTART_FIRST_S: Final = 0.1
_RESTART_MAX_S: Final = 10.0
# A child's memory is looked at after that many requests, since that costs as much as one.
_LOOK_AFTER: Final = 64
# A child that was started for a guest that waited is kept so long for the next.
_SPARE_S: Final = 10.0


class SandboxPool:
    """Runs guests. Open it with `async with`; on leaving it no process is left."""

    def __init__(
        self,
        cache: ModuleCache,
        *,
        slots: int,
        limits: SandboxLimits | None = None,
        confinement: ConfinementConfig | None = None,
        with_classes: bool = False,
        nesting: int = NESTING,
    ) -> None:
        """Run up to slots guests at a time, of modules in cache; with_classes as engine.py says. Guests that wait for
        what they called do not count, of which there may be up to nesting for each slot."""
        self._cache = cache
        self._slots = slots
        self.limits = limits or SandboxLimits()
        self._confinement = confinement or ConfinementConfig()
        self._with_classes = with_classes
        self._children: set[Child] = set()
        self._executors_max = slots * (1 + nesting)
        self._executors = slots
        """Children that run guests, or are being started to."""
        self._taken = 0
        self._blocked = 0
        """Of those taken, how many wait for what they called."""
        self._idle: deque[Child] = deque()
        self._waiting: deque[asyncio.Future[Child | None]] = deque()
        self._compiling = Compiling(cache, self.limits, lambda: self._start("compiler"), self.end, self._spawn)
        self._tasks: set[asyncio.Task[Any]] = set()
        self._closed = False

    async def __aenter__(self) -> Self:
        await asyncio.to_thread(directory.sweep)
        self._group = await asyncio.TaskGroup().__aenter__()
        try:
            self._idle.extend(await asyncio.gather(*(self._start("executor") for _ in range(self._slots))))
        except BaseException:
            await self.__aexit__()
            raise
        _log_missing(self._idle[0].protections if self._idle else ())
        # Beside: a slot can be offered before anything has to be compiled.
        self._spawn(self._compiling.start_ahead())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._closed = True
        for waiting in self._waiting:
            waiting.cancel()
        for task in list(self._tasks):
            task.cancel()
        await self._group.__aexit__(None, None, None)
        await asyncio.gather(*(child.aclose() for child in self._children))

    def is_prepared(self, digest: bytes, *, metered: bool = False) -> bool:
        """Whether `run` would find the module compiled, as far as is known without asking the disk."""
        return self._compiling.is_prepared((digest, metered))

    async def prepare(self, digest: bytes, *, metered: bool = False) -> float:
        """Have a module compiled, whose bytes are in the cache; once, however many ask at the same time. metered is for
        runs that count fuel or are deterministic. Return the seconds that were waited.

        Raises BadModule when it does not compile, WwError when its bytes are not there or the compiler fails.
        """
        if self._closed:
            raise ClosedError("the sandbox is closed")
        return await self._compiling.prepare((digest, metered))

    async def run(self, digest: bytes, invocation: Invocation, limits: RunLimits, calls: Calls | None = None) -> Result:
        """Run a module once. See `run_group`; calls as in `group`."""
        return (await self.run_group(digest, [invocation], limits, calls))[0]

    async def run_group(
        self, digest: bytes, invocations: Sequence[Invocation], limits: RunLimits, calls: Calls | None = None
    ) -> list[Result]:
        """Run a module once for each of at most GROUP_MAX invocations, and return their results. They may differ in
        arguments (not in how many), args, env, stdin, files and seed. Cancelling stops the guests.

        Raises as `SandboxGroup.outcomes` does.
        """
        results: list[Result] = [Result()] * len(invocations)
        task, inputs = Task.of(invocations[0]), Inputs.of(invocations)
        async with self.group(digest, task, inputs, limits, calls=calls) as group:
            while ended := await group.outcomes():
                for outcomes in ended:
                    for raw in read_outcomes(outcomes.records):
                        results[raw.place] = result_of(raw)
        return results

    def group(
        self,
        digest: bytes,
        task: Task,
        inputs: Inputs,
        limits: RunLimits,
        *,
        compile_s: float = 0.0,
        calls: Calls | None = None,
    ) -> SandboxGroup:
        """Return a group of runs, one after the other in one child, which begin when its outcomes are asked for.
        compile_s is what is known of the waiting for the module. calls answers what a Python guest calls; such a group
        is one run.

        Raises UsageError when more is given to a guest than this node takes.
        """
        inputs.check(task, self.limits.input_bytes_max)
        if calls is not None and len(inputs) != 1:
            raise UsageError(f"inputs: a group whose calls are answered is one run, {len(inputs)} are given")
        return SandboxGroup(self, digest, task, inputs, limits, compile_s, calls)

    # For groups.

    def wait_for_child(self) -> "asyncio.Future[Child | None]":
        """Return what gets a child when there is one; whoever does not want it any more sets it to None before."""
        if self._closed:
            raise ClosedError("the sandbox is closed")
        waiting: asyncio.Future[Child | None] = asyncio.get_running_loop().create_future()
        self._waiting.append(waiting)
        self._match()
        return waiting

    def lend(self) -> None:
        """Note that a child that was taken waits for others, and that another may compute meanwhile."""
        self._blocked += 1
        self._match()

    def take_back(self) -> None:
        """Note that it goes on."""
        self._blocked -= 1

    def spawn(self, coroutine: Coroutine[Any, Any, None]) -> "asyncio.Task[None]":
        """Do something beside, which is cancelled when the pool closes."""
        return self._spawn(coroutine)

    def release(self, child: Child, runs: int) -> None:
        """Give a child that is still good to the next, and replace it otherwise; runs is for how many it was taken."""
        child.runs += runs
        self._taken -= 1
        if self._closed:
            return
        if not child.is_alive:
            self._spawn(self._replace(child))
        elif child.is_retired:
            self._spawn(self.end(child))
            self._match()
        else:
            if not child.has_successor and self._is_worn(child):
                child.has_successor = True
                self._spawn(self._succeed(child))
            self._give(child)

    async def end(self, child: Child) -> str:
        """End a child, and say how it had ended if it had by itself."""
        said = await child.aclose()
        # Not before: when this is cancelled, __aexit__ still has to see to it.
        self._children.discard(child)
        return said

    def open_artefact(self, digest: bytes, metered: bool) -> int:
        """Return a descriptor of a module's compiled form; OSError when there is none."""
        return self._cache.open_artefact(digest, metered)

    async def prepare_anew(self, digest: bytes, metered: bool) -> float:
        """Have a module compiled whose compiled form is no good. See `prepare`."""
        self._compiling.forget((digest, metered))
        return await self.prepare(digest, metered=metered)

    # Who is idle.

    def _is_worn(self, child: Child) -> bool:
        if child.runs >= self.limits.runs_per_child:
            return True
        child.requests += 1
        if not child.has_loaded and child.requests % _LOOK_AFTER:
            return False
        child.has_loaded = False
        return child.grown_bytes() > self.limits.growth_bytes_per_child

    def _give(self, child: Child) -> None:
        self._idle.append(child)
        self._match()
        if self._has_spare:
            asyncio.get_running_loop().call_later(_SPARE_S, self._end_spare)

    def _match(self) -> None:
        """Give children to who waits, as long as fewer compute than may."""
        while self._waiting and self._taken - self._blocked < self._slots:
            if self._waiting[0].done():
                self._waiting.popleft()
            elif self._idle:
                child = self._idle.popleft()
                if child.is_alive:
                    self._taken += 1
                    self._waiting.popleft().set_result(child)
                else:
                    # It died while it had nothing to do.
                    self._spawn(self._replace(child))
            else:
                # Unless one is on its way.
                if self._executors <= self._taken and self._executors < self._executors_max:
                    self._executors += 1
                    self._spawn(self._start_another())
                return

    @property
    def _has_spare(self) -> bool:
        """Whether there are more children than can compute."""
        return self._executors > self._slots + self._blocked

    def _end_spare(self) -> None:
        while self._has_spare and self._idle and not self._closed:
            child = self._idle.pop()
            child.is_retired = True
            self._executors -= 1
            self._spawn(self.end(child))

    async def _start_another(self) -> None:
        self._give(await self._start_surely())

    async def _replace(self, child: Child) -> None:
        await self.end(child)
        # One that died beside its successor has it.
        if child.is_retired:
            return
        child.is_retired = True
        if self._has_spare:
            self._executors -= 1
            self._match()
        else:
            self._give(await self._start_surely())

    async def _succeed(self, child: Child) -> None:
        """Start a child in place of one that is worn, which works until the other is ready."""
        successor = await self._start_surely()
        if child.is_retired:
            await self.end(successor)
            return
        child.is_retired = True
        self._give(successor)
        if child in self._idle:
            self._idle.remove(child)
            await self.end(child)

    async def _start(self, role: str) -> Child:
        child = Child(role, self.limits, self._confinement, with_classes=self._with_classes)
        await child.start()
        self._children.add(child)
        return child

    async def _start_surely(self) -> Child:
        """Start a child, however often it takes."""
        backoff_s = _RESTART_FIRST_S
        while True:
            try:
                return await self._start("executor")
            except (WwError, OSError) as error:
                log.error("%s; trying again in %g s", error, backoff_s)
                await asyncio.sleep(backoff_s)
                backoff_s = min(_RESTART_MAX_S, backoff_s * 2)

    def _spawn(self, coroutine: Coroutine[Any, Any, Any]) -> "asyncio.Task[Any]":
        task = self._group.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


def _log_missing(protections: Sequence[Protection]) -> None:
    missing = [f"{protection.name} ({protection.detail})" for protection in protections if protection.state == MISSING]
    if missing:
        log.warning("this host does not confine the sandbox in every way, see ww doctor: %s", ", ".join(missing))
