"""The transport between machines: TCP, TLS 1.3, both ends known by their Ed25519 key.

Holds certificates, the check of the peer's key, and the listener that drops whatever does not authenticate in time.
Must not know who may come: admission is the vat's (rpc/vat.py).

How a peer is authenticated, and how not. Python's ssl cannot ask for an unknown certificate and look at it later, so
every node's certificate is signed by a certificate authority whose private key is public: it is made from a constant
below, anybody can sign with it, and being signed by it proves NOTHING. It only gets the certificate through OpenSSL.
What proves a peer is the leaf's own key: TLS 1.3 makes the other end sign the handshake with it, and `_peer_id_of`
reads the peer id from it. Every stream goes through that check.
"""

import asyncio
import contextlib
import datetime
import logging
import os
import socket
import ssl
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.x509.oid import NameOID

from ww.errors import PeerError, PeerMismatch, UsageError
from ww.identity import Identity, PeerId
from ww.net.multiaddr import Multiaddr
from ww.net.transport import Stream

log = logging.getLogger("ww.net")

_ALPN = "ww"
# Clocks are skewed and keys have no calendar.
_NOT_BEFORE = datetime.datetime(2000, 1, 1)
_NOT_AFTER = datetime.datetime(9999, 12, 31)
# Public on purpose: see the top of this file.
_PUBLIC_CA_KEY = Ed25519PrivateKey.from_private_bytes(b"ww public authority proves none.")
_CA_NAME = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "ww: proves nothing")])
_LEAF_NAME = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "ww node")])


def _certificate(subject: x509.Name, key: Ed25519PublicKey, *, is_ca: bool) -> x509.Certificate:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(_CA_NAME)
        .public_key(key)
        .serial_number(1 if is_ca else x509.random_serial_number())
        .not_valid_before(_NOT_BEFORE)
        .not_valid_after(_NOT_AFTER)
        .add_extension(x509.BasicConstraints(ca=is_ca, path_length=0 if is_ca else None), critical=True)
        .sign(_PUBLIC_CA_KEY, None)
    )


def _context(identity: Identity, side: int) -> ssl.SSLContext:
    context = ssl.SSLContext(side)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False
    context.verify_mode = ssl.CERT_REQUIRED
    context.set_alpn_protocols([_ALPN])
    if side == ssl.PROTOCOL_TLS_SERVER:
        context.num_tickets = 0  # a resumed session would skip the certificate
    ca = _certificate(_CA_NAME, _PUBLIC_CA_KEY.public_key(), is_ca=True)
    context.load_verify_locations(cadata=ca.public_bytes(serialization.Encoding.PEM).decode())
    leaf = _certificate(_LEAF_NAME, identity.private_key.public_key(), is_ca=False)
    pem = leaf.public_bytes(serialization.Encoding.PEM) + identity.private_key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    # ssl reads certificates from files only; this one is 0600 in a folder of its own and gone at once.
    with tempfile.TemporaryDirectory(prefix="ww-") as folder:
        path = Path(folder) / "leaf.pem"
        path.touch(mode=0o600)
        path.write_bytes(pem)
        context.load_cert_chain(path)
    return context


def _peer_id_of(transport: asyncio.BaseTransport) -> PeerId:
    """Name the peer by the key its handshake was signed with; PeerError when that is not exactly a node's key."""
    connection = transport.get_extra_info("ssl_object")
    if connection.selected_alpn_protocol() != _ALPN:
        raise PeerError("speaks TLS but not ww")
    leaf = x509.load_der_x509_certificate(connection.getpeercert(binary_form=True))
    key = leaf.public_key()
    if not isinstance(key, Ed25519PublicKey):
        raise PeerError("its certificate holds no Ed25519 key")
    raw = key.public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
    try:
        is_ca = leaf.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except x509.ExtensionNotFound:
        is_ca = False
    if is_ca or key == _PUBLIC_CA_KEY.public_key():
        raise PeerError("its certificate is an authority's, not a node's")
    return PeerId(raw)


def _why(error: BaseException) -> str:
    """Say in a few words why a handshake failed."""
    if isinstance(error, TimeoutError):
        return "said nothing in time"
    if isinstance(error, ssl.SSLError):
        reason = error.verify_message if isinstance(error, ssl.SSLCertVerificationError) else error.reason
        return f"no TLS as a node speaks it ({(reason or 'unknown error').lower().replace('_', ' ')})"
    if isinstance(error, (ConnectionResetError, ConnectionAbortedError, BrokenPipeError, EOFError)):
        return "closed the connection during the handshake"
    if isinstance(error, OSError):
        # gaierror has its own numbers; asyncio joins several errors into a text of its own without any.
        return (os.strerror(error.errno) if error.errno and error.errno > 0 else str(error.strerror or error)).lower()
    return str(error)


KEEPALIVE_S: Final = 5.0
"""Seconds without a packet after which a peer counts as gone."""


