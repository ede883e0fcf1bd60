"""A cluster without network, sandbox or guest: it calls the functions here, and answers as a gateway does."""

import asyncio
import concurrent.futures
import threading
import traceback
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

from ww.client.answer import Result
from ww.errors import NotFound
from ww.jobs.dispatcher import Dispatcher
from ww.jobs.runner import Runner
from ww.python.failure import dumps_failure
from ww.python.request import read_calls
from ww.python.values import dumps


class FakeClient:
    """What a dispatcher uses of an asyncio client."""

    def __init__(self) -> None:
        self.functions: dict[str, Callable[..., Any]] = {}
        self.tasks: dict[str, dict[str, Any]] = {}
        self.cancelled: list[str] = []
        self.uploads = 0
        self.has_module = True
        self.gate = asyncio.Event()
        """Runs wait for it."""
        self.gate.set()
        self.error: Exception | None = None
        """What submitting raises."""
        self.answer: Callable[[int, bytes], Result] = self.call

    async def upload(self, wasm: Path) -> str:
        self.uploads += 1
        self.has_module = True
        return "sha256:" + "0" * 64

    def _take(self, runs: list[bytes], fields: dict[str, Any]) -> None:
        if self.error is not None:
            raise self.error
        if not self.has_module:
            raise NotFound("no such module")
        self.tasks[fields["id"]] = {**fields, "runs": runs}

    async def run(self, module: str, **fields: Any) -> AsyncIterator[Result]:
        self._take([fields["stdin"]], fields)
        async for result in self.stream(fields["id"]):
            yield result

    async def submit_batch(self, module: str, runs: list[bytes], **fields: Any) -> None:
        self._take(list(runs), fields)

    async def stream(self, id: str) -> AsyncIterator[Result]:
        task = self.tasks[id]
        await self.gate.wait()
        self.name = task["args"][0]
        # In another order than they were sent in.
        for number in reversed(range(len(task["runs"]))):
            yield self.answer(number, task["runs"][number])

    async def cancel(self, id: str) -> None:
        if id not in self.tasks:
            raise NotFound("no such task")
        self.cancelled.append(id)

    def call(self, number: int, request: bytes) -> Result:
        calls = read_calls(request)
        function = self.functions[self.name]
        try:
            values = [function(*args, **kwargs) for args, kwargs in calls.calls]
        except BaseException as error:
            text = dumps_failure(error, "".join(traceback.format_exception(error)))
            return Result(
                run=number, state="failed", reason="exit", exit_code=1, stdout=text.encode(), stderr=b"printed"
            )
        body = dumps(values if calls.are_several else values[0]).encode()
        return Result(run=number, state="succeeded", exit_code=0, stdout=body, stderr=b"printed")


class FakeLink:
    """A thread with a loop, and the client."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.client = FakeClient()
        self.thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self.thread.start()

    def begin(self, work: Callable[[Any], Any]) -> "concurrent.futures.Future[Any]":
        return asyncio.run_coroutine_threadsafe(work(self.client), self.loop)

    def close(self) -> None:
        if self.thread.is_alive():
            self.loop.call_soon_threadsafe(self.loop.stop)
            self.thread.join()
            left = asyncio.all_tasks(self.loop)
            for task in left:
                task.cancel()
            if left:
                self.loop.run_until_complete(asyncio.wait(left))
            self.loop.close()

    def do(self, function: Callable[[], Any]) -> Any:
        """Call a function in the loop's thread."""

        async def call(_: Any) -> Any:
            return function()

        return self.begin(call).result(10)


class FakeCluster(Runner):
    """Runs jobs of this program over a dispatcher and a fake gateway."""

    def __init__(self) -> None:
        self.link = FakeLink()
        self.client = self.link.client
        self.problem = ""
        self.dispatcher = Dispatcher(self.link, Path("component.wasm"), lambda: self.problem)
        self.send = self.dispatcher.send  # type: ignore[method-assign]
        self.cancelled = self.dispatcher.cancelled  # type: ignore[method-assign]

    def serve(self, *jobs: Any) -> None:
        for job in jobs:
            self.client.functions[job.target().name] = job.__wrapped__

    def __enter__(self) -> "FakeCluster":
        return self

    def __exit__(self, *_: object) -> None:
        self.dispatcher.close()
