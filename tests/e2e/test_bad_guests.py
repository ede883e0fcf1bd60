"""Guests that misbehave, over HTTP with a real worker: each ends as its own failure, and the worker serves on."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.leftovers import CleanCluster, clean_cluster_in
from tests.e2e.processes import Gateway, Worker, children_of, sandboxes_of, ticks_of, wait_busy, wait_until
from tests.guests import FLOOD, GROW_4_GIB, SLEEP_FOR_EVER, START_WITH_4_GIB, UNREACHABLE, function, guest, wat

LOOP_BEFORE_RUN = wat(
    '(func $s (loop (br 0))) (start $s) (func (export "run") (param i32 i32) (result i32) (i32.const 1))'
)
RECURSION = function("(call $run (local.get 0) (local.get 1))")
DIVISION = function("(i32.div_s (i32.const 1) (i32.const 0))")
OUTSIDE = function("(i32.load (i32.const 1000000))", "(memory 1)")
SHORT: dict[str, Any] = {"duration": "0.3"}
FAILING: dict[str, tuple[bytes, dict[str, Any], str, str]] = {
    # name: module, fields, reason, a word of the detail
    "unreachable": (UNREACHABLE, {}, "trap", "unreachable"),
    "recursion": (RECURSION, {}, "trap", "stack"),
    "division": (DIVISION, {}, "trap", "zero"),
    "outside": (OUTSIDE, {}, "trap", "memory"),
    "spin": (guest("spin"), SHORT | {"input": 0}, "deadline", "it may for"),
    "start": (LOOP_BEFORE_RUN, SHORT, "deadline", "it may for"),
    "sleep": (SLEEP_FOR_EVER, SHORT, "deadline", "it may for"),
    "grow": (GROW_4_GIB, {}, "trap", ""),
    "large": (START_WITH_4_GIB, {}, "memory", ""),
    "exit": (guest("echo"), {"env": "EXIT=7"}, "exit", ""),
}


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[CleanCluster]:
    with clean_cluster_in(tmp_path) as cluster:
        yield cluster


@pytest.fixture
def pair(cluster: CleanCluster) -> Iterator[tuple[Gateway, Worker]]:
    gateway = cluster.gateway()
    worker = cluster.worker(gateway)
    yield gateway, worker
    # Whatever the guest did: the same process runs the next one, and nobody had to read a traceback.
    gateway.post(guest("hash"), id="after", difficulty=2)
    (result,) = gateway.ended("after")["results"]
    assert (result["result"], result["worker"]) == ("563", worker.peer_id)
    assert "Traceback" not in gateway.log + worker.log


def only_result(gateway: Gateway, id: str) -> Any:
    task = gateway.ended(id)
    (result,) = task["results"]
    assert task["runs"]["succeeded"] + task["runs"]["failed"] + task["runs"]["cancelled"] == 1
    assert task["status"] == result["state"]
    return result


def test_guests_that_fail(pair: tuple[Gateway, Worker]) -> None:
    gateway, worker = pair
    for id, (module, fields, reason, detail) in FAILING.items():
        gateway.post(module, id=id, **fields)
        result = only_result(gateway, id)
        assert (result["state"], result["reason"], result["attempts"]) == ("failed", reason, 1), id
        assert (result["worker"], result["result"]) == (worker.peer_id, None), id
        assert detail in (result["detail"] or "").replace("_", " "), id
        assert result["exit_code"] == (7 if reason == "exit" else None), id


def test_memory_that_is_refused_is_shown_with_its_limit(pair: tuple[Gateway, Worker]) -> None:
    gateway, worker = pair
    for id, module in (("grow", GROW_4_GIB), ("start", START_WITH_4_GIB)):
        gateway.post(module, id=id, memory=1 << 20)
        assert only_result(gateway, id)["memory_limit_bytes"] == 1 << 20
    for pid in [worker.pid, *children_of(worker.pid)]:
        resident = int((Path("/proc") / str(pid) / "statm").read_text().split()[1]) * 4096
        assert resident < 1 << 30, "nothing near four gigabytes was ever taken"


def test_output_without_end_is_cut(pair: tuple[Gateway, Worker]) -> None:
    gateway, _ = pair
    gateway.post(FLOOD, id="a", output=1000)
    result = only_result(gateway, "a")
    assert result["state"] == "succeeded"
    assert (len(result["stdout"]), len(result["stderr"])) == (1000, 1000)
    assert result["stdout_truncated"]
    assert result["stderr_truncated"]


def test_a_command_is_given_all_it_asks_for(pair: tuple[Gateway, Worker]) -> None:
    gateway, _ = pair
    gateway.post(guest("echo"), id="a", args=["--x", "two words"], env=["A=1", "B=ü=2"], stdin="in\nput")
    result = only_result(gateway, "a")
    assert (result["state"], result["exit_code"]) == ("succeeded", 0)
    assert result["stdout"] == "--x two words\nin\nput"
    assert result["stderr"] == "A=1\nB=ü=2\n", "and nothing of the worker's own environment"


def test_what_is_no_module_never_gets_to_a_worker(pair: tuple[Gateway, Worker]) -> None:
    gateway, _ = pair
    for wasm in (b"", b"not wasm at all", b"\0asm\1\0", guest("hash")[:200]):
        answer = gateway.client.post("/tasks", data={"id": "a"}, files={"wasm": ("x.wasm", wasm)})
        assert (answer.status_code, answer.headers["content-type"]) == (422, "application/problem+json"), wasm[:20]
        assert answer.json()["field"] == "wasm"
    assert gateway.client.get("/tasks").json() == []


def test_a_cancelled_spinner_ends_and_its_slot_is_free(pair: tuple[Gateway, Worker]) -> None:
    gateway, worker = pair
    gateway.post(guest("spin"), id="a", input=0)
    wait_busy(worker)
    (spinning,) = sandboxes_of(worker.pid, "executor")
    answer = gateway.client.delete("/tasks/a")
    assert (answer.status_code, answer.json()["status"]) == (200, "cancelled")
    assert only_result(gateway, "a")["state"] == "cancelled"
    wait_until(lambda: gateway.workers()[0]["free"] == 1, "the slot is free")
    (idle,) = wait_until(lambda: sandboxes_of(worker.pid, "executor"), "a sandbox")
    assert idle != spinning, "a guest that does not listen is stopped with its process"
    gateway.post(guest("noop"), id="b", input=3)
    assert only_result(gateway, "b")["result"] == "3"
    before = ticks_of(idle)
    gateway.post(guest("noop"), id="c", start=0.5, input=3)
    assert only_result(gateway, "c")["result"] == "3"
    assert ticks_of(idle) - before < 25, "nothing spins on"
    assert gateway.client.delete("/tasks/a").json()["status"] == "cancelled", "cancelling twice is fine"
