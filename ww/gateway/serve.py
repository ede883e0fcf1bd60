"""A gateway's parts, put together and taken apart in order.

Holds the wiring alone. Read http.py first, then scheduler.py; the node is node.py.
"""

import asyncio
import fcntl
import logging
import os
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ww.clock import Clock
from ww.discovery.packet import Load
from ww.errors import StoreError, UsageError
from ww.gateway.artifacts import ArtifactStore
from ww.gateway.gauges import add_gauges
from ww.gateway.http import HttpGateway
from ww.gateway.intake import HttpConfig
from ww.gateway.live import Node as NodeSeen
from ww.gateway.metrics import Metrics
from ww.gateway.modules import ModuleStore
from ww.gateway.native import tasks_for
from ww.gateway.native_intake import NativeIntake, TasksConfig
from ww.gateway.operator import OperatorServer, hang_up_on
from ww.gateway.peer_socket import PeerSockets
from ww.gateway.perimeter import Perimeter, PerimeterConfig
from ww.gateway.postgres.address import PostgresAddress
from ww.gateway.quota import Quotas
from ww.gateway.readiness import Readiness
from ww.gateway.request import RequestLimits
from ww.gateway.scheduler import Scheduler, SchedulerConfig
from ww.gateway.server import ServerConfig, listening, serving
from ww.gateway.storage import Storage, StoreConfig
from ww.gateway.store import Store
from ww.gateway.tokens import Tokens
from ww.identity import PeerId
from ww.node import Node
from ww.rpc.admission import Admission, Either, Only

if TYPE_CHECKING:
    from ww.gateway.postgres.store import PostgresStore

log = logging.getLogger("ww.gateway")


@dataclass(frozen=True, slots=True)
class GatewayConfig:
    """What a gateway serves, from where."""

    state_directory: Path
    """Where its database, modules and artifacts are."""
    meta: Mapping[str, str] = field(default_factory=dict)
    """What the operator says of this node."""
    modules_bytes_max: int = 10 << 30
    """Size of all modules and files kept."""
    artifacts_bytes_max: int = 10 << 30
    """Size of all artifacts kept."""
    disk_reserve_bytes: int = 64 << 20
    """What must be free on its disk for new work to be taken."""
    tokens: Tokens | None = None
    """Who may use HTTP; None: whoever can reach it, which is this machine."""
    perimeter: PerimeterConfig = field(default_factory=PerimeterConfig)
    server: ServerConfig = field(default_factory=ServerConfig)
    http: HttpConfig = field(default_factory=HttpConfig)
    limits: RequestLimits = field(default_factory=RequestLimits)
    scheduler: SchedulerConfig = field(default_factory=SchedulerConfig)
    store: StoreConfig = field(default_factory=StoreConfig)
    tasks: TasksConfig = field(default_factory=TasksConfig)
    """What peers that give work may hold."""
    tasks_admission: Admission | None = None
    """Who they are; None: whoever may connect."""
    postgres: PostgresAddress | None = None
    """Where tasks and results are kept; None: beside the modules, in SQLite."""
    postgres_timeout_s: float = 30.0
    """A server of them that says nothing for so long counts as gone."""


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
    with _alone_in(directory), listening(config.server.host, config.server.port) as sock:
        most = {"quota_bytes": config.modules_bytes_max, "disk_reserve_bytes": config.disk_reserve_bytes}
        modules = ModuleStore(directory / "modules", **most)
        artifacts = ArtifactStore(directory / "artifacts", quota_bytes=config.artifacts_bytes_max)
        metrics = Metrics()
        async with (
            _store(config, directory, clock) as store,
            Scheduler(store, modules, artifacts, clock, config.scheduler, metrics) as scheduler,
        ):
            node.vat.export("registry", scheduler.pool.registry_for, node.members_only)
            node.vat.export("channel", scheduler.pool.sender_for, node.members_only)
            await _let_operate(node, scheduler)

            def about() -> dict[str, Any]:
                return {
                    "peer": str(node.peer_id),
                    "namespace": node.namespace,
                    "meta": dict(config.meta),
                } | node.health()

            perimeter = _perimeter(config, directory, store, scheduler, clock, metrics)
            scheduler.nesting.admit = perimeter.admit_nested
            add_gauges(metrics, scheduler, directory, node.health, clock.now)
            parts = scheduler, store, modules, artifacts, clock, config.limits, config.http, about
            seen = NodeSeen(node.heartbeats, node.discovery)
            peers = _peers(node, config)
            http = HttpGateway(*parts, perimeter, peers=peers, node=seen)
            _let_give_work(node, config, NativeIntake(
                http, scheduler, store, modules, artifacts, config.limits, perimeter, clock, node.peer_id, config.tasks
            ))  # fmt: skip
            await node.listen(lambda: _load(scheduler))
            metrics.gauge("streams", "Streams of events and WebSockets that are open.", http.open_streams)
            metrics.gauge("web_peers", "Peers that are connected by WebSocket.", lambda: peers.count)
            host, port = sock.getsockname()[:2]
            address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
            async with (
                http.live.running(),
                serving(http.app(), sock, config.server, http.stop, perimeter.told),
            ):
                log.info("HTTP on %s://%s", "http" if config.server.certificate is None else "https", address)
                yield Gateway(scheduler, address)


