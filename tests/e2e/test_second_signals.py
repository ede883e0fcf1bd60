"""Stopping, beyond the first signal: the second one, no patience at all, clients that wait, and what is free again."""

import contextlib
import os
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.leftovers import CleanCluster, clean_cluster_in, wait_without_sandboxes
from tests.e2e.processes import BOUND_S, Gateway, Worker, sandboxes_of, wait_busy, wait_until
from tests.guests import guest

UPLOAD = (
    b"POST /tasks HTTP/1.1\r\nHost: localhost\r\nContent-Type: multipart/form-data; boundary=x\r\n"
    b'Content-Length: 5000\r\n\r\n--x\r\nContent-Disposition: form-data; name="id"\r\n\r\n'
)
WAIT = b"GET /tasks/a?wait=60 HTTP/1.1\r\nHost: localhost\r\n\r\n"


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[CleanCluster]:
    with clean_cluster_in(tmp_path) as cluster:
        yield cluster


def spinning(cluster: CleanCluster, rounds: int, *options: str) -> tuple[Gateway, Worker]:
    """Have one worker run a spinner."""
    gateway = cluster.gateway()
    worker = cluster.worker(gateway, *options)
    gateway.post(guest("spin"), id="a", input=rounds)
    wait_busy(worker)
    return gateway, worker


def errors_of(worker: Worker | Gateway) -> list[str]:
    return [line for line in worker.lines if "ERROR" in line or "Traceback" in line]


def test_the_run_of_a_worker_stopped_twice_goes_to_another(cluster: CleanCluster) -> None:
    gateway, worker = spinning(cluster, 6000)
    other = cluster.worker(gateway)
    worker.send(signal.SIGTERM)
    worker.logged("stopping: ")
    worker.send(signal.SIGINT)
    assert worker.wait() == 130
    wait_without_sandboxes(worker)
    (result,) = gateway.ended("a")["results"]
    assert (result["state"], result["attempts"], result["worker"]) == ("succeeded", 2, other.peer_id)
    assert [entry["peer"] for entry in gateway.workers()] == [other.peer_id]


def test_a_worker_without_grace_stops_at_the_first_signal(cluster: CleanCluster) -> None:
    gateway, worker = spinning(cluster, 0, "--grace", "0")
    worker.send(signal.SIGTERM)
    assert worker.wait() == 0
    wait_without_sandboxes(worker)
    gateway.logged(f"worker {worker.peer_id} is leaving")
    gateway.logged(f"worker {worker.peer_id} left")
    wait_until(lambda: gateway.task("a")["status"] == "queued", "the run waits for another worker")


def test_a_worker_out_of_patience_ends_without_an_error(cluster: CleanCluster) -> None:
    _, worker = spinning(cluster, 0, "--grace", "0")
    worker.send(signal.SIGTERM)
    assert worker.wait() == 0
    assert errors_of(worker) == []


def test_ctrl_c_in_a_terminal_reaches_the_sandboxes_too_and_stops_none(cluster: CleanCluster) -> None:
    gateway, worker = spinning(cluster, 800)
    for pid in [*sandboxes_of(worker.pid), worker.pid]:
        os.kill(pid, signal.SIGINT)
    assert worker.wait() == 0
    (result,) = gateway.ended("a")["results"]
    assert (result["state"], result["attempts"], result["worker"]) == ("succeeded", 1, worker.peer_id)


def test_an_idle_worker_leaves_at_once(cluster: CleanCluster) -> None:
    gateway = cluster.gateway()
    worker = cluster.worker(gateway)
    worker.send(signal.SIGINT)
    assert worker.wait() == 0
    gateway.logged(f"worker {worker.peer_id} left")
    assert gateway.workers() == []
    assert errors_of(worker) == []


def test_a_worker_that_never_found_its_gateway_stops(cluster: CleanCluster) -> None:
    gateway = cluster.gateway()
    gateway.send(signal.SIGTERM)
    assert gateway.wait() == 0
    worker = cluster.program("worker", "--dial", gateway.peer_id, "--slots", "1")
    worker.logged("no address of .* is known")
    worker.send(signal.SIGTERM)
    assert worker.wait() == 0
    assert len([line for line in worker.lines if "trying again" in line]) == 1, "said once, not at every try"


def test_a_stopped_gateways_ports_are_free_again(cluster: CleanCluster) -> None:
    gateway = cluster.gateway()
    worker = cluster.worker(gateway)
    gateway.send(signal.SIGTERM)
    assert gateway.wait() == 0
    assert list((cluster.state / "peers" / "ww").iterdir()) == [cluster.state / "peers" / "ww" / worker.peer_id]
    assert sandboxes_of(gateway.pid) == []
    second = cluster.gateway("--listen", f"/ip4/127.0.0.1/tcp/{gateway.peer_port}", http=gateway.http)
    second.post(guest("noop"), id="a", input=1)
    assert second.ended("a")["results"][0]["worker"] == worker.peer_id


def test_a_gateway_ends_in_bounded_time_whatever_its_clients_do(cluster: CleanCluster) -> None:
    gateway, _ = spinning(cluster, 0)
    host, _, port = gateway.http.rpartition(":")
    clients = [socket.create_connection((host, int(port)), BOUND_S) for _ in range(4)]
    for client, said in zip(clients, (WAIT, UPLOAD, b"GET /", b""), strict=True):
        client.sendall(said)
    assert gateway.task("a")["status"] == "running"
    gateway.send(signal.SIGINT)
    assert gateway.wait() == 0
    for client in clients:
        client.close()


def test_clients_that_wait_while_the_gateway_stops_are_told(cluster: CleanCluster) -> None:
    gateway, _ = spinning(cluster, 0)
    host, _, port = gateway.http.rpartition(":")
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(socket.create_connection((host, int(port)), BOUND_S)) for _ in range(2)]
        for client, said in zip(clients, (WAIT, UPLOAD), strict=True):
            client.sendall(said)
        assert gateway.task("a")["status"] == "running", "those requests were read before this one"
        gateway.send(signal.SIGTERM)
        assert gateway.wait() == 0
        for client in clients:
            answer = client.recv(65536)
            assert answer.startswith((b"HTTP/1.1 200 ", b"HTTP/1.1 503 "))
            assert b"application/problem+json" in answer or b"application/json" in answer
    assert "Traceback" not in gateway.log


def test_a_second_signal_stops_a_gateway_at_once(cluster: CleanCluster) -> None:
    gateway, _ = spinning(cluster, 0)
    host, _, port = gateway.http.rpartition(":")
    with socket.create_connection((host, int(port)), BOUND_S) as client:
        client.sendall(WAIT)
        assert gateway.task("a")["status"] == "running"
        gateway.send(signal.SIGINT)
        gateway.logged("stopping; ")
        began = time.monotonic()
        gateway.send(signal.SIGINT)
        assert gateway.wait() in (0, 130)  # 0 when the first signal was enough
        assert time.monotonic() - began < BOUND_S
    assert not (cluster.state / "peers" / "ww" / gateway.peer_id).exists()
