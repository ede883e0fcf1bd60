"""A worker with its real sandbox, against a gateway that asks for what a test says, in one process."""

import asyncio
import contextlib
import shutil
import struct
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import until
from tests.guests import digest_of, guest
from ww import schema
from ww.caps.blob import BlobServer, BytesBlobServer, fetch
from ww.caps.channel import Channel
from ww.caps.facets import SenderServer
from ww.caps.value import Codec
from ww.clock import SystemClock
from ww.errors import BadModule, Draining, Overloaded, PeerError, UsageError
from ww.identity import Identity
from ww.net.memory import MemoryTransport, Network
from ww.node import LOOPBACK, Node, NodeConfig
from ww.records import BY_REFERENCE, REASONS, Input, RawOutcome, read_outcomes, write_input
from ww.rpc.errors import call
from ww.rpc.exports import Peer
from ww.rpc.vat import Vat
from ww.sandbox.limits import SandboxLimits
from ww.sandbox.modules import ModuleCache
from ww.sandbox.pool import SandboxPool
from ww.worker import Worker, WorkerConfig

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("kj_loop")]

SLOTS = 2
CANCELLED = REASONS.index("cancelled")
SAME = Input()


class Registry(schema.worker.Registry.Server):  # type: ignore[misc]
    """Takes any worker, and remembers what it said."""

    def __init__(self, gateway: "Gateway") -> None:
        self._gateway = gateway

    async def register_context(self, context: Any) -> None:
        info = context.params.info
        self._gateway.registered.append((info.kind, info.slots, {label.key: label.value for label in info.labels}))
        context.results.registration = Registration(self._gateway)


class Registration(schema.worker.Registration.Server):  # type: ignore[misc]
    def __init__(self, gateway: "Gateway") -> None:
        self._gateway = gateway

    async def leave_context(self, context: Any) -> None:
        self._gateway.goodbyes += 1


class LyingBlob(schema.worker.Blob.Server):  # type: ignore[misc]
    """Says what a test wants."""

    def __init__(self, size: int, data: bytes) -> None:
        self._size, self._data = size, data

    async def size_context(self, context: Any) -> None:
        context.results.bytes = self._size

    async def read_context(self, context: Any) -> None:
        context.results.data = self._data


class CountingBlob(BytesBlobServer):
    """Knows whether it was read."""

    is_read = False

    async def read_context(self, context: Any) -> None:
        self.is_read = True
        await super().read_context(context)


class Gateway:
    """A channel that workers send into, and what a lease is used for."""

    def __init__(self, network: Network, modules: Path) -> None:
        self.registered: list[Any] = []
        self.goodbyes = 0
        self.channel: Channel[Any] = Channel()
        self.channel.add_sender()  # exported by name
        self._identity = Identity.generate()
        self.vat = Vat(self._identity, MemoryTransport(network, self._identity))
        self._modules = modules
        self.network = network
        self.peers: list[Peer] = []
        self.depths: list[int] = []
        """Of the offers, as they came."""

    async def listen(self) -> Any:
        self.vat.export("registry", lambda peer: Registry(self))
        self.vat.export("channel", self._sender)
        return (await self.vat.listen(LOOPBACK))[0].of_peer(self._identity.peer_id)

    def _sender(self, peer: Peer) -> Any:
        self.peers.append(peer)
        return SenderServer(self.channel, Codec(lambda *_: None, self._read))

    def _read(self, message: Any) -> Any:
        offer = message.value.as_struct(schema.worker.Offer)
        self.depths = [*self.depths, offer.depth]
        return offer.worker

    async def lease(self) -> Any:
        return await asyncio.wait_for(self.channel.receive(), 10)

    async def program(self, lease: Any, name: str) -> Any:
        path = self._modules / f"{name}.wasm"
        path.write_bytes(guest(name))
        return (await call(lease.load(digest=digest_of(guest(name)), blob=BlobServer(path)))).program

    @property
    def free(self) -> int:
        return len(list(self.channel.waiting()))


