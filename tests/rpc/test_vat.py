"""Two vats: who gets in, what they are told, and what a name gives them."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import until
from ww import schema
from ww.caps.channel import Channel
from ww.caps.facets import SenderServer
from ww.caps.value import TEXT
from ww.errors import (
    Conflict,
    Disconnected,
    NotAdmitted,
    NotFound,
    PeerError,
    PeerMismatch,
    ProtocolMismatch,
    RemoteError,
    Revoked,
)
from ww.identity import Identity
from ww.net.memory import MemoryTransport, Network
from ww.net.multiaddr import Multiaddr
from ww.net.tls import TlsTransport
from ww.net.transport import Transport
from ww.node import LOOPBACK
from ww.rpc.account import PeerLimits
from ww.rpc.admission import AllowFile, parse_admission
from ww.rpc.errors import call
from ww.rpc.exports import Peer
from ww.rpc.register import Register
from ww.rpc.vat import Vat

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("kj_loop")]


class Transports:
    """Makes transports that reach each other, of one kind."""

    def __init__(self, kind: str) -> None:
        self._kind = kind
        self._network = Network()

    def of(self, identity: Identity) -> Transport:
        if self._kind == "tls":
            return TlsTransport(identity, handshake_timeout_s=2.0)
        return MemoryTransport(self._network, identity)


@pytest.fixture(params=["tls", "memory"])
def transports(request: pytest.FixtureRequest) -> Transports:
    return Transports(request.param)


class Serving:
    """A vat that listens and exports a channel's sender, which takes text."""

    def __init__(self, transports: Transports, **settings: Any) -> None:
        self.identity = Identity.generate()
        self.vat = Vat(self.identity, transports.of(self.identity), **settings)
        self.channel: Channel[str] = Channel(TEXT)
        self.peers: list[Peer] = []
        self.addresses: list[Multiaddr] = []

    async def start(self) -> None:
        self.vat.export("channel", self._sender)
        self.vat.export("broken", self._broken)
        self.addresses = await self.vat.listen(LOOPBACK)

    def _sender(self, peer: Peer) -> Any:
        self.peers.append(peer)
        return SenderServer(self.channel)

    def _broken(self, peer: Peer) -> Any:
        raise RuntimeError("secret /path/of/this/machine")


@pytest.fixture
async def serving(transports: Transports) -> AsyncIterator[Serving]:
    serving = Serving(transports)
    async with serving.vat:
        await serving.start()
        yield serving


def client(transports: Transports, **settings: Any) -> Vat:
    identity = Identity.generate()
    return Vat(identity, transports.of(identity), **settings)


async def test_a_name_gives_the_peer_its_own_capability(transports: Transports, serving: Serving) -> None:
    async with client(transports) as vat, await vat.dial(serving.vat.peer_id, serving.addresses) as connection:
        sender = await connection.connect("channel", schema.channel.Sender)
        again = await connection.connect("channel", schema.channel.Sender)
        assert [peer.peer_id for peer in serving.peers] == [vat.peer_id]
        first, second = sender.send("a"), again.send("b")
        assert [await serving.channel.receive(), await serving.channel.receive()] == ["a", "b"]
        await asyncio.gather(call(first), call(second))


async def test_a_name_that_is_not_exported_is_not_found(transports: Transports, serving: Serving) -> None:
    async with client(transports) as vat, await vat.dial(serving.vat.peer_id, serving.addresses) as connection:
        with pytest.raises(NotFound, match="exports nothing named 'nothing'"):
            await connection.connect("nothing", schema.channel.Sender)


async def test_a_failure_there_tells_nothing_of_that_machine(
    transports: Transports, serving: Serving, caplog: pytest.LogCaptureFixture
) -> None:
    async with client(transports) as vat, await vat.dial(serving.vat.peer_id, serving.addresses) as connection:
        with pytest.raises(RemoteError) as error:
            await connection.connect("broken", schema.channel.Sender)
    assert "secret" not in str(error.value)
    assert "Traceback" not in str(error.value)
    assert ".py" not in str(error.value)
    assert "secret" in caplog.text  # its own log says why


