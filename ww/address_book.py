"""Where peers can be reached: the addresses an operator gave, and those that nodes of this machine wrote down.

Holds the registry: a folder of the state directory with one small file a node, named by its peer id and holding its
addresses, one a line. An address is only where to knock: who answers is proved by the transport.
"""

import contextlib
import os
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from ww.errors import UsageError
from ww.identity import PeerId
from ww.net.multiaddr import Multiaddr

_FILE_BYTES_MAX: Final = 16 << 10


class AddressBook:
    """Addresses by peer id."""

    def __init__(self, directory: Path, static: Sequence[Multiaddr] = ()) -> None:
        """Keep the registry in directory; static addresses come first, those without a peer id stand for any peer."""
        self._directory = directory
        self._static = tuple(static)

    def lookup(self, peer_id: PeerId) -> list[Multiaddr]:
        """Return where that peer may be, the likeliest first."""
        static = [a for a in self._static if a.peer_id is None or a.peer_id == peer_id]
        return static + [a for a in self._read(peer_id) if a not in static]

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
