"""Ctrl-C and SIGTERM: what runs may finish, a second one stops at once, nothing is left."""

import signal
import socket

import pytest

from tests.e2e.processes import Cluster, Gateway, Worker, children_of, is_running, wait_busy, wait_until
from tests.guests import guest


def begin(cluster: Cluster, rounds: int, *options: str) -> tuple[Gateway, Worker]:
    """Have one worker run a spinner."""
    gateway = cluster.gateway()
    worker = cluster.worker(gateway, *options)
    gateway.post(guest("spin"), id="a", input=rounds)
    wait_busy(worker)
    return gateway, worker


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stopping_worker_lets_its_guest_finish(cluster: Cluster, number: signal.Signals) -> None:
    gateway, worker = begin(cluster, 800)
    worker.send(number)
    gateway.logged(f"worker {worker.peer_id} is leaving")
    gateway.post(guest("noop"), id="b")
    assert worker.wait() == 0
    (result,) = gateway.ended("a")["results"]
    assert (result["state"], result["attempts"], result["worker"]) == ("succeeded", 1, worker.peer_id)
    assert gateway.task("b")["status"] == "queued", "nothing new is taken"
    wait_until(lambda: not gateway.workers(), "it has left")


def test_a_second_signal_stops_a_worker_at_once(cluster: Cluster) -> None:
    gateway, worker = begin(cluster, 0)
    sandboxes = children_of(worker.pid)
    worker.send(signal.SIGINT)
    worker.logged("stopping: slots in use: 1")
    worker.send(signal.SIGINT)
    assert worker.wait(10) == 130
    assert not any(is_running(pid) for pid in sandboxes)
    assert "Traceback" not in worker.log
    wait_until(lambda: gateway.task("a")["status"] == "queued", "the run waits for another worker")


def test_the_run_of_a_worker_out_of_patience_goes_elsewhere(cluster: Cluster) -> None:
    gateway, worker = begin(cluster, 6000, "--grace", "0.1")
    other = cluster.worker(gateway)
    worker.send(signal.SIGTERM)
    assert worker.wait() == 0
    (result,) = gateway.ended("a")["results"]
    assert (result["state"], result["attempts"], result["worker"]) == ("succeeded", 2, other.peer_id)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_gateway_leaves_nothing(cluster: Cluster, number: signal.Signals) -> None:
    gateway, worker = begin(cluster, 0)
    registry = cluster.state / "peers" / "ww" / gateway.peer_id
    assert registry.exists()
    gateway.send(number)
    assert gateway.wait() == 0
    assert not registry.exists()
    assert "Traceback" not in gateway.log
    worker.logged("the gateway is gone")
    with socket.socket() as sock, pytest.raises(ConnectionRefusedError):
        sock.connect(("127.0.0.1", gateway.peer_port))


def test_a_worker_without_a_gateway_stops_at_the_first_signal(cluster: Cluster) -> None:
    gateway = cluster.gateway()
    worker = cluster.worker(gateway)
    gateway.kill()
    worker.logged("the gateway is gone")
    worker.send(signal.SIGINT)
    assert worker.wait() == 0
