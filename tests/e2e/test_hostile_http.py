"""Strangers at the HTTP port: answered in HTTP or dropped, nothing stored of what was cut off, no traceback."""

import contextlib
import json
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.leftovers import CleanCluster, clean_cluster_in
from tests.e2e.processes import BOUND_S, Gateway, wait_until
from tests.guests import guest


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[Gateway]:
    with clean_cluster_in(tmp_path) as cluster:
        yield from serving(cluster)


def serving(cluster: CleanCluster) -> Iterator[Gateway]:
    gateway = cluster.gateway("--upload-timeout", "1", "--connections", "8")
    cluster.worker(gateway)
    yield gateway
    gateway.post(guest("noop"), id="after", input=4)
    assert gateway.ended("after")["results"][0]["result"] == "4"
    assert "Traceback" not in gateway.log


def connect(gateway: Gateway) -> socket.socket:
    host, _, port = gateway.http.rpartition(":")
    sock = socket.create_connection((host, int(port)), BOUND_S)
    sock.settimeout(BOUND_S)
    return sock


def all_of(sock: socket.socket) -> bytes:
    """Read until the other end hangs up."""
    said = b""
    with contextlib.suppress(ConnectionError):
        while data := sock.recv(65536):
            said += data
    return said


def test_what_is_no_http_is_refused_and_hung_up_on(gateway: Gateway) -> None:
    for said in (
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(200) + b"\r\n\r\n",
        b"GARBAGE\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET /tasks HTTP/1.1\r\nHost: localhost\r\nContent-Length: -5\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 40_000 + b"\r\n",
        b"GET /" + b"a" * 200_000 + b" HTTP/1.1\r\n\r\n",
    ):
        with connect(gateway) as sock:
            with contextlib.suppress(OSError):
                sock.sendall(said)
                sock.shutdown(socket.SHUT_WR)
            answer = all_of(sock)
        assert answer.startswith(b"HTTP/1.1 4") or not answer, said[:60]
        assert b"Traceback" not in answer
        assert b"site-packages" not in answer


def test_a_body_that_is_no_http_leaves_no_traceback(tmp_path: Path) -> None:
    with clean_cluster_in(tmp_path) as cluster:
        gateway = cluster.gateway()
        with connect(gateway) as sock:
            sock.sendall(b"POST /tasks HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n")
            assert sock.recv(4096).startswith(b"HTTP/1.1 400 ")
        assert gateway.client.get("/tasks").json() == []
        gateway.send(signal.SIGTERM)
        assert gateway.wait() == 0
        assert "Traceback" not in gateway.log


def test_uploads_that_are_cut_off_store_nothing(gateway: Gateway) -> None:
    head = (
        b"POST /tasks HTTP/1.1\r\nHost: localhost\r\nContent-Type: multipart/form-data; boundary=x\r\n"
        b"Content-Length: 100000\r\n\r\n"
    )
    body = (
        b'--x\r\nContent-Disposition: form-data; name="id"\r\n\r\ncut\r\n'
        b'--x\r\nContent-Disposition: form-data; name="wasm"; filename="a"\r\n\r\n' + guest("noop")
    )
    for part in (head, head + body[:10], head + body[:90], head + body):
        with connect(gateway) as sock:
            sock.sendall(part)
    with connect(gateway) as sock:  # and one that just stops sending
        sock.sendall(head + body)
        assert sock.recv(4096).startswith(b"HTTP/1.1 408 ")
    assert gateway.client.get("/tasks").json() == []


def test_a_crowd_that_holds_every_connection_does_not_stop_the_runs(gateway: Gateway) -> None:
    gateway.post(guest("spin"), id="a", input=100, repeats=4)
    with contextlib.ExitStack() as stack:
        for _ in range(12):
            stack.enter_context(connect(gateway))
        with connect(gateway) as sock:
            sock.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            assert all_of(sock).startswith(b"HTTP/1.1 503 ")
    wait_until(lambda: gateway.client.get("/healthz").status_code == 200, "there is room again")
    assert gateway.ended("a")["completions"] == 4


def test_one_connection_more_than_the_limit_is_told_when_to_come_back(gateway: Gateway) -> None:
    ask = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
    with contextlib.ExitStack() as stack:
        for _ in range(8):
            sock = stack.enter_context(connect(gateway))
            sock.sendall(ask)
            assert sock.recv(65536).startswith(b"HTTP/1.1 200 "), "up to the limit each is served"
        with connect(gateway) as beyond:
            beyond.sendall(ask)
            head, _, body = all_of(beyond).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 503 ")
    fields = dict(line.lower().split(": ") for line in head.decode().split("\r\n")[1:])
    assert fields["content-type"] == "application/problem+json"
    assert int(fields["retry-after"]) > 0
    problem = json.loads(body)
    assert problem.pop("request_id") == fields["x-request-id"]
    assert problem == {
        "type": "about:blank", "title": "Service Unavailable", "status": 503,
        "detail": "8 connections are open, the limit", "code": "overloaded",
    }  # fmt: skip


def test_who_asks_for_nothing_is_hung_up_on(gateway: Gateway) -> None:
    with connect(gateway) as silent, connect(gateway) as slow:
        slow.sendall(b"GET /tasks HT")
        for sock in (silent, slow):
            sock.settimeout(7)
            all_of(sock)
