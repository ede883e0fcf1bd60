"""The executor and the connection over a fake gateway: what concurrent.futures and asyncio promise."""

import asyncio
import concurrent.futures
import gc
import os
from collections.abc import Iterator
from typing import Any

import pytest

import ww
from tests.jobs import fake_cluster, pieces
from ww.errors import NotSendable, UsageError
from ww.jobs.cluster import Cluster
from ww.jobs.executor import Executor


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    with fake_cluster.FakeCluster() as fake:
        fake.serve(pieces.square, pieces.add, pieces.echo, pieces.fail)
        fake.client.functions["tests.jobs.pieces:plain"] = pieces.plain
        monkeypatch.setattr(Cluster, "_opened", lambda cluster: _attached(cluster, fake.dispatcher))
        yield fake


def _attached(cluster: Any, dispatcher: Any) -> Any:
    cluster._dispatcher = dispatcher
    return dispatcher


def test_submit_and_map_are_those_of_an_executor(fake: Any) -> None:
    with Executor() as pool:
        assert isinstance(pool, concurrent.futures.Executor)
        assert pool.submit(pieces.square, 3).result(10) == 9
        assert pool.submit(pieces.plain, 3, by=2).result(10) == 6
        assert list(pool.map(pieces.square, range(10_000), chunksize=0)) == [n * n for n in range(10_000)]
        assert list(pool.map(pieces.add, range(3), [10, 20])) == [10, 21]
        assert list(pool.map(pieces.square, range(100), chunksize=30)) == [n * n for n in range(100)]
        futures = [pool.submit(pieces.square, n) for n in range(3)]
        assert {future.result() for future in concurrent.futures.as_completed(futures)} == {0, 1, 4}


def test_options_hold_for_plain_functions(fake: Any) -> None:
    with Executor(job={"timeout_s": 7}) as pool:
        pool.submit(pieces.plain, 3).result(10)
    (task,) = fake.client.tasks.values()
    assert task["duration_s"] == 7
    with pytest.raises(UsageError, match=r"^timeout_s"):
        Executor(job={"timeout_s": -1})
    with pytest.raises(UsageError, match=r"^seconds: no option of a job"):
        Executor(job={"seconds": 1})


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
def test_an_interrupted_block_does_not_wait_for_its_calls(fake: Any, kind: type[BaseException]) -> None:
    fake.link.do(fake.client.gate.clear)
    futures = []

    def block() -> None:
        with Executor() as pool:
            futures.append(pool.submit(pieces.square, 3))
            raise kind

    with pytest.raises(kind):
        block()
    assert futures[0].cancelled()


def test_after_shutdown_nothing_is_taken(fake: Any) -> None:
    pool = Executor()
    future = pool.submit(pieces.square, 3)
    pool.shutdown()
    assert future.done()
    with pytest.raises(RuntimeError, match="after shutdown"):
        pool.submit(pieces.square, 3)
    with pytest.raises(RuntimeError, match="after shutdown"):
        pool.map(pieces.square, [3])
    pool.shutdown()


def test_shutdown_can_cancel_what_is_under_way(fake: Any) -> None:
    fake.link.do(fake.client.gate.clear)
    pool = Executor()
    futures = [pool.submit(pieces.square, n) for n in range(20)]
    pool.shutdown(cancel_futures=True)
    assert all(future.cancelled() for future in futures)


def test_shutdown_without_waiting_lets_calls_end(fake: Any) -> None:
    fake.link.do(fake.client.gate.clear)
    pool = Executor()
    future = pool.submit(pieces.square, 4)
    pool.shutdown(wait=False)
    fake.link.do(fake.client.gate.set)
    assert future.result(10) == 16


def test_what_cannot_travel_fails_when_it_is_submitted(fake: Any) -> None:
    with Executor() as pool, open(os.devnull) as file:
        with pytest.raises(NotSendable, match=r"cannot send argument 1 of square: an open file \(null\)"):
            pool.submit(pieces.square, file)  # type: ignore[arg-type]
        with pytest.raises(NotSendable, match="argument 1 of square"):
            pool.map(pieces.square, [1, file])
    assert all(len(task["runs"]) <= 1 for task in fake.client.tasks.values())


def test_a_map_that_was_left_is_waited_for(fake: Any) -> None:
    with Executor() as pool:
        results = pool.map(pieces.square, range(100))
    assert list(results) == [n * n for n in range(100)]


def test_an_event_loop_takes_it_as_an_executor(fake: Any) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        with Executor() as pool:
            assert await loop.run_in_executor(pool, pieces.square, 3) == 9

    asyncio.run(main())


def test_a_connection_serves_any_loop(fake: Any) -> None:
    async def main() -> None:
        async with ww.connect() as cluster:
            assert await cluster.run(pieces.square, 3) == 9
            assert await cluster.submit(pieces.plain, 3) == 9
            assert [n async for n in cluster.map(pieces.square, range(5))] == [0, 1, 4, 9, 16]
            with pytest.raises(KeyError):
                await cluster.run(pieces.fail, "key")

    asyncio.run(main())


def test_a_connection_serves_code_without_a_loop(fake: Any) -> None:
    with ww.connect() as cluster:
        assert cluster.submit(pieces.square, 3).result(10) == 9
        assert list(cluster.map(pieces.add, [(1, 2), (3, 4)], star=True)) == [3, 7]


def test_jobs_use_the_shared_cluster(fake: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from ww.jobs import cluster

    monkeypatch.setattr(cluster, "shared", lambda: fake)
    assert pieces.square.remote(3) == 9
    assert pieces.square.remote_async(4).result(10) == 16
    assert pieces.square.remote_fanout([1, 2, 3]) == [1, 4, 9]
    assert pieces.add.remote_fanout([(1, 2), (3, 4)], fanout="roundrobin", star=True) == [3, 7]
    assert [task.get("spread") for task in fake.client.tasks.values()][-1] == "roundrobin"
    with pytest.raises(UsageError, match="fanout"):
        pieces.square.remote_fanout([1], fanout="everywhere")
    with pytest.raises(UsageError, match="items: expected a list"):
        pieces.square.remote_fanout(3)  # type: ignore[arg-type]


# Pythons from 3.12 on say that it may deadlock: a child that is told so does not.
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_forked_process_is_told_so(fake: Any) -> None:
    fake.link.do(fake.client.gate.clear)
    future = Cluster().submit(pieces.square, (3,), {})
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            try:
                future.result()
            except UsageError as error:
                os.write(write, str(error).encode())
        finally:
            os._exit(0)
    os.close(write)
    with os.fdopen(read) as said:
        assert "before this process was forked" in said.read()
    os.waitpid(pid, 0)
    fake.link.do(fake.client.gate.set)
    assert future.result(10) == 9
    gc.collect()
