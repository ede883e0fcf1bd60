"""JSON of strangers, taken only where it means one thing to everybody.

Holds the reading alone. Must not know what a text is about. Refused are what no JSON is (NaN), what readers differ on
(a member that is there twice, numbers beyond what a machine holds) and what is nested beyond reason. Source: RFC 8259
and, for what is interoperable, RFC 7493.
"""

import json
import math
from typing import Any, Final

# -2^63 to 2^64 - 1 need 20.
_DIGITS_MAX: Final = 40


class NoJson(ValueError):
    """Says what is wrong with a text."""


def read_json(data: str | bytes | bytearray) -> Any:
    """Return what a text says; bytes are UTF-8. NoJson when it is not to be understood."""
    try:
        return _DECODER.decode(data if isinstance(data, str) else data.decode())
    except RecursionError:
        raise NoJson("it is nested too deeply") from None
    except UnicodeDecodeError:
        raise NoJson("it is not UTF-8") from None
    except NoJson:
        raise
    except ValueError:
        raise NoJson("it is cut off or malformed") from None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise NoJson("an object names a member twice")
    return found


def _finite(text: str) -> float:
    if math.isfinite(number := float(text)):
        return number
    raise NoJson("a number is too large")


def _whole(text: str) -> int:
    if len(text) > _DIGITS_MAX:
        raise NoJson("a number has too many digits")
    return int(text)


def _no_constant(name: str) -> float:
    raise NoJson(f"{name} is no number of JSON")


_DECODER: Final = json.JSONDecoder(
    object_pairs_hook=_unique, parse_float=_finite, parse_int=_whole, parse_constant=_no_constant
)
