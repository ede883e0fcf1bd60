"""A gateway that takes batches over HTTP and runs them in Python: what ww map and ww run -f do is seen without workers.

It speaks as docs/http.md says. A run gives back its stdin in capitals behind its arguments and the files that it has;
one whose stdin begins with "fail" fails, and one with "wait" ends when the test says so, or with its task.
"""

import asyncio
import base64
import io
import json
import threading
import zipfile
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

ENDED = ("succeeded", "failed", "cancelled")


class Task:
    """One that was taken."""

    def __init__(self, id: str, parent: dict[str, Any], runs: list[dict[str, Any]]) -> None:
        self.id, self.parent, self.runs = id, parent, runs
        self.results: list[dict[str, Any]] = []
        self.is_cancelled = False

    @property
    def status(self) -> str:
        if self.is_cancelled:
            return "cancelled"
        if len(self.results) < len(self.runs):
            return "running"
        return "failed" if any(result["state"] == "failed" for result in self.results) else "succeeded"

    def json(self) -> dict[str, Any]:
        return {"id": self.id, "status": self.status, "repeats": len(self.runs), "batch": True}

    def advance(self, may_end: bool, longest: int) -> None:
        """End what ends by itself, the last first."""
        ended = {result["run"] for result in self.results}
        for number in reversed(range(len(self.runs))):
            if number not in ended and not self.is_cancelled:
                stdin = stdin_of(self.runs[number]) or stdin_of(self.parent)
                if may_end or not stdin.startswith(b"wait"):
                    self.results.append(self._result(number, stdin, longest))

    def _result(self, number: int, stdin: bytes, longest: int) -> dict[str, Any]:
        run = self.runs[number]
        files = run.get("files_base64")
        names = zipfile.ZipFile(io.BytesIO(base64.b64decode(files))).namelist() if files else []
        words = [*run.get("args", self.parent.get("args", [])), *(f"/{name}" for name in names)]
        out = b" ".join([*(word.encode() for word in words), stdin.upper()])
        said = {"run": number, "position": len(self.results) + 1, "name": run.get("name"), "state": "succeeded"}
        said |= {"stdout": out[:longest].decode(), "stdout_truncated": len(out) > longest, "stderr": ""}
        if stdin.startswith(b"fail"):
            said |= {"state": "failed", "reason": "exit", "exit_code": 3, "stdout": "", "stderr": "it went wrong\n"}
        return said


def stdin_of(run: dict[str, Any]) -> bytes:
    if "stdin_base64" in run:
        return base64.b64decode(run["stdin_base64"])
    return str(run.get("stdin", "")).encode()


class BatchGateway:
    """The gateway; its attributes are what tests look at and say."""

    def __init__(self) -> None:
        self.url = ""
        self.tasks: dict[str, Task] = {}
        self.may_end = True
        """Whether runs that wait end."""
        self.refusal: dict[str, Any] | None = None
        """A problem that new tasks are answered with."""
        self.longest = 1000
        self.may_cancel = threading.Event()
        """Until it is set, cancelling is not answered."""
        self.may_cancel.set()
        self.is_cut = False
        """Whether each stream breaks off after a line."""
        routes = [
            Route("/tasks", self._submit, methods=["POST"]),
            Route("/tasks/{id}", self._task, methods=["GET", "DELETE"]),
            Route("/tasks/{id}/results", self._results),
            Route("/tasks/{id}/events", self._events),
        ]
        self.app = Starlette(routes=routes)

    async def _submit(self, request: Request) -> Response:
        try:
            body = await request.body()
        except ClientDisconnect:
            return Response(status_code=400)
        if self.refusal is not None:
            return JSONResponse(self.refusal, self.refusal["status"])
        lines = [json.loads(line) for line in body.splitlines()]
        parent, runs = lines[0]["parent"], lines[1:]
        self.tasks[parent["id"]] = task = Task(parent["id"], parent, runs)
        return JSONResponse(task.json(), 201)

    async def _task(self, request: Request) -> Response:
        task = self.tasks.get(request.path_params["id"])
        if task is None:
            return JSONResponse({"detail": "no such task", "code": "not_found"}, 404)
        if request.method == "DELETE":
            await asyncio.to_thread(self.may_cancel.wait, 10)
            if task.status not in ENDED:
                task.is_cancelled = True
        return JSONResponse(task.json())

    async def _results(self, request: Request) -> Response:
        task = self.tasks.get(request.path_params["id"])
        if task is None:
            return JSONResponse({"detail": "no such task", "code": "not_found"}, 404)
        by_run = request.query_params["order"] == "input"
        after = int(request.query_params.get("after", -1))

        async def lines() -> AsyncIterator[bytes]:
            last = after
            while True:
                task.advance(self.may_end, self.longest)
                found = sorted(task.results, key=lambda result: result["run"]) if by_run else list(task.results)
                for result in found:
                    place = result["run"] if by_run else result["position"]
                    if place > last and not (by_run and place != last + 1):
                        last = place
                        yield json.dumps(result).encode() + b"\n"
                        if self.is_cut:
                            return
                if task.status in ENDED:
                    return
                yield b"\n"
                await asyncio.sleep(0.02)

        return StreamingResponse(lines(), media_type="application/x-ndjson")

    async def _events(self, request: Request) -> Response:
        task = self.tasks[request.path_params["id"]]

        async def events() -> AsyncIterator[bytes]:
            task.advance(self.may_end, self.longest)
            for result in task.results:
                yield f"event: run\nid: {result['position']}\ndata: {json.dumps(result)}\n\n".encode()
            yield f"event: task\nid: {len(task.results)}\ndata: {json.dumps(task.json())}\n\n".encode()

        return StreamingResponse(events(), media_type="text/event-stream")


class _Server(uvicorn.Server):
    """Says when it serves, and where."""

    def __init__(self, gateway: BatchGateway) -> None:
        super().__init__(
            uvicorn.Config(gateway.app, port=0, log_level="critical", loop="none", timeout_graceful_shutdown=1)
        )
        self._gateway = gateway
        self.serves = threading.Event()

    async def startup(self, sockets: Any = None) -> None:
        await super().startup(sockets)
        self._gateway.url = f"http://127.0.0.1:{self.servers[0].sockets[0].getsockname()[1]}"
        self.serves.set()


@contextmanager
def serving() -> Iterator[BatchGateway]:
    """Serve one in a thread."""
    gateway = BatchGateway()
    server = _Server(gateway)
    thread = threading.Thread(target=lambda: asyncio.run(server.serve()), daemon=True)
    thread.start()
    assert server.serves.wait(10)
    try:
        yield gateway
    finally:
        gateway.may_cancel.set()
        server.should_exit = True
        thread.join(10)
        assert not thread.is_alive(), "it stops"
