"""How often a key was started: a number that grows with each start, so that what was said before can be told apart.

Holds the file that keeps it, one a key, in the state directory. Must not know what is numbered.
"""

import contextlib
import os
import tempfile
from pathlib import Path
from typing import Final

from ww.errors import UsageError
from ww.identity import PeerId

_MAX: Final = 2**63


def next_incarnation(directory: Path, peer_id: PeerId, wall_s: float) -> int:
    """Return a number larger than any before for that key, and have it on disk; wall_s is the time of day.

    The time of day in milliseconds is only the least it can be, so that a key that is moved to another machine goes on
    above what it had; a clock that is wrong or jumps back does no harm. Raises UsageError when it cannot be written.
    """
    path = directory / str(peer_id)
    try:
        before = int(path.read_text("ascii"))
    except (OSError, ValueError):
        before = 0
    if not 0 <= before < _MAX:
        before = 0
    number = max(before + 1, int(wall_s * 1000), 1)
    _write(directory, path, number)
    return number


def raise_incarnation(directory: Path, peer_id: PeerId, number: int) -> None:
    """Have a number on disk that others know of; the next start's is larger. Raises UsageError as above."""
    _write(directory, directory / str(peer_id), number)


def _write(directory: Path, path: Path, number: int) -> None:
    temporary = ""
    try:
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        fd, temporary = tempfile.mkstemp(dir=directory)
        with os.fdopen(fd, "w") as file:
            file.write(str(number))
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise UsageError(f"the state directory cannot be written: {error.strerror}", "state") from None
