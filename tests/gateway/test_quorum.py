"""Tasks whose runs several peers vote on: who is asked, what decides, who is outvoted. No loop, no disk, no clock."""

import hashlib
from collections import defaultdict

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from ww.gateway.poll import ballot
from ww.gateway.quorum import ReplicatedTask, make_task
from ww.gateway.task import Attempt, Effects, Outcome, RunResult, RunState, Spec, Task
from ww.identity import PeerId

WALL = 1_000_000.0
TRUE, FALSE = Outcome(result="1"), Outcome(result="2")


def replicated(replicas: int = 3, quorum: int = 2, **values: object) -> ReplicatedTask:
    base: dict[str, object] = {"id": "t", "module": "0" * 64, "kind": "function", "entry": "run", "duration_s": 5.0}
    base |= {"memory_bytes": 1 << 20, "output_bytes": 100, "deterministic": True}
    spec = Spec(**(base | {"replicas": replicas, "quorum": quorum} | values))  # type: ignore[arg-type]
    task = make_task(spec, number=1, created_at=WALL, now=0.0, wall=WALL)
    assert isinstance(task, ReplicatedTask)
    return task


def begin(task: Task, peer: str, count: int = 1, now: float = 0.0) -> list[Attempt]:
    return task.begin(now, WALL + now, count, peer)


def vote(task: Task, peer: str, outcome: Outcome = TRUE) -> Effects:
    """Have a peer take the next run, and say at once how it ended."""
    (attempt,) = begin(task, peer)
    return task.end(attempt, outcome, 0.0, WALL)


def test_a_run_counts_when_a_quorum_says_the_same() -> None:
    task = replicated()
    assert vote(task, "a") == Effects()
    assert begin(task, "a") == [], "one peer votes once"
    assert task.counts(0.0)[RunState.QUEUED] == 1
    (late,) = begin(task, "b")
    assert task.counts(0.0)[RunState.RUNNING] == 1
    (spare,) = begin(task, "c")
    assert begin(task, "d") == [], "three replicas are asked"
    effects = task.end(late, TRUE._replace(wall_s=9.0, fuel=7, detail="other words"), 1.0, WALL + 1)
    assert effects.stop == (spare,)
    result = effects.result
    assert result is not None
    assert (result.state, result.worker, result.outcome, result.attempts) == (RunState.SUCCEEDED, "a", TRUE, 3)
    assert task.end(spare, FALSE, 1.0, WALL) == Effects(), "it does not count any more"
    assert task.next_due() is None
    task.commit([result], WALL + 1)
    assert task.status(1.0) == "succeeded"


def test_further_peers_are_asked_while_no_quorum_agrees_and_the_outvoted_are_told_of() -> None:
    task = replicated(replicas=2, quorum=2)
    vote(task, "liar", FALSE)
    vote(task, "a")
    effects = vote(task, "b")
    assert effects.outvoted == ("liar",)
    assert effects.result is not None
    assert effects.result.worker == "a"


def test_of_replicas_without_a_quorum_the_first_one_counts() -> None:
    task = replicated(replicas=3, quorum=1)
    first, second, third = (begin(task, peer)[0] for peer in "abc")
    effects = task.end(second, TRUE, 1.0, WALL)
    assert effects.result is not None
    assert effects.result.worker == "b"
    assert (effects.stop, effects.outvoted) == ((first, third), ())


def test_a_run_fails_when_so_many_disagree_that_no_quorum_can_agree() -> None:
    task = replicated(replicas=3, quorum=2)  # of seven at most
    for number in range(6):
        assert vote(task, f"p{number}", Outcome(result=str(number))).result is None
    effects = vote(task, "p6", Outcome(result="6"))
    assert effects.result is not None
    assert (effects.result.state, effects.result.outcome.reason) == (RunState.FAILED, "disagreement")
    assert effects.result.outcome.detail == "7 peers gave 7 different results, no 2 the same"
    assert effects.outvoted == ()


