"""How far a map is, in words and as a bar."""

import pytest

from ww.cli.progress import Progress, duration_text


def looked_at(total: int | None, succeeded: int, failed: int) -> Progress:
    progress = Progress(total, 100.0)
    for number in range(succeeded + failed):
        progress.add(number < succeeded)
    return progress


def test_in_words() -> None:
    assert looked_at(10_000, 2000, 500).text(110.0) == "2,500 of 10,000, 250/s, 500 failed, 30 s left"
    assert looked_at(None, 5, 0).text(110.0) == "5, 0.5/s"
    assert looked_at(5, 5, 0).text(100.0) == "5 of 5, 0.0/s"
    assert looked_at(5, 0, 0).text(110.0) == "0 of 5, 0.0/s"


def test_the_rate_is_that_of_the_last_looks() -> None:
    progress = looked_at(1000, 100, 0)
    for second in range(1, 60):
        progress.text(100.0 + second)
    assert progress.text(160.0) == "100 of 1,000, 0.0/s"


def test_a_bar_fits() -> None:
    assert looked_at(10, 5, 0).bar(110.0, 79) == "[###############...............] 5 of 10, 0.5/s, 10 s left"
    for columns in range(1, 100):
        assert len(looked_at(10_000, 2000, 500).bar(110.0, columns)) <= columns
    assert looked_at(0, 0, 0).bar(110.0, 79).startswith("[####")
    assert looked_at(None, 3, 0).bar(110.0, 79) == "3, 0.3/s"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0 s"), (59.4, "59 s"), (61, "1 min 01 s"), (3600, "1 h 00 min"), (1e7, "2,777 h 46 min")],
)
def test_durations(seconds: float, text: str) -> None:
    assert duration_text(seconds) == text
