"""The event loop that capabilities live on.

Holds how a program of ww runs, and waits: plain asyncio (uvloop crashes pycapnp) with pycapnp's loop inside. Source:
facts.md.
"""

import asyncio
import gc
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, Final, TypeVar
from weakref import WeakKeyDictionary

import capnp

T = TypeVar("T")

log = logging.getLogger("ww.rpc")

_MMAP_THRESHOLD_BYTES: Final = 31 << 20
# How often it is looked whether the garbage collector is due.
_LOOK_S: Final = 0.05
# Looking through everything takes at most a hundredth of the time, and waits this long at least.
_FULL_SHARE: Final = 100
_FULL_S: Final = 10.0


def run(main: Callable[[], Coroutine[Any, Any, T]], *, is_program: bool = True) -> T:
    """Run main to its end on a loop fit for capabilities, and return what it returns.

    is_program says that this is all that the process is for; where it is a thread of another, that one's settings hold.
    """

    async def wrapped() -> T:
        # glibc raises its mmap threshold to the largest block freed so far; without this every message of a megabyte is
        # mapped, zeroed and unmapped anew, at a quarter of the speed.
        block = bytearray(_MMAP_THRESHOLD_BYTES)
        del block
        asyncio.get_running_loop().set_exception_handler(_log_in_one_line)
        async with capnp.kj_loop():
            with _collecting_here() if is_program else nullcontext():
                return await main()

    with asyncio.Runner(loop_factory=asyncio.new_event_loop) as runner:
        return runner.run(wrapped())


@contextmanager
def _collecting_here() -> Iterator[None]:
    """Have Python's garbage collector run in this thread alone.

    By itself it runs in whichever thread makes one object too many. A promise of pycapnp's in a cycle that it finds
    there (errors are in cycles with what was under way) ends the process: "No event loop is running on this thread".
    """
    loop = asyncio.get_running_loop()
    next_full = time.monotonic() + _FULL_S
    timer: asyncio.TimerHandle | None = None

    def look() -> None:
        nonlocal next_full, timer
        young, middle, old = (count > most > 0 for count, most in zip(gc.get_count(), gc.get_threshold(), strict=True))
        if young:
            begin = time.monotonic()
            is_full = old and begin >= next_full
            gc.collect(2 if is_full else 1 if middle else 0)
            if is_full:
                end = time.monotonic()
                next_full = end + max(_FULL_S, _FULL_SHARE * (end - begin))
        timer = loop.call_later(_LOOK_S, look)

    was_enabled = gc.isenabled()
    gc.disable()
    timer = loop.call_later(_LOOK_S, look)
    try:
        yield
    finally:
        if timer is not None:
            timer.cancel()
        if was_enabled:
            gc.enable()


@asynccontextmanager
async def shared_kj_loop() -> AsyncIterator[None]:
    """Have pycapnp's loop in the running one, for a part of a program that does not know what else is in it.

    It is begun by the first that needs it, and ended with the last; where the program runs one itself, that is used.
    """
    loop = asyncio.get_running_loop()
    held = _HELD.get(loop)
    if held is None:
        if hasattr(loop, "_kj_loop"):  # a private name of pycapnp's, whose version is pinned
            yield
            return
        held = _HELD[loop] = _Held(capnp.kj_loop())
        await held.kj_loop.__aenter__()
    held.users += 1
    try:
        yield
    finally:
        held.users -= 1
        if not held.users:
            del _HELD[loop]
            await held.kj_loop.__aexit__(None, None, None)


@dataclass(slots=True)
class _Held:
    kj_loop: Any
    users: int = 0


# By event loops, of which a process has as many as it has threads that run one.
_HELD: Final[WeakKeyDictionary[asyncio.AbstractEventLoop, _Held]] = WeakKeyDictionary()


async def first_of(*awaitables: Awaitable[Any]) -> None:
    """Return when one of them has ended, however it did; the others are cancelled."""
    waits = [asyncio.ensure_future(awaitable) for awaitable in awaitables]
    try:
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waits:
            wait.cancel()


def _log_in_one_line(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    error = context.get("exception")
    log.error("%s: %s", context.get("message"), error, exc_info=error if log.isEnabledFor(logging.DEBUG) else None)
