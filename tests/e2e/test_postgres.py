"""Gateways whose tasks are in PostgreSQL, with real processes: killed and started again, and so the server."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.leftovers import CleanCluster, clean_cluster_in
from tests.e2e.processes import Gateway, wait_until
from tests.gateway.postgres_server import PASSWORD, Server, running_server, why_no_server
from tests.guests import guest

pytestmark = pytest.mark.skipif(bool(why_no_server()), reason=why_no_server())


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with running_server() as server:
        yield server


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[CleanCluster]:
    with clean_cluster_in(tmp_path) as cluster:
        yield cluster


def runs_of(gateway: Gateway, id: str) -> dict[int, Any]:
    """Return every result by its run; a run with two fails."""
    results = gateway.client.get(f"/tasks/{id}/runs?limit=1000").json()
    assert len({result["run"] for result in results}) == len(results)
    return {result["run"]: result for result in results}


def test_a_gateway_that_is_killed_goes_on(cluster: CleanCluster, server: Server, tmp_path: Path) -> None:
    password = tmp_path / "password"
    password.write_text(f"{PASSWORD}\n")
    password.chmod(0o600)
    store = ("--store", server.tcp_url, "--store-password-file", str(password), "--store-schema", "killed")
    first = cluster.gateway(*store)
    worker = cluster.worker(first)
    first.post(guest("hash"), id="done", difficulty=3, repeats=2)
    done = first.ended("done")
    assert (done["status"], [each["result"] for each in done["results"]]) == ("succeeded", ["2832"] * 2)
    first.post(guest("spin"), id="open", input=120, repeats=6)
    first.post(guest("noop"), id="later", start=2, input=9)
    wait_until(lambda: first.task("open")["runs"]["succeeded"] >= 2, "two runs have succeeded")
    partly = runs_of(first, "open")
    first.kill()

    second = cluster.gateway(*store, "--listen", f"/ip4/127.0.0.1/tcp/{first.peer_port}", http=first.http)
    assert [task["id"] for task in second.client.get("/tasks").json()] == ["later", "open", "done"]
    assert second.task("done") == done, "what has ended never changes"
    for id, runs in (("open", 6), ("later", 1)):
        task = second.ended(id)
        assert (task["status"], task["completions"]) == ("succeeded", runs)
        assert sorted(runs_of(second, id)) == list(range(runs))
    after = runs_of(second, "open")
    assert {run: after[run] for run in partly} == partly, "results that are there are not made again"
    assert not (cluster.state / "gateway" / "ww.db").exists()
    assert cluster.program("db", "check", *store).wait() == 0
    assert "Traceback" not in second.log + worker.log
    assert PASSWORD not in second.log


def test_a_second_gateway_of_the_same_tables_is_refused(cluster: CleanCluster, server: Server, tmp_path: Path) -> None:
    store = ("--store", server.url, "--store-schema", "shared")
    cluster.gateway(*store)
    other = cluster.program("gateway", "--http", "127.0.0.1:0", *store, "--state", str(tmp_path / "other"))
    assert other.wait() == 1
    assert [line for line in other.lines if line.startswith("ww: ")] == [
        "ww: another gateway uses the schema shared of this database: name another with --store-schema"
    ]


def test_a_server_that_is_killed_and_comes_back(cluster: CleanCluster, server: Server) -> None:
    gateway = cluster.gateway("--store", server.url, "--store-schema", "back")
    cluster.worker(gateway)
    gateway.post(guest("spin"), id="open", input=50, repeats=20)
    wait_until(lambda: gateway.task("open")["runs"]["succeeded"] >= 2, "two runs have succeeded")
    server.kill()
    wait_until(lambda: gateway.client.get("/readyz").status_code == 503, "it says that it is not ready")
    (check,) = [each for each in gateway.client.get("/readyz").json()["checks"] if each["name"] == "database"]
    assert (check["ok"], check["detail"].partition(":")[0]) == (False, "the database cannot be written")
    answer = gateway.client.post("/tasks", data={"id": "new"}, files={"wasm": ("guest.wasm", guest("noop"))})
    assert answer.status_code == 503, answer.text
    assert "the database cannot be written: " in answer.json()["detail"]
    server.start()
    wait_until(lambda: gateway.client.get("/readyz").status_code == 200, "it is ready again")
    gateway.post(guest("noop"), id="new", input=1)
    for id, runs in (("new", 1), ("open", 20)):
        task = gateway.ended(id)
        assert (task["status"], task["completions"]) == ("succeeded", runs)
        assert sorted(runs_of(gateway, id)) == list(range(runs))
    assert "Traceback" not in gateway.log
