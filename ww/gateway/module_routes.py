"""Modules over HTTP: sent ahead of the tasks that name them, read back, removed.

Holds the handlers of /modules. Must not know what tasks do with one.
"""

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import BinaryIO, Final

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from ww.errors import NotFound, UsageError
from ww.gateway.etag import is_known
from ww.gateway.form import content_type_of
from ww.gateway.intake import Intake
from ww.gateway.modules import ModuleStore
from ww.gateway.perimeter import Perimeter
from ww.gateway.problem import Json
from ww.gateway.request import shown
from ww.gateway.scheduler import Scheduler
from ww.gateway.upload import Upload

_DIGEST: Final = re.compile(r"(?:sha256:)?([0-9a-f]{64})")
_PIECE_BYTES: Final = 256 << 10
_FOREVER: Final = "private, max-age=31536000, immutable"


class ModuleRoutes:
    """The handlers, over one gateway's parts."""

    def __init__(self, scheduler: Scheduler, modules: ModuleStore, intake: Intake, perimeter: Perimeter) -> None:
        self._scheduler = scheduler
        self._modules = modules
        self._intake = intake
        self._perimeter = perimeter

    async def post_module(self, request: Request) -> Response:
        self._perimeter.require_room()
        async with self._upload(request) as upload:
            about = await self._modules.about(upload)
            is_new = not await self._modules.has(upload.digest)
            await upload.keep()
        name = f"sha256:{upload.digest}"
        body = {"module": name, "bytes": upload.size, "kind": about.kind, "entries": about.entries}
        return Json(body, 201 if is_new else 200, {"Location": f"/modules/{name}"})

    async def get_module(self, request: Request) -> Response:
        digest = _digest_of(request)
        tag = f'"sha256:{digest}"'
        headers = {"ETag": tag, "Cache-Control": _FOREVER}
        file, size = await self._modules.open(digest)
        if is_known(request.headers.get("if-none-match", ""), tag):
            file.close()
            return Response(None, 304, headers)
        headers["Content-Length"] = str(size)
        if request.method == "HEAD":
            file.close()
            return Response(None, 200, headers, media_type="application/wasm")
        return FileResponse(file, headers, "application/wasm")

    async def delete_module(self, request: Request) -> Response:
        digest = _digest_of(request)
        await self._modules.remove(digest, lambda: self._scheduler.is_named(digest))
        return Response(None, 204)

    @asynccontextmanager
    async def _upload(self, request: Request) -> AsyncIterator[Upload]:
        """Read a module, as a form's wasm or as the whole body."""
        kind, _ = content_type_of(request)
        if kind == b"application/wasm":
            with self._make() as upload:
                await self._intake.body(request, upload)
                yield upload
            return
        if kind != b"multipart/form-data":
            got = shown(kind.decode("latin-1")) if kind else "none"
            raise HTTPException(415, f"content type {got}; expected application/wasm or multipart/form-data")
        async with self._intake.form(request, {"wasm": self._make}) as form:
            if form.fields or form.stdin is not None:
                name = form.fields[0][0] if form.fields else "stdin"
                raise UsageError(f"{shown(name)}: no such field of a module; known is wasm", name[:60])
            if "wasm" not in form.files:
                raise UsageError("wasm: missing; expected a file part (curl: -F wasm=@FILE)", "wasm")
            yield form.files["wasm"]

    def _make(self) -> Upload:
        return self._modules.upload(self._scheduler.modules_in_use)


def _digest_of(request: Request) -> str:
    text = request.path_params["digest"]
    match = _DIGEST.fullmatch(text)
    if match is None:
        raise NotFound(f"no module {shown(text)}: expected sha256: and 64 hex digits")
    return match[1]


class FileResponse(StreamingResponse):
    """A file that is open, and is closed afterwards."""

    def __init__(self, file: BinaryIO, headers: dict[str, str], media_type: str) -> None:
        super().__init__(_pieces(file), headers=headers, media_type=media_type)
        self._file = file

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with self._file:
            await super().__call__(scope, receive, send)


async def _pieces(file: BinaryIO) -> AsyncIterator[bytes]:
    while piece := await asyncio.to_thread(file.read, _PIECE_BYTES):
        yield piece
