"""Who wants to hear that a task changed.

Holds waiting readers alone. Must not know what changed: a reader that is woken looks for itself, so however slow it is,
nothing is kept for it but the ids it has not looked at.
"""

import asyncio
import contextlib
from collections.abc import Callable
from types import TracebackType
from typing import Self


class Watch:
    """One reader. Use it with `with`; what it does not hear of any more is `closed`."""

    def __init__(self, watches: "Watches", *, only_ends: bool) -> None:
        self._watches = watches
        self._changed: set[str] = set()
        self._ids: set[str] = set()
        self._event = asyncio.Event()
        self.only_ends = only_ends
        self.is_closed = False
        """Whether the gateway is stopping: nothing further will be told."""

    def add(self, id: str) -> None:
        """Hear of the task of that id too, whether there is one or not."""
        self._ids.add(id)
        self._watches.readers.setdefault(id, set()).add(self)

    def discard(self, id: str) -> None:
        """Hear of it no more."""
        self._ids.discard(id)
        self._changed.discard(id)
        if (readers := self._watches.readers.get(id)) is not None:
            readers.discard(self)
            if not readers:
                del self._watches.readers[id]

    async def changes(self, timeout_s: float | None = None) -> set[str]:
        """Wait until something changed; return the ids of what did since the last call, none after timeout_s."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._event.wait()
        changed, self._changed = self._changed, set()
        if not self.is_closed:
            self._event.clear()
        return changed

    def tell(self, id: str | None) -> None:
        """Note that a task changed; without an id, that nothing further will be told."""
        if id is None:
            self.is_closed = True
        else:
            self._changed.add(id)
        self._event.set()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for id in list(self._ids):
            self.discard(id)


class Watches:
    """All readers, by the ids of the tasks that they watch."""

    def __init__(self) -> None:
        self.readers: dict[str, set[Watch]] = {}
        self.listeners: list[Callable[[str], object]] = []
        """Are called with the id of every task that changed, at once: they must be quick."""
        self.is_closed = False
        """Whether nothing further will be told."""

    def open(self, *ids: str, only_ends: bool = False) -> Watch:
        """Make a reader of those tasks: of every change of them, or of their ends alone."""
        watch = Watch(self, only_ends=only_ends)
        for id in ids:
            watch.add(id)
        if self.is_closed:
            watch.tell(None)
        return watch

    def notify(self, id: str, *, has_ended: bool = False) -> None:
        """Wake those who watch that task."""
        for listener in self.listeners:
            listener(id)
        for watch in self.readers.get(id, ()):
            if has_ended or not watch.only_ends:
                watch.tell(id)

    def close(self) -> None:
        """Wake everybody: nothing further will be told."""
        self.is_closed = True
        for readers in list(self.readers.values()):
            for watch in readers:
                watch.tell(None)
