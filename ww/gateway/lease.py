"""One or several slots of one worker, and the runs that are sent to it.

Holds the Lease by which offers are used, how a run is put into a message, and how its outcome is read: whatever a
worker says is held to what was asked for. Must not know which run goes where: pool.py gives leases, dispatch.py uses
them. Next in a task's life: ../worker.py.
"""

import hashlib
import math
import os
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple
from weakref import WeakValueDictionary

from ww import schema
from ww.caps.blob import BlobServer, fetch
from ww.errors import PeerError, RemoteError, UsageError
from ww.gateway import number
from ww.gateway.inputs import Record
from ww.gateway.request import ZIP_OVERHEAD_BYTES
from ww.gateway.task import Outcome, Spec, Task
from ww.identity import PeerId
from ww.records import (
    BY_REFERENCE,
    HAS_EXIT,
    HAS_FUEL,
    HAS_RESULT,
    IS_FLOAT,
    LARGE_BYTES,
    REASONS,
    STDERR_CUT,
    STDOUT_CUT,
    RawOutcome,
    read_outcomes,
)
from ww.rpc.errors import call, one_line
from ww.rpc.exports import Peer
from ww.rpc.message import listed
from ww.wasm_inspect import Kind

_PROGRAMS_MAX: Final = 16
_TASKS_MAX: Final = 16
# How much longer than its deadline a run can take until it is stopped, with room to spare.
_OVERRUN_S: Final = 60.0
INT64_MAX: Final = 2**63 - 1
_REASONS: Final = ("", *REASONS[1:])


@dataclass(frozen=True, slots=True)
class Offer:
    """One free slot of one worker."""

    peer: Peer
    worker: Any
    """A client of schema interface Worker; holding it holds the slot."""
    depth: int = 0
    """The least depth of a run that it takes; above 0: the slot is lent by a run that waits."""


class _Prepared:
    """The invocation of a task's runs: repeats say the same each time, whoever runs them, and it may be large."""

    __slots__ = ("__weakref__", "message")

    def __init__(self, message: Any) -> None:
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
            prepared = self._prepared[task.number] = _Prepared(message)
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
        self.depth = offers[0].depth
        """The least depth of a run that it takes."""
        self._workers = [offer.worker for offer in offers]
        self._invocations = invocations
        self._module_path = module_path
        self._on_close = on_close
        self._programs: dict[tuple[str, bool], tuple[Any, Any]] = {}
        """By digest, and whether their runs are metered."""
        self._tasks: dict[int, tuple[Any, Any, _Prepared]] = {}
        """By number: the tasks served last."""

    @property
    def peer_id(self) -> PeerId:
        """Whose slots they are."""
        return self.peer.peer_id

    def is_prepared(self, task: Task) -> bool:
        """Whether a run of that task can be started without its files."""
        return task.number in self._tasks or self._invocations.is_prepared(task)

    def start(
        self, task: Task, inputs: Sequence[Record], files: bytes = b"", calls: Any | None = None
    ) -> "RemoteGroup":
        """Start a run of task for each of its inputs. Returns at once; everything travels together, nothing is waited
        for.

        files is the zip that its spec names; it may be left out when `is_prepared` says so. calls, a server of schema
        interface Calls, is what the only run may ask of the cluster.
        """
        if not self._workers:
            raise UsageError("the lease is closed")
        if task.spec.repeats == 1 and not task.spec.inputs:
            prepared = self._invocations.prepare(task, files)
            given = {} if calls is None else {"calls": calls}
            return RemoteGroup(self._program_of(task).run(invocation=prepared.message, **given), task.spec, 1)
        small: list[bytes] = []
        large: list[BlobServer] = []
        for record in inputs:
            if isinstance(record, bytes):
                small.append(record)
            else:
                small.append(BY_REFERENCE)
                large.append(BlobServer(record.path, record.start + 4, record.length - 4))
        request = self._runs_of(task, files).start_request()
        request.inputs = b"".join(small)
        if large:
            request.large = large
        if calls is not None:
            request.calls = calls
        return RemoteGroup(request.send(), task.spec, len(inputs))

    def _runs_of(self, task: Task, files: bytes) -> Any:
        known = self._tasks.get(task.number)
        if known is None:
            while len(self._tasks) >= _TASKS_MAX:
                del self._tasks[next(iter(self._tasks))]
            prepared = self._invocations.prepare(task, files)
            promise = self._program_of(task).task(invocation=prepared.message)
            # The promise is kept beside what it promises: dropping it would cancel the call.
            known = self._tasks[task.number] = (promise, promise.runs, prepared)
        return known[1]

    def _program_of(self, task: Task) -> Any:
        spec = task.spec
        return self._program(spec.module, bool(spec.fuel or spec.deterministic))

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
            self._tasks.clear()
            self._programs.clear()
            self._on_close(self.slots)


class Ended(NamedTuple):
    """How one run of a group ended."""

    place: int
    outcome: Outcome
    """Of artifacts it says nothing yet."""
    artifacts: bytes
    """A zip."""


