"""Channels held here and elsewhere, by the same code: every row of the table in docs/semantics.md."""

import asyncio
import functools
import gc
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.caps.holders import SERVERS, World
from tests.conftest import until
from ww import schema
from ww.caps import rendezvous
from ww.caps.channel import Channel, Closer, ReceiveCloser, Receiver, SendCloser, Sender, SendReceiver, Whole, choose
from ww.caps.facets import ReceiverServer, _ended_by, facet_of
from ww.caps.value import TEXT, interface, struct
from ww.errors import ChannelClosed, ClosedError, Disconnected, Overloaded, Revoked, UsageError
from ww.rpc.errors import call

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("kj_loop"), pytest.mark.timeout(30)]


@pytest.fixture(params=["local", "memory", "tls"])
async def world(request: pytest.FixtureRequest) -> AsyncIterator[World]:
    async with World(request.param) as world:
        yield world


@pytest.fixture(params=["memory", "tls"])
async def remote(request: pytest.FixtureRequest) -> AsyncIterator[World]:
    async with World(request.param) as world:
        yield world


async def held(world: World, channel: Channel[Any], *kinds: Any) -> list[Any]:
    """Give each of some facets to somebody of its own."""
    return [await (await world.somebody()).hold(channel, kind) for kind in kinds]


async def waiting(channel: Channel[Any], sends: int = 0, receives: int = 0) -> None:
    """Return when that many sends and receives wait."""
    core = channel.core
    await until(lambda: (len(core._sends), len(core._receives)) == (sends, receives))


async def started(channel: Channel[str], sender: Sender[str], *values: str) -> "list[asyncio.Task[None]]":
    """Start a send for each value, and return when all wait, in that order."""
    tasks = []
    for value in values:
        before = len(list(channel.waiting()))
        tasks.append(asyncio.create_task(sender.send(value)))
        await until(lambda before=before: len(list(channel.waiting())) == before + 1)
    return tasks


# Send, receive, order.


async def test_a_send_of_capacity_0_ends_when_a_receiver_took_the_value(world: World) -> None:
    channel = Channel(TEXT)
    sender, receiver = await held(world, channel, Sender, Receiver)
    (send,) = await started(channel, sender, "a")
    assert not send.done()
    assert await receiver.receive() == "a"
    await send


async def test_a_send_of_capacity_n_ends_when_it_is_buffered(world: World) -> None:
    channel = Channel(TEXT, capacity=2)
    sender, receiver = await held(world, channel, Sender, Receiver)
    await sender.send("a")
    await sender.send("b")
    (third,) = await started(channel, sender, "c")
    assert not third.done()
    assert await receiver.receive() == "a"
    await third
    assert [await receiver.receive(), await receiver.receive()] == ["b", "c"]


@pytest.mark.parametrize("capacity", [0, 1, 5])
async def test_values_come_in_the_order_they_were_sent_by_all(world: World, capacity: int) -> None:
    channel = Channel(TEXT, capacity=capacity)
    one, two, receiver = await held(world, channel, Sender, Sender, Receiver)
    values = [f"v{number}" for number in range(9)]
    tasks = []
    for number, value in enumerate(values):
        task = asyncio.create_task((one, two)[number % 2].send(value))
        tasks.append(task)
        await until(lambda n=number: len(channel.core._buffer) + len(channel.core._sends) == n + 1)
    assert [await receiver.receive() for _ in values] == values
    await asyncio.gather(*tasks)


async def test_receivers_are_served_in_the_order_they_came(world: World) -> None:
    channel = Channel(TEXT)
    sender, one, two = await held(world, channel, Sender, Receiver, Receiver)
    first = asyncio.create_task(one.receive())
    await waiting(channel, receives=1)
    second = asyncio.create_task(two.receive())
    await waiting(channel, receives=2)
    await sender.send("a")
    await sender.send("b")
    assert [await first, await second] == ["a", "b"]


async def test_the_owner_sees_and_takes_what_waits_and_others_keep_their_place(world: World) -> None:
    channel = Channel(TEXT)
    sender, receiver = await held(world, channel, Sender, Receiver)
    sends = await started(channel, sender, "a", "b", "c")
    key = next(key for key, value in channel.waiting() if value == "b")
    assert channel.take(key) == "b"
    await sends[1]
    assert [await receiver.receive(), await receiver.receive()] == ["a", "c"]


