"""Several ways to the same peer, tried one shortly after the other: the first that leads there is taken.

Holds the waiting and the choice among errors. Must not know what the ways are.
"""

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Final, TypeVar

from ww.errors import NotAdmitted, PeerError, PeerMismatch, ProtocolMismatch

T = TypeVar("T")

STAGGER_S: Final = 0.2
"""Seconds that a way is given before the next is tried beside it."""
# What the right peer itself says: no other way leads farther.
_FINAL: Final = (NotAdmitted, ProtocolMismatch)


async def race(ways: Sequence[Callable[[], Coroutine[Any, Any, T]]], discard: Callable[[T], object]) -> T:
    """Return what the first way to succeed returns, and give what others return too late to discard.

    Each begins STAGGER_S after the one before it, or when that one has failed. Raises PeerError when all have: that
    somebody else answers, where it does, since that says more than that nobody did.
    """
    running: set[asyncio.Task[T]] = set()
    problems: list[PeerError] = []
    waiting = list(ways)
    try:
        while waiting or running:
            if waiting:
                running.add(asyncio.ensure_future(waiting.pop(0)()))
            timeout_s = STAGGER_S if waiting else None
            done, running = await asyncio.wait(running, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                try:
                    result = task.result()
                except PeerError as error:
                    if isinstance(error, _FINAL):
                        raise
                    problems.append(error)
                    continue
                # Others that were as fast.
                running |= done - {task}
                return result
        raise next((problem for problem in problems if isinstance(problem, PeerMismatch)), problems[0])
    finally:
        for task in running:
            task.add_done_callback(
                lambda late: None if late.cancelled() or late.exception() else discard(late.result())
            )
            task.cancel()
