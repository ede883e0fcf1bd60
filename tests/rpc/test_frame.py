"""Which messages are refused before pycapnp sees them, however they come in."""

import struct
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.rpc.frames import rpc
from ww.errors import PeerError
from ww.rpc.frame import WORDS_MAX, Guard

MILLIONS = 8_000_000


def made(fill: Callable[[Any], object]) -> bytes:
    message = rpc.Message.new_message()
    fill(message)
    return bytes(message.to_bytes())


def with_capabilities(payload: Any, count: int = 3) -> None:
    payload.content = "some text"
    for number, descriptor in enumerate(payload.init("capTable", count)):
        descriptor.senderHosted = number


def with_steps(answer: Any, count: int = 3) -> None:
    for step in answer.init("transform", count):
        step.getPointerField = 1


def answered_capability(descriptor: Any) -> None:
    with_steps(descriptor.init("receiverAnswer"))


def call_with_answer(message: Any) -> None:
    message.init("call").target.importedCap = 1
    answered_capability(message.call.params.init("capTable", 2)[1])


LISTS: dict[str, Callable[[Any], object]] = {
    "capabilities of a call": lambda message: with_capabilities(message.init("call").params),
    "capabilities of a return": lambda message: with_capabilities(message.init("return").init("results")),
    "steps to a call's target": lambda message: with_steps(message.init("call").target.init("promisedAnswer")),
    "steps to a disembargo's target": lambda message: with_steps(
        message.init("disembargo").target.init("promisedAnswer")
    ),
    "steps to a resolved capability": lambda message: answered_capability(message.init("resolve").init("cap")),
    "steps to a call's capability": call_with_answer,
}


def lists_of(frame: bytes) -> list[int]:
    """Return where the pointers are, in a frame of one segment, to lists of structs."""
    found = []
    for at in range(8, len(frame) - 8, 8):
        offset, kind = struct.unpack_from("<iI", frame, at)
        there = at + 8 + (offset >> 2) * 8
        if offset & 3 == 1 and kind & 7 == 7 and there + 8 <= len(frame) and kind >> 3:
            found.append(at)
    return found


def without_size(frame: bytes, at: int) -> bytes:
    """Make of a list of structs one of very many that have no size, by its pointer."""
    words = bytearray(frame)
    struct.pack_into("<I", words, at + 4, MILLIONS << 3)
    return bytes(words)


def tagged_without_size(frame: bytes, at: int) -> bytes:
    """Make of a list of structs one of very many that have no size, by the tag before its elements."""
    words = bytearray(frame)
    offset = struct.unpack_from("<i", frame, at)[0] >> 2
    struct.pack_into("<Q", words, at + 8 + offset * 8, MILLIONS << 2)
    return bytes(words)


