"""A state of a guest's memory that it goes back to: by copying the pages that differ, and no others.

Holds the image of the memory, a file in memory that is mapped over the guest's own, privately: a page that the guest
writes to becomes one of the process's own, and the kernel tells which those are (PAGEMAP_SCAN since Linux 6.7,
/proc/self/pagemap before). Where it does not, or when there are many, all are thrown away, and come back from the image
when they are touched. Either way the memory is byte for byte what it was. Must not know guests, nor what else a state
is made of: python_program.py does. Source: linux/fs.h; Documentation/admin-guide/mm/pagemap.rst.
"""

import contextlib
import ctypes
import mmap
import os
import re
import struct
import sys
from collections.abc import Iterator, Sequence
from typing import Final

from ww.sandbox import linux

_PAGE: Final = mmap.PAGESIZE
_BLOCK: Final = 1 << 16
# Of the image's pages that are nothing but zeros, this many in a row are left out of its file.
_GAP_BYTES: Final = 1 << 20
_PIECES_MAX: Final = 64
# Pages that are copied back one by one; throwing all away, and having those that are needed come again, costs more than
# copying this many.
_COPIED_BYTES_MAX: Final = 2 << 20
_RANGES_MAX: Final = 384
_MAP_FIXED: Final = 0x10
_MADV_DONTNEED: Final = 4
PAGEMAP_SCAN: Final = 0xC0606610
_FILE, _PRESENT, _SWAPPED, _ZERO = 1 << 2, 1 << 3, 1 << 4, 1 << 5

_LIBC: Final = ctypes.PyDLL(None, use_errno=True)
_mmap: Final = _LIBC["mmap"]
_mmap.restype = ctypes.c_void_p
_mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
_madvise: Final = _LIBC["madvise"]
_madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
_preadv: Final = _LIBC["preadv"]
_preadv.restype = ctypes.c_ssize_t
_preadv.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_int, ctypes.c_long]
_ioctl: Final = _LIBC["ioctl"]
_ioctl.argtypes = [ctypes.c_int, ctypes.c_ulong, ctypes.c_void_p]
_copy: Final = ctypes.memmove


class _Region(ctypes.Structure):
    _fields_ = (("start", ctypes.c_uint64), ("end", ctypes.c_uint64), ("categories", ctypes.c_uint64))


# Of the last byte of a page's entry: there, in swap space, of a file.
_OWN: Final = bytes(int(byte & 0xA0 == 0x80 or byte & 0x40 != 0) for byte in range(256))
_ONES: Final = re.compile(b"\x01+")
_LOOKED_AT_BYTES: Final = 2 << 20

_REGION: Final = struct.Struct("=QQQ")
_REGION_BYTES: Final = ctypes.sizeof(_Region)


class _Scan(ctypes.Structure):
    """struct pm_scan_arg."""

    _fields_ = tuple(
        (name, ctypes.c_uint64)
        for name in (
            "size", "flags", "start", "end", "walk_end", "vec", "vec_len", "max_pages", "category_inverted",
            "category_mask", "category_anyof_mask", "return_mask",
        )
    )  # fmt: skip


def open_pagemap() -> int:
    """Open what the kernel says of this process's pages, and return the descriptor; -1 where that cannot be.

    Call it before /proc is out of reach. It is opened without privileges, so that it never says where in the machine's
    memory a page lies.
    """
    if sys.platform != "linux":
        return -1
    with contextlib.suppress(OSError), linux.without_effective_capabilities():
        return os.open("/proc/self/pagemap", os.O_RDONLY | os.O_CLOEXEC)
    return -1


Extents = Sequence[tuple[int, int]]
"""Starts and ends of parts of this process's memory."""


