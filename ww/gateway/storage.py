"""What the gateway asks of whatever remembers its tasks and the results of their runs.

Holds the interface and the limits that every kind keeps. Must not know any database: store.py is SQLite, postgres/ is
PostgreSQL. Who only uses a store depends on this module alone.

A call that writes returns when what it wrote outlives a crash, or raises StoreError and has changed nothing.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from ww.gateway.rows import TaskRow
from ww.gateway.task import Policy, RunResult, RunState, Spec, Task

__all__ = ["SELECT_SPANS", "OnResults", "Span", "Storage", "StoreConfig", "TaskRow"]

OnResults = Callable[[int, Sequence[tuple[int, RunResult]]], object]
"""Is told of results that were just put on disk: the position of the first, which those of the others follow."""


@dataclass(frozen=True, slots=True)
class StoreConfig:
    """What a store keeps, and its patience."""

    keep: int | None = 10_000
    """Tasks that have ended and are remembered; None: any number."""
    keep_s: float | None = None
    """Seconds for which an ended task is remembered; None: any time."""
    results_bytes_max: int = 10 << 30
    """Of all results; past it the tasks that ended first are forgotten."""
    fresh_s: float = 60.0
    """Seconds for which a task that ended stays whatever its size, so that whoever waits for it can read it."""
    segment_bytes: int = 64 << 20
    """Of one file of payloads, where there are such files; a larger payload has one of its own."""
    busy_timeout_s: float = 5.0
    """How long another process may hold the database before it is refused: a write, or the start."""
    housekeep_every_s: float = 5.0
    probe_every_s: float = 1.0
    """While the disk refuses, how often it is tried."""


Span = tuple[int, int, RunState]
"""Runs that follow each other and ended the same way: the first, how many, and their state."""
# Of runs of one state that follow each other, number and rank grow together.
SELECT_SPANS: Final = (
    "SELECT min(run), count(*), state FROM"
    " (SELECT run, state, run - row_number() OVER (PARTITION BY state ORDER BY run) AS island FROM runs"
    " WHERE task = {} AND run >= {} AND run < {}) AS placed GROUP BY state, island"
)
"""As SQL, with places for a task's number, the first run and the one behind the last."""


class Storage(Protocol):
    """One gateway's tasks and results."""

    on_results: OnResults | None
    """Is told of each commit of results, before add_results returns."""

    def health(self) -> str:
        """Say why writing is refused at present, or nothing."""

    # Writing: every call returns when it is on disk.

    def reserve(self) -> int | None:
        """Return a number for a task that is to be added; None where a number is known only once it is."""

    async def add_task(self, spec: Spec, created_at: float, number: int | None = None) -> int:
        """Remember a task that is not there yet and return its number: the one that was reserved for it, if one was."""

    async def add_results(self, results: Sequence[tuple[int, RunResult]]) -> None:
        """Remember the ends of runs, each with its task's number; a task is finished with the last of its runs."""

    async def cancel_task(self, task: int, cancelled_at: float) -> bool:
        """Remember that a task was cancelled. Returns False, and changes nothing, when it had ended."""

    async def fail_task(self, task: int, failed_at: float, reason: str) -> bool:
        """Remember that a task failed as a whole, all its runs without a result too. Returns as cancel_task does."""

    # Reading.

    async def open_tasks(self, now: float, wall: float, policy: Policy | None = None) -> list[Task]:
        """Return the tasks that have not ended, oldest first, with what is known of their runs.

        StoreError, which says what to do about it, when one of them is damaged.
        """

    async def task(self, id: str) -> TaskRow | None:
        """Return the task of that id."""

    async def tasks(self, *, limit: int, before: int | None = None, owner: str | None = None) -> list[TaskRow]:
        """Return up to limit tasks, newest first; before a task's number, those that are older than it.

        Only those of an owner where one is given. Large stdin is left out: a list may be of a thousand tasks.
        """

    async def latest_results(
        self, tasks: Iterable[int], *, limit: int, output_bytes_max: int
    ) -> dict[int, list[RunResult]]:
        """Return the latest results of each of those tasks, latest first.

        At most limit of each, and fewer once the output of all together passes output_bytes_max. Of output that is
        damaged nothing is left here, so that one run's does not hide all others: `results_by_run` says what is wrong.
        """

    async def results_by_run(
        self, task: int, *, limit: int, after: int, output_bytes_max: int | None = None
    ) -> list[tuple[int, RunResult]]:
        """Return up to limit results of a task by run number, those beyond run number after, each with its position.

        Fewer, but one, once their output passes output_bytes_max.
        """

    async def results_since(
        self, task: int, *, position: int, limit: int, output_bytes_max: int | None = None
    ) -> list[tuple[int, RunResult]]:
        """Return up to limit results of a task in the order in which they came, each with its position.

        Only those beyond that position, 0 for all; fewer, but one, once their output passes output_bytes_max. Positions
        grow over all tasks, and mean the same after a restart.
        """

    async def spans(self, task: int, *, first: int, count: int) -> list[Span]:
        """Return how those of a task's runs ended that did, of count runs from first on; in no order."""

    async def ends_since(self, task: int, *, position: int, limit: int) -> list[tuple[int, int, RunState]]:
        """Return up to limit ends of a task's runs beyond that position: each one's position, run and state."""

    async def last_position(self, task: int) -> int:
        """Return the position of the latest result of a task, 0 where there is none."""

    async def modules(self) -> set[str]:
        """Return the digests of all modules, files and inputs that a remembered task names."""

    async def modules_of(self, owner: str) -> set[str]:
        """Return the digests of the modules that the remembered tasks of an owner name."""

    async def artifacts(self) -> set[str]:
        """Return the digests of all artifacts that a remembered run has."""

    # Housekeeping, which a store does by itself too.

    async def housekeep(self) -> None:
        """Forget what is beyond the limits and give its room back. In small steps, until nothing is left to do."""
