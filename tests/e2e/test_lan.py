"""Machines on one LAN, each a network namespace: who finds whom, by which way, and who is seen no more."""

import contextlib
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.namespaces import Lan, Machine, lan, why_not
from tests.e2e.processes import BOUND_S, Program, cluster_in, wait_until
from tests.guests import ROOT

pytestmark = [pytest.mark.skipif(bool(why_not()), reason=why_not() or "-"), pytest.mark.timeout(120)]

BY_SURVEY = ("--lan", "--no-mdns")
BY_IP6 = (*BY_SURVEY, "--discover", "/ip6/ff02::8822/udp/8822/multicast")
BY_MDNS = ("--lan", "--no-multicast")
BY_ADDRESS = ("--no-multicast", "--no-mdns")


class Host:
    """A machine and the ww processes on it, which share a home of their own."""

    def __init__(self, machine: Machine, directory: Path) -> None:
        self.machine = machine
        self._stack = contextlib.ExitStack()
        self._cluster = self._stack.enter_context(cluster_in(directory))
        del self._cluster.environment["WW_DISCOVER"]  # nobody else is on this LAN

    def start(self, *arguments: str) -> Program:
        program: Program = self._cluster.program(*arguments, prefix=self.machine.prefix)
        return program

    def gateway(self, *arguments: str) -> tuple[Program, str]:
        program = self.start("gateway", "--http", "127.0.0.1:0", "--ttl", "2", *arguments)
        program.logged("HTTP on")
        return program, program.stdout_line()

    def worker(self, gateway: str, *arguments: str) -> Program:
        return self.start("worker", "--dial", gateway, "--slots", "1", "--ttl", "2", *arguments)

    def run(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [*self.machine.prefix, sys.executable, *arguments], cwd=ROOT, env=self._cluster.environment,
            capture_output=True, text=True, timeout=BOUND_S, check=False,
        )  # fmt: skip

    def members(self, *arguments: str) -> list[dict[str, Any]]:
        """Return what the node on this machine sees."""
        done = self.run("-m", "ww", "cluster", "ls", "--json", *arguments)
        assert done.returncode == 0, done.stderr
        found: list[dict[str, Any]] = json.loads(done.stdout)
        return found

    def sees(self, *peers: str) -> bool:
        return {member["peer"] for member in self.members()} == set(peers)

    def close(self) -> None:
        self._stack.close()


@pytest.fixture
def network() -> Iterator[Lan]:
    with lan(4) as network:
        yield network


@pytest.fixture
def hosts(network: Lan, tmp_path: Path) -> Iterator[list[Host]]:
    with contextlib.ExitStack() as stack:
        found = [Host(machine, tmp_path / machine.name) for machine in network.machines]
        for host in found:
            stack.callback(host.close)
        yield found


def peer_of(program: Program) -> str:
    return program.logged(r"worker (12D3KooW\w+)")[1]


def start_all(hosts: list[Host], options: tuple[str, ...]) -> list[str]:
    """Start a gateway on the first host and a worker on each other one; return their peer ids, once all have joined."""
    _, gateway = hosts[0].gateway("--listen", "/ip4/0.0.0.0/tcp/9100", "--admit", "open", *options)
    bootstrap = ()
    if "--lan" not in options:
        bootstrap = ("--addr", f"/ip4/{hosts[0].machine.address}/tcp/9100/p2p/{gateway}")
    workers = [host.worker(gateway, *options, *bootstrap) for host in hosts[1:]]
    for worker in workers:
        worker.logged("joined gateway")
    return [gateway, *map(peer_of, workers)]


@pytest.mark.parametrize("options", [BY_SURVEY, BY_IP6, BY_MDNS, BY_ADDRESS], ids=["survey", "ip6", "mdns", "address"])
def test_four_hosts_find_each_other(hosts: list[Host], options: tuple[str, ...]) -> None:
    peers = start_all(hosts, options)
    for host in hosts:
        wait_until(lambda host=host: host.sees(*peers), "everybody sees everybody")
    members = {member["peer"]: member for member in hosts[3].members()}
    assert [members[peer]["role"] for peer in peers] == ["gateway", "worker", "worker", "worker"]
    assert members[peers[0]]["addresses"] == [f"/ip4/{hosts[0].machine.address}/tcp/9100"]


def test_a_peer_that_no_packet_comes_from_is_gone_long_before_its_ttl(network: Lan, hosts: list[Host]) -> None:
    options = ("--ttl", "600", "--keepalive", "2")
    gateway, peer = hosts[0].gateway("--listen", "/ip4/0.0.0.0/tcp/9100", "--admit", "open", *BY_ADDRESS, *options)
    address = f"/ip4/{hosts[0].machine.address}/tcp/9100/p2p/{peer}"
    worker = hosts[1].worker(peer, "--addr", address, *BY_ADDRESS, *options)
    worker.logged("joined gateway")
    network.cut(network.machines[1])
    gateway.logged(f"worker {peer_of(worker)} left")
    worker.logged("the gateway is gone")


