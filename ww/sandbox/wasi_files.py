"""Files as a deterministic run sees them: without what differs from file system to file system.

Holds fd_filestat_get, path_filestat_get and fd_readdir over wasmtime's own. Must not know where files are.
"""

import ctypes
import struct
from collections.abc import Callable, Sequence
from typing import Any, Final

from ww.sandbox.determinism import START_NS
from ww.sandbox.wasi_host import Host
from ww.sandbox.wasi_originals import SCRATCH_BYTES

_IO: Final = 29
_NAMETOOLONG: Final = 37
_DIRECTORY: Final = 3
_MASK: Final = 0xFFFFFFFF
_MASK64: Final = 0xFFFFFFFFFFFFFFFF
_FILESTAT: Final = struct.Struct("<QQBxxxxxxxQQQQQ")
"""dev, ino, type, nlink, size, atim, mtim, ctim."""
_DIRENT: Final = struct.Struct("<QQIBxxx")
"""next, ino, length of the name that follows, type."""
_PATH_MAX: Final = 4096
_LISTED_MAX: Final = SCRATCH_BYTES - 8


def remove_directory(host: Host) -> Callable[[Any], int]:
    """Return a path_remove_directory that takes "folder/" for the folder, as rmdir(2) does.

    wasmtime's own would remove the "." in it, which is INVAL (bytecodealliance/wasmtime issues 8828 and 11524).
    """

    def path_remove_directory(arguments: Any) -> int:
        path, size = (arguments[index].of.i32 & _MASK for index in (1, 2))
        path_at = host.memory.check(path, size)
        if size > _PATH_MAX:
            return _NAMETOOLONG
        name = ctypes.string_at(path_at, size)
        name = name.rstrip(b"/") or name[:1]
        ctypes.memmove(host.scratch(), name, len(name))
        return host.original("path_remove_directory", arguments[0].of.i32, 0, len(name))

    return path_remove_directory


class Files:
    """Metadata and folders for one host."""

    def __init__(self, host: Host) -> None:
        self._host = host

    def fd_filestat_get(self, arguments: Any) -> int:
        """Tell what is the same everywhere about an open file."""
        fd, out = arguments[0].of.i32, arguments[1].of.i32 & _MASK
        out_at = self._host.memory.check(out, _FILESTAT.size, 8)
        return self._host.original("fd_filestat_get", fd, 0) or self._give_filestat(out_at)

    def path_filestat_get(self, arguments: Any) -> int:
        """Tell what is the same everywhere about a file."""
        fd, flags = arguments[0].of.i32, arguments[1].of.i32
        path, size, out = (arguments[index].of.i32 & _MASK for index in (2, 3, 4))
        path_at = self._host.memory.check(path, size)
        out_at = self._host.memory.check(out, _FILESTAT.size, 8)
        if size > _PATH_MAX:
            return _NAMETOOLONG
        ctypes.memmove(self._host.scratch() + _FILESTAT.size, path_at, size)
        error = self._host.original("path_filestat_get", fd, flags, _FILESTAT.size, size, 0)
        return error or self._give_filestat(out_at)

    def _give_filestat(self, out_at: int) -> int:
        """Write what the original wrote, but for what differs: where and when a file is, and how folders are kept."""
        _, _, kind, links, size, *_ = self._filestat()
        if kind == _DIRECTORY:
            links, size = 1, 0
        data = _FILESTAT.pack(0, 0, kind, links, size, START_NS, START_NS, START_NS)
        ctypes.memmove(out_at, data, len(data))
        return 0

    def _filestat(self) -> tuple[int, ...]:
        return _FILESTAT.unpack(ctypes.string_at(self._host.scratch(), _FILESTAT.size))

    def fd_readdir(self, arguments: Any) -> int:
        """List a folder by name. Reading on, past the first part, is from the same list, whatever was changed."""
        host = self._host
        fd = arguments[0].of.i32
        out, size = arguments[1].of.i32 & _MASK, arguments[2].of.i32 & _MASK
        cookie, result = arguments[3].of.i64 & _MASK64, arguments[4].of.i32 & _MASK
        out_at = host.memory.check(out, size)
        result_at = host.memory.check(result, 4, 4)
        error = host.original("fd_filestat_get", fd, 0)
        if error:
            return error
        folder = (fd, *self._filestat()[:2])
        if cookie == 0 or host.state.listing is None or host.state.listing[0] != folder:
            entries: list[bytes] = []
            error = self._list(fd, entries)
            if error:
                return error
            host.state.listing = (folder, entries)
        written = _write(host.state.listing[1], cookie, out_at, size)
        ctypes.c_uint32.from_address(result_at).value = written
        return 0

    def _list(self, fd: int, entries: list[bytes]) -> int:
        """Put the entries of a folder into entries, as they are to be written; return an errno."""
        names: list[tuple[bytes, int]] = []
        after = 0
        while True:
            self._host.end_if_over()
            error = self._host.original("fd_readdir", fd, 0, _LISTED_MAX, after, _LISTED_MAX)
            if error:
                return error
            scratch = self._host.scratch()
            used = ctypes.c_uint32.from_address(scratch + _LISTED_MAX).value
            data = ctypes.string_at(scratch, used)
            at, before = 0, after
            while at + _DIRENT.size <= used:
                following, _, length, kind = _DIRENT.unpack_from(data, at)
                end = at + _DIRENT.size + length
                if end > used:
                    break
                names.append((data[at + _DIRENT.size : end], kind))
                at, after = end, following
            if used < _LISTED_MAX:
                break
            if after == before:
                return _IO
        # "." and ".." come first, as from wasmtime.
        for place, (name, kind) in enumerate([*names[:2], *sorted(names[2:])]):
            entries.append(_DIRENT.pack(place + 1, 0, len(name), kind) + name)
        return 0


def _write(entries: Sequence[bytes], cookie: int, out_at: int, size: int) -> int:
    """Write entries from that one on, the last cut off where there is no more room; return how many bytes."""
    parts, total = [], 0
    for place in range(cookie, len(entries)):
        parts.append(entries[place])
        total += len(entries[place])
        if total >= size:
            break
    data = b"".join(parts)[:size]
    ctypes.memmove(out_at, data, len(data))
    return len(data)
