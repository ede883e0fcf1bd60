"""What a submission may say, and the one clear error when it says something else."""

import contextlib
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ww.errors import UsageError
from ww.gateway.request import RequestLimits, read_fields, uuid7

LIMITS = RequestLimits()


def read(*fields: tuple[str, str], stdin: bytes = b"", has_wasm: bool = True) -> dict[str, object]:
    submission = read_fields(fields, stdin, has_wasm, LIMITS)
    spec = submission.spec("0" * 64, submission.entry or "run")
    return {name: getattr(spec, name) for name in spec.__slots__}


def test_the_readme_form_is_read_as_it_is_meant() -> None:
    fields = [("id", "task1"), ("description", "Hash puzzle"), ("complete", "0"), ("duration", "5"), ("start", "1")]
    fields += [("delay", "2"), ("repeats", "3"), ("input", "0"), ("difficulty", "3")]
    got = read(*fields)
    assert got["id"] == "task1"
    assert (got["duration_s"], got["start_s"], got["delay_s"], got["repeats"]) == (5.0, 1.0, 2.0, 3)
    assert (got["input"], got["difficulty"]) == (0, 3)


def test_what_is_not_said_is_filled_in() -> None:
    got = read()
    assert str(got["id"]).count("-") == 4
    assert got["repeats"] == 1
    assert got["duration_s"] == LIMITS.duration_default_s
    assert read(("duration", "0"))["duration_s"] == LIMITS.duration_default_s
    assert got["memory_bytes"] == LIMITS.memory_default_bytes


def test_args_and_env_repeat_and_keep_their_order() -> None:
    got = read(("args", "b"), ("args", "a"), ("env", "K=v=w"), ("env", "EMPTY="))
    assert got["args"] == ("b", "a")
    assert got["env"] == (("K", "v=w"), ("EMPTY", ""))


BAD = [
    ("repeats", "-1"), ("repeats", "0"), ("repeats", "three"), ("repeats", "1.5"), ("repeats", ""), ("repeats", " 1"),
    ("repeats", "1_000"), ("repeats", "\u0663"), ("repeats", "99999999999999999999999"), ("repeats", "1000001"),
    ("delay", "-1"), ("delay", "nan"), ("delay", "inf"), ("delay", "1e3"), ("delay", "soon"), ("delay", ""),
    ("start", "-0.5"), ("start", "0x10"), ("start", "9999999999"), ("duration", "-5"), ("duration", "86401"),
    ("input", "-1"), ("input", "one"), ("difficulty", "-3"), ("difficulty", "3.0"), ("input", str(2**63)),
    ("complete", "-1"), ("memory", "0"), ("memory", str(1 << 40)), ("output", "-1"), ("id", ""), ("id", "a/b"),
    ("id", "x" * 129), ("id", "-a"), ("id", "a\nb"), ("entry", ""), ("entry", "e" * 201), ("env", "novalue"),
    ("env", "=x"), ("module", "sha256:00"), ("description", "a\0b"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "text"), BAD)
def test_a_bad_value_is_one_error_that_names_its_field(name: str, text: str) -> None:
    with pytest.raises(UsageError) as error:
        read((name, text), has_wasm=name != "module")
    assert error.value.field == name
    assert str(error.value).startswith(f"{name}: ")
    assert len(str(error.value)) < 250
    assert "\n" not in str(error.value)


def test_other_mistakes_are_named_too() -> None:
    with pytest.raises(UsageError, match="no such field; known are"):
        read(("colour", "1"))
    with pytest.raises(UsageError, match="given more than once"):
        read(("repeats", "1"), ("repeats", "2"))
    with pytest.raises(UsageError, match="wasm: missing"):
        read(has_wasm=False)
    with pytest.raises(UsageError, match="given beside wasm"):
        read(("module", "sha256:" + "0" * 64))
    with pytest.raises(UsageError, match="'K' is given more than once"):
        read(("env", "K=1"), ("env", "K=2"))
    with pytest.raises(UsageError, match="stdin: 1048577 bytes"):
        read(stdin=bytes((1 << 20) + 1))
    with pytest.raises(UsageError, match="the text fields together"):
        read(*[("args", "x" * 1000)] * 70)


def test_an_environment_value_never_shows_in_an_error() -> None:
    with pytest.raises(UsageError) as error:
        read(("env", "=secret"))
    assert "secret" not in str(error.value)


@given(st.lists(st.tuples(st.text(max_size=12), st.text(max_size=30)), max_size=6))
def test_no_fields_get_another_error_out_of_the_reader(fields: list[tuple[str, str]]) -> None:
    with contextlib.suppress(UsageError):
        read(*fields)


@given(st.floats(0, 1e9, allow_nan=False))
def test_any_time_written_plainly_is_read(value: float) -> None:
    assert math.isclose(float(str(read(("start", f"{value:.9f}"))["start_s"])), value, abs_tol=1e-6)


def test_made_ids_sort_by_time_and_say_their_version() -> None:
    first, second = uuid7(), uuid7()
    assert first.version == second.version == 7
    assert first.variant == "specified in RFC 4122"
    assert str(first)[:8] <= str(second)[:8]
