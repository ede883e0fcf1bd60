"""How values that JSON has no word for are read: what stands behind each tag of `{"": [tag, ...]}`.

What a reader is given comes from strangers: it checks each part, runs no constructor of theirs, and ends in ValueError.
What writes them is in writer.py.
"""

import array
import binascii
import collections
import dataclasses
import datetime
import decimal
import enum
import fractions
import math
import pathlib
import pickle
import re
import sys
import time
import uuid
from collections.abc import Callable
from typing import Any, Final, cast

from ww.python.tags import (
    ARRAY_CODES,
    FACTORIES,
    FRACTION_BITS_MAX,
    INT_MAX,
    INT_MIN,
    Classes,
    is_made_of_fields,
    is_names,
    short,
)

# Keys whose hashes were made to collide take time that grows with the square of their number; others take 0.2 us each.
_KEYS_AT_ONCE: Final = 64
_KEY_S_MAX: Final = 10e-6
_KEYS_S_MAX: Final = 0.5
_HEX: Final = re.compile(r"-?[1-9a-f][0-9a-f]*")
_DECIMAL: Final = re.compile(r"-?(?:[0-9]+(?:\.[0-9]+)?(?:[Ee][+-][0-9]{1,19})?|Infinity|s?NaN[0-9]*)")
_FLOATS: Final = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}


# Flags keep every value that was ever made of them.
_FLAG_VALUES_MAX: Final = 100_000


class Keys:
    """The time that the keys of sets and dicts may take, of one text or of several that came together."""

    def __init__(self) -> None:
        self._left_s = _KEYS_S_MAX

    def fill(self, empty: Any, add: Callable[[Any, list[Any]], None], entries: list[Any]) -> Any:
        """Fill a set or a dict; raise ValueError where its keys are the same, or were chosen to make it slow."""
        clock = getattr(time, "thread_time", time.perf_counter)
        now_s = clock()
        for start in range(0, len(entries), _KEYS_AT_ONCE):
            some = entries[start : start + _KEYS_AT_ONCE]
            add(empty, some)
            began_s, now_s = now_s, clock()
            self._left_s += len(some) * _KEY_S_MAX - (now_s - began_s)
            if self._left_s < 0:
                raise ValueError("the keys of a set or dict collide")
        _expect(len(empty) == len(entries), "a set or dict has a key twice")
        return empty


def reader_of(classes: Classes, trust: bool, keys: Keys) -> Callable[[dict[str, Any]], Any]:
    """Return what JSON's decoder calls for each object of a text.

    classes: gives the class of a module and a qualified name. trust: whether to read pickles.
    """

    def read(found: dict[str, Any]) -> Any:
        if "" not in found:
            return found
        body = found[""]
        if len(found) != 1 or type(body) is not list or not body or type(body[0]) is not str:
            raise ValueError("an object with an empty key is no value")
        tag, *parts = body
        try:
            if (plain := _READERS.get(tag)) is not None:
                return plain(*parts)
            if (keyed := _KEYED_READERS.get(tag)) is not None:
                return keyed(keys, *parts)
            if (of_class := _CLASS_READERS.get(tag)) is not None:
                return of_class(_find(classes, parts[0]), *parts[1:])
            if tag == "pickle" and trust:
                return _unpickle(*parts)
        except ValueError:
            raise
        except Exception:
            raise ValueError(f"{short(tag)} has parts that it cannot have") from None
        if tag == "pickle":
            raise ValueError("a pickle is read only from functions with trust=True")
        raise ValueError(f"{short(tag)} is no kind of value")

    return read


# --- readers: each takes the parts behind its tag


def _expect(is_right: bool, what: str) -> None:
    if not is_right:
        raise ValueError(what)


def _read_int(text: str) -> int:
    _expect(type(text) is str and _HEX.fullmatch(text) is not None, "an int is not in canonical hexadecimal")
    number = int(text, 16)
    _expect(not INT_MIN <= number <= INT_MAX, "an int that a number of JSON has room for")
    return number


def _read_base64(text: str) -> bytes:
    try:
        return binascii.a2b_base64(text, strict_mode=True)
    except binascii.Error:
        raise ValueError("bytes are not in base64") from None


def _read_bytearray(text: str) -> bytearray:
    return bytearray(_read_base64(text))


