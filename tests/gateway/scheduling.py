"""A scheduler that peers can reach, with its pool, store and modules, in one process: what tests of it share."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from tests.conftest import until
from tests.gateway.scripted_worker import Run, ScriptedWorker
from tests.gateway.stored import results_of
from tests.gateway.storing import store_files, store_module
from tests.guests import digest_of, guest
from ww.clock import ManualClock
from ww.errors import StoreError
from ww.gateway.artifacts import ArtifactStore
from ww.gateway.dispatch import DispatchConfig
from ww.gateway.modules import ModuleStore
from ww.gateway.scheduler import Scheduler, SchedulerConfig
from ww.gateway.store import Store, StoreConfig
from ww.gateway.task import RunResult, Spec
from ww.identity import Identity
from ww.net.memory import MemoryTransport, Network
from ww.net.multiaddr import Multiaddr
from ww.node import LOOPBACK
from ww.rpc.vat import Vat

NOOP = guest("noop")


class FlakyStore(Store):
    """A store whose disk refuses results when told to."""

    refuses = False

    async def add_results(self, results: Any) -> None:
        if self.refuses:
            raise StoreError("no space left on device")
        await super().add_results(results)


class Gateway:
    """A scheduler that peers can reach, and a clock that moves when told to."""

    def __init__(
        self,
        directory: Path,
        network: Network,
        config: SchedulerConfig,
        artifacts_bytes_max: int = 1 << 20,
        keep: int = 10_000,
    ) -> None:
        self.directory = directory
        self.clock = ManualClock()
        self._network = network
        self.store = FlakyStore(directory / "ww.db", StoreConfig(keep=keep), self.clock)
        self.modules = ModuleStore(directory / "modules", quota_bytes=16 << 20)
        self.artifacts = ArtifactStore(directory / "artifacts", quota_bytes=artifacts_bytes_max)
        self.scheduler = Scheduler(self.store, self.modules, self.artifacts, self.clock, config)
        self._identity = Identity.generate()
        self.vat = Vat(self._identity, MemoryTransport(network, self._identity))
        self._stack = contextlib.AsyncExitStack()
        self.address: Multiaddr

    async def start(self) -> None:
        await self._stack.enter_async_context(self.store)
        await self._stack.enter_async_context(self.scheduler)
        await self._stack.enter_async_context(self.vat)
        self.vat.export("registry", self.scheduler.pool.registry_for)
        self.vat.export("channel", self.scheduler.pool.sender_for)
        self.address = (await self.vat.listen(LOOPBACK))[0].of_peer(self._identity.peer_id)

    async def aclose(self) -> None:
        await self._stack.aclose()

    async def worker(
        self, slots: int = 1, *, is_quick: bool = False, lie: int = 0, identity: Identity | None = None, **info: Any
    ) -> ScriptedWorker:
        """Bring in a worker with that many slots on offer; it leaves with the gateway. info: what it says of itself."""
        worker = await self._stack.enter_async_context(ScriptedWorker(self._network, identity))
        worker.is_quick, worker.lie = is_quick, lie
        await worker.connect(self.address)
        await worker.register(**{"slots": max(1, slots)} | info)
        waiting = self.free_slots
        for _ in range(slots):
            worker.offer()
        # An offer may be taken at once: what counts is that all have arrived.
        await until(lambda: self.free_slots >= waiting + slots or bool(worker.runs))
        return worker

    async def shows(self, id: str, status: str) -> None:
        """Wait until a task has that status, while the clock ticks."""
        async with asyncio.timeout(10):
            while (task := self.scheduler.task(id)) is None or task.status(self.clock.now()) != status:
                await self.pass_time(0.05)

    @property
    def free_slots(self) -> int:
        return len(list(self.scheduler.pool.channel.waiting()))

    async def submit(self, id: str, zip: bytes = b"", is_awaited: bool = False, **values: Any) -> Spec:
        defaults = {"kind": "function", "entry": "run", "duration_s": 10.0, "memory_bytes": 1 << 20}
        defaults |= {"output_bytes": 100, "input": 7}
        defaults["arguments"] = (values.get("input", 7), 0)
        if zip:
            defaults |= {"files": digest_of(zip).hex(), "files_bytes": 1 << 20}
        spec = Spec(**{"id": id, "module": digest_of(NOOP).hex()} | defaults | values)

        async def keep() -> None:
            await store_module(self.modules, NOOP, self.scheduler.modules_in_use, spec.module)
            if zip:
                await store_files(self.modules, zip, self.scheduler.modules_in_use)

        await self.scheduler.submit(spec, keep, is_awaited=is_awaited)
        return spec

    async def pass_time(self, seconds: float) -> None:
        """Move the clock, and let everybody who waited for it act."""
        self.clock.advance(seconds)
        for _ in range(5):
            await asyncio.sleep(0)

    async def cancel(self, id: str) -> None:
        """Cancel a task, while the clock ticks."""
        cancelling = asyncio.ensure_future(self.scheduler.cancel(id))
        async with asyncio.timeout(10):
            while not cancelling.done():
                await self.pass_time(0.01)
        await cancelling

    async def ended(self, id: str) -> list[RunResult]:
        """Wait for a task's end, while the clock ticks, and return its results by run."""
        async with asyncio.timeout(10):
            while self.scheduler.task(id) is not None:
                await self.pass_time(0.01)
        row = await self.store.task(id)
        assert row is not None
        return await results_of(self.store, row.number, limit=1000, after=-1)

    def artifact_files(self) -> set[str]:
        return {path.name for path in (self.directory / "artifacts").iterdir()}


@contextlib.asynccontextmanager
async def open_gateway(directory: Path, **settings: Any) -> AsyncIterator[Gateway]:
    dispatch = DispatchConfig(attempt_slack_s=0.05, cancel_grace_s=5, **settings.pop("dispatch", {}))
    config = SchedulerConfig(**{"tasks_max": 3, "dispatch": dispatch} | settings.pop("config", {}))
    gateway = Gateway(directory, Network(), config, **settings)
    await gateway.start()
    try:
        yield gateway
    finally:
        await gateway.aclose()


async def next_run(worker: ScriptedWorker, count: int = 1) -> Run:
    """Wait until the worker has been asked for that many runs, and return the latest."""
    await until(lambda: len(worker.runs) >= count)
    return worker.runs[count - 1]
