"""The gateway's HTTP interface: where a task's life begins and is watched.

Holds the routes, the reading of forms and the answers' statuses. Must not decide anything about runs: it asks the
scheduler and the store. Fields and answers: docs/http.md, rendered by view.py. Next in a task's life: scheduler.py.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote

from starlette.applications import Starlette
from starlette.datastructures import FormData, UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive

from ww.clock import Clock
from ww.errors import BadModule, Conflict, NotFound, Overloaded, StoreError, UsageError, WwError
from ww.gateway.modules import ModuleStore
from ww.gateway.request import FIELDS, RequestLimits, read_fields, shown
from ww.gateway.same_origin import SameOrigin
from ww.gateway.scheduler import Scheduler
from ww.gateway.store import Store, TaskRow
from ww.gateway.task import RunResult, RunState, Task
from ww.gateway.view import counts_of_ended, result_json, spec_json, time_text

log = logging.getLogger("ww.gateway")

_WAIT_MAX_S: Final = 60
_PAGE_DEFAULT: Final = 100
_PAGE_MAX: Final = 1000
_RESULTS_SHOWN: Final = 100
_OUTPUT_SHOWN_BYTES_MAX: Final = 16 << 20
_STATUSES: Final = tuple(RunState)
_FORM_FIELDS_MAX: Final = 2000


@dataclass(frozen=True, slots=True)
class HttpConfig:
    """What one HTTP client may cost."""

    upload_bytes_max: int = 64 << 20
    """Size of a whole request body."""
    upload_timeout_s: float = 300.0
    """Seconds a request body may take to arrive."""
    uploads_max: int = 16
    """Bodies read at a time; a further one is asked to try again."""


class _TooLarge(OSError):
    """The body passes the limit. An OSError, because at that starlette's form parser closes its files."""


