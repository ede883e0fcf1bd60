"""A gateway that peers can give work, with clients of it, in one process: what tests of that share."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from tests.gateway.scheduling import Gateway, open_gateway
from ww.client.call import Retry
from ww.client.native_aio import AsyncNativeClient
from ww.client.native_link import LinkConfig
from ww.gateway.http import HttpGateway
from ww.gateway.intake import HttpConfig
from ww.gateway.native import tasks_for
from ww.gateway.native_intake import NativeIntake, TasksConfig
from ww.gateway.perimeter import Perimeter
from ww.gateway.quota import Quotas
from ww.gateway.request import RequestLimits
from ww.identity import Identity
from ww.net.memory import MemoryTransport
from ww.rpc.admission import Admission


class Native:
    """Such a gateway."""

    def __init__(self, gateway: Gateway, directory: Path) -> None:
        self.gateway = gateway
        self.directory = directory
        self.intake: NativeIntake
        self.http: HttpGateway

    def client(self, key: Identity | None = None, retries: int = 3) -> AsyncNativeClient:
        """Make a client that is known by that key, or by one of its own."""
        identity = key or Identity.generate()
        config = LinkConfig(key=identity, state_directory=self.directory, multicast=False)
        retry = Retry(retries=retries, first_s=0.001, most_s=0.01)
        transport = MemoryTransport(self.gateway._network, identity)
        return AsyncNativeClient(str(self.gateway.address), config, retry=retry, transport=transport)

    def uploads(self) -> list[str]:
        """Return what is not whole yet of what was sent."""
        return [path.name for path in (self.gateway.directory / "modules").glob("*.part")]


@contextlib.asynccontextmanager
async def native_gateway(
    directory: Path,
    limits: RequestLimits | None = None,
    tasks: TasksConfig | None = None,
    admission: Admission | None = None,
    **settings: Any,
) -> AsyncIterator[Native]:
    """Open one whose clock goes on by itself."""
    config = {"tasks_max": 1000} | settings.pop("config", {})
    async with open_gateway(directory, config=config, **settings) as gateway:
        native = Native(gateway, directory)
        limits = limits or RequestLimits()
        scheduler, store = gateway.scheduler, gateway.store
        perimeter = Perimeter(quotas=Quotas(scheduler.task, scheduler.open_tasks, gateway.clock.now))
        parts = scheduler, store, gateway.modules, gateway.artifacts
        native.http = HttpGateway(*parts, gateway.clock, limits, HttpConfig(), lambda: {"peer": "x"}, perimeter)
        native.intake = NativeIntake(
            native.http, *parts, limits, perimeter, gateway.clock, gateway._identity.peer_id, tasks
        )
        gateway.vat.export("tasks", lambda peer: tasks_for(native.intake, peer), admission)
        ticking = asyncio.ensure_future(_tick(gateway))
        try:
            yield native
        finally:
            ticking.cancel()


async def _tick(gateway: Gateway) -> None:
    while True:
        gateway.clock.advance(0.001)
        await asyncio.sleep(0.001)
