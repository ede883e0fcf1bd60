"""The runs of a batch: what each may have of its own, read into the record that it is given.

Holds the reading of one run and of lines of them. Must not know where they come from, nor where records go: submit.py
writes them. What all runs have in common is a Submission (request.py); records: ../records.py.
"""

import base64
import binascii
import struct
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final, NamedTuple, TypeVar

from ww import archive
from ww.errors import UsageError
from ww.gateway.fields import INT64_MAX, OF_RUNS, RUN_NAME_CHARACTERS_MAX
from ww.gateway.fields import NAMES as FIELDS
from ww.gateway.limits import RequestLimits
from ww.gateway.request import (
    NEEDS_OF_FILES,
    Submission,
    check_arguments,
    check_kind,
    check_texts,
    read_arguments,
    read_number,
    shown,
)
from ww.gateway.spec import Spec
from ww.gateway.strict_json import NoJson, read_json
from ww.records import NOTHING, Input, read_input, write_input
from ww.wasm_inspect import Guest, Kind

T = TypeVar("T")

_NUMBERS: Final = frozenset({"input", "difficulty", "seed"})
_ARGUMENTS_FLAG: Final = 1
_STDIN_FLAG: Final = 8
_LENGTH: Final = struct.Struct("<I")
_I32_LOW, _I32_HIGH = -(2**31), 2**31 - 1


class RunFields(NamedTuple):
    """What one run has of its own; None: what all have."""

    args: Sequence[str] | None = None
    env: Mapping[str, str] | None = None
    """Beside what all have, or instead of it."""
    stdin: bytes | None = None
    files: bytes | None = None
    """A zip."""
    input: int | None = None
    difficulty: int | None = None
    seed: int | None = None
    name: str = ""
    """For people: what it came from."""


_PLAIN: Final = RunFields()