class Runs:
    """A group of runs that was asked for."""

    def __init__(self, promise: Any) -> None:
        self.promise = promise
        self.group = promise.group
        self.is_begun = False

    async def answer(self) -> tuple[list[RawOutcome], bool]:
        """Return what came, and whether that is all."""
        answer = await call(self.group.more() if self.is_begun else self.promise)
        self.is_begun = True
        found = read_outcomes(answer.outcomes)
        for blob in answer.large:
            found += read_outcomes(b"".join([piece async for piece in fetch(blob, bytes_max=64 << 20)]))
        return found, answer.ended

    async def outcomes(self) -> dict[int, RawOutcome]:
        """Return all, by place."""
        found: list[RawOutcome] = []
        has_ended = False
        while not has_ended:
            further, has_ended = await self.answer()
            found += further
        assert len({outcome.place for outcome in found}) == len(found)
        return {outcome.place: outcome for outcome in found}

    async def outcome(self) -> RawOutcome:
        return (await self.outcomes())[0]

    async def cancel(self, *places: int) -> None:
        await call(self.group.cancel(runs=struct.pack(f"<{len(places)}I", *places)))


def run(program: Any, *arguments: int, duration_s: float = 30.0, inputs: Sequence[Input] = (SAME,)) -> Runs:
    invocation = {"entry": "run", "arguments": arguments, "limits": {"durationSeconds": duration_s}}
    return Runs(program.task(invocation=invocation).runs.start(inputs=b"".join(map(write_input, inputs))))


def task_of(program: Any, output_bytes: int = 64 << 10, **say: Any) -> Any:
    return program.task(invocation={"limits": {"outputBytes": output_bytes}, **say}).runs


def start(runs: Any, inputs: bytes, large: Sequence[Any] = ()) -> Runs:
    return Runs(runs.start(inputs=inputs, large=large) if large else runs.start(inputs=inputs))


@contextlib.asynccontextmanager
async def a_worker(
    directory: Path, network: Network, gateway: Any, limits: SandboxLimits | None = None, **config: Any
) -> AsyncIterator[Worker]:
    identity = Identity.generate()
    node_config = NodeConfig(state_directory=directory / "state", addresses=(gateway,))
    modules = ModuleCache(directory / "cache", quota_bytes=1 << 30)
    async with (
        Node(node_config, MemoryTransport(network, identity), identity) as node,
        SandboxPool(modules, slots=SLOTS, limits=limits) as sandbox,
    ):
        worker = Worker(node, gateway.peer_id, sandbox, modules, SystemClock(), WorkerConfig(slots=SLOTS, **config))
        serving = asyncio.create_task(worker.serve())
        yield worker
        serving.cancel()
        await asyncio.wait((serving,))
        assert serving.cancelled() or serving.exception() is None


@pytest.fixture
async def gateway(tmp_path: Path) -> AsyncIterator[Gateway]:
    network = Network()
    gateway = Gateway(network, tmp_path)
    async with gateway.vat:
        address = await gateway.listen()
        async with a_worker(tmp_path, network, address, labels={"zone": "a"}, module_bytes_max=1 << 20) as worker:
            gateway.worker = worker  # type: ignore[attr-defined]
            await until(lambda: gateway.free == SLOTS)
            yield gateway


async def test_a_worker_says_who_it_is_and_offers_each_slot_once(gateway: Gateway) -> None:
    assert gateway.registered == [("native", SLOTS, {"zone": "a"})]
    lease = await gateway.lease()
    assert gateway.free == SLOTS - 1
    del lease
    await until(lambda: gateway.free == SLOTS)


async def test_a_short_run_is_answered_at_once_and_a_long_one_later(gateway: Gateway) -> None:
    lease = await gateway.lease()
    noop = await gateway.program(lease, "noop")
    at_once = [await run(noop, 5, 0).answer() for _ in range(20)]
    ((outcome,), has_ended) = max(at_once, key=lambda answer: answer[1])  # the machine may be busy for a while
    assert (has_ended, outcome.result, outcome.reason) == (True, 5, 0)
    spin = await gateway.program(lease, "spin")
    runs = run(spin, 300, 0)
    assert await runs.answer() == ([], False)
    assert (await runs.outcome()).result == 300