# Values.


async def test_structs_travel_with_the_capabilities_in_them(world: World) -> None:
    channel = Channel(struct(schema.worker.Offer))
    sender, receiver = await held(world, channel, Sender, Receiver)
    worker = CountingWorker()
    send = asyncio.create_task(sender.send({"worker": worker}))
    offer = await receiver.receive()
    await send
    await offer.worker.load(digest=b"x")
    assert worker.loads == [b"x"]


async def test_buffered_capabilities_outlive_the_call_that_sent_them(world: World) -> None:
    channel = Channel(interface(schema.worker.Worker), capacity=3)
    sender, receiver = await held(world, channel, Sender, Receiver)
    workers = [CountingWorker() for _ in range(3)]
    for worker in workers:
        await sender.send(worker)
    for worker in workers:
        await (await receiver.receive()).load(digest=b"y")
        assert worker.loads == [b"y"]


async def test_calls_are_made_on_a_capability_before_it_is_received(remote: World) -> None:
    channel = Channel(interface(schema.worker.Worker))
    somebody = await remote.somebody()
    sender, receiver = await held(remote, channel, Sender, Receiver)
    assert somebody.connection is not None
    receiving = receiver.end._client.receive()
    loading = receiving.capability.cast_as(schema.worker.Worker).load(digest=b"early")
    await waiting(channel, receives=1)
    worker = CountingWorker()
    await sender.send(worker)
    await loading
    assert worker.loads == [b"early"]


@pytest.mark.parametrize(
    ("codec", "value", "says"),
    [
        (TEXT, 5, "expected text"),
        (struct(schema.worker.Offer), "text", "expected a Offer"),
        (struct(schema.worker.Offer), {"none": 1}, "fields that no Offer has"),
        (struct(schema.worker.Offer), schema.worker.WorkerInfo.new_message(), "expected a Offer"),
        (interface(schema.worker.Worker), b"bytes", "expected a Worker"),
    ],
)
async def test_what_is_no_such_value_is_not_sent(world: World, codec: Any, value: Any, says: str) -> None:
    channel: Channel[Any] = Channel(codec, capacity=1)
    (sender,) = await held(world, channel, Sender)
    with pytest.raises(UsageError, match=says):
        await sender.send(value)
    with pytest.raises(UsageError, match=says):
        await sender.select(sender.sending(value))
    assert not channel.core._buffer


async def test_what_is_no_such_value_is_refused_and_changes_nothing(remote: World) -> None:
    channel = Channel(interface(schema.worker.Worker))
    sender, receiver = await held(remote, channel, Sender, Receiver)
    with pytest.raises(UsageError, match="expected a Worker"):
        await send_raw(sender, "text")
    texts = Channel(TEXT)
    (other,) = await held(remote, texts, Sender)
    with pytest.raises(UsageError, match="expected text"):
        await send_raw(other, schema.worker.Offer.new_message())
    await waiting(channel)
    await waiting(texts)
    send = asyncio.create_task(sender.send(CountingWorker()))
    await receiver.receive()
    await send


async def send_raw(sender: Any, value: Any) -> None:
    request = sender.end._client.send_request()
    request.value = value
    await call(request.send())


class CountingWorker(schema.worker.Worker.Server):  # type: ignore[misc]
    def __init__(self) -> None:
        self.loads: list[bytes] = []

    async def load_context(self, context: Any) -> None:
        self.loads.append(context.params.digest)


# Cancelling.


async def test_a_cancelled_send_is_withdrawn(world: World) -> None:
    channel = Channel(TEXT)
    sender, receiver = await held(world, channel, Sender, Receiver)
    first, _ = await started(channel, sender, "a", "b")
    first.cancel()
    await waiting(channel, sends=1)
    assert await receiver.receive() == "b"


async def test_a_cancelled_receive_consumes_nothing(world: World) -> None:
    channel = Channel(TEXT)
    sender, receiver = await held(world, channel, Sender, Receiver)
    receive = asyncio.create_task(receiver.receive())
    await waiting(channel, receives=1)
    receive.cancel()
    await waiting(channel)
    (send,) = await started(channel, sender, "a")
    assert not send.done()
    assert await receiver.receive() == "a"


