"""What maps and calls Python functions in processes: ww, and what users would pick instead, each as its manual says.

Holds one class a system, opened with `with`; its packages are imported when it is opened, since only the process that
measures it needs them. The functions: work.py. Each has two processes that work.
"""

import contextlib
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor
from typing import Any, Final, Protocol

from bench.comparison import ours, peers
from bench.comparison.cases import SLOTS

CHUNK: Final = 100
"""Calls that are one run, where a system is told to make chunks."""

Function = Callable[[int], int]


class System(Protocol):
    """Something that calls functions elsewhere."""

    def map(self, function: Function, values: Sequence[int]) -> list[int]:
        """Call a function of each value; return the results in the order of the values."""
        ...

    def call(self, function: Function, value: int) -> int:
        """Call a function, wait for its result and return that."""
        ...


class _Executor:
    """What has the interface of concurrent.futures."""

    def __init__(self, executor: Executor, chunksize: int) -> None:
        self._executor, self._chunksize = executor, chunksize

    def map(self, function: Function, values: Sequence[int]) -> list[int]:
        return list(self._executor.map(function, values, chunksize=self._chunksize))

    def call(self, function: Function, value: int) -> int:
        return self._executor.submit(function, value).result()


@contextlib.contextmanager
def ww(chunksize: int = 0) -> Iterator[System]:
    """Run a gateway and a worker. Without chunks each item has a guest of its own, as it was after loading the code."""
    import ww as package
    from ww.python.build import component_path

    component_path()  # made once a machine, and so no part of a first call
    with tempfile.TemporaryDirectory(prefix="ww-bench-") as state, ours.cluster() as it:
        os.environ["WW_STATE"] = state
        with package.Executor(it.multiaddr) as executor:
            yield _Executor(executor, chunksize)


def chunked_ww() -> contextlib.AbstractContextManager[System]:
    """Run the same; the calls of a chunk share their guest."""
    return ww(CHUNK)


@contextlib.contextmanager
def pool(chunksize: int = 1) -> Iterator[System]:
    """Run a pool of processes, which is given items one by one unless it is told otherwise."""
    with ProcessPoolExecutor(SLOTS) as executor:
        yield _Executor(executor, chunksize)


def chunked_pool() -> contextlib.AbstractContextManager[System]:
    """Run a pool of processes that is given chunks."""
    return pool(CHUNK)


class _Ray:
    """Ray: remote functions, all submitted, then one ray.get of the list."""

    def __init__(self, ray: Any) -> None:
        self._ray = ray
        self._remote: dict[Function, Any] = {}

    def _of(self, function: Function) -> Any:
        if function not in self._remote:
            self._remote[function] = self._ray.remote(function)
        return self._remote[function]

    def map(self, function: Function, values: Sequence[int]) -> list[int]:
        remote = self._of(function)
        return list(self._ray.get([remote.remote(value) for value in values]))

    def call(self, function: Function, value: int) -> int:
        return int(self._ray.get(self._of(function).remote(value)))


@contextlib.contextmanager
def ray() -> Iterator[System]:
    """Run a ray."""
    with peers.running_ray() as it:
        yield _Ray(it)


class _Dask:
    """dask.distributed: Client.map and one gather. pure=False: it is not to look for results that it has."""

    def __init__(self, client: Any) -> None:
        self._client = client

    def map(self, function: Function, values: Sequence[int]) -> list[int]:
        return list(self._client.gather(self._client.map(function, values, pure=False)))

    def call(self, function: Function, value: int) -> int:
        return int(self._client.submit(function, value, pure=False).result())


@contextlib.contextmanager
def dask() -> Iterator[System]:
    """Run a dask."""
    with peers.running_dask() as client:
        yield _Dask(client)


SYSTEMS: Final[dict[str, Callable[[], contextlib.AbstractContextManager[System]]]] = {
    "ww": ww,
    "ww-100": chunked_ww,
    "ray": ray,
    "dask": dask,
    "processpool": pool,
    "processpool-100": chunked_pool,
}
