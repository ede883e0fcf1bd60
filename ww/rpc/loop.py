"""The event loop that capabilities live on.

Holds how a program of ww runs, and waits: plain asyncio (uvloop crashes pycapnp) with pycapnp's loop inside. Source:
facts.md.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final, TypeVar
from weakref import WeakKeyDictionary

import capnp

T = TypeVar("T")

log = logging.getLogger("ww.rpc")

_MMAP_THRESHOLD_BYTES: Final = 31 << 20


def run(main: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Run main to its end on a loop fit for capabilities, and return what it returns."""

    async def wrapped() -> T:
        # glibc raises its mmap threshold to the largest block freed so far; without this every message of a megabyte is
        # mapped, zeroed and unmapped anew, at a quarter of the speed.
        block = bytearray(_MMAP_THRESHOLD_BYTES)
        del block
        asyncio.get_running_loop().set_exception_handler(_log_in_one_line)
        async with capnp.kj_loop():
            return await main()

    with asyncio.Runner(loop_factory=asyncio.new_event_loop) as runner:
        return runner.run(wrapped())


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
