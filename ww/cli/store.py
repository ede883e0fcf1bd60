"""How a command is told where a gateway's tasks are: --store, and its password, which is never an argument.

Holds the options that `ww gateway` and `ww db` share. Must not connect to anything.
"""

import argparse
import os
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from ww.cli.parser import Parser, seconds
from ww.errors import UsageError
from ww.gateway.postgres.address import DEFAULT_SCHEMA, PostgresAddress, read_address, read_schema, require_driver

_PASSWORD_BYTES_MAX: Final = 4096


class NoPassword(argparse.Action):
    """An option whose value may hold a password where the environment gives it, and nowhere else."""

    def __call__(
        self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: Any, option_string: Any = None
    ) -> None:
        if values.has_password:
            name = self.option_strings[0]
            parser.error(
                f"{name}: a password given as an argument can be read by everybody here: use {name}-password-file,"
                " PGPASSWORD or ~/.pgpass"
            )
        setattr(namespace, self.dest, values)


def add_store_options(parser: Parser) -> None:
    """Add where a gateway's tasks are, when that is not its state directory."""
    parser.option(
        "--store", read_address, "database of tasks and results, postgresql://USER@HOST:PORT/DB (SQLite, in the state"
        " directory); with TLS, and the server's name verified, unless it is on this machine or sslmode=require is"
        " said", action=NoPassword, metavar="URL",
    )  # fmt: skip
    parser.option(
        "--store-password-file", load_password, "file, mode 0600, of its password (PGPASSWORD, ~/.pgpass)",
        metavar="FILE",
    )  # fmt: skip
    parser.option(
        "--store-schema", read_schema, f"schema in it for the tables of one gateway ({DEFAULT_SCHEMA})",
        default=DEFAULT_SCHEMA, metavar="NAME",
    )  # fmt: skip


def add_store_timeout(parser: Parser) -> None:
    """Add the patience with that database."""
    parser.option(
        "--store-timeout", _patience, "seconds after which a server of --store that says nothing counts as gone (30)",
        default=30.0, metavar="N",
    )  # fmt: skip


def _patience(text: str) -> float:
    if (timeout_s := seconds(text)) < 1:
        raise UsageError(f"{text[:40]!r}: expected at least 1 second")
    return timeout_s


def store_of(arguments: argparse.Namespace) -> PostgresAddress | None:
    """Return where --store says that tasks are, or None. UsageError when there is nothing to speak to it with."""
    address: PostgresAddress | None = arguments.store
    if address is None:
        if arguments.store_password_file is not None:
            raise UsageError("--store-password-file: given without --store", "store")
        return None
    require_driver()
    given: Password | None = arguments.store_password_file
    return replace(address, schema=arguments.store_schema, password=None if given is None else given.text)


@dataclass(frozen=True, slots=True)
class Password:
    """One that was read. No text, which argparse would read once more, as the name of a file, and show."""

    text: str = field(repr=False)


def load_password(name: str) -> Password:
    """Read a file that holds one, and that nobody else can read. UsageError otherwise."""
    path = Path(name)
    try:
        with path.open() as file:
            if os.fstat(file.fileno()).st_mode & 0o077:
                raise UsageError(f"{path.name} can be read by others: expected mode 0600")
            text = file.read(_PASSWORD_BYTES_MAX).removesuffix("\n")
    except (OSError, UnicodeDecodeError) as error:
        reason = (error.strerror or "cannot be read").lower() if isinstance(error, OSError) else "no text"
        raise UsageError(f"{path.name}: {reason}") from None
    if not text or "\n" in text:
        raise UsageError(f"{path.name}: expected one line, the password")
    return Password(text)
