"""Who may come: the policy by which a node lets peers in, decided by peer id alone.

Holds the policies `open`, `allow:FILE` and `ticket`, and the ban, which stands before each. Knows no connection: the
vat asks once for each, after the peer proved its key and before it gets anything.
"""

import asyncio
import logging
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from ww.errors import StoreError, UsageError
from ww.identity import PeerId
from ww.rpc.register import Register, read_ticket

log = logging.getLogger("ww.rpc")

_ALLOW_FILE_BYTES_MAX = 1 << 20


class Admission(Protocol):
    """A policy."""

    async def refusal(self, peer_id: PeerId, ticket: str = "") -> str | None:
        """Return why this peer, who may show a ticket, may not come, in one line it may read, or None when it may."""


class Open:
    """Whoever speaks the protocol in the right namespace may come."""

    async def refusal(self, peer_id: PeerId, ticket: str = "") -> str | None:
        return None


class Only:
    """Some peers may come, and nobody else."""

    def __init__(self, *peer_ids: PeerId) -> None:
        self._peer_ids = frozenset(peer_ids)

    async def refusal(self, peer_id: PeerId, ticket: str = "") -> str | None:
        return None if peer_id in self._peer_ids else "that is for this node's operator"


class Either:
    """Those may come that any of several policies lets in."""

    def __init__(self, *policies: Admission) -> None:
        self._policies = policies

    async def refusal(self, peer_id: PeerId, ticket: str = "") -> str | None:
        # All are asked: a ticket may be good for the last of them.
        refusals = [await policy.refusal(peer_id, ticket) for policy in self._policies]
        if None in refusals:
            return None
        return "; ".join(dict.fromkeys(refusal for refusal in refusals if refusal is not None))


class Closed:
    """Nobody may come."""

    def __init__(self, why: str) -> None:
        self._why = why

    async def refusal(self, peer_id: PeerId, ticket: str = "") -> str | None:
        return self._why


class Tickets:
    """Peers with a ticket may come, and those that once had one."""

    def __init__(self, register: Register, wall: Callable[[], float], purpose: str = "work") -> None:
        """Enrol in register for that purpose, at the time of day that wall tells."""
        self._register = register
        self._wall = wall
        self._purpose = purpose

    async def refusal(self, peer_id: PeerId, ticket: str = "") -> str | None:
        standing = await asyncio.to_thread(self._register.standing, peer_id)
        if standing.ticket_for(self._purpose) is not None:
            return None
        if not ticket:
            return f"this node lets in who has a ticket, and {peer_id} has shown none: see --ticket-file"
        try:
            refusal = await asyncio.to_thread(self._register.enrol, peer_id, ticket, self._wall(), self._purpose)
        except UsageError as error:
            return str(error)
        if refusal is None:
            log.info("%s enrolled by ticket %s", peer_id, read_ticket(ticket)[0])
        return refusal


class Unbanned:
    """Those may come that a policy lets in and no operator has banned."""

    def __init__(self, register: Register, policy: Admission) -> None:
        self._register = register
        self._policy = policy

    async def refusal(self, peer_id: PeerId, ticket: str = "") -> str | None:
        try:
            standing = await asyncio.to_thread(self._register.standing, peer_id)
            if standing.disagreements:
                return f"on {standing.disagreements} runs its result was outvoted"
            if standing.is_banned:
                return "this node's operator has banned it"
            return await self._policy.refusal(peer_id, ticket)
        except StoreError as error:
            log.error("%s", error)
            return "this node's register of peers cannot be read: nobody is admitted"


class AllowFile:
    """Peers named in a file may come: one peer id a line, # starts a comment. Read again when it changes."""

    def __init__(self, path: Path) -> None:
        """Read the file at path; UsageError when it cannot be read or names something that is no peer id."""
        self._path = path
        self._stamp: tuple[int, int, int] | None = None
        self._allowed: frozenset[PeerId] = frozenset()
        self._refresh()

    async def refusal(self, peer_id: PeerId, ticket: str = "") -> str | None:
        try:
            await asyncio.to_thread(self._refresh)
        except UsageError as error:
            log.warning("--admit %s", error)
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
            lines = self._path.read_text("utf-8-sig").splitlines()
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


def parse_admission(text: str, register: Register, purpose: str = "work") -> Admission:
    """Read `open`, `allow:FILE` or `ticket`, of which the last asks register. UsageError says what was expected.

    Tickets have to be for that purpose.
    """
    if text == "open":
        return Open()
    if text == "ticket":
        return Tickets(register, time.time, purpose)
    kind, _, path = text.partition(":")
    if kind == "allow" and path:
        return AllowFile(Path(path))
    raise UsageError(f"{text[:80]!r}: expected open, allow:FILE or ticket", "admit")
