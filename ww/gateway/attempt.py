"""What is known of a run that is under way, of its attempts, and of what waits for a worker.

Holds records alone. Must not know what may happen to them: task.py.
"""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from ww.gateway.spec import Need, RunResult, RunState

if TYPE_CHECKING:
    from ww.gateway.task import Task


@dataclass(slots=True)
class Demand:
    """What all tasks with one Need share: whether it can be met at all."""

    need: Need
    reason: str = ""
    """Why no connected worker could ever meet it; empty when one could."""
    since: float = 0.0
    """Monotonic time at which that began."""
    is_judged: bool = False
    """Whether anybody looked."""


@dataclass(slots=True, eq=False)
class Attempt:
    """One try of a run, from being taken off the queue to its end."""

    task: "Task"
    run: int
    """Which of the task's runs, from 0."""
    number: int
    """1 for the first try."""
    queued_at: float
    """When the run was due, seconds since the epoch."""
    waited_s: float
    """From being due, or due again, to this beginning."""
    began: float
    """Monotonic."""
    started_at: float
    """The same, seconds since the epoch."""
    worker: str = ""
    """Peer id."""


@dataclass(slots=True, eq=False)
class Run:
    """A run that has begun and not ended."""

    number: int
    queued_at: float
    due: float
    """When it may begin, or begin again; monotonic."""
    state: RunState = RunState.QUEUED
    tries: int = 0
    failures: int = 0
    crashes: int = 0
    losses: int = 0
    shuns: str = ""
    """Peer id of the worker on which it was lost or crashed last."""
    attempts: list[Attempt] = field(default_factory=list)
    """Under way."""

    def __lt__(self, other: "Run") -> bool:
        return (self.due, self.number) < (other.due, other.number)


class Effects(NamedTuple):
    """What has to be done after an event."""

    result: RunResult | None = None
    """To be put on disk: the run has ended."""
    stop: tuple[Attempt, ...] = ()
    """Other attempts of it that are not wanted any more."""
    outvoted: tuple[str, ...] = ()
    """Peers that said something else than the result: see quorum.py."""
