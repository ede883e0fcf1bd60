"""Where a database is, as an operator says it: what is taken, what is refused, and that no secret is repeated."""

import argparse
import os
import sys
from pathlib import Path

import pytest

from ww.cli import main
from ww.cli.parser import Parser
from ww.cli.store import add_store_options, add_store_timeout, store_of
from ww.errors import UsageError
from ww.gateway.postgres.address import PostgresAddress, read_address, read_schema


def parsed(*words: str) -> PostgresAddress | None:
    parser = Parser(prog="ww test")
    add_store_options(parser)
    add_store_timeout(parser)
    arguments: argparse.Namespace = parser.parse_args(words)
    return store_of(arguments)


@pytest.mark.parametrize(
    ("text", "host", "database", "is_local"),
    [
        ("postgresql://ww@db.example.org:5433/tasks", "db.example.org", "tasks", False),
        ("postgres://db.example.org", "db.example.org", "", False),
        ("postgresql://ww@10.0.0.1/ww?sslmode=require", "10.0.0.1", "ww", False),
        ("postgresql://ww@127.0.0.1/ww?sslmode=disable", "127.0.0.1", "ww", True),
        ("postgresql://[::1]:5432/ww", "::1", "ww", True),
        ("postgresql://localhost/ww", "localhost", "ww", True),
        ("postgresql:///ww?host=/run/postgresql&port=5433", "/run/postgresql", "ww", True),
    ],
)
def test_addresses_that_are_taken(text: str, host: str, database: str, is_local: bool) -> None:
    address = read_address(text)
    assert (address.host, address.database, address.is_local) == (host, database, is_local)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("ww.db", "that is no address of a database: expected postgresql://USER@HOST:PORT/DB"),
        ("mysql://ww@localhost/ww", "that is no address of a database"),
        ("postgresql://ww@localhost:port/ww", "that is no address"),
        ("postgresql://ww@localhost:0/ww", "that is no address"),
        ("postgresql://ww@localhost/ww#x", "that is no address"),
        ("postgresql:///ww", "names no one host"),
        ("postgresql://a,b/ww", "names no one host"),
        ("postgresql:///ww?host=/a,/b", "names no one host"),
        ("postgresql://localhost/ww?fsync=off", "'fsync' cannot be said"),
        ("postgresql://localhost/ww?synchronous_commit=off", "'synchronous_commit' cannot be said"),
        ("postgresql://localhost/ww?sslmode=maybe", "sslmode 'maybe': expected one of"),
        ("postgresql://db.example.org/ww?sslmode=prefer", "for a database on another machine"),
        ("postgresql://10.0.0.1/ww?sslmode=disable", "for a database on another machine"),
    ],
)
def test_addresses_that_are_not(text: str, words: str) -> None:
    with pytest.raises(UsageError, match=words) as error:
        read_address(text)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("text", ["", "Ww", "a-b", "pg_ww", 'a"b', "x" * 64, "1a"])
def test_schemas_that_are_none(text: str) -> None:
    with pytest.raises(UsageError, match="is no schema"):
        read_schema(text)


@pytest.mark.parametrize("url", ["postgresql://ww:hunter2@localhost/ww", "postgresql://localhost/ww?password=hunter2"])
def test_a_password_is_no_argument(
    url: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(SystemExit):
        parsed("--store", url)
    said = capsys.readouterr().err
    assert "can be read by everybody here: use --store-password-file" in said
    assert "hunter2" not in said
    monkeypatch.setenv("WW_STORE", url)
    address = parsed()
    assert address is not None
    assert address.has_password
    assert "hunter2" not in f"{address} {address!r}"


def test_a_password_comes_from_a_file_that_nobody_else_can_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "password"
    store = ("--store", "postgresql://localhost/ww", "--store-password-file", str(file))
    file.write_text("one line: 100%\n")
    file.chmod(0o600)
    address = parsed(*store, "--store-schema", "mine")
    assert address is not None
    assert (address.password, address.schema) == ("one line: 100%", "mine")
    monkeypatch.setenv("WW_STORE_PASSWORD_FILE", str(file))
    assert parsed(*store[:2], "--store-schema", "mine") == address
    monkeypatch.delenv("WW_STORE_PASSWORD_FILE")
    for content, mode, words in (
        ("x", 0o644, "can be read by others"),
        ("a\nb\n", 0o600, "one line"),
        ("", 0o600, "one"),
    ):
        file.write_text(content)
        file.chmod(mode)
        with pytest.raises(SystemExit):
            parsed(*store)
        said = capsys.readouterr().err
        assert words in said
        assert str(tmp_path) not in said
    with pytest.raises(SystemExit):
        parsed("--store", "postgresql://localhost/ww", "--store-timeout", "0")
    file.write_text("x")
    with pytest.raises(UsageError, match="--store-password-file: given without --store"):
        parsed("--store-password-file", str(file))


def test_without_the_driver_there_is_one_clear_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "asyncpg", None)
    store = ("--store", "postgresql://localhost/ww")
    with pytest.raises(UsageError, match=r"^PostgreSQL needs the package asyncpg: pip install 'ww\[postgres\]'$"):
        parsed(*store)
    assert main(["db", "check", "--state", str(tmp_path), *store]) == 1
    assert capsys.readouterr().err == "ww: PostgreSQL needs the package asyncpg: pip install 'ww[postgres]'\n"


@pytest.mark.parametrize("command", [("backup", "FILE"), ("restore", "FILE")])
def test_backups_are_left_to_postgresql(
    command: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["db", *command, "--state", str(tmp_path), "--store", "postgresql://localhost/ww"]) == 1
    said = capsys.readouterr().err
    assert said.startswith("ww: that is PostgreSQL's to do: use pg_")
    assert said.count("\n") == 1
    assert os.listdir(tmp_path) == []
