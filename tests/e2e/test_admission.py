"""Who may come to a gateway, from outside: tickets, bans, and workers that are to get nothing new."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.processes import BOUND_S, Cluster, cluster_in, wait_busy, wait_until
from tests.guests import ROOT, guest


def ww(cluster: Cluster, *arguments: str, **variables: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "ww", *arguments], cwd=ROOT, env=cluster.environment | variables,
        capture_output=True, text=True, timeout=BOUND_S, check=False,
    )  # fmt: skip


def done(cluster: Cluster, *arguments: str) -> str:
    ended = ww(cluster, *arguments)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


def ticket_file(cluster: Cluster, tmp_path: Path, *options: str) -> Path:
    path = tmp_path / "ticket"
    assert done(cluster, "ticket", "create", "--out", str(path), *options) == ""
    again = ww(cluster, "ticket", "create", "--out", str(path))
    assert "--out ticket: File exists" in again.stderr
    return path


def listed(cluster: Cluster) -> dict[str, dict[str, Any]]:
    return {row["peer"]: row for row in json.loads(done(cluster, "peers", "ls", "--json"))}


@pytest.fixture
def other(tmp_path: Path) -> Any:
    """Another machine, as far as its state is concerned."""
    with cluster_in(tmp_path / "other") as cluster:
        yield cluster


def test_a_ticket_lets_one_worker_in_and_keeps_it_in(cluster: Cluster, other: Cluster, tmp_path: Path) -> None:
    gateway = cluster.gateway("--admit", "ticket")
    address = gateway.address.partition("/p2p/")[0]
    file = ticket_file(cluster, tmp_path, "--addr", address)
    key = str(tmp_path / "worker.key")
    worker = other.program("worker", "--ticket-file", str(file), "--key", key, "--slots", "1")
    worker.logged("joined gateway")
    gateway.logged(r"12D3KooW\w+ enrolled by ticket [0-9a-f]{8}$")
    gateway.post(guest("noop"), id="a", input=4)
    assert gateway.ended("a")["results"][0]["result"] == "4"
    worker.kill()
    # The ticket is used up, but who has come once may come again; without it, too.
    again = other.program("worker", "--addr", gateway.address, "--key", key, "--slots", "1")
    again.logged("joined gateway")
    stranger = other.program("worker", "--ticket-file", str(file), "--slots", "1")
    stranger.logged("refuses this node: the ticket was used as often as it may be; trying again")
    none = other.program("worker", "--addr", gateway.address, "--slots", "1")
    none.logged("refuses this node: .* has shown none: see --ticket-file; trying again")
    gateway.logged("refused .*: the ticket was used as often as it may be")
    (row,) = json.loads(done(cluster, "ticket", "ls", "--json"))
    assert (row["state"], row["uses_left"]) == ("used up", 0)
    secret = file.read_text().strip().rpartition("-")[2]
    for program in (gateway, worker, again, stranger):
        assert secret not in "\n".join(program.lines)


def test_a_ticket_may_be_in_a_variable_and_never_in_an_argument(cluster: Cluster, tmp_path: Path) -> None:
    gateway = cluster.gateway("--admit", "ticket")
    text = ticket_file(cluster, tmp_path).read_text().strip()
    refused = ww(cluster, "worker", "--ticket", text)
    assert refused.returncode == 2
    assert "can be read by everybody here: use --ticket-file, or WW_TICKET" in refused.stderr
    assert text not in refused.stderr
    cluster.environment["WW_TICKET"] = text
    worker = cluster.program("worker", "--slots", "1")
    worker.logged("joined gateway")
    del cluster.environment["WW_TICKET"]
    assert gateway.peer_id in text


def test_a_revoked_ticket_lets_nobody_in(cluster: Cluster, tmp_path: Path) -> None:
    cluster.gateway("--admit", "ticket")
    file = ticket_file(cluster, tmp_path, "--uses", "5")
    number = json.loads(done(cluster, "ticket", "ls", "--json"))[0]["ticket"]
    assert number in done(cluster, "ticket", "ls")
    done(cluster, "ticket", "revoke", number)
    cluster.program("worker", "--ticket-file", str(file)).logged("the ticket was revoked; trying again")
    assert "revoked" in done(cluster, "ticket", "ls")


@pytest.mark.parametrize(
    ("text", "mode", "says"),
    [
        ("nonsense", 0o600, "ticket: that is no ticket"),
        ("/p2p/x/ticket/wwt1-a-b\n/p2p/x/ticket/wwt1-a-c\n", 0o600, "that is 2 tickets"),
        ("/p2p/x/ticket/wwt1-a-b/ticket/wwt1-a-c", 0o600, "that is no ticket"),
        ("", 0o600, "that is 0 tickets"),
        ("/p2p/12D3KooW/ticket/wwt1-a-b", 0o600, "no peer id"),
        ("/ip4/127.0.0.1/tcp/1/ticket/wwt1-a-b", 0o600, "whose ticket"),
        ("wwt1-a-b", 0o644, "can be read by others"),
        (None, 0, "No such file"),
    ],
)
def test_a_ticket_file_that_is_none(cluster: Cluster, tmp_path: Path, text: str | None, mode: int, says: str) -> None:
    path = tmp_path / "ticket"
    if text is not None:
        path.write_text(text)
        path.chmod(mode)
    ended = ww(cluster, "worker", "--ticket-file", str(path))
    assert ended.returncode == 2
    (line,) = ended.stderr.splitlines()
    assert says in line
    assert "wwt1-a" not in line


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (("ticket", "create", "--uses", "0"), 2, "--uses"),
        (("ticket", "create", "--ttl", "0"), 2, "more than no time"),
        (("ticket", "create", "--ttl", "999999999d"), 2, "at most 3650d"),
        (("ticket", "create", "--addr", "/ip4/0.0.0.0/tcp/9100"), 2, "nowhere to dial"),
        (("ticket", "create", "--addr", "/ip4/192.0.2.1/tcp/0"), 2, "nowhere to dial"),
        (("ticket", "create"), 1, "no key gateway.key there: start the gateway first"),
        (("ticket", "create", "--key", "none/at/all"), 1, "no key all there"),
        (("ticket", "revoke", "none"), 2, "no ticket's id"),
        (("ticket", "revoke", "\udcff"), 2, "no ticket's id"),
        (("ticket", "revoke", "abc"), 1, "no ticket 'abc'"),
        (("peers", "ban", "somebody"), 2, "no peer id"),
        (("peers", "ls"), 1, "no gateway has run with this state directory"),
    ],
)
def test_wrong_usage_is_one_line(cluster: Cluster, arguments: tuple[str, ...], code: int, says: str) -> None:
    ended = ww(cluster, *arguments)
    assert ended.returncode == code, ended.stderr
    (line,) = ended.stderr.splitlines()
    assert says in line
    assert not list(cluster.state.glob("*.key"))


def test_a_banned_worker_is_put_out_and_stays_out(cluster: Cluster, tmp_path: Path) -> None:
    gateway = cluster.gateway()
    key = str(tmp_path / "worker.key")
    worker = cluster.worker(gateway, "--key", key)
    assert listed(cluster)[worker.peer_id]["connected"]
    done(cluster, "peers", "ban", worker.peer_id)
    worker.logged("refuses this node: this node's operator has banned it")
    wait_until(lambda: not gateway.workers(), "it is put out")
    row = listed(cluster)[worker.peer_id]
    assert (row["banned"], row["connected"]) == (True, False)
    assert "banned away" in done(cluster, "peers", "ls")
    gateway.send(signal.SIGTERM)
    gateway.wait()
    gateway = cluster.gateway()
    gateway.logged(f"refused {worker.peer_id} .* banned")
    done(cluster, "peers", "ban", worker.peer_id, "--lift")
    wait_until(lambda: len(gateway.workers()) == 1, "it is back")


def test_a_draining_worker_finishes_and_gets_nothing_new(cluster: Cluster) -> None:
    gateway = cluster.gateway()
    worker = cluster.worker(gateway, "--slots", "1")
    gateway.post(guest("spin"), id="a", input=800)
    wait_busy(worker)
    done(cluster, "peers", "drain", worker.peer_id)
    gateway.post(guest("noop"), id="b", input=1)
    assert gateway.ended("a")["results"][0]["state"] == "succeeded"
    wait_until(lambda: [w["free"] for w in gateway.workers()] == [1], "its slot is free")
    assert gateway.task("b")["status"] == "queued"
    assert listed(cluster)[worker.peer_id]["draining"]
    other = cluster.worker(gateway, "--slots", "1")
    assert gateway.ended("b")["results"][0]["worker"] == other.peer_id
    other.send(signal.SIGTERM)
    other.wait()
    gateway.post(guest("noop"), id="c", input=1)
    done(cluster, "peers", "drain", worker.peer_id, "--lift")
    assert gateway.ended("c")["results"][0]["worker"] == worker.peer_id


def test_only_the_operator_governs(cluster: Cluster, other: Cluster) -> None:
    gateway = cluster.gateway()
    ended = ww(other, "peers", "ls", "--dial", gateway.peer_id, "--addr", gateway.address)
    assert ended.returncode == 1
    assert "operator: that is for this node's operator" in ended.stderr
    worker = cluster.worker(gateway)
    assert worker.peer_id in listed(cluster)
    assert os.environ.get("WW_TICKET") is None
