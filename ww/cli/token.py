"""`ww token`: make and take back what lets clients use a gateway's HTTP."""

import argparse
import json
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from ww.cli.parser import Parser, argument, count, seconds, size
from ww.cli.secret import add_out, secret_output
from ww.cli.table import show
from ww.directories import state_directory
from ww.errors import UsageError
from ww.gateway.caller import Quota, Scope
from ww.gateway.tokens import Token, check_name, create_token, parse_tokens, read_token_file, revoke_token

_TTL_MAX_S: Final = 36_500 * 86_400.0
_COLUMNS: Final = ("TOKEN", "SCOPES", "STATE", "TASKS", "RUNS", "BYTES", "EXPIRES")


def add_to(group: Parser) -> None:
    """Add what the command takes."""
    group.description = "Tokens of a gateway that is started with --token-file FILE, which reads it again by itself."
    kinds = group.add_subparsers(metavar="COMMAND", required=True)
    create: Parser = kinds.add_parser(
        "create",
        help="make a token and print its secret",
        description="Make a token and print its secret, which is shown only now: the file holds its hash. Clients send"
        " it as Authorization: Bearer SECRET.",
    )
    _add_file(create)
    _add_name(create)
    create.add_argument(
        "--scope", type=argument(_scope), action="append", metavar="SCOPE",
        help="read, submit or admin; repeatable (read and submit)",
    )  # fmt: skip
    create.add_argument(
        "--tasks-max", type=argument(count), metavar="N", help="tasks it may have that have not ended (no limit)"
    )
    create.add_argument(
        "--runs-max", type=argument(count), metavar="N", help="runs of those tasks that have not ended (no limit)"
    )
    create.add_argument(
        "--bytes-max", type=argument(size), metavar="N", help="bytes of those tasks' stdin, env, args and texts"
        " (no limit)",
    )  # fmt: skip
    create.add_argument("--ttl", type=argument(_ttl), metavar="N", help="how long it is good for: 24h, 90d (for ever)")
    add_out(create)
    create.set_defaults(run=main_create)
    listing: Parser = kinds.add_parser("ls", help="list tokens, without their secrets")
    _add_file(listing)
    listing.add_argument("--json", action="store_true", help="one JSON array")
    listing.set_defaults(run=main_ls)
    revoke: Parser = kinds.add_parser("revoke", help="let nobody use a token any more; its tasks stay")
    _add_file(revoke)
    _add_name(revoke)
    revoke.set_defaults(run=main_revoke)


def _add_file(parser: Parser) -> None:
    default = state_directory() / "tokens.toml"
    parser.add_argument(
        "--file", type=Path, default=default, metavar="FILE", help="the file (tokens.toml in $XDG_STATE_HOME/ww)"
    )


def _add_name(parser: Parser) -> None:
    parser.add_argument("name", type=argument(check_name), metavar="NAME", help="its name, which its tasks show")


def _scope(text: str) -> Scope:
    if text not in tuple(Scope):
        raise UsageError(f"{text[:40]!r} is not read, submit or admin")
    return Scope(text)


def _ttl(text: str) -> float:
    if not 0 < (ttl_s := seconds(text)) <= _TTL_MAX_S:
        raise UsageError(f"{text[:40]!a}: expected more than no time, and at most {_TTL_MAX_S / 86_400:g}d")
    return ttl_s


def main_create(arguments: argparse.Namespace) -> int:
    """Make one."""
    path: Path = arguments.file
    if not path.parent.is_dir():
        try:
            path.parent.mkdir(parents=True, mode=0o700)
        except OSError as error:
            raise UsageError(f"--file {path.name}: {(error.strerror or 'cannot be made').lower()}", "file") from None
    scopes = list(dict.fromkeys(arguments.scope or [Scope.READ, Scope.SUBMIT]))
    quota = Quota(arguments.tasks_max, arguments.runs_max, arguments.bytes_max)
    expires_at = None if arguments.ttl is None else time.time() + arguments.ttl
    with secret_output(arguments.out) as output:
        print(create_token(path, arguments.name, scopes, quota, expires_at), file=output)
    print(f"ww: the secret of {arguments.name}, shown only now: {', '.join(scopes)}", file=sys.stderr)
    return 0


def main_ls(arguments: argparse.Namespace) -> int:
    """List them."""
    text, _ = read_token_file(arguments.file)
    try:
        tokens = parse_tokens(text)
    except UsageError as error:
        raise UsageError(f"{arguments.file.name}: {error}", "file") from None
    now = time.time()
    if arguments.json:
        print(json.dumps([_json(token, now) for token in tokens]))
    else:
        show(_COLUMNS, [_row(token, now) for token in tokens])
    return 0


def main_revoke(arguments: argparse.Namespace) -> int:
    """Take one back."""
    revoke_token(arguments.file, arguments.name)
    return 0


def _state(token: Token, now: float) -> str:
    return "expired" if token.expires_at is not None and token.expires_at <= now else "good"


def _scopes(token: Token) -> list[str]:
    return [str(scope) for scope in Scope if scope in token.scopes]


def _row(token: Token, now: float) -> tuple[str, ...]:
    quota = token.quota
    limits = ("-" if limit is None else str(limit) for limit in (quota.tasks_max, quota.runs_max, quota.bytes_max))
    expires_at = token.expires_at
    expires = "never" if expires_at is None else datetime.fromtimestamp(expires_at, UTC).strftime("%Y-%m-%d %H:%M")
    return (token.name, ",".join(_scopes(token)), _state(token, now), *limits, expires)


def _json(token: Token, now: float) -> dict[str, Any]:
    return {
        "token": token.name,
        "scopes": _scopes(token),
        "state": _state(token, now),
        "tasks_max": token.quota.tasks_max,
        "runs_max": token.quota.runs_max,
        "bytes_max": token.quota.bytes_max,
        "expires_at": token.expires_at,
    }
