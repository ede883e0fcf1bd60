"""The shapes of the answers' JSON, as JSON Schema 2020-12.

Holds what view.py and http.py render, described: openapi.py publishes it, and a test holds real answers to it. Every
member is always there, unless it is said otherwise.
"""

from typing import Any, Final

from ww.gateway.fields import ID_PATTERN, REPLICAS_MAX
from ww.gateway.problem import CODES
from ww.gateway.query import STATUSES
from ww.gateway.spec import Spread
from ww.gateway.task import RunState
from ww.wasm_inspect import Kind

Schema = dict[str, Any]

_TEXT: Final[Schema] = {"type": "string"}
_TRUTH: Final[Schema] = {"type": "boolean"}
_COUNT: Final[Schema] = {"type": "integer", "minimum": 0}
_SECONDS: Final[Schema] = {"type": "number", "minimum": 0}
_TIME: Final[Schema] = {"type": "string", "format": "date-time"}
_DIGEST: Final[Schema] = {"type": "string", "pattern": "^sha256:[0-9a-f]{64}$"}
_TEXTS: Final[Schema] = {"type": "array", "items": _TEXT}
_LABELS: Final[Schema] = {"type": "object", "additionalProperties": _TEXT}


def _or_null(schema: Schema) -> Schema:
    return schema | {"type": [schema["type"], "null"]}


def _words(*words: str) -> Schema:
    return {"type": "string", "enum": [str(word) for word in words]}


def _object(properties: dict[str, Schema], optional: tuple[str, ...] = ()) -> Schema:
    required = [name for name in properties if name not in optional]
    return {"type": "object", "properties": properties, "required": required, "additionalProperties": False}


def _ref(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}


def _list(schema: Schema) -> Schema:
    return {"type": "array", "items": schema}


