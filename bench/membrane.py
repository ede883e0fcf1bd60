"""What a membrane costs a call: on a capability here, and on one of another node.

    .venv/bin/python bench/membrane.py [--calls N] [--rounds N]

One JSON line a case. The ratios set it against the same calls without a membrane, made in turn with them.
"""

import argparse
import asyncio
import contextlib
import functools
import json
import statistics
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).resolve().parent.parent
sys.path[0] = str(ROOT)

from ww import schema  # noqa: E402
from ww.caps.membrane import attenuate, revocable  # noqa: E402
from ww.identity import Identity  # noqa: E402
from ww.net.tls import TlsTransport  # noqa: E402
from ww.node import LOOPBACK  # noqa: E402
from ww.rpc.errors import call  # noqa: E402
from ww.rpc.exports import Peer  # noqa: E402
from ww.rpc.loop import run  # noqa: E402
from ww.rpc.vat import Vat  # noqa: E402

_IN_FLIGHT: Final = 64


class Program(schema.worker.Program.Server):  # type: ignore[misc]
    """Ends a run at once."""

    async def run_context(self, context: Any) -> None:
        context.results.ended = True


class Worker(schema.worker.Worker.Server):  # type: ignore[misc]
    """Answers each load with a capability, which a membrane has to wrap."""

    async def load_context(self, context: Any) -> None:
        context.results.program = Program()


def references() -> dict[str, Any]:
    """Return the same capability directly and through membranes."""
    interface = schema.worker.Worker
    return {
        "direct": interface._new_client(Worker()),
        "attenuated": attenuate(Worker(), {"Worker.load", "Program.run"}),
        "revocable": revocable(Worker())[0],
        "revocable_twice": revocable(revocable(Worker())[0])[0],
    }


def _given(reference: Any, _: Peer) -> Any:
    return reference


@contextlib.asynccontextmanager
async def over_tls(found: dict[str, Any]) -> AsyncIterator[dict[str, Any]]:
    """Give the references to another node."""
    serving, calling = Identity.generate(), Identity.generate()
    async with Vat(serving, TlsTransport(serving)) as there, Vat(calling, TlsTransport(calling)) as here:
        for name, reference in found.items():
            there.export(name, functools.partial(_given, reference))
        async with await here.dial(serving.peer_id, await there.listen(LOOPBACK)) as connection:
            yield {name: await connection.connect(name, schema.worker.Worker) for name in found}


async def seconds_a_call(worker: Any, calls: int, in_flight: int) -> float:
    """Load, which returns a capability, so many times, so many at a time."""
    start = time.perf_counter()
    for _ in range(calls // in_flight):
        await asyncio.gather(*(call(worker.load(digest=b"")) for _ in range(in_flight)))
    return (time.perf_counter() - start) / (calls // in_flight * in_flight)


async def compare(where: str, workers: dict[str, Any], calls: int, rounds: int) -> None:
    for in_flight in (1, _IN_FLIGHT):
        times: dict[str, list[float]] = {name: [] for name in workers}
        for number in range(rounds + 1):
            for name, worker in workers.items():
                seconds = await seconds_a_call(worker, calls, in_flight)
                if number:  # the first warms up
                    times[name].append(seconds)
        direct = statistics.median(times["direct"])
        for name, measured in times.items():
            middle = statistics.median(measured)
            figures = {
                "us_per_call": middle * 1e6,
                "added_us": (middle - direct) * 1e6,
                "ratio_to_direct": middle / direct,
            }
            rounded = {key: float(f"{value:.4g}") for key, value in figures.items()}
            print(
                json.dumps({"case": f"membrane_{where}", "reference": name, "in_flight": in_flight} | rounded),
                flush=True,
            )


async def main(arguments: argparse.Namespace) -> None:
    found = references()
    await compare("local", found, arguments.calls, arguments.rounds)
    async with over_tls(found) as workers:
        await compare("tls", workers, arguments.calls, arguments.rounds)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Measure what a membrane costs a call; one JSON line a case.")
    parser.add_argument("--calls", type=int, default=2000, help="calls in a round (2000)")
    parser.add_argument("--rounds", type=int, default=5, help="rounds, of which the median counts (5)")
    given = parser.parse_args()
    run(lambda: main(given))
