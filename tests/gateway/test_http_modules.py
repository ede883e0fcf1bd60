"""Modules over HTTP: sent ahead, read back, removed."""

import asyncio
import hashlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final

import pytest

from tests.components import NOOP as COMPONENT
from tests.gateway.test_http import NOOP, NOOP_SHA256, Gateway, form, open_gateway
from tests.gateway.test_modules import padded
from tests.guests import function, guest, wat, zipped
from ww.gateway.http import HttpConfig

pytestmark = pytest.mark.anyio

NAME: Final = f"sha256:{NOOP_SHA256}"
LARGE: Final = padded(NOOP, 2 << 20)
NO_PARTS: Final = b"--x--\r\n"
RAW: Final = {"content-type": "application/wasm"}


@pytest.fixture
async def gateway(tmp_path: Path) -> AsyncIterator[Gateway]:
    async with open_gateway(tmp_path) as gateway:
        yield gateway


async def put(gateway: Gateway, module: bytes, status: int = 201) -> dict[str, Any]:
    """Send a module as a body; return what is answered."""
    answer: dict[str, Any] = await gateway.json("/modules", status, "POST", content=module, headers=RAW)
    return answer


async def test_a_module_is_taken_as_a_form_or_as_a_body_and_is_there_once(gateway: Gateway) -> None:
    answer = await gateway.client.post("/modules", files=form())
    assert (answer.status_code, answer.headers["location"]) == (201, f"/modules/{NAME}")
    assert answer.json() == {"module": NAME, "bytes": len(NOOP), "kind": "function", "entries": ["run"]}
    assert await put(gateway, NOOP, 200) == answer.json()
    assert gateway.module_files() == {f"{NOOP_SHA256}.wasm"}
    await gateway.added(wasm=None, module=NAME)


@pytest.mark.parametrize(
    ("module", "kind", "entries"),
    [
        (guest("echo"), "command", []),
        (COMPONENT, "component", []),
        (wat('(func (export "f") (param f64)) (func (export "g")) (func (export "v") (param v128))'), "function", "fg"),
        (LARGE, "function", ["run"]),
    ],
)
async def test_what_a_module_is_is_said(gateway: Gateway, module: bytes, kind: str, entries: Any) -> None:
    answer = await put(gateway, module)
    assert (answer["bytes"], answer["kind"], answer["entries"]) == (len(module), kind, list(entries))


@pytest.mark.parametrize(
    ("status", "says", "request_"),
    [
        (422, "wasm: not WebAssembly", {"content": b"(module)", "headers": RAW}),
        (422, "wasm: the file is empty", {"content": b"", "headers": RAW}),
        (422, "wasm: cut off or damaged", {"content": LARGE[:-1], "headers": RAW}),
        (422, "wasm: imports the unknown function", {"content": wat('(import "a" "b" (func)) (func (export "f"))')}),
        (422, "wasm: exports no function 'run' and no _start", {"content": wat(""), "headers": RAW}),
        (422, "wasm: missing", {"content": NO_PARTS, "headers": {"content-type": "multipart/form-data; boundary=x"}}),
        (422, "'id': no such field of a module", {"files": form(id="t")}),
        (422, "'stdin': no such field of a module", {"files": form(stdin="t")}),
        (422, "'files': no such field of a module", {"files": form(files=zipped(a=b""))}),
        (422, "wasm: is a text field", {"files": [("wasm", (None, NOOP))]}),
        (415, "expected application/wasm or multipart", {"content": NOOP, "headers": {"content-type": "a/b"}}),
    ],
)  # fmt: skip
async def test_what_is_no_module_is_refused(gateway: Gateway, status: int, says: str, request_: dict[str, Any]) -> None:
    if "content" in request_:
        request_ = {"headers": RAW} | request_
    answer = await gateway.client.post("/modules", **request_)
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json"), answer.text
    assert says in answer.json()["detail"]
    assert gateway.module_files() == set()


async def test_bodies_are_limited_like_forms(tmp_path: Path) -> None:
    begun = asyncio.Event()

    async def stuck() -> AsyncIterator[bytes]:
        yield LARGE[: 1 << 20]
        begun.set()
        await asyncio.Event().wait()

    http = HttpConfig(upload_bytes_max=3 << 20, upload_timeout_s=0.2, uploads_max=1)
    async with open_gateway(tmp_path, http=http) as gateway, asyncio.TaskGroup() as group:
        await gateway.json("/modules", 413, "POST", content=bytes((3 << 20) + 1), headers=RAW)
        first = group.create_task(gateway.client.post("/modules", content=stuck(), headers=RAW))
        await begun.wait()
        await put(gateway, NOOP, 429)
        assert (await first).status_code == 408
        assert gateway.module_files() == set()
        await put(gateway, NOOP)


