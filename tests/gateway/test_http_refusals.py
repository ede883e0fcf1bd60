"""What the HTTP interface refuses: each with its own status and one clear problem, and nothing of it is stored."""

import asyncio
import hashlib
import math
import random
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote

import httpx
import pytest

from tests.components import NOOP as COMPONENT
from tests.conftest import until
from tests.gateway.scripted_worker import ScriptedWorker
from tests.gateway.test_http import BASE_URL, NOOP, NOOP_SHA256, Gateway, form, open_gateway
from tests.gateway.test_store import refusing, rows
from tests.guests import function, guest, wat, zipped
from ww.gateway.http import HttpConfig
from ww.gateway.request import RequestLimits
from ww.identity import Identity
from ww.net.memory import MemoryTransport, Network
from ww.node import LOOPBACK
from ww.rpc.vat import Vat

pytestmark = pytest.mark.anyio

INT64_MAX: Final = 2**63 - 1
OTHER: Final = function("(i32.const 1)")


@pytest.fixture
async def gateway(tmp_path: Path) -> AsyncIterator[Gateway]:
    async with open_gateway(tmp_path) as gateway:
        yield gateway


async def stored(gateway: Gateway) -> tuple[Any, ...]:
    """Return all there is: what is shown, and what is on disk."""
    database = gateway.directory / "ww.db"
    on_disk = rows(database, "SELECT * FROM tasks"), rows(database, "SELECT * FROM runs")
    return await gateway.json("/tasks?limit=1000"), *on_disk, gateway.module_files()


async def refused(
    gateway: Gateway, status: int, says: str, field: str | None = None, method: str = "POST", path: str = "/tasks",
    **request: Any,
) -> httpx.Response:  # fmt: skip
    """Send what is refused with that status, field and words, and see that it leaves nothing behind."""
    before = await stored(gateway)
    answer = await gateway.client.request(method, path, **request)
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert problem.keys() - {"field"} == {"type", "title", "status", "detail", "code", "request_id"}
    assert problem["request_id"] == answer.headers["x-request-id"]
    assert (problem["type"], problem["status"], problem.get("field")) == ("about:blank", status, field)
    assert says in problem["detail"]
    assert problem["detail"].isprintable()
    assert len(problem["detail"]) < 500
    for leak in ("Traceback", ".py", str(gateway.directory)):
        assert leak not in answer.text
    assert await stored(gateway) == before
    return answer


def multipart(body: bytes, kind: str = "multipart/form-data; boundary=x1") -> dict[str, Any]:
    """Make a request of bytes that are said to be a form."""
    return {"content": body, "headers": {"content-type": kind.encode("latin-1")}}


def body_of(**parts: Any) -> bytes:
    """Make the bytes of a form whose boundary is x1."""
    return httpx.Request("POST", BASE_URL, files=form(**parts), headers={"content-type": BODY_KIND}).read()


BODY_KIND: Final = "multipart/form-data; boundary=x1"


# Modules.


