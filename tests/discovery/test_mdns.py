"""mDNS: what is written is read, whatever comes; and real machines that find each other by it alone."""

import contextlib
import subprocess
import sys
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.e2e.namespaces import Lan, Machine, lan, why_not
from tests.guests import ROOT
from ww.discovery.mdns import MdnsConfig, read_txt, write_txt
from ww.identity import Identity
from ww.net.multiaddr import Multiaddr

PEER, OTHER = Identity.generate().peer_id, Identity.generate().peer_id
CONFIG = MdnsConfig()
addresses = st.builds(lambda host, port: Multiaddr("ip4", str(host), port), st.ip_addresses(v=4), st.integers(0, 65535))


def strings(*texts: bytes) -> bytes:
    return b"".join(bytes([len(text)]) + text for text in texts)


@given(st.lists(addresses, min_size=1, max_size=8), st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", fullmatch=True))
def test_what_is_written_is_read(found: list[Multiaddr], namespace: str) -> None:
    assert read_txt(write_txt(PEER, namespace, found), CONFIG) == (namespace, PEER, tuple(found))


@given(st.binary(max_size=600) | st.lists(st.binary(max_size=255)).map(lambda texts: strings(*texts)))
def test_no_bytes_get_an_exception_out_of_the_reader(data: bytes) -> None:
    read_txt(data, CONFIG)


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        ((), None),
        ((b"ns=ww",), None),
        ((b"dnsaddr=/ip4/192.0.2.1/tcp/1",), None),
        ((b"dnsaddr=/ip4/192.0.2.1/tcp/1/p2p/%s" % str(PEER).encode(),), (None, PEER, 1)),
        (
            (
                b"dnsaddr=/ip4/192.0.2.1/udp/1/quic-v1/p2p/x",
                b"dnsaddr=/ip4/192.0.2.1/tcp/1/p2p/%s" % str(PEER).encode(),
            ),
            (None, PEER, 1),
        ),
        (
            (
                b"dnsaddr=/ip4/192.0.2.1/tcp/1/p2p/%s" % str(PEER).encode(),
                b"dnsaddr=/ip4/192.0.2.1/tcp/1/p2p/%s" % str(OTHER).encode(),
            ),
            None,
        ),
        ((b"ns=\xff", b"x", b"=", b"dnsaddr=/ip4/192.0.2.1/tcp/1/p2p/%s" % str(PEER).encode()), (None, PEER, 1)),
        (
            tuple(b"dnsaddr=/ip4/192.0.2.1/tcp/%d/p2p/%s" % (n, str(PEER).encode()) for n in range(1, 20)),
            (None, PEER, 8),
        ),
    ],
)
def test_what_a_record_says(texts: tuple[bytes, ...], expected: tuple[object, object, int] | None) -> None:
    said = read_txt(strings(*texts), CONFIG)
    assert (said if said is None else (said[0], said[1], len(said[2]))) == expected


NODE = """
import asyncio, os, sys
import capnp
from ww.discovery.interface import Watch
from ww.discovery.mdns import Mdns
from ww.identity import Identity
from ww.net.multiaddr import Multiaddr

async def main():
    peer_id, loop = Identity.generate().peer_id, asyncio.get_running_loop()
    fds = len(os.listdir("/proc/self/fd"))
    lines = asyncio.StreamReader()
    pipe, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    found = lambda peer, where: print("found", peer, *where, flush=True)
    async with Mdns(peer_id, sys.argv[1], found) as mdns:
        print("peer", peer_id, flush=True)
        while line := (await lines.readline()).decode().split():
            if line[0] == "announce":
                await mdns.announce([Multiaddr.parse(text) for text in line[1:]])
            else:
                await mdns.rebind()
    pipe.close()
    left = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
    print("left", left, len(os.listdir("/proc/self/fd")) <= fds, flush=True)

async def with_capnp():
    async with capnp.kj_loop():
        await main()

asyncio.run(with_capnp())
"""


