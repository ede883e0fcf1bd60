"""The inputs of a batch's runs: one file of records by its sha256, written once as they come, read when runs begin.

Holds the file's form and a bounded cache of what is read of it. Must not know what a record says (../records.py) nor
where it comes from. A file holds its records, one after the other; then for each block of 64 of them a little-endian
uint64 with the offset of the first; then uint64 count, uint64 offset of that index, and eight bytes that say so, and
whether any of them has a name.
"""

import asyncio
import os
import struct
from array import array
from collections import OrderedDict
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ww.errors import StoreError
from ww.gateway.upload import Upload
from ww.records import LARGE_BYTES, name_of, spans

_BLOCK: Final = 64
_NAMELESS: Final = b"wwinput1"
_NAMED: Final = b"wwinputn"
_NAME_FLAG: Final = 64
# Files of which it is remembered whether they have names.
_KNOWN_MAX: Final = 10_000
_FOOTER: Final = struct.Struct("<QQ8s")
_OFFSET: Final = struct.Struct("<Q")
# A longer record is read only when its run begins.
_CACHED_RECORD_BYTES: Final = 64 << 10
_CACHE_BYTES: Final = 32 << 20
# What a record costs beside its bytes, roughly.
_RECORD_BYTES: Final = 64
# Read at a time: runs begin in their order, mostly.
_AHEAD_BLOCKS: Final = 8


class InputsWriter:
    """Writes such a file as an upload."""

    def __init__(self, upload: Upload) -> None:
        self._upload = upload
        self._offsets = array("Q")
        self._magic = _NAMELESS
        self.count = 0

    def add(self, record: bytes) -> None:
        """Take the next run's record, its length before it. The upload is flushed when that is due."""
        if self.count % _BLOCK == 0:
            self._offsets.append(self._upload.size)
        self.count += 1
        if record[4] & _NAME_FLAG:
            self._magic = _NAMED
        self._upload.write(record)

    async def finish(self) -> None:
        """End the file; its digest is the upload's."""
        index_at = self._upload.size
        self._upload.write(b"".join(map(_OFFSET.pack, self._offsets)))
        self._upload.write(_FOOTER.pack(self.count, index_at, self._magic))
        await self._upload.finish()


@dataclass(frozen=True, slots=True)
class Extent:
    """Where a record is in its file, its length before it."""

    path: Path
    start: int
    length: int

    def read(self) -> bytes:
        """Return it. Blocks; raises OSError."""
        with self.path.open("rb", buffering=0) as file:
            return os.pread(file.fileno(), self.length, self.start)

    @property
    def is_large(self) -> bool:
        """Whether it goes by reference."""
        return self.length > LARGE_BYTES


Record = bytes | Extent


@dataclass(frozen=True, slots=True)
class _About:
    """What is remembered of a file."""

    has_names: bool
    mean_bytes: int


