"""`ww run`: one WebAssembly file on the cluster, as if it ran here.

Holds the options of a task and what becomes of its end. Exit codes: docs/client.md, The command line.
"""

import argparse
import contextlib
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, cast

from ww import archive
from ww.cli.output import Printer, follow
from ww.cli.parser import Append, Parser, argument, count, decimal, integer, key_value, seconds, size, whole
from ww.cli.remote import add_gateway_options, connect, print_json, tell
from ww.cli.streams import is_end_of_output
from ww.client import Client, Result, Retry, Task, TaskFields
from ww.errors import NotFound, UsageError, WwError
from ww.uuid7 import uuid7

_FAILED, _LATE, _OURS, _INTERRUPTED, _NO_READER, _TERMINATED = 1, 124, 125, 130, 141, 143
_STDIN_BYTES_MAX: Final = 64 << 20
_OUT_BYTES_MAX: Final = 1 << 30
_OUT_COUNT_MAX: Final = 65_534
# Whoever presses ctrl-C does not want to wait long.
_CANCEL_S: Final = 5.0
_CANCEL_RETRIES: Final = 3
_CANCEL_PAUSES_S: Final = (0.0, 0.2, 0.5)

_Option = tuple[str, str, Callable[[str], Any], str, str]
_OPTIONS: Final[tuple[_Option, ...]] = (
    ("--id", "id", str, "ID", "the task's id; the same id with the same content is the same task (made)"),
    ("--name", "name", str, "TEXT", "what to call it"),
    ("--description", "description", str, "TEXT", "what it is"),
    ("--entry", "entry", str, "NAME", "exported function to call"),
    ("--input", "input", whole, "N", "first number for run(input, difficulty)"),
    ("--difficulty", "difficulty", whole, "N", "second number"),
    ("--files", "files", str, "DIR|ZIP", "what the guest's file system begins with; links are left out"),
    ("--repeats", "repeats", count, "N", "number of runs (1)"),
    ("--start", "start_s", seconds, "TIME", "until the first run: 30, 2.5s, 10m (0)"),
    ("--delay", "delay_s", seconds, "TIME", "between the starts of runs (0: all at once)"),
    ("--duration", "duration_s", seconds, "TIME", "one run may take"),
    ("--complete", "complete", whole, "N", "initial value of the completion counter (0)"),
    ("--memory", "memory_bytes", size, "BYTES", "a run may have: 65536, 64M"),
    ("--output", "output_bytes", size, "BYTES", "of stdout and of stderr that are kept, each"),
    ("--files-max", "files_bytes_max", size, "BYTES", "the guest's file system may hold"),
    ("--artifacts-max", "artifacts_bytes_max", size, "BYTES", "of artifacts a run may leave"),
    ("--cpu-seconds", "cpu_seconds", seconds, "TIME", "of processor time a run may take"),
    ("--fuel", "fuel", count, "N", "WebAssembly instructions a run may execute, roughly"),
    ("--cpus", "cpus", decimal, "N", "processors a run needs"),
    ("--priority", "priority", integer, "N", "-100 to 100: the higher, the earlier (0)"),
    ("--retries", "retries", whole, "N", "how often a run is run again when the guest fails (0)"),
    ("--seed", "seed", whole, "N", "of the random numbers of a deterministic run"),
)
_REPEATED: Final[tuple[_Option, ...]] = (
    ("--dir", "dirs", str, "PATH", "folder that the guest may open, under that name; repeatable (all, as /)"),
    ("--artifact", "artifacts", str, "PATH", "file or folder of it to bring back; repeatable"),
    ("--env", "env", lambda text: _env(text), "NAME[=VALUE]", "a variable; without = its value here; repeatable"),
    ("--label", "labels", key_value, "KEY=VALUE", "what its worker has to say of itself; repeatable"),
)


