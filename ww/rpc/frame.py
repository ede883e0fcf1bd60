"""What pycapnp must not be given: messages that take far more memory to read than to send.

Holds a Guard, which is fed the bytes of a connection and refuses such a message before its last byte is passed on. Must
not know what calls mean. Elements of a list of structs may have no size, and pycapnp makes sixteen bytes of each entry
in a message's table of capabilities, at once and before anybody knows who sent it: 152 bytes said that there were eight
million, and held 128 MB until the call was answered. An empty segment, of four bytes, is made into sixteen too. Only
the lists that the RPC layer itself reads are looked at; rpc/message.py is for the others. Source: rpc.capnp, and
https://capnproto.org/encoding.html.
"""

import bisect
import itertools
import struct
from collections.abc import Iterable
from typing import Final

from ww.errors import PeerError

WORDS_MAX: Final = 8 << 20
"""Of eight bytes, in a message: 64 MiB."""
_SEGMENTS_MAX: Final = 512
# How many capabilities one message may hold, and how many elements without size, which nobody who means well makes.
_ELEMENTS_MAX: Final = 16_384
_SIZELESS_MAX: Final = 64
_STRUCT, _LIST, _FAR = 0, 1, 2
_SIZELESS, _POINTERS, _COMPOSITE = 0, 6, 7

# Message.which
_ABORT, _CALL, _RETURN, _FINISH, _RESOLVE, _RELEASE, _BOOTSTRAP, _DISEMBARGO = 1, 2, 3, 4, 5, 6, 8, 13
_WITHOUT_LISTS: Final = frozenset((_ABORT, _FINISH, _RELEASE, _BOOTSTRAP))
# Where a list of structs is, by the numbers of the pointers that lead to it from the message's content.
_TRANSFORMS: Final = {_CALL: (0, 0, 0), _RESOLVE: (0, 0, 0), _DISEMBARGO: (0, 0, 0)}
_CAPABILITIES: Final = {_CALL: (1, 1), _RETURN: (0, 1)}

# How every node of ours, and whoever else uses the C++ library, lays a message out: what is so is read at fixed places.
_HEAD: Final = struct.Struct("<IIQHxxxxxx").unpack_from
_CALL_HEAD: Final = struct.Struct("<IIQHxxxxxxQ24xQQ16xQ").unpack_from
_HEAD_BYTES, _CALL_BYTES = 24, 96
_RETURN_WORDS: Final = struct.Struct("<Q16xQ8xQ").unpack_from
_ROOT: Final = 0x0001_0001_0000_0000
_CALL_POINTERS: Final = (_ROOT, 0x0003_0003_0000_0000, 0x0002_0000_0000_0004, 0x0001_0001)
_RETURN_POINTERS: Final = (0x0001_0002_0000_0000, 0x0002_0000_0000_0000, 0)
_NULL: Final = bytes(8)


class Guard:
    """Reads along on one connection."""

    def __init__(self) -> None:
        self._head = bytearray()
        """What has come of the table of segments of a message that is not complete."""
        self._pieces: list[memoryview] = []
        """What has come of it after that. Not copied: it may be long."""
        self._missing = 0
        """How many bytes are still to come."""

    def take(self, data: bytes) -> None:
        """Look at what comes next. Raises PeerError for a message that must not be passed on, nor anything after it."""
        at = self._go_on(data, 0) if self._head else 0
        at = _skim(data, at)
        while at < len(data):
            at = self._go_on(data, at)

    def _go_on(self, data: bytes, at: int) -> int:
        """Read on in a message that is short, has several segments, or is not complete; return where it ends."""
        view, end = memoryview(data), len(data)
        while not self._missing:
            wanted = table_bytes(self._head)
            if len(self._head) == wanted:
                self._missing = body_bytes(self._head)
                break
            if at == end:
                return at
            piece = view[at : at + wanted - len(self._head)]
            self._head += piece
            at += len(piece)
        piece = view[at : at + self._missing]
        self._pieces.append(piece)
        self._missing -= len(piece)
        if not self._missing:
            frame = [memoryview(self._head), *self._pieces]
            self._head, self._pieces = bytearray(), []
            _check(frame)
        return at + len(piece)


def table_bytes(begun: bytes | bytearray) -> int:
    """Return how long the table of segments of a frame that begins so is, as far as known. PeerError: too long."""
    if len(begun) < 4:
        return 8
    segments = int.from_bytes(begun[:4], "little") + 1
    if segments > _SEGMENTS_MAX:
        raise PeerError(f"a message of {segments} segments, of which at most {_SEGMENTS_MAX} are read")
    return (4 + 4 * segments + 7) // 8 * 8


def body_bytes(table: bytes | bytearray) -> int:
    """Return how many bytes follow a table of segments. PeerError when they are too many."""
    words: int = sum(_segments(table))
    if words > WORDS_MAX:
        raise PeerError(f"a message of {8 * words} bytes, of which at most {8 * WORDS_MAX} are read")
    return 8 * words


def _segments(table: bytes | bytearray | memoryview) -> tuple[int, ...]:
    return struct.unpack_from(f"<{int.from_bytes(table[:4], 'little') + 1}I", table, 4)


