"""What a guest may ask of the cluster while it runs, as the sandbox sees it.

Holds the protocol alone. Must not know who answers: a worker asks its gateway. Requests and answers are bytes here:
../python/request.py.
"""

from typing import Final, Protocol

TICKETS_MAX: Final = 1_000
"""Calls that a run may have under way at a time, or answered and not waited for."""
NAME_BYTES_MAX: Final = 2_000
"""Of a function's name."""


class Calls(Protocol):
    """Calls of one run."""

    async def call(self, name: str, requests: bytes) -> bytes:
        """Have the function of that name called once for each request. Return the answers, when all calls have ended,
        however they did. Cancelled when the run ends before."""
        ...

    def set_blocked(self, blocked: bool) -> None:
        """Note that the guest waits for an answer, or goes on."""
        ...
