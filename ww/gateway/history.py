"""What a gateway did in each of the last seconds.

Holds samples, made by comparing what has been counted (metrics.py) with what had been a second before: so a run costs
nothing more. Must not know clocks, nor who is shown it.
"""

from bisect import bisect_left
from collections import deque
from collections.abc import Sequence
from itertools import accumulate
from operator import sub
from typing import Any, Final, NamedTuple

from ww.gateway.metrics import LATENCY_BOUNDS_S, Totals

SAMPLES_MAX: Final = 300


class Now(NamedTuple):
    """What is so at the moment of a sample."""

    running: int
    queued: int
    workers: int
    slots: int
    free: int


class History:
    """The latest samples, oldest first."""

    def __init__(self, totals: Totals) -> None:
        """Begin with what has been counted until now."""
        self._totals = totals
        self.samples: deque[dict[str, Any]] = deque(maxlen=SAMPLES_MAX)
        self.count = 0
        """Samples there have been."""

    def add(self, totals: Totals, now: Now, wall: float) -> dict[str, Any]:
        """Make a sample of what was counted since the last one, at that time of day."""
        before, self._totals = self._totals, totals
        dispatch = _Spread(before.dispatch, totals.dispatch)
        run = _Spread(before.wall, totals.wall)
        sample = {
            "t": round(wall, 3),
            "ended": totals.ended - before.ended,
            "failed": totals.failed - before.failed,
            **now._asdict(),
            "dispatch_p50_ms": dispatch.percentile_ms(0.5),
            "dispatch_p95_ms": dispatch.percentile_ms(0.95),
            "run_p50_ms": run.percentile_ms(0.5),
            "run_p95_ms": run.percentile_ms(0.95),
            "requests": totals.requests - before.requests,
        }
        self.samples.append(sample)
        self.count += 1
        return sample

    def since(self, count: int) -> list[dict[str, Any]]:
        """Return the samples that came after the first so many, as far as they are kept."""
        new = min(self.count - count, len(self.samples))
        return [self.samples[place] for place in range(len(self.samples) - new, len(self.samples))]


class _Spread:
    """How what was observed between two looks is spread over the buckets."""

    def __init__(self, before: Sequence[int], after: Sequence[int]) -> None:
        self._sums = list(accumulate(map(sub, after, before)))

    def percentile_ms(self, share: float) -> float | None:
        """Return below what that share of it was, by straight lines within buckets; None of nothing."""
        total = self._sums[-1]
        if not total:
            return None
        wanted = share * total
        place = bisect_left(self._sums, wanted)
        if place >= len(LATENCY_BOUNDS_S):
            return LATENCY_BOUNDS_S[-1] * 1000
        low_s, high_s = LATENCY_BOUNDS_S[place - 1] if place else 0.0, LATENCY_BOUNDS_S[place]
        before = self._sums[place - 1] if place else 0
        value_s = low_s + (high_s - low_s) * (wanted - before) / (self._sums[place] - before)
        return float(f"{value_s * 1000:.4g}")
