"""Clients that take nothing, or send what only costs: they cost little, are dropped, and do not fill the log."""

import base64
import contextlib
import json
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.leftovers import clean_cluster_in
from tests.e2e.processes import BOUND_S, Gateway, wait_until
from tests.e2e.test_leaks import descriptors, resident_bytes
from tests.guests import guest

PING = b"\x89\xfd" + bytes(4) + b"x" * 125
MIB = 1 << 20


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[Gateway]:
    with clean_cluster_in(tmp_path) as cluster:
        yield cluster.gateway("--stream-timeout", "2", "--log", "info")


def connect(gateway: Gateway) -> socket.socket:
    """Connect, and have the kernel take little that is not read."""
    host, _, port = gateway.http.rpartition(":")
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    sock.settimeout(BOUND_S)
    sock.connect((host, int(port)))
    return sock


def handshake(path: str = "/ws", **headers: str) -> bytes:
    given = {
        "Host": "localhost",
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": base64.b64encode(bytes(16)).decode(),
    } | {name.replace("_", "-"): value for name, value in headers.items()}
    lines = [f"GET {path} HTTP/1.1", *(f"{name}: {value}" for name, value in given.items() if value), "", ""]
    return "\r\n".join(lines).encode()


def send_for(sock: socket.socket, data: bytes, seconds: float) -> None:
    """Send over and over, until the other end takes no more or hangs up."""
    sock.settimeout(0.5)
    end = time.monotonic() + seconds
    with contextlib.suppress(OSError):
        while time.monotonic() < end:
            sock.sendall(data)


def test_who_takes_nothing_of_an_answer_is_dropped(gateway: Gateway) -> None:
    # Larger than what the kernel takes in for a client.
    data = guest("noop") + b"\x00\x85\x80\x80\x04\x01x" + bytes(8 * MIB + 3)
    answer = gateway.client.post("/modules", content=data, headers={"Content-Type": "application/wasm"})
    assert answer.status_code == 201, answer.text
    before = descriptors(gateway)
    for connection in ("keep-alive", "close"):
        request = f"GET {answer.headers['Location']} HTTP/1.1\r\nHost: localhost\r\nConnection: {connection}\r\n\r\n"
        with connect(gateway) as sock:
            sock.sendall(request.encode())
            wait_until(lambda: descriptors(gateway) > before + 1, "it is being answered")
            wait_until(lambda: descriptors(gateway) <= before, "it was dropped")
    # Whoever takes some now and then is not.
    with connect(gateway) as sock:
        sock.sendall(request.encode())
        end, taken = time.monotonic() + 4, 0
        while time.monotonic() < end:
            taken += len(sock.recv(65536))
            time.sleep(0.1)
        while some := sock.recv(MIB):
            taken += len(some)
    assert taken > len(data)


def test_pings_to_which_nobody_takes_the_answers_do_not_pile_up(gateway: Gateway) -> None:
    with connect(gateway) as sock:
        sock.sendall(handshake())
        assert b" 101 " in sock.recv(4096)
        send_for(sock, PING * 500, 1)
        before = resident_bytes(gateway)
        send_for(sock, PING * 500, 2)
        assert resident_bytes(gateway) - before < 16 * MIB


@pytest.mark.parametrize(
    ("path", "headers", "status"),
    [
        ("/ws", {"Sec_WebSocket_Key": ""}, 426),
        ("/ws", {"Sec_WebSocket_Key": "short"}, 426),
        ("/ws", {"Sec_WebSocket_Version": "12"}, 426),
        ("/ws", {"Upgrade": "h2c"}, 426),
        ("/ws", {"Upgrade": "", "Connection": ""}, 426),
        ("/nowhere", {}, 404),
        ("/tasks", {}, 404),
        ("/ws", {"Origin": "http://evil.example"}, 403),
    ],
)
def test_what_is_no_handshake_is_answered_by_a_problem(
    gateway: Gateway, path: str, headers: dict[str, str], status: int
) -> None:
    with connect(gateway) as sock:
        sock.sendall(handshake(path, **headers))
        said = b""
        while not said.endswith(b"}\n"):
            said += (data := sock.recv(65536))
            assert data, said
    head, _, body = said.partition(b"\r\n\r\n")
    assert int(head.split()[1]) == status, said
    assert b"application/problem+json" in head
    assert json.loads(body)["request_id"].encode() in head


def test_what_strangers_send_fills_no_log(gateway: Gateway) -> None:
    for said in (
        b"GARBAGE\r\n\r\n",
        handshake(Upgrade="h2c"),
        handshake(Origin="http://evil"),
        handshake() + b"\x81\x82\0\0\0\0\xff\xfe",
    ):
        for _ in range(150):
            with connect(gateway) as sock:
                sock.sendall(said)
                sock.recv(100)
    assert gateway.client.get("/healthz").json()["status"] == "ok"
    lines = list(gateway.lines)
    assert "Traceback" not in gateway.log
    # Refusals have a limit of their own; what is left are the WebSockets that were.
    assert len([line for line in lines if "WS /ws 101" not in line]) < 200, lines[-5:]
