"""Calls to a cluster: what is sent together, which run is which call, and that each of them ends.

Holds the calls under way. A call alone is a task of its own, answered in the flight that it is sent by. Calls of the
same job that are made while one is being sent go together, as one batch. All of it happens in the link's thread, but
for what is handed over. Must not know functions. The rules are in docs/python.md.
"""

import asyncio
import contextlib
import copy
import threading
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any, Final

from ww.client.aio import AsyncClient
from ww.client.answer import Result
from ww.errors import ClosedError, NotFound, PeerError, RunLost, UsageError, WwError
from ww.jobs.call import Call, Target
from ww.jobs.future import CancelledError
from ww.jobs.link import Link, let_go
from ww.python.outcome import Ended
from ww.uuid7 import uuid7

CALLS_MAX: Final = 10_000
"""Of one batch."""
BYTES_MAX: Final = 32 << 20
_ALONE_S: Final = 0.002
# What is larger is read beside the loop.
_LARGE_BYTES: Final = 1 << 20
_CANCEL_S: Final = 5.0
_CANCEL_AGAIN_S: Final = 0.2


class _Group:
    """Calls that are one task."""

    def __init__(self, calls: Sequence[Call]) -> None:
        self.id = str(uuid7())
        self.calls = calls
        self.following: asyncio.Task[None] | None = None

        self._first = 0

    @property
    def is_over(self) -> bool:
        # What was found done stays so: cancelling all of them one by one looks at each once, not at all each time.
        first = self._first
        while first < len(self.calls) and self.calls[first].is_done:
            first += 1
        self._first = first
        return first == len(self.calls)


class _Lane:
    """Calls of one job that wait to be sent."""

    def __init__(self, target: Target, spread: str) -> None:
        self.target = target
        self.spread = spread
        self.waiting: deque[Call] = deque()
        self.sending: _Group | None = None

    def take(self) -> list[Call]:
        """Return calls that go together."""
        calls: list[Call] = []
        size = 0
        while self.waiting and len(calls) < CALLS_MAX:
            if self.waiting[0].is_done:
                self.waiting.popleft()
                continue
            size += len(self.waiting[0].request)
            if calls and size > BYTES_MAX:
                break
            calls.append(self.waiting.popleft())
        return calls


