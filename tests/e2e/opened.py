"""A client of the gateway that a program's functions would go to, for programs of tests."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ww.client.sync import Client
from ww.client.target import connect
from ww.jobs.gateways import choose


@dataclass(frozen=True, slots=True)
class Opened:
    """A client of the gateway that was chosen."""

    client: Client
    """A Client, or a NativeClient, which has the same methods."""
    where: str
    problem: Callable[[], str] = lambda: ""
    """See Chosen."""

    def close(self) -> None:
        """Close the client; an embedded cluster stays for the program's next one. Idempotent."""
        self.client.close()


def open_client(target: str | None = None, **settings: Any) -> Opened:
    """Return a client of the gateway that choose chooses."""
    chosen = choose(target, **settings)
    return Opened(connect(chosen.target, **chosen.settings), chosen.where, chosen.problem)