async def test_the_runs_of_a_lease_go_one_after_the_other(gateway: Gateway) -> None:
    lease = await gateway.lease()
    spin, noop = await gateway.program(lease, "spin"), await gateway.program(lease, "noop")
    first, behind = run(spin, 0, 0), run(noop, 1, 0)
    assert await first.answer() == ([], False)
    assert await behind.answer() == ([], False), "the second slot's process is not for this lease"
    await first.cancel()
    assert (await first.outcome()).reason == CANCELLED
    assert (await behind.outcome()).result == 1


async def test_a_run_that_waits_can_be_cancelled_before_it_begins(gateway: Gateway) -> None:
    lease = await gateway.lease()
    spin = await gateway.program(lease, "spin")
    first, second = run(spin, 0, 0), run(spin, 0, 0)
    await second.cancel()
    await second.cancel(0)
    assert (await second.outcome()).reason == CANCELLED
    del first


async def test_a_group_that_nobody_holds_is_stopped(gateway: Gateway) -> None:
    lease = await gateway.lease()
    spin, noop = await gateway.program(lease, "spin"), await gateway.program(lease, "noop")
    runs = run(spin, 0, 0)
    assert await runs.answer() == ([], False)
    del runs
    assert (await run(noop, 2, 0).outcome()).result == 2


async def test_runs_that_wait_for_a_slot_are_bounded(gateway: Gateway) -> None:
    lease = await gateway.lease()
    spin = await gateway.program(lease, "spin")
    runs = [run(spin, 0, 0, inputs=[SAME] * 256) for _ in range(9)]
    with pytest.raises(Overloaded, match="2048 runs may be on a slot, 2048 are and 256 are to come"):
        await asyncio.gather(*(each.answer() for each in runs))


@pytest.mark.parametrize(
    ("size", "data", "kind", "says"),
    [
        (1 << 30, b"", UsageError, "a blob of 1073741824 bytes"),
        (100, b"", PeerError, "ended early"),
        (8, b"\0asm\1\0\0\0", BadModule, "sha256"),
        (3, b"abc", BadModule, "sha256"),
    ],
)
async def test_bytes_that_are_not_what_was_promised(
    gateway: Gateway, size: int, data: bytes, kind: type[Exception], says: str
) -> None:
    lease = await gateway.lease()
    with pytest.raises(kind, match=says):
        await call(lease.load(digest=digest_of(guest("noop")), blob=LyingBlob(size, data)))
    program = await gateway.program(lease, "noop")
    assert (await run(program, 9, 0).outcome()).result == 9


async def test_a_cache_that_somebody_removed_is_made_again(gateway: Gateway, tmp_path: Path) -> None:
    lease = await gateway.lease()
    await gateway.program(lease, "noop")
    shutil.rmtree(tmp_path / "cache")
    spin = await gateway.program(lease, "spin")
    assert (await run(spin, 1, 0).outcome()).result == 1


async def test_a_digest_of_another_length(gateway: Gateway) -> None:
    lease = await gateway.lease()
    with pytest.raises(UsageError, match="a sha256 has 32"):
        await call(lease.load(digest=b"short", blob=LyingBlob(0, b"")))


async def test_a_worker_comes_back_and_its_guests_are_stopped(gateway: Gateway) -> None:
    worker: Worker = gateway.worker  # type: ignore[attr-defined]
    lease = await gateway.lease()
    runs = run(await gateway.program(lease, "spin"), 0, 0)
    assert await runs.answer() == ([], False)
    gateway.network.cut()
    await until(lambda: len(gateway.registered) == 2)
    await until(lambda: gateway.free == SLOTS)
    assert not worker.is_draining
    noop = await gateway.program(await gateway.lease(), "noop")
    assert (await run(noop, 3, 0).outcome()).result == 3


async def test_draining_lets_what_runs_finish_and_takes_nothing_new(gateway: Gateway) -> None:
    worker: Worker = gateway.worker  # type: ignore[attr-defined]
    lease = await gateway.lease()
    spin = await gateway.program(lease, "spin")
    runs = run(spin, 500, 0)
    assert await runs.answer() == ([], False)
    worker.drain()
    await until(lambda: gateway.free == 0 and gateway.goodbyes == 1)
    with pytest.raises(Draining):
        await run(spin, 1, 0).answer()
    assert (await runs.outcome()).result == 500


