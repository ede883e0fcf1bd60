"""How every answer that is no success looks: a problem, RFC 9457.

Holds the one place where an error becomes a status. Must not know routes.
"""

import logging
from typing import Any, Final

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from ww.errors import BadModule, Conflict, NotFound, Overloaded, StoreError, UsageError, WwError
from ww.gateway.request import shown

log = logging.getLogger("ww.gateway")

_CROWDED_RETRY_AFTER_S: Final = 1


def problem(status: int, detail: str, code: str, field: str | None = None, headers: Any = None) -> Response:
    body = {"type": "about:blank", "title": _TITLES.get(status, "Error"), "status": status, "detail": detail}
    body |= {"code": code} | ({"field": field} if field else {})
    return Json(body, status, headers, media_type="application/problem+json")


_TITLES: Final = {
    400: "Bad Request",
    403: "Forbidden",
    404: "Not Found",
    405: "Method Not Allowed",
    408: "Request Timeout",
    409: "Conflict",
    413: "Content Too Large",
    415: "Unsupported Media Type",
    422: "Unprocessable Content",
    429: "Too Many Requests",
    500: "Internal Server Error",
    503: "Service Unavailable",
}
_STATUS: Final[tuple[tuple[type[WwError], int], ...]] = (
    (Conflict, 409),
    (NotFound, 404),
    (UsageError, 422),
    (BadModule, 422),
    (Overloaded, 429),
    (StoreError, 503),
)


async def _answer_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, WwError)
    status = next((status for kind, status in _STATUS if isinstance(error, kind)), 500)
    if status >= 500:
        log.error("%s %s: %s", request.method, request.url.path, error)
    headers = {"Retry-After": str(max(1, round(error.retry_after_s)))} if isinstance(error, Overloaded) else None
    field = "wasm" if isinstance(error, BadModule) else getattr(error, "field", None)
    return problem(status, str(error), error.code, field, headers)


async def _answer_http_exception(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    headers = dict(error.headers or {})
    detail = error.detail
    if error.status_code == 413:
        headers["Connection"] = "close"
    elif error.status_code == 404:  # from the router: whoever looks for a task in vain raises NotFound
        detail = f"nothing is at {shown(request.scope['path'])}: there are /tasks, /workers and /healthz (docs/http.md)"
    return problem(error.status_code, detail, "http", headers=headers)


def crowded(connections_max: int) -> ASGIApp:
    """Return the answer to a request on a connection beyond that many. It ends the connection, to make room."""
    headers = {"Retry-After": str(_CROWDED_RETRY_AFTER_S), "Connection": "close"}
    return problem(503, f"{connections_max} connections are open, the limit", "overloaded", headers=headers)


def forbidden(detail: str) -> ASGIApp:
    return problem(403, detail, "forbidden")


class Json(JSONResponse):
    """JSON that ends its line, as a terminal likes it."""

    def render(self, content: Any) -> bytes:
        return super().render(content) + b"\n"


class _Nothing(Response):
    """No answer: nobody is there to read it, and the server has closed the connection or answered itself."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        pass


async def _answer_nobody(request: Request, error: Exception) -> Response:
    return _Nothing()


async def _answer_unexpected(request: Request, error: Exception) -> Response:
    # Starlette raises it again for the server to log.
    return problem(500, "the gateway failed to answer; its log says why", "internal")


HANDLERS: Final[dict[Any, Any]] = {
    WwError: _answer_error,
    HTTPException: _answer_http_exception,
    ClientDisconnect: _answer_nobody,
    Exception: _answer_unexpected,
}
