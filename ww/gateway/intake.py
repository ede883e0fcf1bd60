"""Taking request bodies in: in bounded time, and not too many at a time.

Holds what is being read. Must not know what it means: form.py reads forms, and submit.py takes a task on.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass

from starlette.exceptions import HTTPException
from starlette.requests import Request

from ww.errors import Overloaded
from ww.gateway.form import Form, FormLimits, body_of, open_form
from ww.gateway.upload import Upload


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


class Intake:
    """The bodies that are arriving."""

    def __init__(self, config: HttpConfig) -> None:
        self._config = config
        self._count = 0
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
    ) -> AsyncIterator[Form]:
        """Read a form: see form.open_form."""
        limits = FormLimits(self._config.upload_bytes_max, part_bytes_max, files_bytes_max)
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
    async def _in_time(self) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(0 if self._is_stopping else self._config.upload_timeout_s) as timeout:
                self._reading.add(timeout)
                try:
                    yield
                finally:
                    self._reading.discard(timeout)
        except TimeoutError:
            if self._is_stopping:
                raise HTTPException(503, "this gateway is stopping") from None
            late = f"the body took longer than {self._config.upload_timeout_s:g} s"
            raise HTTPException(408, late) from None
