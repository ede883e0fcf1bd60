"""The synchronous channel, locally: who gets what, in which order, and what happens to those who wait."""

import asyncio

import pytest

from tests.conftest import until
from ww.caps.channel import Channel
from ww.errors import ChannelClosed, NotFound, Overloaded

pytestmark = pytest.mark.anyio


async def sending(channel: Channel[str], *values: str) -> list["asyncio.Task[None]"]:
    """Start one send a value and return when all wait."""
    before = len(list(channel.waiting()))
    tasks = [asyncio.create_task(channel.send(value)) for value in values]
    await until(lambda: len(list(channel.waiting())) == before + len(values))
    return tasks


def values_of(channel: Channel[str]) -> list[str]:
    return [value for _, value in channel.waiting()]


async def test_a_send_ends_when_a_receiver_took_the_value() -> None:
    channel: Channel[str] = Channel()
    (send,) = await sending(channel, "a")
    assert not send.done()
    assert await channel.receive() == "a"
    await asyncio.wait_for(send, 1)


async def test_a_receive_waits_for_a_send() -> None:
    channel: Channel[str] = Channel()
    receive = asyncio.create_task(channel.receive())
    await asyncio.sleep(0)
    await channel.send("a")
    assert await receive == "a"


async def test_values_are_received_in_the_order_they_were_sent() -> None:
    channel: Channel[str] = Channel()
    await sending(channel, "a", "b", "c")
    assert [await channel.receive() for _ in range(3)] == ["a", "b", "c"]


async def test_receivers_are_served_in_the_order_they_came() -> None:
    channel: Channel[str] = Channel()
    receives = [asyncio.create_task(channel.receive()) for _ in range(3)]
    await asyncio.sleep(0)
    for value in "abc":
        await channel.send(value)
    assert await asyncio.gather(*receives) == ["a", "b", "c"]


async def test_a_cancelled_send_is_withdrawn() -> None:
    channel: Channel[str] = Channel()
    first, _ = await sending(channel, "a", "b")
    first.cancel()
    await until(lambda: values_of(channel) == ["b"])
    assert await channel.receive() == "b"


async def test_a_cancelled_receive_consumes_nothing() -> None:
    channel: Channel[str] = Channel()
    receive = asyncio.create_task(channel.receive())
    await asyncio.sleep(0)
    receive.cancel()
    await asyncio.wait((receive,))
    (send,) = await sending(channel, "a")
    assert not send.done()
    assert await channel.receive() == "a"


async def test_a_receive_cancelled_just_after_the_hand_over_passes_the_value_on() -> None:
    channel: Channel[str] = Channel()
    first = asyncio.create_task(channel.receive())
    second = asyncio.create_task(channel.receive())
    await asyncio.sleep(0)
    await channel.send("a")  # handed to first, which has not run yet
    first.cancel()
    assert await second == "a"


async def test_a_value_nobody_is_left_to_take_keeps_its_turn() -> None:
    channel: Channel[str] = Channel()
    receive = asyncio.create_task(channel.receive())
    await asyncio.sleep(0)
    await channel.send("a")
    receive.cancel()
    await asyncio.wait((receive,))
    await sending(channel, "b")
    assert [await channel.receive(), await channel.receive()] == ["a", "b"]


async def test_the_owner_sees_what_waits_and_takes_any_of_it_at_once() -> None:
    channel: Channel[str] = Channel()
    sends = await sending(channel, "a", "b", "c")
    keys = {value: key for key, value in channel.waiting()}
    assert channel.take(keys["b"]) == "b"
    assert values_of(channel) == ["a", "c"]
    await asyncio.wait_for(sends[1], 1)
    with pytest.raises(NotFound):
        channel.take(keys["b"])
    assert [await channel.receive(), await channel.receive()] == ["a", "c"]


async def test_a_value_taken_is_not_withdrawn_by_a_late_cancel() -> None:
    channel: Channel[str] = Channel()
    (send,) = await sending(channel, "a")
    key = next(key for key, _ in channel.waiting())
    assert channel.take(key) == "a"
    send.cancel()
    await asyncio.wait((send,))
    assert values_of(channel) == []


async def test_the_owner_is_told_when_a_value_begins_to_wait() -> None:
    told = []
    channel: Channel[str] = Channel(on_waiting=lambda: told.append(values_of(channel)))
    await sending(channel, "a", "b")
    assert told == [["a"], ["a", "b"]]


async def test_close_fails_everybody_who_waits_and_everybody_after() -> None:
    channel: Channel[str] = Channel()
    (send,) = await sending(channel, "a")
    channel.close()
    channel.close()
    with pytest.raises(ChannelClosed):
        await send
    with pytest.raises(ChannelClosed):
        await channel.send("b")
    with pytest.raises(ChannelClosed):
        await channel.receive()
    other: Channel[str] = Channel()
    receive = asyncio.create_task(other.receive())
    await asyncio.sleep(0)
    other.close()
    with pytest.raises(ChannelClosed):
        await receive


async def test_waiting_sends_are_bounded() -> None:
    channel: Channel[str] = Channel(waiting_max=2)
    await sending(channel, "a", "b")
    with pytest.raises(Overloaded, match="the limit"):
        await channel.send("c")
    assert values_of(channel) == ["a", "b"]
    assert [await channel.receive() for _ in range(2)] == ["a", "b"]
