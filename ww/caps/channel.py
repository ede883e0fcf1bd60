"""A synchronous channel (CSP), and its facets: what one holds of a channel, here or on another node, by the same code.

    channel = Channel(struct(schema.worker.Offer))
    async with channel.sender() as sender:
        await sender.send(offer)
    async for offer in channel.receiver():
        ...

Holds the waiting of those who send and receive around rendezvous.py. Must not know what the values mean, nor how facets
cross to other nodes (facets.py). Semantics: docs/semantics.md. The owner has besides a synchronous view of the waiting
values, so that it can choose among them and commit at once.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Protocol, Self, TypeVar

from ww.caps import rendezvous
from ww.caps.rendezvous import Operation, Rendezvous
from ww.caps.value import ANYTHING, Codec
from ww.errors import ChannelClosed, ClosedError, UsageError

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Chosen:
    """Which case of a select was done."""

    index: int
    value: Any = None
    """What it received."""


@dataclass(frozen=True, slots=True)
class SendCase:
    """A send among the cases of a select."""

    end: "End[Any]"
    value: Any


@dataclass(frozen=True, slots=True)
class ReceiveCase:
    """A receive among the cases of a select."""

    end: "End[Any]"


Case = SendCase | ReceiveCase


class End(Protocol[T]):
    """A channel as a facet sees it: of this process, or of another."""

    async def send(self, value: T) -> None: ...
    async def receive(self) -> T: ...
    async def close(self) -> None: ...
    async def select(self, cases: Sequence[Case], *, may_wait: bool) -> Chosen | None: ...
    def hold(self, *, sends: bool) -> None: ...
    def release(self, *, sends: bool) -> None: ...


class _Operation(Operation):
    """An operation that somebody awaits."""

    __slots__ = ("waiting",)

    def __init__(self, cases: Sequence[rendezvous.Case], waiting: "asyncio.Future[None]") -> None:
        # Cancelled: its task has not run yet to withdraw it, and must not be told that it sent or received.
        super().__init__(cases, is_gone=waiting.cancelled)
        self.waiting = waiting


async def perform(*cases: rendezvous.Case) -> Operation:
    """Do one of cases, on channels of this process, and return how it ended. Raises ChannelClosed, Overloaded.

    Cancelling withdraws it; what was received just then keeps its turn.
    """
    operation = _Operation(cases, asyncio.get_running_loop().create_future())
    _wake(rendezvous.begin(operation))
    if not operation.has_ended:
        try:
            await operation.waiting
        except asyncio.CancelledError:
            case = operation.cases[operation.index]
            if operation.has_ended and isinstance(case, rendezvous.Receive) and not operation.is_closed:
                _wake(case.channel.put_back(operation))
            operation.withdraw()
            raise
    if operation.is_closed:
        raise ChannelClosed("the channel is closed")
    return operation


def _wake(ended: Sequence[Operation]) -> None:
    for operation in ended:
        if isinstance(operation, _Operation) and not operation.waiting.done():
            operation.waiting.set_result(None)


class Channel(Generic[T]):
    """A channel. Whoever has this object owns it; others are given facets."""

    def __init__(
        self,
        codec: Codec[T] = ANYTHING,
        *,
        capacity: int = 0,
        waiting_max: int = 65_536,
        on_waiting: Callable[[], None] | None = None,
    ) -> None:
        """Make an open channel that buffers up to capacity values; 0: a send ends when a receiver took the value.

        codec is how values cross to other nodes. At most waiting_max sends, and as many receives, may wait; a further
        one raises Overloaded. on_waiting is called, inside send, each time a value begins to wait.
        """
        self.codec = codec
        self.core = Rendezvous(capacity, waiting_max=waiting_max, on_waiting=on_waiting)
        self._senders = 0

    async def send(self, value: T) -> None:
        """Wait until a receiver took value, or it is buffered.

        Cancelling withdraws it, or does nothing when it was taken. Raises ChannelClosed, then nobody took it.
        """
        await perform(rendezvous.Send(self.core, self.codec.normalise(value)))

    async def receive(self) -> T:
        """Return the oldest value, waiting for one. Cancelling consumes nothing. Raises ChannelClosed."""
        value: T = (await perform(rendezvous.Receive(self.core))).value
        return value

    def waiting(self) -> Iterator[tuple[int, T]]:
        """Iterate over the values of the waiting sends with their keys, oldest first."""
        return self.core.waiting()

    def take(self, key: int) -> T:
        """Take that waiting value now; the others keep their place. NotFound when it does not wait any more."""
        value, ended = self.core.take(key)
        _wake(ended)
        taken: T = value
        return taken

    def close(self) -> None:
        """Fail what waits, on both sides, with ChannelClosed; what is buffered can still be received. Idempotent."""
        _wake(self.core.close())

    def sender(self) -> "Sender[T]":
        """Return a facet that may send. When the last that may, here and elsewhere, is dropped, the channel closes."""
        return Sender(self.end)

    def receiver(self) -> "Receiver[T]":
        """Return a facet that may receive."""
        return Receiver(self.end)

    def closer(self) -> "Closer[T]":
        """Return a facet that may close."""
        return Closer(self.end)

    def whole(self) -> "Whole[T]":
        """Return a facet that may do all; for other combinations: `SendReceiver(channel.end)` and so on."""
        return Whole(self.end)

    @property
    def end(self) -> "LocalEnd[T]":
        """What a facet is made of."""
        return LocalEnd(self)

    def add_sender(self) -> None:
        """Count one more who may send."""
        self._senders += 1

    def drop_sender(self) -> None:
        """Count one less who may send."""
        self._senders -= 1
        if self._senders == 0:
            self.close()


class LocalEnd(Generic[T]):
    """A channel of this process."""

    def __init__(self, channel: Channel[T]) -> None:
        self._channel = channel

    async def send(self, value: T) -> None:
        await self._channel.send(value)

    async def receive(self) -> T:
        return await self._channel.receive()

    async def close(self) -> None:
        self._channel.close()

    async def select(self, cases: Sequence[Case], *, may_wait: bool) -> Chosen | None:
        wanted = [case.end.as_case(case) for case in cases if isinstance(case.end, LocalEnd)]
        if len(wanted) < len(cases):
            raise UsageError("a select over channels of several nodes: expected channels of one")
        return await choose(wanted, may_wait=may_wait)

    def as_case(self, case: Case) -> rendezvous.Case:
        core = self._channel.core
        if isinstance(case, SendCase):
            return rendezvous.Send(core, self._channel.codec.normalise(case.value))
        return rendezvous.Receive(core)

    def hold(self, *, sends: bool) -> None:
        if sends:
            self._channel.add_sender()

    def release(self, *, sends: bool) -> None:
        if sends:
            self._channel.drop_sender()


async def choose(cases: Sequence[rendezvous.Case], *, may_wait: bool) -> Chosen | None:
    """Do one of cases, on channels of this process; None when none can be done now and it may not wait."""
    if may_wait:
        operation = await perform(*cases)
    else:
        operation = Operation(cases)
        _wake(rendezvous.begin(operation, may_wait=False))
        if not operation.has_ended:
            return None
        if operation.is_closed:
            raise ChannelClosed("the channel is closed")
    return Chosen(operation.index, operation.value)


class _Facet(Generic[T]):
    """What one holds of a channel. Give it back with `release`, or by leaving `async with`."""

    _sends = False

    def __init__(self, end: End[T]) -> None:
        self._end: End[T] | None = end
        end.hold(sends=self._sends)

    @property
    def end(self) -> End[T]:
        """The channel; ClosedError when the facet was released."""
        if self._end is None:
            raise ClosedError("the facet was released")
        return self._end

    def release(self) -> None:
        """Hold it no longer. Idempotent."""
        end, self._end = self._end, None
        if end is not None:
            end.release(sends=self._sends)

    async def select(self, *cases: Case, may_wait: bool = True) -> Chosen | None:
        """Do one of cases, each of a channel that lives where this one does; at random when several can be done.

        None when none can be done now and it may not wait. Raises ChannelClosed when the chosen one's is closed.
        """
        if not cases:
            raise UsageError("a select of nothing: expected cases")
        return await self.end.select(cases, may_wait=may_wait)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.release()

    def __del__(self) -> None:
        self.release()


class Sender(_Facet[T]):
    """May send."""

    _sends = True

    async def send(self, value: T) -> None:
        """Wait until a receiver took value, or it is buffered. Raises ChannelClosed: then nobody took it.

        Cancelling withdraws it; on another node, when that is known there before it is taken.
        """
        await self.end.send(value)

    def sending(self, value: T) -> SendCase:
        """Return the send as a case of a select."""
        return SendCase(self.end, value)


class Receiver(_Facet[T]):
    """May receive. Iterating receives until the channel is closed."""

    async def receive(self) -> T:
        """Return the oldest value, waiting for one. Raises ChannelClosed. Cancelling consumes nothing here."""
        return await self.end.receive()

    def receiving(self) -> ReceiveCase:
        """Return the receive as a case of a select."""
        return ReceiveCase(self.end)

    async def __aiter__(self) -> AsyncIterator[T]:
        while True:
            try:
                value = await self.receive()
            except ChannelClosed:
                return
            yield value


class Closer(_Facet[T]):
    """May close."""

    async def close(self) -> None:
        """Let nothing be sent any more. Idempotent."""
        await self.end.close()


class SendReceiver(Sender[T], Receiver[T]):
    """May send and receive."""


class SendCloser(Sender[T], Closer[T]):
    """May send and close."""


class ReceiveCloser(Receiver[T], Closer[T]):
    """May receive and close."""


class Whole(Sender[T], Receiver[T], Closer[T]):
    """May do all."""