def add_to(parser: Parser) -> None:
    """Add what the command takes."""
    parser.description = (
        "Run a WebAssembly file on the cluster: print its stdout, stderr and result, and exit with its code. Options"
        " stand anywhere before --. Ctrl-C cancels the task. Exit codes of ww's own: 124 when a run took too long,"
        " 125 when ww failed, 1 when the guest failed otherwise than by exiting, 130 after ctrl-C."
    )
    parser.add_argument("file", metavar="FILE", help="the module or component, or sha256:HEX of one that is there")
    parser.words("args", "the guest's arguments; those that look like options stand behind --")
    for flag, name, kind, metavar, help in _OPTIONS:
        parser.add_argument(flag, type=argument(kind), dest=f"task_{name}", metavar=metavar, help=help)
    for flag, name, kind, metavar, help in _REPEATED:
        parser.add_argument(
            flag, type=argument(kind), dest=f"task_{name}", action=Append, default=[], metavar=metavar, help=help
        )
    parser.add_argument("--deterministic", action="store_true", help="the same task has the same outcome everywhere")
    parser.add_argument("--stdin", metavar="FILE", help="the guest's stdin; - is ww's own, to its end")
    parser.add_argument("--out", type=Path, metavar="DIR", help="unpack artifacts here, a folder that is new or empty")
    parser.add_argument("--detach", action="store_true", help="print the task's id and leave it running")
    add_gateway_options(parser)
    parser.set_defaults(run=lambda arguments: main(parser, arguments))


def main(parser: Parser, arguments: argparse.Namespace) -> int:
    """Run it; an exit code for everything."""
    if arguments.out is not None and (arguments.detach or not arguments.task_artifacts):
        parser.error("--out: expected --artifact with it, and not --detach")
    signal.signal(signal.SIGTERM, _terminate)
    try:
        return _run(arguments)
    except WwError as error:
        tell(str(error))
        return _OURS


def _run(arguments: argparse.Namespace) -> int:
    id = arguments.task_id if arguments.task_id is not None else str(uuid7())
    _check_out(arguments.out)
    try:
        fields = _fields(arguments, id)
    except KeyboardInterrupt as stop:
        return _stopped(stop)  # nothing was sent, and a task of that id is not this one
    try:
        with connect(arguments) as client:
            return _follow(client, arguments, id, fields)
    except KeyboardInterrupt as stop:
        return _cancel(arguments, id, _stopped(stop))
    except OSError as error:
        if not is_end_of_output(error):
            raise
        # As a program that runs here would end: nobody reads its output any more, or there is no room for it.
        return _cancel(arguments, id, _NO_READER if isinstance(error, BrokenPipeError) else _OURS)


def _follow(client: Client, arguments: argparse.Namespace, id: str, fields: TaskFields) -> int:
    task = client.submit(arguments.file, **fields)
    if arguments.detach:
        if arguments.json:
            print_json(task.json)
        else:
            print(task.id, flush=True)
        return 0
    tell(f"task {task.id}")
    printer = Printer(is_numbered=task.repeats > 1, is_json=arguments.json)
    code = 0
    try:
        for each in follow(client, id):
            if isinstance(each, Task):
                return code or _code_of_task(each)
            printer.print(each)
            _keep(client, id, each, arguments.out, is_numbered=task.repeats > 1)
            code = code or exit_code(each)
    except NotFound:
        raise
    except WwError as error:
        raise type(error)(f"{error}; the task may go on: ww logs -f {id}") from None
    return _OURS


def exit_code(result: Result) -> int:
    """Return what a run's end is as an exit code."""
    if result.state == "succeeded":
        return 0
    if result.reason == "exit" and result.exit_code is not None:
        # A shell sees the low byte; what failed does not look like success by that.
        return result.exit_code & 0xFF or _FAILED
    if result.reason in ("deadline", "cpu"):
        return _LATE
    return _OURS if result.reason == "lost" or result.state == "cancelled" else _FAILED


