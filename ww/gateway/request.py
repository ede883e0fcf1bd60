"""What a submission may say: fields, their meaning and their limits. HTTP and RPC share it.

Holds the reading of fields into a Spec. Must not know where the fields came from, or what is stored: the caller has the
module looked at (guest.py) and gives its digest and kind. Fields: docs/http.md.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from ww import archive
from ww.errors import UsageError
from ww.gateway import fields as known
from ww.gateway import number
from ww.gateway.fields import shown
from ww.gateway.grants import is_function, read_grants
from ww.gateway.limits import MESSAGE_BYTES_MAX, ZIP_OVERHEAD_BYTES, RequestLimits
from ww.gateway.replicas import read_replicas
from ww.gateway.spec import Spec, Spread
from ww.uuid7 import uuid7
from ww.wasm_inspect import Guest, Kind

__all__ = [
    "FIELDS", "ZIP_OVERHEAD_BYTES", "RequestLimits", "Submission", "check_kind", "check_texts", "read_arguments",
    "read_fields", "read_number", "shown", "uuid7",
]  # fmt: skip

FIELDS: Final = known.NAMES
_ID: Final = re.compile(known.ID_PATTERN)
_DIGEST: Final = re.compile(known.DIGEST_PATTERN)
_LABEL: Final = re.compile(known.LABEL_PATTERN)
_BY_NAME: Final = {each.name: each for each in known.VALUES}
_SHOWN_CHARACTERS: Final = 60
NEEDS_OF_FILES: Final = "files, dirs or artifacts"


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
    files_bytes_of_runs: int = 0
    """What the guest's file system may hold where a run of a batch brings files."""
    is_files_max_given: bool = False
    python_output_bytes: int = 0
    """What is kept of the output of a Python function."""

    def spec(self, module: str, guest: Guest, files: str = "", *, owner: str = "") -> Spec:
        """Complete the submission with the digests of its module and files, what the module is, and whose it is.

        UsageError when the fields ask for what a guest of that kind has not.
        """
        check_kind(guest.kind, self.values, files, is_files_max_given=self.is_files_max_given)
        arguments = self.arguments(guest) if guest.kind is Kind.FUNCTION else ()
        return self.spec_with(module, guest, files, owner=owner, arguments=arguments)

    def spec_with(
        self, module: str, guest: Guest, files: str, *, owner: str, arguments: tuple[int, ...], inputs: str = ""
    ) -> Spec:
        """Complete it with what its function is called with, and the digest of a batch's inputs; nothing is checked."""
        # Its files are sources, which nobody unpacks.
        own = {"files_bytes": 0, "output_bytes": self.python_output_bytes} if guest.kind is Kind.PYTHON else {}
        values = {**self.values, **own}
        return Spec(
            id=self.id,
            module=module,
            kind=guest.kind,
            entry=guest.entry,
            arguments=arguments,
            files=files,
            owner=owner,
            inputs=inputs,
            **values,  # type: ignore[arg-type]
        )

    def arguments(self, guest: Guest) -> tuple[int, ...]:
        """Return what a function is called with."""
        numbers = self.whole("input"), self.whole("difficulty")
        return read_arguments(guest, *numbers, self.args, is_named=self.entry is not None)

    def whole(self, name: str) -> int | None:
        """Return the input or the difficulty, where it was given."""
        value = self.values.get(name)
        assert value is None or isinstance(value, int)
        return value

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


def read_arguments(
    guest: Guest, input: int | None, difficulty: int | None, args: Sequence[str], *, is_named: bool
) -> tuple[int, ...]:
    """Read what a function is called with: input and difficulty, and args too when it was asked for by name."""
    given = (("input", input), ("difficulty", difficulty))
    if not is_named:
        texts = [(name, str(value or 0)) for name, value in given]
    else:
        texts = [(name, str(value)) for name, value in given if value is not None]
        texts += [("args", text) for text in args]
    _check_count(guest, len(texts))
    return tuple(
        _number(field, text, kind, f"parameter {place} of {shown(guest.entry)}")
        for place, ((field, text), kind) in enumerate(zip(texts, guest.parameters, strict=True), 1)
    )


def check_arguments(guest: Guest, arguments: Sequence[int]) -> Sequence[int]:
    """Return what a function is called with, in the wire's form. UsageError when it does not take that."""
    _check_count(guest, len(arguments))
    for place, (value, kind) in enumerate(zip(arguments, guest.parameters, strict=True), 1):
        if kind == "i32":
            _number("arguments", str(value), kind, f"parameter {place} of {shown(guest.entry)}")
    return arguments


def _check_count(guest: Guest, count: int) -> None:
    types = guest.parameters
    if count != len(types):
        takes = f"({', '.join(types)})" if len(types) <= 20 else f"{len(types)} parameters"
        how = "input and difficulty where they are given, then args"
        raise UsageError(f"args: {shown(guest.entry)} takes {takes}, {count} were given: {how}", "args")


