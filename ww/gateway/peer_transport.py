"""A WebSocket as the transport of a Stream: bytes both ways, cut into messages anywhere.

Holds what waits to be sent and whether anything is to be read. Must not know whose bytes they are, nor what they mean.
The server below stops reading while nobody receives, so that a peer whose bytes are not wanted has to wait, as over
TCP; and this stops those that write while the peer takes nothing.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Final

from ww.gateway.same_origin import Message
from ww.net.transport import Stream

WRITE_BYTES_MAX: Final = 256 << 10
"""Of one message that is sent."""
_HIGH_WATER_BYTES: Final = 1 << 20
_NORMAL: Final = 1000
_UNSUPPORTED: Final = 1003


class SocketTransport(asyncio.Transport):
    """One end of a WebSocket that was accepted."""

    def __init__(
        self,
        protocol: Stream,
        receive: Callable[[], Awaitable[Message]],
        send: Callable[[Message], Awaitable[None]],
        cut: Callable[[], None],
    ) -> None:
        """Give protocol what receive brings; cut ends the connection under both at once."""
        super().__init__()
        self._protocol = protocol
        self._receive = receive
        self._send = send
        self._cut = cut
        self._may_read = asyncio.Event()
        self._may_read.set()
        self._has_output = asyncio.Event()
        self._output: deque[bytes] = deque()
        self._output_bytes = 0
        self._high_water_bytes = _HIGH_WATER_BYTES
        self._is_paused = False
        self._is_closing = False
        self._aborted = asyncio.Event()

    async def run(self) -> None:
        """Carry bytes until one side closes, or is gone. Leaves nothing behind."""
        tasks = [asyncio.ensure_future(each) for each in (self._read(), self._write_out(), self._aborted.wait())]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            ends = await asyncio.gather(*tasks, return_exceptions=True)
            self._is_closing = True
            self._output.clear()
            self._protocol.connection_lost(None)
        for end in ends:
            if isinstance(end, Exception) and not isinstance(end, OSError):
                raise end

    async def _read(self) -> None:
        while True:
            await self._may_read.wait()
            message = await self._receive()
            if message["type"] != "websocket.receive":
                return
            data = message.get("bytes")
            if data is None:
                await self._close_with(_UNSUPPORTED)
                return
            if not self._is_closing:
                self._protocol.data_received(data)

    async def _write_out(self) -> None:
        with suppress(OSError):
            while self._output or not self._is_closing:
                await self._has_output.wait()
                self._has_output.clear()
                while self._output:
                    await self._send({"type": "websocket.send", "bytes": self._next()})
            await self._close_with(_NORMAL)

    def _next(self) -> bytes:
        """Take as much of what waits as goes into one message."""
        parts: list[bytes] = []
        size = 0
        while self._output and (not parts or size + len(self._output[0]) <= WRITE_BYTES_MAX):
            parts.append(self._output.popleft())
            size += len(parts[-1])
        if size > WRITE_BYTES_MAX:
            data = parts.pop()
            parts.append(data[:WRITE_BYTES_MAX])
            self._output.appendleft(data[WRITE_BYTES_MAX:])
            size = WRITE_BYTES_MAX
        self._output_bytes -= size
        if self._is_paused and self._output_bytes < self._high_water_bytes:
            self._is_paused = False
            self._protocol.resume_writing()
        return parts[0] if len(parts) == 1 else b"".join(parts)

    async def _close_with(self, code: int) -> None:
        with suppress(OSError):
            await self._send({"type": "websocket.close", "code": code})

    # asyncio.Transport.

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if self._is_closing or not data:
            return
        self._output.append(bytes(data))
        self._output_bytes += len(data)
        self._has_output.set()
        if self._output_bytes > self._high_water_bytes and not self._is_paused:
            self._is_paused = True
            self._protocol.pause_writing()

    def close(self) -> None:
        self._is_closing = True
        self._has_output.set()

    def abort(self) -> None:
        self._is_closing = True
        self._aborted.set()
        self._cut()

    def is_closing(self) -> bool:
        return self._is_closing

    def pause_reading(self) -> None:
        self._may_read.clear()

    def resume_reading(self) -> None:
        self._may_read.set()

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self._high_water_bytes = _HIGH_WATER_BYTES if high is None else high
