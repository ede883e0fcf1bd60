"""Tasks whose runs are given to several peers, of which a quorum has to say the same.

Holds the state machine of task.py where it differs for these: takes the same events, knows no loop, disk or clock
either. What is compared: poll.py; whom a run goes to next: wants.py. In words: docs/semantics.md. A peer is a key: its
connections and slots count once.
"""

import heapq
from collections.abc import Collection
from typing import Final

from ww.gateway.poll import Vote, is_claim
from ww.gateway.rules import RULES, Event, Policy
from ww.gateway.spec import Outcome, RunResult, RunState, Spec
from ww.gateway.task import Attempt, Effects, Task
from ww.gateway.wants import PolledRun, Wants
from ww.identity import PeerId

# A task goes on to further runs until so many wait for a vote that nobody is at.
_SHORT_MAX: Final = 1024
# Peers beyond its replicas that a run is given to while they disagree.
_FURTHER: Final = 4
_NOTHING: Final = Effects()


def make_task(
    spec: Spec, *, number: int, created_at: float, now: float, wall: float, policy: Policy | None = None
) -> Task:
    """Make what a task's spec asks for: see Task."""
    kind = ReplicatedTask if spec.is_replicated else Task
    return kind(spec, number=number, created_at=created_at, now=now, wall=wall, policy=policy)


