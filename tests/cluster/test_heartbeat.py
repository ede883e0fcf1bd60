"""Heartbeats over connections: everybody sees everybody, and soon sees nobody who is gone."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.nodes import TTL_S, Nodes, seen_by
from tests.conftest import until
from ww import schema
from ww.cluster.heartbeat import _PUSH_MAX, _PUSHES_MAX
from ww.discovery.packet import HEARTBEAT_BYTES_MAX, Heartbeat, Load, Packet, Writer, read
from ww.errors import Conflict, Overloaded, UsageError
from ww.identity import Identity
from ww.node import LOOPBACK, Node
from ww.rpc.connection import Connection
from ww.rpc.errors import call
from ww.rpc.vat import Vat

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("kj_loop")]


@pytest.fixture
def nodes(tmp_path: Path) -> Nodes:
    return Nodes(tmp_path)


class Deaf(schema.cluster.News.Server):  # type: ignore[misc]
    """Is told, and never answers."""

    async def push_context(self, context: Any) -> None:
        await asyncio.Event().wait()


class Ears(schema.cluster.News.Server):  # type: ignore[misc]
    """Notes what it is told."""

    def __init__(self) -> None:
        self.pushes: list[int] = []
        self.lost: list[bytes] = []

    async def push_context(self, context: Any) -> None:
        self.pushes.append(len(list(context.params.heartbeats)))
        self.lost += [bytes(known.peer) for known in context.params.lost]


async def join(vat: Vat, gateway: Node, news: Any) -> tuple[Connection, Any]:
    """Join by hand, and return the connection and where to push."""
    connection = await vat.dial(gateway.peer_id, gateway.addresses)
    members = await connection.connect("members", schema.cluster.Members)
    answer = await call(members.join(known=[], news=news))
    return connection, answer.news


def told(data: bytes, age_ms: int = 0) -> dict[str, Any]:
    return {"heartbeat": data, "ageMilliseconds": age_ms}


async def test_whoever_is_connected_sees_the_other_and_what_it_says(nodes: Nodes) -> None:
    async with (
        nodes.node("gateway", meta={"zone": "a"}) as gateway,
        nodes.node("worker", load=lambda: Load(2, 1, 0), meta={"gpu": "no"}) as worker,
        await worker.dial(gateway.peer_id),
    ):
        everybody = {gateway.peer_id, worker.peer_id}
        await nodes.eventually(lambda: seen_by(gateway) == seen_by(worker) == everybody)
        record = gateway.heartbeats.membership.find(worker.peer_id, nodes.clock.now())
        assert record is not None
        assert (record.shown.role, record.shown.meta) == ("worker", (("gpu", "no"),))
        await nodes.eventually(lambda: load_of(gateway, worker) == Load(2, 1, 0))


def load_of(node: Node, other: Node) -> Load | None:
    record = node.heartbeats.membership.find(other.peer_id, node.heartbeats.now())
    return record.shown.load if record is not None else None


async def test_a_gateway_passes_on_who_is_connected_and_who_is_lost(nodes: Nodes) -> None:
    async with nodes.node("gateway") as gateway, nodes.node("worker") as one, nodes.node("worker") as two:
        everybody = {gateway.peer_id, one.peer_id, two.peer_id}
        async with await one.dial(gateway.peer_id):
            connection = await two.dial(gateway.peer_id)
            await nodes.eventually(lambda: seen_by(gateway) == seen_by(one) == seen_by(two) == everybody)
            connection.close()
            without = {gateway.peer_id, one.peer_id}
            await nodes.eventually(lambda: seen_by(gateway) == seen_by(one) == without, within_s=1.0)
            async with await two.dial(gateway.peer_id):
                await nodes.eventually(lambda: seen_by(gateway) == seen_by(one) == everybody, within_s=2.0)


async def test_who_comes_late_is_told_of_all(nodes: Nodes) -> None:
    async with nodes.node("gateway") as gateway, nodes.node("worker") as one, await one.dial(gateway.peer_id):
        await nodes.eventually(lambda: one.peer_id in seen_by(gateway))
        async with nodes.node("worker") as late, await late.dial(gateway.peer_id):
            await nodes.eventually(lambda: seen_by(late) == {gateway.peer_id, one.peer_id, late.peer_id})


async def test_members_stay_as_long_as_they_are_connected(nodes: Nodes) -> None:
    async with nodes.node("gateway") as gateway, nodes.node("worker") as worker, await worker.dial(gateway.peer_id):
        everybody = {gateway.peer_id, worker.peer_id}
        await nodes.eventually(lambda: seen_by(gateway) == seen_by(worker) == everybody)
        for _ in range(10):
            await nodes.pass_time(TTL_S / 2)
            assert seen_by(gateway) == seen_by(worker) == everybody


async def test_relays_do_not_hold_back_what_has_a_short_ttl_until_it_is_over(nodes: Nodes) -> None:
    async with (
        nodes.node("gateway") as gateway,
        nodes.node("worker", ttl_s=1.0) as one,
        nodes.node("worker", ttl_s=1.0) as two,
        await one.dial(gateway.peer_id),
        await two.dial(gateway.peer_id),
    ):
        everybody = {gateway.peer_id, one.peer_id, two.peer_id}
        await nodes.eventually(lambda: seen_by(gateway) == seen_by(one) == seen_by(two) == everybody)
        for _ in range(200):
            await nodes.pass_time(0.05)
            assert seen_by(gateway) == seen_by(one) == seen_by(two) == everybody


async def test_a_restart_under_the_same_key_is_seen_at_once(nodes: Nodes) -> None:
    identity = Identity.generate()
    async with nodes.node("gateway") as gateway:
        for meta in ({"start": "first"}, {"start": "second"}):
            async with nodes.node("worker", identity, meta=meta) as worker, await worker.dial(gateway.peer_id):
                await nodes.eventually(lambda meta=meta: meta_of(gateway, worker) == meta, within_s=1.0)
            await nodes.eventually(lambda: seen_by(gateway) == {gateway.peer_id}, within_s=1.0)


def meta_of(node: Node, other: Node) -> dict[str, str] | None:
    record = node.heartbeats.membership.find(other.peer_id, node.heartbeats.now())
    return dict(record.shown.meta) if record is not None else None


async def test_a_peer_that_does_not_answer_is_given_up(nodes: Nodes) -> None:
    async with nodes.node("gateway") as gateway, nodes.stranger() as vat:
        connection, _ = await join(vat, gateway, Deaf())
        gone = asyncio.ensure_future(connection.wait_closed())
        await nodes.eventually(gone.done, within_s=TTL_S)
        assert gone.exception() is None


async def test_a_gateway_that_does_not_answer_is_given_up(nodes: Nodes) -> None:
    class Silent(schema.cluster.Members.Server):  # type: ignore[misc]
        async def join_context(self, context: Any) -> None:
            context.results.news = Deaf()

    async with nodes.stranger() as vat, nodes.node("worker") as worker:
        vat.export("members", lambda _: Silent())
        (address,) = await vat.listen(LOOPBACK)
        worker.book.learn(vat.peer_id, [address])
        connection = await worker.dial(vat.peer_id)
        gone = asyncio.ensure_future(connection.wait_closed())
        await nodes.eventually(gone.done, within_s=TTL_S)


async def test_only_who_was_dialled_is_believed_that_others_are_lost(nodes: Nodes) -> None:
    async with (
        nodes.node("gateway") as gateway,
        nodes.node("worker") as worker,
        await worker.dial(gateway.peer_id),
        nodes.stranger() as vat,
    ):
        await nodes.eventually(lambda: worker.peer_id in seen_by(gateway))
        connection, news = await join(vat, gateway, Ears())
        lost = {"peer": worker.peer_id.public_key, "incarnation": 2**62, "sequence": 1}
        await call(news.push(heartbeats=[], lost=[lost]))
        assert worker.peer_id in seen_by(gateway)
        connection.close()


async def test_who_told_of_a_member_first_is_told_that_it_is_lost(nodes: Nodes) -> None:
    async with (
        nodes.node("gateway") as gateway,
        nodes.node("worker") as one,
        nodes.node("worker") as two,
        await one.dial(gateway.peer_id),
    ):
        # One has heard of the other by itself, and told the gateway, before that one connects.
        (record,) = two.heartbeats.membership.since(0)
        packet = read(record.data, HEARTBEAT_BYTES_MAX)
        assert isinstance(packet, Packet)
        one.heartbeats.hear(packet, record.data)
        everybody = {gateway.peer_id, one.peer_id, two.peer_id}
        await nodes.eventually(lambda: seen_by(gateway) == everybody)
        connection = await two.dial(gateway.peer_id)
        await nodes.eventually(lambda: seen_by(two) == everybody)
        connection.close()
        without = {gateway.peer_id, one.peer_id}
        await nodes.eventually(lambda: seen_by(gateway) == seen_by(one) == without, within_s=1.0)


async def test_a_node_whose_incarnation_was_lost_is_heard_again(nodes: Nodes, caplog: pytest.LogCaptureFixture) -> None:
    identity = Identity.generate()
    folder = nodes.directory / "incarnations"
    async with nodes.node("gateway") as gateway:
        folder.mkdir(exist_ok=True)
        (folder / str(identity.peer_id)).write_text("9000000000000")
        async with nodes.node("worker", identity) as worker, await worker.dial(gateway.peer_id):
            await nodes.eventually(lambda: worker.peer_id in seen_by(gateway))
        (folder / str(identity.peer_id)).unlink()
        async with nodes.node("worker", identity) as worker, await worker.dial(gateway.peer_id):
            await nodes.eventually(lambda: worker.peer_id in seen_by(gateway), within_s=2.0)
            assert "others remember a later start" in caplog.text
            await until(lambda: (folder / str(identity.peer_id)).read_text() == "9000000000002")


async def test_a_gateway_that_answers_nonsense_does_not_end_its_worker(nodes: Nodes) -> None:
    class Nonsense(schema.cluster.Members.Server):  # type: ignore[misc]
        async def join_context(self, context: Any) -> None:
            context.results.known = [{"peer": b"x"}]
            context.results.news = Ears()

    async with nodes.stranger() as vat, nodes.node("worker") as worker:
        vat.export("members", lambda _: Nonsense())
        (address,) = await vat.listen(LOOPBACK)
        worker.book.learn(vat.peer_id, [address])
        async with await worker.dial(vat.peer_id):
            await nodes.pass_time(1)
            assert seen_by(worker) == {worker.peer_id}


async def test_what_is_passed_on_has_to_be_signed_and_new(nodes: Nodes) -> None:
    async with nodes.node("gateway") as gateway, nodes.stranger() as vat:
        connection, news = await join(vat, gateway, Ears())
        identity = Identity.generate()
        writer = Writer(identity, "ww", 7)
        first, second = (writer.write_heartbeat(Heartbeat(60_000, "worker"))[0] for _ in range(2))
        leaving = writer.write_heartbeat(Heartbeat(0, "worker"))[0]
        other_namespace = Writer(Identity.generate(), "other", 1).write(Heartbeat(60_000, "worker"))
        forged = bytearray(second)
        forged[100] ^= 1  # of the signature
        for data in (b"", b"garbage" * 9, bytes(forged), other_namespace):
            await call(news.push(heartbeats=[told(data)], lost=[]))
        assert identity.peer_id not in seen_by(gateway)
        await call(news.push(heartbeats=[told(second)], lost=[]))
        assert identity.peer_id in seen_by(gateway)
        await call(news.push(heartbeats=[told(leaving)], lost=[]))
        for data in (first, second):
            await call(news.push(heartbeats=[told(data)], lost=[]))
        assert identity.peer_id not in seen_by(gateway)
        connection.close()


async def test_what_is_old_when_it_comes_lives_no_longer_for_it(nodes: Nodes) -> None:
    async with nodes.node("gateway") as gateway, nodes.stranger() as vat:
        connection, news = await join(vat, gateway, Ears())
        identity = Identity.generate()
        data = Writer(identity, "ww", 1).write(Heartbeat(4000, "worker"))
        await call(news.push(heartbeats=[told(data, age_ms=3000)], lost=[]))
        assert identity.peer_id in seen_by(gateway)
        nodes.clock.advance(1.1)
        assert identity.peer_id not in seen_by(gateway)
        connection.close()


async def test_a_session_has_limits(nodes: Nodes) -> None:
    async with nodes.node("gateway") as gateway, nodes.stranger() as vat:
        connection, news = await join(vat, gateway, Ears())
        with pytest.raises(UsageError, match="256"):
            await call(news.push(heartbeats=[told(b"")] * (_PUSH_MAX + 1), lost=[]))
        # Each of these has to wait for the clock, which stands still.
        waiting = [asyncio.ensure_future(call(news.push(heartbeats=[told(b"")] * 64, lost=[]))) for _ in range(9)]
        done, pending = await asyncio.wait(waiting, return_when=asyncio.FIRST_EXCEPTION)
        await nodes.eventually(lambda: sum(push.done() for push in waiting) == 9 - _PUSHES_MAX)
        with pytest.raises(Overloaded):
            next(iter(done)).result()
        members = await connection.connect("members", schema.cluster.Members)
        with pytest.raises(Conflict):
            await call(members.join(known=[], news=Ears()))
        connection.close()
        for push in pending:
            push.cancel()


async def test_load_alone_is_not_passed_on_more_than_once_a_second(nodes: Nodes) -> None:
    busy = 0

    def load() -> Load:
        nonlocal busy
        busy += 1
        return Load(1000, busy, 0)

    ears = Ears()
    async with (
        nodes.node("gateway") as gateway,
        nodes.node("worker", load=load) as worker,
        await worker.dial(gateway.peer_id),
        nodes.stranger() as vat,
    ):
        await nodes.eventually(lambda: worker.peer_id in seen_by(gateway))
        connection, _ = await join(vat, gateway, ears)
        await nodes.eventually(lambda: bool(ears.pushes))
        await nodes.pass_time(1)
        before = len(ears.pushes)
        await nodes.pass_time(10)
        assert 8 <= len(ears.pushes) - before <= 11
        assert ears.lost == []
        connection.close()


async def test_one_that_only_looks_on_is_no_member(nodes: Nodes) -> None:
    async with nodes.node("gateway") as gateway, nodes.node("") as onlooker, await onlooker.dial(gateway.peer_id):
        await nodes.pass_time(1)
        assert seen_by(gateway) == {gateway.peer_id}
        assert seen_by(onlooker) == set()
