"""Who is let in by its token, to what, and how long somebody may guess."""

import logging
from typing import Any

import pytest

from ww.gateway.authority import Authority
from ww.gateway.caller import EVERYBODY, Caller, Scope
from ww.gateway.endpoints import ENDPOINTS, scope_of, template_of
from ww.gateway.pages import PATHS
from ww.gateway.same_origin import App, Message, Receive, Send
from ww.gateway.same_origin import Scope as AsgiScope

pytestmark = pytest.mark.anyio

CALLERS = {
    b"reader": Caller("reader", frozenset({Scope.READ})),
    b"submitter": Caller("submitter", frozenset({Scope.SUBMIT})),
    b"both": Caller("both", frozenset({Scope.READ, Scope.SUBMIT})),
    b"admin": Caller("admin", frozenset({Scope.ADMIN})),
}


class Known:
    def caller(self, secret: bytes) -> tuple[Caller | None, str]:
        return (None, "old") if secret == b"expired" else (CALLERS.get(secret), "")


class Door:
    """An Authority, and what came through it."""

    def __init__(self, known: Known | None = None, *, behind_proxy: bool = False) -> None:
        self.now = 0.0
        self.let_in: list[AsgiScope] = []
        self.refused: list[tuple[int, str]] = []
        self._guarded = Authority(self._app, known, self._refuse, lambda: self.now, behind_proxy=behind_proxy)

    async def _app(self, scope: AsgiScope, receive: Receive, send: Send) -> None:
        self.let_in.append(scope)

    def _refuse(self, status: int, reason: str) -> App:
        async def app(scope: AsgiScope, receive: Receive, send: Send) -> None:
            self.refused.append((status, reason))

        return app

    async def ask(
        self, secret: str | None = None, method: str = "GET", path: str = "/tasks", address: str = "192.0.2.1",
        kind: str = "http", **headers: str,
    ) -> int:  # fmt: skip
        """Return the status of a refusal, or 200."""

        async def nothing(*_: Any) -> Message:
            raise AssertionError("it was read or answered")

        raw = [(name.replace("_", "-").encode(), value.encode("latin-1")) for name, value in headers.items()]
        if secret is not None:
            raw.append((b"authorization", b"Bearer " + secret.encode("latin-1")))
        scope: AsgiScope = {"type": kind, "path": path, "headers": raw, "client": (address, 1)}
        if kind == "http":
            scope["method"] = method
        before = len(self.refused)
        await self._guarded(scope, nothing, nothing)
        return self.refused[-1][0] if len(self.refused) > before else 200


async def test_without_tokens_everybody_is_let_in() -> None:
    door = Door()
    assert await door.ask(method="DELETE", path="/modules/x") == 200
    assert door.let_in[0]["state"]["caller"] is EVERYBODY


@pytest.mark.parametrize("endpoint", ENDPOINTS, ids=lambda e: f"{e.method} {e.template}")
async def test_each_endpoint_takes_its_own_right(endpoint: Any) -> None:
    kind = "websocket" if endpoint.template == "/ws" else "http"
    path = endpoint.template.replace("{id}", "t").replace("{run}", "0").replace("{digest}", "d")
    assert template_of(path) == endpoint.template
    for secret, caller in CALLERS.items():
        door = Door(Known())
        may = endpoint.scope is None or caller.may(endpoint.scope)
        assert await door.ask(secret.decode(), endpoint.method, path, kind=kind) == (200 if may else 403)
        if may and endpoint.scope is not None:
            assert door.let_in[0]["state"]["caller"] is caller
    for secret in (None, "wrong", "expired"):
        assert await Door(Known()).ask(secret, endpoint.method, path, kind=kind) == (401 if endpoint.scope else 200)


def test_the_rights_are_those_that_are_documented() -> None:
    rights = {(e.method, e.template): e.scope for e in ENDPOINTS}
    assert rights["DELETE", "/modules/{digest}"] is Scope.ADMIN
    for place in (("POST", "/tasks"), ("DELETE", "/tasks/{id}"), ("POST", "/modules")):
        assert rights.pop(place) is Scope.SUBMIT
    assert {place[1] for place, scope in rights.items() if scope is None} == {"/healthz", "/readyz", "/peer", *PATHS}
    assert scope_of("HEAD", "/modules/{digest}") is Scope.READ


@pytest.mark.parametrize(
    "path",
    [
        "//",
        "/assets/",
        "/assets/a/b",
        "/task",
        "/tasks/",
        "/tasks/t/",
        "/tasks/t/runs/0/artifacts/x",
        "/modules//",
        "//tasks",
    ],
)
async def test_where_nothing_is_strangers_learn_nothing(path: str) -> None:
    assert template_of(path) == ""
    assert await Door(Known()).ask(None, path=path) == 401
    assert await Door(Known()).ask("reader", path=path) == 200


@pytest.mark.parametrize(
    "value", ["", "Bearer", "Bearer ", "Basic both", "both", "Bearer both both", "Bearer " + "x" * 600, "Bearer\tboth"]
)
async def test_a_header_that_holds_no_token(value: str) -> None:
    assert await Door(Known()).ask(authorization=value) == 401


async def test_one_header_only() -> None:
    door = Door(Known())
    assert await door.ask("both", authorization="Bearer both") == 401
    assert await door.ask(authorization="bearer  both ") == 200


async def test_wrong_tokens_are_logged_without_them_and_are_not_looked_at_for_ever(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "ww.gateway")
    door = Door(Known())
    assert await door.ask("both") == 200
    statuses = [await door.ask(f"guess{i}") for i in range(30)]
    assert statuses == [401] * 10 + [429] * 20
    assert await door.ask("reader") == 429, "a first try from there waits too"
    assert await door.ask("both") == 200, "who was right before is not locked out"
    assert await door.ask("reader", address="192.0.2.2") == 200
    assert len(caplog.records) == 10
    assert "192.0.2.1" in caplog.text
    assert "guess" not in caplog.text
    door.now += 6.5
    assert [await door.ask("guess"), await door.ask("guess")] == [401, 429]
    door.now += 6.5
    assert await door.ask("reader") == 200


async def test_an_expired_token_is_named_to_its_holder() -> None:
    door = Door(Known())
    assert await door.ask("expired") == 401
    assert "'old' has expired" in door.refused[0][1]


async def test_an_ipv6_host_has_one_network_to_guess_from() -> None:
    door = Door(Known())
    statuses = [await door.ask("guess", address=f"2001:db8::{i:x}") for i in range(12)]
    assert statuses == [401] * 10 + [429] * 2
    assert await door.ask("guess", address="2001:db8:0:1::1") == 401


@pytest.mark.parametrize("behind_proxy", [False, True])
async def test_only_a_proxy_says_where_a_request_comes_from(behind_proxy: bool) -> None:
    door = Door(Known(), behind_proxy=behind_proxy)
    for i in range(11):
        status = await door.ask("guess", x_forwarded_for=f"10.9.9.9, 198.51.100.{i}")
    assert status == (401 if behind_proxy else 429)


async def test_the_table_of_addresses_is_bounded() -> None:
    door = Door(Known())
    for i in range(5000):
        await door.ask("both", address=f"10.0.{i >> 8}.{i & 255}")
    assert len(door._guarded._addresses) <= 4096


async def test_addresses_of_version_4_are_told_apart_on_a_socket_of_both_versions() -> None:
    door = Door(Known())
    for _ in range(20):
        await door.ask("wrong", address="::ffff:192.0.2.1")
    assert await door.ask("both", address="::ffff:192.0.2.1") == 429
    assert await door.ask("both", address="::ffff:192.0.2.2") == 200
