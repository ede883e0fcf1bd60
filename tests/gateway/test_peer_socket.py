"""Peers over WebSocket: who is let in, that bytes wait where they must, and that nothing is left."""

import asyncio
import gc
import hashlib
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from tests.conftest import until
from tests.gateway.peers import greet, hear, linked, open_door, prove, proved, say
from ww import schema
from ww.caps.blob import BytesBlobServer, fetch
from ww.clock import SystemClock
from ww.gateway.perimeter import PerimeterConfig
from ww.gateway.serve import GatewayConfig, serve
from ww.gateway.server import ServerConfig
from ww.identity import Identity
from ww.net.proof import PEER_DOMAIN, statement, to_text
from ww.net.transport import Stream
from ww.node import Node, NodeConfig
from ww.rpc.admission import Closed, Open, Unbanned, parse_admission
from ww.rpc.register import Register

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("kj_loop")]

ME: Final = Identity.generate()
LARGE: Final = bytes(range(256)) * (30 << 12)  # 30 MiB


def _signed(challenge: dict[str, Any], **other: str) -> dict[str, str]:
    """Make a proof that is as it should be but for what is signed."""
    proof = prove(ME, challenge)
    said = {"gateway": challenge["gateway"], "origin": "", "purpose": "work"}
    said |= {"nonce": challenge["nonce"], "own": proof["nonce"]} | other
    return proof | {"signature": to_text(ME.sign(PEER_DOMAIN, statement(*said.values())))}


Spoil = Callable[[dict[str, Any]], Any]
SPOILT: Final[list[tuple[Spoil, str]]] = [
    (lambda c: _signed(c, nonce=to_text(b"x" * 32)), "signature is not of that key"),
    (lambda c: _signed(c, gateway=str(ME.peer_id)), "signature is not of that key"),
    (lambda c: prove(ME, c, origin="http://another.example"), "signature is not of that key"),
    (lambda c: prove(ME, c) | {"nonce": to_text(b"x" * 32)}, "signature is not of that key"),
    (lambda c: prove(ME, c) | {"key": to_text(b"x" * 32)}, "signature is not of that key"),
    (lambda c: prove(ME, c, purpose="rule"), "purpose: expected"),
    (lambda c: prove(ME, c) | {"key": "AAAA"}, "key: expected 32 bytes"),
    (lambda c: prove(ME, c) | {"signature": "!"}, "signature: expected 64 bytes"),
    (lambda c: prove(ME, c) | {"nonce": "A" * 44}, "nonce: expected 32 bytes"),
    (lambda c: prove(ME, c) | {"nonce": 7}, "nonce: expected a text"),
    (lambda c: {"type": "hello"}, "expected a JSON object of type"),
    (lambda c: "[" * 4096, "expected a JSON object of type"),
    (lambda c: prove(ME, c) | {"more": "x" * 4096}, "more than 4096 bytes"),
    (lambda c: b"\0" * 64, "the proof is binary"),
]


@pytest.mark.parametrize(("spoil", "says"), SPOILT, ids=[f"{n}" for n in range(len(SPOILT))])
async def test_a_proof_that_is_wrong_is_refused(spoil: Spoil, says: str) -> None:
    async with open_door() as door, connect(door.url) as socket:
        answer = await say(socket, spoil(await hear(socket)))
        assert answer["type"] == "refused"
        assert says in answer["reason"]
        with pytest.raises(ConnectionClosed) as closed:
            await socket.recv()
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 4403
        await until(lambda: door.sockets.count == 0)
        assert not door.vat.served


async def test_a_proof_is_good_for_one_connection_and_for_an_origin() -> None:
    async with open_door() as door, connect(door.url) as first, connect(door.url) as second:
        proof = prove(ME, await hear(first))
        assert (await say(first, proof))["type"] == "welcome"
        await hear(second)
        assert (await say(second, proof))["type"] == "refused"
        origin: Any = f"http://127.0.0.1:{door.port}"
        async with connect(door.url, origin=origin) as page:
            assert (await say(page, prove(ME, await hear(page), origin=origin)))["type"] == "welcome"
        async with connect(door.url, origin=origin) as page:
            assert (await say(page, prove(ME, await hear(page))))["type"] == "refused"
        with pytest.raises(InvalidStatus) as refused:
            await connect(door.url, origin="http://another.example")  # type: ignore[arg-type]
        assert refused.value.response.status_code == 403


