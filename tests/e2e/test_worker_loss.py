"""What becomes of runs whose worker, or whose sandbox process, is killed: each rule of docs/semantics.md."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.leftovers import CleanCluster, clean_cluster_in, wait_without_sandboxes
from tests.e2e.processes import Gateway, Worker, is_running, sandboxes_of, ticks_of, wait_busy, wait_until
from tests.guests import guest

TICKS_OF_A_GUEST = 60


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[CleanCluster]:
    with clean_cluster_in(tmp_path) as cluster:
        yield cluster


def wait_running(gateway: Gateway, id: str, runs: int) -> None:
    wait_until(lambda: gateway.task(id)["runs"]["running"] == runs, f"{runs} runs of {id} are under way")


def kill_sandbox(worker: Worker) -> None:
    """Kill the process in which the guest of a worker with one slot computes."""
    (pid,) = wait_until(lambda: sandboxes_of(worker.pid, "executor"), "a sandbox")
    # Its own start takes a small part of this: the rest is the guest's.
    wait_until(lambda: ticks_of(pid) > TICKS_OF_A_GUEST, "a guest computes")
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not is_running(pid), "it is gone")


def test_all_runs_of_a_killed_worker_are_done_by_another(cluster: CleanCluster) -> None:
    gateway = cluster.gateway()
    victim = cluster.worker(gateway, "--slots", "2")
    gateway.post(guest("spin"), id="a", input=600, repeats=4)
    wait_running(gateway, "a", 2)
    wait_busy(victim)
    victim.kill()
    wait_without_sandboxes(victim)
    wait_until(lambda: gateway.workers() == [], "it is not listed any more")
    other = cluster.worker(gateway, "--slots", "2")
    task = gateway.ended("a")
    assert (task["status"], task["completions"]) == ("succeeded", 4)
    assert sorted(result["run"] for result in task["results"]) == [0, 1, 2, 3]
    assert {result["worker"] for result in task["results"]} == {other.peer_id}
    assert sorted(result["attempts"] for result in task["results"]) == [1, 1, 2, 2]


def test_the_offers_of_a_killed_idle_worker_go_with_it(cluster: CleanCluster) -> None:
    gateway = cluster.gateway()
    victim, other = cluster.worker(gateway), cluster.worker(gateway)
    wait_until(lambda: sum(entry["free"] for entry in gateway.workers()) == 2, "two free slots")
    victim.kill()
    gateway.logged(f"worker {victim.peer_id} left")
    gateway.post(guest("noop"), id="a", input=7, repeats=20)
    results = gateway.ended("a")["results"]
    assert {(result["worker"], result["attempts"]) for result in results} == {(other.peer_id, 1)}


def test_a_run_whose_workers_are_all_killed_is_given_up_at_the_fifth(cluster: CleanCluster) -> None:
    gateway = cluster.gateway()
    workers = {worker.peer_id: worker for worker in (cluster.worker(gateway) for _ in range(5))}
    gateway.post(guest("spin"), id="a", input=0)
    for attempt in range(5):
        (taken,) = wait_until(
            lambda: [w["peer"] for w in gateway.workers() if not w["free"] and w["peer"] in workers],
            f"attempt {attempt + 1} begins",
        )
        workers.pop(taken).kill()
    task = gateway.ended("a")
    (result,) = task["results"]
    assert (task["status"], result["state"], result["reason"], result["attempts"]) == ("failed", "failed", "lost", 5)
    assert result["detail"]
    assert task["completions"] == 0


def test_a_killed_sandbox_process_is_replaced_and_its_run_done_again(cluster: CleanCluster) -> None:
    gateway = cluster.gateway()
    worker = cluster.worker(gateway)
    gateway.post(guest("spin"), id="a", input=4000)
    kill_sandbox(worker)
    (result,) = gateway.ended("a")["results"]
    assert (result["state"], result["result"], result["attempts"]) == ("succeeded", "4000", 2)
    assert [entry["peer"] for entry in gateway.workers()] == [worker.peer_id], "the worker itself went on"


def test_a_guest_that_takes_two_sandboxes_with_it_is_not_given_a_third(cluster: CleanCluster) -> None:
    gateway = cluster.gateway()
    worker = cluster.worker(gateway)
    gateway.post(guest("spin"), id="a", input=0)
    kill_sandbox(worker)
    kill_sandbox(worker)
    (result,) = gateway.ended("a")["results"]
    assert (result["state"], result["reason"], result["attempts"]) == ("failed", "crash", 2)
    gateway.post(guest("noop"), id="b", input=3)
    assert gateway.ended("b")["results"][0]["result"] == "3"
    assert "Traceback" not in worker.log + gateway.log
