"""A worker: offers its slots to a gateway and runs what comes, in the sandbox.

Holds the capabilities Worker, Program, Runs and Group, the offering of slots, reconnecting and leaving. Must not know
tasks, schedules or HTTP. It keeps one send outstanding on the gateway's channel for each free slot; a slot that was
taken is offered again when the gateway drops the Worker capability. While a run waits for what it called, its worker
lends one slot more (lending.py). Next in a task's life: running.py.
"""

import asyncio
import logging
import os
import platform
import random
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from ww import schema
from ww.caps.blob import fetch
from ww.clock import Clock
from ww.discovery.packet import Load
from ww.errors import (
    Disconnected,
    Draining,
    NotAdmitted,
    NotFound,
    Overloaded,
    PeerError,
    PeerMismatch,
    ProtocolMismatch,
    StoreError,
    UsageError,
    WwError,
)
from ww.identity import PeerId
from ww.lending import Lending, RunCalls
from ww.node import Node
from ww.outcome import read_invocation
from ww.records import LARGE_BYTES, NOTHING
from ww.rpc.connection import Connection
from ww.rpc.errors import call
from ww.rpc.loop import first_of
from ww.rpc.message import listed
from ww.running import Room, RunningGroup, answer
from ww.sandbox.inputs import GROUP_MAX, Inputs, Task
from ww.sandbox.invocation import RunLimits
from ww.sandbox.modules import ModuleCache
from ww.sandbox.pool import SandboxPool

log = logging.getLogger("ww.worker")

_BACKOFF_FIRST_S: Final = 0.1
_BACKOFF_MAX_S: Final = 5.0
# What somebody has to change before trying again can help.
_FOR_PEOPLE: Final = (NotAdmitted, PeerMismatch, ProtocolMismatch)
# How long the answer to a group waits for its end.
_ANSWER_WITHIN_S: Final = 0.03
# Outcomes of a group wait that long for others.
_LINGER_S: Final = 0.005
# Tasks whose files a lease may keep here, each as large as a run's input may be.
_TASKS_MAX: Final = 16


@dataclass(frozen=True, slots=True)
class WorkerConfig:
    """What a worker offers."""

    slots: int = field(default_factory=lambda: len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1)
    """Runs at once; one per core by default."""
    labels: Mapping[str, str] = field(default_factory=dict)
    """What the operator says of this machine."""
    grace_s: float = 30.0
    """Seconds running guests may take to finish when the worker stops."""
    module_bytes_max: int = 64 << 20
    """Size of one module."""
    held_bytes_max: int = 64 << 20
    """What one slot holds of runs that wait: inputs, and outcomes that the gateway has not asked for, each."""
    nesting: int = 4
    """How deep calls within calls go here."""


