"""`ww ticket`: make and take back what lets a peer in at a gateway with --admit ticket, or --tasks-admit ticket."""

import argparse
import json
import re
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from ww.cli.parser import Parser, argument, number_32, seconds
from ww.cli.secret import add_out, secret_output
from ww.cli.table import show
from ww.dial_string import write_dial_string
from ww.directories import state_directory
from ww.errors import UsageError
from ww.identity import Identity
from ww.net.multiaddr import Multiaddr
from ww.rpc.register import PURPOSES, Register, Ticket

_TTL_MAX_S: Final = 3650 * 86_400.0
_COLUMNS = ("TICKET", "FOR", "STATE", "USES", "MADE", "EXPIRES")


def add_to(group: Parser) -> None:
    """Add what the command takes."""
    group.description = "Tickets of the gateway of this state directory, which need not be running."
    kinds = group.add_subparsers(metavar="COMMAND", required=True)
    create: Parser = kinds.add_parser(
        "create",
        help="make a ticket and print it",
        description="Make a ticket and print it, inside what a peer dials by. It is a secret, and shown only now: put"
        " it into a file that only the peer's user can read (ww worker --ticket-file).",
    )
    _add_state(create)
    create.option("--key", Path, "file of the gateway's key pair (gateway.key in the state directory)", metavar="FILE")
    add_out(create)
    create.add_argument(
        "--ttl",
        type=argument(_ttl),
        default=86_400.0,
        metavar="N",
        help="how long it may be used: 30m, 24h, 7d (24h)",
    )
    create.add_argument("--uses", type=argument(number_32), default=1, metavar="N", help="by how many peers (1)")
    create.add_argument(
        "--for", dest="purpose", choices=PURPOSES, default="work",
        help="what it lets a peer do: work for the gateway, or give it tasks (work)",
    )  # fmt: skip
    create.add_argument(
        "--addr", type=argument(_reachable), metavar="ADDR",
        help="where the gateway can be reached from there, when not by discovery: /ip4/HOST/tcp/PORT",
    )  # fmt: skip
    create.set_defaults(run=main_create)
    listing: Parser = kinds.add_parser("ls", help="list tickets, without their secrets")
    _add_state(listing)
    listing.add_argument("--json", action="store_true", help="one JSON array")
    listing.set_defaults(run=main_ls)
    revoke: Parser = kinds.add_parser(
        "revoke", help="let nobody in by a ticket any more; who is in stays (ww peers ban)"
    )
    _add_state(revoke)
    revoke.add_argument("ticket", type=argument(_ticket_id), metavar="TICKET", help="its id, as ww ticket ls shows it")
    revoke.set_defaults(run=main_revoke)


def _add_state(parser: Parser) -> None:
    parser.option(
        "--state", Path, "directory of the gateway ($XDG_STATE_HOME/ww)", default=state_directory(), metavar="DIR"
    )


def register_in(state: Path) -> Register:
    """Return the register of peers of a state directory."""
    return Register(state / "peers.db")


def main_create(arguments: argparse.Namespace) -> int:
    """Make one."""
    key = arguments.key or arguments.state / "gateway.key"
    if not key.exists():
        raise UsageError(f"there is no key {key.name} there: start the gateway first, or see --state and --key", "key")
    identity = Identity.load(key, lock=False)
    with secret_output(arguments.out) as output:
        register, now = register_in(arguments.state), time.time()
        ticket = register.create_ticket(arguments.ttl, arguments.uses, now, arguments.purpose)
        print(write_dial_string(identity.peer_id, arguments.addr, ticket), file=output)
    return 0


def _ttl(text: str) -> float:
    if not 0 < (ttl_s := seconds(text)) <= _TTL_MAX_S:
        raise UsageError(f"{text[:40]!a}: expected more than no time, and at most {_TTL_MAX_S / 86_400:g}d")
    return ttl_s


def _reachable(text: str) -> Multiaddr:
    address = Multiaddr.parse(text)
    if address.is_unspecified or not address.port:
        raise UsageError(f"{text[:80]!a} is nowhere to dial: expected an address of the gateway's, and its port")
    return address


def _ticket_id(text: str) -> str:
    """Read a ticket's id, or take it from the whole ticket, of which what is secret is not repeated."""
    parts = text.rpartition("/")[2].split("-")
    number = parts[1] if len(parts) == 3 else text
    if not re.fullmatch(r"[0-9a-f]{1,16}", number):
        raise UsageError("that is no ticket's id: see ww ticket ls")
    return number


def main_ls(arguments: argparse.Namespace) -> int:
    """List them."""
    now = time.time()
    tickets = register_in(arguments.state).tickets()
    if arguments.json:
        print(json.dumps([_json(ticket, now) for ticket in tickets]))
    else:
        rows = [
            (t.id, t.purpose, _state(t, now), str(t.uses_left), _when(t.created_at), _when(t.expires_at))
            for t in tickets
        ]
        show(_COLUMNS, rows)
    return 0


def main_revoke(arguments: argparse.Namespace) -> int:
    """Take one back."""
    register_in(arguments.state).revoke_ticket(arguments.ticket)
    return 0


def _state(ticket: Ticket, now: float) -> str:
    if ticket.is_revoked:
        return "revoked"
    if ticket.expires_at < now:
        return "expired"
    return "good" if ticket.uses_left else "used up"


def _when(seconds_since_1970: float) -> str:
    return datetime.fromtimestamp(seconds_since_1970, UTC).strftime("%Y-%m-%d %H:%M")


def _json(ticket: Ticket, now: float) -> dict[str, str | int | float]:
    return {
        "ticket": ticket.id,
        "for": ticket.purpose,
        "state": _state(ticket, now),
        "uses_left": ticket.uses_left,
        "created_at": ticket.created_at,
        "expires_at": ticket.expires_at,
    }
