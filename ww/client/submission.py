"""What a task is made of, as a caller gives it: read from files, and written as the parts of a form or as JSON.

Holds the fields of POST /tasks by their Python names; those of one run of a batch: batch.py. Must not know which of
them a gateway takes: it says so itself, and names the field.
"""

import hashlib
import json
import math
import os
import re
from binascii import b2a_base64
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any, Final, Required, TypedDict

from ww import archive
from ww.client.call import Part
from ww.errors import UsageError
from ww.uuid7 import uuid7

Source = str | os.PathLike[str] | bytes
"""A path, or the bytes themselves."""

_DIGEST: Final = re.compile(r"(?:sha256:)?([0-9a-f]{64})")
_MODULE_BYTES_MAX: Final = 1 << 30
FILES_BYTES_MAX: Final = 256 << 20
_FILES_COUNT_MAX: Final = 10_000


class GrantFields(TypedDict, total=False):
    """A function that a task's runs may have called, and what a run of it may use; but for name, what is absent or None
    is the gateway's default."""

    name: Required[str]
    """module:qualname."""
    duration_s: float | None
    memory_bytes: int | None
    output_bytes: int | None
    cpu_seconds: float | None
    fuel: int | None
    retries: int | None
    grants: Sequence[str] | None
    """Names, of the same list, of what it may have called in turn."""
    indirect: bool | None
    """Whether only those may have it called that name it in their grants."""


class TaskFields(TypedDict, total=False):
    """What may be said of a task beside its module; what is absent or None is the gateway's default."""

    id: str | None
    """1 to 128 letters, digits or . _ : - ; made when absent. The same id with the same content is the same task."""
    name: str | None
    description: str | None
    entry: str | None
    """Exported function to call."""
    input: int | None
    difficulty: int | None
    args: Sequence[str] | None
    env: Mapping[str, str] | None
    stdin: bytes | str | None
    files: Source | None
    """A zip, by path or as bytes, or a folder, of which one is made. Links in it are left out."""
    dirs: Sequence[str] | None
    artifacts: Sequence[str] | None
    repeats: int | None
    start_s: float | None
    delay_s: float | None
    duration_s: float | None
    complete: int | None
    priority: int | None
    cpus: float | None
    labels: Mapping[str, str] | None
    retries: int | None
    """How often a run is run again when its guest fails."""
    memory_bytes: int | None
    output_bytes: int | None
    files_bytes_max: int | None
    artifacts_bytes_max: int | None
    cpu_seconds: float | None
    fuel: int | None
    deterministic: bool | None
    seed: int | None
    spread: str | None
    replicas: int | None
    quorum: int | None
    """To which workers its runs go: pull (who is free), roundrobin, random or everywhere (one run on each)."""
    grants: Sequence[GrantFields] | None
    """What runs of a Python function may have called while they run."""


@dataclass(frozen=True, slots=True)
class Module:
    """What is to be run."""

    digest: str
    """sha256:HEX."""
    content: bytes | None = field(default=None, repr=False)
    """None where the caller named it only."""


@dataclass(frozen=True, slots=True)
class Submission:
    """A task that can be sent, as often as it takes."""

    id: str
    module: Module
    fields: tuple[Part, ...] = field(repr=False)
    values: Mapping[str, Any] = field(repr=False)
    """The same as JSON, of a batch."""

    def parts(self, *, by_digest: bool) -> tuple[Part, ...]:
        """Return the form, with the module's bytes or with its digest alone."""
        if by_digest or self.module.content is None:
            return (*self.fields, _text_part("module", self.module.digest))
        return (*self.fields, ("wasm", ("guest.wasm", self.module.content)))

    def head(self, *, by_digest: bool) -> bytes:
        """Return the first line of a batch."""
        if by_digest or self.module.content is None:
            module = {"module": self.module.digest}
        else:
            module = {"wasm_base64": _base64(self.module.content)}
        return json.dumps({"parent": {**self.values, **module}}, separators=(",", ":")).encode() + b"\n"


def read_module(wasm: Source) -> Module:
    """Read a module from a path, from bytes, or from the text sha256:HEX, which names one that was sent before."""
    if isinstance(wasm, str) and wasm.startswith("sha256:"):
        return Module(read_digest(wasm))
    content = read_source("wasm", wasm, _MODULE_BYTES_MAX)
    return Module(f"sha256:{hashlib.sha256(content).hexdigest()}", content)


