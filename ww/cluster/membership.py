"""Who is there: a table of the cluster's members, merged from their signed heartbeats in whatever order they come.

Holds the table, what this node says of itself and when it is due, and no socket, no clock and no loop: it is given
packets and `now` (monotonic seconds); heartbeat.py is the shell. Of each peer the latest heartbeat holds, by
incarnation, sequence, and whole before abridged; so the order of arrival does not matter. A peer is a member while its
latest heartbeat is younger than its ttl, is no goodbye, and is later than what a relay called lost.
"""

import heapq
import random
from collections import OrderedDict
from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from ww.discovery.packet import Heartbeat, Load, Packet, Writer
from ww.identity import PeerId
from ww.net.multiaddr import Multiaddr

Position = tuple[int, int]
"""Where in what a peer says: incarnation and sequence."""

_NEVER: Final = float("inf")
# Share of its ttl for which a heartbeat may be held back by one relay, and the least seconds: a stranger's ttl counts.
_HOLD_SHARE: Final = 0.1
_HOLD_MIN_S: Final = 0.1


@dataclass(frozen=True, slots=True)
class MembershipConfig:
    """How often a node says that it is there, and how many it keeps in mind."""

    ttl_s: float = 10.0
    """A member that says nothing for so long is gone. Heartbeats come every third to half of it, at random."""
    load_interval_s: float = 1.0
    """Least seconds from one heartbeat to the next that only tells of load."""
    ttl_max_s: float = 600.0
    """The longest ttl that is believed of others."""
    peers_max: int = 4096
    """Members, and as many that are gone whose latest heartbeat is remembered, so that it cannot be replayed."""
    bytes_max: int = 64 << 20
    """Of all heartbeats that are kept, as they were signed."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What a node says of itself, load aside."""

    role: str
    host: str = ""
    meta: tuple[tuple[str, str], ...] = ()
    addresses: tuple[Multiaddr, ...] = ()


@dataclass(frozen=True, slots=True)
class Beat:
    """A heartbeat to be sent."""

    whole: bytes
    """For connections."""
    datagram: bytes
    """The same, abridged where it does not fit."""


@dataclass(slots=True, eq=False)
class Record:
    """What is known of one peer."""

    peer_id: PeerId
    position: Position
    heartbeat: Heartbeat
    data: bytes
    """The heartbeat as it was signed."""
    heard_at: float
    """Monotonic seconds at which the peer said it, as far as is known."""
    expires_at: float
    whole: Heartbeat | None = None
    """The latest of this incarnation that was not abridged."""
    whole_at: Position = (0, 0)
    lost: Position = (0, 0)
    """What a relay called lost: this position and all before it."""
    version: int = 0
    """The table's version in which this last changed."""
    first_at: float = 0.0
    """Monotonic seconds at which it first came here."""
    source: object = None
    """Who told it."""
    has_gone: bool = False
    """Whether that it is gone was noticed."""

    @property
    def rank(self) -> tuple[int, int, bool]:
        """What orders heartbeats of one peer."""
        return (*self.position, not self.heartbeat.abridged)

    def is_member(self, now: float) -> bool:
        """Whether the peer counts as being there."""
        return self.heartbeat.ttl_ms > 0 and self.position > self.lost and self.expires_at > now

    @property
    def shown(self) -> Heartbeat:
        """The latest heartbeat, with what was left out of it taken from the last whole one."""
        if not self.heartbeat.abridged or self.whole is None:
            return self.heartbeat
        return replace(self.heartbeat, host=self.whole.host, meta=self.whole.meta, addresses=self.whole.addresses)


@dataclass(order=True, slots=True)
class _Expiry:
    """When a record's time is over, unless something later is said."""

    at: float
    record: Record = field(compare=False)

    @property
    def is_due(self) -> bool:
        return not self.record.has_gone and self.record.expires_at == self.at


