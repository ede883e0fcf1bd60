"""Who may come: the policy by which a node lets peers in, decided by peer id alone.

Holds the policies `open` and `allow:FILE`. Knows no connection: the vat asks once for each, after the peer proved its
key and before it gets anything.
"""

import asyncio
import os
from pathlib import Path
from typing import Protocol

from ww.errors import UsageError
from ww.identity import PeerId

_ALLOW_FILE_BYTES_MAX = 1 << 20


class Admission(Protocol):
    """A policy."""

    async def refusal(self, peer_id: PeerId) -> str | None:
        """Return why this peer may not come, in one line it may read, or None when it may."""


class Open:
    """Whoever speaks the protocol in the right namespace may come."""

    async def refusal(self, peer_id: PeerId) -> str | None:
        return None


class AllowFile:
    """Peers named in a file may come: one peer id a line, # starts a comment. Read again when it changes."""

    def __init__(self, path: Path) -> None:
        """Read the file at path; UsageError when it cannot be read or names something that is no peer id."""
        self._path = path
        self._stamp: tuple[int, int, int] | None = None
        self._allowed: frozenset[PeerId] = frozenset()
        self._refresh()

    async def refusal(self, peer_id: PeerId) -> str | None:
        try:
            await asyncio.to_thread(self._refresh)
        except UsageError:
            return "this node's list of admitted peers cannot be read: nobody is admitted"
        return None if peer_id in self._allowed else f"this node's list of admitted peers does not name {peer_id}"

    def _refresh(self) -> None:
        try:
            status = os.stat(self._path)
            stamp = (status.st_mtime_ns, status.st_size, status.st_ino)
            if stamp == self._stamp:
                return
            if status.st_size > _ALLOW_FILE_BYTES_MAX:
                raise UsageError(f"allow:{self._path.name}: larger than {_ALLOW_FILE_BYTES_MAX} bytes", "admit")
            lines = self._path.read_text("utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "no text"
            raise UsageError(f"allow:{self._path.name}: {reason}", "admit") from None
        allowed = set()
        for number, line in enumerate(lines, 1):
            if name := line.partition("#")[0].strip():
                try:
                    allowed.add(PeerId.parse(name))
                except UsageError as error:
                    raise UsageError(f"allow:{self._path.name}: line {number}: {error}", "admit") from None
        self._allowed = frozenset(allowed)
        self._stamp = stamp


def parse_admission(text: str) -> Admission:
    """Read `open` or `allow:FILE`; UsageError says what was expected."""
    if text == "open":
        return Open()
    kind, _, path = text.partition(":")
    if kind == "allow" and path:
        return AllowFile(Path(path))
    raise UsageError(f"{text[:80]!r}: expected open or allow:FILE", "admit")
