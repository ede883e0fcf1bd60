"""Files by the sha256 of their content, durable before anybody is told that they are there.

Holds one folder of them and its quota, which counts what is still arriving (upload.py) too. Must not know what they are
or who wants them. Nothing is ever changed: a file's name is its content. What nobody names any more stays until its
room is needed. modules.py and artifacts.py say what is kept; one process alone uses a folder.
"""

import asyncio
import os
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, ParamSpec, TypeVar

from ww.errors import Overloaded, StoreError

P = ParamSpec("P")
T = TypeVar("T")

_KNOWN_MAX: Final = 1024
PART: Final = ".part"
"""What a file's name ends with as long as it is not whole."""

InUse = Callable[[], Awaitable[set[str]]]
"""Says which digests are not to be removed."""


@dataclass(frozen=True, slots=True)
class Sort:
    """One sort of files in a folder."""

    suffix: str
    label: str
    """What an error calls one of them: the field at fault and the thing."""


class ContentStore:
    """A folder of files, `<sha256 hex><suffix>` each."""

    def __init__(self, directory: Path, *, quota_bytes: int, disk_reserve_bytes: int = 0) -> None:
        """Keep files in directory, which is made when it is not there, and at most quota_bytes of them.

        What arrives leaves disk_reserve_bytes of the disk free.
        """
        self.directory = directory
        self._quota_bytes = quota_bytes
        self._disk_reserve_bytes = disk_reserve_bytes
        self._lock = asyncio.Lock()
        self._kept: set[str] = set()
        self._bytes: int | None = None
        """What is here, once it was counted, without what is arriving."""
        self._arriving_bytes = 0
        self._is_removing = False
        """Whether what is here may be gone soon; under the lock."""
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        for left_over in directory.glob(f"*{PART}"):
            left_over.unlink(missing_ok=True)

    def path(self, digest: str, sort: Sort) -> Path:
        """Say where the file of that digest (hex) is, if it is there."""
        return self.directory / f"{digest}{sort.suffix}"

    async def has(self, digest: str, sort: Sort) -> bool:
        """Whether the file is here, and not being removed."""
        # A look at a name costs less than a thread.
        if not self._is_removing:
            return self.path(digest, sort).exists()
        async with self._lock:
            return self.path(digest, sort).exists()

    async def reserve(self, size: int, sort: Sort, in_use: InUse) -> None:
        """Count size bytes as arriving: `release` ends that.

        Past the quota, what is not among the digests in_use returns is removed first. Raises Overloaded when that does
        not help, StoreError when the disk refuses, or would be fuller than it may.
        """
        with refusals_of_the_disk(sort):
            self._check_disk(size, sort)
        if self._has_room(size):
            self._arriving_bytes += size
            return
        async with self._lock:
            with refusals_of_the_disk(sort):
                await self._make_room(size, sort, in_use)
            self._arriving_bytes += size

    def release(self, size: int) -> None:
        """Count size bytes as arriving no more."""
        self._arriving_bytes -= size

    async def keep(self, digest: str, sort: Sort, size: int, put: Callable[[Path], None]) -> None:
        """Have a file of that digest (hex) and size here, whose bytes are reserved. On return it survives a power cut.

        put is called in a thread, unless the file is here already, and makes the file at the path durable, which the
        folder then does for its name. Raises StoreError when the disk refuses.
        """
        path = self.path(digest, sort)
        # While nothing is being removed. Whoever waits for a lock that others wait for too keeps them waiting.
        if path.name in self._kept and not self._is_removing and path.exists():
            return
        # One at a time, so that what is being kept is not removed for another's sake.
        async with self._lock:
            if path.name in self._kept and path.exists():
                return
            with refusals_of_the_disk(sort):
                if await in_thread(self._keep, path, put) and self._bytes is not None:
                    self._bytes += size
            if len(self._kept) >= _KNOWN_MAX:
                self._kept.clear()
            self._kept.add(path.name)

    async def remove(self, digest: str, sort: Sort, is_named: Callable[[], bool]) -> bool:
        """Remove a file unless is_named says that it is wanted, which is asked while nobody can begin to name it.

        Returns False when it is wanted. Raises FileNotFoundError when it is not here, StoreError when the disk refuses.
        """
        path = self.path(digest, sort)
        async with self._lock:
            size = path.stat().st_size
            if is_named():
                return False
            with refusals_of_the_disk(sort, "removed"), self._removing():
                await in_thread(self._remove, path)
            self._kept.discard(path.name)
            if self._bytes is not None:
                self._bytes -= size
        return True

    def is_kept(self, digest: str, sort: Sort) -> bool:
        """Whether keep has nothing to do for that file."""
        return not self._is_removing and self.path(digest, sort).exists()

    @contextmanager
    def _removing(self) -> Iterator[None]:
        self._is_removing = True
        try:
            yield
        finally:
            self._is_removing = False

    def _check_disk(self, size: int, sort: Sort) -> None:
        if self._disk_reserve_bytes and (free := _free_bytes(self.directory)) - size < self._disk_reserve_bytes:
            kept = f"{self._disk_reserve_bytes} are kept for what was accepted (--disk-reserve)"
            raise StoreError(f"{sort.label} cannot be stored: of {free} bytes that are free on the disk {kept}")

    def _has_room(self, size: int) -> bool:
        return self._bytes is not None and self._bytes + self._arriving_bytes + size <= self._quota_bytes

    async def _make_room(self, size: int, sort: Sort, in_use: InUse) -> None:
        if self._bytes is None:
            self._bytes = await in_thread(self._count)
        if self._has_room(size):
            return
        self._bytes = None
        with self._removing():
            await in_thread(self._forget_all_but, frozenset(await in_use()))
        self._bytes = await in_thread(self._count)
        if not self._has_room(size):
            limit = f"those stored here have reached {self._quota_bytes} bytes, the limit"
            raise Overloaded(f"{sort.label} has no room: {limit}", 60)

    def _count(self) -> int:
        return sum(entry.stat().st_size for entry in os.scandir(self.directory) if not entry.name.endswith(PART))

    def _keep(self, path: Path, put: Callable[[Path], None]) -> bool:
        is_new = not path.exists()
        if is_new:
            put(path)
        # The name too must survive, also one that was given just before a crash.
        self._flush_folder()
        return is_new

    def _remove(self, path: Path) -> None:
        path.unlink()
        self._flush_folder()

    def _flush_folder(self) -> None:
        folder = os.open(self.directory, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def _forget_all_but(self, digests: frozenset[str]) -> None:
        for path in self.directory.iterdir():
            if path.suffix != PART and path.stem not in digests:
                path.unlink(missing_ok=True)


def _free_bytes(directory: Path) -> int:
    """Return how many bytes may still be written to the disk that directory is on."""
    status = os.statvfs(directory)
    return status.f_bavail * status.f_frsize


@contextmanager
def refusals_of_the_disk(sort: Sort, done: str = "stored") -> Iterator[None]:
    """Make an OSError a StoreError, without a path."""
    try:
        yield
    except OSError as error:
        raise StoreError(f"{sort.label} cannot be {done}: {error.strerror}") from None


async def in_thread(work: Callable[P, T], *arguments: P.args, **named: P.kwargs) -> T:
    """Run work in a thread; when cancelled, return only once it has ended, since it uses what its caller takes away."""
    running = asyncio.ensure_future(asyncio.to_thread(work, *arguments, **named))
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        while not running.done():
            try:
                await asyncio.wait([running])
            except asyncio.CancelledError:
                continue
        if not running.cancelled():
            running.exception()  # nobody will ask for it
        raise
