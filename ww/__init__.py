"""ww: a peer-to-peer capability cluster that runs WebAssembly nobody has to trust.

Read a task's life in this order: gateway/http.py, gateway/scheduler.py, gateway/pool.py, worker.py,
sandbox/pool.py, sandbox/executor.py. The picture of the layers is docs/architecture.md. What programs use, Python
functions in sandboxes, is in jobs/; its names are here too, and imported when they are first used.
"""

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from ww.errors import (
        BadResult,
        DeadlineExceeded,
        NotGranted,
        NotSendable,
        OutOfFuel,
        OutOfMemory,
        Overloaded,
        PeerError,
        RunFailed,
        RunLost,
        Trapped,
        UsageError,
        WwError,
    )
    from ww.jobs.cluster import connect
    from ww.jobs.executor import Executor
    from ww.jobs.future import JobFuture
    from ww.jobs.job import Job, job
    from ww.jobs.progress import progress
    from ww.python.exception import RemoteException, RemoteTraceback

__all__ = [
    "BadResult",
    "DeadlineExceeded",
    "Executor",
    "Job",
    "JobFuture",
    "NotGranted",
    "NotSendable",
    "OutOfFuel",
    "OutOfMemory",
    "Overloaded",
    "PeerError",
    "RemoteException",
    "RemoteTraceback",
    "RunFailed",
    "RunLost",
    "Trapped",
    "UsageError",
    "WwError",
    "__version__",
    "connect",
    "job",
    "progress",
]

# Everything under ww imports this: `ww tasks` and a worker are not to pay for what they do not use.
_WHERE = {
    "Executor": "jobs.executor",
    "Job": "jobs.job",
    "JobFuture": "jobs.future",
    "RemoteException": "python.exception",
    "RemoteTraceback": "python.exception",
    "connect": "jobs.cluster",
    "job": "jobs.job",
    "progress": "jobs.progress",
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'ww' has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(f"ww.{_WHERE.get(name, 'errors')}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
