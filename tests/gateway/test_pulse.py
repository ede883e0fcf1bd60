"""Workers whose connections stay open when they live no more: their pulses say so."""

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import until
from tests.gateway.scheduling import Gateway, next_run, open_gateway
from ww import schema
from ww.gateway.pulse import PulseConfig
from ww.gateway.task import RunState

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("kj_loop")]

EVERY_S, TIMEOUT_S = 2.0, 10.0
LOOK_S = 0.25


class Pulse(schema.worker.Pulse.Server):  # type: ignore[misc]
    """Beats until it is frozen."""

    def __init__(self) -> None:
        self.beats = 0
        self.goes_on = asyncio.Event()
        self.goes_on.set()

    async def beat_context(self, context: Any) -> None:
        self.beats += 1
        await self.goes_on.wait()


@pytest.fixture
async def gateway(tmp_path: Path) -> AsyncIterator[Gateway]:
    config = {"tasks_max": 100, "pulse": PulseConfig(EVERY_S, TIMEOUT_S)}
    async with open_gateway(tmp_path, config=config) as gateway:
        yield gateway


def workers(gateway: Gateway) -> int:
    return len(gateway.scheduler.pool.workers())


async def ticks_until(gateway: Gateway, condition: Callable[[], bool]) -> float:
    """Let time pass in steps that no look is late by; return how much of it has."""
    passed_s = 0.0
    async with asyncio.timeout(10):
        while not condition():
            await gateway.pass_time(LOOK_S)
            await asyncio.sleep(0.001)  # what crosses the connection takes turns of the loop
            passed_s += LOOK_S
    return passed_s


async def test_a_frozen_worker_is_gone_and_its_runs_go_elsewhere(gateway: Gateway) -> None:
    pulse = Pulse()
    frozen = await gateway.worker(pulse=pulse)
    await gateway.submit("a", duration_s=1000.0)
    await next_run(frozen)
    await ticks_until(gateway, lambda: pulse.beats == 3)
    assert workers(gateway) == 1
    pulse.goes_on.clear()
    assert await ticks_until(gateway, lambda: workers(gateway) == 0) >= TIMEOUT_S
    other = await gateway.worker()
    await ticks_until(gateway, lambda: len(other.runs) == 1)
    (await next_run(other)).end()
    (result,) = await gateway.ended("a")
    assert (result.state, result.worker, result.attempts) == (RunState.SUCCEEDED, other.peer_id, 2)


async def test_a_worker_that_answers_late_but_in_time_stays(gateway: Gateway) -> None:
    pulse = Pulse()
    await gateway.worker(pulse=pulse)
    for _ in range(2):
        beats = pulse.beats
        pulse.goes_on.clear()
        await ticks_until(gateway, lambda: pulse.beats > beats)  # noqa: B023 called at once
        for _ in range(round((TIMEOUT_S - 1) / LOOK_S)):
            await gateway.pass_time(LOOK_S)
        pulse.goes_on.set()
        await ticks_until(gateway, lambda: pulse.beats > beats + 1)  # noqa: B023
    assert workers(gateway) == 1


async def test_a_gateway_that_was_held_up_takes_no_worker_for_gone(gateway: Gateway) -> None:
    pulse = Pulse()
    pulse.goes_on.clear()
    await gateway.worker(pulse=pulse)
    await until(lambda: pulse.beats == 1)
    for _ in range(5):
        gateway.clock.advance(10 * TIMEOUT_S)  # as one look after the other would see it
        await asyncio.sleep(0.01)
    pulse.goes_on.set()
    await ticks_until(gateway, lambda: pulse.beats == 3)
    assert workers(gateway) == 1


async def test_what_is_no_pulse_is_hung_up_on(gateway: Gateway) -> None:
    class Mute(schema.worker.Pulse.Server):  # type: ignore[misc]
        pass

    await gateway.worker(slots=0, pulse=Mute())
    await until(lambda: workers(gateway) == 0)


async def test_of_a_worker_that_left_nothing_waits(gateway: Gateway) -> None:
    before = asyncio.all_tasks()
    pulse = Pulse()
    worker = await gateway.worker(pulse=pulse)
    await until(lambda: pulse.beats == 1)
    worker.disconnect()
    await until(lambda: workers(gateway) == 0)
    await until(lambda: not any("_watch" in repr(task) for task in asyncio.all_tasks() - before))


async def test_a_worker_without_a_pulse_is_left_alone(gateway: Gateway) -> None:
    await gateway.worker()
    for _ in range(100):
        await gateway.pass_time(LOOK_S)
    assert workers(gateway) == 1