async def test_another_peer_than_dialled_is_refused_by_an_error_that_names_both(
    transports: Transports, serving: Serving
) -> None:
    wanted = Identity.generate().peer_id
    async with client(transports) as vat:
        with pytest.raises(PeerMismatch) as error:
            await vat.dial(wanted, serving.addresses)
    assert str(wanted) in str(error.value)
    assert str(serving.vat.peer_id) in str(error.value)
    assert serving.peers == []


@pytest.mark.parametrize(("version", "older"), [(1, "update this node"), (3, "update it")])
async def test_nodes_of_two_versions_are_told_which_is_older(transports: Transports, version: int, older: str) -> None:
    serving = Serving(transports, version=2)
    async with serving.vat, client(transports, version=version) as vat:
        await serving.start()
        with pytest.raises(ProtocolMismatch) as error:
            await vat.dial(serving.vat.peer_id, serving.addresses)
    assert f"speaks protocol version 2, this node speaks {version}: {older}" in str(error.value)


async def test_nodes_that_would_run_a_task_without_its_files_are_refused(
    transports: Transports, serving: Serving
) -> None:
    async with client(transports, version=1) as vat:
        with pytest.raises(ProtocolMismatch, match="speaks protocol version 2, this node speaks 1: update this node"):
            await vat.dial(serving.vat.peer_id, serving.addresses)


async def test_another_namespace_is_refused(transports: Transports, serving: Serving) -> None:
    async with client(transports, namespace="other") as vat:
        with pytest.raises(ProtocolMismatch, match="is in namespace 'ww', this node is in 'other'"):
            await vat.dial(serving.vat.peer_id, serving.addresses)


