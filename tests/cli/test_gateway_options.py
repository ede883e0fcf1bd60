"""What `ww gateway` understands of its options."""

import pytest

from ww.cli.gateway import keep
from ww.errors import UsageError


@pytest.mark.parametrize(
    ("text", "kept"),
    [("10000", 10_000), ("1", 1), ("7d", 7 * 86_400.0), ("1.5h", 5400.0), ("30s", 30.0), ("10m", 600.0)],
)
def test_what_is_kept_is_a_number_of_tasks_or_a_time_with_a_unit(text: str, kept: float) -> None:
    assert (keep(text), type(keep(text))) == (kept, type(kept))


@pytest.mark.parametrize("text", ["", "0", "-1", "1.5", "7 d", "7w", "d", "1e3", "\u0663"])
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(UsageError) as error:
        keep(text)
    assert "\n" not in str(error.value)
