"""`ww peers`: who may come to a gateway, who is there, and who is to get nothing more."""

import argparse
import asyncio
import json
from typing import Any

from ww.cli.connect import add_connect_options, connected, own_identity
from ww.cli.parser import Parser, argument
from ww.cli.process import log_to_stderr
from ww.cli.table import show
from ww.errors import UsageError
from ww.gateway.operator import Operator, PeerRow
from ww.identity import PeerId
from ww.rpc.loop import run
from ww.rpc.register import PURPOSES

_COLUMNS = ("PEER", "STANDING", "TICKETS", "SLOTS", "FREE", "CALLS", "BYTES", "FROM")


def add_to(group: Parser) -> None:
    """Add what the command takes."""
    group.description = "See and govern the peers of the gateway of this state directory, which has to be running."
    kinds = group.add_subparsers(metavar="COMMAND", required=True)
    listing: Parser = kinds.add_parser("ls", help="list those that are connected or on record")
    add_connect_options(listing)
    listing.add_argument("--json", action="store_true", help="one JSON array")
    listing.set_defaults(run=lambda arguments: run(lambda: main_ls(arguments)))
    for name, help in (
        ("ban", "hang up on a peer and refuse it, also after a restart; with --lift also one that was outvoted often"),
        ("drain", "give a peer nothing new to run; what it runs may finish"),
    ):
        parser: Parser = kinds.add_parser(name, help=help)
        add_connect_options(parser)
        parser.add_argument("peer", type=argument(PeerId.parse), metavar="PEER_ID", help="whom")
        parser.add_argument("--lift", action="store_true", help="no longer")
        parser.set_defaults(run=lambda arguments, name=name: run(lambda: main_set(arguments, name)))


async def main_ls(arguments: argparse.Namespace) -> int:
    """List them."""
    log_to_stderr(arguments.log)
    rows = await _ask(arguments, Operator.peers)
    if arguments.json:
        print(json.dumps([_json(row) for row in rows]), flush=True)
    else:
        show(_COLUMNS, [_row(row) for row in rows])
    return 0


async def main_set(arguments: argparse.Namespace, what: str) -> int:
    """Ban or drain a peer, or lift that."""
    log_to_stderr(arguments.log)
    method = Operator.ban if what == "ban" else Operator.drain
    await _ask(arguments, lambda operator: method(operator, arguments.peer, not arguments.lift))
    return 0


async def _ask(arguments: argparse.Namespace, question: Any) -> Any:
    if arguments.dial is None:
        if arguments.key is None and not (arguments.state / "gateway.key").exists():
            raise UsageError("no gateway has run with this state directory: see --state", "state")
        identity = await asyncio.to_thread(own_identity, arguments)
        arguments.dial = identity.peer_id
    async with connected(arguments) as connection:
        return await question(await Operator.of(connection))


def _standing(row: PeerRow) -> str:
    standing = row.standing
    said = ["banned"] * standing.is_banned + ["draining"] * standing.is_draining
    if standing.disagreements:
        said.append(f"outvoted:{standing.disagreements}")
    return " ".join([*said, "connected" if row.remotes else "away"])


def _row(row: PeerRow) -> tuple[str, ...]:
    numbers = (row.slots, row.free, row.calls, row.bytes)
    enrolled = ((purpose, row.standing.ticket_for(purpose)) for purpose in PURPOSES)
    tickets = " ".join(f"{ticket} ({purpose})" for purpose, ticket in enrolled if ticket is not None) or "-"
    return (str(row.peer_id), _standing(row), tickets, *map(str, numbers), " ".join(row.remotes) or "-")


def _json(row: PeerRow) -> dict[str, Any]:
    return {
        "peer": str(row.peer_id),
        "connected": bool(row.remotes),
        "from": list(row.remotes),
        "calls": row.calls,
        "bytes": row.bytes,
        "slots": row.slots,
        "free": row.free,
        "ticket": row.standing.ticket,
        "tasks_ticket": row.standing.tasks_ticket,
        "banned": row.standing.is_banned,
        "draining": row.standing.is_draining,
        "disagreements": row.standing.disagreements,
    }
