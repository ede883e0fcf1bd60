"""Reading values out of WebAssembly's binary format, from bytes of strangers.

Holds what modules and components have in common. Must not know sections, nor what they mean: wasm_inspect.py and
component_inspect.py do. Linear in what is read, and no error but BadModule. Source: WebAssembly Core Specification 2.0,
5 (Binary Format).
"""

import mmap
import re
from typing import Final, Self

from ww.errors import BadModule

# Far beyond what compilers make; keeps hostile counts from costing memory.
_ENTRIES_MAX: Final = 200_000
_NAME_BYTES_MAX: Final = 10_000


def shown(name: str) -> str:
    """Quote a stranger's name for an error message."""
    return repr(name if len(name) <= 60 else name[:60] + "...")


class Reader:
    """Reads values from data between two offsets, and complains about what it was reading."""

    def __init__(self, data: bytes | mmap.mmap, start: int, end: int, where: str) -> None:
        self._data = data
        self.at = start
        self.end = end
        self._where = where

    def bad(self, reason: str) -> BadModule:
        """Make the error for something wrong here."""
        return BadModule(f"wasm: {self._where}: {reason}")

    def byte(self) -> int:
        """Read one byte."""
        if self.at >= self.end:
            raise self.bad("ends in the middle of something")
        value = self._data[self.at]
        self.at += 1
        return value

    def take(self, count: int) -> bytes:
        """Read count bytes."""
        if count > self.end - self.at:
            raise self.bad(f"says {count} bytes, {self.end - self.at} are left")
        self.at += count
        return bytes(self._data[self.at - count : self.at])

    def skip(self, count: int) -> int:
        """Jump over count bytes and return where they began."""
        if count > self.end - self.at:
            raise self.bad(f"says {count} bytes, {self.end - self.at} are left")
        self.at += count
        return self.at - count

    def number(self, bits: int = 32) -> int:
        """Read an unsigned LEB128 number."""
        value = shift = 0
        while True:
            byte = self.byte()
            value |= (byte & 0x7F) << shift
            shift += 7
            if not byte & 0x80:
                break
            if shift >= bits:
                raise self.bad("holds a number that is too long")
        if value >> bits:
            raise self.bad("holds a number that is too large")
        return value

    def count(self) -> int:
        """Read how many entries follow; each is at least one byte."""
        count = self.number()
        if count > min(_ENTRIES_MAX, self.end - self.at):
            raise self.bad(f"says {count} entries, more than fit")
        return count

    def name(self) -> str:
        """Read a name: how many bytes, and those of UTF-8."""
        length = self.number()
        if length > _NAME_BYTES_MAX:
            raise self.bad(f"holds a name of {length} bytes, at most {_NAME_BYTES_MAX} are taken")
        try:
            return self.take(length).decode()
        except UnicodeDecodeError:
            raise self.bad("holds a name that is not UTF-8") from None

    def match(self, pattern: re.Pattern[bytes]) -> int:
        """Return where a pattern ends that begins here; here when it does not."""
        found = pattern.match(self._data, self.at, self.end)
        return found.end() if found is not None else self.at

    def within(self, start: int, end: int) -> Self:
        """Read a part of the same data."""
        return type(self)(self._data, start, end, self._where)