def _code_of_task(task: Task) -> int:
    if task.status == "succeeded":
        return 0
    tell(f"the task was {task.status}{f': {task.reason}' if task.reason else ''}")
    return _OURS


def _cancel(arguments: argparse.Namespace, id: str, code: int) -> int:
    tell("cancelling the task; ctrl-C again leaves it as it is")
    try:
        with connect(arguments, retry=Retry(retries=_CANCEL_RETRIES), timeout_s=_CANCEL_S) as client:
            for pause_s in _CANCEL_PAUSES_S:
                # It may not be there yet: what was under way may still arrive.
                time.sleep(pause_s)
                with contextlib.suppress(NotFound):
                    client.cancel(id)
                    break
    except KeyboardInterrupt:
        pass
    except WwError as error:
        tell(f"{error}; the task may go on: ww cancel {id}")
    return code


class _Terminated(KeyboardInterrupt):
    """SIGTERM, which is as good a reason to stop."""


def _stopped(stop: KeyboardInterrupt) -> int:
    return _TERMINATED if isinstance(stop, _Terminated) else _INTERRUPTED


def _terminate(number: int, frame: object) -> None:
    raise _Terminated


# What is sent.


def _fields(arguments: argparse.Namespace, id: str) -> TaskFields:
    values = {name: getattr(arguments, f"task_{name}") for _, name, *_ in (*_OPTIONS, *_REPEATED)}
    fields: dict[str, Any] = {name: value for name, value in values.items() if value not in (None, [])}
    for name in ("env", "labels"):
        if name in fields:
            fields[name] = _mapping(name, fields[name])
    if arguments.args:
        fields["args"] = arguments.args
    if arguments.deterministic:
        fields["deterministic"] = True
    if arguments.stdin is not None:
        fields["stdin"] = _stdin(arguments.stdin)
    return cast(TaskFields, fields | {"id": id})


def _mapping(name: str, pairs: list[tuple[str, str]]) -> dict[str, str]:
    mapping = dict(pairs)
    if len(mapping) < len(pairs):
        raise UsageError(f"{name}: a name is given more than once", name)
    return mapping


def _env(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not name:
        raise UsageError("expected NAME or NAME=VALUE")
    if not equals and (found := os.environ.get(name)) is not None:
        return name, found
    if not equals:
        raise UsageError(f"{name[:40]!r} has no value here: expected NAME=VALUE, or a variable that is set")
    return name, value


def _stdin(name: str) -> bytes:
    try:
        if name == "-":
            content = sys.stdin.buffer.read(_STDIN_BYTES_MAX + 1)
        else:
            with Path(name).open("rb") as file:
                content = file.read(_STDIN_BYTES_MAX + 1)
    except OSError as error:
        raise UsageError(f"stdin: {name}: {error.strerror}", "stdin") from None
    if len(content) > _STDIN_BYTES_MAX:
        raise UsageError(f"stdin: {name}: more than {_STDIN_BYTES_MAX} bytes", "stdin")
    return content


# What comes back.


def _check_out(folder: Path | None) -> None:
    """Refuse a folder that artifacts cannot be unpacked into, before there are any."""
    if folder is None:
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()):
            raise UsageError(f"out: {folder} is not empty", "out")
    except OSError as error:
        raise UsageError(f"out: {folder}: {error.strerror}", "out") from None


def _keep(client: Client, id: str, result: Result, folder: Path | None, *, is_numbered: bool) -> None:
    """Unpack a run's artifacts, where there are any."""
    if folder is None or not result.artifacts_bytes:
        return
    content = client.artifacts(id, result.run)
    target = folder / str(result.run) if is_numbered else folder
    try:
        target.mkdir(exist_ok=True)
        directory = os.open(target, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            archive.unpack(content, directory, bytes_max=_OUT_BYTES_MAX, count_max=_OUT_COUNT_MAX)
        finally:
            os.close(directory)
    except OSError as error:
        raise UsageError(f"out: {target}: {error.strerror}", "out") from None
