"""The state machine of tasks, runs and attempts.

Holds what may happen to a task. Plain classes that take events and `now` and return effects: they know no loop, no
socket, no disk and no clock. Who feeds them: agenda.py and dispatch.py. States in words: docs/semantics.md.

A Task is what a user submits; a Run is one execution of it; an Attempt is one try of a Run on one worker. Runs come
into being when they begin, so a task of a million repeats is a cursor until then.
"""

import heapq
import random
from collections.abc import Collection, Iterable
from typing import Final

from ww.gateway.attempt import Attempt, Demand, Effects, Run
from ww.gateway.rules import RULES, Event, Policy
from ww.gateway.spec import ENDED, Need, Outcome, RunResult, RunState, Spec

__all__ = [
    "ENDED",
    "Attempt",
    "Demand",
    "Effects",
    "Need",
    "Outcome",
    "Policy",
    "RunResult",
    "RunState",
    "Spec",
    "Task",
]

_NOTHING: Final = Effects()
_WELL: Final = RULES[RunState.RUNNING, Event.OK].to
_BEGUN: Final = {state: RULES[state, Event.BEGIN].to for state in (RunState.QUEUED, RunState.RUNNING)}


class Task:
    """One task and the state of its runs. `now` is monotonic, `wall` the time of day, both in seconds."""

    __slots__ = (
        "_again", "_attempts", "_cursor", "_done", "_ending", "_failure", "_first_due", "_mean_bytes", "_mean_s",
        "_policy", "_runs", "_timed", "cancelled_at", "charged_s", "created_at", "demand", "failed", "finished_at",
        "need", "number", "spec", "succeeded",
    )  # fmt: skip

    def __init__(
        self, spec: Spec, *, number: int, created_at: float, now: float, wall: float, policy: Policy | None = None
    ) -> None:
        """Begin at `now`, which is `wall` o'clock, a task submitted at created_at with that number in the store."""
        self.spec = spec
        self.need = spec.need
        self.number = number
        self.created_at = created_at
        self.cancelled_at: float | None = None
        self.finished_at: float | None = None
        self.succeeded = 0
        self.failed = 0
        self.demand: Demand | None = None
        """What it shares with others that need the same; None when nobody looked yet."""
        self.charged_s = 0.0
        """Slot time that it has had, for taking turns."""
        self._policy = policy or Policy()
        # A clock that was set back while the gateway was off delays nothing beyond what was asked for.
        self._first_due = now - max(0.0, wall - created_at) + spec.start_s
        self._cursor = 0
        self._done: set[int] = set()  # runs at or after the cursor that ended before a restart
        self._runs: dict[int, Run] = {}
        self._again: list[Run] = []  # a heap of those that are queued again
        self._attempts: dict[Attempt, Run] = {}
        self._ending: set[int] = set()  # ended, but not on disk yet: shown as running
        self._failure = ""
        self._timed = 0
        self._mean_s = 0.0
        self._mean_bytes = 0.0
        if spec.workers:
            self._make_runs(wall - now)

    # Events.

    def restore(self, run: int, state: RunState) -> None:
        """Tell of a run that had ended before a restart."""
        self._count(state)
        if self.spec.workers:
            self._again.remove(self._runs.pop(run))
            heapq.heapify(self._again)
            return
        self._done.add(run)
        self._skip_done()

    def begin(self, now: float, wall: float, count: int = 1, worker: str = "") -> list[Attempt]:
        """Take the next due runs off the queue, at most count of them; none when none is due.

        One that was lost or crashed goes alone, so that it can take no other with it. Where each run has its worker,
        it is that one's.
        """
        if self.spec.workers:
            return self._begin_of(worker, now, wall)
        begun: list[Attempt] = []
        if self.has_ended:
            return begun
        again, left = self._again, self.spec.repeats
        while again and again[0].due <= now and len(begun) < count:
            if again[0].shuns and begun:
                return begun
            run = heapq.heappop(again)
            begun.append(self._attempt(run, now, wall))
            if run.shuns:
                return begun
        first_due, delay_s = self._first_due, self.spec.delay_s
        while len(begun) < count and self._cursor < left and (due := first_due + self._cursor * delay_s) <= now:
            run = self._runs[self._cursor] = Run(self._cursor, wall - (now - due), due)
            self._cursor += 1
            if self._done:
                self._skip_done()
            begun.append(self._attempt(run, now, wall))
        return begun

    def _begin_of(self, worker: str, now: float, wall: float) -> list[Attempt]:
        due = [run for run in self._again if run.due <= now and self.spec.workers[run.number] == worker]
        if self.has_ended or not due:
            return []
        self._again.remove(due[0])
        heapq.heapify(self._again)
        return [self._attempt(due[0], now, wall)]

    def waits_for(self, now: float) -> set[str]:
        """Return the workers (peer ids) that due runs wait for, where each has its own."""
        return {self.spec.workers[run.number] for run in self._again if run.due <= now}

    def give_up(self, workers: Collection[str], now: float, wall: float) -> list[RunResult]:
        """End the due runs that those workers were to run, which are gone. Return the results, to be put on disk."""
        over = [run for run in self._again if run.due <= now and self.spec.workers[run.number] in workers]
        results = []
        for run in over:
            self._again.remove(run)
            del self._runs[run.number]
            self._ending.add(run.number)
            worker, state = self.spec.workers[run.number], RULES[run.state, Event.GONE].to
            outcome = Outcome(reason="lost", detail="its worker is gone")
            results.append(RunResult(run.number, state, outcome, worker, run.tries, run.queued_at, None, wall))
        heapq.heapify(self._again)
        return results

    def begin_again(self, attempt: Attempt, now: float, wall: float) -> Attempt | None:
        """Begin a second attempt of a run beside one that takes long; None when it has one, or has ended."""
        run = self._attempts.get(attempt)
        if run is None or len(run.attempts) > 1:
            return None
        return self._attempt(run, now, wall)

    def end(self, attempt: Attempt, outcome: Outcome, now: float, wall: float) -> Effects:
        """Take an attempt's outcome.

        A result becomes the run's state by `commit`, once it is on disk. None when the run is tried again, or the
        attempt does not count any more.
        """
        if outcome.reason:
            event = Event.CRASHED if outcome.reason == "crash" else Event.GUEST_FAILED
            return self._happen(attempt, event, outcome, now, wall)
        run = self._attempts.get(attempt)
        if run is None:
            return _NOTHING
        self._time(outcome)
        # As _happen would, for nearly all runs there are.
        others = tuple(a for a in run.attempts if a is not attempt) if len(run.attempts) > 1 else ()
        return tuple.__new__(Effects, (self._finish(run, attempt, _WELL, outcome, wall), others, ()))

    def lose(self, attempt: Attempt, why: str, now: float, wall: float) -> Effects:
        """Note that the worker or the way to it is gone. Returns as `end` does."""
        return self._happen(attempt, Event.LOST, Outcome(reason="lost", detail=why), now, wall)

    def give_back(self, attempt: Attempt, now: float) -> None:
        """Put a run back that no worker began, as if it had not been taken."""
        if (run := self._attempts.get(attempt)) is not None:
            if len(run.attempts) == 1:
                run.tries -= 1
            self._happen(attempt, Event.RETURNED, Outcome(), now, 0.0)

    def commit(self, results: Iterable[RunResult], wall: float) -> None:
        """Make results the states of their runs: they are on disk."""
        states = []
        for run, state, *_ in results:
            self._ending.discard(run)
            states.append(state)
        self.succeeded += states.count(RunState.SUCCEEDED)
        self.failed += states.count(RunState.FAILED)
        if self.finished_at is None and self.succeeded + self.failed == self.spec.repeats:
            self.finished_at = wall

    def cancel(self, wall: float) -> list[RunResult]:
        """End the task. Returns results for the runs under way; the others just never start."""
        if self.has_ended:
            return []
        self.cancelled_at = self.finished_at = wall
        running = sorted((run for run in self._runs.values() if run.attempts), key=lambda run: run.number)
        results = []
        for run in running:
            assert RULES[run.state, Event.CANCEL].to is RunState.CANCELLED
            results.append(self._finish(run, run.attempts[0], RunState.CANCELLED, Outcome(), wall))
        self._runs.clear()
        self._again.clear()
        return results

    def fail(self, reason: str, wall: float) -> None:
        """End a task none of whose runs is under way: those that have not ended count as failed, for that reason."""
        assert not self._attempts
        assert not self._ending
        self.finished_at, self._failure = wall, reason
        self.failed = self.spec.repeats - self.succeeded
        self._runs.clear()
        self._again.clear()

    # What is so.

    def next_due(self) -> float | None:
        """Return when (monotonic) the next run may start, or None when none is left to start."""
        if self.has_ended:
            return None
        dues = [self._first_due + self._cursor * self.spec.delay_s] if self._cursor < self.spec.repeats else []
        if self._again:
            dues.append(self._again[0].due)
        return min(dues, default=None)

    @property
    def shuns(self) -> str:
        """Peer id of the worker that the first of the runs that are to begin again should not go to; or empty."""
        return self._again[0].shuns if self._again else ""

    @property
    def has_ended(self) -> bool:
        """Whether every run has its final state."""
        return self.finished_at is not None

    def is_active(self, attempt: Attempt) -> bool:
        """Whether that attempt still counts."""
        return attempt in self._attempts

    @property
    def active(self) -> list[Attempt]:
        """The attempts under way."""
        return list(self._attempts)

    def under_way(self) -> set[int]:
        """Return the runs that show as running."""
        return {attempt.run for attempt in self._attempts} | self._ending

    def is_waiting(self, run: int) -> bool:
        """Whether a run that has begun waits to begin again."""
        return (begun := self._runs.get(run)) is not None and not begun.attempts

    def due_at(self, run: int) -> float:
        """Return when (monotonic) a run may begin for the first time."""
        return self._first_due + run * self.spec.delay_s

    def due_runs(self, now: float) -> int:
        """Return how many runs show as due, those that have begun included: the first so many."""
        if self.spec.workers:
            return self.spec.repeats
        return max(self._cursor, self.spec.repeats - self._not_due(now))

    @property
    def is_ending(self) -> bool:
        """Whether a run of it has ended and is not on disk yet."""
        return bool(self._ending)

    @property
    def expected_s(self) -> float:
        """Seconds that a run of it takes, by those that succeeded lately; 0 when none has."""
        return self._mean_s

    @property
    def expected_bytes(self) -> float:
        """What a run of it prints, likewise."""
        return self._mean_bytes

    @property
    def timed(self) -> int:
        """How many runs say so."""
        return self._timed

    def counts(self, now: float) -> dict[RunState, int]:
        """Count the runs by state."""
        ended = self.succeeded + self.failed
        if self.has_ended:
            left = {RunState.CANCELLED: self.spec.repeats - ended}
        else:
            running, queued = self._running(), self.queued(now)
            left = {
                RunState.SCHEDULED: self.spec.repeats - ended - running - queued,
                RunState.QUEUED: queued,
                RunState.RUNNING: running,
                RunState.CANCELLED: 0,
            }
        zero = dict.fromkeys(RunState, 0)
        return zero | left | {RunState.SUCCEEDED: self.succeeded, RunState.FAILED: self.failed}

    def queued(self, now: float) -> int:
        """Count the runs that are due and wait."""
        if self.has_ended:
            return 0
        waiting = self.spec.repeats - self.succeeded - self.failed - self._running()
        return waiting - min(waiting, self._not_due(now))

    def to_give(self, now: float) -> int:
        """Count the attempts that should begin now, if there were slots for all of them."""
        return self.queued(now)

    def state_of(self, run: int, now: float) -> RunState:
        """Return the state of a run that has no result."""
        if self.has_ended:
            return RunState.CANCELLED if self.cancelled_at is not None else RunState.FAILED
        begun = self._runs.get(run)
        if run in self._ending or (begun is not None and begun.attempts):
            return RunState.RUNNING
        is_due = begun is not None or run < self._cursor or self._first_due + run * self.spec.delay_s <= now
        return RunState.QUEUED if is_due else RunState.SCHEDULED

    def status(self, now: float) -> str:
        """Return the task's status in one word."""
        if self.cancelled_at is not None:
            return RunState.CANCELLED
        if self.has_ended:
            return RunState.FAILED if self.failed else RunState.SUCCEEDED
        counts = self.counts(now)
        if counts[RunState.RUNNING]:
            return RunState.RUNNING
        if not counts[RunState.QUEUED]:
            return RunState.SCHEDULED  # also between two runs of a schedule that has begun
        return "unsatisfiable" if self.demand is not None and self.demand.reason else RunState.QUEUED

    def reason(self, now: float) -> str:
        """Say why nothing of it can run, or why it failed as a whole; empty otherwise."""
        if self._failure:
            return self._failure
        return self.demand.reason if self.demand is not None and self.status(now) == "unsatisfiable" else ""

    def oldest_due(self, now: float) -> float:
        """Return since when (monotonic) its oldest due run waits; now when none does."""
        due = self.next_due()
        return now if due is None else min(now, due)

    # The rules.

    def _attempt(self, run: Run, now: float, wall: float) -> Attempt:
        run.state = _BEGUN[run.state]
        run.tries += 1
        attempt = Attempt(self, run.number, run.tries, run.queued_at, max(0.0, now - run.due), now, wall)
        run.attempts.append(attempt)
        self._attempts[attempt] = run
        return attempt

    def _happen(self, attempt: Attempt, event: Event, outcome: Outcome, now: float, wall: float) -> Effects:
        run = self._attempts.get(attempt)
        if run is None:
            return _NOTHING
        to, spends, broke = RULES[run.state, event]
        if spends:
            spent = getattr(run, spends) + 1
            setattr(run, spends, spent)
            if spent >= self._allowance(spends):
                to = broke
        if to in ENDED:
            result = self._finish(run, attempt, to, outcome, wall)
            others = tuple(a for a in run.attempts if a is not attempt) if len(run.attempts) > 1 else ()
            return tuple.__new__(Effects, (result, others, ()))
        del self._attempts[attempt]
        run.attempts.remove(attempt)
        if event in (Event.CRASHED, Event.LOST):
            run.shuns = attempt.worker
        if not run.attempts:
            run.state = to
            run.due = now if event is Event.RETURNED else now + self._backoff(run.tries)
            heapq.heappush(self._again, run)
        return _NOTHING

    def _allowance(self, of: str) -> int:
        """Return the how-manieth failure, crash or loss of a run ends it."""
        if of == "failures":
            return self.spec.retries + 1
        return self._policy.crashes_max if of == "crashes" else self._policy.attempts_max

    def _backoff(self, tries: int) -> float:
        backoff = min(self._policy.backoff_max_s, self._policy.backoff_first_s * 2.0 ** min(tries - 1, 30))
        # Between half and the whole of it, so that what failed together does not come back together.
        return backoff * (0.5 + random.random() / 2)

    def _finish(self, run: Run, attempt: Attempt, state: RunState, outcome: Outcome, wall: float) -> RunResult:
        for other in run.attempts:
            del self._attempts[other]
        run.state = state
        number = run.number
        self._runs.pop(number, None)
        self._ending.add(number)
        # For every run: this takes a third of the time of the class's own.
        fields = number, state, outcome, attempt.worker, run.tries, run.queued_at, attempt.started_at, wall
        return tuple.__new__(RunResult, fields)

    def _time(self, outcome: Outcome) -> None:
        """Note how long a run took that ended well, and what it printed."""
        self._timed = timed = self._timed + 1
        if timed > 100:
            timed = 100
        self._mean_s += (outcome.wall_s - self._mean_s) / timed
        self._mean_bytes += (len(outcome.stdout) + len(outcome.stderr) - self._mean_bytes) / timed

    def _running(self) -> int:
        return len(self._runs) - len(self._again) + len(self._ending)

    def _not_due(self, now: float) -> int:
        """Count the runs whose time has not come."""
        left = self.spec.repeats - self._cursor
        next_due = self._first_due + self._cursor * self.spec.delay_s
        if left == 0 or next_due > now:
            return left
        if self.spec.delay_s == 0:
            return 0
        return max(0, left - 1 - int((now - next_due) / self.spec.delay_s))

    def _make_runs(self, to_wall: float) -> None:
        """Make all runs, which begin in any order: each has a worker of its own."""
        for number in range(self.spec.repeats):
            due = self._first_due + number * self.spec.delay_s
            self._runs[number] = Run(number, due + to_wall, due)
        self._cursor = self.spec.repeats
        self._again = list(self._runs.values())

    def _skip_done(self) -> None:
        while self._cursor in self._done:
            self._done.discard(self._cursor)
            self._cursor += 1

    def _count(self, state: RunState) -> None:
        if state is RunState.SUCCEEDED:
            self.succeeded += 1
        elif state is RunState.FAILED:
            self.failed += 1
