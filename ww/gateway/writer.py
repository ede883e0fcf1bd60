"""The one thread that writes to the database, and what it does when the disk fails.

Holds the queue of writes, the group commit and the recovery. Must not know what is written. Many writes share one
commit, since a commit costs a disk flush however much is in it; payloads are synced before it, once for all of them.

A write that is refused changes nothing. When an error leaves it open what is on disk (a failed flush, an I/O error),
nothing more is written on that connection: the database is opened again, the last commit that was acknowledged must be
in it, and a commit of our own must succeed before others do. The connection that reads stays open over that: while it
holds SQLite's index of the log, a commit that failed cannot be taken for one that did not, and our own overwrites it.
"""

import asyncio
import contextlib
import errno
import logging
import queue
import sqlite3
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

from ww.errors import StoreError
from ww.gateway.database import connect, is_damage, require_sound
from ww.gateway.segments import Extent, Segments

T = TypeVar("T")
log = logging.getLogger("ww.gateway")

_GROUP_MAX: Final = 1024
# More than SQLite's log may have to spare when the disk is full.
_PROBE_BYTES: Final = 256 << 10
# Nothing is in doubt after these: the transaction is rolled back, and the disk holds what it held.
_REFUSED: Final = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_FULL, sqlite3.SQLITE_READONLY})
_REFUSED_BY_SYSTEM: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG})
_NEXT_SERIAL: Final = "UPDATE store SET serial = serial + 1"


class Transaction:
    """What one write may do: statements, and payloads that are on disk when it is committed."""

    def __init__(self, connection: sqlite3.Connection, segments: Segments) -> None:
        self.connection = connection
        self.segments = segments

    def put(self, task: int, data: bytes) -> int:
        """Keep a payload of a task, and return its number."""
        row = (task, *_place(self.segments.append(data)))
        cursor = self.connection.execute(
            "INSERT INTO payloads (task, segment, start, length, crc) VALUES (?, ?, ?, ?, ?)", row
        )
        assert cursor.lastrowid is not None
        return cursor.lastrowid

    def move(self, payload: int, data: bytes) -> None:
        """Keep a payload, which is here already, at another place."""
        segment, start, _, _ = _place(self.segments.append(data))
        self.connection.execute("UPDATE payloads SET segment = ?, start = ? WHERE id = ?", (segment, start, payload))

    def probe(self) -> None:
        """Write what is of no use, to see whether the disk takes it."""
        self.segments.append(bytes(_PROBE_BYTES))


Work = Callable[[Transaction], T]


@dataclass(slots=True)
class _Write:
    """One caller's share of a transaction."""

    work: Work[Any]
    done: asyncio.Future[Any]


@dataclass(frozen=True, slots=True)
class _Refusal:
    """Why a group was not committed."""

    error: StoreError
    is_of_one: bool
    """Whether one write's values are at fault, so that the others may do without it."""


