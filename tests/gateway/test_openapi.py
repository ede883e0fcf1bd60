"""The OpenAPI document: whole, made of what reads requests, and true of real answers."""

import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
import schemathesis

from tests.gateway.test_http import Gateway, form, open_gateway
from tests.guests import guest
from ww.errors import UsageError
from ww.gateway import fields
from ww.gateway.endpoints import ENDPOINTS, endpoint_of
from ww.gateway.openapi import document
from ww.gateway.request import RequestLimits, read_fields
from ww.gateway.shapes import SCHEMAS
from ww.gateway.task import RunState, Spec

pytestmark = pytest.mark.anyio

LIMITS = RequestLimits()
# What no field says by itself.
_NOT_TOLD = ("kind", "arguments", "owner", "needs_memory_bytes", "workers", "depth", "parent")
DOCUMENT = document(LIMITS, has_tokens=True)


@pytest.fixture
async def gateway(tmp_path: Path) -> AsyncIterator[Gateway]:
    async with open_gateway(tmp_path) as gateway:
        yield gateway


def validator(name: str) -> Any:
    return jsonschema_rs.Draft202012Validator(
        {"$ref": f"#/components/schemas/{name}", "components": DOCUMENT["components"]}
    )


def check(name: str, value: Any) -> None:
    for error in validator(name).iter_errors(value):
        raise AssertionError(f"{name}: {error.instance_path}: {error.message}")


@pytest.mark.parametrize("has_tokens", [False, True])
def test_the_document_is_openapi(has_tokens: bool) -> None:
    schema = schemathesis.openapi.from_dict(document(LIMITS, has_tokens=has_tokens))
    assert {operation.ok().label for operation in schema.get_all_operations()} >= {
        f"{endpoint.method} {endpoint.template}" for endpoint in ENDPOINTS
    }


def test_every_reference_leads_somewhere_and_every_schema_is_one() -> None:
    def references(value: Any) -> list[str]:
        if isinstance(value, dict):
            own = [value["$ref"]] if isinstance(value.get("$ref"), str) else []
            return own + [each for child in value.values() for each in references(child)]
        return [each for child in value for each in references(child)] if isinstance(value, list) else []

    for reference in references(DOCUMENT):
        found: Any = DOCUMENT
        for word in reference.removeprefix("#/").split("/"):
            found = found[word]
    for name in SCHEMAS:
        assert jsonschema_rs.meta.is_valid(SCHEMAS[name]), name
        validator(name)


def test_every_operation_says_what_it_takes_and_how_it_may_be_refused() -> None:
    for path, operations in DOCUMENT["paths"].items():
        for method, operation in operations.items():
            endpoint = endpoint_of(method.upper(), path)
            assert endpoint is not None
            statuses = set(operation["responses"])
            assert {"400", "403", "500", "503"} <= statuses
            assert ("401" in statuses) == bool(operation["security"]) == (endpoint.scope is not None)
            named = {parameter["name"] for parameter in operation["parameters"] if parameter["in"] == "path"}
            assert named == set(re.findall(r"{(\w+)}", path))
    assert all(
        not op["security"] for ops in document(LIMITS, has_tokens=False)["paths"].values() for op in ops.values()
    )


async def test_every_route_is_an_endpoint(gateway: Gateway) -> None:
    """What is answered and not in the table would take no right of its own."""
    app: Any = gateway.app
    while hasattr(app, "_app"):
        app = app._app
    *routes, refusal = app.router.routes
    assert refusal.path == "/{path:path}"  # WebSockets that are nowhere
    for route in routes:
        for method in getattr(route, "methods", None) or {"GET"}:
            template = re.sub(r":\w+", "", route.path)
            assert endpoint_of(method, template) is not None, f"{method} {template}"


# What is described is what is read.


