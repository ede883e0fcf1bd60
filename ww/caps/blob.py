"""Bytes by reference: whoever needs them reads them, in pieces, from whoever has them.

Holds the serving side, over a file or memory, and the reading side. Must not know what the bytes are;
whoever reads a blob checks them against the digest it wanted.
"""

import asyncio
import os
from collections import deque
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final

from ww import schema
from ww.errors import NotFound, Overloaded, PeerError, UsageError
from ww.rpc.errors import call

READ_BYTES_MAX: Final = 1 << 20
_SERVED_TIMES_MAX: Final = 2
_PIECE_BYTES: Final = 256 * 1024
# Reads under way at once, so that a round trip costs no bandwidth.
_WINDOW: Final = 4


class BlobServer(schema.worker.Blob.Server):  # type: ignore[misc]
    """Serves one file, or a part of it, which must not change while it is served."""

    def __init__(self, path: Path, start: int = 0, length: int | None = None) -> None:
        self._path = path
        self._start = start
        self._length = length
        self._served_bytes = 0

    async def size_context(self, context: Any) -> None:
        context.results.bytes = await asyncio.to_thread(self._size)

    async def read_context(self, context: Any) -> None:
        offset, count = context.params.offset, context.params.count
        if count > READ_BYTES_MAX:
            raise UsageError(f"a read of {count} bytes: at most {READ_BYTES_MAX} a call")
        size = await asyncio.to_thread(self._size)
        data = await asyncio.to_thread(self._read, offset, min(count, max(0, size - offset)))
        # Answers wait in memory for a peer that does not read them: one that asks for ever is not answered for ever.
        self._served_bytes += len(data)
        if self._served_bytes > _SERVED_TIMES_MAX * size + READ_BYTES_MAX:
            raise Overloaded(f"this blob was read {_SERVED_TIMES_MAX} times over: ask for it anew")
        context.results.data = data

    def _size(self) -> int:
        try:
            size = self._path.stat().st_size
            return size if self._length is None else self._length
        except OSError:
            raise NotFound("the bytes are not there any more") from None

    def _read(self, offset: int, count: int) -> bytes:
        try:
            with self._path.open("rb") as file:
                return os.pread(file.fileno(), count, self._start + offset)
        except OSError:
            raise NotFound("the bytes are not there any more") from None


class BytesBlobServer(schema.worker.Blob.Server):  # type: ignore[misc]
    """Serves bytes in memory, for as long as somebody holds it."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._served_bytes = 0

    async def size_context(self, context: Any) -> None:
        context.results.bytes = len(self._data)

    async def read_context(self, context: Any) -> None:
        offset, count = context.params.offset, context.params.count
        if count > READ_BYTES_MAX:
            raise UsageError(f"a read of {count} bytes: at most {READ_BYTES_MAX} a call")
        data = self._data[offset : offset + count]
        self._served_bytes += len(data)
        if self._served_bytes > _SERVED_TIMES_MAX * len(self._data) + READ_BYTES_MAX:
            raise Overloaded(f"this blob was read {_SERVED_TIMES_MAX} times over: ask for it anew")
        context.results.data = data


async def fetch(blob: Any, *, bytes_max: int) -> AsyncIterator[bytes]:
    """Yield the bytes of a remote blob in order.

    Raises UsageError when it says it is larger than bytes_max, PeerError when it yields less than it said.
    """
    size = (await call(blob.size())).bytes
    if size > bytes_max:
        raise UsageError(f"a blob of {size} bytes: at most {bytes_max} are taken")
    under_way: deque[tuple[int, Any]] = deque()
    asked = 0
    while asked < size or under_way:
        while asked < size and len(under_way) < _WINDOW:
            count = min(_PIECE_BYTES, size - asked)
            under_way.append((count, blob.read(offset=asked, count=count)))
            asked += count
        count, promise = under_way.popleft()
        data = bytes((await call(promise)).data)
        if len(data) != count:
            raise PeerError(f"a blob ended early: {len(data)} bytes came where {count} were asked for")
        yield data
