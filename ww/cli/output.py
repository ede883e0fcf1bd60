"""What runs printed, on the streams it belongs to; and runs in their order, whatever order they end in.

Holds how results reach a terminal or a pipe. Must not know how they are asked for, nor what a command makes of them.
"""

import json
import sys
from collections.abc import Iterator
from typing import BinaryIO, Final

from ww.cli.remote import tell
from ww.client import Client, Result, Task

# Results that wait for an earlier run are held up to this; what is more is fetched again.
_HELD_BYTES_MAX: Final = 16 << 20
_RESULT_BYTES: Final = 2048


def follow(client: Client, id: str) -> Iterator[Result | Task]:
    """Yield a task's results in order of run, each as soon as it and all before it have ended; at last the task."""
    due, held_bytes = 0, 0
    waiting: dict[int, Result | None] = {}
    for event in client.events(id):
        if event.task is not None and event.task.has_ended:
            for number in sorted(waiting):  # those before them were cancelled
                yield waiting.pop(number) or client.result(id, number)
            yield event.task
        elif event.run is not None and event.run.has_ended:
            size = _size(event.run)
            is_held = event.run.run == due or held_bytes + size <= _HELD_BYTES_MAX
            held_bytes += size if is_held else 0
            waiting[event.run.run] = event.run if is_held else None
            while due in waiting:
                result = waiting.pop(due)
                held_bytes -= 0 if result is None else _size(result)
                yield result or client.result(id, due)
                due += 1


def _size(result: Result) -> int:
    # The JSON it came from is held too.
    return _RESULT_BYTES + 3 * (len(result.stdout) + len(result.stderr))


class Printer:
    """Prints results."""

    def __init__(self, *, is_numbered: bool, is_json: bool) -> None:
        """is_numbered: each line begins with its run's number. is_json: one object a line instead."""
        self._is_numbered = is_numbered
        self._is_json = is_json

    def print(self, result: Result) -> None:
        """Print what a run left, and say why if it failed."""
        if self._is_json:
            print(json.dumps(result.json), flush=True)
            return
        returned = b"" if result.result is None else result.result.encode() + b"\n"
        self._write(sys.stdout.buffer, result.run, result.stdout)
        self._write(sys.stdout.buffer, result.run, returned)
        self._write(sys.stderr.buffer, result.run, result.stderr)
        of_run = f"run {result.run}: " if self._is_numbered else ""
        for name, is_cut in (("stdout", result.stdout_truncated), ("stderr", result.stderr_truncated)):
            if is_cut:
                tell(f"{of_run}{name} was cut: see --output")
        if result.state == "failed" and (result.reason != "exit" or self._is_numbered):
            tell(f"{of_run}{why(result)}")

    def _write(self, stream: BinaryIO, run: int, data: bytes) -> None:
        if self._is_numbered and data:
            lines = data.removesuffix(b"\n").split(b"\n")
            data = b"".join(b"[%d] %s\n" % (run, line) for line in lines)
        stream.write(data)
        stream.flush()


def why(result: Result) -> str:
    """Return in one line why a run failed."""
    if result.reason == "exit":
        return f"exited with {result.exit_code}"
    return f"failed ({result.reason or 'no reason given'}){f': {result.detail}' if result.detail else ''}"
