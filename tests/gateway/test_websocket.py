"""Tasks over one connection, over a real socket: what is answered, and what hostile clients get."""

import asyncio
import base64
import contextlib
import gc
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, Final

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from tests.conftest import until
from tests.gateway.test_events import MANY, Told, check_whole, ended, worked
from tests.gateway.test_http import NOOP, NOOP_SHA256, Gateway, open_gateway
from ww.gateway.http import HttpConfig
from ww.gateway.server import ServerConfig, listening, serving

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("kj_loop")]

WASM: Final = base64.b64encode(NOOP).decode()
Open = Callable[..., connect]


@contextlib.asynccontextmanager
async def served(directory: Path, http: HttpConfig | None = None, **config: Any) -> AsyncIterator[tuple[Gateway, str]]:
    """Open a gateway on a socket."""
    settings = ServerConfig(port=0, stop_timeout_s=1.0, **config)
    async with open_gateway(directory, http=http) as gateway:
        with listening(settings.host, 0) as sock:
            host, port = sock.getsockname()
            async with serving(gateway.app, sock, settings, gateway.scheduler.watches.close):
                yield gateway, f"ws://{host}:{port}/ws"


@pytest.fixture
async def gateway_and_url(tmp_path: Path) -> AsyncIterator[tuple[Gateway, str]]:
    async with served(tmp_path) as found:
        yield found


async def ask(socket: ClientConnection, **message: Any) -> dict[str, Any]:
    """Send a message and return the next that comes."""
    await socket.send(json.dumps(message))
    return await hear(socket)


async def hear(socket: ClientConnection) -> dict[str, Any]:
    answer: dict[str, Any] = json.loads(await socket.recv())
    return answer


async def told_of(socket: ClientConnection, id: str) -> list[Told]:
    """Read what is told of a task, to its end."""
    told: list[Told] = []
    while not (told and told[-1].kind == "task" and told[-1].data["finished_at"]):
        message = await hear(socket)
        assert message["id"] == id
        told.append(Told(message["type"], message["position"], message[message["type"]]))
    return told


async def test_a_task_is_submitted_and_watched_to_its_end(gateway_and_url: tuple[Gateway, str]) -> None:
    gateway, url = gateway_and_url
    async with connect(url) as socket, worked(gateway, is_quick=True):
        task = {"id": "t", "repeats": 3, "wasm_base64": WASM, "args": ["a"], "env": {"K": "v"}, "duration": 2.5}
        answer = await ask(socket, type="submit", ref=1, task=task | {"stdin": "in", "name": None}, watch=True)
        assert (answer["type"], answer["ref"], answer["created"]) == ("accepted", 1, True)
        assert answer["task"]["id"] == "t"
        check_whole(await told_of(socket, "t"), 3)
        row = await gateway.store.task("t")
        assert row is not None
        assert (row.spec.args, row.spec.env, row.spec.stdin, row.spec.duration_s) == (("a",), (("K", "v"),), b"in", 2.5)
        shown = await gateway.json("/tasks/t")
        again = await ask(socket, type="submit", ref="x", task=task | {"stdin_base64": "aW4="})
        assert again == {"type": "accepted", "ref": "x", "created": False, "task": shown}
        by_name = {"module": f"sha256:{NOOP_SHA256}", "id": "u"}
        assert (await ask(socket, type="submit", ref=None, task=by_name))["created"]


async def test_a_watch_goes_on_where_another_was(gateway_and_url: tuple[Gateway, str]) -> None:
    gateway, url = gateway_and_url
    await gateway.added(id="t", repeats=20)
    async with worked(gateway, is_quick=True):
        await gateway.json("/tasks/t?wait=20")
    async with connect(url) as socket:
        await socket.send(json.dumps({"type": "watch", "id": "t"}))
        whole = await told_of(socket, "t")
        await socket.send(json.dumps({"type": "watch", "id": "t", "after": whole[4].position}))
        assert await told_of(socket, "t") == whole[5:]
        await socket.send(json.dumps({"type": "watch", "id": "t", "after": "now"}))
        assert await told_of(socket, "t") == whole[-1:]


async def test_watching_ends_when_it_is_unwanted_and_a_task_by_cancel(gateway_and_url: tuple[Gateway, str]) -> None:
    gateway, url = gateway_and_url
    for id in ("a", "b"):
        await gateway.added(id=id)
    async with connect(url) as socket:
        for id in ("a", "b"):
            assert (await ask(socket, type="watch", id=id))["task"]["status"] == "queued"
        await socket.send(json.dumps({"type": "unwatch", "id": "a"}))
        answer = await ask(socket, type="cancel", ref=2, id="a")
        assert (answer["type"], answer["ref"], answer["task"]["status"]) == ("cancelled", 2, "cancelled")
        await socket.send(json.dumps({"type": "cancel", "id": "b"}))
        messages = [await hear(socket) for _ in range(2)]
        assert {message["type"] for message in messages} == {"cancelled", "task"}
        assert all(message["task"]["id"] == "b" for message in messages)
        assert await ask(socket, type="ping", ref=3) == {"type": "pong", "ref": 3}


