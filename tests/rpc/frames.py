"""Cap'n Proto frames for fuzzing: what a peer says in a valid conversation, and what a stranger might make of it."""

import random
import struct
from pathlib import Path
from typing import Any, Final

import capnp

from ww import schema
from ww.rpc.frame import WORDS_MAX

_FOLDER: Final = Path(capnp.__file__).parent
rpc: Final = capnp.load(str(_FOLDER / "rpc.capnp"), imports=[str(_FOLDER.parent)])

SEGMENTS_MAX: Final = 512
EDGES: Final = (0, 1, 2, 3, 7, 0x7F, 0xFF, 0xFFFF, 0x10000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFE, 0xFFFFFFFF)
# Pointers that point nowhere good: lists of very many, a struct of the largest size, far pointers, capabilities.
POINTERS: Final = (
    0xFFFFFFFFFFFFFFFF,
    0x0000000000000002,
    0x00000007_00000001,
    0x00000000_7FFFFFFC,
    0xFFFFFFFF_00000001,
    0xFFFFFFF8_00000001,
    0xFFFFFFFF_FFFFFFFC,
    0xFFFFFFFF_00000000,
    0x00000000_FFFFFFFA,
    0x7FFFFFFF_00000006,
    0xFFFFFFFF_00000003,
    0x00000000_00000003,
    0x00010000_FFFFFFF8,
)


def frame_bytes(data: bytes) -> int | None:
    """Return how long the frame is that data begins with; 0 when nobody would read it, None when data is too short."""
    if len(data) < 4:
        return None
    segments = struct.unpack_from("<I", data)[0] + 1
    table = (4 + 4 * segments + 7) // 8 * 8
    if segments > SEGMENTS_MAX:
        return 0
    if len(data) < table:
        return None
    words = sum(struct.unpack_from(f"<{segments}I", data, 4))
    return 0 if words > WORDS_MAX else table + 8 * words


def split(data: bytes) -> tuple[list[bytes], bytes]:
    """Return the whole frames in data and what is left: the beginning of another, or what is none."""
    frames = []
    while (count := frame_bytes(data)) and count <= len(data):
        frames.append(data[:count])
        data = data[count:]
    return frames, data


def is_whole(data: bytes) -> bool:
    """Whether a reader of data would not wait for more: it read all, or has given up."""
    rest = split(data)[1]
    return not rest or frame_bytes(rest) == 0


def kind_of(frame: bytes) -> str:
    """Name the type of a valid message."""
    with rpc.Message.from_bytes(frame) as message:
        return str(message.which())


def bootstrap(question: int) -> bytes:
    """Return the frame that asks for the bootstrap capability."""
    return bytes(rpc.Message.new_message(bootstrap={"questionId": question}).to_bytes())


# The pointer to a struct that begins right after it and has one pointer, which may be the same again.
_DEEPER: Final = struct.pack("<Q", 1 << 48)


def _nested(frame: bytes) -> bytes:
    """Make of a Data that holds such pointers the structs that they are."""
    words = bytearray(frame)
    for at in range(8, min(len(words), 1024), 8):
        offset, kind = struct.unpack_from("<iI", words, at)
        there = at + 8 + (offset >> 2) * 8
        if offset & 3 == 1 and kind & 7 == 2 and words[there : there + 8] == _DEEPER:
            struct.pack_into("<iI", words, at, offset & ~3, 1 << 16)
    return bytes(words)


def with_millions_of_cases(frame: bytes) -> bytes | None:
    """Return a call of select, with a list of eight million cases that have no size; None when frame is none."""
    if kind_of(frame) != "call":
        return None
    words = bytearray(frame)
    for at in range(8, len(words) - 8, 8):
        offset, kind = struct.unpack_from("<iI", words, at)
        there = at + 8 + (offset >> 2) * 8
        # A list of structs of one word and three pointers: a Case is the only such.
        if offset & 3 == 1 and kind & 7 == 7 and words[there + 4 : there + 8] == b"\1\0\3\0":
            struct.pack_into("<I", words, at + 4, 8_000_000 << 3)
            return bytes(words)
    return None


