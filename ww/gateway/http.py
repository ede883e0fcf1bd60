"""The gateway's HTTP interface: where a task's life begins and is watched.

Holds the routes and the answers' statuses. Must not decide anything about runs: it asks the scheduler and the store.
Bodies are read by posting.py, answers rendered by view.py; docs/http.md has both. Next in a task's life: scheduler.py.
"""

import logging
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from typing import Any, Final

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route, WebSocketRoute
from starlette.types import ASGIApp
from starlette.websockets import WebSocket

from ww.clock import Clock
from ww.errors import NotFound
from ww.gateway.artifacts import ArtifactStore
from ww.gateway.caller import Caller, Scope, caller_of
from ww.gateway.describe import Description
from ww.gateway.events import Reader
from ww.gateway.grid import Boards, GridReader, Sources
from ww.gateway.intake import HttpConfig, Intake
from ww.gateway.live import Live, Node
from ww.gateway.module_routes import FileResponse, ModuleRoutes
from ww.gateway.modules import ModuleStore
from ww.gateway.pages import PATHS, Pages
from ww.gateway.peer_socket import PeerSockets
from ww.gateway.perimeter import Perimeter
from ww.gateway.posting import Posting
from ww.gateway.problem import HANDLERS, Json
from ww.gateway.query import AFTER_RESULT, AFTER_RUN, FOLLOW, LIMIT, ORDER, STATUS, WAIT
from ww.gateway.quorum import make_task
from ww.gateway.request import RequestLimits, shown
from ww.gateway.results import ResultReader, Told, named
from ww.gateway.scheduler import Scheduler
from ww.gateway.storage import Storage, TaskRow
from ww.gateway.streams import ClusterStream, EventStream, GridStream, ResultStream, Streams, position_of
from ww.gateway.submit import Submitter
from ww.gateway.task import RunResult, RunState, Task
from ww.gateway.view import counts_of_ended, result_json, spec_json, task_path, time_text, told_json, worker_json
from ww.gateway.websocket import SocketRoutes

log = logging.getLogger("ww.gateway")

_RESULTS_SHOWN: Final = 100
# As JSON it may be six times as much, which nothing else is done beside: workers must not count as gone meanwhile.
_OUTPUT_SHOWN_BYTES_MAX: Final = 4 << 20


