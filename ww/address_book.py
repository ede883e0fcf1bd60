"""Where peers can be reached: what an operator gave, what nodes of this machine wrote down, what was heard.

Holds the registry, a folder of the state directory with one small file a node, named by its peer id and holding its
addresses, one a line; and in memory what discovery found. An address is only where to knock: who answers is proved by
the transport.
"""

import asyncio
import contextlib
import os
import tempfile
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from ww.errors import UsageError
from ww.identity import PeerId
from ww.net.multiaddr import Multiaddr

_FILE_BYTES_MAX: Final = 16 << 10
_PEERS_MAX: Final = 4096
_SIGNED_MAX: Final = 8
_UNSIGNED_MAX: Final = 4
_REGISTERED_MAX: Final = 256


class AddressBook:
    """Addresses by peer id."""

    def __init__(self, directory: Path, static: Sequence[Multiaddr] = ()) -> None:
        """Keep the registry in directory; static addresses come first, those without a peer id stand for any peer."""
        self._directory = directory
        self._static = tuple(static)
        # The least recently heard of first, and of each peer the latest address first: what it signed, and what
        # anybody may have said.
        self._learned: OrderedDict[PeerId, tuple[tuple[Multiaddr, ...], tuple[Multiaddr, ...]]] = OrderedDict()
        self._waiting: dict[PeerId, asyncio.Event] = {}

    def lookup(self, peer_id: PeerId) -> list[Multiaddr]:
        """Return where that peer may be, the likeliest first."""
        static = [a for a in self._static if a.peer_id is None or a.peer_id == peer_id]
        return list(dict.fromkeys([*static, *self._read(peer_id), *self.learned(peer_id)]))

    def learned(self, peer_id: PeerId) -> list[Multiaddr]:
        """Return where that peer was heard to be."""
        signed, unsigned = self._learned.get(peer_id, ((), ()))
        return list(dict.fromkeys([*signed, *unsigned]))

    def learn(self, peer_id: PeerId, addresses: Sequence[Multiaddr], *, is_signed: bool = True) -> None:
        """Note where a peer says it is, or, unless that is signed, somebody does; and wake those that wait for it."""
        signed, unsigned = self._learned.pop(peer_id, ((), ()))
        if is_signed:
            signed = tuple(dict.fromkeys([*addresses, *signed]))[:_SIGNED_MAX]
        else:
            unsigned = tuple(dict.fromkeys([*addresses, *unsigned]))[:_UNSIGNED_MAX]
        self._learned[peer_id] = (signed, unsigned)
        while len(self._learned) > _PEERS_MAX:
            self._learned.popitem(last=False)
        if waiting := self._waiting.pop(peer_id, None):
            waiting.set()

    def forget(self, peer_id: PeerId, address: Multiaddr) -> None:
        """Note that a peer could not be reached at an address that was heard of."""
        if peer_id in self._learned:
            signed, unsigned = self._learned[peer_id]
            self._learned[peer_id] = (
                tuple(known for known in signed if known != address),
                tuple(known for known in unsigned if known != address),
            )

    async def heard_of(self, peer_id: PeerId) -> None:
        """Return when that peer is heard of the next time."""
        await self._waiting.setdefault(peer_id, asyncio.Event()).wait()

    def publish(self, peer_id: PeerId, addresses: Sequence[Multiaddr]) -> None:
        """Write down where a node of this machine listens. UsageError when the folder cannot be written."""
        lines = "".join(f"{_from_here(address)}\n" for address in addresses)
        try:
            self._directory.mkdir(parents=True, exist_ok=True, mode=0o700)
            fd, temporary = tempfile.mkstemp(dir=self._directory)
            with os.fdopen(fd, "w") as file:
                file.write(lines)
            os.replace(temporary, self._directory / str(peer_id))
        except OSError as error:
            raise UsageError(f"the state directory cannot be written: {error.strerror}", "state") from None

    def withdraw(self, peer_id: PeerId) -> None:
        """Strike a node out."""
        with contextlib.suppress(OSError):
            (self._directory / str(peer_id)).unlink()

    def registered(self) -> list[PeerId]:
        """Return the nodes that wrote themselves down, the latest first."""
        found: list[tuple[float, PeerId]] = []
        with contextlib.suppress(OSError), os.scandir(self._directory) as entries:
            for entry in entries:
                with contextlib.suppress(OSError, UsageError):
                    found.append((entry.stat().st_mtime, PeerId.parse(entry.name)))
        found.sort(key=lambda pair: pair[0], reverse=True)
        return [peer_id for _, peer_id in found[:_REGISTERED_MAX]]

    def _read(self, peer_id: PeerId) -> list[Multiaddr]:
        try:
            with (self._directory / str(peer_id)).open() as file:
                lines = file.read(_FILE_BYTES_MAX).splitlines()
            return [Multiaddr.parse(line) for line in lines]
        except (OSError, UsageError, UnicodeDecodeError):
            return []


def _from_here(address: Multiaddr) -> Multiaddr:
    """Every interface includes the loopback one."""
    if not address.is_unspecified:
        return address
    return replace(address, host="127.0.0.1" if address.kind == "ip4" else "::1")
