"""What can happen to a run, and where that leads.

Holds the table alone. Must not know tasks: task.py goes by it. States in words: docs/semantics.md.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final, NamedTuple

from ww.gateway.spec import RunState


class Event(StrEnum):
    """What happens to a run: the beginning and the ends of its attempts, and a cancel."""

    BEGIN = "begin"
    OK = "ok"
    GUEST_FAILED = "guest"
    CRASHED = "crash"
    """The sandbox process died under it."""
    LOST = "lost"
    """The worker, or the way to it, is gone, or says nothing."""
    VOTED = "voted"
    """One of several peers said how it ended, and no quorum agrees yet."""
    DISAGREED = "disagreed"
    """So many did that none can."""
    RETURNED = "returned"
    """No worker began it."""
    CANCEL = "cancel"
    GONE = "gone"
    """The only worker that it may run on is gone."""


class Rule(NamedTuple):
    """Where an event leads; `spends` is what that takes from, `broke` where it leads when nothing is left of it."""

    to: RunState
    spends: str = ""
    broke: RunState = RunState.FAILED


RULES: Final[dict[tuple[RunState, Event], Rule]] = {
    (RunState.QUEUED, Event.BEGIN): Rule(RunState.RUNNING),
    (RunState.QUEUED, Event.CANCEL): Rule(RunState.CANCELLED),
    (RunState.QUEUED, Event.GONE): Rule(RunState.FAILED),
    (RunState.RUNNING, Event.BEGIN): Rule(RunState.RUNNING),  # a straggler's second attempt
    (RunState.RUNNING, Event.OK): Rule(RunState.SUCCEEDED),
    (RunState.RUNNING, Event.GUEST_FAILED): Rule(RunState.QUEUED, "failures"),
    (RunState.RUNNING, Event.CRASHED): Rule(RunState.QUEUED, "crashes"),
    (RunState.RUNNING, Event.LOST): Rule(RunState.QUEUED, "losses"),
    (RunState.RUNNING, Event.VOTED): Rule(RunState.QUEUED),
    (RunState.RUNNING, Event.DISAGREED): Rule(RunState.FAILED),
    (RunState.RUNNING, Event.RETURNED): Rule(RunState.QUEUED),
    (RunState.RUNNING, Event.CANCEL): Rule(RunState.CANCELLED),
}
"""All that can happen to a run that has begun. A run that is queued again while another attempt of it is under way goes
on running. What is not here cannot happen: an attempt of a run that has ended does not count any more."""


@dataclass(frozen=True, slots=True)
class Policy:
    """How often what went wrong is tried again."""

    attempts_max: int = 5
    """Attempts of one run that may be lost."""
    crashes_max: int = 2
    """A module that kills its sandbox is tried once more, elsewhere if that is free: it must not walk through the whole
    cluster."""
    backoff_first_s: float = 0.1
    backoff_max_s: float = 10.0
