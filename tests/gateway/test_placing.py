"""Which run goes where: needs, several slots at once, preference, second attempts, breakers, what nobody can serve."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import until
from tests.gateway.scheduling import Gateway, next_run, open_gateway
from ww.errors import Overloaded, RemoteError, StoreError, WwError
from ww.gateway.breaker import BreakerConfig
from ww.gateway.task import RunState

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("kj_loop")]

GIB = 1 << 30
GPU = (("gpu", "yes"),)


@pytest.fixture
async def gateway(tmp_path: Path) -> AsyncIterator[Gateway]:
    async with open_gateway(tmp_path, config={"tasks_max": 100}) as gateway:
        yield gateway


def labels(**labels: str) -> list[dict[str, str]]:
    return [{"key": key, "value": value} for key, value in labels.items()]


# Needs.


async def test_a_run_goes_to_a_worker_with_its_labels(gateway: Gateway) -> None:
    plain = await gateway.worker(slots=2)
    with_gpu = await gateway.worker(slots=1, labels=labels(gpu="yes"))
    await gateway.submit("a", labels=GPU)
    (await next_run(with_gpu)).end()
    (result,) = await gateway.ended("a")
    assert result.worker == with_gpu.peer_id
    assert plain.runs == []


@pytest.mark.parametrize(
    ("needs", "values"),
    [
        ("fuel", {"fuel": 1000}),
        ("cpu", {"cpu_s": 1.0}),
        ("files", {"files_bytes": 1 << 20, "dirs": ("/",)}),
        ("component", {"kind": "component", "entry": ""}),
        ("reactor", {"kind": "reactor", "entry": ""}),
        ("python", {"kind": "python", "entry": ""}),
    ],
)
async def test_a_run_goes_to_no_worker_that_lacks_what_it_needs(
    gateway: Gateway, needs: str, values: dict[str, Any]
) -> None:
    tab = await gateway.worker(slots=2, lacks=[needs, "unheard of"])
    tab.offers_again = True
    await gateway.submit("plain")
    (await next_run(tab)).end()
    await gateway.ended("plain")
    await gateway.submit("a", **values)
    await gateway.shows("a", "unsatisfiable")
    whole = await gateway.worker()
    (await next_run(whole)).end()
    (result,) = await gateway.ended("a")
    assert result.worker == whole.peer_id
    assert len(tab.runs) == 1


async def test_what_nobody_can_serve_now_holds_up_nobody_else(gateway: Gateway) -> None:
    await gateway.submit("gpu", labels=GPU, priority=100, repeats=5)
    worker = await gateway.worker()
    await gateway.submit("plain")
    (await next_run(worker)).end()
    await gateway.ended("plain")


async def test_priority_goes_before_age(gateway: Gateway) -> None:
    for id, priority in (("low", -1), ("plain", 0), ("high", 7)):
        await gateway.submit(id, input=priority + 10, priority=priority)
    worker = await gateway.worker()
    for count in (1, 2, 3):
        (await next_run(worker, count)).end()
    await gateway.ended("low")
    assert [run.argument for run in worker.runs] == [17, 10, 9]


async def test_a_run_that_needs_two_slots_takes_them_together_from_one_worker(gateway: Gateway) -> None:
    for _ in range(2):
        await gateway.worker(slots=1, cpus=2)  # four cpus in all, of two machines
    await gateway.submit("a", cpus=4.0)
    await gateway.shows("a", "unsatisfiable")
    large = await gateway.worker(slots=4, cpus=8)
    run = await next_run(large)
    entry = next(e for e, _ in gateway.scheduler.pool.workers() if str(e.peer.peer_id) == large.peer_id)
    assert (entry.leased, gateway.free_slots) == (2, 4)
    run.end()
    await gateway.ended("a")
    await until(lambda: large.leases_ended == 2)
    assert entry.leased == 0


async def test_small_runs_do_not_keep_slots_from_a_large_one_for_ever(gateway: Gateway) -> None:
    worker = await gateway.worker(slots=2, cpus=2)
    worker.offers_again = True
    await gateway.submit("small", repeats=1000, input=1)
    await next_run(worker, 2)
    await gateway.submit("large", cpus=2.0, input=2)
    async with asyncio.timeout(10):
        while not any(run.argument == 2 for run in worker.open_runs):
            assert len(worker.runs) < 50, "it starves"
            if worker.open_runs:
                worker.open_runs[0].end()  # one at a time: both are never free by themselves
            await gateway.pass_time(0.3)
    assert [run.argument for run in worker.open_runs] == [2], "it has the whole machine"
    await gateway.cancel("small")
    await gateway.cancel("large")


async def test_slots_kept_for_a_task_are_free_again_when_it_is_cancelled(gateway: Gateway) -> None:
    worker = await gateway.worker(slots=2, cpus=2)
    await gateway.submit("first", input=1)
    first = await next_run(worker)
    await gateway.submit("large", cpus=2.0, input=2)
    await gateway.pass_time(0.3)
    await gateway.submit("second", input=3)
    await gateway.pass_time(0.3)
    assert [run.argument for run in worker.runs] == [1], "the other slot is kept"
    await gateway.cancel("large")
    await gateway.pass_time(0.3)
    (await next_run(worker, 2)).end()
    await gateway.ended("second")
    first.end()
    await gateway.ended("first")


async def test_a_worker_that_ran_the_module_is_preferred(gateway: Gateway) -> None:
    first = await gateway.worker(slots=2)
    await gateway.submit("a", repeats=1)
    first.offers_again = True
    (await next_run(first)).end()
    await gateway.ended("a")
    await until(lambda: gateway.free_slots == 2)
    other = await gateway.worker(slots=2)
    await gateway.submit("b", repeats=2)
    await next_run(first, 3)
    assert other.runs == []
    assert [list(entry.modules) for entry, _ in gateway.scheduler.pool.workers()] == [
        [gateway.scheduler.task("b").spec.module],  # type: ignore[union-attr]
        [],
    ]
    for run in first.open_runs:
        run.end()
    await gateway.ended("b")


# What nobody can serve.


async def test_what_no_connected_worker_could_ever_serve_says_so_and_waits(gateway: Gateway) -> None:
    await gateway.submit("a", labels=GPU)
    task = gateway.scheduler.task("a")
    assert task is not None
    assert task.status(gateway.clock.now()) == "queued", "without any worker nobody can say"
    await gateway.worker()
    await gateway.shows("a", "unsatisfiable")
    assert task.reason(gateway.clock.now()) == "no connected worker has the labels gpu=yes"
    await gateway.submit("b", labels=GPU)
    other = gateway.scheduler.task("b")
    assert other is not None
    assert other.status(gateway.clock.now()) == "unsatisfiable", "at once, in the answer to its submission"
    await gateway.submit("later", labels=GPU, start_s=1000.0)
    later = gateway.scheduler.task("later")
    assert later is not None
    assert later.status(gateway.clock.now()) == "scheduled"
    able = await gateway.worker(slots=1, labels=labels(gpu="yes"))
    for count in (1, 2):
        (await next_run(able, count)).end()
    await gateway.ended("a")
    await gateway.ended("b")


async def test_a_worker_that_leaves_or_drains_serves_nobody(gateway: Gateway) -> None:
    await gateway.worker()
    able = await gateway.worker(slots=0, labels=labels(gpu="yes"))
    await gateway.submit("a", labels=GPU)
    await gateway.shows("a", "queued")
    peer_id = next(e.peer.peer_id for e, _ in gateway.scheduler.pool.workers() if str(e.peer.peer_id) == able.peer_id)
    gateway.scheduler.pool.drain(peer_id)
    await gateway.shows("a", "unsatisfiable")
    gateway.scheduler.pool.drain(peer_id, False)
    await gateway.shows("a", "queued")
    able.disconnect()
    await gateway.shows("a", "unsatisfiable")


async def test_after_a_while_what_nobody_serves_has_failed(tmp_path: Path) -> None:
    async with open_gateway(tmp_path, config={"unsatisfiable_ttl_s": 60.0}) as gateway:
        await gateway.worker()
        await gateway.submit("a", labels=GPU, repeats=3)
        await gateway.shows("a", "unsatisfiable")
        await gateway.pass_time(30.0)
        await gateway.submit("b", labels=GPU)
        await gateway.pass_time(29.0)
        assert gateway.scheduler.task("a") is not None
        await gateway.pass_time(1.5)
        assert await gateway.ended("a") == []
        row = await gateway.store.task("a")
        assert row is not None
        assert (row.status, row.succeeded, row.failed) == ("failed", 0, 3)
        assert row.reason == "unsatisfiable: no connected worker has the labels gpu=yes"
        assert gateway.scheduler.task("b") is not None, "it waits since later"
        await gateway.pass_time(30.0)
        await gateway.ended("b")


async def test_what_is_given_up_shares_a_commit_and_is_not_looked_at_before_its_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_gateway(tmp_path, config={"tasks_max": 100, "unsatisfiable_ttl_s": 60.0}) as gateway:
        await gateway.worker()
        for number in range(5):
            await gateway.submit(f"old{number}", labels=GPU)
        await gateway.pass_time(30.0)
        await gateway.submit("new", labels=GPU)
        scheduler, at_once, most = gateway.scheduler, 0, 0
        fail_task, tasks_of, looks = gateway.store.fail_task, scheduler.agenda.ready.tasks_of, 0

        async def fail(*arguments: Any) -> bool:
            nonlocal at_once, most
            at_once += 1
            most = max(most, at_once)
            try:
                return await fail_task(*arguments)
            finally:
                at_once -= 1

        def look(demand: Any) -> Any:
            nonlocal looks
            looks += 1
            return tasks_of(demand)

        monkeypatch.setattr(gateway.store, "fail_task", fail)
        monkeypatch.setattr(scheduler.agenda.ready, "tasks_of", look)
        await gateway.pass_time(31.0)
        async with asyncio.timeout(10):
            while len(list(scheduler.open_tasks())) > 1:
                await gateway.pass_time(0.25)
                await asyncio.sleep(0.001)
        assert most == 5
        for _ in range(20):
            await gateway.pass_time(0.25)
        assert looks <= 2
        async with asyncio.timeout(10):
            while scheduler.task("new") is not None:
                await gateway.pass_time(0.25)
                await asyncio.sleep(0.001)
        assert gateway.clock.now() >= 90.0


async def test_a_disk_that_refuses_gives_nothing_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with open_gateway(tmp_path, config={"unsatisfiable_ttl_s": 60.0}) as gateway:
        await gateway.worker()
        await gateway.submit("a", labels=GPU)
        await gateway.shows("a", "unsatisfiable")

        async def refuse(*_: Any) -> bool:
            raise StoreError("no space left on device")

        with monkeypatch.context() as patch:
            patch.setattr(gateway.store, "fail_task", refuse)
            await gateway.pass_time(61.0)
            await gateway.pass_time(1.0)
        able = await gateway.worker(slots=0, labels=labels(gpu="yes"))
        await gateway.shows("a", "queued")
        able.offer()
        (await next_run(able)).end()
        assert [result.state for result in await gateway.ended("a")] == [RunState.SUCCEEDED]


# What is taken on.


async def test_more_than_fits_in_memory_is_refused_for_now(tmp_path: Path) -> None:
    async with open_gateway(tmp_path, config={"tasks_max": 100, "tasks_bytes_max": 10_000}) as gateway:
        await gateway.submit("a", stdin=bytes(5000))
        with pytest.raises(Overloaded, match="hold 10000 bytes, the limit"):
            await gateway.submit("b", stdin=bytes(5000))
        await gateway.cancel("a")
        await gateway.submit("b", stdin=bytes(5000))


async def test_distinct_needs_are_limited(tmp_path: Path) -> None:
    async with open_gateway(tmp_path, config={"tasks_max": 100, "needs_max": 2}) as gateway:
        await gateway.submit("a", cpus=1.0)
        await gateway.submit("b", cpus=2.0)
        with pytest.raises(Overloaded, match="2 distinct needs"):
            await gateway.submit("c", cpus=3.0)
        await gateway.submit("d", cpus=2.0)
        await gateway.cancel("a")
        await gateway.submit("c", cpus=3.0)


async def test_distinct_needs_are_limited_also_when_they_come_at_once(tmp_path: Path) -> None:
    async with open_gateway(tmp_path, config={"tasks_max": 100, "needs_max": 2}) as gateway:
        submitting = (gateway.submit(f"t{cpus}", cpus=float(cpus)) for cpus in range(1, 11))
        answers = await asyncio.gather(*submitting, return_exceptions=True)
        assert len({task.spec.need for task in gateway.scheduler.open_tasks()}) <= 2
        assert sum(isinstance(answer, Overloaded) for answer in answers) >= 8


async def test_how_many_wait_is_known(gateway: Gateway) -> None:
    assert gateway.scheduler.queue_length() == 0
    await gateway.submit("a", repeats=1_000_000)
    await gateway.submit("b", repeats=5, delay_s=1.0)
    assert gateway.scheduler.queue_length() == 1_000_001
    await gateway.pass_time(2.0)
    assert gateway.scheduler.queue_length() == 1_000_003
    assert gateway.scheduler.agenda.oldest_wait_s() == 2.0
    await gateway.worker()
    await until(lambda: gateway.scheduler.queue_length() == 1_000_002)
    await gateway.cancel("a")
    await gateway.cancel("b")
    assert (gateway.scheduler.queue_length(), list(gateway.scheduler.open_tasks())) == (0, [])


# Second attempts.


async def straggling(gateway: Gateway, count: int = 3) -> Any:
    """Bring a batch to where one run is left, on a worker of its own, and return what runs it."""
    slow = await gateway.worker()
    await gateway.submit("a", repeats=count)
    straggler = await next_run(slow)
    quick = await gateway.worker(is_quick=True)
    await until(lambda: len(quick.runs) >= count - 1 and gateway.free_slots == 1)
    return slow, quick, straggler


async def test_a_straggler_gets_a_second_attempt_and_the_first_result_counts(tmp_path: Path) -> None:
    async with open_gateway(tmp_path, dispatch={"speculate": True}) as gateway:
        slow, quick, straggler = await straggling(gateway)
        await gateway.pass_time(0.5)
        await gateway.pass_time(0.3)
        assert len(quick.runs) == 2, "it has not taken long yet"
        await gateway.pass_time(1.0)
        results = await gateway.ended("a")
        assert [(result.run, result.state) for result in results] == [(n, "succeeded") for n in range(3)]
        late = results[0]
        assert (late.attempts, late.worker) == (2, quick.peer_id)
        await until(lambda: straggler.cancels == 1)
        await until(lambda: slow.leases_ended == 1)


async def test_without_being_asked_there_are_no_second_attempts(gateway: Gateway) -> None:
    _, quick, straggler = await straggling(gateway)
    for _ in range(10):
        await gateway.pass_time(1.0)
    assert len(quick.runs) == 2
    straggler.end()
    assert {result.attempts for result in await gateway.ended("a")} == {1}


async def test_what_nobody_can_serve_is_in_no_stragglers_way(tmp_path: Path) -> None:
    async with open_gateway(tmp_path, dispatch={"speculate": True}) as gateway:
        await gateway.submit("gpu", labels=GPU)
        _, quick, straggler = await straggling(gateway)
        for _ in range(3):
            await gateway.pass_time(1.0)
        assert [result.attempts for result in await gateway.ended("a")] == [2, 1, 1]
        assert len(quick.runs) == 3
        await until(lambda: straggler.cancels == 1)


async def test_the_straggler_itself_may_still_win(tmp_path: Path) -> None:
    async with open_gateway(tmp_path, dispatch={"speculate": True}) as gateway:
        _, quick, straggler = await straggling(gateway)
        quick.is_quick = False
        await gateway.pass_time(2.0)
        await gateway.pass_time(0.3)
        second = await next_run(quick, 3)
        straggler.end(value=1)
        results = await gateway.ended("a")
        assert (results[0].attempts, results[0].outcome.result) == (2, "1")
        await until(lambda: second.cancels == 1)


# Retries and breakers.


async def test_a_guest_that_fails_is_run_again_when_the_user_asks(gateway: Gateway) -> None:
    worker = await gateway.worker()
    await gateway.submit("a", retries=1)
    (await next_run(worker)).end(reason="trap", detail="unreachable")
    async with asyncio.timeout(10):
        while len(worker.runs) < 2:
            if not gateway.free_slots:
                worker.offer()
            await gateway.pass_time(0.05)
    worker.runs[1].end()
    (result,) = await gateway.ended("a")
    assert (result.state, result.attempts) == (RunState.SUCCEEDED, 2)


async def test_a_worker_that_stops_a_run_unasked_has_lost_it(gateway: Gateway) -> None:
    worker = await gateway.worker()
    await gateway.submit("a")
    (await next_run(worker)).end(reason="cancelled")
    other = await gateway.worker()
    async with asyncio.timeout(10):
        while not other.runs:
            await gateway.pass_time(0.05)
    other.runs[0].end()
    (result,) = await gateway.ended("a")
    assert (result.state, result.attempts) == (RunState.SUCCEEDED, 2)


async def test_a_worker_on_which_everything_fails_gets_nothing_for_a_while(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    breaker = BreakerConfig(failures_max=3, open_s=100.0)
    async with open_gateway(tmp_path, config={"tasks_max": 100, "breaker": breaker}) as gateway:
        broken = await gateway.worker()
        broken.run_error = WwError("its disk is broken")
        for module in "abc":
            await gateway.submit(module, module=module * 64)
            asked = broken.leases_ended
            async with asyncio.timeout(10):
                while broken.leases_ended == asked:
                    await gateway.pass_time(0.05)
            await gateway.cancel(module)
            broken.offer()
            await until(lambda: gateway.free_slots == 1)
        assert "gets nothing to run for a while" in caplog.text
        ((entry, _),) = gateway.scheduler.pool.workers()
        assert entry.breaker == "open"
        broken.run_error = None
        await gateway.submit("d")
        await gateway.pass_time(90.0)
        assert broken.runs == []
        await gateway.pass_time(11.0)
        await gateway.pass_time(0.3)
        (await next_run(broken)).end()
        await gateway.ended("d")
        ((entry, _),) = gateway.scheduler.pool.workers()
        assert entry.breaker == "closed"


async def test_a_lost_connection_is_not_counted_against_a_worker(gateway: Gateway) -> None:
    for module in "abcd":
        worker = await gateway.worker()
        await gateway.submit(module, module=module * 64)
        await next_run(worker)
        worker.disconnect()
        await until(lambda: not gateway.scheduler.pool.workers())
        await gateway.cancel(module)
    assert not gateway.scheduler.pool._breakers


async def test_a_remote_failure_is_one_line(gateway: Gateway, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "ww.gateway")
    worker = await gateway.worker()
    worker.run_error = RemoteError("a\nb")
    await gateway.submit("a")
    await until(lambda: "is lost: a b" in caplog.text)
    await gateway.cancel("a")
