"""WW_* variables, each of them: honoured by a program that runs, and refused by its name when it says nonsense."""

import argparse
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.e2e.processes import cluster_in
from ww.cli import gateway, main, worker
from ww.cli.parser import Parser

# Any text is a path, and what a namespace may be called is the node's to say.
ANY_TEXT = {"--key", "--state", "--cache", "--ns"}
SWITCHES = {"--lan", "--no-multicast", "--no-mdns", "--behind-proxy", "--log-json", "--speculate"}


def flags_of(command: Any) -> list[str]:
    parser = Parser()
    command.add_to(parser)
    skipped = (argparse._HelpAction,)
    return [action.option_strings[0] for action in parser._actions if not isinstance(action, skipped)]


CASES = [
    (name, flag)
    for name, command in (("gateway", gateway), ("worker", worker))
    for flag in flags_of(command)
    if flag not in ANY_TEXT
]


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))


@pytest.mark.parametrize(("command", "flag"), CASES)
def test_nonsense_is_refused_by_the_variables_name(
    command: str, flag: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    variable = "WW_" + flag.removeprefix("--").replace("-", "_").upper()
    monkeypatch.setenv(variable, "?! no sense")
    with pytest.raises(SystemExit) as ended:
        main([command])
    assert ended.value.code == 2
    out, err = capsys.readouterr()
    (line,) = err.splitlines()
    assert out == ""
    assert line.startswith(f"ww {command}: {variable}: ")


@pytest.mark.parametrize(("command", "flag"), CASES)
def test_nonsense_is_refused_by_the_options_name(command: str, flag: str, capsys: pytest.CaptureFixture[str]) -> None:
    # A switch needs no value.
    for arguments in ([f"{flag}=?! no sense"], *([] if flag in SWITCHES else [[flag]])):
        with pytest.raises(SystemExit) as ended:
            main([command, *arguments])
        assert ended.value.code == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert flag in line


def test_an_empty_variable_is_as_none(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    for _, flag in CASES:
        monkeypatch.setenv("WW_" + flag.removeprefix("--").replace("-", "_").upper(), "")
    with pytest.raises(SystemExit) as ended:
        main(["gateway", "--help"])
    assert ended.value.code == 0
    assert capsys.readouterr().err == ""


def test_a_cluster_that_is_told_everything_by_variables(tmp_path: Path) -> None:
    with cluster_in(tmp_path) as cluster:
        cluster.environment |= {
            "WW_HTTP": "127.0.0.1:0",
            "WW_NS": "lab",
            "WW_META": "room=1,rack=b",
            "WW_STATE": str(tmp_path / "elsewhere"),
            "WW_LISTEN": "/ip4/127.0.0.1/tcp/0,/ip6/::1/tcp/0",
            "WW_LOG": "info",
        }
        # Without --http in argv, which Cluster.gateway gives.
        gateway = cluster.program("gateway")
        http = gateway.logged(r"HTTP on http://(127\.0\.0\.1:\d+)")[1]
        peer_id = gateway.stdout_line()
        gateway.logged("listening on /ip4/127.0.0.1/tcp/")
        gateway.logged("listening on /ip6/::1/tcp/")
        assert (tmp_path / "elsewhere" / "gateway.key").exists()
        assert not cluster.state.exists()

        with httpx.Client(base_url=f"http://{http}", timeout=20) as client:
            health = client.get("/healthz").json()
            assert (health["peer"], health["namespace"]) == (peer_id, "lab")
            assert health["meta"] == {"room": "1", "rack": "b"}
            cluster.environment |= {"WW_DIAL": peer_id, "WW_SLOTS": "3", "WW_META": "gpu=no"}
            cluster.program("worker").logged(f"joined gateway {peer_id} with 3 slots")
            (entry,) = client.get("/workers").json()
            assert (entry["slots"], entry["labels"]) == (3, {"gpu": "no"})
