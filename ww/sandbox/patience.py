"""How long a parent waits for a sandbox process to say anything, which is to say so itself when a guest is late.

Holds the times alone. Must not know who waits: group.py does. A guest that hears nothing is given up by its own
process, kill_grace_s after it was to end; these are for a process that does nothing at all.
"""

from dataclasses import dataclass
from typing import Final

from ww.sandbox.invocation import LOAD_S, RunLimits

# How long a process may be late to say that a guest is.
_FROZEN_S: Final = 0.5
_FILES_GRACE_S: Final = 5.0
_FILES_BYTES_PER_S: Final = 20 << 20
# What a component of some tens of megabytes takes until it can load anything.
_START_S: Final = 5.0


@dataclass(frozen=True, slots=True)
class Patience:
    """Seconds, for runs with limits."""

    limits: RunLimits
    kill_grace_s: float

    def first_s(self, *, has_code: bool) -> float:
        """Until the first run says something; has_code: of a Python guest, which may have to be loaded."""
        if has_code:
            return _START_S + max(0.0, LOAD_S - self.limits.duration_s) + self.run_s
        return self.files_s if self.limits.files_bytes else self.run_s

    @property
    def run_s(self) -> float:
        """Until a run ends that has begun."""
        return self.limits.duration_s + self.kill_grace_s + _FROZEN_S

    @property
    def files_s(self) -> float:
        """Until files are unpacked, or packed."""
        return _FILES_GRACE_S + (self.limits.files_bytes + self.limits.artifact_bytes) / _FILES_BYTES_PER_S
