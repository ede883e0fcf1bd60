"""The numbers an exported function takes and returns: text for people, 64 bits on the wire.

Holds the four WebAssembly types and their ranges. Must not know where a number comes from: request.py names the field.
The wire's form is that of schema/worker.capnp: of i32 and i64 the value, of f32 and f64 the bits of a Float64.
"""

import math
import re
import struct
from typing import Final

_WHOLE: Final = re.compile(r"-?\d{1,20}", re.ASCII)
_DECIMAL: Final = re.compile(r"[+-]?(\d{1,400}(\.\d{0,400})?|\.\d{1,400})([eE][+-]?\d{1,4})?", re.ASCII)
_NOT_FINITE: Final = re.compile(r"[+-]?(nan|inf|infinity)", re.IGNORECASE | re.ASCII)
_I64: Final = struct.Struct("<q")
_F64: Final = struct.Struct("<d")
_F32: Final = struct.Struct("<f")

EXPECTED: Final = {
    "i32": "a whole number from -2147483648 to 4294967295",
    "i64": "a whole number from -9223372036854775808 to 18446744073709551615",
    "f32": "a decimal number that fits 32 bits, nan or inf",
    "f64": "a decimal number that fits 64 bits, nan or inf",
}
"""What a parameter of each type is given as."""


def to_bits(kind: str, text: str) -> int | None:
    """Return the number of a text in the wire's form; None when it is none that fits the type."""
    if kind in ("f32", "f64"):
        return _float_to_bits(kind, text)
    bits = 32 if kind == "i32" else 64
    if not _WHOLE.fullmatch(text) or not -(1 << bits - 1) <= (value := int(text)) < 1 << bits:
        return None
    # What is beyond the signed range is meant as unsigned: the same bits.
    return value - (1 << bits) if value >= 1 << bits - 1 else value


def _float_to_bits(kind: str, text: str) -> int | None:
    if _NOT_FINITE.fullmatch(text):
        value = float(text)
    elif _DECIMAL.fullmatch(text):
        value = float(text)
        if kind == "f32":
            try:
                value = _F32.unpack(_F32.pack(value))[0]
            except OverflowError:
                return None
        if math.isinf(value):
            return None
    else:
        return None
    return int(_I64.unpack(_F64.pack(value))[0])


def from_bits(number: int, *, is_float: bool) -> str:
    """Return a number in the wire's form as decimal text: the shortest that is read back as the same, or NaN."""
    if not is_float:
        return str(number)
    value = _F64.unpack(_I64.pack(number))[0]
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "Infinity" if value > 0 else "-Infinity"
    return repr(value)
