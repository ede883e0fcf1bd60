"""What a transport is: it dials and serves streams whose other end is known by its key.

Holds the Transport protocol and the Stream that every transport makes. Must not know what travels in a stream; a
Receiver (rpc/stream.py) is attached to it. Implementations: tls.py for machines, memory.py for tests.
"""

import asyncio
from collections.abc import Callable
from typing import Protocol

from ww.identity import PeerId
from ww.net.multiaddr import Multiaddr

# Bytes that may wait in a stream nobody reads yet; what follows stays in the kernel's buffers.
_UNATTACHED_BYTES_MAX = 256 * 1024


class Receiver(Protocol):
    """Whoever gets a stream's bytes, in the manner of asyncio.Protocol."""

    def data_received(self, data: bytes) -> None:
        """Take bytes in order."""

    def pause_writing(self) -> None:
        """Stop writing until resume_writing: the peer is slower than we are."""

    def resume_writing(self) -> None:
        """Go on writing."""

    def connection_lost(self, error: Exception | None) -> None:
        """Nothing comes or goes any more."""


class Stream(asyncio.Protocol):
    """One authenticated, encrypted connection, as bytes in order both ways."""

    def __init__(self) -> None:
        self.peer_id: PeerId | None = None
        self.remote = "?"
        self._transport: asyncio.Transport | None = None
        self._receiver: Receiver | None = None
        self._early: list[bytes] = []
        self._early_bytes = 0
        self._lost = asyncio.Event()
        self._error: Exception | None = None

    def attach(self, receiver: Receiver) -> None:
        """Give the bytes, those that came early first, to receiver from now on."""
        self._receiver = receiver
        early, self._early, self._early_bytes = self._early, [], 0
        self.resume_reading()
        for data in early:
            receiver.data_received(data)
        if self._lost.is_set():
            receiver.connection_lost(self._error)

    def write(self, data: bytes) -> None:
        """Queue bytes for the peer; dropped when the stream is closing."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)

    def pause_reading(self) -> None:
        """Let the peer wait."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.pause_reading()

    def resume_reading(self) -> None:
        """Take bytes again."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.resume_reading()

    def is_closing(self) -> bool:
        """Whether the stream is closed or about to be."""
        return self._transport is None or self._transport.is_closing()

    def close(self) -> None:
        """Close once what was written has gone out."""
        if self._transport is not None:
            self._transport.close()

    def abort(self) -> None:
        """Close at once."""
        if self._transport is not None:
            self._transport.abort()

    async def wait_closed(self) -> None:
        """Return when the connection is gone."""
        await self._lost.wait()

    # asyncio.Protocol, called by the transport below.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        if self._lost.is_set():  # gone while its handshake ended
            transport.abort()
            return
        self._transport = transport
        transport.set_write_buffer_limits(high=1 << 20)

    def data_received(self, data: bytes) -> None:
        if self._receiver is not None:
            self._receiver.data_received(data)
            return
        self._early.append(data)
        self._early_bytes += len(data)
        if self._early_bytes >= _UNATTACHED_BYTES_MAX:
            self.pause_reading()

    def pause_writing(self) -> None:
        if self._receiver is not None:
            self._receiver.pause_writing()

    def resume_writing(self) -> None:
        if self._receiver is not None:
            self._receiver.resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._error = exc
        self._lost.set()
        if self._receiver is not None:
            self._receiver.connection_lost(exc)


class Listener(Protocol):
    """An open door."""

    @property
    def addresses(self) -> list[Multiaddr]:
        """Where it can be reached, with the ports the system chose."""

    async def aclose(self) -> None:
        """Stop accepting. Streams that were accepted live on."""


class Transport(Protocol):
    """A way to reach nodes and be reached, with both ends authenticated by their keys."""

    async def dial(self, address: Multiaddr, expect: PeerId) -> Stream:
        """Connect to address.

        Raises PeerMismatch when another key than expect's answers, PeerError when nobody does.
        """

    async def serve(self, address: Multiaddr, on_stream: Callable[[Stream], None]) -> Listener:
        """Listen at address and hand every authenticated stream to on_stream. PeerError when that cannot be had."""
