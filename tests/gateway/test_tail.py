"""The latest results in memory: what is told of them is what the store would have told."""

from hypothesis import given
from hypothesis import strategies as st

from ww.gateway.tail import Tail
from ww.gateway.task import Outcome, RunResult, RunState


def result(run: int, stdout: bytes = b"") -> RunResult:
    return RunResult(run, RunState.SUCCEEDED, Outcome(stdout=stdout), "", 1, 0.0, 0.0, 0.0)


MANY = {"limit": 1000, "bytes_max": 1 << 30}


def test_what_was_committed_since_is_given_with_its_positions() -> None:
    tail = Tail(bytes_max=1 << 20)
    tail.put(5, [(1, result(0)), (2, result(0)), (1, result(1))])
    tail.put(8, [(1, result(2))])
    assert tail.since(1, 4, **MANY) == ([(5, result(0)), (7, result(1)), (8, result(2))], False)
    assert tail.since(1, 7, **MANY) == ([(8, result(2))], False)
    assert tail.since(2, 6, **MANY) == ([], False)
    assert tail.since(1, 3, **MANY) is None


def test_a_task_that_was_submitted_since_has_nothing_before() -> None:
    tail = Tail(bytes_max=1 << 20)
    tail.put(5, [(1, result(0))])
    mark = tail.count
    assert tail.since(2, 0, mark=mark, **MANY) == ([], False)
    tail.put(6, [(2, result(0))])
    assert tail.since(2, 0, mark=mark, **MANY) == ([(6, result(0))], False)
    assert tail.since(2, 0, **MANY) is None


def test_a_gap_is_no_stretch() -> None:
    tail = Tail(bytes_max=1 << 20)
    mark = tail.count
    tail.put(1, [(1, result(0))])
    tail.put(3, [(1, result(2))])  # what is at 2 was never told of
    assert tail.since(1, 0, mark=mark, **MANY) is None
    assert tail.since(1, 1, **MANY) is None
    assert tail.since(1, 2, **MANY) == ([(3, result(2))], False)


def test_what_is_too_much_is_left_to_the_store() -> None:
    tail = Tail(bytes_max=5000)
    mark = tail.count
    for position in range(1, 10):
        tail.put(position, [(1, result(position, bytes(1000)))])
    assert tail.since(1, 0, mark=mark, **MANY) is None
    assert tail.since(1, 8, **MANY) == ([(9, result(9, bytes(1000)))], False)


def test_pages_are_as_small_as_is_asked_but_never_empty() -> None:
    tail = Tail(bytes_max=1 << 20)
    mark = tail.count
    tail.put(1, [(1, result(run, bytes(100))) for run in range(5)])
    first, has_more = tail.since(1, 0, mark=mark, limit=2, bytes_max=1 << 20) or ([], False)
    assert ([position for position, _ in first], has_more) == ([1, 2], True)
    first, has_more = tail.since(1, 2, mark=mark, limit=9, bytes_max=10) or ([], False)
    assert ([position for position, _ in first], has_more) == ([3], True)


@given(st.lists(st.lists(st.integers(1, 3), min_size=1, max_size=4), max_size=12), st.data())
def test_it_says_what_a_store_would_or_nothing(commits: list[list[int]], data: st.DataObject) -> None:
    tail, stored = Tail(bytes_max=8000), []
    marks = [0]
    for tasks in commits:
        results = [(task, result(len(stored) + place)) for place, task in enumerate(tasks)]
        tail.put(len(stored) + 1, results)
        stored += [(task, len(stored) + 1 + place, each) for place, (task, each) in enumerate(results)]
        marks.append(len(stored))
    after = data.draw(st.integers(0, len(stored)))
    task = data.draw(st.integers(1, 3))
    mark = data.draw(st.none() | st.integers(0, len(commits)))
    if mark is not None and any(number == task and position <= marks[mark] for number, position, _ in stored):
        mark = None  # it was submitted before
    told = tail.since(task, after, mark=mark, **MANY)
    if told is not None:
        assert told == (
            [(position, each) for number, position, each in stored if number == task and position > after],
            False,
        )


def test_what_was_submitted_before_a_gap_may_have_results_in_it() -> None:
    tail = Tail(bytes_max=1 << 20)
    tail.put(1, [(1, result(0))])
    mark = tail.count
    tail.put(3, [(1, result(2))])  # the one at 2 is of the task that was submitted at mark
    assert tail.since(2, 0, mark=mark, **MANY) is None
