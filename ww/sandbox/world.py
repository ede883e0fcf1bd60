"""What native.py and classes.py share: what a guest sees through WASI, the kinds of values, and fixed limits.

Holds plain data, and how errors are worded. Must not know wasmtime.
"""

import re
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

I32, I64, F32, F64 = range(4)
KINDS: Final = {"i32": I32, "i64": I64, "f32": F32, "f64": F64}

# Eight bytes each, beside the memory.
TABLE_ELEMENTS_MAX: Final = 200_000
TABLES_MAX: Final = 16
# The guest's own, and one through which our functions reach its memory (wasi.py).
INSTANCES_MAX: Final = 2
MEMORIES_MAX: Final = 2

_NUMBERED: Final = re.compile(r"^\d+: ")


@dataclass(slots=True)
class World:
    """What a guest sees of the world through WASI."""

    args: Sequence[str]
    env: Sequence[tuple[str, str]]
    stdin: bytes | memoryview
    """A memoryview is of writable memory."""
    folders: Sequence[tuple[str, str]] = ()
    """Where they are, and the guest's names for them."""


def one_line(error: Exception) -> str:
    """Say what wasmtime says, without its backtraces, and without what a guest's names could do to a terminal."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or ["unknown"]
    at = lines.index("Caused by:") if "Caused by:" in lines else len(lines)
    causes = [_NUMBERED.sub("", line) for line in lines[at + 1 :]]
    # Where in the guest it was says nothing to people, and comes before what it was.
    said = causes[-1:] if causes and lines[0].startswith("error while executing") else [lines[0], *causes]
    return "".join(letter if letter.isprintable() else "?" for letter in ": ".join(said))[:300]


def float_of(bits: int) -> float:
    """Return the float64 that has these bits, a signed number."""
    (value,) = struct.unpack("<d", struct.pack("<q", bits))
    return float(value)


def bits_of(value: float) -> int:
    """Return the bits of a float64 as a signed number."""
    (bits,) = struct.unpack("<q", struct.pack("<d", value))
    return int(bits)