def read_digest(text: str) -> str:
    """Return a module's digest as sha256:HEX."""
    if (match := _DIGEST.fullmatch(text)) is None:
        raise UsageError(f"module: {text[:80]!r} is not sha256: and 64 hex digits", "module")
    return f"sha256:{match[1]}"


def prepare(wasm: Source, given: TaskFields) -> Submission:
    """Read all that a task is made of. UsageError names the field that cannot be sent."""
    return _prepare(wasm, given, lambda *_: {})


def _prepare(wasm: Source, given: TaskFields, as_json: Callable[[str, Any, list[Part]], dict[str, Any]]) -> Submission:
    if unknown := sorted(set(given) - _WRITERS.keys()):
        raise UsageError(f"{unknown[0]}: no such field of a task", unknown[0])
    id = given.get("id")
    if id is None:
        id = str(uuid7())
    parts: list[Part] = _text("id", id)
    values: dict[str, Any] = {"id": id}
    for name, value in given.items():
        if name != "id" and value is not None:
            field, write = _WRITERS[name]
            written = write(field, value)
            parts += written
            values |= as_json(field, value, written)
    return Submission(id, read_module(wasm), tuple(parts), values)


def prepare_batch(wasm: Source, given: TaskFields) -> Submission:
    """Read all that the runs of a batch have in common."""
    if given.get("repeats") is not None:
        raise UsageError("repeats: a batch has as many runs as it is given", "repeats")
    return _prepare(wasm, given, _json)


def _json(field: str, value: Any, written: list[Part]) -> dict[str, Any]:
    """Return a field that was written as parts, as JSON."""
    if field in _OBJECTS:
        return {field: dict(value)}
    contents = [content for _, (_, content) in written]
    if field in _BYTES:
        return {f"{field}_base64": _base64(contents[0])}
    texts = [content.decode(errors="surrogateescape") for content in contents]
    if field == "grants":
        return {field: json.loads(texts[0])}
    return {field: texts if field in _LISTS else texts[0]}


def _base64(content: bytes) -> str:
    return b2a_base64(content, newline=False).decode()


# How one field is written.


def _text_part(field: str, text: str) -> Part:
    return field, (None, text.encode(errors="surrogateescape"))


def _text(field: str, value: Any) -> list[Part]:
    if not isinstance(value, str):
        raise UsageError(f"{field}: expected text, not {type(value).__name__}", field)
    return [_text_part(field, value)]


def _whole(field: str, value: Any) -> list[Part]:
    if not isinstance(value, int) or isinstance(value, bool):
        raise UsageError(f"{field}: expected a whole number, not {type(value).__name__}", field)
    return [_text_part(field, str(value))]


def _decimal(field: str, value: Any) -> list[Part]:
    if not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value):
        raise UsageError(f"{field}: expected a finite number, not {value!r}"[:200], field)
    # Without an exponent, and to the nanosecond, which is all that a gateway reads.
    text = f"{Decimal(repr(value)):.9f}" if isinstance(value, float) else str(value)
    return [_text_part(field, text.rstrip("0").rstrip(".") if "." in text else text)]


def _truth(field: str, value: Any) -> list[Part]:
    if not isinstance(value, bool):
        raise UsageError(f"{field}: expected True or False, not {type(value).__name__}", field)
    return [_text_part(field, "true" if value else "false")]


def _texts(field: str, value: Any) -> list[Part]:
    if isinstance(value, str | bytes) or not isinstance(value, Sequence):
        raise UsageError(f"{field}: expected a list of texts, not {type(value).__name__}", field)
    return [part for each in value for part in _text(field, each)]


def _pairs(field: str, value: Any) -> list[Part]:
    if not isinstance(value, Mapping):
        raise UsageError(f"{field}: expected a mapping of names to texts, not {type(value).__name__}", field)
    if flawed := [key for key, text in value.items() if not isinstance(text, str) or not isinstance(key, str)]:
        # Neither is shown whole: values may be secrets.
        raise UsageError(f"{field}: the name and the value of {str(flawed[0])[:40]!r} have to be texts", field)
    return [_text_part(field, f"{key}={text}") for key, text in value.items()]


