"""What is told about each request: its id, a line in the log, and the metrics.

Holds the outermost ASGI middleware. Must not know routes, nor who may ask what. A request's id goes into its answer and
its log lines; it is in the request's state, and in no context variable, since those leak into capnp's handlers.
"""

import logging
import os
import re
from time import perf_counter
from typing import Any, Final, Protocol

from ww.bucket import Bucket
from ww.gateway.endpoints import template_of
from ww.gateway.same_origin import App, Message, Receive, Scope, Send

log = logging.getLogger("ww.gateway.http")

_GIVEN_ID: Final = re.compile(rb"[A-Za-z0-9._-]{1,128}")
_PATH_SHOWN_MAX: Final = 200
_READS: Final = frozenset({"GET", "HEAD", "OPTIONS"})
# Refusals that an operator wants to see without being asked, beside all from 500.
_OF_INTEREST: Final = frozenset({401, 403, 408, 413, 429})
# Of whose coming and going there are lines already: a worker's, or why a peer was refused. One that was asks why once
# more, without a handshake.
_TOLD_ELSEWHERE: Final = frozenset({"/peer"})
# Lines about refusals: so many at once, then so many a second. Strangers must not fill the log.
_REFUSALS: Final = 100
_REFUSALS_PER_S: Final = 10


class Observer(Protocol):
    """Whom requests are counted for: metrics.py."""

    def request_ended(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count one request."""


class Access:
    """Gives each request an id, and tells of its end. What the application raises is logged, and answered here."""

    def __init__(self, app: App, failed: App, observer: Observer) -> None:
        """Let requests through to app; failed answers those that it raises an error for."""
        self._app = app
        self._failed = failed
        self._observer = observer
        self._refusals = Bucket(_REFUSALS, _REFUSALS_PER_S, perf_counter())
        self._left_out = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        begun = perf_counter()
        id = _id_of(scope)
        scope.setdefault("state", {})["request_id"] = id
        header = (b"x-request-id", id.encode())
        status = sent_bytes = 0

        async def tell(message: Message) -> None:
            nonlocal status, sent_bytes
            kind = message["type"]
            if kind == "http.response.body":
                sent_bytes += len(message.get("body", b""))
            elif kind in ("http.response.start", "websocket.http.response.start"):
                status = message["status"]
                message["headers"] = [*message.get("headers", ()), header]
            elif kind == "websocket.accept":
                status = 101
                message["headers"] = [*message.get("headers", ()), header]
            elif kind == "websocket.close" and not status:
                status = 403  # what a server makes of it
            await send(message)

        try:
            await self._app(scope, receive, tell)
        except Exception:
            log.exception("%s failed", self._what(scope), extra={"request_id": id})
            if not status:
                await self._failed(scope, receive, tell)
            elif scope["type"] == "websocket":
                raise  # for the server to close it
        finally:
            self._ended(scope, status, sent_bytes, perf_counter() - begun)

    def _what(self, scope: Scope) -> str:
        return f"{scope.get('method', 'WS')} {scope['path'][:_PATH_SHOWN_MAX]}"

    def _ended(self, scope: Scope, status: int, sent_bytes: int, seconds: float) -> None:
        method = scope.get("method", "WS")
        self._observer.request_ended(method, template_of(scope["path"]), status, seconds)
        level = _level(scope, status)
        if not log.isEnabledFor(level) or (status >= 400 and not self._may_tell()):
            return
        state: dict[str, Any] = scope["state"]
        caller = state.get("caller")
        name = caller.name if caller is not None else ""
        log.log(
            level,
            "%s %d in %.1f ms, %d bytes%s, request %s",
            self._what(scope),
            status,
            seconds * 1000,
            sent_bytes,
            f" for {name}" if name else "",
            state["request_id"],
            extra={
                "request_id": state["request_id"],
                "caller": name or None,
                "method": method,
                "path": scope["path"][:_PATH_SHOWN_MAX],
                "status": status,
                "seconds": round(seconds, 6),
                "bytes": sent_bytes,
            },
        )

    def _may_tell(self) -> bool:
        """Whether one more line about a refusal may be logged; says how many were not."""
        if not self._refusals.take(perf_counter()):
            self._left_out += 1
            return False
        if self._left_out:
            log.warning("%d lines about refused requests were left out", self._left_out)
            self._left_out = 0
        return True


def make_request_id() -> str:
    """Return an id that no other request has."""
    return os.urandom(8).hex()


def _id_of(scope: Scope) -> str:
    for name, value in scope["headers"]:
        if name == b"x-request-id" and _GIVEN_ID.fullmatch(value):
            given: str = value.decode("ascii")
            return given
    return make_request_id()


def _level(scope: Scope, status: int) -> int:
    is_told = scope["path"] in _TOLD_ELSEWHERE and ("method" in scope or status == 429)
    if status >= 500 or (status in _OF_INTEREST and not is_told):
        return logging.WARNING
    is_quiet = scope.get("method") in _READS or scope["path"] in _TOLD_ELSEWHERE
    return logging.DEBUG if is_quiet or not status else logging.INFO


def request_id_of(scope: Scope) -> str | None:
    """Return the id that a request was given, if it was."""
    id: str | None = scope.get("state", {}).get("request_id")
    return id
