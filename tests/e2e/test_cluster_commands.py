"""ww cluster and ww discover, from outside: who is there, and what is said."""

import json
import subprocess
import sys
from typing import Any

import pytest

from tests.e2e.processes import BOUND_S, Cluster, wait_until
from tests.guests import ROOT


def ww(cluster: Cluster, *arguments: str, **variables: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "ww", *arguments], cwd=ROOT, env=cluster.environment | variables,
        capture_output=True, text=True, timeout=BOUND_S, check=False,
    )  # fmt: skip


def listed(cluster: Cluster, *arguments: str) -> list[dict[str, Any]]:
    done = ww(cluster, "cluster", "ls", "--json", *arguments)
    assert done.returncode == 0, done.stderr
    found: list[dict[str, Any]] = json.loads(done.stdout)
    return found


def test_members_are_listed_with_what_they_say(cluster: Cluster) -> None:
    gateway = cluster.gateway("--meta", "zone=a")
    worker = cluster.worker(gateway, "--meta", "zone=b", "--meta", "gpu=no", "--slots", "3")
    wait_until(lambda: len(listed(cluster)) == 2)
    wait_until(lambda: [m["free"] for m in listed(cluster)] == [3, 3], "both know of the slots")
    members = {member["role"]: member for member in listed(cluster)}
    assert (members["gateway"]["peer"], members["worker"]["peer"]) == (gateway.peer_id, worker.peer_id)
    assert members["gateway"]["addresses"] == [gateway.address.partition("/p2p/")[0]]
    assert members["worker"]["meta"] == {"zone": "b", "gpu": "no"}
    assert (members["worker"]["slots"], members["worker"]["free"]) == (3, 3)
    for arguments, roles in (
        (["--role", "worker"], {"worker"}), (["--role", "w*"], {"worker"}), (["--meta", "gpu"], {"worker"}),
        (["--meta", "zone=a"], {"gateway"}), (["--meta", "zone=*"], {"gateway", "worker"}), (["--host", "no"], set()),
        (["--host", members["worker"]["host"]], {"gateway", "worker"}), (["--role", "x", "--meta", "zone"], set()),
    ):  # fmt: skip
        assert {member["role"] for member in listed(cluster, *arguments)} == roles, arguments
    in_order = [member["peer"] for member in listed(cluster)]
    assert in_order == sorted(in_order)
    assert [member["peer"] for member in listed(cluster, "--reverse", "--limit", "1")] == in_order[-1:]


def test_a_table_for_people_and_for_pipes(cluster: Cluster) -> None:
    gateway = cluster.gateway()
    header, row = ww(cluster, "cluster", "ls").stdout.splitlines()
    assert header.split() == ["PEER", "ROLE", "HOST", "SLOTS", "FREE", "QUEUE", "AGE", "ADDRESSES", "META"]
    assert row.split()[:2] == [gateway.peer_id, "gateway"]


def test_watching_shows_who_comes_and_goes(cluster: Cluster) -> None:
    gateway = cluster.gateway()
    watch = cluster.program("cluster", "ls", "--watch", "--json")
    seen = [{member["peer"] for member in json.loads(watch.stdout_line())}]
    worker = cluster.worker(gateway)
    while seen[-1] != {gateway.peer_id, worker.peer_id}:
        seen.append({member["peer"] for member in json.loads(watch.stdout_line())})
    worker.kill()
    while seen[-1] != {gateway.peer_id}:
        seen.append({member["peer"] for member in json.loads(watch.stdout_line())})


def test_a_killed_worker_is_gone_long_before_its_ttl(cluster: Cluster) -> None:
    gateway = cluster.gateway("--ttl", "600")
    worker = cluster.worker(gateway, "--ttl", "600")
    wait_until(lambda: len(listed(cluster)) == 2)
    worker.kill()
    wait_until(lambda: [member["peer"] for member in listed(cluster)] == [gateway.peer_id])


def test_the_gateways_user_may_look_whoever_else_may(cluster: Cluster, tmp_path: Any) -> None:
    nobody = tmp_path / "nobody.txt"
    nobody.write_text("# nobody\n")
    gateway = cluster.gateway("--admit", f"allow:{nobody}")
    assert [member["peer"] for member in listed(cluster)] == [gateway.peer_id]
    refused = ww(cluster, "cluster", "ls", "--dial", gateway.peer_id, "--state", str(tmp_path / "other"))
    assert refused.returncode == 1
    assert "refuses this node" in refused.stderr


