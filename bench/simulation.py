"""Networks of nodes in simulated time, with losses and delays: the real survey and membership, without sockets.

Holds the wires. Signatures are left out, and a datagram is decoded once for all its receivers: both take long, and
neither changes what is sent or when.
"""

import contextlib
import functools
import heapq
import random
from collections.abc import Iterator
from dataclasses import dataclass
from unittest import mock

from ww.clock import ManualClock
from ww.cluster.membership import Facts, Membership, MembershipConfig
from ww.discovery import packet as packets
from ww.discovery import survey as surveys
from ww.discovery.packet import Load, Packet, Writer, read
from ww.discovery.survey import SurveyConfig, Surveyor
from ww.identity import Identity, PeerId
from ww.net.multiaddr import Multiaddr

_BETWEEN_SEARCHES_S = 30.0
_CACHED = 4096


@contextlib.contextmanager
def without_signatures() -> Iterator[None]:
    """Have every packet count as signed, and decode it once."""
    with (
        mock.patch.object(Identity, "sign", return_value=bytes(64)),
        mock.patch.object(packets, "_is_signed", return_value=True),
        mock.patch.object(surveys, "read", functools.lru_cache(_CACHED)(read)),
        mock.patch.object(surveys, "sender_of", functools.lru_cache(_CACHED)(packets.sender_of)),
    ):
        yield


@dataclass(frozen=True)
class Found:
    """How a search went."""

    seconds: float
    """From its start to its success."""
    packets: int
    """Datagrams that all nodes sent, surveys and answers."""


class Network:
    """Nodes that hear each other, each datagram lost with a probability, else late by up to 5 ms."""

    def __init__(self, nodes: int, *, loss: float, rng: random.Random, config: SurveyConfig | None = None) -> None:
        self._random = rng
        self._loss = loss
        self._config = config
        self._clock = ManualClock()
        self._starts = 0
        self._identities = [Identity.generate() for _ in range(nodes)]
        self._surveyors = [self._start(identity) for identity in self._identities]

    def _start(self, identity: Identity) -> Surveyor:
        self._starts += 1
        rng = random.Random(self._random.random())
        return Surveyor(Writer(identity, "ww", self._starts), rng=rng, config=self._config)

    def search(self, *, for_one: bool, bound_s: float) -> Found:
        """Have a node that was just started look for one other or for anybody; AssertionError past the bound."""
        seeker = self._random.randrange(len(self._identities))
        surveyor = self._surveyors[seeker] = self._start(self._identities[seeker])
        others = [number for number in range(len(self._identities)) if number != seeker]
        wanted = self._identities[self._random.choice(others)].peer_id if for_one else None
        self._clock.advance(_BETWEEN_SEARCHES_S)
        start, sent = self._clock.now(), 0
        search = surveyor.look_for(wanted, start)
        arrivals: list[tuple[float, float, int, int, bytes]] = []
        while not search.is_over:
            now = self._clock.now()
            for data in surveyor.poll(now):
                sent += 1
                self._send(arrivals, data, seeker, others)
            due = surveyor.next_poll()
            first = arrivals[0][0] if arrivals else float("inf")
            self._clock.advance(max(0.0, min(first, due if due is not None else float("inf")) - now))
            now = self._clock.now()
            assert now - start < bound_s, f"nobody was found within {bound_s} s"
            while arrivals and arrivals[0][0] <= now:
                _, _, receiver, sender, data = heapq.heappop(arrivals)
                address = Multiaddr("ip4", "10.0.0.1", 1 + receiver)
                answer = self._surveyors[receiver].receive(data, now, (address,)).answer
                if answer is not None:
                    sent += 1
                    self._send(arrivals, answer, receiver, [sender])
        return Found(self._clock.now() - start, sent + self._still_to_come(arrivals, others))

    def _send(
        self, arrivals: list[tuple[float, float, int, int, bytes]], data: bytes, sender: int, receivers: list[int]
    ) -> None:
        for receiver in receivers:
            if self._random.random() >= self._loss:
                at = self._clock.now() + self._random.uniform(0.0002, 0.005)
                heapq.heappush(arrivals, (at, self._random.random(), receiver, sender, data))

    def _still_to_come(self, arrivals: list[tuple[float, float, int, int, bytes]], others: list[int]) -> int:
        """Count the answers of those whom the surveys reach after the search is over."""
        answers = 0
        for at, _, receiver, _, data in arrivals:
            if receiver in others:
                address = Multiaddr("ip4", "10.0.0.1", 1 + receiver)
                answers += self._surveyors[receiver].receive(data, at, (address,)).answer is not None
        return answers


@dataclass(frozen=True)
class Idle:
    """What an idle cluster did."""

    packets: int
    bytes: int
    mistaken: int
    """How often a node took another one for gone that was there."""


def idle(nodes: int, *, seconds: float, loss: float, rng: random.Random) -> Idle:
    """Let a cluster that does nothing say that it is there, each to all by one datagram."""
    clock, sent, size, mistaken = ManualClock(), 0, 0, 0
    tables: list[Membership] = []
    due: list[tuple[float, int]] = []
    for number in range(nodes):
        table = Membership(Writer(Identity.generate(), "ww", 1), MembershipConfig(), random.Random(rng.random()))
        address = Multiaddr("ip4", f"192.168.1.{1 + number % 250}", 30_000 + number)
        facts = Facts("worker", f"node-{number:03}.example", (("zone", "eu-1"),), (address,))
        table.set_load(Load(8, 8, 0), 0.0)
        table.announce(facts, rng.uniform(0, 5))
        tables.append(table)
        heapq.heappush(due, (table.next_poll(), number))
    seen: list[set[PeerId]] = [set() for _ in range(nodes)]
    while due[0][0] < seconds:
        at, number = heapq.heappop(due)
        clock.advance(at - clock.now())
        now = clock.now()
        there = {record.peer_id for record in tables[number].members(now)}
        mistaken += len(seen[number] - there)
        seen[number] = there
        beat = tables[number].poll(now)
        if beat is not None:
            sent += 1
            size += len(beat.datagram)
            said = read(beat.datagram)
            assert isinstance(said, Packet)
            for other, table in enumerate(tables):
                if other != number and rng.random() >= loss:
                    table.receive(said, beat.datagram, now)
        heapq.heappush(due, (max(now + 1e-6, tables[number].next_poll()), number))
    return Idle(sent, size, mistaken)
