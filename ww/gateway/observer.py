"""What the scheduler tells those who count: metrics.py, in a gateway.

Holds the calls alone.
"""

from typing import Protocol


class Observer(Protocol):
    """Told of what happens, on the loop: it must be quick."""

    def dispatched(self, waited_s: float, count: int = 1) -> None:
        """So many runs began together, that long after the first of them was due."""

    def attempt_ended(self, ending: str, count: int = 1) -> None:
        """Attempts ended, so many in one way: ok, guest, crash, lost, returned or late."""

    def run_ended(self, state: str, reason: str, wall_s: float) -> None:
        """A run's end is on disk."""

    def stored(self, rows: int, seconds: float) -> None:
        """That many results were put on disk at once, in that time."""


class Nobody:
    """An observer that counts nothing."""

    def dispatched(self, waited_s: float, count: int = 1) -> None:
        pass

    def attempt_ended(self, ending: str, count: int = 1) -> None:
        pass

    def run_ended(self, state: str, reason: str, wall_s: float) -> None:
        pass

    def stored(self, rows: int, seconds: float) -> None:
        pass
