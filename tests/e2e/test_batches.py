"""Batches with a real gateway and worker: each run of a guest sees its own input, whichever way the batch came in."""

import base64
import io
import json
import zipfile
from collections.abc import Iterator
from typing import Any

import pytest

from tests.e2e.leftovers import clean_cluster_in
from tests.e2e.processes import Gateway
from tests.guests import guest, wat

# Writes its stdin to its stdout.
CAT = wat(
    """
    (import "wasi_snapshot_preview1" "fd_read" (func $read (param i32 i32 i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
    (memory (export "memory") 2)
    (func (export "_start")
      (loop $again
        (i32.store (i32.const 0) (i32.const 1024)) (i32.store (i32.const 4) (i32.const 65536))
        (drop (call $read (i32.const 0) (i32.const 0) (i32.const 1) (i32.const 8)))
        (i32.store (i32.const 4) (i32.load (i32.const 8)))
        (if (i32.load (i32.const 8))
          (then (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8))) (br $again)))))
    """
)
LINES = {"Content-Type": "application/x-ndjson"}


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    with clean_cluster_in(tmp_path_factory.mktemp("cluster")) as cluster:
        gateway = cluster.gateway()
        cluster.worker(gateway, "--slots", "2")
        yield gateway


def module(gateway: Gateway, wasm: bytes) -> str:
    answer = gateway.client.post("/modules", content=wasm, headers={"Content-Type": "application/wasm"})
    assert answer.status_code in (200, 201), answer.text
    return str(answer.json()["module"])


def submit(gateway: Gateway, parent: dict[str, Any], runs: list[Any]) -> str:
    body = "".join(json.dumps(each) + "\n" for each in ({"parent": parent}, *runs))
    answer = gateway.client.post("/tasks", content=body, headers=LINES)
    assert answer.status_code == 201, answer.text
    return str(answer.json()["id"])


def results(gateway: Gateway, id: str, query: str = "") -> list[Any]:
    with gateway.client.stream("GET", f"/tasks/{id}/results{query}") as answer:
        assert answer.headers["content-type"] == "application/x-ndjson"
        return [json.loads(line) for line in answer.iter_lines() if line]


def test_each_run_reads_its_own_input_and_results_follow_while_it_runs(gateway: Gateway) -> None:
    count = 500
    parent = {"module": module(gateway, CAT), "stdin": "everybody's"}
    runs = [{"stdin": f"input {run}", "name": f"n{run}"} if run % 5 else {} for run in range(count)]
    id = submit(gateway, parent, runs)
    told = results(gateway, id, "?order=input")
    assert [each["run"] for each in told] == list(range(count))
    assert {each["state"] for each in told} == {"succeeded"}
    assert [each["stdout"] for each in told] == [run.get("stdin", "everybody's") for run in runs]
    assert [each.get("name", "") for each in told] == [run.get("name", "") for run in runs]
    ended = results(gateway, id)
    assert sorted(each["run"] for each in ended) == list(range(count))
    positions = [each["position"] for each in ended]
    assert positions == sorted(set(positions))
    assert results(gateway, id, f"?after={positions[123]}") == ended[124:]
    assert results(gateway, id, "?order=input&after=397") == told[398:]


def test_arguments_environment_and_files_of_each_run(gateway: Gateway) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("data", "of run 1")
    parent = {"module": module(gateway, guest("files")), "args": ["cat", "data"]}

    id = submit(gateway, parent, [{}, {"files_base64": base64.b64encode(buffer.getvalue()).decode()}])
    told = results(gateway, id, "?order=input")
    assert [each["stdout"].splitlines()[0] for each in told] == ["cat 44 ", "cat 0 of run 1"]


def test_functions_are_called_with_each_runs_numbers(gateway: Gateway) -> None:
    add = wat('(func (export "add") (param i32 i32) (result i32) (i32.add (local.get 0) (local.get 1)))')
    id = submit(
        gateway, {"module": module(gateway, add), "entry": "add"}, [{"args": [str(n), "-1"]} for n in range(50)]
    )
    assert [each["result"] for each in results(gateway, id, "?order=input")] == [str(n - 1) for n in range(50)]


def test_the_files_of_a_zip_are_the_runs(gateway: Gateway) -> None:
    buffer = io.BytesIO()
    inputs = {f"dir/{n}.txt": bytes([65 + n]) * (n * 50_000) for n in range(8)}
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in inputs.items():
            archive.writestr(name, content)
    answer = gateway.client.post(
        "/tasks", data={"output": 1 << 20}, files={"inputs": ("in.zip", buffer.getvalue()), "wasm": ("cat.wasm", CAT)}
    )
    assert answer.status_code == 201, answer.text
    told = results(gateway, answer.json()["id"])
    assert {each["name"]: each["stdout"].encode() for each in told} == inputs
