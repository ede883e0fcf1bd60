"""Reading messages that a stranger wrote."""

import struct
import tracemalloc
from typing import Any

import pytest

from ww import schema
from ww.errors import UsageError
from ww.rpc.message import listed

MANY = 8_000_000


def message_with_many() -> bytes:
    """Return a WorkerInfo of a hundred bytes that says, in a pointer, that it has eight million labels of no size."""
    frame = bytearray(schema.worker.WorkerInfo.new_message(labels=[{}]).to_bytes())
    for at in range(16, len(frame), 8):
        offset, kind = struct.unpack_from("<iI", frame, at)
        if offset & 3 == 1 and kind & 7 == 7:
            struct.pack_into("<I", frame, at + 4, MANY << 3)
            return bytes(frame)
    raise AssertionError("no list to change")


def labels(frame: bytes) -> Any:
    with schema.worker.WorkerInfo.from_bytes(frame) as info:
        return info.labels


def test_a_list_of_more_than_are_taken_is_refused_before_it_is_read() -> None:
    many = labels(message_with_many())
    assert len(many) == MANY
    tracemalloc.start()
    try:
        with pytest.raises(UsageError, match="labels: 8000000 are given, at most 16 are taken"):
            listed("labels", many, 16)
        assert tracemalloc.get_traced_memory()[1] < 100_000
    finally:
        tracemalloc.stop()


def test_a_list_of_as_many_as_are_taken_is_given() -> None:
    three = [{"key": f"k{number}", "value": "v"} for number in range(3)]
    frame = schema.worker.WorkerInfo.new_message(labels=three).to_bytes()
    assert [label.key for label in listed("labels", labels(frame), 3)] == ["k0", "k1", "k2"]
    with pytest.raises(UsageError):
        listed("labels", labels(frame), 2)