def _read_complex(real: float, imaginary: float) -> complex:
    _expect(type(real) is float and type(imaginary) is float, "a complex number takes two floats")
    return complex(real, imaginary)


def _read_decimal(text: str) -> decimal.Decimal:
    _expect(type(text) is str and _DECIMAL.fullmatch(text) is not None, "a decimal is none")
    return decimal.Decimal(text)


def _read_fraction(numerator: int, denominator: int) -> fractions.Fraction:
    are_ints = type(numerator) is int and type(denominator) is int
    _expect(are_ints and denominator > 0, "a fraction takes two ints")
    bits = max(numerator.bit_length(), denominator.bit_length())
    _expect(bits <= FRACTION_BITS_MAX, f"a fraction has {bits} bits: expected at most {FRACTION_BITS_MAX}")
    fraction = fractions.Fraction(numerator, denominator)
    _expect(fraction.denominator == denominator, "a fraction is not reduced")
    return fraction


def _read_uuid(text: str) -> uuid.UUID:
    _expect(type(text) is str and re.fullmatch("[0-9a-f]{32}", text) is not None, "a UUID is none")
    return uuid.UUID(text)


def _read_path(text: str) -> pathlib.PurePosixPath:
    _expect(type(text) is str, "a path is no text")
    return pathlib.PurePosixPath(text)


def _read_range(*parts: int) -> range:
    _expect(len(parts) == 3 and all(type(part) is int for part in parts), "a range takes three ints")
    return range(*parts)


def _read_slice(start: Any, stop: Any, step: Any) -> slice:
    return slice(start, stop, step)


def _ints(parts: tuple[Any, ...], count: int) -> tuple[int, ...]:
    _expect(len(parts) == count and all(type(part) is int for part in parts), f"a time takes {count} ints")
    return parts


def _read_date(*parts: int) -> datetime.date:
    return datetime.date(*_ints(parts, 3))


def _read_time(*parts: Any) -> datetime.time:
    hour, minute, second, microsecond, fold = _ints(parts[:-1], 5)
    return datetime.time(hour, minute, second, microsecond, _zone_of(parts[-1]), fold=fold)


def _read_datetime(*parts: Any) -> datetime.datetime:
    year, month, day, hour, minute, second, microsecond, fold = _ints(parts[:-1], 8)
    zone = _zone_of(parts[-1])
    return datetime.datetime(year, month, day, hour, minute, second, microsecond, zone, fold=fold)


def _zone_of(zone: Any) -> datetime.timezone | None:
    _expect(zone is None or type(zone) is datetime.timezone, "a time zone is none")
    return zone  # type: ignore[no-any-return]


def _read_timedelta(*parts: int) -> datetime.timedelta:
    return datetime.timedelta(*_ints(parts, 3))


def _read_timezone(microseconds: int, name: str | None) -> datetime.timezone:
    offset = datetime.timedelta(microseconds=_ints((microseconds,), 1)[0])
    return datetime.timezone(offset) if name is None else datetime.timezone(offset, name)


def _read_array(code: str, item_bytes: int, text: str) -> "array.array[Any]":
    _expect(type(code) is str and len(code) == 1 and code in ARRAY_CODES, "an array has no type that it can have")
    family = next(family for family in ("bhilq", "BHILQ", "fd") if code in family)
    here = code if array.array(code).itemsize == item_bytes else None
    here = here or next((one for one in family if array.array(one).itemsize == item_bytes), None)
    if here is None:
        raise ValueError("an array has items of a size that they cannot have")
    values = array.array(here, _read_base64(text))
    if sys.byteorder == "big":
        values.byteswap()
    return values


def _read_set(keys: Keys, *members: Any) -> set[Any]:
    return keys.fill(set(), set.update, list(members))  # type: ignore[no-any-return]


def _read_frozenset(keys: Keys, *members: Any) -> frozenset[Any]:
    return frozenset(_read_set(keys, *members))


def _read_dict(keys: Keys, *flat: Any) -> dict[Any, Any]:
    _expect(len(flat) % 2 == 0, "a dict has a key without a value")
    entries = list(zip(flat[::2], flat[1::2], strict=True))
    return keys.fill({}, dict.update, entries)  # type: ignore[no-any-return]


