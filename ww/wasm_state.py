"""What of a core module's instance can be put back to an earlier state, and with what.

An instance's state is its memory, its mutable globals, its tables, and which segments it has dropped. The memory is
reached from outside (sandbox/checkpoint.py). Holds what is needed for the rest: globals are exported, each by a name,
so that a module of ours, the keeper, can save and restore them all in one call; and code that changes a table or drops
a segment is refused. Must not know components. Bytes of strangers: linear in their size, no error but BadModule.
Source: WebAssembly Core Specification 3.0, 5.5 (Modules).
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from ww.errors import BadModule
from ww.wasm_binary import Reader
from ww.wasm_code import check_code
from ww.wasm_inspect import ModuleInfo, inspect

_PREAMBLE: Final = b"\0asm\1\0\0\0"
_MEMORY, _GLOBAL, _EXPORT, _CODE = 5, 6, 7, 10
_NUMBER: Final = rb"[\x80-\xff]{0,9}+[\x00-\x7f]"
_CONSTANT: Final = re.compile(
    rb"(?:[\x23\x41\x42\xd0\xd2]NUMBER|\x43.{4}|\x44.{8}|\xfd\x0c.{16}|[\x6a-\x6c\x7c-\x7e])*+\x0b".replace(
        b"NUMBER", _NUMBER
    ),
    re.DOTALL,
)
_TYPES: Final = {0x7F: "i32", 0x7E: "i64", 0x7D: "f32", 0x7C: "f64"}
# Of each: how it is written in a module, how it is loaded, and how it is stored.
_CODES: Final = {"i32": b"\x7f\x28\x36", "i64": b"\x7e\x29\x37", "f32": b"\x7d\x2a\x38", "f64": b"\x7c\x2b\x39"}
_EXPORT_GLOBAL: Final = 3
_PAGE_BYTES: Final = 1 << 16
GLOBALS_MAX: Final = 20_000
"""Mutable, of all the modules of a component."""


@dataclass(frozen=True, slots=True)
class Restorable:
    """A module all of whose mutable globals are exported."""

    data: bytes
    info: ModuleInfo
    globals: Sequence[tuple[str, str]]
    """Name and type, of the mutable ones that are its own."""
    memories: int
    """That are its own."""


def restorable(data: bytes) -> Restorable:
    """Read a core module, and export what it does not. BadModule when its state could not be put back."""
    info = inspect(data)
    imported = sum(wish.kind == "global" for wish in info.imports)
    sections = list(_sections(data))
    mutable: list[tuple[int, str]] = []
    memories = 0
    for number, section in sections:
        if number == _MEMORY:
            memories += section.within(section.at, section.end).count()
        elif number == _GLOBAL:
            mutable += _mutable(section.within(section.at, section.end), imported)
        elif number == _CODE:
            check_code(section.within(section.at, section.end))
    names = [f"ww:global:{index}" for index, _ in mutable]
    if any(name in info.exports for name in names):
        raise BadModule("wasm: exports a name that begins with ww:global:, which is ours")
    exports = [
        _name(name) + bytes([_EXPORT_GLOBAL]) + _leb(index) for name, (index, _) in zip(names, mutable, strict=True)
    ]
    rewritten = _with_exports(data, sections, exports) if exports else data
    return Restorable(rewritten, info, [(n, kind) for n, (_, kind) in zip(names, mutable, strict=True)], memories)


def keeper(kinds: Sequence[str]) -> bytes:
    """Make a module that imports globals of those types as "g" and its number, has a memory of its own, exported, and
    two functions: `save` puts them into that memory, 8 bytes each, `restore` sets them to what is there."""
    imports = [_name("g") + _name(str(at)) + b"\x03" + _CODES[kind][:1] + b"\1" for at, kind in enumerate(kinds)]
    save = b"".join(b"\x41\0\x23" + _leb(at) + _CODES[kind][2:] + b"\0" + _leb(8 * at) for at, kind in enumerate(kinds))
    restore = b"".join(
        b"\x41\0" + _CODES[kind][1:2] + b"\0" + _leb(8 * at) + b"\x24" + _leb(at) for at, kind in enumerate(kinds)
    )
    bodies = [b"\0" + body + b"\x0b" for body in (save, restore)]
    pages = _leb(-(-8 * len(kinds) // _PAGE_BYTES) or 1)
    exports = [_name("memory") + b"\2\0", _name("save") + b"\0\0", _name("restore") + b"\0\1"]
    return _PREAMBLE + b"".join((
        _section(1, [b"\x60\0\0"]), _section(2, imports), _section(3, [b"\0", b"\0"]), _section(5, [b"\0" + pages]),
        _section(7, exports), _section(10, [_leb(len(body)) + body for body in bodies]),
    ))  # fmt: skip


def _sections(data: bytes) -> "Sequence[tuple[int, Reader]]":
    found = []
    reader = Reader(data, len(_PREAMBLE), len(data), "a section")
    while reader.at < reader.end:
        number = reader.byte()
        size = reader.number()
        start = reader.skip(size)
        found.append((number, Reader(data, start, start + size, f"section {number}")))
    return found


def _mutable(section: Reader, imported: int) -> list[tuple[int, str]]:
    """Return the index and type of each mutable global that is the module's own."""
    found: list[tuple[int, str]] = []
    for index in range(imported, imported + section.count()):
        number, is_mutable = section.byte(), section.byte()
        end = section.match(_CONSTANT)
        if end == section.at:
            raise section.bad("begins a global with what is no constant")
        section.at = end
        if is_mutable:
            if number not in _TYPES:
                raise section.bad("holds a mutable global that is no i32, i64, f32 or f64, which cannot be put back")
            found.append((index, _TYPES[number]))
    return found


def _with_exports(data: bytes, sections: Sequence[tuple[int, Reader]], more: Sequence[bytes]) -> bytes:
    """Add exports to a module that has some, or has none."""
    parts, is_done = [_PREAMBLE], False
    for number, section in sections:
        body = section.within(section.at, section.end)
        if not is_done and (number == _EXPORT or number > _EXPORT):
            count = body.count() if number == _EXPORT else 0
            there = body.take(body.end - body.at) if number == _EXPORT else b""
            whole = _leb(count + len(more)) + there + b"".join(more)
            parts.append(bytes([_EXPORT]) + _leb(len(whole)) + whole)
            is_done = True
            if number == _EXPORT:
                continue
            body = section.within(section.at, section.end)
        parts.append(bytes([number]) + _leb(section.end - section.at) + body.take(body.end - body.at))
    if not is_done:
        parts.append(_section(_EXPORT, more))
    return b"".join(parts)


def _section(number: int, entries: Sequence[bytes]) -> bytes:
    body = _leb(len(entries)) + b"".join(entries)
    return bytes([number]) + _leb(len(body)) + body


def _name(text: str) -> bytes:
    data = text.encode()
    return _leb(len(data)) + data


def _leb(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)
