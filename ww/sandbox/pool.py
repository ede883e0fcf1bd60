"""The child processes of a node: one for each slot to run guests, and one to compile.

Holds who is idle, who waits, and the replacing of children that ended. Must not know workers or the network. A guest
can end its own process and no other; whoever waits for it gets a result in bounded time. Next in a task's life:
executor.py.
"""

import asyncio
import contextlib
import logging
import os
import time
from collections import deque
from collections.abc import Coroutine, Iterator, Sequence
from typing import Any, Final, Self

import capnp

from ww import archive, schema
from ww.errors import ClosedError, UsageError, WwError
from ww.sandbox import directory
from ww.sandbox.child import Child, ChildDied, read_reply
from ww.sandbox.codec import is_all, read_outcomes, write_run
from ww.sandbox.compile import Compiling
from ww.sandbox.confine import MISSING, ConfinementConfig, Protection
from ww.sandbox.invocation import Invocation, Result, RunLimits
from ww.sandbox.limits import SandboxLimits
from ww.sandbox.modules import ModuleCache

log = logging.getLogger("ww.sandbox")

GROUP_MAX: Final = 256
"""Runs that may be asked for at a time."""
_RESTART_FIRST_S: Final = 0.1
_RESTART_MAX_S: Final = 10.0
# How long a process may be late to say that a guest is.
_FROZEN_S: Final = 0.5
_FILES_GRACE_S: Final = 5.0
_FILES_BYTES_PER_S: Final = 20 << 20
# A child's memory is looked at after that many requests, since that costs as much as one.
_LOOK_AFTER: Final = 64


class _Stuck(Exception):
    """A run hears nothing, and its process has to end."""

    def __init__(self, result: Result) -> None:
        super().__init__()
        self.result = result


