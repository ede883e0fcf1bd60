"""A vat whose door is /peer over a real socket, and peers that come by it, also such as misbehave."""

import asyncio
import base64
import contextlib
import json
import secrets
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

from starlette.applications import Starlette
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from ww.gateway.peer_socket import PeerSockets
from ww.gateway.peer_transport import SocketTransport
from ww.gateway.perimeter import Perimeter, PerimeterConfig
from ww.gateway.same_origin import Message
from ww.gateway.server import ServerConfig, listening, serving
from ww.gateway.streams import Streams
from ww.identity import Identity, PeerId
from ww.net.memory import MemoryTransport, Network
from ww.net.proof import GATEWAY_DOMAIN, PEER_DOMAIN, WORK, statement, to_text
from ww.net.transport import Stream
from ww.rpc.connection import Link
from ww.rpc.errors import call
from ww.rpc.vat import PROTOCOL_VERSION, Vat


@dataclass(frozen=True)
class Door:
    """An open one."""

    identity: Identity
    vat: Vat
    sockets: PeerSockets
    port: int

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self.port}/peer"


@contextlib.asynccontextmanager
async def open_door(
    *,
    accept: Any = None,
    unread_timeout_s: float = 20.0,
    vat: dict[str, Any] | None = None,
    behind_proxy: bool = False,
    **settings: Any,
) -> AsyncIterator[Door]:
    """Serve /peer for a vat of those settings, or for whatever is to accept streams."""
    identity = Identity.generate()
    async with Vat(identity, MemoryTransport(Network(), identity), **(vat or {})) as serving_vat:
        sockets = PeerSockets(identity, accept or serving_vat.accept, **settings)
        streams = Streams(count_max=8, timeout_s=unread_timeout_s)

        async def serve(websocket: WebSocket) -> None:
            await sockets.serve(websocket, streams)

        app = Starlette(routes=[WebSocketRoute("/peer", serve), Route("/peer", sockets.explain)])
        with listening("127.0.0.1", 0) as sock:
            config = ServerConfig(port=0, stop_timeout_s=1.0)
            async with serving(
                Perimeter(PerimeterConfig(behind_proxy=behind_proxy)).around(app), sock, config, sockets.stop
            ):
                yield Door(identity, serving_vat, sockets, sock.getsockname()[1])


async def say(socket: ClientConnection, message: Any) -> dict[str, Any]:
    """Send a message and return what is answered."""
    await socket.send(message if isinstance(message, str | bytes) else json.dumps(message))
    return await hear(socket)


async def hear(socket: ClientConnection) -> dict[str, Any]:
    async with asyncio.timeout(10):
        answer: dict[str, Any] = json.loads(await socket.recv())
    return answer


def prove(identity: Identity, challenge: dict[str, Any], origin: str = "", purpose: str = WORK) -> dict[str, str]:
    """Answer a gateway's challenge."""
    nonce = to_text(secrets.token_bytes(32))
    said = statement(challenge["gateway"], origin, purpose, challenge["nonce"], nonce)
    key = to_text(identity.peer_id.public_key)
    signature = to_text(identity.sign(PEER_DOMAIN, said))
    return {"type": "proof", "key": key, "nonce": nonce, "purpose": purpose, "signature": signature}


def is_welcome(answer: dict[str, Any], challenge: dict[str, Any], proof: dict[str, str], origin: str = "") -> bool:
    """Tell whether who answers a proof has the key that its challenge named."""
    texts = challenge["gateway"], origin, proof["purpose"], challenge["nonce"], proof["nonce"], proof["key"]
    signature = base64.urlsafe_b64decode(answer["signature"] + "==")
    return PeerId.parse(challenge["gateway"]).verify(GATEWAY_DOMAIN, statement(*texts), signature)


@contextlib.asynccontextmanager
async def proved(url: str, identity: Identity | None = None) -> AsyncIterator[ClientConnection]:
    """Connect, and prove a key: the bytes that follow go to the vat."""
    async with connect(url, compression=None, ping_interval=None, close_timeout=0.5) as socket:
        challenge = await hear(socket)
        proof = prove(identity or Identity.generate(), challenge)
        assert is_welcome(await say(socket, proof), challenge, proof)
        yield socket


@contextlib.asynccontextmanager
async def linked(door: Door, identity: Identity | None = None) -> AsyncIterator[Link]:
    """Be a peer that said no hello yet."""
    async with proved(door.url, identity) as socket:

        async def receive() -> Message:
            try:
                return {"type": "websocket.receive", "bytes": await socket.recv()}
            except ConnectionClosed:
                return {"type": "websocket.disconnect"}

        async def send(message: Message) -> None:
            if message["type"] == "websocket.close":
                await socket.close()
            else:
                with contextlib.suppress(ConnectionClosed):
                    await socket.send(message["bytes"])

        stream = Stream()
        stream.peer_id = PeerId(door.identity.peer_id.public_key)
        transport = SocketTransport(stream, receive, send, socket.transport.abort)
        stream.connection_made(transport)
        running = asyncio.ensure_future(transport.run())
        link = Link(stream.peer_id, stream, lambda _: None)
        try:
            yield link
        finally:
            link.close()
            await running


async def greet(link: Link, ticket: str = "") -> str:
    """Say hello; return why the peer is refused, nothing when it is not."""
    answer = await call(link.bootstrap.hello(version=PROTOCOL_VERSION, namespace="ww", ticket=ticket))
    link.exports = answer.exports
    return str(answer.refused)
