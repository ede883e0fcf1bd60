"""mDNS beside the survey: nodes announce where they are, and hear of others, as libp2p's do.

Holds one service, `_p2p._udp.local`: each node has a record under a random name whose TXT strings are
`dnsaddr=/ip4/.../p2p/PEER_ID`, one an address, and `ns=NAMESPACE`, which is ours; records of other namespaces are not
listened to. Must not know who is looked for. Nothing in mDNS is authenticated: what comes is where to knock, and who
answers is proved by the transport. Source: libp2p specification, discovery/mdns.md; RFC 6762 and 6763 through zeroconf.
"""

import asyncio
import contextlib
import logging
import secrets
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Self

from zeroconf import IPVersion, ServiceStateChange, Zeroconf
from zeroconf.asyncio import AsyncServiceBrowser, AsyncServiceInfo, AsyncZeroconf

from ww.discovery.interface import interfaces
from ww.errors import UsageError
from ww.identity import PeerId
from ww.net.multiaddr import Multiaddr

log = logging.getLogger("ww.discovery")

SERVICE: Final = "_p2p._udp.local."
_TYPE_TXT: Final = 16
_STRING_BYTES_MAX: Final = 255
_CLOSE_S: Final = 1.0
# Peers announce port and host as DNS wants it; the address that counts is in the TXT record.
_PORT: Final = 4001


@dataclass(frozen=True, slots=True)
class MdnsConfig:
    """How much is believed and kept."""

    addresses_max: int = 8
    """Of one record."""
    record_bytes_max: int = 4096
    peers_max: int = 4096
    """Records that are remembered, so that only news is told."""
    request_ms: int = 3000
    """How long a record that was named and not sent is asked for."""
    requests_max: int = 64
    """Records that are asked for at a time."""


def write_txt(peer_id: PeerId, namespace: str, addresses: Sequence[Multiaddr]) -> bytes:
    """Write a record's TXT strings, each with its length before it."""
    strings = [f"dnsaddr={address.of_peer(peer_id)}" for address in addresses]
    encoded = [text.encode() for text in (f"ns={namespace}", *strings)]
    return b"".join(bytes([len(text)]) + text for text in encoded if len(text) <= _STRING_BYTES_MAX)


def read_txt(data: bytes, config: MdnsConfig) -> tuple[str | None, PeerId, tuple[Multiaddr, ...]] | None:
    """Read a record's TXT strings: namespace, peer and addresses; None when they are not one peer's.

    Never raises. Addresses that ww cannot dial, of other transports, are passed over.
    """
    namespace: str | None = None
    peers: set[PeerId] = set()
    addresses: list[Multiaddr] = []
    for text in _strings(data[: config.record_bytes_max]):
        key, _, value = text.partition("=")
        if key == "ns":
            namespace = value
        elif key == "dnsaddr":
            with contextlib.suppress(UsageError):
                address = Multiaddr.parse(value)
                if address.peer_id is not None:
                    peers.add(address.peer_id)
                    addresses.append(replace(address, peer_id=None))
    if len(peers) != 1:
        return None
    return namespace, peers.pop(), tuple(addresses[: config.addresses_max])


def _strings(data: bytes) -> Iterable[str]:
    at = 0
    while at < len(data):
        length = data[at]
        with contextlib.suppress(UnicodeDecodeError):
            yield data[at + 1 : at + 1 + length].decode()
        at += 1 + length


