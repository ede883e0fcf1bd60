"""The workers a gateway has, and the offers of theirs that wait.

Holds the two capabilities that workers get, Registry and the Sender facet of the channel, and the Lease by which one
offer is used. Must not know tasks' schedules or results: scheduler.py asks for a lease and runs attempts on it. An
offer belongs to the peer whose connection it came by, whatever it claims.
"""

import hashlib
import logging
import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from weakref import WeakValueDictionary

from ww import schema
from ww.caps.blob import BlobServer
from ww.caps.channel import Channel
from ww.caps.facets import SenderServer
from ww.caps.value import Codec
from ww.errors import Conflict, Overloaded, PeerError, RemoteError, UsageError
from ww.gateway import number
from ww.gateway.request import ZIP_OVERHEAD_BYTES
from ww.gateway.task import Outcome, Spec, Task
from ww.identity import PeerId
from ww.rpc.errors import call, one_line
from ww.rpc.exports import Peer
from ww.rpc.message import listed
from ww.wasm_inspect import Kind

log = logging.getLogger("ww.gateway")

_WORKERS_MAX: Final = 4096
_SLOTS_MAX: Final = 1024
_LABELS_MAX: Final = 64
_PROGRAMS_MAX: Final = 16
_INT64_MAX: Final = 2**63 - 1
_REASONS: Final = {"ok": "", "cancelled": "cancelled"} | {
    name: name
    for name in ("trap", "exit", "deadline", "memory", "compile", "crash", "cpu", "fuel", "files", "artifacts")
}


@dataclass(frozen=True, slots=True)
class WorkerInfo:
    """What a worker says of itself. Claims: shown and scheduled by, never trusted."""

    kind: str
    slots: int
    cpus: float
    memory_bytes: int
    labels: dict[str, str]
    host: str


@dataclass(slots=True)
class WorkerEntry:
    """One registered worker."""

    peer: Peer
    info: WorkerInfo
    since: float
    """Seconds since the epoch."""
    leased: int = 0
    """Slots of it that are in use."""
    leaving: bool = False


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


class WorkerPool:
    """Who is connected, and which of their slots are free."""

    def __init__(
        self, module_path: Callable[[str], Path], *, wall: Callable[[], float], on_offer: Callable[[], None]
    ) -> None:
        """Serve workers the module of a digest (hex) from its path. on_offer is called whenever a slot becomes free."""
        self._module_path = module_path
        self._wall = wall
        self.channel: Channel[Offer] = Channel(on_waiting=on_offer)
        # Exported by name: it stays open when the last worker has gone.
        self.channel.add_sender()
        self._workers: dict[Peer, WorkerEntry] = {}
        self._on_offer = on_offer
        self._draining: set[PeerId] = set()
        # Those that a lease holds, by task.
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

    def registry_for(self, peer: Peer) -> Any:
        """Make what peer gets as "registry"."""
        return RegistryServer(self, peer)

    def sender_for(self, peer: Peer) -> Any:
        """Make what peer gets as "channel": it may send offers, and nothing else."""

        def read(message: Any) -> Offer:
            if peer not in self._workers:
                raise UsageError("register before you send offers")
            return Offer(peer, message.value.as_struct(schema.worker.Offer).worker)

        return SenderServer(self.channel, Codec(_never_sent, read), waiting_max=_SLOTS_MAX)

    def register(self, peer: Peer, info: WorkerInfo) -> None:
        """Let peer send offers until `unregister`."""
        if peer in self._workers:
            raise Conflict("this connection has a worker registered already")
        if len(self._workers) >= _WORKERS_MAX:
            raise Overloaded(f"{_WORKERS_MAX} workers are registered, the limit")
        self._workers[peer] = WorkerEntry(peer, info, self._wall())
        log.info("worker %s joined from %s with %d slots", peer.peer_id, peer.remote, info.slots)

    def unregister(self, peer: Peer, why: str) -> None:
        """Forget a worker."""
        if self._workers.pop(peer, None) is not None:
            log.info("worker %s %s", peer.peer_id, why)

    def drain(self, peer_id: PeerId, value: bool = True) -> None:
        """Give a peer nothing new to run, or again."""
        if value:
            self._draining.add(peer_id)
        else:
            self._draining.discard(peer_id)
            self._on_offer()

    def is_draining(self, peer_id: PeerId) -> bool:
        """Whether a peer is to get nothing new."""
        return peer_id in self._draining

    def leave(self, peer: Peer) -> None:
        """Note that a worker is stopping: what it runs may still finish."""
        if entry := self._workers.get(peer):
            entry.leaving = True
            log.info("worker %s is leaving", peer.peer_id)

    def workers(self) -> list[tuple[WorkerEntry, int]]:
        """Return the registered workers and how many of each one's offers wait."""
        free: dict[Peer, int] = {}
        for _, offer in self.channel.waiting():
            free[offer.peer] = free.get(offer.peer, 0) + 1
        return [(entry, free.get(peer, 0)) for peer, entry in self._workers.items()]

    @property
    def has_free_slot(self) -> bool:
        """Whether `take` would return a lease."""
        return any(offer.peer.peer_id not in self._draining for _, offer in self.channel.waiting())

    def take(self) -> "Lease | None":
        """Take a free slot of the least busy worker, the one that offered first among equals; None when all are busy.

        Spreading runs over machines before filling one up uses all of their memory bandwidth and caches.
        """
        best: tuple[int, int] | None = None
        for key, offer in self.channel.waiting():
            if offer.peer.peer_id in self._draining:
                continue
            entry = self._workers.get(offer.peer)
            leased = entry.leased if entry is not None else 0
            if best is None or leased < best[0]:
                best = (leased, key)
            if leased == 0:
                break
        if best is None:
            return None
        offer = self.channel.take(best[1])
        return Lease(offer, self, self._workers.get(offer.peer), self._module_path)


