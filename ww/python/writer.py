"""How values that JSON has no word for are written: `{"": [tag, ...]}`, a tag and what it takes.

Holds the writer of all tags; what reads each is in reader.py. Must not know who reads.
"""

import array
import base64
import collections
import dataclasses
import datetime
import decimal
import enum
import fractions
import math
import pathlib
import pickle
import sys
import types
import uuid
from collections.abc import Callable
from typing import Any, Final, NoReturn

from ww.python.tags import (
    ARRAY_CODES,
    DEPTH_MAX,
    FACTORIES,
    FRACTION_BITS_MAX,
    INT_MAX,
    INT_MIN,
    Unsendable,
    is_made_of_fields,
    is_names,
    short,
)


class Writer:
    """Makes of a value what JSON can say."""

    def __init__(self, trust: bool, is_shipped: Callable[[type], bool] | None) -> None:
        """trust: write a pickle where nothing else will do. is_shipped: whether the reader knows a class."""
        self._trust = trust
        self._is_shipped = is_shipped
        self._path: list[str] = []
        self._around: set[int] = set()  # the ids of what the value is in

    def write_all(self, value: object, name: str) -> Any:
        """Return what stands for a value; as a pickle, where it is trusted and has no other form."""
        self._path = [name]
        try:
            return self._write(value)
        except Unsendable:
            if not self._trust:
                raise
        try:
            data = pickle.dumps(value, 5)
        except Exception as error:
            raise Unsendable(f"cannot send {name}: {type(value).__name__}: {error}") from None
        return _tagged("pickle", _text64(data))

    def _write(self, value: Any) -> Any:
        kind = type(value)
        if kind is str or kind is bool or value is None:
            return value
        if (leaf := _LEAVES.get(kind)) is not None:
            return leaf(value)
        if id(value) in self._around:
            self._refuse("it is in itself")
        if len(self._around) >= DEPTH_MAX:
            del self._path[8:]
            self._refuse(f"it is nested deeper than {DEPTH_MAX} levels", "...")
        self._around.add(id(value))
        written = self._write_container(value, kind)
        self._around.discard(id(value))
        return written

    def _write_container(self, value: Any, kind: type) -> Any:
        if kind is list:
            return self._members(value)
        if kind is dict:
            if all(type(key) is str and key for key in value):
                return {key: self._at(f"[{short(key)}]", member) for key, member in value.items()}
            return _tagged("dict", *self._pairs(value))
        if kind in _SEQUENCES:
            return _tagged(kind.__name__, *self._members(value))
        if kind is collections.OrderedDict or kind is collections.Counter:
            return _tagged(kind.__name__, *self._pairs(value))
        if kind is collections.defaultdict:
            return _tagged("defaultdict", self._factory(value), *self._pairs(value))
        if kind is collections.deque:
            return _tagged("deque", value.maxlen, *self._members(value))
        if kind is slice:
            return _tagged("slice", *self._members((value.start, value.stop, value.step)))
        if kind in (datetime.datetime, datetime.time) or issubclass(kind, datetime.tzinfo):
            return self._moment(value)
        if kind is array.array and value.typecode in ARRAY_CODES:
            return _array(value)
        return self._object(value, kind)

    def _members(self, members: Any) -> list[Any]:
        return [self._at(f"[{number}]", member) for number, member in enumerate(members)]

    def _pairs(self, value: Any) -> list[Any]:
        written: list[Any] = []
        for key, member in value.items():
            written.append(self._at(f" key {short(key)}", key))
            written.append(self._at(f"[{short(key)}]", member))
        return written

    def _at(self, step: str, value: object) -> Any:
        self._path.append(step)
        written = self._write(value)
        self._path.pop()
        return written

    def _factory(self, value: Any) -> str | None:
        factory = value.default_factory
        if factory is None:
            return None
        name = getattr(factory, "__name__", "")
        if FACTORIES.get(name) is not factory:
            self._refuse("a defaultdict with a factory of its own")
        return str(name)

    def _moment(self, value: Any) -> Any:
        if isinstance(value, datetime.timezone):
            return _zone(value)
        if isinstance(value, datetime.tzinfo) or not isinstance(value.tzinfo, datetime.timezone | None):
            self._refuse("a time zone other than datetime.timezone, as which it can be sent")
        zone = None if value.tzinfo is None else _zone(value.tzinfo)
        if isinstance(value, datetime.time):
            return _tagged("time", value.hour, value.minute, value.second, value.microsecond, value.fold, zone)
        day = (value.year, value.month, value.day)
        return _tagged("datetime", *day, value.hour, value.minute, value.second, value.microsecond, value.fold, zone)

    def _object(self, value: Any, kind: type) -> Any:
        if kind is fractions.Fraction:
            if max(value.numerator.bit_length(), value.denominator.bit_length()) > FRACTION_BITS_MAX:
                self._refuse(f"a fraction of more than {FRACTION_BITS_MAX} bits")
            return _tagged("fraction", _int(value.numerator), _int(value.denominator))
        if issubclass(kind, enum.Enum):
            if issubclass(kind, enum.Flag):
                return _tagged("flag", self._class(kind), _int(int(value.value)))
            return _tagged("enum", self._class(kind), value.name)
        if issubclass(kind, tuple) and is_names(getattr(kind, "_fields", None)):
            name = self._class(kind)
            return _tagged("named", name, *map(self._at, _attributes(kind._fields), value))  # type: ignore[attr-defined]
        if dataclasses.is_dataclass(kind) and is_made_of_fields(kind):
            name, written = self._class(kind), list[Any]()
            for field in dataclasses.fields(kind):
                if not hasattr(value, field.name):
                    self._refuse(f"a dataclass whose field {field.name} is not set")
                written.append(field.name)
                written.append(self._at(f".{field.name}", getattr(value, field.name)))
            return _tagged("data", name, *written)
        self._refuse(_describe(value))

    def _class(self, kind: type) -> str:
        if "<locals>" in kind.__qualname__:
            self._refuse(f"the class {kind.__qualname__} is defined in a function: expected one of a module")
        if self._is_shipped is not None and not self._is_shipped(kind):
            self._refuse(f"the class {kind.__module__}.{kind.__qualname__} is in no module that was sent")
        return f"{kind.__module__}:{kind.__qualname__}"

    def _refuse(self, what: str, more: str = "") -> NoReturn:
        raise Unsendable(f"cannot send {''.join(self._path)}{more}: {what}")