def call_with_millions_of_capabilities(question: int) -> bytes:
    """Return a call of hello, on what question 0 will answer, that says it has eight million capabilities."""
    message = rpc.Message.new_message()
    call = message.init("call")
    call.questionId, call.interfaceId = question, schema.vat.Vat.schema.node.id
    call.target.init("promisedAnswer").questionId = 0
    call.params.init("capTable", 1)
    words = bytearray(message.to_bytes())
    # The pointer to a list of one element, two words long; and after it one of eight million of none.
    struct.pack_into("<I", words, words.index(struct.pack("<I", 2 << 3 | 7)), 8_000_000 << 3)
    return bytes(words)


class Mutator:
    """Makes bad frames of good ones, or of nothing, from a seed."""

    def __init__(self, seed: int, good: list[bytes]) -> None:
        self._rng = random.Random(seed)
        self._good = good

    def frame(self, near: bytes) -> bytes:
        """Return something like the good frame near, or nothing like it."""
        ways = (
            self._flip, self._flip, self._cut, self._repeat, self._lengths, self._segments, self._pointer,
            self._pointer, self._type, self._splice, self._numbers, self._numbers, self._garbage, self._made,
            self._made, self._made, self._made,
        )  # fmt: skip
        frame = self._rng.choice(ways)(near)
        return self._flip(frame) if self._rng.random() < 0.1 else frame

    def _number(self) -> int:
        rng = self._rng
        # Mostly small ones: those are known to the other side, now or soon, and lead further in.
        return rng.choice(
            (rng.choice(EDGES), rng.randrange(3), rng.randrange(8), rng.randrange(64), rng.getrandbits(32))
        )

    def _flip(self, near: bytes) -> bytes:
        data = bytearray(near)
        for _ in range(self._rng.choice((1, 1, 2, 8))):
            bit = self._rng.randrange(8 * len(data))
            data[bit // 8] ^= 1 << bit % 8
        return bytes(data)

    def _cut(self, near: bytes) -> bytes:
        return near[: self._rng.randrange(1, len(near))]

    def _repeat(self, near: bytes) -> bytes:
        return near * self._rng.choice((2, 3, 50))

    def _lengths(self, near: bytes) -> bytes:
        return near[:4] + struct.pack("<I", self._number()) + near[8:]

    def _segments(self, near: bytes) -> bytes:
        count = self._rng.choice((self._number(), self._rng.randrange(600)))
        if self._rng.random() < 0.5:
            return struct.pack("<I", count) + near[4:]
        # As many as it says, most of them empty, and the padding that makes it whole words.
        sizes = [(len(near) - 8) // 8] + [0] * min(count, 2000)
        table = struct.pack(f"<I{len(sizes)}I", len(sizes) - 1, *sizes)
        return table + bytes(-len(table) % 8) + near[8:]

    def _pointer(self, near: bytes) -> bytes:
        data = bytearray(near)
        for _ in range(self._rng.choice((1, 2, 4))):
            word = self._rng.choice((self._rng.choice(POINTERS), self._rng.getrandbits(64)))
            struct.pack_into("<Q", data, self._rng.randrange(1, len(data) // 8) * 8, word)
        return bytes(data)

    def _type(self, near: bytes) -> bytes:
        return (
            near[:16]
            + struct.pack("<H", self._rng.choice((self._rng.randrange(16), self._number() & 0xFFFF)))
            + near[18:]
        )

    def _splice(self, near: bytes) -> bytes:
        other = self._rng.choice(self._good)
        at = self._rng.randrange(len(near) // 8) * 8
        return near[:at] + other[at:] or other

    def _numbers(self, near: bytes) -> bytes:
        data = bytearray(near)
        struct.pack_into("<I", data, self._rng.randrange(2, len(data) // 4) * 4, self._number())
        return bytes(data)

    def _garbage(self, near: bytes) -> bytes:
        return self._rng.randbytes(self._rng.choice((1, 8, 64, 4096, 70_000)))

    # Messages that can be read, and mean something odd.

    def _made(self, near: bytes) -> bytes:
        made = self._rng.choice(
            (
                self._call,
                self._call,
                self._return,
                self._finish,
                self._resolve,
                self._release,
                self._disembargo,
                self._odd,
            )
        )
        message = rpc.Message.new_message()
        made(message)
        return _nested(bytes(message.to_bytes()))

    def _target(self, target: Any) -> None:
        if self._rng.random() < 0.5:
            target.importedCap = self._number()
            return
        answer = target.init("promisedAnswer")
        answer.questionId = self._number()
        self._transform(answer)

    def _transform(self, answer: Any) -> None:
        steps = self._rng.choice((0, 1, 2, 3, 1000))
        for step in answer.init("transform", steps):
            if self._rng.random() < 0.8:
                step.getPointerField = self._number() & 0xFFFF if self._rng.random() < 0.3 else self._rng.randrange(4)

    def _payload(self, payload: Any) -> None:
        depth = self._rng.choice((0, 0, 1, 31, 2000, 100_000))
        if depth:
            payload.content = _DEEPER * depth
        for descriptor in payload.init("capTable", self._rng.choice((0, 1, 2, 5, 5_000, 20_000))):
            self._descriptor(descriptor)

    def _descriptor(self, descriptor: Any) -> None:
        kind = self._rng.randrange(6)
        if kind == 1:
            descriptor.senderHosted = self._number()
        elif kind == 2:
            descriptor.senderPromise = self._number()
        elif kind == 3:
            descriptor.receiverHosted = self._number()
        elif kind == 4:
            answer = descriptor.init("receiverAnswer")
            answer.questionId = self._number()
        elif kind == 5:
            descriptor.init("thirdPartyHosted").vineId = self._number()

    def _call(self, message: Any) -> None:
        call = message.init("call")
        call.questionId = self._number()
        self._target(call.target)
        known = [good for good in self._good if kind_of(good) == "call"]
        with rpc.Message.from_bytes(self._rng.choice(known)) as good:
            call.interfaceId = good.call.interfaceId if self._rng.random() < 0.9 else self._rng.getrandbits(64)
        call.methodId = self._rng.choice((self._rng.randrange(3), self._number() & 0xFFFF))
        call.allowThirdPartyTailCall = self._rng.random() < 0.2
        if self._rng.random() < 0.2:
            call.sendResultsTo.yourself = None
        self._payload(call.params)

    def _return(self, message: Any) -> None:
        answer = message.init("return")
        answer.answerId = self._number()
        answer.releaseParamCaps = self._rng.random() < 0.5
        kind = self._rng.randrange(6)
        if kind == 0:
            self._payload(answer.init("results"))
        elif kind == 1:
            answer.init("exception").reason = "ww:usage: \n/etc/passwd"
        elif kind == 2:
            answer.canceled = None
        elif kind == 3:
            answer.resultsSentElsewhere = None
        elif kind == 4:
            answer.takeFromOtherQuestion = self._number()

    def _finish(self, message: Any) -> None:
        finish = message.init("finish")
        finish.questionId, finish.releaseResultCaps = self._number(), self._rng.random() < 0.5

    def _resolve(self, message: Any) -> None:
        resolve = message.init("resolve")
        resolve.promiseId = self._number()
        if self._rng.random() < 0.8:
            self._descriptor(resolve.init("cap"))
        else:
            resolve.init("exception").reason = "no"

    def _release(self, message: Any) -> None:
        release = message.init("release")
        release.id, release.referenceCount = self._number(), self._number()

    def _disembargo(self, message: Any) -> None:
        disembargo = message.init("disembargo")
        self._target(disembargo.target)
        kind = self._rng.randrange(4)
        if kind == 0:
            disembargo.context.senderLoopback = self._number()
        elif kind == 1:
            disembargo.context.receiverLoopback = self._number()
        elif kind == 2:
            disembargo.context.accept = None

    def _odd(self, message: Any) -> None:
        kind = self._rng.choice(("abort", "unimplemented", "bootstrap", "join", "provide", "accept"))
        if kind == "bootstrap":
            message.init("bootstrap").questionId = self._number()
        elif kind == "unimplemented":
            self._rng.choice((self._resolve, self._call, self._return, self._release))(message.init("unimplemented"))
        else:
            message.init(kind)
