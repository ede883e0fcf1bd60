"""`ww status`: how far a task is, and how its latest runs ended."""

import argparse
from typing import Final

from ww.cli.output import why
from ww.cli.parser import Parser
from ww.cli.remote import add_gateway_options, bytes_text, cell, connect, print_json
from ww.cli.table import show
from ww.client import Result, Task

_RUNS_SHOWN: Final = 20
_RUN_COLUMNS = ("RUN", "STATE", "RESULT", "SECONDS", "WORKER", "DETAIL")


def add_to(parser: Parser) -> None:
    """Add what the command takes."""
    parser.description = f"Show a task and its latest {_RUNS_SHOWN} results; what its runs printed is for ww logs."
    parser.add_argument("task_id", nargs="?", metavar="ID", help="the task's id")
    parser.add_argument("--id", metavar="ID", help="the same")
    add_gateway_options(parser)
    parser.set_defaults(run=lambda arguments: main(parser, arguments))


def main(parser: Parser, arguments: argparse.Namespace) -> int:
    """Show it."""
    given = [id for id in (arguments.task_id, arguments.id) if id is not None]
    if len(given) != 1:
        parser.error("expected one task's id")
    with connect(arguments) as client:
        task = client.task(given[0])
    if arguments.json:
        print_json(task.json)
        return 0
    show(("FIELD", "VALUE"), [(name, value) for name, value in _fields(task) if value != "-"])
    if task.results:
        print()
        show(_RUN_COLUMNS, [_row(result) for result in task.results[:_RUNS_SHOWN]])
    return 0


def _fields(task: Task) -> list[tuple[str, str]]:
    return [
        ("id", cell(task.id)),
        ("name", cell(task.name)),
        ("description", cell(task.description)),
        ("owner", cell(task.owner)),
        ("status", cell(task.status)),
        ("reason", cell(task.reason)),
        ("runs", cell({state: number for state, number in task.runs.items() if number})),
        ("completions", cell(task.completions)),
        ("guest", cell(f"{task.kind} {task.entry or ''}".strip())),
        ("module", cell(task.module)),
        ("input", cell(" ".join(str(n) for n in (task.input, task.difficulty) if n is not None))),
        ("args", cell(task.args)),
        ("priority", cell(task.priority or None)),
        ("labels", cell(task.labels)),
        ("quorum", f"{task.quorum} of {task.replicas} replicas" if task.replicas > 1 else "-"),
        ("memory", bytes_text(task.memory_bytes)),
        ("duration", "-" if task.duration_s is None else f"{task.duration_s:g} s"),
        ("created", cell(task.created_at)),
        ("next run", cell(task.next_run_at)),
        ("finished", cell(task.finished_at)),
    ]


def _row(result: Result) -> tuple[str, ...]:
    returned = result.result if result.result is not None else result.exit_code
    return (
        str(result.run),
        cell(result.state),
        cell(returned),
        "-" if result.wall_s is None else f"{result.wall_s:.3f}",
        cell(result.worker),
        cell(why(result)) if result.state == "failed" else "-",
    )
