"""The client over HTTP: addresses, the token and what is said when nothing answers."""

import json
import socket
import threading
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from ww.client import Client, Retry
from ww.errors import NotAllowed, PeerError, UsageError

TASK = {"id": "t", "status": "queued"}
ONCE = Retry(retries=0)
SECRET = "wwt-a.secret_token"


def client(
    answer: Callable[[httpx.Request], httpx.Response], url: str = "http://127.0.0.1:8080", **settings: object
) -> Client:
    return Client(url, transport=httpx.MockTransport(answer), retry=Retry(retries=2, first_s=0), **settings)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "url",
    ["", "127.0.0.1:8080", "ftp://x", "http://", "http://x:99999", "http://x/?q", "http://x/#f", "http://x\n", "http://[::1"],
)  # fmt: skip
def test_what_is_no_address(url: str) -> None:
    with pytest.raises(UsageError, match="expected http://HOST:PORT") as refused:
        Client(url)
    assert "\n" not in str(refused.value)


def test_a_password_in_the_address_is_refused_and_not_repeated() -> None:
    with pytest.raises(UsageError) as refused:
        Client("https://me:hunter2@example.org")
    assert "hunter2" not in str(refused.value)


def test_the_token_is_sent_and_never_shown() -> None:
    seen: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request.headers["authorization"])
        return httpx.Response(401, json={"detail": "no such token", "code": "unauthorized"})

    with client(answer, token=SECRET) as it:
        with pytest.raises(NotAllowed, match=r"^no such token$"):
            it.workers()
        assert SECRET not in f"{it!r}{it._wire!r}{it._wire._settings!r}"
    assert seen == [f"Bearer {SECRET}"]


@pytest.mark.parametrize("token", ["", "a b", "a\r\nX-Evil: 1", "tökén"])
def test_what_is_no_token_is_not_repeated(token: str) -> None:
    with pytest.raises(UsageError) as refused:
        Client(token=token)
    assert str(refused.value) == "that is no token: expected letters, digits and signs in one word"


@pytest.mark.parametrize(
    ("url", "is_taken"),
    [
        ("http://localhost:8080", True),
        ("http://127.9.9.9", True),
        ("http://[::1]:8080", True),
        ("https://example.org", True),
        ("http://example.org", False),
        ("http://192.168.1.1:8080", False),
        ("http://127.0.0.1.example.org", False),
    ],
)
def test_a_token_goes_in_the_open_to_this_machine_only(url: str, is_taken: bool) -> None:
    if is_taken:
        Client(url, token=SECRET).close()
        return
    with pytest.raises(UsageError, match="plain HTTP") as refused:
        Client(url, token=SECRET)
    assert SECRET not in str(refused.value)
    Client(url, token=SECRET, insecure=True).close()
    Client(url).close()


def test_redirects_are_told_and_not_followed() -> None:
    seen: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request.url.host)
        return httpx.Response(307, headers={"Location": "http://elsewhere.example/tasks"})

    with client(answer, token=SECRET) as it, pytest.raises(PeerError, match="leads on to http://elsewhere"):
        it.task("t")
    assert seen == ["127.0.0.1"]


def test_a_path_before_all_others() -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        assert request.url.path == "/ww/tasks/a:b"
        return httpx.Response(200, json=TASK)

    with client(answer, "https://example.org/ww/") as it:
        assert it.task("a:b").id == "t"


def test_the_form_is_the_same_at_each_try() -> None:
    bodies: list[bytes] = []

    def answer(request: httpx.Request) -> httpx.Response:
        boundary = request.headers["content-type"].partition("boundary=")[2].encode()
        bodies.append(request.read().replace(boundary, b"-"))
        if len(bodies) < 3:
            raise httpx.ReadError("lost")
        return httpx.Response(200, json=TASK)

    with client(answer) as it:
        it.submit(b"\0asm", input=1, args=["a", "b"], stdin=b"\xff")
    assert bodies[0] == bodies[1] == bodies[2]
    assert bodies[0].count(b'name="args"') == 2
    assert b'name="stdin"; filename="stdin"' in bodies[0]


