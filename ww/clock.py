"""Time as an object, so that nothing with states has to ask the machine for it.

Holds the Clock protocol and its two kinds. Knows nothing about what is timed; the monotonic and the wall reading are
kept apart because due times are stored as wall time and followed by monotonic time.
"""

import asyncio
import time
from typing import Protocol


class Clock(Protocol):
    """Where now comes from, in seconds."""

    def now(self) -> float:
        """Return monotonic seconds since an arbitrary start."""

    def wall(self) -> float:
        """Return seconds since the Unix epoch; may jump."""

    async def sleep(self, seconds: float) -> None:
        """Return after that many seconds."""


class SystemClock:
    """The machine's own time."""

    def now(self) -> float:
        return time.monotonic()

    def wall(self) -> float:
        return time.time()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


class ManualClock:
    """Time that moves only when a test says so."""

    def __init__(self, now: float = 0.0, wall: float = 1_700_000_000.0) -> None:
        self._now = now
        self._wall = wall
        self._sleepers: list[tuple[float, asyncio.Event]] = []

    def now(self) -> float:
        return self._now

    def wall(self) -> float:
        return self._wall

    async def sleep(self, seconds: float) -> None:
        if seconds <= 0:
            await asyncio.sleep(0)
            return
        woken = asyncio.Event()
        sleeper = (self._now + seconds, woken)
        self._sleepers.append(sleeper)
        try:
            await woken.wait()
        finally:
            self._sleepers.remove(sleeper)

    def set_wall(self, wall: float) -> None:
        """Set the time of day, as an operator or NTP does; monotonic time goes on as before."""
        self._wall = wall

    def advance(self, seconds: float) -> None:
        """Move both readings forward by that many seconds and wake whoever slept until then."""
        self._now += seconds
        self._wall += seconds
        for due, woken in self._sleepers:
            if due <= self._now:
                woken.set()
