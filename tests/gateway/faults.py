"""Disks that fail: a full one in a mount namespace of its own, and one whose writes and flushes fail when told to."""

import functools
import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from typing import Final

from tests.guests import ROOT

_SOURCE: Final = Path(__file__).with_name("fault.c")
_MOUNT: Final = 'mount -t tmpfs -o size="$0" tmpfs "$1" && shift && exec "$@"'


@functools.cache
def why_no_shim() -> str:
    """Say why faults cannot be injected here, or nothing."""
    if sys.platform != "linux":
        return "LD_PRELOAD is Linux's"
    return "" if importlib.util.find_spec("ziglang") else "needs ziglang: scripts/setup guests"


@functools.cache
def why_no_mount() -> str:
    """Say why no disk can be mounted here, or nothing."""
    if os.geteuid() != 0:
        return "only root may mount a disk of its own"
    tried = subprocess.run([*small_disk(Path("/mnt"), "1m"), "true"], capture_output=True, text=True)
    return "" if tried.returncode == 0 else f"mounting is not permitted here: {tried.stderr.strip()}"


def small_disk(directory: Path, size: str) -> tuple[str, ...]:
    """Return words to put before a command, which then sees a disk of that size at directory; nobody else does."""
    return ("unshare", "--mount", "--propagation", "private", "sh", "-c", _MOUNT, size, str(directory))


class Faults:
    """What fails of the files under a directory, for processes that have `environment`."""

    def __init__(self, directory: Path, build: Path) -> None:
        """Build the shim in the folder build, and have the flag there."""
        self._flag = build / "fault"
        shim = build / "fault.so"
        command = [sys.executable, "-m", "ziglang", "cc", "-shared", "-fPIC", "-O1", "-o", str(shim), str(_SOURCE)]
        caches = dict.fromkeys(("ZIG_GLOBAL_CACHE_DIR", "ZIG_LOCAL_CACHE_DIR"), str(build / "zig"))
        subprocess.run(command, check=True, capture_output=True, cwd=ROOT, env=os.environ | caches)
        self.environment = {
            "LD_PRELOAD": str(shim), "WW_FAULT_DIRECTORY": f"{directory}/", "WW_FAULT_FLAG": str(self._flag)
        }  # fmt: skip

    def begin(self, which: str, number: int, part: str = "ww.db", *, once: bool = False) -> None:
        """Have them fail: which is fsync, write or all; number an errno; part of the paths."""
        made = self._flag.with_suffix(".new")
        made.write_text(f"{which} {number} {part} {'once' if once else 'always'}")
        made.replace(self._flag)

    def end(self) -> None:
        self._flag.unlink(missing_ok=True)
