import contextlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ww.python.failure import TEXT_CHARS_MAX, TRACEBACK_CHARS_MAX, Failure, dumps_failure, loads_failure


def nothing(module: str, name: str) -> None:
    return None


def returned(error: BaseException, traceback: str = "Traceback\n") -> Failure:
    return loads_failure(dumps_failure(error, traceback), nothing)


class Odd(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")


def test_an_exception_comes_back_with_all_it_says() -> None:
    error = KeyError("a", (1, 2))
    error.add_note("look here")
    error.code = 3  # type: ignore[attr-defined]
    error.lock = object()  # type: ignore[attr-defined]
    error.__cause__ = ValueError("before")
    found = returned(error, "Traceback (most recent call last):\n")
    assert (found.type_module, found.type_name, found.args) == ("builtins", "KeyError", ("a", (1, 2)))
    assert found.attributes == {"code": 3}
    assert found.notes == ("look here",)
    assert found.traceback.startswith("Traceback")
    assert found.cause is not None
    assert found.cause.line == "ValueError: before"


def test_arguments_that_cannot_be_sent_are_left_out_and_the_text_stays() -> None:
    found = returned(ValueError("a", object()))
    assert found.args is None
    assert found.text.startswith("('a', <object object")


def test_an_exception_that_cannot_be_printed_is_sent_too() -> None:
    found = returned(Odd())
    assert found.type_name == "Odd"
    assert "RuntimeError" in found.text


def test_groups_bring_their_parts() -> None:
    found = returned(ExceptionGroup("two", [ValueError(1), ExceptionGroup("inner", [KeyError(2)])]))
    assert found.args == ("two",)
    assert [part.type_name for part in found.parts] == ["ValueError", "ExceptionGroup"]
    assert found.parts[1].parts[0].args == (2,)


def test_size_is_bounded() -> None:
    error = ExceptionGroup("x" * 100_000, [ValueError("y" * 100_000)] * 1000)
    error.__cause__ = ValueError("z" * 1_000_000)
    text = dumps_failure(error, "t" * 10_000_000)
    assert len(text) < 64 * (3 * TEXT_CHARS_MAX + 200_000) + TRACEBACK_CHARS_MAX
    found = loads_failure(text, nothing)
    assert "[... cut ...]" in found.traceback
    assert len(found.traceback) <= TRACEBACK_CHARS_MAX


def test_a_chain_that_is_a_ring_ends() -> None:
    error = ValueError(1)
    other = KeyError(2)
    error.__cause__, other.__cause__ = other, error
    assert returned(error).cause is not None


FAILURES = st.recursive(
    st.none() | st.integers() | st.text(max_size=4) | st.lists(st.text(max_size=3), max_size=3),
    lambda inner: st.fixed_dictionaries(
        {"module": inner, "name": inner, "text": inner},
        optional=dict.fromkeys(("traceback", "args", "attributes", "notes", "cause", "parts"), inner),
    ),
    max_leaves=20,
)


@given(FAILURES)
def test_whatever_json_says_is_a_failure_or_a_value_error(found: Any) -> None:
    with contextlib.suppress(ValueError):
        assert loads_failure(json.dumps(found), nothing).line


def test_arguments_that_cannot_be_read_are_left_out() -> None:
    text = json.dumps({"module": "m", "name": "n", "text": "t", "args": '{"":["enum","os:x","y"]}'})
    found = loads_failure(text, nothing)
    assert found.args is None
    assert found.line == "m.n: t"
    with pytest.raises(ValueError, match="a failure is none"):
        loads_failure("[]", nothing)
