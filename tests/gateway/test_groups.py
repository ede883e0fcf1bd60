"""Runs that travel together: each has its own input, end and recovery, whatever becomes of the others."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import until
from tests.gateway import scripted_worker
from tests.gateway.scheduling import Gateway, next_run, open_gateway
from tests.gateway.scripted_worker import Run, ScriptedWorker
from tests.gateway.stored import results_of
from ww.caps.blob import BytesBlobServer
from ww.errors import PeerError
from ww.gateway.inputs import InputsWriter
from ww.gateway.patience import FIRST_S
from ww.gateway.task import RunState, Task
from ww.records import Input, write_input, write_outcome
from ww.sandbox.invocation import Result

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("kj_loop")]


@pytest.fixture
async def gateway(tmp_path: Path) -> AsyncIterator[Gateway]:
    async with open_gateway(tmp_path) as gateway:
        yield gateway


async def submit_batch(gateway: Gateway, id: str, inputs: Sequence[Input], **values: Any) -> None:
    """Submit a task with a run for each of those inputs."""
    with gateway.modules.upload_inputs(gateway.scheduler.modules_in_use) as upload:
        writer = InputsWriter(upload)
        for each in inputs:
            writer.add(write_input(each))
        await writer.finish()
        await upload.keep()
        await gateway.submit(id, inputs=upload.digest, repeats=len(inputs), **values)


async def grouped(gateway: Gateway, count: int, **values: Any) -> tuple[ScriptedWorker, list[Run]]:
    """Have a group of eight runs on a worker's one slot, behind one that has ended; return them."""
    worker = await gateway.worker()
    await submit_batch(gateway, "a", [Input(arguments=(n, 0)) for n in range(count)], **values)
    (await next_run(worker)).end(wall_s=0.0001)
    await until(lambda: len(worker.groups) > 1)
    return worker, worker.groups[1]


async def succeeded(gateway: Gateway, count: int) -> Task:
    """Wait until so many runs have; so little time passes that nothing looks stuck."""
    task = gateway.scheduler.task("a")
    assert task is not None
    async with asyncio.timeout(10):
        while task.succeeded < count:
            await asyncio.sleep(0)
            await gateway.pass_time(1e-5)
    return task


async def test_each_run_is_given_its_own_input(gateway: Gateway) -> None:
    worker = await gateway.worker(is_quick=True)
    inputs = [
        Input(arguments=(n, n + 1), args=[f"é{n}"], env=[("A", str(n))], stdin=bytes([n % 256])) for n in range(300)
    ]
    await submit_batch(gateway, "a", inputs)
    results = await gateway.ended("a")
    assert [result.outcome.result for result in results] == [str(n) for n in range(300)]
    given = {run.argument: run.given._replace(arguments=tuple(run.given.arguments or ())) for run in worker.runs}
    assert given == dict(enumerate(inputs))
    assert max(map(len, worker.groups)) > 8
    await until(lambda: worker.leases_ended > 0)
    assert worker.tasks == worker.leases_ended, "what all runs have in common goes once to each lease"


async def test_a_large_input_goes_by_reference(gateway: Gateway) -> None:
    worker = await gateway.worker(is_quick=True)
    sizes = [10, 70_000, 1 << 20, 3 << 20]
    await submit_batch(gateway, "a", [Input(stdin=bytes([n]) * size) for n, size in enumerate(sizes)])
    await gateway.ended("a")
    assert {run.given.stdin for run in worker.runs} == {bytes([n]) * size for n, size in enumerate(sizes)}


async def test_outcomes_are_recorded_as_they_come(gateway: Gateway) -> None:
    _, runs = await grouped(gateway, 9)
    for run in runs[:3]:
        run.end(wall_s=0.0001)
    task = await succeeded(gateway, 4)
    assert not any(run.cancels for run in runs)
    assert [result.run for result in await results_of(gateway.store, task.number, limit=9, after=-1)] == [0, 1, 2, 3]