class Membership:
    """The table, and this node's own part in it."""

    def __init__(
        self, writer: Writer, config: MembershipConfig | None = None, rng: random.Random | None = None
    ) -> None:
        """Speak as writer does, once `announce` was called; until then only listen."""
        self.config = config or MembershipConfig()
        self.version = 0
        """Grows with everything that becomes known."""
        self.notable = 0
        """The version with the latest change of more than load: who is there, or what somebody says of itself."""
        self.refused = 0
        """Heartbeats of peers for whom there was no room."""
        self._writer = writer
        self._random = rng or random.Random()
        self.connected: Container[PeerId] = ()
        """Peers that this node is connected to: they have a place in the table."""
        # The least recently changed first.
        self._records: OrderedDict[PeerId, Record] = OrderedDict()
        # Those of them that are gone, who went first first.
        self._gone: OrderedDict[PeerId, None] = OrderedDict()
        self._expiries: list[_Expiry] = []
        self._bytes = 0
        self._facts: Facts | None = None
        self._load = Load()
        self._beat_at = _NEVER
        self._sent_at = -_NEVER

    @property
    def peer_id(self) -> PeerId:
        """Whose table it is."""
        return self._writer.peer_id

    @property
    def incarnation(self) -> int:
        """This node's."""
        return self._writer.incarnation

    # What this node says.

    def announce(self, facts: Facts, now: float) -> None:
        """Say this of this node from now on; at once when it is new."""
        if facts != self._facts:
            self._facts, self._beat_at = facts, now

    def set_load(self, load: Load, now: float) -> None:
        """Say how busy this node is; soon when that is new, but not too often."""
        if load != self._load:
            self._load = load
            self.speak_up(now)

    def speak_up(self, now: float) -> None:
        """Say that this node is there soon, though nothing is new: somebody may have taken it for lost."""
        if self._facts is not None:
            due = max(now, self._sent_at + self.config.load_interval_s)
            self._beat_at = min(self._beat_at, due)

    def leave(self, now: float) -> Beat | None:
        """Say goodbye; None when nothing was ever said."""
        if self._facts is None or self._writer.peer_id not in self._records:
            return None
        beat = self._say(Heartbeat(0, role=self._facts.role), now)
        self._facts, self._beat_at = None, _NEVER
        return beat

    def next_poll(self) -> float:
        """Return when `poll` will have something to do; infinity when it never will."""
        while self._expiries and not self._expiries[0].is_due:
            heapq.heappop(self._expiries)
        return min(self._beat_at, self._expiries[0].at if self._expiries else _NEVER)

    def poll(self, now: float) -> Beat | None:
        """Note who is gone, and return this node's heartbeat when it is due."""
        while self._expiries and self._expiries[0].at <= now:
            expiry = heapq.heappop(self._expiries)
            if expiry.is_due:
                self._touch(expiry.record, notable=True)
                self._bury(expiry.record)
        if self._facts is None or self._beat_at > now:
            return None
        ttl_s = self.config.ttl_s
        self._beat_at = now + self._random.uniform(ttl_s / 3, ttl_s / 2)
        self._sent_at = now
        facts = self._facts
        return self._say(
            Heartbeat(round(ttl_s * 1000), facts.role, facts.host, facts.meta, facts.addresses, self._load), now
        )

    def _say(self, heartbeat: Heartbeat, now: float) -> Beat:
        whole, datagram, position = self._writer.write_heartbeat(heartbeat)
        own = self._records.get(self._writer.peer_id)
        record = Record(self._writer.peer_id, position, heartbeat, whole, now, _NEVER, heartbeat, position)
        self._keep(record, notable=own is None or _is_said_anew(own.heartbeat, heartbeat))
        return Beat(whole, datagram)

    # What others say.

    def receive(self, packet: Packet, data: bytes, now: float, *, age_s: float = 0.0, source: object = None) -> bool:
        """Take a heartbeat that was said age_s ago and came as data; returns whether it is news."""
        said = packet.content
        if not isinstance(said, Heartbeat) or packet.namespace != self._writer.namespace:
            return False
        if packet.sender == self._writer.peer_id:
            return False
        position = (packet.incarnation, packet.sequence)
        ttl_s = min(said.ttl_ms / 1000, self.config.ttl_max_s)
        heard_at = now - max(0.0, age_s)
        new = Record(packet.sender, position, said, data, heard_at, heard_at + ttl_s, first_at=now, source=source)
        if not said.abridged:
            new.whole, new.whole_at = said, position
        known = self._records.get(packet.sender)
        if known is None:
            if said.ttl_ms and not new.is_member(now):  # nobody has seen it, and now it is gone
                return False
            if not self._make_room(new):
                self.refused += 1
                return False
        else:
            if new.rank == known.rank and self._rejuvenate(known, new, now):
                return True
            if new.rank <= known.rank:
                # Too late to be the latest, but it may hold what the latest leaves out.
                if is_news := _complete(known, new):
                    self._touch(known, notable=True)
                return is_news
            new.lost = known.lost
            _complete(new, known)
        self._keep(new, notable=new.is_member(now) if known is None else _is_notable(known, new, now))
        return True

    def _rejuvenate(self, known: Record, new: Record, now: float) -> bool:
        """Let a heartbeat that came again, by a shorter way, count from when it was said, as far as can be known.

        It was said before it first came here, so that nobody can keep a member alive by repeating what it said.
        """
        heard_at = min(new.heard_at, known.first_at)
        if heard_at <= known.heard_at:
            return False
        was_there = known.is_member(now)
        known.expires_at += heard_at - known.heard_at
        known.heard_at = heard_at
        self._keep(known, notable=known.is_member(now) != was_there)
        return True

    def lose(self, peer_id: PeerId, position: Position | None = None) -> bool:
        """Take a peer for gone unless it says something later than position, or than all that is known."""
        record = self._records.get(peer_id)
        if record is None or peer_id == self._writer.peer_id:
            return False
        # Not later than what is known: nobody can say of a peer that it will be gone.
        lost = record.position if position is None else min(position, record.position)
        if lost <= record.lost:
            return False
        record.lost = lost
        record.source = None  # whoever told of the peer is to be told that it is lost
        self._touch(record, notable=True)
        if lost == record.position:
            self._bury(record)
        return True

    # What is known.

    def members(self, now: float) -> list[Record]:
        """Return who is there, this node included, in no order."""
        return [record for record in self._records.values() if record.is_member(now)]

    def find(self, peer_id: PeerId, now: float) -> Record | None:
        """Return that peer if it is there."""
        record = self._records.get(peer_id)
        return record if record is not None and record.is_member(now) else None

    def has_heard(self, peer_id: PeerId, data: bytes) -> bool:
        """Tell whether data is that peer's latest heartbeat as it came."""
        record = self._records.get(peer_id)
        return record is not None and record.data == data

    def digest(self) -> dict[PeerId, Position]:
        """Return how much of each peer's word is known here."""
        return {peer_id: record.position for peer_id, record in self._records.items()}

    def since(self, version: int) -> Iterable[Record]:
        """Return what changed after that version, the oldest change first."""
        for record in reversed(self._records.values()):
            if record.version <= version:
                break
            yield record

    def patience_s(self, version: int) -> float:
        """Return for how many seconds what changed after that version may be held back on its way to others.

        A heartbeat that passes three relays has then lost less than a third of its ttl, and half is the interval.
        """
        shortest = min((r.heartbeat.ttl_ms for r in self.since(version) if r.heartbeat.ttl_ms), default=0)
        return max(_HOLD_MIN_S, shortest / 1000 * _HOLD_SHARE)

    def lacking(self, digest: Mapping[PeerId, Position], now: float) -> list[Record]:
        """Return what somebody whose digest this is does not know: newer heartbeats, and losses of those it knows."""
        found = []
        for record in self._records.values():
            theirs = digest.get(record.peer_id)
            if theirs is None:
                if record.is_member(now):
                    found.append(record)
            elif record.position > theirs or record.lost >= theirs:
                found.append(record)
        return found

    def _keep(self, record: Record, *, notable: bool) -> None:
        before = self._records.get(record.peer_id)
        self._bytes += len(record.data) - (len(before.data) if before is not None else 0)
        if before is not None:
            before.has_gone = True
        self._records[record.peer_id] = record
        self._touch(record, notable=notable)
        if record.heartbeat.ttl_ms == 0 or record.position <= record.lost:
            self._bury(record)
            return
        self._gone.pop(record.peer_id, None)
        if record.peer_id != self._writer.peer_id:
            record.has_gone = False
            heapq.heappush(self._expiries, _Expiry(record.expires_at, record))
            if len(self._expiries) > 4 * len(self._records) + 64:
                self._expiries = [expiry for expiry in self._expiries if expiry.is_due]
                heapq.heapify(self._expiries)

    def _bury(self, record: Record) -> None:
        """Count a peer among the gone; the one that went first of too many is forgotten."""
        record.has_gone = True
        self._gone[record.peer_id] = None
        self._gone.move_to_end(record.peer_id)
        if len(self._gone) > self.config.peers_max:
            self._forget(next(iter(self._gone)))

    def _forget(self, peer_id: PeerId) -> None:
        self._gone.pop(peer_id, None)
        record = self._records.pop(peer_id)
        record.has_gone = True
        self._bytes -= len(record.data)

    def _touch(self, record: Record, *, notable: bool) -> None:
        self.version += 1
        record.version = self.version
        if notable:
            self.notable = self.version
        self._records.move_to_end(record.peer_id)

    def _make_room(self, record: Record) -> bool:
        """See to it that there is room for one more; False when all there is room for are there.

        Who is connected has a place: for such a one, another that was only heard of has to go.
        """
        while self._bytes + len(record.data) > self.config.bytes_max and self._gone:
            self._forget(next(iter(self._gone)))
        is_full = len(self._records) - len(self._gone) >= self.config.peers_max
        if not is_full and self._bytes + len(record.data) <= self.config.bytes_max:
            return True
        if record.peer_id not in self.connected:
            return False
        own = self._writer.peer_id
        others = (p for p in self._records if p not in self.connected and p not in self._gone and p != own)
        if (other := next(others, None)) is None:
            return False
        self._forget(other)
        return True


def _complete(record: Record, other: Record) -> bool:
    """Let record have the other's whole heartbeat when that is the later one of the same incarnation."""
    if other.whole_at <= record.whole_at or other.position[0] != record.position[0]:
        return False
    record.whole, record.whole_at = other.whole, other.whole_at
    return True


def _is_notable(before: Record, record: Record, now: float) -> bool:
    is_there = record.is_member(now)
    if before.is_member(now) != is_there:
        return True
    is_restarted = before.position[0] != record.position[0]
    return is_there and (is_restarted or _is_said_anew(before.shown, record.shown))


def _is_said_anew(before: Heartbeat, now: Heartbeat) -> bool:
    """Whether more than load differs."""
    return replace(before, load=now.load, abridged=now.abridged) != now
