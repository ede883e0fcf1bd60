"""When a worker on which everything goes wrong gets nothing more to run, and when it is tried again.

Holds the states of one worker's breaker. Knows no clock, no worker: it is told what happened and `now`. What is counted
are distinct modules, since one that kills every sandbox must not take the whole cluster out of service.
Source of the pattern: Nygard, Release It!, Circuit Breaker.
"""

from dataclasses import dataclass
from enum import StrEnum


class BreakerState(StrEnum):
    """What a worker is given."""

    CLOSED = "closed"
    OPEN = "open"
    """Nothing."""
    HALF_OPEN = "half-open"
    """One run at a time, to see."""


@dataclass(frozen=True, slots=True)
class BreakerConfig:
    """When a breaker opens, and for how long."""

    failures_max: int = 3
    """Distinct modules whose attempts failed there by the worker's fault, with no success between; of one that runs
    elsewhere, each attempt."""
    open_s: float = 10.0
    """How long it is open the first time; doubled each time that the trial fails."""
    open_max_s: float = 300.0


class Breaker:
    """One worker's."""

    def __init__(self, config: BreakerConfig) -> None:
        self._config = config
        self._failed: set[str] = set()
        self._proven = 0
        """Failures of modules that run elsewhere."""
        self._open_until: float | None = None
        self._times_opened = 0

    def state(self, now: float) -> BreakerState:
        """Return what the worker is given at that time."""
        if self._open_until is None:
            return BreakerState.CLOSED
        return BreakerState.OPEN if now < self._open_until else BreakerState.HALF_OPEN

    def failed(self, module: str, now: float, *, is_proven: bool = False) -> bool:
        """Note that an attempt failed by the worker's fault; is_proven: the module itself is known not to be at fault.

        True when that opens the breaker.
        """
        state = self.state(now)
        if state is BreakerState.OPEN:
            return False
        if state is BreakerState.CLOSED:
            if is_proven:
                self._proven += 1
            else:
                self._failed.add(module)
            if len(self._failed) + self._proven < self._config.failures_max:
                return False
        open_s = min(self._config.open_max_s, self._config.open_s * 2.0 ** min(self._times_opened, 30))
        self._times_opened += 1
        self._open_until = now + open_s
        self._forget()
        return True

    def succeeded(self, now: float) -> None:
        """Note that an attempt ended as it should. While the breaker is open that says nothing: it began before."""
        if self.state(now) is not BreakerState.OPEN:
            self._forget()
            self._open_until = None
            self._times_opened = 0

    def _forget(self) -> None:
        self._failed.clear()
        self._proven = 0
