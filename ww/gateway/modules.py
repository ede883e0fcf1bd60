"""The modules a gateway keeps, by sha256, durable before anybody is told that they are there.

Holds the folder of module files. Must not know who wants them. Nothing is stored that wasm_inspect.py does not accept,
and nothing is ever changed: a module's name is its content.
"""

import asyncio
import hashlib
import mmap
import os
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import BinaryIO, Final

from ww.errors import NotFound, Overloaded, StoreError, UsageError
from ww.wasm_inspect import entry_of, inspect

_READ_WHOLE_BYTES: Final = 1 << 20
# Hashed on the loop: a tenth of a millisecond, less than a thread costs.
_HASH_AT_ONCE_BYTES: Final = 128 << 10
_KNOWN_MAX: Final = 1024


class ModuleStore:
    """A folder of modules, `<sha256 hex>.wasm` each."""

    def __init__(self, directory: Path, *, quota_bytes: int) -> None:
        """Keep modules in directory, which is made when it is not there, and at most quota_bytes of them."""
        self._directory = directory
        self._quota_bytes = quota_bytes
        self._lock = asyncio.Lock()
        self._entries: dict[tuple[str, str | None], str] = {}
        self._kept: set[str] = set()
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        for left_over in directory.glob("*.part"):
            left_over.unlink(missing_ok=True)

    def path(self, digest: str) -> Path:
        """Say where the module of that digest (hex) is, if it is there."""
        return self._directory / f"{digest}.wasm"

    async def entry(self, digest: str, entry: str | None) -> str:
        """Find what to call in a stored module: see wasm_inspect.entry_of. NotFound when it is not here."""
        return await asyncio.to_thread(self._entry, digest, entry)

    def _entry(self, digest: str, entry: str | None) -> str:
        try:
            with self.path(digest).open("rb") as file:
                return _entry_in(file, entry)
        except FileNotFoundError:
            raise _not_here(digest) from None

    async def examine(self, file: BinaryIO, entry: str | None) -> tuple[str, str]:
        """Return the digest of an upload and what to call in it, storing nothing. BadModule when it cannot be run."""
        if file.seek(0, os.SEEK_END) <= _HASH_AT_ONCE_BYTES:
            file.seek(0)
            digest = hashlib.sha256(file.read()).hexdigest()
            if (known := self._entries.get((digest, entry))) is not None:
                return digest, known
        digest, found = await asyncio.to_thread(_examine, file, entry)
        if len(self._entries) >= _KNOWN_MAX:
            self._entries.clear()
        self._entries[digest, entry] = found
        return digest, found

    async def require(self, digest: str) -> None:
        """Raise NotFound unless the module is here, and not being removed."""
        async with self._lock:
            if not await asyncio.to_thread(self.path(digest).exists):
                raise _not_here(digest)

    async def keep(self, file: BinaryIO, digest: str, in_use: Callable[[], Awaitable[set[str]]]) -> None:
        """Store an examined upload. On return it survives a power cut.

        Past the quota, modules that are not among the digests in_use returns are removed first. Raises Overloaded when
        that does not help, StoreError when the disk refuses.
        """
        # While nothing is being removed; a look at a name costs less than a thread.
        if digest in self._kept and not self._lock.locked() and self.path(digest).exists():
            return
        # One at a time, so that what is being kept is not removed for another's sake.
        async with self._lock:
            try:
                try:
                    await asyncio.to_thread(self._keep, file, digest)
                except Overloaded:
                    await asyncio.to_thread(self._forget_all_but, frozenset(await in_use()))
                    await asyncio.to_thread(self._keep, file, digest)
            except OSError as error:
                raise StoreError(f"wasm: the module cannot be stored: {error.strerror}") from None
            if len(self._kept) >= _KNOWN_MAX:
                self._kept.clear()
            self._kept.add(digest)

    def _keep(self, file: BinaryIO, digest: str) -> None:
        path = self.path(digest)
        if path.exists():
            return
        size = file.seek(0, os.SEEK_END)
        if size + sum(entry.stat().st_size for entry in os.scandir(self._directory)) > self._quota_bytes:
            raise Overloaded(f"wasm: the modules stored here have reached {self._quota_bytes} bytes, the limit", 60)
        file.seek(0)
        fd, temporary = tempfile.mkstemp(suffix=".part", dir=self._directory)
        try:
            with os.fdopen(fd, "wb") as target:
                while chunk := file.read(1 << 20):
                    target.write(chunk)
                target.flush()
                os.fsync(target.fileno())
            os.replace(temporary, path)
        except BaseException:
            os.unlink(temporary)
            raise
        folder = os.open(self._directory, os.O_RDONLY)
        try:
            os.fsync(folder)  # the name too must survive
        finally:
            os.close(folder)

    def _forget_all_but(self, digests: frozenset[str]) -> None:
        for path in self._directory.glob("*.wasm"):
            if path.stem not in digests:
                path.unlink(missing_ok=True)


def _not_here(digest: str) -> NotFound:
    return NotFound(f"module: no module sha256:{digest} is stored here; send it as wasm", "module")


def _examine(file: BinaryIO, entry: str | None) -> tuple[str, str]:
    file.seek(0)
    hashing = hashlib.sha256()
    while chunk := file.read(1 << 20):
        hashing.update(chunk)
    return hashing.hexdigest(), _entry_in(file, entry)


def _entry_in(file: BinaryIO, entry: str | None) -> str:
    size = file.seek(0, os.SEEK_END)
    if size == 0:
        raise UsageError("wasm: the file is empty; expected a WebAssembly module", "wasm")
    if size <= _READ_WHOLE_BYTES:  # an upload of this size is in memory, and asking for its fileno would write it out
        file.seek(0)
        return entry_of(inspect(file.read()), entry)
    with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        return entry_of(inspect(data), entry)
