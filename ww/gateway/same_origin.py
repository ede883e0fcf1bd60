"""Keeps other web pages out of the gateway: any page can make a browser post a form to localhost.

Holds the checks of Host, Origin and Sec-Fetch-Site as ASGI middleware. Must not know routes.
Source: W3C Fetch Metadata; OWASP, Cross-Site Request Forgery Prevention; RFC 6455, 10.2.
"""

import ipaddress
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Final
from urllib.parse import urlsplit

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

_ADDED_HEADERS = [(b"x-content-type-options", b"nosniff"), (b"cross-origin-resource-policy", b"same-origin")]
_STARTS: Final = ("http.response.start", "websocket.accept", "websocket.http.response.start")
_HOSTS_KNOWN_MAX: Final = 256
# What a page may not even begin: its answer is no page, and lasts.
_STREAM_SUFFIXES: Final = ("/events", "/grid")


class SameOrigin:
    """Lets requests through to an application, or to what `refuse` makes of a reason.

    A request must name this gateway by an address of its machine as its Host, or by a name that the operator gave it,
    so that no foreign name that resolves to it (DNS rebinding) gets in; and what changes something, or opens a stream,
    must not come from a page of another origin than those that the operator named.
    """

    def __init__(
        self,
        app: App,
        refuse: Callable[[str], App],
        *,
        names: frozenset[str] = frozenset(),
        origins: frozenset[str] = frozenset(),
        any_address: bool = False,
    ) -> None:
        """Accept names, in lower case, beside loopback; with any_address every IP address, for those beyond it."""
        self._app = app
        self._refuse = refuse
        self._names = names | {"localhost"}
        self._origins = origins
        self._any_address = any_address
        self._hosts: dict[bytes, bool] = {}
        """Those that were looked at, and whether they are this gateway's."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            raise AssertionError("only HTTP and WebSocket are served")
        refusal = self._refusal(scope)
        app = self._app if refusal is None else self._refuse(refusal)
        await app(scope, receive, _with_headers(send))

    def _refusal(self, scope: Scope) -> str | None:
        host = origin = site = None
        for name, value in scope["headers"]:
            if name == b"host":
                host = value
            elif name == b"origin":
                origin = value.decode("latin-1")
            elif name == b"sec-fetch-site":
                site = value.decode("latin-1")
        if not self._is_ours(host or b""):
            return f"Host {_shown((host or b'').decode('latin-1'))} is not this gateway's; expected {self._expected()}"
        if scope["type"] == "http" and scope["method"] in ("GET", "HEAD", "OPTIONS"):
            if not scope["path"].endswith(_STREAM_SUFFIXES):
                return None
        elif origin is None and site is None:
            return None
        return self._refusal_of_page((host or b"").decode("latin-1"), origin, "none" if site is None else site)

    def _refusal_of_page(self, host: str, origin: str | None, site: str) -> str | None:
        only = "only this host's own pages may do that"
        if origin is not None:
            if origin in self._origins:
                return None
            if origin not in (f"http://{host}", f"https://{host}"):
                return f"Origin {_shown(origin)} is another web page's; {only}"
        if site not in ("none", "same-origin"):
            return f"Sec-Fetch-Site is {_shown(site)}: another web page sent this; {only}"
        return None

    def _is_ours(self, host: bytes) -> bool:
        known = self._hosts.get(host)
        if known is None:
            known = self._has_our_name(host.decode("latin-1"))
            if len(self._hosts) >= _HOSTS_KNOWN_MAX:
                self._hosts.clear()
            if len(host) <= 256:
                self._hosts[host] = known
        return known

    def _has_our_name(self, host: str) -> bool:
        try:
            name = urlsplit(f"//{host}").hostname or ""
            if name in self._names:
                return True
            address = ipaddress.ip_address(name)
            return address.is_loopback or self._any_address
        except ValueError:
            return False

    def _expected(self) -> str:
        names = sorted(self._names - {"localhost"})
        addresses = "an IP address" if self._any_address else "127.0.0.1"
        return " or ".join(["localhost", addresses, *names[:4], "another --http-name"])


def _with_headers(send: Send) -> Send:
    """Add what keeps other pages from reading or reinterpreting an answer."""

    async def send_with_headers(message: Message) -> None:
        if message["type"] in _STARTS:
            message["headers"] = [*message.get("headers", ()), *_ADDED_HEADERS]
        await send(message)

    return send_with_headers


def _shown(text: str) -> str:
    return repr(text[:60])
