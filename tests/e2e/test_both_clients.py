"""The two kinds of client at one gateway: what one is answered, the other is."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.leftovers import CleanCluster, clean_cluster_in
from tests.e2e.processes import BOUND_S, Gateway
from tests.guests import ROOT, UNREACHABLE, guest, zipped
from ww.client import Client, Retry, connect
from ww.errors import WwError

ECHO, NOOP, FILES, SPIN = guest("echo"), guest("noop"), guest("files"), guest("spin")
PATIENT = Retry(retries=100, most_s=0.3)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CleanCluster]:
    with clean_cluster_in(tmp_path_factory.mktemp("both")) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def gateway(cluster: CleanCluster) -> Gateway:
    gateway = cluster.gateway("--stdin-max", "1M")
    cluster.worker(gateway)
    return gateway


def client_of(kind: str, cluster: CleanCluster, gateway: Gateway, **settings: Any) -> Client:
    if kind == "http":
        return connect(f"http://{gateway.http}", **settings)
    # Of the user whose gateway it is, as whoever uses HTTP on its machine is.
    key = cluster.state / "gateway.key"
    return connect(gateway.peer_id, state_directory=cluster.state, multicast=False, key=key, **settings)


@pytest.fixture(scope="module")
def clients(cluster: CleanCluster, gateway: Gateway) -> Iterator[list[Client]]:
    with client_of("http", cluster, gateway) as http, client_of("native", cluster, gateway) as native:
        yield [http, native]


@pytest.fixture(params=["http", "native"])
def client(clients: list[Client], request: pytest.FixtureRequest) -> Client:
    return clients[request.param == "native"]


def test_run(client: Client) -> None:
    assert [result.result for result in client.run(NOOP, input=4)] == ["4"]
    assert [(result.state, result.reason, result.exit_code) for result in client.run(ECHO, env={"EXIT": "3"})] == [
        ("failed", "exit", 3),
    ]  # fmt: skip
    assert [result.reason for result in client.run(UNREACHABLE)] == ["trap"]
    assert sorted((each.run, each.result) for each in client.run(NOOP, input=1, repeats=3)) == [
        (0, "1"), (1, "1"), (2, "1"),
    ]  # fmt: skip
    assert [result.run for result in client.run(NOOP, spread="everywhere")] == [0]
    large = bytes(900_000)
    assert [result.stdout == large for result in client.run(ECHO, stdin=large, output_bytes=1 << 20)] == [True]


def test_submit_with_its_end(client: Client) -> None:
    task = client.submit(NOOP, input=3, wait_s=20)
    assert (task.has_all_results, task.results[0].result) == (True, "3")
    task = client.submit(SPIN, input=60_000, wait_s=1)
    assert (task.has_ended, task.has_all_results) == (False, False)
    client.cancel(task.id)


@pytest.mark.parametrize("kind", ["http", "native"])
def test_a_run_that_takes_longer_than_answers_may(kind: str, cluster: CleanCluster, gateway: Gateway) -> None:
    with client_of(kind, cluster, gateway, timeout_s=0.5, retry=Retry(retries=0)) as impatient:
        assert [result.result for result in impatient.run(SPIN, input=1000)] == ["1000"]


REFUSED: dict[str, Callable[[Client], Any]] = {
    "module": lambda c: c.submit(b"nope"),
    "digest": lambda c: c.submit(f"sha256:{'0' * 64}"),
    "entry": lambda c: c.submit(NOOP, entry="nothing"),
    "repeats": lambda c: list(c.run(NOOP, repeats=0)),
    "spread": lambda c: c.submit(NOOP, spread="wide"),
    "type": lambda c: c.submit(NOOP, repeats="x"),  # type: ignore[arg-type]
    "nul": lambda c: c.submit(ECHO, args=["a\0b"]),
    "stdin": lambda c: c.submit(ECHO, stdin=bytes(2 << 20)),
    "files": lambda c: c.submit(FILES, files=b"no zip"),
    "conflict": lambda c: (c.submit(NOOP, id="c", input=1), c.submit(NOOP, id="c", input=2)),
    "id": lambda c: c.submit(NOOP, id="a/b"),
    "no task": lambda c: c.task("none"),
    "no stream": lambda c: list(c.stream("none")),
    "no run": lambda c: (c.submit(NOOP, id="r", wait_s=9), c.result("r", -1)),
    "no artifacts": lambda c: c.artifacts("c", 0),
    "status": lambda c: list(c.tasks(status="done")),
    "after": lambda c: list(c.tasks(after="none")),
    "limit": lambda c: list(c.tasks(limit=-1)),
    "results": lambda c: list(c.results("c", limit=-1)),
    "order": lambda c: list(c.stream("c", order="x")),  # type: ignore[arg-type]
    "place": lambda c: list(c.stream("c", after="x")),  # type: ignore[arg-type]
    "position": lambda c: list(c.events("c", after="x")),
    "upload": lambda c: c.upload(f"sha256:{'1' * 64}"),
    "batch": lambda c: c.submit_batch(ECHO, []),
    "batch type": lambda c: c.submit_batch(ECHO, "abc"),
    "batch run": lambda c: c.submit_batch(ECHO, [b"", 3]),  # type: ignore[list-item]
    "batch field": lambda c: c.submit_batch(ECHO, [b"", {"memory_bytes": 1}]),  # type: ignore[typeddict-unknown-key]
    "batch stdin": lambda c: c.submit_batch(ECHO, [b"", bytes(2 << 20)]),
    "batch seed": lambda c: c.submit_batch(ECHO, [b"", {"seed": -1}]),
    "batch files": lambda c: c.submit_batch(FILES, [{"files": b"no zip"}]),
    "batch module": lambda c: c.submit_batch(b"nope", [b""]),
    "batch repeats": lambda c: c.submit_batch(NOOP, [{"input": 1}], repeats=3),
    "batch everywhere": lambda c: c.submit_batch(NOOP, [{"input": 1}], spread="everywhere"),
    "batch name": lambda c: c.submit_batch(NOOP, [{"name": "x" * 5000}]),
}


@pytest.mark.parametrize("what", REFUSED)
def test_refusals_are_the_same(clients: list[Client], what: str) -> None:
    said = []
    for client in clients:
        with pytest.raises(WwError) as refused:
            REFUSED[what](client)
        said.append((type(refused.value), getattr(refused.value, "field", None)))
        assert "\n" not in str(refused.value)
    assert said[0] == said[1]


def test_batches(client: Client) -> None:
    runs: list[Any] = [b"a", "b", {"stdin": b"c", "name": "n"}, {"args": ["x"], "env": {"A": "1"}}]
    task = client.submit_batch(ECHO, runs, args=["y"], env={"B": "2"})
    results = list(client.stream(task.id, order="input"))
    assert [(each.name, each.stdout, sorted(each.stderr.split())) for each in results] == [
        ("", b"y\na", [b"B=2"]), ("", b"y\nb", [b"B=2"]), ("n", b"y\nc", [b"B=2"]), ("", b"x\n", [b"A=1", b"B=2"]),
    ]  # fmt: skip
    task = client.submit_batch(FILES, [{"files": zipped(note=b"hello"), "args": ["cat", "note"]}])
    assert [b"hello" in each.stdout for each in client.stream(task.id)] == [True]
    assert client.submit_batch(NOOP, iter([{"input": 1}]), id=task.id + "b").repeats == 1


@pytest.mark.parametrize("kind", ["http", "native"])
def test_a_run_over_a_kill(kind: str, tmp_path: Path) -> None:
    with clean_cluster_in(tmp_path) as cluster:
        gateway = cluster.gateway()
        cluster.worker(gateway)
        with client_of(kind, cluster, gateway, retry=PATIENT) as client:
            results = client.run(SPIN, input=400, repeats=4, id="t")
            first = next(iter(results)).run
            gateway.kill()
            cluster.gateway("--listen", f"/ip4/127.0.0.1/tcp/{gateway.peer_port}", http=gateway.http)
            assert sorted([first, *(result.run for result in results)]) == [0, 1, 2, 3]


# What the collector finds, it lets go of in the thread that it happens to run in: here in the program's own.
_COLLECTS = """
import gc, sys
gc.disable()
from ww.client import connect
client = connect(sys.argv[1], multicast=False)
for ask in (lambda: client.task("none"), lambda: client.submit(b"nope"), lambda: list(client.stream("none")),
            lambda: client.submit_batch(b"nope", [b""]), lambda: client.submit_batch(sys.argv[2], [b"", {"args": 3}]),
            lambda: list(client.events("none")), lambda: client.artifacts("none", 0),
            lambda: next(client.run(sys.argv[2])) and None):
    try:
        ask()
    except Exception:
        pass
gc.collect()
client.close()
del client
gc.collect()
print("whole")
"""


def test_nothing_of_the_client_s_loop_is_left_to_another_thread(cluster: CleanCluster, gateway: Gateway) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _COLLECTS, gateway.peer_id, "wasm/echo/echo.wasm"],
        cwd=ROOT, env=cluster.environment, capture_output=True, timeout=BOUND_S, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (0, b"whole\n", b"")
