"""What a run may have called while it runs: tasks that are made for it, and that are gone when it is.

Holds the capability that a worker is given with a run of a task with grants, and what it may hold at a time. Must not
know slots or who runs what. A call is one task, on disk as any other, with a run for each of its requests; it has its
parent's module and files, and is one deeper. Requests and answers: ../python/request.py.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import Any, Final, Protocol, cast

from ww import schema
from ww.caps.blob import BytesBlobServer, fetch
from ww.errors import ClosedError, NotFound, Overloaded, StoreError, UsageError, WwError
from ww.gateway.inputs import InputsWriter
from ww.gateway.modules import ModuleStore
from ww.gateway.spec import Grant, RunResult, RunState, Spec
from ww.gateway.storage import Storage
from ww.gateway.task import Task
from ww.python.request import Answer, AnswerKind, ended, read_requests, write_answers
from ww.records import LARGE_BYTES, Input, write_input
from ww.uuid7 import uuid7

log = logging.getLogger("ww.gateway")

_LOOK_EVERY_S: Final = 60.0
_RETRY_S: Final = 1.0
_NAME_CHARACTERS_MAX: Final = 128
# Results read at a time.
_RESULTS_AT_ONCE: Final = 256
# Of an answer beside its body, roughly.
_ANSWER_BYTES: Final = 64


@dataclass(frozen=True, slots=True)
class CallsConfig:
    """What runs may have called."""

    depth_max: int = 4
    """How deep calls within calls go; 0: no run calls another."""
    tasks_max: int = 100
    """Calls of one run that are tasks at a time; further ones wait."""
    calls_max: int = 1000
    """Calls of one run at a time, with those that wait."""
    bytes_max: int = 64 << 20
    """Of the requests of one call, and of its answers."""
    held_bytes_max: int = 256 << 20
    """Of the requests of all calls of one run at a time."""
    request_bytes_max: int = 32 << 20
    """Of one request: what a run may get as stdin."""


class Tasks(Protocol):
    """What is asked of the scheduler."""

    async def submit(
        self, spec: Spec, keep_module: Callable[[], Awaitable[None]], *, is_new: bool = False, is_awaited: bool = False
    ) -> int: ...
    async def cancel(self, id: str) -> None: ...
    async def wait_ended(self, id: str, timeout_s: float) -> None: ...
    async def modules_in_use(self) -> set[str]: ...
    def task(self, id: str) -> Task | None: ...
    @property
    def is_stopping(self) -> bool: ...


class Nesting:
    """All calls that runs make, over one gateway's parts."""

    def __init__(
        self,
        tasks: Tasks,
        store: Storage,
        modules: ModuleStore,
        config: CallsConfig,
        spawn: Callable[[Coroutine[Any, Any, None]], None],
    ) -> None:
        """spawn runs a coroutine beside the others until it ends."""
        self.config = config
        self.admit: Callable[[Spec], AbstractContextManager[None]] = lambda spec: nullcontext()
        """Gives a context to submit a nested task in; raises when its owner holds too much."""
        self._tasks = tasks
        self._store = store
        self._modules = modules
        self._spawn = spawn

    def calls_for(self, task: Task) -> "CallsServer":
        """Make what one run of a task may ask of the cluster."""
        return CallsServer(self, task.spec)

    async def run(self, spec: Spec, requests: Sequence[bytes]) -> list[Answer]:
        """Have a task run once for each request, and return how that ended. Cancelled, the task is too."""
        try:
            number = await self._begin(spec, requests)
            while (task := self._tasks.task(spec.id)) is not None and not task.has_ended:
                await self.unless_stopping()
                await self._tasks.wait_ended(spec.id, _LOOK_EVERY_S)
            return await self._answers(spec.id, number, len(requests))
        except BaseException:
            if not self._tasks.is_stopping:  # else it is cancelled at the next start
                self._spawn(self._cancel(spec.id))
            raise

    async def unless_stopping(self) -> None:
        """Return, but while the gateway is stopping: then whoever calls is told nothing, since it begins again."""
        if self._tasks.is_stopping:
            await asyncio.get_running_loop().create_future()

    async def _begin(self, spec: Spec, requests: Sequence[bytes]) -> int:
        if len(requests) == 1:
            spec = replace(spec, stdin=requests[0])
            with self.admit(spec):
                return await self._tasks.submit(spec, _nothing, is_new=True, is_awaited=True)
        with self._modules.upload_inputs(self._tasks.modules_in_use) as upload:
            writer = InputsWriter(upload)
            for request in requests:
                writer.add(write_input(Input(stdin=request)))
                if upload.is_due:
                    await upload.flush()
            await writer.finish()
            spec = replace(spec, inputs=upload.digest, repeats=len(requests))
            with self.admit(spec):
                return await self._tasks.submit(spec, upload.keep, is_new=True)

    async def _answers(self, id: str, number: int, count: int) -> list[Answer]:
        """Read how the runs of a task ended, each by its place."""
        answers: dict[int, Answer] = {}
        last, left = -1, self.config.bytes_max
        limit, most = _RESULTS_AT_ONCE, self.config.bytes_max
        while found := await self._store.results_by_run(number, limit=limit, after=last, output_bytes_max=most):
            for _, result in found:
                answer = _answer(result)
                left -= len(answer.body) + _ANSWER_BYTES
                if left < 0:
                    answer = ended("refused", f"the answers to a call have more than {most} bytes together")
                answers[result.run] = answer
                last = result.run
        if len(answers) == count:
            return [answers[run] for run in range(count)]
        row = await self._store.task(id)
        is_cancelled = row is not None and row.cancelled
        rest = ended("cancelled") if is_cancelled else ended("lost", row.reason if row is not None else "")
        return [answers.get(run, rest) for run in range(count)]

    async def _cancel(self, id: str) -> None:
        """End a task that nobody waits for any more, however long the disk refuses."""
        while not self._tasks.is_stopping:
            try:
                await self._tasks.cancel(id)
                return
            except NotFound:
                return
            except StoreError:
                await asyncio.sleep(_RETRY_S)


