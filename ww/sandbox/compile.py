"""Compiling on a machine: once a module, however many ask, in a child process that runs no guest.

Holds the compiler process, and who waits for which module. Must not know runs. What was compiled is a file of the cache
(modules.py), which the workers of a machine share; they take turns at a module by a lock on a file there.
"""

import asyncio
import logging
import os
import time
from collections import OrderedDict
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, Final

from ww import schema
from ww.errors import BadModule, WwError
from ww.sandbox.child import Child, ChildDied, read_reply
from ww.sandbox.limits import SandboxLimits
from ww.sandbox.modules import ModuleCache

log = logging.getLogger("ww.sandbox")

_PREPARED_MAX: Final = 1024
# A compiler that has grown by more is replaced: what large modules took does not come back.
_COMPILER_GROWTH_BYTES_MAX: Final = 128 << 20
Key = tuple[bytes, bool]
"""A module's digest, and whether it is to count fuel and leave nothing to the machine."""


class Compiling:
    """Compiles modules whose bytes are in the cache."""

    def __init__(
        self,
        cache: ModuleCache,
        limits: SandboxLimits,
        start: Callable[[], Coroutine[Any, Any, Child]],
        end: Callable[[Child], Coroutine[Any, Any, str]],
        spawn: Callable[[Coroutine[Any, Any, None]], object],
    ) -> None:
        """start and end a compiler process; spawn a task that the caller awaits or cancels in the end."""
        self._cache = cache
        self._limits = limits
        self._start = start
        self._end = end
        self._spawn = spawn
        self._compiler: Child | None = None
        self._under_way: dict[Key, asyncio.Future[WwError | None]] = {}
        self._turn = asyncio.Lock()
        self._prepared: OrderedDict[Key, None] = OrderedDict()

    async def start_ahead(self) -> None:
        """Start the compiler before it is needed."""
        async with self._turn:
            try:
                self._compiler = await self._start()
            except (WwError, OSError) as error:
                log.error("%s; trying again when there is something to compile", error)

    def is_prepared(self, key: Key) -> bool:
        """Whether a module is known to be compiled, without asking the disk."""
        return key in self._prepared

    def forget(self, key: Key) -> None:
        """Compile anew when it is asked for again: what there was is no good."""
        self._prepared.pop(key, None)
        self._cache.artefact_path(*key).unlink(missing_ok=True)

    async def prepare(self, key: Key) -> float:
        """Have a module compiled, once, however many ask at the same time; return the seconds that this took.

        Raises BadModule when it does not compile, WwError when its bytes are not there or the compiler fails.
        """
        if key in self._prepared:
            return 0.0
        began_at = time.monotonic()
        under_way = self._under_way.get(key)
        if under_way is None:
            under_way = self._under_way[key] = asyncio.get_running_loop().create_future()
            self._spawn(self._compile(key, under_way))
        # Shielded: one that stops waiting does not stop the others' compilation.
        failure = await asyncio.shield(under_way)
        if failure is not None:
            # One of each waiter's own: a shared one would hold the frames, and so the slots, of all who met it.
            raise type(failure)(str(failure))
        return time.monotonic() - began_at

    async def _compile(self, key: Key, done: asyncio.Future[WwError | None]) -> None:
        failure: WwError | None = None
        try:
            if not await self._cache.has_artefact(*key):
                # The other workers' first: whoever waits for them keeps nobody here.
                async with self._cache.locked(key[0], within_s=2 * self._limits.compile_max_s), self._turn:
                    # Another worker may have been faster.
                    if not await self._cache.has_artefact(*key):
                        await self._compile_surely(key)
            self._prepared[key] = None
            if len(self._prepared) > _PREPARED_MAX:
                self._prepared.popitem(last=False)
        except (WwError, OSError) as error:
            kind = type(error) if isinstance(error, WwError) else WwError
            failure = kind(str(error) if isinstance(error, WwError) else f"the cache: {error.strerror}")
        except BaseException:
            done.cancel()
            raise
        finally:
            del self._under_way[key]
        if not done.done():
            done.set_result(failure)

    async def _compile_surely(self, key: Key) -> None:
        """Compile, once more when the compiler ends: somebody else may have ended it."""
        try:
            await self._compile_in_child(key)
        except ChildDied:
            try:
                await self._compile_in_child(key)
            except ChildDied as death:
                most = self._limits.compile_memory_bytes_max
                raise BadModule(f"compiling takes more than {most} bytes of memory, or crashes ({death})") from None

    async def _compile_in_child(self, key: Key) -> None:
        if self._compiler is None or not self._compiler.is_alive:
            await self._end_compiler()
            self._compiler = await self._start()
        temporary = await asyncio.to_thread(self._cache.temporary)
        try:
            reply = await self._ask(self._compiler, key, temporary)
            if reply == "missing":
                self._cache.module_path(key[0]).unlink(missing_ok=True)
                raise WwError("the module's bytes are not in the cache any more")
            await self._cache.adopt(temporary, self._cache.artefact_path(*key))
            if self._compiler.grown_bytes() > _COMPILER_GROWTH_BYTES_MAX:
                await self._end_compiler()
                self._spawn(self.start_ahead())
        except TimeoutError:
            await self._end_compiler()
            raise BadModule(f"compiling takes longer than {self._limits.compile_max_s:g} s") from None
        except ChildDied as death:
            how = await self._end_compiler()
            raise ChildDied(how or str(death)) from None
        except asyncio.CancelledError:
            await self._end_compiler()
            raise
        finally:
            temporary.unlink(missing_ok=True)

    async def _ask(self, compiler: Child, key: Key, artefact: Path) -> str:
        """Have a module compiled into a file; BadModule when it cannot be."""
        request = schema.sandbox.Request.new_message()
        compile = request.init("compile")
        compile.digest, compile.metered = key
        try:
            read = self._cache.open_module(key[0])
        except OSError:
            return "missing"
        try:
            write = os.open(artefact, os.O_WRONLY | os.O_CLOEXEC)
            try:
                data = await compiler.ask(request, self._limits.compile_max_s, (read, write))
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
        child, self._compiler = self._compiler, None
        return await self._end(child) if child is not None else ""
