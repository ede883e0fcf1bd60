"""The pages that browsers get, and the worker for terminals: files of the package, as web/ was built into ww/web.

Holds their bytes, read once, and the headers that keep a page to itself. Must not know what the pages do. A request's
path is looked up in a table: none ever reaches the file system. Sources: W3C Content Security Policy 3; WHATWG HTML,
7.1.3, Cross-origin opener policies; RFC 9111; RFC 8246.
"""

import hashlib
from pathlib import Path
from typing import Final

from starlette.requests import Request
from starlette.responses import Response

from ww.errors import NotFound
from ww.gateway.etag import is_known
from ww.gateway.request import shown

DIRECTORY: Final = Path(__file__).parent.parent / "web"
_PAGES: Final = {"/": "live.html", "/worker": "worker.html", "/api": "api.html"}
PATHS: Final = (*_PAGES, "/assets/{file}", "/terminal/{file}")
"""Templates of all that is served."""
_TYPES: Final = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".ico": "image/x-icon",
    ".js": "text/javascript; charset=utf-8",
    ".mjs": "text/javascript; charset=utf-8",
    ".png": "image/png",
    ".svg": "image/svg+xml",
    ".wasm": "application/wasm",
    ".woff2": "font/woff2",
}
_OTHER_TYPE: Final = "application/octet-stream"
# Their names change with what is in them.
_FOREVER: Final = "public, max-age=31536000, immutable"
_ASK_AGAIN: Final = "no-cache"
_POLICY: Final = (
    "default-src 'none'; script-src 'self'{}; style-src 'self'; connect-src 'self'; img-src 'self'; worker-src 'self';"
    " base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_PLAIN: Final = _POLICY.format("")
# A script that runs as a Web Worker goes by the policy that it came with itself, and may be one that runs guests.
_WITH_GUESTS: Final = _POLICY.format(" 'wasm-unsafe-eval'")
# With both of the first two a page has its process to itself, and with that clocks that are fine enough to measure by.
_HEADERS: Final = {
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Embedder-Policy": "require-corp",
    "Referrer-Policy": "no-referrer",
}


class _File:
    """One of them, and the headers that it is sent with."""

    __slots__ = ("data", "headers", "tag")

    def __init__(self, path: Path, *, is_lasting: bool, has_guests: bool) -> None:
        self.data = path.read_bytes()
        self.tag = f'"{hashlib.sha256(self.data).hexdigest()[:32]}"'
        self.headers = _HEADERS | {
            "Content-Type": _TYPES.get(path.suffix, _OTHER_TYPE),
            "Cache-Control": _FOREVER if is_lasting else _ASK_AGAIN,
            "Content-Security-Policy": _WITH_GUESTS if has_guests else _PLAIN,
            "ETag": self.tag,
        }


class Pages:
    """What is served of a folder that web/ was built into."""

    def __init__(self, directory: Path = DIRECTORY) -> None:
        """Read all of it; there may be none, where nobody built it."""
        self._files: dict[str, _File] = {}
        for path, name in _PAGES.items():
            if (directory / name).is_file():
                page = _File(directory / name, is_lasting=False, has_guests=path == "/worker")
                self._files[path] = page
        for file in _files_in(directory / "assets"):
            self._files[f"/assets/{file.name}"] = _File(file, is_lasting=True, has_guests=file.suffix == ".js")
        for file in _files_in(directory / "terminal"):
            if file.suffix == ".mjs":
                self._files[f"/terminal/{file.name}"] = _File(file, is_lasting=False, has_guests=False)

    async def get(self, request: Request) -> Response:
        """Answer with a page, or with one of the files that it loads."""
        path = request.scope["path"]
        file = self._files.get(path)
        if file is None:
            if not self._files:
                raise NotFound("this package has no pages: scripts/web builds them")
            raise NotFound(f"nothing is at {shown(path)}: no page loads that")
        if is_known(request.headers.get("if-none-match", ""), file.tag):
            return Response(None, 304, file.headers)
        if request.method == "HEAD":
            return Response(None, 200, file.headers | {"Content-Length": str(len(file.data))})
        return Response(file.data, 200, file.headers)


def _files_in(directory: Path) -> list[Path]:
    return sorted(path for path in directory.iterdir() if path.is_file()) if directory.is_dir() else []
