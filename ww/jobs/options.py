"""What may be said of a job: limits of its runs, what travels with it, what it may call.

Holds the options and their checks. Must not know functions or clusters. Limits that are None are the gateway's
defaults.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, TypedDict

from ww.errors import UsageError

TIMEOUT_S: Final = 60.0
OUTPUT_BYTES: Final = 1 << 20
"""What a gateway takes of a result, when it is not told otherwise."""
_DAY_S: Final = 86_400.0
FANOUTS: Final = ("pull", "roundrobin", "random")

Grants = Sequence[Any] | Callable[[], Sequence[Any]]


class OptionFields(TypedDict, total=False):
    """The options of ww.job and of ww.Executor, by name."""

    memory: int | None
    """Bytes that a run may have; the interpreter takes about 30 MiB of them."""
    fuel: int | None
    """WebAssembly instructions, roughly."""
    timeout_s: float
    """Seconds that a run may take, from its start."""
    cpu_s: float | None
    """Seconds of processor time."""
    output: int | None
    """Bytes of its result, and of what it prints, each; None: 1 MiB, where the gateway has no other default."""
    retries: int
    """How often a run is run again that failed, also by an exception. Lost workers do not count."""
    grants: Grants
    """Jobs that it may call from its sandbox; a function that returns them, for what is defined later, or itself."""
    packages: Sequence[str]
    """Installed pure-Python packages that it takes along."""
    trust: bool
    """Read its results by pickle where they have no other form. Only where the cluster may do all that you may."""
    cpus: float | None
    """Share of a worker's processors that a run counts for."""
    labels: Mapping[str, str]
    """Labels that a worker must have."""
    priority: int
    env: Mapping[str, str]
    """Environment variables of its runs."""
    quorum: int | None
    """Workers, of different peers, that must give the same result; above 1 its runs are deterministic. None: as many as
    the gateway asks for."""


@dataclass(frozen=True, slots=True)
class JobOptions:
    """The options, checked. See OptionFields."""

    memory: int | None = None
    fuel: int | None = None
    timeout_s: float = TIMEOUT_S
    cpu_s: float | None = None
    output: int | None = None
    retries: int = 0
    grants: Grants = ()
    packages: Sequence[str] = ()
    trust: bool = False
    cpus: float | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    priority: int = 0
    env: Mapping[str, str] = field(default_factory=dict)
    quorum: int | None = None

    def __post_init__(self) -> None:
        for name in ("memory", "fuel", "output", "quorum"):
            _check_whole(name, getattr(self, name), 1)
        _check_whole("retries", self.retries, 0)
        _check_whole("priority", self.priority, None)
        _check_seconds("timeout_s", self.timeout_s)
        if self.cpu_s is not None:
            _check_seconds("cpu_s", self.cpu_s)
        if self.cpus is not None and (not isinstance(self.cpus, int | float) or not self.cpus > 0):
            raise _wrong("cpus", self.cpus, "a number above 0")
        if isinstance(self.packages, str) or not all(isinstance(each, str) and each for each in self.packages):
            raise _wrong("packages", self.packages, "a list of names of packages")
        if not callable(self.grants) and not isinstance(self.grants, Sequence):
            raise _wrong("grants", self.grants, "a list of jobs, or a function that returns one")
        if not isinstance(self.trust, bool):
            raise _wrong("trust", self.trust, "True or False")

    def granted(self) -> Sequence[Any]:
        """Return what was granted, now that all is defined."""
        found = self.grants() if callable(self.grants) else self.grants
        if isinstance(found, str) or not isinstance(found, Sequence):
            raise _wrong("grants", found, "a list of jobs")
        for each in found:
            if not callable(each):
                raise _wrong("grants", each, "jobs")
        return found

    def limits(self) -> dict[str, Any]:
        """Return the limits of a run as fields of a task; those of a grant have the same names."""
        said = {
            "duration_s": self.timeout_s,
            "memory_bytes": self.memory,
            "output_bytes": self.output,
            "fuel": self.fuel,
            "cpu_seconds": self.cpu_s,
            "retries": self.retries or None,
        }
        return {name: value for name, value in said.items() if value is not None}

    def fields(self) -> dict[str, Any]:
        """Return all that is said of a task."""
        said: dict[str, Any] = self.limits()
        if self.cpus is not None:
            said["cpus"] = self.cpus
        if self.labels:
            said["labels"] = dict(self.labels)
        if self.env:
            said["env"] = dict(self.env)
        if self.priority:
            said["priority"] = self.priority
        if self.quorum is not None:
            said["quorum"] = self.quorum
            if self.quorum > 1:
                said["deterministic"] = True
        return said


def check_fanout(fanout: str) -> str:
    """Return to which workers runs go. UsageError for another word."""
    if fanout not in FANOUTS:
        raise _wrong("fanout", fanout, " or ".join(map(repr, FANOUTS)))
    return fanout


def _check_whole(name: str, value: object, low: int | None) -> None:
    if value is None and name not in ("retries", "priority"):
        return
    is_whole = isinstance(value, int) and not isinstance(value, bool)
    if not is_whole or (low is not None and value < low):  # type: ignore[operator]
        raise _wrong(name, value, "a whole number" + ("" if low is None else f" from {low}"))


def _check_seconds(name: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= 365 * _DAY_S:
        raise _wrong(name, value, "seconds above 0, at most a year of them")


def _wrong(name: str, value: object, expected: str) -> UsageError:
    return UsageError(f"{name}: {repr(value)[:60]} is not what was expected: {expected}", name)
