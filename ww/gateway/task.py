"""Tasks, runs and attempts: their types and their state machine.

Holds what a task is and what may happen to it. A plain class that takes events and `now` and returns values: it knows
no loop, no socket, no disk and no clock. States: docs/semantics.md. Who feeds it: scheduler.py.

A Task is what a user submits; a Run is one execution of it; an Attempt is one try of a Run on one worker. Runs come
into being when they are due, so a task of a million repeats costs nothing until it runs.
"""

import heapq
import random
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

ATTEMPTS_MAX: Final = 5
# A module that kills its sandbox is tried once elsewhere: it must not walk through the whole cluster.
CRASHES_MAX: Final = 2
_BACKOFF_FIRST_S: Final = 0.1
_BACKOFF_MAX_S: Final = 10.0


class RunState(StrEnum):
    """Where a run is. The last three never change."""

    SCHEDULED = "scheduled"
    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


ENDED: Final = frozenset({RunState.SUCCEEDED, RunState.FAILED, RunState.CANCELLED})


@dataclass(frozen=True, slots=True, kw_only=True)
class Spec:
    """What was submitted, checked and complete. Two submissions are the same when their specs are equal."""

    id: str
    module: str
    """sha256 of the module's bytes, hex."""
    kind: str
    """How it is run: see wasm_inspect.Kind."""
    entry: str
    """Exported function to call; empty for all other kinds."""
    arguments: tuple[int, ...] = ()
    """What that is called with: see number.py."""
    description: str = ""
    complete: int = 0
    """Initial value of the completion counter."""
    duration_s: float
    """Seconds one run may take."""
    start_s: float = 0.0
    """Seconds from submission to the first run."""
    delay_s: float = 0.0
    """Seconds between the starts of consecutive runs."""
    repeats: int = 1
    input: int | None = None
    difficulty: int | None = None
    args: tuple[str, ...] = ()
    env: tuple[tuple[str, str], ...] = ()
    stdin: bytes = b""
    memory_bytes: int
    output_bytes: int
    files: str = ""
    """sha256 of a zip that is unpacked into the guest's file system, hex; or empty."""
    dirs: tuple[str, ...] = ()
    """Folders of it that the guest may open; none: all of it."""
    files_bytes: int = 0
    """What the guest's file system may hold; 0: there is none."""
    artifacts: tuple[str, ...] = ()
    """Paths of it to bring back."""
    artifact_bytes: int = 0
    """What they may hold together."""
    deterministic: bool = False
    seed: int = 0
    """Of a deterministic run's random numbers."""
    fuel: int = 0
    """WebAssembly instructions of one run, roughly; 0: not counted."""
    cpu_s: float = 0.0
    """Processor time of one run; 0: as long as it may take."""
    name: str = ""
    """What people call the task; need not be unique."""
    owner: str = ""
    """Name of the token that submitted it; empty where HTTP asks for none."""
    priority: int = 0
    """Higher goes first: -100 to 100."""
    cpus: float = 0.0
    """Cores that one run needs; 0: one slot, whatever that is."""
    needs_memory_bytes: int = 0
    """Memory that the worker must have for one run; 0: nobody asked for any."""
    labels: tuple[tuple[str, str], ...] = ()
    """What the worker must say of itself, sorted by key."""
    retries: int = 0
    """How often a run whose guest failed is tried again."""

    @property
    def argv(self) -> tuple[str, ...]:
        """What a guest gets after its own name."""
        numbers = () if self.entry else tuple(str(n) for n in (self.input, self.difficulty) if n is not None)
        return numbers + self.args


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How an attempt ended on a worker. Reason is empty when it ended well."""

    reason: str = ""
    detail: str = ""
    result: str | None = None
    """What the exported function returned, as text."""
    exit_code: int | None = None
    stdout: bytes = b""
    stderr: bytes = b""
    stdout_truncated: bool = False
    stderr_truncated: bool = False
    wall_s: float = 0.0
    cpu_s: float = 0.0
    memory_bytes: int = 0
    memory_limit_bytes: int = 0
    fuel: int | None = None
    """What was used, where it was counted."""
    queue_s: float = 0.0
    """At the worker, until it had a process."""
    compile_s: float = 0.0
    """That the run waited for."""
    instantiate_s: float = 0.0
    """Of wall_s."""
    files_bytes: int = 0
    """In the guest's file system at its end."""
    artifacts: str = ""
    """sha256 of the zip of artifacts, hex; or empty."""
    artifacts_bytes: int = 0
    """Of that zip."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunResult:
    """The record of a run that has ended. Times are seconds since the epoch."""

    run: int
    """Which of the task's runs, from 0."""
    state: RunState
    outcome: Outcome
    worker: str
    """Peer id of the worker of the last attempt, or empty."""
    attempts: int
    queued_at: float
    started_at: float | None
    finished_at: float


