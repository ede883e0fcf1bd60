"""What a small task costs: over HTTP one at a time, many runs of one task, and the same pieces alone.

    .venv/bin/python bench/dispatch.py [--singles N] [--repeats N]

One JSON line a case. The last line sets the cases of this very run against each other, which says more than seconds
do: they depend on the machine.
"""

import argparse
import asyncio
import contextlib
import hashlib
import json
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).resolve().parent.parent
sys.path[0] = str(ROOT)

from bench.cluster import Client, cluster  # noqa: E402
from ww import schema  # noqa: E402
from ww.identity import Identity, PeerId  # noqa: E402
from ww.net.multiaddr import Multiaddr  # noqa: E402
from ww.net.tls import TlsTransport  # noqa: E402
from ww.rpc.errors import call  # noqa: E402
from ww.rpc.loop import run  # noqa: E402
from ww.rpc.vat import Vat  # noqa: E402
from ww.sandbox.child import Child  # noqa: E402
from ww.sandbox.confine import ConfinementConfig, Protection  # noqa: E402
from ww.sandbox.invocation import Invocation, RunLimits  # noqa: E402
from ww.sandbox.limits import SandboxLimits  # noqa: E402
from ww.sandbox.modules import ModuleCache  # noqa: E402
from ww.sandbox.pool import SandboxPool  # noqa: E402

NOOP: Final = (ROOT / "wasm" / "noop" / "noop.wasm").read_bytes()
_WARM_UP: Final = 50
_STARTS: Final = 20


def report(case: str, **figures: float) -> dict[str, float]:
    rounded = {name: float(f"{value:.4g}") for name, value in figures.items()}
    print(json.dumps({"case": case} | rounded), flush=True)
    return rounded


def quantiles(times_s: list[float]) -> dict[str, float]:
    ordered = sorted(times_s)
    return {"p50_ms": statistics.median(ordered) * 1e3, "p99_ms": ordered[int(len(ordered) * 0.99)] * 1e3}


def http_single(client: Client, count: int) -> dict[str, float]:
    """From sending POST /tasks, module and all, to the answer of the GET that waits for the task's end."""
    times_s = []
    for _ in range(_WARM_UP + count):
        start = time.perf_counter()
        task = client.post_task(NOOP)
        while task["status"] != "succeeded":
            task = client.request("GET", f"/tasks/{task['id']}?wait=60")
        times_s.append(time.perf_counter() - start)
    return report("http_single", count=count, **quantiles(times_s[_WARM_UP:]))


def http_repeats(client: Client, repeats: int) -> dict[str, float]:
    """One task with delay=0, from sending it to the GET that shows it complete; the best of three."""
    rates = []
    for _ in range(3):
        start = time.perf_counter()
        task = client.post_task(NOOP, repeats=repeats, delay=0)
        while task["status"] != "succeeded":
            task = client.request("GET", f"/tasks/{task['id']}?wait=60")
        rates.append(repeats / (time.perf_counter() - start))
    return report("http_repeats", repeats=repeats, runs_per_s=max(rates), runs_per_s_median=statistics.median(rates))


class Nothing(schema.worker.Registration.Server):  # type: ignore[misc]
    """A capability whose one method does nothing."""

    async def leave_context(self, context: Any) -> None:
        pass


async def serve_nothing(identity: Identity, ready: Callable[[str], None]) -> None:
    async with Vat(identity, TlsTransport(identity)) as vat:
        vat.export("nothing", lambda peer: Nothing())
        address = (await vat.listen(Multiaddr("ip4", "127.0.0.1", 0)))[0]
        ready(f"{identity.peer_id} {address}")
        await asyncio.Event().wait()


@contextlib.asynccontextmanager
async def other_process() -> AsyncIterator[tuple[PeerId, Multiaddr]]:
    command = (sys.executable, str(ROOT / "bench" / "dispatch.py"), "--serve-nothing")
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    assert process.stdout is not None
    try:
        peer, address = (await process.stdout.readline()).decode().split()
        yield PeerId.parse(peer), Multiaddr.parse(address)
    finally:
        process.kill()
        await process.wait()


