"""What waits for the disk, seen by who waits for it."""

import asyncio
from typing import Any

import pytest

from tests.guests import digest_of, guest
from ww.clock import SystemClock
from ww.gateway.observer import Nobody
from ww.gateway.recorder import Recorder
from ww.gateway.task import Outcome, RunResult, RunState, Spec, Task

pytestmark = pytest.mark.anyio


class Disk:
    """A store that takes what it is given."""

    def __init__(self) -> None:
        self.rows: list[int] = []

    async def add_results(self, results: Any) -> None:
        await asyncio.sleep(0)
        self.rows += [result.run for _, result in results]


def task() -> Task:
    spec = Spec(
        id="a", module=digest_of(guest("noop")).hex(), kind="function", entry="run", arguments=(), repeats=10**6,
        duration_s=1.0, memory_bytes=1 << 20, output_bytes=100,
    )  # fmt: skip
    return Task(spec, number=1, created_at=0.0, now=0.0, wall=0.0)


def result(run: int) -> RunResult:
    return RunResult(run, RunState.SUCCEEDED, Outcome(), "", 1, 0.0, 0.0, 0.0)


async def test_who_waits_for_results_does_not_wait_for_those_that_come_later() -> None:
    disk: Any = Disk()
    batch = task()

    def another(_: Task) -> None:
        recorder.put_now(batch, [result(len(disk.rows))])

    nowhere: Any = None
    recorder = Recorder(disk, nowhere, SystemClock(), Nobody(), is_busy=lambda: False, on_written=another)
    recording = asyncio.ensure_future(recorder.record())
    recorder.put_now(batch, [result(0)])
    assert await recorder.is_written(batch, 10.0)
    assert 0 in disk.rows
    recording.cancel()
    await asyncio.wait((recording,))
