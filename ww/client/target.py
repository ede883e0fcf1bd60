"""Which client a gateway's address asks for: HTTP's, or the native one, which speaks with a peer.

Holds that choice, and which settings belong to which. The native client is imported when it is asked for: it needs
capabilities, and HTTP does not.
"""

import importlib
from collections.abc import Mapping
from dataclasses import fields
from typing import Any, Final, cast

from ww.client.aio import AsyncClient
from ww.client.sync import Client
from ww.errors import UsageError

_NATIVE: Final = "ww.client.native"
# How a peer id, an address and a ticket begin.
_PEERS: Final = ("12D3KooW", "/", "wwt1-")
_OF_HTTP: Final = frozenset(Client.__init__.__kwdefaults__ or ())
_OF_BOTH: Final = frozenset({"retry", "timeout_s", "transport"})


def is_http(target: str) -> bool:
    """Whether an address is one of HTTP."""
    return target.startswith(("http://", "https://"))


def is_peer(target: str) -> bool:
    """Whether an address may be a peer's; the native client looks at it more closely."""
    return target.startswith(_PEERS)


def connect(target: str, **settings: Any) -> Client:
    """Return the client for an address: http://HOST:PORT, or a peer id, a multiaddr or what ww ticket prints.

    settings: retry, timeout_s and transport for both; for HTTP the others of Client, and for a peer `config`, a
    ww.client.native.LinkConfig, or in its place its fields one by one. The client of a peer is a
    ww.client.native.NativeClient, which has the same methods. UsageError names a setting that is none of its kind.
    """
    if is_http(target):
        return Client(target, **_of_http(settings))
    native = _native(target)
    return cast(Client, native.NativeClient(target, **_of_native(native.LinkConfig, settings)))


def aconnect(target: str, **settings: Any) -> AsyncClient:
    """Return the client for asyncio for an address: see connect."""
    if is_http(target):
        return AsyncClient(target, **_of_http(settings))
    native = _native(target)
    return cast(AsyncClient, native.AsyncNativeClient(target, **_of_native(native.LinkConfig, settings)))


def _native(target: str) -> Any:
    if not is_peer(target):
        # What has a ticket in it is not repeated.
        shown = "that" if "wwt1-" in target else repr(target[:80])
        expected = "expected http://HOST:PORT, a peer id, or an address that ends in /p2p/PEER_ID"
        raise UsageError(f"{shown} is no address of a gateway: {expected}", "target")
    return importlib.import_module(_NATIVE)


def _of_http(settings: Mapping[str, Any]) -> Mapping[str, Any]:
    for name in settings:
        if name not in _OF_HTTP:
            raise UsageError(f"{name}: no setting of a client of HTTP, which has {_listed(_OF_HTTP)}", name)
    return settings


def _of_native(kind: Any, settings: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the settings with those of the link as one: config."""
    of_link = {field.name for field in fields(kind)}
    known = of_link | _OF_BOTH | {"config"}
    for name in settings:
        if name not in known:
            raise UsageError(f"{name}: no setting of a native client, which has {_listed(known)}", name)
    link = {name: value for name, value in settings.items() if name in of_link}
    rest = {name: value for name, value in settings.items() if name not in of_link}
    if not link:
        return rest
    if rest.get("config") is not None:
        name = next(iter(link))
        raise UsageError(f"{name}: expected it in config, which is given too", name)
    return rest | {"config": kind(**link)}


def _listed(names: frozenset[str] | set[str]) -> str:
    return ", ".join(sorted(names))
