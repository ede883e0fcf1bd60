"""Which gateway a program's functions go to, when it names one, when it names none, and when one is there."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.processes import Cluster, Gateway
from tests.guests import ROOT

ASK = """
import json, sys
from pathlib import Path
from ww.errors import WwError
from tests.e2e.opened import open_client
try:
    opened = open_client(**json.loads(sys.argv[1]))
    found = [each.result for each in opened.client.run(Path("wasm/noop/noop.wasm"), input=4)]
    print(json.dumps({"where": opened.where, "found": found}))
except WwError as error:
    print(json.dumps({"error": type(error).__name__, "says": str(error)}))
"""


def ask(cluster: Cluster, *, environment: dict[str, str] | None = None, **settings: Any) -> Any:
    """Have a program choose, and run something there."""
    said = subprocess.run(
        [sys.executable, "-c", ASK, json.dumps(settings)], cwd=ROOT, env=cluster.environment | (environment or {}),
        capture_output=True, text=True, timeout=50, check=False,
    )  # fmt: skip
    assert said.returncode == 0, said.stderr
    return json.loads(said.stdout)


def working(cluster: Cluster, *options: str) -> Gateway:
    gateway = cluster.gateway(*options)
    cluster.worker(gateway)
    return gateway


@pytest.mark.parametrize("how", ["peer", "address", "http"])
def test_one_that_is_named(cluster: Cluster, how: str) -> None:
    gateway = working(cluster)
    target = {"peer": gateway.peer_id, "address": gateway.address, "http": f"http://{gateway.http}"}[how]
    answer = ask(cluster, target=target)
    assert answer["found"] == ["4"]
    assert target in answer["where"]
    assert ask(cluster, environment={"WW_GATEWAY": target})["where"] == f"{answer['where']} (WW_GATEWAY)"
    # What the program itself names goes before what its variables name.
    assert "WW_GATEWAY" not in ask(cluster, target=target, environment={"WW_GATEWAY": "http://127.0.0.1:1"})["where"]


def test_a_token_of_the_variables(cluster: Cluster, tmp_path: Path) -> None:
    tokens = tmp_path / "tokens"
    made = subprocess.run(
        [sys.executable, "-m", "ww", "token", "create", "me", "--file", str(tokens)],
        cwd=ROOT, env=cluster.environment, capture_output=True, text=True, check=True,
    )  # fmt: skip
    gateway = working(cluster, "--token-file", str(tokens))
    url = f"http://{gateway.http}"
    assert ask(cluster, target=url)["error"] == "NotAllowed"
    variables = {"WW_GATEWAY": url, "WW_TOKEN": made.stdout.strip()}
    assert ask(cluster, environment=variables)["found"] == ["4"]


def test_one_that_is_there_is_found(cluster: Cluster) -> None:
    gateway = working(cluster)
    answer = ask(cluster)
    assert answer["where"] == f"gateway {gateway.peer_id}, found on this machine"
    assert answer["found"] == ["4"]
    # Unless its own is asked for.
    assert ask(cluster, target="embedded")["where"].startswith("embedded")
    assert ask(cluster, environment={"WW_GATEWAY": "embedded"})["where"].startswith("embedded")
    # That this machine is a gateway says nothing of where it is.
    assert gateway.peer_id in ask(cluster, environment={"WW_GATEWAY": "true"})["where"]


def test_one_that_cannot_be_used_is_passed_over(cluster: Cluster, tmp_path: Path) -> None:
    idle = cluster.gateway()
    assert ask(cluster)["where"].startswith("embedded"), "nobody works for it"
    idle.kill()
    assert ask(cluster)["where"].startswith("embedded"), "it is gone, and its address is still there"
    nobody = tmp_path / "nobody"
    nobody.write_text("")
    others = cluster.gateway("--key", str(tmp_path / "others.key"), "--tasks-admit", f"allow:{nobody}")
    cluster.worker(others)
    assert ask(cluster)["where"].startswith("embedded"), "it lets nobody in"
    stopped = working(cluster, "--state", str(tmp_path / "other"))
    registry = Path(cluster.state, "peers", "ww")
    registry.joinpath(stopped.peer_id).write_bytes((tmp_path / "other/peers/ww" / stopped.peer_id).read_bytes())
    stopped.send(signal.SIGSTOP)
    try:
        assert ask(cluster)["where"].startswith("embedded"), "it does not answer"
    finally:
        stopped.send(signal.SIGCONT)


def test_others_are_looked_for_only_when_that_is_asked_for(cluster: Cluster, tmp_path: Path) -> None:
    # Of another state directory: it is met by multicast alone.
    gateway = cluster.gateway("--state", str(tmp_path / "other"))
    cluster.program("worker", "--dial", gateway.peer_id, "--state", str(tmp_path / "other")).logged("joined gateway")
    assert ask(cluster)["where"].startswith("embedded")
    for answer in (ask(cluster, lan=True), ask(cluster, environment={"WW_LAN": "1"})):
        assert answer["where"] == f"gateway {gateway.peer_id}, found on this machine or its networks"
        assert answer["found"] == ["4"]


def test_what_is_wrong_is_one_line(cluster: Cluster) -> None:
    assert "expected http://HOST:PORT, a peer id" in ask(cluster, target="nonsense")["says"]
    assert "WW_LAN: 'maybe': expected true or false" in ask(cluster, environment={"WW_LAN": "maybe"})["says"]
    assert "slots: 0; expected" in ask(cluster, target="embedded", slots=0)["says"]
    assert "nothing: no setting of a native client" in ask(cluster, nothing=1)["says"]


def test_nothing_is_made_where_nothing_is_found(cluster: Cluster) -> None:
    assert ask(cluster)["found"] == ["4"]
    assert not os.path.exists(cluster.state)