class Writer:
    """The thread. `start` it with an open database, and `stop` it from another thread."""

    def __init__(self, path: Path, segments: Segments, busy_timeout_s: float) -> None:
        self._path = path
        self._segments = segments
        self._busy_timeout_s = busy_timeout_s
        self._queue: queue.SimpleQueue[_Write | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._connection: sqlite3.Connection | None = None
        self._serial = 0
        """Of the last commit that was acknowledged."""
        self._is_lost = False
        self.trouble = ""
        """Why writing is refused at present; any thread may read it."""

    def start(self, connection: sqlite3.Connection) -> None:
        """Write by this connection, which is the writer's from now on."""
        self._loop = asyncio.get_running_loop()
        self._connection = connection
        self._thread = threading.Thread(target=self._write_all, name="ww-store-writer")
        self._thread.start()

    def stop(self) -> None:
        """Return when everything that was asked for is done."""
        if self._thread is not None:
            self._queue.put(None)
            self._thread.join()

    async def write(self, work: Work[T]) -> T:
        """Have work done in a transaction; what it returned is on disk. StoreError: nothing of it is."""
        done: asyncio.Future[T] = self._loop.create_future()
        self._queue.put(_Write(work, done))
        return await done

    # The thread.

    def _write_all(self) -> None:
        """Commit what waits, as one transaction, until told to stop."""
        assert self._connection is not None
        (self._serial,) = self._connection.execute("SELECT serial FROM store").fetchone()
        stopping = False
        while not stopping:
            waiting = [self._queue.get()]
            while len(waiting) < _GROUP_MAX and not self._queue.empty():
                waiting.append(self._queue.get())
            stopping = None in waiting
            group = [write for write in waiting if write is not None]
            outcome = self._commit(group) if group else []
            if isinstance(outcome, _Refusal) and outcome.is_of_one and len(group) > 1:
                # One caller's trouble is not the others': try each alone.
                for write in group:
                    self._tell([write], self._commit([write]))
            else:
                self._tell(group, outcome)
        if self._connection is not None:
            self._connection.close()
        self._segments.close()

    def _tell(self, group: list[_Write], outcome: list[Any] | _Refusal) -> None:
        def tell() -> None:
            for index, write in enumerate(group):
                if write.done.cancelled():
                    continue
                if isinstance(outcome, _Refusal):
                    write.done.set_exception(outcome.error)
                else:
                    write.done.set_result(outcome[index])

        self._loop.call_soon_threadsafe(tell)

    def _commit(self, group: list[_Write]) -> list[Any] | _Refusal:
        """Return what the writes returned, once that is on disk."""
        if self._connection is None and not self._reopen():
            return _Refusal(StoreError(self.trouble), is_of_one=False)
        assert self._connection is not None
        transaction = Transaction(self._connection, self._segments)
        results: list[Any] | None = None
        try:
            self._connection.execute("BEGIN IMMEDIATE")
            results = [write.work(transaction) for write in group]
            self._connection.execute(_NEXT_SERIAL)
            self._segments.sync()
            self._connection.execute("COMMIT")
        except (OverflowError, ValueError, StoreError, sqlite3.IntegrityError, sqlite3.ProgrammingError) as error:
            # Values that cannot be bound, or that another row has.
            return self._take_back(error, is_of_one=True)
        except (sqlite3.Error, OSError) as error:
            return self._take_back(error) if _is_refused(error) else self._doubt(error, results)
        except Exception as error:
            # Whatever it is, the others' writes go on.
            log.exception("a write failed")
            return self._take_back(StoreError(f"it cannot be written: {type(error).__name__}"), is_of_one=True)
        self._serial += 1
        self._segments.commit()
        self._set_trouble("")
        return results

    def _take_back(self, error: Exception, *, is_of_one: bool = False) -> list[Any] | _Refusal:
        """Undo a transaction that was refused."""
        assert self._connection is not None
        try:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
        except sqlite3.Error as worse:
            return self._doubt(worse, None)
        self._segments.rewind()
        line = _line(error)
        if not is_of_one:
            self._set_trouble(line)
        return _Refusal(StoreError(line), is_of_one)

    def _doubt(self, error: Exception, results: list[Any] | None) -> list[Any] | _Refusal:
        """Find out what is on disk, after an error that does not say."""
        self._set_trouble(_line(error))
        refusal = _Refusal(StoreError(self.trouble), is_of_one=False)
        self._drop_connection()
        self._segments.rewind()
        self._segments.abandon()
        expected = self._serial + 1
        if self._reopen() and self._serial > expected and results is not None:
            return results  # it was there after all, and our own commit came after it
        return refusal

    def _reopen(self) -> bool:
        """Open the database again, see that nothing acknowledged is missing, and commit something."""
        if self._is_lost:
            return False
        try:
            self._connection = connection = connect(self._path, self._busy_timeout_s)
            (serial,) = connection.execute("SELECT serial FROM store").fetchone()
            if serial < self._serial:
                self._is_lost = True
                raise StoreError("the database lost what had been written: stop the gateway, and see ww db check")
            connection.execute("BEGIN IMMEDIATE")
            connection.execute(_NEXT_SERIAL)
            connection.execute("COMMIT")
            require_sound(connection, self._path)
        except (sqlite3.Error, OSError, StoreError) as error:
            self._drop_connection()
            self._set_trouble(_line(error))
            return False
        self._serial = serial + 1
        self._set_trouble("")
        return True

    def _drop_connection(self) -> None:
        if self._connection is not None:
            with contextlib.suppress(sqlite3.Error):
                self._connection.close()
        self._connection = None

    def _set_trouble(self, trouble: str) -> None:
        if trouble and not self.trouble:
            log.error("%s", trouble)
        elif self.trouble and not trouble:
            log.info("the database can be written again")
        self.trouble = trouble


def _place(extent: Extent) -> tuple[int, int, int, int]:
    return extent.segment, extent.start, extent.length, extent.crc


def _is_refused(error: Exception) -> bool:
    """Whether the disk said no, and not that it failed."""
    if isinstance(error, OSError):
        return error.errno in _REFUSED_BY_SYSTEM
    return getattr(error, "sqlite_errorcode", -1) & 0xFF in _REFUSED


def _is_full(error: Exception) -> bool:
    if isinstance(error, OSError):
        return error.errno in (errno.ENOSPC, errno.EDQUOT)
    return getattr(error, "sqlite_errorcode", -1) & 0xFF == sqlite3.SQLITE_FULL


def _line(error: Exception) -> str:
    """Say in one line why writing is refused."""
    if isinstance(error, StoreError):
        return str(error)
    if _is_full(error):
        return "the database cannot be written: the disk is full"
    if isinstance(error, OSError):
        return f"the database cannot be written: {(error.strerror or 'the disk refuses').lower()}"
    if isinstance(error, sqlite3.Error) and is_damage(error):
        return f"the database is damaged: {error}; stop the gateway, and see ww db check"
    return f"the database cannot be written: {error}"
