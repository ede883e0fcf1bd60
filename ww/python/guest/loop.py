"""An event loop for a place without sockets, threads and signals: timers, tasks, and futures of calls elsewhere.

Must not know how calls are made: nested.py gives it what to wait for.
"""

import asyncio
import collections
import time
from collections.abc import Callable
from typing import Any, Final

_STUCK: Final = "all tasks wait for something that cannot happen in the sandbox: it has no sockets, threads or signals"


class _Idle:
    """What the loop waits with, where others have a selector."""

    def __init__(self) -> None:
        self.waiting: collections.deque[tuple[Callable[[], None], asyncio.Future[None]]] = collections.deque()

    def select(self, timeout_s: float | None) -> list[Any]:
        """Wait until the next timer, or for what a task needs from outside."""
        if timeout_s is not None and timeout_s <= 0:
            return []
        while self.waiting:
            settle, waiter = self.waiting.popleft()
            if not waiter.done():
                settle()
                waiter.set_result(None)
                return []
        if timeout_s is None:
            raise RuntimeError(_STUCK)
        time.sleep(timeout_s)
        return []


class SandboxLoop(asyncio.BaseEventLoop):
    """The loop that asyncio.run makes in a sandbox."""

    def __init__(self) -> None:
        super().__init__()
        self._selector = _Idle()

    async def when_idle(self, settle: Callable[[], None]) -> None:
        """Call what blocks when no task can go on otherwise, and return then."""
        waiter: asyncio.Future[None] = self.create_future()
        self._selector.waiting.append((settle, waiter))
        await waiter

    def run_in_executor(self, executor: Any, func: Callable[..., Any], *args: Any) -> "asyncio.Future[Any]":  # type: ignore[override]
        """Call a function in place: there are no threads."""
        future = self.create_future()
        try:
            future.set_result(func(*args))
        except Exception as error:
            future.set_exception(error)
        return future

    def _process_events(self, events: list[Any]) -> None:
        """Nothing: there are no sockets."""

    def _write_to_self(self) -> None:
        """Nothing: nobody else can wake the loop."""


def install() -> None:
    """Have asyncio make such loops."""
    events: Any = asyncio.events
    base: Any = getattr(events, "_BaseDefaultEventLoopPolicy", None) or events.BaseDefaultEventLoopPolicy
    policy = type("SandboxPolicy", (base,), {"_loop_factory": SandboxLoop})
    events._event_loop_policy = policy()
