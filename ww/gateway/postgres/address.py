"""Where a PostgreSQL database is, as an operator names it: postgresql://USER@HOST:PORT/DB.

Holds what may be said there and what may not. Knows no driver, so that it can be read where none is installed.
"""

import importlib
import ipaddress
import re
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import parse_qsl, urlsplit

from ww.errors import UsageError

DEFAULT_SCHEMA: Final = "ww"
_SCHEMES: Final = ("postgresql", "postgres")
_SCHEMA: Final = re.compile(r"(?!pg_)[a-z_][a-z0-9_]{0,62}")
# What libpq calls so. What else could be said there, such as settings of the session, is ours to say.
_PARAMETERS: Final = frozenset(
    ("dbname", "database", "host", "passfile", "password", "port", "sslcert", "sslcrl", "sslkey", "sslmode",
     "sslnegotiation", "sslrootcert", "ssl_max_protocol_version", "ssl_min_protocol_version", "user")
)  # fmt: skip
_ENCRYPTED: Final = ("require", "verify-ca", "verify-full")
_MODES: Final = ("disable", "allow", "prefer", *_ENCRYPTED)
_EXPECTED: Final = "expected postgresql://USER@HOST:PORT/DB, or postgresql:///DB?host=/FOLDER for a socket in it"


@dataclass(frozen=True, slots=True)
class PostgresAddress:
    """One that was read."""

    url: str = field(repr=False)
    """As it was given; it may hold a password where the environment gave it."""
    host: str
    """A name, an IP address, or the folder of a socket."""
    database: str
    """Empty: the user's name."""
    ssl_mode: str = ""
    """What sslmode was said to be; empty: nothing was said."""
    has_root: bool = False
    """Whether it says whose certificates are trusted."""
    has_password: bool = False
    schema: str = DEFAULT_SCHEMA
    password: str | None = field(default=None, repr=False)
    """Where a file gave it; None: as the driver finds it, in the address, PGPASSWORD or ~/.pgpass."""

    @property
    def is_local(self) -> bool:
        """Whether nothing said to it leaves this machine."""
        return _is_local(self.host)

    def __str__(self) -> str:
        """Name it, without a secret."""
        return f"the database {self.database or 'of its user'} at {'a local socket' if '/' in self.host else self.host}"


def read_address(text: str) -> PostgresAddress:
    """Read one. UsageError, which repeats no secret, when it is none or lets others listen."""
    try:
        parts = urlsplit(text)
        port = parts.port
        parameters = dict(parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query)))
    except ValueError:
        raise UsageError(f"that is no address of a database: {_EXPECTED}") from None
    if parts.scheme not in _SCHEMES or parts.fragment or not text.isprintable() or port == 0:
        raise UsageError(f"that is no address of a database: {_EXPECTED}")
    if unknown := sorted(set(parameters) - _PARAMETERS):
        raise UsageError(f"{unknown[0][:40]!a} cannot be said in the address of a database")
    host = parts.hostname or parameters.get("host", "")
    if not host or "," in parts.netloc + host:
        raise UsageError(f"the address of a database names no one host: {_EXPECTED}")
    mode = parameters.get("sslmode", "")
    if mode and mode not in _MODES:
        raise UsageError(f"sslmode {mode[:40]!a}: expected one of {', '.join(_MODES)}")
    if mode and mode not in _ENCRYPTED and not _is_local(host):
        raise UsageError(f"sslmode {mode}: expected {' or '.join(_ENCRYPTED)} for a database on another machine")
    database = parts.path.removeprefix("/") or parameters.get("dbname", parameters.get("database", ""))
    has_password = parts.password is not None or "password" in parameters
    return PostgresAddress(text, host, database, mode, "sslrootcert" in parameters, has_password)


def read_schema(text: str) -> str:
    """Read the name of a schema."""
    if not _SCHEMA.fullmatch(text):
        raise UsageError(f"{text[:80]!a} is no schema: expected small letters, digits and _, at most 63")
    return text


def require_driver() -> None:
    """Raise UsageError when there is nothing to speak to a server with."""
    try:
        importlib.import_module("asyncpg")
    except ImportError:
        raise UsageError("PostgreSQL needs the package asyncpg: pip install 'ww[postgres]'", "store") from None


def _is_local(host: str) -> bool:
    if host.startswith("/") or host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