def test_a_run_does_not_ask_in_vain() -> None:
    task = replicated(replicas=5, quorum=5)  # of nine at most
    for number in range(5):
        assert vote(task, f"p{number}", Outcome(result=str(number))).result is None, "the other four may say as it does"
    assert vote(task, "p5", Outcome(result="5")).result is not None, "of the other three no five can"


@pytest.mark.parametrize("reason", ["deadline", "cpu", "memory", "crash", "compile", "fuel"])
def test_what_depends_on_the_machine_wins_by_its_reason_and_is_held_against_nobody(reason: str) -> None:
    task = replicated()
    bad = Outcome(reason=reason)
    vote(task, "quick", TRUE)
    vote(task, "a", bad._replace(stdout=b"a few", detail="by its side"))
    effects = vote(task, "b", bad._replace(stdout=b"a few more"))
    assert effects.result is not None
    assert (effects.result.state, effects.outvoted) == (RunState.FAILED, ())
    assert (effects.result.worker, effects.result.outcome.stdout) == ("b", b"a few more")
    other = replicated()
    vote(other, "slow", bad)
    vote(other, "a")
    assert vote(other, "b").outvoted == ()


def test_how_deep_calls_may_go_is_each_engines_own() -> None:
    deep = Outcome(reason="trap", detail="stack_overflow")
    task = replicated()
    vote(task, "deeper", TRUE)
    vote(task, "a", deep._replace(stdout=b"a few"))
    effects = vote(task, "b", deep)
    assert effects.result is not None
    assert (effects.result.outcome.reason, effects.outvoted) == ("trap", ())
    other = replicated()
    vote(other, "flat", deep)
    vote(other, "a")
    assert vote(other, "b").outvoted == ()
    assert ballot(deep) != ballot(Outcome(reason="trap", detail="unreachable"))


@pytest.mark.parametrize(
    "difference",
    [{"reason": "exit"}, {"result": "2"}, {"exit_code": 1}, {"stdout": b"x"}, {"stderr": b"x"}, {"artifacts": "ab"},
     {"stdout_truncated": True}, {"stderr_truncated": True}],
)  # fmt: skip
def test_whatever_a_guest_gives_is_compared(difference: dict[str, object]) -> None:
    assert ballot(TRUE._replace(**difference)) != ballot(TRUE)  # type: ignore[arg-type]


def test_output_that_is_parted_otherwise_is_another_one() -> None:
    assert ballot(Outcome(stdout=b"ab")) != ballot(Outcome(stdout=b"a", stderr=b"b"))


def test_long_output_is_no_digest_of_it() -> None:
    long = b"x" * 33
    assert ballot(Outcome(stdout=long)) == ballot(Outcome(stdout=long))
    assert ballot(Outcome(stdout=long)) != ballot(Outcome(stdout=hashlib.sha256(long).digest()))


def test_what_measures_a_machine_is_not_compared() -> None:
    measured = TRUE._replace(
        detail="words", wall_s=1.0, cpu_s=1.0, memory_bytes=1, memory_limit_bytes=1, fuel=1, queue_s=1.0, compile_s=1.0,
        instantiate_s=1.0, files_bytes=1, artifacts_bytes=1,
    )  # fmt: skip
    assert ballot(measured) == ballot(TRUE)


def test_the_output_of_the_first_is_recorded_though_it_is_not_kept() -> None:
    task = replicated()
    said = Outcome(stdout=b"out", stderr=b"err", exit_code=0)
    vote(task, "a", said._replace(wall_s=1.0))
    effects = vote(task, "b", said._replace(wall_s=2.0))
    assert effects.result is not None
    assert effects.result.outcome == said._replace(wall_s=1.0)


def test_a_lost_vote_is_asked_for_again_after_a_while_and_counts_as_none() -> None:
    task = replicated(replicas=2, quorum=2)
    (lost,) = begin(task, "a")
    assert task.lose(lost, "gone", 0.0, WALL) == Effects()
    assert begin(task, "b") == [], "not at once"
    due = task.next_due()
    assert due is not None
    assert 0.0 < due <= 0.1
    (first,) = begin(task, "b", now=due)
    (second,) = begin(task, "a", now=due)
    assert task.end(first, TRUE, due, WALL).result is None
    assert task.end(second, TRUE, due, WALL).result is not None


