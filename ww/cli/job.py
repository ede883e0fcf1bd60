"""A job file: a task, or a batch of runs, as JSON, with the files that it names beside it.

    {"parent": {"wasm": "hash.wasm", "args": ["-v"], "env": {"A": "1"}},
     "tasks": [{"stdin": "text"}, {"stdin_file": "b.txt", "files": "root.zip", "env": {"B": "2"}}]}

Holds how it is read: its fields are those of POST /tasks in JSON, and `wasm`, `files` and `stdin_file` are paths,
relative to the file. Must not know what is done with it. What runs are given is read when they are sent.
"""

import base64
import binascii
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, cast

from ww.cli.fields import read_stdin
from ww.client import RunFields, TaskFields
from ww.client.batch import RUN_FIELDS, run_json
from ww.client.submission import FORM_NAMES, Source, read_digest
from ww.errors import UsageError

_JOB_BYTES_MAX: Final = 64 << 20
_NAMES: Final = {field: name for name, field in FORM_NAMES.items()}
_STDIN: Final = ("stdin", "stdin_file", "stdin_base64")
_FILES: Final = ("files", "files_base64")
_MODULE: Final = ("wasm", "module", "wasm_base64")
_PARENT: Final = frozenset({*_NAMES, *_STDIN, *_FILES, *_MODULE})
_RUN: Final = frozenset({*RUN_FIELDS, *_STDIN, *_FILES})


@dataclass(frozen=True, slots=True)
class Job:
    """One that was read."""

    wasm: Source
    fields: TaskFields
    runs: "JobRuns | None"
    """None where it is one task without a list of runs."""


class JobRuns(Sequence[RunFields]):
    """Its runs; the files that they name are read when one is looked at."""

    def __init__(self, runs: list[Mapping[str, Any]], folder: Path) -> None:
        self._runs = runs
        self._folder = folder

    def __len__(self) -> int:
        return len(self._runs)

    def __iter__(self) -> Iterator[RunFields]:
        return map(self._run, range(len(self._runs)))

    def __getitem__(self, index: Any) -> Any:
        return self._run(range(len(self._runs))[index])

    def _run(self, number: int) -> RunFields:
        return cast(RunFields, _inputs(self._runs[number], self._folder, f"tasks[{number}]"))


def read_job(name: str) -> Job:
    """Read a job file, - for stdin. UsageError names what is wrong in it."""
    said = _object(_parsed(name), "the job")
    if unknown := sorted(said.keys() - {"parent", "tasks"}):
        raise UsageError(f"job: {_shown(unknown[0])}: no such key, expected parent and tasks", "job")
    folder = Path() if name == "-" else Path(name).parent
    parent = _object(said.get("parent", {}), "parent")
    if unknown := sorted(parent.keys() - _PARENT):
        raise UsageError(f"parent.{_shown(unknown[0])}: no such field of a task", "parent")
    runs = said.get("tasks")
    if runs is not None:
        _check_runs(runs)
        if parent.get("repeats") is not None:
            raise UsageError("parent.repeats: expected no repeats with tasks", "repeats")
    return Job(_module(parent, folder), _fields(parent, folder), None if runs is None else JobRuns(runs, folder))


def _parsed(name: str) -> Any:
    try:
        if name == "-":
            content = sys.stdin.buffer.read(_JOB_BYTES_MAX + 1)
        else:
            with Path(name).open("rb") as file:
                content = file.read(_JOB_BYTES_MAX + 1)
    except OSError as error:
        raise UsageError(f"job: {name}: {error.strerror}", "job") from None
    if len(content) > _JOB_BYTES_MAX:
        raise UsageError(f"job: {name}: more than {_JOB_BYTES_MAX} bytes", "job")
    try:
        return json.loads(content, object_pairs_hook=_once)
    except json.JSONDecodeError as error:
        raise UsageError(f"job: {name}: no JSON: line {error.lineno}: {error.msg}", "job") from None
    except (ValueError, RecursionError):
        raise UsageError(f"job: {name}: no JSON", "job") from None


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        raise UsageError(f"job: {_shown(next(k for k in keys if keys.count(k) > 1))} is there twice", "job")
    return found


def _check_runs(runs: Any) -> None:
    """Refuse what is no list of runs before anything is sent."""
    if not isinstance(runs, list) or not runs:
        raise UsageError("tasks: expected a list of runs, at least one", "tasks")
    for number, run in enumerate(runs):
        where = f"tasks[{number}]"
        if unknown := sorted(_object(run, where).keys() - _RUN):
            why = "belongs in parent" if unknown[0] in _PARENT else "no such field of a run"
            raise UsageError(f"{where}.{_shown(unknown[0])}: {why}", where)
        plain = {key: value for key, value in run.items() if key in RUN_FIELDS - {"stdin", "files"}}
        run_json(cast(RunFields, plain), where)
        for keys in (_STDIN, _FILES):
            _one_of(run, keys, where)


def _object(value: Any, where: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise UsageError(f"{where}: expected an object", "job")
    return value


def _one_of(said: Mapping[str, Any], keys: Sequence[str], where: str) -> str | None:
    """Return which of those keys is given, whose value is a text."""
    given = [key for key in keys if said.get(key) is not None]
    if len(given) > 1:
        raise UsageError(f"{where}: expected one of {' and '.join(given)}", where)
    if given and not isinstance(said[given[0]], str):
        raise UsageError(f"{where}.{given[0]}: expected a text", where)
    return given[0] if given else None


def _module(parent: Mapping[str, Any], folder: Path) -> Source:
    key = _one_of(parent, _MODULE, "parent")
    if key is None:
        raise UsageError("parent: expected wasm, a path, or module, sha256:HEX", "wasm")
    text: str = parent[key]
    if key == "wasm_base64":
        return _decoded(text, "parent.wasm_base64")
    if key == "module":
        return read_digest(text)
    return text if text.startswith("sha256:") else folder / text


def _fields(parent: Mapping[str, Any], folder: Path) -> TaskFields:
    fields = {name: parent[field] for field, name in _NAMES.items() if parent.get(field) is not None}
    return cast(TaskFields, fields | _inputs({key: parent.get(key) for key in (*_STDIN, *_FILES)}, folder, "parent"))


def _inputs(said: Mapping[str, Any], folder: Path, where: str) -> dict[str, Any]:
    """Return fields with stdin and files as they are sent, read from where they are."""
    fields = {key: value for key, value in said.items() if key not in (*_STDIN, *_FILES)}
    if (key := _one_of(said, _STDIN, where)) is not None:
        text: str = said[key]
        if key == "stdin_file":
            fields["stdin"] = read_stdin(str(folder / text), f"{where}.stdin_file")
        else:
            fields["stdin"] = text if key == "stdin" else _decoded(text, f"{where}.{key}")
    if (key := _one_of(said, _FILES, where)) is not None:
        fields["files"] = folder / said[key] if key == "files" else _decoded(said[key], f"{where}.{key}")
    return fields


def _decoded(text: str, where: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise UsageError(f"{where}: expected base64", where) from None


def _shown(key: str) -> str:
    return key if key.isprintable() and len(key) <= 80 else repr(key[:80])
