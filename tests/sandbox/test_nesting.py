"""What the parent makes of what a child says its guest calls: it believes nothing, and keeps no more than it may."""

import asyncio
from collections.abc import Coroutine
from types import SimpleNamespace
from typing import Any

import pytest

from ww import schema
from ww.errors import PeerError
from ww.python import request
from ww.sandbox import nesting
from ww.sandbox.calls import NAME_BYTES_MAX, TICKETS_MAX
from ww.sandbox.child import ChildDied
from ww.sandbox.nesting import Nesting

pytestmark = pytest.mark.anyio

ONE = request.write_requests([b"x"])


class Fakes:
    """Answers, children and a child."""

    def __init__(self) -> None:
        self.gate = asyncio.Event()
        self.blocked: list[bool] = []
        self.lent = 0
        self.told: list[tuple[int, bytes]] = []
        self.tasks: list[asyncio.Task[None]] = []
        self.answer: bytes | Exception = request.write_answers([request.Answer(request.AnswerKind.VALUE, b"y")])
        self.is_behind = self.killed = False

    async def call(self, name: str, requests: bytes) -> bytes:
        await self.gate.wait()
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer

    def set_blocked(self, blocked: bool) -> None:
        self.blocked.append(blocked)

    def lend(self) -> None:
        self.lent += 1

    def take_back(self) -> None:
        self.lent -= 1

    def spawn(self, coroutine: Coroutine[Any, Any, None]) -> "asyncio.Task[None]":
        self.tasks.append(asyncio.ensure_future(coroutine))
        return self.tasks[-1]

    def tell(self, said: Any) -> None:
        with schema.sandbox.Request.from_bytes(said.to_bytes()) as read:
            self.told.append((read.answer.ticket, read.answer.answers))

    def kill(self) -> None:
        self.killed = True


@pytest.fixture
async def fakes() -> Fakes:
    return Fakes()


@pytest.fixture
async def calls(fakes: Fakes) -> Nesting:
    return Nesting(fakes, fakes, fakes)  # type: ignore[arg-type]


def said(ticket: int, name: str = "m:g", requests: bytes = ONE, more: bool = False) -> Any:
    return SimpleNamespace(ticket=ticket, name=name, requests=requests, isMore=more)


NONSENSE = {
    "no ticket": [said(0)],
    "a ticket twice": [said(1), said(1)],
    "a ticket from before": [said(2), said(1)],
    "another in the middle": [said(1, more=True), said(2)],
    "a name in the middle": [said(1, more=True), said(1)],
    "a long name": [said(1, "x" * (NAME_BYTES_MAX + 1))],
    "nothing": [said(1, requests=b"")],
    "no count": [said(1, requests=b"\1")],
    "no calls": [said(1, requests=bytes(4))],
    "many calls": [said(1, requests=(request.REQUESTS_MAX + 1).to_bytes(4, "little"))],
    "too much": [said(1, "m:g" if n == 0 else "", bytes(1 << 20), True) for n in range(66)],
    "too many": [said(n) for n in range(1, TICKETS_MAX + 2)],
}


@pytest.mark.parametrize("what", NONSENSE)
async def test_nonsense_is_the_childs_end(calls: Nesting, what: str) -> None:
    *before, last = NONSENSE[what]
    for each in before:
        try:
            calls.call(each)
        except ChildDied:
            assert what == "too much"
            return
    with pytest.raises(ChildDied):
        calls.call(last)
    calls.close()


@pytest.mark.parametrize("tickets", [(7,), (1, 1), (1, 2)])
async def test_so_is_waiting_for_what_is_not_there_and_for_two(
    calls: Nesting, fakes: Fakes, tickets: tuple[int, ...]
) -> None:
    calls.call(said(1))
    calls.call(said(2))
    for ticket in tickets[:-1]:
        calls.wait(ticket)
    with pytest.raises(ChildDied):
        calls.wait(tickets[-1])
    calls.close()


async def test_it_may_not_call_while_it_waits(calls: Nesting, fakes: Fakes) -> None:
    calls.call(said(1))
    calls.wait(1)
    with pytest.raises(ChildDied):
        calls.call(said(2))
    calls.close()
    assert (fakes.blocked, fakes.lent) == ([True, False], 0)


async def test_an_answer_is_sent_when_it_is_waited_for_and_no_sooner(calls: Nesting, fakes: Fakes) -> None:
    calls.call(said(1))
    fakes.gate.set()
    await asyncio.gather(*fakes.tasks)
    assert fakes.told == []
    calls.wait(1)
    assert fakes.told == [(1, fakes.answer)]
    assert fakes.blocked == []
    with pytest.raises(ChildDied):
        calls.wait(1)


@pytest.mark.parametrize("error", [PeerError("gone\x1b"), ZeroDivisionError("a secret")])
async def test_what_cannot_be_called_is_answered(calls: Nesting, fakes: Fakes, error: Exception) -> None:
    fakes.answer = error
    calls.call(said(1, requests=request.write_requests([b"", b""])))
    calls.wait(1)
    fakes.gate.set()
    await asyncio.gather(*fakes.tasks)
    answers = request.read_answers(fakes.told[0][1])
    assert len(answers) == 2
    assert request.read_ended(answers[0].body)[0] == "lost"
    assert b"secret" not in answers[0].body
    assert (fakes.blocked, fakes.lent) == ([True, False], 0)


async def test_what_is_more_than_is_kept_is_refused(
    calls: Nesting, fakes: Fakes, monkeypatch: pytest.MonkeyPatch
) -> None:
    # What it is told of that is kept too, and takes more than a small call.
    large = request.write_requests([bytes(90)])
    monkeypatch.setattr(nesting, "HELD_BYTES_MAX", 3 * len(large))
    fakes.answer = request.write_answers([request.Answer(request.AnswerKind.VALUE, bytes(100))])
    for ticket in range(1, 6):
        calls.call(said(ticket, requests=large))
    calls.wait(5)
    assert request.read_ended(request.read_answers(fakes.told[0][1])[0].body)[0] == "refused"
    fakes.gate.set()
    await asyncio.gather(*fakes.tasks)
    calls.wait(1)
    assert request.read_ended(request.read_answers(fakes.told[1][1])[0].body)[0] == "refused"
    for ticket in range(6, 20):
        try:
            calls.call(said(ticket, requests=large))
        except ChildDied:
            break
    else:
        raise AssertionError("refusals that nobody waits for are kept without end")
    calls.close()


async def test_closing_cancels_and_forgets(calls: Nesting, fakes: Fakes) -> None:
    calls.call(said(1))
    calls.wait(1)
    await asyncio.sleep(0)
    calls.close()
    calls.close()
    await asyncio.gather(*fakes.tasks, return_exceptions=True)
    assert fakes.tasks[0].cancelled()
    assert (fakes.blocked, fakes.lent, fakes.told, fakes.killed) == ([True, False], 0, [], False)


async def test_a_child_that_has_not_read_its_answer_is_no_good_for_the_next(calls: Nesting, fakes: Fakes) -> None:
    fakes.is_behind = True
    calls.close()
    assert fakes.killed