@pytest.mark.parametrize(
    ("wasm", "says"),
    [
        (None, "wasm: missing; expected a file part"),
        (b"", "wasm: the file is empty; expected a WebAssembly module"),
        (b"(module)", "wasm: not WebAssembly"),
        (b"\0asm", "wasm: cut off"),
        (guest("hash")[:-1], "wasm: cut off or damaged"),
        (guest("hash")[: len(guest("hash")) // 2], "wasm: cut off or damaged"),
        (b"\0asm\x0d\0\1\0", "wasm: the component is no command: it exports nothing"),
        (wat('(import "env" "now" (func)) (func (export "_start"))'), "wasm: imports the unknown function 'env'.'now'"),
        (wat('(func (export "main"))'), "wasm: exports no function 'run' and no _start"),
        (wat('(func (export "run"))'), "expected two parameters (input, difficulty) and one result"),
        (wat('(memory (export "_start") 1)'), "wasm: exports no function 'run' and no _start"),
    ],
)
async def test_a_module_that_cannot_be_run(gateway: Gateway, wasm: bytes | None, says: str) -> None:
    await refused(gateway, 422, says, "wasm", files=form(wasm, id="t"))


async def test_other_ways_to_give_no_module(gateway: Gateway) -> None:
    says = "wasm: is a text field; expected a file part (curl: -F wasm=@FILE)"
    await refused(gateway, 422, says, "wasm", files=[("wasm", (None, NOOP))])
    await refused(gateway, 422, "wasm: given more than once", "wasm", files=form() + form())
    await refused(gateway, 422, "wasm: exports no function 'walk'", "wasm", files=form(entry="walk"))
    digest = f"sha256:{NOOP_SHA256}"
    await refused(gateway, 422, "module: given beside wasm", "module", files=form(module=digest))
    await refused(gateway, 404, f"module: no module {digest} is stored", "module", files=form(None, module=digest))
    for bad in (NOOP_SHA256, "sha256:", digest[:-1], digest + "0", digest.upper(), "sha256:../../../etc/passwd", ""):
        await refused(gateway, 422, "is not sha256: and 64 hex digits", "module", files=form(None, module=bad))


# Fields.

NOT_WHOLE: Final = [
    "-1", "one", "", " 1", "1 ", "1.0", "0.5", "1e3", "0x10", "1_0", "+1", "nan", "inf", "\u0663", "9" * 40,
]  # fmt: skip
NOT_SECONDS: Final = [
    "-1", "-0.5", "soon", "", " 1", "1e3", "1e400", "nan", "NaN", "inf", "-inf", "Infinity", "1,5", "9" * 40,
]  # fmt: skip
WHOLE: Final = f"is not a whole number from 0 to {INT64_MAX}"
SECONDS: Final = "is not a number of seconds from 0 to 1e+09"
BAD_VALUES: Final = [
    ("repeats", "is not a whole number from 1 to 1000000", [*NOT_WHOLE, "0", "1000001"]),
    ("complete", WHOLE, [*NOT_WHOLE, str(2**63)]),
    ("input", WHOLE, [*NOT_WHOLE, str(2**63)]),
    ("difficulty", WHOLE, [*NOT_WHOLE, str(2**63)]),
    ("start", SECONDS, [*NOT_SECONDS, "1000000001"]),
    ("delay", SECONDS, [*NOT_SECONDS, "1000000001"]),
    ("duration", "is not a number of seconds from 0 to 86400", [*NOT_SECONDS, "86401"]),
    ("memory", "is not a whole number from 1 to 1073741824", [*NOT_WHOLE, "0", "1GiB", "1073741825"]),
    ("output", "is not a whole number from 1 to 16777216", [*NOT_WHOLE, "0", "16777217"]),
    ("id", "is not 1 to 128 letters, digits or . _ : -", ["", "a/b", "..", "-a", "a b", "a\nb", "\u00e9", "x" * 129]),
    ("entry", "expected an exported function's name of 1 to 200 characters", ["", "e" * 201]),
    ("env", "expected NAME=VALUE", ["", "NAME", "=value"]),
    ("fuel", "is not a whole number from 1 to 1000000000000000", [*NOT_WHOLE, "0", "1000000000000001"]),
    ("cpu_seconds", "is not a number of seconds from 0 to 86400", [*NOT_SECONDS, "86401"]),
    ("deterministic", "is not true or false", ["", "1", "yes", "True", "TRUE", " true"]),
    ("seed", f"is not a whole number from 0 to {2**64 - 1}", [*NOT_WHOLE, str(2**64)]),
    ("dirs", "the path", ["", "..", "a/..", "a/../../b", "a\\b", "a\nb", "C:/x", "x" * 1025, "y/" + "x" * 256]),
    ("artifacts", "the path", ["", "..", "../a", "a\\b", "a\tb"]),
    ("files_max", "given without files, dirs or artifacts", ["1", "x", ""]),
    ("artifacts_max", "given without artifacts", ["1", "x", ""]),
    ("description", "holds a NUL character", ["a\0b"]),
]


@pytest.mark.parametrize(("name", "says", "values"), BAD_VALUES, ids=[name for name, _, _ in BAD_VALUES])
async def test_a_bad_value(gateway: Gateway, name: str, says: str, values: list[str]) -> None:
    for value in values:
        answer = await refused(gateway, 422, says, name, files=form(**{name: value}))
        assert answer.json()["detail"].startswith(f"{name}: ")


async def test_values_that_mean_nothing_together(gateway: Gateway) -> None:
    await refused(gateway, 422, "seed: given without deterministic=true", "seed", files=form(seed=1))
    await refused(gateway, 422, "quorum: 3 of 2 replicas", "quorum", files=form(replicas=2, quorum=3))
    await refused(gateway, 422, "2 of 3 replicas must agree", "deterministic", files=form(replicas=3))
    await refused(
        gateway, 422, "seed: given without deterministic=true", "seed", files=form(seed=1, deterministic="false")
    )
    with_dirs = form(COMPONENT, dirs="a", deterministic="true")
    await refused(gateway, 422, "deterministic: a component sees when", "deterministic", files=with_dirs)
    await refused(gateway, 422, "entry: a component is run as a command", "entry", files=form(COMPONENT, entry="f"))
    for name in ("_start", "_initialize"):
        says = f"entry: {name} is called by itself"
        await refused(gateway, 422, says, "entry", files=form(guest("echo"), entry=name))
    for name in ("files_max", "artifacts_max"):
        for value in ("0", "-1", "x", "", str(1 << 40)):
            fields = {"artifacts": "a", name: value}
            await refused(gateway, 422, f"{name}: ", name, files=form(**fields))


async def test_arguments_that_a_function_does_not_take(gateway: Gateway) -> None:
    module = wat('(func (export "f") (param i32 f32))')
    says = "args: 'f' takes (i32, f32), 1 were given"
    await refused(gateway, 422, says, "args", files=form(module, entry="f", args="1"))
    says = "args: parameter 2 of 'f' is f32: 'x' is not a decimal number"
    await refused(gateway, 422, says, "args", files=form(module, entry="f", args=["1", "x"]))
    says = "input: parameter 1 of 'f' is i32: '4294967296' is not a whole number"
    await refused(gateway, 422, says, "input", files=form(module, entry="f", input=2**32, args="1"))
    says = "wasm: 'f' has the signature (v128) -> ()"
    await refused(gateway, 422, says, "wasm", files=form(wat('(func (export "f") (param v128))'), entry="f"))


# Files.


@pytest.mark.parametrize(
    ("files", "says"),
    [
        (b"", "files: the file is empty; expected a zip"),
        (b"no zip", "files: the files are no zip"),
        (zipped(a=b"x")[:-1], "files: the files are no zip"),
        (zipped(**{"..__a": b"x"}), "files: the zip's entry '../a' has '..' in it"),
        (zipped(a=bytes(1001)), "files: the zip holds 1001 bytes when it is unpacked, the limit is 1000"),
        (zipped(a=b"", b=b"", c=b"", d=b""), "files: the zip has 4 entries, the limit is 3"),
        (bytes(5001), "files: 5001 bytes, at most 5000 are taken"),
    ],
)
async def test_files_that_are_not_to_be_unpacked(tmp_path: Path, files: bytes, says: str) -> None:
    limits = RequestLimits(files_upload_max_bytes=5000, files_count_max=3)
    async with open_gateway(tmp_path, limits=limits) as gateway:
        await refused(gateway, 422, says, "files", files=form(files=files, files_max=1000))


async def test_other_ways_to_give_no_files(gateway: Gateway) -> None:
    says = "files: is a text field; expected a file part (curl: -F files=@FILE.zip)"
    await refused(gateway, 422, says, "files", files=[*form(), ("files", (None, zipped(a=b"")))])
    twice = [("files", ("a.zip", zipped(a=b"")))] * 2
    await refused(gateway, 422, "files: given more than once", "files", files=form() + twice)


async def test_more_files_than_there_is_room_for(tmp_path: Path) -> None:
    data = zipped(a=b"x")
    async with open_gateway(tmp_path, modules_bytes_max=len(NOOP) + len(data)) as gateway:
        await gateway.added(id="t", files=data)
        answer = await gateway.post(id="u", files=zipped(b=b"y"))
        assert (answer.status_code, answer.json()["code"]) == (429, "overloaded")
        assert answer.json()["detail"].startswith("files: the zip has no room")
        assert await gateway.ids() == ["t"]
        assert gateway.module_files() == {f"{NOOP_SHA256}.wasm", f"{hashlib.sha256(data).hexdigest()}.zip"}
        await gateway.added(id="u", files=data)


async def test_a_disk_that_refuses_files(gateway: Gateway) -> None:
    await gateway.added(id="t")
    shutil.rmtree(gateway.directory / "modules")
    answer = await gateway.post(id="u", wasm=OTHER, files=zipped(a=b"x"))
    assert (answer.status_code, answer.json()["code"]) == (503, "store")
    assert str(gateway.directory) not in answer.text


async def test_artifacts_that_are_not_there(gateway: Gateway) -> None:
    await gateway.added(id="t", repeats=2, artifacts="out")
    await gateway.end("t", 0)
    get = {"method": "GET"}
    await refused(gateway, 404, "run 0 of task 't' has no artifacts", path="/tasks/t/runs/0/artifacts", **get)
    await refused(gateway, 404, "run 1 of task 't' has not ended", path="/tasks/t/runs/1/artifacts", **get)
    await refused(gateway, 404, "has no run '2'", path="/tasks/t/runs/2/artifacts", **get)
    await refused(gateway, 404, "has no run '..'", path="/tasks/t/runs/%2e%2e/artifacts", **get)
    await refused(gateway, 404, "no task 'u'", path="/tasks/u/runs/0/artifacts", **get)
    await gateway.end("t", 1, artifacts="0" * 64, artifacts_bytes=5)
    await refused(gateway, 404, "not stored here any more", path="/tasks/t/runs/1/artifacts", **get)


async def test_fields_that_are_unknown_or_doubled_or_of_the_wrong_kind(gateway: Gateway) -> None:
    await refused(gateway, 422, "'colour': no such field; known are args", "colour", files=form(colour="red"))
    await refused(gateway, 422, "'Repeats': no such field", "Repeats", files=form(Repeats=1))
    await refused(gateway, 422, "'': no such field", files=[*form(), ("", (None, b"x"))])
    unknown_file = [*form(), ("file", ("x.zip", b"x"))]
    await refused(gateway, 422, "'file': no such field", "file", files=unknown_file)
    for name in ("repeats", "id", "description", "module"):
        await refused(gateway, 422, f"{name}: given more than once", name, files=form(**{name: ["1", "1"]}))
    await refused(gateway, 422, "stdin: given more than once", "stdin", files=form(stdin="a", stdin_file=b"a"))
    await refused(gateway, 422, "env: 'K' is given more than once", "env", files=form(env=["K=1", "K=2"]))
    as_file = [*form(), ("repeats", ("repeats.txt", b"3"))]
    await refused(gateway, 422, "repeats: is a file part; expected a text field", "repeats", files=as_file)


async def test_fields_that_are_too_large(gateway: Gateway) -> None:
    too_large = bytes((32 << 20) + 1)
    await refused(gateway, 422, "stdin: 33554433 bytes, at most", "stdin", files=form(stdin_file=too_large))
    await refused(gateway, 422, "larger than 65536 bytes", "args", files=form(args=["x" * 1000] * 70))
    await refused(gateway, 400, "maximum size of 32768KB", files=form(description=too_large))
    await refused(gateway, 400, "with all text fields before it", files=form(args=[bytes(9 << 20)] * 4))
    await refused(gateway, 400, "Too many fields", files=form(args=["x"] * 2001))
    await refused(gateway, 400, "Too many files", files=form() * 9)


async def test_text_that_is_not_utf_8(gateway: Gateway) -> None:
    for name in ("description", "args", "id"):
        answer = await refused(gateway, 422, f"{name}: ", name, files=form(**{name: b"caf\xe9"}))
        assert "\u00e9" not in answer.json()["detail"]


# Bodies.


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/mixed"])
async def test_another_content_type(gateway: Gateway, kind: str) -> None:
    says = f"content type '{kind}'; expected multipart/form-data"
    await refused(gateway, 415, says, **multipart(b'{"id": "t"}', kind))
    await refused(gateway, 415, says, **multipart(body_of(), f"{kind}; boundary=x1"))


async def test_no_content_type(gateway: Gateway) -> None:
    await refused(gateway, 415, "content type none; expected multipart/form-data", content=body_of())


@pytest.mark.parametrize("boundary", ["", "; boundary", "; boundary=", '; boundary=""', "; boundary=" + "x" * 300])
async def test_a_form_without_a_usable_boundary(gateway: Gateway, boundary: str) -> None:
    await refused(gateway, 400, "multipart", **multipart(body_of(), f"multipart/form-data{boundary}"))


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\0\1garbage\xff",
        b"wasm=1&id=2",
        b"--other\r\n" + body_of(),
        b"--x1\r\nno colon here\r\n\r\nx\r\n--x1--\r\n",
        b"--x1\r\nContent-Disposition: form-data\r\n\r\nx\r\n--x1--\r\n",
        b"--x1\r\nContent-Disposition: form-data; name=" + b"x" * 100_000,
    ],
)
async def test_garbage_that_is_called_a_form(gateway: Gateway, body: bytes) -> None:
    await refused(gateway, 400, "", **multipart(body))


