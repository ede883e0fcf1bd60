"""Time and random numbers of a run that is to give the same on every machine.

Holds what they are, as plain Python. Must not know guests or wasmtime: wasi.py gives them to guests.
"""

import hashlib
from typing import Final

START_NS: Final = 1_577_836_800 * 10**9
"""When every deterministic run begins: 2020-01-01T00:00:00Z, in nanoseconds since 1970."""
STEP_NS: Final = 10_000
"""What one reading of a clock takes, so that a loop that waits for a time to come ends."""
_END_NS: Final = 1 << 62
"""Nothing sleeps for longer than this after START_NS, so that sums stay within 64 bits."""


class VirtualClock:
    """A clock that goes on when it is read, and when somebody would sleep."""

    __slots__ = ("now_ns",)

    def __init__(self) -> None:
        self.now_ns = 0
        """Since the run began."""

    def read_ns(self) -> int:
        """Return the time since the run began, never zero and never the same again."""
        self.now_ns += STEP_NS
        return self.now_ns

    def sleep_until(self, time_ns: int) -> None:
        """Be there at once; never go back."""
        self.now_ns = max(self.now_ns, min(time_ns, _END_NS))


class RandomStream:
    """Random bytes by seed: SHAKE256 in counter mode (FIPS 202).

    Block i, of 1,024 bytes, is SHAKE256("ww random" || seed || i), both numbers as 8 bytes, little-endian. How the
    stream is cut into reads changes nothing.
    """

    __slots__ = ("_block", "_counter", "_prefix")

    _BLOCK_BYTES: Final = 1024

    def __init__(self, seed: int) -> None:
        """seed counts modulo 2**64."""
        self._prefix = b"ww random" + (seed % (1 << 64)).to_bytes(8, "little")
        self._counter = 0
        self._block = b""

    def read(self, size: int) -> bytes:
        """Return the next bytes of the stream."""
        parts, left = [], size
        while left > len(self._block):
            parts.append(self._block)
            left -= len(self._block)
            name = self._prefix + self._counter.to_bytes(8, "little")
            self._block = hashlib.shake_256(name).digest(self._BLOCK_BYTES)
            self._counter += 1
        parts.append(self._block[:left])
        self._block = self._block[left:]
        return b"".join(parts)
