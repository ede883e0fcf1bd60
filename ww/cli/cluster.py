"""`ww cluster ls`: who is a member of the cluster."""

import argparse
import asyncio
import contextlib
import functools
import json
from typing import Any

from ww.cli.connect import add_connect_options, connected
from ww.cli.parser import Parser, argument, number_32
from ww.cli.process import log_to_stderr
from ww.cli.table import live, show
from ww.cluster.view import Member, Query, Selector, View
from ww.rpc.loop import run

_COLUMNS = ("PEER", "ROLE", "HOST", "SLOTS", "FREE", "QUEUE", "AGE", "ADDRESSES", "META")
_REFRESH_S = 1.0


def add_to(group: Parser) -> None:
    """Add what the command takes."""
    parser: Parser = group.add_subparsers(metavar="COMMAND", required=True).add_parser(
        "ls",
        help="list the members",
        description="List the members of the cluster, as a node sees them. Values may end in * for whatever follows.",
    )
    for name, metavar in (("role", "VALUE"), ("host", "VALUE"), ("meta", "KEY[=VALUE]")):
        kind = argument(functools.partial(Selector.parse, name))
        parser.add_argument(
            f"--{name}", type=kind, action="append", default=[], dest=f"by_{name}", metavar=metavar,
            help=f"only those of this {name}; repeatable, all must hold",
        )  # fmt: skip
    parser.add_argument("--limit", type=argument(number_32), default=0, metavar="N", help="at most so many")
    parser.add_argument("--reverse", action="store_true", help="the largest peer id first")
    parser.add_argument("--watch", action="store_true", help="show them again whenever somebody comes, goes or changes")
    parser.add_argument("--json", action="store_true", help="a JSON array; with --watch one a line")
    add_connect_options(parser)
    parser.set_defaults(run=lambda arguments: run(lambda: main(arguments)))


async def main(arguments: argparse.Namespace) -> int:
    """List them, once or until interrupted."""
    log_to_stderr(arguments.log)
    selectors = (*arguments.by_role, *arguments.by_host, *arguments.by_meta)
    query = Query(selectors, arguments.limit, arguments.reverse)
    async with connected(arguments) as connection:
        view = await View.of(connection)
        if not arguments.watch:
            _print([member async for member in view.iterate(query)], arguments.json)
            return 0
        with live() as update:
            version = 0
            while True:
                with contextlib.suppress(TimeoutError):
                    # Load and age change all the time, so that a table for people is shown again now and then.
                    async with asyncio.timeout(None if arguments.json else _REFRESH_S):
                        version = await view.changed(version)
                members = [member async for member in view.iterate(query)]
                if arguments.json:
                    _print(members, True)
                else:
                    update(_COLUMNS, [_row(member) for member in members])


def _print(members: list[Member], as_json: bool) -> None:
    if as_json:
        print(json.dumps([_json(member) for member in members]), flush=True)
    else:
        show(_COLUMNS, [_row(member) for member in members])


def _row(member: Member) -> tuple[str, ...]:
    said = member.heartbeat
    return (
        str(member.peer_id),
        said.role or "-",
        said.host or "-",
        str(said.load.slots),
        str(said.load.free),
        str(said.load.queue),
        f"{member.age_s:.1f}s",
        " ".join(str(address) for address in said.addresses) or "-",
        " ".join(f"{key}={value}" for key, value in said.meta) or "-",
    )


def _json(member: Member) -> dict[str, Any]:
    said = member.heartbeat
    return {
        "peer": str(member.peer_id),
        "role": said.role,
        "host": said.host,
        "addresses": [str(address) for address in said.addresses],
        "meta": dict(said.meta),
        "slots": said.load.slots,
        "free": said.load.free,
        "queue": said.load.queue,
        "age_seconds": member.age_s,
        "ttl_seconds": said.ttl_ms / 1000,
        "incarnation": member.incarnation,
    }