async def test_a_form_that_is_cut_off_anywhere(gateway: Gateway) -> None:
    body = body_of(id="t", repeats=3)
    ends = [*range(0, len(body) - 3, 7), len(body) - 4, len(body) - 3]  # the last two bytes, a new line, may be missing
    for end in ends:
        await refused(gateway, 400, "", **multipart(body[:end]))


@pytest.mark.parametrize("charset", ["undefined", "utf-7", "unicode_escape", "punycode", "utf-16", "none", "a\0b"])
async def test_the_text_of_a_form_is_utf_8_whatever_else_it_says(gateway: Gateway, charset: str) -> None:
    text = "+2AA- \\ud800 \u56db"
    answer = await gateway.client.post(
        "/tasks", **multipart(body_of(description=text), f"multipart/form-data; charset={charset}; boundary=x1")
    )
    assert (answer.status_code, answer.json().get("description")) == (201, text)


async def test_no_damaged_form_gets_more_than_a_refusal(gateway: Gateway) -> None:
    chance = random.Random(7)
    whole = body_of(
        wasm=guest("echo"), id="t", description="d", repeats=3, args=["a", "b"], env="K=v", stdin_file=b"in"
    )
    for _ in range(200):
        body = bytearray(whole)
        for _ in range(chance.randint(1, 4)):
            at = chance.randrange(len(body))
            body[at : at + chance.choice((0, 1, 1, 30))] = chance.randbytes(chance.choice((0, 1, 1, 5)))
        answer = await gateway.client.post("/tasks", **multipart(bytes(body)))
        assert answer.status_code in (200, 201, 400, 409, 422), answer.text


