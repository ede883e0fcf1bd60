"""One task, as a peer holds it: its results as they come, its end, what happens to it.

Holds what is told of it, and when. Must not know how it was submitted. Nothing is queued for a reader: it says how far
it has read, and is answered from the latest results in memory (tail.py) or else from the store.
"""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import ExitStack
from typing import Any, Final

from ww import schema
from ww.caps.blob import BlobServer
from ww.errors import Draining, NotFound, StoreError, UsageError
from ww.gateway.caller import Caller
from ww.gateway.events import Event, Reader
from ww.gateway.native_intake import Known, NativeIntake, dumps
from ww.gateway.task import RunResult, RunState, Task
from ww.gateway.watch import Watch
from ww.results import write_result

_WAIT_MAX_S: Final = 60.0
_IDLE_S: Final = 15.0
# By their numbers: others have no name.
_ORDERS: Final = {number: name for name, number in schema.tasks.Order.schema.enumerants.items()}
# Between two looks for runs that others have to end before: it doubles from the first to the last.
_GAP_MIN_S: Final = 0.002
_GAP_MAX_S: Final = 0.1


class TaskServer(schema.tasks.Task.Server):  # type: ignore[misc]
    """Serves it."""

    def __init__(self, intake: NativeIntake, caller: Caller, id: str) -> None:
        self._intake = intake
        self._caller = caller
        self._id = id
        self._known = intake.latest.get(id)

    # Results.

    async def results_context(self, context: Any) -> None:
        params = context.params
        await self.give(context.results, params.after, _ORDERS.get(params.order.raw, ""), params.waitSeconds)

    async def give(self, message: Any, after: int, order: str, wait_s: float) -> None:
        """Write results beyond after into a message, once there are any or that time is over."""
        until = _until(wait_s)
        read = {"completion": self._as_they_ended, "input": self._by_input, "known": self._that_are_known}.get(order)
        if read is None:
            raise UsageError("order: expected completion, input or known", "order")
        with self._intake.serving(), self._intake.scheduler.watches.open(self._id) as watch:
            gap_s = 0.0
            while True:
                # In this order: what had ended at the look is there when it is read.
                is_over = self._is_over()
                known = self._known = self._known or await self._look()
                results, has_more = await read(known, after, is_over)
                message.next = after
                if results or is_over or order == "known":
                    if results:
                        position, result = results[-1]
                        message.next = position if order == "completion" else result.run
                    names = await self._names(known.inputs, results)
                    message.results = b"".join(map(_record, results, names))
                    message.ended = not has_more and (is_over or order == "known")
                    return
                if watch.is_closed:
                    raise Draining("the gateway is stopping")
                if not await _changed(watch, until):
                    return
                if order == "input":
                    # Others end all the time, perhaps, while the one that is waited for does not.
                    gap_s = min(_GAP_MAX_S, max(_GAP_MIN_S, 2 * gap_s))
                    await asyncio.sleep(gap_s)

    def _is_over(self) -> bool:
        """Whether all results of it are on disk."""
        scheduler = self._intake.scheduler
        return scheduler.task(self._id) is None and not scheduler.is_being_added(self._id)

    async def _look(self) -> Known:
        task = self._intake.scheduler.task(self._id)
        found = task if task is not None else await self._intake.desk.row(self._id, self._caller)
        return Known(found.number, found.spec.inputs)

    async def _as_they_ended(self, known: Known, after: int, is_over: bool) -> "tuple[list[_Placed], bool]":
        config = self._intake.config
        limit, page_bytes = config.page_results, config.page_bytes
        held = self._intake.tail.since(known.number, after, mark=known.mark, limit=limit, bytes_max=page_bytes)
        if held is not None:
            return held
        most = {"limit": limit, "output_bytes_max": page_bytes}
        found = await self._intake.store.results_since(known.number, position=after, **most)
        # That what would come next is too much for this page, is not told.
        size = sum(len(result.outcome.stdout) + len(result.outcome.stderr) for _, result in found)
        return found, len(found) == limit or size + await self._output_bytes() > page_bytes

    async def _output_bytes(self) -> int:
        task = self._intake.scheduler.task(self._id)
        spec = task.spec if task is not None else (await self._intake.desk.row(self._id, self._caller)).spec
        return max(1, 2 * spec.output_bytes)

    async def _by_input(self, known: Known, after: int, is_over: bool) -> "tuple[list[_Placed], bool]":
        found, has_more = await self._that_are_known(known, after, is_over)
        if not is_over:
            # Up to the first run that has not ended.
            whole = [each for place, each in enumerate(found, max(after, -1) + 1) if each[1].run == place]
            return whole, True
        return found, has_more

    async def _that_are_known(self, known: Known, after: int, is_over: bool) -> "tuple[list[_Placed], bool]":
        config = self._intake.config
        most = {"limit": config.page_results, "output_bytes_max": config.page_bytes}
        found = await self._intake.store.results_by_run(known.number, after=max(after, -1), **most)
        return found, bool(found)

    async def _names(self, inputs: str, results: "Sequence[_Placed]") -> list[str]:
        """Return the names of those runs, empty where they have none."""
        if not inputs or not results:
            return [""] * len(results)
        try:
            return await self._intake.inputs.names(inputs, [result.run for _, result in results])
        except StoreError:
            return [""] * len(results)  # the results are there all the same

    # The task.

    async def status_context(self, context: Any) -> None:
        wait_s = _wait(context.params.waitSeconds)
        with self._intake.serving():
            await self._intake.desk.see(self._id, self._caller)
            if wait_s > 0:
                await self._intake.scheduler.wait_ended(self._id, wait_s)
            context.results.shown = dumps(await self._intake.desk.task_json(self._id))

    async def cancel_context(self, context: Any) -> None:
        with self._intake.serving():
            await self._intake.desk.cancel(self._id, self._caller)
            context.results.shown = dumps(await self._intake.desk.task_json(self._id))

    # Its runs.

    async def run_context(self, context: Any) -> None:
        run, desk = context.params.run, self._intake.desk
        row = await desk.row(self._id, self._caller)
        self._require_run(run, row.spec.repeats)
        task = self._intake.scheduler.task(self._id)
        told = await desk.told(row, run)
        if told is not None:
            context.results.result = _record((told.position, told.result), told.name)
        elif isinstance(task, Task):
            context.results.state = task.state_of(run, self._intake.now())
        else:
            context.results.state = RunState.CANCELLED

    def _require_run(self, run: int, count: int) -> None:
        if run >= count:
            raise NotFound(f"task {self._id!r} has no run '{run}': expected 0 to {count - 1}")

    async def artifacts_context(self, context: Any) -> None:
        run, desk = context.params.run, self._intake.desk
        row = await desk.row(self._id, self._caller)
        self._require_run(run, row.spec.repeats)
        told = await desk.told(row, run)
        if told is None:
            raise NotFound(f"run {run} of task {self._id!r} has not ended, or never ran")
        if not told.result.outcome.artifacts:
            raise NotFound(f"run {run} of task {self._id!r} has no artifacts")
        context.results.zip = BlobServer(self._intake.artifacts.path(told.result.outcome.artifacts))

    async def events_context(self, context: Any) -> None:
        params = context.params
        reader = await self._intake.desk.reader(self._id, self._caller)
        if await reader.begin(None if params.now else params.after):
            context.results.events = EventsServer(self._intake, self._caller, self._id, reader)
        else:
            context.results.over = True


