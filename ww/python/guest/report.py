"""Tracebacks as a user's program prints them: without the frames of what runs it. Must not know jobs nor requests."""

import importlib
import os
import traceback
import types
from typing import Final

# Of ww, the root of this package.
_FOLDER: Final = os.path.dirname(os.path.dirname(os.path.dirname(__file__))) + os.sep
_HIDDEN: Final = (_FOLDER, "<frozen importlib", str(importlib.__file__))
_FRAMES_MAX: Final = 200
_CHAIN_MAX: Final = 100
_LINES_OF_GROUPS_MAX: Final = 15


def traceback_of(error: BaseException) -> str:
    """Return what Python prints of an exception, with all that led to it."""
    try:
        _shorten(error)
        shown = traceback.TracebackException.from_exception(error, max_group_width=_LINES_OF_GROUPS_MAX, compact=True)
        _hide(shown, set())
        return "".join(shown.format())
    except (Exception, RecursionError):
        # Whatever a class of its own makes of being printed.
        return f"{type(error).__qualname__}\n"


def _shorten(error: BaseException | None) -> None:
    """Leave out the middle of a deep recursion: looking at each of its frames takes seconds."""
    for _ in range(_CHAIN_MAX):
        if error is None:
            return
        ends: list[types.TracebackType] = []
        at = error.__traceback__
        while at is not None:
            ends.append(at)
            at = at.tb_next
        if len(ends) > 2 * _FRAMES_MAX:
            ends[_FRAMES_MAX - 1].tb_next = ends[-_FRAMES_MAX]
        error = error.__cause__ or error.__context__


def _hide(shown: traceback.TracebackException, seen: set[int]) -> None:
    if id(shown) in seen:
        return
    seen.add(id(shown))
    kept = [frame for frame in shown.stack if not frame.filename.startswith(_HIDDEN)]
    shown.stack[:] = kept
    for other in (shown.__cause__, shown.__context__, *(shown.exceptions or ())):
        if other is not None:
            _hide(other, seen)