async def test_a_lost_worker_costs_only_the_runs_without_an_outcome(gateway: Gateway) -> None:
    worker, runs = await grouped(gateway, 9)
    for run in (runs[0], runs[2]):
        run.end(wall_s=0.0001)
    await succeeded(gateway, 3)
    worker.disconnect()
    other = await gateway.worker(is_quick=True)
    results = await gateway.ended("a")
    assert [result.attempts for result in results] == [1, 1, 2, 1, 2, 2, 2, 2, 2]
    assert sorted(run.argument for run in other.runs) == [2, 4, 5, 6, 7, 8]
    assert max(map(len, other.groups)) == 1, "what was lost once goes alone: it takes no other with it"


async def test_each_run_of_a_group_fails_for_itself(gateway: Gateway) -> None:
    worker, runs = await grouped(gateway, 9, retries=1)
    runs[1].end(reason="trap", detail="unreachable", value=None)
    runs[2].end(reason="exit", exit_code=3, value=None)
    runs[3].end(reason="crash", value=None)
    for run in [runs[0], *runs[4:]]:
        run.end()
    worker.is_quick = True
    results = await gateway.ended("a")
    assert {result.state for result in results} == {RunState.SUCCEEDED}
    assert [result.attempts for result in results] == [1, 1, 2, 2, 2, 1, 1, 1, 1]


async def test_a_group_is_cancelled_with_its_task(gateway: Gateway) -> None:
    _, runs = await grouped(gateway, 9)
    runs[0].end(wall_s=0.0001)
    await gateway.cancel("a")
    await until(lambda: all(run.cancels == 1 for run in runs[1:]))
    assert runs[0].cancels == 0
    row = await gateway.store.task("a")
    assert row is not None
    assert (row.status, row.succeeded) == ("cancelled", 2)


async def test_what_waits_behind_a_long_run_in_its_group_goes_elsewhere(gateway: Gateway) -> None:
    _, runs = await grouped(gateway, 9)
    other = await gateway.worker(is_quick=True)
    async with asyncio.timeout(10):
        while any(not run.cancels for run in runs[1:]):
            await gateway.pass_time(0.05)
    await until(lambda: {run.argument for run in other.runs} == set(range(2, 9)))
    assert runs[0].cancels == 0
    runs[0].end()
    assert {result.attempts for result in await gateway.ended("a")} == {1}


async def test_who_was_held_up_itself_looks_again_before_it_sends_runs_elsewhere(gateway: Gateway) -> None:
    _, runs = await grouped(gateway, 9)
    await until(lambda: any(slot.oldest_seen is not None for slot in gateway.scheduler.dispatcher.slots))
    await gateway.pass_time(5.0)
    assert not runs[1].cancels
    for _ in range(3):  # and even if it is held up for ever, it does
        await gateway.pass_time(5.0)
    await until(lambda: runs[1].cancels == 1)


async def test_nothing_more_goes_behind_a_long_run(gateway: Gateway) -> None:
    worker, runs = await grouped(gateway, 200)
    async with asyncio.timeout(10):
        while any(not run.cancels for run in worker.runs if run is not runs[0] and not run.is_told):
            await gateway.pass_time(0.05)
    await until(lambda: all(run.is_told for run in worker.runs if run is not runs[0]))
    count = len(worker.groups)
    for _ in range(20):
        await gateway.pass_time(0.05)
    assert len(worker.groups) == count
    assert gateway.scheduler.queue_length() == 198
    worker.is_quick = True
    runs[0].end(wall_s=30.0)
    assert {result.state for result in await gateway.ended("a")} == {RunState.SUCCEEDED}


