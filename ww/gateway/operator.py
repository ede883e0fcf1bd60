"""What a gateway's operator may do with peers: see them, ban them, give them nothing new to run.

Holds the Operator capability, which is exported to the gateway's own key alone, and its typed wrapper. Must not know
how runs are given out.
"""

import asyncio
import logging
from collections import defaultdict
from dataclasses import dataclass
from typing import Any

from ww import schema
from ww.errors import NotFound, UsageError
from ww.gateway.pool import WorkerPool
from ww.identity import PeerId
from ww.rpc.connection import Connection
from ww.rpc.errors import call
from ww.rpc.register import Register, Standing
from ww.rpc.vat import Vat

log = logging.getLogger("ww.gateway")


class OperatorServer(schema.operator.Operator.Server):  # type: ignore[misc]
    """Serves it."""

    def __init__(self, vat: Vat, pool: WorkerPool, register: Register) -> None:
        self._vat = vat
        self._pool = pool
        self._register = register

    async def peers_context(self, context: Any) -> None:
        standings = await asyncio.to_thread(self._register.standings)
        connected = {peer.peer_id for peer in self._vat.peers} - {self._vat.peer_id}
        peer_ids = sorted(connected | set(standings), key=str)
        remotes: defaultdict[PeerId, list[str]] = defaultdict(list)
        for peer in self._vat.peers:
            remotes[peer.peer_id].append(peer.remote)
        slots: defaultdict[PeerId, tuple[int, int]] = defaultdict(lambda: (0, 0))
        for entry, free in self._pool.workers():
            before = slots[entry.peer.peer_id]
            slots[entry.peer.peer_id] = (before[0] + entry.info.slots, before[1] + free)
        for peer_id, row in zip(peer_ids, context.results.init("peers", len(peer_ids)), strict=True):
            row.remotes = remotes[peer_id]
            row.slots, row.free = slots[peer_id]
            self._fill(row, peer_id, standings.get(peer_id, Standing()))

    def _fill(self, row: Any, peer_id: PeerId, standing: Standing) -> None:
        row.peer = peer_id.public_key
        if (account := self._vat.accounts.get(peer_id)) is not None:
            row.calls, row.bytes = account.calls, account.bytes
        row.ticket, row.tasksTicket = standing.ticket or "", standing.tasks_ticket or ""
        row.banned, row.draining = standing.is_banned, standing.is_draining
        row.disagreements = max(standing.disagreements, self._pool.disagreements.of(str(peer_id)))

    async def ban_context(self, context: Any) -> None:
        peer_id, value = PeerId(context.params.peer), context.params.value
        if peer_id == self._vat.peer_id:
            raise UsageError("that is this gateway itself")
        await asyncio.to_thread(self._register.set_banned, peer_id, value)
        log.info("%s is %s", peer_id, "banned" if value else "banned no longer")
        if value:
            hang_up_on(self._vat, peer_id)
        else:
            self._pool.refuse(peer_id, False)

    async def drain_context(self, context: Any) -> None:
        peer_id, value = PeerId(context.params.peer), context.params.value
        await asyncio.to_thread(self._register.set_draining, peer_id, value)
        log.info("%s is %s", peer_id, "draining: it gets nothing new to run" if value else "draining no longer")
        self._pool.drain(peer_id, value)


def hang_up_on(vat: Vat, peer_id: PeerId) -> None:
    """Close a peer's connections, also those that are just being let in: who it is may have been looked up before."""
    for peer in [peer for peer in vat.served if peer.peer_id == peer_id]:
        peer.hang_up()


@dataclass(frozen=True, slots=True)
class PeerRow:
    """One peer, as the operator sees it."""

    peer_id: PeerId
    remotes: tuple[str, ...]
    calls: int
    bytes: int
    slots: int
    free: int
    standing: Standing


class Operator:
    """The capability of a gateway elsewhere, for whoever holds its key."""

    def __init__(self, client: Any) -> None:
        self._client = client

    @classmethod
    async def of(cls, connection: Connection) -> "Operator":
        """Get it. Raises UsageError when the node is no gateway, NotAdmitted when the key is another."""
        try:
            return cls(await connection.connect("operator", schema.operator.Operator))
        except NotFound:
            raise UsageError(f"{connection.peer_id} is no gateway") from None

    async def peers(self) -> list[PeerRow]:
        """Return those that are connected, and those of whom something is on record."""
        answer = await call(self._client.peers())
        return [
            PeerRow(
                PeerId(row.peer), tuple(row.remotes), row.calls, row.bytes, row.slots, row.free,
                Standing(row.ticket or None, row.banned, row.draining, row.tasksTicket or None, row.disagreements),
            )
            for row in answer.peers
        ]  # fmt: skip

    async def ban(self, peer_id: PeerId, value: bool) -> None:
        """Ban a peer, or no longer."""
        await call(self._client.ban(peer=peer_id.public_key, value=value))

    async def drain(self, peer_id: PeerId, value: bool) -> None:
        """Give a peer nothing new to run, or again."""
        await call(self._client.drain(peer=peer_id.public_key, value=value))
