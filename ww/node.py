"""A node: one identity, its vat, and where its peers are. The composition root of everything between machines.

Holds the wiring and the rule that whoever listens beyond loopback says who may come. Must not know whether the node is
a gateway or a worker. `async with Node(config) as node`, inside `ww.rpc.loop`.
"""

import asyncio
import logging
import re
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from ww.address_book import AddressBook
from ww.errors import UsageError
from ww.identity import Identity, PeerId
from ww.net.multiaddr import Multiaddr
from ww.net.tls import TlsTransport
from ww.net.transport import Transport
from ww.rpc.admission import Admission
from ww.rpc.vat import Connection, Vat

log = logging.getLogger("ww.node")

_NAMESPACE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
LOOPBACK: Final = Multiaddr("ip4", "127.0.0.1", 0)


@dataclass(frozen=True, slots=True)
class NodeConfig:
    """Who a node is and where it can be met."""

    state_directory: Path
    """Where nodes of this machine write down their addresses."""
    key_file: Path | None = None
    """The key pair's file, made when it is not there; None for a key that lives as long as the process."""
    namespace: str = "ww"
    """Nodes of different namespaces do not talk."""
    listen: tuple[Multiaddr, ...] = (LOOPBACK,)
    """Where peers may connect."""
    addresses: tuple[Multiaddr, ...] = ()
    """Where peers may be found."""
    admission: Admission | None = None
    """Who may connect; needed beyond loopback."""
    connections_max: int = 1024
    """Peers connected at a time, authenticated or not, at each address listened on."""
    handshake_timeout_s: float = 5.0
    """Seconds each step may take until it is known who a peer is and what it speaks."""


class Node:
    """A running node."""

    def __init__(
        self, config: NodeConfig, transport: Transport | None = None, identity: Identity | None = None
    ) -> None:
        """Be who config says. Tests give another transport, and the identity that goes with it."""
        self._check(config)
        self._config = config
        if identity is not None:
            self._identity = identity
        else:
            self._identity = Identity.load(config.key_file) if config.key_file else Identity.generate()
        self.peer_id = self._identity.peer_id
        self.namespace = config.namespace
        self.book = AddressBook(config.state_directory / "peers" / config.namespace, config.addresses)
        self.vat = Vat(
            self._identity,
            transport
            or TlsTransport(
                self._identity,
                handshake_timeout_s=config.handshake_timeout_s,
                connections_max=config.connections_max,
            ),
            namespace=config.namespace,
            admission=config.admission,
            hello_timeout_s=config.handshake_timeout_s,
        )
        self.addresses: list[Multiaddr] = []
        self._stack = AsyncExitStack()

    @staticmethod
    def _check(config: NodeConfig) -> None:
        if not _NAMESPACE.fullmatch(config.namespace):
            expected = "1 to 64 letters, digits or . _ - that begin with a letter or digit"
            raise UsageError(f"--ns {config.namespace[:80]!r}: expected {expected}", "ns")
        for address in config.listen:
            if not address.is_loopback and config.admission is None:
                raise UsageError(f"--listen {address} lets other machines in: say who may come with --admit", "admit")

    async def __aenter__(self) -> Self:
        self._stack.callback(self._identity.close)
        try:
            await self._stack.enter_async_context(self.vat)
        except BaseException:
            await self._stack.aclose()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    async def listen(self) -> None:
        """Let peers in, and write down where. Call it when everything is exported."""
        for address in self._config.listen:
            self.addresses += await self.vat.listen(address)
        await asyncio.to_thread(self.book.publish, self.peer_id, self.addresses)
        self._stack.callback(self.book.withdraw, self.peer_id)
        for address in self.addresses:
            log.info("listening on %s", address.of_peer(self.peer_id))

    async def dial(self, peer_id: PeerId) -> Connection:
        """Connect to a peer wherever it is known to be. Raises PeerError and its kinds."""
        return await self.vat.dial(peer_id, await asyncio.to_thread(self.book.lookup, peer_id))