def in_two_segments(frame: bytes, at: int) -> bytes:
    """Move the list to a segment of its own, to which a far pointer leads."""
    offset, kind = struct.unpack_from("<iI", frame, at)
    there = at + 8 + (offset >> 2) * 8
    first = bytearray(frame[8:])
    struct.pack_into("<II", first, at - 8, 2, 1)
    second = struct.pack("<II", 1, kind) + frame[there:]
    return struct.pack("<IIII", 1, len(first) // 8, len(second) // 8, 0) + first + second


def take_in_pieces(data: bytes, step: int) -> None:
    guard = Guard()
    for start in range(0, len(data), step):
        guard.take(data[start : start + step])


@pytest.mark.parametrize("step", [1, 7, 8, 24, 1 << 20])
@pytest.mark.parametrize("move", [lambda frame, at: frame, in_two_segments], ids=["one segment", "two segments"])
@pytest.mark.parametrize("spoil", [without_size, tagged_without_size], ids=["by pointer", "by tag"])
@pytest.mark.parametrize("kind", LISTS)
def test_very_many_elements_without_size_are_refused(kind: str, spoil: Any, move: Any, step: int) -> None:
    good = made(LISTS[kind])
    at = lists_of(good)[-1]
    take_in_pieces(move(good, at) * 3, step)
    bad = move(spoil(good, at), at)
    with pytest.raises(PeerError, match="8000000 capabilities, or steps to one"):
        take_in_pieces(move(good, at) + bad, step)


def usual_call(capabilities: int = 0, steps: int = 0) -> bytes:
    """Lay out a call as the C++ library does, with those pointers to its capabilities and the steps to its target."""
    target = (0x0001_0001_0000_0010, 0x0002_0000_0000_0004, 0)
    answer = 0x0001_0001_0000_0000 if steps else 0
    call = (1, 0xC54B59CBDEBB62D3, 0, *target, 0, capabilities, 1, answer, 0, steps)
    return struct.pack("<II15Q", 0, 15, 0x0001_0001_0000_0000, 2, 0x0003_0003_0000_0000, *call)


def usual_return(capabilities: int = 0) -> bytes:
    words = (0x0001_0001_0000_0000, 3, 0x0001_0002_0000_0000, 1, 0, 0x0002_0000_0000_0000, 0, capabilities)
    return struct.pack("<II8Q", 0, 8, *words)


@pytest.mark.parametrize("after", [b"", usual_call()], ids=["the last of what came", "more came"])
@pytest.mark.parametrize("make", [usual_call, usual_return, lambda pointer: usual_call(steps=pointer)])
def test_what_is_laid_out_as_usual_is_refused_too(make: Callable[[int], bytes], after: bytes) -> None:
    with pytest.raises(PeerError):
        Guard().take(usual_call() + make(1 | MILLIONS << 35) + after)


def test_what_is_laid_out_as_usual_takes_no_second_look(monkeypatch: pytest.MonkeyPatch) -> None:
    def look_again(pieces: Any) -> None:
        raise AssertionError("this takes ten times as long")

    monkeypatch.setattr("ww.rpc.frame._check", look_again)
    finish = made(lambda message: message.init("finish"))
    for last in (usual_call(), usual_return(), finish):
        Guard().take(usual_call() + usual_return() + finish + last)


def test_a_message_is_refused_before_its_last_byte_is_taken_and_not_earlier() -> None:
    good = made(LISTS["capabilities of a call"])
    bad = without_size(good, lists_of(good)[-1])
    guard = Guard()
    guard.take(good + bad[:-1])
    with pytest.raises(PeerError):
        guard.take(bad[-1:])


def test_more_capabilities_than_a_message_may_hold_are_refused() -> None:
    take_in_pieces(made(lambda message: with_capabilities(message.init("call").params, 16_384)), 1 << 16)
    with pytest.raises(PeerError, match="16385 capabilities"):
        take_in_pieces(made(lambda message: with_capabilities(message.init("call").params, 16_385)), 1 << 16)


@pytest.mark.parametrize("segments", [513, 1 << 20, (1 << 32) - 1, 1 << 32])
def test_more_segments_than_are_read_are_refused_at_once(segments: int) -> None:
    take_in_pieces(struct.pack("<512I", 511, *[0] * 511) + bytes(8), 64)
    with pytest.raises(PeerError, match="at most 512 are read"):
        Guard().take(struct.pack("<I", segments - 1))


def test_a_message_that_is_too_long_is_refused_by_its_table() -> None:
    Guard().take(struct.pack("<II", 0, WORDS_MAX))
    for sizes in ((WORDS_MAX + 1,), (0xFFFFFFFF,), (WORDS_MAX, 1, 0)):
        with pytest.raises(PeerError, match="at most 67108864 are read"):
            Guard().take(struct.pack(f"<{len(sizes) + 1}I", len(sizes) - 1, *sizes))


@given(st.lists(st.binary(max_size=200)), st.integers(1, 300))
def test_what_is_no_message_is_left_to_pycapnp(said: list[bytes], step: int) -> None:
    framed = b"".join(struct.pack("<II", 0, len(data) // 8) + data[: len(data) // 8 * 8] for data in said)
    take_in_pieces(framed, step)


@given(st.lists(st.sampled_from(sorted(LISTS)), max_size=8), st.integers(1, 400))
def test_good_messages_pass_however_they_come(kinds: list[str], step: int) -> None:
    take_in_pieces(b"".join(made(LISTS[kind]) for kind in kinds), step)