@pytest.mark.parametrize(
    ("message", "status", "says"),
    [
        ("", 422, "no JSON"),
        ("nonsense", 422, "no JSON"),
        ("[" * 100_000, 422, "nested too deeply"),
        ('{"type": "ping", "ref": NaN}', 422, "no JSON"),
        ('{"type": "ping", "type": "ping"}', 422, "names a member twice"),
        ("[]", 422, "no JSON object"),
        ("{}", 422, "type: expected text"),
        ('{"type": "ping", "ref": []}', 422, "ref: expected text or a number"),
        (b"\x00\x01", 422, "binary"),
        ({"type": "fly"}, 422, "is none of submit watch unwatch cancel ping"),
        ({"type": "submit"}, 422, "task: expected an object"),
        ({"type": "submit", "task": {}}, 422, "wasm: missing"),
        ({"type": "submit", "task": {"wasm_base64": "?"}}, 422, "wasm_base64: is not base64"),
        ({"type": "submit", "task": {"wasm_base64": 7}}, 422, "wasm_base64: is not base64"),
        ({"type": "submit", "task": {"wasm_base64": "AAAA"}}, 422, "wasm: not WebAssembly"),
        ({"type": "submit", "task": {"wasm_base64": WASM, "colour": "red"}}, 422, "'colour': no such field"),
        ({"type": "submit", "task": {"wasm_base64": WASM, "repeats": -1}}, 422, "repeats: '-1' is not a whole number"),
        ({"type": "submit", "task": {"wasm_base64": WASM, "quorum": 2}}, 422, "deterministic: 2 of 3 replicas must"),
        (
            {"type": "submit", "task": {"wasm_base64": WASM, "repeats": [1]}},
            422,
            "'repeats': expected text or a number",
        ),
        ({"type": "submit", "task": {"wasm_base64": WASM, "args": [[1]]}}, 422, "'args': expected text or a number"),
        ({"type": "submit", "task": {"wasm_base64": WASM, "id": "\ud800"}}, 422, "'id': is not Unicode text"),
        ({"type": "submit", "task": {"wasm_base64": WASM, "\ud800": "x"}}, 422, "no such field"),
        ({"type": "submit", "task": {"wasm_base64": WASM, "env": {"\ud800": "x"}}}, 422, "'env': is not Unicode text"),
        ({"type": "submit", "task": {"wasm_base64": WASM, "stdin": "\ud800"}}, 422, "'stdin': is not Unicode text"),
        ({"type": "watch", "id": "\ud800"}, 422, "'id': is not Unicode text"),
        ({"type": "cancel", "id": "\ud800"}, 422, "'id': is not Unicode text"),
        ('{"type": "ping", "ref": "\\ud800"}', 422, "'ref': is not Unicode text"),
        ('{"type": "ping", "ref": 1e999}', 422, "no JSON"),
        ({"type": "submit", "task": {"wasm_base64": WASM, "stdin": 1}}, 422, "stdin: expected text"),
        ({"type": "submit", "task": {"wasm_base64": WASM}, "watch": 1}, 422, "watch: expected true or false"),
        ({"type": "submit", "task": {"module": "sha256:" + "0" * 64}}, 404, "no module"),
        ({"type": "watch"}, 422, "id: expected text"),
        ({"type": "watch", "id": "nobody"}, 404, "no task 'nobody'"),
        ({"type": "watch", "id": "t", "after": -1}, 422, "after: "),
        ({"type": "watch", "id": "t", "after": [0]}, 422, "after: "),
        ({"type": "cancel", "id": "nobody"}, 404, "no task 'nobody'"),
    ],
)
async def test_what_is_wrong_with_a_message_is_said_and_the_connection_goes_on(
    gateway_and_url: tuple[Gateway, str], message: Any, status: int, says: str
) -> None:
    gateway, url = gateway_and_url
    await gateway.added(id="t")
    async with connect(url) as socket:
        if isinstance(message, dict):
            message = json.dumps(message | {"ref": "r"})
        await socket.send(message)
        answer = await hear(socket)
        assert (answer["type"], answer["problem"]["status"]) == ("error", status), answer
        assert says in answer["problem"]["detail"]
        assert answer["ref"] == ("r" if '"r"' in str(message) else None)
        assert (await ask(socket, type="ping", ref=1))["type"] == "pong"
    assert await gateway.ids() == ["t"]
    assert gateway.module_files() == {f"{NOOP_SHA256}.wasm"}


async def test_too_large_a_message_ends_the_connection_and_nothing_else(tmp_path: Path) -> None:
    async with served(tmp_path, message_bytes_max=1000) as (_, url), connect(url) as other:
        async with connect(url) as socket:
            await socket.send("x" * 1001)
            with pytest.raises(ConnectionClosed) as error:
                await socket.recv()
            assert error.value.rcvd is not None
            assert error.value.rcvd.code == 1009
        assert (await ask(other, type="ping"))["type"] == "pong"