async def test_a_body_over_the_limit_however_it_comes(tmp_path: Path) -> None:
    async def unread() -> AsyncIterator[bytes]:
        raise AssertionError("the body was read")
        yield b""

    async def endless() -> AsyncIterator[bytes]:
        yield b'--x1\r\nContent-Disposition: form-data; name="wasm"; filename="w"\r\n\r\n'
        while True:
            yield bytes(1 << 16)

    says = "the request is larger than 100000 bytes, the limit"
    headers = {"content-type": BODY_KIND}
    limits = RequestLimits(batch_bytes_max=50_000)
    async with open_gateway(tmp_path, http=HttpConfig(upload_bytes_max=100_000), limits=limits) as gateway:
        for length in ("150001", "9" * 40):
            says_both = "the request is larger than 150000 bytes, the limit (--upload-max and --batch-max)"
            await refused(gateway, 413, says_both, content=unread(), headers=headers | {"content-length": length})
        answer = await refused(gateway, 413, says, content=endless(), headers=headers)
        assert answer.headers["connection"] == "close"
        await refused(gateway, 413, says, content=endless(), headers=headers | {"content-length": "10"})
        await gateway.added()


async def test_a_body_that_never_ends(tmp_path: Path) -> None:
    async def stuck() -> AsyncIterator[bytes]:
        yield body_of()[:-10]
        await asyncio.Event().wait()

    async with open_gateway(tmp_path, http=HttpConfig(upload_timeout_s=0.05, uploads_max=1)) as gateway:
        for _ in range(2):
            headers = {"content-type": BODY_KIND}
            await refused(gateway, 408, "the body took longer than 0.05 s", content=stuck(), headers=headers)


