"""Exceptions that cross between a sandbox and whoever called it: type, arguments, traceback, in a bounded text.

Read from guests, whom nobody believes: what is read is data. What a caller makes of it is theirs. Knows nothing but the
standard library and values.py, since it runs in the guest too.
"""

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final

from ww.python.tags import Classes, Unsendable
from ww.python.values import Keys, dumps, loads

TEXT_CHARS_MAX: Final = 8192
TRACEBACK_CHARS_MAX: Final = 32_768
_VALUE_CHARS_MAX: Final = 65_536
_NAME_CHARS_MAX: Final = 400
_NOTES_MAX: Final = 32
_CAUSES_MAX: Final = 8
# Of one failure with all its causes, and all that a group of exceptions is made of.
_FAILURES_MAX: Final = 64
_ATTRIBUTES_MAX: Final = 100
_CUT: Final = "\n  [... cut ...]\n"


@dataclass(frozen=True, slots=True)
class Failure:
    """An exception, as data."""

    type_module: str
    """The module of its type: builtins, or another."""
    type_name: str
    """The qualified name of its type."""
    args: tuple[Any, ...] | None
    """Its arguments; None where they have no form in which they can be sent."""
    text: str
    """str() of it."""
    traceback: str
    """As Python prints it, of the exception with all that led to it. Empty for causes."""
    attributes: dict[str, Any]
    """What else the object has, as far as it can be sent."""
    notes: tuple[str, ...]
    """What add_note added."""
    cause: "Failure | None"
    """What it was raised from."""
    parts: tuple["Failure", ...]
    """The exceptions of an exception group."""

    @property
    def line(self) -> str:
        """Its last line, as Python prints it."""
        name = self.type_name if self.type_module == "builtins" else f"{self.type_module}.{self.type_name}"
        return f"{name}: {self.text}" if self.text else name


def dumps_failure(
    error: BaseException, traceback_text: str, *, is_shipped: Callable[[type], bool] | None = None
) -> str:
    """Return the text of an exception; never raises. is_shipped: as for values.dumps."""
    budget = [_FAILURES_MAX]
    return json.dumps({**_written(error, is_shipped, budget, 0), "traceback": cut(traceback_text, TRACEBACK_CHARS_MAX)})


def _written(
    error: BaseException, is_shipped: Callable[[type], bool] | None, budget: list[int], depth: int
) -> dict[str, Any]:
    budget[0] -= 1
    kind = type(error)
    written: dict[str, Any] = {
        "module": str(kind.__module__)[:_NAME_CHARS_MAX],
        "name": kind.__qualname__[:_NAME_CHARS_MAX],
        "text": cut(safe_text(error), TEXT_CHARS_MAX),
    }
    # The exceptions of a group are no values: they are its parts.
    args = _value(error.args[:1] if isinstance(error, BaseExceptionGroup) else error.args, is_shipped)
    attributes = {}
    for name, member in vars(error).items():
        if name != "__notes__" and (text := _value(member, is_shipped)) is not None:
            attributes[name] = text
    notes = getattr(error, "__notes__", None)
    if args is not None:
        written["args"] = args
    if attributes and sum(map(len, attributes.values())) <= _VALUE_CHARS_MAX:
        written["attributes"] = attributes
    if isinstance(notes, list) and notes:
        written["notes"] = [cut(note, TEXT_CHARS_MAX) for note in notes[:_NOTES_MAX] if isinstance(note, str)]
    if error.__cause__ is not None and depth < _CAUSES_MAX and budget[0] > 0:
        written["cause"] = _written(error.__cause__, is_shipped, budget, depth + 1)
    if isinstance(error, BaseExceptionGroup) and depth < _CAUSES_MAX:
        within: Iterable[BaseException] = error.exceptions[:_FAILURES_MAX]
        written["parts"] = [_written(part, is_shipped, budget, depth + 1) for part in within if budget[0] > 0]
    return written


def _value(value: object, is_shipped: Callable[[type], bool] | None) -> str | None:
    # A text in the text: one that cannot be read does not take the rest with it.
    try:
        text = dumps(value, is_shipped=is_shipped)
    except (Unsendable, RecursionError, MemoryError):
        return None
    return text if len(text) <= _VALUE_CHARS_MAX else None


def safe_text(error: BaseException) -> str:
    """Return str() of an exception, whatever its class makes of that."""
    try:
        return str(error)
    except Exception as failure:
        return f"<{type(failure).__name__} when its text was asked for>"


def cut(text: str, chars_max: int) -> str:
    """Return a text with its middle left out where it is longer."""
    if len(text) <= chars_max:
        return text
    half = (chars_max - len(_CUT)) // 2
    return text[:half] + _CUT + text[-half:]


def loads_failure(text: str | bytes, classes: Classes) -> Failure:
    """Return the exception of a text; raise ValueError on what dumps_failure does not write."""
    found = loads(text, _none)
    budget = [_FAILURES_MAX]
    return _read(found, classes, budget, 0, Keys())


def _none(module: str, name: str) -> None:
    return None


def _read(found: object, classes: Classes, budget: list[int], depth: int, keys: Keys) -> Failure:
    budget[0] -= 1
    if not isinstance(found, dict) or budget[0] < 0 or depth > _CAUSES_MAX:
        raise ValueError("a failure is none")
    notes, parts = found.get("notes", []), found.get("parts", [])
    if not isinstance(notes, list) or not isinstance(parts, list) or len(notes) > _NOTES_MAX:
        raise ValueError("a failure is none")
    attributes = found.get("attributes", {})
    if not isinstance(attributes, dict):
        raise ValueError("a failure is none")
    read = {name: _part(member, classes, keys) for name, member in islice(attributes.items(), _ATTRIBUTES_MAX)}
    args = _part(found.get("args"), classes, keys)
    cause = found.get("cause")
    return Failure(
        type_module=_text(found.get("module"), _NAME_CHARS_MAX),
        type_name=_text(found.get("name"), _NAME_CHARS_MAX),
        args=args[0] if args is not None and type(args[0]) is tuple else None,
        text=_text(found.get("text"), TEXT_CHARS_MAX),
        traceback=_text(found.get("traceback", ""), TRACEBACK_CHARS_MAX),
        attributes={name: member[0] for name, member in read.items() if member is not None},
        notes=tuple(_text(note, TEXT_CHARS_MAX) for note in notes),
        cause=None if cause is None else _read(cause, classes, budget, depth + 1, keys),
        parts=tuple(_read(part, classes, budget, depth + 1, keys) for part in parts),
    )


def _part(text: object, classes: Classes, keys: Keys) -> tuple[Any] | None:
    """Return a value that is a text in the text, in a tuple; None where there is none that can be read."""
    if not isinstance(text, str) or len(text) > _VALUE_CHARS_MAX:
        return None
    try:
        return (loads(text, classes, keys=keys),)
    except ValueError:
        return None


def _text(text: object, chars_max: int) -> str:
    if not isinstance(text, str) or len(text) > chars_max:
        raise ValueError(f"a failure is none: expected texts of at most {chars_max} characters")
    return text
