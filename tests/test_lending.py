"""Slots that waiting runs lend: how many, when they are taken back, and what becomes of calls that cannot be made."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from tests.conftest import until
from ww import schema
from ww.caps.blob import BytesBlobServer
from ww.errors import Overloaded, UsageError
from ww.lending import Lending, RunCalls
from ww.python.request import AnswerKind, ended, read_answers, read_ended, write_answers, write_requests

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("kj_loop")]


class Offers:
    """Slots that are lent, until a test gives them back."""

    def __init__(self, slots: int = 1, depth_max: int = 4) -> None:
        self.open: list[tuple[int, asyncio.Event, asyncio.Future[bool]]] = []
        self.tasks: list[asyncio.Task[None]] = []
        self.lending = Lending(slots, depth_max, self._offer, self._start)

    async def _offer(self, depth: int, goes_on: asyncio.Event) -> bool:
        back: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self.open.append(offer := (depth, goes_on, back))
        try:
            return await back
        finally:
            self.open.remove(offer)

    def _start(self, coroutine: Coroutine[Any, Any, None]) -> None:
        self.tasks.append(asyncio.ensure_future(coroutine))

    @property
    def depths(self) -> list[int]:
        return [depth for depth, _, _ in self.open]

    def run(self, depth: int, client: Any = None) -> RunCalls:
        return RunCalls(client, depth, self.lending)

    def give_back(self, place: int = 0, *, is_of_use: bool = True) -> None:
        self.open[place][2].set_result(is_of_use)


async def settled(is_so: Callable[[], bool]) -> None:
    await until(is_so)
    for _ in range(10):
        await asyncio.sleep(0)
    assert is_so()


async def test_while_a_run_waits_a_slot_is_lent_to_what_is_deeper() -> None:
    offers = Offers()
    run = offers.run(2)
    run.set_blocked(True)
    run.set_blocked(True)
    await settled(lambda: offers.depths == [3])
    offers.give_back()
    await settled(lambda: offers.depths == [3])  # it still waits
    assert not offers.open[0][1].is_set()
    run.set_blocked(False)
    assert offers.open[0][1].is_set(), "who offers it hears that it is not wanted any more"
    offers.give_back()
    await settled(lambda: not offers.open)
    run.set_blocked(True)
    await settled(lambda: offers.depths == [3])
    run.close()
    offers.give_back()
    await asyncio.gather(*offers.tasks)


async def test_a_run_that_waits_again_before_its_slot_came_back_lends_no_second() -> None:
    offers = Offers(slots=2)
    run = offers.run(0)
    run.set_blocked(True)
    await settled(lambda: offers.depths == [1])
    run.set_blocked(False)
    run.set_blocked(True)
    await settled(lambda: offers.depths == [1])
    offers.give_back()
    await settled(lambda: offers.depths == [1])
    assert not offers.open[0][1].is_set()
    run.close()
    offers.give_back()
    await asyncio.gather(*offers.tasks)


async def test_of_each_depth_as_many_slots_are_lent_as_there_are() -> None:
    offers = Offers(slots=2)
    runs = [offers.run(depth) for depth in (0, 0, 0, 1, 1, 1)]
    for run in runs:
        run.set_blocked(True)
    await settled(lambda: sorted(offers.depths) == [1, 1, 2, 2])
    runs[0].close()
    offers.give_back(offers.depths.index(1))
    await settled(lambda: sorted(offers.depths) == [1, 1, 2, 2])  # the third's now
    runs[5].close()  # before it was its turn
    for run in runs[1:5]:
        run.close()
    while offers.open:
        offers.give_back()
        await asyncio.sleep(0)
    await asyncio.gather(*offers.tasks)


async def test_nothing_is_lent_any_more_when_the_gateway_is_gone() -> None:
    offers = Offers()
    run = offers.run(0)
    run.set_blocked(True)
    await settled(lambda: offers.depths == [1])
    offers.give_back(is_of_use=False)
    await asyncio.gather(*offers.tasks)
    assert not offers.open


class Calls(schema.worker.Calls.Server):  # type: ignore[misc]
    """Answers as a test says."""

    error: Exception | None = None
    answers = b""
    name = ""
    requests = b""

    async def call_context(self, context: Any) -> None:
        if self.error is not None:
            raise self.error
        self.name, self.requests = context.params.name, context.params.requests
        if context.params._has("large"):
            size = (await context.params.large.size()).bytes
            parts = [await context.params.large.read(offset=at, count=1 << 20) for at in range(0, size, 1 << 20)]
            self.requests = b"".join(part.data for part in parts)
        if len(self.answers) > 1 << 20:
            context.results.large = BytesBlobServer(self.answers)
        else:
            context.results.answers = self.answers


async def test_what_is_large_goes_by_reference_both_ways() -> None:
    server, offers = Calls(), Offers()
    run = offers.run(0, schema.worker.Calls._new_client(server))
    for size in (10, 3 << 20):
        server.answers = write_answers([ended("cancelled")] * 2) + bytes(size)
        requests = write_requests([bytes(size), b"x"])
        assert await run.call("m:f", requests) == server.answers
        assert (server.name, server.requests) == ("m:f", requests)


@pytest.mark.parametrize(
    ("error", "depth", "reason", "says"),
    [
        (UsageError("too much"), 0, "refused", "too much"),
        (Overloaded("later"), 0, "lost", "later"),
        (None, 4, "refused", "this worker has calls within calls to a depth of 4 (--nesting)"),
    ],
)
async def test_a_call_that_cannot_be_made_is_answered(
    error: Exception | None, depth: int, reason: str, says: str
) -> None:
    server, offers = Calls(), Offers()
    server.error = error
    run = offers.run(depth, schema.worker.Calls._new_client(server))
    answers = read_answers(await run.call("m:f", write_requests([b"", b""])))
    assert {answer.kind for answer in answers} == {AnswerKind.ENDED}
    assert [read_ended(answer.body) for answer in answers] == [(reason, says)] * 2


async def test_requests_that_are_none_are_refused_here() -> None:
    (answer,) = read_answers(await Offers().run(0).call("m:f", b"abc"))
    assert read_ended(answer.body)[0] == "refused"
