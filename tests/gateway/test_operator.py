"""What an operator does with peers, while they come and go."""

import asyncio
from pathlib import Path

import pytest

from tests.conftest import until
from ww.clock import ManualClock
from ww.errors import NotAdmitted, PeerError, UsageError
from ww.gateway.operator import Operator, OperatorServer
from ww.gateway.pool import WorkerPool
from ww.identity import Identity, PeerId
from ww.net.memory import MemoryTransport, Network
from ww.node import LOOPBACK
from ww.rpc.admission import Only
from ww.rpc.register import Register
from ww.rpc.vat import Vat

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("kj_loop"), pytest.mark.timeout(30)]


class Slow:
    """Lets everybody in, when told to."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()
        self.answer = asyncio.Event()

    async def refusal(self, peer_id: PeerId, ticket: str = "") -> str | None:
        self.asked.set()
        await self.answer.wait()
        return None


async def test_who_is_banned_while_it_is_let_in_is_put_out(tmp_path: Path) -> None:
    network, gateway, worker = Network(), Identity.generate(), Identity.generate()
    slow, register = Slow(), Register(tmp_path / "peers.db")
    pool = WorkerPool(lambda digest: tmp_path / digest, clock=ManualClock(), on_offer=lambda: None)
    async with (
        Vat(gateway, MemoryTransport(network, gateway), admission=slow) as there,
        Vat(worker, MemoryTransport(network, worker)) as here,
        Vat(gateway, MemoryTransport(network, gateway)) as operators,
    ):
        there.export("operator", lambda peer: OperatorServer(there, pool, register), Only(gateway.peer_id))
        addresses = await there.listen(LOOPBACK)
        coming = asyncio.ensure_future(here.dial(gateway.peer_id, addresses))
        await slow.asked.wait()
        async with await operators.dial(gateway.peer_id, addresses) as connection:
            operator = await Operator.of(connection)
            await operator.ban(worker.peer_id, True)
            slow.answer.set()
            with pytest.raises(PeerError):
                await coming
            await until(lambda: {peer.peer_id for peer in there.served} == {gateway.peer_id})
            (row,) = await operator.peers()
            assert (row.peer_id, row.standing.is_banned, row.remotes) == (worker.peer_id, True, ())
            with pytest.raises(UsageError, match="this gateway itself"):
                await operator.ban(gateway.peer_id, True)
            # Who was outvoted too often is banned too, and begins anew when that is lifted.
            pool.disagreements.note([str(worker.peer_id)])
            pool.refuse(worker.peer_id)
            register.refuse(worker.peer_id, 4)
            (row,) = await operator.peers()
            assert (row.standing.is_banned, row.standing.disagreements) == (True, 4)
            await operator.ban(worker.peer_id, False)
            assert not pool.is_refused(worker.peer_id)
            (row,) = await operator.peers()
            assert (row.standing.is_banned, row.standing.disagreements) == (False, 0)
        async with await here.dial(gateway.peer_id, addresses) as connection:
            with pytest.raises(NotAdmitted, match="for this node's operator"):
                await Operator.of(connection)
