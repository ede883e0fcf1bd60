"""What comes and goes many times leaves nothing behind: no descriptor, no process, no entry."""

import asyncio
import contextlib
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import capnp
import pytest

from tests.e2e.leftovers import CleanCluster, clean_cluster_in
from tests.e2e.processes import BOUND_S, Gateway, Program, sandboxes_of, wait_until
from tests.guests import UNREACHABLE, guest
from ww import schema
from ww.identity import Identity
from ww.net.multiaddr import Multiaddr
from ww.net.tls import TlsTransport
from ww.rpc.vat import Vat

pytestmark = pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="counts descriptors in /proc")


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[CleanCluster]:
    with clean_cluster_in(tmp_path) as cluster:
        yield cluster


def descriptors(program: Program) -> int:
    return len(list(Path(f"/proc/{program.pid}/fd").iterdir()))


def wait_descriptors(program: Program, most: int) -> None:
    wait_until(lambda: descriptors(program) <= most, f"at most {most} descriptors")


async def come_and_go(gateway: Gateway, times: int) -> None:
    """Join as a worker of three slots, offer them, and be gone: every other time without a word."""
    there = Multiaddr.parse(gateway.address)
    assert there.peer_id is not None
    async with capnp.kj_loop():
        identity = Identity.generate()
        async with Vat(identity, TlsTransport(identity)) as vat:
            for number in range(times):
                async with await vat.dial(there.peer_id, [there]) as connection:
                    request = (await connection.connect("registry", schema.worker.Registry)).register_request()
                    request.info.kind, request.info.slots = "native", 3
                    registration = (await request.send()).registration
                    if number % 2:
                        await registration.leave()
                    del registration, request
                await connection.wait_closed()


def test_workers_that_come_and_go(cluster: CleanCluster) -> None:
    gateway = cluster.gateway()
    cluster.worker(gateway)
    asyncio.run(come_and_go(gateway, 3))
    wait_until(lambda: len(gateway.workers()) == 1, "they are forgotten")
    before = descriptors(gateway)
    asyncio.run(come_and_go(gateway, 20))
    wait_until(lambda: len(gateway.workers()) == 1, "they are forgotten")
    wait_descriptors(gateway, before)
    assert len([line for line in gateway.lines if " left" in line]) == 23


def test_connections_that_come_to_nothing(cluster: CleanCluster) -> None:
    gateway = cluster.gateway("--handshake-timeout", "1")
    host, _, http_port = gateway.http.rpartition(":")
    gateway.client.get("/healthz")
    before = descriptors(gateway)
    for port in [gateway.peer_port, int(http_port)] * 30:
        with socket.create_connection((host, port), BOUND_S) as sock, contextlib.suppress(ConnectionError):
            sock.sendall(b"GET /healthz HTTP/1.1\r\n")
    gateway.client.get("/healthz")
    wait_descriptors(gateway, before + 1)


def test_runs_of_every_end(cluster: CleanCluster) -> None:
    gateway = cluster.gateway()
    worker = cluster.worker(gateway, "--slots", "2")

    def load(name: str) -> None:
        for id, module, fields in (
            (f"noop-{name}", guest("noop"), {"repeats": 300}),
            (f"trap-{name}", UNREACHABLE, {"repeats": 20}),
            (f"late-{name}", guest("spin"), {"duration": "0.1", "input": 0, "repeats": 2}),
            (f"gone-{name}", guest("spin"), {"input": 0, "repeats": 2}),
        ):
            gateway.post(module, id=id, **fields)
            if id.startswith("gone"):
                wait_until(lambda id=id: gateway.task(id)["status"] == "running", "it runs")
                gateway.client.delete(f"/tasks/{id}")
            gateway.ended(id)
        wait_until(lambda: gateway.workers()[0]["free"] == 2, "both slots are free")
        wait_until(lambda: len(sandboxes_of(worker.pid, "executor")) == 2, "both sandboxes are there")

    load("warm")
    before = {program: descriptors(program) for program in (gateway, worker)}
    children = len(sandboxes_of(worker.pid))
    for name in ("a", "b", "c"):
        load(name)
    for program, count in before.items():
        wait_descriptors(program, count + 2)
    assert len(sandboxes_of(worker.pid)) == children


def test_a_worker_whose_gateway_comes_and_goes(cluster: CleanCluster) -> None:
    gateway = cluster.gateway()
    worker = cluster.worker(gateway)
    counts = []
    for number in range(4):
        gateway.post(guest("noop"), id=f"a{number}", input=number)
        assert gateway.ended(f"a{number}")["status"] == "succeeded"
        wait_until(lambda gateway=gateway: gateway.workers()[0]["free"] == 1, "its slot is offered again")
        counts.append(descriptors(worker))
        if number % 2:
            gateway.kill()
        else:
            gateway.send(signal.SIGTERM)
            assert gateway.wait() == 0
        gateway = cluster.gateway("--listen", f"/ip4/127.0.0.1/tcp/{gateway.peer_port}", http=gateway.http)
    assert max(counts) <= counts[0] + 1, counts
    assert len(sandboxes_of(worker.pid)) == 2
