"""How far a map is: a bar on a terminal, a line now and then elsewhere.

Holds numbers, and their text at a given moment. Must not know time or streams: whoever shows it asks for the text.
"""

from collections import deque
from typing import Final

# The rate is that of so many last looks.
_LOOKS: Final = 50
_BAR_MAX: Final = 30
_BAR_MIN: Final = 5


class Progress:
    """What was done, of how much."""

    def __init__(self, total: int | None, now: float) -> None:
        """total: how many runs there will be; None while nobody knows."""
        self.total = total
        self.succeeded = 0
        self.failed = 0
        self._looks: deque[tuple[float, int]] = deque([(now, 0)], maxlen=_LOOKS)

    @property
    def done(self) -> int:
        """How many runs have ended."""
        return self.succeeded + self.failed

    def add(self, is_success: bool) -> None:
        """Count a run that has ended."""
        if is_success:
            self.succeeded += 1
        else:
            self.failed += 1

    def text(self, now: float) -> str:
        """Return it in words. To be asked for at intervals: the rate is that of the last ones."""
        self._looks.append((now, self.done))
        (then, before), (_, done) = self._looks[0], self._looks[-1]
        rate = (done - before) / (now - then) if now > then else 0.0
        parts = [f"{done:,}" if self.total is None else f"{done:,} of {self.total:,}"]
        parts.append(f"{rate:,.0f}/s" if rate >= 10 else f"{rate:.1f}/s")
        if self.failed:
            parts.append(f"{self.failed:,} failed")
        if self.total is not None and rate > 0 and done < self.total:
            parts.append(f"{duration_text((self.total - done) / rate)} left")
        return ", ".join(parts)

    def bar(self, now: float, columns: int) -> str:
        """Return a line of at most that many columns."""
        text = self.text(now)
        width = min(_BAR_MAX, columns - len(text) - 4)
        if self.total is None or width < _BAR_MIN:
            return text[:columns]
        filled = width if not self.total else min(width, width * self.done // self.total)
        return f"[{'#' * filled}{'.' * (width - filled)}] {text}"


def duration_text(seconds: float) -> str:
    """Return how long that is, as people say it."""
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02} s"
    return f"{whole // 3600:,} h {whole % 3600 // 60:02} min"