class TlsTransport:
    """TCP and TLS under one identity."""

    def __init__(
        self,
        identity: Identity,
        *,
        handshake_timeout_s: float = 5.0,
        connections_max: int = 1024,
        keepalive_s: float = KEEPALIVE_S,
    ) -> None:
        """Use identity's key at both ends.

        handshake_timeout_s bounds every step until a peer is known; connections_max bounds how many accepted
        connections, authenticated or not, one listener keeps at a time. A peer from which no packet comes back for
        keepalive_s, at least 2, counts as gone.
        """
        self._keepalive_s = keepalive_s
        self._server_context = _context(identity, ssl.PROTOCOL_TLS_SERVER)
        self._client_context = _context(identity, ssl.PROTOCOL_TLS_CLIENT)
        self._handshake_timeout_s = handshake_timeout_s
        self._connections_max = connections_max

    async def dial(self, address: Multiaddr, expect: PeerId) -> Stream:
        stream = Stream()
        stream.remote = str(address)
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(self._handshake_timeout_s):
                transport, _ = await loop.create_connection(
                    lambda: stream, address.host, address.port, ssl=self._client_context, server_hostname=""
                )
        except (OSError, EOFError, ValueError, OverflowError) as error:  # the last two: no name, no port, to the system
            raise PeerError(f"{address}: {_why(error)}") from None
        _keep_alive(transport, self._keepalive_s)
        try:
            peer_id = _peer_id_of(transport)
        except PeerError as error:
            stream.abort()
            raise PeerError(f"{address}: {error}") from None
        if peer_id != expect:
            stream.abort()
            raise PeerMismatch(f"{address}: dialled {expect}, but {peer_id} answered")
        stream.peer_id = peer_id
        return stream

    async def serve(self, address: Multiaddr, on_stream: Callable[[Stream], None]) -> "TlsListener":
        listener = TlsListener(
            self._server_context, on_stream, self._handshake_timeout_s, self._connections_max, self._keepalive_s
        )
        try:
            await listener.open(address)
        except (OSError, ValueError, OverflowError) as error:
            raise UsageError(f"cannot listen on {address}: {_why(error)}", "listen") from None
        return listener


class TlsListener:
    """Accepts connections, authenticates them in bounded time, and hands on those that are a node's."""

    def __init__(
        self,
        context: ssl.SSLContext,
        on_stream: Callable[[Stream], None],
        handshake_timeout_s: float,
        connections_max: int,
        keepalive_s: float,
    ) -> None:
        self._context = context
        self._keepalive_s = keepalive_s
        self._on_stream = on_stream
        self._handshake_timeout_s = handshake_timeout_s
        self._connections_max = connections_max
        self._connections = 0
        self._handshakes: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    async def open(self, address: Multiaddr) -> None:
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: _Doorman(self), address.host, address.port)

    @property
    def addresses(self) -> list[Multiaddr]:
        sockets = self._server.sockets if self._server is not None else ()
        return [Multiaddr.of_socket(*s.getsockname()[:2]) for s in sockets]

    async def aclose(self) -> None:
        if self._server is not None:
            self._server.close()
        for task in list(self._handshakes):
            task.cancel()
        await asyncio.gather(*self._handshakes, return_exceptions=True)

    def admit(self, transport: asyncio.Transport, remote: str) -> None:
        """Start the handshake of a connection that was just accepted, or drop it when there are too many."""
        if self._connections >= self._connections_max:
            log.warning("refused %s: %d connections are open, the limit", remote, self._connections_max)
            transport.abort()
            return
        self._connections += 1
        transport.pause_reading()  # what comes now belongs to TLS
        task = asyncio.get_running_loop().create_task(self._handshake(transport, remote))
        self._handshakes.add(task)
        task.add_done_callback(self._handshakes.discard)

    def dismiss(self) -> None:
        """Count a connection that has gone."""
        self._connections -= 1

    async def _handshake(self, transport: asyncio.Transport, remote: str) -> None:
        stream = _CountedStream(self)
        stream.remote = remote
        try:
            secure = await asyncio.get_running_loop().start_tls(
                transport,
                stream,
                self._context,
                server_side=True,
                ssl_handshake_timeout=self._handshake_timeout_s,
                ssl_shutdown_timeout=self._handshake_timeout_s,
            )
            assert secure is not None
            stream.connection_made(secure)
            stream.peer_id = _peer_id_of(secure)
        except BaseException as error:
            transport.abort()
            stream.count_out()
            if not isinstance(error, (OSError, EOFError, PeerError)):
                raise
            log.warning("refused %s: %s", remote, _why(error))
            return
        _keep_alive(secure, self._keepalive_s)
        self._on_stream(stream)


class _CountedStream(Stream):
    """A stream that tells its listener, once, when it is gone."""

    def __init__(self, listener: TlsListener) -> None:
        super().__init__()
        self._listener: TlsListener | None = listener

    def count_out(self) -> None:
        listener, self._listener = self._listener, None
        if listener is not None:
            listener.dismiss()

    def connection_lost(self, exc: Exception | None) -> None:
        self.count_out()
        super().connection_lost(exc)


class _Doorman(asyncio.Protocol):
    """Holds a connection between accept and the start of TLS."""

    def __init__(self, listener: TlsListener) -> None:
        self._listener = listener

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        name = transport.get_extra_info("peername") or ("?", 0)
        self._listener.admit(transport, f"{name[0]}:{name[1]}")


def _keep_alive(transport: asyncio.BaseTransport, keepalive_s: float) -> None:
    """Have the kernel notice, within that time, that no packet comes back: the machine or the cable is gone.

    It asks after two fifths of it without traffic, then every second. What is not acknowledged for the other three
    fifths, be it such a question or data that was sent just before it, ends the connection.
    """
    raw = transport.get_extra_info("socket")
    idle_s = max(1, int(keepalive_s * 2 / 5))
    options = {
        "TCP_KEEPIDLE": idle_s,
        "TCP_KEEPALIVE": idle_s,  # as macOS calls it
        "TCP_KEEPINTVL": 1,
        "TCP_KEEPCNT": max(1, int(keepalive_s) - idle_s),
        "TCP_USER_TIMEOUT": int((keepalive_s - idle_s) * 1000),
    }
    for name, value in options.items():
        if hasattr(socket, name):  # not every system has each of them
            with contextlib.suppress(OSError):
                raw.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
    with contextlib.suppress(OSError):
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
