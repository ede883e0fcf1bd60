"""The file of tokens: what it may say, how it changes, and that its secrets are told once."""

import hashlib
import logging
import os
import stat
from pathlib import Path

import pytest

from ww.errors import NotFound, UsageError
from ww.gateway.caller import Quota, Scope
from ww.gateway.tokens import TOKENS_MAX, Tokens, create_token, parse_tokens, read_token_file, revoke_token

WALL = 1_700_000_000.0


def digest(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


def table(name: str = "a", secret: str = "s", more: str = "", scopes: str = '["read"]') -> str:
    return f'[[token]]\nname = "{name}"\nsha256 = "{digest(secret)}"\nscopes = {scopes}\n{more}\n'


class Time:
    """Two clocks that a test turns."""

    def __init__(self) -> None:
        self.now = 0.0
        self.wall = WALL

    def tokens(self, path: Path) -> Tokens:
        return Tokens(path, now=lambda: self.now, wall=lambda: self.wall)


def written(path: Path, text: str, mode: int = 0o600) -> Path:
    path.write_text(text)
    path.chmod(mode)
    return path


def name_of(tokens: Tokens, secret: str) -> str | None:
    caller, _ = tokens.caller(secret.encode())
    return None if caller is None else caller.name


def test_a_file_says_who_may_do_what() -> None:
    (token,) = parse_tokens(table(more="tasks_max = 3\nruns_max = 4\nbytes_max = 0\nexpires = 2023-11-15T00:00:00Z"))
    assert (token.name, token.sha256, token.scopes) == ("a", digest("s"), {Scope.READ})
    assert token.quota == Quota(3, 4, 0)
    assert token.expires_at == 1_700_006_400
    (token,) = parse_tokens(table(more="expires = 2023-11-15"))
    assert token.expires_at == 1_700_006_400
    assert parse_tokens("# nobody yet\n") == []


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[[token]", "no TOML"),
        ('name = "a"', "'name' is unknown; expected [[token]]"),
        ("token = 1", "no list of tables"),
        (table(name=""), "token 1: name"),
        (table(name="a b"), "token 1: name"),
        (table(name="a") + table(name="a", secret="t"), "token 2: its name is that of another"),
        (table(name="a") + table(name="b"), "token 2: its sha256 is that of another"),
        (table(scopes="[]"), "token 1: scopes: expected"),
        (table(scopes='"read"'), "token 1: scopes: expected"),
        (table(scopes='["all"]'), "token 1: scopes: expected a list of some of read submit admin"),
        (table(more="secret = 1"), "token 1: 'secret' is unknown"),
        (table(more="tasks_max = -1"), "tasks_max: expected a whole number"),
        (table(more="tasks_max = true"), "tasks_max: expected a whole number"),
        (table(more='expires = "2027-01-01"'), "expires: expected a date"),
        (table().replace(digest("s"), "5" * 63), "sha256: expected 64 hex digits"),
        ("".join(table(f"n{i}", f"s{i}") for i in range(TOKENS_MAX + 1)), f"at most {TOKENS_MAX}"),
    ],
)
def test_a_file_that_says_something_else_is_one_clear_error(text: str, says: str) -> None:
    with pytest.raises(UsageError) as error:
        parse_tokens(text)
    assert says in str(error.value)
    assert "\n" not in str(error.value)
    assert digest("s") not in str(error.value)


def test_a_secret_is_known_by_its_hash_until_it_expires(tmp_path: Path) -> None:
    text = table() + table("b", "t", "expires = 2023-11-14T22:13:21Z")  # a second from then
    time = Time()
    tokens = time.tokens(written(tmp_path / "t", text))
    assert (name_of(tokens, "s"), name_of(tokens, "t"), name_of(tokens, "u")) == ("a", "b", None)
    time.wall += 1
    assert tokens.caller(b"t") == (None, "b")
    assert name_of(tokens, "s") == "a"
    assert name_of(tokens, digest("s")) is None, "what is in the file lets nobody in"


def test_a_file_that_changes_is_read_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "ww.gateway")
    time, path = Time(), written(tmp_path / "t", table())
    tokens = time.tokens(path)
    written(path, table("b", "t"))
    assert name_of(tokens, "t") is None, "it is looked at once a second"
    time.now += 1
    assert (name_of(tokens, "s"), name_of(tokens, "t")) == (None, "b")
    assert "read again" in caplog.text


@pytest.mark.parametrize("broken", ["[[", "mode", "gone"])
def test_a_file_that_breaks_leaves_what_was(broken: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    time, path = Time(), written(tmp_path / "t", table())
    tokens = time.tokens(path)
    if broken == "gone":
        path.unlink()
    else:
        written(path, broken if broken == "[[" else table("b", "t"), 0o600 if broken == "[[" else 0o640)
    for _ in range(3):
        time.now += 1
        assert (name_of(tokens, "s"), name_of(tokens, "t")) == ("a", None)
    assert len([record for record in caplog.records if "stay as they were" in record.message]) == 1
    written(path, table("c", "v"))
    time.now += 1
    assert name_of(tokens, "v") == "c"


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o666])
def test_a_file_that_others_can_read_is_refused(mode: int, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="expected mode 0600"):
        Time().tokens(written(tmp_path / "t", table(), mode))


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    for path in (tmp_path / "nothing", tmp_path):
        with pytest.raises(UsageError):
            read_token_file(path)
    os.mkfifo(tmp_path / "pipe", 0o600)
    with pytest.raises(UsageError, match="no file"):
        read_token_file(tmp_path / "pipe")
    with pytest.raises(UsageError, match="larger than"):
        read_token_file(written(tmp_path / "large", "#" * ((1 << 20) + 1)))
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    (tmp_path / "binary").chmod(0o600)
    with pytest.raises(UsageError, match="no text"):
        read_token_file(tmp_path / "binary")


def test_a_token_is_made_and_taken_back(tmp_path: Path) -> None:
    path = tmp_path / "tokens.toml"
    first = create_token(path, "a", [Scope.READ, Scope.SUBMIT], Quota(1, 2, 3), WALL)
    path.write_text("# ours\n" + path.read_text().rstrip("\n"))
    second = create_token(path, "b", [Scope.ADMIN], Quota(), None)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert first not in path.read_text()
    a, b = parse_tokens(path.read_text())
    assert (a.sha256, a.quota, a.expires_at, a.scopes) == (
        digest(first), Quota(1, 2, 3), WALL, {Scope.READ, Scope.SUBMIT},
    )  # fmt: skip
    assert (b.sha256, b.quota, b.expires_at) == (digest(second), Quota(), None)
    with pytest.raises(UsageError, match="'a' is taken"):
        create_token(path, "a", [Scope.READ], Quota(), None)
    revoke_token(path, "a")
    assert parse_tokens(path.read_text()) == [b]
    assert path.read_text().startswith("# ours\n")
    with pytest.raises(NotFound, match="no token 'a'"):
        revoke_token(path, "a")


def test_what_ww_cannot_change_is_left_to_an_editor(tmp_path: Path) -> None:
    row = '{{name = "{}", sha256 = "{}", scopes = ["read"]}}'
    inline = f"token = [{row.format('a', digest('s'))}, {row.format('b', digest('t'))}]\n"
    path = written(tmp_path / "t", inline)
    with pytest.raises(UsageError, match="with an editor"):
        revoke_token(path, "a")
    with pytest.raises(UsageError, match="with an editor"):
        create_token(path, "c", [Scope.READ], Quota(), None)
    assert path.read_text() == inline