class Pages:
    """Tells which pages of this process are its own, and no file's."""

    def __init__(self, pagemap: int) -> None:
        """pagemap is what open_pagemap returned."""
        self._pagemap = pagemap
        self._regions = (_Region * (_RANGES_MAX + 1))()
        self._regions_at = ctypes.addressof(self._regions)
        self._scan = _Scan(
            size=ctypes.sizeof(_Scan), vec=self._regions_at, vec_len=len(self._regions),
            category_inverted=_FILE | _ZERO, category_mask=_FILE | _ZERO,
            category_anyof_mask=_PRESENT | _SWAPPED, return_mask=_PRESENT,
        )  # fmt: skip
        self._scan_at = ctypes.addressof(self._scan)
        self.can_scan = pagemap >= 0 and self._scanned(0, _PAGE) >= 0
        """Whether the kernel looks for them; otherwise all pages' entries are read, which are to be few."""

    def _scanned(self, start: int, end: int) -> int:
        scan = self._scan
        scan.start, scan.end = start, end
        return int(_ioctl(self._pagemap, PAGEMAP_SCAN, self._scan_at))

    def own(self, extents: Extents) -> bytes | None:
        """Return those in some extents, of which there is one where `can_scan`, in a form for `ranges`; None when there
        are too many, or when that cannot be known."""
        if self.can_scan:
            count = self._scanned(*extents[0])
            return ctypes.string_at(self._regions_at, _REGION_BYTES * count) if 0 <= count <= _RANGES_MAX else None
        if self._pagemap < 0:
            return None
        return b"".join([self._entries(start, end).translate(_OWN) for start, end in extents])

    def _entries(self, start: int, end: int) -> bytes:
        """Return the last byte, which says of what kind it is, of each page's entry."""
        return os.pread(self._pagemap, (end - start) // _PAGE * 8, start // _PAGE * 8)[7::8]

    def ranges(self, own: bytes, extents: Extents) -> list[tuple[int, int]]:
        """Return the starts and ends of what `own` returned."""
        if self.can_scan:
            return [(start, end) for start, end, _ in _REGION.iter_unpack(own)]
        found: list[tuple[int, int]] = []
        at = 0
        for start, end in extents:
            count, first = (end - start) // _PAGE, start - at * _PAGE
            matches = _ONES.finditer(own, at, at + count)
            found += [(first + match.start() * _PAGE, first + match.end() * _PAGE) for match in matches]
            at += count
        return found

    def there(self, start: int, end: int) -> Iterator[tuple[int, int]]:
        """Yield what may be anything but zeros between two addresses, in memory of no file."""
        while start < end:
            stop = end
            if self.can_scan:
                count = self._scanned(start, end)
                yield from [(region.start, region.end) for region in self._regions[: max(0, count)]]
                stop = max(self._scan.walk_end, start + _PAGE)
            elif self._pagemap < 0:
                yield start, end
            else:
                stop = min(end, start + _LOOKED_AT_BYTES)
                if self._entries(start, stop).strip(b"\0"):
                    yield start, stop
            start = stop


class Checkpoint:
    """The image of a memory. Close it."""

    def __init__(self, base: int, size: int, pages: Pages) -> None:
        """Take the image of size bytes at base, private memory of no file; map it nowhere yet. OSError when the kernel
        has no memory for it, or does not let a file be as large."""
        self.size = size
        self._pages = pages
        pieces = _pieces(base, size, pages)
        self.file_bytes = sum(end - start for start, end in pieces)
        """What it takes."""
        self._file = os.memfd_create("ww-checkpoint", os.MFD_CLOEXEC)
        self._pieces: list[tuple[int, int, int]] = []
        """Start, end and place in the file; what is in none of them is zeros."""
        try:
            at = 0
            for start, end in pieces:
                self._write(base, start, end, at)
                self._pieces.append((start, end, at))
                at += end - start
            self._image = mmap.mmap(self._file, max(at, _PAGE), prot=mmap.PROT_READ | mmap.PROT_WRITE) if at else None
        except BaseException:
            os.close(self._file)
            raise
        self._extents: list[tuple[int, int]] = []
        self._gaps: list[tuple[int, int]] = []
        self._last: bytes | None = None
        """Which pages were the process's own after the last run."""
        self._hot: _Hot | None = None
        self._image_at = ctypes.addressof(ctypes.c_char.from_buffer(self._image)) if self._image is not None else 0

    def _write(self, base: int, start: int, end: int, at: int) -> None:
        os.ftruncate(self._file, at + end - start)
        while start < end:
            data = ctypes.string_at(base + start, min(_BLOCK, end - start))
            # What is not written to takes no memory.
            if data.strip(b"\0"):
                os.pwrite(self._file, data, at)
            start += len(data)
            at += len(data)

    def apply(self, base: int) -> None:
        """Have the memory at base, which is as large, be the image: mapped, and nothing else."""
        # What is copied back in one go has addresses of the memory that was there before.
        self._forget_hot()
        self._last = None
        self._extents, self._gaps = [(base, base + self.size)], []
        protection, flags = mmap.PROT_READ | mmap.PROT_WRITE, mmap.MAP_PRIVATE | _MAP_FIXED
        _check(_madvise(base, self.size, _MADV_DONTNEED))
        at = 0
        for start, end, place in (*self._pieces, (self.size, self.size, 0)):
            if start > at:
                self._gaps.append((base + at, start - at))
                # What was another image before.
                _check(_mmap(base + at, start - at, protection, flags | mmap.MAP_ANONYMOUS, -1, 0))
            if end > start:
                _check(_mmap(base + start, end - start, protection, flags, self._file, place))
            at = end
        if not self._pages.can_scan:
            self._extents = [(base + start, base + end) for start, end, _ in self._pieces]

    def go_back(self, base: int) -> int:
        """Have the memory at base, to which this was applied, be the image again; return how much of it was not, about.
        OSError when it is not the image now."""
        if not self._pages.can_scan:
            # Where there is no image are zeros, and few pages, if any: no need to know which.
            for start, size in self._gaps:
                _check(_madvise(start, size, _MADV_DONTNEED))
        own = self._pages.own(self._extents)
        if own is None:
            _check(_madvise(base, self.size, _MADV_DONTNEED))
            return 0
        if self._hot is not None and self._hot.own == own:
            self._hot.copy()
            return self._hot.size
        ranges = self._pages.ranges(own, self._extents)
        total = sum(end - start for start, end in ranges)
        if total > _COPIED_BYTES_MAX:
            _check(_madvise(base, self.size, _MADV_DONTNEED))
            return total
        for start, end in ranges:
            self._copy_back(base, start - base, end - base)
        # A page that was written to once is the process's own from then on: soon they are the same after each run.
        if own == self._last:
            self._forget_hot()
            self._hot = _Hot(own, ranges)
        self._last = own
        return total

    def _forget_hot(self) -> None:
        hot, self._hot = self._hot, None
        if hot is not None:
            hot.close()

    def _copy_back(self, base: int, start: int, end: int) -> None:
        for first, last, place in self._pieces:
            if start < first:
                # Between two pieces are zeros.
                stop = min(end, first)
                ctypes.memset(base + start, 0, stop - start)
                start = stop
            if start >= end:
                return
            if start < last:
                stop = min(end, last)
                _copy(base + start, self._image_at + place + start - first, stop - start)
                start = stop
        if start < end:
            ctypes.memset(base + start, 0, end - start)

    def close(self) -> None:
        """Give the file back; what is mapped of it stays as it is. Idempotent."""
        self._forget_hot()
        if self._file >= 0:
            os.close(self._file)
            self._file, self._image = -1, None


class _Hot:
    """The pages that runs write to, as they are to be: beside each other in a file, so that one call copies all."""

    def __init__(self, own: bytes, ranges: Sequence[tuple[int, int]]) -> None:
        """Take them as they are now. own is what is known to be these ranges."""
        self.own = own
        self.size = sum(end - start for start, end in ranges)
        self._count = len(ranges)
        numbers = [number for start, end in ranges for number in (start, end - start)]
        self._vectors = (ctypes.c_uint64 * len(numbers))(*numbers)
        self._vectors_at = ctypes.addressof(self._vectors)
        self._file = os.memfd_create("ww-pages", os.MFD_CLOEXEC)
        try:
            for start, end in ranges:
                os.write(self._file, ctypes.string_at(start, end - start))
        except BaseException:
            self.close()
            raise

    def copy(self) -> None:
        """Have them be so again."""
        if _preadv(self._file, self._vectors_at, self._count, 0) != self.size:
            _check(-1)

    def close(self) -> None:
        os.close(self._file)


def _pieces(base: int, size: int, pages: Pages) -> list[tuple[int, int]]:
    """Return which parts of a memory are to be in its image's file, as offsets: all that is not zeros."""
    pieces: list[tuple[int, int]] = []
    for first, last in pages.there(base, base + size):
        for at in range(first - base, last - base, _BLOCK):
            end = min(at + _BLOCK, last - base)
            if not ctypes.string_at(base + at, end - at).strip(b"\0"):
                continue
            if pieces and at - pieces[-1][1] <= _GAP_BYTES:
                pieces[-1] = pieces[-1][0], end
            else:
                pieces.append((at, end))
    while len(pieces) > _PIECES_MAX:
        # The closest two become one.
        place = min(range(1, len(pieces)), key=lambda place: pieces[place][0] - pieces[place - 1][1])
        pieces[place - 1 : place + 1] = [(pieces[place - 1][0], pieces[place][1])]
    return pieces


def _check(result: int | None) -> None:
    """Raise OSError for what failed: the memory would not be what it has to be."""
    if result in (-1, ctypes.c_void_p(-1).value):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
