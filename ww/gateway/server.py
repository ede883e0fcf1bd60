"""The HTTP server under the gateway: uvicorn, with limits of our own.

Holds the socket and the connections on it. Must not know routes: it is given an application.
"""

import asyncio
import contextlib
import logging
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any, Final

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.datastructures import Headers
from websockets.frames import Frame
from websockets.http11 import Request
from websockets.server import ServerProtocol

from ww.errors import UsageError
from ww.gateway.access import make_request_id
from ww.gateway.certificate import Certificate
from ww.gateway.problem import crowded, no_http
from ww.gateway.same_origin import App

log = logging.getLogger("ww.gateway")

# Seconds the head of a request may take to arrive.
_HEAD_TIMEOUT_S: Final = 5.0
# Seconds that a WebSocket's client has to answer a ping: it may be busy with what it was told.
_PONG_TIMEOUT_S: Final = 60.0
_QUICKACK: Final[int | None] = getattr(socket, "TCP_QUICKACK", None)  # Linux
ABORT: Final = "ww.abort"
"""The extension of a scope that cuts the connection, with what waits to be sent: closing it would wait for that."""
MESSAGE_MAX: Final = "ww.message_max"
"""The extension of a WebSocket's scope that sets how many bytes a message may have, where that is not as configured."""


@dataclass(frozen=True, slots=True)
class ServerConfig:
    """Where HTTP is served, and how much of it."""

    host: str = "127.0.0.1"
    port: int = 8080
    connections_max: int = 512
    certificate: Certificate | None = None
    """What HTTPS is spoken with; None: HTTP."""
    stop_timeout_s: float = 5.0
    """Seconds that requests under way have when the gateway stops."""
    unread_timeout_s: float = 60.0
    """Seconds after which a client that takes nothing of its answer is dropped. Where the system can: Linux."""
    message_bytes_max: int = 1 << 20
    """Of a WebSocket's message."""


@asynccontextmanager
async def serving(
    app: App,
    sock: socket.socket,
    config: ServerConfig,
    on_stop: Callable[[], None],
    tell: Callable[[App], App] = lambda app: app,
) -> AsyncIterator[None]:
    """Answer requests on a socket while the context is open; on_stop comes before the wait for those under way.

    What is answered here, before the application hears of it, is wrapped by tell.
    """
    certificate = config.certificate
    if hasattr(socket, "TCP_USER_TIMEOUT"):
        # The system's: whatever is left in its hands, also of a connection that was closed, is dropped then.
        unread_ms = max(1, round(config.unread_timeout_s * 1000))
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, min(unread_ms, 2**31 - 1))
    server = _Server(
        _Config(
            tell,
            app,
            loop="none",  # ours: uvicorn would pick uvloop where it is installed
            http=_Protocol,
            ws=_WebSocket,
            ws_max_size=config.message_bytes_max,
            ws_per_message_deflate=False,  # a few bytes would become many
            ws_ping_timeout=_PONG_TIMEOUT_S,
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,  # who may say where a request comes from is authority.py's to know
            limit_concurrency=config.connections_max,
            h11_max_incomplete_event_size=64 << 10,
            timeout_graceful_shutdown=max(1, round(config.stop_timeout_s)),
            ssl_context_factory=None if certificate is None else lambda *_: certificate.context,
        )
    )
    async with asyncio.TaskGroup() as group:
        group.create_task(server.serve([sock]))
        fresh = group.create_task(certificate.keep_fresh()) if certificate is not None else None
        try:
            await server.ready.wait()
            yield
        finally:
            on_stop()
            server.should_exit = True
            if fresh is not None:
                fresh.cancel()