async def test_a_client_that_leaves_in_the_middle(gateway: Gateway) -> None:
    messages = iter([{"type": "http.request", "body": body_of(), "more_body": True}, {"type": "http.disconnect"}])

    async def receive() -> Any:
        return next(messages)

    async def send(_: Any) -> None:
        pass

    before = await stored(gateway)
    headers = [(b"host", b"localhost"), (b"content-type", BODY_KIND.encode())]
    scope = {"type": "http", "method": "POST", "path": "/tasks", "query_string": b"", "headers": headers}
    await gateway.app(scope, receive, send)
    assert await stored(gateway) == before


# Where from.


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "https://evil.example"},
        {"origin": "null"},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site", "origin": BASE_URL},
        {"host": "evil.example"},
        {"host": "evil.example:8080", "origin": "http://evil.example:8080", "sec-fetch-site": "same-origin"},
    ],
)
async def test_another_web_page_changes_nothing(gateway: Gateway, headers: dict[str, str]) -> None:
    await refused(gateway, 403, "", files=form(id="u"), headers=headers)
    await gateway.added(id="t")
    await refused(gateway, 403, "", method="DELETE", path="/tasks/t", headers=headers)
    if "host" in headers:
        await refused(gateway, 403, "expected localhost or 127.0.0.1", method="GET", path="/tasks/t", headers=headers)