class ReplicatedTask(Task):
    """A task whose runs are voted on."""

    __slots__ = ("_busy", "_quorum", "_short", "_spare", "_votes_max")

    def __init__(
        self, spec: Spec, *, number: int, created_at: float, now: float, wall: float, policy: Policy | None = None
    ) -> None:
        super().__init__(spec, number=number, created_at=created_at, now=now, wall=wall, policy=policy)
        self._quorum, self._votes_max = spec.quorum, spec.replicas + _FURTHER
        self._busy = 0  # of the runs that have begun, those with attempts under way
        self._short = Wants()  # those that no quorum could agree on with the attempts under way
        self._spare = Wants()  # those that one could, and that have had less than their replicas

    # Events.

    def begin(self, now: float, wall: float, count: int = 1, worker: str = "") -> list[Attempt]:
        """Begin attempts of at most count runs on that peer: first of those that want it, then of such as nobody began;
        and where there are none, of those that others are at."""
        begun: list[Attempt] = []
        if self.has_ended:
            return begun
        self._wake_up(now)
        while len(begun) < count and (run := self._short.next_for(worker)) is not None:
            if run.shuns and begun:
                return begun  # it was lost before: it is to take no others with it
            begun.append(self._ask(run, worker, now, wall))
            if run.shuns:
                return begun
        while len(begun) < count and self._may_go_ahead(now):
            due = self._first_due + self._cursor * self.spec.delay_s
            run = PolledRun(self._cursor, wall - (now - due), due)
            self._runs[run.number] = run
            self._cursor += 1
            if self._done:
                self._skip_done()
            begun.append(self._ask(run, worker, now, wall))
        while len(begun) < count and (run := self._spare.next_for(worker)) is not None:
            begun.append(self._ask(run, worker, now, wall))
        return begun

    def begin_again(self, attempt: Attempt, now: float, wall: float) -> Attempt | None:
        """Return None: several peers are at a run anyhow."""
        return None

    def end(self, attempt: Attempt, outcome: Outcome, now: float, wall: float) -> Effects:
        """Take a peer's vote; returns as Task.end does."""
        if (run := self._let_go(attempt)) is None:
            return _NOTHING
        if not outcome.reason:
            self._time(outcome)
        side = run.poll.cast(attempt.worker, outcome, attempt.started_at)
        if len(side) >= self._quorum:
            return self._decide(run, side, outcome, wall)
        if run.poll.most + self._votes_max - run.poll.count < self._quorum:
            said = f"{run.poll.count} peers gave {run.poll.sides} different results, no {self._quorum} the same"
            state = RULES[RunState.RUNNING, Event.DISAGREED].to
            return self._close(run, state, Outcome(reason="disagreement", detail=said), attempt, wall)
        assert RULES[RunState.RUNNING, Event.VOTED].to is RunState.QUEUED
        self._sort_in(run)
        return _NOTHING

    def lose(self, attempt: Attempt, why: str, now: float, wall: float) -> Effects:
        """Note that a peer will not vote. Returns as `end` does."""
        if (run := self._let_go(attempt)) is None:
            return _NOTHING
        run.losses += 1
        if run.losses >= self._policy.attempts_max:
            to = RULES[RunState.RUNNING, Event.LOST].broke
            return self._close(run, to, Outcome(reason="lost", detail=why), attempt, wall)
        run.asked.remove(attempt.worker)
        run.shuns = attempt.worker
        if not run.is_waiting:
            run.is_waiting, run.due = True, now + self._backoff(run.losses)
            heapq.heappush(self._again, run)
        self._sort_in(run)
        return _NOTHING

    def give_back(self, attempt: Attempt, now: float) -> None:
        """Put a run back that the peer did not begin, as if it had not been given it."""
        if (run := self._let_go(attempt)) is not None:
            run.tries -= 1
            run.asked.remove(attempt.worker)
            self._sort_in(run, anew=True)

    def drop_votes(self, peer: str) -> None:
        """Have the runs on which no quorum agrees yet voted on as if that peer had not."""
        for run in list(self._runs.values()):
            assert isinstance(run, PolledRun)
            if run.poll.drop(peer):
                run.asked.remove(peer)
                self._sort_in(run, anew=True)

    def cancel(self, wall: float) -> list[RunResult]:
        results = super().cancel(wall)
        self._forget_all()
        return results

    def fail(self, reason: str, wall: float) -> None:
        super().fail(reason, wall)
        self._forget_all()

    # What is so.

    def next_due(self) -> float | None:
        if self.has_ended:
            return None
        dues = [run.due for wants in (self._short, self._spare) if (run := wants.oldest()) is not None]
        if self._cursor < self.spec.repeats and len(self._short) < _SHORT_MAX:
            dues.append(self._first_due + self._cursor * self.spec.delay_s)
        if self._again:
            dues.append(self._again[0].due)
        return min(dues, default=None)

    def targets(self, able: Collection[PeerId], now: float) -> Collection[PeerId] | None:
        """Return which of those peers a run may go to now; None: any may have one."""
        self._wake_up(now)
        if self._may_go_ahead(now):
            return None
        return {peer_id for peer_id in able if self._next_for(str(peer_id)) is not None}

    def serves(self, peer_id: PeerId, now: float) -> bool:
        """Whether a run may go to that peer now."""
        self._wake_up(now)
        return self._may_go_ahead(now) or self._next_for(str(peer_id)) is not None

    def is_starved(self, able: Collection[PeerId], now: float) -> bool:
        """Whether nothing is under way, and nothing can be, for want of peers other than those."""
        return self.waits_for_votes and not any(self.serves(peer_id, now) for peer_id in able)

    @property
    def waits_for_votes(self) -> bool:
        """Whether runs want further votes, and none is under way or will be without a peer that is asked."""
        return len(self._short) > 0 and not (self._attempts or self._again)

    @property
    def shuns(self) -> str:
        """Nobody: who lost a run may be given another."""
        return ""

    def to_give(self, now: float) -> int:
        not_begun = self.spec.repeats - self._cursor - self._not_due(now)
        return not_begun * self._quorum + len(self._short) + len(self._spare)

    # The rules.

    def _may_go_ahead(self, now: float) -> bool:
        if self._cursor >= self.spec.repeats or len(self._short) >= _SHORT_MAX or self.has_ended:
            return False
        return self._first_due + self._cursor * self.spec.delay_s <= now

    def _next_for(self, peer: str) -> PolledRun | None:
        return self._short.next_for(peer) or self._spare.next_for(peer)

    def _ask(self, run: PolledRun, peer: str, now: float, wall: float) -> Attempt:
        attempt = self._attempt(run, now, wall)
        attempt.worker = peer
        self._busy += len(run.attempts) == 1
        run.asked.append(peer)
        self._sort_in(run)
        return attempt

    def _let_go(self, attempt: Attempt) -> PolledRun | None:
        """Take an attempt off its run, and return that; None when the attempt does not count any more."""
        run = self._attempts.pop(attempt, None)
        if run is None:
            return None
        assert isinstance(run, PolledRun)
        run.attempts.remove(attempt)
        if not run.attempts:
            self._busy -= 1
            run.state = RunState.QUEUED
        return run

    def _sort_in(self, run: PolledRun, *, anew: bool = False) -> None:
        """Put a run where it waits for a further peer, if it does; anew where one may be asked again that was."""
        under_way, wants = len(run.attempts), None
        if not run.is_waiting:
            if run.poll.most + under_way < self._quorum:
                wants = self._short if run.poll.count + under_way < self._votes_max else None
            elif run.poll.count + under_way < self.spec.replicas:
                wants = self._spare
        if run.wants is not wants or anew:
            if wants is not None:
                wants.put(run)
            elif run.wants is not None:
                run.wants.discard(run)

    def _wake_up(self, now: float) -> None:
        """Have those that were lost want a peer again whose time has come."""
        again = self._again
        while again and (again[0].due <= now or self._runs.get(again[0].number) is not again[0]):
            run = heapq.heappop(again)
            assert isinstance(run, PolledRun)
            run.is_waiting = False
            if self._runs.get(run.number) is run:
                self._sort_in(run, anew=True)

    def _decide(self, run: PolledRun, side: list[Vote], outcome: Outcome, wall: float) -> Effects:
        """End a run as a quorum says, the last of whom that was."""
        outvoted = run.poll.outvoted(side)
        # What depends on the machine may have printed less on another.
        first = side[0] if is_claim(outcome) else side[-1]
        won = first.outcome
        if outcome.stdout or outcome.stderr or outcome.artifacts:
            won = won._replace(stdout=outcome.stdout, stderr=outcome.stderr, artifacts=outcome.artifacts)
        rule = RULES[RunState.RUNNING, Event.OK if not won.reason else Event.GUEST_FAILED]
        state = rule.broke if won.reason else rule.to
        attempt = Attempt(self, run.number, run.tries, run.queued_at, 0.0, 0.0, first.started_at, first.peer)
        return self._close(run, state, won, attempt, wall, outvoted)

    def _close(
        self,
        run: PolledRun,
        state: RunState,
        outcome: Outcome,
        attempt: Attempt,
        wall: float,
        outvoted: tuple[str, ...] = (),
    ) -> Effects:
        others = tuple(run.attempts)
        self._busy -= bool(others)
        if run.wants is not None:
            run.wants.discard(run)
        return Effects(self._finish(run, attempt, state, outcome, wall), others, outvoted)

    def _running(self) -> int:
        return self._busy + len(self._ending)

    def _forget_all(self) -> None:
        self._busy = 0
        self._short.clear()
        self._spare.clear()