def check_kind(kind: Kind, values: Mapping[str, object], files: str, *, is_files_max_given: bool = False) -> None:
    """Refuse what no worker can give a guest of that kind, whatever worker it is. files: digest of a zip, or empty."""
    if kind is Kind.PYTHON:
        _check_python(values, files, is_files_max_given)
        return
    if values["grants"]:
        raise UsageError("grants: only Python components call others; expected it without grants", "grants")
    if kind is Kind.COMPONENT and values["deterministic"] and values["files_bytes"]:
        why = "a component sees when its files were made; expected neither files, dirs nor artifacts with it"
        raise UsageError(f"deterministic: {why}", "deterministic")


def _check_python(values: Mapping[str, object], files: str, is_files_max_given: bool) -> None:
    """Refuse what a Python component cannot be given, and what does not say which function is called."""
    args = values["args"]
    assert isinstance(args, tuple)
    if len(args) != 1 or not is_function(args[0]):
        given = f"{len(args)} are given" if len(args) != 1 else f"{shown(args[0])} is given"
        raise UsageError(f"args: a Python component takes one, the function as module:qualname; {given}", "args")
    if not files:
        raise UsageError("files: missing; a Python component takes the zip of its function's sources", "files")
    names = [name for name in ("input", "difficulty") if values.get(name) is not None]
    names += [name for name in ("dirs", "artifacts") if values[name]]
    if names or is_files_max_given:
        name = names[0] if names else "files_max"
        what = "is given what it works on in stdin" if name in ("input", "difficulty") else "has no file system"
        raise UsageError(f"{name}: a Python component {what}; expected it without {name}", name)


def _number(name: str, text: str, kind: str, of: str) -> int:
    bits = number.to_bits(kind, text)
    if bits is None:
        raise UsageError(f"{name}: {of} is {kind}: {shown(text)} is not {number.EXPECTED[kind]}", name)
    return bits


def read_fields(
    fields: Sequence[tuple[str, str]],
    stdin: bytes,
    has_wasm: bool,
    limits: RequestLimits,
    *,
    files_size: int | None = None,
    is_batch: bool = False,
) -> Submission:
    """Read a submission's text fields, in order, beside its stdin; UsageError names the field that is wrong.

    files_size is that of the zip that came as `files`, if one came. is_batch says that they are what the runs of a
    batch have in common.
    """
    single: dict[str, str] = {}
    repeated: dict[str, list[str]] = {name: [] for name in known.REPEATED}
    env: dict[str, str] = {}
    labels: dict[str, str] = {}
    for name, text in fields:
        if name in single:
            raise UsageError(f"{name}: given more than once", name)
        if name in known.ALL and known.ALL[name].is_file:
            raise UsageError(f"{name}: is text here; expected a file part of a form", name)
        if name not in known.SINGLE and name not in known.REPEATED:
            raise UsageError(f"{shown(name)}: no such field; known are {' '.join(FIELDS)}", name[:_SHOWN_CHARACTERS])
        if "\0" in text:
            raise UsageError(f"{name}: holds a NUL character", name)
        if name == "env":
            _read_env(text, env)
        elif name == "labels":
            _read_label(text, labels)
        elif name in known.REPEATED:
            repeated[name].append(text)
        else:
            single[name] = text
    _check_sizes(fields, stdin, files_size, limits)
    check_spread(single, is_batch)
    paths = {name: _read_paths(name, repeated[name]) for name in ("dirs", "artifacts")}
    module = _read_module(single.pop("module", None), has_wasm)
    values = _read_values(single, limits)
    grants = read_grants(single.pop("grants", "[]"), limits)
    read_replicas(single, values, grants)
    return Submission(
        is_id_made="id" not in single,
        id=_read_id(single.pop("id", None)),
        entry=_read_entry(single.pop("entry", None)),
        module=module,
        values=values
        | _read_files(single, paths, files_size is not None, limits, is_batch=is_batch)
        | {"args": tuple(repeated["args"]), "env": tuple(env.items()), "stdin": stdin}
        | {"labels": tuple(sorted(labels.items())), "grants": grants}
        | paths,
        files_bytes_of_runs=_size(known.FILES_MAX, single, limits) if is_batch else 0,
        is_files_max_given=known.FILES_MAX.name in single,
        python_output_bytes=values["output_bytes"] if "output" in single else limits.python_output_default_bytes,
    )


def check_spread(single: Mapping[str, str], is_batch: bool) -> None:
    """Refuse what says how many runs there are beside what else does."""
    if is_batch and "repeats" in single:
        raise UsageError("repeats: given beside runs of a batch, which are as many as they are", "repeats")
    if single.get("spread") == Spread.EVERYWHERE and (is_batch or "repeats" in single):
        beside = "a batch" if is_batch else "repeats"
        raise UsageError(f"spread: everywhere is one run on each worker; expected it without {beside}", "spread")


