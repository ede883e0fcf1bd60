"""What peers may do with a gateway's tasks, over capabilities: the fast way to what HTTP does.

Holds the Tasks capability, which is exported to those that may give work (serve.py). Must not know HTTP, nor who may
come. What is taken on, and how: native_intake.py; one task: native_task.py; many runs: native_batch.py; the contract is
schema/tasks.capnp.
"""

from contextlib import ExitStack
from typing import Any

from ww import schema
from ww.gateway.caller import Caller
from ww.gateway.native_batch import BatchServer
from ww.gateway.native_intake import NativeIntake, dumps, read_digest
from ww.gateway.native_task import TaskServer
from ww.gateway.query import LIMIT, STATUS
from ww.gateway.submit import Taken
from ww.rpc.exports import Peer


def tasks_for(intake: NativeIntake, peer: Peer) -> "TasksServer":
    """Make what one connection's peer gets."""
    return TasksServer(intake, intake.caller_of(peer.peer_id))


class TasksServer(schema.tasks.Tasks.Server):  # type: ignore[misc]
    """What one peer may do."""

    def __init__(self, intake: NativeIntake, caller: Caller) -> None:
        self._intake = intake
        self._caller = caller

    async def submit_context(self, context: Any) -> None:
        with self._intake.serving():
            taken = await self._submit(context.params)
            shown = await self._intake.desk.task_json(taken.spec.id)
        results = context.results
        results.shown = dumps(shown)
        results.task, results.created = TaskServer(self._intake, self._caller, taken.spec.id), taken.is_new

    async def run_context(self, context: Any) -> None:
        with self._intake.serving():
            taken = await self._submit(context.params, is_awaited=True)
        task, results = TaskServer(self._intake, self._caller, taken.spec.id), context.results
        await task.give(results, 0, "completion", context.params.waitSeconds)
        if not results.ended:
            results.task = task

    async def _submit(self, params: Any, *, is_awaited: bool = False) -> Taken:
        """Take a task on, which is on disk on return."""
        intake, caller = self._intake, self._caller
        mark = intake.tail.count
        with ExitStack() as stack:
            arrived = await intake.arrive(params, caller, stack)
            intake.require_serving()
            taken = await intake.submitter.submit(*arrived, caller, is_fresh=params.fresh, is_awaited=is_awaited)
        intake.note(taken, mark)
        return taken

    async def batch_context(self, context: Any) -> None:
        params, results = context.params, context.results
        batch = BatchServer(self._intake, self._caller)
        try:
            guest = await batch.begin(params)
        except BaseException:
            batch.close()
            raise
        results.batch, results.kind, results.entry = batch, guest.kind, guest.entry
        results.parameters = list(guest.parameters)

    async def task_context(self, context: Any) -> None:
        id = context.params.id
        with self._intake.serving():
            await self._intake.desk.see(id, self._caller)
        context.results.task = TaskServer(self._intake, self._caller, id)

    async def list_context(self, context: Any) -> None:
        params = context.params
        query = {"limit": str(params.limit)}
        query |= {name: text for name in ("status", "after") if (text := getattr(params, name))}
        status, limit, after = STATUS.read(query), LIMIT.read(query), query.get("after")
        with self._intake.serving():
            tasks = await self._intake.desk.list_json(self._caller, status, limit, after)
        context.results.shown = dumps(tasks)

    async def workers_context(self, context: Any) -> None:
        context.results.shown = dumps(await self._intake.desk.workers_json(self._caller))

    async def upload_context(self, context: Any) -> None:
        intake, params = self._intake, context.params
        wanted = read_digest(params.module)
        if await intake.modules.has(wanted):
            return
        if not params._has("wasm"):
            await intake.modules.require(wanted)
        intake.require_serving()
        intake.perimeter.require_room()
        with intake.modules.upload(intake.scheduler.modules_in_use) as upload:
            await intake.module(params.wasm, upload, wanted, self._caller)
            await intake.modules.about(upload)
            await upload.keep()

    async def about_context(self, context: Any) -> None:
        checks = self._intake.perimeter.checks()
        status = "ready" if all(check.ok for check in checks) else "not ready"
        context.results.health = dumps(self._intake.desk.health_json())
        context.results.ready = dumps({"status": status, "checks": [check.to_json() for check in checks]})