class _Config(uvicorn.Config):
    def __init__(self, tell: Callable[[App], App], *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.tell = tell


class _Protocol(H11Protocol):
    """uvicorn's, with two limits of our own.

    One on how long a request's head may take: uvicorn has one only for idle connections. And the one on connections,
    since uvicorn's answer beyond it is plain text, and comes one connection too early.
    """

    config: _Config
    _head_timer: asyncio.TimerHandle | None = None
    _is_upgraded = False

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._connections_max, self.limit_concurrency = self.limit_concurrency, None
        self.app = self._answer

    async def _answer(self, scope: Any, receive: Any, send: Any) -> None:
        app: Any = self.config.loaded_app
        scope.setdefault("extensions", {})[ABORT] = self.transport.abort
        if self._is_crowded():
            log.warning("an HTTP request was refused: %d connections are open, the limit", self._connections_max)
            app = self.config.tell(crowded(self._connections_max or 0))
        await app(scope, receive, send)

    def _is_crowded(self) -> bool:
        # A request may outlive its connection, so both are counted.
        most = self._connections_max
        return most is not None and max(len(self.connections), len(self.tasks)) > most

    def _should_upgrade(self) -> bool:
        # What is no right handshake is a request like others: the application says what is wrong with it.
        return not self._is_crowded() and super()._should_upgrade() and self._is_handshake()

    def _is_handshake(self) -> bool:
        headers = Headers([(name.decode("latin-1"), value.decode("latin-1")) for name, value in self.headers])
        return ServerProtocol().accept(Request("/", headers)).status_code == 101

    def handle_websocket_upgrade(self, event: Any) -> None:
        self._is_upgraded = True
        super().handle_websocket_upgrade(event)

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._watch()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._watch()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._watch()

    def send_400_response(self, msg: str) -> None:
        """Answer what is no HTTP as everything else that is refused, and hang up."""
        id = make_request_id()
        log.debug("an HTTP connection turned to nonsense", extra={"request_id": id})
        body = no_http().render_for(id)
        headers = [("content-type", "application/problem+json"), ("content-length", str(len(body)))]
        headers += [("connection", "close"), ("x-request-id", id)]
        response = h11.Response(status_code=400, headers=headers, reason="Bad Request")
        for event in (response, h11.Data(data=body), h11.EndOfMessage()):
            self.transport.write(self.conn.send(event) or b"")
        self.transport.close()
        if self.cycle is not None and not self.cycle.response_complete:
            # The request has its answer: the application's would be a second one.
            self.cycle.disconnected = True
            self.cycle.message_event.set()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
        super().connection_lost(exc)

    def _watch(self) -> None:
        waits = not self._is_upgraded and (self.cycle is None or self.cycle.response_complete)
        if waits and self._head_timer is None:
            self._head_timer = self.loop.call_later(_HEAD_TIMEOUT_S, self._hang_up)
        elif not waits and self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _hang_up(self) -> None:
        self._head_timer = None
        if self.transport.get_write_buffer_size():
            self._watch()  # it still takes its answer; closing a TLS connection would wait for that for half a minute
        else:
            self.transport.close()


class _WebSocket(WebSocketsSansIOProtocol):
    """uvicorn's, which hangs up on clients that take nothing, and keeps nothing for them without end."""

    def handle_connect(self, event: Any) -> None:
        super().handle_connect(event)
        if self.response.status_code == 101:
            scope: Any = self.scope
            scope["extensions"][ABORT] = self.transport.abort
            scope["extensions"][MESSAGE_MAX] = self._limit_messages

    def _limit_messages(self, bytes_max: int) -> None:
        self.conn.max_message_size = bytes_max

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._acknowledge()

    def _acknowledge(self) -> None:
        """Have the system tell at once that what came has come.

        Clients that send with Nagle's algorithm (Deno's WebSocket) hold back what follows until they are told: 40 ms.
        The option lasts until the system thinks otherwise.
        """
        if _QUICKACK is not None and (sock := self.transport.get_extra_info("socket")) is not None:
            with contextlib.suppress(OSError):
                sock.setsockopt(socket.IPPROTO_TCP, _QUICKACK, 1)

    def handle_ping(self) -> None:
        output = self.conn.data_to_send()
        # Who takes nothing needs no pongs: they would pile up. RFC 6455, 5.5.3.
        if self.writable.is_set():
            self.transport.write(b"".join(output))

    def handle_cont(self, event: Frame) -> None:
        # Empty ones count for nothing against a message's size, but each would be kept.
        if event.data or event.fin:
            super().handle_cont(event)

    def keepalive_timeout(self) -> None:
        super().keepalive_timeout()
        self.transport.abort()


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.ready = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen, as uvicorn does, but for the time that TLS has: nothing is served before it is done."""
        loop, config = asyncio.get_running_loop(), self.config
        handshake_s = None if config.ssl is None else _HEAD_TIMEOUT_S

        def make() -> asyncio.Protocol:
            return _Protocol(config, self.server_state, {}, loop)

        self.servers = [
            await loop.create_server(
                make, sock=sock, ssl=config.ssl, backlog=config.backlog, ssl_handshake_timeout=handshake_s
            )
            for sock in sockets or []
        ]
        self.started = True
        self.ready.set()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals to the command line."""
        yield


@contextmanager
def listening(host: str, port: int) -> Iterator[socket.socket]:
    """Open the socket. UsageError when the address cannot be had."""
    # The protocol is named because asyncio turns Nagle's algorithm off, 40 ms an answer, only where it is.
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    with contextlib.closing(sock):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            sock.bind((host, port))
            sock.listen(256)
        except OSError as error:
            raise UsageError(f"--http {host}:{port}: {(error.strerror or 'cannot listen').lower()}", "http") from None
        yield sock
