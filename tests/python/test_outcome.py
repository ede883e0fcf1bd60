"""Which error the end of a run is."""

import pytest

import ww
from ww.python.outcome import Ended, error_of


@pytest.mark.parametrize(
    ("reason", "kind"), [("refused", ww.NotGranted), ("overloaded", ww.Overloaded), ("lost", ww.RunLost)]
)
def test_a_nested_call_that_did_not_begin_says_whether_it_may_another_time(reason: str, kind: type[Exception]) -> None:
    error = error_of(Ended(reason, "so many\nare open"), "m.f")
    assert type(error) is kind
    assert str(error).startswith("m.f: ")
    assert str(error).endswith("so many are open")