class BatchReader:
    """Reads the runs of one batch, one after the other."""

    def __init__(self, submission: Submission, guest: Guest, limits: RequestLimits) -> None:
        """Read runs that have that in common, of a module that is run as guest."""
        self._submission = submission
        self._guest = guest
        self._limits = limits
        self._values = submission.values
        self._arguments: tuple[int, ...] = ()
        self._refusal: UsageError | None = None
        """Why a run needs arguments of its own."""
        if guest.kind is Kind.FUNCTION:
            try:
                self._arguments = submission.arguments(guest)
            except UsageError as error:
                self._refusal = error
                self._arguments = (0,) * len(guest.parameters)
        env = submission.values["env"]
        assert isinstance(env, tuple)
        self._env: dict[str, str] = dict(env)
        self._has_files = False
        count = len(guest.parameters)
        # What most records of functions are is told by their first bytes and their length.
        self._numbers_head = bytes((_ARGUMENTS_FLAG, count & 255, count >> 8))
        self._numbers = struct.Struct(f"<{count}q")
        self._narrow = [place for place, kind in enumerate(guest.parameters) if kind == "i32"]
        self.count = 0
        """Runs that were read."""

    # Where runs come from.

    def read_lines(self, lines: Iterable[bytes]) -> list[bytes]:
        """Return the records of runs that are a line of JSON each."""
        records = []
        for line in lines:
            try:
                value = read_json(line)
            except NoJson as error:
                raise self._at(UsageError(f"the line is no JSON that can be read: {error}")) from None
            records.append(self._read_object(value))
        return records

    def read_objects(self, values: Iterable[Any]) -> list[bytes]:
        """Return the records of runs that are an object of JSON each."""
        return [self._read_object(value) for value in values]

    def read_runs(self, runs: Iterable[RunFields]) -> list[bytes]:
        """Return the records of those runs."""
        return [self._next(self._record, run) for run in runs]

    def read_records(self, records: Iterable[bytes]) -> list[bytes]:
        """Return the records of runs that are records already, of which a function's args may be numbers as text."""
        return [self._next(self._own_record, record) for record in records]

    def _read_object(self, value: Any) -> bytes:
        if value == {}:
            return self._next(self._record, _PLAIN)
        try:
            run = fields_of_run(value, self._limits)
        except UsageError as error:
            raise self._at(error) from None
        return self._next(self._record, run)

    def _next(self, read: Callable[[T], bytes], given: T) -> bytes:
        if self.count >= self._limits.runs_max:
            most = self._limits.runs_max
            raise UsageError(f"tasks: more than {most} runs are given, the limit (--max-runs)", "tasks")
        try:
            record = read(given)
        except UsageError as error:
            raise self._at(error) from None
        self.count += 1
        return record

    def _at(self, error: UsageError) -> UsageError:
        return in_place(f"tasks[{self.count}]", error)

    # What they become.

    def _record(self, run: RunFields) -> bytes:
        if run is _PLAIN and self._refusal is None:
            return NOTHING
        check_run(run, self._limits)
        return self._written(run, *self._arguments_of(run))

    def _own_record(self, record: bytes) -> bytes:
        if self._is_plain(record):
            return record
        try:
            given = read_input(record)
        except ValueError as error:
            raise UsageError(str(error)) from None
        env = None if given.env is None else dict(given.env)
        if env is not None and given.env is not None and len(env) < len(given.env):
            raise UsageError("env: a name is given more than once", "env")
        run = RunFields(given.args, env, given.stdin, given.files, seed=given.seed, name=given.name)
        check_run(run, self._limits)
        return self._written(run, *self._arguments_in(given))

    def _is_plain(self, record: bytes) -> bool:
        """Whether a record is nothing but stdin, or a function's numbers, and fit to be stored."""
        size, flags = len(record) - 4, record[4] if len(record) > 4 else 0
        if flags == _ARGUMENTS_FLAG:
            if size != 3 + self._numbers.size or not record.startswith(self._numbers_head, 4):
                return False
            values = self._numbers.unpack_from(record, 7)
            for place in self._narrow:
                if not _I32_LOW <= values[place] <= _I32_HIGH:
                    return False
            return self._guest.kind is Kind.FUNCTION
        if self._refusal is not None or flags != _STDIN_FLAG or size < 5:
            return False
        (length,) = _LENGTH.unpack_from(record, 5)
        return bool(length == size - 5 and length <= self._limits.stdin_max_bytes)

    def _written(self, run: RunFields, arguments: Sequence[int] | None, args: Sequence[str] | None) -> bytes:
        """Return the record of a run that was checked, but for what its batch has to say."""
        if self._guest.kind is Kind.PYTHON:
            _check_python_run(run, args)
        if run.seed is not None and not self._values["deterministic"]:
            raise UsageError("seed: given without deterministic=true in parent, whose random numbers it is of", "seed")
        env = None if run.env is None else list({**self._env, **run.env}.items())
        if args or env:
            check_texts([*(env or ()), *(("", text) for text in args or ())], self._limits)
        if run.files is not None:
            self._check_files(run.files)
        return write_input(Input(arguments, args, env, run.stdin, run.files, run.seed, run.name))

    def _arguments_of(self, run: RunFields) -> tuple[Sequence[int] | None, Sequence[str] | None]:
        """Return what a function is called with, and what a command gets after its own name."""
        numbers = run.input, run.difficulty
        if numbers == (None, None) and run.args is None:
            if self._refusal is not None:
                raise self._refusal
            return None, None
        given = self._submission
        input = given.whole("input") if run.input is None else run.input
        difficulty = given.whole("difficulty") if run.difficulty is None else run.difficulty
        args = given.args if run.args is None else run.args
        if self._guest.kind is Kind.FUNCTION:
            is_named = given.entry is not None
            return read_arguments(self._guest, input, difficulty, args, is_named=is_named), run.args
        return None, [*(str(number) for number in (input, difficulty) if number is not None), *args]

    def _arguments_in(self, given: Input) -> tuple[Sequence[int] | None, Sequence[str] | None]:
        """Return the same of a record: args are all that a command gets, and a function's parameters as text."""
        if self._guest.kind is not Kind.FUNCTION:
            if given.arguments is not None:
                raise UsageError("arguments: the guest is no function; expected args", "arguments")
            return None, given.args
        if given.args is not None:
            if given.arguments is not None:
                raise UsageError("arguments: given beside args; expected one of them", "arguments")
            return read_arguments(self._guest, None, None, given.args, is_named=True), None
        if given.arguments is not None:
            return check_arguments(self._guest, given.arguments), None
        if self._refusal is not None:
            raise self._refusal
        return None, None

    def _check_files(self, data: bytes) -> None:
        limits, most = self._limits, self._submission.files_bytes_of_runs
        if len(data) > limits.files_upload_max_bytes:
            raise UsageError(f"files: {len(data)} bytes, at most {limits.files_upload_max_bytes} are taken", "files")
        try:
            archive.check(data, bytes_max=most, count_max=limits.files_count_max)
        except UsageError as error:
            raise UsageError(f"files: {error}", "files") from None
        self._has_files = True

    def spec(self, module: str, inputs: str, files: str, *, owner: str) -> Spec:
        """Return the task of all that was read, whose digests these are. UsageError when it is none."""
        if not self.count:
            raise UsageError("tasks: none are given; expected at least one run", "tasks")
        values = dict(self._values)
        if not values["files_bytes"] and self._guest.kind is not Kind.PYTHON:
            if self._has_files:
                # Whether there is a file system is the task's to say; its runs then all have one.
                values |= {"files_bytes": self._submission.files_bytes_of_runs, "dirs": ("/",)}
            elif self._submission.is_files_max_given:
                raise UsageError(f"files_max: given without {NEEDS_OF_FILES}", "files_max")
        check_kind(self._guest.kind, values, files, is_files_max_given=self._submission.is_files_max_given)
        submission = replace(self._submission, values=values | {"repeats": self.count})
        return submission.spec_with(module, self._guest, files, owner=owner, arguments=self._arguments, inputs=inputs)


