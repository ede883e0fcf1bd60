"""What our WASI functions share: the run they serve, the guest's memory, wasmtime's own functions.

Holds the state of one run, and the way to wasmtime's own functions. Must not know what ours do: wasi.py links those of
wasi_poll.py, wasi_files.py and its own.
"""

import time
from typing import Any, Protocol

import wasmtime

from ww.sandbox.determinism import RandomStream, VirtualClock
from ww.sandbox.wasi_originals import Bound, Ended, GuestMemory, Originals


class Watch(Protocol):
    """Knows when a run is over: past its deadline or its processor time, or stopped."""

    def interrupted(self) -> bool:
        """Say whether the run is over."""

    def wait(self, seconds: float) -> object:
        """Sleep for at most so long, and return early when the run is over."""


class _Unwatched:
    """Of a run that nothing ends."""

    def interrupted(self) -> bool:
        return False

    def wait(self, seconds: float) -> None:
        time.sleep(seconds)


class State:
    """One run, as its WASI functions see it. Of a store that outlives its run, keep it with the store."""

    __slots__ = (
        "bound",
        "clock",
        "ended",
        "exit_code",
        "failure",
        "interrupted",
        "listing",
        "random",
        "seed",
        "stdin",
        "stdin_at",
        "watch",
    )

    def __init__(self) -> None:
        self.bound: Bound | None = None
        """wasmtime's own functions, in the store that used them last."""
        self.reset(_Unwatched())

    def reset(self, watch: Watch, seed: int = 0, stdin: bytes = b"") -> None:
        """Begin a run. seed is that of a deterministic one, stdin that of a reactor."""
        self.watch = watch
        self.exit_code: int | None = None
        """What proc_exit was given, unsigned; None while it was not called."""
        self.interrupted = False
        """Whether a function of ours ended the guest because watch said so."""
        self.ended = ""
        """Why a function of ours ended the guest, for people; empty where it did not, or the trap's code says it."""
        self.failure = ""
        """What went wrong in a function of ours, for our log; the guest ended by a trap."""
        self.seed = seed
        self.clock: VirtualClock | None = None
        self.random: RandomStream | None = None
        self.listing: Any = None
        self.stdin = stdin
        self.stdin_at = 0

    def resume(self, watch: Watch, stdin: bytes = b"") -> None:
        """Go on with the same guest: its clock and its random numbers do. What was left of stdin is dropped."""
        self.watch = watch
        self.exit_code = None
        self.interrupted = False
        self.ended = ""
        self.failure = ""
        self.stdin = stdin
        self.stdin_at = 0

    def virtual_clock(self) -> VirtualClock:
        """Return the clock of a deterministic run."""
        if self.clock is None:
            self.clock = VirtualClock()
        return self.clock

    def random_stream(self) -> RandomStream:
        """Return the random numbers of a deterministic run."""
        if self.random is None:
            self.random = RandomStream(self.seed)
        return self.random


class Host:
    """Where a function of ours finds what it needs, during one call of a guest."""

    __slots__ = ("_originals", "memory", "state")

    def __init__(self, originals: Originals) -> None:
        self._originals = originals
        self.memory = GuestMemory()
        self.state = State()

    def scratch(self) -> int:
        """Return where in this process the memory is that the original functions are called on."""
        self.state.bound = self._originals.bind(self.memory, self.state.bound)
        return self.state.bound.scratch

    def original(self, name: str, *arguments: int) -> int:
        """Call wasmtime's own function, whose pointers are offsets in the scratch memory; return its errno."""
        self.state.bound = self._originals.bind(self.memory, self.state.bound)
        return self._originals.call(self.memory, self.state.bound, name, *arguments)

    def end_if_over(self) -> None:
        """End the guest if its run is over."""
        if self.state.watch.interrupted():
            self.state.interrupted = True
            raise Ended("interrupted", wasmtime.TrapCode.INTERRUPT)
