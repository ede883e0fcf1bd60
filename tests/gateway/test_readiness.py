"""Whether new work is taken, and what is missing when not."""

from pathlib import Path

import pytest

from tests.gateway.test_http import Gateway, open_gateway
from ww.errors import StoreError
from ww.gateway import readiness as module
from ww.gateway.perimeter import Perimeter
from ww.gateway.readiness import Readiness


class Machine:
    """What a gateway stands on."""

    def __init__(self, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        self.free_bytes = 1000
        self.lack = ""
        self.workers = (2, 1)
        self.looks = 0
        monkeypatch.setattr(module, "_free_bytes", self._free)
        self.readiness = Readiness(
            directory, reserve_bytes=100, now=lambda: self.now, store=lambda: self.lack, workers=lambda: self.workers
        )

    def _free(self, directory: Path) -> int:
        self.looks += 1
        return self.free_bytes

    def missing(self) -> list[str]:
        return [check.name for check in self.readiness.checks() if not check.ok]


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    return Machine(tmp_path, monkeypatch)


def test_what_is_missing_is_named(machine: Machine) -> None:
    assert machine.missing() == []
    machine.workers = (2, 0)
    assert machine.missing() == ["workers"]
    machine.lack = "the database is locked"
    machine.readiness.is_stopping = True
    assert machine.missing() == ["database", "workers", "serving"]
    details = {check.name: check.detail for check in machine.readiness.checks()}
    assert details["database"] == "the database is locked"
    assert details["workers"] == "all that are connected are being drained"
    machine.workers = (0, 0)
    assert {check.detail for check in machine.readiness.checks()} >= {"no worker is connected"}


def test_a_disk_that_is_nearly_full_takes_nothing_new(machine: Machine) -> None:
    machine.readiness.require_room()
    machine.free_bytes = 99
    machine.readiness.require_room()  # it was looked at just now
    machine.now += 1
    with pytest.raises(StoreError, match=r"only 99 bytes are free.*100 are kept.*--disk-reserve"):
        machine.readiness.require_room()
    assert machine.missing() == ["disk"]
    machine.free_bytes, machine.now = 100, machine.now + 1
    machine.readiness.require_room()


def test_a_disk_that_cannot_be_looked_at_takes_nothing_new(tmp_path: Path) -> None:
    readiness = Readiness(tmp_path / "gone", reserve_bytes=1, now=lambda: 0.0, store=lambda: "", workers=lambda: (1, 1))
    with pytest.raises(StoreError, match="cannot be looked at: No such file") as error:
        readiness.require_room()
    assert str(tmp_path) not in str(error.value)


def test_the_disk_is_looked_at_once_a_second(machine: Machine) -> None:
    for _ in range(1000):
        machine.readiness.require_room()
    assert machine.looks == 1


def test_a_database_that_refuses_takes_nothing_new(machine: Machine) -> None:
    machine.lack = "it is locked by another process"
    with pytest.raises(StoreError, match="nothing new is taken: it is locked"):
        machine.readiness.require_room()


@pytest.mark.anyio
async def test_over_http_it_is_503_with_the_reason(tmp_path: Path, machine: Machine) -> None:
    async with open_gateway(tmp_path, perimeter=Perimeter(readiness=machine.readiness)) as gateway:
        await work(gateway, machine)


async def work(gateway: Gateway, machine: Machine) -> None:
    assert (await gateway.json("/readyz"))["status"] == "ready"
    await gateway.added(id="a")
    machine.free_bytes, machine.now = 1, 2.0
    refusal = await gateway.json("/tasks", 503, "POST", files={"id": (None, "b")})
    assert "--disk-reserve" in refusal["detail"]
    ready = await gateway.json("/readyz", 503)
    assert ready["status"] == "not ready"
    assert [check["name"] for check in ready["checks"] if not check["ok"]] == ["disk"]
    assert await gateway.ids() == ["a"], "what is there is still shown"
    assert (await gateway.json("/tasks/a", method="DELETE"))["status"] == "cancelled"
