"""The file of bearer tokens: who may ask a gateway, for what, and how much of it.

Holds the file's form, its reading and its changes. Must not know HTTP. Secrets are in it as their sha256 alone: they
are 256 random bits, so that a slow hash would protect nothing. The command line writes the file while a gateway reads.
"""

import fcntl
import hashlib
import hmac
import logging
import os
import re
import secrets
import stat
import tempfile
import tomllib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any, Final

from ww.errors import NotFound, UsageError
from ww.gateway.caller import Caller, Quota, Scope

log = logging.getLogger("ww.gateway")

_FILE_BYTES_MAX: Final = 1 << 20
TOKENS_MAX: Final = 256
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_SHA256: Final = re.compile(r"[0-9a-f]{64}")
_QUOTAS: Final = ("tasks_max", "runs_max", "bytes_max")
_KEYS: Final = ("name", "sha256", "scopes", *_QUOTAS, "expires")
_HEAD: Final = re.compile(r"[ \t]*\[\[[ \t]*token[ \t]*\]\][ \t]*(#.*)?")
# How often a change of the file is looked for.
_LOOK_EVERY_S: Final = 1.0
_SECRET_PREFIX: Final = "ww_"


@dataclass(frozen=True, slots=True)
class Token:
    """One token."""

    name: str
    sha256: str
    """Of its secret, hex."""
    scopes: frozenset[Scope]
    quota: Quota = field(default_factory=Quota)
    expires_at: float | None = None
    """Seconds since the epoch; None: never."""


def check_name(text: str) -> str:
    """Return a token's name. UsageError when it can be none."""
    if not _NAME.fullmatch(text):
        raise UsageError(f"name: {text[:80]!r} is not 1 to 64 letters, digits or . _ - that begin with one", "name")
    return text


def parse_tokens(text: str) -> list[Token]:
    """Read a file's text. UsageError says which token is wrong and what was expected."""
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        # Not the error's own text: it may quote what is there.
        where = re.search(r"at line \d+, column \d+|at end of document", str(error))
        raise UsageError(f"it is no TOML{f', {where[0]}' if where else ''}") from None
    if others := sorted(table.keys() - {"token"}):
        raise UsageError(f"{others[0][:40]!r} is unknown; expected [[token]] tables")
    rows = table.get("token", [])
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise UsageError("token is no list of tables; expected [[token]]")
    if len(rows) > TOKENS_MAX:
        raise UsageError(f"it holds {len(rows)} tokens, at most {TOKENS_MAX} are taken")
    tokens: list[Token] = []
    for place, row in enumerate(rows, 1):
        try:
            tokens.append(_read_token(row))
        except UsageError as error:
            raise UsageError(f"token {place}: {error}") from None
    for what in ("name", "sha256"):
        seen: set[str] = set()
        for place, token in enumerate(tokens, 1):
            if (value := getattr(token, what)) in seen:
                raise UsageError(f"token {place}: its {what} is that of another token too")
            seen.add(value)
    return tokens


def _read_token(row: dict[str, Any]) -> Token:
    if others := sorted(row.keys() - set(_KEYS)):
        raise UsageError(f"{others[0][:40]!r} is unknown; known are {' '.join(_KEYS)}")
    name, digest, scopes = row.get("name"), row.get("sha256"), row.get("scopes")
    if not isinstance(name, str):
        raise UsageError("name: expected a text")
    check_name(name)
    if not isinstance(digest, str) or not _SHA256.fullmatch(digest.lower()):
        raise UsageError("sha256: expected 64 hex digits, the hash of the secret")
    if not isinstance(scopes, list) or not scopes or not all(scope in tuple(Scope) for scope in scopes):
        raise UsageError(f"scopes: expected a list of some of {' '.join(Scope)}")
    for quota in _QUOTAS:
        number = row.get(quota)
        if number is not None and (type(number) is not int or not 0 <= number < 1 << 62):
            raise UsageError(f"{quota}: expected a whole number from 0")
    quotas = Quota(**{quota: row.get(quota) for quota in _QUOTAS})
    return Token(name, digest.lower(), frozenset(map(Scope, scopes)), quotas, _read_expiry(row.get("expires")))