@dataclass(slots=True, eq=False)
class Attempt:
    """One try of a run, from being taken off the queue to its end."""

    task: "Task"
    run: int
    number: int
    """1 for the first try."""
    crashes: int
    queued_at: float
    started_at: float = 0.0
    worker: str = ""


@dataclass(slots=True, order=True)
class _Retry:
    """A run that waits for its next attempt."""

    due: float
    run: int
    attempts: int = field(compare=False)
    crashes: int = field(compare=False)
    queued_at: float = field(compare=False)


class Task:
    """One task and the state of its runs. `now` is monotonic, `wall` the time of day, both in seconds."""

    def __init__(self, spec: Spec, *, number: int, created_at: float, now: float, wall: float) -> None:
        """Begin at `now`, which is `wall` o'clock, a task submitted at created_at with that number in the store."""
        self.spec = spec
        self.number = number
        self.created_at = created_at
        self.cancelled_at: float | None = None
        self.finished_at: float | None = None
        self.succeeded = 0
        self.failed = 0
        self._first_due = now + (created_at - wall) + spec.start_s
        self._cursor = 0
        self._done: set[int] = set()  # runs at or after the cursor that ended before a restart
        self._retries: list[_Retry] = []
        self._active: dict[int, Attempt] = {}
        self._ending: dict[int, Attempt] = {}  # ended, but not on disk yet: shown as running
        self._random = random.Random(number)

    def restore(self, run: int, state: RunState) -> None:
        """Tell of a run that had ended before a restart."""
        self._count(state)
        self._done.add(run)
        self._skip_done()

    def next_due(self) -> float | None:
        """Return when (monotonic) the next run may start, or None when none is left to start."""
        if self.cancelled_at is not None:
            return None
        dues = [self._first_due + self._cursor * self.spec.delay_s] if self._cursor < self.spec.repeats else []
        if self._retries:
            dues.append(self._retries[0].due)
        return min(dues, default=None)

    def begin(self, now: float, wall: float) -> Attempt | None:
        """Take the next due run off the queue, or None when none is due."""
        due = self.next_due()
        if due is None or due > now:
            return None
        if self._retries and self._retries[0].due <= now:
            retry = heapq.heappop(self._retries)
            attempt = Attempt(self, retry.run, retry.attempts + 1, retry.crashes, retry.queued_at)
        else:
            attempt = Attempt(self, self._cursor, 1, 0, wall - (now - due))
            self._cursor += 1
            self._skip_done()
        attempt.started_at = wall
        self._active[attempt.run] = attempt
        return attempt

    def end(self, attempt: Attempt, outcome: Outcome, now: float, wall: float) -> RunResult | None:
        """Take an attempt's outcome.

        Returns the run's final result, which becomes its state by `commit` once it is on disk; None when the run is
        tried again or the attempt does not count any more.
        """
        if not self.is_active(attempt):
            return None
        crashes = attempt.crashes + (outcome.reason == "crash")
        if outcome.reason == "crash" and crashes < CRASHES_MAX:
            self._retry(attempt, crashes, now)
            return None
        state = RunState.FAILED if outcome.reason else RunState.SUCCEEDED
        return self._finish(attempt, state, outcome, wall)

    def lose(self, attempt: Attempt, why: str, now: float, wall: float) -> RunResult | None:
        """Note that the worker or the way to it is gone. Returns as `end` does."""
        if not self.is_active(attempt):
            return None
        if attempt.number < ATTEMPTS_MAX:
            self._retry(attempt, attempt.crashes, now)
            return None
        return self._finish(attempt, RunState.FAILED, Outcome(reason="lost", detail=why), wall)

    def give_back(self, attempt: Attempt, now: float) -> None:
        """Put a run back that no worker began, as if it had not been taken."""
        if self.is_active(attempt):
            del self._active[attempt.run]
            self._give_back(attempt, now)

    def commit(self, result: RunResult, wall: float) -> None:
        """Make a result the run's state: it is on disk."""
        self._ending.pop(result.run, None)
        self._count(result.state)
        if self.finished_at is None and self.succeeded + self.failed == self.spec.repeats:
            self.finished_at = wall

    def cancel(self, wall: float) -> list[RunResult]:
        """End the task. Returns results for the runs under way; the others just never start."""
        if self.has_ended:
            return []
        self.cancelled_at = self.finished_at = wall
        attempts = sorted(self._active.values(), key=lambda attempt: attempt.run)
        return [self._finish(attempt, RunState.CANCELLED, Outcome(), wall) for attempt in attempts]

    @property
    def has_ended(self) -> bool:
        """Whether every run has its final state."""
        return self.finished_at is not None

    def is_active(self, attempt: Attempt) -> bool:
        """Whether that attempt still counts."""
        return self._active.get(attempt.run) is attempt

    @property
    def active(self) -> list[Attempt]:
        """The attempts under way."""
        return list(self._active.values())

    def counts(self, now: float) -> dict[RunState, int]:
        """Count the runs by state."""
        ended = self.succeeded + self.failed
        if self.cancelled_at is not None:
            left = {RunState.CANCELLED: self.spec.repeats - ended}
        else:
            running = len(self._active) + len(self._ending)
            waiting = self.spec.repeats - ended - running
            scheduled = min(waiting, self._not_due(now))
            left = {
                RunState.SCHEDULED: scheduled,
                RunState.QUEUED: waiting - scheduled,
                RunState.RUNNING: running,
                RunState.CANCELLED: 0,
            }
        zero = dict.fromkeys(RunState, 0)
        return zero | left | {RunState.SUCCEEDED: self.succeeded, RunState.FAILED: self.failed}

    def state_of(self, run: int, now: float) -> RunState:
        """Return the state of a run that has no result."""
        if run in self._active or run in self._ending:
            return RunState.RUNNING
        is_due = run < self._cursor or self._first_due + run * self.spec.delay_s <= now
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
        # Between two runs of a schedule that has begun, the task is scheduled again.
        return RunState.QUEUED if counts[RunState.QUEUED] else RunState.SCHEDULED

    def _not_due(self, now: float) -> int:
        """Count the runs whose time has not come."""
        left = self.spec.repeats - self._cursor
        next_due = self._first_due + self._cursor * self.spec.delay_s
        if left == 0 or next_due > now:
            return left
        if self.spec.delay_s == 0:
            return 0
        return max(0, left - 1 - int((now - next_due) / self.spec.delay_s))

    def _skip_done(self) -> None:
        while self._cursor in self._done:
            self._done.discard(self._cursor)
            self._cursor += 1

    def _count(self, state: RunState) -> None:
        if state is RunState.SUCCEEDED:
            self.succeeded += 1
        elif state is RunState.FAILED:
            self.failed += 1

    def _give_back(self, attempt: Attempt, now: float) -> None:
        retry = _Retry(now, attempt.run, attempt.number - 1, attempt.crashes, attempt.queued_at)
        heapq.heappush(self._retries, retry)

    def _retry(self, attempt: Attempt, crashes: int, now: float) -> None:
        del self._active[attempt.run]
        backoff = min(_BACKOFF_MAX_S, _BACKOFF_FIRST_S * 2 ** (attempt.number - 1))
        # Between half and the whole of it, so that what failed together does not come back together.
        due = now + backoff * (0.5 + self._random.random() / 2)
        heapq.heappush(self._retries, _Retry(due, attempt.run, attempt.number, crashes, attempt.queued_at))

    def _finish(self, attempt: Attempt, state: RunState, outcome: Outcome, wall: float) -> RunResult:
        del self._active[attempt.run]
        self._ending[attempt.run] = attempt
        return RunResult(
            run=attempt.run,
            state=state,
            outcome=outcome,
            worker=attempt.worker,
            attempts=attempt.number,
            queued_at=attempt.queued_at,
            started_at=attempt.started_at,
            finished_at=wall,
        )
