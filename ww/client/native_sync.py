"""The client that speaks to a gateway by capabilities, for code without an event loop.

Holds a thread with a loop of its own, since capabilities live on one, and the methods of Client over native_aio.py.
Lists and streams come over in groups, so that a thread is not woken for each result.
"""

import asyncio
import concurrent.futures
import contextlib
import os
import threading
import traceback
import weakref
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Iterable, Iterator, Sequence
from itertools import chain
from types import TracebackType
from typing import Any, Final, Self, TypeVar, Unpack, cast

from ww.client.answer import Event, Health, Readiness, Result, Task, Worker
from ww.client.batch import in_order, is_replayable
from ww.client.call import Retry
from ww.client.native_aio import AsyncNativeClient
from ww.client.native_batch import NativeBatch
from ww.client.native_codec import Run
from ww.client.native_link import LinkConfig
from ww.client.submission import Source, Submission, TaskFields, prepare
from ww.errors import UsageError, WwError
from ww.net.transport import Transport
from ww.rpc.loop import run as run_loop

T = TypeVar("T")

_CLOSE_S: Final = 10.0
_GROUP: Final = 64


class NativeClient:
    """A gateway's Tasks. Use it with `with`, or close it. Threads may share one; an iterator is one thread's.

    Methods are those of ww.client.Client, and raise the same errors.
    """

    def __init__(
        self,
        target: str,
        config: LinkConfig | None = None,
        *,
        retry: Retry | None = None,
        timeout_s: float = 30.0,
        transport: Callable[[], Transport] | None = None,
    ) -> None:
        """Make one; nothing is sent yet. See AsyncNativeClient; transport is called in the client's own thread."""
        self._thread = _Thread()

        async def make() -> AsyncNativeClient:
            made = None if transport is None else transport()
            return AsyncNativeClient(target, config, retry=retry, timeout_s=timeout_s, transport=made)

        try:
            self._client = self._thread.client = self._thread.do(make())
        except BaseException:
            self._thread.stop()
            raise
        # Also when it is not closed: at the latest when the program ends.
        self._close = weakref.finalize(self, _Thread.stop, self._thread)

    def submit(self, wasm: Source, *, wait_s: float = 0.0, **fields: Unpack[TaskFields]) -> Task:
        """Submit a task: see Client.submit."""
        return self.submit_prepared(prepare(wasm, fields), wait_s)

    def submit_prepared(self, submission: Submission, wait_s: float = 0.0) -> Task:
        """Send a task that was read."""
        return self._do(self._client.submit_prepared(submission, wait_s))

    def run(self, wasm: Source, **fields: Unpack[TaskFields]) -> Iterator[Result]:
        """Submit a task and give its results as they come: in one flight, where the runs are short."""
        first, rest = self._do(self._client.run_first(prepare(wasm, fields)))
        return iter(first) if rest is None else chain(first, self._each(rest))

    def task(self, id: str) -> Task:
        """Return a task as it is now."""
        return self._do(self._client.task(id))

    def tasks(self, *, status: str | None = None, limit: int | None = None, after: str | None = None) -> Iterator[Task]:
        """List tasks, newest first: see Client.tasks."""
        return self._each(_grouped(self._client.tasks(status=status, limit=limit, after=after), _GROUP))

    def wait(self, id: str, timeout_s: float | None = None) -> Task:
        """Return a task when it has ended, or as it is when that time is over (`has_ended` tells)."""
        return self._do(self._client.wait(id, timeout_s))

    def cancel(self, id: str) -> Task:
        """Cancel a task and return it; one that has ended stays as it is."""
        return self._do(self._client.cancel(id))

    def results(self, id: str, *, after: int | None = None, limit: int | None = None) -> Iterator[Result]:
        """List a task's results by run number, from the run behind after."""
        return self._each(_grouped(self._client.results(id, after=after, limit=limit), _GROUP))

    def stream(self, id: str, *, order: str = "completion", after: int | None = None) -> Iterator[Result]:
        """Give a task's results as they come, to its end: see Client.stream."""
        return self._each(self._client.stream_groups(id, order=order, after=after))

    def result(self, id: str, run: int) -> Result:
        """Return one run's result, or its state alone while it has none."""
        return self._do(self._client.result(id, run))

    def artifacts(self, id: str, run: int) -> bytes:
        """Return the zip of what a run left. NotFound when it left nothing."""
        return self._do(self._client.artifacts(id, run))

    def events(self, id: str, *, after: int | str | None = None) -> Iterator[Event]:
        """Follow a task to its end, over lost connections and restarts of the gateway: see Client.events."""
        return self._each(_grouped(self._client.events(id, after=after), 1))

    def submit_batch(self, wasm: Source, runs: Iterable[Run], **fields: Unpack[TaskFields]) -> Task:
        """Submit a task of many runs: see Client.submit_batch. The caller's thread reads them, as they are sent."""
        can_repeat, ordered = is_replayable(runs), in_order(runs)
        submission = prepare(wasm, fields)
        begun: asyncio.Queue[NativeBatch | None] = asyncio.Queue()
        done: asyncio.Future[None] | None = None

        async def send(batch: NativeBatch) -> None:
            nonlocal done
            done = asyncio.get_running_loop().create_future()
            begun.put_nowait(batch)
            await done

        async def submit() -> Task:
            try:
                return await self._client.send_batch(submission, fields, send, is_replayable=can_repeat)
            finally:
                begun.put_nowait(None)

        async def settle(error: BaseException | None) -> None:
            assert done is not None
            if not done.done():
                if error is None:
                    done.set_result(None)
                else:
                    done.set_exception(error)

        submitting = self._thread.begin(submit())
        try:
            while (batch := self._do(begun.get())) is not None:
                problem: BaseException | None = None
                try:
                    for chunk in batch.encoder.chunks(ordered):
                        self._do(batch.add(chunk))
                except Exception as error:
                    problem = error
                self._do(settle(problem))
            return submitting.result()
        except BaseException:
            submitting.cancel()
            raise

    def upload(self, wasm: Source) -> str:
        """Have a module stored, sending it only when it is not there; return its digest, for submit."""
        return self._do(self._client.upload(wasm))

    def workers(self) -> list[Worker]:
        """Return the workers that are registered."""
        return self._do(self._client.workers())

    def ready(self) -> Readiness:
        """Return whether the gateway can work, and what is missing."""
        return self._do(self._client.ready())

    def health(self) -> Health:
        """Return who the gateway is."""
        return self._do(self._client.health())

    def begin(self, work: Callable[[AsyncNativeClient], Coroutine[Any, Any, T]]) -> "concurrent.futures.Future[T]":
        """Have work done with the client for asyncio, in the thread where its capabilities live; return its future.

        UsageError when the client is closed, or of another process.
        """
        return cast("concurrent.futures.Future[T]", self._thread.begin(work(self._client)))

    def close(self) -> None:
        """Close the connection and end the thread. Idempotent."""
        self._close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return repr(self._client).replace("Async", "", 1)

    def _do(self, work: Coroutine[Any, Any, T]) -> T:
        return self._thread.do(work)

    def _each(self, groups: AsyncGenerator[Sequence[T], None]) -> Iterator[T]:
        # What was interrupted (ctrl-C) is still ending there when it is closed, or goes on: it was sent there, and the
        # interruption came before there was anything to cancel it by.
        turn = asyncio.Lock()
        under_way: asyncio.Task[Any] | None = None

        async def next_group() -> Sequence[T] | None:
            nonlocal under_way
            async with turn:
                under_way = asyncio.current_task()
                try:
                    return await anext(groups, None)
                finally:
                    under_way = None

        async def close() -> None:
            if under_way is not None:
                under_way.cancel()
            async with turn:
                await groups.aclose()

        try:
            while (group := self._do(next_group())) is not None:
                yield from group
        finally:
            self._thread.end(close)