class Worker:
    """Serves one gateway until told to stop."""

    def __init__(
        self,
        node: Node,
        gateway: PeerId,
        sandbox: SandboxPool,
        modules: ModuleCache,
        clock: Clock,
        config: WorkerConfig,
    ) -> None:
        self._node = node
        self._gateway = gateway
        self.sandbox = sandbox
        self._modules = modules
        self._clock = clock
        self._config = config
        self._draining = asyncio.Event()
        self._offered: list[Slot] = []
        self._attempts: set[asyncio.Task[Any]] = set()
        self._sender: Any = None
        self.lending = Lending(config.slots, config.nesting, self._offer_lent, self.start)
        """The slots that runs lend while they wait."""

    def drain(self) -> None:
        """Take nothing new, let running guests finish, and make `serve` return."""
        self._draining.set()

    @property
    def is_draining(self) -> bool:
        """Whether nothing new is taken."""
        return self._draining.is_set()

    @property
    def held_bytes_max(self) -> int:
        """What one slot may hold."""
        return self._config.held_bytes_max

    def load(self) -> Load:
        """Return how busy this worker is."""
        return Load(self._config.slots, self._config.slots - sum(slot.is_taken for slot in self._offered))

    async def serve(self) -> None:
        """Offer slots to the gateway, and again whenever it comes back, until `drain`."""
        backoff_s = _BACKOFF_FIRST_S
        said = ""
        while not self.is_draining:
            try:
                connection = await self._dial()
                if connection is None:
                    return
                async with connection:
                    backoff_s, said = _BACKOFF_FIRST_S, ""
                    await self._work(connection)
                    if not self.is_draining:
                        log.warning("the gateway is gone, trying to reach it again")
            except PeerError as error:
                if str(error) != said:
                    said = str(error)
                    log.warning("%s; trying again", said)
                if isinstance(error, _FOR_PEOPLE):
                    backoff_s = _BACKOFF_MAX_S
            # It may be heard of any moment.
            await first_of(self._wait(backoff_s * (0.5 + random.random() / 2)), self._node.book.heard_of(self._gateway))
            backoff_s = min(_BACKOFF_MAX_S, backoff_s * 2)

    async def _dial(self) -> Connection | None:
        """Connect to the gateway; None when draining begins before that."""
        dialling = asyncio.ensure_future(self._node.dial(self._gateway))
        draining = asyncio.ensure_future(self._draining.wait())
        try:
            await asyncio.wait((dialling, draining), return_when=asyncio.FIRST_COMPLETED)
            return await dialling if dialling.done() else None
        finally:
            draining.cancel()
            dialling.cancel()

    async def pause(self) -> None:
        """Wait before something that was refused is tried again."""
        await self._wait(_BACKOFF_MAX_S)

    async def _wait(self, seconds: float) -> None:
        """Wait that long, or until draining begins."""
        await first_of(self._clock.sleep(seconds), self._draining.wait())

    async def _work(self, connection: Connection) -> None:
        """Serve over one connection until it breaks or draining is done."""
        try:
            registry = await connection.connect("registry", schema.worker.Registry)
            sender = await connection.connect("channel", schema.channel.Sender)
        except NotFound:
            raise UsageError(f"{self._gateway} is no gateway: it takes no workers", "dial") from None
        self._sender = sender
        request = registry.register_request()
        self._describe(request.init("info"))
        registration = (await call(request.send())).registration
        log.info("joined gateway %s with %d slots", self._gateway, self._config.slots)
        lost = asyncio.ensure_future(connection.wait_closed())
        draining = asyncio.ensure_future(self._draining.wait())
        async with asyncio.TaskGroup() as group:
            slots = self._offered = [Slot(self) for _ in range(self._config.slots)]
            offering = [group.create_task(slot.offer_for_ever(sender)) for slot in slots]
            try:
                await asyncio.wait((lost, draining), return_when=asyncio.FIRST_COMPLETED)
                if not lost.done():
                    await self._leave(registration, slots, offering, lost)
            finally:
                lost.cancel()
                draining.cancel()
                self._sender = None
                for task in (*offering, *self._attempts):
                    task.cancel()

    def send_offer(self, sender: Any, slot: "WorkerServer") -> Any:
        """Send a slot into the gateway's channel; return the promise that it is taken."""
        request = sender.send_request()
        offer = schema.worker.Offer.new_message()
        offer.depth = slot.depth
        offer.worker = slot
        request.value = offer
        return request.send()

    async def _offer_lent(self, depth: int, goes_on: asyncio.Event) -> bool:
        """See Lending. Also while draining: what is deeper has to end before the runs do that wait for it."""
        if self._sender is None:
            return False
        released = asyncio.Event()
        sending = asyncio.ensure_future(call(self.send_offer(self._sender, WorkerServer(self, released, depth))))
        await first_of(sending, goes_on.wait())
        error = sending.exception() if sending.done() and not sending.cancelled() else None
        del sending
        if isinstance(error, Disconnected):
            return False
        if error is not None:
            log.warning("the gateway does not take an offer: %s", error)
            await first_of(self._clock.sleep(_BACKOFF_MAX_S), goes_on.wait())
        # Not before: what was taken at the last moment is in use.
        await released.wait()
        return True

    async def _leave(
        self, registration: Any, slots: list["Slot"], offering: list[asyncio.Task[None]], lost: asyncio.Future[None]
    ) -> None:
        """Say goodbye, then wait for the slots in use to be given back."""
        for slot, task in zip(slots, offering, strict=True):
            if not slot.is_taken:
                task.cancel()
        try:
            await call(registration.leave())
        except WwError:
            return
        busy = [task for slot, task in zip(slots, offering, strict=True) if slot.is_taken]
        if not (busy or self._attempts):
            return
        log.info("stopping: slots in use: %d, waiting up to %g s", len(busy), self._config.grace_s)
        finished = asyncio.ensure_future(self._finished(busy))
        try:
            await asyncio.wait((lost, finished), timeout=self._config.grace_s, return_when=asyncio.FIRST_COMPLETED)
        finally:
            finished.cancel()

    async def _finished(self, busy: list[asyncio.Task[None]]) -> None:
        """Wait for the slots in use, and those that were lent: what is on these may be for runs of other workers."""
        while waiting := [*(task for task in busy if not task.done()), *self._attempts]:
            await asyncio.wait(waiting)

    def _describe(self, info: Any) -> None:
        info.kind = "native"
        info.slots = self._config.slots
        info.cpus = float(os.cpu_count() or 1)
        info.memoryBytes = _memory_bytes()
        info.host = platform.node()
        info.labels = [{"key": key, "value": value} for key, value in self._config.labels.items()]

    async def prepare(self, digest: bytes, blob: Any, *, metered: bool) -> float:
        """Have a module ready to run, reading its bytes from blob when they are not here; return the seconds that
        compiling took. metered is for runs that count fuel or are deterministic.

        Raises BadModule when they do not compile or are not what digest names, StoreError when the cache takes no more.
        """
        if self.sandbox.is_prepared(digest, metered=metered):
            return 0.0
        try:
            if not await self._modules.has(digest):
                async with self._modules.writer(digest) as writer:
                    async for data in fetch(blob, bytes_max=self._config.module_bytes_max):
                        await writer.write(data)
        except OSError as error:
            raise StoreError(f"the worker's module cache: {(error.strerror or 'unusable').lower()}") from None
        return await self.sandbox.prepare(digest, metered=metered)

    def start(self, coroutine: Any) -> "asyncio.Task[Any]":
        """Run a guest beside the others, until it ends, is cancelled or the worker stops."""
        task = asyncio.get_running_loop().create_task(coroutine)
        self._attempts.add(task)
        task.add_done_callback(self._attempts.discard)
        return task


