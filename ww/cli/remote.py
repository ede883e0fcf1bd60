"""What the commands that ask a gateway share: its address, the token, and how they show what they get.

Holds options and the making of a client. Must not import nodes or capabilities: over HTTP these commands start at once.
What a gateway is reached by as a peer: link.py.
"""

import argparse
import asyncio
import importlib
import json
import os
from collections.abc import Callable, Coroutine, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from ww import client
from ww.cli.link import GatewayAction, add_link_options, check_no_link, link_settings, target_of
from ww.cli.parser import TRUTHS, NotInArgv, Parser, argument
from ww.cli.streams import say
from ww.client import AsyncClient, Client, Retry
from ww.client.call import one_line
from ww.client.target import is_http, is_peer
from ww.client.wire import DEFAULT_URL
from ww.errors import UsageError

_TOKEN_BYTES_MAX: Final = 4096
# Nobody wants to wait long to hear that an address is wrong; a gateway that has answered before is waited for.
_FIRST_RETRIES: Final = 2


@dataclass(frozen=True, slots=True)
class Token:
    """What the gateway asks for. No plain text: argparse reads those of variables twice, and shows them."""

    secret: str = field(repr=False)


def add_gateway_options(parser: Parser) -> None:
    """Add which gateway to ask, and how."""
    parser.option(
        "--gateway", gateway_url, f"the gateway: the address of its HTTP, or its peer id or an address that ends in"
        f" /p2p/PEER_ID, without HTTP ({DEFAULT_URL})", default=DEFAULT_URL, metavar="URL", action=GatewayAction,
        not_ours=TRUTHS,  # by which cmd/scheduler.py is told to be a gateway
    )  # fmt: skip
    # WW_TOKEN_FILE is a gateway's: the file of all tokens.
    parser.add_argument(
        "--token-file", type=argument(load_token), metavar="FILE",
        help="file, mode 0600, with the token that the gateway asks for",
    )  # fmt: skip
    parser.option(
        "--token", _read_token, "the same, and never as an argument, which everybody on the machine can read",
        action=NotInArgv, metavar="TOKEN",
    )  # fmt: skip
    parser.option("--ca", Path, "file of certificates to trust instead of the system's", metavar="FILE")
    parser.flag("--insecure", "send the token over plain HTTP to another machine, too")
    add_link_options(parser)
    parser.add_argument("--json", action="store_true", help="JSON, as the gateway has it")


def connect(arguments: argparse.Namespace, *, retry: Retry | None = None, timeout_s: float = 30.0) -> Client:
    """Make the client that the options ask for."""
    target = target_of(arguments)
    return client.connect(target, **_settings(arguments, target, retry, timeout_s))


def aconnect(arguments: argparse.Namespace, *, retry: Retry | None = None, timeout_s: float = 30.0) -> AsyncClient:
    """Make the same for asyncio."""
    target = target_of(arguments)
    return client.aconnect(target, **_settings(arguments, target, retry, timeout_s))


def run_client(arguments: argparse.Namespace, main: Callable[[], Coroutine[Any, Any, int]]) -> int:
    """Run what uses aconnect, on a loop that is fit for the client that the options ask for."""
    if is_http(target_of(arguments)):
        return asyncio.run(main())
    code: int = importlib.import_module("ww.rpc.loop").run(main)
    return code


def _settings(arguments: argparse.Namespace, target: str, retry: Retry | None, timeout_s: float) -> dict[str, Any]:
    settings: dict[str, Any] = {"retry": retry or Retry(first_retries=_FIRST_RETRIES), "timeout_s": timeout_s}
    if not is_http(target):
        for flag, name in (("--token-file", "token_file"), ("--ca", "ca"), ("--insecure", "insecure")):
            if getattr(arguments, name) != arguments.default_of(name):
                raise UsageError(
                    f"{flag}: expected --gateway http://HOST:PORT with it; a peer is known by its key", name
                )
        return settings | link_settings(arguments)
    check_no_link(arguments)
    token: Token | None = arguments.token_file or arguments.token
    return settings | {
        "token": None if token is None else token.secret,
        "verify": True if arguments.ca is None else arguments.ca,
        "insecure": arguments.insecure,
    }


def gateway_url(text: str) -> str:
    """Read an address of HTTP, or a peer's; the client looks at it more closely."""
    if not is_http(text) and not is_peer(text):
        shown = "that" if "wwt1-" in text else repr(text[:80])
        raise UsageError(f"{shown} is no address of a gateway: expected http://HOST:PORT, or a peer id")
    return text


def load_token(name: str) -> Token:
    """Read a file that holds a token, and that nobody else can read."""
    path = Path(name)
    try:
        with path.open() as file:
            if os.fstat(file.fileno()).st_mode & 0o077:
                raise UsageError(f"token file {path.name} can be read by others: expected mode 0600")
            return _read_token(file.read(_TOKEN_BYTES_MAX + 1).strip())
    except OSError as error:
        raise UsageError(f"token file {path.name}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise UsageError(f"token file {path.name}: no text") from None


def _read_token(text: str) -> Token:
    if not (text.isascii() and text.isprintable() and text and " " not in text and len(text) <= _TOKEN_BYTES_MAX):
        raise UsageError("that is no token: expected one word, as ww token create prints it")
    return Token(text)


def print_json(value: Mapping[str, Any] | Iterable[Mapping[str, Any]]) -> None:
    """Print one JSON document on a line."""
    print(json.dumps(value if isinstance(value, Mapping) else list(value)), flush=True)


def tell(text: str) -> None:
    """Say one line to whoever watches, beside the output."""
    say(one_line(text))


def cell(value: object) -> str:
    """Return a cell of a table: one line, whatever a stranger put there."""
    if isinstance(value, datetime):
        return value.astimezone().strftime("%Y-%m-%d %H:%M:%S")
    if isinstance(value, Mapping):
        return one_line(" ".join(f"{key}={each}" for key, each in value.items())) or "-"
    if isinstance(value, tuple):
        return one_line(" ".join(map(str, value))) or "-"
    return "-" if value is None or value == "" else one_line(str(value))


def bytes_text(number: int | None) -> str:
    """Return a size as people read it."""
    if number is None:
        return "-"
    size, unit = float(number), "B"
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if size < 1024 or unit == "TiB":
            break
        size /= 1024
    return f"{size:.3g} {unit}" if size < 1000 else f"{size:.0f} {unit}"


def age_text(since: datetime | None, now: datetime) -> str:
    """Return how long ago that was, as people say it."""
    if since is None:
        return "-"
    age_s = max(0, int((now - since).total_seconds()))
    for unit_s, unit in ((86_400, "d"), (3600, "h"), (60, "m")):
        if age_s >= 2 * unit_s:
            return f"{age_s // unit_s}{unit}"
    return f"{age_s}s"
