"""Those who hold facets of channels: in this process, or each on a node of its own, by the same code."""

import asyncio
import contextlib
from typing import Any, Self

from ww import schema
from ww.caps import channel as channels
from ww.caps import facets
from ww.caps.channel import Channel
from ww.caps.value import interface
from ww.identity import Identity
from ww.net.memory import MemoryTransport, Network
from ww.net.tls import TlsTransport
from ww.net.transport import Transport
from ww.node import LOOPBACK
from ww.rpc.connection import Connection
from ww.rpc.vat import Vat

SERVERS: dict[Any, Any] = {
    channels.Sender: facets.SenderServer,
    channels.Receiver: facets.ReceiverServer,
    channels.Closer: facets.CloserServer,
    channels.SendReceiver: facets.SendReceiverServer,
    channels.SendCloser: facets.SendCloserServer,
    channels.ReceiveCloser: facets.ReceiveCloserServer,
    channels.Whole: facets.WholeServer,
}


class Somebody:
    """Holds facets; a remote one over a connection of its own."""

    def __init__(self, world: "World", connection: Connection | None = None) -> None:
        self._world = world
        self.connection = connection

    async def hold(self, channel: Channel[Any], kind: Any) -> Any:
        """Be handed a facet of channel, of that class of channel.py."""
        if self.connection is None:
            return kind(channel.end)
        asking = await self.connection.connect("handout", schema.channel.Receiver)
        handing = asyncio.create_task(self._world.handout.send(SERVERS[kind](channel)))
        answer = await asking.receive()
        await handing
        return facets.facet_of(answer.capability.as_interface(getattr(schema.channel, kind.__name__)), channel.codec)

    def leave(self) -> None:
        """Break off the connection."""
        assert self.connection is not None
        self.connection.close()


class World:
    """Makes holders: `local`, or `memory` and `tls`, which is how the remote ones are connected."""

    def __init__(self, kind: str) -> None:
        self.is_remote = kind != "local"
        self.names = 0
        self.friend: Somebody | None = None
        self._kind = kind
        self._stack = contextlib.AsyncExitStack()
        self._network = Network()
        self.handout: Channel[Any] = Channel(interface(schema.channel.Facet))

    def transport(self, identity: Identity) -> Transport:
        return TlsTransport(identity) if self._kind == "tls" else MemoryTransport(self._network, identity)

    async def vat(self) -> Vat:
        """Start one more node."""
        identity = Identity.generate()
        return await self._stack.enter_async_context(Vat(identity, self.transport(identity)))

    async def somebody(self) -> Somebody:
        """Make somebody new."""
        if not self.is_remote:
            return Somebody(self)
        vat = await self.vat()
        connection = await vat.dial(self.owner.peer_id, self.addresses)
        self._stack.callback(connection.close)
        return Somebody(self, connection)

    async def __aenter__(self) -> Self:
        if self.is_remote:
            self.owner = await self.vat()
            self.owner.export("handout", lambda _: facets.ReceiverServer(self.handout))
            self.addresses = await self.owner.listen(LOOPBACK)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()
