"""Calls in sandboxes of this process: job.local, with nothing else started.

Holds a thread with a sandbox pool, which begins with the first call and ends with the program. Calls that a job makes
are served here too. Must not know clusters. Between the pool's processes and guests it is as on a worker: see
../sandbox/pool.py.
"""

import asyncio
import atexit
import concurrent.futures
import contextlib
import hashlib
import os
import threading
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from ww.directories import cache_directory
from ww.errors import ClosedError, UsageError, WwError
from ww.jobs.call import Call, Target
from ww.jobs.options import OUTPUT_BYTES, JobOptions
from ww.jobs.runner import Runner
from ww.python import build
from ww.python.outcome import Ended
from ww.python.request import Answer, AnswerKind, ended, read_requests, write_answers
from ww.records import read_outcomes
from ww.rpc.loop import run as run_loop
from ww.sandbox.codec import result_of
from ww.sandbox.inputs import Inputs, Task
from ww.sandbox.invocation import Invocation, Result, RunLimits
from ww.sandbox.limits import SandboxLimits
from ww.sandbox.modules import ModuleCache
from ww.sandbox.pool import SandboxPool

NESTING_MAX: Final = 4
_CACHE_BYTES: Final = 1 << 30
_CLOSE_S: Final = 10.0


@dataclass(frozen=True, slots=True)
class _Ask:
    """One run, wherever it is asked for."""

    name: str
    options: JobOptions
    grants: tuple[str, ...]
    request: bytes
    depth: int


