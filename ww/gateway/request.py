"""What a submission may say: fields, their meaning and their limits. HTTP and RPC share it.

Holds the reading of fields into a Spec. Must not know where the fields came from, or what is stored: the caller has the
module looked at (guest.py) and gives its digest and kind. Fields: docs/http.md.
"""

import math
import os
import re
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from ww import archive
from ww.errors import UsageError
from ww.gateway import number
from ww.gateway.task import Spec
from ww.rpc.frame import WORDS_MAX
from ww.wasm_inspect import Guest, Kind

INT64_MAX: Final = 2**63 - 1
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,127}")
_ENTRY_CHARACTERS_MAX: Final = 200
_DIGEST = re.compile(r"sha256:([0-9a-f]{64})")
_SHOWN_CHARACTERS: Final = 60
# About 30 years: longer is a typing error.
_SECONDS_MAX: Final = 1e9
_UINT64_MAX: Final = 2**64 - 1
_PATHS_MAX: Final = 128
# A run is given in one message, and its outcome comes back in one.
_MESSAGE_BYTES_MAX: Final = 8 * WORDS_MAX - (1 << 20)
ZIP_OVERHEAD_BYTES: Final = 16 << 20
"""How much larger a zip of artifacts may be than what is in it: names and headers of many small files."""


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
    files_upload_max_bytes: int = 32 << 20
    """The zip that a task's files come as."""
    files_count_max: int = 10_000
    """Files and folders in it."""
    files_default_bytes: int = 256 << 20
    """Of a run's file system when the task does not say."""
    files_max_bytes: int = 256 << 20
    artifacts_default_bytes: int = 16 << 20
    """All artifacts of one run, when the task does not say."""
    artifacts_max_bytes: int = 32 << 20
    cpu_default_s: float = 0.0
    """Processor time of one run when the task does not say; 0: as long as it may take."""
    cpu_max_s: float = 86_400.0
    fuel_default: int = 0
    """WebAssembly instructions of one run when the task does not say; 0: not counted."""
    fuel_max: int = 10**15

    def __post_init__(self) -> None:
        """Refuse limits that a run within them could not be sent with."""
        given = self.files_upload_max_bytes + self.stdin_max_bytes + self.text_max_bytes
        taken = self.artifacts_max_bytes + ZIP_OVERHEAD_BYTES + 2 * self.output_max_bytes
        for what, size in (("files and stdin", given), ("artifacts and output", taken)):
            if size > _MESSAGE_BYTES_MAX:
                raise UsageError(
                    f"the limits of {what} are too large together: {size} bytes, a run's message holds"
                    f" {_MESSAGE_BYTES_MAX}"
                )


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

    def spec(self, module: str, guest: Guest, files: str = "") -> Spec:
        """Complete the submission with the digests of its module and files, and with what the module is.

        UsageError when the fields ask for what a guest of that kind has not.
        """
        _check_kind(guest.kind, self.values)
        arguments = self._arguments(guest) if guest.kind is Kind.FUNCTION else ()
        return Spec(
            id=self.id,
            module=module,
            kind=guest.kind,
            entry=guest.entry,
            arguments=arguments,
            files=files,
            **self.values,  # type: ignore[arg-type]
        )

    def _arguments(self, guest: Guest) -> tuple[int, ...]:
        """Read what a function is called with: input and difficulty, and args too when it was asked for by name."""
        given = [(name, self.values.get(name)) for name in ("input", "difficulty")]
        if self.entry is None:
            texts = [(name, str(value or 0)) for name, value in given]
        else:
            texts = [(name, str(value)) for name, value in given if value is not None]
            texts += [("args", text) for text in self.args]
        name, types = shown(guest.entry), guest.parameters
        if len(texts) != len(types):
            takes = f"({', '.join(types)})" if len(types) <= 20 else f"{len(types)} parameters"
            how = "input and difficulty where they are given, then args"
            raise UsageError(f"args: {name} takes {takes}, {len(texts)} were given: {how}", "args")
        return tuple(
            _number(field, text, kind, f"parameter {place} of {name}")
            for place, ((field, text), kind) in enumerate(zip(texts, types, strict=True), 1)
        )

    @property
    def args(self) -> tuple[str, ...]:
        """The repeated field of that name."""
        args = self.values["args"]
        assert isinstance(args, tuple)
        return args

    @property
    def files_bytes(self) -> int:
        """What the guest's file system may hold; 0: there is none."""
        size = self.values["files_bytes"]
        assert isinstance(size, int)
        return size


def _check_kind(kind: Kind, values: Mapping[str, object]) -> None:
    """Refuse what no worker can give a guest of that kind, whatever worker it is."""
    if kind is Kind.COMPONENT and values["deterministic"] and values["files_bytes"]:
        why = "a component sees when its files were made; expected neither files, dirs nor artifacts with it"
        raise UsageError(f"deterministic: {why}", "deterministic")


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


def _number(name: str, text: str, kind: str, of: str) -> int:
    bits = number.to_bits(kind, text)
    if bits is None:
        raise UsageError(f"{name}: {of} is {kind}: {shown(text)} is not {number.EXPECTED[kind]}", name)
    return bits


def _truth(name: str, text: str) -> bool:
    if text not in ("true", "false"):
        raise UsageError(f"{name}: {shown(text)} is not true or false", name)
    return text == "true"


_SINGLE: Final = frozenset(
    {"id", "description", "complete", "duration", "start", "delay", "repeats", "input", "difficulty", "entry"}
    | {"module", "memory", "output", "files_max", "artifacts_max", "cpu_seconds", "fuel", "deterministic", "seed"}
)
_REPEATED: Final = frozenset({"args", "env", "dirs", "artifacts"})
FIELDS: Final = tuple(sorted(_SINGLE | _REPEATED | {"wasm", "stdin", "files"}))


