"""What is logged of peers that are refused."""

import pytest

from ww.rpc.refusals import Refusals


def test_who_comes_again_and_again_is_told_once_in_a_while(caplog: pytest.LogCaptureFixture) -> None:
    now = 0.0
    refusals = Refusals(lambda: now)
    for _ in range(100):
        refusals.tell("a", "a at 1.2.3.4:5", "it is banned")
        now += 1.0
    refusals.tell("b", "b at 1.2.3.4:5", "it is banned")
    refusals.tell("a", "a at 1.2.3.4:5", "it has no ticket")
    now = 301.0
    refusals.tell("a", "a at 1.2.3.4:6", "it is banned")
    assert [record.getMessage() for record in caplog.records] == [
        "refused a at 1.2.3.4:5: it is banned",
        "refused b at 1.2.3.4:5: it is banned",
        "refused a at 1.2.3.4:5: it has no ticket",
        "refused a at 1.2.3.4:6: it is banned, 99 times more since that was told",
    ]


def test_strangers_fill_neither_the_log_nor_memory(caplog: pytest.LogCaptureFixture) -> None:
    now = 0.0
    refusals = Refusals(lambda: now)
    for number in range(5000):
        refusals.tell(f"{number}", f"{number}", "it is nobody")
        now += 0.5
    assert 500 < len(caplog.records) < 1200
    assert "lines about refused peers were left out" in caplog.text
    assert len(refusals._told) <= 1024
