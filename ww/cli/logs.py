"""`ww logs`: what a task's runs printed."""

import argparse
from collections.abc import Iterator

from ww.cli.output import Printer, follow
from ww.cli.parser import Parser, argument, whole
from ww.cli.remote import add_gateway_options, connect
from ww.client import Client, Result
from ww.errors import NotFound


def add_to(parser: Parser) -> None:
    """Add what the command takes."""
    parser.description = (
        "Print stdout and stderr of a task's runs that have ended, in order of run, byte for byte. Where a task has"
        " several, each line begins with [RUN]. With --json one result a line."
    )
    parser.add_argument("task_id", metavar="ID", help="the task's id")
    parser.add_argument("-f", "--follow", action="store_true", help="go on until the task has ended")
    parser.add_argument("--run", type=argument(whole), dest="run_number", metavar="N", help="of this run alone")
    add_gateway_options(parser)
    parser.set_defaults(run=main)


def main(arguments: argparse.Namespace) -> int:
    """Print them."""
    with connect(arguments) as client:
        repeats = client.task(arguments.task_id).repeats
        is_numbered = repeats > 1 and arguments.run_number is None
        printer = Printer(is_numbered=is_numbered, is_json=arguments.json)
        for result in _results(client, arguments):
            printer.print(result)
    return 0


def _results(client: Client, arguments: argparse.Namespace) -> Iterator[Result]:
    id, number = arguments.task_id, arguments.run_number
    if number is not None:
        yield _result(client, id, number, arguments.follow)
    elif arguments.follow:
        yield from (each for each in follow(client, id) if isinstance(each, Result))
    else:
        yield from client.results(id)


def _result(client: Client, id: str, number: int, is_followed: bool) -> Result:
    result = client.result(id, number)
    if not result.has_ended and is_followed:
        for event in client.events(id, after="now"):
            if (event.run is not None and event.run.run == number and event.run.has_ended) or event.task is not None:
                result = client.result(id, number)
            if result.has_ended:
                break
    if not result.has_ended:
        raise NotFound(f"run {number} of task {id!r} has not ended: it is {result.state} (-f waits)")
    return result
