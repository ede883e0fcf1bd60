"""A transport without sockets, for tests: streams between nodes of one process and one event loop.

Holds a Network, which stands for the wire, and the MemoryTransport by which one identity uses it. Bytes arrive in
order and in a later turn of the loop, never inside write, as on a socket. Peer ids are believed: there is no attacker
in here. Same protocol as tls.py.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from weakref import WeakSet

from ww.errors import PeerError, PeerMismatch
from ww.identity import Identity, PeerId
from ww.net.multiaddr import Multiaddr
from ww.net.transport import Stream

_HIGH_WATER_BYTES = 1 << 20


class Network:
    """Who listens where."""

    def __init__(self) -> None:
        self.doors: dict[tuple[str, int], tuple[PeerId, Callable[[Stream], None]]] = {}
        self.next_port = 1024
        self.streams: WeakSet[Stream] = WeakSet()

    def cut(self) -> None:
        """Break every connection; the doors stay open."""
        for stream in list(self.streams):
            stream.abort()


class MemoryTransport:
    """One node's access to a Network."""

    def __init__(self, network: Network, identity: Identity) -> None:
        self._network = network
        self._identity = identity

    async def dial(self, address: Multiaddr, expect: PeerId) -> Stream:
        door = self._network.doors.get((address.host, address.port))
        if door is None:
            raise PeerError(f"{address}: connection refused")
        peer_id, on_stream = door
        if peer_id != expect:
            raise PeerMismatch(f"{address}: dialled {expect}, but {peer_id} answered")
        ours, theirs = Stream(), Stream()
        ours.peer_id, theirs.peer_id = peer_id, self._identity.peer_id
        ours.remote, theirs.remote = str(address), "memory"
        connect(ours, theirs)
        self._network.streams.update((ours, theirs))
        on_stream(theirs)
        return ours

    async def serve(self, address: Multiaddr, on_stream: Callable[[Stream], None]) -> "MemoryListener":
        if not address.port:
            self._network.next_port += 1
            address = replace(address, port=self._network.next_port)
        if (address.host, address.port) in self._network.doors:
            raise PeerError(f"cannot listen on {address}: address already in use")
        self._network.doors[address.host, address.port] = (self._identity.peer_id, on_stream)
        return MemoryListener(self._network, address)


class MemoryListener:
    """An open door of a Network."""

    def __init__(self, network: Network, address: Multiaddr) -> None:
        self._network = network
        self.addresses = [address]

    async def aclose(self) -> None:
        for address in self.addresses:
            self._network.doors.pop((address.host, address.port), None)


def connect(one: Stream, other: Stream) -> None:
    """Join two fresh streams to each other."""
    end, far = _End(one), _End(other)
    end.far, far.far = far, end
    one.connection_made(end)
    other.connection_made(far)


class _End(asyncio.Transport):
    """One end of the wire. Holds what has come for its protocol and is not delivered yet."""

    far: "_End"

    def __init__(self, protocol: Stream) -> None:
        super().__init__()
        self._loop = asyncio.get_running_loop()
        self._protocol = protocol
        self._inbox: deque[bytes] = deque()
        self._inbox_bytes = 0
        self._reading = True
        self._closing = False
        self._far_paused = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if self._closing:
            return
        self.far._inbox.append(bytes(data))
        self.far._inbox_bytes += len(data)
        if self.far._inbox_bytes > _HIGH_WATER_BYTES and not self.far._far_paused:
            self.far._far_paused = True
            self._protocol.pause_writing()
        self._loop.call_soon(self.far._deliver)

    def _deliver(self) -> None:
        while self._inbox and self._reading and not self._closing:
            data = self._inbox.popleft()
            self._inbox_bytes -= len(data)
            self._protocol.data_received(data)
        if self._far_paused and self._inbox_bytes < _HIGH_WATER_BYTES:
            self._far_paused = False
            self.far._protocol.resume_writing()

    def close(self) -> None:
        # After what was written: call_soon keeps the order.
        if not self._closing:
            self._closing = True
            self._loop.call_soon(self._protocol.connection_lost, None)
            self._loop.call_soon(self.far.close)

    def abort(self) -> None:
        self.close()

    def is_closing(self) -> bool:
        return self._closing

    def pause_reading(self) -> None:
        self._reading = False

    def resume_reading(self) -> None:
        self._reading = True
        self._loop.call_soon(self._deliver)

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """The wire has one fixed limit."""
