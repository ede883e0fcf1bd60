"""A copy of all that a gateway keeps, in one file, taken while it runs; and a directory made of such a copy.

Holds the format: a tar of the database at one moment, of the segments as far as it names them, and of the files that it
names (modules, zips, inputs, artifacts), by the names that they have in a gateway's directory. Must not change what it
copies. What is restored is looked at as a whole before it has its name.
"""

import io
import json
import os
import re
import shutil
import sqlite3
import tarfile
import tempfile
import time
from contextlib import closing
from pathlib import Path
from typing import BinaryIO, Final

from ww.errors import StoreError, UsageError
from ww.gateway import segments
from ww.gateway.database import VERSION, connect_read_only, is_there, note_backup
from ww.gateway.integrity import DATABASE, FILES, defects, digests, is_wanted
from ww.gateway.retention import named_ends

_FORMAT: Final = 1
_ABOUT: Final = "ww-backup.json"
_ABOUT_BYTES_MAX: Final = 4096
_PAYLOADS: Final = segments.directory_of(Path(DATABASE)).name
_NAMES: Final = re.compile(
    rf"{re.escape(DATABASE)}|{re.escape(_PAYLOADS)}/[0-9]{{12}}\.seg|modules/[0-9a-f]{{64}}\.(wasm|zip|inputs)"
    r"|artifacts/[0-9a-f]{64}\.zip"
)
_COPY_BYTES: Final = 1 << 20
_PAGES_A_STEP: Final = 4096
_LOCK: Final = "lock"


# To a file.


def backup(directory: Path, target: Path) -> int:
    """Copy a gateway's directory into a new file, and return the file's size. The gateway may be running.

    UsageError when the file is there already, StoreError when the disk refuses or what is copied is damaged.
    """
    database = directory / DATABASE
    if target.exists() or target.is_symlink():
        raise UsageError(f"{target.name} is there already: a backup replaces nothing", "file")
    if not is_there(database):
        raise StoreError("there is no database here: see --state")
    try:
        fd, part = tempfile.mkstemp(prefix=f".{target.name}.", suffix=".part", dir=target.parent)
        try:
            with os.fdopen(fd, "wb") as file:
                _write(directory, file, Path(part))
                file.flush()
                os.fsync(file.fileno())
                size = file.tell()
            _give_name(part, target)
        finally:
            Path(part).unlink(missing_ok=True)
        _sync_folder(target.parent)
        note_backup(database, target)
    except OSError as error:
        raise StoreError(f"the backup cannot be written: {(error.strerror or 'the disk refuses').lower()}") from None
    except sqlite3.Error as error:
        raise StoreError(f"the database cannot be copied: {error}") from None
    return size


def _write(directory: Path, file: BinaryIO, part: Path) -> None:
    database, payloads = directory / DATABASE, directory / _PAYLOADS
    copy = part.with_suffix(".db")
    try:
        with segments.shared(payloads), tarfile.open(fileobj=file, mode="w", format=tarfile.GNU_FORMAT) as tar:
            _copy_database(database, copy)
            about = {"format": _FORMAT, "version": VERSION, "created_at": time.time()}
            _add(tar, _ABOUT, io.BytesIO(text := json.dumps(about).encode()), len(text))
            with copy.open("rb") as source:
                _add(tar, DATABASE, source, copy.stat().st_size)
            with closing(connect_read_only(copy)) as connection:
                for segment, end in sorted(named_ends(connection).items()):
                    path = segments.file_of(payloads, segment)
                    _add_file(tar, f"{_PAYLOADS}/{path.name}", path, end)
                _add_files(tar, directory, connection)
    finally:
        copy.unlink(missing_ok=True)


