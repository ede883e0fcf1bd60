"""Which client a gateway's address asks for: HTTP's, or the native one, which speaks with a peer.

Holds that choice alone. The native client is imported when it is asked for: it needs a node, and HTTP does not.
"""

import importlib
from typing import Any, cast

from ww.client.aio import AsyncClient
from ww.client.sync import Client

_NATIVE = "ww.client.native"


def is_http(target: str) -> bool:
    """Whether an address is one of HTTP."""
    return target.startswith(("http://", "https://"))


def connect(target: str, **settings: Any) -> Client:
    """Return the client for an address: http://HOST:PORT, or a peer id, a multiaddr or what ww ticket prints.

    settings are those of the client that it asks for: Client's, or ww.client.native.NativeClient's, which has the same
    methods.
    """
    if is_http(target):
        return Client(target, **settings)
    return cast(Client, importlib.import_module(_NATIVE).NativeClient(target, **settings))


def aconnect(target: str, **settings: Any) -> AsyncClient:
    """Return the client for asyncio for an address: see connect."""
    if is_http(target):
        return AsyncClient(target, **settings)
    return cast(AsyncClient, importlib.import_module(_NATIVE).AsyncNativeClient(target, **settings))