class CallsServer(schema.worker.Calls.Server):  # type: ignore[misc]
    """What one run may ask of the cluster, until it ends."""

    def __init__(self, nesting: Nesting, parent: Spec) -> None:
        self._nesting = nesting
        self._parent = parent
        self._places = asyncio.Semaphore(nesting.config.tasks_max)
        self._under_way: set[asyncio.Task[bytes]] = set()
        self._held_bytes = 0
        self._is_closed = False

    async def call_context(self, context: Any) -> None:
        params, config = context.params, self._nesting.config
        if self._is_closed or len(self._under_way) >= config.calls_max:
            why = "has ended" if self._is_closed else f"has {config.calls_max} calls under way, the limit"
            raise UsageError(f"calls: the run {why}")
        answering = asyncio.get_running_loop().create_task(self._call(params))
        self._under_way.add(answering)
        try:
            await asyncio.wait((answering,))
        finally:
            answering.cancel()
            self._under_way.discard(answering)
        if answering.cancelled():
            raise ClosedError("the run that calls has ended")
        answers = answering.result()
        if len(answers) > LARGE_BYTES:
            context.results.large = BytesBlobServer(answers)
        else:
            context.results.answers = answers

    async def _call(self, params: Any) -> bytes:
        name, requests = params.name, params.requests
        with self._holding() as hold:
            if params._has("large"):
                size = (await params.large.size()).bytes
                hold(size)
                requests = b"".join([piece async for piece in fetch(params.large, bytes_max=size)])
            else:
                hold(len(requests))
            return await self._answer(name, requests)

    @contextmanager
    def _holding(self) -> Iterator[Callable[[int], None]]:
        """Count what the requests of a call take here. UsageError when that is too much."""
        config, held = self._nesting.config, 0

        def hold(size: int) -> None:
            nonlocal held
            if size > config.bytes_max:
                raise UsageError(f"requests: {size} bytes, at most {config.bytes_max} are taken")
            if self._held_bytes + size > config.held_bytes_max:
                raise UsageError(f"requests: the calls of a run have more than {config.held_bytes_max} bytes together")
            held = size
            self._held_bytes += size

        try:
            yield hold
        finally:
            self._held_bytes -= held

    async def _answer(self, name: str, data: bytes) -> bytes:
        try:
            requests = read_requests(data)
        except ValueError as error:
            raise UsageError(f"requests: {error}") from None
        try:
            spec = self._spec_of(name, max(map(len, requests)))
            async with self._places:
                answers = await self._nesting.run(spec, requests)
        except WwError as error:
            await self._nesting.unless_stopping()
            # What may go another time is not what may never.
            reason = "overloaded" if isinstance(error, Overloaded | StoreError) else "refused"
            answers = [ended(reason, str(error))] * len(requests)
        return write_answers(answers)

    def _spec_of(self, name: str, request_bytes: int) -> Spec:
        """Make the task of a call. UsageError when it may not be."""
        config, parent = self._nesting.config, self._parent
        grant = next((each for each in parent.grants if each.name == name and not each.is_indirect), None)
        if grant is None:
            raise UsageError(f"{name[:200]!r} is not granted to this task")
        if parent.depth >= config.depth_max:
            raise UsageError(f"calls within calls go to a depth of {config.depth_max} (--nesting), this one is deeper")
        if request_bytes > config.request_bytes_max:
            most = config.request_bytes_max
            raise UsageError(f"a request has {request_bytes} bytes, at most {most} are taken (--stdin-max)")
        return Spec(
            id=str(uuid7()),
            module=parent.module,
            kind=parent.kind,
            entry="",
            files=parent.files,
            name=name[:_NAME_CHARACTERS_MAX],
            args=(name,),
            duration_s=grant.duration_s,
            memory_bytes=grant.memory_bytes,
            output_bytes=grant.output_bytes,
            fuel=grant.fuel,
            cpu_s=grant.cpu_s,
            retries=grant.retries,
            deterministic=parent.deterministic,
            seed=parent.seed,
            owner=parent.owner,
            labels=parent.labels,
            priority=parent.priority,
            grants=nested_grants(parent.grants, grant.grants),
            depth=parent.depth + 1,
            parent=parent.id,
        )

    def close(self) -> None:
        """Cancel what is under way: the run has ended, or does not count any more. Idempotent."""
        self._is_closed = True
        for answering in self._under_way:
            answering.cancel()


