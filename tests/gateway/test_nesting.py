"""Real workers whose guests are a test's: runs that call runs, on as few slots as there can be.

How one run's calls are answered: test_calls.py; what is lent and when: ../test_lending.py.
"""

import asyncio
import contextlib
import hashlib
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import until
from tests.gateway.scheduling import Gateway, open_gateway
from tests.gateway.test_calls import grant, nested, submit
from ww.clock import SystemClock
from ww.identity import Identity
from ww.net.memory import MemoryTransport
from ww.node import Node, NodeConfig
from ww.python.request import AnswerKind, read_answers, write_requests
from ww.records import read_input, write_outcome
from ww.sandbox.calls import Calls
from ww.sandbox.group import Outcomes
from ww.sandbox.inputs import Inputs, Task
from ww.sandbox.invocation import Result, RunLimits
from ww.sandbox.limits import SandboxLimits
from ww.worker import Worker, WorkerConfig

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("kj_loop"), pytest.mark.timeout(60)]


class Guests:
    """In place of a sandbox: a guest calls as many others as the first number of its request says, each with the rest,
    and returns the sum of what they return and one."""

    limits = SandboxLimits()

    def __init__(self) -> None:
        self.computing = 0
        self.computing_most = 0
        self.under_way = 0
        self.under_way_most = 0
        self.stuck = False
        """Whether those that call nothing never end."""

    def is_prepared(self, digest: bytes, *, metered: bool) -> bool:
        return True

    def group(
        self, digest: bytes, task: Task, inputs: Inputs, limits: RunLimits, *, compile_s: float, calls: Calls | None
    ) -> "Guest":
        return Guest(self, task, inputs, calls)

    async def call(self, request: list[int], calls: Calls | None) -> int:
        """Be a guest."""
        if not request or calls is None:
            await asyncio.sleep(0 if not self.stuck else 3600)
            return 1
        rest = bytes(request[1:])
        asking = asyncio.ensure_future(calls.call("m:g", write_requests([rest] * request[0])))
        try:
            self.computing -= 1
            calls.set_blocked(True)
            answers = read_answers(await asking)
            calls.set_blocked(False)
        finally:
            self.computing += 1
            asking.cancel()
        assert all(answer.kind is AnswerKind.VALUE for answer in answers), answers
        return 1 + sum(int(answer.body) for answer in answers)


class Guest:
    """A group of one or several such runs."""

    def __init__(self, guests: Guests, task: Task, inputs: Inputs, calls: Calls | None) -> None:
        self._guests, self._calls = guests, calls
        self._requests = []
        for piece in inputs.pieces(range(len(inputs))):
            at = 0
            while at < len(piece):
                end = at + 4 + int.from_bytes(piece[at : at + 4], "little")
                own = read_input(piece, at + 4, end).stdin
                stdin = own if own is not None else read_input(task.record, 4, len(task.record)).stdin
                self._requests.append(list(stdin or b""))
                at = end
        self.next_place = 0

    def prepare(self) -> None:
        pass

    async def __aenter__(self) -> "Guest":
        return self

    async def __aexit__(self, *_: object) -> None:
        pass

    def has_ended(self, place: int) -> bool:
        return place < self.next_place

    async def outcomes(self) -> list[Outcomes]:
        if self.next_place == len(self._requests):
            return []
        guests, place = self._guests, self.next_place
        guests.computing += 1
        guests.under_way += 1
        guests.computing_most = max(guests.computing, guests.computing_most)
        guests.under_way_most = max(guests.under_way, guests.under_way_most)
        try:
            value = await guests.call(self._requests[place], self._calls)
        finally:
            guests.computing -= 1
            guests.under_way -= 1
        self.next_place += 1
        result = Result(stdout=b"%d" % value, exit_code=0, wall_s=0.0001)
        return [Outcomes(write_outcome(place, result, memory_limit_bytes=0), 1)]

    def cancel(self, places: Sequence[int]) -> None:
        pass

    def take(self) -> list[Outcomes]:
        return []


