"""What a run is given beyond what its task's other runs are, and how it ended, as bytes.

Holds the records that schema/worker.capnp describes: they lie on disk and travel in groups. Must not know who runs
what. Whatever a stranger wrote is read with ValueError at what is no record.
"""

import struct
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final, NamedTuple, Protocol

REASONS: Final = (
    "ok", "trap", "exit", "deadline", "memory", "compile", "crash", "cancelled", "cpu", "fuel", "files", "artifacts",
)  # fmt: skip
"""worker.Reason, in its order."""
_REASON_NUMBERS: Final = {reason: number for number, reason in enumerate(REASONS)}
LARGE_BYTES: Final = 1 << 20
"""A record longer than this goes by reference."""
BY_REFERENCE: Final = b"\xff\xff\xff\xff"
"""In place of an input record that does."""
_ARGUMENTS, _ARGS, _ENV, _STDIN, _FILES, _SEED, _NAME = (1 << bit for bit in range(7))
_ALL: Final = (1 << 7) - 1
_ARGUMENTS_MAX: Final = 1000
_LENGTH: Final = struct.Struct("<I")
_SEED_FORM: Final = struct.Struct("<Q")
_NUMBERS: Final = tuple(struct.Struct(f"<H{count}q") for count in range(9))
_OUTCOME: Final = struct.Struct("<IIBBHIqQQQQdddddIIII")
OUTCOME_BYTES: Final = _OUTCOME.size
"""Of an outcome's record, beside its output, artifacts and detail."""
HAS_RESULT, IS_FLOAT, HAS_EXIT, STDOUT_CUT, STDERR_CUT, HAS_FUEL = (1 << bit for bit in range(6))
"""Flags of an outcome."""


class Input(NamedTuple):
    """What one run is given in place of what its task says; None: what that says."""

    arguments: Sequence[int] | None = None
    args: Sequence[str] | None = None
    env: Sequence[tuple[str, str]] | None = None
    stdin: bytes | None = None
    files: bytes | None = None
    """A zip."""
    seed: int | None = None
    name: str = ""
    """For people."""


SAME: Final = Input()
"""Of a run that differs in nothing."""
NOTHING: Final = b"\1\0\0\0\0"
"""The record of a run that differs in nothing."""


def write_input(given: Input) -> bytes:
    """Return a record. The texts hold no zero characters."""
    flags, parts = 0, [b""]
    if given.arguments is not None:
        flags |= _ARGUMENTS
        count = len(given.arguments)
        form = _NUMBERS[count] if count < len(_NUMBERS) else struct.Struct(f"<H{count}q")
        parts.append(form.pack(count, *given.arguments))
    if given.args is not None:
        flags |= _ARGS
        parts += _sized("".join([f"{text}\0" for text in given.args]).encode())
    if given.env is not None:
        flags |= _ENV
        parts += _sized("".join([f"{name}\0{value}\0" for name, value in given.env]).encode())
    if given.stdin is not None:
        flags |= _STDIN
        parts += _sized(given.stdin)
    if given.files is not None:
        flags |= _FILES
        parts += _sized(given.files)
    if given.seed is not None:
        flags |= _SEED
        parts.append(_SEED_FORM.pack(given.seed))
    if given.name:
        flags |= _NAME
        parts += _sized(given.name.encode())
    parts[0] = bytes((flags,))
    return b"".join(_sized(b"".join(parts)))


def _sized(data: bytes) -> tuple[bytes, bytes]:
    return _LENGTH.pack(len(data)), data


