"""Job files: what is sent of them, what comes out, and how each mistake is named."""

import base64
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cli.batch_gateway import BatchGateway, serving, stdin_of
from tests.cli.test_cli import refused, ww
from tests.e2e.processes import BOUND_S
from tests.guests import ROOT, guest, zipped
from ww.cli.job import read_job
from ww.client import TaskFields
from ww.errors import UsageError

DIGEST = "sha256:" + "0" * 64


@pytest.fixture
def gateway() -> Iterator[BatchGateway]:
    with serving() as gateway:
        yield gateway


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "echo.wasm").write_bytes(guest("echo"))
    (tmp_path / "root.zip").write_bytes(zipped(note=b"hello"))
    (tmp_path / "in.bin").write_bytes(b"\xff")
    return tmp_path


def run(gateway: BatchGateway, job: Path | str, *arguments: str, input: bytes = b"") -> Any:
    environment = {n: v for n, v in os.environ.items() if not n.startswith("WW_")} | {"WW_GATEWAY": gateway.url}
    command = [sys.executable, "-m", "ww", "run", "-f", str(job), *arguments]
    return subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, timeout=BOUND_S, check=False, input=input
    )


def written(folder: Path, **said: Any) -> Path:
    (folder / "job.json").write_text(json.dumps(said))
    return folder / "job.json"


def test_what_is_sent_and_what_comes_out(gateway: BatchGateway, folder: Path) -> None:
    job = written(
        folder,
        parent={"wasm": "echo.wasm", "id": "t", "args": ["-v"], "env": {"A": "1"}, "memory": 65536, "duration": 2.5,
                "stdin": "all"},
        tasks=[
            {"stdin": "one", "env": {"B": "2"}},
            {"stdin_base64": base64.b64encode(b"two").decode(), "args": ["-q"], "name": "second"},
            {"files": "root.zip", "stdin_file": "stdin.txt"},
            {},
        ],
    )  # fmt: skip
    (folder / "stdin.txt").write_text("x")
    done = run(gateway, job)
    assert (done.returncode, done.stderr) == (0, b"ww: task t\n")
    assert done.stdout.decode() == "[0] -v ONE\n[1] -q TWO\n[2] -v /note X\n[3] -v ALL\n"
    task = gateway.tasks["t"]
    assert {key: task.parent[key] for key in ("memory", "duration", "env")} == {
        "memory": "65536", "duration": "2.5", "env": {"A": "1"},
    }  # fmt: skip
    assert task.runs[0]["env"] == {"B": "2"}
    assert task.runs[1]["name"] == "second"
    assert task.runs[3] == {}
    assert stdin_of(task.runs[2]) == b"x"


def test_the_first_failure_is_the_exit_code(gateway: BatchGateway, folder: Path) -> None:
    job = written(folder, parent={"wasm": "echo.wasm"}, tasks=[{"stdin": "a"}, {"stdin": "fail"}])
    done = run(gateway, job)
    assert (done.returncode, done.stdout) == (3, b"[0] A\n")
    assert done.stderr.splitlines()[1:] == [b"[1] it went wrong", b"ww: run 1: exited with 3"]


def test_detached_with_an_id_and_from_stdin(gateway: BatchGateway, folder: Path) -> None:
    said = {"parent": {"wasm": str(folder / "echo.wasm")}, "tasks": [{"stdin": "a"}]}
    done = run(gateway, "-", "--detach", "--id", "mine", input=json.dumps(said).encode())
    assert (done.returncode, done.stdout, done.stderr) == (0, b"mine\n", b"")
    assert len(gateway.tasks["mine"].runs) == 1


def read(folder: Path, **said: Any) -> tuple[Any, TaskFields, Any]:
    job = read_job(str(written(folder, **said)))
    return job.wasm, job.fields, None if job.runs is None else list(job.runs)


def test_a_job_without_runs_is_a_task(folder: Path) -> None:
    parent = {"module": "0" * 64, "repeats": 3, "input": 1, "files": "root.zip", "stdin_file": "in.bin", "start": 1}
    assert read(folder, parent=parent) == (
        DIGEST,
        {"repeats": 3, "input": 1, "files": folder / "root.zip", "stdin": b"\xff", "start_s": 1},
        None,
    )
    assert read(folder, parent={"wasm": DIGEST})[0] == DIGEST
    assert read(folder, parent={"wasm_base64": "AGE="})[0] == b"\0a"


