"""Nodes in one process, over memory instead of a network, in time that moves when a test says so."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from ww.clock import ManualClock
from ww.cluster.membership import MembershipConfig
from ww.discovery.packet import Load
from ww.discovery.sources import DiscoveryConfig
from ww.identity import Identity, PeerId
from ww.net.memory import MemoryTransport, Network
from ww.node import Node, NodeConfig
from ww.rpc.vat import Vat

TTL_S = 10.0
BOUND_S = 10.0


class Nodes:
    """Starts nodes that can reach each other when told where."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.network = Network()
        self.clock = ManualClock()

    @asynccontextmanager
    async def node(
        self,
        role: str,
        identity: Identity | None = None,
        load: Callable[[], Load] = Load,
        ttl_s: float = TTL_S,
        **config: Any,
    ) -> AsyncIterator[Node]:
        """Run a node that listens."""
        identity = identity or Identity.generate()
        settings = NodeConfig(
            state_directory=self.directory,
            role=role,
            discovery=DiscoveryConfig(multicast=False),
            membership=MembershipConfig(ttl_s=ttl_s),
            **config,
        )
        async with Node(settings, MemoryTransport(self.network, identity), identity, self.clock) as node:
            await node.listen(load)
            yield node

    @asynccontextmanager
    async def stranger(self) -> AsyncIterator[Vat]:
        """Run a vat that is no node."""
        identity = Identity.generate()
        async with Vat(identity, MemoryTransport(self.network, identity)) as vat:
            yield vat

    async def eventually(self, condition: Callable[[], bool], *, within_s: float = 5.0) -> None:
        """Return when condition holds, and let as little time pass as it needs; fail when within_s is not enough."""
        end = self.clock.now() + within_s
        async with asyncio.timeout(BOUND_S):
            while True:
                # What does not take time comes first.
                for _ in range(50):
                    if condition():
                        return
                    await asyncio.sleep(0)
                assert self.clock.now() < end, f"not within {within_s} s"
                self.clock.advance(0.01)

    async def pass_time(self, seconds: float) -> None:
        """Let time pass, and whatever happens in it."""
        for _ in range(round(seconds / 0.05)):
            self.clock.advance(0.05)
            for _ in range(20):
                await asyncio.sleep(0)


def seen_by(node: Node) -> set[PeerId]:
    """Return who is there, as that node sees it."""
    return {record.peer_id for record in node.heartbeats.membership.members(node.heartbeats.now())}
