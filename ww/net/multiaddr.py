"""Addresses as multiaddr text: /ip4/192.0.2.7/tcp/9100/p2p/12D3KooW...

Holds the parts of the multiaddr syntax that ww uses. Opens no socket and resolves no name.
Source: github.com/multiformats/multiaddr, README.
"""

import ipaddress
import re
from dataclasses import dataclass, replace
from typing import Self

from ww.errors import UsageError
from ww.identity import PeerId

_EXPECTED = "expected /ip4/ADDRESS/tcp/PORT, /ip6/... or /dns/NAME/tcp/PORT, optionally followed by /p2p/PEER_ID"
_DNS_LABEL = r"[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_DNS_NAME = re.compile(rf"(?=.{{1,253}}$){_DNS_LABEL}(\.{_DNS_LABEL})*")
_PORT = re.compile(r"[0-9]{1,5}")


@dataclass(frozen=True, slots=True)
class Multiaddr:
    """Where a node listens, and who it is where that is known."""

    kind: str
    """ip4, ip6 or dns."""
    host: str
    """IP address or host name."""
    port: int
    """TCP port; 0 lets the system choose one when listening."""
    peer_id: PeerId | None = None
    """Who is expected there."""

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read the text form; UsageError says what was expected."""
        parts = text.split("/")
        if len(text) > 512 or len(parts) not in (5, 7) or parts[0] or parts[3] != "tcp":
            raise UsageError(f"{text[:80]!r} is no address: {_EXPECTED}")
        kind, host, port = parts[1], parts[2], parts[4]
        if kind not in ("ip4", "ip6", "dns") or not _host_fits(kind, host):
            raise UsageError(f"{text[:80]!r} is no address: {host[:60]!r} is no {kind[:10]} host; {_EXPECTED}")
        if not (_PORT.fullmatch(port) and int(port) < 65536):
            raise UsageError(f"{text[:80]!r} is no address: {port[:10]!r} is no TCP port; {_EXPECTED}")
        if len(parts) == 7 and parts[5] != "p2p":
            raise UsageError(f"{text[:80]!r} is no address: {_EXPECTED}")
        return cls(kind, host, int(port), PeerId.parse(parts[6]) if len(parts) == 7 else None)

    @classmethod
    def of_socket(cls, host: str, port: int) -> Self:
        """Name a socket's own address."""
        return cls("ip6" if ":" in host else "ip4", host.split("%")[0], port)

    @property
    def is_loopback(self) -> bool:
        """Whether only processes of this machine can reach it."""
        if self.kind == "dns":
            return self.host == "localhost"
        return ipaddress.ip_address(self.host).is_loopback

    @property
    def is_unspecified(self) -> bool:
        """Whether it stands for every interface of the machine."""
        return self.kind != "dns" and ipaddress.ip_address(self.host).is_unspecified

    def of_peer(self, peer_id: PeerId) -> Self:
        """Return the same address with that peer id."""
        return replace(self, peer_id=peer_id)

    def __str__(self) -> str:
        text = f"/{self.kind}/{self.host}/tcp/{self.port}"
        return text if self.peer_id is None else f"{text}/p2p/{self.peer_id}"


def _host_fits(kind: str, host: str) -> bool:
    if kind == "dns":
        return _DNS_NAME.fullmatch(host) is not None
    try:
        return ipaddress.ip_address(host).version == (4 if kind == "ip4" else 6) and "%" not in host
    except ValueError:
        return False


_GROUP_EXPECTED = "expected /ip4/GROUP/udp/PORT/multicast or /ip6/..., optionally followed by /INTERFACE"
_INTERFACE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:@-]{0,31}")


@dataclass(frozen=True, slots=True)
class MulticastGroup:
    """A multicast group and UDP port: /ip4/239.255.88.22/udp/8822/multicast, on one interface or on all."""

    kind: str
    """ip4 or ip6."""
    host: str
    """Address of the group."""
    port: int
    interface: str | None = None
    """Name of the one interface, as the system calls it."""

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read the text form; UsageError says what was expected."""
        parts = text.split("/")
        wrong = UsageError(f"{text[:80]!r} is no multicast group: {_GROUP_EXPECTED}")
        if len(text) > 160 or len(parts) not in (6, 7) or parts[0] or (parts[3], parts[5]) != ("udp", "multicast"):
            raise wrong
        kind, host, port = parts[1], parts[2], parts[4]
        if kind not in ("ip4", "ip6") or not _host_fits(kind, host) or not ipaddress.ip_address(host).is_multicast:
            raise wrong
        if not (_PORT.fullmatch(port) and 0 < int(port) < 65536):
            raise wrong
        if len(parts) == 7 and not _INTERFACE.fullmatch(parts[6]):
            raise wrong
        return cls(kind, host, int(port), parts[6] if len(parts) == 7 else None)

    def __str__(self) -> str:
        text = f"/{self.kind}/{self.host}/udp/{self.port}/multicast"
        return text if self.interface is None else f"{text}/{self.interface}"
