"""The pages: what was built is served as it is, to whoever asks, and nothing else is."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

import httpx
import pytest
from starlette.applications import Starlette
from starlette.routing import Route

from ww.gateway.caller import Caller
from ww.gateway.pages import PATHS, Pages
from ww.gateway.perimeter import Perimeter
from ww.gateway.problem import HANDLERS

pytestmark = pytest.mark.anyio

BUILT: Final = {
    "live.html": b"<!doctype html>live",
    "worker.html": b"<!doctype html>worker",
    "api.html": b"<!doctype html>api",
    "assets/live-Ab3_-x.js": b"live()",
    "assets/style-1.css": b"body{}",
    "assets/icon-1.svg": b"<svg/>",
    "assets/odd.xyz": b"\x00\xff",
    "terminal/worker.mjs": b"work()",
    "terminal/slot.mjs": b"slot()",
}
ASSETS: Final = tuple(f"/{name}" for name in BUILT if "/" in name)
FOREVER: Final = "public, max-age=31536000, immutable"


class Tokens:
    def caller(self, secret: bytes) -> tuple[Caller | None, str]:
        return None, ""


def client_of(directory: Path, perimeter: Perimeter | None = None) -> httpx.AsyncClient:
    """Serve a folder as the gateway does."""
    pages = Pages(directory)
    routes = [Route(path, pages.get, methods=["GET", "HEAD"]) for path in PATHS]
    app = (perimeter or Perimeter()).around(Starlette(routes=routes, exception_handlers=HANDLERS))
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://127.0.0.1:8080")


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    web = tmp_path / "web"
    for name, data in BUILT.items():
        path = web / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    (web / "other.txt").write_text("no page")
    (web / "terminal" / "notes.txt").write_text("no page")
    (tmp_path / "secret").write_text("no page")
    return web


@pytest.fixture
async def client(directory: Path) -> AsyncIterator[httpx.AsyncClient]:
    async with client_of(directory) as client:
        yield client


async def test_what_was_built_is_served(client: httpx.AsyncClient) -> None:
    found = {"/": "live.html", "/worker": "worker.html", "/api": "api.html"} | {path: path[1:] for path in ASSETS}
    types = {"html": "text/html; charset=utf-8", "css": "text/css; charset=utf-8", "svg": "image/svg+xml"}
    types |= dict.fromkeys(("js", "mjs"), "text/javascript; charset=utf-8") | {"xyz": "application/octet-stream"}
    for path, name in found.items():
        answer = await client.get(path)
        assert (answer.status_code, answer.content) == (200, BUILT[name]), path
        assert answer.headers["content-type"] == types[name.rpartition(".")[2]]
        # What has its digest in its name never changes; all else may with the next version.
        assert answer.headers["cache-control"] == (FOREVER if path.startswith("/assets/") else "no-cache")


async def test_a_page_may_load_what_is_of_here_and_be_in_no_other(client: httpx.AsyncClient) -> None:
    for path in ("/", "/worker", "/api", *ASSETS):
        headers = (await client.get(path)).headers
        policy = dict(each.strip().partition(" ")[::2] for each in headers["content-security-policy"].split(";"))
        scripts = policy.pop("script-src").split()
        # In these guests are compiled; a Web Worker goes by the policy of its own script.
        may_compile = path == "/worker" or path.endswith(".js")
        assert scripts == (["'self'", "'wasm-unsafe-eval'"] if may_compile else ["'self'"]), path
        assert policy == {
            "default-src": "'none'", "style-src": "'self'", "connect-src": "'self'", "img-src": "'self'",
            "worker-src": "'self'", "base-uri": "'none'", "form-action": "'none'", "frame-ancestors": "'none'",
        }  # fmt: skip
        assert headers["cross-origin-opener-policy"] == "same-origin"
        assert headers["cross-origin-embedder-policy"] == "require-corp"
        assert headers["cross-origin-resource-policy"] == "same-origin"
        assert headers["referrer-policy"] == "no-referrer"
        assert headers.get_list("x-content-type-options") == ["nosniff"]


async def test_who_has_it_is_told_so(client: httpx.AsyncClient, directory: Path) -> None:
    for path in ("/", "/assets/style-1.css"):
        first = await client.get(path)
        tag = first.headers["etag"]
        for known in (tag, f"W/{tag}", f'"other", {tag}', "*"):
            again = await client.get(path, headers={"If-None-Match": known})
            assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", tag)
            assert again.headers["cache-control"] == first.headers["cache-control"]
        assert (await client.get(path, headers={"If-None-Match": '"other"'})).content == first.content
        head = await client.head(path)
        assert (head.status_code, head.content) == (200, b"")
        assert head.headers["content-length"] == str(len(first.content))
        assert head.headers["etag"] == tag
    (directory / "live.html").write_bytes(b"<!doctype html>another")
    async with client_of(directory) as changed:
        answer = await changed.get("/", headers={"If-None-Match": (await client.get("/")).headers["etag"]})
    assert answer.content == b"<!doctype html>another"


@pytest.mark.parametrize(
    "path",
    [
        "/assets/none.js", "/assets/", "/assets", "/live.html", "/other.txt", "/terminal/notes.txt",
        "/assets/../other.txt", "/assets/..%2fother.txt", "/assets/%2e%2e%2f%2e%2e%2fsecret", "/assets/%00",
        "/assets/..%5cother.txt", "/assets/live.html", "/terminal/..%2flive.html", "//",
    ],
)  # fmt: skip
async def test_nothing_else_is_served(client: httpx.AsyncClient, path: str) -> None:
    answer = await client.request("GET", httpx.URL("http://127.0.0.1:8080", raw_path=path.encode()))
    assert answer.status_code == 404
    assert answer.headers["content-type"] == "application/problem+json"
    assert b"no page\n" not in answer.content


async def test_pages_take_no_token_and_nothing_else_does_without(directory: Path) -> None:
    async with client_of(directory, Perimeter(tokens=Tokens())) as client:
        for path in ("/", "/worker", "/api", *ASSETS):
            assert (await client.get(path)).status_code == 200
        assert (await client.get("/assets/none.js")).status_code == 404
        for path in ("/events", "/tasks", "/assets/a/b", "/other"):
            assert (await client.get(path)).status_code == 401


async def test_a_link_from_another_page_leads_here(client: httpx.AsyncClient) -> None:
    headers = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}
    assert (await client.get("/", headers=headers)).status_code == 200
    assert (await client.get("/", headers={"Host": "evil.example"})).status_code == 403


async def test_a_package_that_was_never_built_says_so(tmp_path: Path) -> None:
    async with client_of(tmp_path / "none") as client:
        answer = await client.get("/")
    assert answer.status_code == 404
    assert answer.json()["detail"] == "this package has no pages: scripts/web builds them"
