"""Following a task's results, over as many connections as it takes.

Holds what is asked for, what came, and when it was all. Must not know sockets or time: see stream.py. What a line
says: docs/http.md.
"""

import json
from typing import Final, Literal, get_args

from ww.client.answer import Result, Task, read_as
from ww.client.call import Call, Contact, one_line
from ww.client.operation import task_path
from ww.client.stream import SILENCE_S, Stream
from ww.errors import PeerError, UsageError

Order = Literal["completion", "input"]

_ORDERS: Final = get_args(Order)
_LINE_BYTES_MAX: Final = 64 << 20


class ResultStream(Stream[Result]):
    """One task's results, each once."""

    media = "application/x-ndjson"

    def __init__(self, id: str, order: Order, after: int | None, contact: Contact) -> None:
        super().__init__(contact)
        if order not in _ORDERS:
            raise UsageError(f"order: {str(order)[:40]!r} is not one of {' '.join(_ORDERS)}", "order")
        if after is not None and (not isinstance(after, int) or isinstance(after, bool)):
            raise UsageError(f"after: expected a whole number, not {type(after).__name__}", "after")
        self._path = f"{task_path(id)}/results"
        self._order = order
        # Nothing has a number below zero.
        self._after = after if after is not None and after >= 0 else None
        self._is_from_start = self._after is None
        self._count = self._count_before = 0
        self._repeats = 0
        self._rest = bytearray()
        self._has_ended = False

    def call(self) -> Call:
        """Return what to open now."""
        self._opened()
        self._rest.clear()
        self._count_before = self._count
        query = {"order": self._order, "follow": "true"} | ({} if self._after is None else {"after": str(self._after)})
        return Call("GET", self._path, query, {"Accept": self.media}, extra_s=SILENCE_S)

    def feed(self, data: bytes) -> list[Result]:
        """Take a piece of the stream; return the results that are complete with it."""
        self._contact.heard()
        *lines, rest = data.split(b"\n")
        if lines:
            lines[0] = bytes(self._rest) + lines[0]
            self._rest.clear()
        self._rest += rest
        if len(self._rest) > _LINE_BYTES_MAX:
            raise PeerError(f"a result has more than {_LINE_BYTES_MAX} bytes, the limit")
        found = []
        for line in lines:
            self._retries = 0  # it holds, though the line be empty
            if line.strip() and (result := self._read(line)) is not None:
                found.append(result)
        return found

    def closed(self) -> None:
        """Ask what that was: the end, or a gateway that stops."""
        if self._has_ended:
            # This connection was opened when no more results could come about.
            self.is_over = self._count == self._count_before or self._has_all()
        else:
            self.lacks_end = True

    def end(self, task: Task) -> None:
        """Take the task itself: of one that has ended there may still be results that were not told."""
        self.lacks_end = False
        self._has_ended = task.has_ended
        self._repeats = task.repeats
        self.is_over = task.has_ended and self._has_all()

    def pause_s(self) -> float:
        """Return how long to wait before the next `call`; not at all for the rest of a task that has ended."""
        return 0.0 if self._has_ended and self._problem is None else super().pause_s()

    def _has_all(self) -> bool:
        return self._is_from_start and self._count >= self._repeats

    def _read(self, line: bytes) -> Result | None:
        try:
            said = json.loads(line)
        except (ValueError, RecursionError):
            shown = one_line(line[:40].decode(errors="replace"))
            raise PeerError(f"the result is no gateway's: expected JSON, it begins {shown!r}") from None
        result = read_as(Result, said)
        place = result.position if self._order == "completion" else result.run
        if self._after is not None and place <= self._after:
            return None  # it was told
        self._after = place
        self._count += 1
        return result