class Mdns:
    """A node's part in mDNS."""

    def __init__(
        self,
        peer_id: PeerId,
        namespace: str,
        on_found: Callable[[PeerId, tuple[Multiaddr, ...]], object],
        config: MdnsConfig | None = None,
    ) -> None:
        """on_found gets a peer's addresses when they are new or have changed."""
        self._peer_id = peer_id
        self._namespace = namespace
        self._on_found = on_found
        self._config = config or MdnsConfig()
        # At least 32 characters, says the specification, so that no two are the same.
        self._name = f"{secrets.token_hex(20)}.{SERVICE}"
        self._txt = b""
        self._info: AsyncServiceInfo | None = None
        self._zeroconf: AsyncZeroconf | None = None
        self._browser: AsyncServiceBrowser | None = None
        self._records: OrderedDict[str, bytes] = OrderedDict()
        self._tasks: set[asyncio.Future[Any]] = set()
        self._turn = asyncio.Lock()
        self._has_warned = False

    async def __aenter__(self) -> Self:
        await self._open()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._close()

    async def rebind(self) -> None:
        """Open all sockets anew, on the interfaces that are there now."""
        async with self._turn:
            await self._close()
            await self._open()
            await self._register()

    async def announce(self, addresses: Sequence[Multiaddr]) -> None:
        """Let others know that this node is there from now on; nowhere any more when addresses is empty."""
        usable = [address for address in addresses if not address.is_loopback][: self._config.addresses_max]
        txt = write_txt(self._peer_id, self._namespace, usable) if usable else b""
        async with self._turn:
            if txt != self._txt:
                self._txt = txt
                await self._register()

    async def _open(self) -> None:
        hosts = [
            address.host
            for interface in interfaces()
            if interface.is_up and not interface.is_loopback
            for address in interface.addresses
            if address.kind == "ip4"
        ]
        if not hosts:
            return
        try:
            self._zeroconf = AsyncZeroconf(interfaces=hosts, ip_version=IPVersion.V4Only)
            await self._zeroconf.zeroconf.async_wait_for_start()
        except Exception as error:  # whatever the machine does not allow: the node does without
            if not self._has_warned:
                log.warning("no mDNS: %s", error or type(error).__name__)
            self._has_warned = True
            await self._close()
            return
        self._browser = AsyncServiceBrowser(self._zeroconf.zeroconf, SERVICE, handlers=[self._on_change])

    async def _close(self) -> None:
        """Say goodbye, and let go of everything, in bounded time."""
        zeroconf, self._zeroconf = self._zeroconf, None
        browser, self._browser = self._browser, None
        self._info = None
        for task in self._tasks:
            task.cancel()
        if zeroconf is None:
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_CLOSE_S):
                if browser is not None:
                    await browser.async_cancel()
                await zeroconf.async_unregister_all_services()
        await zeroconf.async_close()

    async def _register(self) -> None:
        """Have the record say what it should."""
        zeroconf = self._zeroconf
        if zeroconf is None:
            return
        try:
            before, self._info = self._info, None
            if not self._txt:
                if before is not None:
                    self._keep(await zeroconf.async_unregister_service(before))
                return
            self._info = AsyncServiceInfo(
                SERVICE, self._name, port=_PORT, properties=self._txt, server=f"{self._name.partition('.')[0]}.local."
            )
            if before is None:
                # The name is random: there is no other that it has to be told from first.
                self._keep(await zeroconf.async_register_service(self._info, cooperating_responders=True))
            else:
                self._keep(await zeroconf.async_update_service(self._info))
        except Exception as error:
            log.warning("mDNS does not announce this node: %s", error or type(error).__name__)

    def _keep(self, broadcast: Any) -> None:
        """Hold what goes on by itself, until it has ended."""
        task = asyncio.ensure_future(broadcast)
        self._tasks.add(task)
        task.add_done_callback(self._forget)

    def _forget(self, task: "asyncio.Future[Any]") -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()):
            log.debug("mDNS: %s", error)

    def _on_change(self, zeroconf: Zeroconf, service_type: str, name: str, state_change: ServiceStateChange) -> None:
        if state_change is ServiceStateChange.Removed:
            self._records.pop(name, None)
        elif name != self._name and not self._take(zeroconf, name) and len(self._tasks) < self._config.requests_max:
            self._keep(self._ask(zeroconf, name))

    async def _ask(self, zeroconf: Zeroconf, name: str) -> None:
        """Ask for a record that was named without its content."""
        await AsyncServiceInfo(SERVICE, name).async_request(zeroconf, self._config.request_ms)
        self._take(zeroconf, name)

    def _take(self, zeroconf: Zeroconf, name: str) -> bool:
        """Tell what a record says, where that is known and new; False when it is not known."""
        records: list[Any] = [r for r in zeroconf.cache.async_entries_with_name(name) if r.type == _TYPE_TXT]
        if not records:
            return False
        data = bytes(max(records, key=lambda record: record.created).text)
        if self._records.get(name) == data:
            return True
        self._records[name] = data
        self._records.move_to_end(name)
        while len(self._records) > self._config.peers_max:
            self._records.popitem(last=False)
        said = read_txt(data, self._config)
        if said is not None and said[0] == self._namespace and said[1] != self._peer_id and said[2]:
            self._on_found(said[1], said[2])
        return True
