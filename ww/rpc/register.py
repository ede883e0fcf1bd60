"""Who was let in for good, who was not, and the tickets that let them in: a small database in the state directory.

Holds tickets (hashed), the peers that used them, and what an operator said of peers. Must not know connections. The
command line and a running gateway open the same file; each call is one transaction, made in a thread.
"""

import base64
import contextlib
import hashlib
import hmac
import logging
import secrets
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ww.errors import Conflict, NotFound, StoreError, UsageError
from ww.identity import PeerId

log = logging.getLogger("ww.rpc")

_TICKETS_MAX: Final = 10_000
_PEERS_MAX: Final = 100_000
_PREFIX: Final = "wwt1"
_TEXT_MAX: Final = 128
_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS tickets (id TEXT PRIMARY KEY, hash BLOB NOT NULL, created_at REAL NOT NULL,
    expires_at REAL NOT NULL, uses_left INTEGER NOT NULL, revoked INTEGER NOT NULL DEFAULT 0);
CREATE TABLE IF NOT EXISTS peers (peer TEXT PRIMARY KEY, ticket TEXT, enrolled_at REAL,
    banned INTEGER NOT NULL DEFAULT 0, draining INTEGER NOT NULL DEFAULT 0);
"""
# What makes a file of each version one of the next.
_STEPS: Final = (
    # Tickets have a purpose.
    (
        "ALTER TABLE tickets ADD COLUMN purpose TEXT NOT NULL DEFAULT 'work'",
        "ALTER TABLE peers ADD COLUMN tasks_ticket TEXT",
    ),
    # Peers are banned that were outvoted on so many runs.
    ("ALTER TABLE peers ADD COLUMN disagreements INTEGER NOT NULL DEFAULT 0",),
)
# Which column of a peer says that it enrolled for that.
_ENROLLED_BY: Final = {"work": "ticket", "tasks": "tasks_ticket"}
PURPOSES: Final = tuple(_ENROLLED_BY)
"""What a ticket lets a peer do: work, or give work."""


@dataclass(frozen=True, slots=True)
class Ticket:
    """What is known of a ticket; not its secret, which only its holder has."""

    id: str
    created_at: float
    expires_at: float
    """Seconds since 1970."""
    uses_left: int
    is_revoked: bool
    purpose: str = "work"
    """One of PURPOSES."""


@dataclass(frozen=True, slots=True)
class Standing:
    """What is known of a peer."""

    ticket: str | None = None
    """By which it enrolled, to work."""
    is_banned: bool = False
    is_draining: bool = False
    tasks_ticket: str | None = None
    """By which it enrolled to give work."""
    disagreements: int = 0
    """On how many runs it had been outvoted when it was banned for that; 0: it was not."""

    def ticket_for(self, purpose: str) -> str | None:
        """Return by which ticket it enrolled for that."""
        return self.tasks_ticket if purpose == "tasks" else self.ticket


class Register:
    """The database. Every method blocks for a millisecond or so, and raises StoreError when the disk refuses."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def create_ticket(self, ttl_s: float, uses: int, now: float, purpose: str = "work") -> str:
        """Make a ticket that is good for ttl_s seconds and so many peers, and return it."""
        number, secret = secrets.token_hex(4), base64.b32encode(secrets.token_bytes(20)).decode().lower()
        with self._open() as database:
            (count,) = database.execute("SELECT count(*) FROM tickets").fetchone()
            if count >= _TICKETS_MAX:
                database.execute("DELETE FROM tickets WHERE expires_at < ? OR uses_left = 0 OR revoked", (now,))
                (count,) = database.execute("SELECT count(*) FROM tickets").fetchone()
            if count >= _TICKETS_MAX:
                raise Conflict(f"there are {count} tickets, the limit: revoke some")
            row = (number, _hash(secret), now, now + ttl_s, uses, purpose)
            database.execute(
                "INSERT INTO tickets (id, hash, created_at, expires_at, uses_left, purpose) VALUES (?,?,?,?,?,?)", row
            )
        return f"{_PREFIX}-{number}-{secret}"

    def revoke_ticket(self, ticket: str) -> None:
        """Let nobody in by that ticket, named by its id, any more. NotFound when there is none."""
        with self._open() as database:
            if not database.execute("UPDATE tickets SET revoked = 1 WHERE id = ?", (ticket,)).rowcount:
                raise NotFound(f"there is no ticket {ticket[:40]!r}: see ww ticket ls")

    def tickets(self) -> list[Ticket]:
        """Return all tickets, the latest first."""
        with self._open() as database:
            rows = database.execute(
                "SELECT id, created_at, expires_at, uses_left, revoked, purpose FROM tickets"
                " ORDER BY created_at DESC, id"
            ).fetchall()
        return [
            Ticket(number, created, expires, uses, bool(revoked), purpose)
            for number, created, expires, uses, revoked, purpose in rows
        ]

    def enrol(self, peer_id: PeerId, ticket: str, now: float, purpose: str = "work") -> str | None:
        """Use a ticket to let a peer in for good, to do that; return why not, in words for it, or None."""
        number, secret = read_ticket(ticket)
        column = _ENROLLED_BY[purpose]
        with self._open() as database:
            row = database.execute(
                "SELECT hash, expires_at, uses_left, revoked, purpose FROM tickets WHERE id = ?", (number,)
            ).fetchone()
            known, expires_at, uses_left, is_revoked, good_for = row or (bytes(32), 0.0, 0, 0, purpose)
            # In constant time, and also for a ticket that is not there.
            if not hmac.compare_digest(known, _hash(secret)) or row is None:
                return "the ticket is not known here"
            if good_for != purpose:
                return f"the ticket is one for {good_for}, not for {purpose}"
            if is_revoked:
                return "the ticket was revoked"
            if expires_at < now:
                return "the ticket has expired"
            known_peer = f"SELECT 1 FROM peers WHERE peer = ? AND {column} NOTNULL"
            if database.execute(known_peer, (str(peer_id),)).fetchone():
                return None
            if uses_left < 1:
                return "the ticket was used as often as it may be"
            (count,) = database.execute("SELECT count(*) FROM peers").fetchone()
            if count >= _PEERS_MAX:
                return "no more peers can be let in here"
            database.execute("UPDATE tickets SET uses_left = uses_left - 1 WHERE id = ?", (number,))
            database.execute(
                f"INSERT INTO peers (peer, {column}, enrolled_at) VALUES (?,?,?) ON CONFLICT (peer)"
                f" DO UPDATE SET {column} = excluded.{column}, enrolled_at = excluded.enrolled_at",
                (str(peer_id), number, now),
            )
        return None

    def standing(self, peer_id: PeerId) -> Standing:
        """Return what is known of a peer."""
        return self.standings([peer_id]).get(peer_id, Standing())

    def standings(self, peer_ids: list[PeerId] | None = None) -> dict[PeerId, Standing]:
        """Return what is known of some peers, or of all."""
        if not self._path.exists():
            return {}
        query, wanted = (
            "SELECT peer, ticket, banned, draining, tasks_ticket, disagreements FROM peers",
            [str(peer_id) for peer_id in peer_ids or ()],
        )
        if peer_ids is not None:
            query += f" WHERE peer IN ({','.join('?' * len(wanted))})"
        with self._open() as database:
            rows = database.execute(query, wanted).fetchall()
        found = {}
        for peer, ticket, is_banned, is_draining, tasks_ticket, disagreements in rows:
            try:
                standing = Standing(ticket, bool(is_banned), bool(is_draining), tasks_ticket, disagreements)
                found[PeerId.parse(peer)] = standing
            except UsageError as error:
                log.warning("the register of peers has a row that is none: %s", error)
        return found

    def set_banned(self, peer_id: PeerId, value: bool) -> None:
        """Refuse a peer whatever else lets it in, or no longer."""
        self._set(peer_id, banned=int(value), disagreements=0)

    def refuse(self, peer_id: PeerId, disagreements: int) -> None:
        """Ban a peer since it was outvoted on so many runs."""
        self._set(peer_id, banned=1, disagreements=disagreements)

    def set_draining(self, peer_id: PeerId, value: bool) -> None:
        """Give a peer nothing new to run, or again."""
        self._set(peer_id, draining=int(value))

    def _set(self, peer_id: PeerId, **values: int) -> None:
        new = ", ".join(f"{column} = excluded.{column}" for column in values)
        with self._open() as database:
            database.execute(
                f"INSERT INTO peers (peer, {', '.join(values)}) VALUES (?{',?' * len(values)})"
                f" ON CONFLICT (peer) DO UPDATE SET {new}",
                (str(peer_id), *values.values()),
            )

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        """Give one transaction."""
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            with contextlib.closing(sqlite3.connect(self._path, timeout=5.0, isolation_level=None)) as database:
                self._path.chmod(0o600)
                database.execute("PRAGMA journal_mode=WAL")
                database.execute("PRAGMA synchronous=FULL")
                database.executescript(_SCHEMA)
                database.execute("BEGIN IMMEDIATE")
                try:
                    _bring_up(database)
                    yield database
                except BaseException:
                    database.execute("ROLLBACK")
                    raise
                database.execute("COMMIT")
        except (OSError, sqlite3.Error) as error:
            reason = error.strerror if isinstance(error, OSError) else str(error)
            raise StoreError(f"the register of peers cannot be used: {reason}") from None


def _bring_up(database: sqlite3.Connection) -> None:
    version = database.execute("PRAGMA user_version").fetchone()[0]
    for step in (statement for steps in _STEPS[version:] for statement in steps):
        database.execute(step)
    if version < len(_STEPS):
        database.execute(f"PRAGMA user_version = {len(_STEPS)}")


def read_ticket(text: str) -> tuple[str, str]:
    """Split a ticket into its id and its secret; UsageError, which does not repeat it, when it is none."""
    parts = text[:_TEXT_MAX].split("-")
    if len(text) > _TEXT_MAX or len(parts) != 3 or parts[0] != _PREFIX or not (parts[1] and parts[2]):
        raise UsageError(f"that is no ticket: expected {_PREFIX}-ID-SECRET, as ww ticket create prints it")
    return parts[1], parts[2]


def _hash(secret: str) -> bytes:
    # The secret has 160 random bits: nothing slower than one hash is needed to keep it.
    return hashlib.sha256(secret.encode()).digest()
