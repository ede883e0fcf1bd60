"""The command line: where argv is read, and, but for jobs/gateways.py, WW_* variables. One file a subcommand."""

import importlib
import sys
from argparse import Namespace
from collections.abc import Sequence
from typing import Any, Final

from ww import __version__
from ww.cli.parser import Parser
from ww.cli.streams import is_end_of_output, prepare, say
from ww.errors import WwError

_COMMANDS: Final = {
    "gateway": "take tasks over HTTP and give their runs to workers",
    "worker": "offer this machine's slots to a gateway",
    "run": "run a WebAssembly file on the cluster, and print what it prints",
    "map": "run a WebAssembly file for each file of a folder, or each line",
    "tasks": "list tasks",
    "status": "see how far a task is",
    "logs": "print what a task's runs printed",
    "cancel": "cancel tasks",
    "workers": "list the workers of a gateway",
    "cluster": "see who is a member of the cluster",
    "peers": "see and govern who may come to a gateway",
    "ticket": "make and take back what lets workers and clients in",
    "token": "make and take back what lets clients use a gateway's HTTP",
    "discover": "see the packets by which nodes find each other, or send one",
    "db": "check, copy and restore what a gateway keeps",
    "python": "build the Python that functions run in, and see what is in it",
    "doctor": "see what this machine gives to ww, and how it confines guests",
    "id": "print the peer id of a key file",
}


def main(argv: list[str] | None = None) -> int:
    """Run the command that argv names and return the exit code: 0, 1 for an error, 2 for wrong usage."""
    prepare()
    try:
        arguments = _read(sys.argv[1:] if argv is None else argv)
        code: int = arguments.run(arguments)
        sys.stdout.flush()
    except WwError as error:
        say(str(error))
        return 1
    except KeyboardInterrupt:
        return 130
    except OSError as error:
        if not is_end_of_output(error):
            raise
        return 1
    return code


def _read(argv: Sequence[str]) -> Namespace:
    parser = Parser(prog="ww", description="A peer-to-peer cluster that runs WebAssembly nobody has to trust.")
    parser.add_argument("--version", action="version", version=f"ww {__version__}")
    add_commands(parser.add_subparsers(metavar="COMMAND", required=True), argv)
    return parser.parse_args(argv)


def add_commands(commands: Any, argv: Sequence[str]) -> None:
    """Add all commands by name; only the one that argv names is imported, since all together take half a second."""
    chosen = next((word for word in argv if word in _COMMANDS), None)
    for name, help in _COMMANDS.items():
        parser = commands.add_parser(name, help=help)
        if name == chosen:
            importlib.import_module(f"ww.cli.{name}").add_to(parser)
