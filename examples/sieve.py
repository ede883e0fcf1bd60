"""Primes by a sieve of which each job has a piece.

    python examples/sieve.py [BELOW]

Needs nothing that runs: where no gateway is named or found, it has a small cluster of its own.
"""

import math
import sys

import ww

PIECE = 100_000


def primes_below(end: int) -> list[int]:
    """Return the primes below a number: the sieve of Eratosthenes."""
    is_prime = bytearray([1]) * end
    is_prime[:2] = bytes(min(2, end))
    for number in range(2, math.isqrt(end) + 1):
        if is_prime[number]:
            is_prime[number * number :: number] = bytes(len(range(number * number, end, number)))
    return [number for number, prime in enumerate(is_prime) if prime]


@ww.job
def primes_from(start: int, end: int) -> tuple[int, int]:
    """Return how many primes there are from start up to end, and the largest of them."""
    is_prime = bytearray([1]) * (end - start)
    # What the job uses of its module travels with it: this function too.
    for prime in primes_below(math.isqrt(end) + 1):
        first = max(prime * prime, -(-start // prime) * prime)
        is_prime[first - start :: prime] = bytes(len(range(first, end, prime)))
    if start < 2:
        is_prime[: 2 - start] = bytes(min(2, end) - start)
    return sum(is_prime), start + is_prime.rfind(1)


if __name__ == "__main__":
    below = int(sys.argv[1]) if len(sys.argv) > 1 else 2_000_000
    starts = range(0, below, PIECE)
    with ww.Executor() as pool:
        pieces = list(pool.map(primes_from, starts, [min(start + PIECE, below) for start in starts]))
    largest = max((last for count, last in pieces if count), default=0)
    print(f"{sum(count for count, _ in pieces):,} primes below {below:,}, the largest is {largest:,}")
