"""Whether a worker can meet what a run needs, and with how many of its slots.

Holds arithmetic on claims. Knows no connections and no time.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from ww.gateway.spec import Need

# What a worker does that does not lack the word.
_ABLE: Final = {
    "component": "runs components",
    "cpu": "limits processor time",
    "files": "has a file system for guests",
    "fuel": "counts fuel",
    "python": "runs Python functions",
    "reactor": "runs reactors",
}
# What rounding may do to a share of a machine.
_EPSILON: Final = 1e-12


@dataclass(frozen=True, slots=True)
class WorkerInfo:
    """What a worker says of itself. Claims: shown and scheduled by, never trusted."""

    kind: str
    slots: int
    cpus: float
    memory_bytes: int
    labels: dict[str, str]
    host: str
    lacks: frozenset[str] = frozenset()
    """What it cannot do for a run: words that a Need requires, and such as nobody here knows."""


def slots_for(need: Need, info: WorkerInfo) -> int:
    """Return how many of its slots, each an equal share of the machine, a run with that need takes; 0: it cannot."""
    if not _has_labels(need, info) or not info.lacks.isdisjoint(need.requires):
        return 0
    slots = 1
    for asked, has in ((need.cpus, info.cpus), (need.memory_bytes, info.memory_bytes)):
        if asked > has:
            return 0
        if asked:
            slots = max(slots, math.ceil(asked * info.slots / has - _EPSILON))
    return slots


def why_not(need: Need, workers: Sequence[WorkerInfo]) -> str:
    """Say why none of those workers could ever meet a need; empty when one could, or when there are none."""
    if not workers or any(slots_for(need, info) for info in workers):
        return ""
    labelled = [info for info in workers if _has_labels(need, info)]
    if not labelled:
        labels = ", ".join(f"{key}={value}" for key, value in need.labels)
        return f"no connected worker has the labels {labels}"
    whom = "no connected worker with its labels" if need.labels else "no connected worker"
    fit = [info for info in labelled if info.lacks.isdisjoint(need.requires)]
    if not fit:
        return f"{whom} {_missing(need, labelled)}: those connected lack it"
    most_cpus = max(info.cpus for info in fit)
    if need.cpus > most_cpus:
        return f"{whom} has {need.cpus:g} cpus, the most is {most_cpus:g}"
    most_memory = max(info.memory_bytes for info in fit)
    if need.memory_bytes > most_memory:
        return f"{whom} has {need.memory_bytes} bytes of memory, the most is {most_memory}"
    return f"{whom} has {need.cpus:g} cpus and {need.memory_bytes} bytes of memory both"


def _missing(need: Need, workers: Sequence[WorkerInfo]) -> str:
    """Say what a need requires that each of those workers lacks, or all that it requires, which none has together."""
    nowhere = [word for word in need.requires if all(word in info.lacks for info in workers)]
    return " and ".join(_ABLE[word] for word in nowhere or need.requires)


def _has_labels(need: Need, info: WorkerInfo) -> bool:
    return all(info.labels.get(key) == value for key, value in need.labels)
