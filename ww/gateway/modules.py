"""What a gateway is sent and keeps: modules, and the zips of files that tasks bring along, by sha256.

Holds what is examined before it is kept. Must not know who wants it. Nothing is stored that wasm_inspect.py, or for a
zip archive.py, does not accept. The folder: content.py.
"""

import asyncio
import hashlib
import mmap
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import BinaryIO, Final

from ww import archive
from ww.errors import NotFound, StoreError, UsageError
from ww.gateway.content import ContentStore, Sort
from ww.gateway.guest import read_guest
from ww.wasm_inspect import Guest

_READ_WHOLE_BYTES: Final = 1 << 20
# Hashed on the loop: a tenth of a millisecond, less than a thread costs.
_HASH_AT_ONCE_BYTES: Final = 128 << 10
_KNOWN_MAX: Final = 1024
_MODULE: Final = Sort(".wasm", "wasm: the module")
_FILES: Final = Sort(".zip", "files: the zip")

InUse = Callable[[], Awaitable[set[str]]]


class ModuleStore:
    """A folder of modules, `<sha256 hex>.wasm` each, and of zips beside them."""

    def __init__(self, directory: Path, *, quota_bytes: int) -> None:
        """Keep modules and files in directory, which is made when it is not there: at most quota_bytes together."""
        self._content = ContentStore(directory, quota_bytes=quota_bytes)
        self._guests: dict[tuple[str, str | None], Guest] = {}

    def path(self, digest: str) -> Path:
        """Say where the module of that digest (hex) is, if it is there."""
        return self._content.path(digest, _MODULE)

    async def guest(self, digest: str, entry: str | None) -> Guest:
        """Say what a stored module is run as: see guest.read_guest. NotFound when it is not here."""
        return await asyncio.to_thread(self._guest, digest, entry)

    def _guest(self, digest: str, entry: str | None) -> Guest:
        try:
            with self.path(digest).open("rb") as file:
                return _guest_in(file, entry)
        except FileNotFoundError:
            raise _not_here(digest) from None

    async def examine(self, file: BinaryIO, entry: str | None) -> tuple[str, Guest]:
        """Return the digest of an upload and what it is run as, storing nothing. BadModule when it cannot be run."""
        if file.seek(0, os.SEEK_END) <= _HASH_AT_ONCE_BYTES:
            file.seek(0)
            digest = hashlib.sha256(file.read()).hexdigest()
            if (known := self._guests.get((digest, entry))) is not None:
                return digest, known
        digest, found = await asyncio.to_thread(_examine, file, entry)
        if len(self._guests) >= _KNOWN_MAX:
            self._guests.clear()
        self._guests[digest, entry] = found
        return digest, found

    async def examine_files(self, file: BinaryIO, *, bytes_max: int, count_max: int) -> str:
        """Return the digest of an uploaded zip, storing nothing. UsageError when it is not to be unpacked."""
        return await asyncio.to_thread(_examine_files, file, bytes_max, count_max)

    async def require(self, digest: str) -> None:
        """Raise NotFound unless the module is here, and not being removed."""
        if not await self._content.has(digest, _MODULE):
            raise _not_here(digest)

    async def keep(self, file: BinaryIO, digest: str, in_use: InUse) -> None:
        """Store an examined module: see ContentStore.keep."""
        await self._content.keep(file, digest, _MODULE, in_use)

    async def keep_files(self, file: BinaryIO, digest: str, in_use: InUse) -> None:
        """Store an examined zip: see ContentStore.keep."""
        await self._content.keep(file, digest, _FILES, in_use)

    async def read_files(self, digest: str) -> bytes:
        """Return a stored zip. StoreError when it cannot be read."""
        try:
            return await asyncio.to_thread(self._content.path(digest, _FILES).read_bytes)
        except OSError as error:
            raise StoreError(f"files: the zip cannot be read: {error.strerror}") from None


def _not_here(digest: str) -> NotFound:
    return NotFound(f"module: no module sha256:{digest} is stored here; send it as wasm", "module")


def _examine(file: BinaryIO, entry: str | None) -> tuple[str, Guest]:
    file.seek(0)
    hashing = hashlib.sha256()
    while chunk := file.read(1 << 20):
        hashing.update(chunk)
    return hashing.hexdigest(), _guest_in(file, entry)


def _guest_in(file: BinaryIO, entry: str | None) -> Guest:
    size = file.seek(0, os.SEEK_END)
    if size == 0:
        raise UsageError("wasm: the file is empty; expected a WebAssembly module", "wasm")
    if size <= _READ_WHOLE_BYTES:  # an upload of this size is in memory, and asking for its fileno would write it out
        file.seek(0)
        return read_guest(file.read(), entry)
    with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        return read_guest(data, entry)


def _examine_files(file: BinaryIO, bytes_max: int, count_max: int) -> str:
    file.seek(0)
    data = file.read()
    if not data:
        raise UsageError("files: the file is empty; expected a zip", "files")
    try:
        archive.check(data, bytes_max=bytes_max, count_max=count_max)
    except UsageError as error:
        raise UsageError(f"files: {error}", "files") from None
    return hashlib.sha256(data).hexdigest()