def _read_env(text: str, env: dict[str, str]) -> None:
    key, equals, value = text.partition("=")
    # The text itself is not shown: values may be secrets.
    if not equals or not key:
        raise UsageError("env: expected NAME=VALUE", "env")
    if key in env:
        raise UsageError(f"env: {shown(key)} is given more than once", "env")
    env[key] = value


def _read_label(text: str, labels: dict[str, str]) -> None:
    key, equals, value = text.partition("=")
    if not equals or not _LABEL.fullmatch(key):
        raise UsageError(f"labels: {shown(text)} is not KEY=VALUE, with a key of letters, digits and . _ / -", "labels")
    if len(value) > known.LABEL_VALUE_CHARACTERS_MAX or not value.isprintable():
        most = known.LABEL_VALUE_CHARACTERS_MAX
        raise UsageError(f"labels: {shown(key)} has no value of at most {most} characters, all printable", "labels")
    if key in labels:
        raise UsageError(f"labels: {shown(key)} is given more than once", "labels")
    if len(labels) >= known.LABELS_MAX:
        raise UsageError(f"labels: more than {known.LABELS_MAX} are given", "labels")
    labels[key] = value


def _read_paths(name: str, texts: Sequence[str]) -> tuple[str, ...]:
    """Read paths of the guest's file system, "/" for all of it.

    A leading "/" stays, since dirs have the names that they are given, and some guests tell "/data" from "data".
    """
    if len(texts) > known.PATHS_MAX:
        raise UsageError(f"{name}: {len(texts)} are given, at most {known.PATHS_MAX} are taken", name)
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
    together = (files_size or 0) + len(stdin) + limits.text_max_bytes
    if together > MESSAGE_BYTES_MAX:
        raise UsageError(f"files: with stdin {together} bytes, at most {MESSAGE_BYTES_MAX} are taken together", "files")
    check_texts(fields, limits)


def check_texts(fields: Iterable[tuple[str, str]], limits: RequestLimits) -> None:
    """Raise UsageError when texts together are too large."""
    if sum(len(name) + len(text.encode()) for name, text in fields) > limits.text_max_bytes:
        raise UsageError(f"the text fields together are larger than {limits.text_max_bytes} bytes", "args")


def _read_id(text: str | None) -> str:
    if text is None:
        return str(uuid7())
    if _ID.fullmatch(text):
        return text
    raise UsageError(f"id: {shown(text)} is not 1 to 128 letters, digits or . _ : - that begin with one", "id")


def _read_entry(text: str | None) -> str | None:
    if text is not None and not 0 < len(text) <= known.ENTRY_CHARACTERS_MAX:
        expected = f"expected an exported function's name of 1 to {known.ENTRY_CHARACTERS_MAX} characters"
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
    return match[0].removeprefix("sha256:")


def read_number(name: str, text: str, limits: RequestLimits) -> int:
    """Read the value of a field that is a whole number."""
    value = _BY_NAME[name].read(text, limits)
    assert isinstance(value, int)
    return value


def _read_values(single: Mapping[str, str], limits: RequestLimits) -> dict[str, Any]:
    values = known.defaults(limits).copy()
    for name, text in single.items():
        if (each := _BY_NAME.get(name)) is not None:
            values[each.to] = each.read(text, limits)
    for name in ("description", "name"):
        values[name] = single.get(name, "")
    if len(values["name"]) > known.NAME_CHARACTERS_MAX:
        raise UsageError(f"name: {len(values['name'])} characters, at most {known.NAME_CHARACTERS_MAX}", "name")
    if "seed" in single and not values["deterministic"]:
        raise UsageError("seed: given without deterministic=true, whose random numbers it is of", "seed")
    if "memory" in single:
        values["needs_memory_bytes"] = values["memory_bytes"]
    return values


def _read_files(
    single: Mapping[str, str],
    paths: Mapping[str, tuple[str, ...]],
    has_files: bool,
    limits: RequestLimits,
    *,
    is_batch: bool,
) -> dict[str, object]:
    """Read how much a guest's file system and its artifacts may hold: nothing where it has none."""
    has_file_system = has_files or bool(paths["dirs"] or paths["artifacts"])

    def size(each: known.Whole, is_there: bool, needs: str) -> int:
        if is_there:
            return _size(each, single, limits)
        if each.name in single and needs:
            raise UsageError(f"{each.name}: given without {needs}", each.name)
        return 0

    # A run of a batch may bring the first file.
    needs = "" if is_batch else NEEDS_OF_FILES
    return {
        "files_bytes": size(known.FILES_MAX, has_file_system, needs),
        "artifact_bytes": size(known.ARTIFACTS_MAX, bool(paths["artifacts"]), "artifacts"),
    }


def _size(each: known.Whole, single: Mapping[str, str], limits: RequestLimits) -> int:
    """Read a size, which has a default."""
    if each.name in single:
        return each.read(single[each.name], limits)
    size = each.filled_in(limits)
    assert isinstance(size, int)
    return size
