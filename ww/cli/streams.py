"""The standard streams of a command: closed before it began, full, or left by whoever read them.

Holds what becomes of them then. Must not know what is written there.
"""

import errno
import io
import os
import sys
from typing import Final, TextIO

_OF_STREAMS: Final = frozenset({errno.EPIPE, errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO})
_MODES: Final = (("stdin", "r"), ("stdout", "w"), ("stderr", "w"))


def prepare() -> None:
    """Have three streams that take whatever is printed."""
    for name, mode in _MODES:
        if getattr(sys, name) is None:  # closed; in order, so that each is what it is to system calls too
            setattr(sys, name, open(os.devnull, mode))  # noqa: SIM115
    if isinstance(sys.stdout, io.TextIOWrapper):
        # What a stranger called a task need not be in this terminal's alphabet.
        sys.stdout.reconfigure(errors="backslashreplace")


def say(line: str) -> None:
    """Say a line to whoever watches, beside the output; if nobody does, to nobody."""
    try:
        print(f"ww: {line}", file=sys.stderr, flush=True)
    except OSError:
        _silence(sys.stderr)


def is_end_of_output(error: OSError) -> bool:
    """Whether an error says that a stream takes nothing more; if so all that follows goes nowhere, and that is said."""
    if error.errno not in _OF_STREAMS or error.filename is not None:
        return False
    _silence(sys.stdout)
    if not isinstance(error, BrokenPipeError):
        say(f"the output cannot be written: {os.strerror(error.errno).lower()}")
    return True


def _silence(stream: TextIO) -> None:
    nowhere = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
    os.dup2(nowhere, stream.fileno())
    os.close(nowhere)