def _read_ordered(keys: Keys, *flat: Any) -> "collections.OrderedDict[Any, Any]":
    return collections.OrderedDict(_read_dict(keys, *flat))


def _read_counter(keys: Keys, *flat: Any) -> "collections.Counter[Any]":
    return collections.Counter(_read_dict(keys, *flat))


def _read_defaultdict(keys: Keys, factory: str | None, *flat: Any) -> "collections.defaultdict[Any, Any]":
    return collections.defaultdict(None if factory is None else FACTORIES[factory], _read_dict(keys, *flat))


def _read_deque(length_max: int | None, *members: Any) -> "collections.deque[Any]":
    _expect(length_max is None or type(length_max) is int, "a deque takes a length")
    return collections.deque(members, length_max)


def _read_tuple(*members: Any) -> tuple[Any, ...]:
    return members


def _read_ellipsis() -> Any:
    return ...


def _unpickle(text: str) -> Any:
    data = _read_base64(text)
    try:
        return pickle.loads(data)
    except Exception as error:
        raise ValueError(f"a pickle cannot be read: {type(error).__name__}") from None


# --- readers of classes: each takes the class and the parts behind its name


def _find(classes: Classes, name: str) -> type:
    module, colon, qualified = name.partition(":")
    kind = classes(module, qualified) if colon else None
    if not isinstance(kind, type):
        raise ValueError(f"{short(name)} is no class that is taken: expected one of a module that was sent")
    return kind


def _read_enum(kind: Any, name: str) -> Any:
    _expect(issubclass(kind, enum.Enum) and name in kind.__members__, f"{kind.__name__} has no such member")
    return kind.__members__[name]


def _read_flag(kind: Any, value: int) -> Any:
    _expect(issubclass(kind, enum.Flag) and type(value) is int, f"{kind.__name__} is no flag")
    known = kind._value2member_map_
    is_taken = value in known or (INT_MIN <= value <= INT_MAX and len(known) < _FLAG_VALUES_MAX)
    _expect(is_taken, f"{kind.__name__} has no such value")
    return kind(value)


def _read_named(kind: Any, *values: Any) -> Any:
    fields: Any = getattr(kind, "_fields", None)
    is_right = issubclass(kind, tuple) and is_names(fields) and len(fields) == len(values)
    _expect(is_right, f"{kind.__name__} takes other fields")
    return tuple.__new__(kind, values)


def _read_data(kind: Any, *flat: Any) -> Any:
    is_right = dataclasses.is_dataclass(kind) and is_made_of_fields(cast(type, kind))
    _expect(is_right, f"{kind.__name__} is no dataclass")
    names = [field.name for field in dataclasses.fields(kind)]
    _expect(list(flat[::2]) == names and len(flat) == 2 * len(names), f"{kind.__name__} takes other fields")
    value = object.__new__(kind)  # no code of its own: what it would be given comes from strangers
    for name, member in zip(names, flat[1::2], strict=True):
        object.__setattr__(value, name, member)
    return value


_READERS: Final[dict[str, Callable[..., Any]]] = {
    "int": _read_int,
    "float": _FLOATS.__getitem__,
    "bytes": _read_base64,
    "bytearray": _read_bytearray,
    "complex": _read_complex,
    "decimal": _read_decimal,
    "fraction": _read_fraction,
    "uuid": _read_uuid,
    "path": _read_path,
    "range": _read_range,
    "slice": _read_slice,
    "date": _read_date,
    "time": _read_time,
    "datetime": _read_datetime,
    "timedelta": _read_timedelta,
    "timezone": _read_timezone,
    "array": _read_array,
    "tuple": _read_tuple,
    "deque": _read_deque,
    "ellipsis": _read_ellipsis,
}
_KEYED_READERS: Final[dict[str, Callable[..., Any]]] = {
    "set": _read_set,
    "frozenset": _read_frozenset,
    "dict": _read_dict,
    "OrderedDict": _read_ordered,
    "Counter": _read_counter,
    "defaultdict": _read_defaultdict,
}
_CLASS_READERS: Final[dict[str, Callable[..., Any]]] = {
    "enum": _read_enum,
    "flag": _read_flag,
    "named": _read_named,
    "data": _read_data,
}
