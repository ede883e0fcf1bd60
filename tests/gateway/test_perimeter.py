"""The middleware together: CORS for whom the operator named, and nothing told to others."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.gateway.test_http import Gateway, form, open_gateway
from ww.gateway.caller import Caller, Scope
from ww.gateway.perimeter import Perimeter, PerimeterConfig

pytestmark = pytest.mark.anyio

APP = "https://app.example.org"
EVIL = "https://evil.example"


class Known:
    def caller(self, secret: bytes) -> tuple[Caller | None, str]:
        return (Caller("a", frozenset({Scope.READ, Scope.SUBMIT})) if secret == b"right" else None), ""


@pytest.fixture
async def gateway(tmp_path: Path) -> AsyncIterator[Gateway]:
    perimeter = Perimeter(PerimeterConfig(origins=frozenset({APP})), tokens=Known())
    async with open_gateway(tmp_path, perimeter=perimeter) as gateway:
        yield gateway


def from_page(origin: str, secret: str = "right") -> dict[str, str]:
    return {"Origin": origin, "Sec-Fetch-Site": "cross-site", "Authorization": f"Bearer {secret}"}


async def test_a_page_that_was_let_in_may_do_what_its_token_may(gateway: Gateway) -> None:
    asks = {"Origin": APP, "Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization"}
    answer = await gateway.client.options("/tasks", headers=asks)
    assert answer.status_code == 200, "before it shows its token"
    assert answer.headers["access-control-allow-origin"] == APP
    assert "authorization" in answer.headers["access-control-allow-headers"].lower()
    assert "access-control-allow-credentials" not in answer.headers
    answer = await gateway.client.post("/tasks", files=form(), headers=from_page(APP))
    assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (201, APP)
    assert "x-request-id" in answer.headers["access-control-expose-headers"].lower()
    answer = await gateway.client.get("/tasks", headers=from_page(APP, "wrong"))
    assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (401, APP), "and may read why"


async def test_a_page_that_was_not_reads_and_changes_nothing(gateway: Gateway) -> None:
    asks = {"Origin": EVIL, "Access-Control-Request-Method": "POST"}
    answer = await gateway.client.options("/tasks", headers=asks)
    assert answer.status_code == 400
    assert "access-control-allow-origin" not in answer.headers
    assert (await gateway.client.post("/tasks", files=form(), headers=from_page(EVIL))).status_code == 403
    answer = await gateway.client.get("/tasks", headers=from_page(EVIL))
    assert "access-control-allow-origin" not in answer.headers
    assert answer.headers["cross-origin-resource-policy"] == "same-origin"


async def test_by_default_nobody_is_let_in(tmp_path: Path) -> None:
    async with open_gateway(tmp_path) as gateway:
        asks = {"Origin": APP, "Access-Control-Request-Method": "POST"}
        answer = await gateway.client.options("/tasks", headers=asks)
        assert answer.status_code == 405
        assert not [name for name in answer.headers if name.startswith("access-control")]


async def test_every_answer_names_its_request(gateway: Gateway) -> None:
    for path in ("/healthz", "/nowhere", "/tasks"):
        answer = await gateway.client.get(path, headers={"X-Request-ID": "mine"})
        assert answer.headers["x-request-id"] == "mine"
    assert answer.json()["request_id"] == "mine"
    refused = await gateway.client.get("/tasks", headers={"Host": "evil.example"})
    assert (refused.status_code, refused.json()["request_id"]) == (403, refused.headers["x-request-id"])


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 401),
        ({"authorization": "Bearer right"}, 101),
        ({"authorization": "Bearer right", "origin": EVIL}, 403),
        ({"authorization": "Bearer right", "origin": APP}, 101),
        ({"authorization": "Bearer right", "host": "evil.example"}, 403),
    ],
)
async def test_a_websocket_is_refused_before_it_is_one(headers: dict[str, str], status: int) -> None:
    callers: list[Caller] = []
    sent: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        callers.append(scope["state"]["caller"])
        await send({"type": "websocket.accept"})

    async def receive() -> Any:
        raise AssertionError("something was read")

    async def send(message: Any) -> None:
        sent.append(message)

    raw = [(name.encode(), value.encode()) for name, value in ({"host": "localhost"} | headers).items()]
    scope = {
        "type": "websocket", "path": "/ws", "headers": raw, "extensions": {"websocket.http.response": {}},
        "client": ("127.0.0.1", 1),
    }  # fmt: skip
    perimeter = Perimeter(PerimeterConfig(origins=frozenset({APP})), tokens=Known())
    await perimeter.around(app)(scope, receive, send)
    if status == 101:
        assert [caller.name for caller in callers] == ["a"]
        return
    assert callers == []
    start, body = sent
    assert (start["type"], start["status"]) == ("websocket.http.response.start", status)
    problem = json.loads(body["body"])
    assert problem["request_id"] == dict(start["headers"])[b"x-request-id"].decode()
