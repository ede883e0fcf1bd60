"""A group of runs on one slot of a worker, from its coming to the last outcome's going.

Holds the wait for its turn, inputs that are by reference, outcomes that nobody has asked for yet, and how much of all
that a slot may hold. Must not know who asks: worker.py does. Next in a task's life: sandbox/group.py.
"""

import asyncio
from collections.abc import Iterable, Sequence
from typing import Any, Final

from ww.caps.blob import BytesBlobServer, fetch
from ww.errors import Overloaded, UsageError, WwError
from ww.records import LARGE_BYTES
from ww.rpc.errors import call
from ww.sandbox.group import Outcomes, SandboxGroup
from ww.sandbox.inputs import Inputs

# Of one answer, but for what goes by reference.
_ANSWER_BYTES_MAX: Final = 4 << 20
# Runs that one lease may have: those under way, those that wait, and those whose outcomes were not asked for.
_RUNS_MAX: Final = 2048


class Room:
    """What the groups of one slot hold, and how much they may."""

    def __init__(self, bytes_max: int) -> None:
        """Hold at most bytes_max and one run more of each: inputs that came with their group, those that are fetched,
        and outcomes."""
        self.bytes_max = bytes_max
        self.turn = asyncio.Lock()
        """Whose group runs."""
        self.fetching = asyncio.Lock()
        """Whose inputs are fetched: in the order in which groups run, so that none keeps room from those before it."""
        self._runs = 0
        self._inputs_bytes = 0
        self._fetched_bytes = 0
        self._outcomes_bytes = 0
        self._freed = asyncio.Event()

    def enter(self, runs: int, inputs_bytes: int) -> None:
        """Take a group in, with the inputs that came with it. Overloaded when too much is here."""
        if self._runs + runs > _RUNS_MAX:
            raise Overloaded(f"{_RUNS_MAX} runs may be on a slot, {self._runs} are and {runs} are to come")
        if self._inputs_bytes > self.bytes_max:
            raise Overloaded(f"{self.bytes_max} bytes of input may be on a slot, {self._inputs_bytes} are")
        self._runs += runs
        self._inputs_bytes += inputs_bytes

    def leave(self, runs: int = 0, inputs_bytes: int = 0, fetched_bytes: int = 0, outcomes_bytes: int = 0) -> None:
        """Note what is not held any more."""
        self._runs -= runs
        self._inputs_bytes -= inputs_bytes
        self._fetched_bytes -= fetched_bytes
        self._outcomes_bytes -= outcomes_bytes
        if fetched_bytes or outcomes_bytes:
            self._freed.set()

    async def fetch(self, size_bytes: int) -> None:
        """Wait until an input of that size may be fetched, and hold it."""
        while self._fetched_bytes > self.bytes_max:
            await self._wait()
        self._fetched_bytes += size_bytes

    def keep(self, outcomes_bytes: int) -> None:
        """Hold outcomes."""
        self._outcomes_bytes += outcomes_bytes

    async def room_for_outcomes(self) -> None:
        """Wait until there is: those who asked for runs have to ask for outcomes."""
        while self._outcomes_bytes > self.bytes_max:
            await self._wait()

    async def _wait(self) -> None:
        self._freed.clear()
        await self._freed.wait()


class _Held(BytesBlobServer):
    """A large outcome, for as long as the gateway holds it."""

    def __init__(self, record: bytes, room: Room) -> None:
        super().__init__(record)
        self._room, self._bytes = room, len(record)

    def __del__(self) -> None:
        self._room.leave(outcomes_bytes=self._bytes)