@pytest.mark.parametrize("headers", [{}, {"origin": BASE_URL, "sec-fetch-site": "same-origin"}, {"host": "localhost"}])
async def test_programs_and_this_hosts_own_pages_are_let_in(gateway: Gateway, headers: dict[str, str]) -> None:
    await gateway.json("/tasks", 201, "POST", files=form(id="t"), headers=headers)
    await gateway.json("/tasks/t", 200, "DELETE", headers=headers)


# What is not there.


@pytest.mark.parametrize("id", ["nobody", "a%2Fb", "%00", "%ff", "..%2f..%2fetc", "x" * 3000])
async def test_a_task_that_is_not_there(gateway: Gateway, id: str) -> None:
    await gateway.added(id="t")
    for method, path in (("GET", ""), ("DELETE", ""), ("GET", "?wait=60"), ("GET", "/runs"), ("GET", "/runs/0")):
        await refused(gateway, 404, "", method=method, path=f"/tasks/{id}{path}")


@pytest.mark.parametrize("run", ["3", "-1", "x", "1.0", "\u0663", "9" * 40])
async def test_a_run_that_is_not_there(gateway: Gateway, run: str) -> None:
    await gateway.added(id="t", repeats=3)
    await refused(gateway, 404, "has no run", method="GET", path=f"/tasks/t/runs/{run}")