def in_place(place: str, error: UsageError) -> UsageError:
    """Return an error of one of several, with which of them it is of."""
    field = f"{place}.{error.field}" if error.field else place
    says_field = error.field and str(error).startswith(f"{error.field}:")
    return UsageError(f"{place}.{error}" if says_field else f"{place}: {error}", field)


def check_run(run: RunFields, limits: RequestLimits) -> None:
    """Raise UsageError for what no run may be given, wherever it comes from."""
    if run.args:
        _check_text("args", "".join(run.args))
    if run.env:
        _check_text("env", "".join(run.env) + "".join(run.env.values()))
        for name in run.env:
            if not name or "=" in name:
                raise UsageError(f"env: {shown(name)} is no name of a variable", "env")
    if run.name:
        _check_text("name", run.name)
        if len(run.name) > RUN_NAME_CHARACTERS_MAX:
            raise UsageError(f"name: {len(run.name)} characters, at most {RUN_NAME_CHARACTERS_MAX}", "name")
    if run.stdin is not None and len(run.stdin) > limits.stdin_max_bytes:
        raise UsageError(f"stdin: {len(run.stdin)} bytes, at most {limits.stdin_max_bytes} are taken", "stdin")
    if run.input is run.difficulty is run.seed is None:
        return
    for field, number in (("input", run.input), ("difficulty", run.difficulty), ("seed", run.seed)):
        if number is not None and not 0 <= number <= INT64_MAX:
            read_number(field, str(number), limits)


def _check_python_run(run: RunFields, args: Sequence[str] | None) -> None:
    """Refuse what no run of a Python function has of its own: all have its sources, and stdin says what it is given."""
    if args is not None:
        field = "args" if run.args is not None else "input" if run.input is not None else "difficulty"
    elif run.files is not None:
        field = "files"
    else:
        return
    raise UsageError(f"{field}: a run of a Python function has none of its own; expected stdin", field)


def _check_text(field: str, text: str) -> None:
    if "\0" in text:
        raise UsageError(f"{field}: holds a NUL character", field)
    _check_encodable(field, text)


