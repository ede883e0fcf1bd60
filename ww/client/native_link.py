"""The way to a gateway's Tasks capability: who it is, where it may be, and the connection, made again when it is lost.

Holds targets, and one connection at a time. Must not know what is asked. It needs no node, but a vat and a search: a
client takes no part in the cluster.
"""

import asyncio
import os
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from ww import schema
from ww.address_book import AddressBook
from ww.caps.blob import BytesBlobServer
from ww.clock import SystemClock
from ww.dial_string import read_dial_string
from ww.directories import state_directory
from ww.discovery.packet import Writer
from ww.discovery.sources import Discovery, DiscoveryConfig
from ww.errors import NotAdmitted, PeerError, PeerMismatch, ProtocolMismatch, UsageError
from ww.identity import Identity, PeerId
from ww.net.multiaddr import Multiaddr, MulticastGroup
from ww.net.tls import TlsTransport
from ww.net.transport import Transport
from ww.rpc.connection import Connection
from ww.rpc.errors import call
from ww.rpc.loop import shared_kj_loop
from ww.rpc.vat import Vat

_FIND_S: Final = 1.0
# Until what was obtained over a broken connection is let go of.
_LINGER_S: Final = 1.0
_FINAL: Final = (NotAdmitted, ProtocolMismatch, PeerMismatch)


@dataclass(frozen=True, slots=True)
class Target:
    """A gateway as it was named."""

    peer_id: PeerId
    addresses: tuple[Multiaddr, ...] = ()
    ticket: str = field(default="", repr=False)

    @classmethod
    def parse(cls, text: str) -> "Target":
        """Read a peer id, an address that ends in /p2p/PEER_ID, or a dial string with its ticket."""
        if "/ticket/" in text or text.startswith("wwt1-"):
            dial = read_dial_string(text)
            if dial.peer_id is None:
                raise UsageError("whose ticket is that? expected .../p2p/PEER_ID/ticket/...", "target")
            return cls(dial.peer_id, () if dial.address is None else (dial.address,), dial.ticket)
        if text.startswith("/p2p/"):
            return cls(PeerId.parse(text.removeprefix("/p2p/")))
        if not text.startswith("/"):
            return cls(PeerId.parse(text))
        address = Multiaddr.parse(text)
        if address.peer_id is None:
            raise UsageError(f"{text[:80]!r} does not say who is there: expected .../p2p/PEER_ID", "target")
        return cls(address.peer_id, (address,))


@dataclass(frozen=True, slots=True)
class LinkConfig:
    """How a gateway is found, and by which key a client is known to it."""

    key: Identity | str | os.PathLike[str] | None = None
    """A key pair or its file, which is made when it is not there; None: a key that lives as long as the client."""
    namespace: str = "ww"
    addresses: Sequence[str | Multiaddr] = ()
    """Where it may be, beside what the target says."""
    state_directory: str | os.PathLike[str] | None = None
    """Where nodes of this machine write down their addresses; None: $XDG_STATE_HOME/ww."""
    lan: bool = False
    """Whether to look on other machines too."""
    groups: Sequence[str | MulticastGroup] = ()
    """Multicast groups of surveys; none: the usual one."""
    multicast: bool = True
    mdns: bool = True
    connect_timeout_s: float = 5.0
    """Seconds each step may take until it is known who answers."""


