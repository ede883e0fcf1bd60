"""mDNS: how nodes on one link find each other by the records that libp2p nodes publish.

Holds the TXT record, written and read, and the sockets, which zeroconf (70 ms to import) opens on every interface but
loopback. Each node is an instance of `_p2p._udp.local` under a random name; besides the `dnsaddr=` strings of the
specification its TXT record has `ns=NAMESPACE`, and records of other namespaces are ignored. mDNS is not authenticated,
and anybody on the link can say anything: what is found is a hint where to dial, and the dial proves the key.
Must not know who dials. Source: libp2p specification, discovery/mdns.md; RFC 6762; RFC 6763, section 6.
"""

import asyncio
import contextlib
import ipaddress
import logging
import secrets
import socket
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Self

import ifaddr
import zeroconf
from zeroconf.asyncio import AsyncServiceBrowser, AsyncZeroconf

from ww.errors import UsageError
from ww.identity import PeerId
from ww.net.multiaddr import Multiaddr

log = logging.getLogger("ww.discovery")

SERVICE: Final = "_p2p._udp.local."
_STRING_BYTES_MAX: Final = 255
_BOUND_S: Final = 2.0


@dataclass(frozen=True, slots=True)
class MdnsConfig:
    """How much is said and remembered, and how often."""

    peers_max: int = 4096
    """Records remembered; of those that came before, a repetition is reported as if it were new."""
    addresses_max: int = 8
    """Addresses of one record; later ones are neither written nor read."""
    record_bytes_max: int = 1100
    """Of a TXT record; with all around it, it then fits the MTU of most links. Larger ones are ignored."""
    say_again_s: float = 1.0
    """Seconds after an announcement until it is repeated; each repetition doubles them."""
    say_again_max_s: float = 60.0
    """Seconds between repetitions at most: so late a cut that no link shows, as one behind a switch, is healed."""
    look_again_s: float = 1.0
    """Seconds after which the links are looked at again, for one that went down or came back."""


def write_text(peer_id: PeerId, namespace: str, addresses: Sequence[Multiaddr], config: MdnsConfig) -> bytes:
    """Write a TXT record that says where a peer is; addresses that do not fit are left out, the last ones first.

    UsageError when the namespace does not fit.
    """
    text = _string("ns", namespace)
    if not text:
        raise UsageError(f"--ns {namespace[:80]!r}: too long for mDNS", "ns")
    for address in addresses[: config.addresses_max]:
        string = _string("dnsaddr", str(address.of_peer(peer_id)))
        if len(text) + len(string) <= config.record_bytes_max:
            text += string
    return text


def read_text(text: bytes, namespace: str, config: MdnsConfig) -> tuple[PeerId, tuple[Multiaddr, ...]] | None:
    """Read a TXT record, which may be any bytes: who it claims to be of, and where that is.

    None for one that names no peer of that namespace, or several.
    """
    if len(text) > config.record_bytes_max:
        return None
    namespaces: list[bytes] = []
    addresses: list[Multiaddr] = []
    for key, value in _entries(text):
        if key == b"ns":
            namespaces.append(value)
        elif key == b"dnsaddr" and (address := _address(value)) is not None:
            addresses.append(address)
    peers = {address.peer_id for address in addresses}
    peer_id = peers.pop() if len(peers) == 1 else None
    usable = dict.fromkeys(replace(address, peer_id=None) for address in addresses if _leads_elsewhere(address))
    # A key that comes several times has the first value: RFC 6763, section 6.4.
    if peer_id is None or not usable or namespaces[:1] != [namespace.encode()]:
        return None
    return peer_id, tuple(usable)[: config.addresses_max]


def _string(key: str, value: str) -> bytes:
    data = f"{key}={value}".encode()
    return bytes((len(data),)) + data if len(data) <= _STRING_BYTES_MAX else b""


