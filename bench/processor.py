"""Processor time of other processes, as the kernel counts it, in nanoseconds where it says so.

Holds reading /proc. Must not know what the processes are.
"""

import contextlib
from pathlib import Path


def cpu_seconds(pid: int) -> float:
    """Return what all living threads of a process have used. OSError when there is no such process."""
    return sum(threads_cpu_seconds(pid))


def threads_cpu_seconds(pid: int) -> tuple[float, float]:
    """Return what a process's main thread has used, and what its other living threads have."""
    main_ns = others_ns = 0
    for task in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # a thread that ended just now
            used_ns = int((task / "schedstat").read_text().split()[0])
            if task.name == str(pid):
                main_ns += used_ns
            else:
                others_ns += used_ns
    return main_ns / 1e9, others_ns / 1e9