class Lease:
    """A child that is somebody's."""

    def __init__(self, pool: "SandboxPool", child: Child, count: int) -> None:
        self._pool = pool
        self.child = child
        self.count = count
        """Runs that it is taken for."""
        self.begun_at = 0.0
        self.has_input = False
        """Whether there is something in its input file."""
        self.has_ended = False

    def end(self) -> None:
        """Give it back. Idempotent."""
        if not self.has_ended:
            self.has_ended = True
            self.child.runs += self.count
            self._pool._release(self.child)


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
    ) -> None:
        """Run up to slots guests at a time, of modules in cache; with_classes as engine.py says."""
        self._cache = cache
        self._slots = slots
        self.limits = limits or SandboxLimits()
        self._confinement = confinement or ConfinementConfig()
        self._with_classes = with_classes
        self._children: set[Child] = set()
        self._idle: deque[Child] = deque()
        self._waiting: deque[asyncio.Future[Child]] = deque()
        self._compiling = Compiling(cache, self.limits, lambda: self._start("compiler"), self._end, self._spawn)
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

    async def run(self, digest: bytes, invocation: Invocation, limits: RunLimits) -> Result:
        """Run a module once. See `run_group`."""
        return (await self.run_group(digest, [invocation], limits))[0]

    async def run_group(self, digest: bytes, invocations: Sequence[Invocation], limits: RunLimits) -> list[Result]:
        """Run a module once for each of at most GROUP_MAX invocations, one after the other, each in an instance of its
        own, and return their results. They may differ in arguments (not in how many), args, env, stdin, files and seed.

        Waits for a free child. Cancelling kills the guests. Raises BadModule when the module does not compile, WwError
        when its bytes are not in the cache any more, or when more is given to a guest than this node takes.
        """
        if len(invocations) > GROUP_MAX:
            raise WwError(f"at most {GROUP_MAX} runs are taken at a time, {len(invocations)} are asked for")
        for invocation in invocations:
            self._check_size(invocation)
        results: list[Result] = []
        # What ends a child is asked for alone, so that it ends nobody else's run.
        together = len(invocations)
        while len(results) < len(invocations):
            left = invocations[len(results) : len(results) + together]
            ended, failure = await self._run_once(digest, left, limits)
            results += ended
            if failure is None:
                continue
            if len(left) == 1:
                results.append(failure)
            together = 1
        return results

    def group(self, digest: bytes, invocations: Sequence[Invocation], limits: RunLimits) -> "SandboxGroup":
        """Begin what `run_group` does, giving results as runs end; `async with` stops what is left."""
        return SandboxGroup(self, digest, invocations, limits)

    def _check_size(self, invocation: Invocation) -> None:
        given = len(invocation.stdin) + len(invocation.files)
        for text in invocation.args:
            given += len(text)
        for name, value in invocation.env:
            given += len(name) + len(value)
        if given > self.limits.input_bytes_max:
            most = self.limits.input_bytes_max
            raise WwError(f"one run gets at most {most} bytes of stdin, args, env and files here, {given} are given")

    async def _run_once(
        self, digest: bytes, invocations: Sequence[Invocation], limits: RunLimits
    ) -> tuple[list[Result], Result | None]:
        """Have one child run a group; return the results that there are, and what became of the first run that has none
        when the child is to blame."""
        metered = limits.is_metered(invocations[0])
        for _ in range(2):
            ended, failure, is_missing = await self._run_in_child(digest, metered, invocations, limits)
            if not is_missing:
                return ended, failure
            # The compiled form is gone or damaged: make it anew, once.
            self._compiling.forget((digest, metered))
            await self.prepare(digest, metered=metered)
        raise WwError("the module's compiled form does not stay on disk")

    async def _run_in_child(
        self, digest: bytes, metered: bool, invocations: Sequence[Invocation], limits: RunLimits
    ) -> tuple[list[Result], Result | None, bool]:
        ended: list[Result] = []
        # Written while the child may be another's.
        request = schema.sandbox.Request.new_message()
        spilled = write_run(request.init("run"), digest, metered, limits, invocations)
        lease = Lease(self, await self._take(), len(invocations))
        try:
            is_missing = await self._converse(lease, request, spilled, limits, ended)
        except _Stuck as stuck:
            await self._end(lease.child)
            return [*ended, stuck.result], None, False
        except TimeoutError:
            late = _late(limits, time.monotonic() - lease.begun_at)
            await self._end(lease.child)
            return ended, late, False
        except ChildDied as death:
            how = await self._end(lease.child)
            detail = f"the sandbox process died ({how or death})"
            return ended, Result(reason="crash", detail=detail), False
        except BaseException:
            lease.child.kill()
            raise
        finally:
            lease.end()
        return ended, None, is_missing

    async def _converse(
        self, lease: Lease, request: Any, spilled: Sequence[bytes], limits: RunLimits, ended: list[Result]
    ) -> bool:
        """Ask a child to run a group, and collect the results in ended; return whether the artefact is no good."""
        child, count = lease.child, lease.count
        assert child.files is not None
        if spilled:
            lease.has_input = True
            await child.files.put(spilled)
        # A guest that hears nothing is given up by its own process, kill_grace_s after it was to end; here is who waits
        # for a process that does nothing at all.
        run_s = limits.duration_s + self.limits.kill_grace_s + _FROZEN_S
        files_s = _FILES_GRACE_S + (limits.files_bytes + limits.artifact_bytes) / _FILES_BYTES_PER_S
        patience_s = files_s if limits.files_bytes else run_s
        lease.begun_at = time.monotonic()
        child.send(request)
        turns = 0
        has_sent_artefact = False
        while len(ended) < count:
            with _reading(await child.reply(patience_s)) as reply:
                kind = str(reply.which())
                if kind in ("begins", "packs") and turns < 2 * count:
                    turns += 1
                    patience_s = run_s if kind == "begins" else files_s
                elif kind == "stuck":
                    results, elsewhere = read_outcomes(reply.stuck, limits, 1)
                    if elsewhere or results[0].reason == "ok":
                        raise ChildDied("it says what no child of ours says")
                    raise _Stuck(results[0])
                elif kind == "outcomes":
                    await self._collect(lease, reply.outcomes, limits, ended)
                elif kind == "wanted" and not has_sent_artefact:
                    has_sent_artefact = child.has_loaded = True
                    if not self._send_artefact(child, request):
                        return True
                elif kind == "missing" and has_sent_artefact and not ended:
                    return True
                elif kind == "full" and ended:
                    break
                else:
                    raise ChildDied("it answers another question")
        if spilled:
            child.files.drop_input()
        return False

    async def _collect(self, lease: Lease, outcomes: Any, limits: RunLimits, ended: list[Result]) -> None:
        left = lease.count - len(ended)
        if not lease.has_input and not outcomes.isSpilled and is_all(outcomes, left):
            # All is here: while it is read, the child may do the next one's.
            lease.end()
        results, elsewhere = read_outcomes(outcomes, limits, left)
        if elsewhere:
            if lease.has_ended or lease.child.files is None:
                raise ChildDied("it says what no child of ours says")
            await lease.child.files.fetch(elsewhere)
        for result in results:
            if result.artifacts:
                _check_artifacts(result.artifacts, limits)
        ended += results

    def _send_artefact(self, child: Child, request: Any) -> bool:
        try:
            artefact = self._cache.open_artefact(request.run.digest, request.run.metered)
        except OSError:
            return False
        try:
            request.clear_write_flag()  # pycapnp warns of a second to_bytes
            child.send(request, (artefact,))
        finally:
            os.close(artefact)
        return True

    async def _end(self, child: Child) -> str:
        said = await child.aclose()
        # Not before: when this is cancelled, __aexit__ still has to see to it.
        self._children.discard(child)
        return said

    # Who is idle.

    async def _take(self) -> Child:
        if self._closed:
            raise ClosedError("the sandbox is closed")
        while self._idle:
            child = self._idle.popleft()
            if child.is_alive:
                return child
            # It died while it had nothing to do.
            self._spawn(self._replace(child))
        waiting: asyncio.Future[Child] = asyncio.get_running_loop().create_future()
        self._waiting.append(waiting)
        try:
            return await waiting
        except asyncio.CancelledError:
            if waiting.done() and not waiting.cancelled():
                self._give(waiting.result())
            raise

    def _release(self, child: Child) -> None:
        """Give a child that is still good to the next, and replace it otherwise."""
        if self._closed:
            return
        if not child.is_alive:
            self._spawn(self._replace(child))
        elif child.is_retired:
            self._spawn(self._end(child))
        else:
            if not child.has_successor and self._is_worn(child):
                child.has_successor = True
                self._spawn(self._succeed(child))
            self._give(child)

    def _is_worn(self, child: Child) -> bool:
        if child.runs >= self.limits.runs_per_child:
            return True
        child.requests += 1
        if not child.has_loaded and child.requests % _LOOK_AFTER:
            return False
        child.has_loaded = False
        return child.grown_bytes() > self.limits.growth_bytes_per_child

    def _give(self, child: Child) -> None:
        while self._waiting:
            waiting = self._waiting.popleft()
            if not waiting.done():
                waiting.set_result(child)
                return
        self._idle.append(child)

    async def _replace(self, child: Child) -> None:
        await self._end(child)
        # One that died beside its successor has it.
        if not child.is_retired:
            child.is_retired = True
            self._give(await self._start_surely())

    async def _succeed(self, child: Child) -> None:
        """Start a child in place of one that is worn, which works until the other is ready."""
        successor = await self._start_surely()
        if child.is_retired:
            await self._end(successor)
            return
        child.is_retired = True
        self._give(successor)
        if child in self._idle:
            self._idle.remove(child)
            await self._end(child)

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

    def _spawn(self, coroutine: Coroutine[Any, Any, Any]) -> None:
        task = self._group.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


