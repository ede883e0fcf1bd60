"""Values that cross between a sandbox and whoever called it: a closed format, as JSON text.

Read from guests, whom nobody believes: reading makes no object but those listed in reader.py, runs no constructor and
imports nothing, and takes time in proportion to the text. Runs in the guest and in the caller's Python, so it knows
nothing but the standard library. How single types are written: writer.py. How exceptions travel: failure.py.

None, bool, str, finite float, int of at most 64 bits, list and dict with str keys (none of them empty) are themselves.
All else is an object with the empty key: `{"": [tag, ...]}`.
"""

import gc
import json
import math
import re
import sys
from collections.abc import Callable, Iterable
from itertools import accumulate
from typing import Any, Final, NoReturn

from ww.python.reader import Keys, reader_of
from ww.python.tags import DEPTH_MAX, INT_MAX, INT_MIN, Classes, Unsendable
from ww.python.writer import Writer

__all__ = ["DEPTH_MAX", "Classes", "Keys", "Unsendable", "dumps", "loads"]

# A value takes two levels of JSON for each of its own: the object, and the list in it.
_NESTING_MAX: Final = 2 * DEPTH_MAX + 8
# What the number of a text may have: reading one takes time that grows with its square. Python's own default.
_DIGITS_MAX: Final = 4300
_STRING: Final = re.compile(r'"(?:[^"\\]|\\.)*+"', re.DOTALL)
_NOT_BRACKETS: Final = bytes(set(range(256)) - set(b"[]{}"))
_STEPS: Final = {ord("["): 1, ord("{"): 1, ord("]"): -1, ord("}"): -1}
_ATOMS: Final = frozenset({type(None), bool, str, int, float})
_CONTAINERS: Final = frozenset({list, dict})
_encode: Final = json.JSONEncoder(separators=(",", ":"), allow_nan=False, check_circular=False).encode


def dumps(
    value: object,
    *,
    trust: bool = False,
    is_shipped: Callable[[type], bool] | None = None,
    name: str = "result",
) -> str:
    """Return the text of a value, in ASCII.

    trust: write as a pickle what has no other form. is_shipped: whether the reader knows a dataclass, NamedTuple or
    Enum (all of them, if not given). name: what the value is called in messages. Raises Unsendable, which names the
    part.
    """
    kind = type(value)
    if value is None:
        return "null"
    if kind is str:
        return _encode(value)
    if kind is int and INT_MIN <= value <= INT_MAX:  # type: ignore[operator]
        return repr(value)
    if not _is_plain(value, 0):
        value = Writer(trust, is_shipped).write_all(value, name)
    return _encode(value)


def loads(text: str | bytes, classes: Classes, *, trust: bool = False, keys: Keys | None = None) -> Any:
    """Return the value of a text.

    classes: gives the dataclass, NamedTuple or Enum of a module and a qualified name, or None where it is not taken.
    trust: whether to read pickles, which can run anything. keys: shared by texts that came together. Raises ValueError
    on what dumps does not write.
    """
    try:
        if not isinstance(text, str):
            text = str(text, "utf-8")
        may_be_deep = text.count("[") + text.count("{") > _NESTING_MAX
        if '"":' in text:
            if may_be_deep:
                _check_nesting(text)
            return _tagged_decoder(classes, trust, keys or Keys()).decode(text)
        value = _plain_decoder().decode(text)
        if may_be_deep:
            _check_depth(value)
        return value
    except UnicodeDecodeError:
        raise ValueError("the value is no UTF-8") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"the value is no JSON: {error.msg} at {error.pos}") from None
    except RecursionError:
        raise _too_deep() from None


def _is_plain(value: object, depth: int) -> bool:
    """Return whether a value is itself in JSON. What is deep, or in itself, is not: the other way says where it is."""
    if type(value) not in _CONTAINERS:
        return _are_plain((value,), {type(value)})
    if depth >= DEPTH_MAX:
        return False
    members: Iterable[object]
    if isinstance(value, dict):
        if value and (set(map(type, value)) != {str} or "" in value):
            return False
        members = value.values()
    else:
        assert isinstance(value, list)
        members = value
    kinds = set(map(type, members))
    if kinds & _CONTAINERS:
        return all(_is_plain(member, depth + 1) for member in members)
    return _are_plain(members, kinds)


def _are_plain(members: Iterable[Any], kinds: set[type]) -> bool:
    """Look at what is no container; all in C, where there is but one type."""
    if not kinds <= _ATOMS:
        return False
    if int in kinds:
        numbers = [one for one in members if type(one) is int] if len(kinds) > 1 else members
        if min(numbers) < INT_MIN or max(numbers) > INT_MAX:
            return False
    if float in kinds:
        numbers = [one for one in members if type(one) is float] if len(kinds) > 1 else members
        return all(map(math.isfinite, numbers))
    return True


def _check_nesting(text: str) -> None:
    """Raise ValueError where the brackets outside of strings are nested too deep."""
    brackets = _STRING.sub("", text).encode("ascii", "replace").translate(None, _NOT_BRACKETS)
    if max(accumulate(map(_STEPS.__getitem__, brackets)), default=0) > _NESTING_MAX:
        raise _too_deep()


def _check_depth(value: object) -> None:
    """Raise ValueError where lists and dicts are nested too deep."""
    level = [value]
    for _ in range(DEPTH_MAX + 1):
        # What is not tracked holds no other container.
        level = list(filter(gc.is_tracked, gc.get_referents(*level)))
        if not level:
            return
    raise _too_deep()


def _too_deep() -> ValueError:
    return ValueError(f"the value is nested too deep: expected at most {DEPTH_MAX} levels")


def _plain_decoder() -> json.JSONDecoder:
    # Python's own limit holds unless it was taken away: a function of ours for each number costs as much as the rest.
    is_bounded = 0 < sys.get_int_max_str_digits() <= _DIGITS_MAX
    return _PLAIN if is_bounded else _PLAIN_UNLIMITED


def _tagged_decoder(classes: Classes, trust: bool, keys: Keys) -> json.JSONDecoder:
    return json.JSONDecoder(
        object_hook=reader_of(classes, trust, keys), parse_constant=_refuse_constant, parse_int=_parse_int
    )


def _parse_int(text: str) -> int:
    if len(text) > _DIGITS_MAX:
        raise ValueError(f"a number has {len(text)} digits: expected at most {_DIGITS_MAX}")
    return int(text)


def _refuse_constant(text: str) -> NoReturn:
    raise ValueError(f"{text} is no value")


_PLAIN: Final = json.JSONDecoder(parse_constant=_refuse_constant)
_PLAIN_UNLIMITED: Final = json.JSONDecoder(parse_constant=_refuse_constant, parse_int=_parse_int)
