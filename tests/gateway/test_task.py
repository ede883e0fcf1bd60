"""A task's state machine: what is due when, what is retried, what ends how. No loop, no disk, no clock."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from ww.gateway.task import (
    RULES,
    Attempt,
    Demand,
    Effects,
    Event,
    Outcome,
    Policy,
    RunResult,
    RunState,
    Spec,
    Task,
)

OK = Outcome(result="1")
WALL = 1_000_000.0


def make_task(**values: object) -> Task:
    base: dict[str, object] = {"id": "t", "module": "0" * 64, "kind": "function", "entry": "run", "duration_s": 5.0}
    base |= {"memory_bytes": 1 << 20, "output_bytes": 100}
    spec = Spec(**(base | values))  # type: ignore[arg-type]
    return Task(spec, number=1, created_at=WALL, now=0.0, wall=WALL)


def begin(task: Task, now: float) -> Attempt:
    (attempt,) = task.begin(now, WALL + now)
    return attempt


def finish(task: Task, attempt: Attempt, now: float, outcome: Outcome = OK) -> RunResult | None:
    result = task.end(attempt, outcome, now, WALL + now).result
    if result is not None:
        task.commit([result], WALL + now)
    return result


def test_runs_are_due_by_start_and_delay() -> None:
    task = make_task(start_s=1.0, delay_s=2.0, repeats=3)
    assert task.next_due() == 1.0
    assert task.begin(0.5, WALL + 0.5) == []
    assert task.status(0.5) == "scheduled"
    runs = []
    for now in (1.0, 3.0, 5.0):
        attempt = begin(task, now)
        assert attempt.queued_at == WALL + now
        runs.append(attempt.run)
        assert task.begin(now, WALL + now) == []
        finish(task, attempt, now)
    assert runs == [0, 1, 2]
    assert task.status(5.0) == "succeeded"
    assert task.next_due() is None


def test_without_delay_all_runs_are_due_at_once() -> None:
    task = make_task(repeats=4)
    assert [begin(task, 0.0).run for _ in range(4)] == [0, 1, 2, 3]
    assert task.begin(0.0, WALL) == []


def test_a_million_repeats_cost_nothing_before_they_run() -> None:
    task = make_task(repeats=1_000_000_000, delay_s=1.0)
    assert task.counts(10.0)[RunState.QUEUED] == 11
    assert task.counts(10.0)[RunState.SCHEDULED] == 1_000_000_000 - 11


def test_a_lost_attempt_is_tried_again_after_a_growing_backoff_until_there_were_too_many() -> None:
    task = make_task()
    now, waits = 0.0, []
    for number in range(1, Policy().attempts_max + 1):
        attempt = begin(task, now)
        assert attempt.number == number
        result = task.lose(attempt, "gone", now, WALL).result
        if number < Policy().attempts_max:
            assert result is None
            due = task.next_due()
            assert due is not None
            waits.append(due - now)
            now = due
    assert result is not None
    assert (result.state, result.outcome.reason, result.attempts) == (RunState.FAILED, "lost", Policy().attempts_max)
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
    assert task.end(first, OK, 1.0, WALL).result is None
    assert task.lose(first, "again", 1.0, WALL).result is None
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
    assert task.end(second, OK, 1.0, WALL).result is None
    assert task.begin(1.0, WALL) == []
    assert task.status(1.0) == "cancelled"
    assert task.counts(1.0) == dict.fromkeys(RunState, 0) | {RunState.SUCCEEDED: 1, RunState.CANCELLED: 4}
    assert task.cancel(WALL) == []


def test_a_result_shows_only_once_it_is_on_disk() -> None:
    task = make_task()
    result = task.end(begin(task, 0.0), OK, 0.0, WALL).result
    assert result is not None
    assert task.status(0.0) == "running"
    task.commit([result], WALL)
    assert task.status(0.0) == "succeeded"


@given(st.sets(st.integers(0, 9)), st.integers(1, 10))
def test_after_a_restart_only_the_runs_without_a_result_run(done: set[int], repeats: int) -> None:
    task = make_task(repeats=repeats)
    done = {run for run in done if run < repeats}
    for run in done:
        task.restore(run, RunState.SUCCEEDED)
    begun = []
    while attempts := task.begin(0.0, WALL, 3):
        begun += [attempt.run for attempt in attempts]
    assert begun == sorted(set(range(repeats)) - done)


def test_after_a_restart_due_times_are_where_they_were() -> None:
    spec = make_task(start_s=10.0, delay_s=5.0, repeats=3).spec
    # The machine was off for 12 s; its new monotonic clock says 100.
    task = Task(spec, number=1, created_at=WALL, now=100.0, wall=WALL + 12.0)
    assert task.next_due() == 98.0
    begin(task, 100.0)
    assert task.next_due() == 103.0


class ModelRun:
    """What a run of the model below may still do: written from docs/semantics.md, not from the code."""

    def __init__(self) -> None:
        self.attempts: list[Attempt] = []
        self.lost = self.crashed = self.failed = 0
        self.end: str | None = None

    def end_with(self, state: str) -> None:
        self.end = state
        self.attempts = []


REPEATS = 6
RETRIES = 1


class TaskMachine(RuleBasedStateMachine):
    """Any order of events against a model: no run is lost, none ends twice or otherwise than the model says."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.task = make_task(repeats=REPEATS, delay_s=1.0, retries=RETRIES)
        self.runs = [ModelRun() for _ in range(REPEATS)]
        self.attempts: list[Attempt] = []
        self.unwritten: list[RunResult] = []
        self.written: dict[int, str] = {}
        self.cancelled = False

    def _take(self, attempt: Attempt, effects: Effects, model: ModelRun, others: list[Attempt]) -> None:
        """Compare what followed with what the model says."""
        assert (effects.result.state if effects.result else None) == model.end
        assert list(effects.stop) == (others if model.end else [])
        if effects.result is not None:
            assert effects.result.run == attempt.run
            self.unwritten.append(effects.result)

    @rule(seconds=st.sampled_from([0.0, 0.1, 1.0, 12.0]))
    def pass_time(self, seconds: float) -> None:
        self.now += seconds

    @rule(count=st.integers(1, REPEATS))
    def begin(self, count: int) -> None:
        attempts = self.task.begin(self.now, WALL + self.now, count)
        assert len(attempts) <= count
        for attempt in attempts:
            model = self.runs[attempt.run]
            assert not self.cancelled
            assert model.end is None
            assert not model.attempts
            model.attempts.append(attempt)
            self.attempts.append(attempt)

    @precondition(lambda self: self.attempts)
    @rule(data=st.data())
    def begin_again(self, data: st.DataObject) -> None:
        first = data.draw(st.sampled_from(self.attempts))
        model = self.runs[first.run]
        second = self.task.begin_again(first, self.now, WALL + self.now)
        assert (second is not None) == (model.attempts == [first])
        if second is not None:
            assert second.run == first.run
            model.attempts.append(second)
            self.attempts.append(second)

    @precondition(lambda self: self.attempts)
    @rule(data=st.data(), reason=st.sampled_from(["", "trap", "crash"]))
    def end(self, data: st.DataObject, reason: str) -> None:
        attempt = data.draw(st.sampled_from(self.attempts))  # it may have ended before: then this is a late answer
        model = self.runs[attempt.run]
        effects = self.task.end(attempt, Outcome(reason=reason), self.now, WALL)
        if attempt not in model.attempts:
            assert effects == Effects()
            return
        model.attempts.remove(attempt)
        others = list(model.attempts)
        model.crashed += reason == "crash"
        model.failed += reason == "trap"
        if not reason:
            model.end_with("succeeded")
        elif model.crashed == 2 or model.failed > RETRIES:
            model.end_with("failed")
        self._take(attempt, effects, model, others)

    @precondition(lambda self: self.attempts)
    @rule(data=st.data())
    def lose(self, data: st.DataObject) -> None:
        attempt = data.draw(st.sampled_from(self.attempts))
        model = self.runs[attempt.run]
        effects = self.task.lose(attempt, "gone", self.now, WALL)
        if attempt not in model.attempts:
            assert effects == Effects()
            return
        model.attempts.remove(attempt)
        others = list(model.attempts)
        model.lost += 1
        if model.lost == 5:
            model.end_with("failed")
        self._take(attempt, effects, model, others)

    @precondition(lambda self: self.attempts)
    @rule(data=st.data())
    def give_back(self, data: st.DataObject) -> None:
        attempt = data.draw(st.sampled_from(self.attempts))
        self.task.give_back(attempt, self.now)
        if attempt in self.runs[attempt.run].attempts:
            self.runs[attempt.run].attempts.remove(attempt)

    @precondition(lambda self: self.unwritten)
    @rule()
    def commit(self) -> None:
        result = self.unwritten.pop(0)
        assert result.run not in self.written
        self.written[result.run] = result.state
        self.task.commit([result], WALL)

    @rule()
    def cancel(self) -> None:
        if self.now > 5.0:
            had_ended = self.task.has_ended
            running = [number for number, model in enumerate(self.runs) if model.attempts and not had_ended]
            results = self.task.cancel(WALL)
            assert [(result.run, result.state) for result in results] == [(run, "cancelled") for run in running]
            for run in running:
                self.runs[run].end_with("cancelled")
            self.unwritten += results
            self.cancelled = self.cancelled or not had_ended

    @invariant()
    def what_is_shown_is_what_the_model_says(self) -> None:
        counts = self.task.counts(self.now)
        assert sum(counts.values()) == REPEATS
        assert all(count >= 0 for count in counts.values())
        ends = list(self.written.values())
        assert (counts["succeeded"], counts["failed"]) == (ends.count("succeeded"), ends.count("failed"))
        if not self.cancelled:
            running = sum(bool(model.attempts) for model in self.runs) + len(self.unwritten)
            assert counts["running"] == running
            assert counts["queued"] == self.task.queued(self.now)
        assert set(self.task.active) == {attempt for model in self.runs for attempt in model.attempts}
        for number, model in enumerate(self.runs):
            if model.attempts:
                assert self.task.state_of(number, self.now) == "running"

    def teardown(self) -> None:
        """Whatever happened, letting everything finish finishes everything."""
        while not self.task.has_ended:
            due = self.task.next_due()
            self.now = max(self.now, due) if due is not None else self.now
            self.attempts += self.task.begin(self.now, WALL, REPEATS)
            for attempt in self.attempts:
                if (result := self.task.end(attempt, OK, self.now, WALL).result) is not None:
                    self.unwritten.append(result)
            while self.unwritten:
                result = self.unwritten.pop()
                assert result.run not in self.written
                self.written[result.run] = result.state
                self.task.commit([result], WALL)
        assert self.cancelled or set(self.written) == set(range(REPEATS))


