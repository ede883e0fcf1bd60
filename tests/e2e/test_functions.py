"""Python functions on a real cluster: what they return, how they end, hostile ones, and workers that die."""

import asyncio
import concurrent.futures
import os
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import ww
from tests.e2e import function_jobs as jobs
from tests.e2e.processes import Cluster, cluster_in, wait_until
from tests.guests import ROOT
from ww.client.call import Retry
from ww.errors import (
    BadResult,
    DeadlineExceeded,
    NotGranted,
    OutOfFuel,
    OutOfMemory,
    PeerError,
    RunFailed,
)
from ww.jobs.executor import Executor

pytestmark = pytest.mark.timeout(180)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with cluster_in(tmp_path_factory.mktemp("functions")) as cluster:
        # The guest is made once a machine.
        cluster.environment["XDG_CACHE_HOME"] = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
        yield cluster


@pytest.fixture(scope="module")
def gateway(cluster: Cluster) -> Any:
    gateway = cluster.gateway()
    cluster.worker(gateway, "--slots", "2")
    return gateway


def pool_of(cluster: Cluster, gateway: Any, **settings: Any) -> Executor:
    return Executor(gateway.address, state_directory=cluster.state, key=cluster.state / "gateway.key", **settings)


@pytest.fixture(scope="module")
def pool(cluster: Cluster, gateway: Any) -> Iterator[Executor]:
    with pool_of(cluster, gateway) as pool:
        yield pool


def test_values_go_there_and_come_back(pool: Executor) -> None:
    assert pool.submit(jobs.square, 3).result() == 9
    value = [jobs.Point(1), {"a": (1, 2.5)}, {1, 2}, b"\0", 2**100, None]
    assert pool.submit(jobs.echo, value).result() == value
    large = os.urandom(4_000_000)
    assert pool.submit(jobs.echo_large, large).result() == large
    with pytest.raises(BadResult, match="see output of its job"):
        pool.submit(jobs.echo, large).result()


def test_what_is_printed_is_in_the_future(pool: Executor) -> None:
    future = pool.submit(jobs.talk, "hello")
    assert future.result() is None
    assert future.stdout == "hello\nalso this\n"


def test_each_call_is_a_fresh_instance(pool: Executor) -> None:
    assert {pool.submit(jobs.count).result() for _ in range(5)} == {1}


def test_a_raised_exception_comes_back(pool: Executor) -> None:
    with pytest.raises(ValueError, match="bad value") as caught:
        pool.submit(jobs.fail, "value").result()
    assert isinstance(caught.value.__cause__, ww.RemoteTraceback)
    assert 'function_jobs.py", line' in str(caught.value.__cause__)
    with pytest.raises(jobs.Wrong, match="code 3") as wrong:
        pool.submit(jobs.fail, "wrong").result()
    assert wrong.value.hint == "look there"
    with pytest.raises(ww.RemoteException, match="SystemExit"):
        pool.submit(jobs.fail, "exit").result()
    with pytest.raises(RecursionError):
        pool.submit(jobs.recurse, 0).result()


def test_closures_and_lambdas_are_jobs_too(pool: Executor) -> None:
    assert list(pool.map(jobs.times(3), range(5))) == [0, 3, 6, 9, 12]
    assert list(pool.map(jobs.INCREASED, range(5))) == [1, 2, 3, 4, 5]
    assert list(pool.map(pow, [2, 3], [5, 2])) == [32, 9]
    assert list(pool.map(jobs.square, range(20), chunksize=7)) == [n * n for n in range(20)]


@pytest.mark.parametrize(
    ("job", "kind"),
    [
        (jobs.spin, DeadlineExceeded),
        (jobs.burn, OutOfFuel),
        (jobs.hoard, (OutOfMemory, MemoryError)),
        (jobs.chatter, BadResult),
    ],
)
def test_a_limit_ends_a_call_with_its_error(pool: Executor, job: Any, kind: Any) -> None:
    with pytest.raises(kind):
        pool.submit(job).result()
    assert pool.submit(jobs.square, 4).result() == 16


