"""What peers said of one run: which of them gave the same, and whether that decides it.

Holds the votes on one run and what of an outcome is compared. Must not know who is asked, nor when: quorum.py. Engines
word a trap's detail differently and count fuel and time differently: these are not compared.
"""

import hashlib
from collections.abc import Hashable
from typing import Final, NamedTuple

from ww.gateway.spec import Outcome

_CLAIMS: Final = frozenset({"", "exit", "trap"})
"""Reasons that only the guest is the cause of. All others depend on the machine too: such outcomes are alike when their
reason is, and nobody is blamed for one."""
_STACK: Final = "stack_overflow"
"""The trap that is none of these: how deep calls may go is each engine's own."""

# As long as a digest.
_SHORT_BYTES: Final = 32

Ballot = tuple[Hashable, ...]


class Vote(NamedTuple):
    """One peer's, without what the guest printed: the vote that decides has the same."""

    peer: str
    outcome: Outcome
    started_at: float


class Poll:
    """The votes on one run: by what they say, in the order in which that was first said."""

    __slots__ = ("_sides", "count", "most")

    def __init__(self) -> None:
        self._sides: dict[Ballot, list[Vote]] = {}
        self.count = 0
        """Of all votes."""
        self.most = 0
        """How many at most say the same."""

    def cast(self, peer: str, outcome: Outcome, started_at: float) -> list[Vote]:
        """Take a peer's vote, its only one; return all that say the same, itself last."""
        key = ballot(outcome)
        if outcome.stdout or outcome.stderr:
            # Peers may print 16 MiB each, and a thousand runs wait for further votes.
            outcome = outcome._replace(stdout=b"", stderr=b"")
        side = self._sides.setdefault(key, [])
        side.append(Vote(peer, outcome, started_at))
        self.count += 1
        self.most = max(self.most, len(side))
        return side

    def drop(self, peer: str) -> bool:
        """Take a peer's vote away; whether it had one."""
        for key, side in self._sides.items():
            for vote in side:
                if vote.peer == peer:
                    side.remove(vote)
                    self.count -= 1
                    if not side:
                        del self._sides[key]
                    self.most = max(map(len, self._sides.values()), default=0)
                    return True
        return False

    def outvoted(self, winners: list[Vote]) -> tuple[str, ...]:
        """Return the peers that said something else, which only a guest can be the cause of, as can what won."""
        if len(self._sides) == 1 or not is_claim(winners[0].outcome):
            return ()
        others = (vote for side in self._sides.values() if side is not winners for vote in side)
        return tuple(vote.peer for vote in others if is_claim(vote.outcome))

    @property
    def sides(self) -> int:
        """How many different things were said."""
        return len(self._sides)


def is_claim(outcome: Outcome) -> bool:
    """Whether only the guest can be the cause of an outcome."""
    return outcome.reason in _CLAIMS and not (outcome.reason == "trap" and outcome.detail == _STACK)


def ballot(outcome: Outcome) -> Ballot:
    """Return what of an outcome is compared; of output that is long its digest."""
    if not is_claim(outcome):
        return (outcome.reason,)
    reason, _, result, exit_code, stdout, stderr, stdout_cut, stderr_cut, *_ = outcome
    sizes = len(stdout), len(stderr)
    return (
        reason, result, exit_code, stdout_cut, stderr_cut, outcome.artifacts, *sizes,
        stdout if sizes[0] <= _SHORT_BYTES else hashlib.sha256(stdout).digest(),
        stderr if sizes[1] <= _SHORT_BYTES else hashlib.sha256(stderr).digest(),
    )  # fmt: skip
