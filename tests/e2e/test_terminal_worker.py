"""The worker in TypeScript, in Deno and Node: processes of `ww worker --runtime`, and what becomes of their runs."""

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.processes import BOUND_S, Cluster, Gateway, Program, cluster_in, ticks_of, wait_until
from tests.guests import guest
from ww.cli.runtime import _BUNDLE, _find
from ww.client import Client
from ww.errors import UsageError

pytestmark = pytest.mark.skipif(not (_BUNDLE / "worker.mjs").is_file(), reason="web/ is not built here: scripts/web")


def path_of(runtime: str) -> str:
    try:
        return _find(runtime, {"PATH": os.environ["PATH"]})
    except UsageError as error:
        pytest.skip(str(error))


@pytest.fixture(params=["deno", "node"])
def runtime(request: pytest.FixtureRequest) -> str:
    path_of(request.param)
    return str(request.param)


@pytest.fixture
def deno() -> str:
    return path_of("deno")


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    with cluster_in(tmp_path) as cluster:
        yield cluster


def joined(cluster: Cluster, gateway: Gateway, runtime: str, *arguments: str) -> Program:
    given = ("--gateway", f"http://{gateway.http}", "--dial", gateway.peer_id, "--slots", "1", *arguments)
    worker = cluster.program("worker", "--runtime", runtime, *given)
    worker.logged(r"worker (12D3KooW\w+)")
    worker.logged(f"joined gateway {gateway.peer_id} with")
    return worker


def peer_of(worker: Program) -> str:
    return worker.logged(r"worker (12D3KooW\w+)")[1]


def result_of(task: Any) -> Any:
    (result,) = task["results"]
    return result


def wait_busy(worker: Program) -> None:
    """Wait until a guest computes. What the runtime does beside that takes less."""
    before = ticks_of(worker.pid)
    wait_until(lambda: ticks_of(worker.pid) > before + 30, "a guest computes")


def test_it_does_what_a_python_worker_does_and_outlives_a_guest_that_spins(cluster: Cluster, runtime: str) -> None:
    gateway = cluster.gateway()
    worker = joined(cluster, gateway, runtime, "--meta", "zone=a")
    (entry,) = gateway.workers()
    assert (entry["kind"], entry["slots"], entry["peer"]) == (runtime, 1, peer_of(worker))
    assert entry["labels"] == {"zone": "a", "kind": runtime}
    assert set(entry["lacks"]) == {"reactor", "component", "python", "fuel", "cpu", "files"}

    for difficulty, answer in enumerate(("1", "25", "467")):
        gateway.post(guest("hash"), id=f"hash{difficulty}", input=1, difficulty=difficulty)
        assert result_of(gateway.ended(f"hash{difficulty}"))["result"] == answer
    gateway.post(guest("noop"), id="batch", input=7, repeats=300)
    task = gateway.ended("batch")
    assert (task["status"], task["completions"]) == ("succeeded", 300)

    gateway.post(guest("spin"), id="spin", input=600, duration=0.3)
    spun = result_of(gateway.ended("spin"))
    assert (spun["reason"], spun["worker"]) == ("deadline", peer_of(worker))
    gateway.post(guest("hash"), id="after", input=7, difficulty=1)
    assert result_of(gateway.ended("after"))["result"] == "19"

    gateway.post(guest("noop"), id="fuel", input=7, fuel=1000)
    wait_until(lambda: gateway.task("fuel")["status"] == "unsatisfiable", "nobody here counts fuel")

    worker.send(signal.SIGINT)
    assert worker.wait() == 0
    wait_until(lambda: gateway.workers() == [], "it has left")


def test_what_is_large_goes_by_reference_both_ways(cluster: Cluster, runtime: str) -> None:
    gateway = cluster.gateway()
    joined(cluster, gateway, runtime)
    given = [bytes([65 + run]) * (1 << 21) for run in range(4)]
    with Client(f"http://{gateway.http}") as client:
        task = client.submit_batch(guest("echo"), given, args=["-"], output_bytes=4 << 20)
        client.wait(task.id)
        results = sorted(client.results(task.id), key=lambda result: result.run)
    # Each letter alone: what differs need not be shown whole.
    letters = [(result.exit_code, len(result.stdout), set(result.stdout[-1000:])) for result in results]
    assert letters == [(0, (1 << 21) + len("-\n"), {65 + run}) for run in range(4)]


def test_a_ticket_lets_it_in_and_its_key_is_its_own(cluster: Cluster, deno: str, tmp_path: Path) -> None:
    gateway = cluster.gateway("--admit", "ticket")
    url, key = f"http://{gateway.http}", tmp_path / "worker.key"
    stranger = cluster.program("worker", "--runtime", "deno", "--gateway", url, "--key", str(key))
    stranger.logged("lets in who has a ticket, .*; trying again")
    stranger.send(signal.SIGINT)
    assert stranger.wait() == 0
    making = cluster.program("ticket", "create")
    cluster.environment["WW_TICKET"] = making.stdout_line()
    assert making.wait() == 0
    worker = cluster.program("worker", "--runtime", "deno", "--gateway", url, "--key", str(key))
    worker.logged(f"joined gateway {gateway.peer_id} with")
    assert peer_of(worker) == peer_of(stranger)
    for argv in (("--runtime", "deno", "--gateway", url), ("--dial", gateway.peer_id)):
        second = cluster.program("worker", *argv, "--key", str(key))
        assert second.wait() == 1
        assert second.lines[-1].startswith("ww: key file worker.key is in use by another process")


