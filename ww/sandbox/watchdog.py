"""When a guest has to stop: its time, its processor time, whatever else is watched while it runs.

Holds the watching, in a thread of its own beside the guest's, and how a guest that sleeps hears of it. Must not know
wasmtime: engine.py says how a guest is interrupted, and what the reason means.
"""

import threading
import time
from collections.abc import Callable
from typing import Final

# Deadlines are heard of this much later, at most.
_TICK_S: Final = 0.01
# Without a guest for that long, it sleeps until there is one.
_IDLE_S: Final = 1.0
_FOR_EVER: Final = float("inf")


class Watchdog:
    """Interrupts the guest when it has used up what it may. `watch` runs in the process's main thread, the others in
    the guest's."""

    def __init__(
        self,
        interrupt: Callable[[], None],
        look: Callable[[], str | None],
        give_up: Callable[[str], None],
        grace_s: float,
    ) -> None:
        """interrupt makes a guest that computes trap. look is called every few milliseconds while a guest runs, and
        returns a reason to interrupt it, or None. give_up is told the reason when the guest still runs grace_s later:
        it is in a function of the host, or in one long instruction, and hears nothing."""
        self._interrupt = interrupt
        self._look = look
        self._give_up = give_up
        self._grace_s = grace_s
        self._stopped_at = 0.0
        self._has_given_up = False
        self._lock = threading.Lock()
        self._runs = False
        self._ends_at = _FOR_EVER
        self._cpu_ends_at = _FOR_EVER
        self._is_asleep = False
        self._wake = threading.Event()
        self.reason: str | None = None
        """Why the guest was interrupted: deadline, cpu, or what looking at it said."""

    def begin(self, duration_s: float, cpu_s: float) -> None:
        """Interrupt the guest in duration_s seconds, or when this process has used the processor for cpu_s, if that is
        not 0, unless `end` comes first."""
        with self._lock:
            self.reason = None
            self._has_given_up = False
            self._ends_at = time.monotonic() + duration_s
            if cpu_s:
                # Of the whole process: wasmtime does what a guest has done with files in threads of its own.
                self._cpu_ends_at = time.process_time() + cpu_s
            self._runs = True
        if self._is_asleep:
            self._wake.set()

    def end(self) -> None:
        """Leave the next guest alone."""
        with self._lock:
            self._runs = False
            self._cpu_ends_at = _FOR_EVER

    def _stop(self, reason: str) -> None:
        if self._runs and self.reason is None:
            self.reason = reason
            self._stopped_at = time.monotonic()
            self._interrupt()

    def _check(self, now: float) -> None:
        if self.reason is not None:
            if now - self._stopped_at > self._grace_s and not self._has_given_up:
                self._has_given_up = True
                self._give_up(self.reason)
        elif now >= self._ends_at:
            self._stop("deadline")
        elif self._cpu_ends_at < _FOR_EVER and time.process_time() >= self._cpu_ends_at:
            self._stop("cpu")
        # Under the lock, so that it is never the next guest's doing.
        elif reason := self._look():
            self._stop(reason)

    # For a guest that sleeps.

    def interrupted(self) -> bool:
        """Whether the guest has to stop."""
        if self.reason is None and time.monotonic() >= self._ends_at:
            with self._lock:
                self._stop("deadline")
        return self.reason is not None

    def wait(self, seconds: float) -> None:
        """Sleep that long, and no longer than the guest may run."""
        time.sleep(max(0.0, min(seconds, self._ends_at - time.monotonic())))

    # For the main thread.

    def watch(self, tick: Callable[[], bool]) -> None:
        """Watch until tick, which is called every few milliseconds while guests run and once a second otherwise, says
        that it is enough."""
        idle_since = time.monotonic()
        while not tick():
            now = time.monotonic()
            with self._lock:
                runs = self._runs
                if runs:
                    self._check(now)
            if runs:
                idle_since = now
            if now - idle_since < _IDLE_S:
                time.sleep(_TICK_S)
                continue
            self._is_asleep = True
            self._wake.clear()
            with self._lock:
                runs = self._runs
            if not runs:
                self._wake.wait(_IDLE_S)
            self._is_asleep = False