def _tagged(*body: Any) -> dict[str, Any]:
    return {"": list(body)}


def _describe(value: object) -> str:
    kind = type(value)
    if isinstance(value, types.GeneratorType | types.CoroutineType | types.AsyncGeneratorType):
        return f"a {kind.__name__.replace('_', ' ')}: return a list or another value"
    module = "" if kind.__module__ == "builtins" else f"{kind.__module__}."
    return f"{module}{kind.__qualname__} has no form in which it can leave the sandbox"


def _zone(zone: datetime.timezone) -> Any:
    offset = zone.utcoffset(None)
    microseconds = offset // datetime.timedelta(microseconds=1)
    name = zone.tzname(None)
    return _tagged("timezone", microseconds, None if name == datetime.timezone(offset).tzname(None) else name)


def _array(value: "array.array[Any]") -> Any:
    # Sizes of C's types differ between machines: each is named, and its bytes are in the order of most.
    if sys.byteorder == "big":
        value = value[:]
        value.byteswap()
    return _tagged("array", value.typecode, value.itemsize, base64.b64encode(value.tobytes()).decode())


def _attributes(names: tuple[str, ...]) -> list[str]:
    return [f".{name}" for name in names]


def _int(value: int) -> Any:
    if INT_MIN <= value <= INT_MAX:
        return value
    return _tagged("int", f"-{-value:x}" if value < 0 else f"{value:x}")


def _float(value: float) -> Any:
    return value if math.isfinite(value) else _tagged("float", str(value))


def _text64(data: bytes | bytearray) -> str:
    return base64.b64encode(data).decode()


_SEQUENCES: Final = frozenset({tuple, set, frozenset})
_LEAVES: Final[dict[type, Callable[[Any], Any]]] = {
    int: _int,
    float: _float,
    bytes: lambda value: _tagged("bytes", _text64(value)),
    bytearray: lambda value: _tagged("bytearray", _text64(value)),
    complex: lambda value: _tagged("complex", _float(value.real), _float(value.imag)),
    range: lambda value: _tagged("range", _int(value.start), _int(value.stop), _int(value.step)),
    datetime.date: lambda value: _tagged("date", value.year, value.month, value.day),
    datetime.timedelta: lambda value: _tagged("timedelta", value.days, value.seconds, value.microseconds),
    decimal.Decimal: lambda value: _tagged("decimal", str(value)),
    uuid.UUID: lambda value: _tagged("uuid", value.hex),
    pathlib.PosixPath: lambda value: _tagged("path", str(value)),
    pathlib.PurePosixPath: lambda value: _tagged("path", str(value)),
    type(...): lambda value: _tagged("ellipsis"),
}
