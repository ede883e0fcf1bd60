"""`ww map`: every file of a folder, or every line of stdin, is one run's input; every result a file, or a line.

Holds its options, what a terminal shows meanwhile, and how it ends. The course of it: mapping.py. Exit codes and what
becomes of an interruption: docs/client.md, The command line.
"""

import argparse
import asyncio
import contextlib
import hashlib
import json
import os
import shutil
import signal
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final

from ww.cli.fields import add_task_options, task_fields
from ww.cli.inputs import Bounds, Folder, Found, Lines, Portion, is_placed
from ww.cli.ledger import Ledger
from ww.cli.mapping import Course, Recipe
from ww.cli.parser import Parser, argument, count, seconds, size
from ww.cli.progress import Progress, duration_text
from ww.cli.remote import aconnect, add_gateway_options, print_json, run_client, tell
from ww.cli.results import FolderSink, Sink, StdoutSink
from ww.cli.streams import is_end_of_output
from ww.client import Retry
from ww.client.results import Order
from ww.client.submission import Module, read_module
from ww.errors import UsageError, WwError

_FAILED, _USAGE, _OURS, _NO_READER = 1, 2, 125, 141
_CODES: Final = {signal.SIGINT: 130, signal.SIGTERM: 143}
_FIELDS: Final = (
    "name", "description", "entry", "files", "duration_s", "memory_bytes", "output_bytes", "files_bytes_max",
    "cpu_seconds", "fuel", "cpus", "priority", "retries", "seed", "spread", "replicas", "quorum", "dirs",
    "env", "labels",
)  # fmt: skip
_OUTPUT_BYTES: Final = 1 << 20
_BAR_S: Final = 0.2
# Whoever presses ctrl-C does not want to wait long.
_CANCEL_S: Final = 5.0
_CANCEL_RETRIES: Final = 3
_AGAIN: Final = "the same command goes on with what is missing"


def add_to(parser: Parser) -> None:
    """Add what the command takes."""
    parser.description = (
        "Run a WebAssembly file once for each file of a folder, and of the folders in it, hidden ones too; links to"
        " folders are left out. A file is its run's stdin; where the arguments have {} in them, its name stands there"
        " and the file, by that name, is all that the run's file system holds. What a run prints becomes a file of the"
        " same name in the output folder; of one that fails NAME.error says why. What is in the output folder is not"
        " done again: interrupt it at any point and start it again. With --input - each line of stdin is an input,"
        " and without --output the results are printed in the order of the lines. Exit codes: 0 all succeeded, 1 some"
        " failed, 2 wrong usage, 125 ww failed, 130 ctrl-C, which cancels what is under way."
    )
    parser.add_argument("file", metavar="MODULE", help="the module or component, or sha256:HEX of one that is there")
    parser.words("args", "the guest's arguments; those that look like options stand behind --")
    parser.add_argument(
        "--input", dest="source", required=True, metavar="DIR", help="folder of inputs; -: the lines of stdin"
    )
    parser.add_argument(
        "--output", dest="target", type=Path, metavar="DIR",
        help="folder of results; for lines 0, 1, ... by number, and optional: without it they are printed",
    )  # fmt: skip
    parser.add_argument(
        "--order", choices=("completion", "input"), metavar="ORDER",
        help="take results as runs end (completion, of files) or in the order of inputs (input, of what is printed)",
    )  # fmt: skip
    for flag, kind, default, help in (
        ("--batch", count, 10_000, "inputs of one task; the next is sent while one runs (10000)"),
        ("--batch-bytes", size, 32 << 20, "of the inputs of one task, all together (32M)"),
        ("--inputs-max", count, 1_000_000, "files that are taken at most (1000000)"),
        ("--limit-failures", count, None, "stop when so many runs have failed (never)"),
    ):
        parser.add_argument(flag, type=argument(kind), default=default, metavar="N", help=help)
    parser.add_argument(
        "--interval", type=argument(seconds), default=10.0, metavar="TIME",
        help="between lines that say how far it is, where there is no terminal; 0: none (10s)",
    )  # fmt: skip
    add_task_options(parser, _FIELDS, {"output_bytes": "--output-max"})
    add_gateway_options(parser)
    parser.set_defaults(run=lambda arguments: main(parser, arguments))


