"""What a submission may say: fields, their meaning and their limits. HTTP and RPC share it.

Holds the reading of fields into a Spec. Must not know where the fields came from, what is stored, or what the module
contains: the caller inspects the module (wasm_inspect.py) and gives its digest and entry. Fields: docs/http.md.
"""

import math
import os
import re
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from ww.errors import UsageError
from ww.gateway.task import Spec

INT64_MAX: Final = 2**63 - 1
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,127}")
_ENTRY_CHARACTERS_MAX: Final = 200
_DIGEST = re.compile(r"sha256:([0-9a-f]{64})")
_SHOWN_CHARACTERS: Final = 60
# About 30 years: longer is a typing error.
_SECONDS_MAX: Final = 1e9


@dataclass(frozen=True, slots=True)
class RequestLimits:
    """What a gateway accepts at most, and what it fills in."""

    repeats_max: int = 1_000_000
    """Runs of one task."""
    duration_default_s: float = 60.0
    """Seconds one run may take when the task does not say."""
    duration_max_s: float = 86_400.0
    memory_default_bytes: int = 256 << 20
    """Linear memory of one run when the task does not say."""
    memory_max_bytes: int = 1 << 30
    output_default_bytes: int = 64 << 10
    """Bytes of stdout and of stderr, each, kept of one run when the task does not say."""
    output_max_bytes: int = 1 << 20
    stdin_max_bytes: int = 1 << 20
    text_max_bytes: int = 64 << 10
    """All of a task's description, args and env together."""


@dataclass(frozen=True, slots=True)
class Submission:
    """The fields of one submission, read and checked, before its module is looked at."""

    id: str
    is_id_made: bool
    """Whether the id was made here, and cannot be taken."""
    entry: str | None
    """Exported function the user asks for, or None for what the module offers."""
    module: str | None
    """sha256, hex, of a module already stored, or None when bytes come along."""
    values: Mapping[str, object] = field(default_factory=dict)

    def spec(self, module: str, entry: str) -> Spec:
        """Complete the submission with its module's digest and the entry that was found in it."""
        return Spec(id=self.id, module=module, entry=entry, **self.values)  # type: ignore[arg-type]


def shown(text: str) -> str:
    """Quote a user's value for an error message: escaped, and cut when long."""
    return repr(text if len(text) <= _SHOWN_CHARACTERS else text[:_SHOWN_CHARACTERS] + "...")


def _whole(name: str, text: str, low: int, high: int) -> int:
    # isdigit alone lets through digits of other scripts, int alone underscores and blanks.
    if text.isascii() and text.isdigit() and len(text) <= 20 and low <= int(text) <= high:
        return int(text)
    raise UsageError(f"{name}: {shown(text)} is not a whole number from {low} to {high}", name)


def _seconds(name: str, text: str, high: float) -> float:
    if re.fullmatch(r"\d{1,12}(\.\d{0,9})?|\.\d{1,9}", text, re.ASCII):
        value = float(text)
        if math.isfinite(value) and value <= high:
            return value
    raise UsageError(f"{name}: {shown(text)} is not a number of seconds from 0 to {high:g}", name)


_SINGLE: Final = frozenset(
    {"id", "description", "complete", "duration", "start", "delay", "repeats", "input", "difficulty", "entry"}
    | {"module", "memory", "output"}
)
_REPEATED: Final = frozenset({"args", "env"})
FIELDS: Final = tuple(sorted(_SINGLE | _REPEATED | {"wasm", "stdin"}))


def read_fields(fields: Sequence[tuple[str, str]], stdin: bytes, has_wasm: bool, limits: RequestLimits) -> Submission:
    """Read a submission's text fields, in order, beside its stdin; UsageError names the field that is wrong."""
    single: dict[str, str] = {}
    args: list[str] = []
    env: dict[str, str] = {}
    for name, text in fields:
        if name in single:
            raise UsageError(f"{name}: given more than once", name)
        if name not in _SINGLE and name not in _REPEATED:
            raise UsageError(f"{shown(name)}: no such field; known are {' '.join(FIELDS)}", name[:_SHOWN_CHARACTERS])
        if "\0" in text:
            raise UsageError(f"{name}: holds a NUL character", name)
        if name == "args":
            args.append(text)
        elif name == "env":
            _read_env(text, env)
        else:
            single[name] = text
    _check_sizes(fields, stdin, limits)
    module = _read_module(single.pop("module", None), has_wasm)
    return Submission(
        is_id_made="id" not in single,
        id=_read_id(single.pop("id", None)),
        entry=_read_entry(single.pop("entry", None)),
        module=module,
        values=_read_values(single, limits) | {"args": tuple(args), "env": tuple(env.items()), "stdin": stdin},
    )


