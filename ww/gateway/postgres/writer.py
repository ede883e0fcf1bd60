"""The one session that writes to PostgreSQL, and what happens when it breaks.

Holds the queue of writes, the group commit and the recovery. Must not know what is written. Many writes share one
transaction, and what is of one kind in it is given to that kind at once, so that it takes few statements.

The session holds the lock of the schema, so whoever writes is alone, and a session that is lost has lost the right to.
Each transaction counts `serial` on, and says whose `epoch` it is. When the session breaks, writes are refused and
another one is opened; it has the lock only when the server is done with all that the old one did, so its `serial` says
whether a commit that got no answer is there. Until that is known whoever asked for it waits, so that nobody is told
what is not true. A serial below the last acknowledged one, or another epoch, ends writing for good.
"""

import asyncio
import contextlib
import logging
import random
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from ww.clock import Clock
from ww.errors import StoreError, UsageError
from ww.gateway.postgres.address import PostgresAddress
from ww.gateway.postgres.session import (
    FAILURES,
    Fate,
    PostgresConfig,
    Session,
    connect,
    fate,
    hold,
    line,
    prepare_to_write,
)
from ww.gateway.postgres.tables import bring_up, make_schema

T = TypeVar("T")
R = TypeVar("R")
log = logging.getLogger("ww.gateway")

Kind = Callable[[Session, list[T]], Awaitable[list[R]]]
"""What does a transaction's writes of one kind, in their order."""

_GROUP_MAX: Final = 1024
_GROUP_BYTES_MAX: Final = 32 << 20
_LOCK_WAIT_S: Final = 1.0
# What a server that is not as it should be says when a session is opened; it may be right later.
_PASSING: Final[tuple[type[Exception], ...]] = (*FAILURES, StoreError, UsageError)


@dataclass(slots=True, eq=False)
class _Write:
    """One caller's share of a transaction."""

    kind: Kind[Any, Any]
    item: Any
    size: int
    done: asyncio.Future[Any]

    def tell(self, value: Any) -> None:
        if not self.done.done():
            self.done.set_result(value)

    def refuse(self, why: str) -> None:
        if not self.done.done():
            self.done.set_exception(StoreError(why))


@dataclass(slots=True)
class _Doubt:
    """A commit that got no answer."""

    group: list[_Write]
    values: list[Any]
    serial: int


class _OverError(Exception):
    """Nothing may be written any more."""