# Groups.


@pytest.fixture
async def small(tmp_path: Path) -> AsyncIterator[Gateway]:
    """A gateway whose worker takes little."""
    network = Network()
    gateway = Gateway(network, tmp_path)
    limits = SandboxLimits(input_bytes_max=3 << 20)
    async with gateway.vat:
        address = await gateway.listen()
        async with a_worker(tmp_path, network, address, limits, held_bytes_max=1 << 20):
            await until(lambda: gateway.free == SLOTS)
            yield gateway


async def test_outcomes_come_as_runs_end(gateway: Gateway) -> None:
    spin = await gateway.program(await gateway.lease(), "spin")
    runs = run(spin, 1, 0, inputs=[SAME, Input((2, 0)), Input((0, 0))])
    found: list[RawOutcome] = []
    while len(found) < 2:
        further, has_ended = await runs.answer()
        found += further
        assert not has_ended
    assert [(outcome.place, outcome.result) for outcome in found] == [(0, 1), (1, 2)]


async def test_runs_are_cancelled_one_by_one(gateway: Gateway) -> None:
    spin = await gateway.program(await gateway.lease(), "spin")
    runs = run(spin, 1, 0, inputs=[Input((0, 0)), SAME, Input((2, 0)), Input((0, 0)), Input((3, 0))])
    assert await runs.answer() == ([], False)
    await runs.cancel(1)
    await runs.cancel(0, 3, 77)
    outcomes = await runs.outcomes()
    reasons = [REASONS[outcomes[place].reason] for place in range(5)]
    assert reasons == ["cancelled", "cancelled", "ok", "cancelled", "ok"]
    assert (outcomes[2].result, outcomes[4].result) == (2, 3)


async def test_a_group_that_waits_can_be_cancelled_in_part(gateway: Gateway) -> None:
    lease = await gateway.lease()
    spin = await gateway.program(lease, "spin")
    first, second = run(spin, 0, 0), run(spin, 1, 0, inputs=[SAME] * 3)
    assert await second.answer() == ([], False)
    await second.cancel(0, 2)
    found, has_ended = await second.answer()
    assert ([(outcome.place, outcome.reason) for outcome in found], has_ended) == (
        [(0, CANCELLED), (2, CANCELLED)],
        False,
    )
    await first.cancel()
    (last,), has_ended = await second.answer()
    assert (last.place, REASONS[last.reason], has_ended) == (1, "ok", True)


async def test_places_that_are_no_numbers_are_refused(gateway: Gateway) -> None:
    spin = await gateway.program(await gateway.lease(), "spin")
    runs = run(spin, 0, 0)
    await runs.answer()
    for data in (b"123", bytes(4 * 257)):
        with pytest.raises(UsageError, match="expected uint32 each"):
            await call(runs.group.cancel(runs=data))


async def test_what_is_large_goes_by_reference_both_ways(gateway: Gateway) -> None:
    echo = task_of(await gateway.program(await gateway.lease(), "echo"), 4 << 20)
    texts = [bytes([number]) * ((2 << 20) + number) for number in range(5)]
    inputs = b"".join(BY_REFERENCE if number % 2 else write_input(Input(stdin=b"s")) for number in range(5))
    large = [BytesBlobServer(write_input(Input(stdin=texts[number]))[4:]) for number in (1, 3)]
    outcomes = await start(echo, inputs, large).outcomes()
    assert [outcomes[place].stdout for place in range(5)] == [b"s", texts[1], b"s", texts[3], b"s"]


