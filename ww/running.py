"""A group of runs on one slot of a worker, from its coming to the last outcome's going.

Holds the wait for its turn, the outcomes that nobody has asked for yet, and what was cancelled. Must not know who asks:
worker.py does. Next in a task's life: sandbox/pool.py.
"""

import asyncio
import time
from collections.abc import Sequence
from typing import Any, Final

from ww.caps.blob import BytesBlobServer
from ww.errors import WwError
from ww.records import LARGE_BYTES, write_outcome
from ww.sandbox.invocation import Invocation, Result, RunLimits
from ww.sandbox.pool import SandboxGroup, SandboxPool

# Of one answer, but for what goes by reference.
_ANSWER_BYTES_MAX: Final = 4 << 20
_CANCELLED: Final = Result(reason="cancelled")


class RunningGroup:
    """Runs of one task, on their way through one slot."""

    def __init__(
        self,
        sandbox: SandboxPool,
        digest: bytes,
        invocations: Sequence[Invocation],
        limits: RunLimits,
        compile_s: float,
    ) -> None:
        self._sandbox = sandbox
        self._digest = digest
        self._limits = limits
        self._compile_s = compile_s
        self._waiting: dict[int, Invocation] = dict(enumerate(invocations))
        """By place in the group: those that were not given to the sandbox."""
        self._under_way: SandboxGroup | None = None
        self._places: Sequence[int] = ()
        """In this group, of those that were."""
        self._records: list[bytes] = []
        self._error: WwError | None = None
        self._is_over = False
        self._changed = asyncio.Event()
        self._over = asyncio.Event()
        self._queue_s = 0.0
        self._task: asyncio.Task[None] | None = None

    def begins(self, task: "asyncio.Task[None]") -> None:
        """Note what runs it."""
        self._task = task

    async def run(self, turn: asyncio.Lock) -> None:
        """Run all when it is their turn; an error goes to whoever asks for outcomes."""
        came_at = time.monotonic()
        try:
            async with turn:
                if self._waiting:
                    self._queue_s = time.monotonic() - came_at
                    await self._run()
        except WwError as error:
            self._error = error
        finally:
            self._is_over = True
            self._changed.set()
            self._over.set()

    async def _run(self) -> None:
        invocations = list(self._waiting.values())
        if self._limits.is_metered(invocations[0]) and not self._sandbox.is_prepared(self._digest, metered=True):
            # Nobody said so when it was loaded.
            self._compile_s += await self._sandbox.prepare(self._digest, metered=True)
            invocations = list(self._waiting.values())
        self._places = list(self._waiting)
        self._waiting.clear()
        if not invocations:
            return
        async with self._sandbox.group(self._digest, invocations, self._limits) as group:
            self._under_way = group
            while results := await group.results():
                for index, result in results:
                    self._end(self._places[index], result)
                    self._queue_s += result.wall_s
                self._changed.set()

    def _end(self, place: int, result: Result) -> None:
        memory_limit_bytes = self._limits.memory_bytes
        # Who was stopped waited for nothing that counts.
        queue_s, compile_s = (0.0, 0.0) if result is _CANCELLED else (self._queue_s, self._compile_s)
        self._records.append(
            write_outcome(place, result, memory_limit_bytes=memory_limit_bytes, queue_s=queue_s, compile_s=compile_s)
        )
        if compile_s:
            self._compile_s = 0.0

    # Those who ask.

    @property
    def has_ended(self) -> bool:
        """Whether every run has."""
        return self._is_over

    async def wait(self, timeout_s: float | None) -> None:
        """Wait until all has ended, and no longer than that; without a time, until something has."""
        if timeout_s is None:
            await self._changed.wait()
        else:
            await self.wait_for_end(timeout_s)

    async def wait_for_end(self, timeout_s: float) -> None:
        """Wait until all has ended, and no longer than that. For every group, and asyncio.wait_for costs more."""
        if self._is_over:
            return
        timer = asyncio.get_running_loop().call_later(timeout_s, self._over.set)
        try:
            await self._over.wait()
        finally:
            timer.cancel()
            if not self._is_over:
                self._over.clear()

    def take(self) -> tuple[bytes, list[bytes], bool]:
        """Return outcome records that nobody was given yet: those that go in a message, those that are large, and
        whether these are the last. Raises what ended the group."""
        small: list[bytes] = []
        large: list[bytes] = []
        size = 0
        for taken, record in enumerate(self._records):
            if size > _ANSWER_BYTES_MAX:
                del self._records[:taken]
                return b"".join(small), large, False
            size += len(record)
            if len(record) > LARGE_BYTES:
                large.append(record)
            else:
                small.append(record)
        self._records.clear()
        if self._error is not None and not size:
            raise self._error
        if not self._is_over:
            self._changed.clear()
        return b"".join(small), large, self._is_over and self._error is None

    def cancel(self, places: Sequence[int]) -> None:
        """Stop the runs at those places, or all."""
        for place in places or list(self._waiting):
            if self._waiting.pop(place, None) is not None:
                self._end(place, _CANCELLED)
                self._changed.set()
        if self._under_way is None:
            return
        if not places:
            self._under_way.cancel()
        elif indices := [index for index, place in enumerate(self._places) if place in places]:
            self._under_way.cancel(indices)

    def stop(self) -> None:
        """Stop all: nobody will ask any more. Idempotent."""
        if self._task is not None:
            self._task.cancel()


def answer(results: Any, group: RunningGroup) -> None:
    """Write what has ended into a results message of Runs.start or Group.more."""
    outcomes, large, ended = group.take()
    results.outcomes = outcomes
    if large:
        blobs = results.init("large", len(large))
        for index, record in enumerate(large):
            blobs[index] = BytesBlobServer(record)
    results.ended = ended