def read_input(data: bytes | memoryview, start: int = 4, end: int | None = None) -> Input:
    """Read the record in data from start, behind its length, to end. Of a memoryview, stdin and files are parts."""
    end = len(data) if end is None else end
    if not start < end <= len(data):
        raise ValueError("an input record is empty")
    flags, at = data[start], start + 1
    if not flags and at == end:
        return SAME
    if flags > _ALL:
        raise ValueError("an input record has an unknown flag")
    arguments: Sequence[int] | None = None
    args: Sequence[str] | None = None
    env: Sequence[tuple[str, str]] | None = None
    stdin: bytes | None = None
    files: bytes | None = None
    seed: int | None = None
    name = ""
    try:
        if flags & _ARGUMENTS:
            count = data[at] | data[at + 1] << 8
            if count > _ARGUMENTS_MAX:
                raise ValueError(f"{count} arguments are given, at most {_ARGUMENTS_MAX} are taken")
            form = _NUMBERS[count] if count < len(_NUMBERS) else struct.Struct(f"<H{count}q")
            arguments = form.unpack_from(data, at)[1:]
            at += form.size
        if flags & _ARGS:
            args, at = _texts(data, at, end)
        if flags & _ENV:
            texts, at = _texts(data, at, end)
            if len(texts) % 2:
                raise ValueError("env has a name without a value")
            env = list(zip(texts[::2], texts[1::2], strict=True))
        if flags & _STDIN:
            stdin, at = _bytes(data, at, end)
        if flags & _FILES:
            files, at = _bytes(data, at, end)
        if flags & _SEED:
            (seed,) = _SEED_FORM.unpack_from(data, at)
            at += 8
        if flags & _NAME:
            named, at = _bytes(data, at, end)
            name = str(named, "utf-8")
    except (struct.error, IndexError, UnicodeDecodeError):
        raise ValueError("an input record is cut off") from None
    if at != end:
        raise ValueError("an input record has another length than it says")
    return Input(arguments, args, env, stdin, files, seed, name)


def name_of(read: Callable[[int, int], bytes], start: int, end: int) -> str:
    """Return the name in a record from start, behind its length, to end; read(start, length) gives some of it.

    A record may be large, and its name stands last. ValueError when it is none.
    """
    try:
        flags = read(start, 1)[0]
        if not flags & _NAME:
            return ""
        at = start + 1
        if flags & _ARGUMENTS:
            count = read(at, 2)
            at += 2 + 8 * (count[0] | count[1] << 8)
        for flag in (_ARGS, _ENV, _STDIN, _FILES):
            if flags & flag:
                at += 4 + _LENGTH.unpack(read(at, 4))[0]
        if flags & _SEED:
            at += _SEED_FORM.size
        length = _LENGTH.unpack(read(at, 4))[0]
        if at + 4 + length != end:
            raise ValueError("an input record has another length than it says")
        return read(at + 4, length).decode()
    except (struct.error, IndexError, UnicodeDecodeError):
        raise ValueError("an input record is cut off") from None


def _bytes(data: Any, at: int, end: int) -> tuple[Any, int]:
    (length,) = _LENGTH.unpack_from(data, at)
    at += 4
    if at + length > end:
        raise IndexError
    return data[at : at + length], at + length


def _texts(data: Any, at: int, end: int) -> tuple[list[str], int]:
    found, at = _bytes(data, at, end)
    texts = str(found, "utf-8").split("\0")
    if texts.pop():
        raise ValueError("a text is not ended")
    return texts, at


def spans(data: bytes | memoryview, start: int = 0) -> Iterator[tuple[int, int]]:
    """Yield where each record in data is: behind its length, and its end. What is by reference is empty."""
    size = len(data)
    while start < size:
        if size - start < 4:
            raise ValueError("a record is cut off")
        (length,) = _LENGTH.unpack_from(data, start)
        start += 4
        if length == 0xFFFFFFFF:
            yield start, start
            continue
        if length > size - start:
            raise ValueError("a record is cut off")
        yield start, start + length
        start += length


class Ended(Protocol):
    """What is known of a run's end where it ran."""

    reason: str
    detail: str
    value: int | None
    is_float: bool
    exit_code: int | None
    stdout: bytes
    stderr: bytes
    stdout_truncated: bool
    stderr_truncated: bool
    wall_s: float
    instantiate_s: float
    cpu_s: float
    fuel: int | None
    memory_bytes: int
    files_bytes: int
    artifacts: bytes


