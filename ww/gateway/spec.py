"""What a task is, what its guest is given, and how its runs ended: plain values.

Holds types alone. Must not know who fills them in: request.py reads a Spec, pool.py an Outcome. What may happen to a
task: task.py.
"""

import sys
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, NamedTuple

from ww.wasm_inspect import Kind


class RunState(StrEnum):
    """Where a run is. The last three never change."""

    SCHEDULED = "scheduled"
    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


ENDED: Final = frozenset({RunState.SUCCEEDED, RunState.FAILED, RunState.CANCELLED})


@dataclass(frozen=True, slots=True)
class Need:
    """What one run asks of the worker that runs it."""

    cpus: float = 0.0
    """Cores; 0: one slot, whatever that is."""
    memory_bytes: int = 0
    labels: tuple[tuple[str, str], ...] = ()
    """What the worker must say of itself, sorted by key."""
    task: str = ""
    """Id of the task, of one whose runs do not go to whoever is free: it waits for its workers alone."""
    depth: int = 0
    """How many runs wait for it, one for the other: a slot that is lent takes none that is less deep."""
    requires: tuple[str, ...] = ()
    """What the worker must not lack, sorted: see Spec.requires."""
    quorum: int = 1
    """How many different peers have to be there."""


class Spread(StrEnum):
    """To which of the workers that could serve them a task's runs go."""

    PULL = "pull"
    """Whoever has a free slot: a faster worker gets more."""
    ROUNDROBIN = "roundrobin"
    """One after the other, all the same number."""
    RANDOM = "random"
    EVERYWHERE = "everywhere"
    """Each worker that is there when the task is submitted, once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant:
    """A function that runs of a task may have called, and what a run of it may use."""

    name: str
    """module:qualname."""
    duration_s: float
    memory_bytes: int
    output_bytes: int
    fuel: int = 0
    cpu_s: float = 0.0
    retries: int = 0
    grants: tuple[str, ...] = ()
    """Names, of the same list, of what it may have called in turn."""
    is_indirect: bool = False
    """Whether only those may have it called that name it in their grants."""


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
    inputs: str = ""
    """sha256 of a batch's inputs, hex, of which there are as many as repeats: see inputs.py; or empty."""
    spread: str = Spread.PULL
    workers: tuple[str, ...] = ()
    """Peer ids, of a task that runs everywhere: where run 0 goes, and so on."""
    grants: tuple[Grant, ...] = ()
    """What its runs may have called while they run."""
    depth: int = 0
    """How many runs wait for those of this task, one for the other; 0: it was submitted."""
    parent: str = ""
    """Id of the task one of whose runs called for it; empty: it was submitted."""
    replicas: int = 1
    """Peers that each run is given to, while no quorum of them agrees: see quorum.py."""
    quorum: int = 1
    """Peers that must give the same result."""

    @property
    def need(self) -> Need:
        """What one run asks of its worker."""
        task = "" if self.spread == Spread.PULL and not self.is_replicated else self.id
        return Need(self.cpus, self.needs_memory_bytes, self.labels, task, self.depth, self.requires, self.quorum)

    @property
    def requires(self) -> tuple[str, ...]:
        """What its runs use that a worker may lack, sorted: words of WorkerInfo.lacks in schema/worker.capnp."""
        asked = (
            (Kind.COMPONENT, self.kind == Kind.COMPONENT),
            ("cpu", self.cpu_s > 0),
            ("files", self.kind != Kind.PYTHON and bool(self.files or self.files_bytes or self.dirs or self.artifacts)),
            ("fuel", self.fuel > 0),
            (Kind.PYTHON, self.kind == Kind.PYTHON),
            (Kind.REACTOR, self.kind == Kind.REACTOR),
        )
        return tuple(str(word) for word, is_asked in asked if is_asked)

    @property
    def is_replicated(self) -> bool:
        """Whether its runs are given to several peers each."""
        return self.replicas > 1

    @property
    def is_bulky(self) -> bool:
        """Whether its runs are long on their way: they bring files along or back. Sources are sent once a slot."""
        return bool((self.files and self.kind != Kind.PYTHON) or self.artifacts)

    @property
    def size_bytes(self) -> int:
        """What the task's own text and input take in memory, roughly."""
        pairs = (text for pair in (*self.env, *self.labels) for text in pair)
        texts = (self.description, self.name, *self.args, *pairs, *self.dirs, *self.artifacts, *self.workers)
        texts += tuple(text for grant in self.grants for text in (grant.name, *grant.grants))
        # Each with what it takes besides its letters: ten thousand arguments of two letters are half a megabyte.
        return 2048 + len(self.stdin) + sum(map(sys.getsizeof, texts)) + 8 * len(texts)

    @property
    def argv(self) -> tuple[str, ...]:
        """What a guest gets after its own name."""
        numbers = () if self.entry else tuple(str(n) for n in (self.input, self.difficulty) if n is not None)
        return numbers + self.args


class Outcome(NamedTuple):
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


class RunResult(NamedTuple):
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
