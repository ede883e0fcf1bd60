"""The event loop that capabilities live on.

Holds how a program of ww runs: plain asyncio (uvloop crashes pycapnp) with pycapnp's loop inside. Source: facts.md.
"""

import asyncio
import logging
from collections.abc import Callable, Coroutine
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


def _log_in_one_line(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    error = context.get("exception")
    log.error("%s: %s", context.get("message"), error, exc_info=error if log.isEnabledFor(logging.DEBUG) else None)
