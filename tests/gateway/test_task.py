"""A task's state machine: what is due when, what is retried, what ends how. No loop, no disk, no clock."""

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from ww.gateway.task import ATTEMPTS_MAX, Attempt, Outcome, RunResult, RunState, Spec, Task

OK = Outcome(result="1")
WALL = 1_000_000.0


def make_task(**values: object) -> Task:
    base: dict[str, object] = {"id": "t", "module": "0" * 64, "kind": "function", "entry": "run", "duration_s": 5.0}
    base |= {"memory_bytes": 1 << 20, "output_bytes": 100}
    spec = Spec(**(base | values))  # type: ignore[arg-type]
    return Task(spec, number=1, created_at=WALL, now=0.0, wall=WALL)


def begin(task: Task, now: float) -> Attempt:
    attempt = task.begin(now, WALL + now)
    assert attempt is not None
    return attempt


def finish(task: Task, attempt: Attempt, now: float, outcome: Outcome = OK) -> RunResult | None:
    result = task.end(attempt, outcome, now, WALL + now)
    if result is not None:
        task.commit(result, WALL + now)
    return result


def test_runs_are_due_by_start_and_delay() -> None:
    task = make_task(start_s=1.0, delay_s=2.0, repeats=3)
    assert task.next_due() == 1.0
    assert task.begin(0.5, WALL + 0.5) is None
    assert task.status(0.5) == "scheduled"
    runs = []
    for now in (1.0, 3.0, 5.0):
        attempt = begin(task, now)
        assert attempt.queued_at == WALL + now
        runs.append(attempt.run)
        assert task.begin(now, WALL + now) is None
        finish(task, attempt, now)
    assert runs == [0, 1, 2]
    assert task.status(5.0) == "succeeded"
    assert task.next_due() is None


def test_without_delay_all_runs_are_due_at_once() -> None:
    task = make_task(repeats=4)
    assert [begin(task, 0.0).run for _ in range(4)] == [0, 1, 2, 3]
    assert task.begin(0.0, WALL) is None


def test_a_million_repeats_cost_nothing_before_they_run() -> None:
    task = make_task(repeats=1_000_000_000, delay_s=1.0)
    assert task.counts(10.0)[RunState.QUEUED] == 11
    assert task.counts(10.0)[RunState.SCHEDULED] == 1_000_000_000 - 11


def test_a_lost_attempt_is_tried_again_after_a_growing_backoff_until_there_were_too_many() -> None:
    task = make_task()
    now, waits = 0.0, []
    for number in range(1, ATTEMPTS_MAX + 1):
        attempt = begin(task, now)
        assert attempt.number == number
        result = task.lose(attempt, "gone", now, WALL)
        if number < ATTEMPTS_MAX:
            assert result is None
            due = task.next_due()
            assert due is not None
            waits.append(due - now)
            now = due
    assert result is not None
    assert (result.state, result.outcome.reason, result.attempts) == (RunState.FAILED, "lost", ATTEMPTS_MAX)
    assert all(0.05 * 2**i <= wait <= 0.1 * 2**i for i, wait in enumerate(waits))


def test_a_crash_is_tried_once_more_and_then_ends_the_run() -> None:
    task = make_task()
    crash = Outcome(reason="crash", detail="SIGSEGV")
    assert finish(task, begin(task, 0.0), 0.0, crash) is None
    result = finish(task, begin(task, 1.0), 1.0, crash)
    assert result is not None
    assert (result.state, result.outcome.reason, result.attempts) == (RunState.FAILED, "crash", 2)


def test_a_guests_failure_is_not_tried_again() -> None:
    task = make_task()
    result = finish(task, begin(task, 0.0), 0.0, Outcome(reason="trap", detail="unreachable"))
    assert result is not None
    assert result.state is RunState.FAILED
    assert task.status(1.0) == "failed"


def test_a_superseded_attempts_late_outcome_changes_nothing() -> None:
    task = make_task()
    first = begin(task, 0.0)
    task.lose(first, "silent", 0.0, WALL)
    second = begin(task, 1.0)
    assert task.end(first, OK, 1.0, WALL) is None
    assert task.lose(first, "again", 1.0, WALL) is None
    assert finish(task, second, 1.0) is not None
    assert task.counts(1.0)[RunState.SUCCEEDED] == 1


def test_a_run_given_back_by_a_stopping_worker_counts_no_attempt() -> None:
    task = make_task()
    task.give_back(begin(task, 0.0), 0.0)
    attempt = begin(task, 0.0)
    assert (attempt.run, attempt.number) == (0, 1)


def test_cancel_ends_running_runs_and_never_starts_the_others() -> None:
    task = make_task(repeats=5)
    first, second = begin(task, 0.0), begin(task, 0.0)
    finish(task, first, 0.0)
    results = task.cancel(WALL)
    assert [(r.run, r.state) for r in results] == [(1, RunState.CANCELLED)]
    assert task.end(second, OK, 1.0, WALL) is None
    assert task.begin(1.0, WALL) is None
    assert task.status(1.0) == "cancelled"
    assert task.counts(1.0) == dict.fromkeys(RunState, 0) | {RunState.SUCCEEDED: 1, RunState.CANCELLED: 4}
    assert task.cancel(WALL) == []


