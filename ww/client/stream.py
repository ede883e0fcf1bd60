"""Following a task, over as many connections as it takes: its events here, its results in results.py.

Holds what is asked for, what came, and when it is time to give up. Must not know sockets or time: a shell feeds it
bytes and waits as it says. Source: HTML, 9.2 (server-sent events). docs/http.md: which events there are.
"""

import json
import re
from abc import ABC, abstractmethod
from typing import ClassVar, Final, Generic, TypeVar

from ww.client.answer import Event, Result, Task, read_as
from ww.client.call import Answer, Call, Contact, Failure, error_of, one_line, retry_after_s
from ww.client.operation import task_path
from ww.errors import PeerError, WwError

T = TypeVar("T")

_EVENT_BYTES_MAX: Final = 64 << 20
_LINE_END: Final = re.compile(rb"\r\n|\n|\r")
_POSITION: Final = re.compile(r"[0-9]{1,18}")
SILENCE_S: Final = 45.0
"""How much longer than other answers a stream may be silent: the gateway says something each 15 seconds."""


class Lines:
    """Splits a stream of bytes into events: its name, its id and its data, or None for a comment."""

    def __init__(self, event_bytes_max: int = _EVENT_BYTES_MAX) -> None:
        self._most = event_bytes_max
        self._rest = bytearray()
        self._searched = 0
        self._fields: dict[bytes, bytes] = {}
        self._data: list[bytes] = []
        self._size = 0

    def feed(self, data: bytes) -> list[tuple[str, str | None, str] | None]:
        """Take what came and return what is complete with it."""
        self._rest += data
        found: list[tuple[str, str | None, str] | None] = []
        start = 0
        while (end := _LINE_END.search(self._rest, max(start, self._searched))) is not None:
            if end[0] == b"\r" and end.end() == len(self._rest):
                break  # a line feed may follow
            line = bytes(self._rest[start : end.start()])
            start = self._searched = end.end()
            self._size += len(line)
            if line.startswith(b":"):
                found.append(None)
            elif line:
                self._take(line)
            elif self._data:
                found.append(self._event())
            else:
                self._fields, self._size = {}, 0
        del self._rest[:start]
        self._searched = max(0, len(self._rest) - 1)
        if len(self._rest) + self._size > self._most:
            raise PeerError(f"an event has more than {self._most} bytes, the limit")
        return found

    def _take(self, line: bytes) -> None:
        name, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if name == b"data":
            self._data.append(value)
        elif name in (b"event", b"id"):
            self._fields[name] = value

    def _event(self) -> tuple[str, str | None, str]:
        name = self._fields.get(b"event", b"message").decode(errors="replace")
        position = self._fields.get(b"id")
        text = b"\n".join(self._data).decode(errors="replace")
        self._fields, self._data, self._size = {}, [], 0
        return name, None if position is None else position.decode(errors="replace"), text


class Stream(ABC, Generic[T]):
    """What a task tells. A shell opens `call()` and feeds what comes, until `is_over`."""

    media: ClassVar[str]
    """The content type that is hoped for."""

    def __init__(self, contact: Contact) -> None:
        self._contact = contact
        self._retries = 0
        self._retry_after_s = 0.0
        self._problem: WwError | None = None
        self.is_over = False
        """Whether all was told."""
        self.lacks_end = False
        """Whether the task itself is to be asked for now, and given to `end`."""

    @abstractmethod
    def call(self) -> Call:
        """Return what to open now."""

    @abstractmethod
    def feed(self, data: bytes) -> list[T]:
        """Take a piece of the stream; return what is complete with it."""

    @abstractmethod
    def closed(self) -> None:
        """Take note that the gateway has ended the stream in good order."""

    @abstractmethod
    def end(self, task: Task) -> T | None:
        """Take the task itself, which is asked for when the stream lacks its end."""

    def refused(self, answer: Answer) -> None:
        """Take an answer that is no stream. Raises what it means, unless it is worth another try."""
        self._contact.heard()
        if answer.status == 200:
            raise PeerError(f"the answer is no gateway's: expected {self.media}")
        problem = error_of(answer)
        if (after_s := retry_after_s(answer)) is None:
            raise problem
        self._problem, self._retry_after_s = problem, after_s

    def failed(self, failure: Failure) -> None:
        """Take note that the connection broke, or none came about. Raises when another would break as well."""
        if failure.is_final:
            raise failure.error
        self._problem = failure.error

    def pause_s(self) -> float:
        """Return how long to wait before the next `call`; raise when enough were in vain."""
        retries, self._retries = self._retries, self._retries + 1
        if not self._contact.retries_left(retries):
            raise self._problem or PeerError("the gateway breaks the stream off again and again")
        return self._contact.retry.pause_s(retries, self._retry_after_s)

    def _opened(self) -> None:
        self._problem, self._retry_after_s = None, 0.0


