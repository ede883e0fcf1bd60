"""What a run is given, what it may use, and how it ended: the terms of pool, wire and engine.

Holds plain data alone. Must not know processes, wasmtime or Cap'n Proto: sandbox processes and their parent share it.
Reasons are those of schema/worker.capnp.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Protocol

INLINE_BYTES_MAX: Final = 64 << 10
"""What is larger than this lies in a file in memory, and not in a message between processes."""

LOAD_S: Final = 10.0
"""How long loading a Python program may take at least; before runs that may take longer, it may as well."""


class Determined(Protocol):
    """An invocation, or what several have in common."""

    @property
    def deterministic(self) -> bool: ...


@dataclass(frozen=True, slots=True)
class RunLimits:
    """What one run may use: resolved, so that 0 is no default any more. SandboxLimits makes them."""

    duration_s: float
    """Wall clock."""
    memory_bytes: int
    """Linear memory."""
    output_bytes: int
    """Of stdout and of stderr, each."""
    cpu_s: float = 0.0
    """Processor time; 0: no other limit than duration_s."""
    fuel: int = 0
    """WebAssembly instructions, roughly; 0: as many as there is time for."""
    files_bytes: int = 0
    """Of the guest's file system."""
    files_count: int = 0
    """Files and folders in it."""
    artifact_bytes: int = 0
    artifact_count: int = 0
    """Files in the artifacts."""

    def is_metered(self, of: "Determined") -> bool:
        """Whether runs take code that counts fuel and leaves nothing to the machine."""
        return bool(self.fuel or of.deterministic)


@dataclass(slots=True)
class Invocation:
    """One run's input."""

    entry: str = ""
    """Exported function; empty for a command or a reactor."""
    arguments: Sequence[int] = ()
    """Of entry: numbers for i32 and i64, the bits of a float64 for f32 and f64."""
    args: Sequence[str] = ()
    env: Sequence[tuple[str, str]] = ()
    stdin: bytes = b""
    files: bytes = b""
    """A zip to unpack into the guest's file system."""
    artifacts: Sequence[str] = ()
    """Paths of its file system to bring back."""
    dirs: Sequence[str] = ()
    """Folders of it to open, each under its own name; none: all of it, as "/"."""
    deterministic: bool = False
    seed: int = 0
    """Of a deterministic run's random numbers."""
    context: bytes = b""
    """A reactor's instance serves one context only; empty: one run only."""
    code: bytes = b""
    """Of a Python guest: a zip of the sources that args[0], module:qualname, is in. The other args are the functions
    that a run of it may call."""

    @property
    def has_files(self) -> bool:
        """Whether the guest has a file system."""
        return bool(self.files or self.artifacts or self.dirs)


@dataclass(slots=True)
class Result:
    """One run's end."""

    reason: str = "ok"
    detail: str = ""
    """One line for people."""
    value: int | None = None
    """What entry returned, in the form of Invocation.arguments."""
    is_float: bool = False
    """Of value."""
    exit_code: int | None = None
    stdout: bytes = b""
    stderr: bytes = b""
    stdout_truncated: bool = False
    stderr_truncated: bool = False
    wall_s: float = 0.0
    """From the start of the instance to its end."""
    instantiate_s: float = 0.0
    cpu_s: float = 0.0
    fuel: int | None = None
    """What was used, where it was counted."""
    memory_bytes: int = 0
    """Linear memory at the end, which is its peak; 0 where the guest does not show it."""
    files_bytes: int = 0
    artifacts: bytes = b""
    """A zip."""


class GuestFault(Exception):
    """A run that ended otherwise than well, by a schema reason and a line for people."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail[:300]
