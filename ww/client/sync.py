"""The client for code without an event loop.

Holds the shell that makes calls with httpx and waits with time.sleep. What is called, and when again: operation.py,
call.py.
"""

import time
from collections.abc import Iterator
from types import TracebackType
from typing import Any, Self, TypeVar, Unpack

import httpx

from ww.client.answer import Event, Health, Readiness, Result, Task, Worker
from ww.client.batch import Runs
from ww.client.call import Answer, Call, Contact, Failure, Pause, Retry, Steps
from ww.client.operation import Operations, Pages
from ww.client.results import Order, ResultStream
from ww.client.stream import EventStream, Stream
from ww.client.submission import Source, TaskFields
from ww.client.wire import ANSWER_BYTES_MAX, DEFAULT_URL, Settings, Verify, Wire, is_stream

T = TypeVar("T")


class Client:
    """A gateway's HTTP interface. Use it with `with`, or close it.

    Threads may share one, as they may share an httpx.Client, which is what it holds; an iterator is one thread's.
    Methods raise ww.errors.WwError alone: NotFound, Conflict and other UsageErrors (`field` names the field),
    NotAllowed, Overloaded, StoreError as the gateway answers, PeerError when it does not.
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
        transport: httpx.BaseTransport | None = None,
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
        self._http = httpx.Client(**self._wire.client_options(), transport=transport)

    def submit(self, wasm: Source, *, wait_s: float = 0.0, **fields: Unpack[TaskFields]) -> Task:
        """Submit a task: wasm is a path, the bytes, or the text sha256:HEX of a module that is there.

        The task's id is made here when none is given, so that one whose answer is lost is not submitted twice. wait_s:
        whole seconds, at most 30, that the answer may wait for the task's end, so that a short one comes with its
        results (`has_all_results` tells).
        """
        return self._run(self._operations.submit(wasm, fields, wait_s))

    def run(self, wasm: Source, **fields: Unpack[TaskFields]) -> Iterator[Result]:
        """Submit a task and yield its results as they come, to its end: of one short run in one request.

        Nothing is sent before the first result is asked for. The `position` of a result may not be said.
        """
        task = self._run(self._operations.run(wasm, fields))
        yield from reversed(task.results) if task.has_all_results else self.stream(task.id)

    def submit_batch(self, wasm: Source, runs: Runs, **fields: Unpack[TaskFields]) -> Task:
        """Submit one task of many runs, each given as its fields, or as its stdin alone; fields are all runs'.

        They are sent while they come, and never held. What can be iterated over anew, as a list, is sent again when the
        connection breaks; of an iterator only so much is known then: whether the task is there.
        """
        return self._run(self._operations.submit_batch(wasm, runs, fields))

    def task(self, id: str) -> Task:
        """Return a task as it is now."""
        return self._run(self._operations.task(id))

    def tasks(self, *, status: str | None = None, limit: int | None = None, after: str | None = None) -> Iterator[Task]:
        """List tasks, newest first, page by page: those of a status, at most limit, older than the task after."""
        return self._pages(self._operations.tasks(status, limit, after))

    def wait(self, id: str, timeout_s: float | None = None) -> Task:
        """Return a task when it has ended, or as it is when that time is over (`has_ended` tells)."""
        return self._run(self._operations.wait(id, timeout_s))

    def results(self, id: str, *, after: int | None = None, limit: int | None = None) -> Iterator[Result]:
        """List a task's results by run number, page by page, from the run behind after."""
        return self._pages(self._operations.results(id, after, limit))

    def result(self, id: str, run: int) -> Result:
        """Return one run's result, or its state alone while it has none."""
        return self._run(self._operations.result(id, run))

    def artifacts(self, id: str, run: int) -> bytes:
        """Return the zip of what a run left. NotFound when it left nothing."""
        return self._run(self._operations.artifacts(id, run))

    def events(self, id: str, *, after: int | str | None = None) -> Iterator[Event]:
        """Follow a task to its end, over lost connections and restarts of the gateway.

        after: the position of the last event seen, or "now". Every run that ends is told once, and the task whenever it
        changes. An error is raised when retry.retries connections in a row brought nothing new.
        """
        return self._follow(id, EventStream(id, after, self._contact))

    def stream(self, id: str, *, order: Order = "completion", after: int | None = None) -> Iterator[Result]:
        """Yield a task's results as they come, to its end, over lost connections and restarts of the gateway.

        order: "completion", or "input", by which a run comes when all before it have. after: the `position` of the last
        result that was seen, in the order of input its `run`. An error is raised as by events.
        """
        return self._follow(id, ResultStream(id, order, after, self._contact))

    def cancel(self, id: str) -> Task:
        """Cancel a task and return it; one that has ended stays as it is."""
        return self._run(self._operations.cancel(id))

    def upload(self, wasm: Source) -> str:
        """Have a module stored, sending it only when it is not there; return its digest, for submit."""
        return self._run(self._operations.upload(wasm))

    def workers(self) -> list[Worker]:
        """Return the workers that are registered."""
        return self._run(self._operations.workers())

    def ready(self) -> Readiness:
        """Return whether the gateway can work, and what is missing."""
        return self._run(self._operations.ready())

    def health(self) -> Health:
        """Return who the gateway is."""
        return self._run(self._operations.health())

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Client({self._wire!r})"

    # The shell.

    def _run(self, steps: Steps[T]) -> T:
        came: Any = None
        while True:
            try:
                step = steps.send(came)
            except StopIteration as end:
                value: T = end.value
                return value
            if isinstance(step, Call):
                came = self._send(step)
            elif isinstance(step, Pause):
                time.sleep(step.seconds)
                came = None
            else:
                came = step.do()

    def _send(self, call: Call) -> Answer | Failure:
        try:
            request = self._wire.request(call)
            if call.body is not None:
                request["content"] = call.body.pieces(call.content or b"")
            with self._http.stream(**request) as response:
                return self._answer(response)
        except httpx.HTTPError as error:
            return self._wire.failure(error)

    def _answer(self, response: httpx.Response) -> Answer:
        body = bytearray()
        for piece in response.iter_bytes():
            self._wire.collect(body, piece)
        return self._wire.answer(response, body)

    def _pages(self, pages: Pages[T]) -> Iterator[T]:
        while not pages.is_over:
            yield from self._run(pages.page())

    def _follow(self, id: str, stream: Stream[T]) -> Iterator[T]:
        while not stream.is_over:
            yield from self._stream(stream)
            if stream.lacks_end and (last := stream.end(self.task(id))) is not None:
                yield last
            if not stream.is_over:
                time.sleep(stream.pause_s())

    def _stream(self, stream: Stream[T]) -> Iterator[T]:
        try:
            with self._http.stream(**self._wire.request(stream.call())) as response:
                if not is_stream(response, stream.media):
                    stream.refused(self._answer(response))
                    return
                for piece in response.iter_bytes():
                    yield from stream.feed(piece)
                    if stream.is_over:
                        return
                stream.closed()
        except httpx.HTTPError as error:
            stream.failed(self._wire.failure(error))
