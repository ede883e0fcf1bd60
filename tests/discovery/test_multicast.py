"""The survey's sockets, real ones, on this machine's loopback interface."""

import asyncio
import contextlib
import os
import random
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import pytest

from tests.conftest import until
from ww.clock import SystemClock
from ww.discovery.interface import Interface, Watch, interfaces, reachable_by, reachable_from_afar
from ww.discovery.multicast import Links, Multicast, MulticastConfig, check_interfaces
from ww.discovery.packet import Drop, Heartbeat, Packet, Response, Survey, Writer
from ww.discovery.survey import Surveyor
from ww.errors import UsageError
from ww.identity import Identity
from ww.net.multiaddr import Multiaddr, MulticastGroup

pytestmark = pytest.mark.anyio


@pytest.fixture
def group() -> MulticastGroup:
    """A group that no other test uses at the same time."""
    return MulticastGroup("ip4", "239.255.88.22", random.randrange(20_000, 60_000))


class Node:
    """One node's surveyor and its sockets."""

    def __init__(self, group: MulticastGroup, namespace: str = "ww") -> None:
        self.identity = Identity.generate()
        self.writer = Writer(self.identity, namespace, 1)
        self.surveyor = Surveyor(self.writer)
        self.heard: list[Packet] = []
        self.multicast = Multicast(
            self.surveyor,
            SystemClock(),
            MulticastConfig((group,)),
            on_packet=lambda packet, data, interface: self.heard.append(packet),
        )

    def has_heard(self, kind: type) -> bool:
        return any(isinstance(packet.content, kind) for packet in self.heard)


@asynccontextmanager
async def running(*nodes: Node) -> AsyncIterator[None]:
    with contextlib.ExitStack() as stack:
        for node in nodes:
            stack.callback(node.multicast.close)
            stack.enter_context(Watch(node.multicast.update))
        yield


async def test_nodes_of_one_machine_share_the_port_and_find_each_other(group: MulticastGroup) -> None:
    seeker, wanted, other = (Node(group) for _ in range(3))
    async with running(seeker, wanted, other):
        wanted.multicast.listening = [Multiaddr("ip4", "127.0.0.1", 9100)]
        other.multicast.listening = [Multiaddr("ip4", "127.0.0.1", 9200)]
        search = seeker.multicast.look_for(wanted.identity.peer_id)
        await until(lambda: search.is_over)
        assert search.found == {wanted.identity.peer_id: (Multiaddr("ip4", "127.0.0.1", 9100),)}
        await until(lambda: other.has_heard(Survey))
        assert not other.has_heard(Response), "an answer goes to the one who asked alone"


async def test_a_node_that_comes_later_is_found_by_a_search_that_goes_on(group: MulticastGroup) -> None:
    seeker, late = Node(group), Node(group)
    async with running(seeker):
        search = seeker.multicast.look_for(late.identity.peer_id)
        async with running(late):
            late.multicast.listening = [Multiaddr("ip4", "127.0.0.1", 9100)]
            await until(lambda: search.is_over)


async def test_a_node_that_nobody_can_reach_by_an_interface_does_not_answer_there(group: MulticastGroup) -> None:
    seeker, unreachable, witness = Node(group), Node(group), Node(group)
    async with running(seeker, unreachable, witness):
        witness.multicast.listening = [Multiaddr("ip4", "127.0.0.1", 9100)]
        seeker.multicast.look_for(unreachable.identity.peer_id)
        await until(lambda: unreachable.has_heard(Survey))
        search = seeker.multicast.look_for(witness.identity.peer_id)
        await until(lambda: search.is_over)
        assert {packet.sender for packet in seeker.heard if isinstance(packet.content, Response)} == {
            witness.identity.peer_id
        }


async def test_what_is_said_is_heard_by_all_but_the_speaker(group: MulticastGroup) -> None:
    speaker, one, two = Node(group), Node(group), Node(group)
    async with running(speaker, one, two):
        speaker.multicast.send(speaker.writer.write(Heartbeat(1000, "worker")))
        await until(lambda: one.has_heard(Heartbeat) and two.has_heard(Heartbeat))
        await until(lambda: speaker.surveyor.dropped[Drop.OWN] == 1)
        assert speaker.heard == []


