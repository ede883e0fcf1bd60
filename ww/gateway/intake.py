"""Taking request bodies in: in bounded time, and not too many at a time.

Holds what is being read. Must not know what it means: form.py reads forms, and submit.py takes a task on.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from typing import Final

from starlette.exceptions import HTTPException
from starlette.requests import Request

from ww.errors import Overloaded, WwError
from ww.gateway.form import Form, FormLimits, body_of, open_form
from ww.gateway.upload import Upload

# Of a body that is refused before its end.
_DROPPED_BYTES_MAX: Final = 16 << 20
_DROPPED_S: Final = 2.0


@dataclass(frozen=True, slots=True)
class HttpConfig:
    """What one HTTP client may cost."""

    upload_bytes_max: int = 64 << 20
    """Size of a whole request body."""
    upload_timeout_s: float = 300.0
    """Seconds a request body may take to arrive."""
    uploads_max: int = 256
    """Bodies read at a time; a further one is asked to try again."""
    streams_max: int = 256
    """Streams of events and WebSockets at a time."""
    stream_timeout_s: float = 60.0
    """Seconds after which a client that takes nothing of its stream is dropped."""
    watches_max: int = 64
    """Tasks that one WebSocket watches at a time."""
    messages_max: int = 16
    """Messages of one WebSocket that are worked on at a time; it is not read from meanwhile."""
    peers_max: int = 256
    """Peers connected by WebSocket at a time."""
    batches_max: int = 64
    """Batches read at a time; a further one is asked to try again."""
    batch_timeout_s: float = 3600.0
    """Seconds a batch may take to arrive as lines; it may be silent for upload_timeout_s."""


class Intake:
    """The bodies that are arriving."""

    def __init__(self, config: HttpConfig) -> None:
        self._config = config
        self._count = 0
        self._batches = 0
        self._reading: set[asyncio.Timeout] = set()
        self._is_stopping = False

    def stop(self) -> None:
        """Refuse the bodies that are still arriving, and all that follow."""
        self._is_stopping = True
        for timeout in self._reading:
            timeout.reschedule(asyncio.get_running_loop().time())

    @asynccontextmanager
    async def form(
        self,
        request: Request,
        uploads: Mapping[str, Callable[[], Upload]],
        *,
        part_bytes_max: int = 1 << 20,
        files_bytes_max: int = 0,
        batch_bytes_max: int = 0,
    ) -> AsyncIterator[Form]:
        """Read a form: see form.open_form."""
        limits = FormLimits(self._config.upload_bytes_max, part_bytes_max, files_bytes_max, batch_bytes_max)
        async with AsyncExitStack() as stack:
            # Only while it arrives: what is done with it then waits for the disk, not for the client.
            with self._place():
                async with self._in_time():
                    form = await stack.enter_async_context(open_form(request, limits, uploads))
            yield form

    async def body(self, request: Request, upload: Upload) -> None:
        """Read a whole body into an upload."""
        with self._place():
            async with self._in_time():
                async for chunk in body_of(request, self._config.upload_bytes_max):
                    upload.write(chunk)
                    if upload.is_due:
                        await upload.flush()
                await upload.finish()

    async def whole(self, request: Request, bytes_max: int, option: str) -> bytearray:
        """Read a whole body into memory."""
        body = bytearray()
        with self._place():
            async with self._in_time():
                async for chunk in body_of(request, bytes_max, option):
                    body += chunk
        return body

    @asynccontextmanager
    async def stream(self, request: Request, bytes_max: int, option: str) -> AsyncIterator[AsyncIterator[bytes]]:
        """Give a body as it comes, in the time that a batch may take. Where what is done with it fails, some of what
        follows is dropped first: who is still writing would otherwise not read the answer."""
        with self._place(), self.batch():
            async with self._in_time(self._config.batch_timeout_s):
                body = body_of(request, bytes_max, option)
                try:
                    yield _not_silent(body, self._config.upload_timeout_s)
                except (WwError, HTTPException):
                    await _drop(body)
                    raise

    @contextmanager
    def batch(self) -> Iterator[None]:
        """Count a batch that is being read. Overloaded when there are too many."""
        if self._batches >= self._config.batches_max:
            raise Overloaded(f"{self._batches} batches are being read, the limit (--batches)")
        self._batches += 1
        try:
            yield
        finally:
            self._batches -= 1

    @contextmanager
    def _place(self) -> Iterator[None]:
        if self._count >= self._config.uploads_max:
            raise Overloaded(f"{self._count} uploads are under way, the limit")
        self._count += 1
        try:
            yield
        finally:
            self._count -= 1

    @asynccontextmanager
    async def _in_time(self, timeout_s: float | None = None) -> AsyncIterator[None]:
        timeout_s = self._config.upload_timeout_s if timeout_s is None else timeout_s
        try:
            async with asyncio.timeout(0 if self._is_stopping else timeout_s) as timeout:
                self._reading.add(timeout)
                try:
                    yield
                finally:
                    self._reading.discard(timeout)
        except TimeoutError:
            if self._is_stopping:
                raise HTTPException(503, "this gateway is stopping") from None
            raise HTTPException(408, f"the body took longer than {timeout_s:g} s") from None


async def _not_silent(body: AsyncIterator[bytes], timeout_s: float) -> AsyncIterator[bytes]:
    """Give a body on while something comes. Else a few that stand still had all places, as long as a batch may take."""
    while True:
        try:
            async with asyncio.timeout(timeout_s):
                chunk = await anext(body)
        except StopAsyncIteration:
            return
        except TimeoutError:
            raise HTTPException(408, f"nothing of the body came for {timeout_s:g} s") from None
        yield chunk


async def _drop(body: AsyncIterator[bytes]) -> None:
    """Read on for a while."""
    left = _DROPPED_BYTES_MAX
    with suppress(TimeoutError, HTTPException, RuntimeError):
        async with asyncio.timeout(_DROPPED_S):
            async for chunk in body:
                left -= len(chunk)
                if left < 0:
                    break
