"""Measures how one system calls Python functions, in a process of its own, which ends with it.

    python -m bench.comparison.functions SYSTEM JSON     JSON: {"cases": [...], "sizes": {...}, "round": N}

Prints one JSON line a case, as soon as it is known. What cannot be measured is one line with "error". Inputs are made
before a case's time begins; all results are back, in the order of the inputs, before it ends, and are looked at after.
"""

import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from bench.comparison import work
from bench.comparison.cases import Stopwatch, check, one_line, p50_p99_ms
from bench.comparison.function_systems import SYSTEMS, System

CASES: Final = ("first", "noop", "millisecond", "call")


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much of each case."""

    noops: int = 10_000
    milliseconds: int = 10_000
    calls: int = 100
    warm_up: int = 500
    """Items of a map of each function, and a tenth of them one at a time, before anything but the first is measured."""


QUICK: Final = Sizes(noops=1_000, milliseconds=500, calls=30, warm_up=100)


def measured(name: str, cases: Sequence[str], sizes: Sizes) -> Iterator[dict[str, Any]]:
    """Start a system and measure those cases of it."""
    begun_at = time.perf_counter()
    with SYSTEMS[name]() as system:
        started_s = time.perf_counter() - begun_at
        check("first", [system.call(work.noop, 1)], [1])
        if "first" in cases:
            first_s = time.perf_counter() - begun_at - started_s
            yield {"case": "first", "start_s": started_s, "first_s": first_s}
        for function in (work.noop, work.millisecond):
            check("warm-up", system.map(function, range(sizes.warm_up)), range(sizes.warm_up))
        for value in range(sizes.warm_up // 10):
            check("warm-up", [system.call(work.noop, value)], [value])
        if "noop" in cases:
            yield {"case": "noop"} | _map(system, work.noop, sizes.noops)
        if "millisecond" in cases:
            yield {"case": "millisecond"} | _map(system, work.millisecond, sizes.milliseconds)
        if "call" in cases:
            yield {"case": "call"} | _calls(system, sizes.calls)


def _map(system: System, function: Callable[[int], int], count: int) -> dict[str, Any]:
    # Other values than the warm-up's, and distinct: what is computed once must not be found again.
    values = range(1_000_000, 1_000_000 + count)
    with Stopwatch() as watch:
        found = system.map(function, values)
    check(function.__name__, found, values)
    calls = {"count": count, "wall_s": watch.wall_s, "calls_per_s": count / watch.wall_s}
    return calls | {"client_us": watch.cpu_s / count * 1e6}


def _calls(system: System, count: int) -> dict[str, Any]:
    times_s = []
    for value in range(2_000_000, 2_000_000 + count):
        begun_at = time.perf_counter()
        found = system.call(work.noop, value)
        times_s.append(time.perf_counter() - begun_at)
        check("call", [found], [value])
    return {"count": count} | p50_p99_ms(times_s)


def main(name: str, asked: str) -> int:
    """Measure the cases that are asked for."""
    given = json.loads(asked)
    # What a library prints is no line of ours.
    lines = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    said = {"system": name, "round": given["round"]}
    try:
        for row in measured(name, given["cases"], Sizes(**given["sizes"])):
            print(json.dumps(said | row), file=lines)
    except ModuleNotFoundError as error:
        print(json.dumps(said | {"error": f"{error.name} is not installed: scripts/setup bench,python"}), file=lines)
        return 1
    except Exception as error:
        print(json.dumps(said | {"error": one_line(error)}), file=lines)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:3]))
