"""A task's runs as a row of cells, a byte each, and as text.

Holds their states, what a cell of several runs shows, and the run-length text of both. Must not know where states come
from, nor who is shown them. A byte is the smaller, the more it counts in a cell that several runs share.
"""

import re
from collections.abc import Iterable
from typing import Final

from ww.gateway.task import RunState

CELLS_MAX: Final = 100_000
# Changed cells beyond which all are told anew: which ones they are would be as long.
_CHANGED_MAX: Final = 10_000
_ORDER: Final = (
    RunState.FAILED,
    RunState.RUNNING,
    RunState.SCHEDULED,
    RunState.QUEUED,
    RunState.CANCELLED,
    RunState.SUCCEEDED,
)
CODES: Final = {state: code for code, state in enumerate(_ORDER)}
# Letters of the text, by code.
_LETTERS: Final = bytes(ord("." if state is RunState.SCHEDULED else state[0]) for state in _ORDER)
_TO_LETTERS: Final = bytes.maketrans(bytes(range(len(_ORDER))), _LETTERS)
_UNENDED: Final = bytes(CODES[state] for state in (RunState.SCHEDULED, RunState.QUEUED, RunState.RUNNING))
_SAME: Final = re.compile(rb"(.)\1*")


class Cells:
    """The states of all runs of one task. Every change is noted by its cell until it is taken."""

    def __init__(self, runs: int, cells_max: int = CELLS_MAX) -> None:
        """Begin with all runs scheduled."""
        self.per_cell = -(-runs // cells_max)
        self.count = -(-runs // self.per_cell)
        self._codes = bytearray([CODES[RunState.SCHEDULED]]) * runs
        self._changed: set[int] = set()
        self._have_many_changed = False

    def put(self, runs: Iterable[int], state: RunState) -> None:
        """Have these runs in that state."""
        codes, code, per_cell, changed = self._codes, CODES[state], self.per_cell, self._changed
        for run in runs:
            if codes[run] != code:
                codes[run] = code
                changed.add(run // per_cell)

    def put_span(self, first: int, count: int, state: RunState, only: RunState | None = None) -> None:
        """Have runs that follow each other in that state; with only, those of them that are in that one."""
        end = first + count
        before = bytes(self._codes[first:end])
        if only is None:
            after = bytes([CODES[state]]) * len(before)
        else:
            after = before.translate(bytes.maketrans(bytes([CODES[only]]), bytes([CODES[state]])))
        self._replace(first, before, after)

    def end(self, state: RunState) -> None:
        """Have all runs in that state that have not ended."""
        before = bytes(self._codes)
        after = before.translate(bytes.maketrans(_UNENDED, bytes([CODES[state]]) * len(_UNENDED)))
        self._replace(0, before, after)

    def _replace(self, first: int, before: bytes, after: bytes) -> None:
        if before == after:
            return
        self._codes[first : first + len(after)] = after
        cells = range(first // self.per_cell, (first + len(after) - 1) // self.per_cell + 1)
        if len(cells) > _CHANGED_MAX:
            self._have_many_changed = True
        else:
            self._changed.update(cells)

    def has_ended(self, run: int) -> bool:
        """Whether a run has its final state."""
        return self._codes[run] not in _UNENDED

    def take_changed(self) -> set[int] | None:
        """Return the cells in which something may have changed since this was last called; None: very many."""
        changed, self._changed = self._changed, set()
        are_many, self._have_many_changed = self._have_many_changed or len(changed) > _CHANGED_MAX, False
        return None if are_many else changed

    def text(self) -> str:
        """Return all cells. It takes milliseconds where there are many."""
        codes = bytes(self._codes)
        if self.per_cell > 1:
            padding = bytes([CODES[RunState.SUCCEEDED]]) * (self.count * self.per_cell - len(codes))
            codes += padding
            codes = bytes(map(min, *(codes[place :: self.per_cell] for place in range(self.per_cell))))
        return _shortened(codes)

    def text_of(self, cells: Iterable[int]) -> list[tuple[int, str]]:
        """Return the text of some cells, those that follow each other together, each with the first one's place."""
        found: list[tuple[int, bytearray]] = []
        behind = -1
        for cell in sorted(cells):
            if cell != behind:
                found.append((cell, bytearray()))
            found[-1][1].append(self._code_of(cell))
            behind = cell + 1
        return [(first, _shortened(codes)) for first, codes in found]

    def _code_of(self, cell: int) -> int:
        return min(self._codes[cell * self.per_cell : (cell + 1) * self.per_cell])


def _shortened(codes: bytes | bytearray) -> str:
    """Return a count and a letter for each stretch of like cells."""
    letters = bytes(codes).translate(_TO_LETTERS)
    return "".join([f"{match.end() - match.start()}{match[1].decode()}" for match in _SAME.finditer(letters)])
