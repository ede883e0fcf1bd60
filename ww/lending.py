"""What a run calls while it runs, and the slot that it lends while it waits.

Holds a run's way to its gateway's Calls, and how many slots may be lent. Must not know how a slot is offered: worker.py
does that. A run that waits computes nothing, so its worker offers one slot more, for runs that are deeper than it: what
it waits for is among them. Of each depth at most as many slots are lent as the worker has. Those of the greatest depth
take runs that cannot wait, so they come back; then what waits one less deep goes on, and so forth.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Final

from ww.caps.blob import BytesBlobServer, fetch
from ww.errors import UsageError, WwError
from ww.python.request import TICKET_BYTES_MAX, ended, read_requests, write_answers
from ww.records import LARGE_BYTES
from ww.rpc.errors import call
from ww.rpc.loop import first_of

log = logging.getLogger("ww.worker")

# What the reasons take beside what the runs left.
_ANSWERS_BYTES_MAX: Final = 2 * TICKET_BYTES_MAX


class Lending:
    """The slots that one worker's runs lend."""

    def __init__(
        self,
        slots: int,
        depth_max: int,
        offer: Callable[[int, asyncio.Event], Awaitable[bool]],
        start: Callable[[Coroutine[Any, Any, None]], object],
    ) -> None:
        """Lend at most so many slots of each depth, down to depth_max.

        offer has a slot taken by a run of that depth or a greater one, and returns when it came back, or when the event
        was set before it was taken; False when that is of no use any more. start runs a coroutine beside the others.
        """
        self.depth_max = depth_max
        self.start = start
        self._slots = slots
        self._offer = offer
        self._places: dict[int, asyncio.Semaphore] = {}

    async def lend(self, depth: int, goes_on: asyncio.Event) -> bool:
        """Lend a slot to a run of that depth or a greater one, unless goes_on is set first. Returns as offer does."""
        places = self._places.setdefault(depth, asyncio.Semaphore(self._slots))
        waiting = asyncio.ensure_future(places.acquire())
        await first_of(waiting, goes_on.wait())
        if not waiting.done() or waiting.cancelled():
            return True
        try:
            return await self._offer(depth, goes_on)
        finally:
            places.release()


class RunCalls:
    """What one run calls: see sandbox/calls.py."""

    def __init__(self, client: Any, depth: int, lending: Lending) -> None:
        """Call through a client of schema interface Calls, for a run of that depth."""
        self._client = client
        self._depth = depth
        self._lending = lending
        self._waits = False
        self._goes_on = asyncio.Event()
        self._is_lending = False

    async def call(self, name: str, requests: bytes) -> bytes:
        """Return the answers, of the calls that could not be made too."""
        try:
            count = len(read_requests(requests))
        except ValueError as error:
            return write_answers([ended("refused", str(error))])
        try:
            if self._depth >= self._lending.depth_max:
                most = self._lending.depth_max
                raise UsageError(f"this worker has calls within calls to a depth of {most} (--nesting)")
            return await self._call(name, requests)
        except WwError as error:
            reason: Any = "refused" if isinstance(error, UsageError) else "lost"
            return write_answers([ended(reason, str(error))] * count)

    async def _call(self, name: str, requests: bytes) -> bytes:
        request = self._client.call_request()
        request.name = name
        if len(requests) > LARGE_BYTES:
            request.large = BytesBlobServer(requests)
        else:
            request.requests = requests
        answer = await call(request.send())
        if not answer._has("large"):
            return bytes(answer.answers)
        return b"".join([piece async for piece in fetch(answer.large, bytes_max=_ANSWERS_BYTES_MAX)])

    def set_blocked(self, blocked: bool) -> None:
        """Lend a slot while the run waits."""
        if blocked and not self._waits:
            self._goes_on = asyncio.Event()
            self._waits = True
            if not self._is_lending:
                self._is_lending = True
                self._lending.start(self._lend())
        elif not blocked:
            self._waits = False
            self._goes_on.set()

    async def _lend(self) -> None:
        try:
            while self._waits and await self._lending.lend(self._depth + 1, self._goes_on):
                pass
        finally:
            self._is_lending = False

    def close(self) -> None:
        """Note that the run has ended."""
        self.set_blocked(False)
        self._client = None
