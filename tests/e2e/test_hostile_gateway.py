"""A gateway that turns to nonsense: a worker leaves it and looks for it again."""

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path

import capnp
import pytest

from tests.conftest import until
from tests.e2e.leftovers import CleanCluster, clean_cluster_in
from tests.e2e.processes import BOUND_S
from ww.clock import SystemClock
from ww.gateway.pool import WorkerPool
from ww.identity import Identity
from ww.net.multiaddr import Multiaddr
from ww.net.tls import TlsListener, TlsTransport
from ww.net.transport import Stream
from ww.node import LOOPBACK
from ww.rpc.vat import Vat


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[CleanCluster]:
    with clean_cluster_in(tmp_path) as cluster:
        yield cluster


class Eavesdropper(TlsTransport):
    """Keeps the streams it accepts, to say on them what no vat would."""

    def __init__(self, identity: Identity) -> None:
        super().__init__(identity)
        self.accepted: list[Stream] = []

    async def serve(self, address: Multiaddr, on_stream: Callable[[Stream], None]) -> TlsListener:
        def keep(stream: Stream) -> None:
            self.accepted.append(stream)
            on_stream(stream)

        return await super().serve(address, keep)


def test_a_worker_leaves_a_gateway_that_turns_to_nonsense(cluster: CleanCluster) -> None:
    async def be_a_gateway() -> None:
        identity = Identity.generate()
        transport = Eavesdropper(identity)
        pool = WorkerPool(lambda digest: Path("/nowhere"), clock=SystemClock(), on_offer=lambda: None)
        async with capnp.kj_loop(), Vat(identity, transport) as vat:
            vat.export("registry", pool.registry_for)
            vat.export("channel", pool.sender_for)
            (address,) = await vat.listen(LOOPBACK)
            worker = cluster.program(
                "worker", "--dial", str(identity.peer_id), "--addr", str(address), "--slots", "1", "--log", "debug"
            )
            try:
                await until(lambda: len(pool.workers()) == 1 and pool.has_free_slot, BOUND_S)
                # Whoever talks nonsense does not hang up either: to notice is the worker's to do.
                first = transport.accepted[0]
                first.close = lambda: None  # type: ignore[method-assign]
                first.write(b"\xff" * 4096)
                await until(lambda: len(transport.accepted) > 1, BOUND_S)
                await until(lambda: len([line for line in worker.lines if "joined gateway" in line]) == 2, BOUND_S)
            finally:
                await asyncio.to_thread(worker.kill)
                for stream in transport.accepted:
                    stream.abort()
                await until(lambda: all(stream.is_closing() for stream in transport.accepted), BOUND_S)

    asyncio.run(be_a_gateway())