def test_a_run_that_is_lost_too_often_fails_and_stops_the_others_that_are_at_it() -> None:
    task = replicated()
    (kept,) = begin(task, "a")
    now = 0.0
    for number in range(5):
        (attempt,) = begin(task, "b", now=now)
        effects = task.lose(attempt, "gone", now, WALL)
        now += 60.0
        assert (effects.result is None) == (number < 4)
    assert effects.result is not None
    assert effects.result.outcome.reason == "lost"
    assert effects.stop == (kept,)


def test_what_comes_back_unbegun_is_wanted_at_once_of_the_same_peer_too() -> None:
    task = replicated(replicas=2)
    (attempt,) = begin(task, "a")
    task.give_back(attempt, 0.0)
    assert len(begin(task, "a")) == 1


def test_peers_go_ahead_of_slow_ones_but_not_for_ever() -> None:
    task = replicated(repeats=100_000)
    assert len(begin(task, "slow", 64)) == 64
    runs = 0
    while attempts := begin(task, "quick", 64):
        for attempt in attempts:
            task.end(attempt, TRUE, 0.0, WALL)
        runs += len(attempts)
    assert 1024 <= runs < 1024 + 2 * 64
    assert task.targets([], 0.0) == set()
    third = begin(task, "third", 64)
    results = [task.end(attempt, TRUE, 0.0, WALL).result for attempt in third]
    assert all(results)
    assert begin(task, "quick", 64), "those that were decided make room"


def test_what_no_quorum_could_agree_on_goes_before_new_runs_and_those_before_spare_votes() -> None:
    task = replicated(repeats=3)
    assert [a.run for a in begin(task, "a", 2)] == [0, 1]
    assert [a.run for a in begin(task, "b", 3)] == [0, 1, 2]
    assert [a.run for a in begin(task, "c", 3)] == [2, 0, 1]


def test_a_peer_that_is_refused_has_not_voted() -> None:
    task = replicated(repeats=2)
    vote(task, "liar", FALSE)
    vote(task, "liar", FALSE)
    vote(task, "a", TRUE)
    task.drop_votes("liar")
    assert vote(task, "b", FALSE).result is None, "the liar's would have been the other vote for it"


def test_a_task_starves_when_nobody_is_left_to_ask() -> None:
    a, b, c = (PeerId(bytes([n]) * 32) for n in range(3))
    task = replicated()
    vote(task, str(a), TRUE)
    assert task.is_starved([a], 0.0)
    assert not task.is_starved([a, b], 0.0)
    vote(task, str(b), FALSE)
    assert task.is_starved([a, b], 0.0)
    assert task.targets([a, b, c], 0.0) == {c}


def test_a_cancelled_task_has_nothing_to_give() -> None:
    task = replicated(repeats=10)
    vote(task, "a")
    begin(task, "b", 2)
    assert [result.run for result in task.cancel(WALL)] == [0, 1]
    assert (task.next_due(), begin(task, "c", 5)) == (None, [])
    assert task.counts(0.0)[RunState.CANCELLED] == 10


REPEATS, PEERS, LIARS = 12, 6, 2


