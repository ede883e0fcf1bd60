"""The child processes of a node: one for each slot to run guests, and one to compile.

Holds who is idle, who waits, and the replacing of children that ended. Must not know workers or the network. A guest
can end its own process and no other; whoever waits for it gets an outcome in bounded time. Next in a task's life:
executor.py.
"""

import asyncio
import logging
import os
from collections import OrderedDict, deque
from collections.abc import Coroutine, Sequence
from pathlib import Path
from typing import Any, Final, Self

from ww import schema
from ww.errors import BadModule, ClosedError, WwError
from ww.sandbox.child import Child, ChildDied, read_reply
from ww.sandbox.confine import MISSING, ConfinementConfig, Protection
from ww.sandbox.limits import SandboxLimits
from ww.sandbox.modules import ModuleCache

log = logging.getLogger("ww.sandbox")

_PREPARED_MAX: Final = 1024
_RESTART_FIRST_S: Final = 0.1
_RESTART_MAX_S: Final = 10.0


class SandboxPool:
    """Runs guests. Open it with `async with`; on leaving it no process is left."""

    def __init__(
        self,
        cache: ModuleCache,
        *,
        slots: int,
        limits: SandboxLimits | None = None,
        confinement: ConfinementConfig | None = None,
    ) -> None:
        """Run up to slots guests at a time, of modules in cache."""
        self._cache = cache
        self._slots = slots
        self.limits = limits or SandboxLimits()
        self._confinement = confinement or ConfinementConfig()
        self._children: set[Child] = set()
        self._idle: deque[Child] = deque()
        self._waiting: deque[asyncio.Future[Child]] = deque()
        self._compiler: Child | None = None
        self._compiling: dict[bytes, asyncio.Future[None]] = {}
        self._compile_turn = asyncio.Lock()
        self._prepared: OrderedDict[bytes, None] = OrderedDict()
        self._tasks: set[asyncio.Task[None]] = set()
        self._closed = False

    async def __aenter__(self) -> Self:
        self._group = await asyncio.TaskGroup().__aenter__()
        try:
            self._idle.extend(await asyncio.gather(*(self._start("executor") for _ in range(self._slots))))
        except BaseException:
            await self.__aexit__()
            raise
        _log_missing(self._idle[0].protections if self._idle else ())
        # Beside: a slot can be offered before anything has to be compiled.
        self._spawn(self._start_compiler())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._closed = True
        for waiting in self._waiting:
            waiting.cancel()
        for task in list(self._tasks):
            task.cancel()
        await self._group.__aexit__(None, None, None)
        await asyncio.gather(*(child.aclose() for child in self._children))

    def is_prepared(self, digest: bytes) -> bool:
        """Whether `run` would find the module compiled, as far as is known without asking the disk."""
        return digest in self._prepared

    async def prepare(self, digest: bytes) -> None:
        """Have a module compiled, whose bytes are in the cache; once, however many ask at the same time.

        Raises BadModule when it does not compile, WwError when its bytes are not there or the compiler fails.
        """
        if digest in self._prepared:
            return
        under_way = self._compiling.get(digest)
        if under_way is None:
            under_way = self._compiling[digest] = asyncio.get_running_loop().create_future()
            self._spawn(self._compile(digest, under_way))
        # Shielded: one that stops waiting does not stop the others' compilation.
        await asyncio.shield(under_way)

    async def run(self, digest: bytes, invocation: Any) -> Any:
        """Run a prepared module once with a worker.Invocation: `ask` for its `request`."""
        return await self.ask(digest, self.request(digest, invocation))

    async def ask(self, digest: bytes, request: Any) -> Any:
        """Run a prepared module once and return the worker.Outcome.

        Waits for a free child. Cancelling kills the guest. Raises WwError when the module's bytes are not in the cache
        any more, or when more is given to the guest than this node takes.
        """
        for _ in range(2):
            reply = await self._ask(digest, request)
            if reply is not None:
                return reply
            # The compiled form is gone or damaged: make it anew, once.
            self._prepared.pop(digest, None)
            self._cache.artefact_path(digest).unlink(missing_ok=True)
            await self.prepare(digest)
            request.clear_write_flag()  # pycapnp warns of a second to_bytes
        raise WwError("the module's compiled form does not stay on disk")

    def request(self, digest: bytes, invocation: Any) -> Any:
        """Make what is asked of a child for a worker.Invocation, its limits held to this node's."""
        request = schema.sandbox.Request.new_message()
        run = request.init("run")
        run.digest = digest
        run.invocation = invocation
        asked, held = invocation.limits, run.limits
        held.durationSeconds = self.limits.duration_s(asked)
        held.memoryBytes = self.limits.memory_bytes(asked)
        held.outputBytes = self.limits.output_bytes(asked)
        return request

    async def _ask(self, digest: bytes, request: Any) -> Any:
        """Have an idle child answer; None when the compiled module is missing."""
        limits = request.run.limits
        child = await self._take()
        try:
            timeout_s = limits.durationSeconds + self.limits.kill_grace_s
            kind, outcome = _read_answer(await child.ask(request, timeout_s))
            if kind == "wanted":
                kind, outcome = await self._ask_with_artefact(child, digest, request, timeout_s)
            if kind not in ("outcome", "missing"):
                raise ChildDied("it answers another question")
            return outcome
        except TimeoutError:
            await self._end(child)
            return _failure("deadline", "the run took longer than it may and was killed", limits)
        except Exception as error:
            # Whatever came could not be read as a reply: the child is no good any more.
            how = await self._end(child) or str(error)
            return _failure("crash", f"the sandbox process died: {how}"[:300], limits)
        except BaseException:
            child.kill()
            raise
        finally:
            self._release(child)

    async def _ask_with_artefact(self, child: Child, digest: bytes, request: Any, timeout_s: float) -> tuple[str, Any]:
        try:
            artefact = self._cache.open_artefact(digest)
        except OSError:
            return "missing", None
        try:
            request.clear_write_flag()  # pycapnp warns of a second to_bytes
            return _read_answer(await child.ask(request, timeout_s, (artefact,)))
        finally:
            os.close(artefact)

    async def _end(self, child: Child) -> str:
        said = await child.aclose()
        # Not before: when this is cancelled, __aexit__ still has to see to it.
        self._children.discard(child)
        return said

    # Who is idle.

    async def _take(self) -> Child:
        if self._closed:
            raise ClosedError("the sandbox is closed")
        if self._idle:
            return self._idle.popleft()
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
        is_worn = child.runs >= self.limits.runs_per_child
        if child.is_alive and not is_worn:
            self._give(child)
        elif not self._closed:
            self._spawn(self._replace(child))

    def _give(self, child: Child) -> None:
        while self._waiting:
            waiting = self._waiting.popleft()
            if not waiting.done():
                waiting.set_result(child)
                return
        self._idle.append(child)

    async def _replace(self, child: Child) -> None:
        await self._end(child)
        self._give(await self._start_surely("executor"))

    async def _start(self, role: str) -> Child:
        child = Child(role, self.limits, self._confinement)
        await child.start()
        self._children.add(child)
        return child

    async def _start_surely(self, role: str) -> Child:
        """Start a child, however often it takes."""
        backoff_s = _RESTART_FIRST_S
        while True:
            try:
                return await self._start(role)
            except (WwError, OSError) as error:
                log.error("%s; trying again in %g s", error, backoff_s)
                await asyncio.sleep(backoff_s)
                backoff_s = min(_RESTART_MAX_S, backoff_s * 2)

    def _spawn(self, coroutine: Coroutine[Any, Any, None]) -> None:
        task = self._group.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # Compiling.

    async def _start_compiler(self) -> None:
        async with self._compile_turn:
            try:
                self._compiler = await self._start("compiler")
            except (WwError, OSError) as error:
                log.error("%s; trying again when there is something to compile", error)

    async def _compile(self, digest: bytes, done: asyncio.Future[None]) -> None:
        try:
            if not await self._cache.has_artefact(digest):
                async with self._compile_turn:
                    await self._compile_in_child(digest)
            self._prepared[digest] = None
            if len(self._prepared) > _PREPARED_MAX:
                self._prepared.popitem(last=False)
        except (WwError, OSError) as error:
            if not done.done():
                done.set_exception(error if isinstance(error, WwError) else WwError(f"the cache: {error.strerror}"))
                done.exception()  # everybody may have stopped waiting
        else:
            if not done.done():
                done.set_result(None)
        finally:
            del self._compiling[digest]
            done.cancel()

    async def _compile_in_child(self, digest: bytes) -> None:
        if self._compiler is None:
            self._compiler = await self._start("compiler")
        temporary = await asyncio.to_thread(self._cache.temporary)
        try:
            reply = await self._ask_compiler(self._compiler, digest, temporary)
            if reply == "missing":
                self._cache.module_path(digest).unlink(missing_ok=True)
                raise WwError("the module's bytes are not in the cache any more")
            await self._cache.adopt(temporary, self._cache.artefact_path(digest))
        except TimeoutError:
            await self._end_compiler()
            raise BadModule(f"compiling takes longer than {self.limits.compile_max_s:g} s") from None
        except ChildDied:
            how = await self._end_compiler()
            raise BadModule(f"compiling takes more memory than it may, or crashes the compiler ({how})") from None
        except asyncio.CancelledError:
            await self._end_compiler()
            raise
        finally:
            temporary.unlink(missing_ok=True)

    async def _ask_compiler(self, compiler: Child, digest: bytes, artefact: Path) -> str:
        """Have a module compiled into a file; BadModule when it cannot be."""
        request = schema.sandbox.Request.new_message()
        request.init("compile").digest = digest
        try:
            read = self._cache.open_module(digest)
        except OSError:
            return "missing"
        try:
            write = os.open(artefact, os.O_WRONLY | os.O_CLOEXEC)
            try:
                data = await compiler.ask(request, self.limits.compile_max_s, (read, write))
            finally:
                os.close(write)
        finally:
            os.close(read)
        with read_reply(data) as reply:
            kind = str(reply.which())
            if kind == "failed":
                raise BadModule(reply.failed[:300])
            if kind not in ("compiled", "missing"):
                raise ChildDied("it answers another question")
            return kind

    async def _end_compiler(self) -> str:
        assert self._compiler is not None
        child, self._compiler = self._compiler, None
        return await self._end(child)


def _read_answer(data: bytes) -> tuple[str, Any]:
    """Return the kind of a reply, and the outcome when it is one."""
    with read_reply(data) as reply:
        kind = str(reply.which())
        return kind, reply.outcome.as_builder() if kind == "outcome" else None


def _log_missing(protections: Sequence[Protection]) -> None:
    missing = [f"{protection.name} ({protection.detail})" for protection in protections if protection.state == MISSING]
    if missing:
        log.warning("this host does not confine the sandbox in every way, see ww doctor: %s", ", ".join(missing))


def _failure(reason: str, detail: str, limits: Any) -> Any:
    """Make the outcome of a run whose process cannot tell."""
    outcome = schema.worker.Outcome.new_message()
    outcome.reason, outcome.detail = reason, detail
    outcome.memoryLimitBytes = limits.memoryBytes
    if reason == "deadline":
        outcome.wallSeconds = limits.durationSeconds
    return outcome
