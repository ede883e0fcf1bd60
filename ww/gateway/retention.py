"""What is forgotten of tasks that have ended, and how its room goes back to the disk.

Holds the steps; each is a small part of a transaction, so that none keeps the others waiting. Must not know when they
are taken: store.py does, by its clock. A task is gone at once; its runs and payloads go bit by bit, by the table
`forgetting`, also after a restart. The database gives free pages back (auto_vacuum=INCREMENTAL), segments are removed
when nobody names them and moved together when most of them is dead.
"""

import sqlite3
from dataclasses import dataclass
from typing import Final

from ww.errors import StoreError
from ww.gateway import segments
from ww.gateway.segments import Extent, Segments
from ww.gateway.storage import StoreConfig
from ww.gateway.writer import Transaction

_TASKS_A_STEP: Final = 128
_ROWS_A_STEP: Final = 4096
_PAGES_A_STEP: Final = 512
# Free pages are kept for what comes next, up to this many and this share of all.
_FREE_PAGES: Final = 1024
_FREE_SHARE: Final = 0.1
_COPIED_A_STEP: Final = 4 << 20
_LIVE_SHARE: Final = 0.5


@dataclass(frozen=True, slots=True)
class Limits:
    """What may stay. None: that is no limit."""

    count: int | None
    """Ended tasks, the newest to end."""
    ended_after: float | None
    """Seconds since the epoch; tasks that ended before go."""
    result_bytes: int
    """Of all results; the oldest ended tasks go until that holds."""
    fresh_after: float
    """Seconds since the epoch; tasks that ended later do not go for their size."""


def limits_at(wall: float, config: StoreConfig) -> Limits:
    """Return what may stay at that time of day."""
    ended_after = None if config.keep_s is None else wall - config.keep_s
    return Limits(config.keep, ended_after, config.results_bytes_max, wall - config.fresh_s)


def result_bytes(connection: sqlite3.Connection) -> int:
    """Return the size of all results, those of open tasks too."""
    query = (
        "SELECT (SELECT coalesce(sum(result_bytes), 0) FROM tasks WHERE finished_at IS NULL)"
        " + (SELECT coalesce(sum(result_bytes), 0) FROM tasks WHERE finished_at IS NOT NULL)"
    )
    (total,) = connection.execute(query).fetchone()
    return int(total)


def doomed(connection: sqlite3.Connection, limits: Limits) -> list[int]:
    """Return some of the tasks beyond the limits."""
    query = "SELECT number, result_bytes FROM tasks WHERE finished_at IS NOT NULL"
    found: list[int] = []
    if limits.count is not None:
        beyond = f"{query} ORDER BY finished_at DESC, number DESC LIMIT ? OFFSET ?"
        found += [number for number, _ in connection.execute(beyond, (_TASKS_A_STEP, limits.count))]
    if limits.ended_after is not None:
        old = f"{query} AND finished_at < ? ORDER BY finished_at LIMIT ?"
        found += [number for number, _ in connection.execute(old, (limits.ended_after, _TASKS_A_STEP))]
    excess_bytes = result_bytes(connection) - limits.result_bytes
    if excess_bytes > 0:
        oldest = f"{query} AND finished_at <= ? ORDER BY finished_at, number LIMIT ?"
        for number, size in connection.execute(oldest, (limits.fresh_after, _TASKS_A_STEP)):
            if excess_bytes <= 0:
                break
            found.append(number)
            excess_bytes -= size
    return sorted(set(found))


def doom(connection: sqlite3.Connection, numbers: list[int]) -> None:
    """Forget those tasks, which have ended."""
    values = [(number,) for number in numbers]
    connection.executemany("INSERT OR IGNORE INTO forgetting VALUES (?)", values)
    connection.executemany("DELETE FROM tasks WHERE number = ?", values)


def is_sweeping(connection: sqlite3.Connection) -> bool:
    """Whether something of forgotten tasks is left."""
    return connection.execute("SELECT 1 FROM forgetting LIMIT 1").fetchone() is not None


def sweep(connection: sqlite3.Connection) -> bool:
    """Remove some of the runs and payloads of forgotten tasks. Returns whether there are more."""
    budget = _ROWS_A_STEP
    for (task,) in connection.execute("SELECT task FROM forgetting LIMIT ?", (_TASKS_A_STEP,)).fetchall():
        for table, key in (("runs", "position"), ("payloads", "id")):
            some = f"DELETE FROM {table} WHERE {key} IN (SELECT {key} FROM {table} WHERE task = ? LIMIT ?)"
            budget -= connection.execute(some, (task, max(0, budget))).rowcount
        if budget <= 0:
            return True
        connection.execute("DELETE FROM forgetting WHERE task = ?", (task,))
    return is_sweeping(connection)


def give_back(connection: sqlite3.Connection) -> None:
    """Give some free pages back to the file system."""
    connection.execute(f"PRAGMA incremental_vacuum({_PAGES_A_STEP})").fetchall()


def has_to_give(connection: sqlite3.Connection) -> bool:
    """Whether there are many free pages."""
    (free,) = connection.execute("PRAGMA freelist_count").fetchone()
    (pages,) = connection.execute("PRAGMA page_count").fetchone()
    (mode,) = connection.execute("PRAGMA auto_vacuum").fetchone()
    return bool(mode == 2 and free > max(_FREE_PAGES, _FREE_SHARE * pages))


def named_bytes(connection: sqlite3.Connection) -> dict[int, int]:
    """Return the segments that rows name, each with how many bytes of it."""
    rows = connection.execute("SELECT segment, sum(length) FROM payloads GROUP BY segment")
    return {int(segment): int(size) for segment, size in rows}


def named_ends(connection: sqlite3.Connection) -> dict[int, int]:
    """Return the segments that rows name, each with the end of what is named."""
    rows = connection.execute("SELECT segment, max(start + length) FROM payloads GROUP BY segment")
    return {int(segment): int(end) for segment, end in rows}


def unnamed(connection: sqlite3.Connection, of: Segments) -> list[int]:
    """Return the segments that nobody names: all but the one that is written to.

    Nobody will, where a transaction says so.
    """
    named = named_bytes(connection)
    return [number for number in segments.numbers_in(of.directory) if number not in named and number != of.current]


def mostly_dead(connection: sqlite3.Connection, of: Segments, beside: frozenset[int]) -> int | None:
    """Return a segment of which little is named, but the one that is written to and those beside."""
    named = named_bytes(connection)
    shares = {
        number: named[number] / max(1, size)
        for number, size in segments.numbers_in(of.directory).items()
        if number in named and number != of.current and number not in beside
    }
    emptiest = min(shares, key=shares.__getitem__, default=None)
    return emptiest if emptiest is not None and shares[emptiest] < _LIVE_SHARE else None


def move_some(transaction: Transaction, segment: int) -> bool:
    """Copy some of what is named in a segment to the one that is written to. Returns whether there is more.

    StoreError when a payload is damaged: then it stays where it is.
    """
    query = "SELECT id, segment, start, length, crc FROM payloads WHERE segment = ? ORDER BY start"
    left = _COPIED_A_STEP
    for payload, *place in transaction.connection.execute(query, (segment,)).fetchmany(256):
        if left <= 0:
            return True
        extent = Extent(*place)
        try:
            data = segments.read(transaction.segments.directory, extent)
        except StoreError:
            raise StoreError(f"payload {payload} is damaged, and segment {segment} stays: see ww db check") from None
        transaction.move(payload, data)
        left -= extent.length
    return transaction.connection.execute("SELECT 1 FROM payloads WHERE segment = ?", (segment,)).fetchone() is not None
