"""Strangers that know TLS, or even ww: each is dropped in bounded time, told of in one line, and all others served."""

import asyncio
import contextlib
import socket
import ssl
import struct
from collections.abc import Iterator
from pathlib import Path

import capnp
import pytest

from tests.e2e.leftovers import CleanCluster, clean_cluster_in
from tests.e2e.processes import BOUND_S, Gateway, wait_until
from tests.guests import guest
from ww import schema
from ww.identity import Identity
from ww.net.multiaddr import Multiaddr
from ww.net.tls import TlsTransport
from ww.rpc.vat import Vat

CLIENT_HELLO_BEGUN = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"
NO_CAPNP = {
    "ones": b"\xff" * 4096,
    "zeros": bytes(4096),
    "http": b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" * 20,
    "a segment of 16 GiB": struct.pack("<II", 0, 0x7FFFFFFF) + bytes(64),
    "512 segments of 2 GiB": struct.pack("<I", 511) + struct.pack("<I", 0x0FFFFFFF) * 513,
}


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[CleanCluster]:
    with clean_cluster_in(tmp_path) as cluster:
        yield cluster


@pytest.fixture
def gateway(cluster: CleanCluster) -> Iterator[Gateway]:
    gateway = cluster.gateway("--handshake-timeout", "1")
    worker = cluster.worker(gateway)
    yield gateway
    gateway.post(guest("noop"), id="after", input=4)
    assert gateway.ended("after")["results"][0]["result"] == "4"
    assert worker.peer_id in {entry["peer"] for entry in gateway.workers()}, "it never lost its connection"
    assert len([line for line in worker.lines if "joined gateway" in line]) == 1
    assert "Traceback" not in gateway.log + worker.log
    assert not [line for line in gateway.lines if "ERROR" in line]


def refusals(gateway: Gateway) -> list[str]:
    return [line for line in gateway.lines if " refused " in line]


def the_refusal(gateway: Gateway) -> str:
    """Wait for the one line about a stranger."""
    wait_until(lambda: refusals(gateway), "a line about it")
    (line,) = refusals(gateway)
    return line


def connect(port: int) -> socket.socket:
    sock = socket.create_connection(("127.0.0.1", port), BOUND_S)
    sock.settimeout(BOUND_S)
    return sock


def wait_dropped(sock: socket.socket) -> None:
    with contextlib.suppress(ConnectionError, ssl.SSLError):
        while sock.recv(4096):
            pass


def test_nodes_that_speak_no_capnp(gateway: Gateway) -> None:
    async def talk(identity: Identity, said: bytes) -> None:
        there = Multiaddr.parse(gateway.address)
        assert there.peer_id is not None
        stream = await TlsTransport(identity).dial(there, there.peer_id)
        stream.write(said)
        await asyncio.wait_for(stream.wait_closed(), BOUND_S)

    async def talk_at_once() -> None:
        async with asyncio.TaskGroup() as group:
            for identity, said in zip(strangers, NO_CAPNP.values(), strict=True):
                group.create_task(talk(identity, said))

    strangers = [Identity.generate() for _ in NO_CAPNP]
    asyncio.run(talk_at_once())
    wait_until(lambda: len(refusals(gateway)) >= len(strangers), "a line for each")
    for stranger, kind in zip(strangers, NO_CAPNP, strict=True):
        assert len([line for line in refusals(gateway) if str(stranger.peer_id) in line]) == 1, kind


async def register_then_say(gateway: Gateway, said: bytes, bound_s: float) -> bool:
    """Join as a worker, then send said in place of messages; return whether that is the connection's end."""
    there = Multiaddr.parse(gateway.address)
    assert there.peer_id is not None
    async with capnp.kj_loop():
        identity = Identity.generate()
        async with Vat(identity, TlsTransport(identity)) as vat:
            connection = await vat.dial(there.peer_id, [there])
            request = (await connection.connect("registry", schema.worker.Registry)).register_request()
            request.info.kind, request.info.slots = "native", 1
            registration = (await request.send()).registration
            assert len(await asyncio.to_thread(gateway.workers)) == 2
            stream = connection.link._stream
            stream.write(said)
            try:
                await asyncio.wait_for(stream.wait_closed(), bound_s)
            except TimeoutError:
                return False
            else:
                return True
            finally:
                del registration, request
                stream.abort()
                await stream.wait_closed()


def test_a_worker_that_turns_to_nonsense_is_forgotten(gateway: Gateway) -> None:
    for said in NO_CAPNP.values():
        asyncio.run(register_then_say(gateway, said, 0.2))
        wait_until(lambda: len(gateway.workers()) == 1, "it is not listed any more")
    gateway.post(guest("noop"), id="a", input=6, repeats=4)
    assert {result["attempts"] for result in gateway.ended("a")["results"]} == {1}


def test_a_worker_that_turns_to_nonsense_is_disconnected(gateway: Gateway) -> None:
    assert asyncio.run(register_then_say(gateway, NO_CAPNP["ones"], 3))


def test_peers_that_turn_to_nonsense_and_leave_take_no_room(cluster: CleanCluster) -> None:
    gateway = cluster.gateway("--handshake-timeout", "1", "--peers-max", "4")
    cluster.worker(gateway)
    for _ in range(6):
        asyncio.run(register_then_say(gateway, NO_CAPNP["ones"], 0.2))
        wait_until(lambda: len(gateway.workers()) == 1, "it is not listed any more")
    assert "the limit" not in gateway.log


