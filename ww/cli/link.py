"""How the commands that ask a gateway reach one that is named as a peer: by which key, and where it may be.

Holds options, as plain values: what they mean is read where the native client is. Must not import nodes or
capabilities, as remote.py, whose part this is.
"""

import argparse
import importlib
import os
from pathlib import Path
from typing import Any, Final

from ww.cli.parser import Append, Parser
from ww.client.target import is_http
from ww.client.wire import DEFAULT_URL
from ww.directories import state_directory
from ww.errors import UsageError

_FLAGS: Final = ("--key", "--addr", "--ns", "--lan", "--discover", "--no-multicast", "--no-mdns", "--ticket-file")
_KEYS: Final = ("gateway.key", "client.key")


def add_link_options(parser: Parser) -> None:
    """Add them."""
    group = "of a peer:"
    parser.option(
        "--key", Path, f"{group} file of the key pair to be known by; made when it is not there (gateway.key in the"
        " state directory where that can be read, else client.key)", metavar="FILE",
    )  # fmt: skip
    parser.option(
        "--addr", str, f"{group} where it may be, /ip4/HOST/tcp/PORT; repeatable", action=Append, default=[],
        metavar="ADDR",
    )  # fmt: skip
    parser.option("--ns", str, f"{group} its namespace (ww)", default="ww", metavar="NAME")
    parser.option(
        "--state", Path, "directory for keys and the registry of this machine ($XDG_STATE_HOME/ww)",
        default=state_directory(), metavar="DIR",
    )  # fmt: skip
    parser.flag("--lan", f"{group} look for it on the networks of this machine, not only on itself")
    parser.option(
        "--discover", str, f"{group} multicast group of surveys; repeatable", action=Append, default=[], metavar="ADDR"
    )
    parser.flag("--no-multicast", f"{group} do not survey")
    parser.flag("--no-mdns", f"{group} do not speak mDNS")
    # WW_TICKET_FILE is a worker's.
    parser.add_argument(
        "--ticket-file", metavar="FILE",
        help="file, mode 0600, with what ww ticket create --for tasks printed: it lets this client in, and says which"
        " gateway",
    )  # fmt: skip
    parser.set_defaults(default_of=parser.get_default)


class GatewayAction(argparse.Action):
    """Takes a gateway's address; one with a ticket in it is a secret, and no argument."""

    def __call__(self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: Any, *_: Any) -> None:
        if "wwt1-" in values:
            parser.error("--gateway: a ticket in it can be read by everybody here: use --ticket-file, or WW_GATEWAY")
        setattr(namespace, self.dest, values)


def target_of(arguments: argparse.Namespace) -> str:
    """Return the address of the gateway that the options name."""
    gateway: str = arguments.gateway
    if arguments.ticket_file is None:
        return gateway
    dial_strings = importlib.import_module("ww.dial_string")
    dial = dial_strings.load_dial_string(arguments.ticket_file)
    if dial.peer_id is None:
        raise UsageError(f"ticket file {Path(arguments.ticket_file).name}: expected .../p2p/PEER_ID/ticket/...")
    if gateway != DEFAULT_URL and (is_http(gateway) or str(dial.peer_id) not in gateway):
        raise UsageError(f"--ticket-file: the ticket is of {dial.peer_id}, --gateway names another", "gateway")
    target: str = dial_strings.write_dial_string(dial.peer_id, dial.address, dial.ticket)
    return target


def link_settings(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return them as settings of the native client."""
    return {
        "key": arguments.key or _own_key(arguments.state),
        "namespace": arguments.ns,
        "addresses": arguments.addr,
        "state_directory": arguments.state,
        "lan": arguments.lan,
        "groups": arguments.discover,
        "multicast": not arguments.no_multicast,
        "mdns": not arguments.no_mdns,
    }


def check_no_link(arguments: argparse.Namespace) -> None:
    """Refuse what HTTP has no use for, where it was an argument; variables may be there for others."""
    for flag in _FLAGS:
        name = flag.removeprefix("--").replace("-", "_")
        if getattr(arguments, name) != arguments.default_of(name):
            raise UsageError(f"{flag}: expected --gateway PEER_ID with it; HTTP has no use for it", name)


def _own_key(state: Path) -> Path:
    """Return the key by which tasks are known to be this user's, now and later."""
    gateways, own = (state / name for name in _KEYS)
    # Whoever runs a gateway sees all of its tasks.
    return gateways if os.access(gateways, os.R_OK | os.W_OK) else own
