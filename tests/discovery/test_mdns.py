"""mDNS: its TXT record from any bytes, and nodes in network namespaces that find each other by it."""

import contextlib
import json
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.e2e.namespaces import Lan, Machine, lan, one_machine, two_machines, why_not
from tests.guests import ROOT
from ww.discovery.mdns import MdnsConfig, read_text, write_text
from ww.errors import UsageError
from ww.identity import Identity, PeerId
from ww.net.multiaddr import Multiaddr

CONFIG = MdnsConfig()
PEER, OTHER = PeerId(bytes(range(32))), PeerId(bytes(32))
HERE = Multiaddr("ip4", "10.0.0.1", 9100)

ip4 = st.ip_addresses(v=4).map(lambda ip: ("ip4", str(ip)))
ip6 = st.ip_addresses(v=6).map(lambda ip: ("ip6", str(ip)))
addresses = st.builds(lambda host, port: Multiaddr(*host, port), ip4 | ip6, st.integers(1, 65535)).filter(
    lambda address: not address.is_loopback and not address.is_unspecified
)
peers = st.binary(min_size=32, max_size=32).map(PeerId)
namespaces = st.text(max_size=60)


def text_of(*strings: str | bytes) -> bytes:
    """Return a TXT record of these strings."""
    data = [string.encode() if isinstance(string, str) else string for string in strings]
    return b"".join(bytes((len(string),)) + string for string in data)


def test_a_name_is_not_looked_up_for_strangers() -> None:
    named = entry(Multiaddr("dns", "a.example", 80))
    assert read_text(text_of("ns=ww", named), "ww", CONFIG) is None
    assert read_text(text_of("ns=ww", named, entry(HERE)), "ww", CONFIG) == (PEER, (HERE,))


def entry(address: Multiaddr, peer_id: PeerId = PEER) -> str:
    return f"dnsaddr={address.of_peer(peer_id)}"


@given(peers, namespaces, st.lists(addresses, min_size=1, max_size=8, unique=True))
def test_what_is_written_is_read_back(peer_id: PeerId, namespace: str, where: list[Multiaddr]) -> None:
    text = write_text(peer_id, namespace, where, CONFIG)
    assert len(text) <= CONFIG.record_bytes_max
    assert read_text(text, namespace, CONFIG) == (peer_id, tuple(where))
    assert read_text(text, namespace + "x", CONFIG) is None


@given(st.binary(max_size=1500))
def test_any_bytes_are_read_without_raising(data: bytes) -> None:
    assert read_text(data, "ww", CONFIG) is None


strings = st.one_of(
    st.binary(max_size=255),
    st.binary(max_size=200).map(lambda data: b"dnsaddr=" + data),
    st.text("/ip46dnstcpp2:.0123456789", max_size=60).map(lambda text: b"dnsaddr=" + text.encode()),
    st.sampled_from([b"ns=ww", b"NS=ww", b"ns", b"", entry(HERE).encode(), entry(HERE, OTHER).encode()]),
)


@given(st.lists(strings, max_size=12).map(lambda said: text_of(*said)), st.binary(max_size=3))
def test_nearly_right_records_are_read_without_raising(text: bytes, rest: bytes) -> None:
    found = read_text(text + rest, "ww", CONFIG)
    assert found in (None, (PEER, (HERE,)), (OTHER, (HERE,)))


