"""The task of the specification as it is written there, and every answer of the hash puzzle that is known."""

import json
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.leftovers import CleanCluster, clean_cluster_in
from tests.e2e.processes import wait_until
from tests.guests import ROOT, guest

# docs: the form of POST /tasks; only the module's folder and the port are ours.
CURL = (
    'curl -X POST -F id=task1 -F "description=Hash puzzle" -F complete=0 -F duration=5 -F start=1 -F delay=2'
    " -F repeats=3 -F wasm=@hash.wasm -F input=0 -F difficulty=3 localhost:8080/tasks"
)
ANSWERS = {0: (1, 3, 563, 2832, 69732), 1: (1, 25, 467, 2823, 72608), 7: (1, 19, 198, 7379, 54822)}


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[CleanCluster]:
    with clean_cluster_in(tmp_path) as cluster:
        yield cluster


def test_every_known_answer(cluster: CleanCluster) -> None:
    gateway = cluster.gateway()
    cluster.worker(gateway, "--slots", "2")
    wanted = {}
    for input, answers in ANSWERS.items():
        for difficulty, answer in enumerate(answers):
            id = f"{input}-{difficulty}"
            gateway.post(guest("hash"), id=id, input=input, difficulty=difficulty)
            wanted[id] = str(answer)
    assert {id: gateway.ended(id)["results"][0]["result"] for id in wanted} == wanted


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_the_curl_line_word_for_word(cluster: CleanCluster) -> None:
    gateway = cluster.gateway()
    workers = {cluster.worker(gateway).peer_id for _ in range(3)}
    line = CURL.replace("localhost:8080", gateway.http)
    done = subprocess.run(
        shlex.split(line), cwd=ROOT / "wasm" / "hash", capture_output=True, text=True, timeout=30, check=True
    )
    posted = json.loads(done.stdout)
    assert posted["status"] == "scheduled", "a second is left until the first run"
    task = gateway.ended("task1")
    assert (task["status"], task["completions"], task["repeats"]) == ("succeeded", 3, 3)
    assert [(result["state"], result["result"]) for result in task["results"]] == [("succeeded", "2832")] * 3
    assert {result["worker"] for result in task["results"]} <= workers
    assert {result["attempts"] for result in task["results"]} == {1}


def test_the_same_form_from_an_http_library(cluster: CleanCluster) -> None:
    gateway = cluster.gateway()
    cluster.worker(gateway)
    fields = shlex.split(CURL)[4::2]
    form = dict(field.split("=", 1) for field in fields if not field.startswith("wasm="))
    form |= {"start": "0", "delay": "0"}
    answer = gateway.client.post("/tasks", data=form, files={"wasm": ("hash.wasm", guest("hash"))})
    assert (answer.status_code, answer.headers["location"]) == (201, "/tasks/task1")
    assert [result["result"] for result in gateway.ended("task1")["results"]] == ["2832"] * 3
    again = gateway.client.post("/tasks", data=form, files={"wasm": ("hash.wasm", guest("hash"))})
    assert (again.status_code, again.json()["id"]) == (200, "task1")
    assert len(gateway.task("task1")["results"]) == 3, "posting it again runs nothing again"


def test_a_task_waits_for_a_worker_that_comes_later(cluster: CleanCluster) -> None:
    gateway = cluster.gateway()
    gateway.post(guest("hash"), id="a", difficulty=3, repeats=2)
    wait_until(lambda: gateway.task("a")["status"] == "queued", "it is due")
    assert gateway.workers() == []
    worker = cluster.worker(gateway)
    assert [result["worker"] for result in gateway.ended("a")["results"]] == [worker.peer_id] * 2
