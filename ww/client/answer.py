"""What a gateway answers, as values: tasks, results, workers, events.

Holds their types, and how they are read from JSON. Must not know how the JSON came. Fields of newer gateways are
ignored and stay in `json`; what older ones do not say has its default. What each means: docs/http.md.
"""

import base64
from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, field, fields
from datetime import UTC, datetime
from typing import Any, Final, TypeVar

from ww.errors import PeerError

ENDED: Final = frozenset({"succeeded", "failed", "cancelled"})
"""States and statuses that never change again."""

Json = Mapping[str, Any]
T = TypeVar("T")
_Read = Callable[[Json, str], Any]


# How one value is read. A ValueError or TypeError says that the gateway is none, or a very different one.


def _text(json: Json, key: str) -> str:
    if not isinstance(value := json[key], str):
        raise TypeError
    return value


def _whole(json: Json, key: str) -> int:
    if not isinstance(value := json[key], int):
        raise TypeError
    return value


def _truth(json: Json, key: str) -> bool:
    if not isinstance(value := json[key], bool):
        raise TypeError
    return value


def _decimal(json: Json, key: str) -> float:
    if not isinstance(value := json[key], int | float):
        raise TypeError
    return float(value)


def _time(json: Json, key: str) -> datetime:
    moment = datetime.fromisoformat(_text(json, key))
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)


def _texts(json: Json, key: str) -> tuple[str, ...]:
    if not isinstance(value := json[key], list) or not all(isinstance(each, str) for each in value):
        raise TypeError
    return tuple(value)


def _objects(json: Json, key: str) -> tuple[dict[str, Any], ...]:
    if not isinstance(value := json[key], list) or not all(isinstance(each, dict) for each in value):
        raise TypeError
    return tuple(value)


def _mapping(json: Json, key: str) -> dict[str, Any]:
    if not isinstance(value := json[key], dict):
        raise TypeError
    return dict(value)


