"""concurrent.futures' Executor over a cluster. Where calls go: cluster.py."""

import concurrent.futures
import threading
import types
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, ParamSpec, TypeVar

from ww.jobs.call import Call
from ww.jobs.cluster import Cluster, as_job
from ww.jobs.future import JobFuture
from ww.jobs.job import Job
from ww.jobs.job import job as make_job
from ww.jobs.runner import Runner

P = ParamSpec("P")
R = TypeVar("R")


class Executor(concurrent.futures.Executor):
    """Runs functions in sandboxes of a cluster. Also what an event loop's run_in_executor takes."""

    def __init__(self, target: str | None = None, *, job: Mapping[str, Any] | None = None, **settings: Any) -> None:
        """Make one; it connects when it is first used.

        target and settings: see ww.connect. job: options of ww.job for functions that are none.
        """
        self._options = dict(job or {})
        make_job(**self._options)
        self._cluster = Cluster(target, **settings)
        self._runner = _Noting(self._cluster, self._keep)
        self._lock = threading.RLock()
        self._is_shut = False
        self._futures: set[JobFuture[Any]] = set()
        self._jobs: weakref.WeakKeyDictionary[Any, Job[..., Any]] = weakref.WeakKeyDictionary()

    def submit(self, fn: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> JobFuture[R]:
        """Call a job, or another function; return its future. NotSendable names what cannot travel."""
        job = self._job(fn)
        self._check_open()
        return self._runner.submit(job, args, kwargs)

    def map(
        self, fn: Callable[..., R], *iterables: Iterable[Any], timeout: float | None = None, chunksize: int = 0
    ) -> Iterator[R]:
        """Call it with an item of each iterable; give the results in their order.

        timeout: seconds until the last result, else TimeoutError. chunksize: calls that share one fresh sandbox, one
        after the other; 0: each has its own, and how many go to a worker together the scheduler decides. At most
        100,000 calls are read ahead.
        """
        job = self._job(fn)
        self._check_open()
        items = zip(*iterables, strict=False)
        return self._runner.map(job, items, star=True, chunksize=chunksize, timeout=timeout)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take nothing more; wait for what is under way, or cancel it. Without wait it ends by itself."""
        with self._lock:
            self._is_shut = True
            futures = list(self._futures)
        if cancel_futures:
            for future in futures:
                future.cancel()
        if wait:
            concurrent.futures.wait(futures)
            self._cluster.close()
        else:
            self._close_if_idle()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: types.TracebackType | None
    ) -> bool | None:
        """Shut down, and wait; whoever is to end (ctrl-C, sys.exit) does not wait for calls that take minutes."""
        self.shutdown(cancel_futures=kind is not None and not issubclass(kind, Exception))
        return None

    def _job(self, function: Callable[..., R]) -> Job[..., R]:
        if isinstance(function, Job):
            return function
        if not isinstance(function, types.FunctionType):
            return as_job(function, **self._options)
        with self._lock:
            job = self._jobs.get(function)
            if job is None:
                job = self._jobs[function] = as_job(function, **self._options)
            return job

    def _keep(self, futures: Sequence[JobFuture[Any]]) -> None:
        with self._lock:
            self._futures.update(futures)
        for future in futures:
            future.add_done_callback(self._drop)

    def _drop(self, future: Any) -> None:
        with self._lock:
            self._futures.discard(future)
            is_last = self._is_shut and not self._futures
        if is_last:
            self._close_if_idle()

    def _close_if_idle(self) -> None:
        with self._lock:
            is_over = self._is_shut and not self._futures
        if is_over and not self._cluster.is_closed:
            # Not in this thread: it may be the one that is to be closed.
            threading.Thread(target=self._cluster.close, name="ww-close", daemon=True).start()

    def _check_open(self) -> None:
        if self._is_shut:
            # concurrent.futures' own word for it.
            raise RuntimeError("cannot schedule new futures after shutdown")


class _Noting(Runner):
    """The cluster, which tells of the futures that go there: shutdown waits for them."""

    def __init__(self, cluster: Cluster, note: Callable[[Sequence[JobFuture[Any]]], None]) -> None:
        self._cluster = cluster
        self._note = note

    def send(self, calls: Sequence[Call]) -> None:
        self._note([call.future for call in calls])
        try:
            self._cluster.send(calls)
        except BaseException as error:
            for call in calls:
                call.fail(error)
            raise

    def cancelled(self, call: Call) -> None:
        self._cluster.cancelled(call)
