"""Strangers at a gateway's ports: each is dropped in bounded time, told of in one line, and the gateway serves on."""

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID

from tests.e2e.processes import BOUND_S, Cluster, Gateway, wait_until
from tests.guests import guest
from ww.identity import Identity
from ww.net.multiaddr import Multiaddr
from ww.net.tls import TlsTransport


@pytest.fixture
def gateway(cluster: Cluster) -> Iterator[Gateway]:
    gateway = cluster.gateway()
    cluster.worker(gateway)
    yield gateway
    # Whatever the test did, it serves on, and nobody had to read a traceback.
    gateway.post(guest("noop"), id="after", input=4)
    assert gateway.ended("after")["results"][0]["result"] == "4"
    assert "Traceback" not in gateway.log


def refusals(gateway: Gateway) -> list[str]:
    return [line for line in gateway.lines if " refused " in line]


def connect(gateway: Gateway) -> socket.socket:
    sock = socket.create_connection(("127.0.0.1", gateway.peer_port), BOUND_S)
    sock.settimeout(BOUND_S)
    return sock


def is_dropped(sock: socket.socket) -> bool:
    """Wait for the other end to hang up."""
    try:
        while sock.recv(4096):
            pass
    except (ConnectionError, ssl.SSLError):
        pass
    return True


@pytest.mark.parametrize(
    "said",
    [b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", bytes(range(256)) * 40, b""],
    ids=["http", "garbage", "nothing"],
)
def test_a_plain_tcp_client(gateway: Gateway, said: bytes) -> None:
    with connect(gateway) as sock:
        sock.sendall(said)
        assert is_dropped(sock)
    wait_until(lambda: refusals(gateway), "a line about it")
    assert len(refusals(gateway)) == 1


def test_a_tls_client_with_a_key_of_another_kind(gateway: Gateway, tmp_path: Path) -> None:
    key = rsa.generate_private_key(65537, 2048)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "stranger")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
        .serial_number(1).not_valid_before(now).not_valid_after(now + timedelta(days=1)).sign(key, hashes.SHA256())
    )  # fmt: skip
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    pem = tmp_path / "stranger.pem"
    pem.write_bytes(private + certificate.public_bytes(serialization.Encoding.PEM))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.load_cert_chain(pem)
    with contextlib.suppress(ssl.SSLError), context.wrap_socket(connect(gateway)) as sock:
        assert is_dropped(sock)
    wait_until(lambda: refusals(gateway), "a line about it")
    assert len(refusals(gateway)) == 1


def test_a_worker_that_dials_another_peer_than_is_there(cluster: Cluster, gateway: Gateway) -> None:
    wanted = str(Identity.generate().peer_id)
    stray = cluster.program("worker", "--dial", wanted, "--addr", f"/ip4/127.0.0.1/tcp/{gateway.peer_port}")
    line = stray.logged("trying again")[0]
    (said,) = [line for line in stray.lines if "trying again" in line]
    assert wanted in said, line
    assert gateway.peer_id in said
    assert "Traceback" not in stray.log


def test_a_worker_that_dials_a_worker(cluster: Cluster, gateway: Gateway) -> None:
    worker = cluster.worker(gateway)
    stray = cluster.program("worker", "--dial", worker.peer_id)
    assert stray.wait() == 1
    assert stray.lines[-1] == f"ww: {worker.peer_id} is no gateway: it takes no workers"


def test_a_node_that_talks_nonsense_once_it_is_in(gateway: Gateway) -> None:
    async def talk() -> None:
        identity = Identity.generate()
        there = Multiaddr.parse(gateway.address)
        assert there.peer_id is not None
        stream = await TlsTransport(identity).dial(there, there.peer_id)
        stream.write(b"\xff" * 4096)
        await asyncio.wait_for(stream.wait_closed(), BOUND_S)

    asyncio.run(talk())
    assert len([line for line in gateway.lines if "WARNING" in line or "ERROR" in line]) <= 1


def test_a_crowd_that_connects_and_says_nothing(gateway: Gateway) -> None:
    with contextlib.ExitStack() as stack:
        crowd = [stack.enter_context(connect(gateway)) for _ in range(50)]
        gateway.post(guest("noop"), id="meanwhile", input=6)
        assert gateway.ended("meanwhile")["results"][0]["result"] == "6"
        assert all(is_dropped(sock) for sock in crowd)
    wait_until(lambda: len(refusals(gateway)) == 50, "a line for each")


def test_garbage_at_the_http_port(gateway: Gateway) -> None:
    for said in (
        b"\x16\x03\x01\x00\xff" + bytes(100),
        b"GARBAGE\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 20_000,
    ):
        host, _, port = gateway.http.rpartition(":")
        with socket.create_connection((host, int(port)), BOUND_S) as sock:
            sock.settimeout(BOUND_S)
            with contextlib.suppress(ConnectionError):
                sock.sendall(said + b"\r\n")
                answer = sock.recv(4096)
                assert b"Traceback" not in answer
                assert answer.startswith(b"HTTP/1.1 4") or not answer
