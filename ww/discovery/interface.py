"""The machine's network interfaces: their names, their addresses, and when they change.

Holds what is asked of the system, and where a node that listens can be reached by what an interface leads to. Must not
know surveys. On Linux a change is told by the kernel (netlink); elsewhere, and besides, whoever needs it asks again now
and then.
"""

import asyncio
import contextlib
import ipaddress
import socket
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Final

import ifaddr

from ww.net.multiaddr import Multiaddr

# From linux/rtnetlink.h: changes of links, of IPv4 addresses and of IPv6 addresses.
_GROUPS: Final = 0x1 | 0x10 | 0x100


@dataclass(frozen=True, slots=True)
class Interface:
    """One network interface that has an address."""

    name: str
    index: int
    addresses: tuple[Multiaddr, ...]
    """Its addresses, with port 0; link-local ones are left out, since they mean nothing without the interface."""

    @property
    def is_loopback(self) -> bool:
        """Whether it leads to this machine alone."""
        return bool(self.addresses) and all(address.is_loopback for address in self.addresses)


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
        found.append(Interface(adapter.name, adapter.index, addresses))
    return found


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
    return tuple(dict.fromkeys(address for interface in afar for address in reachable_by(interface, listening)))


@contextmanager
def watching(on_change: Callable[[], object]) -> Iterator[None]:
    """Call on_change on the loop when the system says that links or addresses changed; not every system ever does."""
    if sys.platform != "linux":
        yield
        return
    try:
        sock = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK, socket.NETLINK_ROUTE)
    except OSError:
        yield
        return
    with contextlib.closing(sock):
        loop = asyncio.get_running_loop()

        def read() -> None:
            with contextlib.suppress(OSError):  # what was said does not matter, nor that it was too much
                while sock.recv(65536):
                    pass
            on_change()

        try:
            sock.bind((0, _GROUPS))
        except OSError:
            yield
            return
        loop.add_reader(sock, read)
        try:
            yield
        finally:
            loop.remove_reader(sock)
