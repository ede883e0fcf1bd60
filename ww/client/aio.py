"""The client for asyncio.

Holds the shell that makes calls with httpx and waits with asyncio.sleep; it says nothing that sync.py does not, whose
docstrings hold here.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from types import TracebackType
from typing import Any, Self, TypeVar, Unpack

import httpx

from ww.client.answer import Event, Health, Readiness, Result, Task, Worker
from ww.client.batch import Runs
from ww.client.call import Answer, Body, Call, Contact, Failure, Pause, Retry, Steps
from ww.client.operation import Operations, Pages
from ww.client.results import Order, ResultStream
from ww.client.stream import EventStream, Stream
from ww.client.submission import Source, TaskFields
from ww.client.wire import ANSWER_BYTES_MAX, DEFAULT_URL, Settings, Verify, Wire, is_stream

T = TypeVar("T")


class AsyncClient:
    """Client for asyncio: the same methods, to be awaited; lists and events are asynchronous iterators.

    Use it with `async with`, or close it with aclose. It belongs to one event loop.
    """

    def __init__(
        self,
        url: str = DEFAULT_URL,
        *,
        token: str | None = None,
        retry: Retry | None = None,
        timeout_s: float = 30.0,
        connect_timeout_s: float = 5.0,
        verify: Verify = True,
        insecure: bool = False,
        answer_bytes_max: int = ANSWER_BYTES_MAX,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        """Make one; nothing is sent yet.

        url: of the gateway, http or https, whose redirects are not followed. token: goes there alone, and over plain
        http to this machine only, unless insecure. retry: how often a call is made again. timeout_s: seconds without a
        byte, beyond those that a call is meant to take. verify: a file of certificates to trust in place of the usual
        ones, or a context. answer_bytes_max: of one answer. transport: in place of httpx's own.
        """
        self._wire = Wire(Settings(url, token, connect_timeout_s, timeout_s, verify, insecure, answer_bytes_max))
        self._contact = Contact(retry or Retry())
        self._operations = Operations(self._contact, time.monotonic)
        self._http = httpx.AsyncClient(**self._wire.client_options(), transport=transport)

    async def submit(self, wasm: Source, *, wait_s: float = 0.0, **fields: Unpack[TaskFields]) -> Task:
        """Submit a task: see Client.submit."""
        return await self._run(self._operations.submit(wasm, fields, wait_s))

    async def run(self, wasm: Source, **fields: Unpack[TaskFields]) -> AsyncGenerator[Result, None]:
        """Submit a task and yield its results as they come, to its end: see Client.run."""
        task = await self._run(self._operations.run(wasm, fields))
        if task.has_all_results:
            for result in reversed(task.results):
                yield result
            return
        async with aclosing(self.stream(task.id)) as results:
            async for result in results:
                yield result

    async def submit_batch(self, wasm: Source, runs: Runs, **fields: Unpack[TaskFields]) -> Task:
        """Submit one task of many runs: see Client.submit_batch. They may come asynchronously."""
        return await self._run(self._operations.submit_batch(wasm, runs, fields))

    async def task(self, id: str) -> Task:
        """Return a task as it is now."""
        return await self._run(self._operations.task(id))

    def tasks(
        self, *, status: str | None = None, limit: int | None = None, after: str | None = None
    ) -> AsyncIterator[Task]:
        """List tasks, newest first, page by page: those of a status, at most limit, older than the task after."""
        return self._pages(self._operations.tasks(status, limit, after))

    async def wait(self, id: str, timeout_s: float | None = None) -> Task:
        """Return a task when it has ended, or as it is when that time is over (`has_ended` tells)."""
        return await self._run(self._operations.wait(id, timeout_s))

    def results(self, id: str, *, after: int | None = None, limit: int | None = None) -> AsyncIterator[Result]:
        """List a task's results by run number, page by page, from the run behind after."""
        return self._pages(self._operations.results(id, after, limit))

    async def result(self, id: str, run: int) -> Result:
        """Return one run's result, or its state alone while it has none."""
        return await self._run(self._operations.result(id, run))

    async def artifacts(self, id: str, run: int) -> bytes:
        """Return the zip of what a run left. NotFound when it left nothing."""
        return await self._run(self._operations.artifacts(id, run))

    def events(self, id: str, *, after: int | str | None = None) -> AsyncGenerator[Event, None]:
        """Follow a task to its end, over lost connections and restarts of the gateway: see Client.events."""
        return self._follow(id, EventStream(id, after, self._contact))

    def stream(self, id: str, *, order: Order = "completion", after: int | None = None) -> AsyncGenerator[Result, None]:
        """Yield a task's results as they come, to its end: see Client.stream."""
        return self._follow(id, ResultStream(id, order, after, self._contact))

    async def cancel(self, id: str) -> Task:
        """Cancel a task and return it; one that has ended stays as it is."""
        return await self._run(self._operations.cancel(id))

    async def upload(self, wasm: Source) -> str:
        """Have a module stored, sending it only when it is not there; return its digest, for submit."""
        return await self._run(self._operations.upload(wasm))

    async def workers(self) -> list[Worker]:
        """Return the workers that are registered."""
        return await self._run(self._operations.workers())

    async def ready(self) -> Readiness:
        """Return whether the gateway can work, and what is missing."""
        return await self._run(self._operations.ready())

    async def health(self) -> Health:
        """Return who the gateway is."""
        return await self._run(self._operations.health())

    async def aclose(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    def __repr__(self) -> str:
        return f"AsyncClient({self._wire!r})"

    # The shell.

    async def _run(self, steps: Steps[T]) -> T:
        came: Any = None
        while True:
            try:
                step = steps.send(came)
            except StopIteration as end:
                value: T = end.value
                return value
            if isinstance(step, Call):
                came = await self._send(step)
            elif isinstance(step, Pause):
                await asyncio.sleep(step.seconds)
                came = None
            else:
                came = await asyncio.to_thread(step.do)

    async def _send(self, call: Call) -> Answer | Failure:
        try:
            request = self._wire.request(call)
            if call.body is not None:
                request["content"] = _pieces(call.body, call.content or b"")
            async with self._http.stream(**request) as response:
                return await self._answer(response)
        except httpx.HTTPError as error:
            return self._wire.failure(error)

    async def _answer(self, response: httpx.Response) -> Answer:
        body = bytearray()
        async for piece in response.aiter_bytes():
            self._wire.collect(body, piece)
        return self._wire.answer(response, body)

    async def _pages(self, pages: Pages[T]) -> AsyncIterator[T]:
        while not pages.is_over:
            for each in await self._run(pages.page()):
                yield each

    async def _follow(self, id: str, stream: Stream[T]) -> AsyncGenerator[T, None]:
        while not stream.is_over:
            async with aclosing(self._stream(stream)) as found:
                async for each in found:
                    yield each
            if stream.lacks_end and (last := stream.end(await self.task(id))) is not None:
                yield last
            if not stream.is_over:
                await asyncio.sleep(stream.pause_s())

    async def _stream(self, stream: Stream[T]) -> AsyncGenerator[T, None]:
        try:
            async with self._http.stream(**self._wire.request(stream.call())) as response:
                if not is_stream(response, stream.media):
                    stream.refused(await self._answer(response))
                    return
                async for piece in response.aiter_bytes():
                    for each in stream.feed(piece):
                        yield each
                    if stream.is_over:
                        return
                stream.closed()
        except httpx.HTTPError as error:
            stream.failed(self._wire.failure(error))


async def _pieces(body: Body, head: bytes) -> AsyncIterator[bytes]:
    """Yield a body; what is iterated over in the usual way may take its time, and does so in a thread."""
    if body.is_async:
        async for piece in body.async_pieces(head):
            yield piece
        return
    pieces = body.pieces(head)
    while (next_piece := await asyncio.to_thread(next, pieces, None)) is not None:
        yield next_piece
