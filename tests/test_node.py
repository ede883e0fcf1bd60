"""A node: closed by default, and findable as long as it is there."""

from pathlib import Path

import pytest

from ww.discovery.sources import DiscoveryConfig
from ww.errors import PeerError, UsageError
from ww.identity import Identity
from ww.net.memory import MemoryTransport, Network
from ww.net.multiaddr import Multiaddr
from ww.node import Node, NodeConfig
from ww.rpc.admission import Open, parse_admission
from ww.rpc.register import Register

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("kj_loop")]


@pytest.mark.parametrize(
    "address", ["/ip4/0.0.0.0/tcp/0", "/ip6/::/tcp/0", "/ip4/192.0.2.1/tcp/1", "/dns/a.example/tcp/1"]
)
async def test_beyond_loopback_somebody_says_who_may_come(tmp_path: Path, address: str) -> None:
    config = {"state_directory": tmp_path, "listen": (Multiaddr.parse(address),)}
    with pytest.raises(UsageError, match="--admit"):
        Node(NodeConfig(**config))
    Node(NodeConfig(**config, admission=parse_admission("open", Register(tmp_path / "peers.db"))))


@pytest.mark.parametrize("namespace", ["", "a b", "../x", "x" * 65, "\n"])
async def test_a_namespace_is_a_short_plain_name(tmp_path: Path, namespace: str) -> None:
    with pytest.raises(UsageError, match="--ns"):
        Node(NodeConfig(state_directory=tmp_path, namespace=namespace))


async def test_a_node_is_found_by_its_peer_id_while_it_listens(tmp_path: Path) -> None:
    network, identities = Network(), (Identity.generate(), Identity.generate())
    serving, calling = (
        Node(
            NodeConfig(state_directory=tmp_path, discovery=DiscoveryConfig(multicast=False)),
            MemoryTransport(network, identity),
            identity,
        )
        for identity in identities
    )
    async with calling:
        async with serving:
            await serving.listen()
            async with await calling.dial(serving.peer_id) as connection:
                assert connection.peer_id == serving.peer_id
        with pytest.raises(PeerError, match="no address of 12D3KooW"):
            await calling.dial(serving.peer_id)


async def test_an_open_node_beyond_loopback_is_called_what_it_is(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    network = Network()
    for address, is_open in (("/ip4/0.0.0.0/tcp/0", True), ("/ip4/127.0.0.1/tcp/0", False)):
        identity = Identity.generate()
        config = NodeConfig(
            state_directory=tmp_path, listen=(Multiaddr.parse(address),), admission=Open(),
            discovery=DiscoveryConfig(multicast=False),
        )  # fmt: skip
        caplog.clear()
        async with Node(config, MemoryTransport(network, identity), identity) as node:
            await node.listen()
            assert ("whoever can connect is let in" in caplog.text) is is_open
