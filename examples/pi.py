"""Pi by throwing points at a square and counting those within the circle: a map of one job over seeds.

    python examples/pi.py [THROWS]

Needs nothing that runs: where no gateway is named or found, it has a small cluster of its own.
"""

import random
import sys

import ww

PER_CALL = 20_000


@ww.job(timeout_s=60)
def within(seed: int) -> int:
    """Return how many of PER_CALL random points are within the circle."""
    random_number = random.Random(seed).random
    return sum(random_number() ** 2 + random_number() ** 2 < 1 for _ in range(PER_CALL))


if __name__ == "__main__":
    calls = max(1, (int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000) // PER_CALL)
    with ww.Executor() as pool:
        hits = sum(pool.map(within, range(calls)))
    print(f"pi is about {4 * hits / (calls * PER_CALL):.5f}, by {calls * PER_CALL:,} points in {calls} calls")