@pytest.mark.parametrize("how", ["no json", "pickle", "deep", "digits", "class", "nothing"])
def test_a_hostile_guest_gets_nothing_but_an_error(pool: Executor, how: str) -> None:
    with pytest.raises((BadResult, RunFailed)):
        pool.submit(jobs.lie, how).result()


def test_cancelling_ends_a_run_that_computes(pool: Executor, gateway: Any) -> None:
    futures = [pool.submit(jobs.spin_long), pool.submit(jobs.sleep_long)]
    wait_until(lambda: all(future.running() for future in futures))
    for future in futures:
        assert future.cancel()
        with pytest.raises(concurrent.futures.CancelledError):
            future.result()
    assert list(pool.map(jobs.square, range(4))) == [0, 1, 4, 9]


def test_jobs_call_what_was_granted(pool: Executor) -> None:
    assert pool.submit(jobs.sum_of_squares, 5).result() == 30
    assert pool.submit(jobs.tree, 3).result() == 8
    with pytest.raises(NotGranted, match="square is not granted"):
        pool.submit(jobs.ungranted).result()


def test_asyncio(cluster: Cluster, gateway: Any) -> None:
    async def main() -> None:
        settings = {"state_directory": cluster.state, "key": cluster.state / "gateway.key"}
        async with ww.connect(gateway.address, **settings) as connection:
            assert await connection.run(jobs.square, 3) == 9
            assert [n async for n in connection.map(jobs.square, range(50))] == [n * n for n in range(50)]
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.5):
                    await connection.run(jobs.sleep_long)
            assert await connection.run(jobs.square, 4) == 16

    asyncio.run(main())


def test_over_http(gateway: Any) -> None:
    with Executor(f"http://{gateway.http}") as pool:
        assert pool.submit(jobs.square, 3).result() == 9
        assert list(pool.map(jobs.square, range(50))) == [n * n for n in range(50)]
        with pytest.raises(ValueError, match="bad value"):
            pool.submit(jobs.fail, "value").result()


SCRIPT = """
    import ww

    FACTOR = 3

    class Thing:
        def __init__(self, n):
            self.n = n

    def times(thing):
        return thing.n * FACTOR

    @ww.job
    def work(thing):
        return times(thing)

    print(work.remote(Thing(5)))
    print(work.remote_fanout([Thing(n) for n in range(3)]))
    print(work.local(Thing(7)))
"""


def test_a_script_without_a_guard(cluster: Cluster, gateway: Any, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(textwrap.dedent(SCRIPT))
    environment = cluster.environment | {"WW_GATEWAY": gateway.address, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, str(script)], env=environment, capture_output=True, text=True, timeout=100, check=False
    )
    assert (done.stdout, done.stderr) == ("15\n[0, 3, 6]\n21\n", "")


def test_a_gateway_that_is_gone_fails_all_who_wait(tmp_path: Path, cluster: Cluster) -> None:
    with cluster_in(tmp_path) as other:
        other.environment["XDG_CACHE_HOME"] = cluster.environment["XDG_CACHE_HOME"]
        gateway = other.gateway()
        other.worker(gateway)
        with pool_of(other, gateway, retry=Retry(retries=2, first_s=0.05)) as pool:
            assert pool.submit(jobs.square, 3).result() == 9
            futures = [pool.submit(jobs.sleep_long) for _ in range(3)]
            wait_until(lambda: all(future.running() for future in futures))
            gateway.kill()
            for future in futures:
                with pytest.raises(PeerError):
                    future.result(100)


def test_a_map_outlives_its_workers(tmp_path: Path, cluster: Cluster) -> None:
    with cluster_in(tmp_path) as other:
        other.environment["XDG_CACHE_HOME"] = cluster.environment["XDG_CACHE_HOME"]
        gateway = other.gateway()
        workers = [other.worker(gateway) for _ in range(2)]
        with pool_of(other, gateway) as pool:
            results = pool.map(jobs.square, range(10_000))
            taken = [next(results) for _ in range(500)]
            workers[0].kill()
            other.worker(gateway)
            taken += [next(results) for _ in range(3000)]
            workers[1].kill()
            taken += list(results)
        assert taken == [n * n for n in range(10_000)]
