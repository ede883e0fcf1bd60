"""What a client sends and gets over capabilities, as bytes: fields, the records of runs, results.

Holds no I/O. Must not know connections. What is sent: schema/tasks.capnp; results become the same values as over HTTP
(answer.py), whose JSON is made when it is looked at.
"""

import base64
import json
import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import MISSING, dataclass, fields
from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import quote

from ww.client.answer import Result, Task, read_as
from ww.client.submission import Submission, prepare
from ww.errors import PeerError, UsageError
from ww.records import NOTHING, Input, write_input
from ww.results import ResultRecord, read_results

CHUNK_BYTES: Final = 512 << 10
"""Of records that are sent together; a longer record is cut."""
ADD_BYTES_MAX: Final = 1 << 20
_STDIN_HEAD: Final = struct.Struct("<IBI")
_STDIN_FLAG: Final = 8
_RUN_FIELDS: Final = frozenset({"args", "env", "stdin", "files", "input", "difficulty", "seed", "name"})
_NUMBERS: Final = ("input", "difficulty")
# What a run says by itself, and what it needs its parent for.
_WORDS: Final = ("input", "difficulty", "args")
_BITS: Final = {"i32": 32, "i64": 64}
# The record of a run that is given two small numbers.
_TWO: Final = frozenset(_NUMBERS)
_TWO_NUMBERS: Final = struct.Struct("<IBHqq")
_ARGUMENTS_FLAG: Final = 1
_SMALL_END: Final = 1 << 31

Run = Mapping[str, Any] | bytes | str


# What is submitted.


@dataclass(frozen=True, slots=True)
class Wanted:
    """A task as it is sent."""

    id: str
    fields: bytes
    stdin: bytes
    files: bytes | None
    digest: bytes
    wasm: bytes | None


def wanted_of(submission: Submission) -> Wanted:
    """Return a submission as it is sent. UsageError for what would be taken for another."""
    texts: list[bytes] = []
    stdin, files = b"", None
    for name, (filename, value) in submission.fields:
        if name == "stdin":
            stdin = value
        elif name == "files":
            files = value
        elif filename is None:
            if b"\0" in value:
                raise UsageError(f"{name}: holds a NUL character", name)
            texts += (name.encode(), value)
    digest = bytes.fromhex(submission.module.digest.removeprefix("sha256:"))
    data = b"\0".join((*texts, b""))
    return Wanted(submission.id, data, stdin, files, digest, submission.module.content)


