"""Cancelling, with guests in other processes: what computes or waits is stopped, what is queued never starts.

A guest is stopped when the process that it was in is gone. How long that takes: bench/gateway.py.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from bench.processor import cpu_seconds
from tests.components import sleeps
from tests.e2e.leftovers import CleanCluster, clean_cluster_in
from tests.e2e.processes import Gateway, Worker, is_running, sandboxes_of, wait_until
from tests.guests import SLEEP_FOR_EVER, guest

# Name: module, fields, and whether it computes; none of them ever ends.
ENDLESS: dict[str, tuple[bytes, dict[str, Any], bool]] = {
    "spin": (guest("spin"), {"input": 0}, True),
    "sleep": (SLEEP_FOR_EVER, {}, False),
    "component": (sleeps(3600), {}, False),
}
COMPUTED_S = 0.05
# A process whose guest waits looks at the time now and then; one that computes uses five times as much.
QUIET_LOOKS, QUIET_S = 10, 0.02


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[CleanCluster]:
    with clean_cluster_in(tmp_path) as cluster:
        yield cluster


@pytest.fixture
def pair(cluster: CleanCluster) -> Iterator[tuple[Gateway, Worker]]:
    gateway = cluster.gateway()
    worker = cluster.worker(gateway)
    yield gateway, worker
    # Whatever was cancelled: the same worker serves on.
    gateway.post(guest("hash"), id="after", difficulty=2)
    (result,) = gateway.ended("after")["results"]
    assert (result["result"], result["worker"]) == ("563", worker.peer_id)
    assert "Traceback" not in gateway.log + worker.log


def idle_sandbox(worker: Worker) -> int:
    """Return the one sandbox process of a worker, once it waits for runs."""
    (pid,) = wait_until(lambda: sandboxes_of(worker.pid, "executor"), "a sandbox")
    wait_quiet(pid)
    return pid


def wait_quiet(pid: int) -> None:
    """Wait until a process does next to nothing: in ten looks, which are a tenth of a second or more."""
    seen: list[float] = []

    def is_quiet() -> bool:
        seen.append(cpu_seconds(pid))
        return len(seen) > QUIET_LOOKS and seen[-1] - seen[-QUIET_LOOKS] < QUIET_S

    wait_until(is_quiet, f"process {pid} is quiet")


def begin(gateway: Gateway, worker: Worker, name: str, id: str, **fields: Any) -> int:
    """Post a guest that never ends, and return its process once it is in the midst of it."""
    wasm, own, computes = ENDLESS[name]
    # Compiled and loaded before: then what the process does next is the guest's doing.
    gateway.post(wasm, id=f"{id}-before", duration=0.1, **own)
    assert gateway.ended(f"{id}-before")["results"][0]["reason"] == "deadline"
    wait_until(lambda: gateway.workers()[0]["free"] == 1, "the slot is free")
    pid = idle_sandbox(worker)
    used_s = cpu_seconds(pid)
    gateway.post(wasm, id=id, **own, **fields)
    wait_until(lambda: cpu_seconds(pid) > used_s + (COMPUTED_S if computes else 0), "the guest begins")
    if not computes:
        wait_quiet(pid)
    assert gateway.task(id)["runs"]["running"]
    return pid


def cancel(gateway: Gateway, id: str) -> Any:
    answer = gateway.client.delete(f"/tasks/{id}")
    assert answer.status_code == 200, answer.text
    return answer.json()


def wait_stopped(pid: int) -> None:
    wait_until(lambda: not is_running(pid), f"process {pid} is gone")


@pytest.mark.parametrize("name", ENDLESS)
def test_a_running_guest_is_stopped(pair: tuple[Gateway, Worker], name: str) -> None:
    gateway, worker = pair
    pid = begin(gateway, worker, name, "a")
    task = cancel(gateway, "a")
    assert (task["status"], task["completions"], task["next_run_at"]) == ("cancelled", 0, None)
    assert task["finished_at"] is not None
    wait_stopped(pid)
    wait_until(lambda: gateway.workers()[0]["free"] == 1, "the slot is free")
    (result,) = wait_until(lambda: gateway.task("a")["results"], "its result")
    assert (result["run"], result["state"], result["worker"]) == (0, "cancelled", worker.peer_id)


def test_guests_on_all_slots_of_all_workers_are_stopped(cluster: CleanCluster) -> None:
    gateway = cluster.gateway()
    workers = [cluster.worker(gateway) for _ in range(2)]
    gateway.post(guest("spin"), id="a", input=0, repeats=10)
    pids = [wait_until(lambda worker=worker: sandboxes_of(worker.pid, "executor"))[0] for worker in workers]
    used_s = {pid: cpu_seconds(pid) for pid in pids}
    for pid in pids:
        wait_until(lambda pid=pid: cpu_seconds(pid) > used_s[pid] + COMPUTED_S, "the guest begins")
    wait_until(lambda: gateway.task("a")["runs"]["running"] == 2, "both are under way")
    assert cancel(gateway, "a")["runs"]["cancelled"] == 10
    for pid in pids:
        wait_stopped(pid)
    wait_until(lambda: len(gateway.task("a")["results"]) == 2, "the results of those that had begun")
    gateway.post(guest("noop"), id="after", input=3, repeats=4)
    assert gateway.ended("after")["completions"] == 4


def test_queued_runs_never_start(pair: tuple[Gateway, Worker]) -> None:
    gateway, worker = pair
    pid = begin(gateway, worker, "spin", "a", repeats=50)
    gateway.post(guest("noop"), id="behind", input=7, repeats=20)
    assert cancel(gateway, "behind")["runs"]["cancelled"] == 20, "cancelled while it waits for the slot"
    task = cancel(gateway, "a")
    assert task["runs"] == {state: 50 if state == "cancelled" else 0 for state in task["runs"]}
    wait_stopped(pid)
    # Those that were queued first would have been first.
    gateway.post(guest("noop"), id="b", input=3)
    assert gateway.ended("b")["status"] == "succeeded"
    assert [result["run"] for result in gateway.task("a")["results"]] == [0], "the one that had begun"
    assert gateway.client.get("/tasks/a/runs/1").json() == {"run": 1, "state": "cancelled"}
    behind = gateway.task("behind")
    assert (behind["status"], behind["results"], behind["completions"]) == ("cancelled", [], 0)


def test_cancelling_again_and_at_the_same_time_changes_nothing(pair: tuple[Gateway, Worker]) -> None:
    gateway, worker = pair
    pid = begin(gateway, worker, "spin", "a", repeats=3)
    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(lambda _: cancel(gateway, "a"), range(8)))
    wait_stopped(pid)
    first = wait_until(lambda: (task := gateway.task("a"))["results"] and task, "the result of what had begun")
    assert {(task["status"], task["finished_at"]) for task in answers} == {("cancelled", first["finished_at"])}
    assert cancel(gateway, "a") == first
    assert gateway.task("a") == first


def test_cancelling_too_late_changes_nothing(pair: tuple[Gateway, Worker]) -> None:
    gateway, _ = pair
    gateway.post(guest("noop"), id="a", input=3, repeats=5)
    ended = gateway.ended("a")
    assert cancel(gateway, "a") == ended
    assert (gateway.task("a"), ended["status"]) == (ended, "succeeded")


def test_an_unknown_task_cannot_be_cancelled(pair: tuple[Gateway, Worker]) -> None:
    gateway, _ = pair
    answer = gateway.client.delete("/tasks/nobody")
    assert (answer.status_code, answer.headers["content-type"]) == (404, "application/problem+json")
    assert "nobody" in answer.json()["detail"]


def test_a_scheduled_task_never_runs_once_it_is_cancelled(pair: tuple[Gateway, Worker]) -> None:
    gateway, _ = pair
    gateway.post(guest("noop"), id="later", start=1000, repeats=3)
    gateway.post(guest("noop"), id="between", delay=1000, repeats=3, input=7)
    wait_until(lambda: gateway.task("between")["runs"]["succeeded"] == 1, "its first run has ended")
    # Due while the test still looks.
    gateway.post(guest("noop"), id="soon", start=2, repeats=3)
    for id, succeeded in (("later", 0), ("soon", 0), ("between", 1)):
        task = cancel(gateway, id)
        assert (task["status"], task["next_run_at"]) == ("cancelled", None)
        assert (task["runs"]["succeeded"], task["runs"]["cancelled"], task["runs"]["scheduled"]) == (
            succeeded, 3 - succeeded, 0,
        )  # fmt: skip
    before = {id: gateway.task(id) for id in ("later", "soon", "between")}
    gateway.post(guest("noop"), id="after-soon", start=2)
    assert gateway.ended("after-soon")["status"] == "succeeded"
    assert {id: gateway.task(id) for id in before} == before
    assert [result["run"] for result in before["between"]["results"]] == [0]


def test_what_was_cancelled_stays_so_when_the_gateway_is_killed_at_once(cluster: CleanCluster) -> None:
    gateway = cluster.gateway()
    worker = cluster.worker(gateway)
    pid = begin(gateway, worker, "spin", "a", repeats=5)
    gateway.post(guest("spin"), id="queued", input=0)
    assert {cancel(gateway, id)["status"] for id in ("a", "queued")} == {"cancelled"}
    gateway.kill()
    wait_stopped(pid)
    again = cluster.gateway("--listen", f"/ip4/127.0.0.1/tcp/{gateway.peer_port}", http=gateway.http)
    again.post(guest("noop"), id="after", input=3)
    assert again.ended("after", bound_s=60)["completions"] == 1
    for id, runs in (("a", 5), ("queued", 1)):
        task = again.task(id)
        assert (task["status"], task["runs"]["cancelled"], task["completions"]) == ("cancelled", runs, 0)