async def test_only_peers_in_the_allow_file_come_in_and_it_is_read_again(
    transports: Transports, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    allowed = tmp_path / "peers"
    allowed.write_text("# nobody yet\n")
    serving = Serving(transports, admission=parse_admission(f"allow:{allowed}", Register(tmp_path / "peers.db")))
    async with serving.vat, client(transports) as vat:
        await serving.start()
        with pytest.raises(NotAdmitted, match=f"does not name {vat.peer_id}"):
            await vat.dial(serving.vat.peer_id, serving.addresses)
        await until(lambda: f"refused {vat.peer_id}" in caplog.text)
        allowed.write_text(f"{vat.peer_id}  # the one\n")
        async with await vat.dial(serving.vat.peer_id, serving.addresses) as connection:
            await connection.connect("channel", schema.channel.Sender)


async def test_pending_sends_are_withdrawn_when_their_connection_breaks(
    transports: Transports, serving: Serving
) -> None:
    async with client(transports) as vat, client(transports) as other:
        connection = await vat.dial(serving.vat.peer_id, serving.addresses)
        staying = await other.dial(serving.vat.peer_id, serving.addresses)
        sender = await connection.connect("channel", schema.channel.Sender)
        kept = await staying.connect("channel", schema.channel.Sender)
        lost = asyncio.ensure_future(call(sender.send("lost")))
        await until(lambda: len(list(serving.channel.waiting())) == 1)
        stays = asyncio.ensure_future(call(kept.send("kept")))
        await until(lambda: len(list(serving.channel.waiting())) == 2)
        connection.close()
        await until(lambda: [value for _, value in serving.channel.waiting()] == ["kept"])
        with pytest.raises(Disconnected):
            await lost
        assert await serving.channel.receive() == "kept"
        await stays
        staying.close()


async def test_a_cancelled_send_is_withdrawn_at_the_server(transports: Transports, serving: Serving) -> None:
    async with client(transports) as vat, await vat.dial(serving.vat.peer_id, serving.addresses) as connection:
        sender = await connection.connect("channel", schema.channel.Sender)
        send = asyncio.ensure_future(call(sender.send("a")))
        await until(lambda: len(list(serving.channel.waiting())) == 1)
        send.cancel()
        await until(lambda: len(list(serving.channel.waiting())) == 0)


async def test_nobody_at_the_address_is_one_clear_error(transports: Transports) -> None:
    async with client(transports) as vat:
        wanted = Identity.generate().peer_id
        with pytest.raises(PeerError, match="refused"):
            await vat.dial(wanted, [Multiaddr.parse("/ip4/127.0.0.1/tcp/1")])
        with pytest.raises(PeerError, match="no address of"):
            await vat.dial(wanted, [])


async def test_large_values_cross_whole_in_both_directions(transports: Transports, serving: Serving) -> None:
    text = "0123456789abcdef" * (1 << 18)
    async with client(transports) as vat, await vat.dial(serving.vat.peer_id, serving.addresses) as connection:
        sender = await connection.connect("channel", schema.channel.Sender)
        sends = [asyncio.ensure_future(call(sender.send(text))) for _ in range(3)]
        assert [await serving.channel.receive() == text for _ in range(3)] == [True] * 3
        await asyncio.gather(*sends)


async def test_closing_the_serving_vat_tells_its_peers(transports: Transports) -> None:
    serving = Serving(transports)
    async with client(transports) as vat:
        async with serving.vat:
            await serving.start()
            connection = await vat.dial(serving.vat.peer_id, serving.addresses)
        await asyncio.wait_for(connection.wait_closed(), 5)
        connection.close()


async def test_who_does_not_speak_capnp_is_dropped_before_the_time_for_hello_is_over(
    transports: Transports, caplog: pytest.LogCaptureFixture
) -> None:
    serving = Serving(transports, hello_timeout_s=3600.0)
    async with serving.vat:
        await serving.start()
        identity = Identity.generate()
        stream = await transports.of(identity).dial(serving.addresses[0], serving.vat.peer_id)
        stream.write(bytes(4096))
        await asyncio.wait_for(stream.wait_closed(), 5)
        await until(lambda: f"refused {identity.peer_id}" in caplog.text)
    assert "it does not speak Cap'n Proto" in caplog.text


# Names, shares and limits.


async def test_a_name_may_be_for_some_only(transports: Transports, tmp_path: Path) -> None:
    listed, stranger = Identity.generate(), Identity.generate()
    (tmp_path / "few").write_text(f"{listed.peer_id}\n")
    serving = Serving(transports)
    async with serving.vat:
        await serving.start()
        serving.vat.export("private", serving._sender, AllowFile(tmp_path / "few"))
        for identity, may in ((listed, True), (stranger, False)):
            async with (
                Vat(identity, transports.of(identity)) as vat,
                await vat.dial(serving.identity.peer_id, serving.addresses) as connection,
            ):
                await connection.connect("channel", schema.channel.Sender)
                if may:
                    await connection.connect("private", schema.channel.Sender)
                else:
                    with pytest.raises(NotAdmitted, match="private: this node's list"):
                        await connection.connect("private", schema.channel.Sender)


async def test_a_withdrawn_name_revokes_what_was_given_out(transports: Transports) -> None:
    serving, identity = Serving(transports), Identity.generate()
    async with serving.vat, Vat(identity, transports.of(identity)) as vat:
        await serving.start()
        serving.vat.export("other", lambda peer: SenderServer(serving.channel))
        async with await vat.dial(serving.identity.peer_id, serving.addresses) as connection:
            sender = await connection.connect("channel", schema.channel.Sender)
            other = await connection.connect("other", schema.channel.Sender)
            waiting = asyncio.ensure_future(call(sender.send(value="a")))
            await until(lambda: len(list(serving.channel.waiting())) == 1)
            serving.vat.embargo("channel")
            serving.vat.embargo("channel")
            with pytest.raises(Revoked):
                await waiting
            assert list(serving.channel.waiting()) == []
            with pytest.raises(Revoked):
                await call(sender.send(value="b"))
            with pytest.raises(Revoked, match="channel was withdrawn"):
                await connection.connect("channel", schema.channel.Sender)
            kept = asyncio.ensure_future(call(other.send(value="c")))
            assert await serving.channel.receive() == "c"
            await kept
            serving.vat.export("channel", serving._sender)
            again = await connection.connect("channel", schema.channel.Sender)
            sending = asyncio.ensure_future(call(again.send(value="d")))
            assert await serving.channel.receive() == "d"
            await sending
            with pytest.raises(Revoked):
                await call(sender.send(value="e"))


async def test_those_who_dial_the_same_peer_share_a_connection(transports: Transports) -> None:
    serving, identity = Serving(transports), Identity.generate()
    async with serving.vat, Vat(identity, transports.of(identity)) as vat:
        await serving.start()
        dialling = [vat.dial(serving.identity.peer_id, serving.addresses) for _ in range(10)]
        connections = await asyncio.gather(*dialling)
        connections.append(await vat.dial(serving.identity.peer_id, []))
        assert len({connection.link for connection in connections}) == 1
        await connections[0].connect("channel", schema.channel.Sender)
        await until(lambda: len(serving.vat.peers) == 1)
        for connection in connections[:-1]:
            connection.close()
            connection.close()
        with pytest.raises(Disconnected):
            await connections[0].connect("channel", schema.channel.Sender)
        await connections[-1].connect("channel", schema.channel.Sender)
        assert len(serving.peers) == 1, "what a name gives is made once a connection"
        connections[-1].close()
        await until(lambda: not serving.vat.peers)
        async with await vat.dial(serving.identity.peer_id, serving.addresses) as connection:
            assert connection.link is not connections[0].link


async def test_who_stops_waiting_for_a_connection_does_not_stop_the_others(transports: Transports) -> None:
    serving, identity = Serving(transports), Identity.generate()
    async with serving.vat, Vat(identity, transports.of(identity)) as vat:
        await serving.start()
        one, other = (asyncio.ensure_future(vat.dial(serving.identity.peer_id, serving.addresses)) for _ in range(2))
        await asyncio.sleep(0)
        one.cancel()
        async with await other as connection:
            await connection.connect("channel", schema.channel.Sender)
        alone = asyncio.ensure_future(vat.dial(serving.identity.peer_id, serving.addresses))
        await asyncio.sleep(0)
        alone.cancel()
        await until(lambda: not vat._dialling)
        await until(lambda: not serving.vat.accounts)


async def test_a_peer_has_so_many_connections_and_no_more(transports: Transports) -> None:
    serving, identity = Serving(transports, limits=PeerLimits(connections_max=2)), Identity.generate()
    async with contextlib.AsyncExitStack() as stack:
        await stack.enter_async_context(serving.vat)
        await serving.start()
        vats = [await stack.enter_async_context(Vat(identity, transports.of(identity))) for _ in range(3)]
        kept = [await vat.dial(serving.identity.peer_id, serving.addresses) for vat in vats[:2]]
        with pytest.raises(NotAdmitted, match="2 connections of"):
            await vats[2].dial(serving.identity.peer_id, serving.addresses)
        kept[0].close()
        await until(lambda: serving.vat.accounts[identity.peer_id].connections == 1)
        (await vats[2].dial(serving.identity.peer_id, serving.addresses)).close()
        other = Identity.generate()
        vat = await stack.enter_async_context(Vat(other, transports.of(other)))
        (await vat.dial(serving.identity.peer_id, serving.addresses)).close()


async def test_a_peer_with_too_many_calls_is_disconnected_and_others_are_not(
    transports: Transports, caplog: pytest.LogCaptureFixture
) -> None:
    serving = Serving(transports, limits=PeerLimits(calls_max=50))
    greedy, modest = Identity.generate(), Identity.generate()
    async with (
        serving.vat,
        Vat(greedy, transports.of(greedy)) as one,
        Vat(modest, transports.of(modest)) as two,
    ):
        await serving.start()
        connections = [await vat.dial(serving.identity.peer_id, serving.addresses) for vat in (one, two)]
        senders = [await connection.connect("channel", schema.channel.Sender) for connection in connections]
        kept = asyncio.ensure_future(call(senders[1].send(value="kept")))
        await until(lambda: len(list(serving.channel.waiting())) == 1)
        sends = [asyncio.ensure_future(call(senders[0].send(value="x"))) for _ in range(60)]
        for send in sends:
            with pytest.raises(Disconnected):
                await send
        await until(lambda: len(list(serving.channel.waiting())) == 1)
        assert "more than 50 calls" in caplog.text
        assert greedy.peer_id not in serving.vat.accounts
        assert await serving.channel.receive() == "kept"
        await kept
        for connection in connections:
            connection.close()


async def test_calls_that_are_done_with_are_counted_no_more(transports: Transports) -> None:
    serving, identity = Serving(transports, limits=PeerLimits(calls_max=50)), Identity.generate()
    async with serving.vat, Vat(identity, transports.of(identity)) as vat:
        await serving.start()
        async with await vat.dial(serving.identity.peer_id, serving.addresses) as connection:
            sender = await connection.connect("channel", schema.channel.Sender)
            for number in range(200):
                sending = asyncio.ensure_future(call(sender.send(value=str(number))))
                assert await serving.channel.receive() == str(number)
                await sending
            assert serving.vat.accounts[identity.peer_id].calls < 10


async def test_a_capability_of_elsewhere_is_exported_and_withdrawn_too(transports: Transports) -> None:
    serving, identity = Serving(transports), Identity.generate()
    reference = schema.channel.Sender._new_client(SenderServer(serving.channel))
    async with serving.vat, Vat(identity, transports.of(identity)) as vat:
        await serving.start()
        serving.vat.export("reference", lambda peer: reference)
        async with await vat.dial(serving.identity.peer_id, serving.addresses) as connection:
            sender = await connection.connect("reference", schema.channel.Sender)
            sending = asyncio.ensure_future(call(sender.send(value="a")))
            assert await serving.channel.receive() == "a"
            await sending
            waiting = asyncio.ensure_future(call(sender.send(value="b")))
            await until(lambda: len(list(serving.channel.waiting())) == 1)
            serving.vat.embargo("reference")
            with pytest.raises(Revoked):
                await waiting
            assert list(serving.channel.waiting()) == []
            with pytest.raises(Revoked):
                await call(sender.send(value="c"))


# What strangers try.


async def test_hello_is_said_once(transports: Transports) -> None:
    serving, identity = Serving(transports), Identity.generate()
    async with serving.vat, Vat(identity, transports.of(identity)) as vat:
        await serving.start()
        async with await vat.dial(serving.identity.peer_id, serving.addresses) as connection:
            with pytest.raises(Conflict, match="hello was said already"):
                await call(connection.link.bootstrap.hello(version=1, namespace="ww"))
            await connection.connect("channel", schema.channel.Sender)


async def test_a_hello_of_megabytes_is_not_read(transports: Transports, caplog: pytest.LogCaptureFixture) -> None:
    serving, identity = Serving(transports), Identity.generate()
    tickets = {serving.identity.peer_id: "-" * 1_000_000}
    async with serving.vat, Vat(identity, transports.of(identity), ticket_for=tickets) as vat:
        await serving.start()
        with pytest.raises(PeerError, match="before saying hello"):
            await vat.dial(serving.identity.peer_id, serving.addresses)
        await until(lambda: "65536 bytes before hello" in caplog.text)
        await until(lambda: not serving.vat.served)


async def test_a_server_that_several_names_give_is_revoked_by_each_for_itself(transports: Transports) -> None:
    serving, identity = Serving(transports), Identity.generate()
    shared = SenderServer(serving.channel)
    async with serving.vat, Vat(identity, transports.of(identity)) as vat:
        await serving.start()
        for name in "ab":
            serving.vat.export(name, lambda peer: shared)
        async with await vat.dial(serving.identity.peer_id, serving.addresses) as connection:
            one, other = [await connection.connect(name, schema.channel.Sender) for name in "ab"]
            serving.vat.embargo("a")
            serving.vat.export("a", lambda peer: shared)
            again = await connection.connect("a", schema.channel.Sender)
            with pytest.raises(Revoked):
                await call(one.send(value="x"))
            for sender in (other, again):
                sending = asyncio.ensure_future(call(sender.send(value="y")))
                assert await serving.channel.receive() == "y"
                await sending


async def test_who_dials_again_just_after_giving_up_is_not_given_up(transports: Transports) -> None:
    serving, identity = Serving(transports), Identity.generate()
    async with serving.vat, Vat(identity, transports.of(identity)) as vat:
        await serving.start()
        for turns in range(5):
            first = asyncio.ensure_future(vat.dial(serving.identity.peer_id, serving.addresses))
            for _ in range(turns):
                await asyncio.sleep(0)
            first.cancel()
            await asyncio.wait((first,))
            (await vat.dial(serving.identity.peer_id, serving.addresses)).close()
            if not first.cancelled():
                first.result().close()