def _skim(data: bytes, at: int) -> int:
    """Look at whole messages of one segment, from there on, and return where the last of them ends.

    Most of all messages are looked at here, for half a microsecond each: one call of struct, and none of ours.
    """
    end = len(data)
    while end - at >= _CALL_BYTES:
        segments, words, root, which, content, target, params, capabilities = _CALL_HEAD(data, at)
        stop = at + 8 + 8 * words
        if segments or stop > end:
            return at
        if which == _CALL:
            # An answer that the target may be is the second word of where its pointer leads to, counted from word 8.
            answer = at + 72 + ((target & 0xFFFFFFFC) << 1)
            is_plain = (
                not capabilities
                and (root, content, params, target >> 32) == _CALL_POINTERS
                and data[answer : answer + 8] == _NULL
                and answer < stop
            )
        else:
            is_plain = root == _ROOT and (
                which in _WITHOUT_LISTS or (which == _RETURN and _is_plain_return(data, at, words))
            )
        if not is_plain:
            _check([memoryview(data)[at:stop]])
        at = stop
    while end - at >= _HEAD_BYTES:
        segments, words, root, which = _HEAD(data, at)
        stop = at + 8 + 8 * words
        if segments or stop > end:
            return at
        if root != _ROOT or not (which in _WITHOUT_LISTS or (which == _RETURN and _is_plain_return(data, at, words))):
            _check([memoryview(data)[at:stop]])
        at = stop
    return at


def _is_plain_return(data: bytes, at: int, words: int) -> bool:
    """Whether a return that is laid out as usual has no capabilities."""
    return words >= 8 and _RETURN_WORDS(data, at + 24) == _RETURN_POINTERS


def _check(frame: list[memoryview]) -> None:
    """Raise PeerError for a frame with a list of too many elements without size where the RPC layer reads it."""
    message = _Message(frame)
    try:
        root = message.struct(0, 0)
        if root is None or not root[2]:
            return
        which = message.word(root[0], root[1]) & 0xFFFF
        for places, has_answers in ((_TRANSFORMS, False), (_CAPABILITIES, True)):
            if which in places:
                message.check(root, (0, *places[which]), has_answers=has_answers)
    except IndexError:
        return  # pycapnp says what is wrong with it


_Struct = tuple[int, int, int, int]
"""Segment, first word, words of data, pointers."""


class _Message:
    """The pointers of one frame. IndexError: one that leads out of it."""

    def __init__(self, frame: list[memoryview]) -> None:
        """Read a frame that is in pieces, of which the first has the whole table of segments."""
        self._pieces = frame
        self._starts = [0, *itertools.accumulate(len(piece) for piece in frame[:-1])]
        self._segments: list[tuple[int, int]] = []
        sizes = _segments(frame[0])
        start = (4 + 4 * len(sizes) + 7) // 8
        for words in sizes:
            self._segments.append((start, words))
            start += words

    def word(self, segment: int, at: int) -> int:
        start, words = self._segments[segment]
        if not 0 <= at < words:
            raise IndexError
        offset = 8 * (start + at)
        number = bisect.bisect_right(self._starts, offset) - 1
        offset -= self._starts[number]
        word = self._pieces[number][offset : offset + 8]
        while len(word) < 8:
            number += 1
            word = memoryview(bytes(word) + bytes(self._pieces[number][: 8 - len(word)]))
        return int.from_bytes(word, "little")

    def check(self, origin: _Struct, path: tuple[int, ...], *, has_answers: bool) -> None:
        """Check the list at the end of path; with has_answers its elements' too, in the answers that they refer to."""
        at: _Struct | None = origin
        for number in path[:-1]:
            if at is None or number >= at[3]:
                return
            at = self.struct(at[0], at[1] + at[2] + number)
        if at is None or path[-1] >= at[3]:
            return
        segment, pointers = self.elements(at[0], at[1] + at[2] + path[-1])
        for pointer in pointers if has_answers else ():
            answer = self.struct(segment, pointer)
            if answer is not None and answer[3]:
                self.elements(answer[0], answer[1] + answer[2])

    def struct(self, segment: int, at: int) -> _Struct | None:
        """Return the struct that a pointer leads to, if it does to one."""
        segment, first, pointer = self._follow(segment, at)
        if not pointer or pointer & 3 != _STRUCT:
            return None
        return segment, first, pointer >> 32 & 0xFFFF, pointer >> 48

    def elements(self, segment: int, at: int) -> tuple[int, Iterable[int]]:
        """Return where the first pointers of the elements of a list are. PeerError when the elements are too many."""
        segment, first, pointer = self._follow(segment, at)
        if pointer & 3 != _LIST:
            return segment, ()
        kind, count, step, skip = pointer >> 32 & 7, pointer >> 35, 1, 0
        if kind == _COMPOSITE:
            tag = self.word(segment, first)
            first, count, skip = first + 1, (tag & 0xFFFFFFFF) >> 2, tag >> 32 & 0xFFFF
            step = skip + (tag >> 48)
        if count > (_SIZELESS_MAX if kind == _SIZELESS or step == 0 else _ELEMENTS_MAX):
            raise PeerError(f"a message with a list of {count} capabilities, or steps to one")
        if kind == _POINTERS or step > skip:
            return segment, range(first + skip, first + skip + count * step, step)
        return segment, ()

    def _follow(self, segment: int, at: int) -> tuple[int, int, int]:
        """Return where a pointer leads to, past those to other segments, and the pointer that says what is there."""
        pointer = self.word(segment, at)
        if pointer & 3 == _FAR:
            is_double, segment, at = pointer & 4, pointer >> 32, (pointer & 0xFFFFFFFF) >> 3
            pointer = self.word(segment, at)
            if is_double:
                return pointer >> 32, (pointer & 0xFFFFFFFF) >> 3, self.word(segment, at + 1)
        offset = (pointer & 0xFFFFFFFF) >> 2
        return segment, at + 1 + (offset - (1 << 30) if offset >> 29 else offset), pointer