@pytest.mark.parametrize("path", ["/x/", "/nope", "/task", "/tasks/t/runs/0/x", "/../etc/passwd"])
async def test_a_path_that_is_not_there(gateway: Gateway, path: str) -> None:
    await refused(gateway, 404, "", method="GET", path=path)


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("PUT", "/tasks", {"GET", "HEAD", "POST"}),
        ("POST", "/tasks/t", {"GET", "HEAD", "DELETE"}),
        ("DELETE", "/tasks/t/runs/0", {"GET", "HEAD"}),
        ("PUT", "/tasks/t/runs/0/artifacts", {"GET", "HEAD"}),
        ("POST", "/workers", {"GET", "HEAD"}),
        ("GET", "/modules", {"POST"}),
        ("POST", "/modules/x", {"GET", "HEAD", "DELETE"}),
    ],
)
async def test_a_method_that_is_not_there(gateway: Gateway, method: str, path: str, allowed: set[str]) -> None:
    answer = await refused(gateway, 405, "", method=method, path=path)
    assert set(answer.headers["allow"].replace(" ", "").split(",")) == allowed


@pytest.mark.parametrize(
    ("query", "field"),
    [(f"?limit={value}", "limit") for value in ("0", "-1", "1001", "x", "1.5", "", "9" * 40)]
    + [(f"?status={value}", "status") for value in ("done", "", "QUEUED")],
)
async def test_a_bad_query(gateway: Gateway, query: str, field: str) -> None:
    await gateway.added(id="t")
    await refused(gateway, 422, f"{field}: ", field, "GET", f"/tasks{query}")
    if field == "limit":
        await refused(gateway, 422, "limit: ", "limit", "GET", f"/tasks/t/runs{query}")


@pytest.mark.parametrize("wait", ["0", "-1", "61", "x", "1.5", "", "inf"])
async def test_a_bad_time_to_wait(gateway: Gateway, wait: str) -> None:
    await gateway.added(id="t")
    says = "is not a whole number from 1 to 60"
    await refused(gateway, 422, says, "wait", method="GET", path=f"/tasks/t?wait={wait}")


async def test_pages_after_what_is_not_there(gateway: Gateway) -> None:
    await gateway.added(id="t")
    for after in ("nobody", ""):
        await refused(gateway, 404, "no task", method="GET", path=f"/tasks?after={after}")
    for after in ("-1", "x", "", "9" * 40):
        await refused(gateway, 422, "after: ", "after", "GET", f"/tasks/t/runs?after={after}")


# Limits.


async def test_the_same_id_with_other_content(gateway: Gateway) -> None:
    await gateway.added(id="t")
    for other in ({"input": 1}, {"description": "d"}, {"stdin": "x"}, {"wasm": OTHER}):
        await refused(gateway, 409, "id: 't' is taken by a task with other content", "id", files=form(id="t", **other))


async def test_more_open_tasks_than_are_taken(tmp_path: Path) -> None:
    async with open_gateway(tmp_path, tasks_max=2) as gateway:
        for id in ("a", "b"):
            await gateway.added(id=id)
        answer = await refused(gateway, 429, "2 tasks have not ended, the limit", files=form(OTHER, id="c"))
        assert int(answer.headers["retry-after"]) > 0
        await gateway.json("/tasks/a", 200, "DELETE")
        await gateway.added(id="c")


async def test_a_task_that_was_taken_is_known_however_many_are_open(tmp_path: Path) -> None:
    async with open_gateway(tmp_path, tasks_max=1) as gateway:
        await gateway.added(id="t")
        assert (await gateway.post(id="t")).status_code == 200
        assert (await gateway.post(id="t", input=1)).status_code == 409


async def test_more_uploads_at_a_time_than_are_read(tmp_path: Path) -> None:
    begun, may_end = asyncio.Event(), asyncio.Event()

    async def slow() -> AsyncIterator[bytes]:
        begun.set()
        await may_end.wait()
        yield body_of(id="slow")

    async with open_gateway(tmp_path, http=HttpConfig(uploads_max=1)) as gateway, asyncio.TaskGroup() as group:
        headers = {"content-type": BODY_KIND}
        first = group.create_task(gateway.client.post("/tasks", content=slow(), headers=headers))
        await begun.wait()
        answer = await refused(gateway, 429, "1 uploads are under way, the limit", files=form(id="t"))
        assert int(answer.headers["retry-after"]) > 0
        may_end.set()
        assert (await first).status_code == 201
        await gateway.added(id="t")