def main(parser: Parser, arguments: argparse.Namespace) -> int:
    """Run it; an exit code for everything."""
    _check_usage(parser, arguments)
    try:
        module = read_module(arguments.file)
        folder, ledger = _prepare(arguments)
    except UsageError as error:
        tell(str(error))
        return _USAGE
    except KeyboardInterrupt:
        return _CODES[signal.SIGINT]
    try:
        return run_client(arguments, _Map(arguments, module, folder, ledger).run)
    except WwError as error:
        tell(str(error))
        return _OURS
    finally:
        ledger.close()


def _check_usage(parser: Parser, arguments: argparse.Namespace) -> None:
    if arguments.target is None and arguments.source != "-":
        parser.error("--output: expected a folder, for results of files")
    if arguments.task_spread == "everywhere":
        parser.error("--spread: expected pull, roundrobin or random: everywhere is for one run on each worker")
    if is_placed(arguments.args) and arguments.task_files is not None and arguments.source != "-":
        parser.error("--files: expected no {} with it: the file by that name is all that a run's file system holds")


def _prepare(arguments: argparse.Namespace) -> tuple[Folder | None, Ledger]:
    """Look at the inputs and have the output folder. UsageError when one is not what it has to be."""
    folder = None
    if arguments.source != "-":
        root = Path(arguments.source)
        if not root.is_dir():
            raise UsageError(f"input: {root} is no folder", "input")
        source, target = root.resolve(), arguments.target.resolve()
        if source == target or source in target.parents or target in source.parents:
            raise UsageError(f"output: {arguments.target} is in the input, or has it in it", "output")
        folder = Folder(root, arguments.args, arguments.inputs_max)
    if arguments.target is not None:
        try:
            arguments.target.mkdir(parents=True, exist_ok=True)
        except FileExistsError:
            raise UsageError(f"output: {arguments.target} is no folder", "output") from None
        except OSError as error:
            raise UsageError(f"output: {arguments.target}: {error.strerror}", "output") from None
    return folder, Ledger(arguments.target)