def read_fields(
    fields: Sequence[tuple[str, str]],
    stdin: bytes,
    has_wasm: bool,
    limits: RequestLimits,
    *,
    files_size: int | None = None,
) -> Submission:
    """Read a submission's text fields, in order, beside its stdin; UsageError names the field that is wrong.

    files_size is that of the zip that came as `files`, if one came.
    """
    single: dict[str, str] = {}
    repeated: dict[str, list[str]] = {name: [] for name in _REPEATED}
    env: dict[str, str] = {}
    for name, text in fields:
        if name in single:
            raise UsageError(f"{name}: given more than once", name)
        if name not in _SINGLE and name not in _REPEATED:
            raise UsageError(f"{shown(name)}: no such field; known are {' '.join(FIELDS)}", name[:_SHOWN_CHARACTERS])
        if "\0" in text:
            raise UsageError(f"{name}: holds a NUL character", name)
        if name == "env":
            _read_env(text, env)
        elif name in _REPEATED:
            repeated[name].append(text)
        else:
            single[name] = text
    _check_sizes(fields, stdin, files_size, limits)
    paths = {name: _read_paths(name, repeated[name]) for name in ("dirs", "artifacts")}
    module = _read_module(single.pop("module", None), has_wasm)
    return Submission(
        is_id_made="id" not in single,
        id=_read_id(single.pop("id", None)),
        entry=_read_entry(single.pop("entry", None)),
        module=module,
        values=_read_values(single, limits)
        | _read_files(single, paths, files_size is not None, limits)
        | {"args": tuple(repeated["args"]), "env": tuple(env.items()), "stdin": stdin}
        | paths,
    )


def _read_env(text: str, env: dict[str, str]) -> None:
    key, equals, value = text.partition("=")
    # The text itself is not shown: values may be secrets.
    if not equals or not key:
        raise UsageError("env: expected NAME=VALUE", "env")
    if key in env:
        raise UsageError(f"env: {shown(key)} is given more than once", "env")
    env[key] = value


def _read_paths(name: str, texts: Sequence[str]) -> tuple[str, ...]:
    """Read paths of the guest's file system, "/" for all of it.

    A leading "/" stays, since dirs have the names that they are given, and some guests tell "/data" from "data".
    """
    if len(texts) > _PATHS_MAX:
        raise UsageError(f"{name}: {len(texts)} are given, at most {_PATHS_MAX} are taken", name)
    paths: dict[str, str] = {}
    for text in texts:
        try:
            path = archive.clean(text, name)
        except UsageError as error:
            raise UsageError(f"{name}: {error}", name) from None
        if path in paths:
            raise UsageError(f"{name}: {shown(text)} is given more than once", name)
        paths[path] = "/" + path if text.startswith("/") or not path else path
    if "" in paths and len(paths) > 1:
        raise UsageError(f"{name}: '/', which is all there is, is given beside others", name)
    return tuple(paths.values())


def _check_sizes(
    fields: Sequence[tuple[str, str]], stdin: bytes, files_size: int | None, limits: RequestLimits
) -> None:
    if files_size is not None and files_size > limits.files_upload_max_bytes:
        most = limits.files_upload_max_bytes
        raise UsageError(f"files: {files_size} bytes, at most {most} are taken", "files")
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
        "cpu_s": seconds("cpu_seconds", limits.cpu_max_s) or limits.cpu_default_s,
        "fuel": whole("fuel", limits.fuel_default, 1, limits.fuel_max),
        "deterministic": "deterministic" in single and _truth("deterministic", single["deterministic"]),
        "seed": whole("seed", 0, 0, _UINT64_MAX),
    }
    if "seed" in single and not values["deterministic"]:
        raise UsageError("seed: given without deterministic=true, whose random numbers it is of", "seed")
    return values | {name: whole(name, 0, 0, INT64_MAX) for name in ("input", "difficulty") if name in single}


def _read_files(
    single: Mapping[str, str], paths: Mapping[str, tuple[str, ...]], has_files: bool, limits: RequestLimits
) -> dict[str, object]:
    """Read how much a guest's file system and its artifacts may hold: nothing where it has none."""
    has_file_system = has_files or bool(paths["dirs"] or paths["artifacts"])

    def size(name: str, is_there: bool, needs: str, default: int, high: int) -> int:
        if not is_there:
            if name in single:
                raise UsageError(f"{name}: given without {needs}", name)
            return 0
        return _whole(name, single[name], 1, high) if name in single else default

    needs, default, high = "files, dirs or artifacts", limits.files_default_bytes, limits.files_max_bytes
    files_bytes = size("files_max", has_file_system, needs, default, high)
    default, high = limits.artifacts_default_bytes, limits.artifacts_max_bytes
    artifact_bytes = size("artifacts_max", bool(paths["artifacts"]), "artifacts", default, high)
    return {"files_bytes": files_bytes, "artifact_bytes": artifact_bytes}


def uuid7() -> uuid.UUID:
    """Make a UUID that sorts by time of making. Source: RFC 9562, 5.7."""
    milliseconds = time.time_ns() // 1_000_000
    number = (milliseconds << 80) | int.from_bytes(os.urandom(10), "big")
    number = number & ~(0xF << 76) | (0x7 << 76)
    number = number & ~(0x3 << 62) | (0x2 << 62)
    return uuid.UUID(int=number)