class Node:
    """A process that does mDNS on a machine."""

    def __init__(self, machine: Machine, namespace: str = "ww") -> None:
        self._process = subprocess.Popen(
            [*machine.prefix, sys.executable, "-W", "error", "-c", NODE, namespace],
            cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        self.peer_id = self.line().split()[1]

    def line(self) -> str:
        """Return what it prints next; the test's timeout is the bound."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline().strip()
        assert line or self._process.poll() is None, self._process.communicate()[1]
        return line

    def say(self, line: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()

    def ends_cleanly(self) -> None:
        out, err = self._process.communicate("", timeout=20)
        assert (out.splitlines()[-1], err) == ("left [] True", "")

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()


@pytest.fixture
def network() -> Iterator[Lan]:
    if why_not():
        pytest.skip(why_not())
    with lan(3) as network:
        yield network


@contextlib.contextmanager
def running(*nodes: Node) -> Iterator[None]:
    try:
        yield
    finally:
        for node in nodes:
            node.close()


def test_two_machines_find_each_other_and_hear_of_changes(network: Lan) -> None:
    one, two = Node(network.machines[0]), Node(network.machines[1])
    with running(one, two):
        one.say("announce /ip4/10.0.0.1/tcp/1 /ip4/127.0.0.1/tcp/9")
        assert two.line() == f"found {one.peer_id} /ip4/10.0.0.1/tcp/1"
        two.say("announce /ip4/10.0.0.2/tcp/1 /ip6/2001:db8::1/tcp/2")
        assert one.line() == f"found {two.peer_id} /ip4/10.0.0.2/tcp/1 /ip6/2001:db8::1/tcp/2"
        one.say("announce /ip4/10.0.0.1/tcp/2")
        assert two.line() == f"found {one.peer_id} /ip4/10.0.0.1/tcp/2"
        late = Node(network.machines[2])
        with running(late):
            assert {late.line().split()[1] for _ in range(2)} == {one.peer_id, two.peer_id}
        for node in (one, two):
            node.ends_cleanly()


def test_other_namespaces_and_those_that_went_are_not_found(network: Lan) -> None:
    stranger, one, two = Node(network.machines[0], "other"), Node(network.machines[1]), Node(network.machines[2])
    with running(stranger, one, two):
        stranger.say("announce /ip4/10.0.0.9/tcp/1")
        one.say("announce /ip4/10.0.0.1/tcp/1")
        assert two.line() == f"found {one.peer_id} /ip4/10.0.0.1/tcp/1"
        one.say("announce")
        one.ends_cleanly()
        late = Node(network.machines[1])
        with running(late):
            two.say("announce /ip4/10.0.0.2/tcp/1")
            assert late.line() == f"found {two.peer_id} /ip4/10.0.0.2/tcp/1", "and nobody else before"


def test_sockets_opened_anew_and_a_cable_pulled(network: Lan) -> None:
    one, two = Node(network.machines[0]), Node(network.machines[1])
    with running(one, two):
        one.say("announce /ip4/10.0.0.1/tcp/1")
        assert two.line() == f"found {one.peer_id} /ip4/10.0.0.1/tcp/1"
        network.cut(network.machines[0])
        one.say("announce /ip4/10.0.0.1/tcp/2")
        network.plug_in(network.machines[0])
        one.say("rebind")
        assert two.line() == f"found {one.peer_id} /ip4/10.0.0.1/tcp/2"


def test_garbage_does_no_harm(network: Lan) -> None:
    one, two = Node(network.machines[0]), Node(network.machines[1])
    with running(one, two):
        garbage = (
            "import socket, struct;"
            "s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM);"
            "i = struct.pack('=4s4si', bytes(4), bytes(4), socket.if_nametoindex('eth0'));"
            "s.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, i);"
            "[s.sendto(data, ('224.0.0.251', 5353)) for data in (b'x', bytes(12), b'\\xff' * 1400, bytes(9000)[:1472])]"
        )
        subprocess.run([*network.machines[2].prefix, sys.executable, "-c", garbage], check=True)
        one.say("announce /ip4/10.0.0.1/tcp/1")
        assert two.line() == f"found {one.peer_id} /ip4/10.0.0.1/tcp/1"
        two.ends_cleanly()


def test_a_machine_without_a_network_goes_without(network: Lan) -> None:
    with lan(1) as alone:
        alone.cut(alone.machines[0])
        node = Node(alone.machines[0])
        with running(node):
            node.say("announce /ip4/10.0.0.1/tcp/1")
            node.ends_cleanly()
