"""To which workers a task's runs go: to whoever is free, in turn, by chance, or to each once."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.conftest import until
from tests.gateway.scheduling import Gateway, next_run, open_gateway
from ww.errors import Conflict, Overloaded
from ww.gateway.task import RunState

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("kj_loop")]


@pytest.fixture
async def gateway(tmp_path: Path) -> AsyncIterator[Gateway]:
    async with open_gateway(tmp_path) as gateway:
        yield gateway


async def test_in_turn_all_get_the_same_number(gateway: Gateway) -> None:
    workers = [await gateway.worker(slots, is_quick=True) for slots in (1, 2, 1)]
    await gateway.submit("a", repeats=30, spread="roundrobin")
    results = await gateway.ended("a")
    assert Counter(result.worker for result in results) == {worker.peer_id: 10 for worker in workers}


async def test_in_turn_a_busy_worker_is_waited_for_and_holds_up_nobody_else(gateway: Gateway) -> None:
    busy = await gateway.worker()
    await gateway.submit("long")
    run = await next_run(busy)
    await gateway.worker(is_quick=True)
    await gateway.submit("a", repeats=4, spread="roundrobin")
    await gateway.submit("b", repeats=4)
    await gateway.ended("b")
    task = gateway.scheduler.task("a")
    assert task is not None
    async with asyncio.timeout(10):
        while task.succeeded < 1:
            await gateway.pass_time(0.05)
    for _ in range(5):
        await gateway.pass_time(0.3)
    assert task.succeeded == 1, "the next is the busy one's"
    busy.is_quick = True
    run.end()
    results = await gateway.ended("a")
    assert Counter(result.worker for result in results)[busy.peer_id] == 2


async def test_in_turn_who_leaves_is_left_out(gateway: Gateway) -> None:
    first, second = await gateway.worker(is_quick=True), await gateway.worker()
    await gateway.submit("a", repeats=20, spread="roundrobin")
    await next_run(second)
    second.disconnect()
    results = await gateway.ended("a")
    assert {result.worker for result in results} == {first.peer_id}
    assert {result.state for result in results} == {RunState.SUCCEEDED}


async def test_by_chance_each_gets_some(gateway: Gateway) -> None:
    workers = [await gateway.worker(is_quick=True) for _ in range(2)]
    await gateway.submit("a", repeats=200, spread="random")
    counts = Counter(result.worker for result in await gateway.ended("a"))
    assert set(counts) == {worker.peer_id for worker in workers}


async def test_everywhere_is_each_worker_once(gateway: Gateway) -> None:
    workers = [await gateway.worker(slots, is_quick=True) for slots in (1, 3, 1)]
    await gateway.submit("a", spread="everywhere")
    results = await gateway.ended("a")
    assert [result.run for result in results] == [0, 1, 2]
    assert [result.worker for result in results] == [worker.peer_id for worker in workers]
    await gateway.worker(is_quick=True)
    await gateway.submit("a", spread="everywhere")  # the same task, however many there are by now
    with pytest.raises(Conflict):
        await gateway.submit("a", spread="pull")


async def test_everywhere_is_those_who_could_run_it(gateway: Gateway) -> None:
    gpu = await gateway.worker(is_quick=True, labels=[{"key": "gpu", "value": "yes"}])
    await gateway.worker(is_quick=True)
    await gateway.submit("a", spread="everywhere", labels=(("gpu", "yes"),))
    assert [result.worker for result in await gateway.ended("a")] == [gpu.peer_id]
    with pytest.raises(Overloaded, match="no worker is here that could run it"):
        await gateway.submit("b", spread="everywhere", labels=(("gpu", "no"),))
    assert await gateway.store.task("b") is None


async def test_everywhere_waits_for_the_busy_and_not_for_ever_for_who_is_gone(gateway: Gateway) -> None:
    workers = [await gateway.worker() for _ in range(3)]
    await gateway.submit("a", spread="everywhere")
    runs = [await next_run(worker) for worker in workers]
    runs[0].end()
    workers[1].disconnect()
    workers[2].run_error = None
    await gateway.pass_time(20.0)
    task = gateway.scheduler.task("a")
    assert task is not None
    runs[2].end()
    for _ in range(60):
        await gateway.pass_time(0.3)
    results = await gateway.ended("a")
    assert [(result.state, result.outcome.reason) for result in results] == [
        (RunState.SUCCEEDED, ""),
        (RunState.FAILED, "lost"),
        (RunState.SUCCEEDED, ""),
    ]
    assert results[1].worker == workers[1].peer_id
    assert results[1].outcome.detail == "its worker is gone"


async def test_everywhere_goes_on_after_a_restart(tmp_path: Path) -> None:
    async with open_gateway(tmp_path) as gateway:
        first, second = await gateway.worker(), await gateway.worker()
        await gateway.submit("a", spread="everywhere")
        (await next_run(second)).end()
        await next_run(first)
        task = gateway.scheduler.task("a")
        assert task is not None
        async with asyncio.timeout(10):
            while task.succeeded < 1:
                await gateway.pass_time(0.05)
    async with open_gateway(tmp_path) as gateway:
        task = gateway.scheduler.task("a")
        assert task is not None
        assert task.counts(gateway.clock.now())[RunState.SUCCEEDED] == 1
        for _ in range(150):
            await gateway.pass_time(0.3)
        results = await gateway.ended("a")
        assert [result.outcome.reason for result in results] == ["lost", ""]


async def test_a_survey_is_cancelled_like_any_task(gateway: Gateway) -> None:
    workers = [await gateway.worker() for _ in range(2)]
    await gateway.submit("a", spread="everywhere", start_s=0.0)
    runs = [await next_run(worker) for worker in workers]
    await gateway.cancel("a")
    await until(lambda: all(run.cancels == 1 for run in runs))
