"""What a task and a result are as rows of a table, and back again.

Holds the columns' order and the one place that says which bytes are too many for a row. Knows no database: store.py
asks it, and says where the rows are.
"""

import base64
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from operator import attrgetter
from typing import Any, Final

from ww.gateway.spec import Grant
from ww.gateway.task import Outcome, RunResult, RunState, Spec

# What is larger lies in a segment: as blobs of a database large payloads are five times slower (bench/store.py).
INLINE_BYTES_MAX: Final = 16 << 10
# What a result costs beside its output, roughly: it counts towards the quota of results too.
RESULT_BYTES: Final = 256

_OUTCOME: Final = Outcome._fields
_CUT: Final = tuple(_OUTCOME.index(f"{stream}_truncated") for stream in ("stdout", "stderr"))
_SPEC: Final = tuple(f.name for f in fields(Spec))
_spec_fields: Final = attrgetter(*_SPEC)
RUN_COLUMNS: Final = (
    "task", "run", "state", "worker", "attempts", "queued_at", "started_at", "finished_at", *_OUTCOME,
    "stdout_payload", "stderr_payload",
)  # fmt: skip
TASK_COLUMNS: Final = (
    "number", "spec", "spec_payload", "created_at", "finished_at", "cancelled", "succeeded", "failed", "reason",
)  # fmt: skip
_STREAMS: Final = ("stdout", "stderr")
# Where a stream is in a run's row, and where the number of its payload is.
STREAM_PLACES: Final = tuple((RUN_COLUMNS.index(name), RUN_COLUMNS.index(f"{name}_payload")) for name in _STREAMS)
SPEC_END: Final = b"\0"
"""What is between the JSON of a spec and its stdin, in a payload."""
CUT_PLACES: Final = tuple(RUN_COLUMNS.index(f"{name}_truncated") for name in _STREAMS)
"""Where it is said that a stream is not whole."""
_TUPLES: Final = ("args", "arguments", "dirs", "artifacts", "workers")
_PAIRS: Final = ("env", "labels")


@dataclass(frozen=True, slots=True)
class TaskRow:
    """A task as it is on disk. Times are seconds since the epoch."""

    number: int
    spec: Spec
    created_at: float
    finished_at: float | None
    cancelled: bool
    succeeded: int
    failed: int
    reason: str = ""
    """Why it failed as a whole; empty when it did not."""

    @property
    def status(self) -> str:
        """The status of a task that has ended."""
        if self.cancelled:
            return RunState.CANCELLED
        return RunState.FAILED if self.failed or self.reason else RunState.SUCCEEDED

    @property
    def has_ended(self) -> bool:
        return self.finished_at is not None


def spec_to_text(spec: Spec) -> str | None:
    """Return a spec as JSON, or None when that is too large for a row."""
    if len(spec.stdin) >= INLINE_BYTES_MAX:
        return None
    text = _json(_spec_values(spec) | {"stdin": base64.b64encode(spec.stdin).decode()})
    return text if len(text) <= INLINE_BYTES_MAX else None


def _spec_values(spec: Spec) -> dict[str, Any]:
    # asdict copies all that it finds, and takes a tenth of a submission's time for that.
    values = dict(zip(_SPEC, _spec_fields(spec), strict=True))
    return values | {"grants": [asdict(grant) for grant in spec.grants]} if spec.grants else values


def spec_to_bytes(spec: Spec) -> bytes:
    """Return a spec as a payload: JSON, which has no zero byte, then one, then stdin."""
    text, stdin = spec_to_parts(spec)
    return b"\0".join((text.encode(), stdin))


def spec_to_parts(spec: Spec) -> tuple[str, bytes]:
    """Return a spec as JSON, which is ASCII, and stdin beside it."""
    return _json(_spec_values(spec) | {"stdin": ""}), spec.stdin


def parts_to_spec(text: str, stdin: bytes) -> Spec:
    return _spec(json.loads(text), stdin)


def text_to_spec(text: str) -> Spec:
    values = json.loads(text)
    return _spec(values, base64.b64decode(values["stdin"]))


def bytes_to_spec(data: bytes) -> Spec:
    text, _, stdin = data.partition(SPEC_END)
    return parts_to_spec(text.decode(), stdin)


def _json(values: dict[str, Any]) -> str:
    return json.dumps(values, separators=(",", ":"))


def _spec(values: dict[str, Any], stdin: bytes) -> Spec:
    for name in _TUPLES:
        values[name] = tuple(values.get(name, ()))
    for name in _PAIRS:
        values[name] = tuple((key, value) for key, value in values.get(name, ()))
    grants = tuple(Grant(**each | {"grants": tuple(each["grants"])}) for each in values.get("grants", ()))
    return Spec(**values | {"stdin": stdin, "grants": grants})


def task_row(row: tuple[Any, ...], spec: Spec) -> TaskRow:
    """Make a task of the values of TASK_COLUMNS, whose spec was read already."""
    number, _, _, created_at, finished_at, cancelled, succeeded, failed, reason = row
    return TaskRow(number, spec, created_at, finished_at, bool(cancelled), succeeded, failed, reason)


def result_to_row(task: int, result: RunResult) -> tuple[Any, ...]:
    """Return a result as values of RUN_COLUMNS, its output whole."""
    return (
        task, result.run, result.state, result.worker, result.attempts, result.queued_at, result.started_at,
        result.finished_at, *result.outcome, None, None,
    )  # fmt: skip


def result_bytes(result: RunResult) -> int:
    """Return what a result counts towards the quota."""
    outcome = result.outcome
    return RESULT_BYTES + len(outcome.stdout) + len(outcome.stderr) + len(outcome.detail) + len(outcome.result or "")


def ended_sums(results: Sequence[tuple[int, RunResult]]) -> list[tuple[int, int, float, int, int]]:
    """Return what results mean for each of their tasks: succeeded, failed, the latest end, its number, their bytes."""
    ended: dict[int, list[RunResult]] = {}
    for task, result in results:
        ended.setdefault(task, []).append(result)
    sums = []
    for task, of_task in ended.items():
        states = [result.state for result in of_task]
        succeeded, failed = states.count(RunState.SUCCEEDED), states.count(RunState.FAILED)
        latest = max([result.finished_at for result in of_task])
        sums.append((succeeded, failed, latest, task, sum(map(result_bytes, of_task))))
    return sums


def row_to_result(row: tuple[Any, ...]) -> RunResult:
    """Make a result of the values of RUN_COLUMNS, its output being in the row."""
    _, run, state, worker, attempts, queued_at, started_at, finished_at, *outcome, _, _ = row
    for place in _CUT:
        outcome[place] = bool(outcome[place])
    return RunResult(
        run=run,
        state=RunState(state),
        outcome=Outcome._make(outcome),
        worker=worker,
        attempts=attempts,
        queued_at=queued_at,
        started_at=started_at,
        finished_at=finished_at,
    )