def test_a_host_whose_link_is_cut_is_gone_everywhere_and_returns(network: Lan, hosts: list[Host]) -> None:
    peers = start_all(hosts, BY_SURVEY)
    for host in hosts:
        wait_until(lambda host=host: host.sees(*peers))
    network.cut(network.machines[3])
    for host in hosts[:3]:
        wait_until(lambda host=host: host.sees(*peers[:3]), "the one that is cut off is gone")
    wait_until(lambda: hosts[3].sees(peers[3]), "the one that is cut off is alone")
    network.plug_in(network.machines[3])
    for host in hosts:
        wait_until(lambda host=host: host.sees(*peers), "it is back")


def test_a_worker_finds_a_gateway_that_starts_after_it(hosts: list[Host]) -> None:
    gateway = hosts[0].run("-m", "ww", "id").stdout.strip()
    worker = hosts[1].worker(gateway, *BY_SURVEY)
    worker.logged("trying again")
    hosts[0].gateway(*BY_SURVEY, "--admit", "open")
    worker.logged("joined gateway")


def test_two_namespaces_do_not_see_each_other(hosts: list[Host]) -> None:
    _, one = hosts[0].gateway(*BY_SURVEY, "--admit", "open", "--ns", "one")
    _, two = hosts[1].gateway(*BY_SURVEY, "--admit", "open", "--ns", "two")
    stray = hosts[2].worker(one, *BY_SURVEY, "--ns", "two")
    own = hosts[3].worker(one, *BY_SURVEY, "--ns", "one")
    own.logged("joined gateway")
    stray.logged("no address of")
    wait_until(lambda: {member["peer"] for member in hosts[0].members("--ns", "one")} == {one, peer_of(own)})
    wait_until(lambda: {member["peer"] for member in hosts[1].members("--ns", "two")} == {two, peer_of(stray)})
    heard = hosts[2].run("-m", "ww", "discover", "listen", "--lan", "--json", "--count", "12").stdout
    assert {json.loads(line)["namespace"] for line in heard.splitlines()} == {"one", "two"}


LIAR = """
import os, socket, struct, sys
from ww.discovery.packet import Heartbeat, Writer, read, write
from ww.identity import Identity

sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
sock.bind(("239.255.88.22", 8822))
index, nobody = socket.if_nametoindex("eth0"), bytes(4)
joining = struct.pack("=4s4si", socket.inet_aton("239.255.88.22"), nobody, index)
sock.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, joining)
out = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
out.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, struct.pack("=4s4si", nobody, nobody, index))
send = lambda data: out.sendto(data, ("239.255.88.22", 8822))
wanted, recorded = sys.argv[1], []
while len(recorded) < 3:
    data = sock.recv(2048)
    packet = read(data)
    if str(packet.sender) == wanted and isinstance(packet.content, Heartbeat):
        recorded.append(data)
print("recorded", flush=True)
sys.stdin.readline()
for data in recorded:
    send(data)
    # The same with another signature; and a later one, signed by another key.
    forged = bytearray(data)
    forged[100] ^= 1  # of the signature
    send(bytes(forged))
stranger, victim = Identity.generate(), read(recorded[-1])
later = write(stranger, "ww", victim.incarnation + 1, 1, victim.content)
send(later.replace(stranger.peer_id.public_key, victim.sender.public_key))
# An honest one, after all of these: whoever shows it has looked at them.
send(Writer(stranger, "ww", 1).write(Heartbeat(60_000, "witness")))
print(stranger.peer_id, flush=True)
"""


def test_forged_and_replayed_packets_get_nowhere(hosts: list[Host]) -> None:
    _, gateway = hosts[0].gateway(*BY_SURVEY, "--admit", "open")
    worker = hosts[1].worker(gateway, *BY_SURVEY)
    victim = peer_of(worker)
    liar = subprocess.Popen(
        [*hosts[2].machine.prefix, sys.executable, "-c", LIAR, victim],
        cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert liar.stdin is not None
        assert liar.stdout is not None
        assert liar.stdout.readline() == "recorded\n"
        worker.kill()
        wait_until(lambda: hosts[0].sees(gateway), "the worker is gone")
        liar.stdin.write("\n")
        liar.stdin.flush()
        witness = liar.stdout.readline().strip()
        wait_until(lambda: witness in {member["peer"] for member in hosts[0].members()}, "what the liar sent came")
        assert hosts[0].sees(gateway, witness), f"{victim} is not back"
    finally:
        liar.kill()
        liar.communicate()