_Placed = tuple[int, RunResult]


class EventsServer(schema.tasks.Events.Server):  # type: ignore[misc]
    """What happens to a task, told when it is asked for."""

    def __init__(self, intake: NativeIntake, caller: Caller, id: str, reader: Reader) -> None:
        self._intake = intake
        self._stack = ExitStack()
        self._stack.enter_context(intake.streaming(caller))
        self._watch = self._stack.enter_context(intake.scheduler.watches.open(id))
        self._events: AsyncGenerator[list[Event], None] = reader.events(self._watch, idle_s=_IDLE_S)  # type: ignore[assignment]
        self._is_asked = False

    async def next_context(self, context: Any) -> None:
        if self._is_asked:
            raise UsageError("next: asked again before it was answered; expected one call at a time")
        self._is_asked = True
        try:
            with self._intake.serving():
                events = await anext(self._events, None)
        finally:
            self._is_asked = False
        if events is None:
            self._stack.close()
            if self._watch.is_closed:
                raise Draining("the gateway is stopping")
            context.results.ended = True
            return
        told = [{"kind": event.kind, "position": event.position, "data": event.data} for event in events]
        context.results.told = dumps(told)

    def __del__(self) -> None:
        self._stack.close()


def _wait(wait_s: float) -> float:
    """Return how long to wait, of what a stranger asked for."""
    return min(wait_s, _WAIT_MAX_S) if wait_s > 0 else 0.0


def _until(wait_s: float) -> float:
    return asyncio.get_running_loop().time() + _wait(wait_s)


async def _changed(watch: Watch, until: float) -> bool:
    """Wait for a change; False when the time is over."""
    left_s = until - asyncio.get_running_loop().time()
    if left_s <= 0:
        return False
    await watch.changes(left_s)
    return True


def _record(placed: _Placed, name: str) -> bytes:
    position, result = placed
    outcome = result.outcome
    return write_result(
        (
            result.run, position, result.state, outcome.result, outcome.exit_code, outcome.stdout, outcome.stderr,
            outcome.stdout_truncated, outcome.stderr_truncated, outcome.reason, outcome.detail, result.worker,
            result.attempts, result.queued_at, result.started_at, result.finished_at, outcome.wall_s, outcome.cpu_s,
            outcome.queue_s, outcome.compile_s, outcome.instantiate_s, outcome.memory_bytes,
            outcome.memory_limit_bytes, outcome.fuel, outcome.files_bytes, bool(outcome.artifacts),
            outcome.artifacts_bytes, name,
        )
    )  # fmt: skip
