"""The command line: the only place that reads argv and WW_* variables. One file a subcommand."""

import argparse
import sys

from ww import __version__
from ww.cli import cluster, discover, gateway, id, worker
from ww.cli.options import Parser
from ww.errors import WwError

_COMMANDS = (gateway, worker, cluster, discover, id)


def main(argv: list[str] | None = None) -> int:
    """Run the command that argv names and return the exit code: 0, 1 for an error, 2 for wrong usage."""
    parser = Parser(prog="ww", description="A peer-to-peer cluster that runs WebAssembly nobody has to trust.")
    parser.add_argument("--version", action="version", version=f"ww {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for command in _COMMANDS:
        command.add_to(commands)
    arguments = parser.parse_args(sys.argv[1:] if argv is None else argv)
    try:
        code: int = arguments.run(arguments)
    except WwError as error:
        print(f"ww: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # Whoever read our output has gone; nothing more can be said to it.
        sys.stderr.close()
        return 1
    return code


Subcommands = argparse._SubParsersAction  # the type that add_subparsers returns has no public name
