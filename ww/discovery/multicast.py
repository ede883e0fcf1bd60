"""The survey's sockets: datagrams to and from a multicast group, on each interface.

Holds the shell around survey.py: which interfaces take part, and the timer of searches. Must not know what packets
mean. On each interface there is one socket that hears the group, whose port the nodes of a machine share, and one of
this node's own, from which it asks and on which it is answered; so it is known by which interface somebody can be
reached, and by which way an answer goes back.
"""

import asyncio
import contextlib
import errno
import logging
import socket
import struct
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, NamedTuple

from ww.clock import Clock
from ww.discovery.interface import Interface, reachable_by
from ww.discovery.packet import Drop, Packet, read
from ww.discovery.survey import Search, Surveyor
from ww.errors import UsageError
from ww.identity import PeerId
from ww.net.multiaddr import Multiaddr, MulticastGroup

log = logging.getLogger("ww.discovery")

DEFAULT_GROUP: Final = MulticastGroup("ip4", "239.255.88.22", 8822)
_DATAGRAM_BYTES_MAX: Final = 2048
_DATAGRAMS_AT_ONCE: Final = 64
# linux/in.h. Off: a socket hears the groups it joined itself, not those that others on the machine did.
_IP_MULTICAST_ALL: Final = 49
_IPV6_MULTICAST_ALL: Final = 29
_LINKS_MAX: Final = 64


@dataclass(frozen=True, slots=True)
class MulticastConfig:
    """Where a node surveys."""

    groups: tuple[MulticastGroup, ...] = (DEFAULT_GROUP,)
    beyond_loopback: bool = False
    """Whether interfaces that lead to other machines take part; a group that names one is always heard there."""


class Link:
    """One group on one interface."""

    def __init__(
        self, group: MulticastGroup, interface: Interface, receive: Callable[["Link", bytes, Any], None]
    ) -> None:
        """Open both sockets; OSError when the interface does no multicast."""
        self.group = group
        self.interface = interface
        self._receive = receive
        family = socket.AF_INET if group.kind == "ip4" else socket.AF_INET6
        self._heard = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self._own = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        try:
            if group.kind == "ip4":
                self._open_ip4()
            else:
                self._open_ip6()
        except BaseException:
            self._heard.close()
            self._own.close()
            raise
        for sock in (self._heard, self._own):
            asyncio.get_running_loop().add_reader(sock, self._read, sock)

    def _open_ip4(self) -> None:
        self._share(socket.IPPROTO_IP, _IP_MULTICAST_ALL)
        request = struct.pack("=4s4si", socket.inet_aton(self.group.host), bytes(4), self.interface.index)
        self._heard.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, request)
        self._heard.bind((self.group.host, self.group.port))
        outgoing = struct.pack("=4s4si", bytes(4), bytes(4), self.interface.index)
        self._own.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, outgoing)
        self._own.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL, 1)
        self._own.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_LOOP, 1)
        # Bound to the interface's address: answers cannot come from, nor to, anywhere else.
        own = next((a.host for a in self.interface.addresses if a.kind == "ip4"), "")
        if not own:
            raise OSError("the interface has no IPv4 address")
        self._own.bind((own, 0))
        self._target: Any = (self.group.host, self.group.port)

    def _open_ip6(self) -> None:
        self._share(socket.IPPROTO_IPV6, _IPV6_MULTICAST_ALL)
        index = self.interface.index
        request = struct.pack("=16sI", socket.inet_pton(socket.AF_INET6, self.group.host), index)
        self._heard.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_JOIN_GROUP, request)
        self._heard.bind((self.group.host, self.group.port, 0, index))
        self._own.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, struct.pack("=I", index))
        self._own.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, 1)
        self._own.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_LOOP, 1)
        self._own.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        self._own.bind(("::", 0))
        self._target = (self.group.host, self.group.port, 0, index)
        # Linux has no IPv6 route for multicast by loopback: better known now than at each packet that is lost.
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as probe:
            try:
                probe.connect(self._target)
            except OSError as error:
                # A link that has just come up has an address once nobody else turns out to have it, after a second.
                if error.errno != errno.EADDRNOTAVAIL:
                    raise

    def _share(self, level: int, multicast_all: int) -> None:
        self._heard.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if sys.platform == "linux":
            self._heard.setsockopt(level, multicast_all, 0)
        elif hasattr(socket, "SO_REUSEPORT"):
            self._heard.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)

    def _read(self, sock: socket.socket) -> None:
        for _ in range(_DATAGRAMS_AT_ONCE):  # then others have their turn
            try:
                data, sender = sock.recvfrom(_DATAGRAM_BYTES_MAX)
            except OSError:
                return
            self._receive(self, data, sender)

    def send(self, data: bytes, to: Any = None) -> None:
        """Send to the group, or to one address. What cannot be sent is lost, as any datagram may be."""
        with contextlib.suppress(OSError):
            self._own.sendto(data, self._target if to is None else to)

    def close(self) -> None:
        for sock in (self._heard, self._own):
            asyncio.get_running_loop().remove_reader(sock)
            sock.close()


