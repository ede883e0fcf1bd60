"""The main job with real processes: a task goes in by curl, workers run it, its results come out."""

import json
import shutil
import subprocess

import pytest

from tests.e2e.processes import Cluster, wait_until
from tests.guests import GROW_4_GIB, ROOT, START_WITH_4_GIB, UNREACHABLE, guest

CURL = (
    'curl -sS -X POST -F id=task1 -F "description=Hash puzzle" -F complete=0 -F duration=5 -F start=0.2 -F delay=0.2'
    " -F repeats=3 -F wasm=@wasm/hash/hash.wasm -F input=0 -F difficulty=3 {address}/tasks"
)


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_the_curl_line_on_three_workers(cluster: Cluster) -> None:
    gateway = cluster.gateway()
    workers = {cluster.worker(gateway).peer_id for _ in range(3)}
    done = subprocess.run(
        CURL.format(address=gateway.http), shell=True, cwd=ROOT, capture_output=True, text=True, check=True
    )
    task = json.loads(done.stdout)
    assert (task["id"], task["description"], task["status"]) == ("task1", "Hash puzzle", "scheduled")
    task = gateway.ended("task1")
    assert (task["status"], task["completions"]) == ("succeeded", 3)
    assert [result["result"] for result in task["results"]] == ["2832"] * 3
    assert {result["worker"] for result in task["results"]} <= workers
    assert {worker["peer"] for worker in gateway.workers()} == workers
    assert [listed["id"] for listed in gateway.client.get("/tasks").json()] == ["task1"]


def test_runs_spread_over_the_workers(cluster: Cluster) -> None:
    gateway = cluster.gateway()
    workers = {cluster.worker(gateway).peer_id for _ in range(3)}
    gateway.post(guest("spin"), id="a", repeats=3, input=300)
    assert {result["worker"] for result in gateway.ended("a")["results"]} == workers


def test_bad_guests_end_as_failed_runs_and_the_worker_lives_on(cluster: Cluster) -> None:
    gateway = cluster.gateway()
    worker = cluster.worker(gateway)
    for id, module, fields in (
        ("trap", UNREACHABLE, {}),
        ("loop", guest("spin"), {"duration": "0.3", "input": 0}),
        ("grow", GROW_4_GIB, {}),
        ("start", START_WITH_4_GIB, {}),
    ):
        gateway.post(module, id=id, **fields)
    reasons = {}
    for id in ("trap", "loop", "grow", "start"):
        task = gateway.ended(id)
        (result,) = task["results"]
        assert (task["status"], result["state"], result["attempts"]) == ("failed", "failed", 1)
        reasons[id] = result["reason"]
        assert result["detail"]
    assert reasons == {"trap": "trap", "loop": "deadline", "grow": "trap", "start": "memory"}
    assert gateway.task("grow")["results"][0]["memory_limit_bytes"] == 256 << 20
    gateway.post(guest("hash"), id="good", difficulty=2)
    assert gateway.ended("good")["results"][0]["result"] == "563"
    assert [entry["peer"] for entry in gateway.workers()] == [worker.peer_id]
    assert "Traceback" not in worker.log + gateway.log


def test_a_command_gets_args_env_and_stdin_and_gives_output_and_exit_code(cluster: Cluster) -> None:
    gateway = cluster.gateway()
    cluster.worker(gateway)
    task = gateway.post(guest("echo"), args=["one", "two"], env=["EXIT=3", "NAME=värde"], stdin="from stdin")
    (result,) = gateway.ended(task["id"])["results"]
    assert result["stdout"] == "one two\nfrom stdin"
    assert result["stderr"] == "EXIT=3\nNAME=värde\n"
    assert (result["state"], result["reason"], result["exit_code"]) == ("failed", "exit", 3)


def test_cancelling_stops_a_guest_that_would_never_end(cluster: Cluster) -> None:
    gateway = cluster.gateway()
    cluster.worker(gateway)
    gateway.post(guest("spin"), id="a", input=0, repeats=3)
    wait_until(lambda: gateway.task("a")["status"] == "running", "the run begins")
    answer = gateway.client.delete("/tasks/a")
    assert (answer.status_code, answer.json()["status"]) == (200, "cancelled")
    gateway.post(guest("noop"), id="b", input=5)
    assert gateway.ended("b")["results"][0]["result"] == "5"
    assert gateway.task("a")["runs"]["cancelled"] == 3
