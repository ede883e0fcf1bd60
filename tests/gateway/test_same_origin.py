"""Who may ask the gateway for what, by the headers that a browser cannot be made to forge."""

from typing import Any

import pytest

from ww.gateway.same_origin import App, Message, Receive, SameOrigin, Scope, Send

pytestmark = pytest.mark.anyio

HERE = "127.0.0.1:8080"
OWN = f"http://{HERE}"


def answering(status: int, text: str) -> App:
    """Make an application that gives one answer."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": status, "headers": [(b"content-type", b"text/plain")]})
        await send({"type": "http.response.body", "body": text.encode()})

    return app


async def ask(method: str, **headers: str) -> tuple[int, str, dict[str, str]]:
    """Send one request through the middleware. Returns status, body (the reason of a refusal) and headers."""
    sent: list[Message] = []

    async def receive() -> Message:
        raise AssertionError("the body was read")

    async def send(message: Message) -> None:
        sent.append(message)

    raw = [(name.replace("_", "-").encode(), value.encode("latin-1")) for name, value in headers.items()]
    guarded = SameOrigin(answering(200, "in"), lambda reason: answering(403, reason))
    await guarded({"type": "http", "method": method, "path": "/tasks", "headers": raw}, receive, send)
    start, body = sent
    return start["status"], body["body"].decode(), {name.decode(): value.decode() for name, value in start["headers"]}


async def is_let_in(method: str, **headers: str) -> bool:
    status, text, _ = await ask(method, **headers)
    assert (status, text) == (200, "in") or status == 403
    return status == 200


OWN_HOSTS = ["localhost", "localhost:8080", "LocalHost:8080", "127.0.0.1", HERE, "127.1.2.3:80", "[::1]", "[::1]:8080"]
FOREIGN_HOSTS = [
    "", "evil.example", "evil.example:8080", "localhost.evil.example", "127.0.0.1.evil.example", "xlocalhost",
    "localhost,evil.example", "0.0.0.0:8080", "[::]:8080", "192.168.1.7:8080", "[fe80::1]:8080", "[::1", "::1", "127.1",
    "2130706433", ":8080", "lo\u00e7alhost",
]  # fmt: skip


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "DELETE"])
@pytest.mark.parametrize("host", OWN_HOSTS)
async def test_a_request_that_names_loopback_gets_in(method: str, host: str) -> None:
    assert await is_let_in(method, host=host)


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS", "POST", "DELETE"])
@pytest.mark.parametrize("host", FOREIGN_HOSTS)
async def test_a_name_that_only_resolves_to_loopback_gets_nothing(method: str, host: str) -> None:
    assert not await is_let_in(method, host=host)


async def test_a_request_without_a_host_gets_nothing() -> None:
    assert not await is_let_in("GET")


SAME = [
    {},
    {"origin": OWN},
    {"origin": f"https://{HERE}"},
    {"sec_fetch_site": "none"},
    {"sec_fetch_site": "same-origin"},
    {"origin": OWN, "sec_fetch_site": "same-origin"},
]
OTHER = [
    {"origin": "https://evil.example"},
    {"origin": "null"},
    {"origin": ""},
    {"origin": "http://127.0.0.1"},
    {"origin": "http://127.0.0.1:3000"},
    {"origin": "http://localhost:8080"},
    {"origin": f"http://{HERE}.evil.example"},
    {"origin": f"http://evil.example?{OWN}"},
    {"origin": f"ftp://{HERE}"},
    {"origin": HERE},
    {"sec_fetch_site": "cross-site"},
    {"sec_fetch_site": "same-site"},
    {"sec_fetch_site": ""},
    {"sec_fetch_site": "something new"},
    {"origin": OWN, "sec_fetch_site": "cross-site"},
    {"origin": "null", "sec_fetch_site": "same-origin"},
]


@pytest.mark.parametrize("method", ["POST", "DELETE", "PUT", "PATCH", "NEW"])
@pytest.mark.parametrize("headers", SAME)
async def test_this_hosts_own_pages_and_programs_may_change_things(method: str, headers: dict[str, str]) -> None:
    assert await is_let_in(method, host=HERE, **headers)


@pytest.mark.parametrize("method", ["POST", "DELETE", "PUT", "PATCH", "NEW"])
@pytest.mark.parametrize("headers", OTHER)
async def test_other_pages_may_not(method: str, headers: dict[str, str]) -> None:
    assert not await is_let_in(method, host=HERE, **headers)


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("headers", OTHER)
async def test_a_link_from_another_page_may_be_followed(method: str, headers: dict[str, str]) -> None:
    assert await is_let_in(method, host=HERE, **headers)


@pytest.mark.parametrize(
    ("headers", "named"),
    [
        ({"host": "evil.example"}, "Host 'evil.example'"),
        ({"host": HERE, "origin": "https://evil.example"}, "Origin 'https://evil.example'"),
        ({"host": HERE, "sec_fetch_site": "cross-site"}, "Sec-Fetch-Site is 'cross-site'"),
    ],
)
async def test_a_refusal_is_one_line_that_says_why(headers: dict[str, str], named: str) -> None:
    _, reason, _ = await ask("POST", **headers)
    assert named in reason
    assert reason.isprintable()


@pytest.mark.parametrize("name", ["host", "origin", "sec_fetch_site"])
async def test_a_refusal_repeats_little_of_what_was_sent(name: str) -> None:
    _, reason, _ = await ask("POST", **({"host": HERE} | {name: "x" * 10_000 + "\n"}))
    assert len(reason) < 250
    assert "\n" not in reason


@pytest.mark.parametrize("host", [HERE, "evil.example"])
async def test_every_answer_keeps_other_pages_from_reading_it(host: str) -> None:
    _, _, headers = await ask("GET", host=host)
    assert headers["content-type"] == "text/plain"
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["cross-origin-resource-policy"] == "same-origin"
    assert "access-control-allow-origin" not in headers


async def test_nothing_but_http_is_served() -> None:
    async def nothing(*_: Any) -> Any:
        raise AssertionError("something was answered")

    with pytest.raises(AssertionError, match="only HTTP"):
        await SameOrigin(nothing, lambda _: nothing)({"type": "lifespan"}, nothing, nothing)


# Streams, WebSockets, names and origins that the operator gave.


async def asked(
    kind: str = "http",
    method: str = "GET",
    path: str = "/tasks",
    settings: dict[str, Any] | None = None,
    **headers: str,
) -> int:
    """Return the status of what is asked through a middleware with settings."""
    statuses: list[int] = []

    def app(status: int) -> App:
        async def answer(scope: Scope, receive: Receive, send: Send) -> None:
            statuses.append(status)

        return answer

    async def nothing(*_: Any) -> Any:
        raise AssertionError("something was read or sent")

    raw = [(name.replace("_", "-").encode(), value.encode("latin-1")) for name, value in headers.items()]
    scope = {"type": kind, "path": path, "headers": raw} | ({"method": method} if kind == "http" else {})
    await SameOrigin(app(200), lambda _: app(403), **settings or {})(scope, nothing, nothing)
    (status,) = statuses
    return status


@pytest.mark.parametrize("headers", OTHER)
async def test_other_pages_open_neither_streams_nor_websockets(headers: dict[str, str]) -> None:
    for path in ("/tasks/t/events", "/tasks/t/grid", "/events"):
        assert await asked(path=path, host=HERE, **headers) == 403
    assert await asked("websocket", path="/ws", host=HERE, **headers) == 403


@pytest.mark.parametrize("headers", SAME)
async def test_own_pages_and_programs_open_both(headers: dict[str, str]) -> None:
    for path in ("/tasks/t/events", "/tasks/t/grid", "/events"):
        assert await asked(path=path, host=HERE, **headers) == 200
    assert await asked("websocket", path="/ws", host=HERE, **headers) == 200


async def test_a_websocket_names_this_gateway_too() -> None:
    assert await asked("websocket", path="/ws", host="evil.example") == 403
    assert await asked("websocket", path="/ws") == 403


NAMED = {"names": frozenset({"ww.example.org"}), "origins": frozenset({"https://app.example.org"})}


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("ww.example.org", 200), ("WW.example.org:8443", 200), ("localhost", 200), (HERE, 200), ("192.0.2.7", 403),
        ("xww.example.org", 403), ("ww.example.org.evil.example", 403), ("app.example.org", 403),
    ],
)  # fmt: skip
async def test_the_operator_gives_names(host: str, status: int) -> None:
    assert await asked(settings=NAMED, host=host) == status
    assert await asked("websocket", settings=NAMED, host=host) == status


@pytest.mark.parametrize(("host", "status"), [("192.0.2.7:80", 200), ("[2001:db8::1]:80", 200), ("a.example", 403)])
async def test_beyond_loopback_every_address_may_be_this_gateways(host: str, status: int) -> None:
    assert await asked(settings={"any_address": True}, host=host) == status


@pytest.mark.parametrize(
    ("origin", "status"),
    [("https://app.example.org", 200), ("http://app.example.org", 403), ("https://app.example.org:444", 403)],
)
async def test_pages_of_an_origin_that_was_let_in(origin: str, status: int) -> None:
    headers = {"host": "ww.example.org", "origin": origin, "sec_fetch_site": "same-site"}
    assert await asked(method="POST", settings=NAMED, **headers) == status
    assert await asked("websocket", settings=NAMED, **headers) == status
    assert await asked(path="/tasks/t/events", settings=NAMED, **headers) == status


async def test_hosts_are_remembered_within_bounds() -> None:
    async def app(*_: Any) -> None:
        pass

    guarded = SameOrigin(app, lambda _: app)
    for number in range(1000):
        await guarded({"type": "websocket", "path": "/", "headers": [(b"host", b"h%d" % number)]}, app, app)
    assert len(guarded._hosts) <= 256
