"""Whatever runs calls: a cluster, or the sandboxes of this process. What can be asked of both.

Holds how one call, and a map, become calls; reading ahead: mapping.py. Must not know how calls are sent.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, TypeVar

from ww.jobs.call import Call
from ww.jobs.future import JobFuture
from ww.jobs.job import Job
from ww.jobs.mapping import Mapping, argument_lists

R = TypeVar("R")


class Runner:
    """Runs calls of jobs."""

    def send(self, calls: Sequence[Call]) -> None:
        """Take calls over; each of them ends."""
        raise NotImplementedError

    def cancelled(self, call: Call) -> None:
        """Hear that a call's future was cancelled."""
        raise NotImplementedError

    def submit(self, job: Job[..., R], args: Sequence[Any], kwargs: dict[str, Any]) -> JobFuture[R]:
        """Call a job; return the future. NotSendable names what cannot travel."""
        target, request = job.write(args, kwargs)
        call = Call(target, request, _NO_FUTURE)
        future: JobFuture[R] = JobFuture(self._canceller(call))
        call.future = future
        self.send([call])
        return future

    def calls_of(self, requests: Iterable[tuple[Any, bytes]], spread: str) -> list[Call]:
        """Return calls that are still to be sent, of their targets and requests."""
        calls = []
        for target, request in requests:
            call = Call(target, request, _NO_FUTURE, spread)
            call.future = JobFuture(self._canceller(call))
            calls.append(call)
        return calls

    def map(
        self,
        job: Job[..., R],
        items: Iterable[Any],
        *,
        star: bool = False,
        spread: str = "pull",
        chunksize: int = 0,
        timeout: float | None = None,
    ) -> Iterator[R]:
        """Call a job for each item; give the results in their order. See mapping.py."""
        return Mapping(self, job, argument_lists(items, star), spread, chunksize).results(timeout)

    def _canceller(self, call: Call) -> Callable[[JobFuture[Any]], None]:
        return lambda _: self.cancelled(call)


_NO_FUTURE: Any = None
