"""Numbers of guests: each type takes what it can hold, and nothing is changed on the way."""

import math
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ww.gateway.number import from_bits, to_bits


def bits_of(value: float) -> int:
    return int(struct.unpack("<q", struct.pack("<d", value))[0])


@pytest.mark.parametrize(
    ("kind", "text", "expected"),
    [
        ("i32", "0", 0),
        ("i32", "-2147483648", -(2**31)),
        ("i32", "2147483647", 2**31 - 1),
        ("i32", "2147483648", -(2**31)),
        ("i32", "4294967295", -1),
        ("i64", "-9223372036854775808", -(2**63)),
        ("i64", "9223372036854775808", -(2**63)),
        ("i64", "18446744073709551615", -1),
        ("i64", "007", 7),
        ("f64", "0.1", bits_of(0.1)),
        ("f64", "-0", bits_of(-0.0)),
        ("f64", ".5", bits_of(0.5)),
        ("f64", "5.", bits_of(5.0)),
        ("f64", "+1e308", bits_of(1e308)),
        ("f64", "1E-400", 0),
        ("f64", "inf", bits_of(math.inf)),
        ("f64", "-Infinity", bits_of(-math.inf)),
        ("f32", "0.1", bits_of(0.10000000149011612)),
        ("f32", "3.4028235e38", bits_of(3.4028234663852886e38)),
        ("f32", "-inf", bits_of(-math.inf)),
        ("f32", "NaN", bits_of(math.nan)),
    ],
)
def test_a_number_that_fits_is_read(kind: str, text: str, expected: int) -> None:
    assert to_bits(kind, text) == expected


@pytest.mark.parametrize(
    ("kind", "texts"),
    [
        ("i32", ["-2147483649", "4294967296"]),
        ("i64", ["-9223372036854775809", "18446744073709551616", "9" * 5000]),
        ("f32", ["3.5e38", "1e39", "-1e300"]),
        ("f64", ["1e309", "-1e999", "9" * 400]),
    ],
)
def test_a_number_that_does_not_fit_is_none(kind: str, texts: list[str]) -> None:
    assert [to_bits(kind, text) for text in texts] == [None] * len(texts)


@pytest.mark.parametrize("kind", ["i32", "i64", "f32", "f64"])
@pytest.mark.parametrize(
    "text", ["", " 1", "1 ", "1_0", "0x10", "\u0663", "one", "1,5", "--1", "1e", "e5", ".", "1\n", "nan(1)"]
)
def test_what_is_no_number_is_none(kind: str, text: str) -> None:
    assert to_bits(kind, text) is None


def test_whole_numbers_have_no_point() -> None:
    assert [to_bits(kind, text) for kind in ("i32", "i64") for text in ("1.0", "1e3", "+1", "nan", "inf")] == [
        None
    ] * 10


@given(st.integers(-(2**63), 2**63 - 1))
def test_whole_numbers_come_back_as_they_went(value: int) -> None:
    assert from_bits(value, is_float=False) == str(value)
    assert to_bits("i64", str(value)) == value


@given(st.floats(allow_nan=False))
def test_floats_come_back_as_they_went(value: float) -> None:
    text = from_bits(bits_of(value), is_float=True)
    assert to_bits("f64", text) == bits_of(value)


@given(st.floats(allow_nan=False, width=32))
def test_floats_of_32_bits_come_back_as_they_went(value: float) -> None:
    assert to_bits("f32", from_bits(bits_of(value), is_float=True)) == bits_of(value)


def test_what_is_not_finite_is_text() -> None:
    assert [from_bits(bits_of(value), is_float=True) for value in (math.inf, -math.inf, math.nan, -math.nan)] == [
        "Infinity",
        "-Infinity",
        "NaN",
        "NaN",
    ]
    assert from_bits(bits_of(1e22), is_float=True) == "1e+22"


@given(st.sampled_from(["i32", "i64", "f32", "f64"]), st.text(max_size=40))
def test_no_text_gets_an_error_out_of_it(kind: str, text: str) -> None:
    bits = to_bits(kind, text)
    assert bits is None or -(2**63) <= bits < 2**63
