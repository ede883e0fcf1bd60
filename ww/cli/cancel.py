"""`ww cancel`: have tasks stopped."""

import argparse

from ww.cli.parser import Parser
from ww.cli.remote import add_gateway_options, cell, connect, print_json, tell
from ww.cli.table import show
from ww.client import Task
from ww.errors import UsageError


def add_to(parser: Parser) -> None:
    """Add what the command takes."""
    parser.description = "Cancel tasks: queued runs never start, running guests are stopped. One that has ended stays."
    parser.add_argument("task_ids", nargs="+", metavar="ID", help="a task's id")
    add_gateway_options(parser)
    parser.set_defaults(run=main)


def main(arguments: argparse.Namespace) -> int:
    """Cancel them, all that there are."""
    tasks: list[Task] = []
    with connect(arguments) as client:
        for id in arguments.task_ids:
            try:
                tasks.append(client.cancel(id))
            except UsageError as error:
                tell(str(error))
    if arguments.json:
        print_json(task.json for task in tasks)
    elif tasks:
        show(("ID", "STATUS"), [(cell(task.id), cell(task.status)) for task in tasks])
    return 0 if len(tasks) == len(arguments.task_ids) else 1
