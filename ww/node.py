"""A node: one identity, its vat, how it finds peers and is found. The composition root of everything between machines.

Holds the wiring and the rule that whoever listens beyond loopback says who may come. Must not know whether the node is
a gateway or a worker. `async with Node(config) as node`, inside `ww.rpc.loop`.
"""

import asyncio
import contextlib
import functools
import logging
import platform
import re
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Self

from ww.address_book import AddressBook
from ww.clock import Clock, SystemClock
from ww.cluster.heartbeat import Heartbeats
from ww.cluster.membership import Facts, Membership, MembershipConfig, Record
from ww.cluster.view import view_for
from ww.discovery.interface import reachable_from_afar
from ww.discovery.packet import Load, Packet, Writer
from ww.discovery.sources import Discovery, DiscoveryConfig
from ww.errors import NotAdmitted, PeerError, ProtocolMismatch, UsageError
from ww.identity import Identity, PeerId
from ww.incarnation import next_incarnation, raise_incarnation
from ww.net.multiaddr import Multiaddr
from ww.net.tls import KEEPALIVE_S, TlsTransport
from ww.net.transport import Transport
from ww.rpc.account import PeerLimits
from ww.rpc.admission import Admission, Either, Only, Open, Unbanned
from ww.rpc.connection import Connection
from ww.rpc.race import race
from ww.rpc.register import Register
from ww.rpc.vat import Vat

log = logging.getLogger("ww.node")

_NAMESPACE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
LOOPBACK: Final = Multiaddr("ip4", "127.0.0.1", 0)
EVERYWHERE: Final = Multiaddr("ip4", "0.0.0.0", 0)


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
    guests: Admission | None = None
    """Who may connect too, and be no part of the cluster: to such peers something else is exported."""
    connections_max: int = 1024
    """Peers connected at a time, authenticated or not, at each address listened on."""
    handshake_timeout_s: float = 5.0
    """Seconds each step may take until it is known who a peer is and what it speaks."""
    register: Register | None = None
    """Who is banned; None: nobody is."""
    ticket: tuple[PeerId, str] | None = None
    """What to show to that peer, when it asks for a ticket."""
    keepalive_s: float = KEEPALIVE_S
    """Seconds after which a peer from which no packet comes back counts as gone."""
    limits: PeerLimits = field(default_factory=PeerLimits)
    """What one peer may have outstanding."""
    role: str = ""
    """What it is to the cluster: "gateway" or "worker"; empty for one that only looks on."""
    meta: Mapping[str, str] = field(default_factory=dict)
    """What the operator says of it."""
    discovery: DiscoveryConfig = field(default_factory=DiscoveryConfig)
    membership: MembershipConfig = field(default_factory=MembershipConfig)
    find_timeout_s: float = 1.0
    """Seconds a peer that is looked for has to answer, each time it is dialled."""