class HttpGateway:
    """The handlers, over one gateway's parts."""

    def __init__(
        self,
        scheduler: Scheduler,
        store: Storage,
        modules: ModuleStore,
        artifacts: ArtifactStore,
        clock: Clock,
        limits: RequestLimits,
        config: HttpConfig,
        about: Callable[[], Mapping[str, Any]],
        perimeter: Perimeter | None = None,
        pages: Pages | None = None,
        peers: PeerSockets | None = None,
        node: Node | None = None,
    ) -> None:
        self._scheduler = scheduler
        self._store = store
        self._modules = modules
        self._artifacts = artifacts
        self._clock = clock
        self._limits = limits
        self._about = about
        self._perimeter = perimeter or Perimeter()
        self._pages = pages or Pages()
        self._description = Description(self._perimeter, limits)
        self._intake = Intake(config)
        self._submitter = Submitter(scheduler, modules, limits, self._perimeter)
        self._posting = Posting(self._submitter, self._intake, limits)
        self._inputs = scheduler.inputs
        self._module_routes = ModuleRoutes(scheduler, modules, self._intake, self._perimeter)
        self._streams = Streams(count_max=config.streams_max, timeout_s=config.stream_timeout_s)
        self._sockets = SocketRoutes(
            self._submitter,
            scheduler.watches,
            self._streams,
            reader=self.reader,
            task_json=self._task_json,
            cancel=self._cancel,
            watches_max=config.watches_max,
            messages_max=config.messages_max,
        )
        self._peers = peers
        self.boards = Boards(Sources(store, scheduler.watches, clock, current=self._current, summary=self._summary))
        self.live = Live(
            scheduler,
            store,
            clock,
            self._perimeter.metrics,
            about=about,
            current=self._current,
            summary=self._summary,
            node=node,
        )
        self._is_stopping = False

    def stop(self) -> None:
        """Answer now those that wait for a task's end, and refuse the bodies that are still arriving."""
        self._is_stopping = True
        self._perimeter.stop()
        self._scheduler.watches.close()
        self._intake.stop()
        if self._peers is not None:
            self._peers.stop()

    def open_streams(self) -> int:
        """Return how many streams of events and WebSockets are open."""
        return self._streams.count

    def app(self) -> ASGIApp:
        """Return the ASGI application."""
        modules = self._module_routes
        routes = [
            _route("/tasks", GET=self.get_tasks, POST=self.post_task),
            _route("/tasks/{id}", GET=self.get_task, DELETE=self.delete_task),
            _route("/tasks/{id}/events", GET=self.get_events),
            _route("/tasks/{id}/grid", GET=self.get_grid),
            _route("/tasks/{id}/results", GET=self.get_results),
            _route("/tasks/{id}/runs", GET=self.get_runs),
            _route("/tasks/{id}/runs/{run}", GET=self.get_run),
            _route("/tasks/{id}/runs/{run}/artifacts", GET=self.get_artifacts),
            _route("/modules", POST=modules.post_module),
            _route("/modules/{digest}", GET=modules.get_module, DELETE=modules.delete_module),
            WebSocketRoute("/ws", self._sockets.serve),
            _route("/ws", GET=self._sockets.explain),
            *self._peer_routes(),
            _route("/events", GET=self.get_cluster_events),
            _route("/workers", GET=self.get_workers),
            _route("/healthz", GET=self.get_health),
            _route("/readyz", GET=self._description.get_ready),
            _route("/metrics", GET=self._description.get_metrics),
            _route("/openapi.json", GET=self._description.get_document),
            *(_route(path, GET=self._pages.get) for path in PATHS),
            WebSocketRoute("/{path:path}", self._sockets.refuse),
        ]
        app = Starlette(routes=routes, exception_handlers=HANDLERS)
        # A redirect would lose the form that was sent along.
        app.router.redirect_slashes = False
        return self._perimeter.around(app)

    def _peer_routes(self) -> list[BaseRoute]:
        peers = self._peers
        if peers is None:
            return []

        async def serve(websocket: WebSocket) -> None:
            await peers.serve(websocket, self._streams)

        return [WebSocketRoute("/peer", serve), _route("/peer", GET=peers.explain)]

    # Tasks.

    async def post_task(self, request: Request) -> Response:
        self._perimeter.require_room()
        wait_s = WAIT.read(request.query_params)
        taken = await self._posting.take(request, is_awaited=wait_s > 0)
        id = taken.spec.id
        location = {"Location": task_path(id)}
        if wait_s > 0 and not self._is_stopping:
            await self._scheduler.wait_ended(id, wait_s)
        return Json(await self._task_json(id), 201 if taken.is_new else 200, location)

    async def get_tasks(self, request: Request) -> Response:
        status, limit = STATUS.read(request.query_params), LIMIT.read(request.query_params)
        after = request.query_params.get("after")
        return Json(await self.list_json(caller_of(request.scope), status, limit, after))

    async def list_json(
        self, caller: Caller, status: str | None, limit: int, after: str | None
    ) -> list[dict[str, Any]]:
        """Render up to limit tasks that the caller may see, newest first: of that status, older than the task after."""
        page_size = LIMIT.high if status else limit
        owner = None if caller.may(Scope.ADMIN) else caller.name
        before = None
        if after is not None:
            before = (await self._row(after, caller)).number
        rows: list[TaskRow] = []
        while len(rows) < limit:
            page = await self._store.tasks(limit=page_size, before=before, owner=owner)
            rows += [row for row, task in await self._present(page) if not status or self._status(task) == status]
            if len(page) < page_size:
                break
            before = page[-1].number
        return await self._tasks_json(rows[:limit])

    async def get_task(self, request: Request) -> Response:
        id: str = request.path_params["id"]
        await self._see(id, caller_of(request.scope))
        if (wait_s := WAIT.read(request.query_params)) > 0 and not self._is_stopping:
            await self._scheduler.wait_ended(id, wait_s)
        return Json(await self._task_json(id))

    async def delete_task(self, request: Request) -> Response:
        id: str = request.path_params["id"]
        await self._cancel(id, caller_of(request.scope))
        return Json(await self._task_json(id))

    async def _cancel(self, id: str, caller: Caller) -> None:
        """End a task. NotFound when there is none that the caller may see."""
        await self._see(id, caller)
        await self._scheduler.cancel(id)

    async def get_events(self, request: Request) -> Response:
        after, is_resumed = position_of(request)
        id = request.path_params["id"]
        reader = await self.reader(id, caller_of(request.scope))
        if not await reader.begin(after) and is_resumed:
            return Response(None, 204)
        return EventStream(reader, self._scheduler.watches, id, self._streams)

    async def reader(self, id: str, caller: Caller) -> Reader:
        """Make a reader of a task. NotFound when there is none that the caller may see."""
        row = await self._row(id, caller)
        return Reader(
            self._store, row, current=self._current, shown=self._summary, named=self._named, now=self._clock.now
        )

    async def get_grid(self, request: Request) -> Response:
        row = await self._row(request.path_params["id"], caller_of(request.scope))
        return GridStream(GridReader(self.boards, row), self._streams)

    # Runs.

    async def get_runs(self, request: Request) -> Response:
        row = await self._row(request.path_params["id"], caller_of(request.scope))
        limit, after = LIMIT.read(request.query_params), AFTER_RUN.read(request.query_params, -1)
        results = await self._store.results_by_run(
            row.number, limit=limit, after=after, output_bytes_max=_OUTPUT_SHOWN_BYTES_MAX
        )
        return Json([told_json(told, row.spec.id) for told in await self._named(row, results)])

    async def get_results(self, request: Request) -> Response:
        query = request.query_params
        by_run = ORDER.read(query) == "input"
        after = AFTER_RESULT.read(query, -1 if by_run else 0)
        follow = FOLLOW.read(query) != "false"
        row = await self._row(request.path_params["id"], caller_of(request.scope))
        reader = ResultReader(
            self._store, self._inputs, row, current=self._current, by_run=by_run, after=after, follow=follow
        )
        return ResultStream(reader, self._scheduler.watches, row.spec.id, self._streams)

    async def get_run(self, request: Request) -> Response:
        row, run = await self._row_and_run(request)
        if (told := await self._told(row, run)) is not None:
            return Json(told_json(told, row.spec.id))
        task = await self._current(row)
        if isinstance(task, Task):
            return Json({"run": run, "state": task.state_of(run, self._clock.now())})
        # It has ended since the results were read, or never ran.
        if (told := await self._told(row, run)) is not None:
            return Json(told_json(told, row.spec.id))
        return Json({"run": run, "state": RunState.CANCELLED})

    async def get_artifacts(self, request: Request) -> Response:
        row, run = await self._row_and_run(request)
        result = told.result if (told := await self._told(row, run)) is not None else None
        if result is None:
            raise NotFound(f"run {run} of task {row.spec.id!r} has not ended, or never ran")
        if not result.outcome.artifacts:
            raise NotFound(f"run {run} of task {row.spec.id!r} has no artifacts")
        name = f"{row.spec.id}-{run}.zip".replace(":", "_")  # which some file systems do not take
        headers = {
            "Content-Disposition": f'attachment; filename="{name}"',
            "Content-Length": str(result.outcome.artifacts_bytes),
        }
        file = await self._artifacts.open(result.outcome.artifacts)
        return FileResponse(file, headers, "application/zip")

    async def _row_and_run(self, request: Request) -> tuple[TaskRow, int]:
        row = await self._row(request.path_params["id"], caller_of(request.scope))
        text = request.path_params["run"]
        if not (text.isascii() and text.isdigit()) or len(text) > 18 or int(text) >= row.spec.repeats:
            raise NotFound(f"task {row.spec.id!r} has no run {shown(text)}: expected 0 to {row.spec.repeats - 1}")
        return row, int(text)

    async def _told(self, row: TaskRow, run: int) -> Told | None:
        """Return the result of a run, if it has one."""
        found = await self._store.results_by_run(row.number, limit=1, after=run - 1)
        return (await self._named(row, found))[0] if found and found[0][1].run == run else None

    async def _named(self, row: TaskRow, results: list[tuple[int, RunResult]]) -> list[Told]:
        return await named(row.spec.inputs, self._inputs, results)

    # The cluster.

    async def get_cluster_events(self, request: Request) -> Response:
        return ClusterStream(self.live, self._streams)

    async def get_workers(self, request: Request) -> Response:
        return Json(await self.workers_json(caller_of(request.scope)))

    async def workers_json(self, caller: Caller) -> list[dict[str, Any]]:
        """Render the workers that are registered, as that caller may see them."""
        # Whoever knows a digest may read the module: those of others are not told.
        told = None if caller.may(Scope.ADMIN) else await self._store.modules_of(caller.name)
        return [
            worker_json(entry, free)
            | {"modules": [f"sha256:{digest}" for digest in sorted(entry.modules) if told is None or digest in told]}
            for entry, free in self._scheduler.pool.workers()
        ]

    async def get_health(self, request: Request) -> Response:
        return Json(self.health_json())

    def health_json(self) -> dict[str, Any]:
        """Say that the gateway lives, and who it is."""
        return {"status": "ok", **self._about()}

    # Reading.

    async def _row(self, id: str, caller: Caller | None = None) -> TaskRow:
        """Return the task of that id. NotFound when there is none, or none that the caller may see."""
        row = await self._store.task(id)
        if row is None or not (caller is None or caller.may_see(row.spec.owner)):
            raise NotFound(f"no task {shown(id)}")
        return row

    async def _see(self, id: str, caller: Caller) -> None:
        """Raise NotFound when the task of that id is one that the caller may not see."""
        task = self._scheduler.task(id)
        if task is not None and not caller.may_see(task.spec.owner):
            raise NotFound(f"no task {shown(id)}")
        if task is None and caller.name:
            await self._row(id, caller)  # whose it is, if it is there; not what somebody is just adding

    async def _current(self, row: TaskRow) -> Task | TaskRow:
        """Return what is known of a task now: its life where it is open, else its row, read again if it ended since."""
        while (task := self._scheduler.task(row.spec.id)) is None and not row.has_ended:
            if self._scheduler.is_being_added(row.spec.id):
                now, wall = self._clock.now(), self._clock.wall()
                return make_task(row.spec, number=row.number, created_at=row.created_at, now=now, wall=wall)
            row = await self._row(row.spec.id)
        return row if task is None else task

    async def _present(self, rows: list[TaskRow]) -> list[tuple[TaskRow, Task | TaskRow]]:
        """Return each row with what is known of its task now, without those that were forgotten meanwhile."""
        found: list[tuple[TaskRow, Task | TaskRow]] = []
        for row in rows:
            with suppress(NotFound):
                found.append((row, await self._current(row)))
        return found

    # Answering.

    async def _task_json(self, id: str) -> dict[str, Any]:
        task = self._scheduler.task(id)
        if task is not None and not task.succeeded + task.failed:
            return self._render(task, self._state_json(task), [])  # nothing that only the disk knows
        return (await self._tasks_json([await self._row(id)]))[0]

    async def _tasks_json(self, rows: list[TaskRow]) -> list[dict[str, Any]]:
        # States first: a task that is shown as ended is shown with all its results.
        states = [(row, self._state_json(task)) for row, task in await self._present(rows)]
        results = await self._store.latest_results(
            (row.number for row in rows), limit=_RESULTS_SHOWN, output_bytes_max=_OUTPUT_SHOWN_BYTES_MAX
        )
        return [self._render(row, state, results[row.number]) for row, state in states]

    def _render(self, task: Task | TaskRow, state: dict[str, Any], results: list[RunResult]) -> dict[str, Any]:
        return {
            **spec_json(task.spec),
            **state,
            "created_at": time_text(task.created_at),
            "results_url": f"{task_path(task.spec.id)}/runs",
            "results": [result_json(result, task.spec.id) for result in results],
        }

    def _summary(self, task: Task | TaskRow) -> dict[str, Any]:
        """Render a task without its results."""
        rendered = self._render(task, self._state_json(task), [])
        del rendered["results"]
        return rendered

    def _status(self, task: Task | TaskRow) -> str:
        return task.status(self._clock.now()) if isinstance(task, Task) else task.status

    def _reason(self, task: Task | TaskRow) -> str | None:
        """Return why a task cannot be satisfied, or failed as a whole."""
        return (task.reason(self._clock.now()) if isinstance(task, Task) else task.reason) or None

    def _state_json(self, task: Task | TaskRow) -> dict[str, Any]:
        now = self._clock.now()
        counts = task.counts(now) if isinstance(task, Task) else counts_of_ended(task)
        due = task.next_due() if isinstance(task, Task) else None
        return {
            "status": self._status(task),
            "completions": task.spec.complete + counts[RunState.SUCCEEDED],
            "reason": self._reason(task),
            "runs": {str(state): count for state, count in counts.items()},
            "finished_at": time_text(task.finished_at),
            "next_run_at": None if due is None else time_text(self._clock.wall() + max(0.0, due - now)),
        }

    # What peers that speak no HTTP are answered with: native.py.
    row = _row
    see = _see
    cancel = _cancel
    task_json = _task_json
    told = _told


def _route(path: str, **handlers: Callable[[Request], Awaitable[Response]]) -> Route:
    """Make one route of a path's methods, so that a wrong method is told all the right ones."""

    async def handle(request: Request) -> Response:
        return await handlers["GET" if request.method == "HEAD" else request.method](request)

    return Route(path, handle, methods=list(handlers))
