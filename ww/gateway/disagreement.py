"""How often each peer was outvoted, and who was too often.

Holds counts alone, in memory. Must not know what becomes of a peer: scheduler.py.
"""

from collections.abc import Iterable
from typing import Final

_PEERS_MAX: Final = 4096


class Disagreements:
    """Of one gateway's peers, since it started."""

    def __init__(self, most: int) -> None:
        """most: runs on which a peer may be outvoted."""
        self._most = most
        self._counts: dict[str, int] = {}
        self.total = 0
        """Votes that were outvoted."""
        self.refused = 0
        """Peers that were outvoted too often."""

    def of(self, peer: str) -> int:
        """Return on how many runs a peer was outvoted."""
        return self._counts.get(peer, 0)

    def note(self, outvoted: Iterable[str]) -> list[str]:
        """Count peers that were outvoted on a run, each once; return those that now were too often."""
        over = []
        for peer in outvoted:
            count = self._counts.pop(peer, 0) + 1
            while len(self._counts) >= _PEERS_MAX:
                del self._counts[next(iter(self._counts))]  # whose last one was longest ago
            self._counts[peer] = count
            self.total += 1
            if count == self._most + 1:
                self.refused += 1
                over.append(peer)
        return over

    def forgive(self, peer: str) -> None:
        """Begin anew with a peer."""
        self._counts.pop(peer, None)
