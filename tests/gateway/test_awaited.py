"""Tasks whose result is waited for: they may begin before they are on disk, and are there when their result is."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import until
from tests.gateway.scheduling import FlakyStore, Gateway, next_run, open_gateway
from ww.errors import Conflict, StoreError
from ww.gateway import scheduler
from ww.gateway.task import RunState

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("kj_loop")]


@pytest.fixture
async def gateway(tmp_path: Path) -> AsyncIterator[Gateway]:
    async with open_gateway(tmp_path) as gateway:
        yield gateway


async def test_a_short_run_and_its_task_share_a_commit(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scheduler, "_HOLD_S", 30.0)  # however slow this machine is
    await gateway.worker(is_quick=True)
    await gateway.submit("first")
    await gateway.ended("first")
    serial = gateway.store._writer._serial
    await gateway.submit("a", is_awaited=True)
    (result,) = await gateway.ended("a")
    assert result.state is RunState.SUCCEEDED
    assert gateway.store._writer._serial == serial + 1


async def test_a_long_run_is_not_waited_for(gateway: Gateway) -> None:
    worker = await gateway.worker()
    await gateway.submit("a", is_awaited=True)
    assert await gateway.store.task("a") is not None
    (await next_run(worker)).end()
    await gateway.ended("a")


async def test_without_a_worker_it_is_on_disk_all_the_same(gateway: Gateway) -> None:
    await gateway.submit("a", is_awaited=True)
    row = await gateway.store.task("a")
    assert row is not None
    assert row.number == gateway.scheduler._tasks["a"].number


async def test_the_same_again_is_the_same_and_another_is_refused(gateway: Gateway) -> None:
    worker = await gateway.worker(is_quick=True)
    await gateway.submit("a", is_awaited=True)
    await gateway.ended("a")
    await gateway.submit("a", is_awaited=True)
    with pytest.raises(Conflict):
        await gateway.submit("a", input=8, is_awaited=True)
    await until(lambda: gateway.scheduler.task("a") is None)
    assert len(await gateway.ended("a")) == 1
    await gateway.submit("b", is_awaited=True)
    await gateway.ended("b")
    assert len(worker.runs) == 2, "what is there is not run again"


async def test_an_id_that_is_said_to_be_new_and_is_not(gateway: Gateway) -> None:
    worker = await gateway.worker(is_quick=True)
    spec = await gateway.submit("a")
    await gateway.ended("a")

    async def keep() -> None:
        pass

    assert await gateway.scheduler.submit(spec, keep, is_new=True, is_awaited=True) == 0
    with pytest.raises(Conflict):
        await gateway.scheduler.submit(replace(spec, input=8), keep, is_new=True, is_awaited=True)
    worker.is_quick = False
    spec = await gateway.submit("b")
    run = await next_run(worker, len(worker.runs) + 1 if not worker.open_runs else len(worker.runs))
    assert await gateway.scheduler.submit(spec, keep, is_new=True, is_awaited=True) == 0
    run.end()
    assert len(await gateway.ended("b")) == 1


async def test_when_the_disk_refuses_there_is_no_such_task_and_its_run_is_stopped(gateway: Gateway) -> None:
    worker = await gateway.worker()

    async def refuse(*_: object) -> int:
        raise StoreError("no space left on device")

    gateway.store.add_task = refuse  # type: ignore[method-assign]
    with pytest.raises(StoreError):
        await gateway.submit("a", is_awaited=True)
    assert gateway.scheduler.task("a") is None
    await until(lambda: all(run.cancels for run in worker.runs))
    assert gateway.scheduler.queue_length() == 0


async def test_what_is_left_of_a_refused_task_is_never_anothers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    housekeep = FlakyStore.housekeep

    async def later(_: FlakyStore) -> None:
        return

    monkeypatch.setattr(FlakyStore, "housekeep", later)
    async with open_gateway(tmp_path) as gateway:
        await gateway.worker(is_quick=True)
        await gateway.submit("a")
        await gateway.ended("a")
        with pytest.raises(Conflict):
            await gateway.submit("a", input=8, is_awaited=True)
        await until(lambda: not gateway.scheduler.recorder._unwritten)
    async with open_gateway(tmp_path) as gateway:
        await gateway.worker(is_quick=True)
        await gateway.submit("b")
        (before,) = await gateway.ended("b")
        await housekeep(gateway.store)
        assert await gateway.ended("b") == [before]


async def test_nobody_is_told_of_a_task_that_is_on_its_way_to_the_disk(gateway: Gateway) -> None:
    add, reached, goes_on = gateway.store.add_task, asyncio.Event(), asyncio.Event()

    async def slow(*given: Any) -> int:
        reached.set()
        await goes_on.wait()
        return await add(*given)

    gateway.store.add_task = slow  # type: ignore[method-assign]
    first = asyncio.ensure_future(gateway.submit("a", is_awaited=True))
    await reached.wait()
    first.cancel()
    second = asyncio.ensure_future(gateway.submit("a", is_awaited=True))
    done, _ = await asyncio.wait((first, second), timeout=0.05)
    assert not done
    goes_on.set()
    await second
    with pytest.raises(asyncio.CancelledError):
        await first
    assert await gateway.store.task("a") is not None


async def test_who_gives_up_waiting_leaves_the_task_there(gateway: Gateway) -> None:
    worker = await gateway.worker()
    submitting = asyncio.ensure_future(gateway.submit("a", is_awaited=True))
    run = await next_run(worker)
    submitting.cancel()
    await asyncio.wait((submitting,))
    run.end()
    assert [result.state for result in await gateway.ended("a")] == [RunState.SUCCEEDED]


async def test_numbers_are_not_used_twice_over_restarts(tmp_path: Path) -> None:
    numbers = []
    for id in "abc":
        async with open_gateway(tmp_path) as gateway:
            await gateway.submit(id, is_awaited=id != "b")
            numbers.append(gateway.scheduler._tasks[id].number)
    assert numbers == sorted(set(numbers))
