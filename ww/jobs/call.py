"""A call on its way: its request, its future, and what of its job every run has in common.

Must not know where it runs: dispatcher.py sends it to a cluster, local.py to a sandbox of this process.
"""

from dataclasses import dataclass, field
from typing import Any

from ww.jobs.future import CancelledError, JobFuture
from ww.jobs.options import JobOptions
from ww.python.outcome import Ended, value_of
from ww.python.source import Code


@dataclass(frozen=True, slots=True, eq=False)
class Target:
    """A job as it is sent: what all of its calls have in common. The same object as long as nothing changed."""

    name: str
    """module:qualname."""
    shown: str
    """For people."""
    options: JobOptions = field(repr=False)
    code: Code = field(repr=False)
    names: tuple[str, ...]
    """What it may call."""
    granted: dict[str, "Grant"] = field(repr=False)
    """That, and what may be called from there, by name."""


@dataclass(frozen=True, slots=True, eq=False)
class Grant:
    """A job that may be called from a sandbox."""

    name: str
    options: JobOptions
    names: tuple[str, ...]
    """What it may call in turn."""

    def fields(self) -> dict[str, Any]:
        """Return it as a task's field says it."""
        return {"name": self.name, **self.options.limits(), "grants": list(self.names)}


@dataclass(slots=True, eq=False)
class Call:
    """One run's request, and who waits for it."""

    target: Target
    request: bytes = field(repr=False)
    future: JobFuture[Any]
    spread: str = "pull"
    group: Any = None
    """Whoever sends it: what it went with."""

    @property
    def is_done(self) -> bool:
        return self.future.done()

    def end(self, ended: Ended, printed: bytes) -> None:
        """Settle the future by how the run ended."""
        target = self.target
        try:
            value = value_of(ended, target.shown, target.code.find_class, trust=target.options.trust)
        except (Exception, CancelledError) as error:
            self.fail(error, printed)
        else:
            self.future.settle(value, printed=printed)

    def fail(self, error: BaseException, printed: bytes = b"") -> None:
        # Its frames hold the result's text, and what capabilities hold is not to leave their thread.
        self.future.settle(error=error.with_traceback(None), printed=printed)