class RunEncoder:
    """Writes the runs of one batch."""

    def __init__(self, parent: Mapping[str, Any], kind: str, parameters: Sequence[str]) -> None:
        """parent is what the runs have in common; kind and parameters what the gateway says of the guest."""
        self._parent = parent
        self._is_function = kind == "function"
        self._parameters = tuple(parameters)
        self._env = dict(parent.get("env") or {})
        self._numbers = self._as_two_numbers()
        self.count = 0

    def _as_two_numbers(self) -> tuple[int, int] | None:
        """Return input and difficulty of the parent where all that a run can differ in are these, as numbers."""
        is_plain = self._is_function and self._parent.get("entry") is None and not self._parent.get("args")
        given = [self._parent.get(name) or 0 for name in _NUMBERS]
        if is_plain and len(self._parameters) == 2 and _as_numbers(given, self._parameters) is not None:
            return given[0], given[1]
        return None

    def chunks(self, runs: Iterable[Run]) -> Iterator[bytes]:
        """Yield the records of runs, some at a time."""
        waiting: list[bytes] = []
        size = 0
        for run in runs:
            record = self.record(run)
            waiting.append(record)
            size += len(record)
            if size >= CHUNK_BYTES:
                yield from cut(b"".join(waiting))
                waiting, size = [], 0
        if waiting:
            yield from cut(b"".join(waiting))

    def record(self, run: Run) -> bytes:
        """Return the record of the next run."""
        self.count += 1
        if isinstance(run, str):
            run = run.encode(errors="surrogateescape")
        if isinstance(run, bytes):
            return _STDIN_HEAD.pack(5 + len(run), _STDIN_FLAG, len(run)) + run
        if not isinstance(run, Mapping):
            raise self._wrong("", f"expected bytes, text or a mapping of fields, not {type(run).__name__}")
        if not run:
            return NOTHING
        # By far the most batches of functions: their records cost a third of the others'.
        if self._numbers is not None and run.keys() <= _TWO:
            first, second = run.get("input", self._numbers[0]), run.get("difficulty", self._numbers[1])
            if type(first) is int and type(second) is int and 0 <= first < _SMALL_END and 0 <= second < _SMALL_END:
                return _TWO_NUMBERS.pack(_TWO_NUMBERS.size - 4, _ARGUMENTS_FLAG, 2, first, second)
        if unknown := run.keys() - _RUN_FIELDS:
            name = sorted(map(str, unknown))[0]
            raise self._wrong(name[:60], "no field of one run: it belongs in what is said of all")
        return write_input(self._input(run))

    def _input(self, run: Mapping[str, Any]) -> Input:
        given = {name: value for name, value in run.items() if value is not None}
        arguments, args = self._words(given) if any(name in given for name in _WORDS) else (None, None)
        env = given.get("env")
        if env is not None:
            if not isinstance(env, Mapping) or not all(_is_text(k) and _is_text(v) for k, v in env.items()):
                raise self._wrong("env", "expected a mapping of names to texts without zero characters")
            env = tuple((self._env | dict(env)).items())
        stdin = given.get("stdin")
        if isinstance(stdin, str):
            stdin = stdin.encode(errors="surrogateescape")
        if stdin is not None and not isinstance(stdin, bytes | bytearray | memoryview):
            raise self._wrong("stdin", f"expected bytes or text, not {type(stdin).__name__}")
        files = None
        if "files" in given:
            ((_, (_, files)),) = (part for part in prepare(b"", {"files": given["files"]}).fields if part[0] == "files")
        seed = self._whole("seed", given.get("seed"), 0, 2**64)
        name = given.get("name", "")
        if not isinstance(name, str):
            raise self._wrong("name", f"expected text, not {type(name).__name__}")
        return Input(arguments, args, env, None if stdin is None else bytes(stdin), files, seed, name)

    def _words(self, given: Mapping[str, Any]) -> tuple[tuple[int, ...] | None, tuple[str, ...] | None]:
        """Return what a guest is called with: as numbers where that is known here, else as text."""
        args = given.get("args", self._parent.get("args")) or ()
        if isinstance(args, str | bytes) or not all(_is_text(text) for text in args):
            raise self._wrong("args", "expected a list of texts without zero characters")
        numbers = [self._whole(name, given.get(name, self._parent.get(name)), 0, 2**63) for name in _NUMBERS]
        if self._is_function and self._parent.get("entry") is None:
            words: list[int | str] = [each or 0 for each in numbers]
        else:
            words = [each for each in numbers if each is not None] + list(args)
        if self._is_function and (whole := _as_numbers(words, self._parameters)) is not None:
            return whole, None
        return None, tuple(map(str, words))

    def _whole(self, name: str, value: Any, low: int, high: int) -> int | None:
        if value is None:
            return None
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value < high:
            raise self._wrong(name, f"expected a whole number from {low} to {high - 1}")
        return value

    def _wrong(self, name: str, what: str) -> UsageError:
        field = f"tasks[{self.count - 1}]{'.' + name if name else ''}"
        return UsageError(f"{field}: {what}", field)


def _is_text(value: object) -> bool:
    return isinstance(value, str) and "\0" not in value


def _as_numbers(words: Sequence[int | str], parameters: Sequence[str]) -> tuple[int, ...] | None:
    """Return whole numbers in the form that a function gets them; None for what the gateway has to read."""
    if len(words) != len(parameters):
        return None
    found = []
    for word, kind in zip(words, parameters, strict=True):
        bits = _BITS.get(kind)
        if bits is None or not isinstance(word, int) or not -(1 << bits - 1) <= word < 1 << bits:
            return None
        found.append(word - (1 << bits) if word >> bits - 1 == 1 else word)
    return tuple(found)


def cut(data: bytes) -> Iterator[bytes]:
    """Yield data in pieces that one call may carry."""
    if len(data) <= ADD_BYTES_MAX:
        yield data
        return
    for start in range(0, len(data), ADD_BYTES_MAX):
        yield data[start : start + ADD_BYTES_MAX]


# What comes back.


def read_task(shown: str) -> Task:
    return read_as(Task, read_json(shown))


