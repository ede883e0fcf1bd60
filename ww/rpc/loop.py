"""The event loop that capabilities live on.

Holds how a program of ww runs, and waits: plain asyncio (uvloop crashes pycapnp) with pycapnp's loop inside. Source:
facts.md.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Final, TypeVar

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