def _check_encodable(field: str, text: str) -> None:
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:  # half of a pair, as \\ud800
            raise UsageError(f"{field}: is not Unicode text", field) from None


# Objects of JSON.


def fields_of_run(value: Any, limits: RequestLimits) -> RunFields:
    """Read the object of one run. null is what is not given."""
    if not isinstance(value, dict):
        raise UsageError("expected an object, what one run has of its own")
    found: dict[str, Any] = {}
    for name, each in value.items():
        if each is None:
            continue
        if name in _NUMBERS:
            found[name] = _number(name, each, limits)
        elif name == "args":
            found[name] = _args(each)
        elif name == "env":
            found[name] = _env(each)
        elif name in ("stdin", "stdin_base64"):
            if "stdin" in found:
                raise UsageError("stdin: given as text and as base64", "stdin")
            found["stdin"] = _text("stdin", each).encode() if name == "stdin" else bytes_of(name, each)
        elif name == "files_base64":
            found["files"] = bytes_of(name, each)
        elif name == "name":
            found[name] = _text(name, each)
        else:
            raise _unknown(name)
    return RunFields(**found)


def _unknown(name: str) -> UsageError:
    if name in FIELDS or name in ("wasm_base64",):
        if name == "files":
            return UsageError("files: expected files_base64", "files")
        return UsageError(f"{name}: is the same for all runs, it belongs in parent", name)
    known = " ".join(sorted({*OF_RUNS, "stdin_base64", "files_base64"} - {"files"}))
    return UsageError(f"{shown(name)}: no such field of a run; known are {known}")


def _text(name: str, value: Any) -> str:
    if not isinstance(value, str):
        raise UsageError(f"{name}: expected text", name)
    _check_encodable(name, value)
    return value


def _args(value: Any) -> list[str]:
    if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
        raise UsageError("args: expected an array of texts", "args")
    return value


def _env(value: Any) -> dict[str, str]:
    if not isinstance(value, dict) or not all(isinstance(each, str) for each in value.values()):
        raise UsageError("env: expected an object of texts", "env")
    return value


def _number(name: str, value: Any, limits: RequestLimits) -> int:
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise UsageError(f"{name}: expected a whole number", name)
    return read_number(name, str(value), limits)


def bytes_of(name: str, value: Any) -> bytes:
    """Return the bytes of a text in base64."""
    try:
        return base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError, TypeError):
        raise UsageError(f"{name}: is not base64", name) from None


# Lines.


class Lines:
    """Takes bytes apart into lines, of which none is longer than may be. Blank ones are none."""

    def __init__(self, bytes_max: int, parents: int = 0) -> None:
        """parents: how many lines come before the first run's."""
        self._bytes_max = bytes_max
        self._parents = parents
        self._rest = bytearray()
        self.count = 0
        """Lines that were given."""

    def feed(self, data: bytes) -> list[bytes]:
        """Return the lines that end in data."""
        first, newline, rest = data.partition(b"\n")
        self._rest += first
        if not newline:
            self._check([self._rest])
            return []
        *others, last = rest.split(b"\n")
        found = [bytes(self._rest), *others]
        self._rest = bytearray(last)
        if len(data) + len(found[0]) > self._bytes_max:
            self._check([*found, last])
        return self._given(found)

    def end(self) -> list[bytes]:
        """Return what is left, at the end of all."""
        found, self._rest = [bytes(self._rest)], bytearray()
        return self._given(found)

    def _given(self, found: list[bytes]) -> list[bytes]:
        lines = [line for line in found if line and not line.isspace()]
        self.count += len(lines)
        return lines

    def _check(self, lines: Sequence[bytes | bytearray]) -> None:
        """Refuse a line that is too long, of those that come next."""
        run = self.count - self._parents
        for line in lines:
            if len(line) > self._bytes_max:
                where = f"tasks[{run}]" if run >= 0 else "parent"
                raise UsageError(f"{where}: the line has more than {self._bytes_max} bytes (--line-max)", where)
            run += bool(line) and not line.isspace()