class _Map:
    """One run of the command."""

    def __init__(self, arguments: argparse.Namespace, module: Module, folder: Folder | None, ledger: Ledger) -> None:
        self._arguments = arguments
        self._folder = folder
        self._ledger = ledger
        self._lines = None if folder is not None else Lines(sys.stdin.buffer, arguments.args)
        self._bounds = Bounds(arguments.batch, arguments.batch_bytes)
        self._sink: Sink = (
            StdoutSink(is_json=arguments.json) if arguments.target is None else FolderSink(arguments.target)
        )
        self._recipe = self._make_recipe(module)
        self._progress = Progress(None, time.monotonic())
        self._there = 0
        self._code: int | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._shows_bar = sys.stderr.isatty() and not (arguments.target is None and sys.stdout.isatty())

    async def run(self) -> int:
        """Do it all, and return the exit code."""
        loop, main = asyncio.get_running_loop(), asyncio.current_task()
        assert main is not None
        for number, code in _CODES.items():
            loop.add_signal_handler(number, self._stop, main, code)
        try:
            async with aconnect(self._arguments) as client:
                course = Course(client, self._recipe, self._ledger, self._sink, self._progress)
                return await self._end(course)
        except asyncio.CancelledError:
            main.uncancel()
            return await self._cancelled(self._code or _OURS)
        except OSError as error:
            if not is_end_of_output(error):
                raise
            return await self._cancelled(_NO_READER if isinstance(error, BrokenPipeError) else _OURS)
        except WwError as error:
            if self._code is not None:
                return await self._cancelled(self._code)  # the error came of that
            return await self._failed(error)
        finally:
            if self._lines is not None:
                self._lines.is_stopped = True

    async def _end(self, course: Course) -> int:
        left = await asyncio.to_thread(self._missing)
        start = time.monotonic()
        self._look_again()
        try:
            await course.take_up()
            if not course.is_enough:
                await course.run(self._portions(course, left))
        finally:
            self._clear()
        progress = self._progress
        if course.is_enough:
            await course.cancel()
            tell(f"stopped after {progress.failed:,} failures: {_AGAIN}")
        self._sum_up(time.monotonic() - start)
        return _FAILED if progress.failed else 0

    def _missing(self) -> list[Found]:
        if self._folder is None:
            return []
        left = [found for found in self._folder.files if not self._sink.has(found.name)]
        self._there = len(self._folder.files) - len(left)
        self._progress.total = len(left)
        return left

    async def _portions(self, course: Course, left: list[Found]) -> AsyncIterator[Portion]:
        if self._folder is not None:
            wanted = [found for found in left if found.name not in course.taken]
            for portion in self._folder.portions(wanted, self._bounds):
                yield portion
            return
        assert self._lines is not None

        def is_wanted(name: str) -> bool:
            if name in course.taken:
                return False
            is_there = self._sink.has(name)
            self._there += is_there
            return not is_there

        while (next := await asyncio.to_thread(self._lines.portion, self._bounds, is_wanted)) is not None:
            yield next

    def _make_recipe(self, module: Module) -> Recipe:
        arguments = self._arguments
        fields = {"output_bytes": _OUTPUT_BYTES} | task_fields(arguments)
        if arguments.args and not is_placed(arguments.args):
            fields["args"] = arguments.args
        order: Order = arguments.order or ("input" if arguments.target is None else "completion")
        made_of = json.dumps(
            [arguments.gateway, module.digest, fields, arguments.args, arguments.source], sort_keys=True
        )
        digest = hashlib.sha256(made_of.encode(errors="surrogateescape")).hexdigest()
        wasm = module.digest if module.content is None else module.content
        return Recipe(wasm, fields, digest, order, arguments.limit_failures)

    # What is said.

    def _look_again(self) -> None:
        """Say how far it is after a while, and again."""
        if interval_s := _BAR_S if self._shows_bar else self._arguments.interval:
            self._timer = asyncio.get_running_loop().call_later(interval_s, self._show)

    def _show(self) -> None:
        if self._shows_bar:
            columns = shutil.get_terminal_size().columns - 1
            self._to_terminal(f"\r\x1b[K{self._progress.bar(time.monotonic(), columns)}")
        else:
            tell(self._progress.text(time.monotonic()))
        self._look_again()

    def _clear(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
            if self._shows_bar:
                self._to_terminal("\r\x1b[K")

    def _to_terminal(self, text: str) -> None:
        with contextlib.suppress(OSError):
            print(text, end="", file=sys.stderr, flush=True)

    def _sum_up(self, elapsed_s: float) -> None:
        succeeded, failed = self._progress.succeeded, self._progress.failed
        if self._arguments.json and self._arguments.target is not None:
            print_json({"succeeded": succeeded, "failed": failed, "there": self._there})
        there = f", {self._there:,} were there" if self._there else ""
        tell(f"{succeeded:,} succeeded, {failed:,} failed{there}, in {duration_text(elapsed_s)}")

    # How it ends early.

    def _stop(self, main: "asyncio.Task[Any]", code: int) -> None:
        if self._code is not None:
            os._exit(code)  # the second time: nothing is waited for
        self._code = code
        if self._lines is not None:
            self._lines.is_stopped = True
        main.cancel()

    async def _failed(self, error: WwError) -> int:
        if self._arguments.target is None:
            tell(str(error))
            return await self._cancelled(_OURS)
        tell(f"{error}; what is under way may go on: {_AGAIN}" if self._ledger.entries else str(error))
        return _OURS

    async def _cancelled(self, code: int) -> int:
        if self._ledger.entries:
            tell("cancelling what is under way; ctrl-C again leaves it as it is")
            retry = Retry(retries=_CANCEL_RETRIES)
            try:
                async with aconnect(self._arguments, retry=retry, timeout_s=_CANCEL_S) as client:
                    await Course(client, self._recipe, self._ledger, self._sink, self._progress).cancel()
            except WwError as error:
                tell(f"{error}; what is under way may go on")
        if self._arguments.target is not None:
            tell(f"interrupted after {self._progress.done:,} runs: {_AGAIN}")
        return code