@pytest.mark.parametrize(
    ("inputs", "large", "says"),
    [
        (b"", [], "a group has at least one run"),
        (write_input(SAME) * 257, [], "a group has at most 256 runs"),
        (write_input(SAME)[:-1], [], "a record is cut off"),
        (b"\1\0", [], "a record is cut off"),
        (bytes(4), [], "an input record is empty"),
        (b"\1\0\0\0\x80", [], "unknown flag"),
        (write_input(Input((1,))), [], "1 arguments are given, the task has 0"),
        (write_input(Input(files=b"PK")), [], "no file system"),
        (BY_REFERENCE, [], "0 are given, records refer to 1"),
        (write_input(SAME), [b"\0"], "1 are given, records refer to 0"),
        (BY_REFERENCE, [b"\x80"], "unknown flag"),
        (BY_REFERENCE, [b""], "an input record is empty"),
        (BY_REFERENCE, [LyingBlob(1 << 40, b"")], "a record of 1099511627776 bytes"),
        (BY_REFERENCE, [write_input(Input(stdin=bytes((3 << 20) + 1)))[4:]], "at most 3145728 bytes"),
        (write_input(Input(stdin=bytes((3 << 20) + 1))), [], "at most 3145728 bytes"),
    ],
)
async def test_inputs_that_are_none_are_refused_and_cost_nobody_a_process(
    small: Gateway, inputs: bytes, large: Sequence[Any], says: str
) -> None:
    program = await small.program(await small.lease(), "echo")
    runs = task_of(program)
    blobs = [BytesBlobServer(each) if isinstance(each, bytes) else each for each in large]
    with pytest.raises(UsageError, match=says):
        await start(runs, inputs, blobs).outcomes()
    assert (await start(runs, write_input(Input(stdin=b"well"))).outcome()).stdout == b"well"


async def test_a_blob_that_ends_early_fails_the_runs_behind_it(small: Gateway) -> None:
    runs = task_of(await small.program(await small.lease(), "echo"))
    group = start(runs, write_input(Input(stdin=b"a")) + BY_REFERENCE, [LyingBlob(100, b"short")])
    found, _ = await group.answer()
    assert [outcome.stdout for outcome in found] == [b"a"]
    with pytest.raises(PeerError, match="ended early"):
        await group.answer()


async def test_an_invocation_holds_no_zeros(gateway: Gateway) -> None:
    program = await gateway.program(await gateway.lease(), "echo")
    for say in ({"args": ["a\0b"]}, {"env": [{"key": "a", "value": "\0"}]}, {"dirs": ["\0"]}, {"artifacts": ["a\0"]}):
        with pytest.raises(UsageError, match="no zero characters"):
            await call(program.task(invocation=say))


async def test_inputs_that_wait_are_bounded(small: Gateway) -> None:
    lease = await small.lease()
    spin = await small.program(lease, "spin")
    echo = task_of(await small.program(lease, "echo"), 4 << 20)
    first = run(spin, 0, 0)
    await first.answer()
    large = write_input(Input(stdin=bytes(700 << 10)))
    waiting = [start(echo, large) for _ in range(2)]
    for each in waiting:
        assert await each.answer() == ([], False)
    with pytest.raises(Overloaded, match="1048576 bytes of input may be on a slot"):
        await start(echo, large).answer()
    del waiting[0]
    await first.cancel()
    assert (await first.outcome()).reason == CANCELLED
    assert len((await waiting[0].outcome()).stdout) == 700 << 10
    assert len((await start(echo, large).outcome()).stdout) == 700 << 10


async def test_large_inputs_are_fetched_as_there_is_room(small: Gateway) -> None:
    echo = task_of(await small.program(await small.lease(), "echo"), 4 << 20)
    record = write_input(Input(stdin=bytes(2 << 20)))[4:]
    groups = [start(echo, BY_REFERENCE * 3, [BytesBlobServer(record) for _ in range(3)]) for _ in range(3)]
    for outcomes in await asyncio.gather(*(each.outcomes() for each in groups)):
        assert [len(outcomes[place].stdout) for place in range(3)] == [2 << 20] * 3


async def test_outcomes_that_nobody_asks_for_are_bounded(small: Gateway) -> None:
    lease = await small.lease()
    echo = task_of(await small.program(lease, "echo"), 4 << 20)
    inputs = BY_REFERENCE * 6
    blobs = [CountingBlob(write_input(Input(stdin=bytes(2 << 20)))[4:]) for _ in range(6)]
    group = start(echo, inputs, blobs)
    found, has_ended = await group.answer()
    assert not has_ended
    behind = start(echo, write_input(Input(stdin=b"behind")))
    assert await behind.answer() == ([], False)
    assert not blobs[-1].is_read, "runs wait until the outcomes before them were asked for"
    outcomes = {outcome.place: outcome for outcome in found} | await group.outcomes()
    assert sorted(outcomes) == list(range(6))
    assert (await behind.outcome()).stdout == b"behind"


