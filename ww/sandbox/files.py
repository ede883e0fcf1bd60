"""Files in memory that a parent shares with a sandbox process, for what is too large for a message.

Holds the parent's end: putting input there, fetching output, and saying which runs are not to begin. Must not know what
it is. Both sides can write to them and cut them short, so nothing is mapped here: what is not there when it is fetched
raises ValueError.
"""

import asyncio
import os
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple, Self

from ww.sandbox.codec import Spilled
from ww.sandbox.inputs import GROUP_MAX

# Copied on the loop up to here: a tenth of a millisecond, less than a thread costs.
_AT_ONCE_BYTES: Final = 512 << 10
_PIECES_MAX: Final = 64


class Fetched(NamedTuple):
    """What of a run's output lay in files; of what did not, nothing."""

    stdout: bytes
    stderr: bytes
    artifacts: bytes


@dataclass(slots=True)
class Files:
    """The descriptors, which are the owner's to close."""

    input: int
    stdout: int
    stderr: int
    artifacts: int
    control: int

    @classmethod
    def make(cls) -> Self:
        """Make them, empty."""
        files = cls(*(_make_file(name) for name in ("input", "stdout", "stderr", "artifacts", "control")))
        files.unmark()
        return files

    def close(self) -> None:
        """Close them."""
        for fd in (self.input, self.stdout, self.stderr, self.artifacts, self.control):
            os.close(fd)

    def mark(self, places: Iterable[int]) -> None:
        """Say that the runs at those places are not to begin."""
        for place in places:
            os.pwrite(self.control, b"\1", place)

    def unmark(self) -> None:
        """Say that all may."""
        os.pwrite(self.control, bytes(GROUP_MAX), 0)

    async def put(self, pieces: Sequence[bytes]) -> None:
        """Make pieces, one after the other, the input."""
        if sum(map(len, pieces)) <= _AT_ONCE_BYTES:
            self._put(self.input, pieces)
        else:
            # On a descriptor of its own: a thread goes on when its waiter is cancelled, and numbers are given again.
            await asyncio.to_thread(self._put_and_close, os.dup(self.input), pieces)

    def _put_and_close(self, fd: int, pieces: Sequence[bytes]) -> None:
        try:
            self._put(fd, pieces)
        finally:
            os.close(fd)

    @staticmethod
    def _put(fd: int, pieces: Sequence[bytes]) -> None:
        at = 0
        for first in range(0, len(pieces), _PIECES_MAX):
            group = pieces[first : first + _PIECES_MAX]
            size = sum(map(len, group))
            if os.pwritev(fd, group, at) != size:
                # Only when memory is short: what is larger than a system call takes comes alone.
                for piece in group:
                    os.pwrite(fd, piece, at)
                    at += len(piece)
            else:
                at += size

    def drop_input(self) -> None:
        """Give the memory of the input back."""
        os.ftruncate(self.input, 0)

    async def fetch(self, spilled: Sequence[Spilled]) -> list[Fetched]:
        """Return what of runs lies here. ValueError when it does not."""
        if sum(row.size_bytes for row in spilled) <= _AT_ONCE_BYTES:
            return self._fetch(spilled)
        return await asyncio.to_thread(self._fetch, spilled)

    def _fetch(self, spilled: Sequence[Spilled]) -> list[Fetched]:
        return [
            Fetched(
                _fetch(self.stdout, row.stdout_at, row.stdout_bytes),
                _fetch(self.stderr, row.stderr_at, row.stderr_bytes),
                _fetch(self.artifacts, row.artifacts_at, row.artifacts_bytes),
            )
            for row in spilled
        ]


def _fetch(fd: int, at: int, size: int) -> bytes:
    if not size:
        return b""
    try:
        data = os.pread(fd, size, at)
    except (OSError, OverflowError):
        raise ValueError("it cannot be there") from None
    if len(data) != size:
        raise ValueError("it is not there")
    return data


def _make_file(name: str) -> int:
    if hasattr(os, "memfd_create"):
        return os.memfd_create(f"ww-{name}", os.MFD_CLOEXEC)
    fd, path = tempfile.mkstemp()
    os.unlink(path)
    return fd
