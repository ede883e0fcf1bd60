"""What Python finds around it in a sandbox, made fit: streams, environment, random numbers, threads, memory.

Must not know code, requests nor results.
"""

import _thread
import gc
import io
import os
import random
import sys
import threading
from collections.abc import Callable, Iterable
from typing import Any, Final, NoReturn

from ww.python.guest import loop

RESERVE_VARIABLE: Final = "WW_RESERVE_BYTES"
# Deeper, and giving a traceback back overruns the machine's stack, which nothing in Python looks at.
RECURSION_MAX: Final = 100_000
_PAGE_BYTES: Final = 65_536
_TRIES: Final = 64
_SPARE_BYTES: Final = 512 << 10
# A collection looks at what is new only; what a call makes is gone when it ends anyhow.
_COLLECT_EVERY: Final = 50_000

_STARTS: Final = (
    "start_new_thread",
    "start_new",
    "start_joinable_thread",
    "_start_new_thread",
    "_start_joinable_thread",
)

Environment = Callable[[], Iterable[tuple[str, str]]]


def prepare() -> None:
    """Set up what holds for all code, before any is there."""
    if isinstance(sys.stderr, io.TextIOWrapper):
        sys.stderr.reconfigure(encoding="utf-8", errors="backslashreplace", line_buffering=True)
    # Nobody reads standard output: what is printed goes the way of all that is.
    sys.stdout = sys.stderr
    for module in (_thread, threading):
        for name in _STARTS:
            if hasattr(module, name):
                setattr(module, name, _no_threads)
    original = sys.setrecursionlimit
    sys.setrecursionlimit = lambda limit: original(min(limit, RECURSION_MAX))
    loop.install()
    # There are no files: all that can be imported is.
    sys.path.clear()
    sys.path_importer_cache.clear()
    settle()


def _no_threads(*_: Any, **__: Any) -> NoReturn:
    raise RuntimeError("a sandbox has one thread: no other can be started; expected calls in turn, or grants=[...]")


def reserve(variables: dict[str, str]) -> None:
    """Have the heap grow as far as it may, so that it never does in a call."""
    text = variables.get(RESERVE_VARIABLE, "")
    left = int(text) if text.isascii() and text.isdigit() else 0
    for _ in range(_TRIES):
        left -= _PAGE_BYTES
        if left <= 0:
            return
        try:
            # Its buffer is memory that nothing is written to: pages that are not touched cost nothing.
            io.BufferedReader(io.BytesIO(), left)
        except MemoryError:
            continue
        return


def spare() -> object:
    """Return what holds a little memory that nothing is written to."""
    return io.BufferedReader(io.BytesIO(), _SPARE_BYTES)


def settle() -> None:
    """Leave as little as possible for a call to touch: what is there now is not looked at by collections."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(_COLLECT_EVERY, 50, 100)


class Renewal:
    """What differs between calls that begin from the same memory."""

    def __init__(self, environment: Environment) -> None:
        self._environment = environment
        self._known: list[tuple[str, str]] | None = None
        # Seeding takes as long as a small call: only where somebody may ask for a random number.
        self.is_random = True

    def renew(self, *, is_random: bool = True) -> None:
        """Give this call its environment, and random numbers of its own. is_random: whether it may take any."""
        now = list(self._environment())
        if now != self._known:
            self._known = now
            variables = dict(now)
            variables.pop(RESERVE_VARIABLE, None)
            os.environ.clear()
            os.environ.update(variables)
        if is_random or self.is_random:
            random.seed()
