"""After load everything is where it was: descriptors, child processes, server objects."""

import contextlib
import signal
from pathlib import Path

import pytest

from tests.e2e.processes import Cluster, Program, children_of, wait_until
from tests.guests import guest

pytestmark = pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="counts descriptors in /proc")


def descriptors(program: Program) -> int:
    return len(list(Path(f"/proc/{program.pid}/fd").iterdir()))


def resident_bytes(program: Program) -> int:
    return int(Path(f"/proc/{program.pid}/statm").read_text().split()[1]) * 4096


def test_load_leaves_nothing_behind(cluster: Cluster) -> None:
    gateway = cluster.gateway("--keep", "50")
    worker = cluster.worker(gateway, "--slots", "2")

    def load(tasks: int) -> None:
        ids = [gateway.post(guest("noop"), repeats=50)["id"] for _ in range(tasks)]
        for id in ids:
            assert gateway.ended(id)["completions"] == 50
        wait_until(lambda: gateway.workers()[0]["free"] == 2, "all slots are free")

    load(40)
    before = {program: (descriptors(program), len(children_of(program.pid))) for program in (gateway, worker)}
    memory = {program: resident_bytes(program) for program in (gateway, worker)}
    load(40)
    for program, (open_before, children_before) in before.items():
        wait_until(lambda program=program, most=open_before: descriptors(program) <= most, "descriptors are back")
        assert len(children_of(program.pid)) == children_before
        assert resident_bytes(program) - memory[program] < 8 << 20
    load(40)  # each new task has some of the oldest forgotten
    assert len(gateway.client.get("/tasks?limit=1000").json()) <= 50 + 40


def test_workers_that_come_and_go_leave_nothing_behind(cluster: Cluster) -> None:
    gateway = cluster.gateway()
    cluster.worker(gateway).send(signal.SIGTERM)
    wait_until(lambda: not gateway.workers(), "the first has left")
    before = descriptors(gateway)
    for number in range(6):
        worker = cluster.worker(gateway)
        with contextlib.suppress(ProcessLookupError):
            worker.send(signal.SIGKILL if number % 2 else signal.SIGTERM)
        worker.wait()
        wait_until(lambda: not gateway.workers(), "it is forgotten")
    wait_until(lambda: descriptors(gateway) <= before, "descriptors are back")