class Dispatcher:
    """Sends calls over one link. Threads may share it."""

    def __init__(self, link: Link, component: Path, problem: Callable[[], str] = lambda: "") -> None:
        """component: what the functions run in. problem: why there is no cluster any more, where that is known."""
        self._link = link
        self._component = component
        self._problem = problem
        self._lock = threading.Lock()
        self._closing = threading.Lock()
        self._inbox: list[Call] = []
        self._is_woken = False
        self._is_closed = False
        # Of the link's thread.
        self._lanes: dict[tuple[int, str], _Lane] = {}
        self._groups: set[_Group] = set()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._module: asyncio.Future[str] | None = None

    # From any thread.

    def send(self, calls: Sequence[Call]) -> None:
        """Hand calls over. Each of them ends, one way or another."""
        with self._lock:
            if self._is_closed:
                raise ClosedError("the connection to the cluster is closed")
            self._inbox += calls
            wakes, self._is_woken = not self._is_woken, True
        if wakes:
            try:
                self._link.begin(self._take)
            except UsageError:
                self._fail_inbox()
                raise

    def cancelled(self, call: Call) -> None:
        """Note that a call's future was cancelled: a task whose calls all are is cancelled on the cluster."""
        group = call.group
        if group is not None and group.is_over:
            with contextlib.suppress(UsageError):
                self._link.begin(lambda client: self._cancel(client, group))

    def close(self) -> None:
        """Cancel what is under way, and close the link. Idempotent."""
        # Whoever closes it too waits until it is.
        with self._closing:
            with self._lock:
                was_closed, self._is_closed = self._is_closed, True
            if was_closed:
                return
            with contextlib.suppress(WwError, TimeoutError, CancelledError):
                self._link.begin(self._end).result(2 * _CANCEL_S)
            self._fail_inbox()
            self._link.close()

    def _fail_inbox(self) -> None:
        with self._lock:
            left, self._inbox = self._inbox, []
            self._is_woken = False
        for call in left:
            call.fail(ClosedError("the connection to the cluster was closed"))

    # In the link's thread.

    async def _take(self, client: AsyncClient) -> None:
        with self._lock:
            calls, self._inbox = self._inbox, []
            self._is_woken = False
        lanes: dict[int, _Lane] = {}
        for call in calls:
            key = (id(call.target), call.spread)
            lane = self._lanes.get(key)
            if lane is None:
                lane = self._lanes[key] = _Lane(call.target, call.spread)
            lane.waiting.append(call)
            lanes[id(lane)] = lane
        for lane in lanes.values():
            self._pump(client, lane)

    def _pump(self, client: AsyncClient, lane: _Lane) -> None:
        """Send what waits, unless something is being sent."""
        if lane.sending is not None:
            return
        calls = lane.take()
        if not calls:
            self._lanes.pop((id(lane.target), lane.spread), None)
            return
        group = lane.sending = _Group(calls)
        self._groups.add(group)
        for call in calls:
            call.group = group
            call.future.sent()

        def was_sent() -> None:
            if lane.sending is group:
                lane.sending = None
                self._pump(client, lane)

        group.following = self._spawn(self._follow(client, group, was_sent))

    def _spawn(self, work: Coroutine[Any, Any, None]) -> "asyncio.Task[None]":
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _follow(self, client: AsyncClient, group: _Group, was_sent: Callable[[], None]) -> None:
        """See a group to its end."""
        problem: BaseException = RunLost("the task ended, and said nothing of this run")
        try:
            await self._do(client, group, was_sent)
        except asyncio.CancelledError as error:
            # Not raised again: whoever has the future would have the task, and with it all that was under way.
            problem = ClosedError("the connection to the cluster was closed")
            let_go(error)
        except WwError as error:
            said = self._problem()
            problem = PeerError(f"{error}; {said}") if said and isinstance(error, PeerError) else error
            let_go(error)
        except Exception as error:
            problem = PeerError(f"the cluster cannot be used: {type(error).__name__}: {error}"[:300])
            let_go(error)
        finally:
            group.following = None
            was_sent()
            self._groups.discard(group)
            for call in group.calls:
                if not call.is_done:
                    call.fail(_copy_of(problem))
                call.group = None

    async def _do(self, client: AsyncClient, group: _Group, was_sent: Callable[[], None]) -> None:
        module = await self._uploaded(client)
        try:
            await self._run(client, group, module, was_sent)
        except NotFound:
            # The gateway may have forgotten the module, which it does with what nobody used for long.
            if any(call.is_done for call in group.calls):
                raise
            self._module = None
            await self._run(client, group, await self._uploaded(client), was_sent)

    async def _run(self, client: AsyncClient, group: _Group, module: str, was_sent: Callable[[], None]) -> None:
        calls = group.calls
        fields: Any = fields_of(calls[0]) | {"id": group.id}
        if len(calls) == 1:
            timer = asyncio.get_running_loop().call_later(_ALONE_S, was_sent)
            try:
                async for result in client.run(module, stdin=calls[0].request, **fields):
                    await _end(calls[0], result)
            finally:
                timer.cancel()
            return
        await client.submit_batch(module, [call.request for call in calls], **fields)
        was_sent()
        async for result in client.stream(group.id):
            if 0 <= result.run < len(calls):
                await _end(calls[result.run], result)

    async def _uploaded(self, client: AsyncClient) -> str:
        """Return the component's digest, when the gateway has it: it is looked at once a connection."""
        if self._module is None:
            self._module = module = asyncio.get_running_loop().create_future()
            try:
                module.set_result(await client.upload(self._component))
            except BaseException as error:
                self._module = None
                if isinstance(error, Exception):
                    module.set_exception(_copy_of(error))
                    module.exception()  # others may not be waiting
                else:
                    module.cancel()
                raise
        return await asyncio.shield(self._module)

    async def _cancel(self, client: AsyncClient, group: _Group) -> None:
        if group.following is not None:
            group.following.cancel()
        for pause_s in (_CANCEL_AGAIN_S, 0.0):
            with contextlib.suppress(WwError, TimeoutError):
                async with asyncio.timeout(_CANCEL_S):
                    await client.cancel(group.id)
                return
            await asyncio.sleep(pause_s)

    async def _end(self, client: AsyncClient) -> None:
        """Cancel all that is under way."""
        groups = list(self._groups)
        for lane in self._lanes.values():
            while lane.waiting:
                lane.waiting.popleft().fail(ClosedError("the connection to the cluster was closed"))
        async with asyncio.timeout(_CANCEL_S):
            await asyncio.gather(*(self._cancel(client, group) for group in groups), return_exceptions=True)
        await asyncio.gather(*self._tasks, return_exceptions=True)


def fields_of(call: Call) -> dict[str, Any]:
    """Return what is said of the task of a call, beside its module."""
    target = call.target
    fields = target.options.fields() | {"args": [target.name], "files": target.code.content, "name": target.shown[:60]}
    if target.granted:
        fields["grants"] = [
            grant.fields() | ({} if grant.name in target.names else {"indirect": True})
            for grant in target.granted.values()
        ]
    if call.spread != "pull":
        fields["spread"] = call.spread
    return fields


async def _end(call: Call, result: Result) -> None:
    if not result.has_ended or call.is_done:
        return
    reason = "ok" if result.state == "succeeded" else "cancelled" if result.state == "cancelled" else result.reason
    ended = Ended(
        reason or "exit", result.detail or "", result.exit_code, result.stdout, result.stdout_truncated,
        result.attempts or 1,
    )  # fmt: skip
    if len(result.stdout) > _LARGE_BYTES:
        await asyncio.to_thread(call.end, ended, result.stderr)
    else:
        call.end(ended, result.stderr)


def _copy_of(error: BaseException) -> BaseException:
    """Return an error for one more who waits: they are not to share its traceback."""
    try:
        return copy.copy(error).with_traceback(None)
    except Exception:
        return error
