"""Groups of runs and how they ended as bytes, between a parent and its sandbox processes.

Holds what schema/sandbox.capnp says beside the records (../records.py) that both ways are made of. Must not know
sockets or files: what is too large for a message is handed over as pieces to put somewhere, and found there again. The
parent's side believes nothing: whatever is no reply raises ValueError.
"""

import struct
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from ww import archive
from ww.archive import packed_bytes_max
from ww.errors import UsageError
from ww.records import (
    HAS_EXIT,
    HAS_FUEL,
    HAS_RESULT,
    IS_FLOAT,
    OUTCOME_BYTES,
    REASONS,
    SAME,
    STDERR_CUT,
    STDOUT_CUT,
    Input,
    RawOutcome,
    read_input,
    spans,
)
from ww.sandbox.inputs import Inputs, Task
from ww.sandbox.invocation import INLINE_BYTES_MAX, Invocation, Result, RunLimits

KEPT_BYTES_MAX: Final = 64 << 20
"""Output that waits in files, of all the runs of a group, when another run begins."""
DETAIL_BYTES_MAX: Final = 1200
_LIMITS: Final = (
    ("durationSeconds", "duration_s"), ("cpuSeconds", "cpu_s"), ("fuel", "fuel"), ("memoryBytes", "memory_bytes"),
    ("outputBytes", "output_bytes"), ("filesBytes", "files_bytes"), ("filesCount", "files_count"),
    ("artifactBytes", "artifact_bytes"), ("artifactCount", "artifact_count"),
)  # fmt: skip
_SPILLED: Final = struct.Struct("<IQIQIQI")
# Of an outcome record, what the parent holds a process to: length, place and reason; and behind them the lengths.
_WHICH: Final = struct.Struct("<IIB")
_SIZES: Final = struct.Struct("<IIII")
_SIZES_AT: Final = OUTCOME_BYTES - _SIZES.size


# What is asked.


def write_run(
    run: Any, digest: bytes, metered: bool, limits: RunLimits, task: Task, inputs: Inputs, places: range
) -> Sequence[bytes]:
    """Write the runs at some places of a group into a sandbox.Request's run, and return what is to be in the input
    file, piece after piece."""
    run.digest, run.metered, run.first = digest, metered, places.start
    written = run.init("limits")
    for theirs, ours in _LIMITS:
        if value := getattr(limits, ours):
            setattr(written, theirs, value)
    _write_shared(run.init("shared"), task)
    pieces = [task.record, *inputs.pieces(places)]
    total = sum(map(len, pieces))
    if total > INLINE_BYTES_MAX:
        run.spilledBytes = total
        return pieces
    run.inputs = b"".join(pieces)
    return ()


def _write_shared(shared: Any, task: Task) -> None:
    shared.entry = task.entry
    if task.has_files:
        shared.hasFiles, shared.artifacts, shared.dirs = True, list(task.artifacts), list(task.dirs)
    if task.deterministic:
        shared.deterministic = True
    if task.has_code:
        shared.hasCode = True
    if task.context:
        shared.context = task.context


def read_run(run: Any, spilled: memoryview | None) -> tuple[RunLimits, bool, list[Invocation]]:
    """Read a group: its limits, whether the guests have a file system, and the invocations. spilled is the input file,
    when something is in it; parts of it become the invocations'. ValueError when a guest cannot be given them."""
    limits = RunLimits(**{ours: getattr(run.limits, theirs) for theirs, ours in _LIMITS})
    shared = run.shared
    has_files = shared.hasFiles
    data: Any = run.inputs if spilled is None else spilled
    records = spans(data)
    start, end = next(records)
    task = _invocation(shared, read_input(data, start, end))
    arity = len(task.arguments)
    invocations: list[Invocation] = []
    for start, end in records:
        given = read_input(data, start, end)
        if given is SAME:
            invocations.append(task)
            continue
        arguments, args, env, stdin, files, seed, _ = given
        if arguments is not None and len(arguments) != arity:
            raise ValueError(f"{len(arguments)} arguments are given, the task has {arity}")
        if files is not None and not has_files:
            raise ValueError("files are given where the task has no file system")
        invocations.append(
            Invocation(
                task.entry,
                task.arguments if arguments is None else arguments,
                task.args if args is None else args,
                task.env if env is None else env,
                task.stdin if stdin is None else stdin,
                task.files if files is None else files,
                task.artifacts,
                task.dirs,
                task.deterministic,
                task.seed if seed is None else seed,
                task.context,
                task.code,
            )
        )
    return limits, has_files, invocations


