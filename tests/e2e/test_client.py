"""The Python client and real processes: when a gateway is killed while a client waits, follows or submits, nothing is
lost, and nothing is there twice."""

import asyncio
import hashlib
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.leftovers import CleanCluster, clean_cluster_in
from tests.e2e.processes import BOUND_S, Gateway, wait_until
from tests.guests import function, guest
from ww.client import AsyncClient, Client, Event, Retry
from ww.errors import BadModule, NotFound, Overloaded, PeerError

# A gateway takes about a second to start, and more on a busy machine.
PATIENT = Retry(retries=100, most_s=0.3)


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[CleanCluster]:
    with clean_cluster_in(tmp_path) as cluster:
        yield cluster


def again(cluster: CleanCluster, gateway: Gateway) -> Gateway:
    return cluster.gateway("--listen", f"/ip4/127.0.0.1/tcp/{gateway.peer_port}", http=gateway.http)


def wait_succeeded(gateway: Gateway, id: str, runs: int) -> None:
    wait_until(lambda: gateway.task(id)["runs"]["succeeded"] >= runs, f"{runs} runs of {id} have succeeded")


def client_of(gateway: Gateway, **settings: Any) -> Client:
    return Client(f"http://{gateway.http}", **{"retry": PATIENT} | settings)


class Doing:
    """Something that is done in a thread, with what comes of it."""

    def __init__(self, do: Callable[[], Any]) -> None:
        self.value: Any = None
        self.error: BaseException | None = None
        self._do = do
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self.value = self._do()
        except BaseException as error:
            self.error = error

    def end(self) -> Any:
        self._thread.join(BOUND_S)
        assert not self._thread.is_alive()
        if self.error is not None:
            raise self.error
        return self.value


def test_all_of_it(cluster: CleanCluster, tmp_path: Path) -> None:
    gateway = cluster.gateway()
    worker = cluster.worker(gateway)
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "note").write_text("hello")
    with client_of(gateway) as client:
        task = client.submit("wasm/hash/hash.wasm", input=0, difficulty=3, repeats=3)
        assert client.wait(task.id).status == "succeeded"
        assert [result.result for result in client.results(task.id)] == ["2832"] * 3
        events = list(client.events(task.id))
        assert sorted(event.run.run for event in events if event.run is not None) == [0, 1, 2]
        assert events[-1].task is not None
        assert events[-1].task.has_ended

        task = client.submit(guest("echo"), args=["a"], env={"EXIT": "7"}, stdin=b"\xff\0\n")
        task = client.wait(task.id)
        (result,) = task.results
        assert (task.status, result.reason, result.exit_code) == ("failed", "exit", 7)
        assert (result.stdout, result.stderr) == (b"a\n\xff\0\n", b"EXIT=7\n")

        task = client.submit(
            guest("files"), args=["mkdir", "out", "put", "out/x", "y"], files=tmp_path / "in", artifacts=["/"]
        )
        assert client.wait(task.id).status == "succeeded"
        assert client.artifacts(task.id, 0).startswith(b"PK")
        assert [entry.peer for entry in client.workers()] == [worker.peer_id]
        assert client.health().peer == gateway.peer_id
        with pytest.raises(BadModule):
            client.submit(b"hello")
        with pytest.raises(NotFound):
            list(client.events("none"))


def test_waiting_over_a_kill(cluster: CleanCluster) -> None:
    gateway = cluster.gateway()
    cluster.worker(gateway)
    with client_of(gateway) as client:
        task = client.submit(guest("spin"), input=1000, repeats=2)
        waiting = Doing(lambda: client.wait(task.id))
        wait_until(lambda: gateway.task(task.id)["runs"]["running"])
        gateway.kill()
        gateway = again(cluster, gateway)
        assert (waiting.end().status, gateway.task(task.id)["completions"]) == ("succeeded", 2)


def test_events_over_kills_tell_each_run_once(cluster: CleanCluster) -> None:
    gateway = cluster.gateway()
    cluster.worker(gateway)
    with client_of(gateway) as client:
        task = client.submit(guest("spin"), input=20, repeats=60)
        events: list[Event] = []
        following = Doing(lambda: events.extend(client.events(task.id)) or events)

        # extend takes them as they come.
        def ended() -> int:
            return sum(event.run is not None and event.run.has_ended for event in events)

        for kills in (1, 2):
            wait_succeeded(gateway, task.id, 15 * kills)
            gateway.kill()
            gateway = again(cluster, gateway)
        following.end()
    assert ended() == 60
    assert sorted(e.run.run for e in events if e.run is not None and e.run.has_ended) == list(range(60))
    assert events[-1].task is not None
    assert events[-1].task.status == "succeeded"
    positions = [event.position or 0 for event in events]
    assert positions == sorted(positions)