@contextlib.asynccontextmanager
async def a_worker(gateway: Gateway, directory: Path, slots: int, **config: Any) -> AsyncIterator[Guests]:
    identity, guests = Identity.generate(), Guests()
    name = hashlib.sha256(identity.peer_id.public_key).hexdigest()[:8]
    of_node = NodeConfig(state_directory=directory / name, addresses=(gateway.address,))
    async with Node(of_node, MemoryTransport(gateway._network, identity), identity) as node:
        given: Any = guests, None, SystemClock(), WorkerConfig(slots=slots, **config)
        serving = asyncio.create_task(Worker(node, gateway.address.peer_id, *given).serve())  # type: ignore[arg-type]
        try:
            yield guests
        finally:
            serving.cancel()
            await asyncio.wait((serving,))


@contextlib.asynccontextmanager
async def a_gateway(directory: Path, **settings: Any) -> AsyncIterator[Gateway]:
    """One whose clock goes on by itself."""

    async def tick() -> None:
        while True:
            gateway.clock.advance(0.001)
            await asyncio.sleep(0.001)

    # The clock is not the machine's: it says nothing of who is slow.
    config = {"tasks_max": 10_000}
    async with open_gateway(directory, config=config, dispatch={}, keep=100_000) as gateway:
        ticking = asyncio.ensure_future(tick())
        try:
            yield gateway
        finally:
            ticking.cancel()


async def ended(gateway: Gateway, id: str) -> list[Any]:
    await until(lambda: gateway.scheduler.task(id) is None, 50)
    row = await gateway.store.task(id)
    assert row is not None
    return [result for _, result in await gateway.store.results_by_run(row.number, limit=1000, after=-1)]


@pytest.mark.parametrize("slots", [1, 3])
async def test_calls_within_calls_end_however_few_slots_there_are(tmp_path: Path, slots: int) -> None:
    async with a_gateway(tmp_path) as gateway, a_worker(gateway, tmp_path, slots) as guests:
        parents = [f"p{number}" for number in range(20)]
        given = grant(duration_s=600.0, grants=("m:g",))
        for id in parents:
            await submit(gateway, id, given, stdin=bytes((3, 2, 1)), duration_s=600.0)
        for id in parents:
            (result,) = await ended(gateway, id)
            assert (result.state, result.outcome.stdout) == ("succeeded", b"%d" % (1 + 3 * (1 + 2 * (1 + 1))))
        assert guests.under_way_most <= slots * 5
        await until(lambda: gateway.scheduler.pool.workers()[0][1] == slots)
        assert gateway.scheduler.pool.workers()[0][0].leased == 0


async def test_a_batch_of_parents_shares_the_cluster_with_another(tmp_path: Path) -> None:
    async with (
        a_gateway(tmp_path) as gateway,
        a_worker(gateway, tmp_path, 1) as one,
        a_worker(gateway, tmp_path, 2) as two,
    ):
        given = grant(duration_s=600.0)
        await submit(gateway, "parents", given, stdin=bytes((10,)), repeats=50, duration_s=600.0)
        await submit(gateway, "others", stdin=b"", repeats=200, duration_s=600.0)
        assert {result.outcome.stdout for result in await ended(gateway, "parents")} == {b"11"}
        assert {result.outcome.stdout for result in await ended(gateway, "others")} == {b"1"}
        assert one.under_way_most <= 5
        assert two.under_way_most <= 10


async def test_what_a_lost_workers_runs_called_is_cancelled_and_they_call_again_elsewhere(tmp_path: Path) -> None:
    async with a_gateway(tmp_path) as gateway:
        async with a_worker(gateway, tmp_path, 1) as guests:
            guests.stuck = True
            await submit(gateway, "p", grant(duration_s=600.0), stdin=bytes((2,)), duration_s=600.0)
            await until(lambda: bool(nested(gateway)))
            (first,) = nested(gateway)
        async with a_worker(gateway, tmp_path, 1):
            (result,) = await ended(gateway, "p")
            assert (result.state, result.outcome.stdout, result.attempts) == ("succeeded", b"3", 2)
        row = await gateway.store.task(first.id)
        assert row is not None
        assert row.cancelled