@pytest.mark.parametrize(
    "strings",
    [
        pytest.param((entry(HERE),), id="no namespace"),
        pytest.param(("ns=other", entry(HERE)), id="another namespace"),
        pytest.param(("ns=other", "ns=ww", entry(HERE)), id="the first of two namespaces counts"),
        pytest.param(("ns=ww",), id="no address"),
        pytest.param(("ns=ww", f"dnsaddr={HERE}"), id="no peer"),
        pytest.param(("ns=ww", entry(HERE), entry(HERE, OTHER)), id="two peers"),
        pytest.param(("ns=ww", "dnsaddr=/ip4/10.0.0.1/tcp/9100/p2p/12D3KooWx"), id="no peer id"),
        pytest.param(("ns=ww", entry(replace(HERE, host="127.0.0.1"))), id="loopback"),
        pytest.param(("ns=ww", entry(replace(HERE, host="0.0.0.0"))), id="any address"),
        pytest.param(("ns=ww", entry(replace(HERE, port=0))), id="no port"),
        pytest.param(("ns=ww", entry(HERE), *["x" * 255] * 4), id="too large"),
    ],
)
def test_a_record_that_names_no_one_peer_of_the_namespace_is_ignored(strings: tuple[str, ...]) -> None:
    assert read_text(text_of(*strings), "ww", CONFIG) is None


def test_entries_that_are_not_understood_do_not_spoil_the_others() -> None:
    strings = [b"", b"\xff\xfe", f"dnsaddr=/ip4/10.0.0.2/udp/4001/quic-v1/p2p/{OTHER}".encode(), b"dnsaddr", b"x=y"]
    text = text_of("NS=ww", *strings, f"DnsAddr={HERE.of_peer(PEER)}") + b"\xffcut off"
    assert read_text(text, "ww", CONFIG) == (PEER, (HERE,))


def test_only_so_many_addresses_are_written_and_read() -> None:
    where = [replace(HERE, port=port) for port in range(1, 20)]
    assert read_text(write_text(PEER, "ww", where, CONFIG), "ww", CONFIG) == (PEER, tuple(where[:8]))
    many = text_of("ns=ww", *map(entry, where[:10]))
    assert read_text(many, "ww", CONFIG) == (PEER, tuple(where[:8]))


def test_addresses_that_do_not_fit_are_left_out() -> None:
    long = Multiaddr("dns", "x" * 250, 9100)
    assert read_text(write_text(PEER, "ww", [long, HERE], CONFIG), "ww", CONFIG) == (PEER, (HERE,))
    small = MdnsConfig(record_bytes_max=200)
    where = [replace(HERE, port=port) for port in range(1, 20)]
    assert read_text(write_text(PEER, "ww", where, small), "ww", small) == (PEER, tuple(where[:2]))


def test_a_namespace_that_fits_no_record_is_refused() -> None:
    with pytest.raises(UsageError, match="--ns"):
        write_text(PEER, "x" * 253, (), CONFIG)


NODE = """
import asyncio, json, logging, os, sys, threading, time
import capnp
from ww.discovery.mdns import Mdns, MdnsConfig
from ww.identity import PeerId
from ww.net.multiaddr import Multiaddr

def say(what, *more):
    print(json.dumps([what, time.monotonic(), *more]), flush=True)

def left():
    return {"tasks": len(asyncio.all_tasks()), "threads": threading.active_count(),
            "descriptors": len(os.listdir("/proc/self/fd"))}

def found(peer, addresses):
    say("found", str(peer), [str(address) for address in addresses])

async def main(peer, namespace):
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: say("uncaught", repr(context)))
    lines = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    async with capnp.kj_loop():
        before = left()
        async with Mdns(PeerId.parse(peer), namespace, found, MdnsConfig(say_again_max_s=4)) as mdns:
            say("open")
            while words := (await lines.readline()).decode().split():
                if words[0] == "announce":
                    await mdns.announce([Multiaddr.parse(word) for word in words[1:]])
                elif words[0] == "rebind":
                    await mdns.rebind()
                elif words[0] == "raise":
                    mdns._on_found = lambda *_: 1 / 0
                say("done")
        say("closed", before, left())

logging.basicConfig(format="%(message)s")
asyncio.run(main(*sys.argv[1:]))
"""

BOUND_S = 20.0