async def test_a_send_that_was_cancelled_is_not_taken_before_its_task_has_run() -> None:
    channel = Channel(TEXT)
    send = asyncio.create_task(channel.send("a"))
    await waiting(channel, sends=1)
    send.cancel()
    assert list(channel.waiting()) == []
    receive = asyncio.create_task(channel.receive())
    await waiting(channel, receives=1)
    assert send.cancelled()
    await channel.send("b")
    assert await receive == "b"


# Disconnecting.


async def test_the_sends_of_a_broken_connection_are_withdrawn(remote: World) -> None:
    channel = Channel(TEXT)
    leaving = await remote.somebody()
    gone = await leaving.hold(channel, Sender)
    stays, receiver = await held(remote, channel, Sender, Receiver)
    lost = await started(channel, gone, "a")
    await started(channel, stays, "b")
    leaving.leave()
    await waiting(channel, sends=1)
    assert await receiver.receive() == "b"
    with pytest.raises(Disconnected):
        await lost[0]


async def test_a_value_goes_to_the_next_receiver_when_the_first_has_gone(remote: World) -> None:
    channel = Channel(TEXT)
    leaving = await remote.somebody()
    gone = await leaving.hold(channel, Receiver)
    sender, stays = await held(remote, channel, Sender, Receiver)
    lost = asyncio.create_task(gone.receive())
    await waiting(channel, receives=1)
    receive = asyncio.create_task(stays.receive())
    await waiting(channel, receives=2)
    leaving.leave()
    await waiting(channel, receives=1)
    await sender.send("a")
    assert await receive == "a"
    with pytest.raises(Disconnected):
        await lost


# Closing.


async def test_close_fails_what_waits_and_twice_is_fine(world: World) -> None:
    for pending in ("send", "receive"):
        channel = Channel(TEXT)
        both, closer = await held(world, channel, SendReceiver, Closer)
        operation = asyncio.create_task(both.send("a") if pending == "send" else both.receive())
        await waiting(channel, **{f"{pending}s": 1})
        await closer.close()
        await closer.close()
        with pytest.raises(ChannelClosed):
            await operation


async def test_what_is_buffered_is_received_after_close_and_nothing_is_sent(world: World) -> None:
    channel = Channel(TEXT, capacity=2)
    (whole,) = await held(world, channel, Whole)
    await whole.send("a")
    await whole.send("b")
    (late,) = await started(channel, whole, "c")
    await whole.close()
    with pytest.raises(ChannelClosed):
        await late
    with pytest.raises(ChannelClosed):
        await whole.send("d")
    assert [await whole.receive(), await whole.receive()] == ["a", "b"]
    with pytest.raises(ChannelClosed):
        await whole.receive()


async def test_the_last_sender_dropped_closes_once_the_buffer_is_empty(world: World) -> None:
    channel = Channel(TEXT, capacity=2)
    one, two, receiver = await held(world, channel, Sender, Sender, Receiver)
    await one.send("a")
    one.release()
    await two.send("b")
    receive = [await receiver.receive() for _ in range(2)]
    pending = asyncio.create_task(receiver.receive())
    await waiting(channel, receives=1)
    two.release()
    with pytest.raises(ChannelClosed):
        await pending
    assert receive == ["a", "b"]


async def test_a_sender_that_is_forgotten_counts_as_dropped(world: World) -> None:
    channel = Channel(TEXT)
    sender, receiver = await held(world, channel, Sender, Receiver)
    pending = asyncio.create_task(receiver.receive())
    await waiting(channel, receives=1)
    del sender
    gc.collect()
    with pytest.raises(ChannelClosed):
        await pending


async def test_senders_and_receivers_as_they_are_meant_to_be_used(world: World) -> None:
    channel = Channel(TEXT)
    sender, receiver = await held(world, channel, Sender, Receiver)

    async def send_all() -> None:
        async with sender as s:
            for value in "abc":
                await s.send(value)

    sending = asyncio.create_task(send_all())
    assert [value async for value in receiver] == ["a", "b", "c"]
    await sending
    with pytest.raises(ClosedError, match="released"):
        await sender.send("d")


# Facets.

