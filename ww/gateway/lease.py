"""One or several slots of one worker, and the runs that are sent to it.

Holds the Lease by which offers are used, how a run is put into a message, and how its outcome is read: whatever a
worker says is held to what was asked for. Must not know which run goes where: pool.py gives leases, dispatch.py uses
them. Next in a task's life: ../worker.py.
"""

import hashlib
import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from weakref import WeakValueDictionary

from ww import schema
from ww.caps.blob import BlobServer
from ww.errors import PeerError, RemoteError, UsageError
from ww.gateway import number
from ww.gateway.request import ZIP_OVERHEAD_BYTES
from ww.gateway.task import Outcome, Spec, Task
from ww.identity import PeerId
from ww.rpc.errors import call, one_line
from ww.rpc.exports import Peer
from ww.wasm_inspect import Kind

_PROGRAMS_MAX: Final = 16
# How much longer than its deadline a run can take until it is stopped, with room to spare.
_OVERRUN_S: Final = 60.0
INT64_MAX: Final = 2**63 - 1
_REASONS: Final = {"ok": "", "cancelled": "cancelled"} | {
    name: name
    for name in ("trap", "exit", "deadline", "memory", "compile", "crash", "cpu", "fuel", "files", "artifacts")
}


@dataclass(frozen=True, slots=True)
class Offer:
    """One free slot of one worker."""

    peer: Peer
    worker: Any
    """A client of schema interface Worker; holding it holds the slot."""


class _Prepared:
    """The invocation of a task's runs: repeats say the same each time, whoever runs them, and it may be large."""

    __slots__ = ("__weakref__", "message", "task")

    def __init__(self, task: int, message: Any) -> None:
        self.task = task
        self.message = message


class Invocations:
    """What runs are given, by task; kept while a lease uses it."""

    def __init__(self) -> None:
        self._prepared: WeakValueDictionary[int, _Prepared] = WeakValueDictionary()
        # Nobody else can name the context of a task's runs, so nobody's guest is given another's instance.
        self._secret = os.urandom(32)

    def is_prepared(self, task: Task) -> bool:
        """Whether a run of that task can be started without its files."""
        return not task.spec.files or task.number in self._prepared

    def prepare(self, task: Task, files: bytes) -> _Prepared:
        """Make the invocation of a task's runs, or find it made."""
        prepared = self._prepared.get(task.number)
        if prepared is None:
            message = schema.worker.Invocation.new_message()
            _fill_invocation(message, task.spec, files)
            if task.spec.kind == Kind.REACTOR and not task.spec.deterministic:
                # Of a deterministic run nothing may depend on those before it.
                identity = task.number.to_bytes(8, "big") + task.spec.id.encode()
                message.context = hashlib.sha256(self._secret + identity).digest()
            prepared = self._prepared[task.number] = _Prepared(task.number, message)
        return prepared


class Lease:
    """Slots of one worker, held until `close`. Its runs are sent to the first of them."""

    def __init__(
        self,
        offers: Sequence[Offer],
        invocations: Invocations,
        module_path: Callable[[str], Path],
        on_close: Callable[[int], None],
    ) -> None:
        """Hold the slots of those offers. on_close is told how many they were."""
        self.peer: Peer = offers[0].peer
        self.slots = len(offers)
        self._workers = [offer.worker for offer in offers]
        self._invocations = invocations
        self._module_path = module_path
        self._on_close = on_close
        self._programs: dict[tuple[str, bool], tuple[Any, Any]] = {}
        """By digest, and whether their runs are metered."""
        self._prepared: _Prepared | None = None
        """Of the task served last."""

    @property
    def peer_id(self) -> PeerId:
        """Whose slots they are."""
        return self.peer.peer_id

    def is_prepared(self, task: Task) -> bool:
        """Whether a run of that task can be started without its files."""
        return self._invocations.is_prepared(task)

    def start(self, task: Task, files: bytes = b"") -> "RemoteAttempt":
        """Start one run of task. Returns at once; everything travels together, nothing is waited for.

        files is the zip that its spec names; it may be left out when `is_prepared` says so.
        """
        if not self._workers:
            raise UsageError("the lease is closed")
        if self._prepared is None or self._prepared.task != task.number:
            self._prepared = self._invocations.prepare(task, files)
        spec = task.spec
        metered = bool(spec.fuel or spec.deterministic)
        return RemoteAttempt(self._program(spec.module, metered).run(invocation=self._prepared.message), spec)

    def _program(self, digest: str, metered: bool) -> Any:
        known = self._programs.get((digest, metered))
        if known is None:
            while len(self._programs) >= _PROGRAMS_MAX:
                del self._programs[next(iter(self._programs))]
            loading = self._workers[0].load(
                digest=bytes.fromhex(digest), blob=BlobServer(self._module_path(digest)), metered=metered
            )
            # The promise is kept beside what it promises: dropping it would cancel the load.
            known = self._programs[digest, metered] = (loading, loading.program)
        return known[1]

    def close(self) -> None:
        """Give the slots back. Idempotent."""
        if self._workers:
            self._workers.clear()
            self._prepared = None
            self._programs.clear()
            self._on_close(self.slots)


