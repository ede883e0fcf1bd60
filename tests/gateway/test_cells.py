"""A task's runs as cells and as text: what a list of their states says."""

import random
import re
from typing import Final

import pytest

from ww.gateway.cells import CODES, Cells
from ww.gateway.task import RunState

LETTERS: Final = {"scheduled": ".", "queued": "q", "running": "r", "succeeded": "s", "failed": "f", "cancelled": "c"}


def spread(text: str) -> str:
    """Write out what was shortened."""
    assert re.fullmatch(r"([1-9]\d*[.qrsfc])+", text), text
    return "".join(int(count) * letter for count, letter in re.findall(r"(\d+)(.)", text))


@pytest.mark.parametrize("runs", [1, 7, 100, 101, 250])
def test_cells_are_what_a_list_of_states_says(runs: int) -> None:
    rng = random.Random(runs)
    cells, states = Cells(runs, 100), [RunState.SCHEDULED] * runs
    per_cell = -(-runs // 100)
    rank = CODES
    shown = list(spread(cells.text()))
    for _ in range(300):
        state = rng.choice(list(RunState))
        match rng.randrange(4):
            case 0:
                some = rng.sample(range(runs), rng.randint(0, min(runs, 9)))
                cells.put(some, state)
                for run in some:
                    states[run] = state
            case 1:
                first = rng.randrange(runs)
                count = rng.randint(1, runs - first)
                only = rng.choice([None, *RunState])
                cells.put_span(first, count, state, only)
                states[first : first + count] = [
                    state if only in (None, before) else before for before in states[first : first + count]
                ]
            case 2 if rng.random() < 0.1:
                cells.end(state)
                ended = (RunState.SUCCEEDED, RunState.FAILED, RunState.CANCELLED)
                states = [each if each in ended else state for each in states]
            case _:
                changed = cells.take_changed()
                assert changed is not None
                for place, text in cells.text_of(changed):
                    stretch = spread(text)
                    shown[place : place + len(stretch)] = stretch
                expected = [min(states[at : at + per_cell], key=rank.__getitem__) for at in range(0, runs, per_cell)]
                assert "".join(shown) == "".join(LETTERS[each] for each in expected) == spread(cells.text())
    assert [cells.has_ended(run) for run in range(runs)] == [
        state not in (RunState.SCHEDULED, RunState.QUEUED, RunState.RUNNING) for state in states
    ]


def test_a_failed_run_is_seen_in_a_cell_of_many() -> None:
    cells = Cells(1_000_000)
    assert (cells.per_cell, cells.count) == (10, 100_000)
    cells.put_span(0, 1_000_000, RunState.SUCCEEDED)
    assert cells.take_changed() is None, "which ones would be longer than all"
    cells.put([123_456], RunState.FAILED)
    assert cells.text() == "12345s1f87654s"
    assert cells.text_of(cells.take_changed() or ()) == [(12_345, "1f")]