TestTaskMachine = TaskMachine.TestCase
TestTaskMachine.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)


def test_the_rules_say_what_happens_to_every_run_that_has_begun() -> None:
    """Each event leads somewhere from a state in which it can come, and from no state in which it cannot."""
    begun = {RunState.QUEUED, RunState.RUNNING}
    assert {state for state, _ in RULES} == begun
    assert {event for state, event in RULES if state is RunState.RUNNING} == set(Event) - {Event.GONE}
    assert {event for state, event in RULES if state is RunState.QUEUED} == {Event.BEGIN, Event.CANCEL, Event.GONE}
    assert {rule.spends for rule in RULES.values()} == {"", "failures", "crashes", "losses"}
    assert all(rule.broke is RunState.FAILED for rule in RULES.values())


def test_a_guests_failure_is_tried_again_as_often_as_the_user_asks() -> None:
    task = make_task(retries=2)
    now, trap = 0.0, Outcome(reason="trap")
    for number in (1, 2, 3):
        attempt = begin(task, now)
        assert attempt.number == number
        result = finish(task, attempt, now, trap)
        now = task.next_due() or now
    assert result is not None
    assert (result.state, result.attempts, result.outcome.reason) == (RunState.FAILED, 3, "trap")


def test_losses_do_not_use_up_what_the_user_grants_the_guest() -> None:
    task = make_task(retries=1)
    now = 0.0
    for event in ("lose", "trap", "lose", "lose"):
        attempt = begin(task, now)
        if event == "lose":
            assert task.lose(attempt, "gone", now, WALL).result is None
        else:
            assert finish(task, attempt, now, Outcome(reason="trap")) is None
        now = task.next_due() or now
    result = finish(task, begin(task, now), now)
    assert result is not None
    assert (result.state, result.attempts) == (RunState.SUCCEEDED, 5)