def test_the_first_signal_lets_a_guest_finish_and_the_second_does_not(cluster: Cluster, runtime: str) -> None:
    gateway = cluster.gateway()
    worker = joined(cluster, gateway, runtime)
    gateway.post(guest("spin"), id="long", input=0)
    wait_busy(worker)
    worker.send(signal.SIGTERM)
    worker.logged("stopping: slots in use: 1")
    assert gateway.task("long")["runs"]["running"] == 1
    worker.send(signal.SIGINT)
    assert worker.wait() == 130


def test_what_a_killed_one_ran_is_done_by_a_python_worker(cluster: Cluster, deno: str) -> None:
    gateway = cluster.gateway()
    worker = joined(cluster, gateway, "deno", "--slots", "2")
    gateway.post(guest("spin"), id="a", input=200, repeats=3)
    wait_until(lambda: gateway.task("a")["runs"]["running"] == 2, "two are under way")
    worker.kill()
    cluster.forget(worker)
    wait_until(lambda: gateway.workers() == [], "it is not listed any more")
    native = cluster.worker(gateway, "--slots", "2")
    task = gateway.ended("a")
    assert (task["status"], task["completions"]) == ("succeeded", 3)
    assert {result["worker"] for result in task["results"]} == {native.peer_id}
    assert sorted(result["attempts"] for result in task["results"]) == [1, 2, 2]


def test_a_frozen_one_loses_its_runs_to_others_and_comes_back(cluster: Cluster, deno: str) -> None:
    gateway = cluster.gateway("--pulse", "0.2", "--pulse-timeout", "1")
    worker = joined(cluster, gateway, "deno")
    gateway.post(guest("spin"), id="a", input=400)
    wait_busy(worker)
    worker.send(signal.SIGSTOP)
    try:
        gateway.logged(f"worker {peer_of(worker)} is taken for gone: no answer to its pulse within 1 s")
        native = cluster.worker(gateway)
        result = result_of(gateway.ended("a"))
        assert (result["state"], result["worker"], result["attempts"]) == ("succeeded", native.peer_id, 2)
    finally:
        worker.send(signal.SIGCONT)
    wait_until(lambda: len(gateway.workers()) == 2, "it is back")


def test_a_gateway_that_went_is_come_back_to(cluster: Cluster, deno: str) -> None:
    gateway = cluster.gateway()
    worker = joined(cluster, gateway, "deno")
    gateway.kill()
    worker.logged("trying again")
    again = cluster.gateway(http=gateway.http)
    wait_until(lambda: len(again.workers()) == 1, "it is back")
    assert peer_of(worker) == again.workers()[0]["peer"]


def test_deno_alone_runs_what_the_gateway_serves(cluster: Cluster, deno: str) -> None:
    gateway = cluster.gateway()
    url = f"http://{gateway.http}"
    command = [deno, "run", "--no-prompt", f"--allow-net={gateway.http}", f"{url}/terminal/worker.mjs", url]
    environment = cluster.environment | {"DENO_DIR": str(cluster.state / "deno"), "DENO_NO_UPDATE_CHECK": "1"}
    with subprocess.Popen([*command, "--slots", "1"], env=environment, stderr=subprocess.PIPE, text=True) as process:
        try:
            wait_until(lambda: gateway.workers(), "it has joined")
            # It may not ask how much memory there is, and is still sent what says its own.
            gateway.post(guest("hash"), id="a", input=0, difficulty=1, memory=1 << 26)
            assert result_of(gateway.ended("a"))["result"] == "3"
            process.send_signal(signal.SIGTERM)
            assert process.wait(BOUND_S) == 0
        finally:
            process.kill()


@pytest.mark.parametrize(
    ("argv", "code", "line"),
    [
        (("--nope", "1"), 2, 'worker.mjs: unrecognized argument "--nope" (see worker.mjs --help)'),
        ((), 2, "worker.mjs: which gateway?: expected http://HOST:PORT, once (see worker.mjs --help)"),
        (("http://127.0.0.1:9", "--key", "no/such/folder/key"), 1, "worker.mjs: key file key: ENOENT"),
    ],
)
def test_what_is_wrong_is_said_in_a_line(runtime: str, argv: tuple[str, ...], code: int, line: str) -> None:
    flags = ("run", "--no-prompt", "-A") if runtime == "deno" else ("--experimental-websocket", "--no-warnings")
    command = [path_of(runtime), *flags, str(_BUNDLE / "worker.mjs"), *argv]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=BOUND_S, check=False)
    assert (ended.returncode, ended.stderr.splitlines(), ended.stdout) == (code, [line], "")