_OUTPUT: Final[dict[str, Schema]] = {
    f"{stream}{suffix}": schema
    for stream in ("stdout", "stderr")
    for suffix, schema in (
        ("", _TEXT),
        ("_bytes", _COUNT),
        ("_truncated", _TRUTH),
        ("_base64", {"type": "string", "contentEncoding": "base64"}),
    )
}
_RESULT: Final = _object(
    {
        "run": _COUNT,
        "state": _words(RunState.SUCCEEDED, RunState.FAILED, RunState.CANCELLED),
        "result": _or_null(_TEXT),
        "exit_code": _or_null({"type": "integer"}),
        **_OUTPUT,
        "reason": _or_null(_TEXT),
        "detail": _or_null(_TEXT),
        "worker": _or_null(_TEXT),
        "attempts": _COUNT,
        "queued_at": _TIME,
        "started_at": _or_null(_TIME),
        "finished_at": _TIME,
        "wall_seconds": _SECONDS,
        "cpu_seconds": _SECONDS,
        "memory_bytes": _COUNT,
        "queue_seconds": _SECONDS,
        "compile_seconds": _SECONDS,
        "instantiate_seconds": _SECONDS,
        "fuel": _or_null(_COUNT),
        "memory_limit_bytes": _COUNT,
        "files_bytes": _COUNT,
        "artifacts_url": _or_null(_TEXT),
        "artifacts_bytes": _COUNT,
        "position": _COUNT,
        "name": _TEXT,
    },
    optional=("stdout_base64", "stderr_base64", "position", "name"),
)
_UNENDED_RUN: Final = _object(
    {"run": _COUNT, "state": _words(RunState.SCHEDULED, RunState.QUEUED, RunState.RUNNING, RunState.CANCELLED)}
)
_REPLICAS: Final = {"type": "integer", "minimum": 1, "maximum": REPLICAS_MAX}
_GRANT: Final = _object(
    {
        "name": _TEXT,
        "duration": _SECONDS,
        "memory": _COUNT,
        "output": _COUNT,
        "fuel": _or_null(_COUNT),
        "cpu_seconds": _or_null(_SECONDS),
        "retries": _COUNT,
        "grants": _TEXTS,
        "indirect": _TRUTH,
    }
)
_TASK: Final = _object(
    {
        "id": {"type": "string", "pattern": f"^{ID_PATTERN}$"},
        "name": _TEXT,
        "owner": _or_null(_TEXT),
        "description": _TEXT,
        "status": _words(*STATUSES),
        "reason": _or_null(_TEXT),
        "complete": _COUNT,
        "completions": _COUNT,
        "duration": _SECONDS,
        "start": _SECONDS,
        "delay": _SECONDS,
        "repeats": {"type": "integer", "minimum": 1},
        "priority": {"type": "integer", "minimum": -100, "maximum": 100},
        "cpus": _or_null(_SECONDS),
        "labels": _LABELS,
        "retries": _COUNT,
        "input": _or_null(_COUNT),
        "difficulty": _or_null(_COUNT),
        "args": _TEXTS,
        "kind": _words(*Kind),
        "entry": _or_null(_TEXT),
        "memory": _COUNT,
        "output": _COUNT,
        "module": _DIGEST,
        "files": _or_null(_DIGEST),
        "dirs": _TEXTS,
        "files_max": _or_null(_COUNT),
        "artifacts": _TEXTS,
        "artifacts_max": _or_null(_COUNT),
        "deterministic": _TRUTH,
        "seed": _or_null(_COUNT),
        "fuel": _or_null(_COUNT),
        "cpu_seconds": _or_null(_SECONDS),
        "spread": _words(*Spread),
        "replicas": _REPLICAS,
        "quorum": _REPLICAS,
        "batch": _TRUTH,
        "grants": _list(_GRANT),
        "depth": _COUNT,
        "parent": _or_null(_TEXT),
        "runs": _object({str(state): _COUNT for state in RunState}),
        "results": _list(_ref("Result")),
        "results_url": _TEXT,
        "created_at": _TIME,
        "finished_at": _or_null(_TIME),
        "next_run_at": _or_null(_TIME),
    },
)
_WORKER: Final = _object(
    {
        "peer": _TEXT,
        "kind": _TEXT,
        "slots": _COUNT,
        "free": _COUNT,
        "cpus": _SECONDS,
        "memory_bytes": _COUNT,
        "labels": _LABELS,
        "lacks": _TEXTS,
        "host": _TEXT,
        "since": _TIME,
        "modules": _list(_DIGEST),
        "breaker": _words("closed", "open", "half-open"),
        "disagreements": _COUNT,
    },
)
_MODULE: Final = _object({"module": _DIGEST, "bytes": _COUNT, "kind": _words(*Kind), "entries": _TEXTS})
_HEALTH: Final[Schema] = _object(
    {
        "status": {"const": "ok"},
        "peer": _TEXT,
        "namespace": _TEXT,
        "meta": _LABELS,
        "members": _COUNT,
        "packets_dropped": {"type": "object", "additionalProperties": _COUNT},
        "packets_suppressed": _COUNT,
    }
)
_CHECK: Final = _object({"name": _TEXT, "ok": _TRUTH, "detail": _TEXT})
_READINESS: Final = _object({"status": _words("ready", "not ready"), "checks": _list(_CHECK)})
_PROBLEM: Final = _object(
    {
        "type": {"const": "about:blank"},
        "title": _TEXT,
        "status": {"type": "integer", "minimum": 400, "maximum": 599},
        "detail": _TEXT,
        "code": _words(*CODES),
        "field": _TEXT,
        "request_id": _TEXT,
    },
    optional=("field",),
)

SCHEMAS: Final[dict[str, Schema]] = {
    "Task": _TASK,
    "Result": _RESULT,
    "UnendedRun": _UNENDED_RUN,
    "Run": {"oneOf": [_ref("Result"), _ref("UnendedRun")]},
    "Worker": _WORKER,
    "Module": _MODULE,
    "Health": _HEALTH,
    "Readiness": _READINESS,
    "Problem": _PROBLEM,
}
"""By name."""
