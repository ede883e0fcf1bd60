"""Runs that want a further peer's vote, and which of them a peer may be given next.

Holds an order, and what is known of a run on which peers vote. Must not know when a run wants a vote: quorum.py. Each
peer goes through the order from where it was, past what it has been given already: however many runs wait, the next
one costs it a step or two.
"""

from dataclasses import dataclass, field
from typing import Final

from ww.gateway.attempt import Run
from ww.gateway.poll import Poll

# So many that are gone are left where they are.
_LOOSE_MAX: Final = 64


@dataclass(slots=True, eq=False)
class PolledRun(Run):
    """A run that has begun, and on which no quorum agrees yet."""

    poll: Poll = field(default_factory=Poll)
    asked: list[str] = field(default_factory=list)
    """The peers that voted, or are at it."""
    is_waiting: bool = False
    """Whether an attempt of it was lost, and it is not due again."""
    wants: "Wants | None" = None
    """Where it waits for a further peer."""
    place: int = 0
    """Where in there."""


class Wants:
    """Runs in the order in which they came to want a vote."""

    def __init__(self) -> None:
        self._log: list[PolledRun] = []
        """Also those that have gone: a run is where its `place` says."""
        self._first = 0
        """The place of the first one of the log."""
        self._head = 0
        """How many at the log's beginning are known to have gone."""
        self._seen: dict[str, int] = {}
        """By peer: the place before which nothing is for it."""
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def put(self, run: PolledRun) -> None:
        """Put a run last, for every peer, wherever it was."""
        if run.wants is not None:
            run.wants.discard(run)
        run.wants, run.place = self, self._first + len(self._log)
        self._log.append(run)
        self._count += 1

    def discard(self, run: PolledRun) -> None:
        """Take a run out that is here."""
        run.wants = None
        self._count -= 1
        if len(self._log) > _LOOSE_MAX + 2 * self._count:
            self._tidy()

    def next_for(self, peer: str) -> PolledRun | None:
        """Return the first run that a peer was not given yet; it stays here."""
        if not self._count:
            return None
        log, first = self._log, self._first
        place, end = max(self._seen.get(peer, 0), first + self._head), first + len(log)
        found = None
        while place < end:
            run = log[place - first]
            if run.wants is self and run.place == place and peer not in run.asked:
                found = run
                break
            place += 1
        self._seen[peer] = place
        return found

    def oldest(self) -> PolledRun | None:
        """Return the first of all."""
        if not self._count:
            return None
        while not self._is_here(self._head):
            self._head += 1
        return self._log[self._head]

    def clear(self) -> None:
        """Have nothing here."""
        self._first += len(self._log)
        self._log, self._head, self._count, self._seen = [], 0, 0, {}

    def _is_here(self, index: int) -> bool:
        run = self._log[index]
        return run.wants is self and run.place == self._first + index

    def _tidy(self) -> None:
        """Leave out what has gone. What stays has new places, which no peer has come to."""
        here = [run for index, run in enumerate(self._log) if self._is_here(index)]
        self._first += len(self._log)
        self._log, self._head, self._seen = here, 0, {}
        for place, run in enumerate(here, self._first):
            run.place = place
