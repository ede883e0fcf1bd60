"""Zips of strangers: what a guest's files come as, and what its artifacts go back as.

Holds the checking, the unpacking and the making of zips, in bounded memory. Must not know guests, wires or where a
directory comes from: the gateway checks at upload, ww/sandbox/directory.py unpacks and packs. Nothing is taken that
could be understood in two ways, so names are relative, with "/" between folders, in UTF-8 and each there once. Source:
PKWARE's APPNOTE.TXT; ZIP64, encryption and several disks are refused.
"""

import os
import re
import stat
import struct
import zlib
from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from ww.errors import UsageError

Data = bytes | bytearray | memoryview

PATH_BYTES_MAX: Final = 1024
_NAME_BYTES_MAX: Final = 255
_COUNT_MAX: Final = 0xFFFE
_BYTES_MAX: Final = 0xFFFFFFFE
_CHUNK: Final = 256 << 10
_PACKED_CHUNK: Final = 32 << 10

_END: Final = struct.Struct("<4sHHHHIIH")
_CENTRAL: Final = struct.Struct("<4s6H3I5H2I")
_LOCAL: Final = struct.Struct("<4s5H3I2H")
_COMMENT_BYTES_MAX: Final = 0xFFFF
_STORED, _DEFLATED = 0, 8
_ENCRYPTED: Final = 1 << 0 | 1 << 6 | 1 << 13
_UTF_8: Final = 1 << 11
_VERSION: Final = 20
_UNIX: Final = 3 << 8
_FIRST_OF_1980: Final = 1 << 5 | 1
_FILE_MODE, _FOLDER_MODE = (stat.S_IFREG | 0o644) << 16, (stat.S_IFDIR | 0o755) << 16 | 0x10
_CONTROL: Final = re.compile(r"[\0-\x1f\x7f]")
_DRIVE: Final = re.compile("[A-Za-z]:")


@dataclass(frozen=True, slots=True)
class _File:
    name: str
    method: int
    crc: int
    start: int
    packed: int
    size: int


def check(data: Data, *, bytes_max: int, count_max: int) -> None:
    """Refuse a zip that cannot be unpacked as it says; nothing is inflated.

    bytes_max is for all files together, count_max for files and folders, with folders that no entry names but paths
    lead through. Raises UsageError, which names the entry and what is wrong with it.
    """
    _read(memoryview(data), bytes_max, count_max)


def unpack(data: Data, directory: int, *, bytes_max: int, count_max: int) -> None:
    """Unpack a zip into an empty directory, given as its descriptor.

    All that `check` refuses is refused before anything is made, and a file that holds more or other than it declares
    when that much of it is there. Everything is made anew, so nothing that exists is written to and no link is
    followed. Raises UsageError, and OSError where the file system refuses.
    """
    view = memoryview(data)
    files, folders = _read(view, bytes_max, count_max)
    for folder in folders:
        os.mkdir(folder, 0o700, dir_fd=directory)
    for file in files:
        fd = os.open(
            file.name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=directory
        )
        try:
            _unpack_file(view, file, fd)
        finally:
            os.close(fd)


def contents(data: Data, *, bytes_max: int, count_max: int) -> Generator[tuple[str, bytes], None, None]:
    """Yield the files of a zip in the order of its directory, each with its path; bytes_max is for one of them.

    Refuses, as `unpack` does, what cannot be unpacked as the zip says, and before anything is inflated what is too
    large. Raises UsageError.
    """
    view = memoryview(data)
    try:
        files, _ = _read(view, _BYTES_MAX * _COUNT_MAX, count_max)
        for file in files:
            if file.size > bytes_max:
                raise _refused(file.name, f"has {file.size} bytes, the limit is {bytes_max}")
        for file in files:
            yield file.name, _inflated(view, file)
    finally:
        view.release()


