"""A worker whose every answer a test decides: for what a real one does seldom, or never."""

import asyncio
import struct
from typing import Any

from ww import schema
from ww.caps.blob import fetch
from ww.errors import WwError
from ww.identity import Identity
from ww.net.memory import MemoryTransport, Network
from ww.net.multiaddr import Multiaddr
from ww.python.request import Answer, read_answers, write_requests
from ww.records import NOTHING, Input, read_input, spans, write_outcome
from ww.rpc.errors import call
from ww.rpc.vat import Vat
from ww.sandbox.invocation import Result


class Run:
    """One run that the gateway asked for."""

    def __init__(self, invocation: Any, given: Input) -> None:
        # What is not there at all is not in to_dict.
        self.invocation: dict[str, Any] = {"arguments": [], "args": [], "context": b""} | invocation.to_dict()
        self.invocation |= {name: value for name, value in given._asdict().items() if value}
        self.given = given
        arguments = self.invocation["arguments"]
        self.argument = arguments[0] if arguments else 0
        self.outcome: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        self.calls: Any = None
        """A client of Calls, where the run was granted anything."""
        self.memory_limit_bytes = self.queue_s = self.compile_s = 0
        self.is_told = False
        self.place: int | None = None
        """In its group, where the worker says another one than it is."""
        self.cancels = 0

    def end(self, *, queue_s: float = 0.0, compile_s: float = 0.0, memory_limit_bytes: int = 0, **outcome: Any) -> None:
        """Answer with these fields of a Result; without anything, one that took a second."""
        self.rest = {"queue_s": queue_s, "compile_s": compile_s, "memory_limit_bytes": memory_limit_bytes}
        self.outcome.set_result(Result(**{"value": self.argument, "wall_s": 1.0} | outcome))

    async def call(self, name: str, *requests: bytes) -> list[Answer]:
        """Have a function called that the run was granted."""
        return read_answers((await self.call_raw(name, write_requests(requests))).answers)

    async def call_raw(self, name: str, requests: bytes) -> Any:
        request = self.calls.call_request()
        request.name, request.requests = name, requests
        return await call(request.send())

    def fail(self, error: Exception) -> None:
        self.outcome.set_exception(error)


class ScriptedWorker:
    """A peer that registers, offers slots and keeps a list of what it is asked to run."""

    def __init__(self, network: Network, identity: Identity | None = None) -> None:
        self._identity = identity or Identity.generate()
        self.peer_id = str(self._identity.peer_id)
        self._vat = Vat(self._identity, MemoryTransport(network, self._identity))
        self._connection: Any = None
        self.runs: list[Run] = []
        self.groups: list[list[Run]] = []
        """The same, as they came."""
        self.tasks = 0
        self.loads = 0
        self.module = b""
        self.load_error: WwError | None = None
        self.run_error: WwError | None = None
        self.is_quick = False
        """Answer every run at once, as a short one, and offer a slot again when it comes back."""
        self.lie = 0
        """What is added to each result of a quick one."""
        self.offers_again = False
        """Offer a slot again when it comes back."""
        self.is_offering = False
        self.leases_ended = 0
        self.is_connected = False
        self._sends: list[asyncio.Future[Any]] = []

    async def __aenter__(self) -> "ScriptedWorker":
        await self._vat.__aenter__()
        return self

    async def __aexit__(self, *_: object) -> None:
        self.is_connected = False
        await self._vat.__aexit__(None, None, None)
        await asyncio.gather(*self._sends, return_exceptions=True)

    async def connect(self, address: Multiaddr) -> None:
        assert address.peer_id is not None
        self._connection = await self._vat.dial(address.peer_id, [address])
        self.is_connected = True
        self._sender = await self._connection.connect("channel", schema.channel.Sender)
        self._registry = await self._connection.connect("registry", schema.worker.Registry)

    async def register(self, pulse: Any | None = None, **info: Any) -> Any:
        given = {} if pulse is None else {"pulse": pulse}
        answer = await call(self._registry.register(info={"kind": "scripted", "slots": 1} | info, **given))
        self.registration = answer.registration
        return self.registration

    def offer(self, depth: int = 0) -> "asyncio.Future[Any]":
        """Send one slot into the channel, lent by a run that is one less deep where depth is above 0."""
        offer = schema.worker.Offer.new_message()
        offer.depth = depth
        offer.worker = _Slot(self)
        self.is_offering = True
        sending = asyncio.ensure_future(call(self._sender.send(value=offer)))
        del offer
        self.is_offering = False
        self._sends.append(sending)
        return sending

    async def send_text(self) -> None:
        """Send into the channel what is no offer."""
        await call(self._sender.send(value="no offer"))

    def disconnect(self) -> None:
        self.is_connected = False
        self._connection.close()

    @property
    def open_runs(self) -> list[Run]:
        return [run for run in self.runs if not run.outcome.done()]


