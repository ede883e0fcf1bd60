"""The cluster as one node sees it: who is there, selected by what they say of themselves.

Holds the View capability, its typed wrapper for whoever asks, and the queries. Must not know how members became known:
membership.py does.
"""

import re
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass
from typing import Any, Final

from ww import schema
from ww.cluster.heartbeat import Heartbeats
from ww.cluster.membership import Record
from ww.discovery.packet import Heartbeat, fill_heartbeat, read_heartbeat
from ww.errors import Overloaded, PeerError, UsageError
from ww.identity import PeerId
from ww.rpc.connection import Connection
from ww.rpc.errors import call
from ww.rpc.exports import Peer
from ww.rpc.message import listed

_NEXT_MAX: Final = 256
_SELECTORS_MAX: Final = 16
# Of one peer at a time.
_ITERATORS_MAX: Final = 16
_WAITING_MAX: Final = 16


@dataclass(frozen=True, slots=True)
class Selector:
    """One thing that members must say of themselves."""

    field: str
    """role, host or meta."""
    text: str
    """The value, or what it begins with."""
    is_prefix: bool = False
    key: str = ""
    """Of meta."""

    @classmethod
    def parse(cls, field: str, text: str) -> "Selector":
        """Read VALUE or PREFIX*; for meta KEY=VALUE, KEY=PREFIX* or KEY alone, for any value. UsageError otherwise."""
        key = ""
        if field == "meta":
            key, equals, text = text.partition("=")
            if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._/-]{0,63}", key):
                raise UsageError(f"{key[:80]!r} is no key: expected KEY, KEY=VALUE or KEY=PREFIX*", "meta")
            text = text if equals else "*"
        if len(text) > 256:
            raise UsageError(f"--{field}: longer than 256 characters", field)
        return cls(field, text.removesuffix("*"), text.endswith("*"), key)

    def matches(self, heartbeat: Heartbeat) -> bool:
        """Whether a member that says this is selected."""
        if self.field == "meta":
            return any(key == self.key and self._fits(value) for key, value in heartbeat.meta)
        return self._fits(heartbeat.role if self.field == "role" else heartbeat.host)

    def _fits(self, value: str) -> bool:
        return value.startswith(self.text) if self.is_prefix else value == self.text


@dataclass(frozen=True, slots=True)
class Query:
    """Whom to show, and how."""

    selectors: tuple[Selector, ...] = ()
    """All of them hold."""
    limit: int = 0
    """0: no limit."""
    reverse: bool = False
    """The largest peer id first."""

    def select(self, records: Iterable[Record]) -> list[Record]:
        """Return the members selected, in order of peer id."""
        chosen = [record for record in records if all(s.matches(record.shown) for s in self.selectors)]
        chosen.sort(key=lambda record: str(record.peer_id), reverse=self.reverse)
        return chosen[: self.limit] if self.limit else chosen


@dataclass(frozen=True, slots=True)
class Member:
    """A member as a view shows it."""

    peer_id: PeerId
    incarnation: int
    heartbeat: Heartbeat
    age_s: float
    """Seconds since its latest heartbeat, when the view was asked."""


class ViewServer(schema.cluster.View.Server):  # type: ignore[misc]
    """What one peer gets as "view"."""

    def __init__(self, heartbeats: Heartbeats) -> None:
        self._heartbeats = heartbeats
        self._waiting = 0
        self.iterators = 0

    async def lookup_context(self, context: Any) -> None:
        now = self._heartbeats.now()
        record = self._heartbeats.membership.find(PeerId(bytes(context.params.peer)), now)
        if record is not None:
            context.results.found = True
            _fill_member(context.results.init("member"), record, now)

    async def iterate_context(self, context: Any) -> None:
        if self.iterators >= _ITERATORS_MAX:
            raise Overloaded(f"{_ITERATORS_MAX} iterators are open, the limit")
        query = _read_query(context.params.query)
        now = self._heartbeats.now()
        records = query.select(self._heartbeats.membership.members(now))
        context.results.members = IteratorServer(self, records, now)

    async def changed_context(self, context: Any) -> None:
        version = context.params.version
        if self._waiting >= _WAITING_MAX:
            raise Overloaded(f"{_WAITING_MAX} calls wait for a change, the limit")
        self._waiting += 1
        try:
            while self._heartbeats.membership.notable == version:
                await self._heartbeats.changed()
        finally:
            self._waiting -= 1
        context.results.version = self._heartbeats.membership.notable


