"""What a run costs a gateway's scheduler while so many workers are connected, each busy with runs of 100 ms.

    python -m bench.comparison.scale WORKERS SECONDS RUN_SECONDS        prints one JSON line

Holds a gateway without HTTP in this process, and the workers, simulated, in another (../simulated.py), each with a
connection of its own over TLS and one slot. What is in cpu_us is all that the process does for a run: scheduler, store
and RPC, without what it does for so many idle workers, which is idle_share. waited_share is the time in which it had
something to do and no processor to do it on: where that is much, the machine was at its limit and not the scheduler.
"""

import asyncio
import contextlib
import gc
import json
import os
import resource
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Final

from bench.draining import Queue, submit
from bench.processor import cpu_seconds, threads_cpu_seconds, waited_seconds
from bench.simulated import JOINED
from ww.clock import SystemClock
from ww.gateway.artifacts import ArtifactStore
from ww.gateway.modules import ModuleStore
from ww.gateway.scheduler import Scheduler, SchedulerConfig
from ww.gateway.store import Store
from ww.gateway.task import RunState
from ww.identity import Identity
from ww.net.multiaddr import Multiaddr
from ww.net.tls import TlsTransport
from ww.node import LOOPBACK
from ww.rpc.loop import run
from ww.rpc.vat import Vat

ROOT: Final = Path(__file__).resolve().parent.parent.parent
_JOIN_WITHIN_S: Final = 120.0
_IDLE_S: Final = 2.0
_RUN_WITHIN_S: Final = 60.0
_LOOK_EVERY_S: Final = 0.05
_LOOK_CLOSELY_EVERY_S: Final = 0.002
# Runs of each worker before anything is measured.
_WARM_UP_RUNS: Final = 8
# What a worker's connection takes, and what the rest does.
_FILES_PER_WORKER: Final = 2
_FILES: Final = 500


async def measure(folder: Path, workers: int, seconds: float, run_s: float) -> dict[str, float]:
    """Measure that many workers for so long."""
    identity = Identity.generate()
    modules = ModuleStore(folder / "modules", quota_bytes=1 << 20)
    artifacts = ArtifactStore(folder / "artifacts", quota_bytes=1 << 20)
    async with (
        Store(folder / "ww.db") as store,
        Scheduler(store, modules, artifacts, SystemClock(), SchedulerConfig()) as scheduler,
        Vat(identity, TlsTransport(identity)) as vat,
    ):
        vat.export("registry", scheduler.pool.registry_for)
        vat.export("channel", scheduler.pool.sender_for)
        address = (await vat.listen(LOOPBACK))[0]
        async with simulators(identity, address, workers, run_s) as pid:
            idle_s = await _idle(min(_IDLE_S, seconds))
            ideal = workers / run_s
            # More than can be run until all has been measured.
            await submit(scheduler, modules, Queue(int(ideal * (seconds + 60)) + _WARM_UP_RUNS * workers))
            task = scheduler.task("t0")
            assert task is not None

            def ended() -> int:
                return task.counts(0.0)[RunState.SUCCEEDED]

            await _until(lambda: ended() >= _WARM_UP_RUNS * workers, _LOOK_EVERY_S)
            first, begun_at = await _next(ended)
            before, theirs_s, waited_s = threads_cpu_seconds(os.getpid()), cpu_seconds(pid), waited_seconds(os.getpid())
            measured_at = time.perf_counter()
            await asyncio.sleep(seconds)
            wall_s, runs = time.perf_counter() - measured_at, ended() - first
            after, theirs_s = threads_cpu_seconds(os.getpid()), cpu_seconds(pid) - theirs_s
            waited_s = waited_seconds(os.getpid()) - waited_s
            last, ended_at = await _next(ended)
    loop_s, others_s = (now - then for now, then in zip(after, before, strict=True))
    runs_per_s = (last - first) / (ended_at - begun_at)
    return _row(max(1, runs), wall_s, loop_s, others_s, idle_s) | {
        "workers": workers,
        "runs_per_s": runs_per_s,
        "ideal_per_s": ideal,
        "share": runs_per_s / ideal,
        "simulators_share": theirs_s / wall_s,
        "waited_share": waited_s / wall_s,
    }


async def _next(ended: Callable[[], int]) -> tuple[int, float]:
    """Wait until a run has ended; return how many have, and when that was: few runs are not to be cut through."""
    before = ended()
    await _until(lambda: ended() > before, _LOOK_CLOSELY_EVERY_S)
    return ended(), time.perf_counter()


async def _until(has_come: Callable[[], bool], every_s: float) -> None:
    end = time.monotonic() + _RUN_WITHIN_S
    while not has_come():
        if time.monotonic() > end:
            raise RuntimeError(f"the simulated workers end no runs: none within {_RUN_WITHIN_S:g} s")
        await asyncio.sleep(every_s)


def _row(runs: int, wall_s: float, loop_s: float, others_s: float, idle_s: float) -> dict[str, float]:
    """Say what a run costs. limit_per_s: how many the one thread that schedules could do if it did nothing else."""
    ours_s = max(1e-9, loop_s + others_s - idle_s * wall_s)
    return {
        "cpu_us": ours_s / runs * 1e6,
        "loop_us": loop_s / runs * 1e6,
        "gateway_share": (loop_s + others_s) / wall_s,
        "idle_share": idle_s,
        "limit_per_s": runs / loop_s,
    }


async def _idle(seconds: float) -> float:
    """Return the share of a processor that this process uses while nothing is queued."""
    before = time.process_time()
    begun_at = time.perf_counter()
    await asyncio.sleep(seconds)
    return (time.process_time() - before) / (time.perf_counter() - begun_at)


@contextlib.asynccontextmanager
async def simulators(gateway: Identity, address: Multiaddr, workers: int, run_s: float) -> AsyncIterator[int]:
    """Run that many workers of one slot in one process, whose id is yielded when all have joined."""
    program = (sys.executable, str(ROOT / "bench" / "simulated.py"))
    process = await asyncio.create_subprocess_exec(
        *program, str(gateway.peer_id), str(address), "1", str(workers), str(run_s),
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout is not None
    read = asyncio.ensure_future(_read(process.stdout, joined := asyncio.Event()))
    try:
        async with asyncio.timeout(_JOIN_WITHIN_S):
            await joined.wait()
        yield process.pid
    finally:
        read.cancel()
        process.kill()
        await process.wait()


async def _read(lines: asyncio.StreamReader, joined: asyncio.Event) -> None:
    """Read all that is said, so that whoever says it need not wait."""
    while line := await lines.readline():
        if line.strip() == JOINED.encode():
            joined.set()


def main(workers: int, seconds: float, run_s: float) -> int:
    """Measure once."""
    files = _FILES + _FILES_PER_WORKER * workers
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < files:
        print(json.dumps({"error": f"{workers} workers need {files} open files, this machine allows {hard}"}))
        return 1
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, files), hard))
    gc.set_threshold(20_000, 20, 50)  # as `ww gateway` does
    with tempfile.TemporaryDirectory(prefix="ww-bench-") as folder:
        print(json.dumps(run(lambda: measure(Path(folder), workers, seconds, run_s))))
    return 0


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), float(sys.argv[2]), float(sys.argv[3])))