class Slot:
    """One slot of a worker: free and offered, or taken."""

    def __init__(self, worker: Worker) -> None:
        self.worker = worker
        self.is_taken = False

    async def offer_for_ever(self, sender: Any) -> None:
        """Send an offer, wait for the slot to be given back, and so on until draining or the connection's end."""
        while not self.worker.is_draining:
            released = asyncio.Event()
            try:
                sending = self.worker.send_offer(sender, WorkerServer(self.worker, released))
                await call(sending)
                self.is_taken = True
                del sending
                await released.wait()
            except Disconnected:
                return
            except WwError as error:
                log.warning("the gateway does not take an offer: %s", error)
                await self.worker.pause()
            finally:
                self.is_taken = False


class WorkerServer(schema.worker.Worker.Server):  # type: ignore[misc]
    """The lease on one slot. Its last reference going is how the slot comes back."""

    def __init__(self, worker: Worker, released: asyncio.Event, depth: int = 0) -> None:
        """depth: the least one of a run that it takes, above 0 of a slot that is lent."""
        self.depth = depth
        self._worker = worker
        self._released = released
        self._room = Room(worker.held_bytes_max)
        self._tasks_bytes = 0

    async def load_context(self, context: Any) -> None:
        digest, blob = context.params.digest, context.params.blob
        if len(digest) != 32:
            raise UsageError(f"digest: {len(digest)} bytes, a sha256 has 32")
        compile_s = await self._worker.prepare(digest, blob, metered=context.params.metered)
        context.results.program = ProgramServer(self, digest, compile_s)

    @property
    def sandbox(self) -> SandboxPool:
        """Where runs go."""
        return self._worker.sandbox

    def start(
        self,
        digest: bytes,
        task: Task,
        inputs: Inputs,
        large: Sequence[Any],
        limits: RunLimits,
        compile_s: float,
        calls: RunCalls | None = None,
    ) -> RunningGroup:
        """Begin runs, which go when those before them have ended. calls is what the only run may ask of the cluster.

        Raises Draining when the worker is stopping, Overloaded when too much waits, UsageError when more is given to a
        guest than this node takes.
        """
        if self._worker.is_draining and not self.depth:
            raise Draining("this worker is stopping")
        if calls is not None and len(inputs) > 1:
            raise UsageError(f"calls: given with {len(inputs)} runs; expected one")
        group = self.sandbox.group(digest, task, inputs, limits, compile_s=compile_s, calls=calls)
        bytes_max = self.sandbox.limits.input_bytes_max + LARGE_BYTES
        running = RunningGroup(self._room, group, inputs, large, bytes_max)
        beginning = self._worker.start(running.run())
        running.begins(beginning)
        if calls is not None:
            beginning.add_done_callback(lambda _: calls.close())
        return running

    def calls_of(self, params: Any, depth: int) -> RunCalls | None:
        """Return what a run of that depth may ask of the cluster, where it is given anything."""
        return RunCalls(params.calls, depth, self._worker.lending) if params._has("calls") else None

    def keep_task(self, task: Task) -> None:
        """Hold what a task's runs have in common, until `drop_task`. Overloaded when there is too much of that."""
        most = _TASKS_MAX * self.sandbox.limits.input_bytes_max
        if self._tasks_bytes > most:
            raise Overloaded(f"the tasks on a slot may have {most} bytes, they have {self._tasks_bytes}")
        self._tasks_bytes += len(task.record)

    def drop_task(self, task: Task) -> None:
        """Hold it no more."""
        self._tasks_bytes -= len(task.record)

    def __del__(self) -> None:
        self._released.set()


