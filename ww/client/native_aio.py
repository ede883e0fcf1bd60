"""The client for asyncio that speaks to a gateway by capabilities: the fast way, with the methods of AsyncClient.

Holds what is asked and when it is asked again. How the gateway is reached: native_link.py; what is sent and comes back:
native_codec.py. Without an event loop: native_sync.py.
"""

import asyncio
import math
import re
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Awaitable, Callable, Iterable
from contextlib import aclosing
from functools import partial
from types import TracebackType
from typing import Any, Final, Self, TypeVar, Unpack

from ww.caps.blob import fetch
from ww.client.answer import Event, Health, Readiness, Result, Task, Worker, read_all, read_as
from ww.client.batch import is_replayable
from ww.client.call import Retry
from ww.client.native_batch import NativeBatch, gathered
from ww.client.native_codec import ADD_BYTES_MAX, Run, RunEncoder, Wanted, read_json, read_task, results_of, wanted_of
from ww.client.native_link import Hearing, LinkConfig, NativeLink, Target, ask
from ww.client.submission import Source, Submission, TaskFields, prepare, read_module
from ww.errors import (
    Disconnected,
    Draining,
    NotFound,
    Overloaded,
    PeerError,
    UsageError,
    WwError,
)
from ww.net.transport import Transport

T = TypeVar("T")

_PAGE: Final = 100
_WAIT_S: Final = 30.0
# A gateway says something each 15 seconds.
_SILENCE_S: Final = 45.0
_KNOWN_MAX: Final = 1024
# A zip that goes with the call, as the code of most Python functions does.
_ZIP_INLINE_BYTES_MAX: Final = 64 << 10
_FIELD: Final = re.compile(r"([a-z_]{1,40}|tasks\[\d{1,18}\](?:\.[a-z_]{1,40})?): ")
_ARTIFACTS_BYTES_MAX: Final = 1 << 30

Runs = Iterable[Run] | AsyncIterable[Run]


