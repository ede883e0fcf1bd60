"""The runs of a batch as they are sent: one line of JSON each, made while they go out: a million are never held.

Holds what may be said of one run, and how it is written. What all of them have in common: submission.py. Must not know
which of it a gateway takes: it says so itself, and names the run.
"""

import json
from binascii import b2a_base64
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, TypedDict, TypeVar, cast

from ww.client.submission import FILES_BYTES_MAX, PARENT_FIELDS, Source, read_source, zip_of
from ww.errors import UsageError

_PIECE_BYTES: Final = 256 << 10

T = TypeVar("T")


class RunFields(TypedDict, total=False):
    """What one run of a batch is given in place of what its task says; what is absent or None is the task's."""

    args: Sequence[str] | None
    env: Mapping[str, str] | None
    """Beside the task's: what both name is this one's."""
    stdin: bytes | str | None
    files: Source | None
    """A zip, by path or as bytes, or a folder, of which one is made."""
    input: int | None
    difficulty: int | None
    seed: int | None
    name: str | None
    """For people; results have it."""


Run = RunFields | bytes | str
"""Bytes and text are its stdin."""
Runs = Iterable[Run] | AsyncIterable[Run]


def is_replayable(runs: object) -> bool:
    """Whether runs can be iterated over again. UsageError when they are none."""
    if isinstance(runs, str | bytes | bytearray | Mapping) or not isinstance(runs, Iterable | AsyncIterable):
        raise UsageError(f"runs: expected a list or an iterator of runs, not {type(runs).__name__}", "runs")
    return not isinstance(runs, Iterator | AsyncIterator)


def in_order(runs: Iterable[T] | AsyncIterable[T]) -> Iterable[T]:
    """Return runs as an ordinary iterable. UsageError for what needs an event loop."""
    if not isinstance(runs, Iterable):
        raise UsageError("runs: expected no asynchronous iterator: that is for AsyncClient", "runs")
    return runs


class Batch:
    """A batch's runs, which can be sent once, or as often as it takes where they can be iterated over again."""

    def __init__(self, runs: Runs) -> None:
        self._is_replayable = is_replayable(runs)
        self._runs = runs
        self._is_begun = False
        self.count = 0
        """How many were taken."""
        self.is_whole = False
        """Whether that was all."""

    @property
    def is_async(self) -> bool:
        """Whether only an asyncio client can send it."""
        return not isinstance(self._runs, Iterable)

    @property
    def can_send(self) -> bool:
        """Whether it can be sent now: an iterator gives nothing twice."""
        return self._is_replayable or not self._is_begun

    def pieces(self, head: bytes) -> Iterator[bytes]:
        """Yield the body whose first line is head. UsageError at what is no run, which it names."""
        piece = self._begin(head)
        for run in in_order(self._runs):
            piece += self._line(run)
            if len(piece) >= _PIECE_BYTES:
                yield bytes(piece)
                piece.clear()
        yield bytes(piece)
        self.is_whole = True

    async def async_pieces(self, head: bytes) -> AsyncIterator[bytes]:
        """Yield it from runs that come asynchronously."""
        piece = self._begin(head)
        async for run in cast(AsyncIterable[Run], self._runs):
            piece += self._line(run)
            if len(piece) >= _PIECE_BYTES:
                yield bytes(piece)
                piece.clear()
        yield bytes(piece)
        self.is_whole = True

    def _begin(self, head: bytes) -> bytearray:
        self._is_begun, self.is_whole, self.count = True, False, 0
        return bytearray(head)

    def _line(self, run: Run) -> bytes:
        number = self.count
        self.count += 1
        if isinstance(run, bytes):
            return b'{"stdin_base64":"%b"}\n' % b2a_base64(run, newline=False)
        return json.dumps(run_json(run, f"tasks[{number}]"), separators=(",", ":")).encode() + b"\n"


def run_json(run: Run, where: str) -> dict[str, Any]:
    """Return a run as POST /tasks takes it. UsageError names the field that cannot be sent, and where it is."""
    if isinstance(run, bytes | bytearray | memoryview):
        return {"stdin_base64": _base64(bytes(run))}
    if isinstance(run, str):
        return {"stdin": run}
    if not isinstance(run, Mapping):
        raise UsageError(f"{where}: expected fields of a run, or its stdin, not {type(run).__name__}", where)
    said: dict[str, Any] = {}
    for name, value in run.items():
        field = f"{where}.{name}"
        if name not in _WRITERS:
            why = "belongs in what all runs have in common" if name in PARENT_FIELDS else "no such field of a run"
            raise UsageError(f"{field}: {why}", field)
        if value is not None:
            key, written = _WRITERS[name](name, field, value)
            said[key] = written
    return said


# How one field is written: its key and its value.


def _text(name: str, field: str, value: Any) -> tuple[str, Any]:
    if not isinstance(value, str):
        raise UsageError(f"{field}: expected text, not {type(value).__name__}", field)
    return name, value


def _whole(name: str, field: str, value: Any) -> tuple[str, Any]:
    if not isinstance(value, int) or isinstance(value, bool):
        raise UsageError(f"{field}: expected a whole number, not {type(value).__name__}", field)
    return name, value


def _texts(name: str, field: str, value: Any) -> tuple[str, Any]:
    if isinstance(value, str | bytes) or not isinstance(value, Sequence) or not all(isinstance(v, str) for v in value):
        raise UsageError(f"{field}: expected a list of texts", field)
    return name, list(value)


def _pairs(name: str, field: str, value: Any) -> tuple[str, Any]:
    if not isinstance(value, Mapping):
        raise UsageError(f"{field}: expected a mapping of names to texts, not {type(value).__name__}", field)
    if flawed := [key for key, text in value.items() if not isinstance(text, str) or not isinstance(key, str)]:
        # Values may be secrets.
        raise UsageError(f"{field}: the name and the value of {str(flawed[0])[:40]!r} have to be texts", field)
    return name, dict(value)


def _stdin(name: str, field: str, value: Any) -> tuple[str, Any]:
    if isinstance(value, str):
        return name, value
    if not isinstance(value, bytes | bytearray | memoryview):
        raise UsageError(f"{field}: expected bytes or text, not {type(value).__name__}", field)
    return f"{name}_base64", _base64(bytes(value))


def _files(name: str, field: str, value: Any) -> tuple[str, Any]:
    content = zip_of(field, value)
    return f"{name}_base64", _base64(read_source(field, value, FILES_BYTES_MAX) if content is None else content)


def _base64(content: bytes) -> str:
    return b2a_base64(content, newline=False).decode()


_WRITERS: Final = {
    "args": _texts,
    "env": _pairs,
    "stdin": _stdin,
    "files": _files,
    "input": _whole,
    "difficulty": _whole,
    "seed": _whole,
    "name": _text,
}
RUN_FIELDS: Final = frozenset(_WRITERS)
