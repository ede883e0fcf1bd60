"""Peers over a WebSocket, as web pages can open one: /peer.

Holds the proof of who a peer is, the limit on how many there are, and where they are refused. Must not know what a peer
may do: once it is proved, its bytes go where every other peer's go, into the vat, which asks for its hello, its ticket
and whether it is banned. No token is asked for: the peer's key and --admit are what lets it in.
"""

import asyncio
import contextlib
import json
from collections.abc import Callable
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.websockets import WebSocket, WebSocketDisconnect

from ww.errors import Overloaded, UsageError, WwError
from ww.gateway.peer_transport import SocketTransport
from ww.gateway.problem import Problem, problem_of
from ww.gateway.same_origin import Message
from ww.gateway.server import ABORT, MESSAGE_MAX
from ww.gateway.streams import Streams
from ww.identity import Identity, PeerId
from ww.net.proof import PROOF_BYTES_MAX, Challenger
from ww.net.transport import Stream
from ww.rpc.errors import one_line
from ww.rpc.refusals import Refusals

_REFUSED: Final = 4403
_GOING_AWAY: Final = 1001
_PROOF_TIMEOUT_S: Final = 5.0
# Of a message with bytes; peers of ww's own send no more than a quarter of it in one.
_MESSAGE_BYTES_MAX: Final = 1 << 20


class PeerSockets:
    """Serves /peer."""

    def __init__(
        self,
        identity: Identity,
        accept: Callable[[Stream], None],
        *,
        closed_because: str = "",
        count_max: int = 256,
        proof_timeout_s: float = _PROOF_TIMEOUT_S,
    ) -> None:
        """Hand peers that proved a key to accept; to nobody when it is said why it is closed."""
        self._identity = identity
        self._accept = accept
        self._closed_because = closed_because
        self._count_max = count_max
        self._proof_timeout_s = proof_timeout_s
        self._is_stopping = False
        self._refusals = Refusals()
        self._proving: set[asyncio.Task[Any]] = set()
        self._open: set[SocketTransport] = set()
        self._count = 0

    @property
    def count(self) -> int:
        """How many are connected, proved or not."""
        return self._count

    def stop(self) -> None:
        """Close all, and let nobody in any more."""
        self._is_stopping = True
        for task in self._proving:
            task.cancel()
        for transport in self._open:
            transport.close()
            # What it still has to send may not keep the gateway from stopping.
            transport.resume_reading()

    async def serve(self, websocket: WebSocket, streams: Streams) -> None:
        """Be one connection. streams says how long a peer may take nothing of what is sent."""
        refusal = self._refusal()
        if refusal is not None:
            if refusal.status_code == 429:
                self._tell(_Connection(websocket, streams), f"connected: {self._count}, the limit (--web-peers)")
            await refusal(websocket.scope, websocket.receive, websocket.send)
            return
        self._count += 1
        try:
            await _Connection(websocket, streams).run(self)
        finally:
            self._count -= 1

    async def explain(self, request: Request) -> Response:
        """Answer who asks for /peer without a handshake, or with one that is wrong."""
        detail = "expected a WebSocket handshake (RFC 6455): Upgrade, Connection, Sec-WebSocket-Version: 13 and -Key"
        headers = {"Upgrade": "websocket", "Sec-WebSocket-Version": "13"}
        return self._refusal() or Problem(426, detail, "http", headers=headers)

    def _refusal(self) -> Problem | None:
        if self._closed_because:
            return Problem(403, self._closed_because, "not_admitted")
        if self._is_stopping:
            return Problem(503, "the gateway is stopping", "overloaded", headers={"Retry-After": "5"})
        if self._count >= self._count_max:
            return problem_of(Overloaded(f"peers connected by WebSocket: {self._count}, the limit (--web-peers)", 5))
        return None

    async def prove(self, connection: "_Connection") -> PeerId | None:
        """Find out who a peer is; None when it is refused, which it has been told."""
        task = asyncio.current_task()
        assert task is not None
        self._proving.add(task)
        try:
            async with asyncio.timeout(self._proof_timeout_s):
                return await connection.challenge(Challenger(self._identity, connection.origin))
        except TimeoutError:
            await self._refuse(connection, f"no proof within {self._proof_timeout_s:g} s")
        except WwError as error:
            await self._refuse(connection, str(error))
        except asyncio.CancelledError:
            if not self._is_stopping:
                raise
            task.uncancel()
            await connection.close(_GOING_AWAY)
        finally:
            self._proving.discard(task)
        return None

    async def _refuse(self, connection: "_Connection", reason: str) -> None:
        self._tell(connection, reason)
        await connection.refuse(reason)

    def _tell(self, connection: "_Connection", reason: str) -> None:
        self._refusals.tell(connection.host, f"a peer over WebSocket at {connection.remote}", reason)

    async def carry(self, transport: SocketTransport, stream: Stream) -> None:
        """Let a peer that is proved talk with the vat, until either has enough."""
        stream.connection_made(transport)
        self._open.add(transport)
        try:
            self._accept(stream)
            await transport.run()
        finally:
            self._open.discard(transport)


