"""What one peer has outstanding here: its connections, the calls it has not let go of, and their bytes.

Holds the limits, and the reading of just enough of each message to know. Must not know what calls do. pycapnp exposes
no limit of its own, and a call costs memory until its caller says that it is done with the answer, so that is counted:
from Call or Bootstrap to Finish. Source: capnproto.org/encoding.html, the serialization over a stream, and rpc.capnp.
"""

import struct
from dataclasses import dataclass
from typing import Final

from ww.errors import Overloaded

# Of rpc.capnp's Message: which of its kinds it is.
_CALL: Final = 2
_FINISH: Final = 4
_BOOTSTRAP: Final = 8
# More segments are nonsense to pycapnp. Within the first bytes after the table of them is all that matters here.
_SEGMENTS_MAX: Final = 512
_TELLING_BYTES: Final = 64
_FOR_EVER: Final = 1 << 62
_HEAD: Final = struct.Struct("<II")
_U64: Final = struct.Struct("<Q")


@dataclass(frozen=True, slots=True)
class PeerLimits:
    """What one peer may have outstanding."""

    connections_max: int = 16
    calls_max: int = 8192
    """Calls that it has not said to be done with."""
    bytes_max: int = 256 << 20
    """Of those calls."""


class Account:
    """What one peer has outstanding, over all its connections."""

    def __init__(self, limits: PeerLimits) -> None:
        self.limits = limits
        self.connections = 0
        self.calls = 0
        self.bytes = 0


class Meter:
    """Counts what comes by one connection towards its peer's account."""

    def __init__(self, account: Account) -> None:
        self._account = account
        self._calls: dict[int, int] = {}
        self._head = bytearray()
        self._skip = 0

    def read(self, data: bytes | memoryview) -> None:
        """Take note of what has come. Raises Overloaded when it is more than the peer may have outstanding."""
        place, end = 0, len(data)
        while place < end:
            if self._skip:
                step = min(self._skip, end - place)
                self._skip -= step
                place += step
                continue
            if self._head:
                self._head += data[place:]
                size = self._note(self._head, 0, len(self._head))
                if not size:
                    return
                place = end - (len(self._head) - size)
                self._head = bytearray()
            else:
                size = self._note(data, place, end)
                if not size:
                    self._head += data[place:]
                    return
                place += size
            if place > end:
                self._skip, place = place - end, end

    def close(self) -> None:
        """Count nothing of this connection any more."""
        self._account.calls -= len(self._calls)
        self._account.bytes -= sum(self._calls.values())
        self._calls.clear()

    def _note(self, data: bytes | bytearray | memoryview, start: int, end: int) -> int:
        """Note the message that begins at start and return its bytes; 0 when too few have come to tell."""
        if end - start < 8:
            return 0
        count, words = _HEAD.unpack_from(data, start)
        count += 1
        if count > _SEGMENTS_MAX:  # pycapnp gives up here, and nothing after it counts
            return _FOR_EVER
        table, first = (4 + 4 * count + 7) & ~7, words
        if count > 1:
            if end - start < table:
                return 0
            words, first = sum(struct.unpack_from(f"<{count}I", data, start + 4)), words
        size = int(table + 8 * words)
        if end - start < min(size, table + _TELLING_BYTES):
            return 0
        self._count(data, start + table, min(end, start + table + 8 * first), size)
        return size

    def _count(self, data: bytes | bytearray | memoryview, segment: int, end: int, size: int) -> None:
        kind, question = self._kind_and_question(data, segment, end)
        if kind == _FINISH:
            released = self._calls.pop(question, None)
            if released is not None:
                self._account.calls -= 1
                self._account.bytes -= released
        elif kind in (_CALL, _BOOTSTRAP):
            account, limits = self._account, self._account.limits
            before = self._calls.get(question)
            account.calls += before is None
            account.bytes += size - (before or 0)
            self._calls[question] = size
            if account.calls > limits.calls_max:
                raise Overloaded(f"more than {limits.calls_max} calls of this peer are outstanding, the limit")
            if account.bytes > limits.bytes_max:
                raise Overloaded(f"calls of more than {limits.bytes_max} bytes of this peer are outstanding, the limit")

    def _kind_and_question(self, data: bytes | bytearray | memoryview, segment: int, end: int) -> tuple[int, int]:
        """Return a message's kind, and of a Call, Bootstrap or Finish which question it is about.

        Both are where every encoder puts them, whole and in the first segment. Who puts them elsewhere wants pycapnp to
        read another question than is read here.
        """
        message, data_words, pointers = _follow(data, segment, end)
        if not data_words:
            return 0, 0
        kind = data[message] | data[message + 1] << 8
        if kind not in (_CALL, _FINISH, _BOOTSTRAP):
            return kind, 0
        body, body_words, _ = _follow(data, message + 8 * data_words, end) if pointers else (0, 0, 0)
        if not body_words:
            raise Overloaded("a call that is laid out as no node does it")
        return kind, int.from_bytes(data[body : body + 4], "little")


def _follow(data: bytes | bytearray | memoryview, pointer_at: int, end: int) -> tuple[int, int, int]:
    """Return where the struct that a pointer leads to begins, and its words of data and of pointers.

    Zeros for a pointer that leads back, out of the segment or what has come of it, to another segment, or nowhere.
    """
    if pointer_at + 8 > end:
        return 0, 0, 0
    (pointer,) = _U64.unpack_from(data, pointer_at)
    offset = (pointer & 0xFFFFFFFF) >> 2
    at, data_words, pointers = pointer_at + 8 + 8 * offset, pointer >> 32 & 0xFFFF, pointer >> 48
    if pointer & 3 or offset >> 29 or at + 8 * min(data_words, 1) > end:
        return 0, 0, 0
    return at, data_words, pointers
