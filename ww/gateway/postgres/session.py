"""A session with a PostgreSQL server: how it is opened, who may write, and what its errors mean in one line.

Holds everything that is asyncpg's own. Must not know what is asked: store.py does. Only here and in what imports it is
the driver needed (the extra `postgres`).
"""

import re
import socket
import ssl
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any, Final

import asyncpg

from ww.errors import StoreError, UsageError
from ww.gateway.postgres.address import PostgresAddress

# asyncpg says nothing of its types.
Session = Any

_VERSION_MIN: Final = 120_000
# The first half of an advisory lock's number, so that it is not another program's; the second is the schema's.
_LOCK: Final = 0x7777
_KEEPALIVES: Final = {"tcp_keepalives_idle": "10", "tcp_keepalives_interval": "5", "tcp_keepalives_count": "3"}
_TRUSTED: Final = Path("~/.postgresql/root.crt")
# A limit of the server's or of a role's would end the session that holds the lock, or a write that only takes long.
_NO_LIMITS: Final = ("statement_timeout", "idle_in_transaction_session_timeout", "idle_session_timeout")


@dataclass(frozen=True, slots=True)
class PostgresConfig:
    """The patience with a server."""

    connect_timeout_s: float = 10.0
    timeout_s: float = 30.0
    """A server that says nothing for so long counts as gone."""
    readers: int = 4
    """Sessions that read, beside the one that writes."""
    reconnect_first_s: float = 0.1
    reconnect_max_s: float = 5.0


class Fate(Enum):
    """What an error says about a transaction."""

    OF_ONE = "one write's values are at fault"
    REFUSED = "it is undone, and the session can go on"
    LOST = "the session is gone"


async def connect(address: PostgresAddress, config: PostgresConfig, *, to_write: bool) -> Session:
    """Open a session. StoreError when that is impossible at present, UsageError when it never will be."""
    try:
        return await asyncpg.connect(address.url, **settings(address, config, to_write=to_write))
    except FileNotFoundError:
        what = "there is no socket" if address.host.startswith("/") else "a file that the address names is not there"
        raise StoreError(f"{address} cannot be reached: {what}") from None
    except (asyncpg.ClientConfigurationError, asyncpg.PostgresError, asyncpg.InterfaceError, OSError) as error:
        raise StoreError(f"{address} cannot be reached: {line(error)}") from None


def settings(address: PostgresAddress, config: PostgresConfig, *, to_write: bool) -> dict[str, Any]:
    """Return what asyncpg is told beside the address."""
    said = {"application_name": "ww", "search_path": address.schema, "statement_timeout": "0"}
    if to_write:
        said |= {"synchronous_commit": "on", "default_transaction_isolation": "read committed"}
    else:
        said["default_transaction_read_only"] = "on"
    if not address.host.startswith("/"):
        # A session whose client is gone, without a word, must not hold the lock for ever.
        said |= _KEEPALIVES
    found: dict[str, Any] = {
        "timeout": config.connect_timeout_s, "command_timeout": config.timeout_s, "server_settings": said
    }  # fmt: skip
    if address.password is not None:
        found["password"] = address.password
    if (encryption := _encryption(address)) is not None:
        found["ssl"] = encryption
    return found


def _encryption(address: PostgresAddress) -> Any:
    """Return what to be sure of where the address says nothing: whose server it is, unless it is this machine's."""
    if address.ssl_mode or address.host.startswith("/"):
        return None
    if address.is_local:
        return "prefer"
    return "verify-full" if address.has_root or _TRUSTED.expanduser().exists() else ssl.create_default_context()


async def prepare_to_write(session: Session) -> None:
    """See that a server is one that can be written to, and lift the limits that a session would die of."""
    version = int(await session.fetchval("SELECT current_setting('server_version_num')"))
    if version < _VERSION_MIN:
        raise UsageError(f"that PostgreSQL is version {version // 10_000}, expected at least {_VERSION_MIN // 10_000}")
    known = [name for (name,) in await session.fetch("SELECT name FROM pg_settings WHERE name = ANY($1)", _NO_LIMITS)]
    await session.execute("; ".join(f"SET {name} = 0" for name in known))