class ProgramServer(schema.worker.Program.Server):  # type: ignore[misc]
    """A module that is ready, on one slot."""

    def __init__(self, slot: WorkerServer, digest: bytes, compile_s: float) -> None:
        self._slot = slot
        self._digest = digest
        self._compile_s = compile_s

    async def task_context(self, context: Any) -> None:
        message = context.params.invocation
        invocation = read_invocation(message)
        limits = self._slot.sandbox.limits.of_run(message.limits, invocation)
        context.results.runs = RunsServer(self._slot, self, Task.of(invocation), limits, message.depth)

    async def run_context(self, context: Any) -> None:
        message = context.params.invocation
        invocation = read_invocation(message)
        limits = self._slot.sandbox.limits.of_run(message.limits, invocation)
        calls = self._slot.calls_of(context.params, message.depth)
        await _answer(context.results, self.start(Task.of(invocation), Inputs(NOTHING), (), limits, calls))

    def start(
        self, task: Task, inputs: Inputs, large: Sequence[Any], limits: RunLimits, calls: RunCalls | None
    ) -> RunningGroup:
        """Begin runs. See WorkerServer.start."""
        # The first run is the one that waited for it.
        compile_s, self._compile_s = self._compile_s, 0.0
        return self._slot.start(self._digest, task, inputs, large, limits, compile_s, calls)


class RunsServer(schema.worker.Runs.Server):  # type: ignore[misc]
    """What all runs of one task have in common, on one slot."""

    def __init__(self, slot: WorkerServer, program: ProgramServer, task: Task, limits: RunLimits, depth: int) -> None:
        slot.keep_task(task)
        self._slot = slot
        self._program = program
        self._task = task
        self._limits = limits
        self._depth = depth

    async def start_context(self, context: Any) -> None:
        inputs = Inputs(context.params.inputs)
        large = listed("large", context.params.large, GROUP_MAX)
        if len(large) != len(inputs.missing):
            raise UsageError(f"large: {len(large)} are given, records refer to {len(inputs.missing)}")
        calls = self._slot.calls_of(context.params, self._depth)
        await _answer(context.results, self._program.start(self._task, inputs, large, self._limits, calls))

    def __del__(self) -> None:
        if hasattr(self, "_slot"):  # it was taken in
            self._slot.drop_task(self._task)


class GroupServer(schema.worker.Group.Server):  # type: ignore[misc]
    """Runs under way. When nobody holds it any more, nobody could learn their outcomes, and they are stopped."""

    def __init__(self, group: RunningGroup) -> None:
        self._group = group

    async def more_context(self, context: Any) -> None:
        await self._group.wait(None)
        if not self._group.has_ended:
            await self._group.wait_for_end(_LINGER_S)
        answer(context.results, self._group)

    async def cancel_context(self, context: Any) -> None:
        data = context.params.runs
        if len(data) % 4 or len(data) > 4 * GROUP_MAX:
            raise UsageError("runs: expected uint32 each, no more than a group has")
        self._group.cancel(struct.unpack(f"<{len(data) // 4}I", data))

    def __del__(self) -> None:
        self._group.close()


async def _answer(results: Any, group: RunningGroup) -> None:
    """Answer the start of a group, once it has ended or soon."""
    try:
        await group.wait(_ANSWER_WITHIN_S)
        answer(results, group)
    except BaseException:  # the connection broke, or there is nothing more to be told
        group.close()
        raise
    if not results.ended:
        results.group = GroupServer(group)


def _memory_bytes() -> int:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError):
        return 0
