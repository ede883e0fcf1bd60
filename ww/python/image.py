"""The memory that a component begins with, changed: objects that stay are made immortal.

Holds a reader of the data in a component's core modules. Must not know what the objects are: guest/lasting.py lists
them in the memory itself. Every use of an ordinary object writes to its reference count, and so to its page, which has
to be put back after the call (sandbox/checkpoint.py); an immortal one's is left alone.
Source: PEP 683; CPython 3.14, Include/refcount.h.
"""

import struct
from collections.abc import Iterator
from typing import Final

from ww.errors import BadModule
from ww.python.guest.lasting import BEGIN, END
from ww.wasm_binary import Reader

_CORE_MODULE, _DATA, _MEMORY_0, _PASSIVE, _I32_CONST, _END = 1, 11, 0, 1, 0x41, 0x0B
_PREAMBLE_BYTES: Final = 8
_COUNT: Final = struct.Struct("<I")
# _Py_IMMORTAL_INITIAL_REFCNT where pointers have 32 bits.
_IMMORTAL: Final = 5 << 28
_COUNT_MAX: Final = 1 << 24


def make_lasting(component: bytes) -> bytes:
    """Return the component with the objects that it lists made immortal. BadModule where it has no such list."""
    begin = component.find(BEGIN, 0)
    # The mark is there as a constant, too.
    while begin >= 0 and not component[begin + len(BEGIN) : begin + len(BEGIN) + 1].isdigit():
        begin = component.find(BEGIN, begin + 1)
    end = component.find(END, begin)
    colon = component.find(b":", begin + len(BEGIN))
    if begin < 0 or end < colon or int(component[begin + len(BEGIN) : colon]) * 4 != end - colon - 1:
        raise BadModule("wasm: the component has no list of the objects that stay")
    addresses = sorted(struct.unpack(f"<{(end - colon - 1) // 4}I", component[colon + 1 : end]))
    changed = bytearray(component)
    segments = sorted(_segments(component))
    place = 0
    for address in addresses:
        while place < len(segments) and segments[place][1] < address + _COUNT.size:
            place += 1
        if place == len(segments):
            break
        start, _, at = segments[place]
        if start <= address:
            (count,) = _COUNT.unpack_from(changed, at + address - start)
            # What looks otherwise is no count: better one object less.
            if 0 < count <= _COUNT_MAX:
                _COUNT.pack_into(changed, at + address - start, _IMMORTAL)
    return bytes(changed)


def _segments(component: bytes) -> Iterator[tuple[int, int, int]]:
    """Yield what data is put where: start and end in memory, and where in the file it is."""
    for number, start, end in _sections(component, _PREAMBLE_BYTES, len(component)):
        if number != _CORE_MODULE:
            continue
        for section, first, last in _sections(component, start + _PREAMBLE_BYTES, end):
            if section == _DATA:
                yield from _data(Reader(component, first, last, "data"))


def _sections(component: bytes, start: int, end: int) -> Iterator[tuple[int, int, int]]:
    reader = Reader(component, start, end, "a section")
    while reader.at < end:
        number, size = reader.byte(), reader.number()
        begin = reader.skip(size)
        yield number, begin, begin + size


def _data(reader: Reader) -> Iterator[tuple[int, int, int]]:
    for _ in range(reader.count()):
        kind = reader.number()
        start = -1
        if kind != _PASSIVE:
            if kind != _MEMORY_0 or reader.byte() != _I32_CONST:
                raise reader.bad("is not put at an address that is known")
            start = reader.number()
            if reader.byte() != _END:
                raise reader.bad("is not put at an address that is known")
        size = reader.number()
        at = reader.skip(size)
        if start >= 0:
            yield start, start + size, at
