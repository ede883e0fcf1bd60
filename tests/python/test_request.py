import contextlib
import pickle
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ww.python.request import (
    REQUESTS_MAX,
    Answer,
    AnswerKind,
    ended,
    read_answers,
    read_calls,
    read_ended,
    read_requests,
    write_answers,
    write_call,
    write_calls,
    write_requests,
)


class Table:
    def __init__(self, data: bytearray) -> None:
        self.data = data

    def __reduce_ex__(self, protocol: Any) -> Any:
        return Table, (pickle.PickleBuffer(self.data),)


def test_one_call_and_several_come_back() -> None:
    one = read_calls(write_call([1, "a"], {"b": 2}))
    assert (one.calls, one.are_several, one.trust) == ([((1, "a"), {"b": 2})], False, False)
    several = read_calls(write_calls([((1,), {}), ((2,), {"c": 3})], trust=True))
    assert (several.calls, several.are_several, several.trust) == ([((1,), {}), ((2,), {"c": 3})], True, True)


def test_buffers_go_beside_the_pickle_and_can_be_written_to() -> None:
    request = write_call((Table(bytearray(b"abc")), Table(bytearray(b""))), {})
    first, second = read_calls(request).calls[0][0]
    first.data[0] = ord("x")
    assert (bytes(first.data), bytes(second.data)) == (b"xbc", b"")


def test_a_pickler_of_its_own_is_used_for_both_sides() -> None:
    class Writer(pickle.Pickler):
        def persistent_id(self, value: object) -> object:
            return "print" if value is print else None

    class Reader(pickle.Unpickler):
        def persistent_load(self, pid: object) -> object:
            return f"<{pid}>"

    assert read_calls(write_call((print,), {}, pickler=Writer), Reader).calls == [(("<print>",), {})]


@given(st.binary(max_size=60) | st.builds(lambda head, rest: b"\1" + head + rest, st.binary(max_size=13), st.binary()))
def test_whatever_bytes_are_no_request_raise(data: bytes) -> None:
    with pytest.raises(Exception):  # noqa: B017, PT011 - what pickle says is its own
        read_calls(data)


def test_a_request_that_ends_early_or_goes_on_is_refused() -> None:
    request = write_call((Table(bytearray(b"abcdef")),), {})
    for wrong in (request[:-1], request + b"x", b"\2" + request[1:], request[:5]):
        with pytest.raises(ValueError, match="a request"):
            read_calls(wrong)


@given(st.lists(st.binary(), min_size=1))
def test_requests_of_a_ticket_come_back(requests: list[bytes]) -> None:
    assert read_requests(write_requests(requests)) == requests


@given(st.lists(st.builds(Answer, st.sampled_from(AnswerKind), st.binary())))
def test_answers_of_a_ticket_come_back(answers: list[Answer]) -> None:
    assert read_answers(write_answers(answers)) == answers


@given(st.binary())
def test_whatever_bytes_are_requests_or_a_value_error(data: bytes) -> None:
    for read in (read_requests, read_answers):
        with contextlib.suppress(ValueError):
            read(data)


def test_tickets_are_bounded() -> None:
    with pytest.raises(ValueError, match=f"expected 1 to {REQUESTS_MAX}"):
        write_requests([b""] * (REQUESTS_MAX + 1))
    with pytest.raises(ValueError, match="expected 1 to"):
        write_requests([])
    with pytest.raises(ValueError, match="expected at most"):
        write_requests([bytes(40 << 20)] * 2)
    with pytest.raises(ValueError, match="expected 1 to"):
        read_requests((10**6).to_bytes(4, "little"))
    with pytest.raises(ValueError, match="end before"):
        read_answers((5).to_bytes(4, "little"))


def test_why_a_call_ended_comes_back() -> None:
    answer = ended("deadline", "too\nlong" * 100)
    assert answer.kind is AnswerKind.ENDED
    reason, detail = read_ended(answer.body)
    assert reason == "deadline"
    assert len(detail) == 200
    for wrong in (b"[]", b"x", b"\xff"):
        with pytest.raises(ValueError, match=r"."):
            read_ended(wrong)