@pytest.mark.parametrize("behind_proxy", [True, False])
async def test_only_a_proxy_says_where_a_peer_comes_from(behind_proxy: bool, caplog: pytest.LogCaptureFixture) -> None:
    headers = {"X-Forwarded-For": "10.9.9.9, 198.51.100.7"}
    async with open_door(behind_proxy=behind_proxy) as door, connect(door.url, additional_headers=headers) as socket:
        await hear(socket)
        assert (await say(socket, {}))["type"] == "refused"
    (line,) = (record.getMessage() for record in caplog.records if "refused a peer" in record.getMessage())
    assert ("at 198.51.100.7:" if behind_proxy else "at 127.0.0.1:") in line


async def test_who_gives_no_proof_is_put_out() -> None:
    async with open_door(proof_timeout_s=0.05) as door, connect(door.url) as socket:
        assert (await hear(socket))["type"] == "challenge"
        assert "no proof within" in (await hear(socket))["reason"]


async def test_calls_and_large_answers_go_both_ways_and_text_ends_it() -> None:
    class Registry(schema.worker.Registry.Server):  # type: ignore[misc]
        async def register_context(self, context: Any) -> None:
            got.append(context.params.info.host)

    got: list[str] = []
    async with open_door() as door:
        door.vat.export("blob", lambda _: BytesBlobServer(LARGE))
        door.vat.export("registry", lambda _: Registry())
        async with linked(door, ME) as link:
            assert await greet(link) == ""
            assert [peer.peer_id for peer in door.vat.peers] == [ME.peer_id]
            digest = hashlib.sha256()
            blob = await link.connect("blob", schema.worker.Blob)
            async for data in fetch(blob, bytes_max=len(LARGE)):
                digest.update(data)
            assert digest.digest() == hashlib.sha256(LARGE).digest()
            registry = await link.connect("registry", schema.worker.Registry)
            request = registry.register_request()
            request.init("info").host = "h" * (8 << 20)
            await request.send()
            assert [len(host) for host in got] == [8 << 20]
            del blob, registry, request
        async with proved(door.url) as socket:
            await socket.send("text")
            with pytest.raises(ConnectionClosed) as closed:
                await socket.recv()
            assert closed.value.rcvd is not None
            assert closed.value.rcvd.code == 1003
        async with proved(door.url) as socket:
            await socket.send(b"x" * ((1 << 20) + 1))
            with pytest.raises(ConnectionClosed) as closed:
                await socket.recv()
            assert closed.value.rcvd is not None
            assert closed.value.rcvd.code == 1009
        await until(lambda: not door.vat.served)


async def test_admission_bans_and_tickets_hold_here_too(tmp_path: Path) -> None:
    async with open_door(vat={"admission": Closed("nobody today")}) as door, linked(door) as link:
        assert await greet(link) == "nobody today"
    register = Register(tmp_path / "register.db")
    async with open_door(vat={"admission": Unbanned(register, parse_admission("ticket", register))}) as door:
        async with linked(door, ME) as link:
            assert "has a ticket" in await greet(link)
        ticket = await asyncio.to_thread(register.create_ticket, 60.0, 1, time.time())
        async with linked(door, ME) as link:
            assert await greet(link, ticket) == ""
        await asyncio.to_thread(register.set_banned, ME.peer_id, True)
        async with linked(door, ME) as link:
            assert "banned" in await greet(link)


async def test_the_limit_is_said(caplog: pytest.LogCaptureFixture) -> None:
    async with open_door(count_max=1) as door:
        async with proved(door.url):
            for _ in range(3):
                with pytest.raises(InvalidStatus) as refused:
                    await connect(door.url)
                assert refused.value.response.status_code == 429
                assert b"--web-peers" in refused.value.response.body
        assert caplog.text.count("refused a peer over WebSocket") == 1
        await until(lambda: door.sockets.count == 0)
        async with proved(door.url):
            pass


@pytest.mark.parametrize(("admission", "status"), [(None, 403), (Open(), 426)])
async def test_peers_of_elsewhere_need_admission(
    tmp_path: Path, admission: Any, status: int, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "ww.gateway")
    node = Node(NodeConfig(tmp_path, admission=admission))
    config = GatewayConfig(tmp_path, perimeter=PerimeterConfig(any_address=True), server=ServerConfig(port=0))
    async with node, serve(node, SystemClock(), config) as gateway:
        host, port = gateway.http_address.split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(b"GET /peer HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")
        answer = await reader.read()
        writer.close()
        assert answer.startswith(b"HTTP/1.1 %d " % status)
        assert (b"--admit" in answer) == ("no browser can be a worker" in caplog.text) == (status == 403)


