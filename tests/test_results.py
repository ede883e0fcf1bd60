"""Results as bytes: what is written is read back, and what a stranger wrote is refused as what it is."""

from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ww.results import STATES, ResultRecord, read_results, write_result

_SECONDS = st.floats(min_value=0, max_value=1e10)
_SIZES = st.integers(0, 2**64 - 1)
_RECORDS = st.builds(
    ResultRecord,
    run=st.integers(0, 2**32 - 1),
    position=st.integers(0, 2**63 - 1),
    state=st.sampled_from(STATES),
    result=st.none() | st.text(),
    exit_code=st.none() | st.integers(0, 2**32 - 1),
    stdout=st.binary(),
    stderr=st.binary(),
    stdout_truncated=st.booleans(),
    stderr_truncated=st.booleans(),
    reason=st.text(max_size=20),
    detail=st.text(),
    worker=st.text(max_size=60),
    attempts=st.integers(0, 2**32 - 1),
    queued_at=_SECONDS,
    started_at=st.none() | _SECONDS,
    finished_at=_SECONDS,
    wall_s=_SECONDS,
    cpu_s=_SECONDS,
    queue_s=_SECONDS,
    compile_s=_SECONDS,
    instantiate_s=_SECONDS,
    memory_bytes=_SIZES,
    memory_limit_bytes=_SIZES,
    fuel=st.none() | _SIZES,
    files_bytes=_SIZES,
    has_artifacts=st.booleans(),
    artifacts_bytes=_SIZES,
    name=st.text(),
)


@given(st.lists(_RECORDS, max_size=5))
def test_what_is_written_is_read(records: list[ResultRecord]) -> None:
    assert read_results(b"".join(map(write_result, records))) == records


@given(st.lists(_RECORDS, min_size=1, max_size=3), st.data())
def test_what_is_cut_off_or_changed_is_a_value_error_or_reads_as_something(records: Any, data: Any) -> None:
    written = bytearray(b"".join(map(write_result, records)))
    place = data.draw(st.integers(0, len(written) - 1))
    written[place] ^= data.draw(st.integers(1, 255))
    end = data.draw(st.integers(0, len(written)))
    for hostile in (bytes(written), bytes(written[:end])):
        with suppress(ValueError):
            read_results(hostile)


@given(st.binary(max_size=400))
def test_bytes_of_strangers(data: bytes) -> None:
    with suppress(ValueError):
        read_results(data)


def test_half_a_record_is_refused() -> None:
    with pytest.raises(ValueError, match="cut off"):
        read_results(b"\0" * 20)


def test_nothing_is_no_results() -> None:
    assert read_results(b"") == []