def _grants(field: str, value: Any) -> list[Part]:
    if isinstance(value, str | bytes | Mapping) or not isinstance(value, Sequence):
        raise UsageError(f"{field}: expected a list of mappings, not {type(value).__name__}", field)
    written = []
    for place, grant in enumerate(value):
        if not isinstance(grant, Mapping):
            raise UsageError(f"{field}[{place}]: expected a mapping, not {type(grant).__name__}", field)
        if unknown := [str(name)[:40] for name in grant if name not in _OF_GRANTS]:
            raise UsageError(f"{field}[{place}]: {unknown[0]!r} is none of {' '.join(_OF_GRANTS)}", field)
        written.append({_OF_GRANTS[name]: each for name, each in grant.items() if each is not None})
    try:
        return [_text_part(field, json.dumps(written, separators=(",", ":"), allow_nan=False))]
    except (TypeError, ValueError):
        raise UsageError(f"{field}: expected texts, finite numbers and lists of texts", field) from None


def _stdin(field: str, value: Any) -> list[Part]:
    content = value.encode() if isinstance(value, str) else value
    if not isinstance(content, bytes | bytearray | memoryview):
        raise UsageError(f"{field}: expected bytes or text, not {type(value).__name__}", field)
    return [(field, (field, bytes(content)))]


def _files(field: str, value: Any) -> list[Part]:
    content = zip_of(field, value)
    return [(field, ("files.zip", read_source(field, value, FILES_BYTES_MAX) if content is None else content))]


def zip_of(field: str, source: Any) -> bytes | None:
    """Return the zip of a folder; None for what is none."""
    if isinstance(source, bytes | bytearray | memoryview) or not _path(field, source).is_dir():
        return None
    return _zip(field, _path(field, source))


def _zip(field: str, folder: Path) -> bytes:
    try:
        directory = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            return archive.pack(directory, ["/"], bytes_max=FILES_BYTES_MAX, count_max=_FILES_COUNT_MAX)
        finally:
            os.close(directory)
    except OSError as error:
        raise UsageError(f"{field}: {folder}: {error.strerror}", field) from None
    except UsageError as error:
        raise UsageError(f"{field}: {folder}: {error}", field) from None


def read_source(field: str, source: Any, bytes_max: int) -> bytes:
    """Return bytes, or those of a file; UsageError names the field when there are none, or too many."""
    if isinstance(source, bytes | bytearray | memoryview):
        return bytes(source)
    path = _path(field, source)
    try:
        with path.open("rb") as file:
            content = file.read(bytes_max + 1)
    except OSError as error:
        raise UsageError(f"{field}: {path}: {error.strerror}", field) from None
    if len(content) > bytes_max:
        raise UsageError(f"{field}: {path}: more than {bytes_max} bytes", field)
    return content


def _path(field: str, source: Any) -> Path:
    if not isinstance(source, str | os.PathLike):
        raise UsageError(f"{field}: expected a path or bytes, not {type(source).__name__}", field)
    return Path(source)


_Writer = Callable[[str, Any], list[Part]]
_WRITERS: Final[dict[str, tuple[str, _Writer]]] = {
    **{name: (name, _text) for name in ("id", "name", "description", "entry", "spread")},
    **{
        name: (name, _whole)
        for name in ("input", "difficulty", "repeats", "complete", "priority", "retries", "fuel", "seed")
    },
    **{name: (name, _whole) for name in ("replicas", "quorum")},
    "memory_bytes": ("memory", _whole),
    "output_bytes": ("output", _whole),
    "files_bytes_max": ("files_max", _whole),
    "artifacts_bytes_max": ("artifacts_max", _whole),
    "start_s": ("start", _decimal),
    "delay_s": ("delay", _decimal),
    "duration_s": ("duration", _decimal),
    "cpu_seconds": ("cpu_seconds", _decimal),
    "cpus": ("cpus", _decimal),
    "deterministic": ("deterministic", _truth),
    "args": ("args", _texts),
    "dirs": ("dirs", _texts),
    "artifacts": ("artifacts", _texts),
    "env": ("env", _pairs),
    "labels": ("labels", _pairs),
    "stdin": ("stdin", _stdin),
    "files": ("files", _files),
    "grants": ("grants", _grants),
}
_OF_GRANTS: Final = {
    "name": "name",
    **{name: _WRITERS[name][0] for name in GrantFields.__annotations__ if name in _WRITERS and name != "grants"},
    "grants": "grants",
    "indirect": "indirect",
}
PARENT_FIELDS: Final = frozenset(_WRITERS)
FORM_NAMES: Final = {name: field for name, (field, _) in _WRITERS.items()}
"""What POST /tasks calls each field."""
_LISTS: Final = frozenset({"args", "dirs", "artifacts"})
_OBJECTS: Final = frozenset({"env", "labels"})
_BYTES: Final = frozenset({"stdin", "files"})