def test_of_two_attempts_the_first_result_counts_and_the_other_is_stopped() -> None:
    task = make_task()
    first = begin(task, 0.0)
    second = task.begin_again(first, 9.0, WALL + 9.0)
    assert second is not None
    assert task.begin_again(first, 9.0, WALL + 9.0) is None, "one straggler, one second attempt"
    result, stop, _ = task.end(second, OK, 10.0, WALL + 10.0)
    assert result is not None
    assert (result.attempts, stop) == (2, (first,))
    assert task.end(first, OK, 10.0, WALL + 10.0) == Effects()


def test_a_task_that_nobody_can_serve_says_so_and_can_be_given_up() -> None:
    task = make_task(repeats=3, start_s=1.0)
    task.demand = Demand(task.spec.need, reason="no connected worker has the labels gpu=yes")
    assert (task.status(0.0), task.reason(0.0)) == ("scheduled", "")
    assert (task.status(1.0), task.reason(1.0)) == ("unsatisfiable", "no connected worker has the labels gpu=yes")
    attempt = begin(task, 1.0)
    assert (task.status(1.0), task.reason(1.0)) == ("running", ""), "a worker that has left meanwhile"
    finish(task, attempt, 2.0)
    task.fail("unsatisfiable: no gpu", WALL + 3.0)
    assert (task.status(3.0), task.reason(3.0), task.next_due()) == ("failed", "unsatisfiable: no gpu", None)
    assert task.counts(3.0) == dict.fromkeys(RunState, 0) | {RunState.SUCCEEDED: 1, RunState.FAILED: 2}
    assert task.state_of(2, 3.0) is RunState.FAILED


def test_a_clock_that_was_set_back_while_the_gateway_was_off_delays_nothing_further() -> None:
    spec = make_task(start_s=10.0).spec
    task = Task(spec, number=1, created_at=WALL, now=100.0, wall=WALL - 86_400.0)
    assert task.next_due() == 110.0


@pytest.mark.parametrize(("run", "state"), [(0, "running"), (1, "queued"), (3, "scheduled")])
def test_each_run_without_a_result_has_a_state(run: int, state: str) -> None:
    task = make_task(repeats=5, delay_s=1.0)
    begin(task, 0.0)
    assert task.state_of(run, 2.0) == state


def test_the_size_of_a_task_counts_what_its_many_small_texts_take() -> None:
    plain = make_task().spec
    many = replace(plain, args=tuple(f"{n:02}" for n in range(90)), labels=(("k", "v" * 256),), artifacts=("a" * 500,))
    assert many.size_bytes - plain.size_bytes > 90 * 56 + 256 + 500
