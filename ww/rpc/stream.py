"""The adapter between a Stream and pycapnp's idea of a connection.

Holds the bytes pycapnp has not asked for yet and those it has written in this turn of the loop. Must not know what
they mean. pycapnp's own connections pause their transport from inside get_buffer, which uvloop does not survive, and
know no way in for another transport; `AsyncIoStream._connect` does, but is private: the pycapnp version is pinned.
Source: facts.md, pycapnp; measured by bench/dispatch.py.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from typing import Any

import capnp

from ww.errors import PeerError
from ww.net.transport import Stream
from ww.rpc.frame import Guard

log = logging.getLogger("ww.rpc")


class CapnpStream:
    """A Receiver of a Stream on one side, the transport of a pycapnp connection on the other."""

    def __init__(self, stream: Stream, inspect: Callable[[bytes], None] | None = None) -> None:
        """Carry what comes by stream; inspect sees it first."""
        self._stream = stream
        self._inspect = inspect
        self._guard = Guard()
        self._loop = asyncio.get_running_loop()
        # Memoryviews, not bytearrays: a sliced bytearray under asyncio's TLS silently loses data.
        self._spare: deque[memoryview] = deque()
        self._wanted = False
        self._paused = False
        self._written: list[bytes] = []
        self._lost: Exception | None = None
        self._is_lost = False
        self._told = False
        made: list[Any] = []
        self._protocol: Any = capnp.AsyncIoStream._connect(made.append)
        self._protocol.connection_made(self)
        self.capnp_stream: Any = made[0]
        stream.attach(self)

    # A Receiver: what the Stream calls.

    def data_received(self, data: bytes) -> None:
        try:
            self._guard.take(data)
        except PeerError as error:
            log.warning("refused %s at %s: %s", self._stream.peer_id, self._stream.remote, error)
            self._stream.abort()
            return
        if self._inspect is not None:
            self._inspect(data)
            if self._stream.is_closing():  # it was not to be let in
                return
        self._spare.append(memoryview(data))
        if self._wanted:
            self._feed()
        elif not self._paused:
            # Nobody asks just now; let the kernel hold what follows.
            self._paused = True
            self._stream.pause_reading()

    def pause_writing(self) -> None:
        if not self._is_lost:
            self._protocol.pause_writing()

    def resume_writing(self) -> None:
        if not self._is_lost:
            self._protocol.resume_writing()

    def connection_lost(self, error: Exception | None) -> None:
        self._lost = error
        self._is_lost = True
        if not self._spare:
            self._tell_lost()

    # The transport of a pycapnp connection.

    def pause_reading(self) -> None:
        self._wanted = False

    def resume_reading(self) -> None:
        self._wanted = True
        if self._paused:
            self._paused = False
            self._stream.resume_reading()
        if self._spare:
            self._feed()

    def write(self, data: bytes) -> None:
        # Messages of one turn leave as one TLS record and one system call.
        if not self._written:
            self._loop.call_soon(self._flush)
        self._written.append(data)

    def close(self) -> None:
        self._flush()
        self._stream.close()

    def is_closing(self) -> bool:
        return self._stream.is_closing() and not self._spare

    def can_write_eof(self) -> bool:
        return False

    def _flush(self) -> None:
        if self._written:
            written, self._written = self._written, []
            self._stream.write(written[0] if len(written) == 1 else b"".join(written))

    def _feed(self) -> None:
        """Copy spare bytes into the buffer pycapnp reads into, for as long as it reads."""
        while self._wanted and self._spare:
            data = self._spare.popleft()
            buffer = self._protocol.get_buffer(len(data))
            count = min(len(buffer), len(data))
            buffer[:count] = data[:count]
            if count < len(data):
                self._spare.appendleft(data[count:])
            self._protocol.buffer_updated(count)
        if self._is_lost and not self._spare:
            self._tell_lost()

    def _tell_lost(self) -> None:
        if not self._told:
            self._told = True
            # In a turn of its own: pycapnp must not lose its connection inside a read it has just begun.
            self._loop.call_soon(self._protocol.connection_lost, self._lost)
