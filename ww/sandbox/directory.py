"""The file system of a guest, inside a child process: filled before a run, measured, brought back and cleared after it.

Holds what is done to the one directory that an executor has (confine.Space), which it finds as its working directory.
Must not know wasmtime or the wire, nor what makes the directory small: confine.py mounts a file system of limited size
where the host lets it, and where it does not, what is in the directory is counted here. Empty is the normal state, and
a run without files never comes here. What a guest leaves may be nested deeper than paths are long.
"""

import contextlib
import errno
import fcntl
import os
import resource
import stat
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final, TypeVar

from ww import archive
from ww.errors import UsageError
from ww.sandbox.confine import FIRST_USER
from ww.sandbox.invocation import GuestFault, RunLimits

# Of the time, where counting means walking.
_WALKING_SHARE: Final = 0.05
_PATH_BYTES_MAX: Final = 4000
_PREFIX: Final = "ww-files-"
_MAKING_S: Final = 60.0
_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_T = TypeVar("_T")
_OPEN_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


@dataclass(frozen=True, slots=True)
class Usage:
    """How much is in a file system."""

    size_bytes: int
    """In whole pages, as they are kept."""
    count: int
    """Files, folders and links."""


class Directory:
    """A guest's file system: this process's working directory, which is nobody else's."""

    def __init__(self, *, is_mounted: bool) -> None:
        """Take the working directory, which must be empty; keeps one descriptor for it.

        is_mounted: it is a file system of its own (the protection confine.FILE_SYSTEM is given), and so can be asked.
        """
        self._fd = os.open(".", _OPEN_FOLDER)
        self._is_mounted = is_mounted
        self._without = Usage(0, 0)
        self._without = self.used()
        self._walk_at = 0.0

    def close(self) -> None:
        """Let go of the directory. Idempotent."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def fill(self, files: archive.Data, limits: RunLimits) -> None:
        """Unpack a zip into the directory, which must be clear. GuestFault, reason files, when it is not to be."""
        if not files:
            return
        try:
            archive.unpack(files, self._fd, bytes_max=limits.files_bytes, count_max=limits.files_count)
        except UsageError as error:
            raise GuestFault("files", str(error)) from None
        except OSError as error:
            if error.errno not in _FULL:
                raise
            full = GuestFault("files", f"the file system takes no more after {self.used().size_bytes} bytes")
            raise self.fault(limits) or full from None
        fault = self.fault(limits)
        if fault is not None:
            raise fault

    def dirs(self, names: Sequence[str]) -> list[tuple[str, str]]:
        """Return what to open for the guest, as pairs of a path here and the guest's name for it.

        No names: all of it, as "/". Folders that are not there are made. GuestFault, reason files, for what is not
        beneath the directory, or no folder.
        """
        if not names:
            return [(".", "/")]
        return [(self._folder(name), name) for name in dict.fromkeys(names)]

    def _folder(self, name: str) -> str:
        here = "."
        try:
            path = archive.clean(name, "dirs")
            for part in path.split("/") if path else ():
                here = f"{here}/{part}"
                with contextlib.suppress(FileExistsError):
                    os.mkdir(here, 0o700, dir_fd=self._fd)
                if not stat.S_ISDIR(os.stat(here, dir_fd=self._fd, follow_symlinks=False).st_mode):
                    raise UsageError(f"{name[:80]!r} is not a folder, and cannot be opened as one")
        except UsageError as error:
            raise GuestFault("files", str(error)) from None
        except OSError as error:
            raise GuestFault(
                "files", f"{name[:80]!r} cannot be made: {(error.strerror or 'refused').lower()}"
            ) from None
        return here

    def collect(self, paths: Iterable[str], limits: RunLimits, *, level: int = 1) -> bytes:
        """Return a zip of files and folders, of which links are no part: archive.pack says how. No guest may run.

        GuestFault, reason artifacts, when one is not there, or they are more than the limits.
        """
        try:
            return archive.pack(
                self._fd, paths, bytes_max=limits.artifact_bytes, count_max=limits.artifact_count, level=level
            )
        except UsageError as error:
            raise GuestFault("artifacts", str(error)) from None

    def used(self) -> Usage:
        """Return what is in the directory, and in files that are removed and still open where it is mounted.

        GuestFault, reason files, where it has to be walked and is nested deeper than it can be.
        """
        if self._is_mounted:
            said = os.fstatvfs(self._fd)
            used = Usage((said.f_blocks - said.f_bfree) * said.f_frsize, said.f_files - said.f_ffree)
        else:
            used = _walk(self._fd)
        return Usage(used.size_bytes - self._without.size_bytes, used.count - self._without.count)

    def fault(self, limits: RunLimits) -> GuestFault | None:
        """Return how the run is to end if more is in the directory than it may have."""
        try:
            used = self.used()
        except GuestFault as fault:
            return fault
        if used.size_bytes > limits.files_bytes:
            return GuestFault(
                "files", f"the file system reached {used.size_bytes} bytes, the limit is {limits.files_bytes}"
            )
        if used.count > limits.files_count:
            return GuestFault(
                "files", f"the file system reached {used.count} files and folders, the limit is {limits.files_count}"
            )
        return None

    def watch(self, limits: RunLimits) -> GuestFault | None:
        """Return what `fault` does, for whoever asks many times a second while a guest runs, from any thread."""
        if self._is_mounted:
            return self.fault(limits)
        start = time.monotonic()
        if start < self._walk_at:
            return None
        try:
            fault = self.fault(limits)
        except OSError as error:
            if error.errno not in (errno.EMFILE, errno.ENFILE):
                raise
            fault = GuestFault("files", "has so many files open that its file system cannot be measured")
        self._walk_at = start + (time.monotonic() - start) / _WALKING_SHARE
        return fault

    def clear(self) -> None:
        """Remove all that is in the directory: between two runs, when nothing of the last one runs any more.

        OSError when it cannot be, and this process is then none that should run another guest.
        """
        if self._is_mounted and self.used().count == 0:
            return
        _empty(self._fd)


def make() -> tuple[Path, int]:
    """Make a directory for a sandbox process, and return it with a descriptor that the parent keeps open until it has
    removed it: so that it is known whose parent was killed. OSError when there is nowhere to make it."""
    path = Path(tempfile.mkdtemp(prefix=_PREFIX))
    try:
        fd = os.open(path, _OPEN_FOLDER)
    except OSError:
        os.rmdir(path)
        raise
    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    return path, fd


def sweep() -> None:
    """Remove what `make` made for processes whose parent was killed. What cannot be removed stays."""
    for path in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        with contextlib.suppress(OSError):
            fd = os.open(path, _OPEN_FOLDER)
            try:
                status = os.fstat(fd)
                # As root they are given to the process's own user.
                is_ours = status.st_uid == os.geteuid() or (os.geteuid() == 0 and status.st_uid >= FIRST_USER)
                # One that is just being made is not locked yet.
                if is_ours and time.time() - status.st_ctime > _MAKING_S:
                    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    remove(path)
            finally:
                os.close(fd)


def remove(directory: Path) -> None:
    """Remove what `make` made, whatever a guest left in it, when the process has ended or has another mounted over it.
    Idempotent."""
    with contextlib.suppress(FileNotFoundError):
        fd = os.open(directory, _OPEN_FOLDER)
        try:
            _empty(fd)
        finally:
            os.close(fd)
        os.rmdir(directory)


def _empty(top: int) -> None:
    """Remove all that is in a folder. What is in folders in it is first moved up: so nothing is ever deeper than two
    levels, where guests may nest folders by the thousand and a path takes Landlock as long as it is deep."""
    pending = _remove_easily(top)
    taken, number = set(pending), 0
    while pending:
        name = pending.pop()
        folder = _with_leave(name, top, partial(os.open, name, _OPEN_FOLDER, dir_fd=top))
        try:
            for below in _remove_easily(folder):
                while (moved := str(number)) in taken:
                    number += 1
                number += 1
                _with_leave(below, folder, partial(os.rename, below, moved, src_dir_fd=folder, dst_dir_fd=top))
                pending.append(moved)
        finally:
            os.close(folder)
        os.rmdir(name, dir_fd=top)


def _with_leave(name: str, where: int, act: Callable[[], _T]) -> _T:
    """Do something with a folder, whose maker may have left nobody the right to."""
    try:
        return act()
    except PermissionError:
        os.chmod(name, 0o700, dir_fd=where)
        return act()


def _remove_easily(folder: int) -> list[str]:
    """Remove files and empty folders; return the names of the others."""
    with os.scandir(folder) as entries:
        found = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries]
    left = []
    for name, is_folder in found:
        if not is_folder:
            os.unlink(name, dir_fd=folder)
            continue
        try:
            os.rmdir(name, dir_fd=folder)
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
            left.append(name)
    return left


def _walk(top: int) -> Usage:
    """Count what is in a folder, in which a guest may be at work. Raises what `used` does."""
    size = count = 0
    page = resource.getpagesize()
    pending = ["."]
    while pending:
        path = pending.pop()
        if len(path.encode(errors="replace")) > _PATH_BYTES_MAX:
            raise GuestFault("files", f"the file system has a path of more than {_PATH_BYTES_MAX} bytes")
        # What is gone again, or became something else, is not there.
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            folder = os.open(path, _OPEN_FOLDER, dir_fd=top)
            try:
                with os.scandir(folder) as entries:
                    for entry in entries:
                        count += 1
                        if entry.is_dir(follow_symlinks=False):
                            pending.append(f"{path}/{entry.name}")
                            continue
                        with contextlib.suppress(FileNotFoundError):
                            status = entry.stat(follow_symlinks=False)
                            # Blocks may not be there before they are written, and holes never are.
                            size += -(-max(status.st_size, status.st_blocks * 512) // page) * page
            finally:
                os.close(folder)
    return Usage(size, count)