def _read_env(text: str, env: dict[str, str]) -> None:
    key, equals, value = text.partition("=")
    # The text itself is not shown: values may be secrets.
    if not equals or not key:
        raise UsageError("env: expected NAME=VALUE", "env")
    if key in env:
        raise UsageError(f"env: {shown(key)} is given more than once", "env")
    env[key] = value


def _check_sizes(fields: Sequence[tuple[str, str]], stdin: bytes, limits: RequestLimits) -> None:
    if len(stdin) > limits.stdin_max_bytes:
        raise UsageError(f"stdin: {len(stdin)} bytes, at most {limits.stdin_max_bytes} are taken", "stdin")
    if sum(len(name) + len(text.encode()) for name, text in fields) > limits.text_max_bytes:
        raise UsageError(f"the text fields together are larger than {limits.text_max_bytes} bytes", "args")


def _read_id(text: str | None) -> str:
    if text is None:
        return str(uuid7())
    if _ID.fullmatch(text):
        return text
    raise UsageError(f"id: {shown(text)} is not 1 to 128 letters, digits or . _ : - that begin with one", "id")


def _read_entry(text: str | None) -> str | None:
    if text is not None and not 0 < len(text) <= _ENTRY_CHARACTERS_MAX:
        expected = f"expected an exported function's name of 1 to {_ENTRY_CHARACTERS_MAX} characters"
        raise UsageError(f"entry: {expected}", "entry")
    return text


def _read_module(text: str | None, has_wasm: bool) -> str | None:
    if text is None:
        if not has_wasm:
            expected = "a file part (curl: -F wasm=@FILE) or module=sha256:DIGEST"
            raise UsageError(f"wasm: missing; expected {expected}", "wasm")
        return None
    if has_wasm:
        raise UsageError("module: given beside wasm; expected one of them", "module")
    match = _DIGEST.fullmatch(text)
    if match is None:
        raise UsageError(f"module: {shown(text)} is not sha256: and 64 hex digits", "module")
    return match[1]


def _read_values(single: Mapping[str, str], limits: RequestLimits) -> dict[str, object]:
    def whole(name: str, default: int, low: int, high: int) -> int:
        return _whole(name, single[name], low, high) if name in single else default

    def seconds(name: str, high: float) -> float:
        return _seconds(name, single[name], high) if name in single else 0.0

    values: dict[str, object] = {
        "description": single.get("description", ""),
        "repeats": whole("repeats", 1, 1, limits.repeats_max),
        "complete": whole("complete", 0, 0, INT64_MAX),
        "start_s": seconds("start", _SECONDS_MAX),
        "delay_s": seconds("delay", _SECONDS_MAX),
        "duration_s": seconds("duration", limits.duration_max_s) or limits.duration_default_s,
        "memory_bytes": whole("memory", limits.memory_default_bytes, 1, limits.memory_max_bytes),
        "output_bytes": whole("output", limits.output_default_bytes, 1, limits.output_max_bytes),
    }
    return values | {name: whole(name, 0, 0, INT64_MAX) for name in ("input", "difficulty") if name in single}


def uuid7() -> uuid.UUID:
    """Make a UUID that sorts by time of making. Source: RFC 9562, 5.7."""
    milliseconds = time.time_ns() // 1_000_000
    number = (milliseconds << 80) | int.from_bytes(os.urandom(10), "big")
    number = number & ~(0xF << 76) | (0x7 << 76)
    number = number & ~(0x3 << 62) | (0x2 << 62)
    return uuid.UUID(int=number)