class NativeLink:
    """One client's connection."""

    def __init__(self, target: Target, config: LinkConfig, transport: Transport | None = None) -> None:
        self.target = target
        self._config = config
        self._transport = transport
        self._addresses = tuple(a if isinstance(a, Multiaddr) else Multiaddr.parse(a) for a in config.addresses)
        groups = tuple(g if isinstance(g, MulticastGroup) else MulticastGroup.parse(g) for g in config.groups)
        self._discovery = DiscoveryConfig(config.lan, config.multicast, groups or DiscoveryConfig().groups, config.mdns)
        self._stack: AsyncExitStack | None = None
        self._turn = asyncio.Lock()
        self._vat: Vat
        self._book: AddressBook
        self._connection: Connection | None = None
        self._tasks: Any = None
        self._dropped: list[Connection] = []
        self._is_closed = False

    async def tasks(self) -> Any:
        """Return the gateway's Tasks, over a connection that is open as far as is known. Raises PeerError."""
        if self._tasks is not None and self._connection is not None and self._connection.link.is_open:
            return self._tasks
        async with self._turn:
            if self._is_closed:
                raise UsageError("the client is closed")
            if self._connection is not None and self._connection.link.is_open:
                return self._tasks
            if self._stack is None:
                self._stack = await self._begin()
            self.drop()
            connection = await self._connect()
            try:
                self._tasks = await connection.connect("tasks", schema.tasks.Tasks)
            except BaseException:
                connection.close()
                raise
            self._connection = connection
            return self._tasks

    async def _begin(self) -> AsyncExitStack:
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(shared_kj_loop())
            config = self._config
            identity = (
                config.key if isinstance(config.key, Identity) else await asyncio.to_thread(_identity, config.key)
            )
            timeout_s = config.connect_timeout_s
            transport = self._transport or TlsTransport(identity, handshake_timeout_s=timeout_s, connections_max=1)
            ticket_for = {self.target.peer_id: self.target.ticket} if self.target.ticket else {}
            self._vat = Vat(
                identity, transport, namespace=config.namespace, hello_timeout_s=timeout_s, ticket_for=ticket_for
            )
            stack.push_async_callback(self._vat.aclose)
            state = Path(config.state_directory) if config.state_directory is not None else state_directory()
            self._book = AddressBook(state / "peers" / config.namespace, (*self.target.addresses, *self._addresses))
            return stack.pop_all()
        raise AssertionError

    async def _connect(self) -> Connection:
        peer_id, problem = self.target.peer_id, None
        if known := await asyncio.to_thread(self._book.lookup, peer_id):
            try:
                return await self._vat.dial(peer_id, known)
            except _FINAL:
                raise
            except PeerError as error:
                problem = error
        if not (found := await self._search()):
            beyond = "" if self._config.lan else ", or look on other machines (lan)"
            where = f"{peer_id} does not answer in namespace {self._config.namespace!r}"
            raise problem or PeerError(f"{where}: name one of its addresses{beyond}")
        return await self._vat.dial(peer_id, found)

    async def _search(self) -> tuple[Multiaddr, ...]:
        """Look for the gateway, for a second at most."""
        found: asyncio.Future[tuple[Multiaddr, ...]] = asyncio.get_running_loop().create_future()

        def note(peer_id: PeerId, addresses: tuple[Multiaddr, ...]) -> None:
            if peer_id == self.target.peer_id and not found.done():
                found.set_result(addresses)

        # By a key of its own: what a node numbered with the same one would be taken for a replay.
        writer = Writer(Identity.generate(), self._config.namespace, 1)
        async with Discovery(
            self._discovery, writer, SystemClock(), on_found=note, on_claim=note, on_heartbeat=lambda *_: None
        ) as discovery:
            if discovery.look_for(self.target.peer_id):
                with suppress(TimeoutError):
                    async with asyncio.timeout(_FIND_S):
                        return await found
        return ()

    def drop(self, tasks: Any = None) -> None:
        """Let go of the connection: the next call makes another. With tasks only if those came over it."""
        if tasks is not None and tasks is not self._tasks:
            return  # another call did so, and what there is now has not failed
        connection, self._connection, self._tasks = self._connection, None, None
        if connection is not None:
            # Others' calls under way are to fail now, and not when their time is over.
            connection.link.abort()
            self._dropped.append(connection)
            asyncio.get_running_loop().call_later(_LINGER_S, self._close_dropped)

    def _close_dropped(self) -> None:
        dropped, self._dropped = self._dropped, []
        for connection in dropped:
            connection.close()

    async def aclose(self) -> None:
        """Close everything. Idempotent."""
        self._is_closed = True
        self.drop()
        self._close_dropped()
        async with self._turn:
            stack, self._stack = self._stack, None
            if stack is not None:
                await stack.aclose()


def _identity(key: str | os.PathLike[str] | None) -> Identity:
    return Identity.generate() if key is None else Identity.load(Path(key), lock=False)


class Hearing:
    """When a gateway was last heard of during a call, by what it asks for of what is sent with it: bytes may take as
    long as they take, while they move."""

    def __init__(self) -> None:
        self._patience: asyncio.Timeout | None = None
        self._timeout_s = 0.0

    def blob(self, data: bytes) -> BytesBlobServer:
        """Make what serves bytes of the call."""
        return _HeardBlob(data, self)

    @asynccontextmanager
    async def within(self, timeout_s: float) -> AsyncIterator[None]:
        """Raise TimeoutError when nothing is heard for so long."""
        self._timeout_s = timeout_s
        try:
            async with asyncio.timeout(timeout_s) as self._patience:
                yield
        finally:
            self._patience = None

    def note(self) -> None:
        """Note that something was heard."""
        if self._patience is not None and not self._patience.expired():
            self._patience.reschedule(asyncio.get_running_loop().time() + self._timeout_s)


class _HeardBlob(BytesBlobServer):
    def __init__(self, data: bytes, hearing: Hearing) -> None:
        super().__init__(data)
        self._hearing = hearing

    async def read_context(self, context: Any) -> None:
        self._hearing.note()
        await super().read_context(context)


async def ask(promise: Any, timeout_s: float, hearing: Hearing | None = None) -> Any:
    """Await a call; PeerError when it takes too long, or, with hearing, nothing is heard for so long."""
    try:
        async with asyncio.timeout(timeout_s) if hearing is None else hearing.within(timeout_s):
            return await call(promise)
    except TimeoutError:
        raise PeerError(f"the gateway does not answer: nothing came within {timeout_s:g} s") from None
    finally:
        del promise  # see rpc.errors.call