async def test_a_group_that_is_dropped_with_its_outcomes_leaves_its_room(small: Gateway) -> None:
    echo = task_of(await small.program(await small.lease(), "echo"), 4 << 20)
    for _ in range(4):
        group = start(echo, b"".join([write_input(Input(stdin=bytes(500 << 10)))] * 8))
        with contextlib.suppress(Overloaded):  # the one before is still being stopped
            await group.answer()
        del group
    async with asyncio.timeout(10):
        while True:
            with contextlib.suppress(Overloaded):
                await start(echo, b"".join([write_input(Input(stdin=bytes(500 << 10)))] * 3)).outcomes()
                break
    assert (await start(echo, write_input(Input(stdin=b"next"))).outcome()).stdout == b"next"


async def test_groups_of_a_lease_keep_their_order_however_their_inputs_come(gateway: Gateway) -> None:
    lease = await gateway.lease()
    spin, echo = await gateway.program(lease, "spin"), await gateway.program(lease, "echo")
    blocked = asyncio.Event()

    class Slow(BytesBlobServer):
        async def read_context(self, context: Any) -> None:
            await blocked.wait()
            await super().read_context(context)

    first = start(task_of(echo), BY_REFERENCE, [Slow(write_input(Input(stdin=b"late"))[4:])])
    behind = run(spin, 1, 0)
    assert await first.answer() == ([], False)
    assert await behind.answer() == ([], False)
    blocked.set()
    assert (await first.outcome()).stdout == b"late"
    assert (await behind.outcome()).result == 1


async def test_a_slot_that_is_lent_is_offered_with_its_depth_and_is_no_slot_more(gateway: Gateway) -> None:
    worker = gateway.worker  # type: ignore[attr-defined]
    goes_on = asyncio.Event()
    lending = asyncio.ensure_future(worker.lending.lend(3, goes_on))
    await until(lambda: gateway.free == SLOTS + 1)
    assert gateway.depths == [0, 0, 3]
    assert worker.load().free == SLOTS
    leases = [await gateway.lease() for _ in range(SLOTS + 1)]
    await until(lambda: worker.load().free == 0)
    worker.drain()  # what waits for it has to end
    outcome = await run(await gateway.program(leases.pop(), "noop"), 7, 0).outcome()
    assert REASONS[outcome.reason] == "ok"
    del leases
    assert await lending


async def test_a_worker_that_stops_lets_what_runs_on_a_lent_slot_finish(gateway: Gateway) -> None:
    worker: Worker = gateway.worker  # type: ignore[attr-defined]
    goes_on = asyncio.Event()
    worker.start(worker.lending.lend(1, goes_on))
    await until(lambda: gateway.free == SLOTS + 1)
    leases = [await gateway.lease() for _ in range(SLOTS + 1)]
    runs = run(await gateway.program(leases.pop(), "spin"), 500, 0)
    assert await runs.answer() == ([], False)
    # The run that lent it has ended: this one was another worker's.
    goes_on.set()
    leases.clear()
    await until(lambda: gateway.free == SLOTS)
    worker.drain()
    await until(lambda: gateway.free == 0 and gateway.goodbyes == 1)
    assert (await runs.outcome()).result == 500


async def test_a_slot_that_is_lent_is_withdrawn_when_the_run_goes_on(gateway: Gateway) -> None:
    goes_on = asyncio.Event()
    lending = asyncio.ensure_future(gateway.worker.lending.lend(1, goes_on))  # type: ignore[attr-defined]
    await until(lambda: gateway.free == SLOTS + 1)
    goes_on.set()
    assert await lending
    await until(lambda: gateway.free == SLOTS)


async def test_what_may_call_is_one_run(gateway: Gateway) -> None:
    program = await gateway.program(await gateway.lease(), "noop")
    calls = schema.worker.Calls.Server()
    runs = task_of(program, entry="run", arguments=[1, 2])
    with pytest.raises(UsageError, match="calls: given with 2 runs; expected one"):
        await call(runs.start(inputs=2 * write_input(SAME), calls=calls))
