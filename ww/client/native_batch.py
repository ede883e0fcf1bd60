"""A batch on its way to a gateway, by capabilities: its runs are sent as they are read, a few calls ahead of answers.

Holds the window of calls under way. Must not know where runs come from, nor when a batch is sent again.
"""

import asyncio
from collections.abc import AsyncIterable, AsyncIterator
from typing import Any, Final

from ww.client.answer import Task
from ww.client.native_codec import Run, RunEncoder, read_task
from ww.client.native_link import ask
from ww.errors import PeerError
from ww.rpc.errors import call

_WINDOW: Final = 4
# Runs that come by and by are sent in groups of so many, and at once when one is longer than this.
_RUNS_AT_ONCE: Final = 256
_LONG_BYTES: Final = 1024


class NativeBatch:
    """A batch on its way to the gateway."""

    def __init__(self, batch: Any, encoder: RunEncoder, timeout_s: float) -> None:
        self.encoder = encoder
        """Writes its runs."""
        self._batch = batch
        self._timeout_s = timeout_s
        self._under_way: list[asyncio.Future[Any]] = []

    async def add(self, records: bytes) -> None:
        """Send the next records; waits while as many calls as may be are under way."""
        if len(self._under_way) >= _WINDOW:
            await self._oldest()
        self._under_way.append(adding := asyncio.ensure_future(call(self._batch.add(records=records))))
        adding.add_done_callback(lambda done: done.cancelled() or done.exception())  # which nobody may wait for
        # So that it leaves before more is read.
        await asyncio.sleep(0)

    async def finish(self) -> Task:
        """Have it taken on."""
        while self._under_way:
            await self._oldest()
        return read_task((await ask(self._batch.finish(), self._timeout_s)).shown)

    async def _oldest(self) -> None:
        try:
            async with asyncio.timeout(self._timeout_s):
                await self._under_way[0]
        except TimeoutError:
            raise PeerError(f"the gateway does not answer: nothing came within {self._timeout_s:g} s") from None
        del self._under_way[0]

    def close(self) -> None:
        """Have what was not taken on dropped. Idempotent."""
        for adding in self._under_way:
            adding.cancel()
        self._batch = None


async def gathered(encoder: RunEncoder, runs: AsyncIterable[Run]) -> AsyncIterator[bytes]:
    """Yield the records of runs that come by and by."""
    waiting: list[Run] = []
    async for run in runs:
        waiting.append(run)
        if len(waiting) >= _RUNS_AT_ONCE or (isinstance(run, bytes | str) and len(run) > _LONG_BYTES):
            for chunk in encoder.chunks(waiting):
                yield chunk
            waiting = []
    for chunk in encoder.chunks(waiting):
        yield chunk
