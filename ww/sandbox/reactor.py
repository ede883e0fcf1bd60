"""Reactor guests: one instance answers many units of work.

Holds the protocol between a host and such a guest, and its instance between two units. Must not know limits or ends of
runs: engine.py does. The guest's `_start` answers one zero-length frame on stdout when it is ready; each call of its
export `ProcessStdio(size)` then reads size bytes of stdin, a unit of work, and writes one frame. A frame is a
little-endian uint32 length and as many bytes.
"""

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from ww.sandbox.invocation import GuestFault, Invocation
from ww.sandbox.output import Stream

ENTRY: Final = "ProcessStdio"
HEADER_BYTES: Final = 4


@dataclass(slots=True)
class Reactor:
    """A reactor's instance, which waits for its next unit of work."""

    program: Any
    context: bytes
    args: Sequence[str]
    env: Sequence[tuple[str, str]]
    memory_bytes: int
    """What it may have."""
    instance: Any
    state: Any
    """What our functions of WASI know of it."""
    used_bytes: int
    """Of memory."""

    def may_serve(self, program: Any, invocation: Invocation, memory_bytes: int) -> bool:
        """Whether an invocation is of the task that this instance is for."""
        return (
            self.program is program
            and invocation.context != b""
            and self.context == invocation.context
            and self.args == invocation.args
            and self.env == invocation.env
            and self.memory_bytes == memory_bytes
            and not invocation.deterministic
        )


def begin(program: Any, instance: Any, stdout: Stream) -> None:
    """Have a fresh instance of a program make itself ready."""
    instance.call(program.entry("_start"))
    if stdout.size() != HEADER_BYTES or stdout.peek(HEADER_BYTES) != bytes(HEADER_BYTES):
        raise GuestFault("trap", "the reactor does not say that it is ready, by one frame of no length on stdout")
    stdout.skip(HEADER_BYTES)


def work(program: Any, instance: Any, size: int, stdout: Stream) -> None:
    """Have an instance do a unit of work, whose size bytes it will find on stdin; leave the answer on stdout."""
    instance.call(program.entry(ENTRY), (size,))
    written = stdout.size()
    (length,) = struct.unpack("<I", stdout.peek(HEADER_BYTES)) if written >= HEADER_BYTES else (-1,)
    # What is cut cannot be counted any more.
    if length != written - HEADER_BYTES and not stdout.is_cut:
        raise GuestFault("trap", "the reactor's answer is not one frame")
    stdout.skip(HEADER_BYTES)
