"""How runs ended, as bytes: what a gateway sends to whoever follows a task.

Holds the records that schema/tasks.capnp describes. Must not know stores, nor who reads: both ends use plain tuples.
Whatever a stranger wrote is read with ValueError at what is no record.
"""

import struct
from collections.abc import Sequence
from typing import Final, NamedTuple

STATES: Final = ("succeeded", "failed", "cancelled")
"""In their order on the wire."""
_STATE_NUMBERS: Final = {state: number for number, state in enumerate(STATES)}
_HAS_RESULT, _HAS_EXIT, _STDOUT_CUT, _STDERR_CUT, _HAS_FUEL, _HAS_STARTED, _HAS_ARTIFACTS = (1 << n for n in range(7))
_ALL: Final = (1 << 7) - 1
_FORM: Final = struct.Struct("<IIqBBHIqQQQQQddddddddIIIIIII")


class ResultRecord(NamedTuple):
    """One run's end."""

    run: int
    position: int
    """Its place in the order in which runs ended."""
    state: str
    result: str | None
    exit_code: int | None
    stdout: bytes
    stderr: bytes
    stdout_truncated: bool
    stderr_truncated: bool
    reason: str
    detail: str
    worker: str
    attempts: int
    queued_at: float
    """Seconds since the epoch, as the two others."""
    started_at: float | None
    finished_at: float
    wall_s: float
    cpu_s: float
    queue_s: float
    compile_s: float
    instantiate_s: float
    memory_bytes: int
    memory_limit_bytes: int
    fuel: int | None
    files_bytes: int
    has_artifacts: bool
    artifacts_bytes: int
    name: str = ""
    """Of the run, for people."""


def write_result(record: Sequence[object]) -> bytes:
    """Return the record of a ResultRecord, or of a tuple of its values."""
    (
        run, position, state, result, exit_code, stdout, stderr, stdout_cut, stderr_cut, reason, detail, worker,
        attempts, queued_at, started_at, finished_at, wall_s, cpu_s, queue_s, compile_s, instantiate_s, memory,
        memory_limit, fuel, files, has_artifacts, artifacts_bytes, name,
    ) = record  # fmt: skip
    flags = 0
    if result is not None:
        flags = _HAS_RESULT
    if exit_code is not None:
        flags |= _HAS_EXIT
    if stdout_cut:
        flags |= _STDOUT_CUT
    if stderr_cut:
        flags |= _STDERR_CUT
    if fuel is not None:
        flags |= _HAS_FUEL
    if started_at is not None:
        flags |= _HAS_STARTED
    if has_artifacts:
        flags |= _HAS_ARTIFACTS
    texts = detail, result, reason, worker, name
    # Most are empty.
    tail = [text.encode(errors="replace") if text else b"" for text in texts]  # type: ignore[attr-defined]
    sizes = [len(stdout), len(stderr), *map(len, tail)]  # type: ignore[arg-type]
    header = _FORM.pack(
        _FORM.size - 4 + sum(sizes), run, position, _STATE_NUMBERS[state], flags, 0, attempts,  # type: ignore[index]
        exit_code or 0, memory, memory_limit, fuel or 0, files, artifacts_bytes, wall_s, cpu_s, queue_s, compile_s,
        instantiate_s, queued_at, started_at or 0.0, finished_at, *sizes,
    )  # fmt: skip
    return b"".join((header, stdout, stderr, *tail))  # type: ignore[arg-type]


def read_results(data: bytes) -> list[ResultRecord]:
    """Read result records."""
    found: list[ResultRecord] = []
    at, size, fixed = 0, len(data), _FORM.size
    texts: dict[bytes, str] = {b"": ""}
    try:
        while at < size:
            (
                length, run, position, state, flags, _, attempts, exit_code, memory, memory_limit, fuel, files,
                artifacts_bytes, wall_s, cpu_s, queue_s, compile_s, instantiate_s, queued_at, started_at, finished_at,
                stdout_size, stderr_size, detail_size, result_size, reason_size, worker_size, name_size,
            ) = _FORM.unpack_from(data, at)  # fmt: skip
            at += fixed
            stderr_at = at + stdout_size
            detail_at = stderr_at + stderr_size
            result_at = detail_at + detail_size
            reason_at = result_at + result_size
            worker_at = reason_at + reason_size
            name_at = worker_at + worker_size
            end = name_at + name_size
            if end > size or length != fixed - 4 + end - at or flags > _ALL:
                raise ValueError("a result record has another length than it says")
            # The same worker and reason again and again.
            reason = data[reason_at:worker_at]
            worker = data[worker_at:name_at]
            if reason not in texts:
                texts[reason] = reason.decode()
            if worker not in texts:
                texts[worker] = worker.decode()
            # For every run: tuple.__new__ takes half the time of the class's own.
            fields = (
                run, position, STATES[state],
                data[result_at:reason_at].decode() if flags & _HAS_RESULT else None,
                exit_code if flags & _HAS_EXIT else None,
                data[at:stderr_at] if stdout_size else b"", data[stderr_at:detail_at] if stderr_size else b"",
                flags & _STDOUT_CUT != 0, flags & _STDERR_CUT != 0,
                texts[reason], data[detail_at:result_at].decode() if detail_size else "", texts[worker], attempts,
                queued_at, started_at if flags & _HAS_STARTED else None, finished_at,
                wall_s, cpu_s, queue_s, compile_s, instantiate_s, memory, memory_limit,
                fuel if flags & _HAS_FUEL else None, files, flags & _HAS_ARTIFACTS != 0, artifacts_bytes,
                data[name_at:end].decode() if name_size else "",
            )  # fmt: skip
            found.append(tuple.__new__(ResultRecord, fields))
            at = end
    except (struct.error, IndexError, UnicodeDecodeError):
        raise ValueError("a result record is cut off") from None
    return found