async def hold(session: Session, schema: str, wait_s: float) -> bool:
    """Take a schema's lock for as long as the session lasts; False when somebody else has it for longer than wait_s.

    A session that has it is the only one that writes: another gateway's, or one of our own that is gone and whose last
    commit the server may still be busy with, has ended all it did.
    """
    number = await session.fetchval("SELECT oid::bigint FROM pg_namespace WHERE nspname = $1", schema)
    await session.execute(f"SET lock_timeout = {max(1, round(wait_s * 1000))}")
    try:
        await session.execute(f"SELECT pg_advisory_lock({(_LOCK << 32) | number})")
    except asyncpg.LockNotAvailableError:
        return False
    finally:
        if not session.is_closed():
            await session.execute("SET lock_timeout = 0")
    return True


def reading(address: PostgresAddress, config: PostgresConfig) -> Any:
    """Return the sessions that read, as asyncpg's pool, to be awaited. They are opened when they are needed."""
    return asyncpg.create_pool(
        address.url, min_size=0, max_size=config.readers, reset=_nothing, **settings(address, config, to_write=False)
    )


async def _nothing(_: Session) -> None:
    """Leave a session as it is: nothing that is read changes one."""


# Errors.

FAILURES: Final[tuple[type[Exception], ...]] = (
    asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError, EOFError
)  # fmt: skip
"""What a server, or the way to it, makes of a call."""
_WORDS: Final = {
    "53100": "the disk of its server is full",
    "53200": "its server has no memory left",
    "53300": "its server takes no further session",
    "25006": "its server is read-only at present",
    "57P01": "its server is stopping",
    "57P02": "its server crashed",
    "57P03": "its server is starting",
    "28P01": "the password is wrong, or there is none (--store-password-file)",
    "XX001": "it is damaged: see its server's log",
    "XX002": "it is damaged: see its server's log",
    "58030": "the disk of its server fails",
}


def fate(error: Exception, session: Session) -> Fate:
    """Say what became of a transaction that an error ended."""
    if session.is_closed():
        return Fate.LOST
    if isinstance(error, asyncpg.PostgresError):
        state = error.sqlstate or ""
        if state[:2] == "08" or state in ("57P01", "57P02", "57P03"):
            return Fate.LOST
        return Fate.OF_ONE if state[:2] in ("22", "23", "54") else Fate.REFUSED
    # What cannot be made a value of the server's never left.
    return Fate.OF_ONE if isinstance(error, (ValueError, TypeError, OverflowError, StoreError)) else Fate.LOST


def line(error: Exception) -> str:
    """Say what went wrong, in one line, without a path or a value."""
    if isinstance(error, StoreError):
        return str(error)
    if isinstance(error, asyncpg.PostgresError):
        if isinstance(error, asyncpg.ConnectionDoesNotExistError):
            return "the connection was lost"
        words = _WORDS.get(error.sqlstate or "")
        return words or re.sub(r'"?(\S*/)+\S*', "a file", " ".join(str(error.args[0] if error.args else "").split()))
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not trusted: {error.verify_message}"
    if isinstance(error, TimeoutError):
        return "its server says nothing"
    if isinstance(error, socket.gaierror):
        return "there is no such host"
    if isinstance(error, OSError):
        return _system_line(error)
    if isinstance(error, asyncpg.ClientConfigurationError):
        return " ".join(str(error.args[0]).split())
    if isinstance(error, (ValueError, TypeError, OverflowError)):
        return "it has a value that no column takes"
    is_known = isinstance(error, (asyncpg.InterfaceError, asyncpg.InternalClientError, EOFError))
    return "the connection was lost" if is_known else type(error).__name__


def _system_line(error: OSError) -> str:
    # asyncio puts the address into the text of some.
    text = error.strerror or ""
    if "rejected SSL upgrade" in str(error):
        return "it does not speak TLS"
    if "Connect call failed" in text or isinstance(error, ConnectionRefusedError):
        return "connection refused"
    if isinstance(error, FileNotFoundError):
        return "there is no socket"
    if isinstance(error, ConnectionError) or not text or "/" in text:
        return "the connection was lost"
    return text.lower()
