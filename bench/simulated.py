"""Workers without a sandbox, for what a gateway alone costs: the wire and its messages are the real ones.

    python bench/simulated.py PEER_ID ADDRESS SLOTS [WORKERS SECONDS]     in a process of its own, until stdin is closed

Holds the worker's side of schema/worker.capnp. As a program it prints its peer id, and then a line for each thousand
runs that it answered. A run answers with its first argument: at once, in the time of a short one; or, of that many
workers, each with a connection of its own, after so many seconds, in which its slot does nothing else. Then a line says
when all have joined.
"""

import asyncio
import struct
import sys
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).resolve().parent.parent
sys.path[0] = str(ROOT)

from ww import schema  # noqa: E402
from ww.identity import Identity, PeerId  # noqa: E402
from ww.net.multiaddr import Multiaddr  # noqa: E402
from ww.net.tls import TlsTransport  # noqa: E402
from ww.net.transport import Transport  # noqa: E402
from ww.records import NOTHING, read_input, spans, write_outcome  # noqa: E402
from ww.rpc.errors import call  # noqa: E402
from ww.rpc.loop import run  # noqa: E402
from ww.rpc.vat import Vat  # noqa: E402
from ww.sandbox.invocation import Result  # noqa: E402

SAID_EVERY: Final = 1000
JOINED: Final = "joined"
_WALL_S: Final = 1e-4
# Workers that join at a time.
_JOINING_MAX: Final = 16


class SimulatedWorker:
    """A peer with slots. Open it with `async with`."""

    def __init__(
        self,
        identity: Identity,
        transport: Transport,
        on_run: Callable[[int], None] = lambda runs: None,
        run_s: float = 0.0,
    ):
        """Dial over that transport; on_run is told of each run, and how many there were with it. Each takes run_s."""
        self.peer_id = identity.peer_id
        self.run_s = run_s
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

    def record(self, place: int, value: int) -> bytes:
        """Return the outcome of a run that ends now."""
        self.runs += 1
        self._on_run(self.runs)
        return write_outcome(place, Result(value=value, wall_s=self.run_s or _WALL_S), memory_limit_bytes=0)


class _Slot(schema.worker.Worker.Server):  # type: ignore[misc]
    def __init__(self, worker: SimulatedWorker) -> None:
        self.worker = worker
        self.turn = asyncio.Lock()
        self.free_at = 0.0

    async def load_context(self, context: Any) -> None:
        context.results.program = _Program(self)

    def __del__(self) -> None:
        self.worker.offer()


class _Program(schema.worker.Program.Server):  # type: ignore[misc]
    def __init__(self, slot: _Slot) -> None:
        self._slot = slot

    async def run_context(self, context: Any) -> None:
        arguments = context.params.invocation.arguments
        _Runs(self._slot, arguments[0] if len(arguments) else 0).start(context, NOTHING)

    async def task_context(self, context: Any) -> None:
        arguments = context.params.invocation.arguments
        context.results.runs = _Runs(self._slot, arguments[0] if len(arguments) else 0)


class _Runs(schema.worker.Runs.Server):  # type: ignore[misc]
    def __init__(self, slot: _Slot, argument: int) -> None:
        self._slot, self._argument = slot, argument

    async def start_context(self, context: Any) -> None:
        self.start(context, context.params.inputs)

    def start(self, context: Any, inputs: bytes) -> None:
        """Begin a group of runs."""
        given = (read_input(inputs, start, end).arguments for start, end in spans(inputs))
        values = [arguments[0] if arguments else self._argument for arguments in given]
        if self._slot.worker.run_s:
            context.results.group = _Group(self._slot, values)
            return
        records = [self._slot.worker.record(place, value) for place, value in enumerate(values)]
        context.results.outcomes, context.results.ended = b"".join(records), True


class _Group(schema.worker.Group.Server):  # type: ignore[misc]
    """Runs that take their time."""

    def __init__(self, slot: _Slot, values: Sequence[int]) -> None:
        self._left = dict(enumerate(values))
        self._records: list[bytes] = []
        self._changed = asyncio.Event()
        self._running = asyncio.ensure_future(self._run(slot))  # to its end: it is short, and nothing depends on it

    async def _run(self, slot: _Slot) -> None:
        loop, worker = asyncio.get_running_loop(), slot.worker
        came_at = loop.time()
        async with slot.turn:
            while self._left:
                place, value = next(iter(self._left.items()))
                # The next begins when this one should have ended: what this process is late is no worker's time.
                slot.free_at = max(slot.free_at, came_at) + worker.run_s
                await asyncio.sleep(slot.free_at - loop.time())
                if self._left.pop(place, None) is not None:
                    self._records.append(worker.record(place, value))
                    self._changed.set()

    async def more_context(self, context: Any) -> None:
        await self._changed.wait()
        self._changed.clear()
        context.results.outcomes, context.results.ended = b"".join(self._records), not self._left
        self._records.clear()

    async def cancel_context(self, context: Any) -> None:
        places = struct.unpack(f"<{len(context.params.runs) // 4}I", context.params.runs)
        for place in places or list(self._left):
            if self._left.pop(place, None) is not None:
                self._records.append(write_outcome(place, Result(reason="cancelled"), memory_limit_bytes=0))
                self._changed.set()


async def _main(peer: str, address: str, slots: str, workers: str = "", seconds: str = "0") -> int:
    total = 0

    def said(runs: int) -> None:
        nonlocal total
        total += 1
        if total % SAID_EVERY == 0:
            print(total, flush=True)

    gate = asyncio.Semaphore(_JOINING_MAX)
    async with AsyncExitStack() as stack:

        async def join(identity: Identity) -> None:
            async with gate:
                worker = SimulatedWorker(identity, TlsTransport(identity), said, float(seconds))
                await stack.enter_async_context(worker)
                await worker.join(PeerId.parse(peer), Multiaddr.parse(address), int(slots))

        identities = [Identity.generate() for _ in range(int(workers or 1))]
        print(identities[0].peer_id, flush=True)
        await asyncio.gather(*map(join, identities))
        if workers:
            print(JOINED, flush=True)
        await asyncio.to_thread(sys.stdin.read)
    return 0


if __name__ == "__main__":
    sys.exit(run(lambda: _main(*sys.argv[1:6])))
