"""What is measured of every system alike: the cases, how large they are, and that nothing came back wrong.

Holds the cases and their inputs. Must not know any system. Inputs are made before a case's time begins; all results are
back in the client, in the order of the inputs, before it ends, and are looked at after it.
"""

import random
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

CASES: Final = ("noop", "single", "payload", "compute")
SLOTS: Final = 2
"""How many runs at once, of every system."""
_SEED: Final = 7


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much of each case."""

    noops: int = 10_000
    singles: int = 300
    payloads: int = 1_000
    payload_bytes: int = 100_000
    computes: int = 200
    compute_s: float = 0.1
    warm_up: int = 500
    """No-op runs in one batch, and a tenth of them one at a time, and payloads, before anything is measured."""


QUICK: Final = Sizes(noops=1_000, singles=50, payloads=100, computes=20, warm_up=100)


class System(Protocol):
    """Something that runs small work on two processors, set up as its own documentation says for small tasks."""

    def noop(self, values: Sequence[int]) -> list[int]:
        """Run a no-op for each value as one batch; return the results in the order of the values."""
        ...

    def single(self, value: int) -> int:
        """Submit one no-op, wait for its result and return that."""
        ...

    def copy(self, payloads: Sequence[bytes]) -> list[bytes]:
        """Have each payload copied as one batch; return the copies in their order."""
        ...

    def compute(self, count: int, seconds: float) -> float:
        """Have that many runs compute for about so long each; return the processor time that they said they used."""
        ...


class WrongResult(Exception):
    """A system gave back what it should not."""


def one_line(error: Exception) -> str:
    """Say an error in one line: the last, where it holds a log or a traceback."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[-1][:200]}" if lines else type(error).__name__


def check(what: str, found: Sequence[Any], expected: Sequence[Any]) -> None:
    """Raise WrongResult unless found is what was expected."""
    if len(found) != len(expected):
        raise WrongResult(f"{what}: {len(found)} results came back, expected {len(expected)}")
    for place, (one, other) in enumerate(zip(found, expected, strict=True)):
        if one != other:
            raise WrongResult(f"{what}: run {place} gave {str(one)[:60]!r}, expected {str(other)[:60]!r}")


def warm_up(system: System, cases: Sequence[str], sizes: Sizes) -> None:
    """Have everything begun, loaded and connected that a system begins, loads or connects when it is first needed."""
    if "noop" in cases:
        check("noop", system.noop(range(sizes.warm_up)), range(sizes.warm_up))
    if "single" in cases:
        for value in range(sizes.warm_up // 10):
            check("single", [system.single(value)], [value])
    if "payload" in cases:
        payloads = _payloads(sizes.warm_up // 10, sizes.payload_bytes, _SEED + 1)
        check("payload", system.copy(payloads), payloads)
    if "compute" in cases:
        system.compute(2 * SLOTS, sizes.compute_s / 10)


def measure(system: System, case: str, sizes: Sizes) -> dict[str, float]:
    """Measure one case once."""
    return _MEASURES[case](system, sizes)


def _noop(system: System, sizes: Sizes) -> dict[str, float]:
    # Other values than the warm-up's, and distinct: what is computed once must not be found again.
    values = range(1_000_000, 1_000_000 + sizes.noops)
    with Stopwatch() as watch:
        found = system.noop(values)
    check("noop", found, values)
    return _batch(sizes.noops, watch)


def _single(system: System, sizes: Sizes) -> dict[str, float]:
    times_s = []
    with Stopwatch() as watch:
        for value in range(2_000_000, 2_000_000 + sizes.singles):
            begun_at = time.perf_counter()
            found = system.single(value)
            times_s.append(time.perf_counter() - begun_at)
            check("single", [found], [value])
    return _batch(sizes.singles, watch) | p50_p99_ms(times_s)


def _payload(system: System, sizes: Sizes) -> dict[str, float]:
    payloads = _payloads(sizes.payloads, sizes.payload_bytes, _SEED)
    with Stopwatch() as watch:
        found = system.copy(payloads)
    check("payload", found, payloads)
    return _batch(sizes.payloads, watch)


def _compute(system: System, sizes: Sizes) -> dict[str, float]:
    """Set the time that the runs used against what two processors have."""
    with Stopwatch() as watch:
        used_s = system.compute(sizes.computes, sizes.compute_s)
    share = used_s / SLOTS / watch.wall_s
    return _batch(sizes.computes, watch) | {"run_cpu_s": used_s / sizes.computes, "share": share}


class Stopwatch:
    """How long something took, and how much of a processor this process used for it."""

    def __enter__(self) -> "Stopwatch":
        self.wall_s, self.cpu_s = -time.perf_counter(), -time.process_time()
        return self

    def __exit__(self, *_: object) -> None:
        self.wall_s += time.perf_counter()
        self.cpu_s += time.process_time()


def p50_p99_ms(times_s: Sequence[float]) -> dict[str, float]:
    """Return the median, and what one in a hundred took longer than, in milliseconds."""
    ordered = sorted(times_s)
    return {"p50_ms": statistics.median(ordered) * 1e3, "p99_ms": ordered[int(len(ordered) * 0.99)] * 1e3}


def _batch(count: int, watch: Stopwatch) -> dict[str, float]:
    return {
        "count": count,
        "wall_s": watch.wall_s,
        "runs_per_s": count / watch.wall_s,
        "client_us": watch.cpu_s / count * 1e6,
    }


def _payloads(count: int, size: int, seed: int) -> list[bytes]:
    """Make payloads that differ, and that cannot be compressed."""
    rng = random.Random(seed)
    return [rng.randbytes(size) for _ in range(count)]


_MEASURES: Final[Mapping[str, Callable[[System, Sizes], dict[str, float]]]] = {
    "noop": _noop,
    "single": _single,
    "payload": _payload,
    "compute": _compute,
}
