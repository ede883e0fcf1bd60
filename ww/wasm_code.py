"""What the instructions of a core module can change besides its memory and its globals.

Holds a reader of function bodies that steps over instructions by a regular expression, a hundred times as fast as one
by one. Must not know why it matters: component_core.py does. Bytes of strangers: linear in their size, no recursion, no
error but BadModule. An instruction that it does not know is refused, since what comes after it could be anything.
Source: WebAssembly Core Specification 3.0, 5.4 (Instructions).
"""

import re
from typing import Final

from ww.errors import BadModule
from ww.wasm_binary import Reader

_NUMBER: Final = rb"[\x80-\xff]{0,9}+[\x00-\x7f]"
# Everything but br_table, whose length is a number in it, and what changes a table, or what tables and memories are
# filled from: table.set, table.init, elem.drop, table.copy, table.grow, table.fill, data.drop. Longer forms of numbers
# of instructions are left out: no compiler writes them.
_STEPS: Final = re.compile(
    rb"(?:"
    rb"[\x00\x01\x05\x0b\x0f\x1a\x1b\x45-\xc4\xd1]"
    rb"|[\x02-\x04\x0c\x0d\x10\x12\x20-\x25\x3f-\x42\xd0\xd2]NUMBER"
    rb"|[\x11\x13\x28-\x3e]NUMBERNUMBER"
    rb"|\x1c\x01[\x00-\x7f]"
    rb"|\x43.{4}|\x44.{8}"
    rb"|\xfc(?:[\x00-\x07]|[\x0b\x10]NUMBER|[\x08\x0a]NUMBERNUMBER)"
    rb"|\xfd(?:[\x00-\x0b\x5c\x5d]NUMBERNUMBER|[\x0c\x0d].{16}|[\x15-\x22].|[\x54-\x5b]NUMBERNUMBER."
    rb"|[\x0e-\x14\x23-\x53\x5e-\x7f]|[\x80-\xff]\x01|[\x80-\x93]\x02)"
    rb")*+".replace(b"NUMBER", _NUMBER),
    re.DOTALL,
)
_LABEL: Final = re.compile(_NUMBER)
_BR_TABLE: Final = 0x0E
_TABLE_SET: Final = b"\x26"
_CHANGES: Final = (b"\xfc\x09", b"\xfc\x0c", b"\xfc\x0d", b"\xfc\x0e", b"\xfc\x0f", b"\xfc\x11")


def check_code(section: Reader) -> None:
    """Return when no instruction of a code section can change a table, or drop a segment. BadModule when one can, or is
    not known."""
    for _ in range(section.count()):
        size = section.number()
        start = section.skip(size)
        _check_body(section.within(start, start + size))


def _check_body(body: Reader) -> None:
    for _ in range(body.count()):
        body.number()
        body.byte()
    while True:
        body.at = body.match(_STEPS)
        if body.at == body.end:
            return
        if body.byte() != _BR_TABLE:
            body.at -= 1
            raise _refused(body)
        for _ in range(body.count() + 1):
            end = body.match(_LABEL)
            if end == body.at:
                raise body.bad("ends in the middle of a br_table")
            body.at = end


def _refused(body: Reader) -> BadModule:
    head = body.take(min(2, body.end - body.at))
    if head[:1] == _TABLE_SET or head in _CHANGES:
        return body.bad("an instruction changes a table or drops a segment, which cannot be undone after a run")
    return body.bad(f"holds the unknown instruction {head.hex()}")
