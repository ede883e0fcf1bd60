"""Slots kept for runs that take several at once: whose, and whose not."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.gateway.scheduling import Gateway, next_run, open_gateway
from tests.gateway.scripted_worker import ScriptedWorker
from ww.gateway.breaker import BreakerConfig
from ww.gateway.spec import Need

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("kj_loop")]

GPU = (("gpu", "yes"),)
LARGE = Need(cpus=2.0)
# The clock ticks while the disk is waited for, however long that takes here.
AGES_S = 1e9


@pytest.fixture
async def gateway(tmp_path: Path) -> AsyncIterator[Gateway]:
    async with open_gateway(
        tmp_path, config={"tasks_max": 100, "breaker": BreakerConfig(1, AGES_S, AGES_S)}
    ) as gateway:
        yield gateway


async def busy_worker(gateway: Gateway) -> ScriptedWorker:
    """Bring in a worker of two slots which small runs fill."""
    worker = await gateway.worker(slots=2, cpus=2)
    worker.offers_again = True
    if gateway.scheduler.task("small") is None:
        await gateway.submit("small", repeats=1000, input=1)
    await next_run(worker, 2)
    return worker


async def serves_large(gateway: Gateway, worker: ScriptedWorker) -> None:
    """Wait until that worker runs what takes both of its slots, though they are never free by themselves."""
    async with asyncio.timeout(10):
        while not any(run.argument == 2 for run in worker.open_runs):
            assert len(worker.runs) < 50, "it starves"
            if worker.open_runs:
                worker.open_runs[0].end()
            await gateway.pass_time(0.3)


def kept_for_large(gateway: Gateway) -> list[str]:
    reserved = gateway.scheduler.pool._reserved.items()
    return [str(peer.peer_id) for peer, need in reserved if need == LARGE]


async def test_what_nobody_can_serve_keeps_no_large_run_from_its_slots(gateway: Gateway) -> None:
    worker = await busy_worker(gateway)
    for number in range(20):
        await gateway.submit(f"gpu{number}", labels=(("gpu", f"{number}"),), priority=1)
    await gateway.submit("large", cpus=2.0, input=2)
    await serves_large(gateway, worker)


async def test_what_waits_for_another_worker_keeps_no_large_run_from_its_slots(gateway: Gateway) -> None:
    worker = await busy_worker(gateway)
    with_gpu = await gateway.worker(slots=1, cpus=1, labels=[{"key": "gpu", "value": "yes"}])
    await gateway.submit("gpu", labels=GPU, priority=1, repeats=2, input=3)
    await next_run(with_gpu)
    await gateway.submit("large", cpus=2.0, input=2)
    await serves_large(gateway, worker)


async def test_small_runs_of_a_higher_priority_lose_no_slot_to_a_large_one(gateway: Gateway) -> None:
    await busy_worker(gateway)
    await gateway.submit("first", priority=1, input=3)
    await gateway.submit("large", cpus=2.0, input=2)
    await gateway.pass_time(0.3)
    assert kept_for_large(gateway) == []


async def test_a_worker_that_never_offers_is_not_waited_for(gateway: Gateway) -> None:
    worker = await busy_worker(gateway)
    await gateway.worker(slots=0, cpus=1000)
    await gateway.submit("large", cpus=2.0, input=2)
    await serves_large(gateway, worker)


async def test_a_worker_that_may_be_given_nothing_more_is_not_waited_for(gateway: Gateway) -> None:
    workers = {worker.peer_id: worker for worker in [await busy_worker(gateway), await busy_worker(gateway)]}
    await gateway.submit("large", cpus=2.0, input=2)
    await gateway.pass_time(0.3)
    (chosen,) = kept_for_large(gateway)
    peer = next(e.peer for e, _ in gateway.scheduler.pool.workers() if str(e.peer.peer_id) == chosen)
    gateway.scheduler.pool.drain(peer.peer_id)
    await serves_large(gateway, workers[({*workers} - {chosen}).pop()])


async def test_a_worker_on_which_everything_fails_is_not_waited_for(gateway: Gateway) -> None:
    broken = await gateway.worker(slots=2, cpus=2)
    await gateway.submit("crash", module="a" * 64, retries=0)
    (await next_run(broken)).end(reason="crash")
    await gateway.pass_time(0.01)
    await gateway.cancel("crash")
    broken.offer()
    worker = await busy_worker(gateway)
    await gateway.submit("large", cpus=2.0, input=2)
    await gateway.pass_time(0.3)
    assert kept_for_large(gateway) == [worker.peer_id]
    await serves_large(gateway, worker)
