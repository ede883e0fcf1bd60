"""A synchronous channel (CSP): a send meets a receive, first come first served.

Holds the channel itself, local and free of any wire, and SenderServer, the facet by which remote peers send into it.
Must not know what the values mean: whoever serves a facet says how a value is read. Semantics: docs/semantics.md.
The owner has besides `receive` a synchronous view of the waiting values, so that it can choose among them and commit
at once.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, Generic, TypeVar

from ww import schema
from ww.errors import ChannelClosed, NotFound, Overloaded

T = TypeVar("T")


class Channel(Generic[T]):
    """A channel of capacity 0: a send ends when a receiver took the value."""

    def __init__(self, *, sends_max: int = 65_536, on_waiting: Callable[[], None] | None = None) -> None:
        """Make an open channel.

        At most sends_max sends may wait; a further one raises Overloaded. on_waiting is called, inside send, each time
        a value begins to wait.
        """
        self._sends: dict[int, tuple[T, asyncio.Future[None]]] = {}
        self._receives: deque[asyncio.Future[T]] = deque()
        # Taken for a receiver that was cancelled before it ran: its sender is told, so the value keeps its turn.
        self._returned: deque[T] = deque()
        self._next_key = 0
        self._sends_max = sends_max
        self._on_waiting = on_waiting
        self._closed = False

    async def send(self, value: T) -> None:
        """Wait until a receiver took value.

        Cancelling withdraws it, or does nothing when it was taken. Raises ChannelClosed, then nobody took it.
        """
        if self._closed:
            raise ChannelClosed("the channel is closed")
        while self._receives:
            receive = self._receives.popleft()
            if not receive.done():
                receive.set_result(value)
                return
        if len(self._sends) >= self._sends_max:
            raise Overloaded(f"{self._sends_max} sends are waiting, the limit")
        taken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        key = self._next_key = self._next_key + 1
        self._sends[key] = (value, taken)
        if self._on_waiting is not None:
            self._on_waiting()
        try:
            await taken
        finally:
            self._sends.pop(key, None)

    async def receive(self) -> T:
        """Return the oldest value, waiting for one. Cancelling consumes nothing. Raises ChannelClosed."""
        if self._returned:
            return self._returned.popleft()
        if self._sends:
            return self.take(next(iter(self._sends)))
        if self._closed:
            raise ChannelClosed("the channel is closed")
        receive: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._receives.append(receive)
        try:
            return await receive
        except asyncio.CancelledError:
            if receive.done() and not receive.cancelled() and receive.exception() is None:
                self._give_back(receive.result())
            else:
                # Nobody hands a value to a receive that has left.
                self._receives.remove(receive)
            raise

    def waiting(self) -> Iterator[tuple[int, T]]:
        """Iterate over the values of the waiting sends with their keys, oldest first."""
        return ((key, value) for key, (value, _) in self._sends.items())

    def take(self, key: int) -> T:
        """Take that waiting value now; the others keep their place. NotFound when it does not wait any more."""
        entry = self._sends.pop(key, None)
        if entry is None:
            raise NotFound("that send does not wait any more")
        value, taken = entry
        if not taken.done():
            taken.set_result(None)
        return value

    def close(self) -> None:
        """Fail what waits, on both sides, with ChannelClosed. Idempotent."""
        self._closed = True
        waiting = [taken for _, taken in self._sends.values()]
        self._sends.clear()
        futures: list[asyncio.Future[Any]] = [*waiting, *self._receives]
        for future in futures:
            if not future.done():
                future.set_exception(ChannelClosed("the channel is closed"))
        self._receives.clear()

    def _give_back(self, value: T) -> None:
        while self._receives:
            receive = self._receives.popleft()
            if not receive.done():
                receive.set_result(value)
                return
        self._returned.append(value)


class SenderServer(schema.channel.Sender.Server, Generic[T]):  # type: ignore[misc]
    """The sending facet. Whoever holds it can send, and nothing else."""

    def __init__(self, channel: Channel[T], read: Callable[[Any], T], *, sends_max: int = 1024) -> None:
        """Send into channel what read makes of each AnyPointer; read may raise UsageError to refuse it.

        At most sends_max sends of this holder may wait at a time.
        """
        self._channel = channel
        self._read = read
        self._sends_max = sends_max
        self._sends = 0

    async def send_context(self, context: Any) -> None:
        if self._sends >= self._sends_max:
            raise Overloaded(f"{self._sends_max} sends of this peer are waiting, the limit")
        # Before anything is awaited: a capability inside the value dies with the call's parameters.
        value = self._read(context.params.value)
        self._sends += 1
        try:
            await self._channel.send(value)
        finally:
            self._sends -= 1
