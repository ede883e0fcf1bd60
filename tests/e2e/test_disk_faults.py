"""A gateway under load whose disk becomes full, and then fails: it refuses, says why, loses nothing, and goes on."""

import errno
import itertools
import json
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.e2e.processes import BOUND_S, Cluster, Gateway, wait_until
from tests.gateway.faults import Faults, small_disk, why_no_mount, why_no_shim
from tests.guests import guest

pytestmark = [
    pytest.mark.skipif(bool(why_no_shim()), reason=why_no_shim()),
    pytest.mark.skipif(bool(why_no_mount()), reason=why_no_mount()),
    pytest.mark.timeout(180),
]

CLIENTS = 3


class Load:
    """Clients that submit one task after the other, and what they were told."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._numbers = itertools.count()
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._submit, daemon=True) for _ in range(CLIENTS)]
        self.accepted: list[str] = []
        self.refused: list[str] = []
        self.reasons: set[str] = set()
        self.wrong: list[str] = []

    def __enter__(self) -> "Load":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(BOUND_S)

    def _submit(self) -> None:
        with httpx.Client(base_url=f"http://{self._gateway.http}", timeout=BOUND_S) as client:
            while not self._stop.is_set():
                id = f"t{next(self._numbers)}"
                data = {"id": id, "input": "7", "stdin": "s" * 20_000}
                answer = client.post("/tasks", data=data, files={"wasm": ("guest.wasm", guest("noop"))})
                if answer.status_code == 201:
                    self.accepted.append(id)
                    self._stop.wait(0.002)
                elif answer.status_code == 503 and answer.headers["content-type"] == "application/problem+json":
                    self.refused.append(id)
                    self.reasons.add(answer.json()["detail"])
                    self._stop.wait(0.01)
                else:
                    self.wrong.append(f"{id}: {answer.status_code} {answer.text}")

    def goes_on(self) -> None:
        """Wait until more is accepted."""
        before = len(self.accepted)
        wait_until(lambda: len(self.accepted) > before + 20 or self.wrong, "more is accepted")

    def is_refused(self) -> None:
        """Wait until what is submitted is refused."""
        before = len(self.refused)
        wait_until(lambda: len(self.refused) > before + 10 or self.wrong, "it is refused")


def fill(path: Path) -> None:
    """Leave no room on the disk where path is."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT)
    try:
        for size in (1 << 20, 4096):
            try:
                while True:
                    os.write(fd, bytes(size))
            except OSError as error:
                assert error.errno == errno.ENOSPC  # noqa: PT017 what is waited for
    finally:
        os.close(fd)


@pytest.fixture
def faults(cluster: Cluster, tmp_path: Path) -> Iterator[Faults]:
    (tmp_path / "fault").mkdir()
    faults = Faults(cluster.state / "gateway", tmp_path / "fault")
    yield faults
    faults.end()


def test_a_gateway_whose_disk_is_full_and_then_fails(cluster: Cluster, faults: Faults) -> None:
    directory = cluster.state / "gateway"
    directory.mkdir(parents=True)
    disk = small_disk(directory, "128m")
    settings = cluster.environment
    cluster.environment = settings | faults.environment
    gateway = cluster.gateway("--attempt-slack", "5", prefix=disk)
    cluster.environment = settings
    cluster.worker(gateway)
    # The disk is the gateway's own; this is the way to it from here.
    seen = Path(f"/proc/{gateway.pid}/root{directory}")
    with Load(gateway) as load:
        load.goes_on()
        fill(seen / "filler")
        load.is_refused()
        assert gateway.client.get("/tasks?limit=1").status_code == 200, "what is there can be read"
        (seen / "filler").unlink()
        load.goes_on()
        faults.begin("fsync", errno.EIO, "ww.db")
        load.is_refused()
        faults.end()
        load.goes_on()
        faults.begin("fsync", errno.EIO, "ww.db-wal", once=True)
        load.goes_on()
    assert load.wrong == []
    assert all("cannot be" in reason and "\n" not in reason and "/tmp" not in reason for reason in load.reasons)
    assert any("full" in reason or "space" in reason for reason in load.reasons), load.reasons
    for id in load.accepted:
        task = gateway.ended(id)
        assert (task["status"], task["runs"]["succeeded"], len(task["results"])) == ("succeeded", 1, 1), json.dumps(
            task
        )
        assert task["results"][0]["result"] == "7"
    there = {id for id in load.refused if gateway.client.get(f"/tasks/{id}").status_code == 200}
    assert not there, "what was refused is not there"
    inside = ("nsenter", "--target", str(gateway.pid), "--mount")
    check = cluster.program("db", "check", prefix=inside)
    assert check.wait() == 0, check.stdout_line() + check.log
    copy = cluster.program("db", "backup", str(directory / "copy"), prefix=inside)
    assert copy.wait() == 0, copy.log
    assert "Traceback" not in gateway.log
