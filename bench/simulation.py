"""A network of nodes that survey, with losses and delays, in simulated time."""

import heapq
import random
from dataclasses import dataclass

from ww.discovery.packet import Writer
from ww.discovery.survey import Search, Surveyor
from ww.identity import Identity, PeerId
from ww.net.multiaddr import Multiaddr


@dataclass(frozen=True)
class Found:
    """How a search went."""

    seconds: float
    """From its start to its success."""
    packets: int
    """Datagrams that all nodes sent, surveys and answers."""


class Network:
    """Nodes that hear each other, each datagram lost with a probability, else late by up to 5 ms."""

    def __init__(self, nodes: int, *, loss: float, rng: random.Random) -> None:
        self._random = rng
        self._loss = loss
        self.nodes = [self._node() for _ in range(nodes)]
        self.now = 0.0

    def _node(self) -> tuple[PeerId, Surveyor]:
        identity = Identity.generate()
        surveyor = Surveyor(Writer(identity, "ww", 1), rng=random.Random(self._random.random()))
        return identity.peer_id, surveyor

    def search(self, seeker: int, wanted: PeerId | None, *, bound_s: float) -> Found:
        """Have a node look for somebody until it has found them; fails past the bound."""
        _, surveyor = self.nodes[seeker]
        search: Search = surveyor.look_for(wanted, self.now)
        start, packets, order = self.now, 0, 0
        arrivals: list[tuple[float, int, int, int, bytes]] = []

        def send(data: bytes, sender: int, receivers: list[int]) -> None:
            nonlocal packets, order
            packets += 1
            for receiver in receivers:
                if self._random.random() >= self._loss:
                    order += 1
                    delay_s = self._random.uniform(0.0002, 0.005)
                    heapq.heappush(arrivals, (self.now + delay_s, order, receiver, sender, data))

        everybody = [number for number in range(len(self.nodes)) if number != seeker]
        while not search.is_over:
            for data in surveyor.poll(self.now):
                send(data, seeker, everybody)
            due = surveyor.next_poll()
            first = arrivals[0][0] if arrivals else float("inf")
            self.now = min(first, due if due is not None else float("inf"))
            assert self.now - start < bound_s, f"nobody was found within {bound_s} s"
            while arrivals and arrivals[0][0] <= self.now:
                _, _, receiver, sender, data = heapq.heappop(arrivals)
                address = Multiaddr("ip4", "10.0.0.1", 1 + receiver)
                answer = self.nodes[receiver][1].receive(data, self.now, (address,)).answer
                if answer is not None:
                    send(answer, receiver, [sender])
        return Found(self.now - start, packets)
