"""How the worker in TypeScript is run by `ww worker --runtime`: with which words, and with as few permissions as do."""

import argparse
import itertools
import os
import subprocess
import sys
from pathlib import Path

import pytest

from ww.cli import runtime, worker
from ww.cli.parser import Parser
from ww.client.wire import DEFAULT_URL
from ww.errors import UsageError
from ww.identity import Identity

PEER = str(Identity.generate().peer_id)


@pytest.fixture
def bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A bundle and runtimes that are found, and no options from variables."""
    for name in [name for name in os.environ if name.startswith("WW_")]:
        monkeypatch.delenv(name)
    (tmp_path / "worker.mjs").touch()
    for name in ("deno", "node"):
        (tmp_path / name).touch(0o755)
    return tmp_path


def read(*argv: str) -> argparse.Namespace:
    parser = Parser(prog="ww worker")
    worker.add_to(parser)
    arguments: argparse.Namespace = parser.parse_args(argv)
    return arguments


def command(bundle: Path, *argv: str, **environment: str) -> runtime.Command:
    return runtime.command_for(read(*argv), {"PATH": str(bundle)} | environment, bundle)


def test_deno_may_reach_the_gateway_and_read_itself_and_nothing_else(bundle: Path) -> None:
    argv = command(bundle, "--runtime", "deno", "--gateway", "https://gateway.example.org").argv
    assert argv[:2] == (str(bundle / "deno"), "run")
    allowed = {word for word in argv if word.startswith("--allow")}
    assert allowed == {
        "--allow-net=gateway.example.org:443",
        f"--allow-read={bundle}",
        "--allow-env=WW_TICKET",
        "--allow-sys=hostname,systemMemoryInfo",
    }
    assert "--no-prompt" in argv
    assert argv[argv.index(str(bundle / "worker.mjs")) + 1] == "https://gateway.example.org"


def test_a_key_file_may_be_read_and_made(bundle: Path) -> None:
    argv = command(bundle, "--runtime", "deno", "--key", "/keys/a.key").argv
    assert f"--allow-read={bundle},/keys/a.key" in argv
    assert "--allow-write=/keys/a.key" in argv
    assert argv[argv.index("--key") + 1 :][:2] == ("/keys/a.key", "--key-held")
    with pytest.raises(UsageError, match="without a comma"):
        command(bundle, "--runtime", "deno", "--key", "/keys/a,/etc")


def test_what_such_a_worker_takes_is_passed_on(bundle: Path) -> None:
    given = ("--slots", "3", "--dial", PEER, "--meta", "a=1", "--meta", "b=2", "--grace", "1.5", "--memory-max", "64M")
    argv = command(bundle, "--runtime", "node", "--gateway", "http://[::1]:81", "--log-json", *given).argv
    rest = argv[argv.index("http://[::1]:81") + 1 :]
    for words in (("--slots", "3"), ("--dial", PEER), ("--grace", "1.500000"), ("--memory-max", str(64 << 20))):
        assert words in itertools.pairwise(rest)
    assert [rest[at + 1] for at, word in enumerate(rest) if word == "--meta"] == ["a=1", "b=2"]
    assert rest[-1] == "--log-json"


def test_an_old_node_is_named(bundle: Path) -> None:
    (bundle / "node").write_text("#!/bin/sh\necho v18.19.1\n")
    with pytest.raises(UsageError, match=r"node is v18\.19: expected Node 20\.10 or newer"):
        command(bundle, "--runtime", "node")


def test_a_file_without_certificates_is_none_to_trust(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "key.pem").write_text("no certificate\n")
    with pytest.raises(SystemExit):
        read("--runtime", "node", "--ca", str(tmp_path / "key.pem"))
    assert "'key.pem': it holds no certificates" in capsys.readouterr().err


def test_a_ticket_goes_by_the_environment_alone(bundle: Path, tmp_path: Path) -> None:
    ticket = "wwt1-abc-" + "A" * 43
    file = tmp_path / "ticket"
    file.write_text(f"/p2p/{PEER}/ticket/{ticket}")
    file.chmod(0o600)
    made = command(bundle, "--runtime", "deno", "--ticket-file", str(file), WW_TOKEN="secret", NODE_OPTIONS="--inspect")
    assert made.environment["WW_TICKET"] == ticket
    assert not {"WW_TOKEN", "NODE_OPTIONS"} & set(made.environment)
    assert not any(ticket in word for word in made.argv)
    assert made.argv[made.argv.index("--dial") + 1] == PEER


def test_a_gateway_may_be_named_by_the_variable_that_clients_use(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WW_GATEWAY", "http://127.0.0.1:9")
    assert "http://127.0.0.1:9" in command(bundle, "--runtime", "deno").argv
    runtime.check_native(read("--dial", PEER))  # to which it says nothing


@pytest.mark.parametrize(
    ("argv", "line"),
    [
        (("--lan",), "--lan: makes no sense with --runtime deno: it is of a native worker"),
        (("--cache-max", "1G", "--nice", "3"), "--nice: makes no sense with --runtime deno"),
        (("--listen", "/ip4/127.0.0.1/tcp/0"), "--listen: makes no sense"),
        (("--gateway", PEER), "is no address of HTTP: expected --gateway http://HOST:PORT"),
        (("--gateway", "http://a:b"), "is no address of HTTP"),
        (("--gateway", "http://user@a"), "is no address of HTTP"),
    ],
)
def test_what_such_a_worker_does_not_take_is_refused(bundle: Path, argv: tuple[str, ...], line: str) -> None:
    with pytest.raises(UsageError) as refused:
        command(bundle, "--runtime", "deno", *argv)
    assert line in str(refused.value)


def test_a_native_worker_takes_no_address_of_http(bundle: Path) -> None:
    with pytest.raises(UsageError, match="--gateway: expected --runtime deno or node"):
        runtime.check_native(read("--dial", PEER, "--gateway", "http://127.0.0.1:1"))


def test_what_is_missing_is_said(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.executable", str(bundle / "nowhere" / "python"))
    (bundle / "deno").unlink()
    with pytest.raises(UsageError, match=r"pip install 'ww\[deno\]'"):
        command(bundle, "--runtime", "deno")
    (bundle / "worker.mjs").unlink()
    with pytest.raises(UsageError, match="scripts/web"):
        command(bundle, "--runtime", "node")


def test_without_an_address_it_is_the_one_that_clients_ask(bundle: Path) -> None:
    assert DEFAULT_URL in command(bundle, "--runtime", "deno").argv


def test_a_native_worker_imports_no_client_of_http() -> None:
    code = "import sys, ww.cli.worker; sys.exit('httpx' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