class Writer:
    """The session. `start` it, and `stop` it."""

    def __init__(self, address: PostgresAddress, config: PostgresConfig, clock: Clock, busy_timeout_s: float) -> None:
        self._address = address
        self._config = config
        self._clock = clock
        self._busy_timeout_s = busy_timeout_s
        self._queue: deque[_Write] = deque()
        self._wake = asyncio.Event()
        self._session: Session = None
        self._epoch = 0
        self._serial = 0
        """Of the last commit that was acknowledged."""
        self._doubt: _Doubt | None = None
        self._is_over = False
        self._is_stopping = False
        self.trouble = ""
        """Why writing is refused at present."""

    async def start(self, group: asyncio.TaskGroup) -> None:
        """Take the lock, bring the tables up and begin an epoch. UsageError when another gateway has it."""
        session = await connect(self._address, self._config, to_write=True)
        try:
            await prepare_to_write(session)
            schema = self._address.schema
            await make_schema(session, schema)
            if not await hold(session, schema, self._busy_timeout_s):
                raise UsageError(
                    f"another gateway uses the schema {schema} of this database: name another with --store-schema"
                )
            await bring_up(session, schema)
            begin = "UPDATE store SET epoch = epoch + 1, serial = serial + 1 RETURNING epoch, serial"
            self._epoch, self._serial = await session.fetchrow(begin)
            if await session.fetchval("SHOW fsync") != "on":
                log.warning("%s has fsync off: what is acknowledged may be lost when its machine fails", self._address)
        except FAILURES as error:
            session.terminate()
            raise StoreError(f"{self._address} cannot be opened: {line(error)}") from None
        except BaseException:
            session.terminate()
            raise
        self._use(session)
        self._task = group.create_task(self._write_all())

    async def stop(self) -> None:
        """Return when everything that was asked for is done, or refused since the server is not there."""
        self._is_stopping = True
        self._wake.set()
        if self._session is None:
            self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task
        self._refuse_all("the store is closed")
        if self._doubt is not None:
            self._settle(None, "the store is closed, and whether it was written is not known")
        if self._session is not None:
            session, self._session = self._session, None
            session.remove_termination_listener(self._on_end)
            try:
                await session.close(timeout=self._config.connect_timeout_s)
            except FAILURES:
                session.terminate()

    async def write(self, kind: Kind[T, R], item: T, size: int = 0) -> R:
        """Have a write of that kind done; what it returned is on disk. StoreError: nothing of it is."""
        if self._is_stopping or self._session is None:
            raise StoreError(self.trouble or "the store is closed")
        done: asyncio.Future[R] = asyncio.get_running_loop().create_future()
        self._queue.append(_Write(kind, item, size, done))
        self._wake.set()
        return await done

    async def probe(self) -> None:
        """See whether the server takes a commit."""
        await self.write(_nothing, None)

    # The task.

    async def _write_all(self) -> None:
        """Commit what waits, as one transaction, until told to stop."""
        while True:
            if self._session is not None and self._session.is_closed():
                self._drop()
                self._set_trouble("the database cannot be written: the connection was lost")
            if self._session is None:
                if self._is_stopping:
                    return
                self._refuse_all(self.trouble)
                await self._reconnect()
            elif self._queue:
                await self._commit_group(self._next_group())
            elif self._is_stopping:
                return
            else:
                self._wake.clear()
                await self._wake.wait()

    def _next_group(self) -> list[_Write]:
        group: list[_Write] = []
        size = 0
        while self._queue and len(group) < _GROUP_MAX and (not group or size + self._queue[0].size <= _GROUP_BYTES_MAX):
            write = self._queue.popleft()
            size += write.size
            group.append(write)
        return group

    async def _commit_group(self, group: list[_Write]) -> None:
        is_of_one, why = await self._commit(group)
        if is_of_one and len(group) > 1:
            # One caller's trouble is not the others': try each alone.
            for index, write in enumerate(group):
                if self._session is None:
                    for left in group[index:]:
                        left.refuse(self.trouble)
                    return
                _, why = await self._commit([write])
                if why:
                    write.refuse(why)
        elif why:
            for write in group:
                write.refuse(why)

    async def _commit(self, group: list[_Write]) -> tuple[bool, str]:
        """Tell the writes what they returned once that is on disk.

        Else return whether one write's values are at fault, and why they are refused; nothing when that is not known.
        """
        session: Session = self._session
        values: list[Any] = []
        is_sent = False
        try:
            async with asyncio.timeout(self._config.timeout_s):
                await self._begin(session)
                values = await _done(session, group)
                is_sent = True
                if await session.execute("COMMIT") != "COMMIT":
                    raise StoreError("it was not committed")
        except _OverError as error:
            self._end(str(error))
            return False, self.trouble
        except Exception as error:
            return await self._undo(error, group, values if is_sent else None)
        self._serial += 1
        self._set_trouble("")
        for write, value in zip(group, values, strict=True):
            write.tell(value)
        return False, ""

    async def _begin(self, session: Session) -> None:
        """Begin a transaction that counts only when nobody else has written."""
        mine = f"epoch = {self._epoch} AND serial = {self._serial}"
        if await session.execute(f"BEGIN; UPDATE store SET serial = serial + 1 WHERE {mine}") != "UPDATE 1":
            raise _OverError("another gateway has written to the database since: stop this one")

    async def _undo(self, error: Exception, group: list[_Write], values: list[Any] | None) -> tuple[bool, str]:
        """Undo a transaction that failed; values when it may be committed all the same."""
        session: Session = self._session
        became = fate(error, session) if isinstance(error, (*FAILURES, StoreError, ValueError)) else Fate.OF_ONE
        if became is not Fate.LOST:
            try:
                async with asyncio.timeout(self._config.timeout_s):
                    await session.execute("ROLLBACK")
            except FAILURES as worse:
                became, error = Fate.LOST, worse
        why = f"the database cannot be written: {line(error)}"
        if became is Fate.OF_ONE:
            if not isinstance(error, (*FAILURES, StoreError, ValueError)):
                log.error("a write failed", exc_info=error)
            return True, why
        self._set_trouble(why)
        if became is Fate.LOST:
            self._drop()
            if values is not None:
                self._doubt = _Doubt(group, values, self._serial + 1)
                return False, ""
        return False, why

    # Reconnecting.

    async def _reconnect(self) -> None:
        """Open another session, however long it takes, and settle what the last one left open."""
        pause_s = self._config.reconnect_first_s
        while not (self._is_stopping or self._is_over):
            try:
                session = await connect(self._address, self._config, to_write=True)
                try:
                    async with asyncio.timeout(self._config.timeout_s):
                        await self._take_up(session)
                except BaseException:
                    session.terminate()
                    raise
            except _OverError as error:
                self._end(str(error))
            except _PASSING as error:
                self._set_trouble(f"the database cannot be written: {line(error)}")
            else:
                self._use(session)
                self._set_trouble("")
                return
            # Not all gateways of a server that comes back at the same moment.
            await self._clock.sleep(pause_s * random.uniform(0.5, 1.0))
            pause_s = min(2 * pause_s, self._config.reconnect_max_s)
        self._wake.clear()
        if not self._is_stopping:
            await self._wake.wait()

    async def _take_up(self, session: Session) -> None:
        """Have a session go on where the last one ended. _OverError when that is not what is there."""
        await prepare_to_write(session)
        if not await hold(session, self._address.schema, _LOCK_WAIT_S):
            raise StoreError("another session has the lock of the schema")
        epoch, serial = await session.fetchrow("SELECT epoch, serial FROM store")
        if epoch != self._epoch:
            raise _OverError("another gateway has used the database since: stop this one")
        if serial < self._serial:
            raise _OverError("the database lost what had been written: stop the gateway, and look at its server")
        if serial > (self._doubt.serial if self._doubt is not None else self._serial):
            raise _OverError("somebody else has written to the database: stop the gateway")
        self._settle(serial, self.trouble)
        self._serial = serial
        # A commit of our own, before others are promised one: the server may be a copy that is only read.
        self._doubt = _Doubt([], [], serial + 1)
        await session.execute("UPDATE store SET serial = serial + 1")
        self._doubt = None
        self._serial = serial + 1

    def _settle(self, serial: int | None, why: str) -> None:
        """Tell those whose commit got no answer what became of it."""
        doubt, self._doubt = self._doubt, None
        if doubt is None:
            return
        for write, value in zip(doubt.group, doubt.values, strict=True):
            if serial == doubt.serial:
                write.tell(value)
            else:
                write.refuse(why)

    def _use(self, session: Session) -> None:
        self._session = session
        session.add_termination_listener(self._on_end)

    def _on_end(self, session: Session) -> None:
        """Hear that a session has ended, which nobody may have been using."""
        if session is self._session:
            self._wake.set()

    def _drop(self) -> None:
        if self._session is not None:
            self._session.remove_termination_listener(self._on_end)
            self._session.terminate()
        self._session = None

    def _end(self, why: str) -> None:
        """Write nothing any more."""
        self._is_over = True
        self._drop()
        self._set_trouble(why)
        self._settle(None, why)

    def _refuse_all(self, why: str) -> None:
        while self._queue:
            self._queue.popleft().refuse(why)

    def _set_trouble(self, trouble: str) -> None:
        if trouble and not self.trouble:
            log.error("%s", trouble)
        elif self.trouble and not trouble:
            log.info("the database can be written again")
        self.trouble = trouble


async def _done(session: Session, group: list[_Write]) -> list[Any]:
    """Return what the writes returned, those of a kind done together."""
    kinds: dict[Kind[Any, Any], list[int]] = {}
    for index, write in enumerate(group):
        kinds.setdefault(write.kind, []).append(index)
    values: list[Any] = [None] * len(group)
    for kind, indexes in kinds.items():
        of_kind = await kind(session, [group[index].item for index in indexes])
        for index, value in zip(indexes, of_kind, strict=True):
            values[index] = value
    return values


async def _nothing(_: Session, items: list[None]) -> list[None]:
    return items
