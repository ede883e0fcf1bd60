"""Which workers can meet a need, and with how many slots."""

import pytest

from ww.gateway.placement import WorkerInfo, slots_for, why_not
from ww.gateway.spec import Need

GIB = 1 << 30


def worker(slots: int = 4, cpus: float = 8, memory: int = 16 * GIB, **labels: str) -> WorkerInfo:
    return WorkerInfo("native", slots, cpus, memory, labels, "host")


@pytest.mark.parametrize(
    ("need", "slots"),
    [
        (Need(), 1),
        (Need(cpus=0.5), 1),
        (Need(cpus=2), 1),
        (Need(cpus=2.5), 2),
        (Need(cpus=8), 4),
        (Need(cpus=8.1), 0),
        (Need(memory_bytes=4 * GIB), 1),
        (Need(memory_bytes=4 * GIB + 1), 2),
        (Need(memory_bytes=16 * GIB), 4),
        (Need(memory_bytes=16 * GIB + 1), 0),
        (Need(cpus=2, memory_bytes=12 * GIB), 3),
        (Need(labels=(("gpu", "yes"),)), 1),
        (Need(labels=(("gpu", "no"),)), 0),
        (Need(labels=(("gpu", "yes"), ("zone", "a"))), 0),
    ],
)
def test_a_run_takes_the_slots_whose_share_of_the_machine_it_needs(need: Need, slots: int) -> None:
    assert slots_for(need, worker(gpu="yes")) == slots


def test_thirds_of_a_machine_are_not_rounded_up() -> None:
    assert [slots_for(Need(cpus=n / 3), worker(slots=3, cpus=1)) for n in (1, 2, 3)] == [1, 2, 3]


def test_a_worker_that_says_nothing_of_itself_serves_those_who_ask_for_nothing() -> None:
    silent = worker(cpus=0, memory=0)
    assert slots_for(Need(), silent) == 1
    assert slots_for(Need(cpus=0.1), silent) == 0


@pytest.mark.parametrize(
    ("need", "why"),
    [
        (Need(cpus=8), ""),
        (Need(cpus=9), "no connected worker has 9 cpus, the most is 8"),
        (Need(memory_bytes=17 * GIB), f"no connected worker has {17 * GIB} bytes of memory, the most is {16 * GIB}"),
        (Need(labels=(("a", "b"),)), "no connected worker has the labels a=b"),
        (Need(cpus=5, labels=(("gpu", "yes"),)), "no connected worker with its labels has 5 cpus, the most is 4"),
        (Need(cpus=8, memory_bytes=16 * GIB), f"no connected worker has 8 cpus and {16 * GIB} bytes of memory both"),
    ],
)
def test_why_nobody_can_is_said(need: Need, why: str) -> None:
    workers = [worker(memory=GIB), worker(slots=1, cpus=1), worker(cpus=4, gpu="yes")]
    assert why_not(need, workers) == why


TAB = frozenset({"reactor", "component", "python", "fuel", "cpu", "of a later version"})


@pytest.mark.parametrize(
    ("requires", "slots", "why"),
    [
        ((), 1, ""),
        (("files",), 1, ""),
        (("fuel",), 0, "no connected worker counts fuel: those connected lack it"),
        (("cpu", "files"), 0, "no connected worker limits processor time: those connected lack it"),
        (
            ("component", "cpu"),
            0,
            "no connected worker runs components and limits processor time: those connected lack it",
        ),
    ],
)
def test_a_worker_gets_nothing_that_needs_what_it_lacks(requires: tuple[str, ...], slots: int, why: str) -> None:
    tab = WorkerInfo("browser", 4, 4, GIB, {}, "host", TAB)
    assert slots_for(Need(requires=requires), tab) == slots
    assert why_not(Need(requires=requires), [tab]) == why
    assert why_not(Need(requires=requires), [tab, worker()]) == ""


def test_what_no_worker_has_together_is_said() -> None:
    either = [
        WorkerInfo("a", 1, 1, 0, {}, "", frozenset({"cpu"})),
        WorkerInfo("b", 1, 1, 0, {}, "", frozenset({"fuel"})),
    ]
    why = why_not(Need(requires=("cpu", "fuel")), either)
    assert why == "no connected worker limits processor time and counts fuel: those connected lack it"


def test_without_workers_nobody_can_say() -> None:
    assert why_not(Need(cpus=1000), []) == ""
