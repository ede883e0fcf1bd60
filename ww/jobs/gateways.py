"""Which gateway a program's functions go to: the one that it names, else one that is there, else one of its own.

Holds that choice, and what WW_ variables say of it, as the commands read them. In this order: what the program names;
WW_GATEWAY; a gateway of this user on this machine, and on its networks where that is asked for; an embedded one
(embedded.py). On networks nobody is looked for unasked: whoever answers would be given code and data. Must not know
what is run. A named gateway is not tried here: the first call says what is wrong with it.
"""

import contextlib
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from ww.client.target import is_http
from ww.directories import state_directory
from ww.errors import PeerError, UsageError

EMBEDDED: Final = "embedded"
"""The target that asks for a cluster of the program's own."""
FIND_S: Final = 0.5
"""Seconds in which a gateway of this machine answers, if one does."""
FIND_BEYOND_S: Final = 2.0
START_S: Final = 60.0
_CANDIDATES_MAX: Final = 16
# On networks workers answer as well, and cannot be told from gateways until they are asked.
_CANDIDATES_BEYOND_MAX: Final = 256
# Beginning and ending a search, mDNS most of it.
_TIDY_S: Final = 3.0
_TRUE: Final = ("true", "1", "yes")
_FALSE: Final = ("false", "0", "no")


@dataclass(frozen=True, slots=True)
class Chosen:
    """A gateway, and how it is reached."""

    target: str = field(repr=False)
    """For ww.client.connect; there may be a ticket in it."""
    settings: Mapping[str, Any] = field(repr=False)
    """For it too."""
    where: str
    """Which gateway it is, for people."""
    problem: Callable[[], str] = lambda: ""
    """Why an embedded cluster has ended by itself; nothing while it has not."""


def choose(
    target: str | None = None,
    *,
    lan: bool | None = None,
    slots: int | None = None,
    find_timeout_s: float | None = None,
    start_timeout_s: float = START_S,
    **settings: Any,
) -> Chosen:
    """Choose the gateway that is named, else one that is there, else an embedded one, which is started.

    target: http://HOST:PORT, a peer id, an address that ends in /p2p/PEER_ID, what ww ticket prints, or "embedded".
    lan: whether gateways of other machines are looked for, too (WW_LAN). slots: of an embedded cluster that is started
    now. find_timeout_s, start_timeout_s: seconds that looking for one (0.5; with lan 2) and starting one may take.
    settings: those of ww.client.connect, above what WW_TOKEN, WW_CA, WW_INSECURE, WW_KEY, WW_ADDR, WW_NS, WW_STATE,
    WW_DISCOVER, WW_NO_MULTICAST and WW_NO_MDNS say. Takes a while: not for an event loop's thread. Raises UsageError,
    PeerError.
    """
    lan = _truth("WW_LAN") if lan is None else lan
    named, of_whom = (target, "") if target is not None else (_variable(), " (WW_GATEWAY)")
    if named is not None and named != EMBEDDED:
        return Chosen(named, _settings_for(named, lan, settings), _shown(named) + of_whom)
    if named is None and (found := _found(lan, settings, find_timeout_s)) is not None:
        return found
    return _embedded(slots, start_timeout_s, settings)


def _variable() -> str | None:
    """Return what WW_GATEWAY names; that it is one, cmd/scheduler.py takes from it too."""
    named = os.environ.get("WW_GATEWAY", "")
    return None if not named or named.lower() in _TRUE + _FALSE else named


def _shown(target: str) -> str:
    """Return a target without its ticket."""
    if is_http(target):
        return target
    return f"gateway {target.partition('/ticket/')[0]}" if "wwt1-" not in target.partition("/ticket/")[0] else "gateway"


def _settings_for(target: str, lan: bool, settings: dict[str, Any]) -> dict[str, Any]:
    if not is_http(target):
        return settings if settings.get("config") is not None else _of_link(lan) | settings
    said: dict[str, Any] = {"insecure": True} if _truth("WW_INSECURE") else {}
    for variable, name in (("WW_TOKEN", "token"), ("WW_CA", "verify")):
        if value := os.environ.get(variable):
            said[name] = value
    return said | settings


def _of_link(lan: bool) -> dict[str, Any]:
    """Return how a peer is found, and by which key this user is known to it, as the commands do."""
    state = _state_directory()
    gateways, own = state / "gateway.key", state / "client.key"
    # Whoever runs a gateway may always use it.
    known = gateways if os.access(gateways, os.R_OK | os.W_OK) else own
    return {
        "key": os.environ.get("WW_KEY") or known,
        "namespace": os.environ.get("WW_NS") or "ww",
        "addresses": _listed("WW_ADDR"),
        "state_directory": state,
        "lan": lan,
        "groups": _listed("WW_DISCOVER"),
        "multicast": not _truth("WW_NO_MULTICAST"),
        "mdns": not _truth("WW_NO_MDNS"),
    }


def _state_directory() -> Path:
    return Path(said) if (said := os.environ.get("WW_STATE")) else state_directory()


def _listed(variable: str) -> list[str]:
    return [part for part in os.environ.get(variable, "").split(",") if part]


def _truth(variable: str) -> bool:
    text = os.environ.get(variable, "").lower()
    if text and text not in _TRUE + _FALSE:
        raise UsageError(f"{variable}: {text[:40]!r}: expected true or false")
    return text in _TRUE


def _found(lan: bool, settings: dict[str, Any], timeout_s: float | None) -> Chosen | None:
    """Choose a gateway that lets this user in and has a worker; None when there is none in time."""
    from ww.client.native_link import LinkConfig
    from ww.jobs import search

    of_link = {name: value for name, value in settings.items() if name in LinkConfig.__slots__}
    config = settings.get("config") or LinkConfig(**_of_link(lan) | of_link)
    timeout_s = timeout_s or (FIND_BEYOND_S if config.lan else FIND_S)
    candidates_max = _CANDIDATES_BEYOND_MAX if config.lan else _CANDIDATES_MAX
    registered = search.registered(config)[:candidates_max]
    if not registered and not config.lan:
        return None
    found: list[tuple[str, Sequence[str]]] = []

    def look() -> None:
        # What fails here fails for a named gateway too, and is said there.
        with contextlib.suppress(PeerError, UsageError, OSError):
            found.extend(search.run(config, registered, timeout_s, candidates_max))

    # A loop of its own: the caller may be in one, of another kind.
    thread = threading.Thread(target=look, name="ww-find-gateway", daemon=True)
    thread.start()
    thread.join(timeout_s + _TIDY_S)
    if not found:
        return None
    peer_id, addresses = found[0]
    where = f"gateway {peer_id}, found on this machine" + (" or its networks" if config.lan else "")
    rest = {name: value for name, value in settings.items() if name not in of_link}
    return Chosen(peer_id, rest | {"config": replace(config, addresses=(*config.addresses, *addresses))}, where)


def _embedded(slots: int | None, timeout_s: float, settings: dict[str, Any]) -> Chosen:
    from ww.jobs import embedded

    it = embedded.shared(embedded.EmbeddedConfig(embedded.check_slots(slots), timeout_s))
    where = f"embedded gateway (state and logs: {it.folder})"
    return Chosen(it.target, settings | {"config": it.link()}, where, lambda: it.problem)