def test_events_go_on_from_a_position(cluster: CleanCluster) -> None:
    gateway = cluster.gateway()
    cluster.worker(gateway)
    with client_of(gateway) as client:
        task = client.submit(guest("noop"), repeats=10)
        client.wait(task.id)
        told = [event for event in client.events(task.id) if event.run is not None]
        later = [event for event in client.events(task.id, after=told[5].position) if event.run is not None]
        assert [event.run for event in later] == [event.run for event in told[6:]]
        assert [event.run for event in client.events(task.id, after=told[9].position)] == [None], "its end alone"


def test_submitting_over_a_kill_makes_one_task(cluster: CleanCluster) -> None:
    gateway = cluster.gateway()
    with client_of(gateway) as client:
        client.health()
        gateway.kill()
        submitting = Doing(lambda: [client.submit(guest("noop"), input=n).id for n in range(20)])
        gateway = again(cluster, gateway)
        gateway.kill()
        gateway = again(cluster, gateway)
        ids = submitting.end()
        assert sorted(task.id for task in client.tasks()) == sorted(ids)


def test_a_gateway_that_stays_away_is_said_in_one_line(cluster: CleanCluster) -> None:
    gateway = cluster.gateway()
    with client_of(gateway, retry=Retry(retries=2)) as client:
        task = client.submit(guest("noop"), start_s=1000)
        gateway.kill()
        says = rf"^no gateway at http://{gateway.http}: connection refused$"
        for ask in (lambda: client.wait(task.id), lambda: list(client.events(task.id)), client.workers):
            with pytest.raises(PeerError, match=says):
                ask()


def test_a_frozen_gateway_is_given_up(cluster: CleanCluster) -> None:
    gateway = cluster.gateway()
    with client_of(gateway, retry=Retry(retries=1), timeout_s=0.2) as client:
        client.health()
        os.kill(gateway.pid, 19)
        with pytest.raises(PeerError, match=r"it says nothing for 0\.2 s"):
            client.workers()
        os.kill(gateway.pid, 18)
        assert client.workers() == []


def test_asyncio_too(cluster: CleanCluster) -> None:
    gateway = cluster.gateway()
    cluster.worker(gateway)

    async def main() -> None:
        async with AsyncClient(f"http://{gateway.http}", retry=PATIENT) as client:
            tasks = await asyncio.gather(*(client.submit(guest("noop"), input=n, repeats=3) for n in range(5)))
            for task in tasks:
                events = [event async for event in client.events(task.id)]
                ended = [event.run.run for event in events if event.run is not None and event.run.has_ended]
                assert sorted(ended) == [0, 1, 2]
                assert [result.run async for result in client.results(task.id)] == [0, 1, 2]
            task = await client.submit(guest("spin"), input=0)
            statuses = []
            async with aclosing(client.events(task.id)) as watched:
                async for event in watched:
                    if event.run is not None and event.run.state == "running":
                        await client.cancel(task.id)
                    if event.task is not None:
                        statuses.append(event.task.status)
            assert statuses[-1] == "cancelled"

    asyncio.run(main())


def test_a_module_is_sent_once(cluster: CleanCluster) -> None:
    gateway = cluster.gateway()
    cluster.worker(gateway)
    large = function("(i32.const 7)", f'(memory 2) (data (i32.const 0) "{"x" * 100_000}")')
    path = f"/modules/sha256:{hashlib.sha256(large).hexdigest()}"
    with client_of(gateway) as client:
        assert gateway.client.head(path).status_code == 404
        first = client.submit(large)
        assert gateway.client.head(path).status_code == 200
        again = client.submit(large, description="again")
        assert first.module == again.module == client.upload(large) == client.upload(first.module)
        for task in (first, again, client.submit(first.module)):
            assert [result.result for result in client.wait(task.id).results] == ["7"]
        with pytest.raises(NotFound):
            client.upload("sha256:" + "0" * 64)
        with pytest.raises(BadModule):
            client.upload(b"no module")


def test_a_full_gateway_is_waited_for_and_then_said(cluster: CleanCluster) -> None:
    gateway = cluster.gateway("--tasks-max", "1")
    with client_of(gateway, retry=Retry(retries=20, retry_after_most_s=0.05)) as client:
        first = client.submit(guest("noop"))
        submitting = Doing(lambda: client.submit(guest("noop"), id="second"))
        client.cancel(first.id)
        assert submitting.end().id == "second"
    with client_of(gateway, retry=Retry(retries=1, retry_after_most_s=0)) as client:
        with pytest.raises(Overloaded):
            client.submit(guest("noop"))
        assert client.submit(guest("noop"), id="second").id == "second", "which is no new one"