class _Far:
    """A Receiver that notes what comes, and is told when it writes too much."""

    def __init__(self) -> None:
        self.bytes = 0
        self.digest = hashlib.sha256()
        self.is_paused = self.was_paused = self.is_lost = False

    def data_received(self, data: bytes) -> None:
        self.bytes += len(data)
        self.digest.update(data)

    def pause_writing(self) -> None:
        self.is_paused = self.was_paused = True

    def resume_writing(self) -> None:
        self.is_paused = False

    def connection_lost(self, error: Exception | None) -> None:
        self.is_lost = True


async def test_who_is_not_read_waits_and_all_of_it_comes_later() -> None:
    streams: list[Stream] = []
    async with open_door(accept=streams.append) as door, proved(door.url) as socket:
        await until(lambda: bool(streams))
        stream, far = streams[0], _Far()
        stream.attach(far)
        stream.pause_reading()
        sent = 0

        async def send() -> None:
            nonlocal sent
            for place in range(0, len(LARGE), 64 << 10):
                await socket.send(LARGE[place : place + (64 << 10)])
                sent += 64 << 10

        sending = asyncio.ensure_future(send())
        await until(lambda: socket.paused)  # the connection is full, from end to end
        assert sent < len(LARGE) // 2
        assert far.bytes <= 2 << 20
        stream.resume_reading()
        await asyncio.wait_for(sending, 20)
        await until(lambda: far.bytes == len(LARGE))
        assert far.digest.digest() == hashlib.sha256(LARGE).digest()


async def test_who_writes_too_much_is_told_and_all_of_it_arrives() -> None:
    streams: list[Stream] = []
    async with open_door(accept=streams.append) as door, proved(door.url) as socket:
        await until(lambda: bool(streams))
        stream, far = streams[0], _Far()
        stream.attach(far)
        written = 0
        while not far.is_paused and written < len(LARGE):
            stream.write(LARGE[written : written + (1 << 18)])
            written += 1 << 18
            await asyncio.sleep(0)
        assert far.is_paused
        stream.write(LARGE[written:])  # more than is one message
        digest, got = hashlib.sha256(), 0
        while got < len(LARGE):
            message = await asyncio.wait_for(socket.recv(), 10)
            assert isinstance(message, bytes)
            assert len(message) <= 1 << 18
            got += len(message)
            digest.update(message)
        assert digest.digest() == hashlib.sha256(LARGE).digest()
        await until(lambda: not far.is_paused)


async def test_who_takes_nothing_is_cut() -> None:
    streams: list[Stream] = []
    async with open_door(accept=streams.append, unread_timeout_s=0.2) as door, proved(door.url):
        await until(lambda: bool(streams))
        far = _Far()
        streams[0].attach(far)
        streams[0].write(LARGE)
        await until(lambda: far.is_lost)
        await until(lambda: door.sockets.count == 0)


async def test_many_come_and_go_and_leave_nothing_and_stopping_closes_the_rest() -> None:
    before = len(asyncio.all_tasks())
    async with open_door() as door:
        own = len(asyncio.all_tasks())
        for _ in range(4):
            sockets = [await connect(door.url, ping_interval=None, close_timeout=1) for _ in range(25)]
            for number, socket in enumerate(sockets):
                if number % 3:
                    await say(socket, prove(ME, await hear(socket)))
                if number % 2:
                    await socket.close()
                else:
                    socket.transport.abort()
            await until(lambda: door.sockets.count == 0 and not door.vat.served, 20)
            del sockets, socket
        gc.collect()
        await until(lambda: len(asyncio.all_tasks()) <= own)
        idle = await connect(door.url)
        await hear(idle)
        talking = await connect(door.url)
        await say(talking, prove(ME, await hear(talking)))
        await until(lambda: len(door.vat.served) == 1)
    for socket in (idle, talking):
        with pytest.raises(ConnectionClosed):
            await asyncio.wait_for(socket.recv(), 5)
        await socket.close()
    await until(lambda: len(asyncio.all_tasks()) <= before)
