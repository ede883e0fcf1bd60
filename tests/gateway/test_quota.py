"""What a limited caller may hold with tasks that have not ended."""

from dataclasses import dataclass, field
from typing import Any

import pytest

from ww.errors import Overloaded, StoreError
from ww.gateway.caller import EVERYBODY, Caller, Quota
from ww.gateway.quota import Quotas, share_of
from ww.gateway.task import Spec, Task


def spec(id: str, owner: str = "a", **values: Any) -> Spec:
    base = {"module": "0" * 64, "kind": "command", "entry": "", "duration_s": 1.0, "memory_bytes": 1, "output_bytes": 1}
    return Spec(id=id, owner=owner, **base | values)  # type: ignore[arg-type]


@dataclass
class Gateway:
    """Open tasks, and the quotas over them."""

    tasks: dict[str, Task] = field(default_factory=dict)
    now: float = 0.0

    def __post_init__(self) -> None:
        self.quotas = Quotas(self.tasks.get, lambda: self.tasks.values(), lambda: self.now)

    def submit(self, caller: Caller, spec: Spec) -> None:
        with self.quotas.taking(caller, spec):
            self.open(spec)

    def open(self, spec: Spec) -> None:
        self.tasks[spec.id] = Task(spec, number=1, created_at=0.0, now=0.0, wall=0.0)

    def end(self, id: str) -> None:
        del self.tasks[id]
        self.now += 1


def limited(**quota: int) -> Caller:
    return Caller("a", quota=Quota(**quota))


def test_a_share_counts_what_was_sent_to_be_kept() -> None:
    share = share_of(spec("t", repeats=7, stdin=b"12345", args=("ab",), env=(("K", "\u00e9"),), labels=(("x", "y"),)))
    assert share == (1, 7, 5 + 2 + 3 + 2)


@pytest.mark.parametrize(
    ("quota", "one", "name"),
    [
        ({"tasks_max": 2}, {}, "tasks_max"),
        ({"runs_max": 20}, {"repeats": 10}, "runs_max"),
        ({"bytes_max": 200}, {"stdin": bytes(100)}, "bytes_max"),
    ],
)
def test_a_quota_is_named_when_it_would_be_passed(quota: dict[str, int], one: dict[str, Any], name: str) -> None:
    gateway, caller = Gateway(), limited(**quota)
    gateway.submit(caller, spec("1", **one))
    gateway.submit(caller, spec("2", **one))
    with pytest.raises(Overloaded, match=name) as error:
        gateway.submit(caller, spec("3", **one))
    assert error.value.retry_after_s > 0
    gateway.submit(caller, spec("2", **one))  # again, which is no other task
    gateway.end("1")
    gateway.submit(caller, spec("3", **one))


def test_runs_that_ended_make_room() -> None:
    gateway, caller = Gateway(), limited(runs_max=10)
    gateway.submit(caller, spec("1", repeats=10))
    gateway.tasks["1"].succeeded, gateway.tasks["1"].failed = 3, 1
    gateway.now += 1
    with pytest.raises(Overloaded, match="it would be 11"):
        gateway.submit(caller, spec("2", repeats=5))
    gateway.submit(caller, spec("2", repeats=4))


def test_what_is_not_taken_does_not_count() -> None:
    gateway, caller = Gateway(), limited(tasks_max=1)
    for _ in range(3):
        with pytest.raises(StoreError), gateway.quotas.taking(caller, spec("1")):
            raise StoreError("the disk refuses")
    gateway.submit(caller, spec("1"))


def test_what_is_being_taken_counts() -> None:
    gateway, caller = Gateway(), limited(tasks_max=1)
    gateway.now += 5
    with gateway.quotas.taking(caller, spec("1")), pytest.raises(Overloaded):
        gateway.submit(caller, spec("2"))


def test_what_was_open_before_counts_and_others_do_not() -> None:
    gateway = Gateway()
    for number in range(5):
        gateway.open(spec(f"b{number}", owner="b"))
    gateway.open(spec("1"))
    with pytest.raises(Overloaded):
        gateway.submit(limited(tasks_max=1), spec("2"))
    gateway.submit(limited(tasks_max=2), spec("2"))


def test_who_is_not_limited_is_not_counted() -> None:
    gateway = Gateway()
    for caller in (EVERYBODY, Caller("b")):
        for number in range(10):
            gateway.submit(caller, spec(f"{caller.name}{number}", owner=caller.name))
    assert not gateway.quotas._held


def test_a_caller_that_gains_a_limit_later_is_held_to_it() -> None:
    gateway = Gateway()
    for number in range(3):
        gateway.submit(Caller("a"), spec(f"{number}"))
    with pytest.raises(Overloaded, match="tasks_max"):
        gateway.submit(limited(tasks_max=3), spec("3"))


def test_tasks_that_ended_are_forgotten_without_a_limit_being_reached() -> None:
    gateway, caller = Gateway(), limited(runs_max=1 << 60)
    for number in range(5000):
        gateway.submit(caller, spec(f"{number}"))
        gateway.end(f"{number}")
    assert len(gateway.quotas._held["a"].shares) < 1100
