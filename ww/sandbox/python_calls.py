"""What a Python guest may ask of the cluster: calls of functions, which it begins, and whose answers it waits for.

Holds the guest's side: tickets, how many and how large, and what there is for who may not call. Must not know who
answers, nor the wire to it: executor.py gives an `Asking`. Source: ww/python/world.wit; ww/python/request.py.
"""

import struct
from typing import Any, Final, Protocol

from ww.python import request
from ww.sandbox.calls import NAME_BYTES_MAX, TICKETS_MAX
from ww.sandbox.python_host import Host, Known
from ww.sandbox.wasi_host import Watch
from ww.sandbox.wasi_originals import Ended

_REFUSED: Final = "calls are not answered here"
_TOO_MANY: Final = f"a run waits for at most {TICKETS_MAX} calls at a time"


class Asking(Protocol):
    """The way to who answers, for one run."""

    def begin(self, ticket: int, name: str, requests: bytes) -> None:
        """Have calls made, whose answers go by that ticket."""

    def wait(self, ticket: int, watch: Watch) -> bytes | None:
        """Return the answers when they are there; None when the run was over before."""


class Tickets:
    """What one run has asked for."""

    def __init__(self, asking: Asking | None) -> None:
        """Without asking, every call is refused."""
        self._asking = asking
        self._last = 0
        self._open: dict[int, tuple[str, int] | None] = {}
        """Of those that were refused, why, and how many calls they were of."""

    def start(self, name: str, requests: bytes, count: int) -> int:
        """Begin calls; return their ticket."""
        self._last += 1
        ticket = self._last
        if len(self._open) >= TICKETS_MAX or self._asking is None:
            # Those too are counted, and many of them are a loop that never waits.
            if len(self._open) >= 10 * TICKETS_MAX:
                raise Ended(_TOO_MANY)
            self._open[ticket] = _REFUSED if self._asking is None else _TOO_MANY, count
        else:
            self._open[ticket] = None
            self._asking.begin(ticket, name, requests)
        return ticket

    def wait(self, ticket: int, watch: Watch) -> bytes | None:
        """Return the answers, or None when the run is over."""
        if ticket not in self._open:
            raise Ended(f"there is no ticket {ticket}")
        refused = self._open.pop(ticket)
        if refused is not None:
            why, count = refused
            return request.write_answers([request.ended("refused", why)] * count)
        assert self._asking is not None
        return self._asking.wait(ticket, watch)


class Jobs:
    """The functions, for one host."""

    def __init__(self, host: Host) -> None:
        self._host = host

    def known(self, interface: str, name: str, realloc: Any) -> Known | None:
        """Return a function by its interface and name; None when it is not here."""
        if interface != "ww:python/jobs":
            return None
        wait = Known("ii", "", lambda ticket, at: self._wait(realloc, ticket, at))
        return {"start": Known("iiii", "i", self._start), "wait": wait}.get(name)

    def _start(self, name: int, name_size: int, requests: int, requests_size: int) -> int:
        host = self._host
        try:
            text = host.read(name, name_size, NAME_BYTES_MAX, "the name of a function").decode()
        except UnicodeDecodeError:
            raise Ended("the name of a function is no UTF-8") from None
        data = host.read(requests, requests_size, request.TICKET_BYTES_MAX, "what calls are given")
        count = struct.unpack_from("<I", data)[0] if len(data) >= 4 else 0
        if not 0 < count <= request.REQUESTS_MAX:
            raise Ended(f"{count} calls are begun at once; expected 1 to {request.REQUESTS_MAX}")
        ticket: int = host.run.calls.start(text, data, count)
        return ticket

    def _wait(self, realloc: Any, ticket: int, at: int) -> None:
        host = self._host
        answers = host.run.calls.wait(ticket, host.run.watch)
        if answers is None:
            host.run.end_if_over()
            raise Ended("its calls were given up")
        where = host.give(realloc, answers)
        host.write(at, struct.pack("<II", where, len(answers)))