def test_every_field_is_described() -> None:
    form = DOCUMENT["paths"]["/tasks"]["post"]["requestBody"]["content"]["multipart/form-data"]["schema"]
    assert set(form["properties"]) == set(fields.NAMES)
    assert all(described["description"] for described in form["properties"].values())
    names = {field for field in Spec.__slots__ if field not in _NOT_TOLD}
    told = {each.to for each in (*fields.VALUES, fields.FILES_MAX, fields.ARTIFACTS_MAX)}
    assert names - told <= set(fields.NAMES)


@pytest.mark.parametrize("each", fields.VALUES, ids=lambda each: each.name)
def test_the_bounds_that_are_described_are_those_that_hold(each: fields.Value) -> None:
    described = each.schema(LIMITS)
    if described["type"] == "boolean" or "enum" in described:
        return
    others = [("deterministic", "true")] if each.name == "seed" else []

    def taken(number: float) -> bool:
        try:
            read_fields([*others, (each.name, f"{number:.9f}".rstrip("0").rstrip("."))], b"", True, LIMITS)
        except UsageError as error:
            return error.field != each.name
        return True

    low, high = described.get("minimum", described.get("exclusiveMinimum")), described["maximum"]
    if described["type"] == "integer":
        assert each.read(str(low), LIMITS) == low
        assert each.read(str(high), LIMITS) == high
        for outside in (low - 1, high + 1):
            with pytest.raises(UsageError):
                each.read(str(outside), LIMITS)
    else:
        assert taken(high)
        assert taken(low) == ("minimum" in described)
        assert not taken(high + 1)


# What is described is what is answered.


async def test_tasks_and_results_have_the_shape_that_is_described(gateway: Gateway) -> None:
    await gateway.added(id="plain")
    await gateway.added(
        wasm=guest("hash"), id="full", name="n", description="d", input=1, difficulty=2, repeats=4, priority=-5,
        cpus="0.5", labels=["b=2", "a=1"], replicas=3, quorum=2, memory=1 << 20, fuel=10**9, cpu_seconds=1,
        deterministic="true", seed=7, artifacts=["out"], dirs=["data"], start="0.5", delay="1.5", env=["K=V"],
    )  # fmt: skip
    await gateway.end("full", 0, 1, result="5", stdout=b"\xff", fuel=5, exit_code=0, artifacts="0" * 64)
    await gateway.end("full", 2, state=RunState.FAILED, reason="trap", detail="unreachable")
    for task in await gateway.json("/tasks"):
        check("Task", task)
    full = next(task for task in await gateway.json("/tasks") if task["id"] == "full")
    assert (full["name"], full["priority"], full["cpus"], full["replicas"], full["quorum"]) == ("n", -5, 0.5, 3, 2)
    assert full["labels"] == {"a": "1", "b": "2"}
    assert full["owner"] is None
    assert len(full["results"]) == 3
    for result in await gateway.json("/tasks/full/runs"):
        check("Result", result)
    for run in range(4):
        check("Run", await gateway.json(f"/tasks/full/runs/{run}"))
    await gateway.json("/tasks/plain", method="DELETE")
    check("Task", await gateway.json("/tasks/plain"))


async def test_the_other_answers_too(gateway: Gateway) -> None:
    check("Readiness", await gateway.json("/readyz"))
    check("Problem", await gateway.json("/tasks/none", 404))
    check("Problem", await gateway.json("/tasks?limit=x", 422))
    check("Problem", await gateway.json("/tasks", 422, "POST", files=form(wasm=None, id="t")))
    assert (await gateway.json("/openapi.json"))["openapi"] == "3.1.0"
    metrics = await gateway.client.get("/metrics")
    assert metrics.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert 'route="/tasks/{id}",status="404"' in metrics.text


async def test_memory_that_is_asked_for_is_needed(gateway: Gateway) -> None:
    await gateway.added(id="a", memory=1 << 20)
    await gateway.added(id="b")
    needs = [task.spec.needs_memory_bytes for task in gateway.scheduler.open_tasks()]
    assert needs == [1 << 20, 0]