def _entries(text: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Take a TXT record apart: keys in lower case, and values. What its end cuts off is left out."""
    start = 0
    while start < len(text):
        end = start + 1 + text[start]
        if end <= len(text):
            key, _, value = text[start + 1 : end].partition(b"=")
            yield key.lower(), value
        start = end


def _address(value: bytes) -> Multiaddr | None:
    try:
        address = Multiaddr.parse(value.decode("ascii"))
    except (UnicodeDecodeError, UsageError):
        return None
    return address if address.peer_id is not None else None


def _leads_elsewhere(address: Multiaddr) -> bool:
    # A name is not for anybody on the link to have this node ask for.
    return address.kind != "dns" and address.port != 0 and not address.is_loopback and not address.is_unspecified


def _interfaces() -> list[str | int]:
    """Return what mDNS can be spoken on now, as zeroconf takes it.

    That is of each link an IPv4 address, and for IPv6 its index. OSError when the system does not say.
    """
    found: list[str | int] = []
    for adapter in ifaddr.get_adapters():
        ip4 = [ip.ip for ip in adapter.ips if isinstance(ip.ip, str)]
        ip6 = [ip.ip[0] for ip in adapter.ips if not isinstance(ip.ip, str)]
        is_loopback = any(ipaddress.ip_address(ip).is_loopback for ip in ip4 + ip6)
        if adapter.index is None or is_loopback or not _has_carrier(adapter.name):
            continue
        found += ip4[:1]
        # zeroconf binds the first address of an index; that fails until the system has found it to be unique.
        if ip6 and _can_bind(ip6[0], adapter.index):
            found.append(adapter.index)
    return found


def _can_bind(ip6: str, index: int) -> bool:
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as sock:
            sock.bind((ip6, 0, 0, index))
    except OSError:
        return False
    return True


def _has_carrier(interface: str) -> bool:
    # Without, an IPv4 address can be bound as well. operstate says the same, up to a second later.
    try:
        return Path("/sys/class/net", interface, "carrier").read_text() == "1\n"
    except FileNotFoundError:  # another system than Linux
        return True
    except OSError:  # the link is down
        return False


class _Listener(zeroconf.RecordUpdateListener):
    """Hands on what is heard of the service; must not let anything reach zeroconf, and so the event loop."""

    def __init__(self, hear: Callable[[str, bytes, bool], object]) -> None:
        self._hear = hear

    def async_update_records(self, zc: zeroconf.Zeroconf, now: float, records: list[zeroconf.RecordUpdate]) -> None:
        for update in records:
            record = update.new
            text = getattr(record, "text", None)  # TXT records alone have one
            if not isinstance(text, bytes) or not record.key.endswith("." + SERVICE):
                continue
            try:
                self._hear(record.key, text, record.is_expired(now))
            except Exception:
                log.exception("mDNS: a record was not taken in")


class Mdns:
    """One node's part in mDNS: it is found under what it announces, and hears of others."""

    def __init__(
        self,
        peer_id: PeerId,
        namespace: str,
        on_found: Callable[[PeerId, tuple[Multiaddr, ...]], None],
        config: MdnsConfig | None = None,
    ) -> None:
        """Call on_found on the loop whenever a peer's record is new or changed. UsageError: namespace too long."""
        self._peer_id = peer_id
        self._namespace = namespace
        self._on_found = on_found
        self._config = config or MdnsConfig()
        write_text(peer_id, namespace, (), self._config)
        # With 128 random bits nobody else has it, so that it is announced without asking around for 0.7 s.
        self._name = secrets.token_hex(16)
        self._addresses: list[Multiaddr] = []
        self._known: OrderedDict[str, bytes] = OrderedDict()
        self._interfaces: list[str | int] = []
        self._sockets: AsyncZeroconf | None = None
        self._browser: AsyncServiceBrowser | None = None
        self._listener = _Listener(self._hear)
        self._registered: zeroconf.ServiceInfo | None = None
        self._say_at = 0.0
        self._pause_s = 0.0
        self._has_warned = False
        self._lock = asyncio.Lock()
        self._stack = contextlib.AsyncExitStack()

    async def __aenter__(self) -> Self:
        """Open the sockets and begin to browse; without mDNS, when it cannot be had here, after a warning."""
        # It logs, with a traceback, each link that it cannot send on; whatever matters it raises.
        logging.getLogger("zeroconf").setLevel(logging.CRITICAL)
        self._stack.push_async_callback(self._leave)
        try:
            await self._open()
            group = await self._stack.enter_async_context(asyncio.TaskGroup())
            following = group.create_task(self._follow())
            self._stack.callback(following.cancel)
        except BaseException:
            await self._stack.aclose()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    async def announce(self, addresses: Sequence[Multiaddr]) -> None:
        """Be found at these addresses from now on, and no longer at others; () withdraws this node.

        Loopback addresses are left out.
        """
        async with self._lock:
            self._addresses = [address for address in addresses if _leads_elsewhere(address)]
            self._register()

    async def rebind(self) -> None:
        """Open the sockets anew on the interfaces there are now, browse and announce again."""
        async with self._lock:
            await self._close()
            await self._open()
            self._register()

    async def _open(self) -> None:
        self._known.clear()
        try:
            self._interfaces = _interfaces()
            if not self._interfaces:
                raise OSError("no link to other machines is up")
            self._sockets = AsyncZeroconf(interfaces=self._interfaces)
            await self._sockets.zeroconf.async_wait_for_start(_BOUND_S)
        except (OSError, RuntimeError, zeroconf.Error) as error:
            await self._close()
            if not self._has_warned:
                self._has_warned = True
                log.warning("no mDNS for now: %s", error or type(error).__name__)
            return
        self._has_warned = False
        self._sockets.zeroconf.async_add_listener(self._listener, None)
        # It asks, now and when records grow old; what is answered is heard by the listener, together with its text.
        self._browser = AsyncServiceBrowser(self._sockets.zeroconf, SERVICE, handlers=[lambda **_: None])

    async def _close(self) -> None:
        """Close the sockets and say nothing: to others this node is where it was."""
        self._registered = None
        if self._browser is not None:
            await self._browser.async_cancel()
            self._browser = None
        if self._sockets is not None:
            self._sockets.zeroconf.generate_unregister_all_services()  # or it would send goodbyes, for 0.25 s
            with contextlib.suppress(OSError, TimeoutError, zeroconf.Error):
                async with asyncio.timeout(_BOUND_S):
                    await self._sockets.async_close()
            self._sockets = None

    async def _leave(self) -> None:
        async with self._lock:
            self._addresses = []
            self._register()
            await self._close()

    def _register(self) -> None:
        """Bring what is registered in line with the addresses."""
        if self._sockets is None or (self._registered is None and not self._addresses):
            return
        engine, before = self._sockets.zeroconf, self._registered
        if not self._addresses and before is not None:
            self._registered = None
            engine.registry.async_remove(before)
            engine.async_send(engine.generate_service_broadcast(before, 0))
            return
        text = write_text(self._peer_id, self._namespace, self._addresses, self._config)
        if before is not None and before.text == text:
            return
        # Of port and host only other programs take notice; they come with every instance of a service.
        self._registered = zeroconf.ServiceInfo(
            SERVICE, f"{self._name}.{SERVICE}", self._addresses[0].port, properties=text, server=f"{self._name}.local."
        )
        if before is None:
            engine.registry.async_add(self._registered)
        else:
            engine.registry.async_update(self._registered)
        self._pause_s = self._config.say_again_s
        self._say()

    def _say(self) -> None:
        """Tell everybody where this node is, and note when to do it again."""
        self._say_at = asyncio.get_running_loop().time() + self._pause_s
        self._pause_s = min(self._config.say_again_max_s, 2 * self._pause_s)
        if self._sockets is not None and self._registered is not None:
            engine = self._sockets.zeroconf
            engine.async_send(engine.generate_service_broadcast(self._registered, None))

    async def _follow(self) -> None:
        """Repeat what was announced, and open the sockets anew when a link went down or came back."""
        while True:
            await asyncio.sleep(self._config.look_again_s)
            try:
                if _interfaces() != self._interfaces:
                    await self.rebind()
                elif asyncio.get_running_loop().time() >= self._say_at:
                    self._say()
            except Exception:
                # Whatever it is, the node can do without mDNS.
                log.exception("mDNS could not be kept up")

    def _hear(self, name: str, text: bytes, is_gone: bool) -> None:
        """Take in one record, as it comes from the network."""
        if is_gone:
            # An earlier text of a name runs out beside the one that holds.
            if self._known.get(name) == text:
                del self._known[name]
            return
        if self._known.get(name) == text:
            self._known.move_to_end(name)
            return
        found = read_text(text, self._namespace, self._config)
        if found is None or found[0] == self._peer_id:
            return
        self._known[name] = text
        while len(self._known) > self._config.peers_max:
            self._known.popitem(last=False)
        self._on_found(*found)
