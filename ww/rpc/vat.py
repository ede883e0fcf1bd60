"""A vat: who may connect to this node, and how it connects to others.

Holds the connections in and out and the first thing said on each (schema/vat.capnp). Must not know what the exported
capabilities do (exports.py has their names), nor how bytes travel (net/transport.py). Every capability a peer holds
came from here or from a call on one that did.
"""

import asyncio
import contextlib
import functools
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Self

import capnp

from ww import schema
from ww.errors import Conflict, Disconnected, NotAdmitted, Overloaded, PeerError, ProtocolMismatch
from ww.identity import Identity, PeerId
from ww.net.multiaddr import Multiaddr
from ww.net.transport import Listener, Stream, Transport
from ww.rpc.account import Account, Meter, PeerLimits
from ww.rpc.admission import Admission, Open
from ww.rpc.connection import NESTING_LIMIT, TRAVERSAL_LIMIT_WORDS, Connection, Dialling, Link
from ww.rpc.errors import call, one_line
from ww.rpc.exports import Export, Exports, ExportsServer, Peer
from ww.rpc.loop import first_of
from ww.rpc.race import race
from ww.rpc.refusals import Refusals
from ww.rpc.stream import CapnpStream

log = logging.getLogger("ww.rpc")

# 2: a small zip of files comes within a submission, and Python's components are run. Of version 1, a gateway would run
# a task without the files, and a worker fail it.
PROTOCOL_VERSION: Final = 2
# What a peer may send until it is let in.
_HELLO_BYTES_MAX: Final = 64 << 10


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
        limits: PeerLimits | None = None,
        ticket_for: Mapping[PeerId, str] | None = None,
    ) -> None:
        """Speak for identity over transport.

        Peers of another namespace are refused, as are those that admission does not let in, and those that do not say
        hello within hello_timeout_s. One that has more outstanding than limits allow is disconnected. ticket_for has
        what to show to whom.
        """
        self.peer_id = identity.peer_id
        self._transport = transport
        self._namespace = namespace
        self._admission: Admission = admission or Open()
        self._hello_timeout_s = hello_timeout_s
        self._version = version
        self._limits = limits or PeerLimits()
        self._ticket_for = ticket_for or {}
        self._refusals = Refusals()
        self.exports = Exports()
        self._listeners: list[Listener] = []
        self._served: asyncio.TaskGroup | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        # Those that this vat dialled, one a peer, and those it is dialling.
        self._links: dict[PeerId, Link] = {}
        self._dialling: dict[tuple[PeerId, tuple[Multiaddr, ...]], Dialling] = {}
        # Those that dialled it.
        self.accounts: dict[PeerId, Account] = {}
        """What each peer that is connected has outstanding."""
        self.peers: set[Peer] = set()
        """Those that were let in."""
        self.served: set[Peer] = set()
        """Those and whoever is still to be."""

    async def __aenter__(self) -> Self:
        self._served = await asyncio.TaskGroup().__aenter__()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Let go of every connection. One that only dials need not be entered: this is its end. Idempotent."""
        for listener in self._listeners:
            await listener.aclose()
        for link in list(self._links.values()):
            link.close()
        for task in (*self._tasks, *(dialling.task for dialling in self._dialling.values())):
            task.cancel()
        if self._served is not None:
            served, self._served = self._served, None
            # Not told of the error: a group would wrap it, and the served connections are cancelled already.
            await served.__aexit__(None, None, None)

    def export(self, name: str, make: Export, admission: Admission | None = None) -> None:
        """Let peers that connect ask for name; each gets what make returns for it.

        admission, beyond the vat's own, says who may have it. What was exported under that name before is revoked.
        """
        self.exports.add(name, make, admission)

    def embargo(self, name: str) -> None:
        """Withdraw name: calls on what was given out under it fail with Revoked, those under way too."""
        self.exports.withdraw(name)

    async def listen(self, address: Multiaddr) -> list[Multiaddr]:
        """Accept peers at address and return the addresses it can be reached at. UsageError when it cannot be had."""
        listener = await self._transport.serve(address, self.accept)
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
        link = self._links.get(peer_id)
        if link is not None and link.is_open:
            return Connection(link)
        key = (peer_id, tuple(addresses))
        dialling = self._dialling.get(key)
        if dialling is None:
            dialling = self._dialling[key] = Dialling(self._reach(peer_id, addresses, on_failure))
            dialling.task.add_done_callback(lambda _: self._forget_dialling(key, dialling))
        try:
            return await dialling.share()
        finally:
            if dialling.is_given_up:
                self._forget_dialling(key, dialling)

    def _forget_dialling(self, key: tuple[PeerId, tuple[Multiaddr, ...]], dialling: Dialling) -> None:
        if self._dialling.get(key) is dialling:
            del self._dialling[key]

    async def _reach(
        self, peer_id: PeerId, addresses: Sequence[Multiaddr], on_failure: Callable[[Multiaddr], object]
    ) -> Link:
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

    async def _greet(self, peer_id: PeerId, stream: Stream) -> Link:
        link = Link(peer_id, stream, self._forget)
        try:
            try:
                # Only the peer that it is for sees the ticket: its key is proved by now.
                ticket = self._ticket_for.get(peer_id, "")
                hello = link.bootstrap.hello(version=self._version, namespace=self._namespace, ticket=ticket)
                async with asyncio.timeout(self._hello_timeout_s):
                    answer = await call(hello)
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
            link.exports = answer.exports
        except BaseException:
            link.close()
            raise
        before = self._links.get(peer_id)
        if before is not None and before.is_open:  # found elsewhere, in the meantime
            link.close()
            return before
        self._links[peer_id] = link
        return link

    def _forget(self, link: Link) -> None:
        if self._links.get(link.peer_id) is link:
            del self._links[link.peer_id]

    def accept(self, stream: Stream) -> None:
        """Serve a peer that has connected, and whose key is proved, until it goes."""
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

    def _refuses(self, peer: Peer, why: str) -> None:
        self._refusals.tell(str(peer.peer_id), f"{peer.peer_id} at {peer.remote}", why)

    async def _serve(self, stream: Stream) -> None:
        assert stream.peer_id is not None
        peer = Peer(stream.peer_id, stream.remote, stream.abort)
        bootstrap = VatServer(self, peer)
        account = self.accounts.setdefault(peer.peer_id, Account(self._limits))
        account.connections += 1
        meter = Meter(account)

        unmet = 0

        def inspect(data: bytes) -> None:
            nonlocal unmet
            try:
                if not bootstrap.greeted.is_set():
                    unmet += len(data)
                    if unmet > _HELLO_BYTES_MAX:
                        raise Overloaded(f"more than {_HELLO_BYTES_MAX} bytes before hello was answered")
                meter.read(data)
            except Overloaded as error:
                log.warning("dropped %s at %s: %s", peer.peer_id, peer.remote, error)
                stream.abort()

        self.served.add(peer)
        pipe = CapnpStream(stream, inspect)
        server = capnp.TwoPartyServer(pipe.capnp_stream, bootstrap, TRAVERSAL_LIMIT_WORDS, NESTING_LIMIT)
        try:
            try:
                async with asyncio.timeout(self._hello_timeout_s):
                    await first_of(stream.wait_closed(), server.on_disconnect(), bootstrap.greeted.wait())
            except TimeoutError:
                self._refuses(peer, "said no hello in time")
                return
            if not bootstrap.greeted.is_set():
                if not stream.is_closing():
                    self._refuses(peer, "it does not speak Cap'n Proto")
                return
            if bootstrap.refused is not None:
                self._refuses(peer, str(bootstrap.refused))
                # It reads why and goes; one that stays is put out.
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(self._hello_timeout_s):
                        await stream.wait_closed()
                return
            self.peers.add(peer)
            await first_of(stream.wait_closed(), server.on_disconnect())
            if not stream.is_closing():
                log.warning("dropped %s at %s: it does not speak Cap'n Proto", peer.peer_id, peer.remote)
                stream.abort()
        finally:
            peer.closed.set()
            self.peers.discard(peer)
            self.served.discard(peer)
            bootstrap.forget()
            meter.close()
            account.connections -= 1
            if not account.connections:
                self.accounts.pop(peer.peer_id, None)
            server.close()
            pipe.capnp_stream.close()
            stream.close()

    async def judge(self, peer: Peer, version: int, namespace: str, ticket: str) -> str | None:
        """Return why this vat will not talk to peer, in one line it may read, or None when it will."""
        if version != self._version:
            return f"speaks protocol version {version}, this node speaks {self._version}"
        if namespace != self._namespace:
            return f"this node is in namespace {self._namespace}, not {one_line(namespace)[:64]}"
        most = self._limits.connections_max
        if self.accounts[peer.peer_id].connections > most:
            return f"{most} connections of {peer.peer_id} are open, the limit"
        if peer.peer_id == self.peer_id:  # whoever holds this node's key could be this node
            return None
        return await self._admission.refusal(peer.peer_id, ticket)

    def fill_hello(self, results: Any) -> None:
        """Say who this vat is."""
        results.version = self._version
        results.namespace = self._namespace


class VatServer(schema.vat.Vat.Server):  # type: ignore[misc]
    """The bootstrap capability of one accepted connection."""

    def __init__(self, vat: Vat, peer: Peer) -> None:
        self._vat = vat
        self._peer = peer
        self._exports: ExportsServer | None = None
        self._is_met = False
        self.greeted = asyncio.Event()
        """Set when the peer said hello."""
        self.refused: str | None = None

    async def hello_context(self, context: Any) -> None:
        if self._is_met:
            raise Conflict("hello was said already")
        self._is_met = True
        said = context.params
        version, namespace, ticket = said.version, said.namespace, said.ticket
        self._vat.fill_hello(context.results)
        self.refused = await self._vat.judge(self._peer, version, namespace, ticket)
        if self.refused is None:
            self._exports = ExportsServer(self._vat.exports, self._peer)
            context.results.exports = self._exports
        else:
            context.results.refused = self.refused
        self.greeted.set()

    def forget(self) -> None:
        """Drop what was made for this connection."""
        if self._exports is not None:
            self._exports.forget()