class RunningGroup:
    """Runs of one task, on their way through one slot."""

    def __init__(self, room: Room, group: SandboxGroup, inputs: Inputs, large: Sequence[Any], bytes_max: int) -> None:
        """Take runs in, whose inputs that are by reference are in large, in order, each of at most bytes_max.

        Raises Overloaded when the slot takes no more.
        """
        room.enter(len(inputs), inputs.size_bytes)
        self._room = room
        self._group = group
        self._inputs = inputs
        self._inputs_bytes = inputs.size_bytes
        self._large = large
        self._bytes_max = bytes_max
        self._left = self._untold = len(inputs)
        """Runs that have not ended, and those of which nobody was told that they have."""
        self._ended: list[Outcomes] = []
        self._error: WwError | None = None
        self._is_over = False
        self._is_closed = False
        self._changed = asyncio.Event()
        self._over = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def begins(self, task: "asyncio.Task[None]") -> None:
        """Note what runs it."""
        self._task = task
        # One that is cancelled at once never ran.
        task.add_done_callback(lambda _: self._end())

    async def run(self) -> None:
        """Run all when it is their turn; an error goes to whoever asks for outcomes."""
        fetching = asyncio.ensure_future(self._fetch()) if self._large else None
        try:
            self._group.prepare()
            async with self._room.turn, self._group as group:
                while ended := await group.outcomes():
                    self._add(ended)
                    if self._left:
                        await self._room.room_for_outcomes()
        except WwError as error:
            self._error = error
        finally:
            if fetching is not None:
                fetching.cancel()
            self._end()

    def _end(self) -> None:
        """Note that no more will be run. Idempotent."""
        if not self._is_over:
            self._is_over = True
            self._room.leave(inputs_bytes=self._inputs_bytes, fetched_bytes=self._inputs.forget())
            self._changed.set()
            self._over.set()

    async def _fetch(self) -> None:
        """Fetch inputs, each as soon as there is room: those of groups that run before it come first."""
        try:
            async with self._room.fetching:
                for place, blob in zip(self._inputs.missing, self._large, strict=True):
                    if not self._group.has_ended(place):
                        await self._fetch_one(place, blob)
        except WwError as error:
            self._group.fail(error)

    async def _fetch_one(self, place: int, blob: Any) -> None:
        size = (await call(blob.size())).bytes
        if size > self._bytes_max:
            raise UsageError(f"large: a record of {size} bytes, at most {self._bytes_max} are taken")
        await self._room.fetch(size)
        held = size
        try:
            record = b"".join([piece async for piece in fetch(blob, bytes_max=size)])
            if not self._is_over and not self._group.has_ended(place):
                self._group.put(place, record)
                held -= len(record)
        finally:
            self._room.leave(fetched_bytes=held)

    def _add(self, ended: Iterable[Outcomes]) -> None:
        for outcomes in ended:
            self._left -= outcomes.runs
            self._room.keep(len(outcomes.records))
            self._ended.append(outcomes)
        if self._large:
            self._room.leave(fetched_bytes=self._inputs.forget(self._group.next_place))
        # When all have ended, the slot is another group's before anybody is told.
        if self._left:
            self._changed.set()

    # Those who ask.

    @property
    def has_ended(self) -> bool:
        """Whether every run has, or an error is what is left to be told."""
        return self._is_over or not self._left

    async def wait(self, timeout_s: float | None) -> None:
        """Wait until all has ended, and no longer than that; without a time, until something has."""
        if timeout_s is None:
            await self._changed.wait()
        else:
            await self.wait_for_end(timeout_s)

    async def wait_for_end(self, timeout_s: float) -> None:
        """Wait until all has ended, and no longer than that. For every group, and asyncio.wait_for costs more."""
        if self.has_ended:
            return
        timer = asyncio.get_running_loop().call_later(timeout_s, self._over.set)
        try:
            await self._over.wait()
        finally:
            timer.cancel()
            if not self._is_over:
                self._over.clear()

    def take(self) -> tuple[bytes, list[Any], bool]:
        """Return outcome records that nobody was given yet: those that go in a message, those that are large as blobs,
        and whether these are the last: not of all runs when the worker is stopping. Raises what ended the group."""
        small: list[bytes] = []
        large: list[Any] = []
        size = taken = runs = 0
        for outcomes in self._ended:
            if size > _ANSWER_BYTES_MAX:
                break
            taken, runs = taken + 1, runs + outcomes.runs
            size += len(outcomes.records)
            if len(outcomes.records) > LARGE_BYTES and outcomes.runs == 1:
                large.append(_Held(outcomes.records, self._room))
            else:
                small.append(outcomes.records)
        del self._ended[:taken]
        self._untold -= runs
        data = b"".join(small)
        self._room.leave(runs=runs, outcomes_bytes=len(data))
        if self._error is not None and not taken:
            raise self._error
        if not self._ended and not self._is_over:
            self._changed.clear()
        return data, large, not self._untold or (self._is_over and self._error is None and not self._ended)

    def cancel(self, places: Sequence[int]) -> None:
        """Stop the runs at those places, or all."""
        self._group.cancel(places)
        if ended := self._group.take():
            self._add(ended)
            self._changed.set()
            if not self._left:
                self._over.set()

    def close(self) -> None:
        """Stop all and forget it: nobody will ask any more. Idempotent."""
        if self._is_closed:
            return
        self._is_closed = True
        if self._task is not None:
            self._task.cancel()
        self._room.leave(runs=self._untold, outcomes_bytes=sum(len(outcomes.records) for outcomes in self._ended))
        self._ended.clear()


def answer(results: Any, group: RunningGroup) -> None:
    """Write what has ended into a results message of Runs.start or Group.more."""
    outcomes, large, ended = group.take()
    results.outcomes = outcomes
    if large:
        blobs = results.init("large", len(large))
        for index, blob in enumerate(large):
            blobs[index] = blob
    results.ended = ended
