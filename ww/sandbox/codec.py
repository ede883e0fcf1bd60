"""Groups of runs and their results as bytes, between a parent and its sandbox processes.

Holds the rows and columns that schema/sandbox.capnp describes. Must not know sockets or files: what is too large for a
message is handed over as pieces to put somewhere, and found there again. The parent's side believes nothing: whatever
is no reply raises ValueError.
"""

import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from ww import schema
from ww.archive import packed_bytes_max
from ww.sandbox.invocation import INLINE_BYTES_MAX, Invocation, Result, RunLimits

REASONS: Final = tuple(
    sorted(schema.worker.Reason.schema.enumerants, key=schema.worker.Reason.schema.enumerants.__getitem__)
)
_NUMBERS: Final = {reason: number for number, reason in enumerate(REASONS)}
_AS_BEFORE: Final = 0xFFFFFFFF
_FILES_AS_BEFORE: Final = 0xFFFFFFFFFFFFFFFF
_RUN: Final = struct.Struct("<IIQQQ")
_RESULT: Final = struct.Struct("<BBHIqQQQdddqIqIqII")
_HAS_RESULT, _IS_FLOAT, _HAS_EXIT, _STDOUT_CUT, _STDERR_CUT, _HAS_FUEL = (1 << bit for bit in range(6))
_LIMITS: Final = (
    ("durationSeconds", "duration_s"), ("cpuSeconds", "cpu_s"), ("fuel", "fuel"), ("memoryBytes", "memory_bytes"),
    ("outputBytes", "output_bytes"), ("filesBytes", "files_bytes"), ("filesCount", "files_count"),
    ("artifactBytes", "artifact_bytes"), ("artifactCount", "artifact_count"),
)  # fmt: skip


def write_run(
    run: Any, digest: bytes, metered: bool, limits: RunLimits, invocations: Sequence[Invocation]
) -> Sequence[bytes]:
    """Write a group into a sandbox.Request's run, and return what is to be in the input file, piece after piece.

    The invocations differ in nothing but arguments, args, env, stdin, files and seed.
    """
    first = invocations[0]
    run.digest, run.metered = digest, metered
    written = run.init("limits")
    for theirs, ours in _LIMITS:
        if value := getattr(limits, ours):
            setattr(written, theirs, value)
    _write_shared(run.init("shared"), first)
    rows: list[bytes] = []
    texts: list[str] = []
    args: Sequence[str] | None = None
    env: Sequence[tuple[str, str]] | None = None
    stdins: list[bytes] = []
    files: list[bytes] = []
    arguments = struct.Struct(f"<{len(first.arguments)}q")
    for each in invocations:
        args_count = env_count = _AS_BEFORE
        if each.args != args:
            args, args_count = each.args, len(each.args)
            texts += args
        if each.env != env:
            env, env_count = each.env, len(each.env)
            for pair in env:
                texts += pair
        files_bytes = len(each.files)
        if files and each.files is files[-1]:
            files_bytes = _FILES_AS_BEFORE
        elif each.files:
            files.append(each.files)
        stdins.append(each.stdin)
        rows += (
            _RUN.pack(args_count, env_count, len(each.stdin), files_bytes, each.seed),
            arguments.pack(*each.arguments),
        )
    run.rows = b"".join(rows)
    if texts:
        run.texts = "\0".join((*texts, "")).encode()
    blobs = [blob for blob in (*stdins, *files) if blob]
    total = sum(map(len, blobs))
    if total > INLINE_BYTES_MAX:
        run.spilledBytes = total
        return blobs
    if blobs:
        run.blobs = b"".join(blobs)
    return ()


def _write_shared(shared: Any, first: Invocation) -> None:
    shared.entry, shared.arity = first.entry, len(first.arguments)
    if first.has_files:
        shared.hasFiles, shared.artifacts, shared.dirs = True, list(first.artifacts), list(first.dirs)
    if first.deterministic:
        shared.deterministic = True
    if first.context:
        shared.context = first.context


def read_run(run: Any, spilled: memoryview | None) -> tuple[RunLimits, bool, list[Invocation]]:
    """Read a group: its limits, whether the guests have a file system, and the invocations. spilled is the input file,
    when something is in it; parts of it become the invocations'."""
    limits = RunLimits(**{ours: getattr(run.limits, theirs) for theirs, ours in _LIMITS})
    shared = run.shared
    arity, entry, rows = shared.arity, shared.entry, run.rows
    texts = iter(run.texts.decode().split("\0"))
    blobs: Any = run.blobs if spilled is None else spilled
    artifacts = list(shared.artifacts)
    dirs, deterministic, context = list(shared.dirs), shared.deterministic, shared.context
    args: Sequence[str] = ()
    env: Sequence[tuple[str, str]] = ()
    invocations: list[Invocation] = []
    sizes: list[int] = []
    at = 0
    for row in struct.iter_unpack(f"{_RUN.format}{arity}q", rows):
        args_count, env_count, stdin_bytes, files_bytes, seed = row[:5]
        if args_count != _AS_BEFORE:
            args = [next(texts) for _ in range(args_count)]
        if env_count != _AS_BEFORE:
            env = [(next(texts), next(texts)) for _ in range(env_count)]
        stdin = blobs[at : at + stdin_bytes] if stdin_bytes else b""
        at += stdin_bytes
        sizes.append(files_bytes)
        invocations.append(
            Invocation(entry, row[5:], args, env, stdin, b"", artifacts, dirs, deterministic, seed, context)
        )
    files = b""
    for invocation, size in zip(invocations, sizes, strict=True):
        if size != _FILES_AS_BEFORE:
            files = blobs[at : at + size] if size else b""
            at += size
        invocation.files = files
    return limits, shared.hasFiles, invocations


