"""A million queued runs of one task, drained with flat memory: what has ended is on disk and nowhere else.

The scheduler, its pool, the store and its files are the real ones, and so are the messages: the worker speaks
schema/worker.capnp, over net/memory.py instead of TLS, and answers each run at once instead of running a guest.
WW_MILLION_RUNS says how many.
"""

import asyncio
import contextlib
import gc
import os
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from bench.simulated import SimulatedWorker
from tests.gateway.stored import results_of
from tests.gateway.storing import store_module
from tests.guests import digest_of, guest
from ww.clock import SystemClock
from ww.gateway.artifacts import ArtifactStore
from ww.gateway.modules import ModuleStore
from ww.gateway.scheduler import Scheduler, SchedulerConfig
from ww.gateway.store import Store
from ww.gateway.task import RunState, Spec
from ww.identity import Identity
from ww.net.memory import MemoryTransport, Network
from ww.node import LOOPBACK
from ww.rpc.vat import Vat

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("kj_loop")]

RUNS = int(os.environ.get("WW_MILLION_RUNS", "1000000"))
SLOTS = 4
# Afterwards all is warm: caches of the allocator, of SQLite, of pycapnp.
WARM_RUNS = RUNS // 10
# Less a run than a place in a list: one of anything kept for each run is seen.
MAY_GROW_BYTES = (4 << 20) + 3 * RUNS
NOOP = guest("noop")


@contextlib.asynccontextmanager
async def draining(directory: Path, repeats: int) -> AsyncIterator[tuple[Store, Scheduler, SimulatedWorker]]:
    """Submit one task of that many runs to a gateway without HTTP, and bring in a worker."""
    network, identity, workers_identity = Network(), Identity.generate(), Identity.generate()
    modules = ModuleStore(directory / "modules", quota_bytes=1 << 20)
    artifacts = ArtifactStore(directory / "artifacts", quota_bytes=1 << 20)
    digest = digest_of(NOOP).hex()
    spec = Spec(
        id="a", module=digest, kind="function", entry="run", arguments=(7, 0), duration_s=60.0,
        memory_bytes=1 << 20, output_bytes=1000, repeats=repeats,
    )  # fmt: skip
    async with (
        Store(directory / "ww.db") as store,
        Scheduler(store, modules, artifacts, SystemClock(), SchedulerConfig()) as scheduler,
        Vat(identity, MemoryTransport(network, identity)) as vat,
    ):
        vat.export("registry", scheduler.pool.registry_for)
        vat.export("channel", scheduler.pool.sender_for)
        address = (await vat.listen(LOOPBACK))[0]
        await scheduler.submit(spec, lambda: store_module(modules, NOOP, scheduler.modules_in_use))
        assert scheduler.queue_length() == repeats
        async with SimulatedWorker(workers_identity, MemoryTransport(network, workers_identity)) as worker:
            await worker.join(identity.peer_id, address, SLOTS)
            yield store, scheduler, worker


async def ended(scheduler: Scheduler, runs: int) -> None:
    """Wait until that many runs of the task have ended."""
    while (task := scheduler.task("a")) is not None and task.succeeded < runs:  # noqa: ASYNC110 there is no event
        await asyncio.sleep(0.05)


def resident_bytes() -> int:
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.timeout(120 + RUNS // 1000)
async def test_a_million_runs_of_one_task_drain_with_flat_memory(tmp_path: Path) -> None:
    async with draining(tmp_path, RUNS) as (store, scheduler, worker):
        await ended(scheduler, WARM_RUNS)
        before = resident_bytes()
        await ended(scheduler, RUNS)
        grown = resident_bytes() - before
        row = await store.task("a")
        assert row is not None
        assert row.has_ended
        assert (row.status, row.succeeded, row.failed) == (RunState.SUCCEEDED, RUNS, 0)
        # On a busy machine some are given back from behind one that looks stuck, and run again: one result counts.
        again = worker.runs - RUNS
        assert again >= 0
        last = await results_of(store, row.number, limit=10, after=RUNS - 3)
        assert [(result.run, result.outcome.result) for result in last] == [(RUNS - 2, "7"), (RUNS - 1, "7")]
        assert scheduler.queue_length() == 0
    print(f"{RUNS} runs, {again} of them again: {grown >> 10} KiB more than after {WARM_RUNS}")  # noqa: T201
    assert grown < MAY_GROW_BYTES
    assert in_database(tmp_path / "ww.db") == (RUNS, RUNS, 0, RUNS - 1)


def in_database(path: Path) -> tuple[int, ...]:
    """Say how many rows of runs there are, of how many runs, from which to which."""
    with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
        query = "SELECT count(*), count(DISTINCT run), min(run), max(run) FROM runs"
        found: tuple[int, ...] = connection.execute(query).fetchone()
    return found
