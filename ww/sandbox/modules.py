"""Modules on this machine's disk: their bytes and what was compiled of them, by sha256.

Holds a folder that the workers of a machine share. Must not know where modules come from or who runs them. Files appear
whole or not at all, are checked when they are read (artefact.py), and the least recently used go when the folder grows
past its quota.
"""

import asyncio
import contextlib
import fcntl
import hashlib
import os
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import BinaryIO, Final, Self

from ww.errors import BadModule, UsageError
from ww.sandbox.artefact import fingerprint

_STALE_S: Final = 3600.0
_LOCKS: Final = 16
_LOCK_AGAIN_S: Final = 0.02


class ModuleCache:
    """A folder of modules and artefacts."""

    def __init__(self, directory: Path, *, quota_bytes: int) -> None:
        """Keep at most quota_bytes in directory, which is made when it is not there. UsageError when it cannot be."""
        self._directory = directory
        self._quota_bytes = quota_bytes
        self._fingerprint = fingerprint()
        try:
            directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as error:
            raise UsageError(f"the cache directory cannot be made: {error.strerror}", "cache") from None
        status = directory.stat()
        if status.st_uid != os.geteuid() or status.st_mode & 0o022:
            raise UsageError(
                "the cache directory belongs to somebody else, or others can write to it, and code in it is run;"
                " expected one of your own that is closed to others (chmod 700)",
                "cache",
            )

    def module_path(self, digest: bytes) -> Path:
        """Say where a module's bytes are, if they are there."""
        return self._directory / f"{digest.hex()}.wasm"

    def artefact_path(self, digest: bytes, metered: bool = False) -> Path:
        """Say where its compiled form is, if it is there; metered as in compile.py."""
        return self._directory / f"{digest.hex()}-{self._fingerprint}{'-metered' if metered else ''}.cwasm"

    def open_module(self, digest: bytes) -> int:
        """Open a module's bytes and return the descriptor. OSError when they are not there."""
        return os.open(self.module_path(digest), os.O_RDONLY | os.O_CLOEXEC)

    def open_artefact(self, digest: bytes, metered: bool = False) -> int:
        """Open its compiled form and return the descriptor. OSError when it is not there."""
        return os.open(self.artefact_path(digest, metered), os.O_RDONLY | os.O_CLOEXEC)

    async def has(self, digest: bytes) -> bool:
        """Tell whether a module's bytes are there, and note that they are used."""
        return await asyncio.to_thread(_touch, self.module_path(digest))

    async def has_artefact(self, digest: bytes, metered: bool = False) -> bool:
        """Tell whether a module's compiled form is there, and note that it is used."""
        return await asyncio.to_thread(_touch, self.artefact_path(digest, metered))

    @asynccontextmanager
    async def locked(self, digest: bytes, *, within_s: float) -> AsyncIterator[None]:
        """Keep the other workers of the machine from making this module's compiled form at the same time.

        A worker that dies gives its lock back. Where files cannot be locked, and when another holds the lock for longer
        than within_s, two may make the same thing.
        """
        fd = await asyncio.to_thread(self._open_lock, digest)
        try:
            for _ in range(max(1, round(within_s / _LOCK_AGAIN_S))):
                if _lock(fd):
                    break
                await asyncio.sleep(_LOCK_AGAIN_S)
            yield
        finally:
            os.close(fd)

    def _open_lock(self, digest: bytes) -> int:
        # A few files for all modules: they need no cleaning up.
        self._directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        return os.open(self._directory / f"{digest[0] % _LOCKS}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def writer(self, digest: bytes) -> "ModuleWriter":
        """Write a module piece by piece: `async with cache.writer(digest) as w: await w.write(data)`."""
        return ModuleWriter(self, digest)

    def temporary(self) -> Path:
        """Make an empty file that `adopt` can put in place."""
        # Somebody may have emptied the cache, folder and all, as one does with caches.
        self._directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        fd, name = tempfile.mkstemp(suffix=".part", dir=self._directory)
        os.close(fd)
        return Path(name)

    async def adopt(self, temporary: Path, path: Path) -> None:
        """Put a finished file in its place, and make room where that takes the folder past its quota."""
        await asyncio.to_thread(self._adopt, temporary, path)

    def _adopt(self, temporary: Path, path: Path) -> None:
        os.replace(temporary, path)
        self._make_room(keep=path)

    def _make_room(self, keep: Path) -> None:
        files: list[tuple[float, int, str]] = []
        for entry in os.scandir(self._directory):
            with contextlib.suppress(FileNotFoundError):  # another worker makes room too
                status = entry.stat(follow_symlinks=False)
                files.append((status.st_mtime, status.st_size, entry.path))
        files.sort()
        newest = files[-1][0] if files else 0.0
        excess = sum(size for _, size, _ in files) - self._quota_bytes
        for modified, size, name in files:
            is_left_over = name.endswith(".part") and modified < newest - _STALE_S
            if is_left_over or (excess > 0 and name != str(keep) and not name.endswith((".part", ".lock"))):
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(name)
                excess -= size


class ModuleWriter:
    """A module while its bytes come."""

    def __init__(self, cache: ModuleCache, digest: bytes) -> None:
        self._cache = cache
        self._digest = digest
        self._hash = hashlib.sha256()
        self._temporary: Path | None = None
        self._file: BinaryIO | None = None

    async def __aenter__(self) -> Self:
        self._temporary = await asyncio.to_thread(self._cache.temporary)
        self._file = self._temporary.open("wb")
        return self

    async def write(self, data: bytes) -> None:
        """Add bytes."""
        await asyncio.to_thread(self._write, data)

    def _write(self, data: bytes) -> None:
        assert self._file is not None
        self._hash.update(data)
        self._file.write(data)

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        assert self._file is not None
        assert self._temporary is not None
        self._file.close()
        if kind is None and self._hash.digest() == self._digest:
            await self._cache.adopt(self._temporary, self._cache.module_path(self._digest))
            return
        self._temporary.unlink(missing_ok=True)
        if kind is None:
            raise BadModule("the module's bytes are not what their sha256 says")


def _lock(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a file system that knows no locks
        pass
    return True


def _touch(path: Path) -> bool:
    try:
        os.utime(path)
    except OSError:
        return False
    return True
