"""Several ways to a peer: the first that leads there is taken, and whoever is slow does not hold the others up."""

import asyncio

import pytest

from tests.conftest import until
from ww.errors import NotAdmitted, PeerError, PeerMismatch
from ww.rpc.race import race

pytestmark = pytest.mark.anyio

BOUND_S = 5.0


async def silence() -> str:
    await asyncio.Event().wait()
    return "never"


async def answer() -> str:
    return "here"


def failing(error: PeerError) -> "asyncio.Future[str]":
    async def fail() -> str:
        raise error

    return fail  # type: ignore[return-value]


async def test_silence_does_not_hold_up_who_answers() -> None:
    async with asyncio.timeout(BOUND_S):
        assert await race([silence, silence, answer], lambda _: None) == "here"


async def test_a_way_that_fails_makes_place_for_the_next_at_once() -> None:
    ways = [failing(PeerError("refused"))] * 100
    async with asyncio.timeout(BOUND_S):
        assert await race([*ways, answer], lambda _: None) == "here"  # type: ignore[list-item]


async def test_what_comes_too_late_is_discarded() -> None:
    begun, discarded = asyncio.Event(), []

    async def stubborn() -> str:
        begun.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            return "late"
        return "never"

    async def second() -> str:
        await begun.wait()
        return "first"

    async with asyncio.timeout(BOUND_S):
        assert await race([stubborn, second], discarded.append) == "first"
        await until(lambda: bool(discarded))
    assert discarded == ["late"]


async def test_two_that_are_as_fast_leave_one() -> None:
    go, discarded, begun = asyncio.Event(), [], []

    async def way(name: str) -> str:
        begun.append(name)
        await go.wait()
        return name

    async with asyncio.timeout(BOUND_S):
        racing = asyncio.ensure_future(race([lambda: way("a"), lambda: way("b")], discarded.append))
        await until(lambda: len(begun) == 2)
        go.set()
        won = await racing
        await until(lambda: bool(discarded))
    assert sorted([won, *discarded]) == ["a", "b"]


@pytest.mark.parametrize(
    ("errors", "expected"),
    [
        ([PeerError("one"), PeerError("two")], "one"),
        ([PeerError("one"), PeerMismatch("somebody else")], "somebody else"),
        ([PeerError("one"), NotAdmitted("not you"), PeerError("three")], "not you"),
    ],
)
async def test_the_error_that_says_most_is_raised(errors: list[PeerError], expected: str) -> None:
    async with asyncio.timeout(BOUND_S):
        with pytest.raises(PeerError, match=expected):
            await race([failing(error) for error in errors], lambda _: None)  # type: ignore[misc]


async def test_a_race_that_is_cancelled_leaves_nothing() -> None:
    ended = asyncio.Event()

    async def way() -> str:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()
        return "never"

    racing = asyncio.ensure_future(race([way], lambda _: None))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    racing.cancel()
    async with asyncio.timeout(BOUND_S):
        await ended.wait()