KEPT_BYTES_MAX: Final = 64 << 20
"""Output that waits in files, of all the runs of a group, when another run begins."""

Spots = tuple[int, int, int, int, int, int]
"""Where stdout, stderr and artifacts are: for each the offset in its file, or -1 when in the message, and its bytes."""
NOWHERE: Final[Spots] = (-1, 0, -1, 0, -1, 0)


@dataclass(slots=True)
class Spilled:
    """A part of a result that lies in a file."""

    result: Result
    name: str
    """stdout, stderr or artifacts."""
    at: int
    """Offset in the file of that name."""
    size_bytes: int


def write_outcome(result: Result, spots: Spots, rows: list[bytes], pieces: list[bytes]) -> int:
    """Append a result's row, and what of it is to be in the message; return how many bytes the latter are."""
    detail = result.detail.encode()
    flags = 0
    if result.value is not None:
        flags = _HAS_RESULT | _IS_FLOAT if result.is_float else _HAS_RESULT
    if result.exit_code is not None:
        flags |= _HAS_EXIT
    if result.stdout_truncated:
        flags |= _STDOUT_CUT
    if result.stderr_truncated:
        flags |= _STDERR_CUT
    if result.fuel is not None:
        flags |= _HAS_FUEL
    stdout_at, stdout_bytes, stderr_at, stderr_bytes, artifacts_at, artifacts_bytes = spots
    rows.append(
        _RESULT.pack(
            _NUMBERS[result.reason], flags, 0, result.exit_code or 0, result.value or 0, result.memory_bytes,
            result.fuel or 0, result.files_bytes, result.wall_s, result.instantiate_s, result.cpu_s, stdout_at,
            stdout_bytes, stderr_at, stderr_bytes, artifacts_at, artifacts_bytes, len(detail),
        )
    )  # fmt: skip
    inline = result.stdout, result.stderr, result.artifacts, detail
    pieces += inline
    return sum(map(len, inline))


def _line(data: bytes) -> str:
    return "".join(letter if letter.isprintable() else "?" for letter in data[:1200].decode(errors="replace"))[:300]


def is_all(outcomes: Any, count: int) -> bool:
    """Whether there are that many results, by the looks of it."""
    return len(outcomes.rows) == count * _RESULT.size


def read_outcomes(outcomes: Any, limits: RunLimits, most: int) -> tuple[list[Result], list[Spilled]]:
    """Read at most most results of runs with these limits, and what of them is elsewhere. ValueError when that is not
    what is there."""
    rows, data = outcomes.rows, outcomes.bytes
    if not 0 < len(rows) <= most * _RESULT.size or len(rows) % _RESULT.size:
        raise ValueError("rows")
    output_most = limits.output_bytes
    artifacts_most = packed_bytes_max(limits.artifact_bytes, limits.artifact_count) if limits.artifact_count else 0
    results: list[Result] = []
    spilled: list[Spilled] = []
    at = 0
    for (
        number, flags, _, exit_code, value, memory_bytes, fuel, files_bytes, wall_s, instantiate_s, cpu_s,
        stdout_at, stdout_bytes, stderr_at, stderr_bytes, artifacts_at, artifacts_bytes, detail_bytes,
    ) in _RESULT.iter_unpack(rows):  # fmt: skip
        if number >= len(REASONS):
            raise ValueError("reason")
        if not (0.0 <= wall_s < math.inf and 0.0 <= instantiate_s < math.inf and 0.0 <= cpu_s < math.inf):
            raise ValueError("time")
        result = Result(
            REASONS[number], "", value if flags & _HAS_RESULT else None, bool(flags & _IS_FLOAT),
            exit_code if flags & _HAS_EXIT else None, b"", b"", bool(flags & _STDOUT_CUT), bool(flags & _STDERR_CUT),
            wall_s, instantiate_s, cpu_s, fuel if flags & _HAS_FUEL else None, memory_bytes, files_bytes,
        )  # fmt: skip
        results.append(result)
        if stdout_bytes or stderr_bytes or artifacts_bytes:
            for name, where, size, size_most in (
                ("stdout", stdout_at, stdout_bytes, output_most),
                ("stderr", stderr_at, stderr_bytes, output_most),
                ("artifacts", artifacts_at, artifacts_bytes, artifacts_most),
            ):
                if size > size_most:
                    raise ValueError(name)
                if where >= 0 and size:
                    spilled.append(Spilled(result, name, where, size))
                elif size:
                    setattr(result, name, data[at : at + size])
                    at += size
        if detail_bytes:
            result.detail, at = _line(data[at : at + detail_bytes]), at + detail_bytes
    if at != len(data) or sum(part.size_bytes for part in spilled) > KEPT_BYTES_MAX + 2 * output_most + artifacts_most:
        raise ValueError("bytes")
    return results, spilled
