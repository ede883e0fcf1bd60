"""Tracebacks as a user's program prints them: without the frames of what runs it. Must not know jobs nor requests."""

import os
import traceback
from typing import Final

_FOLDER: Final = os.path.dirname(__file__)
_IMPORTLIB: Final = "<frozen importlib"
_LINES_OF_GROUPS_MAX: Final = 15


def traceback_of(error: BaseException) -> str:
    """Return what Python prints of an exception, with all that led to it."""
    try:
        shown = traceback.TracebackException.from_exception(error, max_group_width=_LINES_OF_GROUPS_MAX, compact=True)
        _hide(shown, set())
        return "".join(shown.format())
    except (Exception, RecursionError):
        # Whatever a class of its own makes of being printed.
        return f"{type(error).__qualname__}\n"


def last_line(error: BaseException) -> str:
    """Return the last line of it."""
    return traceback_of(error).rstrip().rpartition("\n")[2]


def _hide(shown: traceback.TracebackException, seen: set[int]) -> None:
    if id(shown) in seen:
        return
    seen.add(id(shown))
    kept = [frame for frame in shown.stack if not frame.filename.startswith((_FOLDER, _IMPORTLIB))]
    shown.stack[:] = kept
    for other in (shown.__cause__, shown.__context__, *(shown.exceptions or ())):
        if other is not None:
            _hide(other, seen)
