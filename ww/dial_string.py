"""What a worker dials by when it has a ticket: who the gateway is, where, and the secret that lets it in.

    /ip4/192.0.2.7/tcp/9100/p2p/12D3KooW.../ticket/wwt1-...   or, found by discovery,   /p2p/12D3KooW.../ticket/wwt1-...

Holds the text form, and how it is read from a file. It is never an argument, which everybody on a machine can read.
"""

import os
from dataclasses import dataclass, replace
from pathlib import Path

from ww.errors import UsageError
from ww.identity import PeerId
from ww.net.multiaddr import Multiaddr
from ww.rpc.register import read_ticket

_FILE_BYTES_MAX = 4096


@dataclass(frozen=True, slots=True)
class DialString:
    """One that was read."""

    ticket: str
    peer_id: PeerId | None = None
    """Whom it is for; None for a ticket alone."""
    address: Multiaddr | None = None


def write_dial_string(peer_id: PeerId, address: Multiaddr | None, ticket: str) -> str:
    """Return the text form."""
    where = "" if address is None else str(replace(address, peer_id=None))
    return f"{where}/p2p/{peer_id}/ticket/{ticket}"


def read_dial_string(text: str) -> DialString:
    """Read the text form, or a ticket alone. UsageError, which does not repeat the secret, when it is neither."""
    lines = text.split()
    if len(lines) != 1:
        raise UsageError(f"that is {len(lines)} tickets: expected one line, as ww ticket create prints it")
    where, _, ticket = lines[0].rpartition("/ticket/")
    read_ticket(ticket)
    if "wwt1-" in where:  # what is wrong with the rest would be repeated
        raise UsageError("that is no ticket: expected one, as ww ticket create prints it")
    if not where:
        return DialString(ticket)
    if where.startswith("/p2p/"):
        return DialString(ticket, PeerId.parse(where.removeprefix("/p2p/")))
    address = Multiaddr.parse(where)
    if address.peer_id is None:
        raise UsageError("whose ticket is that? expected .../p2p/PEER_ID/ticket/...")
    return DialString(ticket, address.peer_id, address)


def load_dial_string(name: str) -> DialString:
    """Read a file that holds one, and that nobody else can read. UsageError otherwise."""
    path = Path(name)
    try:
        with path.open() as file:
            if os.fstat(file.fileno()).st_mode & 0o077:
                raise UsageError(f"ticket file {path.name} can be read by others: expected mode 0600", "ticket-file")
            text = file.read(_FILE_BYTES_MAX)
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "no text"
        raise UsageError(f"ticket file {path.name}: {reason}", "ticket-file") from None
    try:
        return read_dial_string(text)
    except UsageError as error:
        raise UsageError(f"ticket file {path.name}: {error}", "ticket-file") from None
