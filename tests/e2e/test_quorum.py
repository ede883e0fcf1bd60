"""Results from machines nobody vouches for, from outside: a worker that lies is outvoted and refused for good."""

import signal
from pathlib import Path

from tests.e2e.processes import Cluster, wait_until
from tests.e2e.test_admission import done, listed
from tests.guests import guest


def test_a_lying_worker_is_outvoted_and_refused_for_good(cluster: Cluster, tmp_path: Path) -> None:
    gateway = cluster.gateway("--quorum", "2", "--disagreements-max", "1")
    honest = cluster.worker(gateway)
    liar = cluster.program(
        *("worker", "--dial", gateway.peer_id, "--slots", "1", "--key", str(tmp_path / "liar.key")),
        command=("-m", "tests.e2e.lying_worker"),
    )
    peer_id = liar.logged(r"worker (12D3KooW\w+)")[1]
    liar.logged("joined gateway")
    task = gateway.post(guest("noop"), id="a", input=4, repeats=3, deterministic="true")
    assert (task["replicas"], task["quorum"]) == (3, 2)
    wait_until(lambda: gateway.task("a")["status"] == "unsatisfiable", "they disagree")
    assert gateway.task("a")["reason"] == "quorum 2: the 2 peers that could run it do not agree"
    other = cluster.worker(gateway)
    results = gateway.ended("a")["results"]
    assert [(result["state"], result["result"]) for result in results] == [("succeeded", "4")] * 3
    assert {result["worker"] for result in results} <= {honest.peer_id, other.peer_id}
    gateway.logged(f"peer {peer_id} is refused")
    liar.logged("on 2 runs its result was outvoted")
    wait_until(lambda: {each["peer"]: each["disagreements"] for each in gateway.workers()} == {
        honest.peer_id: 0, other.peer_id: 0,
    })  # fmt: skip
    row = listed(cluster)[peer_id]
    assert (row["banned"], row["disagreements"], row["connected"]) == (True, 2, False)
    assert "banned outvoted:2 away" in done(cluster, "peers", "ls")
    assert "ww_peers_refused_total 1.0" in gateway.client.get("/metrics").text

    gateway.send(signal.SIGTERM)
    gateway.wait()
    gateway = cluster.gateway()
    gateway.logged(f"refused {peer_id} .* on 2 runs its result was outvoted")
