"""`ww python`: the Python that functions run in: built, and what is in it."""

import argparse
import json
from pathlib import Path

from ww.cli.parser import Parser
from ww.cli.remote import tell
from ww.directories import cache_directory
from ww.python.build import Built, build


def add_to(parser: Parser) -> None:
    """Add what the command takes."""
    parser.description = (
        "The Python that functions run in, inside a sandbox. It is built on first use, and kept in the cache."
    )
    kinds = parser.add_subparsers(metavar="COMMAND", required=True)
    made: Parser = kinds.add_parser(
        "build",
        help="build it now",
        description="Build it, where it is not in the cache, and print where it is. It takes componentize-py, which"
        " pip install 'ww[python]' brings, and some seconds.",
    )
    _add_cache(made)
    made.add_argument("--force", action="store_true", help="build it though it is there")
    made.set_defaults(run=main_build)
    listed: Parser = kinds.add_parser(
        "modules",
        help="list the modules that can be imported in it",
        description="List the modules of the standard library that can be imported in it. What is not there can be"
        " imported at the top of a module that is sent, and fails when it is used.",
    )
    _add_cache(listed)
    listed.add_argument("--json", action="store_true", help="print a list in JSON")
    listed.set_defaults(run=main_modules)


def _add_cache(parser: Parser) -> None:
    parser.option("--cache", Path, "directory for it ($XDG_CACHE_HOME/ww)", default=cache_directory(), metavar="DIR")


def main_build(arguments: argparse.Namespace) -> int:
    """Build it, and say where it is."""
    print(build(arguments.cache, is_forced=arguments.force, say=tell).path)
    return 0


def main_modules(arguments: argparse.Namespace) -> int:
    """List what is in it."""
    found: Built = build(arguments.cache, say=tell)
    names = found.modules()
    print(json.dumps(names) if arguments.json else "\n".join(names))
    return 0
