"""A rate that may not be passed for long. Knows no clock: it is told what time it is."""


class Bucket:
    """Lets `burst` things through at once, and then `per_s` of them a second."""

    __slots__ = ("_at", "_burst", "_left", "_per_s")

    def __init__(self, burst: float, per_s: float, now: float) -> None:
        self._burst = burst
        self._per_s = per_s
        self._left = burst
        self._at = now

    def is_empty(self, now: float) -> bool:
        """Whether `take` would refuse."""
        self._left = min(self._burst, self._left + (now - self._at) * self._per_s)
        self._at = now
        return self._left < 1

    def take(self, now: float) -> bool:
        """Let one more through; False when it comes too soon."""
        if self.is_empty(now):
            return False
        self._left -= 1
        return True
