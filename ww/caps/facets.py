"""Facets of a channel on other nodes: the servers that a channel's owner exports, and what wraps one that was received.

Holds the wire side of channel.py. Must not know what the values mean: a codec says how they are written and read. A
server's last reference going, with its peer's connection for instance, is how a facet is dropped.
"""

import asyncio
import contextlib
import secrets
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any, ClassVar, Final, Generic, TypeVar

from ww import schema
from ww.caps import channel as channels
from ww.caps import rendezvous
from ww.caps.channel import Case, Channel, Chosen, ReceiveCase, SendCase
from ww.caps.value import ANYTHING, Codec
from ww.errors import ClosedError, Overloaded, UsageError
from ww.rpc.errors import call
from ww.rpc.message import listed

T = TypeVar("T")

_CASES_MAX: Final = 64
# Seconds for the facets of a select to say that they are of this node; they are, so it takes a turn of the loop.
_PRESENT_S: Final = 5.0


class _FacetServer(Generic[T]):
    """What all facets have."""

    sends = receives = False
    # Facets that a select under way here has asked to present themselves, by its nonce: pycapnp does not tell which
    # server a capability of ours leads to.
    _presented: ClassVar[dict[bytes, "asyncio.Future[_FacetServer[Any]]"]] = {}

    def __init__(self, channel: Channel[T], codec: Codec[T] | None = None, *, waiting_max: int = 1024) -> None:
        """Serve a facet of channel; at most waiting_max operations of whoever holds it may wait at a time."""
        self.channel = channel
        self.codec = codec or channel.codec
        self._waiting_max = waiting_max
        self._waiting = 0
        if self.sends:
            channel.add_sender()

    def __del__(self) -> None:
        if self.sends:
            self.channel.drop_sender()

    @contextlib.contextmanager
    def _one_more(self) -> Iterator[None]:
        if self._waiting >= self._waiting_max:
            raise Overloaded(f"{self._waiting_max} operations of this peer are waiting, the limit")
        self._waiting += 1
        try:
            yield
        finally:
            self._waiting -= 1

    async def present_context(self, context: Any) -> None:
        presented = self._presented.get(context.params.nonce)
        if presented is not None and not presented.done():
            presented.set_result(self)
            # Until the select is over: who withdraws this facet ends this call, and the select with it.
            await asyncio.Event().wait()

    async def select_context(self, context: Any) -> None:
        asked = listed("cases", context.params.cases, _CASES_MAX)
        if not asked:
            raise UsageError("a select of nothing: expected cases")
        with self._one_more():
            async with contextlib.AsyncExitStack() as stack:
                held = [await stack.enter_async_context(_facet_of(case)) for case in asked]
                facets = [facet for facet, _ in held]
                cases = [_as_case(facet, case) for facet, case in zip(facets, asked, strict=True)]
                with _ended_by([presence for _, presence in held]):
                    chosen = await channels.choose(cases, may_wait=context.params.mayWait)
            if chosen is None:
                context.results.index = -1
                return
            context.results.index = chosen.index
            if asked[chosen.index].which() == "receive":
                facets[chosen.index].codec.write(chosen.value, context.results)


class _Sends(_FacetServer[T]):
    sends = True

    async def send_context(self, context: Any) -> None:
        # Before anything is awaited: a capability inside the value dies with the call's parameters.
        value = self.codec.read(context.params)
        with self._one_more():
            await self.channel.send(value)


class _Receives(_FacetServer[T]):
    receives = True

    async def receive_context(self, context: Any) -> None:
        with self._one_more():
            value = await self.channel.receive()
        # Nothing is awaited after it: whoever is cancelled now has not had it, or has it.
        self.codec.write(value, context.results)


class _Closes(_FacetServer[T]):
    async def close_context(self, context: Any) -> None:
        self.channel.close()


class SenderServer(_Sends[T], schema.channel.Sender.Server):  # type: ignore[misc]
    """May send, and nothing else."""


class ReceiverServer(_Receives[T], schema.channel.Receiver.Server):  # type: ignore[misc]
    """May receive."""


class CloserServer(_Closes[T], schema.channel.Closer.Server):  # type: ignore[misc]
    """May close."""


class SendReceiverServer(_Sends[T], _Receives[T], schema.channel.SendReceiver.Server):  # type: ignore[misc]
    """May send and receive."""


class SendCloserServer(_Sends[T], _Closes[T], schema.channel.SendCloser.Server):  # type: ignore[misc]
    """May send and close."""


class ReceiveCloserServer(_Receives[T], _Closes[T], schema.channel.ReceiveCloser.Server):  # type: ignore[misc]
    """May receive and close."""


