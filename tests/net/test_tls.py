"""What knocks at a listener: only who proves a key gets in, everybody else is dropped in bounded time."""

import asyncio
import contextlib
import datetime
import logging
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.x509.oid import NameOID

from tests.conftest import until
from ww.errors import PeerError
from ww.identity import Identity
from ww.net import tls
from ww.net.multiaddr import Multiaddr
from ww.net.tls import TlsTransport
from ww.net.transport import Stream
from ww.node import LOOPBACK

pytestmark = pytest.mark.anyio


class Door:
    """A listening transport and the streams it let in."""

    def __init__(self, identity: Identity) -> None:
        self.identity = identity
        self.streams: list[Stream] = []
        self.address = LOOPBACK


@pytest.fixture
async def door(caplog: pytest.LogCaptureFixture) -> AsyncIterator[Door]:
    caplog.set_level(logging.WARNING)
    door = Door(Identity.generate())
    transport = TlsTransport(door.identity, handshake_timeout_s=0.3, connections_max=4)
    listener = await transport.serve(LOOPBACK, door.streams.append)
    (door.address,) = listener.addresses
    yield door
    for stream in door.streams:
        stream.abort()
    await listener.aclose()


async def friend_gets_in(door: Door) -> None:
    """Prove that the door still works."""
    before = len(door.streams)
    stream = await TlsTransport(Identity.generate()).dial(door.address, door.identity.peer_id)
    await until(lambda: len(door.streams) == before + 1)
    stream.abort()
    await until(door.streams[-1].is_closing)


async def dropped(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Wait, in bounded time, for the other end to hang up."""
    async with asyncio.timeout(5):
        try:
            while await reader.read(1000):
                pass
        except (ConnectionError, ssl.SSLError):
            pass
    writer.transport.abort()


async def test_both_ends_learn_who_the_other_is(door: Door) -> None:
    caller = Identity.generate()
    stream = await TlsTransport(caller).dial(door.address, door.identity.peer_id)
    await until(lambda: len(door.streams) == 1)
    assert stream.peer_id == door.identity.peer_id
    assert door.streams[0].peer_id == caller.peer_id
    stream.abort()


@pytest.mark.parametrize("said", [b"", b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", bytes(range(256)) * 16, b"\x16\x03\x01"])
async def test_who_speaks_no_tls_is_dropped_and_logged_in_one_line(
    door: Door, caplog: pytest.LogCaptureFixture, said: bytes
) -> None:
    reader, writer = await asyncio.open_connection(door.address.host, door.address.port)
    writer.write(said)
    await dropped(reader, writer)
    await until(lambda: len(caplog.records) == 1)
    assert caplog.records[0].getMessage().startswith("refused 127.0.0.1:")
    assert caplog.records[0].exc_info is None
    await friend_gets_in(door)
    assert len(caplog.records) == 1


async def test_a_tls_client_without_a_certificate_is_dropped(door: Door, caplog: pytest.LogCaptureFixture) -> None:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    reader, writer = await asyncio.open_connection(door.address.host, door.address.port, ssl=context)
    await dropped(reader, writer)
    await until(lambda: len(caplog.records) == 1)
    assert "certificate" in caplog.text
    await friend_gets_in(door)


def certificate_of(key: Ed25519PrivateKey | ec.EllipticCurvePrivateKey, issuer_key: Ed25519PrivateKey | None) -> bytes:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "other")])
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(tls._CA_NAME if issuer_key else name)
        .public_key(key.public_key())
        .serial_number(7)
        .not_valid_before(datetime.datetime(2000, 1, 1))
        .not_valid_after(datetime.datetime(2100, 1, 1))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
    )
    signer = issuer_key or key
    certificate = builder.sign(signer, None if isinstance(signer, Ed25519PrivateKey) else hashes.SHA256())
    return certificate.public_bytes(serialization.Encoding.PEM) + key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


@pytest.mark.parametrize("kind", ["self-signed", "another kind of key", "the authority itself"])
async def test_a_certificate_that_is_not_a_nodes_is_dropped(
    door: Door, caplog: pytest.LogCaptureFixture, tmp_path: Path, kind: str
) -> None:
    if kind == "self-signed":
        pem = certificate_of(Ed25519PrivateKey.generate(), None)
    elif kind == "another kind of key":
        pem = certificate_of(ec.generate_private_key(ec.SECP256R1()), tls._PUBLIC_CA_KEY)
    else:
        pem = certificate_of(tls._PUBLIC_CA_KEY, tls._PUBLIC_CA_KEY)
    path = tmp_path / "leaf.pem"
    path.write_bytes(pem)
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols(["ww"])
    context.load_cert_chain(path)
    reader, writer = await asyncio.open_connection(door.address.host, door.address.port, ssl=context)
    await dropped(reader, writer)
    await until(lambda: len(caplog.records) == 1)
    assert door.streams == []
    await friend_gets_in(door)


async def test_a_dialler_refuses_a_server_that_is_no_node(tmp_path: Path) -> None:
    path = tmp_path / "leaf.pem"
    path.write_bytes(certificate_of(Ed25519PrivateKey.generate(), None))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(path)
    server = await asyncio.start_server(lambda reader, writer: writer.close(), "127.0.0.1", 0, ssl=context)
    async with server:
        address = Multiaddr.of_socket(*server.sockets[0].getsockname()[:2])
        with pytest.raises(PeerError, match=str(address)):
            await TlsTransport(Identity.generate()).dial(address, Identity.generate().peer_id)


async def test_a_dialler_gives_up_on_a_server_that_says_nothing() -> None:
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            await reader.read()
        writer.close()
        await writer.wait_closed()
        gone.set()

    gone = asyncio.Event()
    server = await asyncio.start_server(silent, "127.0.0.1", 0)
    async with server:
        address = Multiaddr.of_socket(*server.sockets[0].getsockname()[:2])
        transport = TlsTransport(Identity.generate(), handshake_timeout_s=0.2)
        with pytest.raises(PeerError, match="said nothing in time"):
            await transport.dial(address, Identity.generate().peer_id)
        await asyncio.wait_for(gone.wait(), 5)


async def test_connections_are_bounded_and_come_free_again(door: Door, caplog: pytest.LogCaptureFixture) -> None:
    transport = TlsTransport(Identity.generate())
    streams = [await transport.dial(door.address, door.identity.peer_id) for _ in range(4)]
    with pytest.raises(PeerError):
        await transport.dial(door.address, door.identity.peer_id)
    assert "4 connections are open, the limit" in caplog.text
    for stream in streams:
        stream.abort()
    await until(lambda: all(stream.is_closing() for stream in door.streams))
    await friend_gets_in(door)
