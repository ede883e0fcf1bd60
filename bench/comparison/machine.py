"""On what figures were taken: the machine, and the versions of what was measured.

Holds reading them. Must not know what is measured.
"""

import os
import platform
import re
import statistics
import subprocess
import tempfile
import time
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any, Final

_FLUSHES: Final = 30
_FLUSH_BYTES: Final = 4096


def machine() -> dict[str, Any]:
    """Describe this machine, with what a flush of its disk takes, since ww waits for those."""
    return {
        "processor": _found(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo")) or platform.machine(),
        "processors": len(os.sched_getaffinity(0)),
        "memory_gib": round(int(_found(r"MemTotal:\s*(\d+)", Path("/proc/meminfo")) or 0) / (1 << 20), 1),
        "kernel": f"{platform.system()} {platform.release()}",
        "load": round(os.getloadavg()[0], 2),
        "fsync_ms": round(_fsync_ms(), 3),
    }


def versions(packages: Sequence[str]) -> dict[str, str]:
    """Return the versions of Python and of those packages that are there."""
    found = {"python": platform.python_version()}
    for name in packages:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def commit(root: Path) -> str:
    """Return the commit that is measured, or nothing where there is no git."""
    try:
        said = subprocess.run(
            ["git", "describe", "--always", "--dirty"], cwd=root, capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return ""
    return said.stdout.strip()


def _found(pattern: str, path: Path) -> str | None:
    try:
        match = re.search(pattern, path.read_text())
    except OSError:
        return None
    return match[1].strip() if match else None


def _fsync_ms() -> float:
    """Take the median of some flushes where the benchmark's gateways have their state."""
    times_s = []
    with tempfile.TemporaryFile(prefix="ww-bench-", buffering=0) as file:
        for _ in range(_FLUSHES):
            file.write(b"x" * _FLUSH_BYTES)
            begun_at = time.perf_counter()
            os.fsync(file.fileno())
            times_s.append(time.perf_counter() - begun_at)
    return statistics.median(times_s) * 1e3
