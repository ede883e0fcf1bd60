"""`ww id`: print the peer id of a key file."""

import argparse
from pathlib import Path

from ww.cli.parser import Parser
from ww.directories import state_directory
from ww.identity import Identity


def add_to(parser: Parser) -> None:
    """Add what the command takes."""
    parser.description = "Print the peer id of a key file. The file is made when it is not there."
    parser.option("--key", Path, "file of the key pair (the gateway's, in the state directory)", metavar="FILE")
    parser.option(
        "--state", Path, "directory of the gateway's key ($XDG_STATE_HOME/ww)",
        default=state_directory(), metavar="DIR",
    )  # fmt: skip
    parser.set_defaults(run=main)


def main(arguments: argparse.Namespace) -> int:
    """Print it."""
    identity = Identity.load(arguments.key or arguments.state / "gateway.key", lock=False)
    print(identity.peer_id)
    return 0