class HttpGateway:
    """The handlers, over one gateway's parts."""

    def __init__(
        self,
        scheduler: Scheduler,
        store: Store,
        modules: ModuleStore,
        clock: Clock,
        limits: RequestLimits,
        config: HttpConfig,
        about: Mapping[str, Any],
    ) -> None:
        self._scheduler = scheduler
        self._store = store
        self._modules = modules
        self._clock = clock
        self._limits = limits
        self._config = config
        self._about = about
        self._uploads = 0

    def app(self) -> ASGIApp:
        """Return the ASGI application."""
        routes = [
            Route("/tasks", self.post_task, methods=["POST"]),
            Route("/tasks", self.get_tasks, methods=["GET"]),
            Route("/tasks/{id}", self.get_task, methods=["GET"]),
            Route("/tasks/{id}", self.delete_task, methods=["DELETE"]),
            Route("/tasks/{id}/runs", self.get_runs, methods=["GET"]),
            Route("/tasks/{id}/runs/{run}", self.get_run, methods=["GET"]),
            Route("/workers", self.get_workers, methods=["GET"]),
            Route("/healthz", self.get_health, methods=["GET"]),
        ]
        handlers: dict[Any, Any] = {
            WwError: _answer_error,
            HTTPException: _answer_http_exception,
            ClientDisconnect: _answer_nobody,
            Exception: _answer_unexpected,
        }
        return SameOrigin(Starlette(routes=routes, exception_handlers=handlers), _forbidden)

    # Tasks.

    async def post_task(self, request: Request) -> Response:
        async with self._form(request) as form:
            fields, stdin, wasm = await _parts(form)
            submission = read_fields(fields, stdin, wasm is not None, self._limits)
            if wasm is None:
                assert submission.module is not None
                digest = submission.module
                entry = await self._modules.entry(digest, submission.entry)
            else:
                digest, entry = await self._modules.examine(wasm.file, submission.entry)
            spec = submission.spec(digest, entry)

            async def keep_module() -> None:
                if wasm is not None:
                    await self._modules.keep(wasm.file, digest, self._scheduler.modules_in_use)

            created = await self._scheduler.submit(spec, keep_module, is_new=submission.is_id_made)
        location = {"Location": f"/tasks/{quote(spec.id)}"}
        return JSONResponse(await self._task_json(spec.id), 201 if created else 200, location)

    async def get_tasks(self, request: Request) -> Response:
        status = request.query_params.get("status")
        if status is not None and status not in _STATUSES:
            raise UsageError(f"status: {shown(status)} is not one of {' '.join(_STATUSES)}", "status")
        limit = _number(request, "limit", _PAGE_DEFAULT, _PAGE_MAX)
        before = None
        if (after := request.query_params.get("after")) is not None:
            before = (await self._row(after)).number
        rows: list[TaskRow] = []
        while len(rows) < limit:
            page = await self._store.tasks(limit=limit, before=before)
            rows += [row for row in page if status is None or self._status(row) == status]
            if len(page) < limit:
                break
            before = page[-1].number
        return JSONResponse(await self._tasks_json(rows[:limit]))

    async def get_task(self, request: Request) -> Response:
        if (wait_s := _number(request, "wait", 0, _WAIT_MAX_S)) > 0:
            await self._scheduler.wait_ended(request.path_params["id"], wait_s)
        return JSONResponse(await self._task_json(request.path_params["id"]))

    async def delete_task(self, request: Request) -> Response:
        await self._scheduler.cancel(request.path_params["id"])
        return JSONResponse(await self._task_json(request.path_params["id"]))

    # Runs.

    async def get_runs(self, request: Request) -> Response:
        row = await self._row(request.path_params["id"])
        limit = _number(request, "limit", _PAGE_DEFAULT, _PAGE_MAX)
        after = _number(request, "after", -1, 1 << 62, low=0)
        results = await self._store.results(row.number, limit=limit, after=after)
        return JSONResponse([result_json(result) for result in results])

    async def get_run(self, request: Request) -> Response:
        row = await self._row(request.path_params["id"])
        text = request.path_params["run"]
        if not (text.isascii() and text.isdigit()) or len(text) > 18 or int(text) >= row.spec.repeats:
            raise NotFound(f"task {row.spec.id!r} has no run {shown(text)}: expected 0 to {row.spec.repeats - 1}")
        run = int(text)
        results = await self._store.results(row.number, limit=1, after=run - 1)
        if results and results[0].run == run:
            return JSONResponse(result_json(results[0]))
        return JSONResponse({"run": run, "state": self._state_of(row, run)})

    def _state_of(self, row: TaskRow, run: int) -> str:
        """Say where a run is that has no result."""
        task = self._scheduler.task(row.spec.id)
        return RunState.CANCELLED if task is None else task.state_of(run, self._clock.now())

    # The cluster.

    async def get_workers(self, request: Request) -> Response:
        workers = [
            {
                "peer": str(entry.peer.peer_id),
                "kind": entry.info.kind,
                "slots": entry.info.slots,
                "free": free,
                "cpus": entry.info.cpus,
                "memory_bytes": entry.info.memory_bytes,
                "labels": entry.info.labels,
                "host": entry.info.host,
                "since": time_text(entry.since),
            }
            for entry, free in self._scheduler.pool.workers()
        ]
        return JSONResponse(workers)

    async def get_health(self, request: Request) -> Response:
        return JSONResponse({"status": "ok", **self._about})

    # Reading.

    @asynccontextmanager
    async def _form(self, request: Request) -> AsyncIterator[FormData]:
        """Read a multipart body within its limits; its files are gone afterwards."""
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind != "multipart/form-data":
            got = shown(kind) if kind else "none"
            raise HTTPException(415, f"content type {got}; expected multipart/form-data (curl -F)")
        most = self._config.upload_bytes_max
        length = request.headers.get("content-length", "0")
        if not length.isdigit() or int(length[:20]) > most:
            raise _too_large(most)
        if self._uploads >= self._config.uploads_max:
            raise Overloaded(f"{self._uploads} uploads are under way, the limit")
        limited = Request(request.scope, _limited(request.receive, most))
        self._uploads += 1
        try:
            async with asyncio.timeout(self._config.upload_timeout_s):
                form = await limited.form(
                    max_files=8, max_fields=_FORM_FIELDS_MAX, max_part_size=self._limits.stdin_max_bytes
                )
            try:
                yield form
            finally:
                await form.close()
        except _TooLarge:
            raise _too_large(most) from None
        except TimeoutError:
            raise HTTPException(408, f"the body took longer than {self._config.upload_timeout_s:g} s") from None
        finally:
            self._uploads -= 1

    async def _row(self, id: str) -> TaskRow:
        row = await self._store.task(id)
        if row is None:
            raise NotFound(f"no task {shown(id)}")
        return row

    # Answering.

    async def _task_json(self, id: str) -> dict[str, Any]:
        task = self._scheduler.task(id)
        if task is not None and not task.succeeded + task.failed:
            return self._render(task, self._state_json(task), [])  # nothing that only the disk knows
        return (await self._tasks_json([await self._row(id)]))[0]

    async def _tasks_json(self, rows: list[TaskRow]) -> list[dict[str, Any]]:
        # States first: a task that is shown as ended is shown with all its results.
        states = [self._state_json(self._scheduler.task(row.spec.id) or row) for row in rows]
        results = await self._store.latest_results(
            (row.number for row in rows), limit=_RESULTS_SHOWN, output_bytes_max=_OUTPUT_SHOWN_BYTES_MAX
        )
        return [self._render(row, state, results[row.number]) for row, state in zip(rows, states, strict=True)]

    def _render(self, task: Task | TaskRow, state: dict[str, Any], results: list[RunResult]) -> dict[str, Any]:
        return {
            **spec_json(task.spec),
            **state,
            "created_at": time_text(task.created_at),
            "results": [result_json(result) for result in results],
            "results_url": f"/tasks/{quote(task.spec.id)}/runs",
        }

    def _status(self, row: TaskRow) -> str:
        task = self._scheduler.task(row.spec.id)
        return row.status if task is None else task.status(self._clock.now())

    def _state_json(self, task: Task | TaskRow) -> dict[str, Any]:
        now = self._clock.now()
        counts = task.counts(now) if isinstance(task, Task) else counts_of_ended(task)
        due = task.next_due() if isinstance(task, Task) else None
        return {
            "status": task.status(now) if isinstance(task, Task) else task.status,
            "completions": task.spec.complete + counts[RunState.SUCCEEDED],
            "runs": {str(state): count for state, count in counts.items()},
            "finished_at": time_text(task.finished_at),
            "next_run_at": None if due is None else time_text(self._clock.wall() + max(0.0, due - now)),
        }


