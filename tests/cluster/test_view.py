"""The cluster as a node shows it: queries are honoured, and limits too."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.nodes import Nodes
from ww import schema
from ww.cluster.view import _ITERATORS_MAX, _WAITING_MAX, Query, Selector, View
from ww.discovery.packet import HEARTBEAT_BYTES_MAX, Heartbeat, Load, Packet, Writer, read
from ww.errors import Overloaded, UsageError
from ww.identity import Identity, PeerId
from ww.node import Node
from ww.rpc.connection import Connection
from ww.rpc.errors import call

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("kj_loop")]


@pytest.fixture
def nodes(tmp_path: Path) -> Nodes:
    return Nodes(tmp_path)


@asynccontextmanager
async def asked(nodes: Nodes) -> AsyncIterator[tuple[Node, Connection, View]]:
    """Run a gateway and look at its view from elsewhere."""
    async with (
        nodes.node("gateway") as gateway,
        nodes.stranger() as vat,
        await vat.dial(gateway.peer_id, gateway.addresses) as connection,
    ):
        yield gateway, connection, await View.of(connection)


def say(node: Node, **said: Any) -> PeerId:
    """Have a node hear of a member that says this."""
    identity = Identity.generate()
    data = Writer(identity, "ww", 5).write_heartbeat(Heartbeat(60_000, **said))[0]
    packet = read(data, HEARTBEAT_BYTES_MAX)
    assert isinstance(packet, Packet)
    node.heartbeats.hear(packet, data)
    return identity.peer_id


async def select(view: View, *selectors: tuple[str, str], **settings: Any) -> list[PeerId]:
    query = Query(tuple(Selector.parse(field, text) for field, text in selectors), **settings)
    return [member.peer_id async for member in view.iterate(query)]


async def test_a_member_is_shown_as_it_says_it_is(nodes: Nodes) -> None:
    async with asked(nodes) as (gateway, _, view):
        peer = say(gateway, role="worker", host="h", meta=(("k", "v"),), load=Load(4, 3, 2))
        nodes.clock.advance(2.5)
        member = await view.lookup(peer)
        assert member is not None
        assert (member.peer_id, member.incarnation, member.age_s) == (peer, 5, 2.5)
        assert member.heartbeat == Heartbeat(60_000, "worker", "h", (("k", "v"),), (), Load(4, 3, 2))
        assert await view.lookup(Identity.generate().peer_id) is None


async def test_queries_select_by_what_members_say(nodes: Nodes) -> None:
    async with asked(nodes) as (gateway, _, view):
        one = say(gateway, role="worker", host="web1", meta=(("zone", "eu-1"), ("gpu", "a100")))
        two = say(gateway, role="worker", host="web2", meta=(("zone", "us-1"),))
        three = say(gateway, role="worker2", host="db1", meta=(("zone", "eu-2"),))
        in_order = sorted([one, two, three, gateway.peer_id], key=str)
        for selectors, expected in (
            ((), set(in_order)),
            ((("role", "worker"),), {one, two}),
            ((("role", "worker*"),), {one, two, three}),
            ((("host", "web*"),), {one, two}),
            ((("host", "web"),), set()),
            ((("meta", "gpu"),), {one}),
            ((("meta", "zone=eu-1"),), {one}),
            ((("meta", "zone=eu*"),), {one, three}),
            ((("meta", "zone="),), set()),
            ((("role", "worker"), ("meta", "zone=eu*")), {one}),
            ((("role", "w*"), ("host", "d*"), ("meta", "zone=us*")), set()),
        ):
            assert await select(view, *selectors) == [peer for peer in in_order if peer in expected], selectors
        assert await select(view, reverse=True) == in_order[::-1]
        assert await select(view, limit=2) == in_order[:2]
        assert (
            await select(view, ("role", "w*"), limit=1, reverse=True)
            == [peer for peer in in_order[::-1] if peer != gateway.peer_id][:1]
        )


async def test_all_of_many_members_are_shown_once(nodes: Nodes) -> None:
    async with asked(nodes) as (gateway, _, view):
        peers = {say(gateway, role="worker") for _ in range(600)}
        shown = await select(view, ("role", "worker"))
        assert len(shown) == 600
        assert set(shown) == peers


async def test_a_change_of_who_is_there_is_told_and_load_is_not(nodes: Nodes) -> None:
    async with asked(nodes) as (gateway, _, view):
        version = await view.changed(0)
        changing = asyncio.ensure_future(view.changed(version))
        await nodes.pass_time(0.5)
        assert not changing.done()
        say(gateway, role="worker")
        await nodes.eventually(changing.done)
        assert changing.result() > version


async def test_a_view_has_limits(nodes: Nodes) -> None:
    async with asked(nodes) as (gateway, connection, view):
        raw = await connection.connect("view", schema.cluster.View)
        held = [(await call(raw.iterate(query={}))).members for _ in range(_ITERATORS_MAX)]
        with pytest.raises(Overloaded):
            await call(raw.iterate(query={}))
        held.clear()
        async with asyncio.timeout(10):
            while True:  # letting go of one takes a message
                try:
                    await call(raw.iterate(query={}))
                    break
                except Overloaded:
                    await asyncio.sleep(0)
        version = await view.changed(0)
        waiting = [asyncio.ensure_future(view.changed(version)) for _ in range(_WAITING_MAX)]
        await nodes.pass_time(0.1)
        with pytest.raises(Overloaded):
            await view.changed(version)
        say(gateway, role="worker")
        await asyncio.wait(waiting, timeout=10)
        assert all(wait.done() for wait in waiting)
        with pytest.raises(UsageError):
            await call(raw.iterate(query={"selectors": [{"role": {"text": "x"}}] * 17}))
        with pytest.raises(UsageError):
            await call(raw.lookup(peer=b"short"))


@pytest.mark.parametrize(
    ("field", "text"), [("meta", "=x"), ("meta", ""), ("meta", "a b=c"), ("role", "x" * 300), ("meta", "\n=")]
)
async def test_a_selector_that_makes_no_sense_is_refused(field: str, text: str) -> None:
    with pytest.raises(UsageError):
        Selector.parse(field, text)