class IteratorServer(schema.cluster.Iterator.Server):  # type: ignore[misc]
    """The members selected at one moment."""

    def __init__(self, view: ViewServer, records: list[Record], now: float) -> None:
        self._view = view
        self._records = records
        self._now = now
        view.iterators += 1

    async def next_context(self, context: Any) -> None:
        count = min(context.params.count, _NEXT_MAX)
        records, self._records = self._records[:count], self._records[count:]
        members = context.results.init("members", len(records))
        for member, record in zip(members, records, strict=True):
            _fill_member(member, record, self._now)

    def __del__(self) -> None:
        self._view.iterators -= 1


def view_for(heartbeats: Heartbeats, peer: Peer) -> Any:
    """Make what peer gets as "view"."""
    return ViewServer(heartbeats)


def _fill_member(member: Any, record: Record, now: float) -> None:
    member.peer = record.peer_id.public_key
    member.incarnation = record.position[0]
    fill_heartbeat(member.init("heartbeat"), record.shown)
    member.ageMilliseconds = max(0, round((now - record.heard_at) * 1000))


def _read_query(said: Any) -> Query:
    selectors = listed("selectors", said.selectors, _SELECTORS_MAX)
    return Query(tuple(_read_selector(selector) for selector in selectors), said.limit, said.reverse)


def _read_selector(said: Any) -> Selector:
    field = str(said.which())
    if field == "meta":
        return Selector(field, said.meta.value.text, said.meta.value.prefix, said.meta.key)
    match = said.role if field == "role" else said.host
    return Selector(field, match.text, match.prefix)


class View:
    """A node's view of the cluster, asked from another one."""

    def __init__(self, view: Any) -> None:
        """Ask this client of schema interface View."""
        self._view = view

    @classmethod
    async def of(cls, connection: Connection) -> "View":
        """Return the view of the node at the other end. NotFound when it shows none."""
        return cls(await connection.connect("view", schema.cluster.View))

    async def lookup(self, peer_id: PeerId) -> Member | None:
        """Return that member, or None when it is not there."""
        answer = await call(self._view.lookup(peer=peer_id.public_key))
        return _read_member(answer.member) if answer.found else None

    async def iterate(self, query: Query) -> AsyncIterator[Member]:
        """Yield the members selected."""
        request = self._view.iterate_request()
        _fill_query(request.query, query)
        members = (await call(request.send())).members
        while True:
            batch = listed("members", (await call(members.next(count=_NEXT_MAX))).members, _NEXT_MAX)
            for member in batch:
                yield _read_member(member)
            if len(batch) < _NEXT_MAX:
                return

    async def changed(self, version: int) -> int:
        """Return when who is there is no longer as it was at that version, with the version now; at once for 0."""
        return int((await call(self._view.changed(version=version))).version)


def _fill_query(said: Any, query: Query) -> None:
    selectors = said.init("selectors", len(query.selectors))
    for target, selector in zip(selectors, query.selectors, strict=True):
        if selector.field == "meta":
            meta = target.init("meta")
            meta.key = selector.key
            match = meta.init("value")
        else:
            match = target.init(selector.field)
        match.text, match.prefix = selector.text, selector.is_prefix
    said.limit, said.reverse = query.limit, query.reverse


def _read_member(said: Any) -> Member:
    try:
        heartbeat = read_heartbeat(said.heartbeat)
        return Member(PeerId(bytes(said.peer)), said.incarnation, heartbeat, said.ageMilliseconds / 1000)
    except UsageError:
        raise PeerError("the node shows a member that this version cannot read") from None
