"""What one run costs a gateway's scheduler and store while so many are queued: the cases of bench/gateway.py.

Holds a gateway without HTTP in this process, and a worker that answers at once in another (simulated.py), over TLS. A
gateway's time stands still but for what a case makes due, so that the queue of a case keeps its length while it drains:
with ten queued, what is measured is a queue of ten, and not the end of one.
"""

import asyncio
import contextlib
import hashlib
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bench.simulated import SAID_EVERY
from ww.clock import SystemClock
from ww.gateway.artifacts import ArtifactStore
from ww.gateway.modules import ModuleStore
from ww.gateway.scheduler import Scheduler, SchedulerConfig
from ww.gateway.store import Store
from ww.gateway.task import RunState, Spec, Task
from ww.identity import Identity
from ww.net.multiaddr import Multiaddr
from ww.net.tls import TlsTransport
from ww.node import LOOPBACK
from ww.rpc.vat import Vat

ROOT: Final = Path(__file__).resolve().parent.parent
NOOP: Final = (ROOT / "wasm" / "noop" / "noop.wasm").read_bytes()
_SLOTS: Final = 4
_WARM_UP_RUNS: Final = 2_000
_RUNS: Final = 16_000
_SUBMITTED_AT_ONCE: Final = 256
# Between the runs of a queue that is kept at a length.
_DELAY_S: Final = 1e-3
_LOOK_EVERY: Final = 8


@dataclass(frozen=True, slots=True)
class Queue:
    """How many runs are queued, in how many tasks."""

    queued: int
    tasks: int = 1
    is_paced: bool = False
    """Whether it is held at that length."""


_DEPTHS: Final = (10, 1_000, 100_000, 1_000_000)
_SPREADS: Final = (1, 100, 10_000)
CASES: Final = {f"queued_{queued}": Queue(queued, is_paced=True) for queued in _DEPTHS} | {
    f"tasks_{tasks}": Queue(1_000_000, tasks) for tasks in _SPREADS
}


class PacedClock:
    """Time that stands still, except that it makes a task's runs due as others of it begin."""

    def __init__(self, queued: int) -> None:
        """Keep that many runs due of `task`, once there is one."""
        self.task: Task | None = None
        self._queued = queued
        self._start = time.monotonic()
        self._wall = time.time()
        self._passed_s = 0.0
        self._calls = 0

    def now(self) -> float:
        self._calls += 1
        if self.task is not None and self._calls % _LOOK_EVERY == 0:
            counts = self.task.counts(0.0)
            begun = counts[RunState.RUNNING] + counts[RunState.SUCCEEDED] + counts[RunState.FAILED]
            # Never backwards: what was given back to the queue begins twice.
            self._passed_s = max(self._passed_s, (begun + self._queued) * _DELAY_S)
        return self._start + self._passed_s

    def wall(self) -> float:
        return self._wall + self._passed_s

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


async def drain(folder: Path, queue: Queue) -> dict[str, float]:
    """Measure the runs after the first few: processor time of this process a run, and runs by the clock."""
    identity = Identity.generate()
    clock = PacedClock(queue.queued) if queue.is_paced else SystemClock()
    modules = ModuleStore(folder / "modules", quota_bytes=1 << 20)
    artifacts = ArtifactStore(folder / "artifacts", quota_bytes=1 << 20)
    config = SchedulerConfig(tasks_max=1_000_000)
    async with (
        Store(folder / "ww.db") as store,
        Scheduler(store, modules, artifacts, clock, config) as scheduler,
        Vat(identity, TlsTransport(identity)) as vat,
    ):
        vat.export("registry", scheduler.pool.registry_for)
        vat.export("channel", scheduler.pool.sender_for)
        address = (await vat.listen(LOOPBACK))[0]
        await submit(scheduler, modules, queue)
        if isinstance(clock, PacedClock):
            clock.task = scheduler.task("t0")
        async with worker(identity, address) as said:
            await ran(said, _WARM_UP_RUNS)
            begun_at, cpu_s = time.perf_counter(), time.process_time()
            await ran(said, _RUNS)
            wall_s, cpu_s = time.perf_counter() - begun_at, time.process_time() - cpu_s
    return {"gateway_us": cpu_s / _RUNS * 1e6, "runs_per_s": _RUNS / wall_s, "gateway_share": cpu_s / wall_s}


async def submit(scheduler: Scheduler, modules: ModuleStore, queue: Queue) -> None:
    """Queue the runs of a case; tasks are named t0 and on."""
    digest = hashlib.sha256(NOOP).hexdigest()

    async def keep() -> None:
        with modules.upload(scheduler.modules_in_use) as upload:
            upload.write(NOOP)
            await upload.finish()
            await upload.keep()

    async def add(number: int) -> None:
        spec = Spec(
            id=f"t{number}",
            module=digest,
            kind="function",
            entry="run",
            arguments=(number, 0),
            duration_s=60.0,
            memory_bytes=1 << 20,
            output_bytes=1000,
            repeats=queue.queued + _WARM_UP_RUNS + 2 * _RUNS if queue.is_paced else queue.queued // queue.tasks,
            delay_s=_DELAY_S if queue.is_paced else 0.0,
        )
        await scheduler.submit(spec, keep, is_new=True)

    await add(0)
    for first in range(1, queue.tasks, _SUBMITTED_AT_ONCE):
        await asyncio.gather(*map(add, range(first, min(queue.tasks, first + _SUBMITTED_AT_ONCE))))


@contextlib.asynccontextmanager
async def worker(gateway: Identity, address: Multiaddr) -> AsyncIterator[asyncio.StreamReader]:
    """Run a worker; what is yielded says a line for each thousand runs."""
    command = (sys.executable, str(ROOT / "bench" / "simulated.py"), str(gateway.peer_id), str(address), str(_SLOTS))
    process = await asyncio.create_subprocess_exec(
        *command, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    try:
        await process.stdout.readline()  # its peer id
        yield process.stdout
    finally:
        process.kill()
        await process.wait()


async def ran(said: asyncio.StreamReader, runs: int) -> None:
    """Wait until the worker has answered that many more."""
    for _ in range(runs // SAID_EVERY):
        async with asyncio.timeout(60):
            if not await said.readline():
                raise RuntimeError("the simulated worker ended")
