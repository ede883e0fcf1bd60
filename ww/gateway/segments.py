"""Payloads too large for a row, in append-only files beside the database.

Holds the files and the place where the next payload goes. Must not know what a payload is: rows of the database name
them, by file, offset, length and checksum. What is appended is synced before the commit that names it, so a crash
leaves at most a tail that nobody names. Only the file that is written to changes; a file that nobody names is removed,
but not while another process copies or checks (`shared`). One thread appends; reading needs no object.
"""

import contextlib
import fcntl
import os
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ww.errors import StoreError

_NAME: Final = re.compile(r"([0-9]{12})\.seg")
_LOCK: Final = "lock"
_HEAD_BYTES: Final = 16 << 10


@dataclass(frozen=True, slots=True)
class Extent:
    """Where a payload is."""

    segment: int
    start: int
    length: int
    crc: int


def directory_of(database: Path) -> Path:
    """Return the folder of the segments of a database."""
    return database.with_name(f"{database.name}-payloads")


def file_of(directory: Path, segment: int) -> Path:
    """Return where a segment is."""
    return directory / f"{segment:012}.seg"


def numbers_in(directory: Path) -> dict[int, int]:
    """Return the segments in a folder, each with its size in bytes."""
    found = {}
    with contextlib.suppress(FileNotFoundError), os.scandir(directory) as entries:
        for entry in entries:
            if (match := _NAME.fullmatch(entry.name)) is not None:
                with contextlib.suppress(FileNotFoundError):
                    found[int(match[1])] = entry.stat().st_size
    return found


def read(directory: Path, extent: Extent) -> bytes:
    """Return a payload. StoreError when it is not what was written."""
    data, defect = look(directory, extent)
    if defect:
        raise StoreError(f"a payload {defect}: ww db check says which")
    return data


def head(directory: Path, extent: Extent, end: bytes) -> bytes:
    """Return a payload up to the first of those bytes, unchecked. StoreError when they are not in it."""
    found = b""
    try:
        with file_of(directory, extent.segment).open("rb", buffering=0) as file:
            file.seek(extent.start)
            while len(found) < extent.length and (piece := file.read(min(_HEAD_BYTES, extent.length - len(found)))):
                found += piece
                if (at := found.find(end)) >= 0:
                    return found[:at]
    except OSError as error:
        raise StoreError(f"a payload cannot be read ({(error.strerror or 'the disk refuses').lower()})") from None
    raise StoreError("a payload is damaged: ww db check says which")


def look(directory: Path, extent: Extent) -> tuple[bytes, str]:
    """Return a payload and nothing, or what is wrong with it."""
    try:
        fd = os.open(file_of(directory, extent.segment), os.O_RDONLY | os.O_CLOEXEC)
        try:
            pieces, at = [], extent.start
            while piece := os.pread(fd, extent.start + extent.length - at, at):
                pieces.append(piece)
                at += len(piece)
        finally:
            os.close(fd)
    except OSError as error:
        return b"", f"cannot be read ({(error.strerror or 'the disk refuses').lower()})"
    data = b"".join(pieces)
    is_whole = len(data) == extent.length and zlib.crc32(data) == extent.crc
    return data, "" if is_whole else "is damaged"


@contextlib.contextmanager
def shared(directory: Path) -> Iterator[None]:
    """Keep every segment where it is while the context is open. Other processes may do so too."""
    try:
        fd = os.open(directory / _LOCK, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        yield  # there is no folder, and so nothing to be removed
        return
    try:
        fcntl.flock(fd, fcntl.LOCK_SH)
        yield
    finally:
        os.close(fd)


class Segments:
    """The folder of a running store."""

    def __init__(self, directory: Path, *, roll_bytes: int) -> None:
        """Append to files in directory, a new one once one has roll_bytes. Nothing is touched before `open`."""
        self.directory = directory
        self._roll_bytes = roll_bytes
        self._fd: int | None = None
        self.current = 0
        """The segment that is appended to; only others may be removed."""
        self._end = 0
        self._named_end = 0
        self._is_dirty = False
        self._is_new = False

    def open(self, named_ends: dict[int, int]) -> None:
        """Begin, where rows name segments up to these offsets: what nobody names goes. Raises OSError."""
        self.directory.mkdir(mode=0o700, exist_ok=True)
        os.close(os.open(self.directory / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        there = numbers_in(self.directory)
        self.current = max([0, *there, *named_ends])
        if self.current in there and self.current in named_ends:
            self._continue(named_ends[self.current], there[self.current])
        self.remove([number for number in there if number not in named_ends])

    def _continue(self, named_end: int, size: int) -> None:
        """Go on behind what is named in the newest segment, unless it is shorter than that: then it is left alone."""
        if not named_end <= size or named_end >= self._roll_bytes:
            return
        self._fd = os.open(file_of(self.directory, self.current), os.O_WRONLY | os.O_CLOEXEC)
        self._end = self._named_end = named_end
        os.ftruncate(self._fd, named_end)

    def append(self, data: bytes) -> Extent:
        """Write a payload, which is not on disk before `sync`. Raises OSError."""
        if self._fd is None or (self._end and self._end + len(data) > self._roll_bytes):
            self._roll()
        assert self._fd is not None
        extent = Extent(self.current, self._end, len(data), zlib.crc32(data))
        self._is_dirty = True
        at, left = self._end, memoryview(data)
        while left:
            written = os.pwrite(self._fd, left, at)
            at, left = at + written, left[written:]
        self._end = at
        return extent

    def _roll(self) -> None:
        if self._fd is not None:
            self._sync_file()
            os.close(self._fd)
            self._fd = None
        path = file_of(self.directory, self.current + 1)
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        self.current += 1
        self._end = self._named_end = 0
        self._is_new = True

    def sync(self) -> None:
        """Have everything that was appended on disk, the names of the files too. Raises OSError."""
        self._sync_file()
        if self._is_new:
            folder = os.open(self.directory, os.O_RDONLY | os.O_CLOEXEC)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
            self._is_new = False

    def _sync_file(self) -> None:
        if self._is_dirty and self._fd is not None:
            os.fsync(self._fd)
        self._is_dirty = False

    def commit(self) -> None:
        """Note that what was appended is named now."""
        self._named_end = self._end

    def rewind(self) -> None:
        """Take back what was appended since the last commit, as far as the disk lets us: nobody names it."""
        if self._end == self._named_end:
            return
        self._end = self._named_end
        if self._fd is not None:
            try:
                os.ftruncate(self._fd, self._end)
            except OSError:
                self.abandon()

    def abandon(self) -> None:
        """Append nothing more to this file: after a failed sync nobody knows what is on disk of its end."""
        if self._fd is not None:
            with contextlib.suppress(OSError):
                os.close(self._fd)
        self._fd = None
        self._end = self._named_end = 0
        self._is_dirty = self._is_new = False

    def remove(self, numbers: list[int]) -> int:
        """Remove segments that nobody names, or will, unless another process reads them. Returns how many are gone.

        Any thread may, if it reads none of them at the time. Raises OSError.
        """
        if not numbers:
            return 0
        fd = os.open(self.directory / _LOCK, os.O_RDWR | os.O_CLOEXEC)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            for number in numbers:
                file_of(self.directory, number).unlink(missing_ok=True)
        except BlockingIOError:
            return 0
        finally:
            os.close(fd)
        return len(numbers)

    def close(self) -> None:
        self.rewind()
        self.abandon()