class AsyncNativeClient:
    """A gateway's Tasks. Use it with `async with`, or close it with aclose. It belongs to one event loop.

    Methods are those of ww.client.AsyncClient, and raise the same errors.
    """

    def __init__(
        self,
        target: str,
        config: LinkConfig | None = None,
        *,
        retry: Retry | None = None,
        timeout_s: float = 30.0,
        transport: Transport | None = None,
    ) -> None:
        """Make one; nothing is sent yet.

        target: a peer id, an address that ends in /p2p/PEER_ID, or a dial string with its ticket. config: how it is
        found, and the client's key. retry: how often a call is made again. timeout_s: seconds without an answer, beyond
        those that a call is meant to take. transport: in place of TLS.
        """
        self._link = NativeLink(Target.parse(target), config or LinkConfig(), transport)
        self._retry = retry or Retry()
        self._timeout_s = timeout_s
        self._has_answered = False
        self._known: dict[bytes, None] = {}
        """Digests of modules that the gateway has, or had."""

    # Tasks.

    async def submit(self, wasm: Source, *, wait_s: float = 0.0, **fields: Unpack[TaskFields]) -> Task:
        """Submit a task: see AsyncClient.submit."""
        return await self.submit_prepared(await _prepared(wasm, fields), wait_s)

    async def submit_prepared(self, submission: Submission, wait_s: float = 0.0) -> Task:
        """Send a task that was read."""
        wait_s = max(0.0, min(_WAIT_S, wait_s))

        def then(sent: Any) -> Any:
            return sent.task.status(waitSeconds=wait_s) if wait_s else sent

        wanted = wanted_of(submission)
        answer = await self._submit(wanted, lambda tasks: tasks.submit_request(), then, extra_s=wait_s)
        return read_task(answer.shown)

    async def run(self, wasm: Source, **fields: Unpack[TaskFields]) -> AsyncIterator[Result]:
        """Submit a task and give its results as they come: in one flight, where the runs are short."""
        async with aclosing(self.run_groups(await _prepared(wasm, fields))) as groups:
            async for group in groups:
                for result in group:
                    yield result

    async def run_groups(self, submission: Submission) -> AsyncGenerator[list[Result], None]:
        """Do so for a task that was read, some results at a time."""
        first, rest = await self.run_first(submission)
        yield first
        if rest is not None:
            async with aclosing(rest):
                async for group in rest:
                    yield group

    async def run_first(self, submission: Submission) -> tuple[list[Result], AsyncGenerator[list[Result], None] | None]:
        """Submit a task; return its first results, and what gives the others where there are any."""
        wanted = wanted_of(submission)

        def run(tasks: Any) -> Any:
            request = tasks.run_request()
            request.waitSeconds = _WAIT_S
            return request

        answer = await self._submit(wanted, run, extra_s=_WAIT_S)
        rest = None if answer.ended else self.stream_groups(wanted.id, after=answer.next)
        return results_of(answer.results, wanted.id), rest

    async def _submit(
        self,
        wanted: Wanted,
        request_of: Callable[[Any], Any],
        then: Callable[[Any], Any] = lambda sent: sent,
        *,
        extra_s: float = 0.0,
    ) -> Any:
        """Send a task, and its module only when it is not there; then is what is asked of the answer in the flight."""
        is_fresh = True

        async def submit(tasks: Any, with_module: bool) -> Any:
            nonlocal is_fresh
            hearing = Hearing()
            request = self._filled(request_of(tasks), wanted, with_module, hearing)
            request.fresh, is_fresh = is_fresh, False
            return await ask(then(request.send()), self._timeout_s + extra_s, hearing)

        return await self._with_module(wanted, submit)

    async def _with_module(self, wanted: Wanted, send: Callable[[Any, bool], Awaitable[T]]) -> T:
        """Send what names a module, with it where it is likely, or said, to be missing."""
        with_module = wanted.wasm is not None and wanted.digest not in self._known

        async def attempt(tasks: Any) -> T:
            nonlocal with_module
            try:
                return await send(tasks, with_module)
            except NotFound:
                if with_module or wanted.wasm is None:
                    raise
                with_module = True  # it was removed since
                return await send(tasks, True)

        answer = await self._call(attempt)
        if len(self._known) >= _KNOWN_MAX:
            self._known.clear()
        self._known[wanted.digest] = None
        return answer

    @staticmethod
    def _filled(request: Any, wanted: Wanted, with_module: bool, hearing: Hearing) -> Any:
        request.fields, request.module = wanted.fields, wanted.digest
        if wanted.stdin:
            request.stdin = wanted.stdin
        if with_module and wanted.wasm is not None:
            request.wasm = hearing.blob(wanted.wasm)
        if wanted.files is not None and len(wanted.files) <= _ZIP_INLINE_BYTES_MAX:
            request.zip = wanted.files
        elif wanted.files is not None:
            request.files = hearing.blob(wanted.files)
        return request

    async def task(self, id: str) -> Task:
        """Return a task as it is now."""
        return read_task((await self._of_task(id, lambda task: task.status(waitSeconds=0))).shown)

    async def tasks(
        self, *, status: str | None = None, limit: int | None = None, after: str | None = None
    ) -> AsyncIterator[Task]:
        """List tasks, newest first: see AsyncClient.tasks."""
        left = math.inf if limit is None else _whole("limit", limit)
        while left > 0:
            size = int(min(_PAGE, left))
            wanted = {"status": status or "", "limit": size, "after": after or ""}
            answer = await self._ask(partial(_list, wanted))
            page = read_all(Task, read_json(answer.shown))
            for task in page:
                yield task
            left -= len(page)
            if len(page) < size:
                return
            after = page[-1].id

    async def wait(self, id: str, timeout_s: float | None = None) -> Task:
        """Return a task when it has ended, or as it is when that time is over (`has_ended` tells)."""
        now = asyncio.get_running_loop().time
        end = math.inf if timeout_s is None else now() + timeout_s
        while True:
            wait_s = max(0.0, min(_WAIT_S, end - now()))
            ended = await self._of_task(id, partial(_status, wait_s), extra_s=wait_s)
            task = read_task(ended.shown)
            if task.has_ended or now() >= end:
                return task
            # A gateway that is stopping answers at once.
            await asyncio.sleep(min(0.05, max(0.0, end - now())))

    async def cancel(self, id: str) -> Task:
        """Cancel a task and return it; one that has ended stays as it is."""
        return read_task((await self._of_task(id, lambda task: task.cancel())).shown)

    # Results.

    async def results(self, id: str, *, after: int | None = None, limit: int | None = None) -> AsyncIterator[Result]:
        """List a task's results by run number, from the run behind after."""
        left = math.inf if limit is None else _whole("limit", limit)
        async with aclosing(self.stream_groups(id, order="known", after=after)) as groups:
            async for group in groups:
                for result in group:
                    if left <= 0:
                        return
                    left -= 1
                    yield result

    async def stream(self, id: str, *, order: str = "completion", after: int | None = None) -> AsyncIterator[Result]:
        """Give a task's results as they come, to its end: see AsyncClient.stream."""
        async with aclosing(self.stream_groups(id, order=order, after=after)) as groups:
            async for group in groups:
                for result in group:
                    yield result

    async def stream_groups(
        self, id: str, *, order: str = "completion", after: int | None = None
    ) -> AsyncGenerator[list[Result], None]:
        """Give them as they arrive, some at a time; order may be known too: those that there are."""
        if order not in ("completion", "input", "known"):
            raise UsageError(f"order: {str(order)[:40]!r} is not one of completion input", "order")
        if after is not None and (not isinstance(after, int) or isinstance(after, bool)):
            raise UsageError(f"after: expected a whole number, not {type(after).__name__}", "after")
        place = after if after is not None else 0 if order == "completion" else -1

        def ask_for(place: int) -> "asyncio.Task[Any]":
            def results(task: Any) -> Any:
                return task.results(after=place, order=order, waitSeconds=_WAIT_S)

            return asyncio.ensure_future(self._of_task(id, results, extra_s=_WAIT_S))

        asking = ask_for(place)
        try:
            while True:
                answer = await asking
                if not answer.ended:  # asked for while these are read
                    asking = ask_for(answer.next)
                if group := results_of(answer.results, id):
                    yield group
                if answer.ended:
                    return
        finally:
            asking.cancel()
            await asyncio.gather(asking, return_exceptions=True)

    async def result(self, id: str, run: int) -> Result:
        """Return one run's result, or its state alone while it has none."""
        _whole("run", run)
        answer = await self._of_task(id, lambda task: task.run(run=run))
        found = results_of(answer.result, id)
        return found[0] if found else read_as(Result, {"run": run, "state": answer.state})

    async def artifacts(self, id: str, run: int) -> bytes:
        """Return the zip of what a run left. NotFound when it left nothing."""
        _whole("run", run)

        async def read(tasks: Any) -> bytes:
            answer = await ask(tasks.task(id=id).task.artifacts(run=run), self._timeout_s)
            pieces = []
            async with asyncio.timeout(None) as patience:
                async for piece in fetch(answer.zip, bytes_max=_ARTIFACTS_BYTES_MAX):
                    patience.reschedule(asyncio.get_running_loop().time() + self._timeout_s)
                    pieces.append(piece)
            return b"".join(pieces)

        return await self._call(read)

    async def events(self, id: str, *, after: int | str | None = None) -> AsyncIterator[Event]:
        """Follow a task to its end, over lost connections and restarts of the gateway: see Client.events."""
        seen, retries, last = after, 0, None
        while True:
            opened = await self._of_task(id, partial(_events, _from(seen)))
            if opened.over:
                task = await self.task(id)
                if last is None or last.status != task.status:
                    yield Event(task=task, position=seen if isinstance(seen, int) else None)
                return
            try:
                while not (told := await ask(opened.events.next(), _SILENCE_S)).ended:
                    for each in read_json(told.told):
                        seen, retries = each["position"], 0
                        event = _event(each)
                        last = event.task or last
                        yield event
                if last is not None and last.has_ended:
                    return
            except (PeerError, Draining) as error:
                self._link.drop()
                if not self._may_retry(error, retries):
                    raise
            await asyncio.sleep(self._retry.pause_s(retries))
            retries += 1

    # Batches.

    async def submit_batch(self, wasm: Source, runs: Runs, **fields: Unpack[TaskFields]) -> Task:
        """Submit a task of many runs: see AsyncClient.submit_batch. Runs are sent as they are read."""
        can_repeat = is_replayable(runs)
        submission = await _prepared(wasm, fields)

        async def send(batch: "NativeBatch") -> None:
            if isinstance(runs, AsyncIterable):
                async for chunk in gathered(batch.encoder, runs):
                    await batch.add(chunk)
            else:
                for chunk in batch.encoder.chunks(runs):
                    await batch.add(chunk)

        return await self.send_batch(submission, fields, send, is_replayable=can_repeat)

    async def send_batch(
        self,
        submission: Submission,
        parent: TaskFields,
        send: Callable[["NativeBatch"], Awaitable[None]],
        *,
        is_replayable: bool,
    ) -> Task:
        """Begin a batch, have send add its runs, and finish it; all again when the connection is lost."""
        wanted = wanted_of(submission)
        has_begun = False

        async def attempt(tasks: Any, with_module: bool) -> Task:
            nonlocal has_begun
            if has_begun and not is_replayable:
                return await self._taken_on(tasks, wanted.id)
            hearing = Hearing()
            request = self._filled(tasks.batch_request(), wanted, with_module, hearing)
            begun = await ask(request.send(), self._timeout_s, hearing)
            encoder = RunEncoder(parent, begun.kind, list(begun.parameters))
            batch = NativeBatch(begun.batch, encoder, self._timeout_s)
            has_begun = True
            try:
                await send(batch)
                return await batch.finish()
            finally:
                batch.close()

        return await self._with_module(wanted, attempt)

    async def _taken_on(self, tasks: Any, id: str) -> Task:
        """Return the task, if the batch was finished before its answer was lost."""
        try:
            return read_task((await ask(tasks.task(id=id).task.status(waitSeconds=0), self._timeout_s)).shown)
        except NotFound:
            why = "the runs cannot be read twice: give a list to have them sent again"
            raise UsageError(f"the connection was lost before the batch was taken on, and {why}") from None

    # The gateway.

    async def upload(self, wasm: Source) -> str:
        """Have a module stored, sending it only when it is not there; return its digest, for submit."""
        module = await asyncio.to_thread(read_module, wasm)
        digest, content = bytes.fromhex(module.digest.removeprefix("sha256:")), module.content
        try:
            await self._ask(lambda tasks: tasks.upload(module=digest))
        except NotFound:
            if content is None:
                raise
            hearing = Hearing()
            await self._ask(lambda tasks: tasks.upload(module=digest, wasm=hearing.blob(content)), hearing=hearing)
        self._known[digest] = None
        return module.digest

    async def workers(self) -> list[Worker]:
        """Return the workers that are registered."""
        return list(read_all(Worker, read_json((await self._ask(lambda tasks: tasks.workers())).shown)))

    async def ready(self) -> Readiness:
        """Return whether the gateway can work, and what is missing."""
        return read_as(Readiness, read_json((await self._ask(lambda tasks: tasks.about())).ready))

    async def health(self) -> Health:
        """Return who the gateway is."""
        return read_as(Health, read_json((await self._ask(lambda tasks: tasks.about())).health))

    async def aclose(self) -> None:
        """Close the connection. Idempotent."""
        await self._link.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    def __repr__(self) -> str:
        return f"AsyncNativeClient({str(self._link.target.peer_id)!r})"

    # Calls.

    async def _ask(self, make: Callable[[Any], Any], *, extra_s: float = 0.0, hearing: Hearing | None = None) -> Any:
        """Make one call of Tasks."""
        return await self._call(lambda tasks: ask(make(tasks), self._timeout_s + extra_s, hearing))

    async def _of_task(self, id: str, make: Callable[[Any], Any], *, extra_s: float = 0.0) -> Any:
        """Make one call of a Task, in one flight with the one that asks for it."""
        return await self._ask(lambda tasks: make(tasks.task(id=id).task), extra_s=extra_s)

    async def _call(self, attempt: Callable[[Any], Awaitable[T]]) -> T:
        """Do something over a connection, again while it may help; raise what is left of a failure."""
        retries = 0
        while True:
            tasks = None
            try:
                tasks = await self._link.tasks()
                answer = await attempt(tasks)
            except WwError as error:
                if isinstance(error, PeerError) and type(error) in (PeerError, Disconnected):
                    self._link.drop(tasks)
                if not self._may_retry(error, retries):
                    raise _with_field(error) from None
                pause_s = self._retry.pause_s(retries, error.retry_after_s if isinstance(error, Overloaded) else 0.0)
            else:
                self._has_answered = True
                return answer
            await asyncio.sleep(pause_s)
            retries += 1

    def _may_retry(self, error: WwError, retries: int) -> bool:
        if not (type(error) in (PeerError, Disconnected) or isinstance(error, Overloaded | Draining)):
            return False
        retry = self._retry
        if self._has_answered or retry.first_retries is None:
            return retries < retry.retries
        return retries < min(retry.first_retries, retry.retries)


