"""Runs that several peers vote on, from the gateway to its workers: liars, losses, peers of many connections."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import until
from tests.gateway.scheduling import Gateway, next_run, open_gateway
from tests.guests import zipped
from ww.errors import NotAdmitted
from ww.gateway.task import RunState
from ww.identity import Identity, PeerId

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("kj_loop")]

VOTED: dict[str, Any] = {"deterministic": True, "replicas": 3, "quorum": 2}


@pytest.fixture
async def gateway(tmp_path: Path) -> AsyncIterator[Gateway]:
    async with open_gateway(tmp_path, config={"tasks_max": 100}) as gateway:
        yield gateway


def reason_of(gateway: Gateway, id: str = "a") -> str:
    task = gateway.scheduler.task(id)
    assert task is not None
    return task.reason(gateway.clock.now())


async def test_ten_thousand_runs_go_to_two_of_three_peers_each_in_groups(gateway: Gateway) -> None:
    workers = [await gateway.worker(slots=2, is_quick=True) for _ in range(3)]
    await gateway.submit("a", repeats=10_000, **VOTED)
    await gateway.ended("a")
    row = await gateway.store.task("a")
    assert row is not None
    assert (row.succeeded, row.failed) == (10_000, 0)
    asked = sum(len(worker.runs) for worker in workers)
    assert 20_000 <= asked < 21_000, "a third vote is asked for where nothing else is to be done"
    assert max(len(group) for worker in workers for group in worker.groups) == 64
    assert gateway.scheduler.pool.disagreements.total == 0


async def test_who_lies_is_outvoted_and_then_refused(gateway: Gateway) -> None:
    honest = [await gateway.worker(is_quick=True)]
    identity = Identity.generate()
    liar = await gateway.worker(is_quick=True, lie=1, identity=identity)
    refused: list[tuple[PeerId, int]] = []

    async def on_refused(peer_id: PeerId, count: int) -> None:
        refused.append((peer_id, count))

    gateway.scheduler.on_refused = on_refused
    await gateway.submit("a", repeats=300, **VOTED)
    await gateway.shows("a", "unsatisfiable")
    honest.append(await gateway.worker(is_quick=True))
    results = await gateway.ended("a")
    assert {(result.state, result.outcome.result) for result in results} == {(RunState.SUCCEEDED, "7")}
    assert {result.worker for result in results} <= {worker.peer_id for worker in honest}
    assert refused == [(identity.peer_id, 4)]
    assert [gateway.scheduler.pool.disagreements.of(worker.peer_id) for worker in honest] == [0, 0]
    await until(lambda: len(gateway.scheduler.pool.workers()) == 2)
    liar.disconnect()
    with pytest.raises(NotAdmitted, match="too many of its results were outvoted"):
        await gateway.worker(identity=identity)
    gateway.scheduler.pool.refuse(identity.peer_id, False)
    await gateway.worker(identity=identity)


async def test_a_peer_is_one_however_many_connections_and_slots_it_has(gateway: Gateway) -> None:
    identity = Identity.generate()
    for _ in range(2):
        await gateway.worker(slots=4, is_quick=True, identity=identity)
    await gateway.submit("a", repeats=5, **VOTED)
    await gateway.shows("a", "unsatisfiable")
    assert reason_of(gateway) == "quorum 2: 1 peer that could run it is connected"
    other = await gateway.worker(is_quick=True)
    results = await gateway.ended("a")
    assert [result.state for result in results] == [RunState.SUCCEEDED] * 5
    assert Counter(run.argument for run in other.runs)[7] == 5, "one vote of each run is the other's"


async def test_two_that_disagree_wait_for_a_third(gateway: Gateway) -> None:
    await gateway.worker(is_quick=True)
    await gateway.worker(is_quick=True, lie=1)
    await gateway.submit("a", **VOTED)
    await gateway.shows("a", "unsatisfiable")
    assert reason_of(gateway) == "quorum 2: the 2 peers that could run it do not agree"
    await gateway.worker(is_quick=True)
    (result,) = await gateway.ended("a")
    assert (result.outcome.result, result.attempts) == ("7", 3)


async def test_two_that_disagree_do_not_wait_for_ever(tmp_path: Path) -> None:
    async with open_gateway(tmp_path, config={"unsatisfiable_ttl_s": 5.0}) as gateway:
        await gateway.worker(is_quick=True)
        await gateway.worker(is_quick=True, lie=1)
        await gateway.submit("a", **VOTED)
        await gateway.shows("a", "unsatisfiable")
        assert await gateway.ended("a") == []
        row = await gateway.store.task("a")
        assert row is not None
        assert (row.status, row.reason) == (
            "failed", "unsatisfiable: quorum 2: the 2 peers that could run it do not agree",
        )  # fmt: skip


async def test_a_vote_that_is_lost_is_asked_of_another(gateway: Gateway) -> None:
    first, lost = await gateway.worker(), await gateway.worker()
    await gateway.submit("a", **VOTED | {"replicas": 2})
    run, _ = await next_run(first), await next_run(lost)
    lost.disconnect()
    run.end()
    await gateway.shows("a", "unsatisfiable")
    third = await gateway.worker()
    async with asyncio.timeout(10):
        while not third.runs:
            await gateway.pass_time(0.1)
    third.runs[0].end()
    (result,) = await gateway.ended("a")
    assert (result.state, result.worker, result.attempts) == (RunState.SUCCEEDED, first.peer_id, 3)


async def test_a_vote_that_is_not_needed_any_more_is_stopped(gateway: Gateway) -> None:
    workers = [await gateway.worker() for _ in range(3)]
    await gateway.submit("a", **VOTED)
    runs = [await next_run(worker) for worker in workers]
    runs[0].end(reason="trap", value=None, detail="unreachable")
    task = gateway.scheduler.task("a")
    assert task is not None
    await until(lambda: len(task.active) == 2)
    runs[1].end(reason="trap", value=None, detail="wasm trap: unreachable executed")
    (result,) = await gateway.ended("a")
    assert (result.state, result.outcome.reason, result.outcome.detail) == (RunState.FAILED, "trap", "unreachable")
    await until(lambda: runs[2].cancels == 1)
    await until(lambda: gateway.scheduler.late_outcomes == 1)


async def test_one_run_that_is_slow_on_a_peer_holds_up_no_others(gateway: Gateway) -> None:
    slow = await gateway.worker()
    quick = [await gateway.worker(is_quick=True) for _ in range(2)]
    await gateway.submit("a", repeats=100, **VOTED)
    results = await gateway.ended("a")
    assert len(results) == 100
    assert {result.worker for result in results} <= {worker.peer_id for worker in quick}
    assert len(slow.runs) == 1


async def test_a_task_is_cancelled_in_the_middle_of_its_votes(gateway: Gateway) -> None:
    first, second = await gateway.worker(), await gateway.worker()
    await gateway.submit("a", repeats=2, **VOTED)
    (await next_run(first)).end()
    await next_run(second)
    await gateway.cancel("a")
    await until(lambda: all(run.outcome.done() for run in second.runs))
    row = await gateway.store.task("a")
    assert row is not None
    assert row.status == "cancelled"


async def test_votes_are_not_kept_over_a_restart(tmp_path: Path) -> None:
    async with open_gateway(tmp_path) as gateway:
        first, second = await gateway.worker(), await gateway.worker()
        await gateway.submit("a", **VOTED)
        (await next_run(first)).end(value=1)
        await next_run(second)
        task = gateway.scheduler.task("a")
        assert task is not None
        await until(lambda: len(task.active) == 1)
    async with open_gateway(tmp_path) as gateway:
        for _ in range(2):
            await gateway.worker(is_quick=True)
        (result,) = await gateway.ended("a")
        assert (result.outcome.result, result.attempts) == ("7", 2)


async def test_artifacts_are_voted_on_and_kept_once(gateway: Gateway) -> None:
    workers = [await gateway.worker() for _ in range(2)]
    await gateway.submit("a", artifacts=("out",), artifact_bytes=1 << 16, files_bytes=1 << 16, **VOTED)
    for worker in workers:
        (await next_run(worker)).end(artifacts=zipped(out=b"what it left"))
    (result,) = await gateway.ended("a")
    assert result.state is RunState.SUCCEEDED
    assert gateway.artifact_files() == {f"{result.outcome.artifacts}.zip"}
    assert gateway.scheduler.recorder.held == {}