async def test_more_modules_than_there_is_room_for(tmp_path: Path) -> None:
    async with open_gateway(tmp_path, modules_bytes_max=len(NOOP)) as gateway:
        await gateway.added(id="t")
        answer = await refused(gateway, 429, f"have reached {len(NOOP)} bytes, the limit", files=form(OTHER))
        assert int(answer.headers["retry-after"]) > 0


# The disk.


async def test_a_disk_that_refuses_the_task(gateway: Gateway) -> None:
    with refusing(gateway.directory / "ww.db", "INSERT ON tasks"):
        answer = await gateway.post(id="t")
        assert (answer.status_code, answer.json()["code"]) == (503, "store")
        assert answer.json()["detail"] == "the database cannot be written: disk full"
        # Its module may stay: no task names it, so it is the first to go when room is needed.
        assert (await gateway.client.get("/tasks")).json() == []
    await gateway.added(id="t")


async def test_a_disk_that_refuses_the_module(gateway: Gateway) -> None:
    before = await stored(gateway)
    shutil.rmtree(gateway.directory / "modules")
    answer = await gateway.post(id="t")
    assert (answer.status_code, answer.json()["code"]) == (503, "store")
    assert str(gateway.directory) not in answer.text
    (gateway.directory / "modules").mkdir()
    assert await stored(gateway) == before


async def test_a_disk_that_refuses_a_cancel(gateway: Gateway) -> None:
    await gateway.added(id="t")
    with refusing(gateway.directory / "ww.db", "UPDATE ON tasks"):
        await refused(gateway, 503, "disk full", method="DELETE", path="/tasks/t")
    assert (await gateway.json("/tasks/t", 200, "DELETE"))["status"] == "cancelled"


@pytest.mark.parametrize("path", ["/x/", "/task", "/tasks/", "/tasks/t/run", "/a%0Ab"])
async def test_a_path_where_nothing_is(gateway: Gateway, path: str) -> None:
    for method in ("GET", "POST"):
        answer = await refused(gateway, 404, f"nothing is at {unquote(path)!r}", method=method, path=path)
        assert "/openapi.json" in answer.json()["detail"]


async def test_a_long_path_where_nothing_is_comes_back_cut(gateway: Gateway) -> None:
    answer = await refused(gateway, 404, "nothing is at '/aaaa", method="GET", path="/" + "a" * 5000)
    assert len(answer.json()["detail"]) < 200


async def test_what_nobody_expected_is_a_problem_too(tmp_path: Path) -> None:
    async with open_gateway(tmp_path, about={"peer": object()}) as gateway:
        await refused(gateway, 500, "the gateway failed to answer", method="GET", path="/healthz")


@pytest.mark.usefixtures("kj_loop")
@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
async def test_a_worker_that_says_what_is_no_number_stops_nothing(gateway: Gateway, number: float) -> None:
    network, identity = Network(), Identity.generate()
    async with Vat(identity, MemoryTransport(network, identity)) as vat, ScriptedWorker(network) as worker:
        vat.export("registry", gateway.scheduler.pool.registry_for)
        vat.export("channel", gateway.scheduler.pool.sender_for)
        await worker.connect((await vat.listen(LOOPBACK))[0].of_peer(identity.peer_id))
        await worker.register(cpus=number)
        worker.offer()
        await gateway.added(id="t")
        await until(lambda: bool(worker.runs))
        worker.runs[0].end(wall_s=number, cpu_s=number)
        assert (await gateway.json("/tasks/t?wait=2"))["status"] == "succeeded"
        assert await gateway.ids() == ["t"]
        assert len(await gateway.json("/workers")) == 1