class RemoteGroup:
    """Runs on a worker."""

    def __init__(self, promise: Any, spec: Spec, count: int) -> None:
        self._promise = promise
        self._group = promise.group
        self._spec = spec
        self._left = set(range(count))
        self._large: list[Any] = []
        """Outcomes that are to be fetched, the next one last."""
        self._is_begun = False
        self._has_ended = False

    async def ended(self) -> list[Ended]:
        """Wait for further runs to end; return how they did, nothing once all have.

        Raises BadModule, Draining, or another WwError when the worker cannot say.
        """
        found: list[Ended] = []
        while not found and self._left:
            if self._large:
                return await self._fetch(self._large.pop())
            if self._has_ended:
                raise PeerError(f"the worker does not say how {len(self._left)} of its runs ended")
            answer = await call(self._promise if not self._is_begun else self._group.more())
            found = self._read(answer.outcomes)
            self._large = [*listed("large", answer.large, len(self._left))][::-1]
            self._has_ended = answer.ended
            if self._is_begun and not (found or self._large or self._has_ended):
                raise PeerError("the worker answers that further runs have ended, and says of none how")
            self._is_begun = True
        return found

    async def _fetch(self, blob: Any) -> list[Ended]:
        """Read a large outcome: one at a time, since all together may be more than memory holds."""
        pieces = fetch(blob, bytes_max=self._record_bytes_max)
        if not (found := self._read(b"".join([piece async for piece in pieces]))):
            raise PeerError("the worker's large outcome is empty")
        return found

    def _read(self, records: bytes) -> list[Ended]:
        try:
            return [self._take(raw) for raw in read_outcomes(records)]
        except ValueError as error:
            raise PeerError(f"the worker's outcomes cannot be read: {error}") from None

    @property
    def _record_bytes_max(self) -> int:
        spec = self._spec
        return 2 * spec.output_bytes + spec.artifact_bytes + ZIP_OVERHEAD_BYTES + LARGE_BYTES

    def _take(self, raw: RawOutcome) -> Ended:
        try:
            self._left.remove(raw.place)
        except KeyError:
            raise PeerError("the worker says twice how a run ended, or of none of ours") from None
        return tuple.__new__(Ended, (raw[0], _read_outcome(raw, self._spec), raw.artifacts))

    async def cancel(self, places: Sequence[int] = ()) -> None:
        """Ask the worker to stop those runs, or all; their outcomes follow."""
        try:
            await call(self._group.cancel(runs=struct.pack(f"<{len(places)}I", *places)))
        except RemoteError:
            if self._left:
                raise


def _fill_invocation(invocation: Any, spec: Spec, files: bytes) -> None:
    invocation.entry = spec.entry
    if spec.arguments:
        invocation.arguments = spec.arguments
    # A Python function's name is followed by those of what its runs may have called.
    if argv := (*spec.argv, *(grant.name for grant in spec.grants if not grant.is_indirect)):
        invocation.args = argv
    if spec.env:
        invocation.env = [{"key": key, "value": value} for key, value in spec.env]
    if spec.stdin:
        invocation.stdin = spec.stdin
    if files:
        # What a Python guest is given, nobody unpacks.
        setattr(invocation, "code" if spec.kind == Kind.PYTHON else "files", files)
    if spec.depth:
        invocation.depth = spec.depth
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


def _read_outcome(raw: RawOutcome, spec: Spec) -> Outcome:
    """Read what a worker says; it is held to the spec again, since a worker may say anything."""
    (
        _, reason, flags, exit_code, result, memory_bytes, memory_limit_bytes, fuel, files_bytes, wall_s,
        instantiate_s, cpu_s, queue_s, compile_s, stdout, stderr, artifacts, detail,
    ) = raw  # fmt: skip
    if reason >= len(_REASONS):
        raise PeerError("the worker gave a reason that this gateway does not know")
    if artifacts and not spec.artifacts:
        raise PeerError("the worker sent artifacts of a run that was asked for none")
    if len(artifacts) > spec.artifact_bytes + ZIP_OVERHEAD_BYTES:
        raise PeerError(f"the worker sent {len(artifacts)} bytes of artifacts, where {spec.artifact_bytes} may be")
    # One look at all of them, since they are well nearly always.
    if (memory_bytes | memory_limit_bytes | fuel | files_bytes) > INT64_MAX:
        memory_bytes, memory_limit_bytes, fuel, files_bytes = (min(number, INT64_MAX) for number in raw[5:9])
    if not 0.0 <= wall_s + instantiate_s + cpu_s + queue_s + compile_s < math.inf or min(raw[9:14]) < 0.0:
        wall_s, instantiate_s, cpu_s, queue_s, compile_s = map(finite, raw[9:14])
    most = spec.output_bytes
    # For every run: tuple.__new__ takes half the time of the class's own.
    fields = (
        _REASONS[reason],
        one_line(detail.decode(errors="replace")) if detail else "",
        number.from_bits(result, is_float=bool(flags & IS_FLOAT)) if flags & HAS_RESULT else None,
        exit_code if flags & HAS_EXIT else None,
        stdout[:most] if stdout else b"",
        stderr[:most] if stderr else b"",
        bool(flags & STDOUT_CUT) or len(stdout) > most,
        bool(flags & STDERR_CUT) or len(stderr) > most,
        # Tasks take turns by it: an absurd one would put a task, and what comes after it, behind all others for ever.
        min(wall_s, spec.duration_s + _OVERRUN_S),
        cpu_s,
        memory_bytes,
        memory_limit_bytes,
        fuel if flags & HAS_FUEL else None,
        queue_s,
        compile_s,
        instantiate_s,
        files_bytes,
        "",
        0,
    )
    return tuple.__new__(Outcome, fields)


def finite(number: float) -> float:
    """Hold a number of a stranger to what can be stored and shown: SQLite has no NaN, and JSON no infinity either."""
    return number if 0.0 <= number < math.inf else 0.0
