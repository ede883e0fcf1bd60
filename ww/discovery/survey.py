"""The survey: how a node finds others, and answers those that look for it.

Holds what was asked, what was answered and what is dropped, and no socket, no clock and no loop: it is given datagrams
and `now` (monotonic seconds) and returns datagrams; multicast.py moves them. Surveying is gradual: it begins at a
distance that about 16 of the estimated cluster are within, widens each round, and stops when somebody was found.
"""

import math
import random
from collections import Counter, OrderedDict, deque
from dataclasses import dataclass, field
from typing import Final

from ww.discovery.packet import ANY_DISTANCE, Drop, Packet, Response, Survey, Writer, read, sender_of
from ww.identity import PeerId
from ww.net.multiaddr import Multiaddr

_DISTANCE_BITS: Final = 64
_WINDOW: Final = 64


@dataclass(frozen=True, slots=True)
class SurveyConfig:
    """How eagerly a node looks, and how much it says."""

    round_s: float = 0.06
    """Seconds from one survey to the next while nobody has answered."""
    eager_rounds: int = 16
    """Rounds until the pause between them begins to double."""
    round_max_s: float = 5.0
    answers_wanted: int = 16
    """How many shall answer a first survey."""
    cluster_guess: int = 1000
    """Nodes a cluster is taken to have while none is known."""
    widen_bits: int = 3
    """How much farther each round reaches than the one before."""
    packets_per_s: float = 50.0
    """Datagrams a node sends, surveys and answers, over any longer time."""
    packets_burst: float = 50.0
    received_per_s: float = 2000.0
    """Datagrams a node looks at: each costs the check of a signature, about 0.1 ms."""
    newcomers_per_s: float = 200.0
    """Datagrams of peers that were not heard before a node looks at, over any longer time: a key costs nothing."""
    newcomers_burst: float = 1000.0
    peers_max: int = 4096
    """Peers whose latest packet is remembered."""


@dataclass(slots=True, eq=False)
class Search:
    """One search under way; `found` fills as answers come."""

    wanted: PeerId | None
    distance: int
    next_at: float
    everybody: bool = False
    """Whether it goes on, ever slower, whoever has answered."""
    rounds: int = 0
    nonces: deque[int] = field(default_factory=lambda: deque(maxlen=_WINDOW))
    found: dict[PeerId, tuple[Multiaddr, ...]] = field(default_factory=dict)

    @property
    def is_over(self) -> bool:
        """Whether who was looked for has been found."""
        if self.everybody:
            return False
        return bool(self.found) if self.wanted is None else self.wanted in self.found


@dataclass(slots=True)
class _Seen:
    """Which packets of a sender have come: its incarnation, the highest sequence and the 64 below it as bits."""

    incarnation: int
    highest: int
    bits: int = 1

    def accept(self, incarnation: int, sequence: int) -> bool:
        if incarnation != self.incarnation:
            if incarnation < self.incarnation:
                return False
            self.incarnation, self.highest, self.bits = incarnation, sequence, 1
            return True
        ahead = sequence - self.highest
        if ahead > 0:
            self.bits = ((self.bits << ahead) | 1) & ((1 << _WINDOW) - 1) if ahead < _WINDOW else 1
            self.highest = sequence
            return True
        if -ahead >= _WINDOW or self.bits >> -ahead & 1:
            return False
        self.bits |= 1 << -ahead
        return True


class _Bucket:
    """Lets so many pass a second, and that many at once."""

    def __init__(self, per_s: float, burst: float) -> None:
        self._per_s = per_s
        self._burst = self._tokens = burst
        self._at = 0.0

    def take(self, now: float) -> bool:
        self._tokens = min(self._burst, self._tokens + max(0.0, now - self._at) * self._per_s)
        self._at = now
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True


@dataclass(frozen=True, slots=True)
class Received:
    """What a datagram was."""

    packet: Packet | Drop
    """What it says, or why it is not listened to."""
    answer: bytes | None = None
    """What its sender gets, if anything."""
    said: Packet | None = None
    """What it says, whether it is listened to or not."""


