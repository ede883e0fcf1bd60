"""What a gateway answers, read into values: whole, with fields of newer gateways, with those of older ones missing, and
from what is no gateway."""

from datetime import UTC, datetime
from typing import Any

import pytest

from ww.client.answer import Readiness, Result, Task, Worker, read_all, read_as
from ww.errors import PeerError

RESULT = {
    "run": 3,
    "state": "failed",
    "result": None,
    "exit_code": 7,
    "stdout": "a\ufffd",
    "stdout_base64": "Yf8=",
    "stderr": "gr\u00fc\u00dfe",
    "stdout_truncated": True,
    "reason": "exit",
    "wall_seconds": 2,
    "cpu_seconds": 0.5,
    "memory_bytes": 65536,
    "finished_at": "2026-01-02T03:04:05.678+00:00",
}
TASK = {"id": "t", "status": "running", "duration": 5, "memory": 1 << 20, "files_max": 9, "labels": {"gpu": "yes"}}


def test_a_result() -> None:
    result = read_as(Result, RESULT)
    assert (result.run, result.state, result.exit_code, result.result) == (3, "failed", 7, None)
    assert (result.stdout, result.stderr) == (b"a\xff", "grüße".encode())
    assert (result.stdout_truncated, result.stderr_truncated) == (True, False)
    assert (result.wall_s, result.cpu_s, result.memory_bytes) == (2.0, 0.5, 65536)
    assert result.finished_at == datetime(2026, 1, 2, 3, 4, 5, 678000, UTC)
    assert result.has_ended
    assert result.json == RESULT


def test_a_run_that_has_no_result() -> None:
    result = read_as(Result, {"run": 0, "state": "queued"})
    assert (result.has_ended, result.stdout, result.worker) == (False, b"", None)


def test_a_task_with_its_units_in_names() -> None:
    task = read_as(Task, TASK | {"results": [RESULT], "runs": {"running": 1}, "args": ["a", "b"]})
    assert (task.duration_s, task.memory_bytes, task.files_bytes_max) == (5.0, 1 << 20, 9)
    assert (task.labels, task.args, task.runs) == ({"gpu": "yes"}, ("a", "b"), {"running": 1})
    assert task.results == (read_as(Result, RESULT),)
    assert not task.has_ended


def test_what_newer_gateways_say_is_ignored_and_kept_aside() -> None:
    task = read_as(Task, TASK | {"colour": "blue"})
    assert task == read_as(Task, TASK)
    assert task.json["colour"] == "blue"


def test_workers_and_readiness() -> None:
    (worker,) = read_all(Worker, [{"peer": "p", "slots": 2, "cpus": 2, "modules": ["sha256:0"], "breaker": "open"}])
    assert (worker.slots, worker.cpus, worker.modules, worker.breaker) == (2, 2.0, ("sha256:0",), "open")
    ready = read_as(Readiness, {"status": "not ready", "checks": [{"name": "disk", "ok": False, "detail": "full"}]})
    assert (ready.is_ready, ready.checks[0].name, ready.checks[0].detail) == (False, "disk", "full")


@pytest.mark.parametrize(
    ("kind", "json", "says"),
    [
        (Task, [], "expected an object of a task"),
        (Task, {"id": "t"}, "a task without status"),
        (Task, {"id": 7, "status": "queued"}, "id of a task is 7"),
        (Task, TASK | {"repeats": "many"}, "repeats of a task is 'many'"),
        (Task, TASK | {"args": ["a", 1]}, "args of a task"),
        (Task, TASK | {"results": {}}, "expected a list, of results"),
        (Task, TASK | {"created_at": "yesterday"}, "created_at of a task is 'yesterday'"),
        (Result, {"run": 0, "state": "failed", "stdout": "", "stdout_base64": "&"}, "stdout of a result"),
        (Worker, "x" * 1000, "expected an object"),
    ],
)
def test_what_is_no_gateways_is_one_line(kind: type, json: Any, says: str) -> None:
    with pytest.raises(PeerError, match=r"^the answer is no gateway's: ") as refused:
        read_as(kind, json)
    assert says in str(refused.value)
    assert len(str(refused.value)) < 200
