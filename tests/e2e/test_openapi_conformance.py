"""A real gateway does what its own OpenAPI document says, whatever is asked of it.

schemathesis makes the requests of the document: those that fit it, and those that do not. A fixed seed, so that it is
the same each time. Streams and WebSockets have tests of their own.
"""

import base64
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import seed as seeded
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from tests.e2e.processes import Cluster, Gateway, cluster_in
from tests.guests import guest
from ww.gateway.openapi import document
from ww.gateway.request import RequestLimits

pytestmark = pytest.mark.timeout(300)

CHECKS: Final = [
    not_a_server_error, status_code_conformance, content_type_conformance, response_headers_conformance,
    response_schema_conformance,
]  # fmt: skip
EXAMPLES: Final = 40
# What is asked of real things, too: an id that is there is hard to guess.
TASK: Final = "there"
MODES: Final = schemathesis.GenerationMode


def cases() -> Iterator[Any]:
    """Name each operation and how it is asked; what has nothing to vary has nothing that does not fit."""
    for path, operations in document(RequestLimits(), has_tokens=True)["paths"].items():
        for method, operation in operations.items():
            if path not in ("/ws", "/peer", "/events"):  # which have no end
                yield pytest.param(path, method, MODES.POSITIVE, id=f"{method} {path}")
                if operation["parameters"] or "requestBody" in operation:
                    yield pytest.param(path, method, MODES.NEGATIVE, id=f"{method} {path} otherwise")


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    directory: Path = tmp_path_factory.mktemp("openapi")
    with cluster_in(directory) as cluster:
        yield started(cluster)


def started(cluster: Cluster) -> Gateway:
    create = cluster.program("token", "create", "a", "--scope", "admin")
    secret = create.stdout_line()
    gateway = cluster.gateway("--token-file", str(cluster.state / "tokens.toml"), "--max-runs", "3")
    gateway.client.headers["Authorization"] = f"Bearer {secret}"
    cluster.worker(gateway)
    gateway.post(guest("noop"), id=TASK, repeats=2)
    gateway.ended(TASK)
    return gateway


@pytest.mark.parametrize(("path", "method", "mode"), list(cases()))
def test_what_is_answered_is_what_is_described(gateway: Gateway, path: str, method: str, mode: Any) -> None:
    schema = schemathesis.openapi.from_dict(gateway.client.get("/openapi.json").json())
    operation = schema[path][method.upper()]
    base = str(gateway.client.base_url)
    bodies = operation.definition.raw.get("requestBody", {}).get("content", {})
    operation_fields = bodies.get("multipart/form-data", {}).get("schema", {}).get("properties", {})
    asked = 0

    @seeded(1)
    @settings(
        max_examples=EXAMPLES, deadline=None, database=None, phases=[Phase.explicit, Phase.generate],
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(case=operation.as_strategy(generation_mode=mode))
    def ask(case: Any) -> None:
        nonlocal asked
        asked += 1
        if asked % 2 and "id" in (case.path_parameters or {}):
            case.path_parameters["id"] = TASK
        if asked % 2 and isinstance(case.body, dict) and "wasm" in operation_fields:
            is_json = case.media_type == "application/json"
            fields = case.body.get("parent") if is_json else case.body
            if isinstance(fields, dict):
                wasm = guest("noop")
                fields |= {"wasm_base64": base64.b64encode(wasm).decode()} if is_json else {"wasm": wasm}
                for name in ("module", "files", "files_base64", "seed", "files_max", "artifacts_max"):
                    fields.pop(name, None)
        if case.query and str(case.query.get("wait", "")).isdecimal():
            # It may be a task that never begins: the answer then comes as late as was asked for.
            case.query["wait"] = min(1, int(case.query["wait"]))
        headers = dict(gateway.client.headers) if asked % 5 else {}
        answer = case.call(base_url=base, headers=headers, timeout=20)
        case.validate_response(answer, checks=CHECKS)

    ask()
    assert asked


def test_the_gateway_is_well_afterwards(gateway: Gateway) -> None:
    assert gateway.client.get("/readyz").status_code == 200
    assert "Traceback" not in gateway.log
