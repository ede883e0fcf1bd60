"""Files by the sha256 of their content, durable before anybody is told that they are there.

Holds one folder of them and its quota. Must not know what they are or who wants them. Nothing is ever changed: a file's
name is its content. What nobody names any more stays until its room is needed. modules.py and artifacts.py say what is
kept; one process alone uses a folder.
"""

import asyncio
import os
import tempfile
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

from ww.errors import Overloaded, StoreError

_KNOWN_MAX: Final = 1024
_PART: Final = ".part"


@dataclass(frozen=True, slots=True)
class Sort:
    """One sort of files in a folder."""

    suffix: str
    label: str
    """What an error calls one of them: the field at fault and the thing."""


class ContentStore:
    """A folder of files, `<sha256 hex><suffix>` each."""

    def __init__(self, directory: Path, *, quota_bytes: int) -> None:
        """Keep files in directory, which is made when it is not there, and at most quota_bytes of them."""
        self._directory = directory
        self._quota_bytes = quota_bytes
        self._lock = asyncio.Lock()
        self._kept: set[str] = set()
        self._bytes: int | None = None
        """What is here, once it was counted."""
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        for left_over in directory.glob(f"*{_PART}"):
            left_over.unlink(missing_ok=True)

    def path(self, digest: str, sort: Sort) -> Path:
        """Say where the file of that digest (hex) is, if it is there."""
        return self._directory / f"{digest}{sort.suffix}"

    async def has(self, digest: str, sort: Sort) -> bool:
        """Whether the file is here, and not being removed."""
        async with self._lock:
            return await asyncio.to_thread(self.path(digest, sort).exists)

    async def keep(self, source: BinaryIO, digest: str, sort: Sort, in_use: Callable[[], Awaitable[set[str]]]) -> None:
        """Store what source holds, whose digest (hex) that is. On return it survives a power cut.

        Past the quota, what is not among the digests in_use returns is removed first. Raises Overloaded when that does
        not help, StoreError when the disk refuses.
        """
        path = self.path(digest, sort)
        # While nothing is being removed; a look at a name costs less than a thread.
        if path.name in self._kept and not self._lock.locked() and path.exists():
            return
        # One at a time, so that what is being kept is not removed for another's sake.
        async with self._lock:
            try:
                if not await asyncio.to_thread(self._keep, source, path):
                    await asyncio.to_thread(self._forget_all_but, frozenset(await in_use()))
                    if not await asyncio.to_thread(self._keep, source, path):
                        limit = f"those stored here have reached {self._quota_bytes} bytes, the limit"
                        raise Overloaded(f"{sort.label} has no room: {limit}", 60)
            except OSError as error:
                raise StoreError(f"{sort.label} cannot be stored: {error.strerror}") from None
            if len(self._kept) >= _KNOWN_MAX:
                self._kept.clear()
            self._kept.add(path.name)

    def _keep(self, source: BinaryIO, path: Path) -> bool:
        """Store a file; False when there is no room."""
        if path.exists():
            return True
        if self._bytes is None:
            self._bytes = sum(entry.stat().st_size for entry in os.scandir(self._directory))
        size = source.seek(0, os.SEEK_END)
        if size + self._bytes > self._quota_bytes:
            return False
        source.seek(0)
        fd, temporary = tempfile.mkstemp(suffix=_PART, dir=self._directory)
        try:
            with os.fdopen(fd, "wb") as target:
                while chunk := source.read(1 << 20):
                    target.write(chunk)
                target.flush()
                os.fsync(target.fileno())
            os.replace(temporary, path)
        except BaseException:
            os.unlink(temporary)
            raise
        self._bytes += size
        folder = os.open(self._directory, os.O_RDONLY)
        try:
            os.fsync(folder)  # the name too must survive
        finally:
            os.close(folder)
        return True

    def _forget_all_but(self, digests: frozenset[str]) -> None:
        self._bytes = None
        for path in self._directory.iterdir():
            if path.stem not in digests:
                path.unlink(missing_ok=True)
