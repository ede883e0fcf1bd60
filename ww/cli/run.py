"""`ww run`: one WebAssembly file on the cluster, as if it ran here; or what a job file says.

Holds what becomes of a task's end; its options: fields.py, job.py. Exit codes: docs/client.md, The command line.
"""

import argparse
import contextlib
import os
import signal
import time
from pathlib import Path
from typing import Any, Final, cast

from ww import archive
from ww.cli.fields import OPTIONS, REPEATED, add_task_options, read_stdin, task_fields
from ww.cli.job import Job, read_job
from ww.cli.output import Printer, follow
from ww.cli.parser import Parser
from ww.cli.remote import add_gateway_options, connect, print_json, tell
from ww.cli.streams import is_end_of_output
from ww.client import Client, Result, Retry, Task, TaskFields
from ww.errors import NotFound, UsageError, WwError
from ww.uuid7 import uuid7

_FAILED, _LATE, _OURS, _INTERRUPTED, _NO_READER, _TERMINATED = 1, 124, 125, 130, 141, 143
_OUT_BYTES_MAX: Final = 1 << 30
_OUT_COUNT_MAX: Final = 65_534
# Whoever presses ctrl-C does not want to wait long.
_CANCEL_S: Final = 5.0
# So long the answer to a task of one run may wait for its end.
_SHORT_S: Final = 1.0
_CANCEL_RETRIES: Final = 3
_CANCEL_PAUSES_S: Final = (0.0, 0.2, 0.5)


def add_to(parser: Parser) -> None:
    """Add what the command takes."""
    parser.description = (
        "Run a WebAssembly file on the cluster: print its stdout, stderr and result, and exit with its code. Options"
        " stand anywhere before --. Ctrl-C cancels the task. Exit codes of ww's own: 124 when a run took too long,"
        " 125 when ww failed, 1 when the guest failed otherwise than by exiting, 130 after ctrl-C."
    )
    parser.add_argument(
        "file", nargs="?", metavar="FILE", help="the module or component, or sha256:HEX of one that is there"
    )
    parser.words("args", "the guest's arguments; those that look like options stand behind --")
    add_task_options(parser)
    parser.add_argument(
        "-f",
        "--job",
        metavar="JOB",
        help="in place of FILE: a task, or a batch of runs, as a JSON file; - is stdin",
    )
    parser.add_argument("--stdin", metavar="FILE", help="the guest's stdin; - is ww's own, to its end")
    parser.add_argument("--out", type=Path, metavar="DIR", help="unpack artifacts here, a folder that is new or empty")
    parser.add_argument("--detach", action="store_true", help="print the task's id and leave it running")
    add_gateway_options(parser)
    parser.set_defaults(run=lambda arguments: main(parser, arguments))


def main(parser: Parser, arguments: argparse.Namespace) -> int:
    """Run it; an exit code for everything."""
    _check_usage(parser, arguments)
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
        job = _job(arguments, id)
        id = job.fields["id"] or id
    except KeyboardInterrupt as stop:
        return _stopped(stop)  # nothing was sent, and a task of that id is not this one
    try:
        with connect(arguments) as client:
            return _follow(client, arguments, id, job)
    except KeyboardInterrupt as stop:
        return _cancel(arguments, id, _stopped(stop))
    except OSError as error:
        if not is_end_of_output(error):
            raise
        # As a program that runs here would end: nobody reads its output any more, or there is no room for it.
        return _cancel(arguments, id, _NO_READER if isinstance(error, BrokenPipeError) else _OURS)


def _follow(client: Client, arguments: argparse.Namespace, id: str, job: Job) -> int:
    if job.runs is None:
        wait_s = 0.0 if arguments.detach or job.fields.get("repeats") not in (None, 1) else _SHORT_S
        task = client.submit(job.wasm, wait_s=wait_s, **job.fields)
    else:
        task = client.submit_batch(job.wasm, job.runs, **job.fields)
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
        # A short run has ended by now, and its result came with the task.
        known: tuple[Result | Task, ...] = (*reversed(task.results), task)
        for each in known if task.has_all_results else follow(client, id):
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


def _job(arguments: argparse.Namespace, id: str) -> Job:
    if arguments.job is not None:
        job = read_job(arguments.job)
        fields: dict[str, Any] = {"id": id, **job.fields}
        if arguments.task_id is not None:
            fields["id"] = id
        return Job(job.wasm, cast(TaskFields, fields), job.runs)
    fields = task_fields(arguments)
    if arguments.args:
        fields["args"] = arguments.args
    if arguments.stdin is not None:
        fields["stdin"] = read_stdin(arguments.stdin)
    return Job(arguments.file, cast(TaskFields, fields | {"id": id}), None)


def _check_usage(parser: Parser, arguments: argparse.Namespace) -> None:
    if arguments.job is None:
        if arguments.file is None:
            parser.error("the following arguments are required: FILE, or -f JOB")
        if arguments.out is not None and (arguments.detach or not arguments.task_artifacts):
            parser.error("--out: expected --artifact with it, and not --detach")
        return
    if arguments.file is not None:
        parser.error("-f: expected no FILE with it, nor arguments: the job has them")
    given = vars(arguments)
    flags = {f"task_{name}": flag for flag, name, *_ in (*OPTIONS, *REPEATED) if name != "id"}
    flags |= {"stdin": "--stdin", "deterministic": "--deterministic"}
    if named := [flag for name, flag in flags.items() if given[name] not in (None, [], False)]:
        parser.error(f"{named[0]}: expected it in the job file, not beside -f")
    if arguments.out is not None and arguments.detach:
        parser.error("--out: expected it without --detach")


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