class EventStream(Stream[Event]):
    """One task's events."""

    media = "text/event-stream"

    def __init__(self, id: str, after: int | str | None, contact: Contact) -> None:
        super().__init__(contact)
        self._path = f"{task_path(id)}/events"
        self._position = None if after is None else str(after)
        self._lines = Lines()
        self._task: Task | None = None

    def call(self) -> Call:
        """Return what to open now."""
        self._lines = Lines()
        self._opened()
        headers = {"Accept": self.media, "Cache-Control": "no-store"}
        if self._position is None or self._position == "now":
            query = {} if self._position is None else {"after": self._position}
            return Call("GET", self._path, query, headers, extra_s=SILENCE_S)
        return Call("GET", self._path, {}, headers | {"Last-Event-ID": self._position}, extra_s=SILENCE_S)

    def refused(self, answer: Answer) -> None:
        """Take an answer that is no stream: 204 is the end."""
        if answer.status != 204:
            super().refused(answer)
            return
        self._contact.heard()
        self.is_over = self._task is not None and self._task.has_ended
        self.lacks_end = not self.is_over

    def feed(self, data: bytes) -> list[Event]:
        """Take a piece of the stream; return the events that are complete with it."""
        self._contact.heard()
        events = []
        for said in self._lines.feed(data):
            if said is None:
                self._retries = 0  # it holds, though nothing happens
            elif (event := self._read(*said)) is not None:
                self._retries = 0
                events.append(event)
                if self.is_over:
                    break
        return events

    def end(self, task: Task) -> Event | None:
        """Take the task itself, which is asked for when the stream lacks its end."""
        self.lacks_end = False
        self.is_over = task.has_ended
        is_new = self._task is None or task.status != self._task.status
        self._task = task
        return Event(task=task, position=self._number()) if is_new else None

    def closed(self) -> None:
        """Whether that was the end was told."""

    def _read(self, name: str, position: str | None, text: str) -> Event | None:
        if name not in ("task", "run"):
            return None  # of a newer gateway
        try:
            said = json.loads(text)
        except (ValueError, RecursionError):
            raise PeerError(f"the event is no gateway's: expected JSON, it begins {one_line(text[:40])!r}") from None
        is_further = False
        if position is not None and _POSITION.fullmatch(position):
            is_further, self._position = position != self._position, position
        if name == "run":
            return Event(run=_run(said), position=self._number())
        task = read_as(Task, said)
        self.is_over = task.has_ended
        if self._task is not None and self._task.json == task.json and not is_further:
            return None  # each connection begins with the task, though it be as it was
        self._task = task
        return Event(task=task, position=self._number())

    def _number(self) -> int | None:
        return int(self._position) if self._position is not None and _POSITION.fullmatch(self._position) else None


def _run(said: object) -> Result:
    if isinstance(said, dict) and "attempts" not in said and "attempt" in said:
        said = said | {"attempts": said["attempt"]}  # of the one that begins
    return read_as(Result, said)
