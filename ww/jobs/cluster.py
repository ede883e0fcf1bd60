"""A connection to a cluster, and the one that jobs use which were given none.

Holds opening and closing. Which gateway it is: gateways.py; what is sent: dispatcher.py.
"""

import asyncio
import atexit
import os
import threading
import weakref
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from functools import partial
from types import TracebackType
from typing import Any, ParamSpec, Self, TypeVar

from ww.errors import ClosedError, UsageError
from ww.jobs import gateways
from ww.jobs.call import Call
from ww.jobs.dispatcher import Dispatcher
from ww.jobs.future import JobFuture
from ww.jobs.job import Job
from ww.jobs.job import job as make_job
from ww.jobs.link import open_link
from ww.jobs.mapping import Mapping, argument_lists
from ww.jobs.options import check_fanout
from ww.jobs.runner import Runner
from ww.python import build

P = ParamSpec("P")
R = TypeVar("R")


class Cluster(Runner):
    """A cluster's functions. Use it with `with` or `async with`, or open and close it. Threads may share it."""

    def __init__(self, target: str | None = None, **settings: Any) -> None:
        """Make one; nothing is opened yet. target and settings: see gateways.choose."""
        self._target = target
        self._settings = settings
        self._lock = threading.Lock()
        self._dispatcher: Dispatcher | None = None
        self._problem: Callable[[], str] = lambda: ""
        self._where = ""
        self._pid = os.getpid()
        self._is_closed = False
        self._at_exit: Callable[[], None] = lambda: None

    @property
    def where(self) -> str:
        """Which gateway it is, for people; empty before it is opened."""
        return self._where

    @property
    def is_closed(self) -> bool:
        return self._is_closed

    @property
    def is_usable(self) -> bool:
        """Whether it may still be opened, or is open and nobody knows that it has ended."""
        return not self._is_closed and self._pid == os.getpid() and not self._problem()

    def open(self) -> Self:
        """Find the gateway and connect; takes a while where one is looked for or started. Idempotent."""
        self._opened()
        return self

    def _opened(self) -> Dispatcher:
        if self._pid != os.getpid():
            raise UsageError("the cluster was opened before this process was forked; expected one opened in it")
        with self._lock:
            if self._is_closed:
                raise ClosedError("the connection to the cluster is closed")
            if self._dispatcher is None:
                component = build.component_path()
                chosen = gateways.choose(self._target, **self._settings)
                link = open_link(chosen.target, **chosen.settings)
                self._problem, self._where = chosen.problem, chosen.where
                self._dispatcher = Dispatcher(link, component, chosen.problem)
                # What was registered last ends first: calls are cancelled while an embedded cluster is still there.
                self._at_exit = partial(_close, weakref.ref(self))
                atexit.register(self._at_exit)
            return self._dispatcher

    def close(self) -> None:
        """Cancel what is under way, and close the connection. Idempotent."""
        with self._lock:
            self._is_closed = True
            dispatcher = self._dispatcher
        if dispatcher is not None and self._pid == os.getpid():
            atexit.unregister(self._at_exit)
            dispatcher.close()

    def send(self, calls: Sequence[Call]) -> None:
        """Send calls; each of them ends."""
        self._opened().send(calls)

    def cancelled(self, call: Call) -> None:
        """Cancel a call's run."""
        if self._dispatcher is not None:
            self._dispatcher.cancelled(call)

    def __enter__(self) -> Self:
        return self.open()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _close(reference: "weakref.ref[Cluster]") -> None:
    if (cluster := reference()) is not None:
        cluster.close()


class Connection:
    """A cluster, for code that is in an event loop of asyncio, or in none. What ww.connect returns."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster

    @property
    def where(self) -> str:
        """Which gateway it is, for people."""
        return self._cluster.where

    async def run(self, function: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call a job, or another function, and return what it returns. Cancelling this cancels the run."""
        return await self.submit(function, *args, **kwargs)

    def submit(self, function: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> JobFuture[R]:
        """Call a job, or another function; return a future, which can be awaited."""
        return self._cluster.submit(as_job(function), args, kwargs)

    def map(
        self, function: Callable[..., R], items: Iterable[Any], *, star: bool = False, fanout: str = "pull",
        chunksize: int = 0,
    ) -> "Results[R]":  # fmt: skip
        """Call a job for each item; give the results in their order, to `async for` and to `for`.

        Items are read ahead, in the caller's thread. See Job.remote_fanout, Executor.map.
        """
        each = argument_lists(items, star)
        return Results(Mapping(self._cluster, as_job(function), each, check_fanout(fanout), chunksize))

    async def __aenter__(self) -> Self:
        await asyncio.to_thread(self._cluster.open)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await asyncio.to_thread(self._cluster.close)

    def __enter__(self) -> Self:
        self._cluster.open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._cluster.close()


class Results(Iterable[R], AsyncIterator[R]):
    """The results of a map."""

    def __init__(self, mapping: Mapping) -> None:
        self._mapping = mapping
        self._async: AsyncIterator[R] | None = None

    def __iter__(self) -> Iterator[R]:
        return self._mapping.results(None)

    async def __anext__(self) -> R:
        if self._async is None:
            self._async = self._mapping.results_async()
        return await anext(self._async)

    async def aclose(self) -> None:
        """Cancel what was not taken."""
        self._mapping.cancel()


def connect(target: str | None = None, **settings: Any) -> Connection:
    """Return a connection to a cluster, to be used with `async with` or `with`.

    target: http://HOST:PORT, a peer id or an address that ends in /p2p/PEER_ID; without one the gateway that WW_GATEWAY
    names, else one that is found, else one that is started for the program's life. settings: see gateways.choose.
    """
    return Connection(Cluster(target, **settings))


def as_job(function: Callable[..., R], **options: Any) -> Job[..., R]:
    """Return a job as it is, and another function as one."""
    return function if isinstance(function, Job) else make_job(**options)(function)


class _Shared:
    """The cluster of jobs that were given none: opened when it is first used, closed when the program ends."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._cluster: Cluster | None = None

    def get(self) -> Cluster:
        with self._lock:
            cluster = self._cluster
            if cluster is None or not cluster.is_usable:
                cluster = self._cluster = Cluster()
        return cluster

    def forget(self) -> None:
        """Begin anew in a process that was forked: the lock may be held by a thread that is not there."""
        self._lock = threading.Lock()
        self._cluster = None


_shared = _Shared()
shared = _shared.get
os.register_at_fork(after_in_child=_shared.forget)
