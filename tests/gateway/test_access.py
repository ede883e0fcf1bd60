"""What is told about a request: its id, one line, and what is counted."""

import logging
from typing import Any

import pytest

from ww.gateway.access import Access
from ww.gateway.caller import Caller
from ww.gateway.same_origin import App, Message, Receive, Scope, Send

pytestmark = pytest.mark.anyio


class Counted:
    def __init__(self) -> None:
        self.ended: list[tuple[str, str, int]] = []

    def request_ended(self, method: str, route: str, status: int, seconds: float) -> None:
        assert seconds >= 0
        self.ended.append((method, route, status))


def answering(status: int, body: bytes = b"12345", caller: str = "") -> App:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if caller:
            scope["state"]["caller"] = Caller(caller)
        await send({"type": "http.response.start", "status": status, "headers": [(b"a", b"b")]})
        await send({"type": "http.response.body", "body": body})

    return app


async def ask(
    app: App, method: str = "GET", path: str = "/tasks", counted: Counted | None = None, **headers: str
) -> tuple[dict[str, str], list[Message], Scope]:
    sent: list[Message] = []

    async def receive() -> Message:
        raise AssertionError("the body was read")

    async def send(message: Message) -> None:
        sent.append(message)

    raw = [(name.replace("_", "-").encode(), value.encode("latin-1")) for name, value in headers.items()]
    scope: Scope = {"type": "http", "method": method, "path": path, "headers": raw, "query_string": b"secret=1"}
    await Access(app, answering(500, b"failed"), counted or Counted())(scope, receive, send)
    return {name.decode(): value.decode() for name, value in sent[0]["headers"]}, sent, scope


async def test_an_id_is_made_or_taken() -> None:
    first, _, scope = await ask(answering(200))
    second, _, _ = await ask(answering(200))
    assert scope["state"]["request_id"] == first["x-request-id"] != second["x-request-id"]
    assert first["a"] == "b"
    given, _, _ = await ask(answering(200), x_request_id="Ab.c_1-2")
    assert given["x-request-id"] == "Ab.c_1-2"


@pytest.mark.parametrize("bad", ["", "a b", "a\tb", "x" * 129, "a/b", "a\xe9"])
async def test_an_id_that_is_none_is_not_taken(bad: str) -> None:
    headers, _, _ = await ask(answering(200), x_request_id=bad)
    assert headers["x-request-id"] != bad
    assert headers["x-request-id"].isalnum()


@pytest.mark.parametrize(("status", "level"), [(101, "DEBUG"), (403, "WARNING"), (429, "DEBUG")])
async def test_peers_that_come_and_go_have_lines_of_their_own(
    status: int, level: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "ww.gateway.http")
    begin: Message = {"type": "websocket.http.response.start", "status": status, "headers": []}

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "websocket.accept"} if status == 101 else begin)

    async def send(message: Message) -> None:
        pass

    scope: Scope = {"type": "websocket", "path": "/peer", "headers": []}
    await Access(app, answering(500), Counted())(scope, send, send)  # type: ignore[arg-type]
    assert [record.levelname for record in caplog.records] == [level]


@pytest.mark.parametrize(
    ("method", "status", "level"),
    [
        ("GET", 200, "DEBUG"), ("HEAD", 304, "DEBUG"), ("GET", 404, "DEBUG"), ("POST", 201, "INFO"),
        ("DELETE", 200, "INFO"), ("POST", 422, "INFO"), ("GET", 401, "WARNING"), ("POST", 403, "WARNING"),
        ("POST", 429, "WARNING"), ("GET", 503, "WARNING"), ("GET", 500, "WARNING"),
    ],
)  # fmt: skip
async def test_one_line_a_request(method: str, status: int, level: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "ww.gateway.http")
    counted = Counted()
    headers, _, _ = await ask(answering(status, caller="alice"), method, "/tasks/a\nb", counted)
    (record,) = caplog.records
    assert record.levelname == level
    said = vars(record)
    assert (said["method"], said["status"], said["bytes"], said["caller"]) == (method, status, 5, "alice")
    assert said["request_id"] == headers["x-request-id"]
    assert "secret" not in str(said)
    assert "for alice" in record.message
    assert counted.ended == [(method, "/tasks/{id}", status)]


async def test_what_fails_is_logged_and_answered(caplog: pytest.LogCaptureFixture) -> None:
    async def broken(scope: Scope, receive: Receive, send: Send) -> None:
        raise ValueError("inside")

    headers, sent, _ = await ask(broken)
    assert sent[0]["status"] == 500
    assert sent[1]["body"] == b"failed"
    (failure, line) = caplog.records
    assert failure.exc_info is not None
    assert vars(failure)["request_id"] == vars(line)["request_id"] == headers["x-request-id"]


async def test_refusals_cannot_fill_the_log(caplog: pytest.LogCaptureFixture) -> None:
    access = Access(answering(403), answering(500), Counted())

    async def nothing(*_: Any) -> Any:
        pass

    for _ in range(1000):
        await access({"type": "http", "method": "POST", "path": "/tasks", "headers": []}, nothing, nothing)
    assert 100 <= len(caplog.records) < 300


@pytest.mark.parametrize(
    ("first", "status"),
    [
        ({"type": "websocket.accept"}, 101),
        ({"type": "websocket.close", "code": 1008}, 403),
        ({"type": "websocket.http.response.start", "status": 401, "headers": []}, 401),
    ],
)
async def test_a_websocket_is_told_of_once(first: Message, status: int) -> None:
    sent: list[Message] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(dict(first))
        await send({"type": "websocket.close", "code": 1000})

    async def send(message: Message) -> None:
        sent.append(message)

    counted = Counted()
    await Access(app, answering(500), counted)({"type": "websocket", "path": "/ws", "headers": []}, send, send)  # type: ignore[arg-type]
    assert counted.ended == [("WS", "/ws", status)]
    assert (b"x-request-id" in dict(sent[0].get("headers", []))) == (status != 403)