class RemoteAttempt:
    """A run on a worker."""

    def __init__(self, promise: Any, spec: Spec) -> None:
        self._promise = promise
        self._attempt = promise.attempt
        self._spec = spec
        self._has_ended = False

    async def outcome(self) -> tuple[Outcome, bytes]:
        """Return how the run ended, and the zip of its artifacts, of which the outcome says nothing yet.

        Raises BadModule, Draining, or another WwError when the worker cannot say.
        """
        answer = await call(self._promise)
        self._has_ended = answer.ended
        if not answer.ended:
            answer = await call(answer.attempt.outcome())
            self._has_ended = True
        return _read_outcome(answer.outcome, self._spec)

    async def cancel(self) -> None:
        """Ask the worker to stop the run; its outcome follows."""
        try:
            await call(self._attempt.cancel())
        except RemoteError:
            if not self._has_ended:
                raise


def _fill_invocation(invocation: Any, spec: Spec, files: bytes) -> None:
    invocation.entry = spec.entry
    if spec.arguments:
        invocation.arguments = spec.arguments
    if argv := spec.argv:
        invocation.args = argv
    if spec.env:
        invocation.env = [{"key": key, "value": value} for key, value in spec.env]
    if spec.stdin:
        invocation.stdin = spec.stdin
    if files:
        invocation.files = files
    if spec.artifacts:
        invocation.artifacts = spec.artifacts
    if spec.dirs:
        invocation.dirs = spec.dirs
    invocation.deterministic = spec.deterministic
    invocation.seed = spec.seed
    limits = invocation.limits
    limits.durationSeconds = spec.duration_s
    limits.memoryBytes = spec.memory_bytes
    limits.outputBytes = spec.output_bytes
    limits.cpuSeconds = spec.cpu_s
    limits.fuel = spec.fuel
    limits.filesBytes = spec.files_bytes
    limits.artifactBytes = spec.artifact_bytes


def _read_outcome(outcome: Any, spec: Spec) -> tuple[Outcome, bytes]:
    """Read what a worker says; sizes are held to the spec again, since a worker may say anything."""
    reason = _REASONS.get(str(outcome.reason))
    if reason is None:
        raise PeerError("the worker gave a reason that this gateway does not know")
    # Read once: pycapnp counts every read of a field against the message's limit.
    stdout, stderr, artifacts = outcome.stdout, outcome.stderr, outcome.artifacts
    if artifacts and not spec.artifacts:
        raise PeerError("the worker sent artifacts of a run that was asked for none")
    if len(artifacts) > spec.artifact_bytes + ZIP_OVERHEAD_BYTES:
        raise PeerError(f"the worker sent {len(artifacts)} bytes of artifacts, where {spec.artifact_bytes} may be")
    most = spec.output_bytes
    read = Outcome(
        reason=reason,
        detail=one_line(outcome.detail),
        result=number.from_bits(outcome.result, is_float=outcome.isFloat) if outcome.hasResult else None,
        exit_code=outcome.exitCode if outcome.hasExitCode else None,
        stdout=stdout[:most],
        stderr=stderr[:most],
        stdout_truncated=outcome.stdoutTruncated or len(stdout) > most,
        stderr_truncated=outcome.stderrTruncated or len(stderr) > most,
        # Tasks take turns by it: an absurd one would put a task, and what comes after it, behind all others for ever.
        wall_s=min(finite(outcome.wallSeconds), spec.duration_s + _OVERRUN_S),
        cpu_s=finite(outcome.cpuSeconds),
        memory_bytes=min(outcome.memoryBytes, INT64_MAX),
        memory_limit_bytes=min(outcome.memoryLimitBytes, INT64_MAX),
        fuel=min(outcome.fuel, INT64_MAX) if outcome.hasFuel else None,
        queue_s=finite(outcome.queueSeconds),
        compile_s=finite(outcome.compileSeconds),
        instantiate_s=finite(outcome.instantiateSeconds),
        files_bytes=min(outcome.filesBytes, INT64_MAX),
    )
    return read, artifacts


def finite(number: float) -> float:
    """Hold a number of a stranger to what can be stored and shown: SQLite has no NaN, and JSON no infinity either."""
    return number if 0.0 <= number < math.inf else 0.0