def test_any_node_of_the_namespace_is_found_without_the_registry(cluster: Cluster, tmp_path: Any) -> None:
    gateway = cluster.gateway()
    assert [m["peer"] for m in listed(cluster, "--state", str(tmp_path / "other"))] == [gateway.peer_id]
    assert [m["peer"] for m in listed(cluster, "--addr", gateway.address, "--no-multicast")] == [gateway.peer_id]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["cluster", "ls"], "no node is there in namespace 'ww'"),
        (["cluster", "ls", "--ns", "empty"], "no node is there in namespace 'empty'"),
        (["cluster", "ls", "--dial", "12D3KooWDpJ7As7BWAwRMfu1VU2WCqNjvq387JEYKDBj4kx6nXTN"], "does not answer"),
        (["discover", "emit", "--wait", "0.2"], "nobody answered within 0.2 s"),
        (["discover", "emit", "--discover", "/ip4/239.1.1.1/udp/9/multicast/nope0"], "no interface nope0"),
        (["discover", "emit", "--discover", "/ip6/ff02::1234/udp/9999/multicast"], "no interface"),
    ],
)
def test_where_nobody_is_one_line_says_so(cluster: Cluster, arguments: list[str], says: str) -> None:
    done = ww(cluster, *arguments)
    assert (done.returncode, done.stdout) == (1, "")
    assert says in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["cluster"], "required: COMMAND"),
        (["discover"], "required: COMMAND"),
        (["cluster", "ls", "--meta", "a b"], "is no key"),
        (["cluster", "ls", "--limit", "0"], "--limit"),
        (["discover", "emit", "--distance", "256"], "expected 0 to 255"),
        (["discover", "emit", "--wanted", "me"], "is no peer id"),
        (["discover", "listen", "--discover", "eth0"], "is no multicast group"),
        (["discover", "listen", "--count", "x"], "--count"),
    ],
)
def test_wrong_usage_is_one_line_and_2(cluster: Cluster, arguments: list[str], says: str) -> None:
    done = ww(cluster, *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    assert says in line


def test_every_packet_is_shown_as_it_comes(cluster: Cluster) -> None:
    listening = cluster.program("discover", "listen", "--json")
    listening.logged("listening on /ip4/.*/multicast/lo;")
    emitted = cluster.program("discover", "emit", "--distance", "60", "--ns", "lab", "--wait", "0")
    said = json.loads(listening.stdout_line())
    emitted.wait()
    assert (said["kind"], said["namespace"], said["distance"], said["dropped"]) == ("survey", "lab", 60, None)
    assert (said["age_seconds"], said["interface"]) == (None, "lo")
    assert 100 < said["size"] <= 508
    gateway = cluster.gateway("--ttl", "1")
    beats = [json.loads(listening.stdout_line()) for _ in range(3)]
    assert {(beat["kind"], beat["peer"], beat["namespace"]) for beat in beats} == {("heartbeat", gateway.peer_id, "ww")}
    assert [beat["sequence"] for beat in beats] == [1, 2, 3]
    assert beats[1]["age_seconds"] > 0


def test_a_listener_may_want_one_namespace_and_an_end(cluster: Cluster) -> None:
    listening = cluster.program("discover", "listen", "--ns", "lab", "--count", "2")
    assert listening.stdout_line().split()[:4] == ["TIME", "KIND", "SIZE", "NAMESPACE"]
    for namespace in ("other", "lab", "other", "lab", "other"):
        ww(cluster, "discover", "emit", "--ns", namespace, "--wait", "0")
    rows = [listening.stdout_line().split() for _ in range(2)]
    assert [row[1:4:2] for row in rows] == [["survey", "lab"]] * 2
    assert listening.wait() == 0


def test_who_answers_a_survey_is_shown(cluster: Cluster) -> None:
    gateway = cluster.gateway()
    worker = cluster.worker(gateway)
    everybody = [json.loads(line) for line in ww(cluster, "discover", "emit", "--json").stdout.splitlines()]
    assert {answer["peer"] for answer in everybody} == {gateway.peer_id, worker.peer_id}
    done = ww(cluster, "discover", "emit", "--wanted", gateway.peer_id)
    assert gateway.peer_id in done.stdout
    assert worker.peer_id not in done.stdout
    nobody = ww(cluster, "discover", "emit", "--distance", "0", "--wait", "0.3")
    assert nobody.returncode == 1


def test_a_listener_that_nobody_reads_ends(cluster: Cluster) -> None:
    command = [sys.executable, "-m", "ww", "discover", "listen", "--json"]
    with subprocess.Popen(
        command, cwd=ROOT, env=cluster.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as listening:
        try:
            assert listening.stdout is not None
            assert listening.stderr is not None
            assert "listening on" in listening.stderr.readline()
            listening.stdout.close()
            cluster.gateway("--ttl", "1")
            assert listening.wait(BOUND_S) == 0
            assert listening.stderr.read() == ""
        finally:
            listening.kill()
