"""Every kind of guest over HTTP with a real worker: functions, commands with files, reactors, components; fuel,
processor time and determinism."""

import io
import zipfile
from collections.abc import Iterator
from typing import Any

import pytest

from tests import components
from tests.e2e.leftovers import clean_cluster_in
from tests.e2e.processes import Gateway
from tests.guests import guest
from tests.sandbox.test_limits import CHANGEABLE, FLOATS
from tests.sandbox.test_reactor import REACTOR


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    with clean_cluster_in(tmp_path_factory.mktemp("cluster")) as cluster:
        gateway = cluster.gateway()
        cluster.worker(gateway, "--slots", "1")
        yield gateway


def run(gateway: Gateway, id: str, wasm: bytes, files: bytes | None = None, **fields: Any) -> Any:
    """Run a guest once and return its result."""
    parts: dict[str, Any] = {"wasm": ("guest.wasm", wasm)}
    if files is not None:
        parts["files"] = ("in.zip", files)
    answer = gateway.client.post("/tasks", data={"id": id} | fields, files=parts)
    assert answer.status_code == 201, answer.text
    return gateway.ended(id)["results"][0]


def zip_of(**files: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, text in files.items():
            archive.writestr(name.replace("__", "/"), text)
    return buffer.getvalue()


def test_functions_of_floats_by_name(gateway: Gateway) -> None:
    result = run(gateway, "half", FLOATS, entry="half", args="-3.5")
    assert (result["state"], result["result"]) == ("succeeded", "-1.75")


def test_a_command_gets_files_and_gives_artifacts(gateway: Gateway) -> None:
    files = zip_of(data__in="what was sent")
    args = ["cat", "data/in", "mkdir", "out", "put", "out/new", "what was made"]
    result = run(gateway, "files", guest("files"), files, args=args, artifacts=["out", "data/in"])
    assert (result["state"], result["stdout"].splitlines()[0]) == ("succeeded", "cat 0 what was sent")
    answer = gateway.client.get(result["artifacts_url"])
    assert answer.headers["content-type"] == "application/zip"
    with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
        assert {name: archive.read(name) for name in archive.namelist() if not name.endswith("/")} == {
            "data/in": b"what was sent",
            "out/new": b"what was made",
        }
    assert result["files_bytes"] > 0


def test_one_run_finds_no_file_of_another(gateway: Gateway) -> None:
    run(gateway, "leaves", guest("files"), zip_of(), args=["put", "left", "secret"])
    result = run(gateway, "looks", guest("files"), zip_of(), args=["cat", "left"])
    assert result["stdout"].splitlines()[0] == "cat 44 "


def test_an_artifact_that_is_not_there_fails_the_run(gateway: Gateway) -> None:
    result = run(gateway, "lacks", guest("files"), args=["put", "here", "x"], artifacts="there")
    assert (result["state"], result["reason"]) == ("failed", "artifacts")
    assert "there" in result["detail"]


def test_a_full_file_system_fails_the_run_in_its_own_name(gateway: Gateway) -> None:
    result = run(gateway, "fills", guest("files"), zip_of(), args=["fill", "large"], files_max=1 << 20)
    assert (result["state"], result["reason"]) == ("failed", "files")
    assert str(1 << 20) in result["detail"]


def test_the_runs_of_a_task_share_a_reactor_and_those_of_others_do_not(gateway: Gateway) -> None:
    for id in ("reactor-1", "reactor-2"):
        answer = gateway.client.post("/tasks", data={"id": id, "repeats": 3}, files={"wasm": REACTOR, "stdin": b"a"})
        assert answer.status_code == 201, answer.text
        outputs = [result["stdout"] for result in gateway.ended(id)["results"]]
        assert sorted(outputs) == ["1a", "2a", "3a"]


def test_components_are_commands(gateway: Gateway) -> None:
    result = run(gateway, "component", components.ECHOES, stdin="through")
    assert (result["state"], result["exit_code"], result["stdout"]) == ("succeeded", 0, "through")
    assert run(gateway, "component-7", components.exits(7))["exit_code"] == 7
    late = run(gateway, "component-late", components.sleeps(60), duration="0.2")
    assert late["reason"] == "deadline"


def test_deterministic_runs_are_alike(gateway: Gateway) -> None:
    first, second, other = [
        run(gateway, f"deterministic-{number}", CHANGEABLE, deterministic="true", seed=seed)
        for number, seed in enumerate((5, 5, 6))
    ]
    assert first["stdout_base64"] == second["stdout_base64"] != other["stdout_base64"]
    assert first["fuel"] == second["fuel"] > 0


def test_fuel_and_processor_time_end_a_run_in_their_own_name(gateway: Gateway) -> None:
    dry = run(gateway, "dry", guest("spin"), input=0, fuel=100_000)
    assert (dry["reason"], dry["fuel"]) == ("fuel", 100_000)
    assert run(gateway, "busy", guest("spin"), input=0, cpu_seconds="0.1")["reason"] == "cpu"


def test_statistics(gateway: Gateway) -> None:
    result = run(gateway, "statistics", guest("hash"), input=7, difficulty=2)
    for name in ("queue_seconds", "compile_seconds", "instantiate_seconds", "wall_seconds", "cpu_seconds"):
        assert result[name] >= 0
    assert result["compile_seconds"] > 0
    assert result["memory_bytes"] > 0