@pytest.mark.parametrize(
    ("outcome", "is_given_time"),
    [
        ({"wall_s": 0.0001}, True),
        ({"wall_s": 0.9}, False),
        ({"wall_s": 0.0001, "compile_s": 0.9}, False),
        ({"wall_s": 0.0, "reason": "cancelled"}, False),
    ],
)
async def test_a_worker_that_was_held_up_is_given_time(
    gateway: Gateway, outcome: dict[str, Any], is_given_time: bool
) -> None:
    """Short runs are not sent elsewhere and done twice for ever, when it takes long until anything is heard of them."""
    _, runs = await grouped(gateway, 9)
    waited_s = 0.0
    async with asyncio.timeout(10):
        while waited_s < 1.0 or not runs[1].cancels:
            await gateway.pass_time(0.05)
            waited_s += 0.05
    runs[0].end(**outcome)
    dispatcher = gateway.scheduler.dispatcher
    await until(lambda: all(slot.stuck_at is None for slot in dispatcher.slots))
    ((entry, _),) = gateway.scheduler.pool.workers()
    patience_s = dispatcher.patience.of(entry.peer.peer_id, gateway.clock.now())
    assert (patience_s > FIRST_S) == is_given_time


async def test_a_worker_that_answers_twice_for_a_run_loses_the_group(gateway: Gateway) -> None:
    _, runs = await grouped(gateway, 9)
    runs[0].end(wall_s=0.0001)
    runs[1].place = 0
    runs[1].end(wall_s=0.0001)
    other = await gateway.worker(is_quick=True)
    results = await gateway.ended("a")
    assert {result.state for result in results} == {RunState.SUCCEEDED}
    assert len(other.runs) >= 7


async def test_inputs_that_are_gone_are_not_the_workers_fault(
    gateway: Gateway, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "ww.gateway")
    await submit_batch(gateway, "a", [Input(arguments=(n, 0)) for n in range(3)])
    task = gateway.scheduler.task("a")
    assert task is not None
    gateway.modules.inputs_path(task.spec.inputs).unlink()
    worker = await gateway.worker(is_quick=True)
    results = await gateway.ended("a")
    assert [(result.state, result.outcome.reason) for result in results] == [(RunState.FAILED, "lost")] * 3
    assert "the inputs of a batch cannot be read" in results[0].outcome.detail
    assert not worker.runs
    assert not gateway.scheduler.pool._breakers


async def test_a_worker_that_leaves_out_a_run_has_lost_it(gateway: Gateway) -> None:
    worker, runs = await grouped(gateway, 9)
    for run in runs[:7]:
        run.end(wall_s=0.0001)
    runs[7].fail(PeerError("no more"))
    worker.is_quick = True
    results = await gateway.ended("a")
    assert {result.state for result in results} == {RunState.SUCCEEDED}


async def test_a_worker_that_answers_and_says_nothing_has_lost_the_group(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    async def say_nothing(_: Any, context: Any) -> None:
        asked.append(context.results.ended)

    monkeypatch.setattr(scripted_worker._Group, "more_context", say_nothing)
    await gateway.worker()
    await submit_batch(gateway, "a", [Input(arguments=(n, 0)) for n in range(3)])
    await until(lambda: bool(asked))
    monkeypatch.undo()
    await gateway.worker(is_quick=True)
    assert {result.state for result in await gateway.ended("a")} == {RunState.SUCCEEDED}
    assert len(asked) == 1, "it is not asked for ever"


async def test_large_outcomes_are_recorded_as_they_are_fetched(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Gone(BytesBlobServer):
        async def size_context(self, context: Any) -> None:
            raise PeerError("it is gone")

    async def say_large(group: Any, context: Any) -> None:
        ended = [Result(value=run.argument, wall_s=0.0001) for run in group._runs]
        records = [write_outcome(place, each, memory_limit_bytes=0) for place, each in enumerate(ended)]
        context.results.large = [BytesBlobServer(records[0]), *map(Gone, records[1:])]
        context.results.ended = True

    monkeypatch.setattr(scripted_worker._Group, "more_context", say_large)
    worker = await gateway.worker()
    await submit_batch(gateway, "a", [Input(arguments=(n, 0)) for n in range(9)])
    assert (await succeeded(gateway, 2)).succeeded == 2
    monkeypatch.undo()
    worker.is_quick = True
    other = await gateway.worker(is_quick=True)
    results = await gateway.ended("a")
    assert [result.outcome.result for result in results] == [str(n) for n in range(9)]
    assert not {0, 1} & {run.argument for run in other.runs}, "what was read is not done again"
