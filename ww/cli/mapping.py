"""The course of a map: portions of inputs are sent as tasks, one ahead of the one whose results are taken.

Holds what happens in which order, and what is under way. Must not know options, signals or streams: map.py has them.
"""

import asyncio
import re
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass, field
from typing import Any, Final

from ww.cli.inputs import Portion
from ww.cli.ledger import Entry, Ledger
from ww.cli.progress import Progress
from ww.cli.remote import tell
from ww.cli.results import Sink
from ww.client import AsyncClient, Task
from ww.client.results import Order
from ww.errors import Conflict, GuestError, NotAllowed, NotFound, UsageError, WwError
from ww.uuid7 import uuid7

_TASKS_AHEAD: Final = 2
_NAMED_RUN: Final = re.compile(r"tasks\[([0-9]{1,9})\]")


class Unfinished(WwError):
    """A task ended without the results of all of its runs."""

    code = "unfinished"


@dataclass(frozen=True, slots=True)
class Recipe:
    """What all runs have in common."""

    wasm: bytes | str
    fields: dict[str, Any]
    digest: str
    """Of all of it: tasks of another are not this map's."""
    order: Order
    failures_max: int | None = None
    """So many failed runs end it."""


@dataclass(slots=True)
class Course:
    """One map."""

    client: AsyncClient
    recipe: Recipe
    ledger: Ledger
    sink: Sink
    progress: Progress
    taken: set[str] = field(default_factory=set)
    """Names whose results an earlier start's tasks gave."""

    @property
    def is_enough(self) -> bool:
        """Whether so many runs have failed that it ends."""
        return self.recipe.failures_max is not None and self.progress.failed >= self.recipe.failures_max

    async def take_up(self) -> None:
        """Take the results of the tasks that an earlier start left; cancel those that were made of something else."""
        for entry in list(self.ledger.entries.values()):
            if entry.made_of != self.recipe.digest:
                tell(f"task {entry.id} of an earlier start was made of something else: it is cancelled")
                await self._cancel(entry.id)
                continue
            try:
                task = await self.client.task(entry.id)
            except NotFound:
                self.ledger.remove(entry.id)  # it was never taken, or is forgotten
                continue
            if not task.has_ended:
                tell(f"task {entry.id} of an earlier start is taken up")
            await self._collect(entry, is_earlier=True)
            if self.is_enough:
                return

    async def run(self, portions: AsyncIterator[Portion]) -> None:
        """Send the portions and take their results. Raises what went wrong; what is under way stays in the ledger."""
        room, sent = asyncio.Semaphore(_TASKS_AHEAD), asyncio.Queue[Entry | None]()
        try:
            async with asyncio.TaskGroup() as group:
                sending = group.create_task(self._send_all(portions, room, sent))
                while (entry := await sent.get()) is not None and not self.is_enough:
                    left, task = await self._collect(entry)
                    if self.is_enough:
                        break
                    if left:
                        reason = f": {task.reason}" if task.reason else ""
                        raise Unfinished(f"task {task.id} was {task.status}{reason}; {len(left)} results are missing")
                    room.release()
                sending.cancel()
        except BaseExceptionGroup as several:
            raise _first(several) from None

    async def cancel(self) -> None:
        """Cancel what is under way; a later start takes what was done until then."""
        for id in list(self.ledger.entries):
            with suppress(NotFound):
                await self.client.cancel(id)

    async def _cancel(self, id: str) -> None:
        with suppress(NotFound):
            await self.client.cancel(id)
        self.ledger.remove(id)

    async def _send_all(
        self, portions: AsyncIterator[Portion], room: asyncio.Semaphore, sent: "asyncio.Queue[Entry | None]"
    ) -> None:
        await room.acquire()
        async for portion in portions:
            entry = Entry(str(uuid7()), self.recipe.digest, portion.names)
            self.ledger.add(entry)
            await self._send(entry, portion)
            sent.put_nowait(entry)
            await room.acquire()
        sent.put_nowait(None)

    async def _send(self, entry: Entry, portion: Portion) -> None:
        fields = self.recipe.fields
        try:
            await self.client.submit_batch(self.recipe.wasm, portion.runs, id=entry.id, **fields)
        except Conflict:
            raise UsageError("input: a file has changed while it was sent: start again", "input") from None
        except UsageError as error:
            self.ledger.remove(entry.id)
            raise UsageError(_named(str(error), entry.names), error.field) from None
        except (GuestError, NotAllowed):
            self.ledger.remove(entry.id)
            raise

    async def _collect(self, entry: Entry, *, is_earlier: bool = False) -> tuple[Sequence[str], Task]:
        """Take a task's results; return the names that it has none for."""
        left = dict(enumerate(entry.names))
        async with aclosing(self.client.stream(entry.id, order=self.recipe.order)) as results:
            async for result in results:
                if result.run not in left or result.state == "cancelled":
                    continue
                name = left.pop(result.run)
                if is_earlier and (name in self.taken or self.sink.has(name)):
                    continue
                if is_earlier:
                    self.taken.add(name)
                self.progress.add(self.sink.take(name, result))
                if self.is_enough:
                    break
        task = await self.client.task(entry.id)
        if task.has_ended and not self.is_enough:
            self.ledger.remove(entry.id)
        return list(left.values()), task


def _named(text: str, names: Sequence[str]) -> str:
    """Return what is wrong with a run with its input's name."""
    match: re.Match[str] | None = _NAMED_RUN.search(text)
    if match is None or int(match[1]) >= len(names):
        return text
    return f"input {names[int(match[1])]}: {text}"


def _first(several: BaseExceptionGroup[BaseException]) -> BaseException:
    """Return one error of several: the others came of it, or say the same."""
    found: BaseException = several
    while isinstance(found, BaseExceptionGroup):
        found = found.exceptions[0]
    return found