async def test_a_client_that_leaves_in_the_middle_leaves_nothing(gateway: Gateway) -> None:
    messages = iter([{"type": "http.request", "body": LARGE[:-1], "more_body": True}, {"type": "http.disconnect"}])

    async def receive() -> Any:
        return next(messages)

    async def send(_: Any) -> None:
        pass

    headers = [(b"host", b"localhost"), (b"content-type", b"application/wasm")]
    scope = {"type": "http", "method": "POST", "path": "/modules", "query_string": b"", "headers": headers}
    await gateway.app(scope, receive, send)
    assert gateway.module_files() == set()


# Reading.


@pytest.mark.parametrize("module", [NOOP, LARGE])
async def test_a_module_is_read_back_whole(gateway: Gateway, module: bytes) -> None:
    name = (await put(gateway, module))["module"]
    for path in (f"/modules/{name}", f"/modules/{name[7:]}"):
        answer = await gateway.client.get(path)
        assert (answer.status_code, answer.content) == (200, module)
        assert answer.headers["content-type"] == "application/wasm"
        assert answer.headers["etag"] == f'"{name}"'
        assert answer.headers["cache-control"] == "private, max-age=31536000, immutable"
        head = await gateway.client.head(path)
        for each in (head, answer):
            del each.headers["x-request-id"]
        assert (head.status_code, head.content, head.headers) == (200, b"", answer.headers)


@pytest.mark.parametrize("tags", ['"{}"', 'W/"{}"', '"x", "{}"', "*"])
async def test_who_knows_it_gets_no_bytes(gateway: Gateway, tags: str) -> None:
    await put(gateway, NOOP)
    headers = {"if-none-match": tags.format(NAME)}
    for method in ("GET", "HEAD"):
        answer = await gateway.client.request(method, f"/modules/{NAME}", headers=headers)
        assert (answer.status_code, answer.content, answer.headers["etag"]) == (304, b"", f'"{NAME}"')
    answer = await gateway.client.get(f"/modules/{NAME}", headers={"if-none-match": '"sha256:0"'})
    assert answer.status_code == 200


@pytest.mark.parametrize("digest", ["0" * 64, "sha256:" + "0" * 64, "x", "sha256:", NOOP_SHA256.upper(), "..%2fww.db"])
@pytest.mark.parametrize("method", ["GET", "HEAD", "DELETE"])
async def test_a_module_that_is_not_there(gateway: Gateway, method: str, digest: str) -> None:
    await put(gateway, NOOP)
    answer = await gateway.client.request(method, f"/modules/{digest}", headers={"if-none-match": "*"})
    assert answer.status_code == 404
    assert gateway.module_files() == {f"{NOOP_SHA256}.wasm"}


# Removing.


async def test_a_module_nobody_waits_for_is_removed_and_the_zips_stay(gateway: Gateway) -> None:
    await gateway.added(id="t", files=(data := zipped(a=b"x")))
    zip_name = f"{hashlib.sha256(data).hexdigest()}.zip"
    answer = await gateway.client.delete(f"/modules/{NAME}")
    assert (answer.status_code, answer.json()["code"]) == (409, "conflict")
    assert gateway.module_files() == {f"{NOOP_SHA256}.wasm", zip_name}
    await gateway.json("/tasks/t", 200, "DELETE")
    assert (await gateway.client.delete(f"/modules/{zip_name[:-4]}")).status_code == 404
    answer = await gateway.client.delete(f"/modules/{NAME}")
    assert (answer.status_code, answer.content) == (204, b"")
    assert gateway.module_files() == {zip_name}
    assert (await gateway.client.delete(f"/modules/{NAME}")).status_code == 404
    assert (await gateway.post(wasm=None, module=NAME)).status_code == 404


async def test_a_removed_module_makes_room_and_may_come_again(tmp_path: Path) -> None:
    async with open_gateway(tmp_path, modules_bytes_max=len(NOOP)) as gateway:
        await gateway.added(id="t")
        await gateway.json("/tasks/t", 200, "DELETE")
        assert (await gateway.client.delete(f"/modules/{NAME}")).status_code == 204
        other = function("(i32.const 1)")
        assert len(other) <= len(NOOP)
        await put(gateway, other)
        assert (await put(gateway, NOOP))["module"] == NAME
        await gateway.added(id="u", wasm=None, module=NAME)


async def test_a_module_is_removed_or_named_never_both(gateway: Gateway) -> None:
    for _ in range(20):
        await gateway.client.post("/modules", files=form())
        named, removed = await asyncio.gather(
            gateway.post(wasm=None, module=NAME), gateway.client.delete(f"/modules/{NAME}")
        )
        assert (named.status_code, removed.status_code) in ((201, 409), (404, 204))
        assert (named.status_code == 201) == gateway.modules.path(NOOP_SHA256).exists()
        if named.status_code == 201:
            await gateway.json(named.headers["location"], 200, "DELETE")
