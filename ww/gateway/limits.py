"""What a gateway accepts of a task at most, and what it fills in.

Holds the numbers. Must not know how a task is told: fields.py names which of them bounds what.
"""

from dataclasses import dataclass
from typing import Final

from ww.errors import UsageError
from ww.rpc.frame import WORDS_MAX

MESSAGE_BYTES_MAX: Final = 8 * WORDS_MAX - (1 << 20)
"""Of what all runs of a task are given, and of one result as a peer gets it: each is one message. What a worker says of
a run, and what one run of a batch is given, goes by reference where it is large."""
ZIP_OVERHEAD_BYTES: Final = 16 << 20
"""How much larger a zip of artifacts may be than what is in it: names and headers of many small files."""


@dataclass(frozen=True, slots=True)
class RequestLimits:
    """What a gateway accepts at most, and what it fills in."""

    runs_max: int = 1_000_000
    """Runs of one task."""
    duration_default_s: float = 60.0
    """Seconds one run may take when the task does not say."""
    duration_max_s: float = 86_400.0
    memory_default_bytes: int = 256 << 20
    """Linear memory of one run when the task does not say."""
    memory_max_bytes: int = 1 << 30
    output_default_bytes: int = 64 << 10
    """Bytes of stdout and of stderr, each, kept of one run when the task does not say."""
    python_output_default_bytes: int = 1 << 20
    """The same of a Python function, whose result is its stdout."""
    output_max_bytes: int = 16 << 20
    stdin_max_bytes: int = 32 << 20
    text_max_bytes: int = 64 << 10
    """All of a task's description, args and env together."""
    files_upload_max_bytes: int = 32 << 20
    """The zip that a task's files come as."""
    files_count_max: int = 10_000
    """Files and folders in it."""
    files_default_bytes: int = 256 << 20
    """Of a run's file system when the task does not say."""
    files_max_bytes: int = 256 << 20
    artifacts_default_bytes: int = 16 << 20
    """All artifacts of one run, when the task does not say."""
    artifacts_max_bytes: int = 32 << 20
    cpu_default_s: float = 0.0
    """Processor time of one run when the task does not say; 0: as long as it may take."""
    cpu_max_s: float = 86_400.0
    fuel_default: int = 0
    """WebAssembly instructions of one run when the task does not say; 0: not counted."""
    fuel_max: int = 10**15
    replicas_default: int = 1
    """Workers, of different peers, that a run is given to when the task does not say."""
    quorum_default: int = 1
    """Of these, those that must say the same."""
    batch_bytes_max: int = 4 << 30
    """All that one batch brings, as it comes and as it is kept."""
    line_bytes_max: int = 48 << 20
    """One line of it: a run, or what its runs have in common."""
    json_bytes_max: int = 8 << 20
    """A submission that comes as one JSON text."""

    def __post_init__(self) -> None:
        """Refuse limits that what is within them could not be sent with."""
        own = self.text_max_bytes
        for what, size in (
            ("files", self.files_upload_max_bytes + own),
            ("stdin", self.stdin_max_bytes + own),
            ("output", 2 * self.output_max_bytes + own),
        ):
            if size > MESSAGE_BYTES_MAX:
                raise UsageError(f"the limit of {what} is too large: {size} bytes, a message holds {MESSAGE_BYTES_MAX}")