def nested_grants(of_parent: Iterable[Grant], direct: Sequence[str]) -> tuple[Grant, ...]:
    """Return what a called function may call: those named in direct, and those that these may have called in turn."""
    by_name = {grant.name: grant for grant in of_parent}
    found: dict[str, Grant] = {}
    waiting = list(direct)
    while waiting:
        name = waiting.pop()
        if name not in found and (grant := by_name.get(name)) is not None:
            found[name] = replace(grant, is_indirect=name not in direct)
            waiting += grant.grants
    # In the parent's order, whatever way they were reached.
    return tuple(found[name] for name in by_name if name in found)


def _answer(result: RunResult) -> Answer:
    """Say how one run ended."""
    outcome = result.outcome
    if result.state is RunState.SUCCEEDED:
        if outcome.stdout_truncated:
            return ended("exit", "the result is longer than what is kept of it")
        return Answer(AnswerKind.VALUE, outcome.stdout)
    if result.state is RunState.CANCELLED:
        return ended("cancelled")
    if outcome.reason == "exit" and outcome.stdout and not outcome.stdout_truncated:
        return Answer(AnswerKind.RAISED, outcome.stdout)
    return ended(cast("Any", outcome.reason or "lost"), outcome.detail)


async def _nothing() -> None:
    """Keep nothing: what the task names, its parent does too."""
