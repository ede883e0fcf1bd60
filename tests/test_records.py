"""Records of inputs: what is written is read, and what a stranger writes is a ValueError or a record."""

import struct
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ww.records import NOTHING, Input, name_of, read_input, read_outcomes, spans, write_input

TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=20)
INPUTS = st.builds(
    Input,
    arguments=st.none() | st.lists(st.integers(-(2**63), 2**63 - 1), max_size=12).map(tuple),
    args=st.none() | st.lists(TEXT, max_size=5),
    env=st.none() | st.lists(st.tuples(TEXT, TEXT), max_size=5),
    stdin=st.none() | st.binary(max_size=50),
    files=st.none() | st.binary(max_size=50),
    seed=st.none() | st.integers(0, 2**64 - 1),
    name=TEXT,
)


def name_in(record: bytes) -> str:
    return name_of(lambda at, length: record[at : at + length], 4, len(record))


@given(INPUTS)
@example(Input())
def test_what_is_written_is_read(written: Input) -> None:
    record = write_input(written)
    assert read_input(record) == written
    assert name_in(record) == written.name
    assert list(spans(record + record)) == [(4, len(record)), (len(record) + 4, 2 * len(record))]


def test_a_run_that_differs_in_nothing_is_five_bytes() -> None:
    assert write_input(Input()) == NOTHING
    assert read_input(NOTHING) == Input()


@given(INPUTS, st.data())
def test_a_record_that_is_changed_is_a_record_or_a_value_error(written: Input, data: Any) -> None:
    record = bytearray(write_input(written))
    at = data.draw(st.integers(0, len(record) - 1))
    record[at : at + data.draw(st.integers(0, 4))] = data.draw(st.binary(max_size=6))
    for read in (read_input, name_in, lambda changed: list(spans(changed)), read_outcomes):
        try:
            read(bytes(record))
        except ValueError:
            continue


@given(st.binary(max_size=200))
@example(struct.pack("<I", 0xFFFFFFFF))
@example(struct.pack("<IBH", 3, 1, 0xFFFF))
def test_any_bytes_are_records_or_a_value_error(data: bytes) -> None:
    for read in (read_input, name_in, lambda some: list(spans(some)), read_outcomes):
        try:
            read(data)
        except ValueError:
            continue


@pytest.mark.parametrize("cut", range(1, 30))
def test_what_is_cut_off_is_no_record(cut: int) -> None:
    record = write_input(Input((1, 2), ["a"], [("K", "v")], b"in", b"zip", 7, "name"))
    with pytest.raises(ValueError):  # noqa: PT011 each says something else
        read_input(record[:-cut])
    with pytest.raises(ValueError):  # noqa: PT011
        name_in(record[:-cut])
