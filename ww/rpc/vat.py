"""A vat: what this node exports under a name, and how it gets what others export.

Holds the connections in and out and the first thing said on each (schema/vat.capnp). Must not know what the exported
capabilities do, nor how bytes travel (net/transport.py). Every capability a peer holds came from here or from a call
on one that did.
"""

import asyncio
import contextlib
import functools
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Self

import capnp

from ww import schema
from ww.errors import Disconnected, NotAdmitted, NotFound, PeerError, ProtocolMismatch
from ww.identity import Identity, PeerId
from ww.net.multiaddr import Multiaddr
from ww.net.transport import Listener, Stream, Transport
from ww.rpc.admission import Admission, Open
from ww.rpc.errors import call, one_line
from ww.rpc.loop import first_of
from ww.rpc.race import race
from ww.rpc.stream import CapnpStream

log = logging.getLogger("ww.rpc")

PROTOCOL_VERSION: Final = 1
# 64 MiB a message; a peer that sends more is disconnected.
_TRAVERSAL_LIMIT_WORDS: Final = 8 << 20
_NESTING_LIMIT: Final = 32


@dataclass(frozen=True, slots=True, eq=False)
class Peer:
    """Who is at the other end of one connection, as far as it is proved. Two connections are two Peers."""

    peer_id: PeerId
    """The key that the connection was authenticated with."""
    remote: str
    """Where it comes from, for logs."""
    hang_up: Callable[[], None] = lambda: None
    """Closes the connection."""
    closed: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when the connection is gone."""


Export = Callable[[Peer], Any]
"""Makes the capability server that one peer gets for a name. Called once a connection and name."""


class Vat:
    """Exports capabilities by name and connects to other vats."""

    def __init__(
        self,
        identity: Identity,
        transport: Transport,
        *,
        namespace: str = "ww",
        admission: Admission | None = None,
        hello_timeout_s: float = 5.0,
        version: int = PROTOCOL_VERSION,
    ) -> None:
        """Speak for identity over transport.

        Peers of another namespace are refused, as are those that admission does not let in, and those that do not say
        hello within hello_timeout_s.
        """
        self.peer_id = identity.peer_id
        self._transport = transport
        self._namespace = namespace
        self._admission: Admission = admission or Open()
        self._hello_timeout_s = hello_timeout_s
        self._version = version
        self._exports: dict[str, Export] = {}
        self._listeners: list[Listener] = []
        self._served: asyncio.TaskGroup | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._connections: set[Connection] = set()

    async def __aenter__(self) -> Self:
        self._served = await asyncio.TaskGroup().__aenter__()
        return self

    async def __aexit__(self, *_: object) -> None:
        for listener in self._listeners:
            await listener.aclose()
        for connection in list(self._connections):
            connection.close()
        for task in self._tasks:
            task.cancel()
        if self._served is not None:
            served, self._served = self._served, None
            # Not told of the error: a group would wrap it, and the served connections are cancelled already.
            await served.__aexit__(None, None, None)

    def export(self, name: str, make: Export) -> None:
        """Let peers that connect ask for name; each gets what make returns for it."""
        self._exports[name] = make

    async def listen(self, address: Multiaddr) -> list[Multiaddr]:
        """Accept peers at address and return the addresses it can be reached at. UsageError when it cannot be had."""
        listener = await self._transport.serve(address, self._accept)
        self._listeners.append(listener)
        return listener.addresses

    async def dial(
        self,
        peer_id: PeerId,
        addresses: Sequence[Multiaddr],
        on_failure: Callable[[Multiaddr], object] = lambda address: None,
    ) -> "Connection":
        """Connect to that peer at whichever of addresses it answers first; the first ones have a head start.

        on_failure is told of each address that does not lead to it. Raises PeerMismatch when another peer is there,
        ProtocolMismatch or NotAdmitted when it will not talk to us, PeerError when nobody answers. Close the Connection
        when done.
        """
        if not addresses:
            where = f"in namespace {self._namespace!r} on this machine"
            raise PeerError(f"no address of {peer_id} is known {where}: name one with --addr")

        async def reach(address: Multiaddr) -> Stream:
            try:
                return await self._transport.dial(address, peer_id)
            except PeerError:
                on_failure(address)
                raise

        ways = [functools.partial(reach, address) for address in addresses]
        return await self._greet(peer_id, await race(ways, Stream.abort))

    async def _greet(self, peer_id: PeerId, stream: Stream) -> "Connection":
        connection = Connection(peer_id, stream, self._connections.discard)
        self._connections.add(connection)
        try:
            try:
                async with asyncio.timeout(self._hello_timeout_s):
                    answer = await call(connection.bootstrap.hello(version=self._version, namespace=self._namespace))
            except TimeoutError:
                raise PeerError(f"{peer_id} does not answer: no hello within {self._hello_timeout_s:g} s") from None
            except Disconnected:
                raise PeerError(f"{peer_id} closed the connection before saying hello") from None
            if answer.version != self._version:
                older = "it" if answer.version < self._version else "this node"
                speaks = f"speaks protocol version {answer.version}, this node speaks {self._version}"
                raise ProtocolMismatch(f"{peer_id} {speaks}: update {older}")
            if answer.refused:
                refusal = one_line(answer.refused)
                if answer.namespace != self._namespace:
                    theirs = one_line(answer.namespace)
                    raise ProtocolMismatch(
                        f"{peer_id} is in namespace {theirs!r}, this node is in {self._namespace!r}: see --ns"
                    )
                raise NotAdmitted(f"{peer_id} refuses this node: {refusal}")
            connection.exports = answer.exports
        except BaseException:
            connection.close()
            raise
        return connection

    def _accept(self, stream: Stream) -> None:
        if self._served is None:
            stream.abort()
            return
        task = self._served.create_task(self._supervise(stream))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _supervise(self, stream: Stream) -> None:
        try:
            await self._serve(stream)
        except Exception:
            # One connection's failure is not the others'.
            log.exception("serving %s failed", stream.remote)

    async def _serve(self, stream: Stream) -> None:
        assert stream.peer_id is not None
        peer = Peer(stream.peer_id, stream.remote, stream.abort)
        bootstrap = VatServer(self, peer)
        pipe = CapnpStream(stream)
        server = capnp.TwoPartyServer(pipe.capnp_stream, bootstrap, _TRAVERSAL_LIMIT_WORDS, _NESTING_LIMIT)
        try:
            try:
                async with asyncio.timeout(self._hello_timeout_s):
                    await bootstrap.greeted_or(stream)
            except TimeoutError:
                log.warning("refused %s at %s: said no hello in time", peer.peer_id, peer.remote)
                return
            if bootstrap.refused is not None:
                log.warning("refused %s at %s: %s", peer.peer_id, peer.remote, bootstrap.refused)
                # It reads why and goes; one that stays is put out.
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(self._hello_timeout_s):
                        await stream.wait_closed()
                return
            await first_of(stream.wait_closed(), server.on_disconnect())
            if not stream.is_closing():
                log.warning("dropped %s at %s: it does not speak Cap'n Proto", peer.peer_id, peer.remote)
                stream.abort()
        finally:
            peer.closed.set()
            bootstrap.forget()
            server.close()
            pipe.capnp_stream.close()
            stream.close()

    async def judge(self, peer: Peer, version: int, namespace: str) -> str | None:
        """Return why this vat will not talk to peer, in one line it may read, or None when it will."""
        if version != self._version:
            return f"speaks protocol version {version}, this node speaks {self._version}"
        if namespace != self._namespace:
            return f"this node is in namespace {self._namespace}, not {one_line(namespace)[:64]}"
        if peer.peer_id == self.peer_id:  # whoever holds this node's key could be this node
            return None
        return await self._admission.refusal(peer.peer_id)

    def fill_hello(self, results: Any) -> None:
        """Say who this vat is."""
        results.version = self._version
        results.namespace = self._namespace

    def find_export(self, name: str) -> Export:
        """Return what makes the capability of that name; NotFound when nothing is exported under it."""
        make = self._exports.get(name)
        if make is None:
            raise NotFound(f"this node exports nothing named {one_line(name)[:64]!r}")
        return make


class VatServer(schema.vat.Vat.Server):  # type: ignore[misc]
    """The bootstrap capability of one accepted connection."""

    def __init__(self, vat: Vat, peer: Peer) -> None:
        self._vat = vat
        self._peer = peer
        self._exports: ExportsServer | None = None
        self._greeted = asyncio.Event()
        self.refused: str | None = None

    async def hello_context(self, context: Any) -> None:
        version, namespace = context.params.version, context.params.namespace
        self._vat.fill_hello(context.results)
        self.refused = await self._vat.judge(self._peer, version, namespace)
        if self.refused is None:
            self._exports = self._exports or ExportsServer(self._vat, self._peer)
            context.results.exports = self._exports
        else:
            context.results.refused = self.refused
        self._greeted.set()

    async def greeted_or(self, stream: Stream) -> None:
        """Return when the peer said hello, or is gone."""
        await first_of(stream.wait_closed(), self._greeted.wait())

    def forget(self) -> None:
        """Drop what was made for this connection."""
        if self._exports is not None:
            self._exports.made.clear()


class ExportsServer(schema.vat.Exports.Server):  # type: ignore[misc]
    """What one admitted peer may ask for."""

    def __init__(self, vat: Vat, peer: Peer) -> None:
        self._vat = vat
        self._peer = peer
        self.made: dict[str, Any] = {}

    async def connect_context(self, context: Any) -> None:
        name = context.params.name
        if name not in self.made:
            self.made[name] = self._vat.find_export(name)(self._peer)
        context.results.capability = self.made[name]


class Connection:
    """A connection this vat dialled."""

    def __init__(self, peer_id: PeerId, stream: Stream, on_close: Callable[["Connection"], None]) -> None:
        self.peer_id = peer_id
        self._stream = stream
        self._on_close = on_close
        self._pipe = CapnpStream(stream)
        self._client = capnp.TwoPartyClient(self._pipe.capnp_stream, _TRAVERSAL_LIMIT_WORDS, _NESTING_LIMIT)
        self.bootstrap: Any = self._client.bootstrap().cast_as(schema.vat.Vat)
        self.exports: Any = None

    async def connect(self, name: str, interface: Any) -> Any:
        """Return what the peer exports under name, as a client of that schema interface; NotFound when nothing."""
        if self.exports is None:
            raise Disconnected("the connection was closed")
        answer = await call(self.exports.connect(name))
        return answer.capability.as_interface(interface)

    async def wait_closed(self) -> None:
        """Return when the connection is gone, or good for nothing any more: the peer does not speak Cap'n Proto."""
        if self._client is None:  # closed by us
            await self._stream.wait_closed()
        else:
            await first_of(self._stream.wait_closed(), self._client.on_disconnect())

    def close(self) -> None:
        """Let go of everything obtained through this connection. Idempotent."""
        if self._client is not None:
            self._on_close(self)
            self._client.close()
            self._client = self.exports = self.bootstrap = None
            self._pipe.capnp_stream.close()
            self._stream.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()
