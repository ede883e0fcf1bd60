"""A valid conversation with tests/rpc/fuzz_target.py, recorded frame by frame: to be replayed, and spoilt."""

import asyncio
from dataclasses import dataclass
from typing import Any

import pytest

from tests.rpc.frames import split
from ww import schema
from ww.caps import channel as channels
from ww.caps.channel import Channel
from ww.caps.facets import RemoteEnd, SenderServer
from ww.caps.value import ANYTHING, TEXT
from ww.errors import UsageError
from ww.identity import Identity, PeerId
from ww.net.multiaddr import Multiaddr
from ww.net.tls import TlsTransport
from ww.net.transport import Receiver, Stream
from ww.rpc.errors import call
from ww.rpc.vat import Connection, Vat


@dataclass(frozen=True)
class Said:
    """One frame, and how many had come from the other side when it was sent."""

    frame: bytes
    after: int


class _Tap:
    """Stands between a stream and its receiver and counts the frames that come."""

    def __init__(self, receiver: Receiver) -> None:
        self._receiver = receiver
        self._rest = b""
        self.frames = 0

    def data_received(self, data: bytes) -> None:
        frames, self._rest = split(self._rest + data)
        self.frames += len(frames)
        self._receiver.data_received(data)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._receiver, name)


class Recorder(TlsTransport):
    """Keeps what is said on the connection that it dials."""

    def __init__(self, identity: Identity) -> None:
        super().__init__(identity)
        self.said: list[Said] = []

    async def dial(self, address: Multiaddr, expect: PeerId) -> Stream:
        stream = await super().dial(address, expect)
        attach, write = stream.attach, stream.write

        def attach_tap(receiver: Receiver) -> None:
            self._tap = _Tap(receiver)
            attach(self._tap)

        def keep_and_write(data: bytes) -> None:
            self.said += [Said(frame, self._tap.frames) for frame in split(data)[0]]
            write(data)

        stream.attach, stream.write = attach_tap, keep_and_write  # type: ignore[method-assign]
        return stream


class _Worker(schema.worker.Worker.Server):  # type: ignore[misc]
    """Answers when it may."""

    def __init__(self) -> None:
        self.may_answer = asyncio.Event()

    async def load_context(self, context: Any) -> None:
        await self.may_answer.wait()
        context.results.program = _Program()


class _Program(schema.worker.Program.Server):  # type: ignore[misc]
    async def run_context(self, context: Any) -> None:
        context.results.ended = True


async def record(peer_id: PeerId, address: Multiaddr) -> list[Said]:
    """Hold a conversation with every type of message that peers of ours send, and return our side of it."""
    identity = Identity.generate()
    recorder = Recorder(identity)
    async with Vat(identity, recorder) as vat, await vat.dial(peer_id, [address]) as connection:
        async with asyncio.timeout(10):
            await _converse(connection)
    return recorder.said


async def _converse(connection: Connection) -> None:
    whole = await connection.connect("whole", schema.channel.Whole)
    sending = asyncio.ensure_future(call(whole.send("some text")))
    await call(whole.receive())
    await sending
    await _there_and_back(whole)
    await _select(whole)
    for pending in (whole.send("withdrawn"), whole.receive()):
        given_up = asyncio.ensure_future(call(pending))
        # Asked for and let go of: the answer comes after the pending call was heard.
        await connection.connect("spare", schema.channel.Sender)
        given_up.cancel()
        await asyncio.wait((given_up,))
    await call(whole.close())


async def _there_and_back(whole: Any) -> None:
    """Send a capability, and a promise of one, and make calls on them before they are back: resolve and disembargo."""
    worker = _Worker()
    ours = schema.worker.Worker._new_client(worker)
    receiving = whole.receive()
    early = receiving.capability.cast_as(schema.worker.Worker).load(b"early")
    request = whole.send_request()
    request.capability = ours
    await call(request.send())
    await call(receiving)
    promised = ours.load(b"promised")
    request = whole.send_request()
    request.capability = promised.program
    sending = asyncio.ensure_future(call(request.send()))
    back = await call(whole.receive())
    await sending
    run = back.capability.as_interface(schema.worker.Program).run(schema.worker.Invocation.new_message())
    worker.may_answer.set()
    await call(early)
    await call(run)
    await call(promised)


async def _select(whole: Any) -> None:
    """Select by what we were given, and by what we serve ourselves, which the other side then calls."""
    both: Any = channels.SendReceiver(RemoteEnd(whole, TEXT))
    await both.select(both.receiving(), both.sending("nobody"), may_wait=False)
    sending = asyncio.ensure_future(both.send("chosen"))
    await both.select(both.receiving())
    await sending
    own: Channel[Any] = Channel(ANYTHING)
    request = whole.select_request()
    case = request.init("cases", 1)[0].init("send")
    case.sender = SenderServer(own)
    # A facet that is not of that node is refused, but only once we were asked to present it.
    with pytest.raises(UsageError):
        await call(request.send())
