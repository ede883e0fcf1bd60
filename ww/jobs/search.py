"""Looking for a gateway that takes this user's work: on this machine, and on its networks where that is asked for.

Holds the search alone, which needs capabilities: gateways.py, whose part it is, imports it when it looks. A gateway
counts when it lets this user's key in and has a worker; of several, the first to say so.
"""

import asyncio
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from ww.address_book import AddressBook
from ww.client.call import Retry
from ww.client.native_aio import AsyncNativeClient
from ww.client.native_link import LinkConfig
from ww.clock import SystemClock
from ww.directories import state_directory
from ww.discovery.packet import Writer
from ww.discovery.sources import Discovery, DiscoveryConfig
from ww.errors import WwError
from ww.identity import Identity, PeerId
from ww.net.multiaddr import Multiaddr, MulticastGroup
from ww.rpc.loop import run as run_loop

Found = tuple[str, Sequence[str]]


def registered(config: LinkConfig) -> list[PeerId]:
    """Return the nodes that wrote themselves down in this user's state directory, the latest first."""
    return _book(config).registered()


def _book(config: LinkConfig) -> AddressBook:
    state = state_directory() if config.state_directory is None else Path(config.state_directory)
    return AddressBook(state / "peers" / config.namespace)


def run(config: LinkConfig, known: Iterable[PeerId], timeout_s: float, candidates_max: int) -> list[Found]:
    """Return the first gateway that can be used, of those that are known or answer, or nothing when time is over."""
    return run_loop(lambda: _search(config, known, timeout_s, candidates_max), is_program=False)


async def _search(config: LinkConfig, known: Iterable[PeerId], timeout_s: float, candidates_max: int) -> list[Found]:
    identity = await asyncio.to_thread(_identity, config)
    book = _book(config)
    found: asyncio.Future[Found] = asyncio.get_running_loop().create_future()
    asked: dict[PeerId, asyncio.Task[None]] = {}

    async def ask(peer_id: PeerId, addresses: Sequence[Multiaddr]) -> None:
        with suppress(WwError):
            if await _takes_work(str(peer_id), identity, config, addresses, timeout_s) and not found.done():
                found.set_result((str(peer_id), [str(address) for address in addresses]))

    def consider(peer_id: PeerId, addresses: Sequence[Multiaddr]) -> None:
        if peer_id not in asked and len(asked) < candidates_max and addresses:
            asked[peer_id] = asyncio.ensure_future(ask(peer_id, addresses))

    for peer_id in known:
        consider(peer_id, book.lookup(peer_id))
    try:
        if config.lan:
            await _beyond(config, consider, found, timeout_s)
        else:
            with suppress(TimeoutError):
                async with asyncio.timeout(timeout_s):
                    await _first(found, asked.values())
        return [found.result()] if found.done() else []
    finally:
        for task in asked.values():
            task.cancel()
        await asyncio.gather(*asked.values(), return_exceptions=True)


async def _first(found: "asyncio.Future[Found]", asks: Iterable["asyncio.Task[None]"]) -> None:
    """Return when one is found, or all have said no."""
    all_asked = asyncio.gather(*asks)
    try:
        await asyncio.wait((found, all_asked), return_when=asyncio.FIRST_COMPLETED)
    finally:
        all_asked.cancel()


async def _beyond(config: LinkConfig, consider: Any, found: "asyncio.Future[Found]", timeout_s: float) -> None:
    """Ask whoever answers on this machine and its networks, until one is found."""
    groups = tuple(g if isinstance(g, MulticastGroup) else MulticastGroup.parse(g) for g in config.groups)
    ways = DiscoveryConfig(True, config.multicast, groups or DiscoveryConfig().groups, config.mdns)
    # By a key of its own: what a node numbered with the same one would be taken for a replay.
    writer = Writer(Identity.generate(), config.namespace, 1)
    async with Discovery(
        ways, writer, SystemClock(), on_found=consider, on_claim=consider, on_heartbeat=lambda *_: None
    ) as discovery:
        # A worker that answers first is no gateway.
        discovery.look_for_everybody()
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await found


async def _takes_work(
    peer_id: str, identity: Identity, config: LinkConfig, addresses: Sequence[Multiaddr], timeout_s: float
) -> bool:
    """Say whether that is a gateway that lets this user in and has a worker. Raises WwError when it is none."""
    link = LinkConfig(
        identity, config.namespace, addresses, config.state_directory, multicast=False, mdns=False,
        connect_timeout_s=timeout_s,
    )  # fmt: skip
    async with AsyncNativeClient(peer_id, link, retry=Retry(retries=0), timeout_s=timeout_s) as client:
        return any(worker.slots for worker in await client.workers())


def _identity(config: LinkConfig) -> Identity:
    """Return the key that this user is known by; where there is none yet, any will do to ask."""
    if isinstance(config.key, Identity):
        return config.key
    if config.key is None or not Path(config.key).is_file():
        return Identity.generate()
    return Identity.load(Path(config.key), lock=False)
