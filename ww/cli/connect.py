"""How a command that only asks connects to a node of the cluster: the one that is named, or any that is near.

Holds the order in which nodes are tried. The command is known to them by the key of this machine's gateway, where its
user can read that: whoever runs a gateway may always look at it.
"""

import argparse
import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from ww.address_book import AddressBook
from ww.cli.options import add_peer_options, discovery_config
from ww.cli.parser import Parser
from ww.clock import SystemClock
from ww.discovery.packet import Writer
from ww.discovery.sources import Discovery
from ww.errors import PeerError
from ww.identity import Identity, PeerId
from ww.net.multiaddr import Multiaddr
from ww.net.tls import TlsTransport
from ww.rpc.connection import Connection
from ww.rpc.vat import Vat

_FIND_S = 1.0


def add_connect_options(parser: Parser) -> None:
    """Add which node to ask."""
    add_peer_options(parser)
    parser.option("--dial", PeerId.parse, "peer id of the node to ask (any that is near)", metavar="PEER_ID")
    parser.option(
        "--key", Path, "file of the key pair to be known by (the gateway's in the state directory, else a new key)",
        metavar="FILE",
    )  # fmt: skip


@asynccontextmanager
async def connected(arguments: argparse.Namespace) -> AsyncIterator[Connection]:
    """Connect to the node that the options name, else to any of this machine, else to any that answers a survey."""
    identity = own_identity(arguments)
    timeout_s = arguments.handshake_timeout
    transport = TlsTransport(identity, handshake_timeout_s=timeout_s, connections_max=1)
    book = AddressBook(arguments.state / "peers" / arguments.ns, arguments.addr)
    async with (
        Vat(identity, transport, namespace=arguments.ns, hello_timeout_s=timeout_s) as vat,
        await _connect(arguments, vat, book) as connection,
    ):
        yield connection


def own_identity(arguments: argparse.Namespace) -> Identity:
    """Return the key that a command is known by."""
    if arguments.key is not None:
        return Identity.load(arguments.key, lock=False)
    gateways = arguments.state / "gateway.key"
    return Identity.load(gateways, lock=False) if gateways.is_file() else Identity.generate()


async def _connect(arguments: argparse.Namespace, vat: Vat, book: AddressBook) -> Connection:
    named = {address.peer_id for address in arguments.addr if address.peer_id is not None}
    wanted = [arguments.dial] if arguments.dial is not None else list(named)
    problem: PeerError | None = None
    for peer_id in wanted or await asyncio.to_thread(book.registered):
        if addresses := await asyncio.to_thread(book.lookup, peer_id):
            try:
                return await vat.dial(peer_id, addresses)
            except PeerError as error:
                problem = error
    found = await _search(arguments, wanted[0] if wanted else None)
    for peer_id, where in found.items():
        try:
            return await vat.dial(peer_id, where)
        except PeerError as error:
            problem = error
    if problem is not None and (wanted or found):
        raise problem
    whom = f"{wanted[0]} does not answer" if wanted else "no node is there"
    beyond = "" if arguments.lan else ", or look on other machines with --lan"
    raise PeerError(f"{whom} in namespace {arguments.ns!r}: start one, name one with --addr{beyond}")


async def _search(arguments: argparse.Namespace, wanted: PeerId | None) -> dict[PeerId, tuple[Multiaddr, ...]]:
    """Look for one peer, or for anybody, for a second at most."""
    found: dict[PeerId, tuple[Multiaddr, ...]] = {}
    heard = asyncio.Event()

    def note(peer_id: PeerId, addresses: tuple[Multiaddr, ...]) -> None:
        if wanted is None or peer_id == wanted:
            found[peer_id] = addresses
            heard.set()

    # By a key of its own: what a gateway numbered with the same one would be taken for a replay.
    writer = Writer(Identity.generate(), arguments.ns, 1)
    config = discovery_config(arguments, beyond_loopback=arguments.lan)
    async with Discovery(
        config, writer, SystemClock(), on_found=note, on_claim=note, on_heartbeat=lambda *_: None
    ) as discovery:
        if wanted is not None:
            discovery.look_for(wanted)
        else:
            discovery.look_for_anybody()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_FIND_S):
                await heard.wait()
    return found
