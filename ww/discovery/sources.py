"""How a node finds others and is found: the survey by multicast and mDNS, side by side.

Holds what both need, the machine's interfaces, and which of the two are on. Must not know who dials whom: what either
finds goes to one callback. Read survey.py for the protocol, multicast.py for its sockets, mdns.py for the other.
"""

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from ww.clock import Clock
from ww.discovery.interface import Interface, Watch, interfaces, reachable_from_afar
from ww.discovery.multicast import DEFAULT_GROUP, Heard, Multicast, MulticastConfig, check_interfaces
from ww.discovery.packet import Heartbeat, Packet, Response, Writer
from ww.discovery.survey import Search, Surveyor
from ww.identity import PeerId
from ww.net.multiaddr import Multiaddr, MulticastGroup

if TYPE_CHECKING:
    from ww.discovery.mdns import Mdns


@dataclass(frozen=True, slots=True)
class DiscoveryConfig:
    """By which ways a node finds others and is found."""

    beyond_loopback: bool = False
    """Whether interfaces that lead to other machines take part."""
    multicast: bool = True
    """Whether it surveys, answers surveys and sends heartbeats by multicast."""
    groups: tuple[MulticastGroup, ...] = (DEFAULT_GROUP,)
    mdns: bool = True
    """Whether it speaks mDNS; beyond loopback only."""


class Discovery:
    """A node's ways to find others and to be found."""

    def __init__(
        self,
        config: DiscoveryConfig,
        writer: Writer,
        clock: Clock,
        *,
        on_found: Callable[[PeerId, tuple[Multiaddr, ...]], None],
        on_claim: Callable[[PeerId, tuple[Multiaddr, ...]], None],
        on_heartbeat: Callable[[Packet, bytes], object],
        on_machine: Callable[[], object] = lambda: None,
    ) -> None:
        """Tell what is found.

        on_found gets addresses that a peer signed, on_claim those that somebody says a peer has, on_heartbeat each
        heartbeat, and on_machine is told when interfaces changed.
        """
        self.surveyor = Surveyor(writer)
        self.machine: list[Interface] = []
        """The interfaces there are."""
        self._config = config
        self._on_found = on_found
        self._on_heartbeat = on_heartbeat
        self._on_machine = on_machine
        self._listening: Sequence[Multiaddr] = ()
        self._searches: dict[PeerId, Search] = {}
        self._multicast: Multicast | None = None
        self._mdns: Mdns | None = None
        if config.multicast:
            on = MulticastConfig(config.groups, config.beyond_loopback)
            self._multicast = Multicast(self.surveyor, clock, on, on_packet=self._take)
        if config.mdns and config.beyond_loopback:
            # Here: it takes 70 ms to import, and a node on loopback does not need it.
            from ww.discovery import mdns

            self._mdns = mdns.Mdns(writer.peer_id, writer.namespace, on_claim)
        self._has_changed = asyncio.Event()
        self._stack = contextlib.AsyncExitStack()

    async def __aenter__(self) -> Self:
        """Take part. UsageError when a group names an interface that is not there."""
        check_interfaces(self._config.groups, interfaces())
        try:
            if self._multicast is not None:
                self._stack.callback(self._multicast.close)
            if self._mdns is not None:
                await self._stack.enter_async_context(self._mdns)
            self._stack.enter_context(Watch(self._update))
            self._has_changed.clear()
            group = await self._stack.enter_async_context(asyncio.TaskGroup())
            following = group.create_task(self._follow())
            self._stack.callback(following.cancel)
        except BaseException:
            await self._stack.aclose()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    async def listening(self, addresses: Sequence[Multiaddr]) -> None:
        """Let others find this node at these addresses from now on."""
        self._listening = addresses
        if self._multicast is not None:
            self._multicast.listening = addresses
        await self._announce()

    def look_for(self, peer_id: PeerId) -> bool:
        """See to it that a search for that peer is under way; False when there is no way to search."""
        if self._multicast is None:
            return self._mdns is not None
        search = self._searches.get(peer_id)
        if search is None or search.is_over:
            self._searches[peer_id] = self._multicast.look_for(peer_id)
        return True

    def stop_looking(self, peer_id: PeerId) -> None:
        """End the search for that peer."""
        search = self._searches.pop(peer_id, None)
        if search is not None and self._multicast is not None:
            self._multicast.stop(search)

    def ask_again(self, peer_id: PeerId) -> None:
        """Begin the search for that peer anew, where there is one: it was heard of."""
        if peer_id in self._searches:
            self.stop_looking(peer_id)
            self.look_for(peer_id)

    def look_for_anybody(self) -> None:
        """Search for whoever answers first."""
        if self._multicast is not None:
            self._multicast.look_for(None)

    def look_for_everybody(self) -> None:
        """Ask all there are, from now on, ever slower."""
        if self._multicast is not None:
            self._multicast.look_for_everybody()

    @property
    def tapped(self) -> Callable[[Heard], object] | None:
        """What is called with every packet that comes or goes; None: nothing."""
        return self._multicast.tapped if self._multicast is not None else None

    @tapped.setter
    def tapped(self, tapped: Callable[[Heard], object] | None) -> None:
        if self._multicast is not None:
            self._multicast.tapped = tapped

    def send(self, datagram: bytes) -> None:
        """Say something to everybody."""
        if self._multicast is not None:
            self._multicast.send(datagram)

    def _take(self, packet: Packet, data: bytes, interface: Interface) -> None:
        if isinstance(packet.content, Response):
            self._on_found(packet.sender, packet.content.addresses)
        elif isinstance(packet.content, Heartbeat):
            self._on_heartbeat(packet, data)

    def _update(self, machine: list[Interface]) -> None:
        self.machine = machine
        if self._multicast is not None:
            self._multicast.update(machine)
        self._has_changed.set()
        self._on_machine()

    async def _follow(self) -> None:
        """Have mDNS follow the interfaces: it takes a while, so one change after the other."""
        while True:
            await self._has_changed.wait()
            self._has_changed.clear()
            if self._mdns is not None:
                await self._mdns.rebind()
            await self._announce()

    async def _announce(self) -> None:
        if self._mdns is not None:
            await self._mdns.announce(reachable_from_afar(self.machine, self._listening))
