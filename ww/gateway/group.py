"""What is on a leased slot: attempts that travel together, and how many that should be.

Holds records and arithmetic. Must not know where they go: dispatch.py fills them.
"""

from dataclasses import dataclass, field
from typing import Final

from ww.gateway.calls import CallsServer
from ww.gateway.lease import Lease, RemoteGroup
from ww.gateway.spec import Spread
from ww.gateway.task import Attempt, Task

_GROUP_MAX: Final = 64
# A group is made to last that long.
_GROUP_S: Final = 0.02
# What the runs of a group may be given and print together; one run alone may do more.
_GROUP_BYTES: Final = 1 << 20
# Until more are known, a group has at most this many times as many runs as were timed.
_GROWTH: Final = 8
# Groups into which the runs of a task are parted for each slot, where all are to get as many.
_SHARES: Final = 4


@dataclass(eq=False, slots=True)
class Slot:
    """A lease and what is on it."""

    lease: Lease
    since: float
    """Since when (monotonic) it is leased."""
    lanes: int = 0
    is_usable: bool = True
    is_short: bool = False
    """Whether its latest run was short."""
    groups: list["Group"] = field(default_factory=list)
    """Under way, in the order in which the worker runs them."""
    oldest_seen: Attempt | None = None
    oldest_since: float = 0.0
    """Since when (monotonic) that is the oldest, as far as anybody looked."""
    stuck_at: Attempt | None = None
    """The run for which those behind it were sent elsewhere."""

    def is_shared(self) -> bool:
        """Whether runs wait behind another one."""
        return self.lanes > 1 or any(len(group.left) > 1 for group in self.groups)

    def oldest(self) -> Attempt | None:
        """Return the attempt that the worker should be at."""
        return next((attempt for group in self.groups for attempt in group.left.values()), None)


@dataclass(eq=False, slots=True)
class Group:
    """Attempts that travel together."""

    slot: Slot
    task: Task
    left: dict[int, Attempt]
    """By place in the group: those of which nobody heard yet, in the order in which the worker runs them."""
    remote: RemoteGroup | None = None
    calls: CallsServer | None = None
    """What its only run may ask of the cluster, where it was granted anything."""


def group_size(task: Task, now: float, slots: int, input_bytes: int) -> int:
    """Say how many runs of a task should travel together, where all workers together have so many slots and one run is
    given so many bytes."""
    spec = task.spec
    # What may call others waits for them, with its slot, and nothing may wait behind it.
    if spec.repeats == 1 or spec.is_bulky or spec.grants or not (expected_s := task.expected_s):
        return 1
    size = min(_GROUP_MAX, _GROWTH * task.timed, int(_GROUP_S / expected_s))
    if size <= 1:
        return 1
    size = min(size, int(_GROUP_BYTES / (1 + max(task.expected_bytes, input_bytes))))
    # The last ones are shared out: no slot is to end long after the others.
    if spec.spread != Spread.PULL:
        slots *= _SHARES
    return max(1, min(size, -(-task.to_give(now) // slots)))
