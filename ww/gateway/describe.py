"""What a gateway says of itself: /readyz, /metrics and /openapi.json.

Holds their handlers. Must not know tasks, nor who may ask.
"""

import asyncio
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from ww.gateway.metrics import CONTENT_TYPE
from ww.gateway.openapi import document
from ww.gateway.perimeter import Perimeter
from ww.gateway.problem import Json
from ww.gateway.request import RequestLimits


class Description:
    """The handlers."""

    def __init__(self, perimeter: Perimeter, limits: RequestLimits) -> None:
        self._perimeter = perimeter
        self._limits = limits
        self._document: dict[str, Any] | None = None

    async def get_ready(self, request: Request) -> Response:
        checks = self._perimeter.checks()
        is_ready = all(check.ok for check in checks)
        status = "ready" if is_ready else "not ready"
        return Json({"status": status, "checks": [check.to_json() for check in checks]}, 200 if is_ready else 503)

    async def get_metrics(self, request: Request) -> Response:
        metrics = self._perimeter.metrics
        await asyncio.to_thread(metrics.look)
        return Response(metrics.render(), media_type=CONTENT_TYPE)

    async def get_document(self, request: Request) -> Response:
        if self._document is None:
            self._document = document(self._limits, has_tokens=self._perimeter.tokens is not None)
        return Json(self._document)