def pack(directory: int, paths: Iterable[str], *, bytes_max: int, count_max: int, level: int = 1) -> bytes:
    """Make a zip of files and folders beneath a directory, given as its descriptor.

    A folder is taken with all that is in it, but for links and whatever else is neither file nor folder. The same
    content gives the same bytes, whatever the order and the times; at level 0, which does not compress, also with
    another zlib. bytes_max is for the files before they are compressed, count_max for files and empty folders. Nothing
    may change beneath the directory meanwhile. Raises UsageError, which says what is not there, or the figure reached.
    """
    found = _find(directory, paths)
    total = sum(size for size in found.values() if size is not None)
    if len(found) > min(count_max, _COUNT_MAX):
        raise UsageError(f"{len(found)} files are more than the limit, {min(count_max, _COUNT_MAX)}", "artifacts")
    if total > min(bytes_max, _BYTES_MAX - packed_bytes_max(0, len(found))):
        raise UsageError(f"the files have {total} bytes, the limit is {bytes_max}", "artifacts")
    out, central = bytearray(), bytearray()
    for name in sorted(found):
        size = found[name]
        at, encoded = len(out), name.encode()
        out += bytes(_LOCAL.size) + encoded
        method, crc = (_STORED, 0) if not size else _pack_file(directory, name, size, level, out)
        held = len(out) - at - _LOCAL.size - len(encoded)
        common = (
            _VERSION, 0 if name.isascii() else _UTF_8, method, 0, _FIRST_OF_1980, crc, held, size or 0, len(encoded), 0,
        )  # fmt: skip
        _LOCAL.pack_into(out, at, b"PK\3\4", *common)
        mode = _FOLDER_MODE if size is None else _FILE_MODE
        central += _CENTRAL.pack(b"PK\1\2", _UNIX | _VERSION, *common, 0, 0, 0, mode, at) + encoded
    at = len(out)
    out += central
    out += _END.pack(b"PK\5\6", 0, 0, len(found), len(found), len(central), at, 0)
    return bytes(out)


def packed_bytes_max(bytes_max: int, count_max: int) -> int:
    """Return how large a zip that `pack` makes within these limits can be."""
    return bytes_max + count_max * (_LOCAL.size + _CENTRAL.size + 2 * PATH_BYTES_MAX) + _END.size


def clean(path: str, field: str) -> str:
    """Return a path in a guest's file system as `pack` takes it: relative, and empty for the root.

    A guest's own ways to say it are understood: "/out", "./out" and "out/" are "out". Raises UsageError, naming field,
    for what leads out of the root or is no name.
    """
    parts = [part for part in path.split("/") if part not in ("", ".")]
    name = "/".join(parts)
    flaw = _flaw(name) if parts else None
    if flaw or not path:
        raise UsageError(f"the path {_shown(path)} {flaw or 'is empty'}", field)
    return name


# Reading.


def _read(view: memoryview, bytes_max: int, count_max: int) -> tuple[list[_File], list[str]]:
    """Read the directory of a zip; return its files, and all folders, each behind the one that it is in."""
    at, end, count = _find_directory(view)
    if count > count_max:
        raise UsageError(f"the zip has {count} entries, the limit is {count_max} files and folders", "files")
    files: list[_File] = []
    is_folder: dict[str, bool] = {}
    named: set[str] = set()
    extents: list[tuple[int, int]] = []
    total = 0
    for _ in range(count):
        name, file, extent, at = _read_entry(view, at, end)
        path = name.removesuffix("/")
        if path in named:
            raise _refused(name, "is there twice")
        named.add(path)
        _place(path, name, file is None, is_folder)
        if len(is_folder) > count_max:
            raise UsageError(f"the zip has more than {count_max} files and folders, which is the limit", "files")
        extents.append(extent)
        if file is not None:
            files.append(file)
            total += file.size
    if at != end:
        raise UsageError("the zip's directory has another length than it says", "files")
    if total > bytes_max:
        raise UsageError(f"the zip holds {total} bytes when it is unpacked, the limit is {bytes_max}", "files")
    last = 0
    for start, stop in sorted(extents):
        # Files that share their bytes make a small zip a large tree.
        if start < last:
            raise UsageError("the zip has entries that overlap", "files")
        last = stop
    return files, [path for path, folder in is_folder.items() if folder]


def _find_directory(view: memoryview) -> tuple[int, int, int]:
    """Return where the directory of a zip starts and ends, and how many entries it has."""
    tail = bytes(view[-(_END.size + _COMMENT_BYTES_MAX) :])
    found = tail.rfind(b"PK\5\6")
    while found >= 0:
        if len(tail) - found >= _END.size:
            _, disk, first_disk, count_here, count, size, offset, comment = _END.unpack_from(tail, found)
            if found + _END.size + comment == len(tail):
                break
        found = tail.rfind(b"PK\5\6", 0, found)
    else:
        raise UsageError("the files are no zip, or not all of one", "files")
    if count == 0xFFFF or 0xFFFFFFFF in (size, offset):
        raise UsageError("the zip is a ZIP64, for more than 65,534 entries or 4 GiB", "files")
    if disk or first_disk or count != count_here:
        raise UsageError("the zip is one of several that belong together", "files")
    end = len(view) - len(tail) + found
    if offset + size != end:
        raise UsageError("the zip does not begin or end where it says", "files")
    return offset, end, count


