"""How a call's run ended, as its value or its exception.

Holds which reason is which error, and what it advises. Must not know how results come: results of runs and the ends of
nested calls are read by it alike.
"""

from collections.abc import Callable
from concurrent.futures import CancelledError
from dataclasses import dataclass
from typing import Any, Final

from ww.errors import (
    BadResult,
    DeadlineExceeded,
    NotGranted,
    OutOfFuel,
    OutOfMemory,
    Overloaded,
    RunFailed,
    RunLost,
    Trapped,
    WwError,
)
from ww.python.exception import Classes, exception_of, plain
from ww.python.failure import loads_failure
from ww.python.values import loads

_DETAIL_CHARS_MAX: Final = 300


@dataclass(frozen=True, slots=True)
class Ended:
    """A run's end, wherever it ran."""

    reason: str
    """ok, or one of schema/worker.capnp's reasons; cancelled; refused or overloaded, of what did not begin."""
    detail: str = ""
    exit_code: int | None = None
    body: bytes = b""
    """The value's text, or the failure's."""
    is_cut: bool = False
    """Whether the body is not all."""
    attempts: int = 1


# Which error a reason is, and what to do about it.
_ERRORS: Final[dict[str, tuple[type[RunFailed], str]]] = {
    "trap": (Trapped, "the interpreter in the sandbox stopped"),
    "crash": (Trapped, "its process in the worker ended"),
    "deadline": (DeadlineExceeded, "it took longer than it may: see timeout_s of its job"),
    "cpu": (DeadlineExceeded, "it took more processor time than it may"),
    "fuel": (OutOfFuel, "it took more instructions than it may: see fuel of its job"),
    "memory": (OutOfMemory, "it needed more memory than it may: see memory of its job"),
    "lost": (RunLost, "its workers were lost"),
    "compile": (RunFailed, "the module that it runs in does not compile there"),
    "files": (RunFailed, "it needed more room for files than it may"),
}


def value_of(ended: Ended, name: str, classes: Classes, *, trust: bool) -> Any:
    """Return what the function of that name returned; raise what it raised, or why it did neither."""
    if ended.reason == "ok" and not ended.exit_code:
        return _read(ended, name, lambda body: loads(body, classes, trust=trust))
    if ended.reason in ("ok", "exit") and ended.exit_code == 1 and ended.body:
        failure = _read(ended, name, lambda body: loads_failure(body, classes))
        raise exception_of(failure, classes)
    raise error_of(ended, name)


def _read(ended: Ended, name: str, read: Callable[[bytes], Any]) -> Any:
    if ended.is_cut:
        raise BadResult(f"{name}: its result has more than {len(ended.body)} bytes: see output of its job")
    try:
        return read(ended.body)
    except ValueError as error:
        raise BadResult(f"{name}: its result is nothing that is read: {_line(str(error))}") from None
    except (RecursionError, MemoryError):
        raise BadResult(f"{name}: its result is too deep or too large to be read") from None


def error_of(ended: Ended, name: str) -> WwError | CancelledError:
    """Return the error for a run that ended otherwise than by its function's return or exception."""
    detail = _line(ended.detail)
    if ended.reason == "cancelled":
        return CancelledError()
    if ended.reason == "refused":
        return NotGranted(f"{name}: {detail or 'it is not granted'}")
    if ended.reason == "overloaded":
        return Overloaded(f"{name}: {detail or 'the cluster takes no more for now'}")
    if ended.reason in ("ok", "exit"):
        if "the result has" in detail:
            return BadResult(f"{name}: {detail}: see output of its job")
        said = f"{name}: its interpreter exited with {ended.exit_code} and left no result"
        return RunFailed(f"{said}: {detail}" if detail else said)
    kind, advice = _ERRORS.get(ended.reason, (RunFailed, f"it ended with {_line(ended.reason)[:40]}"))
    attempts = f" (attempt {ended.attempts})" if ended.attempts > 1 else ""
    return kind(f"{name}: {advice}{attempts}" + (f": {detail}" if detail else ""))


def _line(text: str) -> str:
    return plain(" ".join(text.split()))[:_DETAIL_CHARS_MAX]
