"""How far calls are, as a line that is drawn over: in terminals and notebooks, and nowhere else.

Holds the line and when it is drawn. Must not know clusters: any futures will do.
"""

import concurrent.futures
import queue
import shutil
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final, TextIO, TypeVar

from ww.errors import UsageError

F = TypeVar("F", bound="concurrent.futures.Future[Any]")

_EACH_S: Final = 0.1
# While nothing ends, so that the time that is left is seen to grow.
_IDLE_S: Final = 1.0
_WIDTH_MIN, _WIDTH_MAX = 40, 100
_BAR_CHARS_MAX: Final = 30


def progress(
    futures: Iterable[F], *, total: int | None = None, file: TextIO | None = None, label: str = ""
) -> Iterator[F]:
    """Give futures as they end, and show how many have: a bar in a terminal or a notebook, nothing elsewhere.

    total: how many there will be, where futures cannot say. file: in place of stderr. label: what it is called. Futures
    of an iterator are taken all at once.
    """
    listed = list(futures)
    for each in listed:
        # Those of asyncio end in a loop, which would wait for who waits for them.
        if not isinstance(each, concurrent.futures.Future):
            raise UsageError(f"futures: expected what remote_async or submit returned, not {type(each).__name__}")
    show = _shower(file)
    line = _Line(total if total is not None else len(listed), label)
    return _drawn(listed, line, show)


def _drawn(futures: list[F], line: "_Line", show: Callable[[str, bool], None] | None) -> Iterator[F]:
    # Not concurrent.futures.wait: that looks at all of them each time.
    ended: queue.SimpleQueue[F] = queue.SimpleQueue()
    for future in futures:
        future.add_done_callback(ended.put)  # type: ignore[arg-type]
    drawn_at = time.monotonic() - _EACH_S
    try:
        for _ in futures:
            future = _next(ended, None if show is None else lambda: show(line.text(), False))
            line.took(future)
            if show is not None and time.monotonic() - drawn_at >= _EACH_S:
                show(line.text(), False)
                drawn_at = time.monotonic()
            yield future
    finally:
        if show is not None and futures:
            show(line.text(), True)


def _next(ended: "queue.SimpleQueue[F]", on_waiting: Callable[[], None] | None) -> F:
    if on_waiting is None:
        return ended.get()
    while True:
        try:
            return ended.get(timeout=_IDLE_S)
        except queue.Empty:
            on_waiting()


class _Line:
    """What the line says."""

    def __init__(self, total: int, label: str) -> None:
        self._total, self._label = total, label
        self._done = self._failed = 0
        self._begin = time.monotonic()

    def took(self, future: "concurrent.futures.Future[Any]") -> None:
        self._done += 1
        if future.cancelled() or future.exception() is not None:
            self._failed += 1

    def text(self) -> str:
        """Return it as long as the terminal is wide."""
        took_s = max(1e-6, time.monotonic() - self._begin)
        rate = self._done / took_s
        left = max(0, self._total - self._done)
        words = [f"{self._done}/{self._total}", f"{_rate(rate)}/s"]
        if left and self._done:
            words.append(f"{_time(left / rate)} left")
        elif not left:
            words.append(f"in {_time(took_s)}")
        if self._failed:
            words.append(f"{self._failed} failed")
        said = ("" if not self._label else f"{self._label} ") + " ".join(words)
        width = min(_WIDTH_MAX, max(_WIDTH_MIN, shutil.get_terminal_size().columns)) - 1
        room = min(_BAR_CHARS_MAX, width - len(said) - 3)
        if room < 5:
            return said[:width]
        full = room if not self._total else min(room, room * self._done // self._total)
        return f"[{'#' * full}{'.' * (room - full)}] {said}"


def _rate(rate: float) -> str:
    return f"{rate:.1f}" if rate < 10 else f"{rate:.0f}"


def _time(seconds: float) -> str:
    whole = round(seconds)
    return f"{seconds:.1f} s" if seconds < 10 else f"{whole} s" if whole < 120 else f"{whole // 60} min {whole % 60} s"


def _shower(file: TextIO | None) -> Callable[[str, bool], None] | None:
    """Return what shows a line, and for the last time; None where nobody would see it."""
    if file is None and (display := _notebook_display()) is not None:
        return display
    out = sys.stderr if file is None else file
    if out is None or not out.isatty():
        return None

    def draw(text: str, is_last: bool) -> None:
        out.write(f"\r\x1b[K{text}" + ("\n" if is_last else ""))
        out.flush()

    return draw


def _notebook_display() -> Callable[[str, bool], None] | None:
    """Return what shows text in a notebook, where this is one."""
    shell = sys.modules.get("IPython")
    running = None if shell is None else shell.get_ipython()
    if running is None or not hasattr(running, "kernel"):
        return None
    from importlib import import_module

    display: Any = import_module("IPython.display")
    handle: Any = None

    def draw(text: str, is_last: bool) -> None:
        nonlocal handle
        # As data, and not as markup: a label is the program's.
        shown = {"text/plain": text}
        if handle is None:
            handle = display.display(shown, raw=True, display_id=True)
        else:
            handle.update(shown, raw=True)

    return draw