@pytest.mark.parametrize(
    ("said", "says"),
    [
        ({"jobs": []}, "job: jobs: no such key, expected parent and tasks"),
        ({"parent": []}, "parent: expected an object"),
        ({"parent": {}}, "parent: expected wasm, a path, or module, sha256:HEX"),
        ({"parent": {"wasm": "a", "module": "b"}}, "parent: expected one of wasm and module"),
        ({"parent": {"module": "abc"}}, "module: 'abc' is not sha256: and 64 hex digits"),
        ({"parent": {"wasm": 3}}, "parent.wasm: expected a text"),
        ({"parent": {"wasm": "a", "memory_bytes": 3}}, "parent.memory_bytes: no such field of a task"),
        ({"parent": {"wasm": "a", "stdin": "x", "stdin_file": "y"}}, "parent: expected one of stdin and stdin_file"),
        ({"parent": {"wasm": "a", "stdin_base64": "?"}}, "parent.stdin_base64: expected base64"),
        ({"parent": {"wasm": "a", "repeats": 2}, "tasks": [{}]}, "parent.repeats: expected no repeats with tasks"),
        ({"parent": {"wasm": "a"}, "tasks": []}, "tasks: expected a list of runs, at least one"),
        ({"parent": {"wasm": "a"}, "tasks": {}}, "tasks: expected a list of runs, at least one"),
        ({"parent": {"wasm": "a"}, "tasks": [{}, 3]}, "tasks[1]: expected an object"),
        ({"parent": {"wasm": "a"}, "tasks": [{"memory": 3}]}, "tasks[0].memory: belongs in parent"),
        ({"parent": {"wasm": "a"}, "tasks": [{"stdln": "x"}]}, "tasks[0].stdln: no such field of a run"),
        ({"parent": {"wasm": "a"}, "tasks": [{"args": "x"}]}, "tasks[0].args: expected a list of texts"),
        ({"parent": {"wasm": "a"}, "tasks": [{"seed": "x"}]}, "tasks[0].seed: expected a whole number, not str"),
        ({"parent": {"wasm": "a"}, "tasks": [{"stdin": 3}]}, "tasks[0].stdin: expected a text"),
    ],
)
def test_each_mistake_is_named(folder: Path, said: dict[str, Any], says: str) -> None:
    with pytest.raises(UsageError) as refused:
        read(folder, **said)
    assert str(refused.value) == says


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{", "no JSON: line 1: "),
        ("[]", "the job: expected an object"),
        ('{"parent": {}, "parent": {}}', "job: parent is there twice"),
        ("[" * 100_000, "no JSON"),
        ("\udcff", "no JSON"),
    ],
)
def test_what_is_no_job(tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "job.json").write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(UsageError, match=says) as refused:
        read_job(str(tmp_path / "job.json"))
    assert "\n" not in str(refused.value)


def test_files_that_are_not_there_are_one_line(gateway: BatchGateway, folder: Path) -> None:
    for run_, says in (
        ({"stdin_file": "none"}, b"tasks[0].stdin_file: "),
        ({"files": "none.zip"}, b"tasks[0].files: "),
        ({"stdin_base64": "?"}, b"tasks[0].stdin_base64: expected base64"),
    ):
        done = run(gateway, written(folder, parent={"wasm": "echo.wasm"}, tasks=[run_]))
        assert done.returncode == 125
        (line,) = done.stderr.splitlines()
        assert says in line
    assert gateway.tasks == {}


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["-f", "job.json", "a.wasm"], ["-f", "FILE"]),
        (["-f", "job.json", "--memory", "1M"], ["--memory", "in the job file"]),
        (["-f", "job.json", "--deterministic"], ["--deterministic"]),
        (["-f", "job.json", "--out", "x", "--detach"], ["--out"]),
        ([], ["FILE", "-f JOB"]),
    ],
)
def test_wrong_usage_is_one_line_and_2(tmp_path: Path, arguments: list[str], says: list[str]) -> None:
    refused(ww(tmp_path, "run", *arguments), 2, *says)
