"""`ww db`: whether what a gateway keeps is whole, and copies of it."""

import argparse
import asyncio
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from ww.cli.parser import Parser
from ww.cli.store import add_store_options, store_of
from ww.directories import state_directory
from ww.errors import StoreError, UsageError
from ww.gateway.backup import backup, restore
from ww.gateway.integrity import contents, defects
from ww.gateway.postgres.address import PostgresAddress

_TERMINATED: Final = 143


def add_to(group: Parser) -> None:
    """Add what the command takes."""
    group.description = "What the gateway of this state directory keeps. It may be running."
    kinds = group.add_subparsers(metavar="COMMAND", required=True)
    check: Parser = kinds.add_parser(
        "check",
        help="look whether it is whole",
        description="Look at the database, the payloads beside it and the files that it names, changing nothing. One"
        " line for each defect, and exit code 1 when there are any.",
    )
    _add_state(check)
    check.set_defaults(run=main_check)
    copy: Parser = kinds.add_parser(
        "backup",
        help="copy it into a file",
        description="Copy the database, as it is at one moment, its payloads and the modules, files and artifacts that"
        " it names into a new file. It holds what tasks were given, secrets too: only its owner may read it.",
    )
    _add_state(copy)
    copy.add_argument("file", type=Path, metavar="FILE", help="where to; it must not be there yet")
    copy.set_defaults(run=main_backup)
    back: Parser = kinds.add_parser(
        "restore",
        help="make a gateway's data of such a file",
        description="Make the data of a gateway of a backup, in a state directory that has none. All of it is checked.",
    )
    _add_state(back)
    back.add_argument("file", type=Path, metavar="FILE", help="what ww db backup wrote")
    back.set_defaults(run=main_restore)


def _add_state(parser: Parser) -> None:
    parser.option(
        "--state", Path, "directory of the gateway ($XDG_STATE_HOME/ww)", default=state_directory(), metavar="DIR"
    )
    add_store_options(parser)


def main_check(arguments: argparse.Namespace) -> int:
    """Look at everything once."""
    directory = arguments.state / "gateway"
    if (address := store_of(arguments)) is not None:
        return asyncio.run(_check_postgres(address, directory))
    is_fine = True
    for line in defects(directory):
        print(line, flush=True)
        is_fine = False
    if is_fine:
        print("ok: " + ", ".join(f"{count} {name}" for name, count in contents(directory).items()))
    return 0 if is_fine else 1


async def _check_postgres(address: PostgresAddress, directory: Path) -> int:
    from ww.gateway.postgres.check import check
    from ww.gateway.postgres.check import contents as contents_of

    is_fine = True
    async for line in check(address, directory):
        print(line, flush=True)
        is_fine = False
    if is_fine:
        print("ok: " + ", ".join(f"{count} {name}" for name, count in (await contents_of(address)).items()))
    return 0 if is_fine else 1


def _require_sqlite(arguments: argparse.Namespace, instead: str) -> None:
    if arguments.store is not None:
        raise StoreError(f"that is PostgreSQL's to do: use {instead}, and copy modules and artifacts of the state")


def main_backup(arguments: argparse.Namespace) -> int:
    """Copy it."""
    _require_sqlite(arguments, f"pg_dump --schema={arguments.store_schema}")
    if not arguments.file.absolute().parent.is_dir():
        raise UsageError(f"there is no directory for {arguments.file.name}", "file")
    with _ended_by_sigterm():
        size = backup(arguments.state / "gateway", arguments.file.absolute())
    print(f"{arguments.file}: {size} bytes")
    return 0


def main_restore(arguments: argparse.Namespace) -> int:
    """Make it of a copy."""
    _require_sqlite(arguments, "pg_restore or psql with what pg_dump wrote")
    with _ended_by_sigterm():
        restore(arguments.file, arguments.state)
    return 0


@contextmanager
def _ended_by_sigterm() -> Iterator[None]:
    """Have SIGTERM end what is under way as ctrl-C does: what was written so far is removed."""

    def end(number: int, frame: object) -> None:
        raise SystemExit(_TERMINATED)

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