def _output(json: Json, key: str) -> bytes:
    encoded = json.get(f"{key}_base64")
    return _text(json, key).encode() if encoded is None else base64.b64decode(encoded, validate=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """One run: its end, or how far it is."""

    run: int
    state: str
    name: str = ""
    """What a batch calls it."""
    position: int = 0
    """Its place in the order in which runs ended, for the `after` of Client.stream; 0 where that is not said."""
    result: str | None = None
    """What a function returned, as text."""
    exit_code: int | None = None
    stdout: bytes = b""
    stderr: bytes = b""
    stdout_truncated: bool = False
    stderr_truncated: bool = False
    reason: str | None = None
    """Why it failed: trap, exit, deadline, cpu, fuel, memory, files, artifacts, compile, crash or lost."""
    detail: str | None = None
    worker: str | None = None
    attempts: int | None = None
    queued_at: datetime | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None
    wall_s: float | None = None
    cpu_s: float | None = None
    queue_s: float | None = None
    compile_s: float | None = None
    instantiate_s: float | None = None
    memory_bytes: int | None = None
    memory_limit_bytes: int | None = None
    fuel: int | None = None
    files_bytes: int | None = None
    artifacts_bytes: int | None = None
    """Size of the zip that Client.artifacts brings; None or 0 where there is none."""
    json: Json = field(default_factory=dict, repr=False, compare=False)

    @property
    def has_ended(self) -> bool:
        """Whether this is all that there will be."""
        return self.state in ENDED


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """A task, as it was when the gateway answered."""

    id: str
    status: str
    """scheduled, queued, running, unsatisfiable, succeeded, failed or cancelled."""
    reason: str | None = None
    """Why it is unsatisfiable, or why it failed as a whole."""
    name: str = ""
    description: str = ""
    owner: str | None = None
    kind: str = ""
    module: str = ""
    entry: str | None = None
    input: int | None = None
    difficulty: int | None = None
    args: tuple[str, ...] = ()
    complete: int = 0
    completions: int = 0
    repeats: int = 1
    duration_s: float | None = None
    start_s: float = 0.0
    delay_s: float = 0.0
    priority: int = 0
    cpus: float | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    retries: int = 0
    memory_bytes: int | None = None
    output_bytes: int | None = None
    cpu_seconds: float | None = None
    fuel: int | None = None
    deterministic: bool = False
    seed: int | None = None
    spread: str = "pull"
    replicas: int = 1
    quorum: int = 1
    batch: bool = False
    """Whether its runs differ in what they are given."""
    grants: tuple[Json, ...] = ()
    """What its runs may have called, and with which limits."""
    depth: int = 0
    parent: str | None = None
    """Id of the task one of whose runs called for it; None: it was submitted, and its depth is 0."""
    files: str | None = None
    dirs: tuple[str, ...] = ()
    files_bytes_max: int | None = None
    artifacts: tuple[str, ...] = ()
    artifacts_bytes_max: int | None = None
    runs: Mapping[str, int] = field(default_factory=dict)
    """How many runs are in each state."""
    results: tuple[Result, ...] = ()
    """The latest ones, latest first; Client.results has all."""
    created_at: datetime | None = None
    finished_at: datetime | None = None
    next_run_at: datetime | None = None
    json: Json = field(default_factory=dict, repr=False, compare=False)

    @property
    def has_ended(self) -> bool:
        """Whether it will not change any more."""
        return self.status in ENDED

    @property
    def has_all_results(self) -> bool:
        """Whether `results` are those of all runs, and will stay so."""
        return self.has_ended and len(self.results) == self.repeats


@dataclass(frozen=True, slots=True, kw_only=True)
class Worker:
    """A worker that is registered. What it says of itself is a claim."""

    peer: str
    kind: str = ""
    slots: int = 0
    free: int = 0
    cpus: float | None = None
    memory_bytes: int | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    lacks: tuple[str, ...] = ()
    """What it cannot do for a run; it gets none that needs it."""
    host: str = ""
    since: datetime | None = None
    modules: tuple[str, ...] = ()
    """Modules that are known to be there already."""
    breaker: str | None = None
    """closed: it is given runs; open: not now, since too many failed; half-open: it is being tried."""
    disagreements: int = 0
    """On how many runs a quorum of others said something else."""
    json: Json = field(default_factory=dict, repr=False, compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One thing that a gateway needs."""

    name: str
    ok: bool
    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Readiness:
    """Whether a gateway can do its work, and what is missing."""

    status: str
    checks: tuple[Check, ...] = ()
    json: Json = field(default_factory=dict, repr=False, compare=False)

    @property
    def is_ready(self) -> bool:
        """Whether nothing is missing."""
        return self.status == "ready"


@dataclass(frozen=True, slots=True, kw_only=True)
class Health:
    """That a gateway lives, and who it is."""

    status: str
    peer: str = ""
    namespace: str = ""
    meta: Mapping[str, str] = field(default_factory=dict)
    members: int | None = None
    json: Json = field(default_factory=dict, repr=False, compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One thing that happened to a task: `task` or `run` is set."""

    task: Task | None = None
    """The task, without results, as it became."""
    run: Result | None = None
    """A run that ended, with all of its result; or one that is running or went back to the queue."""
    position: int | None = None
    """Where to go on from: the `after` of another call of events."""


# Where JSON has another name for what Python calls with its unit.
_KEYS: Final[dict[type, dict[str, str]]] = {
    Result: {f"{name}_s": f"{name}_seconds" for name in ("wall", "cpu", "queue", "compile", "instantiate")},
    Task: {
        **{f"{name}_s": name for name in ("duration", "start", "delay")},
        **{f"{name}_bytes": name for name in ("memory", "output")},
        **{f"{name}_bytes_max": f"{name}_max" for name in ("files", "artifacts")},
    },
}
_READERS: Final[dict[object, _Read]] = {
    str: _text,
    str | None: _text,
    int: _whole,
    int | None: _whole,
    float: _decimal,
    float | None: _decimal,
    bool: _truth,
    bytes: _output,
    datetime | None: _time,
    tuple[str, ...]: _texts,
    tuple[Json, ...]: _objects,
    Mapping[str, str]: _mapping,
    Mapping[str, int]: _mapping,
    tuple[Result, ...]: lambda json, key: read_all(Result, json[key]),
    tuple[Check, ...]: lambda json, key: read_all(Check, json[key]),
}
_TYPES: Final[dict[type, list[tuple[str, str, _Read, bool]]]] = {
    kind: [
        (
            each.name,
            _KEYS.get(kind, {}).get(each.name, each.name),
            _READERS[each.type],
            each.default is MISSING and each.default_factory is MISSING,
        )
        for each in fields(kind)
        if each.name != "json"
    ]
    for kind in (Result, Task, Worker, Check, Readiness, Health)
}


def read_as(kind: type[T], json: object) -> T:
    """Read one value; PeerError when it cannot be meant so."""
    if not isinstance(json, dict):
        raise PeerError(f"the answer is no gateway's: expected an object of a {kind.__name__.lower()}")
    values: dict[str, Any] = {} if kind is Check else {"json": json}
    for name, key, read, is_required in _TYPES[kind]:
        if json.get(key) is None:
            if is_required:
                raise PeerError(f"the answer is no gateway's: a {kind.__name__.lower()} without {key}")
            continue
        try:
            values[name] = read(json, key)
        except (ValueError, TypeError):
            shown = repr(json[key])[:60]
            raise PeerError(f"the answer is no gateway's: {key} of a {kind.__name__.lower()} is {shown}") from None
    return kind(**values)


def read_all(kind: type[T], json: object) -> tuple[T, ...]:
    """Read a list of values."""
    if not isinstance(json, list):
        raise PeerError(f"the answer is no gateway's: expected a list, of {kind.__name__.lower()}s")
    return tuple(read_as(kind, each) for each in json)
