"""What runs in the systems that ww is compared with: the same as its guests do, as plain functions of Python.

Holds the functions. Imports next to nothing, since each of their processes imports it.
"""

import time
from typing import Final

# Between two looks at the clock: a fraction of a millisecond.
_STEPS: Final = 2_000


def noop(value: int) -> int:
    """Return the value, as wasm/noop does."""
    return value


def copy(payload: bytes) -> bytes:
    """Return the bytes, as wasm/echo does."""
    return payload


def compute(seconds: float) -> float:
    """Keep a processor busy for that much processor time, as wasm/spin does; return how much it was."""
    begun = time.thread_time()
    while (used := time.thread_time() - begun) < seconds:
        for _ in range(_STEPS):
            pass
    return used


def millisecond(value: int) -> int:
    """Return the value after a millisecond in which it does not let go of its processor."""
    end = time.perf_counter() + 0.001
    while time.perf_counter() < end:
        pass
    return value