class Node:
    """A running node."""

    def __init__(
        self,
        config: NodeConfig,
        transport: Transport | None = None,
        identity: Identity | None = None,
        clock: Clock | None = None,
    ) -> None:
        """Be who config says. Tests give another transport, and the identity that goes with it, and a clock."""
        self._check(config)
        self._config = config
        self._clock = clock or SystemClock()
        self._has_lasting_key = config.key_file is not None or identity is not None
        if identity is not None:
            self.identity = identity
        else:
            self.identity = Identity.load(config.key_file) if config.key_file else Identity.generate()
        self.says_who_may_come = config.admission is not None
        """Whether it was told whom to let in: without that only peers of this machine may come."""
        self.peer_id = self.identity.peer_id
        self.namespace = config.namespace
        self.book = AddressBook(config.state_directory / "peers" / config.namespace, config.addresses)
        self.vat = Vat(
            self.identity,
            transport
            or TlsTransport(
                self.identity,
                handshake_timeout_s=config.handshake_timeout_s,
                connections_max=config.connections_max,
                keepalive_s=config.keepalive_s,
            ),
            namespace=config.namespace,
            admission=self._admission(),
            ticket_for=dict([config.ticket]) if config.ticket is not None else {},
            hello_timeout_s=config.handshake_timeout_s,
            limits=config.limits,
        )
        self.addresses: list[Multiaddr] = []
        self.register = config.register
        """Who is banned, enrolled, draining."""
        self.members_only = self._members_only()
        """Of what is exported, who may have what is not for guests; None: whoever may connect."""
        self._incarnations = config.state_directory / "incarnations"
        self._stack = AsyncExitStack()

    def _admission(self) -> Admission:
        policy = self._config.admission or Open()
        if self._config.guests is not None:
            policy = Either(policy, self._config.guests)
        return Unbanned(self._config.register, policy) if self._config.register is not None else policy

    def _members_only(self) -> Admission | None:
        if self._config.guests is None or self._config.admission is None:
            return None
        return Either(Only(self.peer_id), self._config.admission)

    @staticmethod
    def _check(config: NodeConfig) -> None:
        try:
            check_namespace(config.namespace)
        except UsageError as error:
            raise UsageError(f"--ns {error}", "ns") from None
        for address in config.listen:
            if not address.is_loopback and config.admission is None:
                raise UsageError(f"--listen {address} lets other machines in: say who may come with --admit", "admit")

    async def __aenter__(self) -> Self:
        self._stack.callback(self.identity.close)
        try:
            incarnation = 1  # of a key that was made just now
            if self._has_lasting_key:
                wall_s = self._clock.wall()
                incarnation = await asyncio.to_thread(next_incarnation, self._incarnations, self.peer_id, wall_s)
            writer = self._writer = Writer(self.identity, self.namespace, incarnation)
            self.heartbeats = Heartbeats(
                Membership(writer, self._config.membership),
                self._clock,
                send=lambda datagram: self.discovery.send(datagram),
                on_news=self._learn_from,
                on_overtaken=self._overtake,
            )
            self.discovery = Discovery(
                self._config.discovery,
                writer,
                self._clock,
                on_found=self.book.learn,
                on_claim=functools.partial(self.book.learn, is_signed=False),
                on_heartbeat=self._hear,
                on_machine=self._announce,
            )
            await self._stack.enter_async_context(self.vat)
            await self._stack.enter_async_context(self.discovery)
            await self._stack.enter_async_context(self.heartbeats.running())
        except BaseException:
            await self._stack.aclose()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    async def listen(self, load: Callable[[], Load] = Load) -> None:
        """Let peers in, and say where. Call it when everything is exported; load says how busy this node is."""
        self.vat.export("members", self.heartbeats.members_for, self.members_only)
        self.vat.export("view", lambda peer: view_for(self.heartbeats, peer), self.members_only)
        self.heartbeats.load = load
        for address in self._config.listen:
            self.addresses += await self.vat.listen(address)
        await asyncio.to_thread(self.book.publish, self.peer_id, self.addresses)
        self._stack.callback(self.book.withdraw, self.peer_id)
        self._announce()
        if isinstance(self._config.admission, Open) and not all(address.is_loopback for address in self.addresses):
            log.warning("--admit open: whoever can connect is let in, may see what runs are given and forge results")
            log.warning("--admit open: one host may come with many keys, which no quorum of peers tells apart")
        for address in self.addresses:
            log.info("listening on %s", address.of_peer(self.peer_id))
        await self.discovery.listening(self.addresses)

    async def dial(self, peer_id: PeerId) -> Connection:
        """Connect to a peer wherever it is, looking for it when that is not known. Raises PeerError and its kinds.

        While connected, each tells the other who is a member of the cluster.
        """
        known = await asyncio.to_thread(self.book.lookup, peer_id)
        ways = [functools.partial(self._dial_found, peer_id, known)]
        if known:
            ways.insert(0, functools.partial(self._dial_known, peer_id, known))
        connection = await race(ways, Connection.close)
        self.discovery.stop_looking(peer_id)
        if self._config.role and not connection.link.has_joined:
            connection.link.has_joined = True
            self.heartbeats.join(connection.link)
        return connection

    async def _dial_known(self, peer_id: PeerId, known: list[Multiaddr]) -> Connection:
        return await self.vat.dial(peer_id, known, on_failure=functools.partial(self.book.forget, peer_id))

    async def _dial_found(self, peer_id: PeerId, tried: list[Multiaddr]) -> Connection:
        """Look for a peer and connect to where it is found. When it is not, the search goes on for later."""
        problem: PeerError | None = None
        if self.discovery.look_for(peer_id):
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._config.find_timeout_s) as patience:
                    while True:
                        found = [address for address in self.book.learned(peer_id) if address not in tried]
                        if found:
                            patience.reschedule(None)  # dialling has a bound of its own
                            try:
                                return await self._dial_known(peer_id, found)
                            except (NotAdmitted, ProtocolMismatch):
                                raise
                            except PeerError as error:
                                problem = error
                            patience.reschedule(asyncio.get_running_loop().time() + self._config.find_timeout_s)
                        await self.book.heard_of(peer_id)
                        # It says that it is there: what was tried is worth another try.
                        tried = []
        beyond = "" if self._config.discovery.beyond_loopback else ", or look on other machines with --lan"
        where = f"no address of {peer_id} is known in namespace {self.namespace!r}, and it answers no survey"
        raise problem or PeerError(f"{where}: name one with --addr{beyond}")

    def health(self) -> dict[str, Any]:
        """Say in numbers how this node gets on with others."""
        surveyor = self.discovery.surveyor
        return {
            "members": len(self.heartbeats.membership.members(self._clock.now())),
            "packets_dropped": {str(reason): number for reason, number in sorted(surveyor.dropped.items())},
            "packets_suppressed": surveyor.suppressed,
        }

    def _announce(self) -> None:
        """Say what this node is, and where, to whoever is to know."""
        if not (self._config.role and self.addresses):
            return
        addresses = reachable_from_afar(self.discovery.machine, self.addresses) or tuple(self.addresses)
        meta = tuple(sorted(self._config.meta.items()))
        facts = Facts(self._config.role, _host(), meta, addresses)
        self.heartbeats.membership.announce(facts, self._clock.now())
        self.heartbeats.beat()

    def _hear(self, packet: Packet, data: bytes) -> None:
        self.heartbeats.hear(packet, data)

    async def _overtake(self, incarnation: int) -> None:
        """Be a later incarnation than others remember; the file that kept it was lost, or the key was moved here."""
        log.warning("others remember a later start of this node: its incarnation is raised")
        self._writer.incarnation = incarnation + 1
        self.heartbeats.membership.speak_up(self._clock.now())
        if self._has_lasting_key:
            # On disk it counts at the next start only, and is found out again then if it is not there.
            with contextlib.suppress(UsageError):
                await asyncio.to_thread(raise_incarnation, self._incarnations, self.peer_id, incarnation + 1)

    def _learn_from(self, record: Record) -> None:
        """Take note of where a member says it is, and ask one that is looked for."""
        addresses = [address for address in record.shown.addresses if not address.is_loopback]
        if addresses:
            self.book.learn(record.peer_id, addresses)
        self.discovery.ask_again(record.peer_id)


def check_namespace(text: str) -> str:
    """Return the name of a namespace; UsageError when it can be none."""
    if not _NAMESPACE.fullmatch(text):
        raise UsageError(f"{text[:80]!a}: expected 1 to 64 letters, digits or . _ - that begin with a letter or digit")
    return text


def _host() -> str:
    return "".join(character for character in platform.node() if character.isprintable())[:256]
