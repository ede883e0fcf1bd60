"""Files of payloads: appended to, rolled, cut back to what is named, and gone when nobody names them."""

import os
from pathlib import Path

import pytest

from ww.errors import StoreError
from ww.gateway.segments import Extent, Segments, file_of, numbers_in, read, shared


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "payloads"


def opened(directory: Path, named_ends: dict[int, int] | None = None, roll_bytes: int = 1000) -> Segments:
    segments = Segments(directory, roll_bytes=roll_bytes)
    segments.open(named_ends or {})
    return segments


def put(segments: Segments, data: bytes) -> Extent:
    extent = segments.append(data)
    segments.sync()
    segments.commit()
    return extent


def test_what_is_appended_is_read_again_and_checked(directory: Path) -> None:
    segments = opened(directory)
    first, second = put(segments, b"one"), put(segments, b"")
    assert (read(directory, first), read(directory, second)) == (b"one", b"")
    with pytest.raises(StoreError, match="a payload is damaged"):
        read(directory, Extent(first.segment, 0, 3, first.crc ^ 1))
    with pytest.raises(StoreError, match="a payload is damaged"):
        read(directory, Extent(first.segment, 0, 4, first.crc))
    with pytest.raises(StoreError, match=r"^a payload cannot be read \(no such file or directory\): ww db "):
        read(directory, Extent(99, 0, 3, 0))


def test_a_full_segment_is_followed_by_another_and_a_large_payload_has_its_own(directory: Path) -> None:
    segments = opened(directory)
    extents = [put(segments, bytes([i]) * size) for i, size in enumerate((600, 400, 1, 5000, 1))]
    assert [(extent.segment, extent.start) for extent in extents] == [(1, 0), (1, 600), (2, 0), (3, 0), (4, 0)]
    assert numbers_in(directory) == {1: 1000, 2: 1, 3: 5000, 4: 1}
    assert [read(directory, extent)[:1] for extent in extents] == [b"\0", b"\1", b"\2", b"\3", b"\4"]


def test_a_tail_that_nobody_names_is_cut_off_and_written_over(directory: Path) -> None:
    segments = opened(directory)
    named = put(segments, b"named")
    segments.append(b"not named")
    segments.sync()  # and then the process is killed
    again = opened(directory, {1: 5})
    assert numbers_in(directory) == {1: 5}
    following = put(again, b"next")
    assert (following.segment, following.start) == (1, 5)
    assert (read(directory, named), read(directory, following)) == (b"named", b"next")


def test_what_was_taken_back_leaves_no_room_between(directory: Path) -> None:
    segments = opened(directory)
    put(segments, b"a" * 10)
    segments.append(b"b" * 500)
    segments.rewind()
    segments.append(b"c" * 2000)  # rolls
    segments.rewind()
    assert numbers_in(directory) == {1: 10, 2: 0}
    assert put(segments, b"d").segment == 2


def test_an_abandoned_segment_is_not_appended_to_any_more(directory: Path) -> None:
    segments = opened(directory)
    first = put(segments, b"a")
    segments.abandon()
    second = put(segments, b"b")
    assert (first.segment, second.segment) == (1, 2)
    assert (read(directory, first), read(directory, second)) == (b"a", b"b")


def test_segments_that_nobody_names_are_removed_at_the_next_start(directory: Path) -> None:
    segments = opened(directory)
    for _ in range(3):
        put(segments, b"x" * 1000)
    opened(directory, {2: 1000})
    assert set(numbers_in(directory)) == {2}
    assert put(opened(directory, {2: 1000}), b"y").segment == 3, "a number is not used twice"


def test_a_segment_shorter_than_what_is_named_is_left_alone(directory: Path) -> None:
    put(opened(directory), b"x" * 100)
    again = opened(directory, {1: 200})
    assert numbers_in(directory) == {1: 100}
    assert put(again, b"y").segment == 2


def test_nothing_is_removed_while_another_process_reads(directory: Path) -> None:
    segments = opened(directory)
    put(segments, b"x" * 1000)
    put(segments, b"y")
    with shared(directory):
        assert segments.remove([1]) == 0
        with shared(directory):
            assert set(numbers_in(directory)) == {1, 2}
    assert segments.remove([1]) == 1
    assert not file_of(directory, 1).exists()


def test_only_its_owner_may_read_them(directory: Path) -> None:
    put(opened(directory), b"x")
    assert directory.stat().st_mode & 0o077 == 0
    assert {path.stat().st_mode & 0o077 for path in directory.iterdir()} == {0}


def test_what_is_no_segment_is_not_touched(directory: Path) -> None:
    directory.mkdir()
    for name in ("1.seg", "000000000001.seg.part", "README"):
        (directory / name).touch()
    opened(directory)
    assert sorted(os.listdir(directory)) == ["000000000001.seg.part", "1.seg", "README", "lock"]