def _invocation(shared: Any, given: Input) -> Invocation:
    has_code = shared.hasCode
    return Invocation(
        shared.entry,
        given.arguments or (),
        given.args or (),
        given.env or (),
        given.stdin or b"",
        b"" if has_code else given.files or b"",
        list(shared.artifacts),
        list(shared.dirs),
        shared.deterministic,
        given.seed or 0,
        shared.context,
        (given.files or b"") if has_code else b"",
    )


# What is answered.


class Spilled(NamedTuple):
    """Where the output of a run lies that is not in its record: for each its offset in its file, and its length."""

    place: int
    stdout_at: int = 0
    stdout_bytes: int = 0
    stderr_at: int = 0
    stderr_bytes: int = 0
    artifacts_at: int = 0
    artifacts_bytes: int = 0

    @property
    def size_bytes(self) -> int:
        """Of all three."""
        return self.stdout_bytes + self.stderr_bytes + self.artifacts_bytes

    def to_bytes(self) -> bytes:
        return _SPILLED.pack(*self)


def check_outcomes(data: bytes, places: range, limits: RunLimits) -> int:
    """Return of how many runs these are the outcome records: those of the first of places, in their order.

    ValueError when a run with these limits cannot have such an outcome.
    """
    artifacts_most = _artifacts_most(limits)
    at, size, count, most = 0, len(data), 0, len(places)
    first, output_most = places.start, limits.output_bytes
    which, sizes = _WHICH.unpack_from, _SIZES.unpack_from
    while at < size:
        if size - at < OUTCOME_BYTES:
            raise ValueError("a record is cut off")
        length, place, reason = which(data, at)
        if count >= most or place != first + count or reason >= len(REASONS):
            raise ValueError("place or reason")
        stdout, stderr, artifacts, detail = sizes(data, at + _SIZES_AT)
        if length != OUTCOME_BYTES - 4 + stdout + stderr + artifacts + detail:
            raise ValueError("length")
        if stdout > output_most or stderr > output_most or artifacts > artifacts_most or detail > DETAIL_BYTES_MAX:
            raise ValueError("bytes")
        at += 4 + length
        count += 1
    if at != size or not count:
        raise ValueError("records")
    return count


def read_spilled(data: bytes, places: range, limits: RunLimits) -> dict[int, Spilled]:
    """Read where the output of runs lies, by place. ValueError when it is more than these limits let it be."""
    if len(data) % _SPILLED.size:
        raise ValueError("rows")
    found = {row[0]: Spilled(*row) for row in _SPILLED.iter_unpack(data)}
    output_most, artifacts_most = limits.output_bytes, _artifacts_most(limits)
    for row in found.values():
        if row.place not in places:
            raise ValueError("place")
        if row.stdout_bytes > output_most or row.stderr_bytes > output_most or row.artifacts_bytes > artifacts_most:
            raise ValueError("bytes")
    if sum(row.size_bytes for row in found.values()) > KEPT_BYTES_MAX + 2 * output_most + artifacts_most:
        raise ValueError("bytes")
    return found


def check_artifacts(artifacts: bytes, limits: RunLimits) -> None:
    """Raise ValueError when these are no zip that a gateway would take."""
    try:
        archive.check(artifacts, bytes_max=limits.artifact_bytes, count_max=limits.files_count)
    except UsageError:
        raise ValueError("artifacts") from None


def _artifacts_most(limits: RunLimits) -> int:
    return packed_bytes_max(limits.artifact_bytes, limits.artifact_count) if limits.artifact_count else 0


def result_of(raw: RawOutcome) -> Result:
    """Read a checked outcome."""
    flags = raw.flags
    return Result(
        REASONS[raw.reason],
        _line(raw.detail) if raw.detail else "",
        raw.result if flags & HAS_RESULT else None,
        bool(flags & IS_FLOAT),
        raw.exit_code if flags & HAS_EXIT else None,
        raw.stdout,
        raw.stderr,
        bool(flags & STDOUT_CUT),
        bool(flags & STDERR_CUT),
        raw.wall_s,
        raw.instantiate_s,
        raw.cpu_s,
        raw.fuel if flags & HAS_FUEL else None,
        raw.memory_bytes,
        raw.files_bytes,
        raw.artifacts,
    )


def line_of(text: str) -> str:
    """Return what a sandbox process says for people, as one line."""
    return "".join(letter if letter.isprintable() else "?" for letter in text[:300])


def _line(data: bytes) -> str:
    return line_of(data[:DETAIL_BYTES_MAX].decode(errors="replace"))
