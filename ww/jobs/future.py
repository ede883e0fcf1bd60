"""The future of one call: concurrent.futures' own, which can be awaited too, and whose cancel reaches the cluster.

Must not know how calls are sent: whoever sends one says how it is cancelled.
"""

import asyncio
import concurrent.futures
import os
from collections.abc import Callable, Generator
from typing import Any, Final, Generic, TypeVar

from ww.errors import UsageError

R = TypeVar("R")
D = TypeVar("D")

CancelledError = concurrent.futures.CancelledError
_NOTHING: Final = object()


class JobFuture(concurrent.futures.Future[R], Generic[R]):
    """A call's result, when there is one. Threads may share it; await it in any event loop of asyncio."""

    def __init__(self, cancel: "Callable[[JobFuture[Any]], None] | None" = None) -> None:
        """Make one; cancel is told when it is cancelled, in the thread that does so."""
        super().__init__()
        self._tell = cancel
        self._pid = os.getpid()
        self._printed = b""
        self._was_sent = False

    @property
    def stdout(self) -> str:
        """What the function printed, when it has ended; stderr goes the same way."""
        return self._printed.decode(errors="replace")

    stderr = stdout

    def try_get(self, default: D | None = None) -> R | D | None:
        """Return the result if it is there, default while it is not; raise what result() would raise."""
        return self.result(0) if self.done() else default

    def result(self, timeout: float | None = None) -> R:
        """Return what the function returned; wait at most timeout seconds.

        Raises what the function raised, a ww.RunFailed when its run ended otherwise, a ww.PeerError when the cluster
        cannot be reached, CancelledError, and TimeoutError when the time is over.
        """
        self._check_process()
        return super().result(timeout)

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """Return what result() would raise, None when it would return; wait at most timeout seconds."""
        self._check_process()
        return super().exception(timeout)

    def running(self) -> bool:
        """Whether the call was sent, and has not ended."""
        return self._was_sent and not self.done()

    def cancel(self) -> bool:
        """Cancel the call, also one that runs; return whether it is cancelled. One that has ended stays as it is."""
        if self.done():
            return self.cancelled()
        if not super().cancel():
            return False
        # What waits for several futures hears it from this.
        if not self._is_notified():
            self.set_running_or_notify_cancel()
        tell, self._tell = self._tell, None
        if tell is not None and os.getpid() == self._pid:
            tell(self)
        return True

    def __await__(self) -> Generator[Any, None, R]:
        """Wait in an event loop; cancelling that cancels the call."""
        self._check_process()
        return asyncio.wrap_future(self).__await__()

    def _is_notified(self) -> bool:
        return self._state == "CANCELLED_AND_NOTIFIED"

    def _check_process(self) -> None:
        if os.getpid() != self._pid and not self.done():
            raise UsageError("the call was made before this process was forked: its result comes to the other process")

    # For whoever sends calls.

    def sent(self) -> None:
        """Note that the call is under way."""
        self._was_sent = True

    def settle(self, value: R | object = _NOTHING, error: BaseException | None = None, printed: bytes = b"") -> None:
        """Set how it ended, unless it has; an error that says it was cancelled cancels it."""
        self._printed = printed
        # It holds the call, which holds this: results are to go when nobody has them, and not with the next collection.
        self._tell = None
        try:
            if isinstance(error, CancelledError):
                super().cancel()
                if not self._is_notified():
                    self.set_running_or_notify_cancel()
            elif error is not None:
                self.set_exception(error)
            else:
                self.set_result(value)  # type: ignore[arg-type]
        except (concurrent.futures.InvalidStateError, RuntimeError):
            pass  # it was cancelled meanwhile
