"""Python functions as tasks, with real gateways, workers and sandboxes: calls within calls, and what disturbs them."""

import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.processes import Cluster, Gateway, wait_until
from tests.e2e.test_native_client import client_of
from tests.guests import zipped
from ww.client.native import NativeClient
from ww.python.build import component_path
from ww.python.request import write_call

pytestmark = pytest.mark.timeout(240)

SOURCE = b"""
import time
import ww

@ww.job()
def leaf(n):
    return n + 1

@ww.job(grants=[leaf])
def middle(n):
    return sum(leaf.remote_fanout(range(n)))

@ww.job(grants=[middle])
def top(n):
    return sum(middle.remote_fanout([n] * 3))

def plain(n):
    return n * n

@ww.job()
def sleeps(s):
    time.sleep(s)
    return s

@ww.job(grants=[sleeps])
def waits(s):
    return sleeps.remote(s)

@ww.job()
def steals():
    return leaf.remote(1)

@ww.job(grants=[steals])
def catches():
    try:
        return steals.remote()
    except Exception as error:
        return [type(error).__name__, str(error)]

def deep(n):
    return 0 if not n else 1 + again.remote(n - 1)

again = ww.job(deep)
"""
CODE = zipped(**{"m.py": SOURCE})


@pytest.fixture(scope="session")
def component() -> Path:
    return component_path()


@pytest.fixture
def gateway(cluster: Cluster) -> Gateway:
    return cluster.gateway()


@pytest.fixture
def client(cluster: Cluster, gateway: Gateway, component: Path) -> Iterator[NativeClient]:
    with client_of(cluster, gateway.address) as client:
        client.upload(component)
        yield client


def grants(*names: str, **values: Any) -> list[Any]:
    """Grant functions, the first to the task and each other to the one before it."""
    pairs = itertools.zip_longest(names, names[1:])
    return [
        {"name": f"m:{name}", "duration_s": 120.0, "grants": [f"m:{after}"] if after else []}
        | ({"indirect": True} if place else {})
        | values
        for place, (name, after) in enumerate(pairs)
    ]


def submit(client: NativeClient, component: Path, function: str, *args: Any, **fields: Any) -> str:
    given = {"args": [f"m:{function}"], "files": CODE, "stdin": write_call(args, {}), "duration_s": 120.0}
    return client.submit(component, **given | fields).id  # type: ignore[arg-type]


def value(client: NativeClient, id: str) -> Any:
    (result,) = client.stream(id)
    assert (result.state, result.reason) == ("succeeded", None), (result.detail, result.stderr)
    return json.loads(result.stdout)


def test_a_batch_of_calls(cluster: Cluster, gateway: Gateway, client: NativeClient, component: Path) -> None:
    cluster.worker(gateway, "--slots", "2")
    calls = [write_call((n,), {}) for n in range(1000)]
    task = client.submit_batch(component, calls, args=["m:plain"], files=CODE)
    found = {result.run: json.loads(result.stdout) for result in client.stream(task.id)}
    assert found == {n: n * n for n in range(1000)}


def test_calls_within_calls_end_on_one_slot(
    cluster: Cluster, gateway: Gateway, client: NativeClient, component: Path
) -> None:
    cluster.worker(gateway, "--slots", "1")
    ids = [submit(client, component, "top", 4, grants=grants("middle", "leaf")) for _ in range(20)]
    assert [value(client, id) for id in ids] == [3 * (1 + 2 + 3 + 4)] * 20
    (worker,) = wait_until(lambda: [each for each in client.workers() if each.free == 1])
    assert worker.slots == 1


def test_what_is_not_granted_is_not_called_and_depth_has_a_bound(
    cluster: Cluster, gateway: Gateway, client: NativeClient, component: Path
) -> None:
    cluster.worker(gateway, "--slots", "1")
    name, text = value(client, submit(client, component, "catches", grants=grants("steals")))
    assert (name, text) == ("NotGranted", text)
    assert "leaf is not granted to this job" in text
    of_itself = [{"name": "m:deep", "duration_s": 120.0, "grants": ["m:deep"]}]
    assert value(client, submit(client, component, "deep", 4, grants=of_itself)) == 4
    (result,) = client.stream(submit(client, component, "deep", 5, grants=of_itself))
    assert (result.state, result.reason) == ("failed", "exit")
    assert b"--nesting" in result.stdout


def nested(client: NativeClient, parent: str) -> list[Any]:
    return [task for task in client.tasks() if task.parent == parent]


@pytest.mark.parametrize("how", ["the task is cancelled", "the worker is killed", "the gateway is killed"])
def test_what_a_run_called_goes_with_it(
    cluster: Cluster, gateway: Gateway, client: NativeClient, component: Path, how: str
) -> None:
    worker = cluster.worker(gateway, "--slots", "1")
    id = submit(client, component, "waits", 3.0, grants=grants("sleeps"))
    (first,) = wait_until(lambda: [task for task in nested(client, id) if task.status == "running"], bound_s=100)
    if how == "the task is cancelled":
        client.cancel(id)
        assert wait_until(lambda: client.task(first.id).has_ended)
        assert client.task(first.id).status == "cancelled"
        return
    if how == "the worker is killed":
        worker.kill()
        cluster.worker(gateway, "--slots", "1")
    else:
        gateway.kill()
        gateway = cluster.gateway()
    assert value(client, id) == 3.0
    assert client.task(first.id).status == "cancelled"
    assert [task.status for task in nested(client, id)] == ["succeeded", "cancelled"]
