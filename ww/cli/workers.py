"""`ww workers`: who computes for a gateway."""

import argparse
from datetime import UTC, datetime

from ww.cli.parser import Parser
from ww.cli.remote import add_gateway_options, age_text, bytes_text, cell, connect, print_json
from ww.cli.table import show
from ww.client import Worker

_COLUMNS = (
    "PEER",
    "KIND",
    "SLOTS",
    "FREE",
    "CPUS",
    "MEMORY",
    "MODULES",
    "BREAKER",
    "OUTVOTED",
    "LACKS",
    "HOST",
    "LABELS",
    "AGE",
)


def add_to(parser: Parser) -> None:
    """Add what the command takes."""
    parser.description = "List the workers that are registered. What they say of themselves is a claim."
    add_gateway_options(parser)
    parser.set_defaults(run=main)


def main(arguments: argparse.Namespace) -> int:
    """List them."""
    with connect(arguments) as client:
        workers = client.workers()
    if arguments.json:
        print_json(worker.json for worker in workers)
    else:
        show(_COLUMNS, [_row(worker, datetime.now(UTC)) for worker in workers])
    return 0


def _row(worker: Worker, now: datetime) -> tuple[str, ...]:
    return (
        cell(worker.peer),
        cell(worker.kind),
        str(worker.slots),
        str(worker.free),
        "-" if worker.cpus is None else f"{worker.cpus:g}",
        bytes_text(worker.memory_bytes),
        str(len(worker.modules)),
        cell(worker.breaker),
        str(worker.disagreements),
        cell(" ".join(worker.lacks)),
        cell(worker.host),
        cell(worker.labels),
        age_text(worker.since, now),
    )
