"""Answers that go on: as many as there may be, each as slow as its reader; server-sent events and lines of JSON.

Holds what streams over HTTP and WebSockets share, and those that HTTP has. Must not know what is told: events.py and
results.py of a task, grid.py of its runs as a grid, live.py of the cluster. Source: HTML Living
Standard, 9.2, Server-sent events.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Iterator, Sequence
from contextlib import aclosing, asynccontextmanager, contextmanager
from typing import Any, Final

import orjson
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from ww.errors import ClosedError, NotFound, Overloaded, StoreError, UsageError
from ww.gateway.caller import caller_now
from ww.gateway.events import Event, Reader
from ww.gateway.grid import GridReader
from ww.gateway.live import ClusterReader, Live
from ww.gateway.openapi import LINES_TYPE
from ww.gateway.request import shown
from ww.gateway.results import ResultReader
from ww.gateway.server import ABORT
from ww.gateway.view import told_json
from ww.gateway.watch import Watch, Watches

log = logging.getLogger("ww.gateway")

_IDLE_S: Final = 15.0
_HEADERS: Final = {
    "Cache-Control": "no-store",
    "X-Accel-Buffering": "no",  # a proxy in front is not to hold anything back
}
_EVENTS: Final = "text/event-stream; charset=utf-8"

_POSITION_DIGITS: Final = 18


class Streams:
    """The streams that are open."""

    def __init__(self, *, count_max: int, timeout_s: float) -> None:
        self._count_max = count_max
        self._timeout_s = timeout_s
        self.count = 0
        self._turn = asyncio.Lock()

    @contextmanager
    def place(self) -> Iterator[None]:
        """Count one. Overloaded when there are too many."""
        if self.count >= self._count_max:
            raise Overloaded(f"{self.count} streams and WebSockets are open, the limit (--streams)", 5)
        self.count += 1
        try:
            yield
        finally:
            self.count -= 1

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Wait for a turn at what takes milliseconds. One reader has it in one round of the loop.

        So what others ask meanwhile is answered as soon with many readers as with one.
        """
        async with self._turn:
            await asyncio.sleep(0)
            yield

    async def send(self, scope: Scope, send: Send, message: Message) -> None:
        """Send, and cut the connection of a client that does not take it in time. OSError when it is gone."""
        try:
            async with asyncio.timeout(self._timeout_s):
                await send(message)
        except TimeoutError:
            if (abort := scope.get("extensions", {}).get(ABORT)) is not None:
                abort()
            raise ConnectionAbortedError from None


class _Stream(Response):
    """An answer that goes on."""

    def __init__(self, kind: str, streams: Streams) -> None:
        super().__init__(None, headers=_HEADERS | {"Content-Type": kind})
        del self.headers["content-length"]
        self._streams = streams

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        start = {"type": "http.response.start", "status": 200, "headers": self.raw_headers}
        if scope["method"] == "HEAD":
            await send(start)
            await send({"type": "http.response.body"})
            return
        with self._streams.place():

            async def sending(message: Message) -> None:
                await self._streams.send(scope, send, message)

            await sending(start)
            await until_gone(self._tell(scope, sending), receive)

    async def _tell(self, scope: Scope, send: Send) -> None:
        async with aclosing(self._bodies(scope)) as bodies:
            async for body in bodies:
                if caller_now(scope) is None:
                    self._cut(scope)
                    break
                await send({"type": "http.response.body", "body": body, "more_body": True})
        await send({"type": "http.response.body"})

    def _bodies(self, scope: Scope) -> AsyncGenerator[bytes]:
        """Give what is told, to its end."""
        raise NotImplementedError

    def _cut(self, scope: Scope) -> None:
        """Break off before the end."""


class _TaskStream(_Stream):
    """What is told of a task to a reader that looks for itself whenever it is woken."""

    def __init__(self, kind: str, watches: Watches, id: str, streams: Streams) -> None:
        super().__init__(kind, streams)
        self._watches = watches
        self._id = id

    async def _bodies(self, scope: Scope) -> AsyncGenerator[bytes]:
        with self._watches.open(self._id) as watch:
            async with aclosing(self._told(watch)) as told:
                async for body in told:
                    yield body

    def _told(self, watch: Watch) -> AsyncGenerator[bytes]:
        """Give what is told, to its end."""
        raise NotImplementedError


