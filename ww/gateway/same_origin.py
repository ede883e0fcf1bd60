"""Keeps other web pages out of the gateway: any page can make a browser post a form to localhost.

Holds the checks of Host, Origin and Sec-Fetch-Site as ASGI middleware. Must not know routes.
Source: W3C Fetch Metadata; OWASP, Cross-Site Request Forgery Prevention.
"""

import ipaddress
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any
from urllib.parse import urlsplit

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

_ADDED_HEADERS = [(b"x-content-type-options", b"nosniff"), (b"cross-origin-resource-policy", b"same-origin")]


class SameOrigin:
    """Lets requests through to an application, or to what `refuse` makes of a reason.

    A request must name this machine's loopback as its Host, so that no foreign name that resolves to it (DNS
    rebinding) gets in; and what changes something must not come from a page of another origin.
    """

    def __init__(self, app: App, refuse: Callable[[str], App]) -> None:
        self._app = app
        self._refuse = refuse

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            raise AssertionError("only HTTP is served")
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        refusal = _refusal(scope["method"], headers)
        app = self._app if refusal is None else self._refuse(refusal)
        await app(scope, receive, _with_headers(send))


def _refusal(method: str, headers: dict[str, str]) -> str | None:
    host = headers.get("host", "")
    if not _is_loopback(host):
        return f"Host {_shown(host)} is not this machine's loopback; expected localhost or 127.0.0.1"
    if method in ("GET", "HEAD", "OPTIONS"):
        return None
    origin = headers.get("origin")
    if origin is not None and origin not in (f"http://{host}", f"https://{host}"):
        return f"Origin {_shown(origin)} is another web page's; only this host's own pages may do that"
    site = headers.get("sec-fetch-site", "none")
    if site not in ("none", "same-origin"):
        return f"Sec-Fetch-Site is {_shown(site)}: another web page sent this; only this host's own pages may do that"
    return None


def _is_loopback(host: str) -> bool:
    try:
        name = urlsplit(f"//{host}").hostname or ""
        return name == "localhost" or ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def _with_headers(send: Send) -> Send:
    """Add what keeps other pages from reading or reinterpreting an answer."""

    async def send_with_headers(message: Message) -> None:
        if message["type"] == "http.response.start":
            message["headers"] = [*message["headers"], *_ADDED_HEADERS]
        await send(message)

    return send_with_headers


def _shown(text: str) -> str:
    return repr(text[:60])