class WholeServer(_Sends[T], _Receives[T], _Closes[T], schema.channel.Whole.Server):  # type: ignore[misc]
    """May do all."""


@contextlib.asynccontextmanager
async def _facet_of(case: Any) -> AsyncIterator[tuple[_FacetServer[Any], "asyncio.Future[Any]"]]:
    """Find the server, here, that a case leads to, and the call that lasts for as long as it may be used."""
    sends = case.which() == "send"
    capability = case.send.sender if sends else case.receive
    nonce = secrets.token_bytes(16)
    presented: asyncio.Future[_FacetServer[Any]] = asyncio.get_running_loop().create_future()
    _FacetServer._presented[nonce] = presented
    presence = asyncio.ensure_future(call(capability.present(nonce)))
    try:
        await asyncio.wait((presented, presence), timeout=_PRESENT_S, return_when=asyncio.FIRST_COMPLETED)
        if not presented.done():
            if presence.done():
                presence.result()
            raise UsageError("a select over channels of several nodes: expected channels of this one")
        facet = presented.result()
        if not (facet.sends if sends else facet.receives):
            raise UsageError("a case's facet does not allow it")
        yield facet, presence
    finally:
        del _FacetServer._presented[nonce]
        presence.cancel()
        presented.cancel()


@contextlib.contextmanager
def _ended_by(presences: list["asyncio.Future[Any]"]) -> Iterator[None]:
    """End what is awaited inside, as a cancel would, when one of presences fails; and raise what that failed with."""
    task = asyncio.current_task()
    assert task is not None
    failed: list[asyncio.Future[Any]] = []

    def end(presence: "asyncio.Future[Any]") -> None:
        if not presence.cancelled():
            presence.exception()  # looked at, though another may be what ends it
        if not failed:
            failed.append(presence)
            task.cancel()

    for presence in presences:
        presence.add_done_callback(end)
    try:
        yield
    except asyncio.CancelledError:
        # Cancelled by nobody else: as asyncio.timeout does it.
        if failed and not task.uncancel():
            failed[0].result()
        raise
    finally:
        for presence in presences:
            presence.remove_done_callback(end)


def _as_case(facet: _FacetServer[Any], case: Any) -> rendezvous.Case:
    core = facet.channel.core
    if case.which() == "send":
        return rendezvous.Send(core, facet.codec.read(case.send))
    return rendezvous.Receive(core)


class RemoteEnd(Generic[T]):
    """A channel of another node, by the capability that the node gave."""

    def __init__(self, client: Any, codec: Codec[T]) -> None:
        self._client = client
        self._codec = codec

    async def send(self, value: T) -> None:
        request = self._client.send_request()
        self._codec.write(value, request)
        await call(request.send())

    async def receive(self) -> T:
        return self._codec.read(await call(self._client.receive()))

    async def close(self) -> None:
        await call(self._client.close())

    async def select(self, cases: Sequence[Case], *, may_wait: bool) -> Chosen | None:
        request = self.client.select_request()
        request.mayWait = may_wait
        for case, asked in zip(cases, request.init("cases", len(cases)), strict=True):
            end = case.end
            if not isinstance(end, RemoteEnd):
                raise UsageError("a select over channels of several nodes: expected channels of one")
            if isinstance(case, SendCase):
                send = asked.init("send")
                send.sender = end.client
                end._codec.write(case.value, send)
            else:
                asked.receive = end.client
        answer = await call(request.send())
        return None if answer.index < 0 else Chosen(answer.index, _received(cases[answer.index], answer))

    def hold(self, *, sends: bool) -> None:
        pass

    def release(self, *, sends: bool) -> None:
        self._client = None

    @property
    def client(self) -> Any:
        """The capability; ClosedError when the facet was released."""
        if self._client is None:
            raise ClosedError("the facet was released")
        return self._client


def _received(case: Case, answer: Any) -> Any:
    end = case.end
    return end._codec.read(answer) if isinstance(case, ReceiveCase) and isinstance(end, RemoteEnd) else None


_FACETS: Final = {
    "Sender": channels.Sender,
    "Receiver": channels.Receiver,
    "Closer": channels.Closer,
    "SendReceiver": channels.SendReceiver,
    "SendCloser": channels.SendCloser,
    "ReceiveCloser": channels.ReceiveCloser,
    "Whole": channels.Whole,
}


def facet_of(client: Any, codec: Codec[T] = ANYTHING) -> Any:
    """Wrap a capability of a facet of another node's channel as the facet of channel.py that may do the same."""
    name = client.schema.node.displayName.rpartition(":")[2]
    return _FACETS[name](RemoteEnd(client, codec))
