"""Workers that lie, refuse or fail: what they can do to tasks, and to what others are given."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import until
from tests.gateway.scheduling import Gateway, next_run, open_gateway
from ww.errors import Draining, StoreError, WwError
from ww.gateway.breaker import BreakerConfig
from ww.gateway.task import RunState

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("kj_loop")]


@pytest.fixture
async def gateway(tmp_path: Path) -> AsyncIterator[Gateway]:
    async with open_gateway(tmp_path, config={"tasks_max": 100, "breaker": BreakerConfig(3, 100.0)}) as gateway:
        yield gateway


async def test_a_worker_that_says_it_is_stopping_gets_nothing_more(gateway: Gateway) -> None:
    stopping = await gateway.worker()
    stopping.offers_again, stopping.run_error = True, Draining("this worker is stopping")
    await gateway.submit("a")
    await until(lambda: stopping.leases_ended > 0 and gateway.free_slots == 1)
    for _ in range(20):
        await gateway.pass_time(0.3)
    assert stopping.leases_ended == 1
    other = await gateway.worker()
    (await next_run(other)).end()
    (result,) = await gateway.ended("a")
    assert result.attempts == 1


async def test_an_absurd_time_is_held_to_what_a_run_can_take(gateway: Gateway) -> None:
    worker = await gateway.worker()
    worker.offers_again = True
    await gateway.submit("a", repeats=2)
    (await next_run(worker)).end(wall_s=1e300)
    await next_run(worker, 2)
    task = gateway.scheduler.task("a")
    assert task is not None
    assert 0 < task.charged_s < 1000
    worker.runs[1].end()
    assert max(result.outcome.wall_s for result in await gateway.ended("a")) < 100


async def test_a_worker_that_loses_what_runs_elsewhere_gets_nothing_for_a_while(gateway: Gateway) -> None:
    good = await gateway.worker()
    good.offers_again = True
    await gateway.submit("before")
    (await next_run(good)).end()
    await gateway.ended("before")
    await until(lambda: gateway.free_slots == 1)
    bad = await gateway.worker()
    bad.offers_again, bad.run_error = True, WwError("its disk is full")
    await gateway.submit("a", repeats=8, duration_s=1000.0)
    await next_run(good, 2)  # it is busy: the other one would be given all the rest, and lose it
    async with asyncio.timeout(10):
        while bad.leases_ended < 3:
            await gateway.pass_time(0.1)
    for _ in range(100):  # in which it would be asked again and again
        await gateway.pass_time(0.1)
    assert bad.leases_ended == 3
    async with asyncio.timeout(10):
        while gateway.scheduler.task("a") is not None:
            for run in good.open_runs:
                run.end()
            await gateway.pass_time(0.1)
    assert {result.state for result in await gateway.ended("a")} == {RunState.SUCCEEDED}


async def test_a_module_that_fails_everywhere_takes_no_worker_out(gateway: Gateway) -> None:
    for _ in range(2):
        worker = await gateway.worker()
        worker.offers_again, worker.load_error = True, WwError("it is too large for this worker")
    await gateway.submit("a", repeats=3)
    results = await gateway.ended("a")
    assert [(result.state, result.outcome.reason) for result in results] == [("failed", "lost")] * 3
    assert {entry.breaker for entry, _ in gateway.scheduler.pool.workers()} == {"closed"}


async def test_what_crashed_is_tried_elsewhere(gateway: Gateway) -> None:
    first = await gateway.worker()
    first.offers_again = True
    await gateway.submit("before")
    (await next_run(first)).end()  # it would be preferred: it has the module
    await gateway.ended("before")
    await until(lambda: gateway.free_slots == 1)
    other = await gateway.worker()
    await gateway.submit("a")
    (await next_run(first, 2)).end(reason="crash")
    async with asyncio.timeout(10):
        while not other.runs:
            assert len(first.runs) == 2
            await gateway.pass_time(0.05)
    other.runs[0].end()
    assert [result.state for result in await gateway.ended("a")] == [RunState.SUCCEEDED]


async def test_files_that_this_gateway_cannot_read_are_not_the_workers_fault(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refuse(_: Any) -> bytes:
        raise StoreError("input/output error")

    monkeypatch.setattr(gateway.modules, "read_files", refuse)
    worker = await gateway.worker()
    worker.offers_again = True
    for number in range(3):
        await gateway.submit(f"t{number}", module=f"{number}" * 64, zip=b"PK\5\6" + bytes(18))
        await gateway.ended(f"t{number}")
    ((entry, _),) = gateway.scheduler.pool.workers()
    assert (worker.runs, entry.breaker) == ([], "closed")


async def test_hundreds_of_needs_of_others_cost_next_to_nothing(gateway: Gateway) -> None:
    """A need nobody can meet is not held against every worker whenever somebody looks."""
    pool, asked = gateway.scheduler.pool, 0
    for _ in range(3):
        await gateway.worker(slots=2)
    for number in range(50):
        await gateway.submit(f"t{number}", labels=(("gpu", f"{number}"),))
    may_run = pool._may_run

    def count(*arguments: Any) -> bool:
        nonlocal asked
        asked += 1
        return may_run(*arguments)

    pool._may_run = count  # type: ignore[method-assign]
    await gateway.pass_time(0.3)
    assert asked < 10
    assert gateway.scheduler.agenda.ready.heads() == []
