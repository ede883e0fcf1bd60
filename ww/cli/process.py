"""What a long-lived command does with its process: log lines, signals, and an orderly end.

Holds nothing of what the process serves.
"""

import asyncio
import logging
import os
import signal
import sys
from collections.abc import Callable
from typing import Final

_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)


class _OneLine(logging.Formatter):
    """Keeps a record on one line, whatever strangers put into its message; a traceback of ours may follow."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        text = super().formatMessage(record)
        return "".join(c if c.isprintable() else " " for c in text)


def log_to_stderr(level: str) -> None:
    """Log ww's own records from that level on, and warnings of others, one line each."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_OneLine("%(asctime)s %(levelname)-7s %(message)s", "%H:%M:%S"))
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    logging.getLogger("ww").setLevel(level.upper())
    # One line says what it has to say; our own exception handler says it.
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)


def on_stop_signals(first: Callable[[], object], second: Callable[[], object]) -> None:
    """Call first at the first SIGINT or SIGTERM, second at the second, and die at the third."""
    loop = asyncio.get_running_loop()
    steps = [first, second]

    def stop() -> None:
        if steps:
            steps.pop(0)()
        else:
            os._exit(130)

    for number in _SIGNALS:
        loop.add_signal_handler(number, stop)
