"""kill -9 of a worker and of the gateway: nothing accepted is lost, nothing runs on, nothing is counted twice."""

import os
import signal
import stat

from tests.e2e.processes import Cluster, Worker, children_of, is_running, wait_busy, wait_until
from tests.guests import guest


def busy(workers: list[Worker], gateway_workers: list[dict[str, object]]) -> Worker | None:
    """Return the worker whose slot is taken."""
    taken = {entry["peer"] for entry in gateway_workers if entry["free"] == 0}
    return next((worker for worker in workers if worker.peer_id in taken), None)


def test_the_run_of_a_killed_worker_finishes_elsewhere(cluster: Cluster) -> None:
    gateway = cluster.gateway()
    workers = [cluster.worker(gateway) for _ in range(3)]
    wait_until(lambda: sum(entry["free"] for entry in gateway.workers()) == 3, "three free slots")
    gateway.post(guest("spin"), id="a", input=3000)
    victim: Worker = wait_until(lambda: busy(workers, gateway.workers()), "a worker is busy")
    sandboxes = children_of(victim.pid)
    assert sandboxes
    wait_busy(victim)
    victim.kill()
    task = gateway.ended("a")
    (result,) = task["results"]
    assert (result["state"], result["result"], result["attempts"]) == ("succeeded", "3000", 2)
    assert result["worker"] in {worker.peer_id for worker in workers if worker is not victim}
    assert task["completions"] == 1
    assert {entry["peer"] for entry in gateway.workers()} == {w.peer_id for w in workers if w is not victim}
    wait_until(lambda: not any(is_running(pid) for pid in sandboxes), "its sandboxes are gone")


def test_a_killed_gateway_goes_on_where_it_was(cluster: Cluster) -> None:
    first = cluster.gateway()
    worker = cluster.worker(first)
    first.post(guest("hash"), id="done", difficulty=3)
    first.ended("done")
    first.post(guest("spin"), id="open", input=150, repeats=6)
    wait_until(lambda: first.task("open")["runs"]["succeeded"] >= 2, "two runs have ended")
    first.kill()
    before = len(worker.lines)

    second = cluster.gateway("--listen", f"/ip4/127.0.0.1/tcp/{first.peer_port}", http=first.http)
    assert second.peer_id == first.peer_id
    assert second.task("done")["results"][0]["result"] == "2832"
    task = second.ended("open")
    assert (task["status"], task["completions"]) == ("succeeded", 6)
    assert sorted(result["run"] for result in task["results"]) == list(range(6))
    assert {listed["id"] for listed in second.client.get("/tasks").json()} == {"done", "open"}
    assert any("joined gateway" in line for line in worker.lines[before:]), "the worker came back by itself"


def test_a_worker_finds_a_gateway_that_came_back_elsewhere(cluster: Cluster) -> None:
    first = cluster.gateway()
    cluster.worker(first)
    first.kill()
    second = cluster.gateway()
    assert second.peer_port != first.peer_port
    second.post(guest("noop"), id="a", input=3)
    assert second.ended("a")["results"][0]["result"] == "3"


def test_two_gateways_do_not_share_a_state_directory(cluster: Cluster) -> None:
    cluster.gateway()
    other = cluster.program("gateway", "--http", "127.0.0.1:0")
    assert other.wait() == 1
    assert len(other.lines) == 1
    assert "in use" in other.log or "uses this state" in other.log


def test_the_gateways_key_is_for_its_user_alone(cluster: Cluster) -> None:
    gateway = cluster.gateway()
    key = cluster.state / "gateway.key"
    assert stat.S_IMODE(os.stat(key).st_mode) == 0o600
    assert gateway.peer_id not in key.read_text()
    shown = cluster.program("id")
    assert shown.stdout_line() == gateway.peer_id
    assert shown.wait() == 0


def test_the_sandboxes_of_a_stopped_worker_are_gone(cluster: Cluster) -> None:
    gateway = cluster.gateway()
    worker = cluster.worker(gateway)
    sandboxes = children_of(worker.pid)
    worker.send(signal.SIGTERM)
    assert worker.wait() == 0
    assert not any(is_running(pid) for pid in sandboxes)
