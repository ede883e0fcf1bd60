"""Calls to a gateway as values, what comes of them, and when one is made again.

Holds no I/O: an operation is a generator that yields what it wants done and is sent what came of it; the shells
(sync.py, aio.py) do it. Every call may be repeated, since tasks and modules are named by whoever sends them: a task by
its id, a module by its content.
"""

import json
import random
from collections.abc import AsyncIterator, Callable, Generator, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Protocol, TypeVar

from ww.errors import (
    BadModule,
    Conflict,
    Draining,
    GuestError,
    NotAllowed,
    NotFound,
    Overloaded,
    PeerError,
    RemoteError,
    StoreError,
    UsageError,
    WwError,
)

T = TypeVar("T")
Part = tuple[str, tuple[str | None, bytes]]
"""Of a form: its name, its file name where it is a file, its bytes."""

_TEXT_CHARACTERS_MAX: Final = 1000


class Body(Protocol):
    """What follows the content of a request, made while it is sent."""

    @property
    def is_async(self) -> bool:
        """Whether it comes by async_pieces alone."""

    @property
    def can_send(self) -> bool:
        """Whether it can be had now, or once more."""

    def pieces(self, head: bytes) -> Iterator[bytes]:
        """Yield it, after head."""

    def async_pieces(self, head: bytes) -> AsyncIterator[bytes]:
        """Yield it, after head."""


@dataclass(frozen=True, slots=True)
class Call:
    """One request."""

    method: str
    path: str
    query: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    parts: tuple[Part, ...] = field(default=(), repr=False)
    content: bytes | None = field(default=None, repr=False)
    body: Body | None = field(default=None, repr=False)
    extra_s: float = 0.0
    """How much longer than others the answer may take."""

    @property
    def can_send(self) -> bool:
        """Whether it can be made now, or once more."""
        return self.body is None or self.body.can_send


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back, whatever its status."""

    status: int
    headers: Mapping[str, str]
    """By names in small letters."""
    body: bytes = field(default=b"", repr=False)


@dataclass(frozen=True, slots=True)
class Failure:
    """That nothing came back."""

    error: PeerError
    is_final: bool = False
    """Whether another try would end the same."""


@dataclass(frozen=True, slots=True)
class Pause:
    """A wish to wait."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Work:
    """A wish to have something done that may take a while, off the event loop where there is one."""

    do: Callable[[], Any]


Steps = Generator[Call | Pause | Work, Any, T]


@dataclass(frozen=True, slots=True)
class Retry:
    """How often, and after how long, something is tried again."""

    retries: int = 8
    """Of one call, or of a stream that brings nothing new."""
    first_retries: int | None = None
    """Instead of that, until the gateway has answered once: nobody wants to wait long for a wrong address."""
    first_s: float = 0.1
    """Seconds before the first retry, doubled with each, and halved to whole at random."""
    most_s: float = 5.0
    retry_after_most_s: float = 60.0
    """A Retry-After that is longer is cut to this."""
    chance: Callable[[], float] = random.random

    def pause_s(self, retries: int, retry_after_s: float = 0.0) -> float:
        """Return how long to wait before a retry that so many came before."""
        backoff_s = min(self.most_s, self.first_s * 2.0 ** min(retries, 32))
        return min(self.retry_after_most_s, retry_after_s) + backoff_s * (0.5 + 0.5 * self.chance())


class Contact:
    """One client's dealings with its gateway."""

    def __init__(self, retry: Retry) -> None:
        self.retry = retry
        self._has_answered = False

    def heard(self) -> None:
        """Note that the gateway answers."""
        self._has_answered = True

    def retries_left(self, retries: int) -> bool:
        """Whether there may be one more than so many."""
        retry = self.retry
        first = retry.retries if retry.first_retries is None else min(retry.first_retries, retry.retries)
        return retries < (retry.retries if self._has_answered else first)

    def ask(self, call: Call) -> Steps[Answer]:
        """Make a call, again while it may help; raise what is left of a failure. An answer may have any status.

        What cannot be sent again is not tried again.
        """
        retries = 0
        while True:
            got: Answer | Failure = yield call
            if isinstance(got, Answer):
                self.heard()
                if (after_s := retry_after_s(got)) is None or not (call.can_send and self.retries_left(retries)):
                    return got
            else:
                after_s = 0.0
                if got.is_final or not (call.can_send and self.retries_left(retries)):
                    raise got.error
            yield Pause(self.retry.pause_s(retries, after_s))
            retries += 1

    def json(self, call: Call, *statuses: int) -> Steps[Any]:
        """Make a call that is answered with JSON; raise the error that any other status than those means."""
        answer = yield from self.ask(call)
        if answer.status not in (statuses or (200,)):
            raise error_of(answer)
        return json_of(answer)


def retry_after_s(answer: Answer) -> float | None:
    """Return how many seconds an answer wants to be left alone; None when it is no use to come again."""
    if answer.status in (502, 504):  # of a proxy whose gateway is away
        return 0.0
    if answer.status not in (429, 503) or (text := answer.headers.get("retry-after")) is None:
        return None
    # The other form, a date, needs clocks that agree: taken for "some time".
    return float(text) if text.isascii() and text.isdigit() and len(text) < 10 else 1.0


def json_of(answer: Answer) -> Any:
    """Return the JSON of an answer."""
    try:
        return json.loads(answer.body)
    except (ValueError, RecursionError):
        raise PeerError(f"the answer is no gateway's: expected JSON, it begins {answer.body[:40]!r}") from None


_BY_CODE: Final[dict[str, Callable[[str], WwError]]] = {
    kind.code: kind for kind in (StoreError, NotAllowed, Draining, GuestError, BadModule, RemoteError)
}
_BY_STATUS: Final[dict[int, Callable[[str], WwError]]] = {401: NotAllowed, 403: NotAllowed, 503: StoreError}
_WITH_FIELD: Final[dict[int, type[UsageError]]] = {404: NotFound, 409: Conflict}


def error_of(answer: Answer) -> WwError:
    """Return the error that an answer is, with the gateway's own words where it is a problem (RFC 9457)."""
    try:
        problem = json.loads(answer.body)
    except (ValueError, RecursionError):
        problem = None
    if not isinstance(problem, dict):
        problem = {}
    detail, code, name = (problem.get(key) for key in ("detail", "code", "field"))
    status = answer.status
    if 300 <= status < 400:
        where = one_line(answer.headers.get("location", "nowhere"))
        return PeerError(f"the gateway's address leads on to {where}: name that one instead")
    text = one_line(detail) if isinstance(detail, str) and detail else f"the gateway answered with status {status}"
    if status == 429 or code == Overloaded.code:
        return Overloaded(text, retry_after_s(answer) or 1.0)
    if isinstance(code, str) and code in _BY_CODE:
        return _BY_CODE[code](text)
    if status in _BY_STATUS:
        return _BY_STATUS[status](text)
    if 400 <= status < 500:
        return _WITH_FIELD.get(status, UsageError)(text, name if isinstance(name, str) else None)
    return RemoteError(text)


def one_line(text: str) -> str:
    """Return a stranger's text as one printable line."""
    return "".join(c if c.isprintable() else " " for c in text[:_TEXT_CHARACTERS_MAX])
