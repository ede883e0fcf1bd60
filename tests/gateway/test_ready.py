"""The order in which due runs go: priority, turns, age; and needs that cannot be met hold up nobody."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from ww.gateway.ready import ReadyQueue
from ww.gateway.task import Need, Outcome, Spec, Task


def make_task(number: int, **values: Any) -> Task:
    base: dict[str, Any] = {"id": f"t{number}", "module": "0" * 64, "kind": "function", "entry": "run"}
    base |= {"duration_s": 5.0, "memory_bytes": 1 << 20, "output_bytes": 100}
    return Task(Spec(**base | values), number=number, created_at=0.0, now=0.0, wall=0.0)


def serve(queue: ReadyQueue, count: int, takes_s: dict[int, float] | None = None) -> list[int]:
    """Run that many runs one after the other, and return whose they were."""
    order = []
    for _ in range(count):
        task = queue.heads()[0]
        queue.take(task, 1)
        charged_s = queue.charge_of(task)
        (attempt,) = task.begin(0.0, 0.0)
        order.append(task.number)
        wall_s = (takes_s or {}).get(task.number, 0.001)
        task.charged_s += wall_s - charged_s
        task.end(attempt, Outcome(wall_s=wall_s), 0.0, 0.0)
        if task.next_due() is not None:
            queue.add(task)
    return order


def filled(*tasks: Task) -> ReadyQueue:
    queue = ReadyQueue()
    for task in tasks:
        queue.add(task)
    return queue


def test_the_oldest_goes_first_among_equals() -> None:
    assert serve(filled(make_task(2), make_task(1), make_task(3)), 3) == [1, 2, 3]


def test_priority_comes_before_everything() -> None:
    queue = filled(make_task(1, repeats=2), make_task(2, priority=5, repeats=2), make_task(3, priority=-1))
    assert serve(queue, 5) == [2, 2, 1, 1, 3]


def test_tasks_take_turns() -> None:
    assert serve(filled(make_task(1, repeats=3), make_task(2, repeats=3)), 6) == [1, 2, 1, 2, 1, 2]


def test_a_small_task_does_not_wait_for_a_batch_of_a_million() -> None:
    queue = filled(make_task(1, repeats=1_000_000))
    serve(queue, 1000)
    queue.add(make_task(2))
    assert 2 in serve(queue, 2)


def test_a_task_that_comes_late_does_not_make_up_for_the_time_before_it_came() -> None:
    queue = filled(make_task(1, repeats=5000))
    serve(queue, 1000)
    queue.add(make_task(2, repeats=1000))
    assert 9 <= serve(queue, 20).count(1) <= 11


def test_a_task_that_waited_long_for_a_rare_worker_gives_no_start_to_those_that_come_after_it() -> None:
    rare = make_task(1, labels=(("gpu", "yes"),))
    queue = filled(rare)
    batch = make_task(2, repeats=5000)
    batch.charged_s = 3600.0
    queue.add(batch)
    queue.take(batch, 1)
    queue.add(batch)
    queue.take(rare, 1)  # at last: it has had nothing
    queue.add(make_task(3, repeats=1000))
    assert 9 <= serve(queue, 20).count(2) <= 11


def test_turns_are_of_slot_time_so_long_runs_get_fewer() -> None:
    queue = filled(make_task(1, repeats=1000), make_task(2, repeats=1000))
    served = serve(queue, 110, {1: 1.0, 2: 0.1})
    assert 8 <= served.count(1) <= 12


def test_of_each_need_the_first_shows_in_the_order_of_all() -> None:
    gpu = (("gpu", "yes"),)
    queue = filled(make_task(1, cpus=4), make_task(2, cpus=4), make_task(3, labels=gpu, priority=1), make_task(4))
    assert [task.number for task in queue.heads()] == [3, 1, 4]
    assert {demand.need for demand in queue.demands()} == {Need(4), Need(labels=gpu), Need()}
    assert [task.number for task in queue.tasks_of(queue.demands()[0])] == [1, 2]


def test_what_is_taken_out_is_gone_and_its_need_with_it() -> None:
    first, second = make_task(1, cpus=4), make_task(2)
    queue = filled(first, second, second)
    queue.discard(first)
    queue.discard(first)
    queue.prune()
    assert [demand.need for demand in queue.demands()] == [Need()]
    assert (len(queue), first in queue, second in queue) == (1, False, True)


def test_all_tasks_of_a_need_share_what_is_known_of_it() -> None:
    first, second = make_task(1, cpus=4), make_task(2, cpus=4)
    filled(first, second)
    assert first.demand is second.demand


@given(st.lists(st.tuples(st.sampled_from(["add", "take", "discard"]), st.integers(1, 8)), max_size=300))
def test_the_queue_holds_what_was_put_in_whatever_happens(steps: list[tuple[str, int]]) -> None:
    tasks = {number: make_task(number, priority=number % 3, cpus=number % 2, repeats=1000) for number in range(1, 9)}
    queue, inside = ReadyQueue(), set()
    for step, number in steps:
        if step == "add":
            queue.add(tasks[number])
            inside.add(number)
        elif step == "discard":
            queue.discard(tasks[number])
            inside.discard(number)
        elif heads := queue.heads():
            queue.take(heads[0], 1)
            inside.discard(heads[0].number)
        assert {task.number for task in queue.tasks()} == inside
        heads = queue.heads()
        assert {task.number for task in heads} <= inside
        assert bool(heads) == bool(inside)
        if inside:
            assert heads[0].spec.priority == max(tasks[n].spec.priority for n in inside)