class EventStream(_TaskStream):
    """What happens to a task, as server-sent events."""

    def __init__(self, reader: Reader, watches: Watches, id: str, streams: Streams) -> None:
        super().__init__(_EVENTS, watches, id, streams)
        self._reader = reader

    async def _told(self, watch: Watch) -> AsyncGenerator[bytes]:
        async for events in self._reader.events(watch, idle_s=_IDLE_S):
            if not events:
                yield b":\n\n"
                continue
            async with self._streams.turn():
                body = b"".join(map(_lines, events))
            del events
            yield body


class ResultStream(_TaskStream):
    """Results of a task, a line of JSON each.

    The end of the answer says that it was all: what breaks off before is cut, so that nobody takes it for that.
    """

    def __init__(self, reader: ResultReader, watches: Watches, id: str, streams: Streams) -> None:
        super().__init__(LINES_TYPE, watches, id, streams)
        self._reader = reader

    async def _tell(self, scope: Scope, send: Send) -> None:
        try:
            await super()._tell(scope, send)
        except (ClosedError, NotFound, StoreError) as error:
            if not isinstance(error, ClosedError):
                log.error("results of %s break off: %s", shown(self._id), error)
            self._cut(scope)

    async def _told(self, watch: Watch) -> AsyncGenerator[bytes]:
        async for page in self._reader.pages(watch, idle_s=_IDLE_S):
            if not page:
                yield b"\n"
                continue
            async with self._streams.turn():
                body = b"".join([_line(told_json(told, self._id)) for told in page])
            del page
            yield body

    def _cut(self, scope: Scope) -> None:
        _abort(scope)


class GridStream(_Stream):
    """A task's runs as a grid, as server-sent events. What breaks off before the task's end is cut."""

    def __init__(self, reader: GridReader, streams: Streams) -> None:
        super().__init__(_EVENTS, streams)
        self._reader = reader

    async def _tell(self, scope: Scope, send: Send) -> None:
        try:
            await super()._tell(scope, send)
        except StoreError:
            _abort(scope)

    async def _bodies(self, scope: Scope) -> AsyncGenerator[bytes]:
        async with aclosing(self._reader.events(idle_s=_IDLE_S)) as told:
            async for events in told:
                yield _blocks(events)


class ClusterStream(_Stream):
    """What happens in the cluster, as server-sent events."""

    def __init__(self, live: Live, streams: Streams) -> None:
        super().__init__(_EVENTS, streams)
        self._live = live

    async def _bodies(self, scope: Scope) -> AsyncGenerator[bytes]:
        # Its rights may change while it listens.
        reader = ClusterReader(self._live, lambda: caller_now(scope))
        async with aclosing(reader.events(idle_s=_IDLE_S)) as told:
            async for events in told:
                yield _blocks(events)


def _abort(scope: Scope) -> None:
    """Cut the connection."""
    if (abort := scope.get("extensions", {}).get(ABORT)) is not None:
        abort()
    raise ConnectionAbortedError


async def until_gone(work: Awaitable[None], receive: Receive) -> None:
    """Do work until it ends or the client is gone."""

    async def gone() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass

    working, going = asyncio.ensure_future(work), asyncio.ensure_future(gone())
    try:
        await asyncio.wait((working, going), return_when=asyncio.FIRST_COMPLETED)
        if working.done() and (error := working.exception()) is not None and not isinstance(error, OSError):
            raise error
    finally:
        for each in (working, going):
            each.cancel()
        await asyncio.gather(working, going, return_exceptions=True)


def _line(value: dict[str, Any]) -> bytes:
    return orjson.dumps(value, option=orjson.OPT_APPEND_NEWLINE)


def _blocks(events: Sequence[tuple[str, bytes]]) -> bytes:
    """Return events, whose data is JSON, without a position; a comment where there are none."""
    return b"".join([b"event: %b\ndata: %b\n\n" % (kind.encode(), data) for kind, data in events]) or b":\n\n"


def _lines(event: Event) -> bytes:
    return b"event: %b\nid: %d\ndata: %b\n\n" % (event.kind.encode(), event.position, orjson.dumps(event.data))


def position_of(request: Request) -> tuple[int | None, bool]:
    """Return after which position a stream goes on, None: with what comes, and whether it says so."""
    # What a browser adds when it comes back counts more than what the page once asked for.
    text = request.headers.get("last-event-id", request.query_params.get("after"))
    return (0, False) if text is None else (read_position(text), text != "now")


def read_position(text: str) -> int | None:
    """Read a position, None for now."""
    if text == "now":
        return None
    if text.isascii() and text.isdigit() and len(text) <= _POSITION_DIGITS:
        return int(text)
    raise UsageError(f"after: {shown(text)} is neither a position, a whole number, nor now", "after")
