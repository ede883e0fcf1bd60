"""What is there when the component is built, and stays: which objects these are, and where in memory they lie.

Must not know what is done with that: ../image.py, which makes them immortal, so that a call that merely uses one writes
nothing to its page.
"""

import gc
import sys
import types
from array import array
from typing import Any, Final

BEGIN: Final = b"ww-lasting-begin:"
END: Final = b":ww-lasting-end"
# An address, as wide as they are here.
_WORD: Final = "I" if sys.maxsize < 1 << 32 else "Q"
_CHUNK: Final = 256
_ZEROS_BYTES: Final = 32 << 10
_ZEROS_COUNT: Final = 256


class Lasting:
    """All objects that can be reached. They are held: an address of one that is gone would be another's."""

    def __init__(self) -> None:
        self.objects: list[Any] = _reached(gc.get_objects())
        """Of these, none is a frame: those end."""
        addresses = array(_WORD, map(id, self.objects))
        self.addresses = b"".join((BEGIN, b"%d:" % len(addresses), addresses.tobytes(), END))
        del addresses
        # What finding them took is free now, and full of what it was: zeros take no room in the component.
        zeros = [bytearray(_ZEROS_BYTES) for _ in range(_ZEROS_COUNT)]
        zeros.clear()


def _reached(found: list[Any]) -> list[Any]:
    reached: list[Any] = []
    known: set[int] = set()
    while found:
        new = []
        for each in found[-_CHUNK:]:
            if id(each) not in known and not isinstance(each, types.FrameType):
                known.add(id(each))
                new.append(each)
        del found[-_CHUNK:]
        reached += new
        found += gc.get_referents(*new)
        # What code refers to, collections never look at.
        for code in new:
            if isinstance(code, types.CodeType):
                found += (code.co_consts, code.co_names, code.co_varnames, code.co_freevars, code.co_cellvars)
                found += (code.co_name, code.co_qualname, code.co_filename, code.co_linetable, code.co_exceptiontable)
    return reached
