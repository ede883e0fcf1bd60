"""A gateway that is killed or stopped and started again: what ended stays as it was, what had not goes on."""

import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.leftovers import CleanCluster, clean_cluster_in
from tests.e2e.processes import Gateway, wait_until
from tests.guests import UNREACHABLE, guest


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[CleanCluster]:
    with clean_cluster_in(tmp_path) as cluster:
        yield cluster


def again(cluster: CleanCluster, gateway: Gateway) -> Gateway:
    """Start a gateway where an ended one was."""
    return cluster.gateway("--listen", f"/ip4/127.0.0.1/tcp/{gateway.peer_port}", http=gateway.http)


def runs_of(gateway: Gateway, id: str) -> dict[int, Any]:
    """Return every result by its run; a run with two fails."""
    results = gateway.client.get(f"/tasks/{id}/runs?limit=1000").json()
    assert len({result["run"] for result in results}) == len(results)
    return {result["run"]: result for result in results}


def wait_succeeded(gateway: Gateway, id: str, runs: int) -> None:
    wait_until(lambda: gateway.task(id)["runs"]["succeeded"] >= runs, f"{runs} runs of {id} have succeeded")


def test_tasks_in_every_state_survive_kill_9(cluster: CleanCluster) -> None:
    first = cluster.gateway()
    worker = cluster.worker(first)
    first.post(guest("hash"), id="done", difficulty=3, repeats=2)
    first.post(UNREACHABLE, id="bad")
    before = {id: first.ended(id) for id in ("done", "bad")}
    first.post(guest("spin"), id="gone", start=1000)
    assert first.client.delete("/tasks/gone").json()["status"] == "cancelled"
    before["gone"] = first.task("gone")
    first.post(guest("spin"), id="open", input=120, repeats=6)
    first.post(guest("noop"), id="queued", input=8)
    first.post(guest("noop"), id="later", start=2, repeats=2, input=9)
    wait_succeeded(first, "open", 2)
    partly = runs_of(first, "open")
    listed = [task["id"] for task in first.client.get("/tasks").json()]
    first.kill()

    second = again(cluster, first)
    assert (second.peer_id, second.http, second.peer_port) == (first.peer_id, first.http, first.peer_port)
    assert [task["id"] for task in second.client.get("/tasks").json()] == listed
    for id, task in before.items():
        assert second.task(id) == task, "what has ended never changes"
    for id, runs in (("open", 6), ("queued", 1), ("later", 2)):
        task = second.ended(id)
        assert (task["status"], task["completions"]) == ("succeeded", runs)
        assert sorted(runs_of(second, id)) == list(range(runs))
    after = runs_of(second, "open")
    assert {run: after[run] for run in partly} == partly, "results on disk are not made again"
    assert {entry["peer"] for entry in second.workers()} == {worker.peer_id}, "it came back by itself"
    assert "Traceback" not in second.log + worker.log


def test_one_kill_after_the_other_loses_and_doubles_nothing(cluster: CleanCluster) -> None:
    gateway = cluster.gateway()
    worker = cluster.worker(gateway)
    gateway.post(guest("spin"), id="a", input=20, repeats=60)
    for kills in range(1, 4):
        wait_succeeded(gateway, "a", kills * 10)
        gateway.kill()
        gateway = again(cluster, gateway)
    task = gateway.ended("a")
    assert (task["status"], task["completions"]) == ("succeeded", 60)
    results = runs_of(gateway, "a")
    assert sorted(results) == list(range(60))
    assert {result["result"] for result in results.values()} == {"20"}
    assert len([line for line in worker.lines if "joined gateway" in line]) >= 2
    assert "Traceback" not in worker.log


def test_a_stopped_gateway_goes_on_at_the_next_start(cluster: CleanCluster) -> None:
    first = cluster.gateway()
    first.post(guest("noop"), id="a", input=5, repeats=3)
    first.send(signal.SIGTERM)
    assert first.wait() == 0
    second = again(cluster, first)
    assert second.task("a")["status"] == "queued"
    cluster.worker(second)
    assert second.ended("a")["completions"] == 3


def test_a_second_gateway_that_is_refused_leaves_the_first_alone(cluster: CleanCluster) -> None:
    gateway = cluster.gateway()
    cluster.worker(gateway)
    other = cluster.program("gateway", "--http", "127.0.0.1:0")
    assert other.wait() == 1
    assert other.stdout_line() == "", "no peer id of a gateway that is none"
    (line,) = other.lines
    assert line.startswith("ww: ")
    assert (cluster.state / "peers" / "ww" / gateway.peer_id).exists(), "workers still find the first"
    worker = cluster.worker(gateway)
    gateway.post(guest("noop"), id="a", input=2)
    assert gateway.ended("a")["status"] == "succeeded"
    assert worker.peer_id in {entry["peer"] for entry in gateway.workers()}