@pytest.mark.parametrize("said", [b"", b"garbage", bytes(508), bytes(509), bytes(2000), b"\xff" * 65_000])
async def test_garbage_does_no_harm(group: MulticastGroup, said: bytes) -> None:
    seeker, wanted = Node(group), Node(group)
    async with running(seeker, wanted):
        wanted.multicast.listening = [Multiaddr("ip4", "127.0.0.1", 9100)]
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton("127.0.0.1"))
            sock.sendto(said, (group.host, group.port))
        search = seeker.multicast.look_for(wanted.identity.peer_id)
        await until(lambda: search.is_over)
        assert wanted.surveyor.dropped.total() == 1


async def test_nothing_is_left_of_closed_sockets(group: MulticastGroup) -> None:
    async def search_once() -> None:
        seeker, wanted = Node(group), Node(group)
        async with running(seeker, wanted):
            wanted.multicast.listening = [Multiaddr("ip4", "127.0.0.1", 9100)]
            search = seeker.multicast.look_for(wanted.identity.peer_id)
            await until(lambda: search.is_over)

    await search_once()
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(5):
        await search_once()
    assert len(os.listdir("/proc/self/fd")) == before


def one_interface(name: str, *hosts: str) -> Interface:
    return Interface(name, 1, tuple(Multiaddr("ip6" if ":" in host else "ip4", host, 0) for host in hosts))


LO = one_interface("lo", "127.0.0.1", "::1")
ETH = one_interface("eth0", "192.0.2.7", "2001:db8::7")
WLAN = one_interface("wlan0", "198.51.100.7")


@pytest.mark.parametrize(
    ("listening", "interface", "reachable"),
    [
        (["/ip4/127.0.0.1/tcp/1"], LO, ["/ip4/127.0.0.1/tcp/1"]),
        (["/ip4/127.0.0.1/tcp/1"], ETH, []),
        (["/ip4/0.0.0.0/tcp/1"], LO, ["/ip4/127.0.0.1/tcp/1"]),
        (["/ip4/0.0.0.0/tcp/1"], ETH, ["/ip4/192.0.2.7/tcp/1"]),
        (["/ip6/::/tcp/1", "/ip4/0.0.0.0/tcp/2"], ETH, ["/ip6/2001:db8::7/tcp/1", "/ip4/192.0.2.7/tcp/2"]),
        (["/ip6/::/tcp/1"], WLAN, []),
        (["/ip4/192.0.2.7/tcp/1"], WLAN, ["/ip4/192.0.2.7/tcp/1"]),
        (["/ip4/192.0.2.7/tcp/1"], LO, ["/ip4/192.0.2.7/tcp/1"]),
    ],
)
async def test_where_a_node_can_be_reached_depends_on_the_interface(
    listening: list[str], interface: Interface, reachable: list[str]
) -> None:
    addresses = [Multiaddr.parse(text) for text in listening]
    assert [str(address) for address in reachable_by(interface, addresses)] == reachable


async def test_from_afar_a_node_is_reached_by_all_interfaces_but_loopback() -> None:
    everywhere = [Multiaddr.parse("/ip4/0.0.0.0/tcp/1")]
    found = [str(address) for address in reachable_from_afar([LO, ETH, WLAN], everywhere)]
    assert found == ["/ip4/192.0.2.7/tcp/1", "/ip4/198.51.100.7/tcp/1"]
    assert reachable_from_afar([LO, ETH], [Multiaddr.parse("/ip4/127.0.0.1/tcp/1")]) == ()


async def test_links_follow_the_interfaces(group: MulticastGroup) -> None:
    heard: list[bytes] = []
    links = Links(MulticastConfig((group,)), lambda link, data, sender: heard.append(data))
    (loopback,) = [interface for interface in interfaces() if interface.is_loopback]
    with contextlib.closing(links):
        links.update([ETH])
        assert links.is_empty, "only with beyond_loopback"
        links.update([loopback])
        links.send(b"one")
        await until(lambda: heard == [b"one"])
        links.update([])
        assert links.is_empty
        links.update([loopback])
        links.send(b"two")
        await until(lambda: heard == [b"one", b"two"])


async def test_a_group_on_an_interface_that_is_not_there_is_refused() -> None:
    with pytest.raises(UsageError, match="no interface nope0; there are eth0, lo"):
        check_interfaces([MulticastGroup("ip4", "239.1.1.1", 5, "nope0")], [LO, ETH])
    check_interfaces([MulticastGroup("ip4", "239.1.1.1", 5, "eth0")], [LO, ETH])


async def test_a_watch_tells_of_the_interfaces_at_first() -> None:
    told: list[list[Interface]] = []
    with Watch(told.append):
        assert told == [interfaces()]
        await asyncio.sleep(0)


@pytest.fixture(autouse=True)
def _no_warnings(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    yield
    assert not [record for record in caplog.records if record.exc_info]
