"""`ww` whose workers say that every function returned one more than it did."""

import struct
import sys
from collections.abc import Iterable

from ww.__main__ import main
from ww.records import spans
from ww.running import RunningGroup
from ww.sandbox.group import Outcomes

_RESULT_AT = 12
"""Where the result is in a record, behind its length: see schema/worker.capnp."""

honest = RunningGroup._add


def lie(self: RunningGroup, ended: Iterable[Outcomes]) -> None:
    lies = []
    for outcomes in ended:
        records = bytearray(outcomes.records)
        for start, _ in spans(outcomes.records):
            (value,) = struct.unpack_from("<q", records, start + _RESULT_AT)
            struct.pack_into("<q", records, start + _RESULT_AT, value + 1)
        lies.append(outcomes._replace(records=bytes(records)))
    honest(self, lies)


RunningGroup._add = lie  # type: ignore[method-assign]

if __name__ == "__main__":
    sys.exit(main())
