"""What a long-lived command does with its process: log lines, signals, and an orderly end.

Holds nothing of what the process serves.
"""

import asyncio
import gc
import json
import logging
import os
import signal
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final

_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)


class _OneLine(logging.Formatter):
    """Keeps a record on one line, whatever strangers put into its message; a traceback of ours may follow."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        text = super().formatMessage(record)
        return text if text.isprintable() else "".join(c if c.isprintable() else " " for c in text)


# What every record has; all else was given by whoever logged it.
_OF_EVERY_RECORD: Final = frozenset(vars(logging.makeLogRecord({}))) | {
    "message",
    "asctime",
    "color_message",
    "taskName",
}


class _Json(logging.Formatter):
    """One JSON object a line: time, level, logger and message, then what was said beside it."""

    def format(self, record: logging.LogRecord) -> str:
        said = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        given = vars(record).items()
        said |= {name: value for name, value in given if name not in _OF_EVERY_RECORD and value is not None}
        if record.exc_info:
            said["traceback"] = self.formatException(record.exc_info)
        return json.dumps(said, default=str)


def log_to_stderr(level: str, *, as_json: bool = False) -> None:
    """Log ww's own records from that level on, and warnings of others, one line each."""
    handler = logging.StreamHandler(sys.stderr)
    text = _OneLine("%(asctime)s %(levelname)-7s %(message)s", "%H:%M:%S")
    handler.setFormatter(_Json() if as_json else text)
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    logging.getLogger("ww").setLevel(level.upper())
    # One line says what it has to say; our own exception handler says it.
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)
    # Strangers fill the log with what uvicorn says of each broken request; access.py says it of all, with a limit.
    logging.getLogger("uvicorn").setLevel(logging.CRITICAL)


def look_for_cycles_seldom() -> None:
    """Have Python's garbage collector look through what lives on less often.

    What a gateway holds for a hundred thousand open tasks are no cycles, and looking through them again and again took
    half of the time of a submission (bench/gateway.py, 64 clients).
    """
    gc.set_threshold(20_000, 20, 50)


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
