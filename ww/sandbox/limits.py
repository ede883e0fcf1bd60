"""What a guest may use at most on this node, whatever its task asks for.

Holds the maxima and how a request is held to them. Must not know who enforces them: engine.py inside the child process,
pool.py from outside.
"""

from dataclasses import dataclass, replace
from typing import Any, Final, TypeVar

from ww.sandbox.invocation import Invocation, RunLimits

T = TypeVar("T", int, float)

_FUEL_MAX: Final = (1 << 63) - 1


@dataclass(frozen=True, slots=True)
class SandboxLimits:
    """A node's maxima. A request of 0 means the default, one beyond the maximum means the maximum."""

    duration_default_s: float = 60.0
    duration_max_s: float = 86_400.0
    """Wall clock of one run."""
    memory_bytes_max: int = 1 << 30
    """Linear memory of one run, and the default."""
    output_bytes_default: int = 64 << 10
    output_bytes_max: int = 32 << 20
    """Of stdout and of stderr, each."""
    input_bytes_max: int = 64 << 20
    """All that one run is given: stdin, args, env and files."""
    files_bytes_max: int = 256 << 20
    """Of a guest's file system, and the default."""
    files_count_max: int = 10_000
    """Files and folders in it."""
    artifact_bytes_max: int = 32 << 20
    """What a run may bring back, before it is compressed, and the default."""
    artifact_count_max: int = 1000
    """Files in it."""
    kill_grace_s: float = 0.5
    """Seconds after a run's deadline until its process is killed: a guest inside a host call may hear no deadline."""
    compile_max_s: float = 60.0
    compile_memory_bytes_max: int = 2 << 30
    module_bytes_max: int = 256 << 20
    """Compiled modules that a child process keeps loaded."""
    runs_per_child: int = 100_000
    """Runs until a child process is replaced by a fresh one."""
    growth_bytes_per_child: int = 256 << 20
    """How much a child process may have grown until it is."""
    programs_max: int = 4
    """Python programs that a child process keeps loaded: for each, an instance and the state that its runs begin in."""
    program_bytes_max: int = 256 << 20
    """Of those states."""
    kept_s: float = 30.0
    """Seconds that a child process keeps Python programs, and a reactor, while it has nothing to do."""

    def of_run(self, asked: Any, invocation: Invocation) -> RunLimits:
        """Resolve a worker.Limits for an invocation."""
        limits = RunLimits(
            duration_s=_limit(asked.durationSeconds, self.duration_default_s, self.duration_max_s),
            memory_bytes=_limit(asked.memoryBytes, self.memory_bytes_max, self.memory_bytes_max),
            output_bytes=_limit(asked.outputBytes, self.output_bytes_default, self.output_bytes_max),
            cpu_s=max(0.0, asked.cpuSeconds),
            fuel=min(asked.fuel, _FUEL_MAX),
        )
        if not invocation.has_files:
            return limits
        has_artifacts = bool(invocation.artifacts)
        return replace(
            limits,
            files_bytes=_limit(asked.filesBytes, self.files_bytes_max, self.files_bytes_max),
            files_count=self.files_count_max,
            artifact_bytes=_limit(asked.artifactBytes, self.artifact_bytes_max, self.artifact_bytes_max)
            if has_artifacts
            else 0,
            artifact_count=self.artifact_count_max if has_artifacts else 0,
        )


def _limit(asked: T, default: T, most: T) -> T:
    return min(asked, most) if asked > 0 else min(default, most)
