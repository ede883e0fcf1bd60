"""Processor time of other processes, as the kernel counts it, in nanoseconds where it says so.

Holds reading /proc. Must not know what the processes are.
"""

import contextlib
import os
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


def waited_seconds(pid: int) -> float:
    """Return for how long all living threads of a process had something to do and no processor to do it on."""
    waited_ns = 0
    for task in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            waited_ns += int((task / "schedstat").read_text().split()[1])
    return waited_ns / 1e9


def descendants_cpu_seconds(pid: int) -> float:
    """Return what the processes have used that a process has begun, with those that have ended and theirs."""
    children: dict[int, list[int]] = {}
    reaped_s = {}
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            # Behind the name, which may hold anything.
            values = (entry / "stat").read_text().rpartition(")")[2].split()
            children.setdefault(int(values[1]), []).append(int(entry.name))
            reaped_s[int(entry.name)] = (int(values[13]) + int(values[14])) / os.sysconf("SC_CLK_TCK")
    found, used_s = [pid], 0.0
    for parent in found:
        used_s += reaped_s.get(parent, 0.0)
        for child in children.get(parent, ()):
            found.append(child)
            with contextlib.suppress(OSError):
                used_s += cpu_seconds(child)
    return used_s
