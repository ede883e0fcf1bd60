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

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from ww.errors import UsageError
from ww.gateway.problem import crowded

log = logging.getLogger("ww.gateway")

# Seconds the head of a request may take to arrive.
_HEAD_TIMEOUT_S: Final = 5.0


@dataclass(frozen=True, slots=True)
class ServerConfig:
    """Where HTTP is served, and how much of it."""

    host: str = "127.0.0.1"
    port: int = 8080
    connections_max: int = 512
    stop_timeout_s: float = 5.0
    """Seconds that requests under way have when the gateway stops."""


@asynccontextmanager
async def serving(
    app: Any, sock: socket.socket, config: ServerConfig, on_stop: Callable[[], None]
) -> AsyncIterator[None]:
    """Answer requests on a socket while the context is open; on_stop comes before the wait for those under way."""
    server = _Server(
        uvicorn.Config(
            app,
            loop="none",  # ours: uvicorn would pick uvloop where it is installed
            http=_Protocol,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            limit_concurrency=config.connections_max,
            h11_max_incomplete_event_size=64 << 10,
            timeout_graceful_shutdown=max(1, round(config.stop_timeout_s)),
        )
    )
    async with asyncio.TaskGroup() as group:
        group.create_task(server.serve([sock]))
        try:
            await server.ready.wait()
            yield
        finally:
            on_stop()
            server.should_exit = True


class _Protocol(H11Protocol):
    """uvicorn's, with two limits of our own.

    One on how long a request's head may take: uvicorn has one only for idle connections. And the one on connections,
    since uvicorn's answer beyond it is plain text, and comes one connection too early.
    """

    _head_timer: asyncio.TimerHandle | None = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._connections_max, self.limit_concurrency = self.limit_concurrency, None
        self.app = self._answer

    async def _answer(self, scope: Any, receive: Any, send: Any) -> None:
        app: Any = self.config.loaded_app
        # A request may outlive its connection, so both are counted.
        if self._connections_max and max(len(self.connections), len(self.tasks)) > self._connections_max:
            log.warning("an HTTP request was refused: %d connections are open, the limit", self._connections_max)
            app = crowded(self._connections_max)
        await app(scope, receive, send)

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
        super().send_400_response(msg)
        if self.cycle is not None and not self.cycle.response_complete:
            # The request has its answer: the application's would be a second one.
            self.cycle.disconnected = True
            self.cycle.message_event.set()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
        super().connection_lost(exc)

    def _watch(self) -> None:
        waits = self.cycle is None or self.cycle.response_complete
        if waits and self._head_timer is None:
            self._head_timer = self.loop.call_later(_HEAD_TIMEOUT_S, self._hang_up)
        elif not waits and self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _hang_up(self) -> None:
        self._head_timer = None
        self.transport.close()


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.ready = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
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