def _number(request: Request, name: str, default: int, high: int, low: int = 1) -> int:
    text = request.query_params.get(name)
    if text is None:
        return default
    if text.isascii() and text.isdigit() and len(text) <= 18 and low <= int(text) <= high:
        return int(text)
    raise UsageError(f"{name}: {shown(text)} is not a whole number from {low} to {high}", name)


async def _parts(form: FormData) -> tuple[list[tuple[str, str]], bytes, UploadFile | None]:
    """Split a form into text fields, stdin and the wasm file."""
    fields: list[tuple[str, str]] = []
    stdin: bytes | None = None
    wasm: UploadFile | None = None
    for name, value in form.multi_items():
        if name == "stdin":
            if stdin is not None:
                raise UsageError("stdin: given more than once", "stdin")
            stdin = value.encode() if isinstance(value, str) else await value.read()
        elif name == "wasm":
            if wasm is not None:
                raise UsageError("wasm: given more than once", "wasm")
            if isinstance(value, str):
                raise UsageError("wasm: is a text field; expected a file part (curl: -F wasm=@FILE)", "wasm")
            wasm = value
        elif isinstance(value, str):
            fields.append((name, value))
        elif name in FIELDS:
            raise UsageError(f"{name}: is a file part; expected a text field", name)
        else:
            fields.append((name, ""))  # refused as unknown, with the list of what is known
    return fields, stdin or b"", wasm


def _limited(receive: Receive, most: int) -> Receive:
    """Wrap receive so that a body of more than most bytes raises _TooLarge, whatever its headers said."""
    left = most

    async def limited() -> Message:
        nonlocal left
        message = await receive()
        left -= len(message.get("body", b""))
        if left < 0:
            raise _TooLarge
        return message

    return limited


def _too_large(most: int) -> HTTPException:
    return HTTPException(413, f"the request is larger than {most} bytes, the limit (--upload-max)")


# Errors: every one a problem, RFC 9457.


def _problem(status: int, detail: str, code: str, field: str | None = None, headers: Any = None) -> Response:
    body = {"type": "about:blank", "title": _TITLES.get(status, "Error"), "status": status, "detail": detail}
    body |= {"code": code} | ({"field": field} if field else {})
    return JSONResponse(body, status, headers, media_type="application/problem+json")


_TITLES: Final = {
    400: "Bad Request",
    403: "Forbidden",
    404: "Not Found",
    405: "Method Not Allowed",
    408: "Request Timeout",
    409: "Conflict",
    413: "Content Too Large",
    415: "Unsupported Media Type",
    422: "Unprocessable Content",
    429: "Too Many Requests",
    500: "Internal Server Error",
    503: "Service Unavailable",
}
_STATUS: Final[tuple[tuple[type[WwError], int], ...]] = (
    (Conflict, 409),
    (NotFound, 404),
    (UsageError, 422),
    (BadModule, 422),
    (Overloaded, 429),
    (StoreError, 503),
)


async def _answer_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, WwError)
    status = next((status for kind, status in _STATUS if isinstance(error, kind)), 500)
    if status >= 500:
        log.error("%s %s: %s", request.method, request.url.path, error)
    headers = {"Retry-After": str(max(1, round(error.retry_after_s)))} if isinstance(error, Overloaded) else None
    field = "wasm" if isinstance(error, BadModule) else getattr(error, "field", None)
    return _problem(status, str(error), error.code, field, headers)


async def _answer_http_exception(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    headers = dict(error.headers or {})
    if error.status_code == 413:
        headers["Connection"] = "close"
    return _problem(error.status_code, error.detail, "http", headers=headers)


def _forbidden(detail: str) -> ASGIApp:
    return _problem(403, detail, "forbidden")


async def _answer_nobody(request: Request, error: Exception) -> Response:
    return Response(status_code=499)


async def _answer_unexpected(request: Request, error: Exception) -> Response:
    # Starlette raises it again for the server to log.
    return _problem(500, "the gateway failed to answer; its log says why", "internal")