async def test_connections_and_watches_are_limited(tmp_path: Path) -> None:
    async with served(tmp_path, HttpConfig(streams_max=1, watches_max=2)) as (gateway, url):
        for id in "abc":
            await gateway.added(id=id)
        async with connect(url) as socket:
            for id in "ab":
                assert (await ask(socket, type="watch", id=id))["type"] == "task"
            for message in ({"type": "watch", "id": "c"}, {"type": "submit", "task": {}, "watch": True}):
                answer = await ask(socket, **message)
                assert answer["problem"]["status"] == 429
            answer = await ask(socket, type="watch", id="a")
            assert "is watched already" in answer["problem"]["detail"]
            with pytest.raises(InvalidStatus) as error:
                await connect(url)
            assert error.value.response.status_code == 429
            assert json.loads(error.value.response.body or b"")["code"] == "overloaded"
            assert (await gateway.client.get("/tasks/a/events")).status_code == 429
        async with connect(url) as socket:
            assert (await ask(socket, type="ping"))["type"] == "pong"


@pytest.mark.parametrize("headers", [{"Origin": "http://evil.example"}, {"Sec-Fetch-Site": "cross-site"}])
async def test_another_web_page_gets_no_connection(gateway_and_url: tuple[Gateway, str], headers: Any) -> None:
    _, url = gateway_and_url
    with pytest.raises(InvalidStatus) as error:
        await connect(url, additional_headers=headers)
    assert error.value.response.status_code == 403


async def test_what_was_accepted_goes_on_without_the_connection(gateway_and_url: tuple[Gateway, str]) -> None:
    gateway, url = gateway_and_url
    async with connect(url) as socket:
        for number in range(50):
            task = {"id": f"t{number}", "wasm_base64": WASM}
            await socket.send(json.dumps({"type": "submit", "task": task, "watch": True}))
        await hear(socket)
        socket.transport.abort()
    async with worked(gateway, is_quick=True):
        ids = await gateway.ids("?limit=100")
        assert ids
        for id in ids:
            assert (await gateway.json(f"/tasks/{id}?wait=20"))["status"] == "succeeded"
    await until(lambda: not gateway.scheduler.watches.readers)


async def test_thousands_of_runs_are_told_over_one_connection_while_another_takes_nothing(
    gateway_and_url: tuple[Gateway, str],
) -> None:
    gateway, url = gateway_and_url
    await gateway.added(id="t", repeats=MANY)
    async with connect(url, max_queue=1) as slow, connect(url) as quick, worked(gateway, 2, is_quick=True):
        for socket in (slow, quick):
            await socket.send(json.dumps({"type": "watch", "id": "t"}))
        check_whole(await told_of(quick, "t"), MANY)
        told = await told_of(slow, "t")
        check_whole(told, MANY)
        runs = [each.data for each in ended(told)]
        assert runs == await results_in_order(gateway, [run["run"] for run in runs])


async def results_in_order(gateway: Gateway, runs: list[int]) -> list[Any]:
    found = {}
    for after in range(0, MANY, 1000):
        query = f"?limit=1000&after={after - 1}" if after else "?limit=1000"
        found |= {each["run"]: each for each in await gateway.json(f"/tasks/t/runs{query}")}
    return [found[run] for run in runs]


async def test_connections_end_when_the_gateway_stops(tmp_path: Path) -> None:
    async with contextlib.AsyncExitStack() as stack:
        async with served(tmp_path) as (_, url):
            socket = await stack.enter_async_context(connect(url))
            assert (await ask(socket, type="ping"))["type"] == "pong"
        with pytest.raises(ConnectionClosed):
            await socket.recv()


async def test_empty_pieces_of_a_message_are_not_kept(gateway_and_url: tuple[Gateway, str]) -> None:
    _, url = gateway_and_url
    async with connect(url) as socket:
        pieces = [b"\x01\x81" + bytes(4) + b"{", *[b"\x00\x80" + bytes(4)] * 5000, b"\x00\x80" + bytes(4)]
        socket.transport.write(b"".join(pieces))
        kept = [each for each in gc.get_objects() if type(each).__name__ == "_WebSocket"]
        await (await socket.ping())
        assert all(len(each.frames) < 10 for each in kept)
        assert kept


async def test_nobody_is_hung_up_on_for_saying_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ww.gateway.server._HEAD_TIMEOUT_S", 0.05)
    async with served(tmp_path) as (_, url), connect(url) as socket:
        reader, writer = await asyncio.open_connection(*url.removeprefix("ws://").removesuffix("/ws").split(":"))
        assert await reader.read() == b"", "who asks for nothing is"
        writer.close()
        assert (await ask(socket, type="ping"))["type"] == "pong"
