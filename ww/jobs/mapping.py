"""A map: calls for the items of an iterable, some of them ahead of the results that are taken.

Holds what was read and not yet given. Items are read in the thread that takes results, never another; results come in
the order of the items. What is under way is bounded, so that an endless iterable can be mapped.
"""

import time
from collections import deque
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final

from ww.errors import UsageError
from ww.jobs.call import Call

if TYPE_CHECKING:
    from ww.jobs.job import Job
    from ww.jobs.runner import Runner

AHEAD_MAX: Final = 100_000
"""Calls that are under way at a time."""
AHEAD_BYTES_MAX: Final = 256 << 20
"""Of their requests."""
_TOGETHER_MAX: Final = 10_000
_TOGETHER_BYTES: Final = 8 << 20
# Items that come slowly are not waited for.
_SLOW_S: Final = 0.05


def argument_lists(items: Iterable[Any], star: bool) -> Iterator[Sequence[Any]]:
    """Return what each call is given, of items that are one argument each, or with star all of them."""
    if isinstance(items, str | bytes):
        raise UsageError(f"items: expected a list or another iterable, not {type(items).__name__}", "items")
    try:
        each = iter(items)
    except TypeError:
        raise UsageError(f"items: expected a list or another iterable, not {type(items).__name__}", "items") from None
    return (tuple(item) for item in each) if star else ((item,) for item in each)


class Mapping:
    """One map."""

    def __init__(
        self, runner: "Runner", job: "Job[..., Any]", arguments: Iterator[Sequence[Any]], spread: str, chunksize: int
    ) -> None:
        """Read the first items, and send their calls. chunksize: calls of one run; 0: one."""
        if not isinstance(chunksize, int) or isinstance(chunksize, bool) or chunksize < 0:
            raise UsageError(f"chunksize: {chunksize!r} is not a whole number from 0"[:120], "chunksize")
        self._runner, self._job, self._arguments = runner, job, arguments
        self._spread, self._chunksize = spread, chunksize
        self._ahead: deque[Call] = deque()
        self._ahead_bytes = 0
        self._has_all = self._is_slow = False
        self._waited_s = 0.0
        try:
            while not self._has_all and not self._is_slow and self._has_room([], 0):
                self._read()
        except BaseException:
            self.cancel()
            raise

    def results(self, timeout: float | None) -> Iterator[Any]:
        """Give the results; TimeoutError when the next is not there timeout seconds from now."""
        end = None if timeout is None else time.monotonic() + timeout
        return self._results(end)

    def _results(self, end: float | None) -> Iterator[Any]:
        try:
            while (call := self._next()) is not None:
                value = call.future.result(None if end is None else max(0.0, end - time.monotonic()))
                self._took(call)
                if self._chunksize:
                    yield from value
                else:
                    yield value
        finally:
            self.cancel()

    async def results_async(self) -> AsyncIterator[Any]:
        """Give the results to an event loop."""
        try:
            while (call := self._next()) is not None:
                value = await call.future
                self._took(call)
                for each in value if self._chunksize else (value,):
                    yield each
        finally:
            self.cancel()

    def cancel(self) -> None:
        """Cancel what was not taken. Idempotent."""
        while self._ahead:
            self._ahead.pop().future.cancel()
        self._ahead_bytes = 0

    def _next(self) -> Call | None:
        """Return the next call whose result is to be given; None at the end."""
        is_there = bool(self._ahead) and self._ahead[0].is_done
        if not self._has_all and not (is_there and self._is_slow):
            self._read()
        return self._ahead[0] if self._ahead else None

    def _took(self, call: Call) -> None:
        self._ahead.popleft()
        self._ahead_bytes -= len(call.request)

    def _read(self) -> None:
        """Read items until they are enough, or come slowly, and send their calls."""
        requests: list[tuple[Any, bytes]] = []
        target, size = self._job.target(), 0
        self._waited_s, self._is_slow = 0.0, False
        try:
            while self._has_room(requests, size):
                target, request = self._request(target)
                if request is None:
                    self._has_all = True
                    break
                requests.append((target, request))
                size += len(request)
                if self._waited_s > _SLOW_S:
                    # The first ones may be worked on while the others come.
                    self._is_slow = True
                    break
        finally:
            if requests:
                calls = self._runner.calls_of(requests, self._spread)
                self._ahead.extend(calls)
                self._ahead_bytes += size
                self._runner.send(calls)

    def _request(self, target: Any) -> tuple[Any, bytes | None]:
        several = []
        for _ in range(max(1, self._chunksize)):
            begin = time.monotonic()
            args = next(self._arguments, None)
            self._waited_s += time.monotonic() - begin
            if args is None:
                break
            several.append(args)
        if not several:
            return target, None
        if not self._chunksize:
            return self._job.write(several[0], {}, target)
        return self._job.write_several(several, target)

    def _has_room(self, requests: list[Any], size: int) -> bool:
        if not self._ahead and not requests:
            return True
        is_within = len(self._ahead) + len(requests) < AHEAD_MAX and self._ahead_bytes + size < AHEAD_BYTES_MAX
        return is_within and not self._is_full(requests, size)

    @staticmethod
    def _is_full(requests: list[Any], size: int) -> bool:
        return len(requests) >= _TOGETHER_MAX or size >= _TOGETHER_BYTES