def _never_sent(offer: Offer, message: Any) -> None:
    raise AssertionError("nobody elsewhere receives offers")


class Lease:
    """One slot of one worker, held until `close`."""

    def __init__(
        self, offer: Offer, pool: WorkerPool, entry: WorkerEntry | None, module_path: Callable[[str], Path]
    ) -> None:
        self.peer_id: PeerId = offer.peer.peer_id
        self._worker = offer.worker
        self._pool = pool
        self._entry = entry
        self._module_path = module_path
        self._programs: dict[tuple[str, bool], tuple[Any, Any]] = {}
        """By digest, and whether their runs are metered."""
        self._prepared: _Prepared | None = None
        """Of the task served last."""
        if entry is not None:
            entry.leased += 1

    def start(self, task: Task, files: bytes = b"") -> "RemoteAttempt":
        """Start one run of task. Returns at once; everything travels together, nothing is waited for.

        files is the zip that its spec names; it may be left out when the pool has the task prepared.
        """
        if self._worker is None:
            raise UsageError("the lease is closed")
        if self._prepared is None or self._prepared.task != task.number:
            self._prepared = self._pool.prepare(task, files)
        spec = task.spec
        metered = bool(spec.fuel or spec.deterministic)
        return RemoteAttempt(self._program(spec.module, metered).run(invocation=self._prepared.message), spec)

    def _program(self, digest: str, metered: bool) -> Any:
        known = self._programs.get((digest, metered))
        if known is None:
            while len(self._programs) >= _PROGRAMS_MAX:
                del self._programs[next(iter(self._programs))]
            loading = self._worker.load(
                digest=bytes.fromhex(digest), blob=BlobServer(self._module_path(digest)), metered=metered
            )
            # The promise is kept beside what it promises: dropping it would cancel the load.
            known = self._programs[digest, metered] = (loading, loading.program)
        return known[1]

    def close(self) -> None:
        """Give the slot back. Idempotent."""
        if self._worker is not None:
            self._worker = self._prepared = None
            self._programs.clear()
            if self._entry is not None:
                self._entry.leased -= 1


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
        wall_s=_finite(outcome.wallSeconds),
        cpu_s=_finite(outcome.cpuSeconds),
        memory_bytes=min(outcome.memoryBytes, _INT64_MAX),
        memory_limit_bytes=min(outcome.memoryLimitBytes, _INT64_MAX),
        fuel=min(outcome.fuel, _INT64_MAX) if outcome.hasFuel else None,
        queue_s=_finite(outcome.queueSeconds),
        compile_s=_finite(outcome.compileSeconds),
        instantiate_s=_finite(outcome.instantiateSeconds),
        files_bytes=min(outcome.filesBytes, _INT64_MAX),
    )
    return read, artifacts


def _finite(number: float) -> float:
    """Hold a number of a stranger to what can be stored and shown: SQLite has no NaN, and JSON no infinity either."""
    return number if math.isfinite(number) and number >= 0 else 0.0


class RegistryServer(schema.worker.Registry.Server):  # type: ignore[misc]
    """What a peer registers itself as a worker with."""

    def __init__(self, pool: WorkerPool, peer: Peer) -> None:
        self._pool = pool
        self._peer = peer

    async def register_context(self, context: Any) -> None:
        said = context.params.info
        if not 0 < said.slots <= _SLOTS_MAX:
            raise UsageError(f"slots: {said.slots} is not from 1 to {_SLOTS_MAX}")
        labels = listed("labels", said.labels, _LABELS_MAX)
        info = WorkerInfo(
            kind=one_line(said.kind)[:32],
            slots=said.slots,
            cpus=_finite(said.cpus),
            memory_bytes=min(said.memoryBytes, _INT64_MAX),
            labels={one_line(label.key)[:64]: one_line(label.value)[:256] for label in labels},
            host=one_line(said.host)[:256],
        )
        self._pool.register(self._peer, info)
        context.results.registration = RegistrationServer(self._pool, self._peer)


class RegistrationServer(schema.worker.Registration.Server):  # type: ignore[misc]
    """A worker's registration; its end, or its connection's, is the worker's."""

    def __init__(self, pool: WorkerPool, peer: Peer) -> None:
        self._pool = pool
        self._peer = peer

    async def leave_context(self, context: Any) -> None:
        self._pool.leave(self._peer)

    def __del__(self) -> None:
        # The last reference went: dropped by the worker, or with its connection.
        self._pool.unregister(self._peer, "left")