def _read_entry(view: memoryview, at: int, end: int) -> tuple[str, _File | None, tuple[int, int], int]:
    """Return an entry's name, its file unless it is a folder, the bytes it takes, and where the next one starts."""
    if at + _CENTRAL.size > end:
        raise UsageError("the zip's directory ends too early", "files")
    (
        magic, _, _, flags, method, _, _, crc, packed, size, name_size, extra_size, comment_size, _, _, attributes,
        start,
    ) = _CENTRAL.unpack_from(view, at)  # fmt: skip
    name_at = at + _CENTRAL.size
    following = name_at + name_size + extra_size + comment_size
    if magic != b"PK\1\2" or following > end:
        raise UsageError("the zip's directory is damaged", "files")
    raw = bytes(view[name_at : name_at + name_size])
    name = _name(raw)
    is_folder = name.endswith("/")
    flaw = _flaw(name.removesuffix("/")) or _flaw_of_kind(is_folder, attributes >> 16, flags, method)
    if flaw is None and 0xFFFFFFFF in (packed, size, start):
        flaw = "is in the form of ZIP64"
    if flaw is None and ((is_folder and size) or (method == _STORED and packed != size)):
        flaw = "declares a size that it cannot have"
    if flaw is not None:
        raise _refused(name, flaw)
    content = _content_at(view, start, raw, method)
    if content is None or content + packed > len(view):
        raise _refused(name, "is not where the directory says")
    file = None if is_folder else _File(name, method, crc, content, packed, size)
    return name, file, (start, content + packed), following


def _name(raw: bytes) -> str:
    try:
        # Whether it says that it is UTF-8 or not: macOS and zip write it without saying so.
        return raw.decode()
    except UnicodeDecodeError:
        raise _refused(raw.decode(errors="replace"), "has a name that is not UTF-8") from None


def _flaw(path: str) -> str | None:
    """Return what is wrong with a relative path, if anything."""
    try:
        size = len(path.encode())
    except UnicodeEncodeError:
        return "is not UTF-8"
    if size > PATH_BYTES_MAX:
        return f"has {size} bytes, the limit is {PATH_BYTES_MAX}"
    if path.startswith("/"):
        return "is absolute"
    if _DRIVE.match(path):
        return "names a drive"
    if "\\" in path:
        return "has a backslash in it"
    if _CONTROL.search(path):
        return "has a control character in it"
    for part in path.split("/"):
        if part in ("", ".", ".."):
            return f"has {part!r} in it" if part else "has an empty name in it"
        if len(part.encode()) > _NAME_BYTES_MAX:
            return f"has a name of more than {_NAME_BYTES_MAX} bytes in it"
    return None


def _flaw_of_kind(is_folder: bool, mode: int, flags: int, method: int) -> str | None:
    kind = stat.S_IFMT(mode)
    if kind == stat.S_IFLNK:
        return "is a link"
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        return "is neither a file nor a folder"
    if kind and (kind == stat.S_IFDIR) != is_folder:
        return "is a folder by its mode or by its name, but not by both"
    if flags & _ENCRYPTED:
        return "is encrypted"
    if method not in (_STORED, _DEFLATED):
        return f"is compressed by method {method}; stored and deflated are known"
    return None


def _content_at(view: memoryview, start: int, raw: bytes, method: int) -> int | None:
    """Return where an entry's content starts; None if its own header is not what the directory says."""
    if start + _LOCAL.size > len(view):
        return None
    magic, _, flags, its_method, *_, name_size, extra_size = _LOCAL.unpack_from(view, start)
    name_at = start + _LOCAL.size
    if magic != b"PK\3\4" or flags & _ENCRYPTED or its_method != method or view[name_at : name_at + name_size] != raw:
        return None
    return int(name_at + name_size + extra_size)


def _place(path: str, name: str, folder: bool, is_folder: dict[str, bool]) -> None:
    """Note path and the folders that it is in."""
    missing = []
    above = path.rpartition("/")[0]
    while above and above not in is_folder:
        missing.append(above)
        above = above.rpartition("/")[0]
    if above and not is_folder[above]:
        raise _refused(name, f"is in {_shown(above)}, which is a file")
    for folder_above in reversed(missing):
        is_folder[folder_above] = True
    if is_folder.setdefault(path, folder) != folder:
        raise _refused(name, "is a file and a folder")


def _unpack_file(view: memoryview, file: _File, fd: int) -> None:
    size = crc = 0
    for piece in _inflate(view, file):
        size += len(piece)
        if size > file.size:
            raise _refused(file.name, f"holds more than the {file.size} bytes that it declares")
        crc = zlib.crc32(piece, crc)
        left = memoryview(piece)
        while left:
            left = left[os.write(fd, left) :]
    if size != file.size or crc != file.crc:
        raise _refused(file.name, "is damaged")


def _inflated(view: memoryview, file: _File) -> bytes:
    content = bytearray()
    for piece in _inflate(view, file):
        content += piece
        if len(content) > file.size:
            raise _refused(file.name, f"holds more than the {file.size} bytes that it declares")
    if len(content) != file.size or zlib.crc32(content) != file.crc:
        raise _refused(file.name, "is damaged")
    return bytes(content)