class Surveyor:
    """One node's part in the survey."""

    def __init__(
        self,
        writer: Writer,
        *,
        config: SurveyConfig | None = None,
        rng: random.Random | None = None,
    ) -> None:
        """Speak as writer does, in its namespace."""
        self._writer = writer
        self._config = config or SurveyConfig()
        self._random = rng or random.Random()
        self._seen: OrderedDict[PeerId, _Seen] = OrderedDict()
        self._searches: list[Search] = []
        self._sending = _Bucket(self._config.packets_per_s, self._config.packets_burst)
        self._receiving = _Bucket(self._config.received_per_s, self._config.received_per_s)
        self._newcomers = _Bucket(self._config.newcomers_per_s, self._config.newcomers_burst)
        self.dropped: Counter[Drop] = Counter()
        self.suppressed = 0
        """Datagrams that were not sent because there were too many."""

    def look_for(self, wanted: PeerId | None, now: float) -> Search:
        """Begin a search for one peer, or for anybody."""
        search = Search(wanted, ANY_DISTANCE if wanted is not None else self._first_distance(), now)
        self._searches.append(search)
        return search

    def look_for_everybody(self, now: float) -> Search:
        """Begin a search that asks all there are, until it is stopped: one that only looks may need a certain kind."""
        search = Search(None, ANY_DISTANCE, now, everybody=True)
        self._searches.append(search)
        return search

    def stop(self, search: Search) -> None:
        """End a search, found or not."""
        if search in self._searches:
            self._searches.remove(search)

    def next_poll(self) -> float | None:
        """Return when `poll` will have something to send, or None."""
        return min((search.next_at for search in self._searches), default=None)

    def poll(self, now: float) -> list[bytes]:
        """Return the surveys that are due, for everybody."""
        packets = []
        for search in [search for search in self._searches if search.next_at <= now]:
            search.next_at = now + self._pause(search)
            if self._may_send(now):
                packets.append(self._survey(search))
        return packets

    def receive(self, data: bytes, now: float, addresses: tuple[Multiaddr, ...] = ()) -> Received:
        """Take a datagram. addresses are where its sender can reach this node; without any it is not answered."""
        packet = self._read(data, now)
        said = packet if isinstance(packet, Packet) else None
        if isinstance(packet, Packet) and (drop := self._judge(packet)):
            packet = drop
        answer = None
        if isinstance(packet, Packet) and isinstance(packet.content, Survey):
            answer = self._answer(packet.sender, packet.content, addresses, now)
        elif isinstance(packet, Packet) and isinstance(packet.content, Response) and not self._found(packet):
            packet = Drop.NOT_ASKED_FOR
        if isinstance(packet, Drop):
            self.dropped[packet] += 1
        return Received(packet, answer, said)

    def _read(self, data: bytes, now: float) -> Packet | Drop:
        # What this node sent comes back on every interface, and is known without checking a signature.
        sender = sender_of(data)
        if sender == self._writer.peer_id:
            return Drop.OWN

        def may_check() -> bool:
            return self._receiving.take(now) and (sender in self._seen or self._newcomers.take(now))

        return read(data, may_check=may_check)

    def _judge(self, packet: Packet) -> Drop | None:
        """Say why a well-formed packet is not listened to."""
        if packet.namespace != self._writer.namespace:
            return Drop.OTHER_NAMESPACE
        seen = self._seen.get(packet.sender)
        if seen is None:
            self._seen[packet.sender] = _Seen(packet.incarnation, packet.sequence)
            while len(self._seen) > self._config.peers_max:
                self._seen.popitem(last=False)
            return None
        self._seen.move_to_end(packet.sender)
        return None if seen.accept(packet.incarnation, packet.sequence) else Drop.REPLAYED

    def _answer(self, sender: PeerId, survey: Survey, addresses: tuple[Multiaddr, ...], now: float) -> bytes | None:
        if not addresses or not self._is_asked(sender, survey) or not self._may_send(now):
            return None
        return self._writer.write(Response(survey.nonce, addresses))

    def _found(self, packet: Packet) -> bool:
        """Give an answer to the search that asked for it; False when none did."""
        assert isinstance(packet.content, Response)
        for search in self._searches:
            if packet.content.nonce in search.nonces and search.wanted in (None, packet.sender):
                search.found[packet.sender] = packet.content.addresses
                if search.is_over:
                    self._searches.remove(search)
                return True
        return False

    def _is_asked(self, sender: PeerId, survey: Survey) -> bool:
        if survey.wanted is not None:
            return survey.wanted == self._writer.peer_id
        return is_within(self._writer.peer_id, sender, survey.distance)

    def _survey(self, search: Search) -> bytes:
        nonce = self._random.getrandbits(64)
        search.nonces.append(nonce)
        data = self._writer.write(Survey(nonce, search.distance, search.wanted))
        search.rounds += 1
        search.distance = min(ANY_DISTANCE, search.distance + self._config.widen_bits)
        if search.distance >= _DISTANCE_BITS:
            search.distance = ANY_DISTANCE
        return data

    def _first_distance(self) -> int:
        """Return the distance at which about answers_wanted of the estimated cluster answer."""
        cluster = len(self._seen) + 1 if self._seen else self._config.cluster_guess
        distance = _DISTANCE_BITS + round(math.log2(self._config.answers_wanted / cluster))
        return ANY_DISTANCE if distance >= _DISTANCE_BITS else distance

    def _pause(self, search: Search) -> float:
        # All answer each time, where everybody is asked.
        doublings = search.rounds if search.everybody else max(0, search.rounds - self._config.eager_rounds)
        pause = min(self._config.round_max_s, self._config.round_s * float(1 << min(doublings, 16)))
        # So that nodes that were started together do not speak together.
        return pause * (0.75 + self._random.random() / 2)

    def _may_send(self, now: float) -> bool:
        if self._sending.take(now):
            return True
        self.suppressed += 1
        return False


def is_within(one: PeerId, other: PeerId, distance: int) -> bool:
    """Tell whether two peers are within that distance: see schema/discovery.capnp."""
    if distance >= _DISTANCE_BITS:
        return True
    ends = (int.from_bytes(peer.public_key[-8:], "big") for peer in (one, other))
    return next(ends) ^ next(ends) < 1 << distance
