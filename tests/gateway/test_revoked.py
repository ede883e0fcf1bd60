"""Tokens that are good no more: what was begun with them ends too."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from tests.gateway.test_http import Gateway, open_gateway
from tests.gateway.test_owners import BOTH, added
from tests.gateway.test_websocket import WASM, ask, hear
from ww.gateway.caller import Caller, Scope
from ww.gateway.perimeter import Perimeter
from ww.gateway.server import ServerConfig, listening, serving

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("kj_loop")]

HEADERS = {"Authorization": "Bearer alice"}


class Known:
    def __init__(self) -> None:
        self.callers = {b"alice": Caller("alice", BOTH)}

    def caller(self, secret: bytes) -> tuple[Caller | None, str]:
        return self.callers.get(secret), ""


@contextlib.asynccontextmanager
async def served(directory: Path) -> AsyncIterator[tuple[Gateway, Known, str]]:
    known = Known()
    settings = ServerConfig(port=0, stop_timeout_s=1.0)
    async with open_gateway(directory, perimeter=Perimeter(tokens=known)) as gateway:
        await added(gateway, "alice", "t")
        with listening(settings.host, 0) as sock:
            host, port = sock.getsockname()
            async with serving(gateway.app, sock, settings, gateway.scheduler.watches.close):
                yield gateway, known, f"{host}:{port}"


@pytest.mark.parametrize("is_silent", [True, False])
async def test_a_websocket_ends_with_its_token(tmp_path: Path, is_silent: bool) -> None:
    async with served(tmp_path) as (gateway, known, address):
        async with connect(f"ws://{address}/ws", additional_headers=HEADERS) as socket:
            assert (await ask(socket, type="watch", id="t"))["type"] == "task"
            known.callers.clear()
            if not is_silent:
                await socket.send(json.dumps({"type": "submit", "task": {"id": "late", "wasm_base64": WASM}}))
            with pytest.raises(ConnectionClosed) as error:
                await hear(socket)
            assert error.value.rcvd is not None
            assert error.value.rcvd.code == 1008
        assert await gateway.store.task("late") is None


async def test_a_websocket_loses_the_rights_that_its_token_loses(tmp_path: Path) -> None:
    async with (
        served(tmp_path) as (_, known, address),
        connect(f"ws://{address}/ws", additional_headers=HEADERS) as socket,
    ):
        assert (await ask(socket, type="ping"))["type"] == "pong"
        known.callers[b"alice"] = Caller("alice", frozenset({Scope.READ}))
        answer = await ask(socket, type="cancel", id="t")
        assert answer["problem"]["status"] == 403


async def test_a_stream_of_events_ends_with_its_token(tmp_path: Path) -> None:
    async with (
        served(tmp_path) as (gateway, known, address),
        httpx.AsyncClient() as client,
        client.stream("GET", f"http://{address}/tasks/t/events", headers=HEADERS) as answer,
    ):
        lines = answer.aiter_lines()
        assert await anext(lines) == "event: task"
        known.callers.clear()
        await gateway.scheduler.cancel("t")
        async with asyncio.timeout(5):
            rest = [line async for line in lines]
        assert not any(line.startswith("event:") for line in rest)
