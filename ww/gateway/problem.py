"""How every answer that is no success looks: a problem, RFC 9457.

Holds the one place where an error becomes a status. Must not know routes.
"""

import json
import logging
from collections.abc import Mapping
from typing import Any, Final

import orjson
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from ww.errors import BadModule, Conflict, NotAllowed, NotFound, Overloaded, StoreError, UsageError, WwError
from ww.gateway.access import request_id_of
from ww.gateway.request import shown

log = logging.getLogger("ww.gateway")

_CROWDED_RETRY_AFTER_S: Final = 1
_WRONG_TOKENS_RETRY_AFTER_S: Final = 6
_TITLES: Final = {
    400: "Bad Request",
    401: "Unauthorized",
    403: "Forbidden",
    404: "Not Found",
    405: "Method Not Allowed",
    408: "Request Timeout",
    409: "Conflict",
    413: "Content Too Large",
    415: "Unsupported Media Type",
    422: "Unprocessable Content",
    426: "Upgrade Required",
    429: "Too Many Requests",
    500: "Internal Server Error",
    503: "Service Unavailable",
}
_STATUS: Final[tuple[tuple[type[WwError], int], ...]] = (
    (Conflict, 409),
    (NotFound, 404),
    (UsageError, 422),
    (BadModule, 422),
    (NotAllowed, 403),
    (Overloaded, 429),
    (StoreError, 503),
)


def _codes(kind: type[WwError]) -> set[str]:
    return {kind.code}.union(*map(_codes, kind.__subclasses__()))


CODES: Final = tuple(sorted({"http", "forbidden", "unauthorized", "internal"} | _codes(WwError)))
"""What `code` may be."""


class Problem(Response):
    """A problem, which names the request that it answers: it is rendered when it is sent."""

    media_type = "application/problem+json"

    def __init__(
        self,
        status: int,
        detail: str,
        code: str,
        field: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self.content = {"type": "about:blank", "title": _TITLES.get(status, "Error"), "status": status}
        self.content |= {"detail": detail, "code": code} | ({"field": field} if field else {})
        self._extra_headers = headers
        super().__init__(status_code=status, headers=headers)

    def to_json(self, request_id: str | None) -> dict[str, Any]:
        """Return what is sent, where a request of that id is answered."""
        return self.content | ({"request_id": request_id} if request_id else {})

    def render_for(self, request_id: str | None) -> bytes:
        """Return the bytes of that."""
        text = json.dumps(self.to_json(request_id), ensure_ascii=False, separators=(",", ":"))
        # A field's name may be any text that was sent, even half a character.
        return text.encode(errors="replace") + b"\n"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.body = self.render_for(request_id_of(scope))
        self.init_headers(self._extra_headers)
        await super().__call__(scope, receive, send)


def problem_of(error: Exception) -> Problem:
    """Return how an error is answered. What is no WwError is told to nobody but the log."""
    if not isinstance(error, WwError):
        return Problem(500, "the gateway failed to answer; its log says why", "internal")
    status = next((status for kind, status in _STATUS if isinstance(error, kind)), 500)
    headers = {"Retry-After": str(max(1, round(error.retry_after_s)))} if isinstance(error, Overloaded) else None
    field = "wasm" if isinstance(error, BadModule) else getattr(error, "field", None)
    return Problem(status, str(error), error.code, field, headers)


async def _answer_error(request: Request, error: Exception) -> Response:
    answer = problem_of(error)
    if answer.status_code >= 500:
        id = request_id_of(request.scope)
        log.error("%s %s: %s", request.method, request.url.path, error, extra={"request_id": id})
    return answer


async def _answer_http_exception(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    headers = dict(error.headers or {})
    detail = error.detail
    if error.status_code == 413:
        headers["Connection"] = "close"
    elif error.status_code == 404:  # from the router: whoever looks for a task in vain raises NotFound
        detail = f"nothing is at {shown(request.scope['path'])}: /openapi.json says what there is (docs/http.md)"
    return Problem(error.status_code, detail, "http", headers=headers)


def crowded(connections_max: int) -> Problem:
    """Return the answer to a request on a connection beyond that many. It ends the connection, to make room."""
    headers = {"Retry-After": str(_CROWDED_RETRY_AFTER_S), "Connection": "close"}
    return Problem(503, f"{connections_max} connections are open, the limit", "overloaded", headers=headers)


def no_http() -> Problem:
    """Return the answer to bytes that are none."""
    return Problem(400, "what came is no HTTP/1.1 request, or its head is too large", "http")


def forbidden(detail: str) -> Problem:
    """Return the answer to another page's request."""
    return Problem(403, detail, "forbidden")


def unauthorized(status: int, detail: str) -> Problem:
    """Return the answer to a request whose token is missing, wrong, or has not the right."""
    if status == 401:
        return Problem(401, detail, "unauthorized", headers={"WWW-Authenticate": "Bearer"})
    if status == 429:
        return Problem(429, detail, "overloaded", headers={"Retry-After": str(_WRONG_TOKENS_RETRY_AFTER_S)})
    return Problem(status, detail, NotAllowed.code)


async def failed(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer a request that nobody could answer."""
    await problem_of(Exception())(scope, receive, send)


class Json(JSONResponse):
    """JSON that ends its line, as a terminal likes it."""

    def render(self, content: Any) -> bytes:
        return orjson.dumps(content, option=orjson.OPT_APPEND_NEWLINE)


class _Nothing(Response):
    """No answer: nobody is there to read it, and the server has closed the connection or answered itself."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        pass


async def _answer_nobody(request: Request, error: Exception) -> Response:
    return _Nothing()


async def _answer_unexpected(request: Request, error: Exception) -> Response:
    # Starlette raises it again, for access.py to log.
    return problem_of(error)


HANDLERS: Final[dict[Any, Any]] = {
    WwError: _answer_error,
    HTTPException: _answer_http_exception,
    ClientDisconnect: _answer_nobody,
    Exception: _answer_unexpected,
}
