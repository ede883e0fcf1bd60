"""What a guest may use at most on this node, whatever its task asks for.

Holds the maxima and how a request is held to them. Must not know who enforces them: engine.py inside the child process,
pool.py from outside.
"""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class SandboxLimits:
    """A node's maxima. A request of 0 means the default, one beyond the maximum means the maximum."""

    duration_default_s: float = 60.0
    duration_max_s: float = 86_400.0
    """Wall clock of one run."""
    memory_bytes_max: int = 1 << 30
    """Linear memory of one run, and the default."""
    output_bytes_default: int = 64 << 10
    output_bytes_max: int = 16 << 20
    """Of stdout and of stderr, each."""
    stdin_bytes_max: int = 16 << 20
    """All that one run is given: stdin, args and env."""
    kill_grace_s: float = 0.5
    """Seconds after a run's deadline until its process is killed: a guest inside a host call hears no deadline."""
    compile_max_s: float = 60.0
    compile_memory_bytes_max: int = 2 << 30
    runs_per_child: int = 10_000
    """Runs until a child process is replaced by a fresh one."""

    def duration_s(self, limits: Any) -> float:
        """Return the seconds that hold for a worker.Limits."""
        return (
            min(limits.durationSeconds, self.duration_max_s) if limits.durationSeconds > 0 else self.duration_default_s
        )

    def memory_bytes(self, limits: Any) -> int:
        """Return the bytes of linear memory that hold for a worker.Limits."""
        return min(limits.memoryBytes or self.memory_bytes_max, self.memory_bytes_max)

    def output_bytes(self, limits: Any) -> int:
        """Return the bytes of stdout, and of stderr, that hold for a worker.Limits."""
        return min(limits.outputBytes or self.output_bytes_default, self.output_bytes_max)
