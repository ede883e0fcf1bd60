"""What the two sides of the format of values share: its bounds, and which classes have a form in it.

Must not know how a value is written (writer.py) nor read (reader.py).
"""

from collections.abc import Callable
from typing import Any, Final

DEPTH_MAX: Final = 100
INT_MIN: Final = -(2**63)
INT_MAX: Final = 2**64 - 1
# Reducing a fraction takes time that grows with the square of its bits.
FRACTION_BITS_MAX: Final = 32_768
FACTORIES: Final[dict[str, type]] = {
    kind.__name__: kind for kind in (int, float, str, list, dict, set, tuple, bool, bytes)
}
ARRAY_CODES: Final = "bBhHiIlLqQfd"

Classes = Callable[[str, str], type | None]


class Unsendable(TypeError):
    """A value, or a part of it, has no form outside of the process that it is in. The message names it."""


def is_made_of_fields(kind: type) -> bool:
    """Return whether a dataclass is not something else too (a list, an exception) that its fields do not say, and ends
    without code of its own, which would be given what a stranger says."""
    new: Any = kind.__new__
    return new is object.__new__ and not hasattr(kind, "__del__")


def is_names(fields: object) -> bool:
    """Return whether these are the fields of a NamedTuple."""
    return isinstance(fields, tuple) and all(isinstance(name, str) for name in fields)


def short(value: object) -> str:
    """Return what a message may have of a value."""
    if isinstance(value, str | bytes):
        return repr(value) if len(value) <= 40 else f"{value[:40]!r}..."
    if type(value) in (float, bool, type(None)):
        return repr(value)
    if type(value) is int:
        return repr(value) if value.bit_length() <= 128 else "(a large int)"
    return f"({type(value).__name__})"