class Node:
    """A process in a machine that speaks mDNS, and what it said."""

    def __init__(self, machine: Machine, namespace: str = "ww") -> None:
        self.peer = str(Identity.generate().peer_id)
        self._process = subprocess.Popen(
            [*machine.prefix, sys.executable, "-W", "error", "-c", NODE, self.peer, namespace],
            cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        self._said: queue.Queue[list[Any]] = queue.Queue()
        self.found: list[tuple[str, list[str]]] = []
        self.log: list[str] = []
        self._readers = [threading.Thread(target=read) for read in (self._read, self._read_log)]
        for reader in self._readers:
            reader.start()
        self.wait("open")

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._said.put(json.loads(line))

    def _read_log(self) -> None:
        assert self._process.stderr is not None
        self.log.extend(self._process.stderr)

    def wait(self, what: str, condition: Callable[[], bool] = lambda: True) -> list[Any]:
        """Return what it said when it said that, and condition holds."""
        end = time.monotonic() + BOUND_S
        while True:
            try:
                said = self._said.get(timeout=max(0.0, end - time.monotonic()))
            except queue.Empty:
                raise AssertionError(f"no {what} within {BOUND_S} s; found {self.found}, log {self.log}") from None
            if said[0] == "found":
                self.found.append((said[2], said[3]))
            assert said[0] != "uncaught", said
            if said[0] == what and condition():
                return said

    def tell(self, *words: str) -> float:
        """Give it a command; return when it was done."""
        assert self._process.stdin is not None
        self._process.stdin.write(" ".join(words) + "\n")
        self._process.stdin.flush()
        return float(self.wait("done")[1])

    def finds(self, peer: str, *where: str) -> float:
        """Wait until it finds that peer, at these addresses; return when it did."""
        if (peer, list(where)) in self.found:
            return 0.0
        return float(self.wait("found", lambda: self.found[-1] == (peer, list(where)))[1])

    def end(self) -> None:
        """Have it leave, and see that it leaves nothing behind."""
        assert self._process.stdin is not None
        begun = time.monotonic()
        self._process.stdin.close()
        _, at, before, after = self.wait("closed")
        assert at - begun < 2
        assert after == before
        assert self._process.wait(BOUND_S) == 0
        for reader in self._readers:
            reader.join()

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        for reader in self._readers:
            reader.join()
        for pipe in (self._process.stdin, self._process.stdout, self._process.stderr):
            assert pipe is not None
            with contextlib.suppress(BrokenPipeError):
                pipe.close()


in_namespaces = pytest.mark.skipif(bool(why_not()), reason=why_not() or "-")
A1, A2 = "/ip4/10.123.45.1/tcp/9100", "/ip4/10.123.45.1/tcp/9200"
B1 = "/ip6/fd00::2/tcp/9100"


@pytest.fixture
def start() -> Iterator[Callable[..., Node]]:
    """Start nodes, which are gone when the test ends."""
    with contextlib.ExitStack() as stack:

        def started(machine: Machine, namespace: str = "ww") -> Node:
            node = Node(machine, namespace)
            stack.callback(node.close)
            return node

        yield started


@pytest.fixture
def machines() -> Iterator[tuple[Machine, Machine]]:
    with two_machines() as machines:
        yield machines


@pytest.fixture
def network() -> Iterator[Lan]:
    with lan(2) as network:
        yield network


def ip(machine: str, *arguments: str) -> None:
    subprocess.run(["ip", "-n", machine, *arguments], check=True, capture_output=True)


Start = Callable[..., Node]
Machines = tuple[Machine, Machine]


@in_namespaces
def test_two_machines_find_each_other_and_leave_nothing_behind(start: Start, machines: Machines) -> None:
    one, two = map(start, machines)
    one.tell("announce", A1, "/ip4/127.0.0.1/tcp/9100", "/ip6/::1/tcp/9100", B1)
    two.finds(one.peer, A1, B1)
    two.tell("announce", B1)
    one.finds(two.peer, B1)
    one.end()
    two.end()
    assert one.log == two.log == []
    assert [peer for peer, _ in one.found] == [two.peer], "not itself, and once"


@in_namespaces
def test_a_node_that_comes_later_finds_those_that_are_there(start: Start, machines: Machines) -> None:
    early = start(machines[0])
    early.tell("announce", A1)
    start(machines[1]).finds(early.peer, A1)
    start(machines[0]).finds(early.peer, A1)  # beside it, on the same port


@in_namespaces
def test_another_namespace_is_not_reported(start: Start, machines: Machines) -> None:
    witness = start(machines[0])
    stranger, friend = start(machines[1], "elsewhere"), start(machines[1])
    stranger.tell("announce", B1)
    friend.tell("announce", B1)
    witness.finds(friend.peer, B1)
    witness.tell("announce", A1)
    friend.finds(witness.peer, A1)
    assert witness.found == [(friend.peer, [B1])]


@in_namespaces
def test_changed_addresses_are_reported_and_the_same_ones_are_not(start: Start, machines: Machines) -> None:
    one, two = map(start, machines)
    for where in [A1], [A1], [A2, A1], [A2], [A1]:
        one.tell("announce", *where)
        two.finds(one.peer, *where)
    assert [where for _, where in two.found] == [[A1], [A2, A1], [A2]]
    two.wait("found", lambda: two.found[-1][1] == [A1])


@in_namespaces
def test_a_node_that_was_withdrawn_is_not_found_and_is_new_when_it_is_back(start: Start, machines: Machines) -> None:
    one, two, beside = start(machines[0]), start(machines[1]), start(machines[0])
    one.tell("announce", A1)
    two.finds(one.peer, A1)
    one.tell("announce")
    late = start(machines[1])
    beside.tell("announce", A2)
    late.finds(beside.peer, A2)
    assert late.found == [(beside.peer, [A2])]
    two.found.clear()
    one.tell("announce", A1)
    two.finds(one.peer, A1)


@in_namespaces
def test_a_node_that_ended_is_forgotten(start: Start, machines: Machines) -> None:
    one, two = map(start, machines)
    one.tell("announce", A1)
    two.finds(one.peer, A1)
    one.end()
    late, beside = start(machines[1]), start(machines[0])
    beside.tell("announce", A2)
    late.finds(beside.peer, A2)
    assert late.found == [(beside.peer, [A2])]


GARBAGE = """
import random, socket, sys
from zeroconf import DNSIncoming, DNSOutgoing, ServiceInfo
from zeroconf import DNSPointer, DNSText

rng = random.Random(int(sys.argv[1]))
sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton(sys.argv[2]))

def record(text, name):
    out = DNSOutgoing(0x8400)
    name += "._p2p._udp.local."
    out.add_answer_at_time(DNSPointer("_p2p._udp.local.", 12, 1, 4500, name), 0)
    out.add_answer_at_time(DNSText(name, 16, 0x8001, 4500, text), 0)
    return out.packets()[0]

for number in range(400):
    good = record(b"\\x05ns=ww" + rng.randbytes(rng.randrange(0, 1300)), f"x{number}")
    spoiled = bytearray(good)
    for _ in range(rng.randrange(1, 20)):
        spoiled[rng.randrange(len(spoiled))] = rng.randrange(256)
    for data in (good, bytes(spoiled), good[:rng.randrange(len(good))], rng.randbytes(rng.randrange(0, 1400)),
                 b"\\0\\0\\x84\\0" + rng.randbytes(rng.randrange(8, 200)), b"\\0" * 4 + rng.randbytes(60)):
        sock.sendto(data, ("224.0.0.251", 5353))
        sock.sendto(data, (sys.argv[3], 5353))
print("sent")
"""


@in_namespaces
@pytest.mark.parametrize("seed", [1, 2])
def test_garbage_does_no_harm(start: Start, machines: Machines, seed: int) -> None:
    one, two = map(start, machines)
    one.tell("announce", A1)
    two.finds(one.peer, A1)
    liar = [*machines[0].prefix, sys.executable, "-c", GARBAGE, str(seed), *(machine.address for machine in machines)]
    done = subprocess.run(liar, cwd=ROOT, capture_output=True, text=True, timeout=BOUND_S, check=False)
    assert done.stdout == "sent\n", done.stderr
    one.tell("announce", A2)
    two.finds(one.peer, A2)
    two.tell("announce", B1)
    one.finds(two.peer, B1)
    one.end()
    two.end()
    assert one.log == two.log == []
    assert {peer for peer, _ in one.found + two.found} == {one.peer, two.peer}


@in_namespaces
def test_what_the_callback_raises_is_logged_and_stops_nothing(start: Start, machines: Machines) -> None:
    one, two = map(start, machines)
    two.tell("raise")
    one.tell("announce", A1)
    two.tell("announce", B1)
    one.finds(two.peer, B1)
    one.end()
    two.end()
    assert "ZeroDivisionError: division by zero\n" in two.log


@in_namespaces
def test_a_link_that_was_down_and_comes_back_is_spoken_on_again(start: Start, network: Lan) -> None:
    one, two = map(start, network.machines)
    one.tell("announce", A1)
    two.finds(one.peer, A1)
    ip(network.machines[1].name, "link", "set", "eth0", "down")
    one.tell("announce", A2)
    two.tell("announce", B1)
    ip(network.machines[1].name, "link", "set", "eth0", "up")
    two.finds(one.peer, A2)
    one.finds(two.peer, B1)


@in_namespaces
def test_a_cable_that_was_out_and_is_put_back_is_spoken_on_again(start: Start, network: Lan) -> None:
    one, two = map(start, network.machines)
    network.cut(network.machines[0])
    one.tell("announce", A1)
    two.tell("announce", B1)
    network.plug_in(network.machines[0])
    two.finds(one.peer, A1)
    one.finds(two.peer, B1)


@in_namespaces
def test_a_change_during_a_cut_that_no_link_shows_is_heard_of_after_it(start: Start, network: Lan) -> None:
    one, two = map(start, network.machines)
    one.tell("announce", A1)
    two.finds(one.peer, A1)
    switch = "ww-switch-" + network.machines[0].name.rpartition("-")[2]
    ip(switch, "link", "set", "bridge0", "down")
    one.tell("announce", A2)
    ip(switch, "link", "set", "bridge0", "up")
    two.finds(one.peer, A2)


@in_namespaces
def test_a_machine_without_network_goes_on_without_mdns_until_there_is_one(start: Start, machines: Machines) -> None:
    ip(machines[0].name, "link", "set", machines[0].name.replace("-", ""), "down")
    one, two = map(start, machines)
    one.tell("announce", A1)
    one.tell("rebind")
    ip(machines[0].name, "link", "set", machines[0].name.replace("-", ""), "up")
    two.finds(one.peer, A1)
    one.end()
    assert one.log == ["no mDNS for now: no link to other machines is up\n"]


@in_namespaces
def test_an_interface_that_is_added_later_is_spoken_on(start: Start) -> None:
    with one_machine() as one, one_machine() as two:
        nodes = start(one), start(two)
        nodes[0].tell("announce", A1)
        ip(one.name, "link", "add", "eth0", "type", "veth", "peer", "name", "eth0", "netns", two.name)
        for machine, address in (one, "10.123.47.1/24"), (two, "10.123.47.2/24"):
            ip(machine.name, "address", "add", address, "dev", "eth0")
            ip(machine.name, "link", "set", "eth0", "up")
        nodes[1].finds(nodes[0].peer, A1)


@in_namespaces
def test_sockets_are_opened_anew_as_often_as_is_asked(start: Start, machines: Machines) -> None:
    one, two = map(start, machines)
    one.tell("announce", A1)
    two.finds(one.peer, A1)
    for _ in range(10):
        one.tell("rebind")
        two.tell("rebind")
    two.wait("found", lambda: two.found[-1] == (one.peer, [A1]))
    one.end()
    two.end()
    assert one.log == two.log == []