class _Connection:
    def __init__(self, websocket: WebSocket, streams: Streams) -> None:
        self._websocket = websocket
        self._streams = streams
        self.origin = websocket.headers.get("origin", "")
        host, port = websocket.client or ("?", 0)
        # Behind a proxy all come from there.
        forwarded_for: str = websocket.scope.get("state", {}).get("forwarded_for", "")
        self.remote = one_line(forwarded_for) or f"{host}:{port}"
        self.host = one_line(forwarded_for) or host

    async def run(self, peers: PeerSockets) -> None:
        extensions: dict[str, Any] = self._websocket.scope["extensions"]
        if (limit := extensions.get(MESSAGE_MAX)) is not None:
            limit(_MESSAGE_BYTES_MAX)
        try:
            await self._websocket.accept()
            peer_id = await peers.prove(self)
        except (OSError, RuntimeError, WebSocketDisconnect):  # it is gone
            return
        if peer_id is None:
            return
        stream = Stream()
        stream.peer_id, stream.remote = peer_id, self.remote
        await peers.carry(SocketTransport(stream, self._websocket.receive, self._send, self._cut), stream)

    async def challenge(self, challenger: Challenger) -> PeerId:
        """Exchange the proofs. WwError says why the peer's is none, or wrong."""
        await self._say(challenger.challenge())
        message = await self._websocket.receive()
        if message["type"] != "websocket.receive":
            raise ConnectionAbortedError
        text = message.get("text")
        if text is None:
            raise UsageError("the proof is binary; expected text, one JSON object")
        if len(text.encode(errors="replace")) > PROOF_BYTES_MAX:
            raise UsageError(f"the proof has more than {PROOF_BYTES_MAX} bytes")
        peer_id, welcome = challenger.welcome(text)
        await self._say(welcome)
        return peer_id

    async def refuse(self, reason: str) -> None:
        """Tell a peer why it is refused, and close."""
        with contextlib.suppress(OSError, RuntimeError, WebSocketDisconnect):
            await self._say({"type": "refused", "reason": reason})
            await self.close(_REFUSED)

    async def close(self, code: int) -> None:
        """Close it, with a code."""
        with contextlib.suppress(OSError, RuntimeError, WebSocketDisconnect):
            await self._send({"type": "websocket.close", "code": code})

    async def _say(self, message: dict[str, Any]) -> None:
        await self._send({"type": "websocket.send", "text": json.dumps(message)})

    async def _send(self, message: Message) -> None:
        """Send a message. OSError when the peer is gone, or was dropped since it takes nothing."""
        try:
            await self._streams.send(self._websocket.scope, self._websocket.send, message)
        except (RuntimeError, WebSocketDisconnect):  # the connection is closed
            raise ConnectionAbortedError from None

    def _cut(self) -> None:
        if (abort := self._websocket.scope["extensions"].get(ABORT)) is not None:
            abort()
