"""Who asks over HTTP: the bearer token of a request, and whether it may ask that.

Holds the check as ASGI middleware, and the limit on attempts that fail. Must not know routes (endpoints.py says what
each takes) nor whose task is whose: the caller stands in the request's state, and http.py looks there.
Source: RFC 6750.
"""

import hashlib
import ipaddress
import logging
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, Final, Protocol

from ww.bucket import Bucket
from ww.gateway.caller import EVERYBODY, Caller, Scope
from ww.gateway.endpoints import scope_of, template_of
from ww.gateway.same_origin import App, Receive, Send
from ww.gateway.same_origin import Scope as AsgiScope

log = logging.getLogger("ww.gateway")

_SECRET_BYTES_MAX: Final = 512
_ADDRESSES_MAX: Final = 4096
# Wrong tokens of one address: so many at once, then one each six seconds.
_ATTEMPTS: Final = 10
_ATTEMPTS_PER_S: Final = 1 / 6
_KNOWN_MAX: Final = 32

Refuse = Callable[[int, str], App]


class Secrets(Protocol):
    """Where tokens are known: tokens.py."""

    def caller(self, secret: bytes) -> tuple[Caller | None, str]:
        """Return whose secret that is, and who it would be of if it had not expired."""


class _Address:
    """What came from one address."""

    __slots__ = ("failures", "known")

    def __init__(self, now: float) -> None:
        self.failures = Bucket(_ATTEMPTS, _ATTEMPTS_PER_S, now)
        self.known: set[bytes] = set()
        """Hashes of tokens that were right."""


class Authority:
    """Lets requests with a right token through to an application, or to what `refuse` makes of a status and a reason.

    Without tokens everybody is let through. An address that showed too many wrong ones is not listened to for a while,
    but for tokens that it had right before: one bad client behind an address does not lock out the others.
    """

    def __init__(
        self, app: App, tokens: Secrets | None, refuse: Refuse, now: Callable[[], float], *, behind_proxy: bool = False
    ) -> None:
        """Let requests through to app. Behind a proxy, its X-Forwarded-For says where they come from."""
        self._app = app
        self._tokens = tokens
        self._refuse = refuse
        self._now = now
        self._behind_proxy = behind_proxy
        self._addresses: OrderedDict[str, _Address] = OrderedDict()

    async def __call__(self, scope: AsgiScope, receive: Receive, send: Send) -> None:
        state: dict[str, Any] = scope.setdefault("state", {})
        if self._behind_proxy:
            state["forwarded_for"] = _forwarded_for(scope)
        if self._tokens is None:
            state["caller"] = EVERYBODY
            return await self._app(scope, receive, send)
        needed = scope_of(scope.get("method", "GET"), template_of(scope["path"]))
        app = self._app
        if needed is not None:
            caller, status, refusal = self._identify(scope, needed)
            if caller is not None:
                state["caller"] = caller
            if refusal:
                app = self._refuse(status, refusal)
        await app(scope, receive, send)

    def _identify(self, scope: AsgiScope, needed: Scope) -> tuple[Caller | None, int, str]:
        """Return who asks, and with which status and why it may not; no reason when it may."""
        values = [value for name, value in scope["headers"] if name == b"authorization"]
        if not values:
            return None, 401, "no token; expected the header Authorization: Bearer TOKEN (ww token create)"
        kind, _, secret = values[0].partition(b" ")
        secret = secret.strip()
        if len(values) > 1 or kind.lower() != b"bearer" or not 0 < len(secret) <= _SECRET_BYTES_MAX:
            return None, 401, "Authorization holds no token; expected one header Authorization: Bearer TOKEN"
        tokens = self._tokens
        assert tokens is not None
        caller = self._look_up(secret, self._address_of(scope))
        if isinstance(caller, str):
            return None, 429 if caller.startswith("too many") else 401, caller
        # For connections that go on: a token may be revoked, or expire, meanwhile.
        scope["state"]["caller_now"] = lambda: tokens.caller(secret)[0]
        if not caller.may(needed):
            return caller, 403, f"the token {caller.name!r} has no scope {needed}"
        return caller, 200, ""

    def _look_up(self, secret: bytes, address: str) -> Caller | str:
        assert self._tokens is not None
        now = self._now()
        entry = self._addresses.get(address)
        digest = hashlib.sha256(secret).digest()
        if entry is not None:
            self._addresses.move_to_end(address)
            if digest not in entry.known and entry.failures.is_empty(now):
                return "too many wrong tokens came from this address; try again later"
        caller, name = self._tokens.caller(secret)
        if entry is None:
            entry = self._addresses[address] = _Address(now)
            if len(self._addresses) > _ADDRESSES_MAX:
                self._addresses.popitem(last=False)
        if caller is not None:
            if len(entry.known) < _KNOWN_MAX:
                entry.known.add(digest)
            return caller
        entry.known.discard(digest)
        entry.failures.take(now)
        why = f"the token {name!r} has expired" if name else "a token that is not known"
        log.warning("HTTP from %s: %s", address, why)
        return f"{why}; expected one of this gateway's (ww token create)"

    def _address_of(self, scope: AsgiScope) -> str:
        """Return where a request comes from: an IPv4 address, or an IPv6 network, which one host may fill."""
        client = scope.get("client")
        text: str = client[0] if client else ""
        text = scope["state"].get("forwarded_for") or text
        try:
            address = ipaddress.ip_address(text)
        except ValueError:
            return text
        if address.version == 6 and address.ipv4_mapped is not None:
            return str(address.ipv4_mapped)  # as a socket of both versions tells it
        if address.version == 6 and not address.is_loopback:
            return str(ipaddress.ip_network((address, 64), strict=False))
        return text


def _forwarded_for(scope: AsgiScope) -> str:
    """Return the address that the proxy in front saw, as it wrote it; nothing when it says none."""
    said = [value for name, value in scope["headers"] if name == b"x-forwarded-for"]
    # The last one is what the proxy itself saw; whatever stands before it, the client may have said.
    return said[-1].rpartition(b",")[2].strip().decode("latin-1")[:64] if said else ""
