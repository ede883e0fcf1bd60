"""Which tasks changed, for the live page.

Holds the latest changes, as they are told, of as many tasks as a slow reader may have missed. Must not know readers. A
task is rendered once for all who may see it. Who misses more than is held is told the newest tasks anew, all of them.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import Any, ClassVar, Final, NamedTuple

import orjson

from ww.clock import Clock
from ww.errors import StoreError
from ww.gateway.caller import Caller, Scope
from ww.gateway.scheduler import Scheduler
from ww.gateway.storage import Storage, TaskRow
from ww.gateway.task import Task
from ww.gateway.topic import Topic

TOLD_MAX: Final = 50
"""Tasks in one message."""
_HELD_MAX: Final = 200
# Runs are counted for at least so long to say how many there are a second.
_RATE_S: Final = 1.0

Known = Task | TaskRow


class _Change(NamedTuple):
    """A task as it is told."""

    version: int
    owner: str
    data: bytes
    task: Task | None
    """Itself, where it has not ended."""


class _Rate(NamedTuple):
    since: float
    ended: int
    per_s: float


class TaskNews(Topic):
    """The tasks that changed."""

    every_s: ClassVar[float] = 0.25

    def __init__(
        self,
        scheduler: Scheduler,
        store: Storage,
        clock: Clock,
        *,
        current: Callable[[TaskRow], Awaitable[Known]],
        summary: Callable[[Known], dict[str, Any]],
    ) -> None:
        """current says what is known of a task now, summary how that looks as JSON."""
        super().__init__()
        self._scheduler = scheduler
        self._store = store
        self._clock = clock
        self._current = current
        self._summary = summary
        self._noted: dict[str, Task | None] = {}
        self._are_too_many = False
        """Whether more was noted than is held."""
        self._changes: OrderedDict[str, _Change] = OrderedDict()
        """The least recently changed first."""
        self._whole_before = 1
        """Who has an older version is told all anew."""
        self._newest: dict[str | None, tuple[int, bytes]] = {}
        self._newest_lock = asyncio.Lock()
        self._rates: dict[str, _Rate] = {}
        self.version = 1

    def note(self, id: str) -> None:
        """Note that a task changed, or came. For every run or so: it takes a fraction of a microsecond."""
        if self._are_too_many or self._scheduler.is_being_added(id):
            return
        task = self._scheduler.task(id)
        if task is not None or id not in self._noted:
            self._noted[id] = task  # of one that has ended, what it was when it last changed
        if len(self._noted) > _HELD_MAX:
            self._noted.clear()
            self._are_too_many = True
        self.touch()

    def note_second(self) -> None:
        """Note that a second has passed: what went on may go on no more."""
        for id in [id for id, rate in self._rates.items() if rate.per_s]:
            self.note(id)

    async def look(self) -> None:
        if self._are_too_many:
            self._are_too_many = False
            self._changes.clear()
            self.version += 1
            self._whole_before = self.version
            return
        some = [(id, self._noted.pop(id)) for id in list(self._noted)[:TOLD_MAX]]
        if not some:
            return
        if self._noted:
            self.touch()
        known = await self._known(some)
        self.version += 1
        for each in known:
            id = each.spec.id
            task = each if isinstance(each, Task) and self._scheduler.task(id) is each else None
            self._changes[id] = _Change(self.version, each.spec.owner, self._render(each), task)
            self._changes.move_to_end(id)
        while len(self._changes) > _HELD_MAX:
            _, oldest = self._changes.popitem(last=False)
            self._whole_before = oldest.version + 1

    async def _known(self, noted: list[tuple[str, Task | None]]) -> list[Known]:
        """Return what tasks are by now, without those that were refused, or forgotten."""
        known: list[Known] = []
        unknown: list[str] = []
        for id, task in noted:
            task = self._scheduler.task(id) or task
            if task is None and (change := self._changes.get(id)) is not None:
                task = change.task
            if task is not None and (task.has_ended or self._scheduler.task(id) is task):
                known.append(task)
            else:
                unknown.append(id)
        if unknown:
            try:
                known += await self._from_store(unknown)
            except StoreError:
                self._noted.update(dict.fromkeys(unknown))
                self.touch()
                raise
        return known

    async def _from_store(self, ids: list[str]) -> list[TaskRow]:
        # Most are new, and in a list a large stdin is left out.
        newest = {row.spec.id: row for row in await self._store.tasks(limit=TOLD_MAX)}
        found = [newest.get(id) or await self._store.task(id) for id in ids]
        return [row for row in found if row is not None]

    async def since(self, version: int, caller: Caller) -> tuple[int, bytes] | None:
        """Return what that caller is told that knows a version, and the version that it knows then; None: nothing."""
        if version >= self.version:
            return None
        now = self.version
        found: list[bytes] = []
        if version >= self._whole_before:
            for change in reversed(self._changes.values()):
                if change.version <= version:
                    break
                if caller.may_see(change.owner):
                    found.append(change.data)
        if version < self._whole_before or len(found) > TOLD_MAX:
            return await self._all(None if caller.may(Scope.ADMIN) else caller.name)
        return now, b'{"tasks":[%b]}' % b",".join(reversed(found)) if found else b""

    async def _all(self, owner: str | None) -> tuple[int, bytes]:
        """Return the newest tasks, of an owner or of all."""
        async with self._newest_lock:
            known = self._newest.get(owner)
            if known is None or known[0] != self.version:
                version = self.version  # what changes from now on is told again
                rows = await self._store.tasks(limit=TOLD_MAX, owner=owner)
                found = [self._render(await self._current(row)) for row in rows]
                known = version, b'{"reset":true,"tasks":[%b]}' % b",".join(found)
                if any(made != version for made, _ in self._newest.values()):
                    self._newest.clear()
                self._newest[owner] = known
            return known

    def _render(self, known: Known) -> bytes:
        return orjson.dumps(self._summary(known) | {"throughput": self._runs_per_s(known)})

    def _runs_per_s(self, known: Known) -> float:
        id = known.spec.id
        if not isinstance(known, Task) or known.has_ended:
            self._rates.pop(id, None)
            return 0.0
        now, ended = self._clock.now(), known.succeeded + known.failed
        rate = self._rates.pop(id, None)
        if rate is None:
            rate = _Rate(now, ended, 0.0)
        elif now - rate.since >= _RATE_S:
            rate = _Rate(now, ended, round((ended - rate.ended) / (now - rate.since), 1))
        self._rates[id] = rate
        if len(self._rates) > _HELD_MAX:
            del self._rates[next(iter(self._rates))]
        return rate.per_s