class Inputs:
    """What the runs that begin are given."""

    def __init__(self, path: Callable[[str], Path]) -> None:
        """path says where the file of a digest is."""
        self._path = path
        self._blocks: OrderedDict[tuple[str, int], list[Record]] = OrderedDict()
        self._sizes: dict[tuple[str, int], int] = {}
        self._bytes = 0
        self._about: OrderedDict[str, _About] = OrderedDict()

    def cached(self, digest: str, runs: Sequence[int]) -> list[Record] | None:
        """Return the records of those runs of the file of that digest, if all that is not large is at hand."""
        found: list[Record] = []
        last, block = -1, None
        for run in runs:
            if (number := run // _BLOCK) != last:
                block, last = self._blocks.get((digest, number)), number
                if block is None:
                    return None
            assert block is not None
            record = block[run % _BLOCK]
            if isinstance(record, Extent) and not record.is_large:
                return None
            found.append(record)
        return found

    async def records(self, digest: str, runs: Sequence[int]) -> list[Record]:
        """Return the records of those runs, those that are large as where they are.

        StoreError when the file is not there, or not what was written.
        """
        records = await self._places(digest, runs)
        if all(not isinstance(record, Extent) or record.is_large for record in records):
            return records
        try:
            return await asyncio.to_thread(_whole, records)
        except OSError:
            raise StoreError("the inputs of a batch cannot be read") from None

    async def _places(self, digest: str, runs: Sequence[int]) -> list[Record]:
        """Return the records of those runs, those that are long as where they are."""
        wanted = sorted({run // _BLOCK for run in runs})
        found = {number: block for number in wanted if (block := self._blocks.get((digest, number))) is not None}
        if missing := [number for number in wanted if number not in found]:
            read, about = await asyncio.to_thread(_read_blocks, self._path(digest), missing)
            self._about[digest] = about
            if len(self._about) > _KNOWN_MAX:
                self._about.popitem(last=False)
            for number, records in read.items():
                self._keep((digest, number), records)
            found |= read
        try:
            return [found[run // _BLOCK][run % _BLOCK] for run in runs]
        except (KeyError, IndexError):
            raise StoreError("the inputs of a batch are not what was stored") from None

    def mean_bytes(self, digest: str) -> int:
        """Return how long the records of a file are, by those read last; 0 where none was."""
        about = self._about.get(digest)
        return 0 if about is None else about.mean_bytes

    async def names(self, digest: str, runs: Sequence[int]) -> list[str]:
        """Return the names of those runs, empty where they have none. Raises what `records` does."""
        if (about := self._about.get(digest)) is not None and not about.has_names:
            return [""] * len(runs)
        records = await self._places(digest, runs)
        try:
            if any(isinstance(record, Extent) for record in records):
                return await asyncio.to_thread(_names, records)
            return _names(records)
        except (OSError, ValueError):
            raise StoreError("the inputs of a batch cannot be read") from None

    def _keep(self, key: tuple[str, int], records: list[Record]) -> None:
        if key in self._blocks:
            return
        size = sum(_RECORD_BYTES + (len(each) if isinstance(each, bytes) else 0) for each in records)
        self._blocks[key], self._sizes[key] = records, size
        self._bytes += size
        while self._bytes > _CACHE_BYTES and len(self._blocks) > 1:
            oldest, _ = self._blocks.popitem(last=False)
            self._bytes -= self._sizes.pop(oldest)

    def forget(self, digest: str) -> None:
        """Let go of what was read of a file."""
        for key in [key for key in self._blocks if key[0] == digest]:
            del self._blocks[key]
            self._bytes -= self._sizes.pop(key)


def _whole(records: Sequence[Record]) -> list[Record]:
    """Read those records that are not large."""
    found: list[Record] = []
    with ExitStack() as stack:
        files: dict[Path, int] = {}
        for record in records:
            if isinstance(record, Extent) and not record.is_large:
                if record.path not in files:
                    files[record.path] = stack.enter_context(record.path.open("rb", buffering=0)).fileno()
                record = os.pread(files[record.path], record.length, record.start)
            found.append(record)
    return found


def _names(records: Sequence[Record]) -> list[str]:
    return [_name(record) for record in records]


def _name(record: Record) -> str:
    if isinstance(record, bytes):
        return name_of(lambda at, length: record[at : at + length], 4, len(record))
    with record.path.open("rb", buffering=0) as file:
        fd, end = file.fileno(), record.start + record.length
        return name_of(lambda at, length: os.pread(fd, length, at), record.start + 4, end)


def _read_blocks(path: Path, numbers: Sequence[int]) -> tuple[dict[int, list[Record]], _About]:
    """Read those blocks, and some behind the last of them; return them, and what they say of the file."""
    try:
        with path.open("rb", buffering=0) as file:
            fd = file.fileno()
            size = os.fstat(fd).st_size
            count, index_at, magic = _FOOTER.unpack(os.pread(fd, _FOOTER.size, size - _FOOTER.size))
            blocks = -(-count // _BLOCK)
            if (
                magic not in (_NAMELESS, _NAMED)
                or index_at + blocks * _OFFSET.size + _FOOTER.size != size
                or numbers[-1] >= blocks
            ):
                raise StoreError("the inputs of a batch are not what was stored")
            found: dict[int, list[Record]] = {}
            budget = _AHEAD_BLOCKS * _BLOCK * 1024
            for number in (*numbers, *range(numbers[-1] + 1, min(blocks, numbers[-1] + _AHEAD_BLOCKS))):
                offsets = os.pread(fd, 2 * _OFFSET.size, index_at + number * _OFFSET.size)
                start = _OFFSET.unpack_from(offsets)[0]
                end = _OFFSET.unpack_from(offsets, 8)[0] if number + 1 < blocks else index_at
                if not 0 <= start <= end <= index_at:
                    raise ValueError("offset")
                if number > numbers[-1] and (budget := budget - (end - start)) < 0:
                    break
                found[number] = _read_block(path, fd, start, end, min(_BLOCK, count - number * _BLOCK))
            return found, _About(magic == _NAMED, index_at // count)
    except (OSError, struct.error, ValueError, ZeroDivisionError):
        raise StoreError("the inputs of a batch cannot be read") from None


def _read_block(path: Path, fd: int, start: int, end: int, count: int) -> list[Record]:
    """Read the records from start to end, those that are long only as where they are."""
    records: list[Record] = []
    if end - start <= _BLOCK * _CACHED_RECORD_BYTES:
        data = os.pread(fd, end - start, start)
        for first, last in spans(data):
            if last - first > _CACHED_RECORD_BYTES:
                records.append(Extent(path, start + first - 4, last - first + 4))
            else:
                records.append(data[first - 4 : last])
    else:
        while start < end:
            length = 4 + int.from_bytes(os.pread(fd, 4, start), "little")
            if length > end - start or len(records) == count:
                raise ValueError("length")
            is_long = length > _CACHED_RECORD_BYTES
            records.append(Extent(path, start, length) if is_long else os.pread(fd, length, start))
            start += length
    if len(records) != count:
        raise ValueError("count")
    return records
