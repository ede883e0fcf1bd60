"""What a guest calls while it runs, on the parent's side: which calls are under way, and who waits for which.

Holds the tickets of one run. Must not know what is called, nor who answers (calls.py). Nothing a child says is
believed: what it calls is counted, and what is no sense is its end. A guest that waits leaves its slot to others. The
child's side is asking.py.
"""

import asyncio
import contextlib
import logging
import struct
from typing import Any, Final

from ww import schema
from ww.errors import WwError
from ww.python import request
from ww.sandbox.calls import NAME_BYTES_MAX, TICKETS_MAX, Calls
from ww.sandbox.child import NONSENSE, Child, ChildDied
from ww.sandbox.children import Children

log = logging.getLogger("ww.sandbox")

HELD_BYTES_MAX: Final = 128 << 20
"""Requests, and answers that nobody has waited for yet, of one run."""
_DETAIL_CHARS_MAX: Final = 200


class Nesting:
    """The calls of one run. Close it when that ends."""

    def __init__(self, calls: Calls, children: Children, child: Child) -> None:
        self._calls = calls
        self._children = children
        self._child = child
        self._last = 0
        """The ticket that was begun last."""
        self._coming: tuple[int, str, bytearray] | None = None
        """A ticket of which there is more to come."""
        self._under_way: dict[int, asyncio.Task[None]] = {}
        self._answers: dict[int, bytes] = {}
        self._held_bytes = 0
        self._waits_for: int | None = None
        self._is_closed = False

    def call(self, said: Any) -> None:
        """Take a sandbox.Call. ChildDied when it makes no sense."""
        ticket, name, data = said.ticket, said.name, bytes(said.requests)
        if self._coming is None:
            is_new = ticket > self._last and self._waits_for is None
            if not is_new or len(name.encode()) > NAME_BYTES_MAX or self._open >= TICKETS_MAX:
                raise ChildDied(NONSENSE)
            self._coming = ticket, name, bytearray()
        elif ticket != self._coming[0] or name:
            raise ChildDied(NONSENSE)
        requests = self._coming[2]
        requests += data
        if not data or len(requests) > request.TICKET_BYTES_MAX:
            raise ChildDied(NONSENSE)
        if not said.isMore:
            (ticket, name, requests), self._coming = self._coming, None
            self._last = ticket
            self._begin(ticket, name, bytes(requests))

    @property
    def _open(self) -> int:
        return len(self._under_way) + len(self._answers)

    def _begin(self, ticket: int, name: str, requests: bytes) -> None:
        count = struct.unpack_from("<I", requests)[0] if len(requests) >= 4 else 0
        if not 0 < count <= request.REQUESTS_MAX:
            raise ChildDied(NONSENSE)
        if self._held_bytes + len(requests) > HELD_BYTES_MAX:
            # What a refusal takes is not asked of who is refused: a guest that waits for none of them is ended.
            if self._held_bytes > 2 * HELD_BYTES_MAX:
                raise ChildDied(NONSENSE)
            self._keep(ticket, _refused(count, f"more than {HELD_BYTES_MAX} bytes of calls are under way"))
            return
        self._held_bytes += len(requests)
        self._under_way[ticket] = self._children.spawn(self._have_answered(ticket, name, requests, count))

    async def _have_answered(self, ticket: int, name: str, requests: bytes, count: int) -> None:
        try:
            answers = await self._calls.call(name, requests)
        except WwError as error:
            answers = _refused(count, str(error), "lost")
        except Exception:
            log.exception("a call of a guest's fails in a way that it should not")
            answers = _refused(count, "the call could not be made", "lost")
        self._held_bytes -= len(requests)
        del self._under_way[ticket]
        if self._is_closed:
            return
        if self._held_bytes + len(answers) > HELD_BYTES_MAX or len(answers) > request.TICKET_BYTES_MAX:
            answers = _refused(count, f"the answers have {len(answers)} bytes, more than is kept for a run")
        self._keep(ticket, answers)
        if self._waits_for == ticket:
            self._go_on()
            self._answer(ticket)

    def _keep(self, ticket: int, answers: bytes) -> None:
        """Have answers there until they are waited for."""
        self._answers[ticket] = answers
        self._held_bytes += len(answers)

    def wait(self, ticket: int) -> None:
        """Note that the guest waits for a ticket, and answer it when there is an answer. ChildDied when it makes no
        sense."""
        if self._waits_for is not None or self._coming is not None:
            raise ChildDied(NONSENSE)
        if ticket in self._answers:
            self._answer(ticket)
            return
        if ticket not in self._under_way:
            raise ChildDied(NONSENSE)
        self._waits_for = ticket
        self._calls.set_blocked(True)
        self._children.lend()

    def _go_on(self) -> None:
        if self._waits_for is not None:
            self._waits_for = None
            self._children.take_back()
            self._calls.set_blocked(False)

    def _answer(self, ticket: int) -> None:
        answers = self._answers.pop(ticket)
        self._held_bytes -= len(answers)
        said = schema.sandbox.Request.new_message()
        answer = said.init("answer")
        answer.ticket, answer.answers = ticket, answers
        with contextlib.suppress(ChildDied):  # whoever listens to it finds out
            self._child.tell(said)

    def close(self) -> None:
        """Cancel what is under way, and forget what was answered. Idempotent."""
        if self._is_closed:
            return
        self._is_closed = True
        self._go_on()
        for task in list(self._under_way.values()):
            task.cancel()
        self._answers.clear()
        if self._child.is_behind:
            # With an answer that came too late; the next request would come behind it.
            self._child.kill()


def _refused(count: int, why: str, reason: str = "refused") -> bytes:
    return request.write_answers([request.ended(reason, why[:_DETAIL_CHARS_MAX])] * count)