MAY = {
    Sender: {"send"}, Receiver: {"receive"}, Closer: {"close"}, SendReceiver: {"send", "receive"},
    SendCloser: {"send", "close"}, ReceiveCloser: {"receive", "close"}, Whole: {"send", "receive", "close"},
}  # fmt: skip


@pytest.mark.parametrize("kind", MAY, ids=lambda kind: kind.__name__)
async def test_a_facet_may_do_what_it_says_and_nothing_else(world: World, kind: Any) -> None:
    channel = Channel(TEXT, capacity=1)
    (facet,) = await held(world, channel, kind)
    assert {name for name in ("send", "receive", "close") if hasattr(facet, name)} == MAY[kind]
    if world.is_remote:
        known = set(facet.end._client.schema.method_names_inherited)
        assert known == MAY[kind] | {"present", "select"}
    assert issubclass(SERVERS[kind], getattr(schema.channel, kind.__name__).Server)


# Select.


async def test_select_does_what_can_be_done(world: World) -> None:
    one, two = Channel(TEXT), Channel(TEXT)
    somebody = await world.somebody()
    chooser, receiver = await somebody.hold(one, SendReceiver), await somebody.hold(two, Receiver)
    (sender,) = await held(world, two, Sender)
    sends = await started(two, sender, "b")
    chosen = await chooser.select(chooser.receiving(), receiver.receiving(), chooser.sending("x"))
    assert (chosen.index, chosen.value) == (1, "b")
    await sends[0]
    await waiting(one)


async def test_select_waits_for_the_first_that_can_be_done_and_commits_no_other(world: World) -> None:
    one, two = Channel(TEXT), Channel(TEXT)
    somebody = await world.somebody()
    sends, receives = await somebody.hold(one, Sender), await somebody.hold(two, Receiver)
    selecting = asyncio.create_task(sends.select(sends.sending("x"), receives.receiving()))
    await waiting(one, sends=1)
    await waiting(two, receives=1)
    taker, giver = (await held(world, one, Receiver))[0], (await held(world, two, Sender))[0]
    assert await taker.receive() == "x"
    chosen = await selecting
    assert (chosen.index, chosen.value) == (0, None)
    await waiting(two)
    (send,) = await started(two, giver, "y")
    assert not send.done(), "nobody receives it any more"
    send.cancel()


async def test_select_that_may_not_wait_says_so_when_nothing_can_be_done(world: World) -> None:
    channel = Channel(TEXT)
    (both,) = await held(world, channel, SendReceiver)
    assert await both.select(both.receiving(), both.sending("x"), may_wait=False) is None
    await waiting(channel)


async def test_select_is_fair_among_what_can_be_done(world: World) -> None:
    channels = [Channel(TEXT, capacity=100) for _ in range(2)]
    somebody = await world.somebody()
    receivers = [await somebody.hold(channel, Receiver) for channel in channels]
    for channel in channels:
        for _ in range(60):
            await channel.send("v")
    cases = [receiver.receiving() for receiver in receivers]
    counts = [0, 0]
    for _ in range(60):
        counts[(await receivers[0].select(*cases)).index] += 1
    assert min(counts) > 5, counts  # 60 tosses of a coin: less has a chance of one in 10^10


async def test_a_cancelled_select_is_withdrawn_everywhere(world: World) -> None:
    one, two = Channel(TEXT), Channel(TEXT)
    somebody = await world.somebody()
    sends, receives = await somebody.hold(one, Sender), await somebody.hold(two, Receiver)
    selecting = asyncio.create_task(sends.select(sends.sending("x"), receives.receiving()))
    await waiting(one, sends=1)
    await waiting(two, receives=1)
    selecting.cancel()
    await waiting(one)
    await waiting(two)


async def test_select_tells_that_a_channel_is_closed(world: World) -> None:
    one, two = Channel(TEXT), Channel(TEXT)
    somebody = await world.somebody()
    facets = [await somebody.hold(channel, Receiver) for channel in (one, two)]
    selecting = asyncio.create_task(facets[0].select(*(facet.receiving() for facet in facets)))
    await waiting(two, receives=1)
    two.close()
    with pytest.raises(ChannelClosed):
        await selecting
    await waiting(one)


