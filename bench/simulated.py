"""Workers that answer every run at once, for what a gateway alone costs: the wire and its messages are the real ones.

    python bench/simulated.py PEER_ID ADDRESS SLOTS      a worker in a process of its own, until its stdin is closed

Holds the worker's side of schema/worker.capnp without a sandbox. As a program it prints its peer id, and then a line
for each thousand runs that it answered. A run answers with its first argument, in the time of a short one.
"""

import asyncio
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).resolve().parent.parent
sys.path[0] = str(ROOT)

from ww import schema  # noqa: E402
from ww.identity import Identity, PeerId  # noqa: E402
from ww.net.multiaddr import Multiaddr  # noqa: E402
from ww.net.tls import TlsTransport  # noqa: E402
from ww.net.transport import Transport  # noqa: E402
from ww.records import read_input, spans, write_outcome  # noqa: E402
from ww.rpc.errors import call  # noqa: E402
from ww.rpc.loop import run  # noqa: E402
from ww.rpc.vat import Vat  # noqa: E402
from ww.sandbox.invocation import Result  # noqa: E402

SAID_EVERY: Final = 1000
_WALL_S: Final = 1e-4


class SimulatedWorker:
    """A peer with slots that take no time. Open it with `async with`."""

    def __init__(self, identity: Identity, transport: Transport, on_run: Callable[[int], None] = lambda runs: None):
        """Dial over that transport; on_run is told of each run, and how many there were with it."""
        self.peer_id = identity.peer_id
        self._vat = Vat(identity, transport)
        self._on_run = on_run
        self._sends: set[asyncio.Future[Any]] = set()
        self._is_open = True
        self.runs = 0

    async def __aenter__(self) -> "SimulatedWorker":
        await self._vat.__aenter__()
        return self

    async def __aexit__(self, *_: object) -> None:
        self._is_open = False
        await self._vat.__aexit__(None, None, None)
        await asyncio.gather(*self._sends, return_exceptions=True)

    async def join(self, peer_id: PeerId, address: Multiaddr, slots: int) -> None:
        """Register with a gateway and offer that many slots, for as long as this is open."""
        self._connection = await self._vat.dial(peer_id, [address])
        self._sender = await self._connection.connect("channel", schema.channel.Sender)
        registry = await self._connection.connect("registry", schema.worker.Registry)
        info = {"kind": "simulated", "slots": slots, "cpus": float(slots), "memoryBytes": 1 << 40}
        self._registration = (await call(registry.register(info=info))).registration
        for _ in range(slots):
            self.offer()

    def offer(self) -> None:
        """Send a slot into the channel, unless this is closed."""
        if not self._is_open:
            return
        offer = schema.worker.Offer.new_message()
        offer.worker = _Slot(self)
        sending = asyncio.ensure_future(call(self._sender.send(value=offer)))
        self._sends.add(sending)
        sending.add_done_callback(self._sent)

    def _sent(self, sending: "asyncio.Future[Any]") -> None:
        self._sends.discard(sending)
        if not sending.cancelled() and (error := sending.exception()) is not None and self._is_open:
            raise error

    def answer(self, context: Any, argument: int) -> None:
        """Answer a group of runs."""
        records = []
        for place, (start, end) in enumerate(spans(context.params.inputs)):
            arguments = read_input(context.params.inputs, start, end).arguments
            result = Result(value=arguments[0] if arguments else argument, wall_s=_WALL_S)
            records.append(write_outcome(place, result, memory_limit_bytes=0))
            self.runs += 1
            self._on_run(self.runs)
        context.results.outcomes, context.results.ended = b"".join(records), True


class _Slot(schema.worker.Worker.Server):  # type: ignore[misc]
    def __init__(self, worker: SimulatedWorker) -> None:
        self._worker = worker

    async def load_context(self, context: Any) -> None:
        context.results.program = _Program(self._worker)

    def __del__(self) -> None:
        self._worker.offer()


class _Program(schema.worker.Program.Server):  # type: ignore[misc]
    def __init__(self, worker: SimulatedWorker) -> None:
        self._worker = worker

    async def task_context(self, context: Any) -> None:
        arguments = context.params.invocation.arguments
        context.results.runs = _Runs(self._worker, arguments[0] if len(arguments) else 0)


class _Runs(schema.worker.Runs.Server):  # type: ignore[misc]
    def __init__(self, worker: SimulatedWorker, argument: int) -> None:
        self._worker, self._argument = worker, argument

    async def start_context(self, context: Any) -> None:
        self._worker.answer(context, self._argument)


async def _main(peer: str, address: str, slots: str) -> int:
    def said(runs: int) -> None:
        if runs % SAID_EVERY == 0:
            print(runs, flush=True)

    identity = Identity.generate()
    async with SimulatedWorker(identity, TlsTransport(identity), said) as worker:
        print(worker.peer_id, flush=True)
        await worker.join(PeerId.parse(peer), Multiaddr.parse(address), int(slots))
        await asyncio.to_thread(sys.stdin.read)
    return 0


if __name__ == "__main__":
    sys.exit(run(lambda: _main(*sys.argv[1:4])))