def test_a_result_shows_only_once_it_is_on_disk() -> None:
    task = make_task()
    result = task.end(begin(task, 0.0), OK, 0.0, WALL)
    assert result is not None
    assert task.status(0.0) == "running"
    task.commit(result, WALL)
    assert task.status(0.0) == "succeeded"


@given(st.sets(st.integers(0, 9)), st.integers(1, 10))
def test_after_a_restart_only_the_runs_without_a_result_run(done: set[int], repeats: int) -> None:
    task = make_task(repeats=repeats)
    done = {run for run in done if run < repeats}
    for run in done:
        task.restore(run, RunState.SUCCEEDED)
    begun = []
    while (attempt := task.begin(0.0, WALL)) is not None:
        begun.append(attempt.run)
    assert sorted(begun) == sorted(set(range(repeats)) - done)


def test_after_a_restart_due_times_are_where_they_were() -> None:
    spec = make_task(start_s=10.0, delay_s=5.0, repeats=3).spec
    # The machine was off for 12 s; its new monotonic clock says 100.
    task = Task(spec, number=1, created_at=WALL, now=100.0, wall=WALL + 12.0)
    assert task.next_due() == 98.0
    begin(task, 100.0)
    assert task.next_due() == 103.0


class TaskMachine(RuleBasedStateMachine):
    """Any order of events against a model: no run is lost, none ends twice, counts always add up."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.task = make_task(repeats=6, delay_s=1.0)
        self.attempts: list[Attempt] = []
        self.unwritten: list[RunResult] = []
        self.ended: Counter[int] = Counter()
        self.cancelled = False

    def _take(self, result: RunResult | None) -> None:
        if result is not None:
            self.ended[result.run] += 1
            self.unwritten.append(result)

    @rule(seconds=st.sampled_from([0.0, 0.1, 1.0, 12.0]))
    def pass_time(self, seconds: float) -> None:
        self.now += seconds

    @rule()
    def begin(self) -> None:
        attempt = self.task.begin(self.now, WALL + self.now)
        if attempt is not None:
            assert not self.cancelled
            assert self.ended[attempt.run] == 0
            self.attempts.append(attempt)

    @precondition(lambda self: self.attempts)
    @rule(data=st.data(), reason=st.sampled_from(["", "trap", "crash"]), forget=st.booleans())
    def end(self, data: st.DataObject, reason: str, forget: bool) -> None:
        attempt = data.draw(st.sampled_from(self.attempts))
        self._take(self.task.end(attempt, Outcome(reason=reason), self.now, WALL))
        if forget:  # otherwise the same attempt may answer again, late
            self.attempts.remove(attempt)

    @precondition(lambda self: self.attempts)
    @rule(data=st.data())
    def lose(self, data: st.DataObject) -> None:
        self._take(self.task.lose(data.draw(st.sampled_from(self.attempts)), "gone", self.now, WALL))

    @precondition(lambda self: self.attempts)
    @rule(data=st.data())
    def give_back(self, data: st.DataObject) -> None:
        self.task.give_back(data.draw(st.sampled_from(self.attempts)), self.now)

    @precondition(lambda self: self.unwritten)
    @rule()
    def commit(self) -> None:
        self.task.commit(self.unwritten.pop(0), WALL)

    @rule()
    def cancel(self) -> None:
        if self.now > 5.0:
            had_ended = self.task.has_ended
            for result in self.task.cancel(WALL):
                self._take(result)
            self.cancelled = self.cancelled or not had_ended

    @invariant()
    def counts_add_up_and_nothing_ends_twice(self) -> None:
        assert sum(self.task.counts(self.now).values()) == 6
        assert all(count >= 0 for count in self.task.counts(self.now).values())
        assert all(count == 1 for run, count in self.ended.items() if count)

    def teardown(self) -> None:
        """Whatever happened, letting everything finish finishes everything."""
        while not self.task.has_ended:
            due = self.task.next_due()
            self.now = max(self.now, due) if due is not None else self.now
            if (attempt := self.task.begin(self.now, WALL)) is not None:
                self.attempts.append(attempt)
            for attempt in self.attempts:
                self._take(self.task.end(attempt, OK, self.now, WALL))
            while self.unwritten:
                self.task.commit(self.unwritten.pop(), WALL)
        assert self.cancelled or set(+self.ended) == set(range(6))


TestTaskMachine = TaskMachine.TestCase
TestTaskMachine.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)


@pytest.mark.parametrize(("run", "state"), [(0, "running"), (1, "queued"), (3, "scheduled")])
def test_each_run_without_a_result_has_a_state(run: int, state: str) -> None:
    task = make_task(repeats=5, delay_s=1.0)
    begin(task, 0.0)
    assert task.state_of(run, 2.0) == state
