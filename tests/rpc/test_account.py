"""What a peer has outstanding is counted from its bytes, however they are cut, and is limited."""

import random
from pathlib import Path
from typing import Any

import capnp
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ww.errors import Overloaded
from ww.rpc.account import Account, Meter, PeerLimits

RPC: Any = capnp.load(
    str(Path(capnp.__file__).parent / "rpc.capnp"), imports=[str(Path(capnp.__file__).resolve().parent.parent)]
)


def call_of(question: int, size: int = 0) -> bytes:
    message = RPC.Message.new_message()
    call = message.init("call")
    call.questionId, call.interfaceId = question, 2**64 - 1
    call.target.importedCap = 3
    call.params.content = bytes(size).decode()
    return bytes(message.to_bytes())


def finish_of(question: int) -> bytes:
    message = RPC.Message.new_message()
    message.init("finish").questionId = question
    return bytes(message.to_bytes())


def bootstrap_of(question: int) -> bytes:
    message = RPC.Message.new_message()
    message.init("bootstrap").questionId = question
    return bytes(message.to_bytes())


def release_of(number: int) -> bytes:
    message = RPC.Message.new_message()
    message.init("release").id = number
    return bytes(message.to_bytes())


def metered(**limits: int) -> tuple[Account, Meter]:
    account = Account(PeerLimits(**limits))
    return account, Meter(account)


def read_in_pieces(meter: Meter, stream: bytes, size: int) -> None:
    for start in range(0, len(stream), size):
        meter.read(stream[start : start + size])


conversations = st.lists(
    st.one_of(
        st.tuples(st.just(call_of), st.integers(0, 20), st.integers(0, 3000)),
        st.tuples(st.sampled_from([finish_of, bootstrap_of, release_of]), st.integers(0, 20)),
    ),
    max_size=40,
)


@given(conversations, st.data())
def test_calls_are_counted_however_their_bytes_are_cut(said: list[Any], data: st.DataObject) -> None:
    account, meter = metered()
    expected: dict[int, int] = {}
    stream = b""
    for make, question, *size in said:
        message = make(question, *size)
        stream += message
        if make in (call_of, bootstrap_of):
            expected[question] = len(message)
        elif make is finish_of:
            expected.pop(question, None)
    rng = random.Random(data.draw(st.integers(0, 1000)))
    while stream:
        step = rng.choice([1, 3, 8, 40, 100, 5000])
        meter.read(stream[:step])
        stream = stream[step:]
    assert (account.calls, account.bytes) == (len(expected), sum(expected.values()))
    meter.close()
    assert (account.calls, account.bytes) == (0, 0)


@pytest.mark.parametrize("size", [1, 7, 64, 4096])
def test_too_many_calls_are_refused(size: int) -> None:
    account, meter = metered(calls_max=10)
    stream = b"".join(call_of(number) for number in range(11))
    with pytest.raises(Overloaded, match="10 calls"):
        read_in_pieces(meter, stream, size)
    assert account.calls == 11


def test_too_many_bytes_are_refused() -> None:
    _, meter = metered(bytes_max=10_000)
    meter.read(call_of(1, 4000) + call_of(2, 4000) + finish_of(1) + call_of(3, 4000))
    with pytest.raises(Overloaded, match="10000 bytes"):
        meter.read(call_of(4, 4000))


def test_the_connections_of_a_peer_share_its_account() -> None:
    account, one = metered(calls_max=3)
    other = Meter(account)
    one.read(call_of(1) + call_of(2))
    other.read(call_of(1))
    with pytest.raises(Overloaded):
        other.read(call_of(2))
    one.close()
    assert account.calls == 2


@given(st.lists(st.binary(max_size=200), max_size=20))
def test_any_bytes_are_read_to_the_end_or_refused(chunks: list[bytes]) -> None:
    account, meter = metered(calls_max=5)
    try:
        for chunk in chunks:
            meter.read(chunk)
    except Overloaded:
        pass
    meter.close()
    assert (account.calls, account.bytes) == (0, 0)


def moved(message: bytes, what: str) -> bytes:
    """Lay a message out so that pycapnp reads question 0 where its bytes have another."""
    data = bytearray(message)
    root = 8
    pointer = root + 8 + 8 * int.from_bytes(data[root + 4 : root + 6], "little")
    if what == "no data":
        data[pointer + 4 : pointer + 6] = b"\0\0"
    elif what == "no pointers":
        data[root + 6 : root + 8] = b"\0\0"
    elif what == "far":
        data[pointer] = 2
    elif what == "back":
        data[pointer : pointer + 4] = b"\xfc\xff\xff\xff"
    else:
        data[pointer : pointer + 8] = bytes(8)
    return bytes(data)


@pytest.mark.parametrize("what", ["no data", "no pointers", "far", "back", "null"])
@pytest.mark.parametrize("message", [call_of(7), finish_of(7), bootstrap_of(7)], ids=["call", "finish", "bootstrap"])
def test_what_hides_its_question_is_refused(message: bytes, what: str) -> None:
    _, meter = metered()
    meter.read(message)
    with pytest.raises(Overloaded, match="as no node does"):
        meter.read(moved(message, what))


def test_the_question_is_in_the_first_segment() -> None:
    _, meter = metered()
    message = finish_of(7)
    words = (len(message) - 8) // 8
    # The same words, of which the last is in a second segment.
    split = (1).to_bytes(4, "little") + (words - 1).to_bytes(4, "little") + (1).to_bytes(4, "little") + bytes(4)
    with pytest.raises(Overloaded, match="as no node does"):
        meter.read(split + message[8:])
