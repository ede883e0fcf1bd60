"""How the guests of a real worker are confined: what its log says, and what the kernel does."""

import os
import sys

import pytest

from tests.e2e.processes import Cluster, sandboxes_of, wait_until
from tests.guests import guest

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks at processes in /proc")


def test_guests_are_as_nice_as_the_worker_was_told(cluster: Cluster) -> None:
    gateway = cluster.gateway()
    worker = cluster.worker(gateway, "--nice", "12")
    pids = wait_until(lambda: len(found := sandboxes_of(worker.pid)) == 2 and found, "an executor and a compiler")
    own = os.getpriority(os.PRIO_PROCESS, worker.pid)
    for pid in pids:
        wait_until(lambda pid=pid: os.getpriority(os.PRIO_PROCESS, pid) == min(19, own + 12), "they are nice")
    task = gateway.post(guest("hash"), input=0, difficulty=3)
    assert gateway.ended(task["id"])["results"][0]["result"] == "2832"
    lacking = [line for line in worker.lines if "does not confine the sandbox" in line]
    assert len(lacking) <= 1, "once at start, not once a process"
