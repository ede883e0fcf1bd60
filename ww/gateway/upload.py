"""One file on its way into a content store: written once, hashed once.

Holds it in memory while it is small, else as a file of the store's folder that is not whole yet, and counts it against
the store's quota as it grows. Must not know what it is, nor where it comes from. Leave its context, and what was not
kept is gone.
"""

import hashlib
import io
import os
import tempfile
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Final, Self

from ww.errors import Overloaded, WwError
from ww.gateway.content import PART, ContentStore, InUse, Sort, in_thread, refusals_of_the_disk

MEMORY_BYTES_MAX: Final = 128 << 10
"""Of an upload that touches the disk only when it is kept: most modules are this small."""
# Hashed and written at a time, in a thread.
_PIECE_BYTES: Final = 512 << 10


class Upload:
    """What arrives. `write` as it comes and `flush` when that is due, then `finish`; then read it, and `keep` it."""

    def __init__(self, store: ContentStore, sort: Sort, in_use: InUse) -> None:
        """Make room for it, where there is none, by removing what in_use does not name."""
        self._store = store
        self._sort = sort
        self._in_use = in_use
        self._pending: bytes | bytearray = bytearray()
        self._hash = hashlib.sha256()
        self._file: BinaryIO | None = None
        self._path: Path | None = None
        self._reserved_bytes = 0
        self._refusal: WwError | None = None
        self.size = 0
        """Bytes that came, also of those that were dropped."""
        self.digest = ""
        """sha256, hex, once it is finished."""

    @classmethod
    def whole(cls, store: ContentStore, sort: Sort, in_use: InUse, data: bytes, digest: str) -> Self:
        """Make one that has arrived, and was hashed."""
        upload = cls(store, sort, in_use)
        upload._pending, upload.size, upload.digest = data, len(data), digest
        return upload

    def write(self, data: bytes) -> None:
        """Take the next bytes."""
        self._pending += data
        self.size += len(data)

    @property
    def is_due(self) -> bool:
        """Whether there is enough to flush."""
        return len(self._pending) >= (_PIECE_BYTES if self._file else MEMORY_BYTES_MAX + 1)

    @property
    def is_dropped(self) -> bool:
        """Whether what comes is counted only."""
        return self._refusal is not None

    def drop(self, why: WwError) -> None:
        """Forget what came, and count what comes: to read or keep it raises why."""
        self._refusal = why
        self._pending = bytearray()
        self._remove()

    async def flush(self) -> None:
        """Put what came on disk. StoreError when that refuses.

        Where the store has no room, the rest is only hashed: what is stored already needs none.
        """
        if not self._pending:
            return
        data, self._pending = self._pending, bytearray()
        if self._refusal is None:
            try:
                await self._store.reserve(len(data), self._sort, self._in_use)
                self._reserved_bytes += len(data)
            except Overloaded as error:
                self.drop(error)
        await in_thread(self._put, data)

    def _put(self, data: bytes | bytearray) -> None:
        self._hash.update(data)
        if self._refusal is None:
            with refusals_of_the_disk(self._sort):
                self._write(data)

    def _write(self, data: bytes | bytearray) -> None:
        if self._file is None:
            fd, name = tempfile.mkstemp(suffix=PART, dir=self._store.directory)
            self._file, self._path = os.fdopen(fd, "w+b", buffering=0), Path(name)
        left = memoryview(data)
        while left:
            left = left[self._file.write(left) :]

    async def finish(self) -> None:
        """Take no more: the digest is known."""
        if self.size > MEMORY_BYTES_MAX:
            await self.flush()
        else:
            self._hash.update(self._pending)  # a tenth of a millisecond: less than a thread costs
        self.digest = self._hash.hexdigest()

    def open(self) -> BinaryIO:
        """Open what came to read it, from its beginning. Raises what it was dropped for."""
        if self._path is not None:
            with refusals_of_the_disk(self._sort):
                return self._path.open("rb")
        if self._refusal is None:
            return io.BytesIO(self._pending)
        try:
            return self._store.path(self.digest, self._sort).open("rb")
        except OSError:
            raise self._refusal from None

    async def keep(self) -> None:
        """Store it for good. Raises Overloaded when there is no room for it, StoreError when the disk refuses."""
        if not self._store.is_kept(self.digest, self._sort):
            if self._refusal is not None:
                if not await self._store.has(self.digest, self._sort):
                    raise self._refusal
            elif self._path is None:
                await self._store.reserve(self.size, self._sort, self._in_use)
                self._reserved_bytes = self.size
        await self._store.keep(self.digest, self._sort, self.size, self._settle)
        self._remove()

    def _settle(self, path: Path) -> None:
        """Make it the file at path."""
        if self._refusal is not None:
            raise self._refusal
        if self._file is None:
            self._write(self._pending)
        assert self._file is not None
        assert self._path is not None
        os.fsync(self._file.fileno())
        os.replace(self._path, path)
        self._path = None

    def _remove(self) -> None:
        if self._file is not None:
            self._file.close()
        if self._path is not None:
            self._path.unlink(missing_ok=True)
        self._file = self._path = None
        self._store.release(self._reserved_bytes)
        self._reserved_bytes = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._remove()