def _copy_database(database: Path, copy: Path) -> None:
    os.close(os.open(copy, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    with closing(connect_read_only(database)) as source, closing(sqlite3.connect(copy)) as target:
        # One snapshot over all steps, or whatever is written meanwhile would begin the copy anew. Between them the
        # process hears signals.
        source.execute("BEGIN")
        source.execute("SELECT serial FROM store").fetchone()
        source.backup(target, pages=_PAGES_A_STEP, progress=_step)
        # All of it in one file, which needs nothing beside it to be read.
        target.execute("PRAGMA journal_mode=DELETE")


def _step(status: int, remaining: int, total: int) -> None:
    """Do nothing, in Python: that is when ctrl-C is heard."""


def _add_files(tar: tarfile.TarFile, directory: Path, snapshot: sqlite3.Connection) -> None:
    """Add the files that rows name. What a running gateway forgot since, and removed, is left out."""
    with closing(connect_read_only(directory / DATABASE)) as now:
        for table, column, folder, suffix in FILES:
            for digest in digests(snapshot, table, column):
                path = directory / folder / f"{digest}{suffix}"
                try:
                    _add_file(tar, f"{folder}/{path.name}", path, None)
                except FileNotFoundError:
                    if is_wanted(now, table, column, digest, is_there=False):
                        gone = f"{folder}/{path.name} is named and is not there: see ww db check"
                        raise StoreError(gone) from None


def _add_file(tar: tarfile.TarFile, name: str, path: Path, size: int | None) -> None:
    """Add a file, or the first size bytes of it."""
    with path.open("rb") as source:
        there = os.fstat(source.fileno()).st_size
        if size is not None and there < size:
            raise StoreError(f"{name} is shorter than what is named in it: see ww db check")
        _add(tar, name, source, there if size is None else size)


def _add(tar: tarfile.TarFile, name: str, source: BinaryIO, size: int) -> None:
    member = tarfile.TarInfo(name)
    member.size, member.mode, member.mtime = size, 0o600, int(time.time())
    tar.addfile(member, source)


def _give_name(part: str, target: Path) -> None:
    """Name a file, unless something has the name."""
    try:
        os.link(part, target)
    except FileExistsError:
        raise UsageError(f"{target.name} is there already: a backup replaces nothing", "file") from None
    except OSError:  # a file system without links
        os.rename(part, target)


# From a file.


def restore(source: Path, state: Path) -> None:
    """Make the gateway's directory below a state directory, where there is none, of a backup.

    UsageError when there is one, or the file is no backup; StoreError when the disk refuses or the backup is damaged.
    """
    directory = state / "gateway"
    _require_none(directory)
    try:
        state.mkdir(parents=True, exist_ok=True, mode=0o700)
        part = Path(tempfile.mkdtemp(prefix=".gateway.", suffix=".part", dir=state))
        try:
            _read(source, part)
            found = list(defects(part))
            if found:
                more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
                raise StoreError(f"{source.name} is damaged: {found[0]}{more}")
            for left in (f"{DATABASE}-wal", f"{DATABASE}-shm"):
                (part / left).unlink(missing_ok=True)
            (directory / _LOCK).unlink(missing_ok=True)
            os.rename(part, directory)  # in the place of an empty one, and of no other
            _sync_folder(state)
        finally:
            shutil.rmtree(part, ignore_errors=True)
    except OSError as error:
        raise StoreError(f"nothing was restored: {(error.strerror or 'the disk refuses').lower()}") from None


def _require_none(directory: Path) -> None:
    if directory.is_dir() and {entry.name for entry in directory.iterdir()} <= {_LOCK}:
        return
    if directory.exists():
        raise UsageError("this state directory has a gateway's data: name an empty one with --state", "state")


def _read(source: Path, part: Path) -> None:
    try:
        with tarfile.open(source, "r:") as tar:
            for member in tar:
                if member.name == _ABOUT:
                    _require_known(tar, member, source.name)
                elif member.isreg() and _NAMES.fullmatch(member.name):
                    _extract(tar, member, part / member.name)
                else:
                    raise UsageError(f"{source.name} is no backup of ww: it has {member.name[:80]!a}", "file")
    except (tarfile.TarError, EOFError) as error:
        raise UsageError(f"{source.name} is no backup of ww, or is cut off: {error}", "file") from None
    except FileNotFoundError:
        raise UsageError(f"there is no file {source.name}", "file") from None
    if not (part / DATABASE).exists():
        raise UsageError(f"{source.name} is no backup of ww: it has no {DATABASE}", "file")
    for folder in (part, part / "modules", part / "artifacts", part / _PAYLOADS):
        folder.mkdir(mode=0o700, exist_ok=True)
        _sync_folder(folder)


def _require_known(tar: tarfile.TarFile, member: tarfile.TarInfo, name: str) -> None:
    file = tar.extractfile(member)
    try:
        about = json.loads(file.read(_ABOUT_BYTES_MAX)) if file is not None else None
        known = about["format"] if isinstance(about, dict) else None
    except (ValueError, KeyError):
        known = None
    if known != _FORMAT:
        raise UsageError(f"{name} is a backup of another kind: expected format {_FORMAT}", "file")


def _extract(tar: tarfile.TarFile, member: tarfile.TarInfo, path: Path) -> None:
    path.parent.mkdir(mode=0o700, exist_ok=True)
    source = tar.extractfile(member)
    assert source is not None
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(fd, "wb") as target:
        shutil.copyfileobj(source, target, _COPY_BYTES)
        if target.tell() != member.size:
            raise UsageError(f"{member.name} is cut off in this backup", "file")
        target.flush()
        os.fsync(target.fileno())


def _sync_folder(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