class Votes(RuleBasedStateMachine):
    """Six peers, of which up to two lie, each in its own way or both in the same."""

    def __init__(self) -> None:
        super().__init__()
        self.task = replicated(replicas=3, quorum=3, repeats=REPEATS)
        self.now = 0.0
        self.under_way: dict[Attempt, str] = {}
        self.said: defaultdict[int, dict[str, Outcome]] = defaultdict(dict)
        self.decided: dict[int, RunResult] = {}
        self.dropped: set[str] = set()

    @rule(peer=st.integers(0, PEERS - 1), count=st.integers(1, 5))
    def begin(self, peer: int, count: int) -> None:
        name = f"p{peer}"
        if name in self.dropped:
            return
        begun = self.task.begin(self.now, WALL + self.now, count, name)
        assert len(begun) <= count
        for attempt in begun:
            at = [a for a, by in self.under_way.items() if by == name and a.run == attempt.run]
            assert not at, "it is at it already"
            assert name not in self.said[attempt.run]
            assert attempt.run not in self.decided
            self.under_way[attempt] = name

    @precondition(lambda self: self.under_way)
    @rule(data=st.data(), together=st.booleans())
    def say(self, data: st.DataObject, together: bool) -> None:
        attempt = data.draw(st.sampled_from(list(self.under_way)))
        peer = self.under_way.pop(attempt)
        is_lie = peer in {f"p{n}" for n in range(LIARS)} and data.draw(st.booleans())
        outcome = Outcome(result=("lie" if together else peer)) if is_lie else TRUE
        is_late = attempt.run in self.decided
        effects = self.task.end(attempt, outcome, self.now, WALL)
        if is_late:
            assert effects == Effects()
            return
        self.said[attempt.run][peer] = outcome
        self.note(attempt.run, effects)

    def note(self, run: int, effects: Effects) -> None:
        said = self.said[run]
        same = [peer for peer, each in said.items() if each == TRUE]
        assert (effects.result is not None) == (len(same) >= 3), "three honest ones decide, and nobody else"
        if effects.result is None:
            assert effects.outvoted == ()
            return
        assert run not in self.decided
        self.decided[run] = effects.result
        assert effects.result.outcome == TRUE
        assert effects.result.worker in same
        assert set(effects.outvoted) == set(said) - set(same)
        for attempt in effects.stop:
            assert attempt in self.under_way

    @precondition(lambda self: self.under_way)
    @rule(data=st.data(), back=st.booleans())
    def lose(self, data: st.DataObject, back: bool) -> None:
        attempt = data.draw(st.sampled_from(list(self.under_way)))
        if self.task._policy.attempts_max - 1 <= self.losses_of(attempt):
            back = True
        del self.under_way[attempt]
        if back:
            self.task.give_back(attempt, self.now)
        else:
            assert self.task.lose(attempt, "gone", self.now, WALL) == Effects()

    def losses_of(self, attempt: Attempt) -> int:
        run = self.task._runs.get(attempt.run)
        return run.losses if run is not None else 0

    @rule(seconds=st.floats(0.0, 20.0))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @precondition(lambda self: not self.dropped)
    @rule(liar=st.integers(0, LIARS - 1))
    def refuse(self, liar: int) -> None:
        name = f"p{liar}"
        self.dropped.add(name)
        for attempt in [a for a, by in self.under_way.items() if by == name]:
            del self.under_way[attempt]
            self.task.lose(attempt, "refused", self.now, WALL)
        self.task.drop_votes(name)
        for run, said in self.said.items():
            if run not in self.decided:
                said.pop(name, None)

    @invariant()
    def counts_add_up(self) -> None:
        counts = self.task.counts(self.now)
        assert sum(counts.values()) == REPEATS
        running = {attempt.run for attempt in self.under_way} - set(self.decided)
        assert counts[RunState.RUNNING] == len(running | set(self.decided)), "what is not on disk yet is running"

    def teardown(self) -> None:
        """The honest ones bring it to its end."""
        for _ in range(20 * REPEATS):
            for attempt, peer in list(self.under_way.items()):
                del self.under_way[attempt]
                is_late = attempt.run in self.decided
                effects = self.task.end(attempt, TRUE, self.now, WALL)
                if not is_late:
                    self.said[attempt.run][peer] = TRUE
                    self.note(attempt.run, effects)
            self.now += 10.0
            for peer in range(LIARS, PEERS):
                for attempt in self.task.begin(self.now, WALL, 3, f"p{peer}"):
                    self.under_way[attempt] = f"p{peer}"
        assert set(self.decided) == set(range(REPEATS))
        self.task.commit(self.decided.values(), WALL)
        assert self.task.status(self.now) == "succeeded"


TestVotes = Votes.TestCase
TestVotes.settings = settings(max_examples=100, stateful_step_count=50, deadline=None)
