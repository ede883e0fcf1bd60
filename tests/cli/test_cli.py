"""The command line from outside: one line for every mistake, 2 for wrong usage, 1 for what goes wrong later."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.guests import ROOT
from ww import __version__
from ww.cli import main
from ww.identity import Identity

PEER = str(Identity.generate().peer_id)


def ww(directory: Path, *arguments: str, **variables: str) -> "subprocess.CompletedProcess[str]":
    environment = {name: value for name, value in os.environ.items() if not name.startswith("WW_")}
    environment |= {"XDG_STATE_HOME": str(directory / "state"), "XDG_CACHE_HOME": str(directory / "cache")} | variables
    command = [sys.executable, "-m", "ww", *arguments]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=30, check=False)


def refused(done: "subprocess.CompletedProcess[str]", code: int, *says: str) -> None:
    assert done.returncode == code, done.stderr
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    for text in says:
        assert text in line
    assert len(line) < 400


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], ["ww: ", "COMMAND"]),
        (["fly"], ["'fly'"]),
        (["gateway", "--fly"], ["--fly"]),
        (["gateway", "--http", "example.org:8080"], ["--http", "'example.org' is no IP address"]),
        (["gateway", "--http-name", "a b"], ["--http-name", "no host name"]),
        (["gateway", "--http-name", "a.example:80"], ["--http-name", "without a port"]),
        (["gateway", "--cors-origin", "https://a.example/"], ["--cors-origin", "without a path"]),
        (["gateway", "--cors-origin", "*"], ["--cors-origin", "no origin"]),
        (["gateway", "--token-file", "/nowhere/t"], ["--token-file", "'t': no such file"]),
        (["gateway", "--repeats-max", "5"], ["--repeats-max"]),
        (["token", "create"], ["NAME"]),
        (["token", "create", "a/b"], ["'a/b' is not 1 to 64"]),
        (["token", "create", "a", "--scope", "all"], ["'all' is not read, submit or admin"]),
        (["gateway", "--http", "8080"], ["--http", "'8080' is not HOST:PORT"]),
        (["gateway", "--http", "localhost:99999"], ["--http", "HOST:PORT"]),
        (["gateway", "--listen", "127.0.0.1:9100"], ["--listen", "expected"]),
        (["gateway", "--listen", "/ip4/300.0.0.1/tcp/1"], ["--listen"]),
        (["gateway", "--admit", "friends"], ["--admit", "open", "allow:"]),
        (["gateway", "--upload-max", "-1"], ["--upload-max", "expected bytes"]),
        (["gateway", "--upload-max", "lots"], ["'lots' is no size"]),
        (["gateway", "--duration-max", "nan"], ["'nan' is no time"]),
        (["gateway", "--keep", "0"], ["'0'", "expected a number of tasks"]),
        (["gateway", "--meta", "nothing"], ["'nothing' is not KEY=VALUE"]),
        (["worker", "--dial", PEER, "--meta", "a=b\tc"], ["--meta", "printable"]),
        (["gateway", "--ns", "a b"], ["--ns: 'a b'", "expected"]),
        (["discover", "emit", "--ns", "a/b"], ["--ns: 'a/b'", "expected"]),
        (["cluster", "ls", "--limit", "4294967296"], ["--limit", "4294967295"]),
        (["cluster", "ls", "--addr", "/ip4/127.0.0.1/tcp/0000065537"], ["--addr", "no TCP port"]),
        (["worker", "--dial", PEER, "--addr", "/dns/a..b/tcp/80"], ["--addr", "no dns host"]),
        (["gateway", "--log", "loud"], ["'loud' is not debug"]),
        (["gateway", "--discover", "/ip4/239.1.1.1/udp/1"], ["--discover", "no multicast group"]),
        (["worker", "--dial", "12D3KooWnobody"], ["--dial", "no peer id"]),
        (["worker", "--dial", PEER, "--slots", "0"], ["--slots"]),
        (["worker", "--dial", PEER, "--slots", "two"], ["'two'"]),
        (["worker", "--dial", PEER, "--grace", "soon"], ["'soon' is no time"]),
        (["worker", "--dial"], ["--dial"]),
        (["worker", "--di", PEER], ["--di"]),
    ],
)  # fmt: skip
def test_wrong_usage_is_one_line_and_2(tmp_path: Path, arguments: list[str], says: list[str]) -> None:
    refused(ww(tmp_path, *arguments), 2, *says)
    assert not (tmp_path / "state").exists(), "nothing was begun"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["worker"], ["whom to dial", "--dial PEER_ID"]),
        (["gateway", "--listen", "/ip4/0.0.0.0/tcp/0"], ["/ip4/0.0.0.0/tcp/0", "--admit"]),
        (["worker", "--dial", PEER, "--listen", "/ip4/0.0.0.0/tcp/0"], ["--admit"]),
        (["gateway", "--listen", "/ip4/127.0.0.1/tcp/0", "--admit", "allow:{}/none"], ["allow"]),
        (["gateway", "--key", "{}/no-key"], ["no-key"]),
        (["id", "--key", "{}/no-key"], ["no-key"]),
        (["gateway", "--state", "{}/no-key"], ["gateway.key", "--state"]),
    ],
)
def test_what_goes_wrong_later_is_one_line_and_1(tmp_path: Path, arguments: list[str], says: list[str]) -> None:
    (tmp_path / "no-key").write_text("this is no key\n")
    done = ww(tmp_path, *(argument.format(tmp_path) for argument in arguments), WW_HTTP="127.0.0.1:0")
    refused(done, 2 if "--admit" in arguments else 1, *says)


def test_a_port_that_is_taken(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        refused(ww(tmp_path, "gateway", "--http", f"127.0.0.1:{port}"), 1, "--http", str(port), "in use")
        listen = f"/ip4/127.0.0.1/tcp/{port}"
        refused(ww(tmp_path, "gateway", "--http", "127.0.0.1:0", "--listen", listen), 1, listen, "in use")


@pytest.mark.parametrize(
    ("variables", "code", "says"),
    [
        ({"WW_HTTP": "example.org:80"}, 2, ["WW_HTTP", "no IP address"]),
        ({"WW_KEEP": "none"}, 2, ["WW_KEEP", "'none'"]),
        ({"WW_LISTEN": "/ip4/127.0.0.1/tcp/0,/ip4/0.0.0.0/tcp/0"}, 1, ["/ip4/0.0.0.0/tcp/0", "--admit"]),
        ({"WW_NS": "a/b"}, 2, ["'a/b'"]),
    ],
)
def test_variables_are_options_too(tmp_path: Path, variables: dict[str, str], code: int, says: list[str]) -> None:
    refused(ww(tmp_path, "gateway", **variables), code, *says)


def test_what_argv_says_counts_more_than_a_variable(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("no key\n")
    (tmp_path / "b").write_text("no key\n")
    refused(ww(tmp_path, "gateway", "--key", f"{tmp_path}/a", WW_KEY=f"{tmp_path}/b"), 1, "key file a ")


@pytest.mark.parametrize("command", ["gateway", "worker", "id"])
def test_help_names_every_option_and_its_variable(tmp_path: Path, command: str) -> None:
    done = ww(tmp_path, command, "--help", COLUMNS="200")
    assert (done.returncode, done.stderr) == (0, "")
    flags = [line.split()[0] for line in done.stdout.splitlines() if line.startswith("  --")]
    assert flags
    for flag in flags:
        assert f"[WW_{flag.removeprefix('--').upper().replace('-', '_')}]" in done.stdout


def test_version(tmp_path: Path) -> None:
    assert ww(tmp_path, "--version").stdout == f"ww {__version__}\n"


def test_id_makes_a_key_and_shows_the_same_id_again(tmp_path: Path) -> None:
    first = ww(tmp_path, "id", "--key", str(tmp_path / "a.key"))
    assert first.stdout.startswith("12D3KooW")
    assert ww(tmp_path, "id", "--key", str(tmp_path / "a.key")).stdout == first.stdout
    assert (tmp_path / "a.key").stat().st_mode & 0o777 == 0o600


def test_output_that_nobody_reads_is_no_traceback(tmp_path: Path) -> None:
    command = f"{sys.executable} -m ww id --key {tmp_path}/a.key"
    done = subprocess.run(
        ["sh", "-c", f"({command}; echo $? >&2) | true"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert "Traceback" not in done.stderr


def test_ctrl_c_while_a_command_is_read_is_no_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(name: str) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("importlib.import_module", interrupted)
    assert main(["tasks"]) == 130