def test_a_tls_client_without_a_certificate(gateway: Gateway) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with contextlib.suppress(ssl.SSLError), context.wrap_socket(connect(gateway.peer_port)) as sock:
        wait_dropped(sock)
    assert "certificate" in the_refusal(gateway)


def test_who_begins_a_handshake_and_says_no_more(gateway: Gateway) -> None:
    with contextlib.ExitStack() as stack:
        crowd = [stack.enter_context(connect(gateway.peer_port)) for _ in range(3)]
        for sock, said in zip(crowd, (b"", b"\x16", CLIENT_HELLO_BEGUN), strict=True):
            sock.sendall(said)
        for sock in crowd:
            wait_dropped(sock)
    wait_until(lambda: len(refusals(gateway)) == 3, "a line for each")


def test_who_hangs_up_hard_at_every_moment(gateway: Gateway) -> None:
    for said in (b"", b"\x16", CLIENT_HELLO_BEGUN) * 10:
        with connect(gateway.peer_port) as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # a reset, no goodbye
            sock.sendall(said)
    gateway.post(guest("noop"), id="meanwhile", input=6)
    assert gateway.ended("meanwhile")["status"] == "succeeded"
    assert len(refusals(gateway)) <= 30


def test_who_sends_a_byte_at_a_time_has_no_longer(gateway: Gateway) -> None:
    hello = CLIENT_HELLO_BEGUN + bytes(501)
    with connect(gateway.peer_port) as sock:
        sent = 0
        sock.settimeout(0.05)
        with contextlib.suppress(ConnectionError):
            while sent < len(hello):  # 25 seconds of it
                sock.sendall(hello[sent : sent + 1])
                sent += 1
                with contextlib.suppress(TimeoutError):
                    if not sock.recv(1):
                        break
        assert sent < len(hello), "every byte would give it more time"
    the_refusal(gateway)


def test_a_node_of_another_namespace(cluster: CleanCluster, gateway: Gateway) -> None:
    where = f"/ip4/127.0.0.1/tcp/{gateway.peer_port}"
    stray = cluster.program(
        "worker", "--dial", gateway.peer_id, "--addr", where, "--slots", "1", "--ns", "others", "--log", "warning"
    )
    said = stray.logged("namespace")[0] and stray.lines[-1]
    assert "'others'" in said
    assert "'ww'" in said
    assert len(stray.lines) == 1
    assert "others" in the_refusal(gateway)


def test_only_nodes_that_the_list_names_as_it_is_now_may_come(cluster: CleanCluster, tmp_path: Path) -> None:
    key = tmp_path / "worker.key"
    shown = cluster.program("id", "--key", str(key))
    named = shown.stdout_line()
    assert shown.wait() == 0
    allowed = tmp_path / "allowed"
    allowed.write_text("# nobody yet\n")
    gateway = cluster.gateway("--admit", f"allow:{allowed}")
    stray = cluster.program("worker", "--dial", gateway.peer_id, "--slots", "1")
    stranger = stray.logged(r"worker (12D3KooW\w+)")[1]
    stray.logged("refuses this node: .*; trying again")
    assert stranger in the_refusal(gateway)
    assert gateway.workers() == []
    allowed.write_text(f"# who may come\n{named}  # the one\n")
    worker = cluster.worker(gateway, "--key", str(key))
    assert worker.peer_id == named
    gateway.post(guest("noop"), id="a", input=1)
    assert gateway.ended("a")["results"][0]["worker"] == named
    assert "Traceback" not in gateway.log + stray.log


def test_a_worker_is_no_softer_than_a_gateway(cluster: CleanCluster, gateway: Gateway) -> None:
    worker = cluster.worker(gateway, "--handshake-timeout", "1")
    port = int(worker.logged(r"listening on /ip4/127.0.0.1/tcp/(\d+)")[1])
    for said in (b"GET / HTTP/1.1\r\n\r\n", bytes(range(256)) * 16, b""):
        with connect(port) as sock:
            sock.sendall(said)
            wait_dropped(sock)
    wait_until(lambda: len([line for line in worker.lines if " refused " in line]) == 3, "a line for each")
    gateway.post(guest("noop"), id="a", input=1, repeats=10)
    assert gateway.ended("a")["completions"] == 10
    assert "Traceback" not in worker.log


def test_strangers_beyond_the_limit_are_turned_away_and_room_comes_back(cluster: CleanCluster) -> None:
    gateway = cluster.gateway("--handshake-timeout", "1", "--peers-max", "4")
    with contextlib.ExitStack() as stack:
        crowd = [stack.enter_context(connect(gateway.peer_port)) for _ in range(10)]
        gateway.logged("4 connections are open, the limit")
        for sock in crowd:
            wait_dropped(sock)
    wait_until(lambda: len(refusals(gateway)) == 10, "a line for each")
    worker = cluster.worker(gateway)
    gateway.post(guest("noop"), id="a", input=1)
    assert gateway.ended("a")["results"][0]["worker"] == worker.peer_id
