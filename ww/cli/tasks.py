"""`ww tasks`: which tasks there are."""

import argparse
from datetime import UTC, datetime

from ww.cli.parser import Parser, argument, count
from ww.cli.remote import add_gateway_options, age_text, cell, connect, print_json
from ww.cli.table import show
from ww.client import Task

_COLUMNS = ("ID", "STATUS", "RUNS", "FAILED", "AGE", "NAME")
_STATUSES = ("scheduled", "queued", "running", "unsatisfiable", "succeeded", "failed", "cancelled")
_NAME_CHARACTERS_MAX = 60


def add_to(parser: Parser) -> None:
    """Add what the command takes."""
    parser.description = "List tasks, newest first. RUNS: how many have ended, of how many."
    parser.add_argument("--status", choices=_STATUSES, metavar="STATUS", help=f"only those: {', '.join(_STATUSES)}")
    parser.add_argument("--limit", type=argument(count), default=100, metavar="N", help="at most so many (100)")
    parser.add_argument("--after", metavar="ID", help="only those older than this one")
    add_gateway_options(parser)
    parser.set_defaults(run=main)


def main(arguments: argparse.Namespace) -> int:
    """List them."""
    now = datetime.now(UTC)
    with connect(arguments) as client:
        tasks = client.tasks(status=arguments.status, limit=arguments.limit, after=arguments.after)
        if arguments.json:
            print_json(task.json for task in tasks)
        else:
            show(_COLUMNS, [_row(task, now) for task in tasks])
    return 0


def _row(task: Task, now: datetime) -> tuple[str, ...]:
    failed = task.runs.get("failed", 0)
    ended = failed + task.runs.get("succeeded", 0) + task.runs.get("cancelled", 0)
    name = cell(task.name or task.description)
    return (
        cell(task.id),
        cell(task.status),
        f"{ended}/{task.repeats}",
        str(failed),
        age_text(task.created_at, now),
        name if len(name) <= _NAME_CHARACTERS_MAX else f"{name[: _NAME_CHARACTERS_MAX - 3]}...",
    )
