"""The machine's network interfaces: their names, their addresses, and when they change.

Holds what is asked of the system, and where a node that listens can be reached by what an interface leads to. Must not
know surveys. On Linux a change is told by the kernel (netlink); elsewhere, and besides, it is asked again now and then.
"""

import asyncio
import contextlib
import ipaddress
import socket
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Self

import ifaddr

from ww.net.multiaddr import Multiaddr

# From linux/rtnetlink.h: changes of links, of IPv4 addresses and of IPv6 addresses.
_GROUPS: Final = 0x1 | 0x10 | 0x100
# RFC 2863, as Linux says it; loopback is "unknown".
_DOWN: Final = ("down", "lowerlayerdown", "notpresent", "dormant")
_LOOK_AGAIN_S: Final = 5.0


@dataclass(frozen=True, slots=True)
class Interface:
    """One network interface that has an address."""

    name: str
    index: int
    addresses: tuple[Multiaddr, ...]
    """Its addresses, with port 0; link-local ones are left out, since they mean nothing without the interface."""
    is_up: bool = True
    """Whether it is connected to anything, as far as the system says."""

    @property
    def is_loopback(self) -> bool:
        """Whether it leads to this machine alone."""
        # One such address is enough: the loopback interface may have been given others.
        return any(address.is_loopback for address in self.addresses)


def interfaces() -> list[Interface]:
    """Return the interfaces that are there now."""
    found = []
    for adapter in ifaddr.get_adapters():
        if adapter.index is None:
            continue
        hosts = [ip.ip if isinstance(ip.ip, str) else ip.ip[0] for ip in adapter.ips]
        addresses = tuple(
            Multiaddr("ip6" if ":" in host else "ip4", host, 0)
            for host in hosts
            if not ipaddress.ip_address(host).is_link_local
        )
        found.append(Interface(adapter.name, adapter.index, addresses, _is_up(adapter.name)))
    return found


def _is_up(name: str) -> bool:
    try:
        return Path("/sys/class/net", name, "operstate").read_text().strip() not in _DOWN
    except OSError:
        return True


def reachable_by(interface: Interface, listening: Sequence[Multiaddr]) -> tuple[Multiaddr, ...]:
    """Return where peers that an interface leads to can reach a node that listens there."""
    found: list[Multiaddr] = []
    for address in listening:
        if address.is_unspecified:
            # A socket for every IPv6 address is made for IPv6 alone (net/tls.py).
            found += [replace(own, port=address.port) for own in interface.addresses if own.kind == address.kind]
        elif interface.is_loopback or not address.is_loopback:
            found.append(address)
    return tuple(dict.fromkeys(found))


def reachable_from_afar(machine: Sequence[Interface], listening: Sequence[Multiaddr]) -> tuple[Multiaddr, ...]:
    """Return where other machines can reach a node that listens there; only this one can when it is empty."""
    afar = [interface for interface in machine if interface.addresses and not interface.is_loopback]
    found = (address for interface in afar for address in reachable_by(interface, listening))
    return tuple(dict.fromkeys(address for address in found if not address.is_loopback))


class Watch:
    """Follows the machine's interfaces while it is open."""

    def __init__(self, on_change: Callable[[list[Interface]], object]) -> None:
        """Call on_change on the loop with the interfaces, when opened and whenever they changed."""
        self._on_change = on_change
        self._machine: list[Interface] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._socket: socket.socket | None = None

    def __enter__(self) -> Self:
        self._socket = _kernel_news()
        if self._socket is not None:
            asyncio.get_running_loop().add_reader(self._socket, self._read)
        self._look()
        return self

    def __exit__(self, *_: object) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self._socket is not None:
            asyncio.get_running_loop().remove_reader(self._socket)
            self._socket.close()

    def _read(self) -> None:
        assert self._socket is not None
        with contextlib.suppress(OSError):  # what was said does not matter, nor that it was too much
            while self._socket.recv(65536):
                pass
        self._look()

    def _look(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_later(_LOOK_AGAIN_S, self._look)
        machine = interfaces()
        if machine != self._machine:
            self._machine = machine
            self._on_change(machine)


def _kernel_news() -> socket.socket | None:
    """Open what becomes readable whenever links or addresses change; None where there is no such thing."""
    if sys.platform != "linux":
        return None
    try:
        sock = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK, socket.NETLINK_ROUTE)
    except OSError:
        return None
    try:
        sock.bind((0, _GROUPS))
    except OSError:
        sock.close()
        return None
    return sock