async def timed(count: int, once: Callable[[], Awaitable[object]]) -> list[float]:
    times_s = []
    for _ in range(_WARM_UP + count):
        start = time.perf_counter()
        await once()
        times_s.append(time.perf_counter() - start)
    return times_s[_WARM_UP:]


async def rpc_round_trip(count: int) -> dict[str, float]:
    """An empty call to a capability in another process, over TLS."""
    identity = Identity.generate()
    async with (
        other_process() as (peer, address),
        Vat(identity, TlsTransport(identity)) as vat,
        await vat.dial(peer, [address]) as connection,
    ):
        nothing = await connection.connect("nothing", schema.worker.Registration)
        times_s = await timed(count, lambda: call(nothing.leave()))
    return report("rpc_round_trip", count=count, **quantiles(times_s))


async def sandbox_run(count: int, slots: int) -> dict[str, float]:
    """A no-op in a sandbox process, asked directly: one at a time, and as many as fit."""
    invocation = Invocation("run", (0, 0))
    limits = RunLimits(duration_s=60.0, memory_bytes=256 << 20, output_bytes=64 << 10)
    with tempfile.TemporaryDirectory(prefix="ww-bench-") as folder:
        cache = ModuleCache(Path(folder), quota_bytes=1 << 30)
        async with SandboxPool(cache, slots=slots, limits=SandboxLimits()) as pool:
            digest = await store(cache)
            await pool.prepare(digest)
            times_s = await timed(count, lambda: pool.run(digest, invocation, limits))

            async def share() -> None:
                for _ in range(count):
                    await pool.run(digest, invocation, limits)

            start = time.perf_counter()
            await asyncio.gather(*(share() for _ in range(slots)))
            rate = slots * count / (time.perf_counter() - start)
    return report("sandbox_run", count=count, **quantiles(times_s), slots=slots, runs_per_s=rate)


async def sandbox_start(count: int) -> dict[str, float]:
    """From starting a sandbox process until it is ready, as it is and without confinement, in turn."""

    async def start(confinement: ConfinementConfig) -> tuple[float, Sequence[Protection]]:
        child = Child("executor", SandboxLimits(), confinement)
        start = time.perf_counter()
        await child.start()
        took_s = time.perf_counter() - start
        await child.aclose()
        return took_s, child.protections

    _, protections = await start(ConfinementConfig())
    bare = ConfinementConfig(without=[protection.name for protection in protections])
    times_s = [((await start(ConfinementConfig()))[0], (await start(bare))[0]) for _ in range(count)]
    confined_ms, bare_ms = (statistics.median(column) * 1e3 for column in zip(*times_s, strict=True))
    return report("sandbox_start", count=count, p50_ms=confined_ms, unconfined_p50_ms=bare_ms)


async def store(cache: ModuleCache) -> bytes:
    digest = hashlib.sha256(NOOP).digest()
    async with cache.writer(digest) as writer:
        await writer.write(NOOP)
    return digest


async def main(arguments: argparse.Namespace) -> int:
    if arguments.serve_nothing:
        await serve_nothing(Identity.generate(), lambda line: print(line, flush=True))
    rpc = await rpc_round_trip(arguments.singles)
    await sandbox_start(_STARTS)
    sandbox = await sandbox_run(arguments.singles, arguments.slots)
    with cluster(workers=1, slots=arguments.slots) as client:
        single = http_single(client, arguments.singles)
        repeats = http_repeats(client, arguments.repeats)
    report(
        "overhead",
        single_over_pieces=single["p50_ms"] / (rpc["p50_ms"] + sandbox["p50_ms"]),
        repeats_over_sandbox=repeats["runs_per_s"] / sandbox["runs_per_s"],
    )
    return 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Measure what a small task costs; one JSON line a case.")
    parser.add_argument("--singles", type=int, default=500, help="tasks, calls and runs measured one at a time (500)")
    parser.add_argument("--repeats", type=int, default=2000, help="runs of the one large task (2000)")
    parser.add_argument("--slots", type=int, default=2, help="slots of the worker (2)")
    parser.add_argument("--serve-nothing", action="store_true", help=argparse.SUPPRESS)
    parsed = parser.parse_args()
    sys.exit(run(lambda: main(parsed)))