class _Slot(schema.worker.Worker.Server):  # type: ignore[misc]
    def __init__(self, worker: ScriptedWorker) -> None:
        self._worker = worker

    async def load_context(self, context: Any) -> None:
        self._worker.loads += 1
        blob = context.params.blob
        if self._worker.load_error is not None:
            # A new one: with its traceback the one kept would hold this slot.
            raise type(self._worker.load_error)(str(self._worker.load_error))
        self._worker.module = b"".join([data async for data in fetch(blob, bytes_max=1 << 20)])
        context.results.program = _Program(self._worker)

    def __del__(self) -> None:
        self._worker.leases_ended += 1
        if self._worker.is_offering:
            self._worker.is_connected = False  # the offer failed at once, and would for ever
        if (self._worker.is_quick or self._worker.offers_again) and self._worker.is_connected:
            self._worker.offer()


class _Program(schema.worker.Program.Server):  # type: ignore[misc]
    def __init__(self, worker: ScriptedWorker) -> None:
        self._worker = worker

    async def task_context(self, context: Any) -> None:
        self._worker.tasks += 1
        context.results.runs = _Runs(self._worker, context.params.invocation.as_builder())

    async def run_context(self, context: Any) -> None:
        await _Runs(self._worker, context.params.invocation.as_builder()).start(context, NOTHING, ())


class _Runs(schema.worker.Runs.Server):  # type: ignore[misc]
    def __init__(self, worker: ScriptedWorker, invocation: Any) -> None:
        self._worker = worker
        self._invocation = invocation

    async def start_context(self, context: Any) -> None:
        await self.start(context, context.params.inputs, context.params.large)

    async def start(self, context: Any, data: bytes, blobs: Any) -> None:
        if self._worker.run_error is not None:
            raise self._worker.run_error
        large, runs = iter(blobs), []
        for start, end in spans(data):
            if start == end:
                record = b"".join([piece async for piece in fetch(next(large), bytes_max=64 << 20)])
                runs.append(Run(self._invocation, read_input(record, 0)))
            else:
                runs.append(Run(self._invocation, read_input(data, start, end)))
        if context.params._has("calls"):
            assert len(runs) == 1
            runs[0].calls = context.params.calls
        self._worker.runs += runs
        self._worker.groups.append(runs)
        group = _Group(runs)
        if self._worker.is_quick:
            await asyncio.sleep(0)
            for run in runs:
                run.end(wall_s=0.0001, value=run.argument + self._worker.lie)
            await group.more_context(context)
        else:
            context.results.group = group


class _Group(schema.worker.Group.Server):  # type: ignore[misc]
    def __init__(self, runs: list[Run]) -> None:
        self._runs = runs

    async def more_context(self, context: Any) -> None:
        left = [run for run in self._runs if not run.is_told]
        await asyncio.wait([run.outcome for run in left], return_when=asyncio.FIRST_COMPLETED)
        records = []
        for place, run in enumerate(self._runs):
            if not run.is_told and run.outcome.done():
                records.append(
                    write_outcome(place if run.place is None else run.place, run.outcome.result(), **run.rest)
                )
                run.is_told = True
        context.results.outcomes = b"".join(records)
        context.results.ended = all(run.is_told for run in self._runs)

    async def cancel_context(self, context: Any) -> None:
        data = context.params.runs
        for place in struct.unpack(f"<{len(data) // 4}I", data) or range(len(self._runs)):
            run = self._runs[place]
            run.cancels += 1
            if not run.outcome.done():
                run.end(reason="cancelled")