def write_outcome(
    place: int, ended: Ended, *, memory_limit_bytes: int, queue_s: float = 0.0, compile_s: float = 0.0
) -> bytes:
    """Return the record of the end of the run at that place of a group."""
    flags = 0
    if ended.value is not None:
        flags = HAS_RESULT | IS_FLOAT if ended.is_float else HAS_RESULT
    if ended.exit_code is not None:
        flags |= HAS_EXIT
    if ended.stdout_truncated:
        flags |= STDOUT_CUT
    if ended.stderr_truncated:
        flags |= STDERR_CUT
    if ended.fuel is not None:
        flags |= HAS_FUEL
    detail = ended.detail.encode()
    stdout, stderr, artifacts = ended.stdout, ended.stderr, ended.artifacts
    sizes = len(stdout), len(stderr), len(artifacts), len(detail)
    header = _OUTCOME.pack(
        _OUTCOME.size - 4 + sum(sizes), place, _REASON_NUMBERS[ended.reason], flags, 0, ended.exit_code or 0,
        ended.value or 0, ended.memory_bytes, memory_limit_bytes, ended.fuel or 0, ended.files_bytes,
        ended.wall_s, ended.instantiate_s, ended.cpu_s, queue_s, compile_s, *sizes,
    )  # fmt: skip
    return b"".join((header, stdout, stderr, artifacts, detail)) if any(sizes) else header


class RawOutcome(NamedTuple):
    """An outcome record's fields as they came, of which nothing but the lengths was looked at."""

    place: int
    reason: int
    flags: int
    exit_code: int
    result: int
    memory_bytes: int
    memory_limit_bytes: int
    fuel: int
    files_bytes: int
    wall_s: float
    instantiate_s: float
    cpu_s: float
    queue_s: float
    compile_s: float
    stdout: bytes
    stderr: bytes
    artifacts: bytes
    detail: bytes


def read_outcomes(data: bytes) -> list[RawOutcome]:
    """Read outcome records."""
    found: list[RawOutcome] = []
    at, size, fixed = 0, len(data), _OUTCOME.size
    while at < size:
        if size - at < fixed:
            raise ValueError("an outcome record is cut off")
        (
            length, place, reason, flags, _, exit_code, result, memory, memory_limit, fuel, files, wall_s,
            instantiate_s, cpu_s, queue_s, compile_s, stdout_bytes, stderr_bytes, artifacts_bytes, detail_bytes,
        ) = _OUTCOME.unpack_from(data, at)  # fmt: skip
        at += fixed
        stdout = stderr = artifacts = detail = b""
        if length != fixed - 4:
            stderr_at = at + stdout_bytes
            artifacts_at = stderr_at + stderr_bytes
            detail_at = artifacts_at + artifacts_bytes
            end = detail_at + detail_bytes
            if end > size or length != fixed - 4 + end - at:
                raise ValueError("an outcome record has another length than it says")
            stdout, stderr = data[at:stderr_at], data[stderr_at:artifacts_at]
            artifacts, detail = data[artifacts_at:detail_at], data[detail_at:end]
            at = end
        elif stdout_bytes or stderr_bytes or artifacts_bytes or detail_bytes:
            raise ValueError("an outcome record has another length than it says")
        # For every run: tuple.__new__ takes half the time of the class's own.
        fields = (
            place, reason, flags, exit_code, result, memory, memory_limit, fuel, files, wall_s, instantiate_s,
            cpu_s, queue_s, compile_s, stdout, stderr, artifacts, detail,
        )  # fmt: skip
        found.append(tuple.__new__(RawOutcome, fields))
    return found


def write_raw(outcome: RawOutcome) -> bytes:
    """Return the record of an outcome that was read."""
    payload = outcome[-4:]
    sizes = [len(part) for part in payload]
    place, reason, flags, exit_code, *numbers = outcome[:-4]
    length = _OUTCOME.size - 4 + sum(sizes)
    return b"".join((_OUTCOME.pack(length, place, reason, flags, 0, exit_code, *numbers, *sizes), *payload))