def _inflate(view: memoryview, file: _File) -> Iterator[Data]:
    step, stop = _CHUNK if file.method == _STORED else _PACKED_CHUNK, file.start + file.packed
    pieces = (view[at : min(at + step, stop)] for at in range(file.start, stop, step))
    if file.method == _STORED:
        yield from pieces
        return
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        for piece in pieces:
            if inflater.eof:
                break
            out = inflater.decompress(piece, _CHUNK)
            while out:
                yield out
                out = inflater.decompress(inflater.unconsumed_tail, _CHUNK)
    except zlib.error:
        raise _refused(file.name, "is damaged") from None
    if not inflater.eof or inflater.unused_data:
        raise _refused(file.name, "is damaged")


# Making.


def _find(directory: int, paths: Iterable[str]) -> dict[str, int | None]:
    """Return the files that paths lead to with their sizes, and None for empty folders, whose names end in "/"."""
    found: dict[str, int | None] = {}
    walked: set[str] = set()
    pending = []
    for path in dict.fromkeys(clean(path, "artifacts") for path in paths):
        status = _status(directory, path)
        if stat.S_ISDIR(status.st_mode):
            pending.append(path)
        else:
            found[path] = status.st_size
    while pending:
        folder = pending.pop()
        if folder in walked:
            continue
        walked.add(folder)
        content = _list(directory, folder)
        if not content and folder:
            found[folder + "/"] = None
        for name, size in content:
            path = f"{folder}/{name}" if folder else name
            flaw = _flaw(path)
            if flaw:
                raise UsageError(f"{_shown(path)} {flaw}", "artifacts")
            if size is None:
                pending.append(path)
            else:
                found[path] = size
    return found


def _status(directory: int, path: str) -> os.stat_result:
    """Return what a path leads to, through no link; UsageError if that is neither file nor folder."""
    names = path.split("/") if path else []
    status = os.fstat(directory)
    for depth in range(1, len(names) + 1):
        if not stat.S_ISDIR(status.st_mode):
            raise UsageError(f"there is no {_shown(path)}", "artifacts")
        try:
            status = os.stat("/".join(names[:depth]), dir_fd=directory, follow_symlinks=False)
        except FileNotFoundError:
            raise UsageError(f"there is no {_shown(path)}", "artifacts") from None
        if not stat.S_ISDIR(status.st_mode) and not stat.S_ISREG(status.st_mode):
            raise UsageError(f"{_shown(path)} is a link, or behind one", "artifacts")
    return status


def _list(directory: int, folder: str) -> list[tuple[str, int | None]]:
    """Return the names of files with their sizes, and of folders with None; neither links nor anything else."""
    fd = os.open(folder or ".", os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
    try:
        with os.scandir(fd) as entries:
            return [
                (entry.name, None if entry.is_dir(follow_symlinks=False) else entry.stat(follow_symlinks=False).st_size)
                for entry in entries
                if entry.is_dir(follow_symlinks=False) or entry.is_file(follow_symlinks=False)
            ]
    finally:
        os.close(fd)


def _pack_file(directory: int, name: str, size: int, level: int, out: bytearray) -> tuple[int, int]:
    """Append a file's content to out; return the method and the CRC of it."""
    fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
    try:
        at, crc = len(out), 0
        packer = zlib.compressobj(level, zlib.DEFLATED, -zlib.MAX_WBITS) if level else None
        for number, piece in enumerate(_pieces(fd, size)):
            crc = zlib.crc32(piece, crc)
            out += packer.compress(piece) if packer is not None else piece
            if packer is not None and number == 0 and len(piece) < size:
                out += packer.flush(zlib.Z_SYNC_FLUSH)
                # What does not get smaller at first, as pictures do not, is not tried on.
                if len(out) - at > _CHUNK - _CHUNK // 16:
                    packer = None
                    out[at:] = piece
        if packer is None:
            return _STORED, crc
        out += packer.flush()
        if len(out) - at < size:
            return _DEFLATED, crc
        del out[at:]
        for piece in _pieces(fd, size):
            out += piece
        return _STORED, crc
    finally:
        os.close(fd)


def _pieces(fd: int, size: int) -> Iterator[bytes]:
    at = 0
    while at < size:
        piece = os.pread(fd, min(_CHUNK, size - at), at)
        if not piece:
            raise UsageError("the files change while they are read", "artifacts")
        yield piece
        at += len(piece)


def _refused(name: str, flaw: str) -> UsageError:
    return UsageError(f"the zip's entry {_shown(name)} {flaw}", "files")


def _shown(name: str) -> str:
    return repr(name if len(name) <= 80 else f"{name[:77]}...")
