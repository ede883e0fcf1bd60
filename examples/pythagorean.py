"""Pythagorean triples by two jobs: one for each longest side, and one that those may call for squares.

    python examples/pythagorean.py [LONGEST]

Needs nothing that runs: where no gateway is named or found, it has a small cluster of its own.
"""

import sys

import ww


@ww.job
def square(number: int) -> int:
    """Return its square."""
    return number * number


@ww.job(grants=[square])
def triples(longest: int) -> list[tuple[int, int, int]]:
    """Return all triples with that longest side."""
    # From within its sandbox this job can call `square` on the cluster, and nothing else.
    squares = dict(zip(range(1, longest + 1), square.remote_fanout(range(1, longest + 1)), strict=True))
    sides = {value: side for side, value in squares.items()}
    return [
        (a, sides[squares[longest] - squares[a]], longest)
        for a in range(1, longest)
        if squares[longest] - squares[a] in sides and a < sides[squares[longest] - squares[a]]
    ]


if __name__ == "__main__":
    longest = int(sys.argv[1]) if len(sys.argv) > 1 else 30
    found = [triple for some in triples.remote_fanout(range(1, longest + 1)) for triple in some]
    for a, b, c in found:
        print(f"{a}² + {b}² = {c}²")
    print(f"{len(found)} triples with no side above {longest}")