async def test_select_is_refused_over_channels_of_several_nodes(remote: World) -> None:
    async with World("memory") as elsewhere:
        here, there = Channel(TEXT), Channel(TEXT)
        (one,), (two,) = await held(remote, here, Receiver), await held(elsewhere, there, Receiver)
        local = Receiver(there.end)
        with pytest.raises(UsageError, match="several nodes"):
            await one.select(one.receiving(), local.receiving())
        with pytest.raises(UsageError, match="several nodes"):
            await local.select(one.receiving(), local.receiving())
        with pytest.raises(UsageError, match="expected cases"):
            await one.select()
        await waiting(here)
        await waiting(there)
        assert two is not None


class Liar(schema.channel.Receiver.Server):  # type: ignore[misc]
    """Says that it is a facet of the channel that is asked for."""

    async def present_context(self, context: Any) -> None:
        pass


async def test_select_is_refused_for_what_is_no_facet_of_this_node(remote: World) -> None:
    channel = Channel(TEXT)
    (receiver,) = await held(remote, channel, Receiver)
    lie = receiver.receiving()
    request = receiver.end._client.select_request()
    request.mayWait = True
    request.init("cases", 1)[0].receive = Liar()
    with pytest.raises(UsageError, match="several nodes"):
        await call(request.send())
    assert lie.end is receiver.end


async def test_select_is_refused_for_what_a_facet_may_not_do(remote: World) -> None:
    channel = Channel(TEXT)
    (receiver,) = await held(remote, channel, Receiver)
    request = receiver.end._client.select_request()
    request.mayWait = True
    send = request.init("cases", 1)[0].init("send")
    send.sender = receiver.end._client.cast_as(schema.channel.Sender)
    send.value = "forged"
    with pytest.raises(UsageError, match="does not allow"):
        await call(request.send())
    await waiting(channel)


@pytest.mark.parametrize("end", ["cancelled", "cancelled just after", "withdrawn", "both"])
async def test_a_select_that_ends_takes_nothing_with_it(end: str) -> None:
    channel = Channel(TEXT)
    presence: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def select() -> Any:
        with _ended_by([presence]):
            return await choose([rendezvous.Receive(channel.core)], may_wait=True)

    selecting = asyncio.create_task(select())
    await waiting(channel, receives=1)
    if end in ("withdrawn", "both"):
        presence.set_exception(Revoked("withdrawn"))
        await asyncio.sleep(0)  # what waits for it is told
    if end == "cancelled just after":
        await channel.send("a")  # handed to it, and it has not run yet
    if end != "withdrawn":
        selecting.cancel()
    with pytest.raises(Revoked if end == "withdrawn" else asyncio.CancelledError):
        await selecting
    await waiting(channel)
    if end != "cancelled just after":
        sending = asyncio.create_task(channel.send("a"))
        await waiting(channel, sends=1)
    assert await channel.receive() == "a"
    if end != "cancelled just after":
        await sending


async def test_a_select_ends_with_a_name_that_one_of_its_facets_was_obtained_by(remote: World) -> None:
    open_, secret = Channel(TEXT), Channel(TEXT)
    for name, channel in (("open", open_), ("secret", secret)):
        remote.owner.export(name, functools.partial(served, channel))
    connection = (await remote.somebody()).connection
    assert connection is not None
    facets = [facet_of(await connection.connect(name, schema.channel.Receiver), TEXT) for name in ("open", "secret")]
    selecting = asyncio.create_task(facets[0].select(*(facet.receiving() for facet in facets)))
    await waiting(secret, receives=1)
    remote.owner.embargo("secret")
    with pytest.raises(Revoked):
        await selecting
    await waiting(secret)
    await waiting(open_)


def served(channel: Channel[str], _: Any) -> Any:
    return ReceiverServer(channel)


# Limits.


async def test_what_one_holder_may_have_waiting_is_limited(remote: World) -> None:
    channel = Channel(TEXT)
    (sender,) = await held(remote, channel, Sender)
    tasks = [asyncio.create_task(sender.send("v")) for _ in range(1025)]
    done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    (refused,) = done
    with pytest.raises(Overloaded, match="1024 operations"):
        refused.result()
    await waiting(channel, sends=1024)
    for task in tasks:
        task.cancel()
    await waiting(channel)