class SandboxGroup:
    """Runs of one module, one after the other."""

    def __init__(self, pool: SandboxPool, digest: bytes, invocations: Sequence[Invocation], limits: RunLimits) -> None:
        self._running = asyncio.ensure_future(pool.run_group(digest, invocations, limits))
        self._count = len(invocations)
        self._is_over = False
        self._cancelled = False

    async def results(self) -> list[tuple[int, Result]]:
        """Wait for further runs to end; return their places in the group and their results, none once all were given.

        Raises as `SandboxPool.run_group` does.
        """
        if self._is_over:
            return []
        await asyncio.wait((self._running,))
        self._is_over = True
        if self._cancelled:
            return [(place, Result(reason="cancelled")) for place in range(self._count)]
        return list(enumerate(self._running.result()))

    def cancel(self, places: Sequence[int] = ()) -> None:
        """Stop those runs, or all: their reason is cancelled. Those that have ended stay as they are."""
        if not self._running.done():
            self._cancelled = True
            self._running.cancel()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self._running.cancel()
        await asyncio.wait((self._running,))


@contextlib.contextmanager
def _reading(data: bytes) -> Iterator[Any]:
    """Open a reply; ChildDied when what it says cannot be."""
    try:
        with read_reply(data) as reply:
            yield reply
    except (ValueError, capnp.KjException):
        raise ChildDied("it says what no child of ours says") from None


def _check_artifacts(artifacts: bytes, limits: RunLimits) -> None:
    """Raise ChildDied when what a child calls artifacts is no zip that the gateway would take."""
    try:
        archive.check(artifacts, bytes_max=limits.artifact_bytes, count_max=limits.files_count)
    except UsageError:
        raise ChildDied("it says what no child of ours says") from None


def _late(limits: RunLimits, wall_s: float) -> Result:
    """Make the result of a run whose process does nothing."""
    detail = f"ran for {wall_s:.3f} s, it may for {limits.duration_s:g} s"
    return Result(reason="deadline", detail=detail, wall_s=wall_s)


def _log_missing(protections: Sequence[Protection]) -> None:
    missing = [f"{protection.name} ({protection.detail})" for protection in protections if protection.state == MISSING]
    if missing:
        log.warning("this host does not confine the sandbox in every way, see ww doctor: %s", ", ".join(missing))