async def _grouped(each: AsyncIterator[T], most: int) -> AsyncGenerator[list[T], None]:
    """Yield what comes some at a time, none of it late."""
    group: list[T] = []
    assert isinstance(each, AsyncGenerator)
    async with contextlib.aclosing(each):
        async for one in each:
            group.append(one)
            if len(group) >= most:
                yield group
                group = []
        if group:
            yield group


async def _leaving_nothing(work: Coroutine[Any, Any, T]) -> T:
    """Do work; an error of it takes no capability along to another thread, where letting go of one ends the program."""
    try:
        return await work
    except BaseException as error:
        if not isinstance(error, WwError | asyncio.CancelledError):
            error.add_note("".join(traceback.format_tb(error.__traceback__)).rstrip())
        # Frames hold what was under way, and so do those of what it came of.
        error.__traceback__ = error.__context__ = error.__cause__ = None
        raise


class _Thread:
    """A thread that runs a loop for capabilities."""

    def __init__(self) -> None:
        self._started = threading.Event()
        self._loop: asyncio.AbstractEventLoop
        self._stop: asyncio.Event
        self.client: AsyncNativeClient | None = None
        """Closed at the end. In a forked process it is held by frames of a thread that is not there, for ever: letting
        go of capabilities would end the program."""
        self._failure: BaseException | None = None
        self._pid = os.getpid()
        # What is begun comes before the end, so that it is cancelled and not forgotten. A client may be collected, and
        # with that stopped, while its thread is in here.
        self._order = threading.RLock()
        self._was_stopped = False
        # Not waited for when the program ends without close: that is seen to by finalize, which comes before.
        self._thread = threading.Thread(target=self._run, name="ww-native-client", daemon=True)
        self._thread.start()
        self._started.wait()
        if self._failure is not None:
            raise self._failure

    @property
    def is_stopped(self) -> bool:
        """Whether nothing can be done there any more: in a process that was forked it never was."""
        return self._was_stopped or os.getpid() != self._pid

    def _run(self) -> None:
        try:
            run_loop(self._main, is_program=False)
        except Exception as error:
            if self._started.is_set():
                raise
            self._failure = error.with_traceback(None)
        finally:
            self._started.set()

    async def _main(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        self._started.set()
        await self._stop.wait()
        if self.client is not None:
            with contextlib.suppress(Exception):
                async with asyncio.timeout(_CLOSE_S):
                    await self.client.aclose()

    def begin(self, work: Coroutine[Any, Any, T]) -> "asyncio.futures.Future[T] | Any":
        """Have work done there; return a future of threads."""
        problem = ""
        if os.getpid() != self._pid:
            problem = "the client was made before this process was forked; expected one that is made in it"
        elif threading.current_thread() is self._thread:
            problem = "the client is used in its own thread, which would wait for itself"
        else:
            with self._order:
                if not self._was_stopped:
                    return asyncio.run_coroutine_threadsafe(_leaving_nothing(work), self._loop)
                problem = "the client is closed"
        work.close()
        raise UsageError(problem)

    def do(self, work: Coroutine[Any, Any, T]) -> T:
        """Have work done there and return what it returns."""
        future = self.begin(work)
        try:
            result: T = future.result()
            return result
        except concurrent.futures.CancelledError:
            if not self._was_stopped:
                raise
            raise UsageError("the client is closed") from None
        except BaseException:
            future.cancel()
            raise

    def end(self, close: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Have something closed there, while there is such a place; waits, unless this is that thread."""
        if self.is_stopped:
            return
        if threading.current_thread() is self._thread:
            # Nobody used it any more, and it was collected where there was occasion.
            asyncio.run_coroutine_threadsafe(_leaving_nothing(close()), self._loop)
        else:
            self.do(close())

    def stop(self) -> None:
        """Close the client and end the thread; waits, unless this is that thread. Idempotent."""
        with self._order:
            if self.is_stopped:
                return
            self._was_stopped = True
            self._loop.call_soon_threadsafe(self._stop.set)
        if threading.current_thread() is not self._thread:
            self._thread.join(2 * _CLOSE_S)
