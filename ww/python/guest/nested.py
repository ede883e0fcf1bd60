"""Calls that a run makes of functions that were granted to it: tickets, and futures of what comes of them.

Must not know how a job looks to its user: shim.py.
"""

import asyncio
import concurrent.futures
from collections.abc import Callable, Generator, Iterable, Sequence
from typing import Any, Final, Protocol

from ww.errors import NotGranted, RunFailed
from ww.python.guest.loop import SandboxLoop
from ww.python.outcome import Ended, value_of
from ww.python.request import (
    REQUESTS_MAX,
    TICKET_BYTES_MAX,
    Answer,
    AnswerKind,
    read_answers,
    read_ended,
    write_requests,
)
from ww.python.tags import Classes

_NOTHING: Final = object()
# The count of the requests, and the length of each.
_FRAME_BYTES: Final = 4


class Host(Protocol):
    """What the sandbox does for the guest: world.wit's interface jobs."""

    def start(self, name: str, requests: bytes) -> int:
        """Begin calls; return a ticket."""

    def wait(self, ticket: int) -> bytes:
        """Block until they have ended; return their answers."""


class Calls:
    """What one run may call."""

    def __init__(self, host: Host, grants: Sequence[str], classes: Classes) -> None:
        """grants: the names of the functions. classes: what results may be made of."""
        self._host = host
        self._grants = frozenset(grants)
        self.classes = classes

    def start(self, name: str, requests: Iterable[bytes], *, trust: bool) -> "list[NestedFuture]":
        """Begin calls of a function. Raises NotGranted where it may not be called, before any of them begins."""
        shown = name.partition(":")[2]
        if name not in self._grants:
            raise NotGranted(f"{shown} is not granted to this job; expected grants=[{shown}] where it is defined")
        futures: list[NestedFuture] = []
        for group in _groups(requests):
            ticket = _Ticket(self._host, self._host.start(name, write_requests(group)), len(group))
            futures += [NestedFuture(self, ticket, number, shown, trust) for number in range(len(group))]
        return futures


def _groups(requests: Iterable[bytes]) -> Iterable[list[bytes]]:
    group: list[bytes] = []
    size = _FRAME_BYTES
    for request in requests:
        needed = len(request) + _FRAME_BYTES
        if group and (len(group) == REQUESTS_MAX or size + needed > TICKET_BYTES_MAX):
            yield group
            group, size = [], _FRAME_BYTES
        group.append(request)
        size += needed
    if group:
        yield group


class _Ticket:
    def __init__(self, host: Host, number: int, count: int) -> None:
        self._host = host
        self._number = number
        self._count = count
        self._answers: list[Answer] | None = None

    def answer(self, number: int) -> Answer:
        if self._answers is None:
            answers = read_answers(self._host.wait(self._number))
            if len(answers) != self._count:
                raise RunFailed(f"{self._count} calls have {len(answers)} answers")
            self._answers = answers
        return self._answers[number]


class NestedFuture:
    """What will come of a call. Asking whether it is done waits for it: nothing else can happen meanwhile."""

    stdout: Final = ""

    def __init__(self, calls: Calls, ticket: _Ticket, number: int, name: str, trust: bool) -> None:
        self._calls = calls
        self._ticket: _Ticket | None = ticket
        self._number = number
        self._name = name
        self._trust = trust
        self._value: Any = None
        self._error: BaseException | None = None
        self._callbacks: list[Callable[[NestedFuture], Any]] = []

    def _settle(self) -> None:
        if (ticket := self._ticket) is None:
            return
        try:
            ended = _ended(ticket.answer(self._number))
            self._value = value_of(ended, self._name, self._calls.classes, trust=self._trust)
        except Exception as error:
            self._error = error
        self._finish()

    def _finish(self) -> None:
        self._ticket = None
        callbacks, self._callbacks = self._callbacks, []
        for callback in callbacks:
            callback(self)

    def result(self, timeout: float | None = None) -> Any:
        """Return what the call returned; raise what it raised, or why it did neither. It waits however long."""
        self._settle()
        if self._error is not None:
            raise self._error
        return self._value

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """Return what the call raised."""
        self._settle()
        if self.cancelled():
            raise concurrent.futures.CancelledError
        return self._error

    def done(self) -> bool:
        """Wait, and return True."""
        self._settle()
        return True

    def running(self) -> bool:
        """Return False: whoever asks was waiting."""
        self._settle()
        return False

    def try_get(self, default: Any = None) -> Any:
        """Return what result does: it waits here."""
        return self.result()

    def cancel(self) -> bool:
        """Do without the result. The call ends with this run at the latest."""
        if self._ticket is not None:
            self._error = concurrent.futures.CancelledError()
            self._finish()
        return self.cancelled()

    def cancelled(self) -> bool:
        """Return whether it was cancelled."""
        return isinstance(self._error, concurrent.futures.CancelledError)

    def add_done_callback(self, function: "Callable[[NestedFuture], Any]") -> None:
        """Call a function with this future when it was waited for; now, where that is done."""
        if self._ticket is None:
            function(self)
        else:
            self._callbacks.append(function)

    def __await__(self) -> Generator[Any, None, Any]:
        if self._ticket is not None and isinstance(loop := asyncio.get_running_loop(), SandboxLoop):
            yield from loop.when_idle(self._settle).__await__()
        return self.result()


def _ended(answer: Answer) -> Ended:
    if answer.kind is AnswerKind.ENDED:
        reason, detail = read_ended(answer.body)
        return Ended(reason, detail)
    if answer.kind is AnswerKind.VALUE:
        return Ended("ok", "", 0, answer.body)
    return Ended("exit", "", 1, answer.body)