def test_an_answer_is_bounded() -> None:
    said = httpx.Response(200, json=TASK)
    with client(lambda _: said, answer_bytes_max=10) as it, pytest.raises(PeerError, match="more than 10 bytes"):
        it.task("t")


@pytest.mark.parametrize("body", [b"<html>hello</html>", b"", b"7", b"\xff"])
def test_what_is_no_gateway(body: bytes) -> None:
    with client(lambda _: httpx.Response(200, content=body)) as it, pytest.raises(PeerError, match="no gateway's"):
        it.task("t")


def test_proxies_are_for_other_machines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("NO_PROXY", "")
    with (
        Client("http://127.0.0.1:2", retry=ONCE) as it,
        pytest.raises(PeerError, match=r"127.0.0.1:2: connection refused"),
    ):
        it.health()


def closing_server(talk: Callable[[socket.socket], None]) -> tuple[str, threading.Thread]:
    """Serve one connection with talk; return the address."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        with listener, listener.accept()[0] as connection:
            talk(connection)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    return f"127.0.0.1:{listener.getsockname()[1]}", thread


@pytest.mark.parametrize("said", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{", b"SSH-2.0-OpenSSH\r\n"])
def test_a_connection_that_breaks_is_one_line(said: bytes) -> None:
    def talk(connection: socket.socket) -> None:
        connection.recv(9999)
        connection.sendall(said)

    address, thread = closing_server(talk)
    with (
        Client(f"http://{address}", retry=ONCE) as it,
        pytest.raises(PeerError, match=rf"^no gateway at http://{address}: "),
    ):
        it.task("t")
    thread.join(10)


def test_tls_that_is_none_and_one_that_nobody_knows(tmp_path: Path) -> None:
    address, thread = closing_server(lambda connection: connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n"))
    with Client(f"https://{address}", retry=ONCE) as it, pytest.raises(PeerError, match="cannot be trusted"):
        it.health()
    thread.join(10)
    (tmp_path / "ca.pem").write_text("nothing\n")
    for wrong in (tmp_path / "ca.pem", tmp_path / "none.pem"):
        with pytest.raises(UsageError, match=wrong.name):
            Client("https://127.0.0.1", verify=wrong)


RUN = {"run": 0, "state": "succeeded", "result": "4"}


def test_one_run_is_one_request() -> None:
    asked: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(f"{request.method} {request.url.path}?{request.url.query.decode()}")
        return httpx.Response(201, json={"id": "t", "status": "succeeded", "repeats": 1, "results": [RUN]})

    with client(answer) as it:
        assert [result.result for result in it.run(b"\0asm", id="t")] == ["4"]
    assert asked == ["POST /tasks?wait=30"]


@pytest.mark.parametrize(
    ("repeats", "said", "posted"),
    [
        (1, {"status": "running", "results": []}, "POST /tasks?wait=30"),
        (1, {"status": "succeeded", "results": []}, "POST /tasks?wait=30"),  # too large to be shown
        (2, {"status": "running", "results": [RUN]}, "POST /tasks?"),
    ],
)
def test_what_the_answer_does_not_hold_is_streamed(repeats: int, said: dict[str, object], posted: str) -> None:
    asked: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(f"{request.method} {request.url.path}?{request.url.query.decode()}")
        task = {"id": "t", "repeats": repeats} | said
        if request.method == "POST":
            return httpx.Response(201, json=task)
        if request.url.path == "/tasks/t":
            return httpx.Response(200, json=task | {"status": "succeeded"})
        lines = [RUN | {"run": run, "position": run + 1} for run in range(repeats)]
        return httpx.Response(200, headers={"content-type": "application/x-ndjson"}, text="".join(map(_line, lines)))

    with client(answer) as it:
        assert [result.run for result in it.run(b"\0asm", id="t", repeats=repeats)] == list(range(repeats))
    assert asked == [posted, "GET /tasks/t/results?order=completion&follow=true", "GET /tasks/t?"]


def _line(said: object) -> str:
    return json.dumps(said) + "\n"
