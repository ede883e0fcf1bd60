"""How tasks and results look as JSON.

Holds the rendering alone. Must not know HTTP, nor ask anybody: it is given what it renders. Shapes: docs/http.md.
"""

from binascii import b2a_base64
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, Final
from urllib.parse import quote

from ww.gateway.pool import WorkerEntry
from ww.gateway.results import Told
from ww.gateway.rows import TaskRow
from ww.gateway.spec import Grant
from ww.gateway.task import RunResult, RunState, Spec

# The results of one answer are of few seconds.
_SECONDS_KEPT: Final = 256


def counts_of_ended(row: TaskRow) -> dict[RunState, int]:
    return dict.fromkeys(RunState, 0) | {
        RunState.SUCCEEDED: row.succeeded,
        RunState.FAILED: row.failed,
        RunState.CANCELLED: row.spec.repeats - row.succeeded - row.failed,
    }


def spec_json(spec: Spec) -> dict[str, Any]:
    """Render what was submitted, without env and stdin: they may hold secrets."""
    return {
        "id": spec.id,
        "name": spec.name,
        "owner": spec.owner or None,
        "description": spec.description,
        "complete": spec.complete,
        "duration": spec.duration_s,
        "start": spec.start_s,
        "delay": spec.delay_s,
        "repeats": spec.repeats,
        "priority": spec.priority,
        "cpus": spec.cpus or None,
        "labels": dict(spec.labels),
        "retries": spec.retries,
        "input": spec.input,
        "difficulty": spec.difficulty,
        "args": spec.args,
        "kind": spec.kind,
        "entry": spec.entry or None,
        "memory": spec.memory_bytes,
        "output": spec.output_bytes,
        "module": f"sha256:{spec.module}",
        "files": f"sha256:{spec.files}" if spec.files else None,
        "dirs": spec.dirs,
        "files_max": spec.files_bytes or None,
        "artifacts": spec.artifacts,
        "artifacts_max": spec.artifact_bytes or None,
        "deterministic": spec.deterministic,
        "seed": spec.seed if spec.deterministic else None,
        "fuel": spec.fuel or None,
        "cpu_seconds": spec.cpu_s or None,
        "spread": spec.spread,
        "replicas": spec.replicas,
        "quorum": spec.quorum,
        "batch": bool(spec.inputs),
        "grants": [grant_json(grant) for grant in spec.grants],
        "depth": spec.depth,
        "parent": spec.parent or None,
    }


def grant_json(grant: Grant) -> dict[str, Any]:
    return {
        "name": grant.name,
        "duration": grant.duration_s,
        "memory": grant.memory_bytes,
        "output": grant.output_bytes,
        "fuel": grant.fuel or None,
        "cpu_seconds": grant.cpu_s or None,
        "retries": grant.retries,
        "grants": grant.grants,
        "indirect": grant.is_indirect,
    }


def task_path(id: str) -> str:
    """Return where a task is."""
    return f"/tasks/{quote(id)}"


def result_json(result: RunResult, task: str) -> dict[str, Any]:
    """Render a result of the task of that id."""
    outcome = result.outcome
    artifacts_url = f"{task_path(task)}/runs/{result.run}/artifacts" if outcome.artifacts else None
    return {
        "run": result.run,
        "state": result.state,
        "result": outcome.result,
        "exit_code": outcome.exit_code,
        **_output_json("stdout", outcome.stdout, outcome.stdout_truncated),
        **_output_json("stderr", outcome.stderr, outcome.stderr_truncated),
        "reason": outcome.reason or None,
        "detail": outcome.detail or None,
        "worker": result.worker or None,
        "attempts": result.attempts,
        "queued_at": time_text(result.queued_at),
        "started_at": time_text(result.started_at),
        "finished_at": time_text(result.finished_at),
        "wall_seconds": outcome.wall_s,
        "cpu_seconds": outcome.cpu_s,
        "memory_bytes": outcome.memory_bytes,
        "queue_seconds": outcome.queue_s,
        "compile_seconds": outcome.compile_s,
        "instantiate_seconds": outcome.instantiate_s,
        "fuel": outcome.fuel,
        "memory_limit_bytes": outcome.memory_limit_bytes,
        "files_bytes": outcome.files_bytes,
        "artifacts_url": artifacts_url,
        "artifacts_bytes": outcome.artifacts_bytes,
    }


def told_json(told: Told, task: str) -> dict[str, Any]:
    """Render a result with its position, and the name of its run where it has one."""
    rendered = result_json(told.result, task) | {"position": told.position}
    return rendered | {"name": told.name} if told.name else rendered


def _output_json(name: str, data: bytes, truncated: bool) -> dict[str, Any]:
    """Render output as text, or as base64 where it is not UTF-8: both would be larger than what it says."""
    rendered: dict[str, Any] = {name: "", f"{name}_bytes": len(data), f"{name}_truncated": truncated}
    try:
        rendered[name] = data.decode()
    except UnicodeDecodeError:
        rendered[f"{name}_base64"] = b2a_base64(data, newline=False).decode()
    return rendered


def worker_json(entry: WorkerEntry, free: int) -> dict[str, Any]:
    """Render a worker, without the modules that it has."""
    return {
        "peer": str(entry.peer.peer_id),
        "kind": entry.info.kind,
        "slots": entry.info.slots,
        "free": free,
        "cpus": entry.info.cpus,
        "memory_bytes": entry.info.memory_bytes,
        "labels": entry.info.labels,
        "lacks": sorted(entry.info.lacks),
        "breaker": entry.breaker,
        "disagreements": entry.disagreements,
        "host": entry.info.host,
        "since": time_text(entry.since),
    }


def time_text(seconds: float | None) -> str | None:
    if seconds is None:
        return None
    whole, rest = divmod(round(seconds * 1e6) // 1000, 1000)
    return f"{_second_text(whole)}.{rest:03}+00:00"


@lru_cache(_SECONDS_KEPT)
def _second_text(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat()[:19]