class Links:
    """The links of some groups, kept as interfaces come and go."""

    def __init__(self, config: MulticastConfig, receive: Callable[[Link, bytes, Any], None]) -> None:
        """Give every datagram to receive, with the link and the address it came by."""
        self._config = config
        self._receive = receive
        self._links: dict[tuple[MulticastGroup, Interface], Link] = {}
        self._silent: set[MulticastGroup] = set()

    def update(self, machine: Sequence[Interface]) -> None:
        """Take part on the interfaces that are there now: open what is new, close what is gone."""
        wanted = [(group, interface) for group in self._config.groups for interface in machine]
        wanted = [key for key in wanted if self._takes(*key)][:_LINKS_MAX]
        for key in [key for key in self._links if key not in wanted]:
            self._links.pop(key).close()
        for key in wanted:
            if key not in self._links:
                try:
                    self._links[key] = Link(*key, self._receive)
                except OSError as error:
                    log.debug("no multicast on %s: %s", key[1].name, error.strerror)
        self._warn()

    def _warn(self) -> None:
        """Say it once when a group is heard nowhere."""
        silent = set(self._config.groups) - {group for group, _ in self._links}
        for group in silent - self._silent:
            beyond = "" if self._config.beyond_loopback else "; see --lan"
            log.warning("no interface of this machine can do multicast to %s%s", group, beyond)
        self._silent = silent

    def _takes(self, group: MulticastGroup, interface: Interface) -> bool:
        if not interface.is_up:
            return False
        if group.interface is not None:
            return group.interface == interface.name
        return self._config.beyond_loopback or interface.is_loopback

    @property
    def is_empty(self) -> bool:
        """Whether there is no interface to take part on."""
        return not self._links

    @property
    def names(self) -> list[str]:
        """The groups and the interfaces they are heard on."""
        return [str(replace(group, interface=interface.name)) for group, interface in self._links]

    def send(self, data: bytes) -> None:
        """Send a packet to everybody."""
        for link in list(self._links.values()):
            link.send(data)

    def close(self) -> None:
        """Close all."""
        for link in self._links.values():
            link.close()
        self._links.clear()


def check_interfaces(groups: Sequence[MulticastGroup], machine: Sequence[Interface]) -> None:
    """Raise UsageError when a group names an interface that is not there."""
    names = {interface.name for interface in machine}
    for group in groups:
        if group.interface is not None and group.interface not in names:
            here = ", ".join(sorted(names))
            raise UsageError(f"--discover {group}: no interface {group.interface}; there are {here}", "discover")


class Heard(NamedTuple):
    """A packet that came or went."""

    size_bytes: int
    packet: Packet | None
    """What it says, as far as that was read."""
    dropped: Drop | None = None
    """Why it is not listened to."""


class Multicast:
    """A node's part in the survey, on its sockets."""

    def __init__(
        self,
        surveyor: Surveyor,
        clock: Clock,
        config: MulticastConfig,
        *,
        on_packet: Callable[[Packet, bytes, Interface], object],
    ) -> None:
        """Survey by surveyor. on_packet gets each packet that is listened to, its bytes, and where it came from."""
        self._surveyor = surveyor
        self._clock = clock
        self._on_packet = on_packet
        self._links = Links(config, self._receive)
        self._timer: asyncio.TimerHandle | None = None
        self.tapped: Callable[[Heard], object] | None = None
        """Is called with every packet that comes or goes."""
        self.listening: Sequence[Multiaddr] = ()
        """Where this node accepts peers: surveys are answered from the moment it is set."""

    def update(self, machine: Sequence[Interface]) -> None:
        """Take part on the interfaces that are there now."""
        self._links.update(machine)

    def close(self) -> None:
        """Take part no longer."""
        if self._timer is not None:
            self._timer.cancel()
        self._links.close()

    def look_for(self, wanted: PeerId | None) -> Search:
        """Begin a search; its first survey goes out now. Answers come to on_packet too."""
        search = self._surveyor.look_for(wanted, self._clock.now())
        self._poll()
        return search

    def look_for_everybody(self) -> None:
        """Ask all there are, from now on."""
        self._surveyor.look_for_everybody(self._clock.now())
        self._poll()

    def stop(self, search: Search) -> None:
        """End a search, found or not."""
        self._surveyor.stop(search)

    def send(self, data: bytes) -> None:
        """Send a packet to everybody, on every link."""
        self._links.send(data)
        self._tap_sent(data)

    def _tap_sent(self, data: bytes) -> None:
        if self.tapped is not None and not self._links.is_empty:
            said = read(data)
            self.tapped(Heard(len(data), said if isinstance(said, Packet) else None))

    def _poll(self) -> None:
        for data in self._surveyor.poll(self._clock.now()):
            self.send(data)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if (due := self._surveyor.next_poll()) is not None:
            delay_s = max(0.0, due - self._clock.now())
            self._timer = asyncio.get_running_loop().call_later(delay_s, self._poll)

    def _receive(self, link: Link, data: bytes, sender: Any) -> None:
        addresses = reachable_by(link.interface, self.listening)
        received = self._surveyor.receive(data, self._clock.now(), addresses)
        if self.tapped is not None and received.packet is not Drop.OWN:  # which was told of when it was sent
            dropped = received.packet if isinstance(received.packet, Drop) else None
            self.tapped(Heard(len(data), received.said, dropped))
        if received.answer is not None:
            link.send(received.answer, sender)
            self._tap_sent(received.answer)
        if isinstance(received.packet, Packet):
            self._on_packet(received.packet, data, link.interface)