def read_json(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise PeerError(f"the answer is no gateway's: expected JSON, it begins {text[:40]!r}") from None


# The places of a value, which a frozen dataclass sets by name, at three times the cost.
_PLACES: Final[dict[str, Any]] = {each.name: vars(Result)[each.name] for each in fields(Result)}
_plain_json: Final = _PLACES["json"]


class NativeResult(Result):
    """A Result that came over a capability: what is seldom looked at is made of its record when somebody does."""

    __slots__ = ("_record", "_task")
    _task: str
    _record: ResultRecord

    def __getattr__(self, name: str) -> Any:
        """Fill in what was left out: called for what has no value yet."""
        if name not in _PLACES:
            raise AttributeError(name)
        _complete(self)
        return getattr(self, name)

    @property
    def json(self) -> Mapping[str, Any]:
        """What HTTP would have answered."""
        found: Mapping[str, Any] | None = _plain_json.__get__(self)
        if found is None:
            found = _json_of(self, self._task)
            _plain_json.__set__(self, found)
        return found

    @json.setter
    def json(self, value: Mapping[str, Any]) -> None:
        _plain_json.__set__(self, value)


def results_of(data: bytes, task: str) -> list[Result]:
    """Read results of the task of that id."""
    try:
        records = read_results(data)
    except ValueError as error:
        raise PeerError(f"the answer is no gateway's: {error}") from None
    return [result_of(record, task) for record in records]


# What most look at: its place in a record, and what sets it.
_FIRST: Final = [
    (ResultRecord._fields.index(name), _PLACES[name].__set__)
    for name in ("run", "position", "state", "result", "exit_code", "stdout", "stderr", "cpu_s")
]
_REST: Final = [
    (ResultRecord._fields.index(name), place.__set__)
    for name, place in _PLACES.items()
    if name in ResultRecord._fields and name not in ("run", "position", "state", "result", "exit_code", "cpu_s")
]
_TIMES: Final = frozenset(ResultRecord._fields.index(f"{name}_at") for name in ("queued", "started", "finished"))
_TEXTS: Final = frozenset(ResultRecord._fields.index(name) for name in ("reason", "detail", "worker"))
# Fields of a newer Result than this knows of.
_DEFAULTS: Final = [
    (_PLACES[each.name].__set__, each.default)
    for each in fields(Result)
    if each.name not in (*ResultRecord._fields, "json") and each.default is not MISSING
]


def result_of(record: ResultRecord, task: str) -> Result:
    """Return a record as the value that HTTP's results are too."""
    made = object.__new__(NativeResult)
    for index, set_ in _FIRST:
        set_(made, record[index])
    _plain_json.__set__(made, None)
    _set_record(made, record)
    _set_task(made, task)
    return made


def _complete(result: NativeResult) -> None:
    for set_, default in _DEFAULTS:
        set_(result, default)
    record = result._record
    for index, set_ in _REST:
        value: Any = record[index]
        if index in _TIMES:
            value = None if value is None else datetime.fromtimestamp(value, UTC)
        elif index in _TEXTS:
            value = value or None
        set_(result, value)


_set_task: Final = vars(NativeResult)["_task"].__set__
_set_record: Final = vars(NativeResult)["_record"].__set__


def _json_of(result: Result, task: str) -> dict[str, Any]:
    """Return what HTTP would have answered."""
    url = f"/tasks/{quote(task)}/runs/{result.run}/artifacts" if result.artifacts_bytes else None
    return {
        "run": result.run,
        "state": result.state,
        "result": result.result,
        "exit_code": result.exit_code,
        **_output_json("stdout", result.stdout, result.stdout_truncated),
        **_output_json("stderr", result.stderr, result.stderr_truncated),
        "reason": result.reason,
        "detail": result.detail,
        "worker": result.worker,
        "attempts": result.attempts,
        **{
            name: None if (at := getattr(result, name)) is None else at.isoformat(timespec="milliseconds")
            for name in ("queued_at", "started_at", "finished_at")
        },
        "wall_seconds": result.wall_s,
        "cpu_seconds": result.cpu_s,
        "memory_bytes": result.memory_bytes,
        "queue_seconds": result.queue_s,
        "compile_seconds": result.compile_s,
        "instantiate_seconds": result.instantiate_s,
        "fuel": result.fuel,
        "memory_limit_bytes": result.memory_limit_bytes,
        "files_bytes": result.files_bytes,
        "artifacts_url": url,
        "artifacts_bytes": result.artifacts_bytes,
        **{name: getattr(result, name) for name in ("position", "name") if getattr(result, name, None)},
    }


def _output_json(name: str, data: bytes, truncated: bool) -> dict[str, Any]:
    said: dict[str, Any] = {name: "", f"{name}_bytes": len(data), f"{name}_truncated": truncated}
    try:
        said[name] = data.decode()
    except UnicodeDecodeError:
        said[f"{name}_base64"] = base64.b64encode(data).decode()
    return said
