"""A gateway's parts, put together and taken apart in order.

Holds the wiring alone. Read http.py first, then scheduler.py; the node is node.py.
"""

import asyncio
import contextlib
import fcntl
import logging
import os
import socket
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from ww.clock import Clock
from ww.discovery.packet import Load
from ww.errors import UsageError
from ww.gateway.artifacts import ArtifactStore
from ww.gateway.http import HttpConfig, HttpGateway, crowded
from ww.gateway.modules import ModuleStore
from ww.gateway.operator import OperatorServer
from ww.gateway.pool import WorkerPool
from ww.gateway.request import RequestLimits
from ww.gateway.scheduler import Scheduler, SchedulerConfig
from ww.gateway.store import Store
from ww.node import Node
from ww.rpc.admission import Only

log = logging.getLogger("ww.gateway")

# Seconds the head of a request may take to arrive.
_HEAD_TIMEOUT_S: Final = 5.0


@dataclass(frozen=True, slots=True)
class GatewayConfig:
    """What a gateway serves, from where."""

    state_directory: Path
    """Where its database, modules and artifacts are."""
    meta: Mapping[str, str] = field(default_factory=dict)
    """What the operator says of this node."""
    http_host: str = "127.0.0.1"
    http_port: int = 8080
    modules_bytes_max: int = 10 << 30
    """Size of all modules and files kept."""
    artifacts_bytes_max: int = 10 << 30
    """Size of all artifacts kept."""
    http_connections_max: int = 512
    stop_timeout_s: float = 5.0
    """Seconds that requests under way have when the gateway stops."""
    http: HttpConfig = field(default_factory=HttpConfig)
    limits: RequestLimits = field(default_factory=RequestLimits)
    scheduler: SchedulerConfig = field(default_factory=SchedulerConfig)


@dataclass(frozen=True, slots=True)
class Gateway:
    """A running gateway."""

    scheduler: Scheduler
    http_address: str
    """host:port."""


@asynccontextmanager
async def serve(node: Node, clock: Clock, config: GatewayConfig) -> AsyncIterator[Gateway]:
    """Be a gateway on this node while the context is open. UsageError when the port or the state is in use."""
    directory = config.state_directory / "gateway"
    with _alone_in(directory), _listening(config.http_host, config.http_port) as sock:
        modules = ModuleStore(directory / "modules", quota_bytes=config.modules_bytes_max)
        artifacts = ArtifactStore(directory / "artifacts", quota_bytes=config.artifacts_bytes_max)
        async with (
            Store(directory / "ww.db") as store,
            Scheduler(store, modules, artifacts, clock, config.scheduler) as scheduler,
        ):
            node.vat.export("registry", scheduler.pool.registry_for)
            node.vat.export("channel", scheduler.pool.sender_for)
            await _let_operate(node, scheduler.pool)
            await node.listen(lambda: _load(scheduler))

            def about() -> dict[str, Any]:
                return {
                    "peer": str(node.peer_id),
                    "namespace": node.namespace,
                    "meta": dict(config.meta),
                } | node.health()

            http = HttpGateway(scheduler, store, modules, artifacts, clock, config.limits, config.http, about)
            host, port = sock.getsockname()[:2]
            address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
            async with _serving(http, sock, config):
                log.info("HTTP on http://%s", address)
                yield Gateway(scheduler, address)


async def _let_operate(node: Node, pool: WorkerPool) -> None:
    """Give whoever holds the node's key what an operator may do, and go on with what was said before."""
    register = node.register
    if register is not None:
        for peer_id, standing in (await asyncio.to_thread(register.standings)).items():
            if standing.is_draining:
                pool.drain(peer_id)
        node.vat.export("operator", lambda peer: OperatorServer(node.vat, pool, register), Only(node.peer_id))


def _load(scheduler: Scheduler) -> Load:
    workers = scheduler.pool.workers()
    slots, free = sum(entry.info.slots for entry, _ in workers), sum(waiting for _, waiting in workers)
    return Load(slots, free, min(scheduler.queue_length(), 2**32 - 1))


@asynccontextmanager
async def _serving(http: HttpGateway, sock: socket.socket, config: GatewayConfig) -> AsyncIterator[None]:
    server = _Server(
        uvicorn.Config(
            http.app(),
            loop="none",  # ours: uvicorn would pick uvloop where it is installed
            http=_Protocol,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            limit_concurrency=config.http_connections_max,
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
            http.stop()
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
def _listening(host: str, port: int) -> Iterator[socket.socket]:
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


@contextmanager
def _alone_in(directory: Path) -> Iterator[None]:
    """Hold a gateway's directory for this process."""
    try:
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        fd = os.open(directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise UsageError(f"the state directory cannot be used: {error.strerror}", "state") from None
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise UsageError("another gateway uses this state directory: name another with --state", "state") from None
        yield
    finally:
        os.close(fd)