def _read_expiry(value: object) -> float | None:
    if value is None:
        return None
    if isinstance(value, datetime):
        return (value if value.tzinfo is not None else value.replace(tzinfo=UTC)).timestamp()
    if isinstance(value, date):
        return datetime(value.year, value.month, value.day, tzinfo=UTC).timestamp()
    raise UsageError("expires: expected a date or a date and time, as 2027-01-31T12:00:00Z, without quotes")


def read_token_file(path: Path) -> tuple[str, tuple[int, int, int, int]]:
    """Return the text of a token file, and a stamp that differs when it does.

    UsageError when it cannot be read, or when others than its owner could read it.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        with os.fdopen(fd, "rb") as file:
            status = os.fstat(fd)
            if not stat.S_ISREG(status.st_mode):
                raise UsageError(f"{path.name}: is no file")
            if status.st_mode & 0o077:
                raise UsageError(f"{path.name}: others can read it or write to it; expected mode 0600 (chmod 600)")
            if status.st_size > _FILE_BYTES_MAX:
                raise UsageError(f"{path.name}: larger than {_FILE_BYTES_MAX} bytes")
            return file.read(_FILE_BYTES_MAX).decode("utf-8-sig"), _stamp(status)
    except UnicodeDecodeError:
        raise UsageError(f"{path.name}: is no text") from None
    except OSError as error:
        raise UsageError(f"{path.name}: {(error.strerror or 'cannot be read').lower()}") from None


def _stamp(status: os.stat_result) -> tuple[int, int, int, int]:
    return status.st_mtime_ns, status.st_ctime_ns, status.st_size, status.st_ino


class Tokens:
    """The tokens of a file that may change. What breaks it is logged, and what it held before stays."""

    def __init__(self, path: Path, *, now: Callable[[], float], wall: Callable[[], float]) -> None:
        """Read the file at path. UsageError when it is not as it should be."""
        self._path = path
        self._now = now
        self._wall = wall
        self._looked_at = now()
        text, self._stamp = read_token_file(path)
        self._take(self._parse(text))
        if not self._callers:
            log.warning("--token-file %s holds no token: nobody is let in (ww token create)", path.name)

    def _parse(self, text: str) -> list[Token]:
        try:
            return parse_tokens(text)
        except UsageError as error:
            raise UsageError(f"{self._path.name}: {error}") from None

    def _take(self, tokens: Sequence[Token]) -> None:
        self._callers = [
            (bytes.fromhex(token.sha256), Caller(token.name, token.scopes, token.quota), token.expires_at)
            for token in tokens
        ]

    def caller(self, secret: bytes) -> tuple[Caller | None, str]:
        """Return whose secret that is, and who it would be of if it had not expired.

        Takes as long whichever it is: hashes are compared, and all of them.
        """
        self._refresh()
        digest = hashlib.sha256(secret).digest()
        found: tuple[Caller, float | None] | None = None
        for known, caller, expires_at in self._callers:
            if hmac.compare_digest(known, digest):
                found = caller, expires_at
        if found is None:
            return None, ""
        caller, expires_at = found
        has_expired = expires_at is not None and expires_at <= self._wall()
        return (None if has_expired else caller), caller.name

    def _refresh(self) -> None:
        if self._now() - self._looked_at < _LOOK_EVERY_S:
            return
        self._looked_at = self._now()
        try:
            stamp = _stamp(os.stat(self._path))
            if stamp == self._stamp:
                return
            # Before it is read: what does not change again is complained about once.
            self._stamp = stamp
            text, self._stamp = read_token_file(self._path)
            self._take(self._parse(text))
            log.info("--token-file %s was read again: %d tokens", self._path.name, len(self._callers))
        except OSError as error:
            if self._stamp != (0, 0, 0, 0):
                log.error("--token-file %s: %s; its tokens stay as they were", self._path.name, error.strerror)
            self._stamp = (0, 0, 0, 0)
        except UsageError as error:
            log.error("--token-file %s; its tokens stay as they were", error)


# Changing the file.


def create_token(path: Path, name: str, scopes: Sequence[Scope], quota: Quota, expires_at: float | None) -> str:
    """Append a token to a file, which is made when it is not there, and return its secret."""
    secret = _SECRET_PREFIX + secrets.token_urlsafe(32)
    lines = [
        "[[token]]",
        f'name = "{check_name(name)}"',
        f'sha256 = "{hashlib.sha256(secret.encode()).hexdigest()}"',
        "scopes = [" + ", ".join(f'"{scope}"' for scope in scopes) + "]",
    ]
    lines += [f"{limit} = {value}" for limit in _QUOTAS if (value := getattr(quota, limit)) is not None]
    if expires_at is not None:
        lines.append(f"expires = {datetime.fromtimestamp(expires_at, UTC).strftime('%Y-%m-%dT%H:%M:%SZ')}")
    with _changing(path, create=True) as (text, write):
        tokens = parse_tokens(text)
        if any(token.name == name for token in tokens):
            raise UsageError(f"name: {name!r} is taken by another token; revoke that, or use another name", "name")
        if len(tokens) >= TOKENS_MAX:
            raise UsageError(f"{path.name} holds {TOKENS_MAX} tokens, the most that are taken")
        blank = ["", ""] if text and not text.endswith("\n") else [""] if text else []
        new = text + "\n".join([*blank, *lines, ""])
        _check_changed(path, name, new, lambda tokens_now: tokens_now[:-1] == tokens)
        write(new)
    return secret


def revoke_token(path: Path, name: str) -> None:
    """Take a token out of a file. NotFound when it has none of that name."""
    with _changing(path, create=False) as (text, write):
        tokens = parse_tokens(text)
        if not any(token.name == name for token in tokens):
            raise NotFound(f"{path.name} has no token {name[:80]!r}")
        left = "".join(block for block in _blocks(text) if not _is_of(block, name))
        rest = [token for token in tokens if token.name != name]
        _check_changed(path, name, left, lambda tokens_now: tokens_now == rest)
        write(left)


def _check_changed(path: Path, name: str, text: str, is_right: Callable[[list[Token]], bool]) -> None:
    """Raise UsageError unless a file that was changed as text says what it is to say."""
    try:
        if is_right(parse_tokens(text)):
            return
    except UsageError:
        pass
    raise UsageError(f"{path.name} is written in a way that ww cannot change; change {name!r} with an editor")


def _blocks(text: str) -> list[str]:
    """Split a file before each of its tokens."""
    blocks = [""]
    for line in text.splitlines(keepends=True):
        if _HEAD.fullmatch(line.rstrip("\r\n")):
            blocks.append("")
        blocks[-1] += line
    return blocks


def _is_of(block: str, name: str) -> bool:
    try:
        rows = tomllib.loads(block).get("token", [])
    except tomllib.TOMLDecodeError:
        return False
    return [row.get("name") for row in rows] == [name]


@contextmanager
def _changing(path: Path, *, create: bool) -> Iterator[tuple[str, Callable[[str], None]]]:
    """Give what is in a file, and what replaces it at once; one command at a time."""
    try:
        lock = os.open(path.parent / f".{path.name}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise UsageError(f"{path.name}: {(error.strerror or 'cannot be locked').lower()}", "file") from None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        text = "" if create and not path.exists() else read_token_file(path)[0]

        def write(new: str) -> None:
            _replace(path, new)

        try:
            yield text, write
        except OSError as error:
            raise UsageError(f"{path.name}: {(error.strerror or 'cannot be written').lower()}", "file") from None
    finally:
        os.close(lock)


def _replace(path: Path, text: str) -> None:
    fd, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)  # mode 0600
    try:
        with os.fdopen(fd, "w") as file:
            if path.exists():
                # Root may change the file of a gateway that is another user.
                owner = path.stat()
                os.fchown(fd, owner.st_uid, owner.st_gid)
            file.write(text)
            file.flush()
            os.fsync(fd)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