def _store(config: GatewayConfig, directory: Path, clock: Clock) -> "Store | PostgresStore":
    """Make what remembers tasks."""
    if config.postgres is None:
        return Store(directory / "ww.db", config.store, clock)
    # Whose driver is needed for nothing else.
    from ww.gateway.postgres.session import PostgresConfig
    from ww.gateway.postgres.store import PostgresStore

    return PostgresStore(config.postgres, config.store, clock, PostgresConfig(timeout_s=config.postgres_timeout_s))


def _perimeter(
    config: GatewayConfig, directory: Path, store: Storage, scheduler: Scheduler, clock: Clock, metrics: Metrics
) -> Perimeter:
    """Say who may use HTTP, and for how much."""

    def workers() -> tuple[int, int]:
        pool = scheduler.pool
        entries = [entry for entry, _ in pool.workers()]
        usable = sum(not (entry.leaving or pool.is_draining(entry.peer.peer_id)) for entry in entries)
        return len(entries), usable

    reserve_bytes = config.disk_reserve_bytes
    readiness = Readiness(directory, reserve_bytes=reserve_bytes, now=clock.now, store=store.health, workers=workers)
    return Perimeter(
        config.perimeter,
        config.tokens,
        quotas=Quotas(scheduler.task, scheduler.open_tasks, clock.now),
        readiness=readiness,
        metrics=metrics,
    )


def _peers(node: Node, config: GatewayConfig) -> PeerSockets:
    """Let peers connect by WebSocket, but for those of other machines where nobody said who may come."""
    closed_because = ""
    if config.perimeter.any_address and not node.says_who_may_come:
        closed_because = "HTTP lets other machines in, and nobody said who may come as a peer: see --admit"
        log.info("no browser can be a worker: %s", closed_because)
    most = config.http.peers_max
    return PeerSockets(node.identity, node.vat.accept, closed_because=closed_because, count_max=most)


async def _let_operate(node: Node, scheduler: Scheduler) -> None:
    """Give whoever holds the node's key what an operator may do, and go on with what was said before."""
    register, pool = node.register, scheduler.pool

    async def refuse(peer_id: PeerId, disagreements: int) -> None:
        hang_up_on(node.vat, peer_id)
        if register is not None:
            try:
                await asyncio.to_thread(register.refuse, peer_id, disagreements)
            except StoreError as error:
                log.error("that %s is refused will not last beyond this start: %s", peer_id, error)

    scheduler.on_refused = refuse
    if register is not None:
        for peer_id, standing in (await asyncio.to_thread(register.standings)).items():
            if standing.is_draining:
                pool.drain(peer_id)
        node.vat.export("operator", lambda _: OperatorServer(node.vat, pool, register), Only(node.peer_id))


def _let_give_work(node: Node, config: GatewayConfig, intake: NativeIntake) -> None:
    """Give peers that may submit what they need for it, and whoever holds the node's key too."""
    given = config.tasks_admission
    admission = Either(Only(node.peer_id), given) if given is not None else None
    node.vat.export("tasks", lambda peer: tasks_for(intake, peer), admission)


def _load(scheduler: Scheduler) -> Load:
    workers = scheduler.pool.workers()
    slots, free = sum(entry.info.slots for entry, _ in workers), sum(waiting for _, waiting in workers)
    return Load(slots, free, min(scheduler.queue_length(), 2**32 - 1))


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