async def _prepared(wasm: Source, fields: TaskFields) -> Submission:
    """Read what a task is made of, in a thread where that takes files."""
    is_named = isinstance(wasm, str) and wasm.startswith("sha256:")
    if (is_named or _is_at_hand(wasm)) and _is_at_hand(fields.get("files", b"")):
        return prepare(wasm, fields)
    return await asyncio.to_thread(prepare, wasm, fields)


def _is_at_hand(source: Source | None) -> bool:
    return isinstance(source, bytes) and len(source) <= ADD_BYTES_MAX


def _list(wanted: dict[str, Any], tasks: Any) -> Any:
    return tasks.list(**wanted)


def _status(wait_s: float, task: Any) -> Any:
    return task.status(waitSeconds=wait_s)


def _events(wanted: dict[str, Any], task: Any) -> Any:
    return task.events(**wanted)


def _from(after: int | str | None) -> dict[str, Any]:
    if after == "now":
        return {"now": True}
    return {"after": _whole("after", 0 if after is None else after)}


def _event(told: Any) -> Event:
    kind, position, data = told["kind"], told["position"], told["data"]
    if kind == "task":
        return Event(task=read_as(Task, data), position=position)
    if "attempts" not in data and "attempt" in data:
        data["attempts"] = data["attempt"]  # of the one that begins
    return Event(run=read_as(Result, data), position=position)


def _whole(name: str, value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise UsageError(f"{name}: {value!r} is not a whole number from 0"[:120], name)
    return value


def _with_field(error: WwError) -> WwError:
    """Name the field that an error is about, as it begins with it."""
    if isinstance(error, UsageError) and error.field is None and (found := _FIELD.match(str(error))):
        error.field = found[1]
    return error
