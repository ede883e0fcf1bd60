"""A number that grows with each start under a key, whatever the clock and the disk say."""

from pathlib import Path

import pytest

from ww.errors import UsageError
from ww.identity import Identity
from ww.incarnation import next_incarnation

PEER, OTHER = Identity.generate().peer_id, Identity.generate().peer_id


def test_it_grows_with_each_start_even_when_the_clock_goes_back(tmp_path: Path) -> None:
    clocks = (1000.0, 1000.0, 5.0, 0.0, -7.0, 1000.0005)
    numbers = [next_incarnation(tmp_path / "made", PEER, wall_s) for wall_s in clocks]
    assert numbers == sorted(set(numbers))


def test_without_what_was_written_the_time_of_day_stands_in(tmp_path: Path) -> None:
    before = next_incarnation(tmp_path / "one", PEER, 1000.0)
    assert next_incarnation(tmp_path / "two", PEER, 1001.0) > before


def test_each_key_has_its_own(tmp_path: Path) -> None:
    for _ in range(3):
        next_incarnation(tmp_path, PEER, 0.0)
    assert next_incarnation(tmp_path, OTHER, 0.0) == 1
    assert next_incarnation(tmp_path, PEER, 0.0) == 4


@pytest.mark.parametrize("content", [b"", b"garbage", b"-5", b"9" * 40, b"\xff\xfe", "\u0661".encode()])
def test_a_damaged_file_counts_as_none(tmp_path: Path, content: bytes) -> None:
    (tmp_path / str(PEER)).write_bytes(content)
    assert next_incarnation(tmp_path, PEER, 2.0) == 2000


def test_a_folder_that_cannot_be_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="the state directory cannot be written"):
        next_incarnation(tmp_path / "file", PEER, 1.0)