class Local(Runner):
    """Runs calls in sandboxes of this process. Threads may share it."""

    def __init__(self, *, slots: int | None = None, cache: Path | None = None) -> None:
        """Start the thread. slots: runs at a time, as many as there are processors; cache: the folder of modules."""
        self._slots = slots or len(os.sched_getaffinity(0))
        self._cache = cache or cache_directory()
        self._pid = os.getpid()
        self._component = build.component_path()
        self._tasks: dict[Call, asyncio.Task[None]] = {}
        self._loop: asyncio.AbstractEventLoop
        self._stop: asyncio.Event
        self._lock = threading.Lock()
        self._is_closed = False
        self._started: concurrent.futures.Future[None] = concurrent.futures.Future()
        self._thread = threading.Thread(target=self._run, name="ww-local", daemon=True)
        self._thread.start()
        self._started.result()

    @property
    def is_usable(self) -> bool:
        return not self._is_closed and self._pid == os.getpid() and self._thread.is_alive()

    def send(self, calls: Sequence[Call]) -> None:
        """Run calls; each of them ends."""
        if self._pid != os.getpid():
            raise UsageError("the sandboxes were started before this process was forked; expected some of its own")
        with self._lock:
            if self._is_closed:
                raise ClosedError("the sandboxes of this process have ended")
            self._loop.call_soon_threadsafe(self._begin, calls)

    def cancelled(self, call: Call) -> None:
        """Stop a call's run."""

        def stop() -> None:
            if task := self._tasks.get(call):
                task.cancel()

        with self._lock:
            if not self._is_closed and self._pid == os.getpid():
                self._loop.call_soon_threadsafe(stop)

    def close(self) -> None:
        """Stop all runs, and the sandboxes. Idempotent."""
        with self._lock:
            was_closed, self._is_closed = self._is_closed, True
            if was_closed or self._pid != os.getpid():
                return
            self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(_CLOSE_S)

    # In the thread.

    def _run(self) -> None:
        try:
            run_loop(self._main, is_program=False)
        except BaseException as error:
            if not self._started.done():
                self._started.set_exception(error.with_traceback(None))
        finally:
            self._is_closed = True

    async def _main(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        modules = ModuleCache(self._cache, quota_bytes=_CACHE_BYTES)
        self._digest = await _add(modules, self._component)
        # As many of each depth: those that wait for deeper ones never take the place of what they wait for.
        self._places = [asyncio.Semaphore(self._slots) for _ in range(1 + NESTING_MAX)]
        async with _pool(modules, self._slots) as self._pool:
            self._started.set_result(None)
            await self._stop.wait()
            tasks = list(self._tasks.values())
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def _begin(self, calls: Sequence[Call]) -> None:
        for call in calls:
            if not call.is_done:
                call.future.sent()
                task = self._loop.create_task(self._serve(call))
                self._tasks[call] = task
                task.add_done_callback(partial(self._see_off, call))

    async def _serve(self, call: Call) -> None:
        target = call.target
        try:
            ask = _Ask(target.name, target.options, target.names, call.request, 0)
            result = await self._result(target, ask)
            call.end(_ended(result), result.stderr)
        except asyncio.CancelledError:
            call.fail(ClosedError("the sandboxes of this process were stopped"))
            raise
        except WwError as error:
            call.fail(error)
        except Exception as error:
            call.fail(WwError(f"the sandboxes of this process cannot be used: {type(error).__name__}: {error}"[:300]))

    def _see_off(self, call: Call, _: object) -> None:
        self._tasks.pop(call, None)
        if not call.is_done:  # it was stopped before it began
            call.fail(ClosedError("the sandboxes of this process were stopped"))

    async def _result(self, target: Target, ask: _Ask) -> Result:
        limits = _limits(ask.options, self._pool.limits)
        invocation = Invocation(
            args=(ask.name, *ask.grants), env=tuple(ask.options.env.items()), stdin=ask.request,
            code=target.code.content,
        )  # fmt: skip
        metered = limits.is_metered(invocation)
        calls = _Nested(self, target, ask) if ask.grants else None
        result = Result()
        for _ in range(1 + ask.options.retries):
            compile_s = await self._pool.prepare(self._digest, metered=metered)
            task, inputs = Task.of(invocation), Inputs.of([invocation])
            group = self._pool.group(self._digest, task, inputs, limits, compile_s=compile_s, calls=calls)
            async with self._places[ask.depth], group:
                while outcomes := await group.outcomes():
                    for each in outcomes:
                        for raw in read_outcomes(each.records):
                            result = result_of(raw)
            if result.reason == "ok":
                break
        return result

    async def nested(self, target: Target, asked: _Ask, name: str, requests: bytes) -> bytes:
        """Serve calls that a run makes."""
        grant = target.granted.get(name)
        if grant is None or name not in asked.grants:
            refused = ended("refused", f"{name} is not granted")
        elif asked.depth >= NESTING_MAX:
            refused = ended("refused", f"calls are nested deeper than {NESTING_MAX}")
        else:
            each = [_Ask(name, grant.options, grant.names, one, asked.depth + 1) for one in read_requests(requests)]
            async with asyncio.TaskGroup() as group:
                runs = [group.create_task(self._result(target, ask)) for ask in each]
            return write_answers([_answer(run.result()) for run in runs])
        return write_answers([refused for _ in read_requests(requests)])


class _Nested:
    """The calls of one run: see ww.sandbox.calls.Calls."""

    def __init__(self, local: Local, target: Target, ask: _Ask) -> None:
        self._local, self._target, self._ask = local, target, ask

    async def call(self, name: str, requests: bytes) -> bytes:
        return await self._local.nested(self._target, self._ask, name, requests)

    def set_blocked(self, blocked: bool) -> None:
        """Nothing to do: the pool has one more child for it."""


@asynccontextmanager
async def _pool(modules: ModuleCache, slots: int) -> AsyncIterator[SandboxPool]:
    async with SandboxPool(modules, slots=slots, nesting=NESTING_MAX) as pool:
        yield pool


async def _add(modules: ModuleCache, component: Path) -> bytes:
    """Have the component in the folder; return its digest."""
    content = await asyncio.to_thread(component.read_bytes)
    digest = hashlib.sha256(content).digest()
    if not await modules.has(digest):
        async with modules.writer(digest) as writer:
            await writer.write(content)
    return digest


def _limits(options: JobOptions, most: SandboxLimits) -> RunLimits:
    return RunLimits(
        duration_s=min(options.timeout_s, most.duration_max_s),
        memory_bytes=min(options.memory or most.memory_bytes_max, most.memory_bytes_max),
        output_bytes=min(options.output or OUTPUT_BYTES, most.output_bytes_max),
        cpu_s=options.cpu_s or 0.0,
        fuel=options.fuel or 0,
    )


def _ended(result: Result) -> Ended:
    return Ended(result.reason, result.detail, result.exit_code, result.stdout, result.stdout_truncated)


def _answer(result: Result) -> Answer:
    if result.stdout and not result.stdout_truncated and result.exit_code in (0, 1):
        return Answer(AnswerKind.RAISED if result.exit_code else AnswerKind.VALUE, result.stdout)
    return ended(result.reason, result.detail)


class _Shared:
    """The sandboxes of this process: begun when they are first used, ended with the program."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._local: Local | None = None

    def get(self) -> Local:
        with self._lock:
            if self._local is None or not self._local.is_usable:
                self._local = Local()
            return self._local

    def close(self) -> None:
        with self._lock:
            local, self._local = self._local, None
        if local is not None:
            with contextlib.suppress(WwError):
                local.close()

    def forget(self) -> None:
        """Begin anew in a process that was forked."""
        self._lock = threading.Lock()
        self._local = None


_shared = _Shared()
shared = _shared.get
atexit.register(_shared.close)
os.register_at_fork(after_in_child=_shared.forget)
