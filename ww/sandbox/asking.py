"""A guest's calls on their way to the parent, from within its run, and the answers on their way back.

Holds the sandbox process's side of nesting.py. Must not know what is called, nor who answers. An answer comes when it
is waited for, and at no other time; one that comes too late, when the run is over, is for the main loop to throw away.
"""

from typing import Any, Final, Protocol

from ww import schema
from ww.sandbox.wasi_host import Watch

_PIECE_BYTES: Final = 1 << 20
# How long a wait goes on at most when the run is over.
_SLICE_S: Final = 0.02
_WORDS_MAX: Final = 1 << 30


class Way(Protocol):
    """The frames to the parent, and from it: process.Wire."""

    def send(self, reply: Any) -> None: ...

    def is_readable(self, within_s: float) -> bool: ...

    def receive(self) -> tuple[bytes, Any]: ...


class ParentAsking:
    """Has the parent answer the calls of runs; see python_calls.Asking."""

    def __init__(self, wire: Way) -> None:
        self._wire = wire

    def begin(self, ticket: int, name: str, requests: bytes) -> None:
        """Have calls made."""
        for at in range(0, len(requests), _PIECE_BYTES):
            reply = schema.sandbox.Reply.new_message()
            call = reply.init("call")
            call.ticket = ticket
            if at == 0:
                call.name = name
            call.requests = requests[at : at + _PIECE_BYTES]
            call.isMore = at + _PIECE_BYTES < len(requests)
            self._wire.send(reply)

    def wait(self, ticket: int, watch: Watch) -> bytes | None:
        """Wait for what came of them; None when the run is over before."""
        reply = schema.sandbox.Reply.new_message()
        reply.blocked = ticket
        self._wire.send(reply)
        while not self._wire.is_readable(_SLICE_S):
            if watch.interrupted():
                return None
        data, _ = self._wire.receive()
        with schema.sandbox.Request.from_bytes(data, traversal_limit_in_words=_WORDS_MAX) as request:
            # The parent says nothing else in the middle of a run.
            return bytes(request.answer.answers) if request.which() == "answer" else None
