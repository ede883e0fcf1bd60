"""A worker whose every answer a test decides: for what a real one does seldom, or never."""

import asyncio
from typing import Any

from ww import schema
from ww.caps.blob import fetch
from ww.errors import WwError
from ww.identity import Identity
from ww.net.memory import MemoryTransport, Network
from ww.net.multiaddr import Multiaddr
from ww.rpc.errors import call
from ww.rpc.vat import Vat


class Run:
    """One run that the gateway asked for."""

    def __init__(self, invocation: Any) -> None:
        self.argument = invocation.arguments[0] if len(invocation.arguments) else 0
        # What is not there at all is not in to_dict.
        self.invocation: dict[str, Any] = {"arguments": [], "args": [], "context": b""} | invocation.to_dict()
        self.outcome: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self.cancels = 0

    def end(self, **outcome: Any) -> None:
        """Answer with this outcome; without anything, one that took a second."""
        values = {"reason": "ok", "hasResult": True, "result": self.argument, "wallSeconds": 1.0} | outcome
        self.outcome.set_result(schema.worker.Outcome.new_message(**values))

    def fail(self, error: Exception) -> None:
        self.outcome.set_exception(error)


class ScriptedWorker:
    """A peer that registers, offers slots and keeps a list of what it is asked to run."""

    def __init__(self, network: Network) -> None:
        self._identity = Identity.generate()
        self.peer_id = str(self._identity.peer_id)
        self._vat = Vat(self._identity, MemoryTransport(network, self._identity))
        self._connection: Any = None
        self.runs: list[Run] = []
        self.loads = 0
        self.module = b""
        self.load_error: WwError | None = None
        self.run_error: WwError | None = None
        self.is_quick = False
        """Answer every run at once, as a short one, and offer a slot again when it comes back."""
        self.offers_again = False
        """Offer a slot again when it comes back."""
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

    async def register(self, **info: Any) -> Any:
        answer = await call(self._registry.register(info={"kind": "scripted", "slots": 1} | info))
        self.registration = answer.registration
        return self.registration

    def offer(self) -> "asyncio.Future[Any]":
        """Send one slot into the channel."""
        offer = schema.worker.Offer.new_message()
        offer.worker = _Slot(self)
        sending = asyncio.ensure_future(call(self._sender.send(value=offer)))
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
        if (self._worker.is_quick or self._worker.offers_again) and self._worker.is_connected:
            self._worker.offer()


class _Program(schema.worker.Program.Server):  # type: ignore[misc]
    def __init__(self, worker: ScriptedWorker) -> None:
        self._worker = worker

    async def run_context(self, context: Any) -> None:
        if self._worker.run_error is not None:
            raise self._worker.run_error
        run = Run(context.params.invocation)
        self._worker.runs.append(run)
        if self._worker.is_quick:
            await asyncio.sleep(0)
            run.end(wallSeconds=0.0001)
            context.results.ended, context.results.outcome = True, run.outcome.result()
        else:
            context.results.attempt = _Attempt(run)


class _Attempt(schema.worker.Attempt.Server):  # type: ignore[misc]
    def __init__(self, run: Run) -> None:
        self._run = run

    async def outcome_context(self, context: Any) -> None:
        context.results.outcome = await asyncio.shield(self._run.outcome)

    async def cancel_context(self, context: Any) -> None:
        self._run.cancels += 1
        if not self._run.outcome.done():
            self._run.end(reason="cancelled")
