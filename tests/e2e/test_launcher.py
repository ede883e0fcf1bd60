"""cmd/scheduler.py for real: a gateway and a worker started by it do a task together."""

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.e2e.leftovers import CleanCluster, clean_cluster_in
from tests.e2e.processes import BOUND_S
from tests.guests import guest

LAUNCHER = ("cmd/scheduler.py",)


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[CleanCluster]:
    with clean_cluster_in(tmp_path) as cluster:
        yield cluster


@pytest.mark.parametrize("flag", ["--gateway", "--gateway=true"])
def test_gateway_and_worker_of_a_checkout(cluster: CleanCluster, flag: str) -> None:
    gateway = cluster.program(flag, "--http", "127.0.0.1:0", command=LAUNCHER)
    http = gateway.logged(r"HTTP on http://(\S+)")[1]
    peer_id = gateway.stdout_line()
    worker = cluster.program("--gateway=false", "--dial", peer_id, "--slots", "1", command=LAUNCHER)
    worker.logged(f"joined gateway {peer_id}")
    with httpx.Client(base_url=f"http://{http}", timeout=BOUND_S) as client:
        answer = client.post("/tasks", data={"id": "a", "difficulty": "3"}, files={"wasm": ("h.wasm", guest("hash"))})
        assert answer.status_code == 201
        task = client.get("/tasks/a?wait=20").json()
    assert [result["result"] for result in task["results"]] == ["2832"]


def test_the_variable_alone_makes_a_gateway(cluster: CleanCluster) -> None:
    cluster.environment |= {"WW_GATEWAY": "true", "WW_HTTP": "127.0.0.1:0"}
    gateway = cluster.program(command=LAUNCHER)
    gateway.logged(r"HTTP on http://127.0.0.1:\d+")
    assert gateway.stdout_line().startswith("12D3KooW")


@pytest.mark.parametrize(
    ("arguments", "variable"), [(["--gateway=maybe"], ""), ([], "maybe")], ids=["argv", "variable"]
)
def test_neither_true_nor_false_is_wrong_usage(cluster: CleanCluster, arguments: list[str], variable: str) -> None:
    cluster.environment |= {"WW_GATEWAY": variable}
    launcher = cluster.program(*arguments, command=LAUNCHER)
    assert launcher.wait() == 2
    (line,) = launcher.lines
    assert ("WW_GATEWAY" if variable else "--gateway") in line
    assert "expected true or false" in line
