"""Tasks over one connection: submitted, watched and cancelled by messages.

Holds what a connection is doing. Must not know what a task is: submit.py takes it on, as for a form, and events.py
tells what happens to it, as to a stream. What was accepted goes on when the connection is gone.
"""

import asyncio
import contextlib
import json
import logging
from collections.abc import Awaitable, Callable
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.websockets import WebSocket, WebSocketDisconnect

from ww.errors import Overloaded, UsageError, WwError
from ww.gateway.access import request_id_of
from ww.gateway.caller import Caller, Scope, caller_now, caller_of
from ww.gateway.events import Reader
from ww.gateway.message import BadMessage, Ref, TaskMessage, read_message, text_of
from ww.gateway.problem import Problem, problem_of
from ww.gateway.request import shown
from ww.gateway.streams import Streams, read_position
from ww.gateway.submit import Submitter
from ww.gateway.watch import Watches

log = logging.getLogger("ww.gateway")

_IDLE_S: Final = 3600.0
_GOING_AWAY: Final = 1001
_NOT_ALLOWED: Final = 1008
# How often it is looked whether a connection's token is still good, beside at each message.
_LOOK_EVERY_S: Final = 1.0


class SocketRoutes:
    """Serves /ws, over one gateway's parts."""

    def __init__(
        self,
        submitter: Submitter,
        watches: Watches,
        streams: Streams,
        *,
        reader: Callable[[str, Caller], Awaitable[Reader]],
        task_json: Callable[[str], Awaitable[dict[str, Any]]],
        cancel: Callable[[str, Caller], Awaitable[None]],
        watches_max: int,
        messages_max: int,
    ) -> None:
        self.submitter = submitter
        self.watches = watches
        self.streams = streams
        self.reader = reader
        self.task_json = task_json
        self.cancel = cancel
        self.watches_max = watches_max
        self.messages_max = messages_max

    async def serve(self, websocket: WebSocket) -> None:
        """Be one connection."""
        try:
            with self.streams.place():
                await websocket.accept()
                await _Connection(self, websocket).run()
        except Overloaded as error:
            await problem_of(error)(websocket.scope, websocket.receive, websocket.send)

    async def explain(self, request: Request) -> Response:
        """Answer who asks for /ws without a handshake, or with one that is wrong."""
        detail = "expected a WebSocket handshake (RFC 6455): Upgrade, Connection, Sec-WebSocket-Version: 13 and -Key"
        return Problem(426, detail, "http", headers={"Upgrade": "websocket", "Sec-WebSocket-Version": "13"})

    async def refuse(self, websocket: WebSocket) -> None:
        """Refuse a WebSocket where there is none."""
        problem = Problem(404, f"no WebSocket is at {shown(websocket.scope['path'])}: there is /ws", "http")
        await problem(websocket.scope, websocket.receive, websocket.send)


class _Connection:
    def __init__(self, routes: SocketRoutes, websocket: WebSocket) -> None:
        self._routes = routes
        self._websocket = websocket
        self._caller = caller_of(websocket.scope)
        self._sending = asyncio.Lock()
        self._places = asyncio.Semaphore(routes.messages_max)
        self._working: set[asyncio.Task[None]] = set()
        self._watching: dict[str, asyncio.Task[None]] = {}
        self._handlers = {
            "submit": self._submit,
            "watch": self._watch,
            "unwatch": self._unwatch,
            "cancel": self._cancel,
            "ping": self._ping,
        }

    async def run(self) -> None:
        """Take messages until the client leaves, its token is good no more, or the gateway stops.

        The last ones are seen through.
        """
        taking = asyncio.create_task(self._take())
        stopping = asyncio.create_task(self._until_stop())
        try:
            await asyncio.wait((taking, stopping), return_when=asyncio.FIRST_COMPLETED)
        finally:
            children = [taking, stopping, *self._watching.values()]
            for child in children:
                child.cancel()
            await asyncio.gather(*children, return_exceptions=True)
            # Not cancelled: what is on its way to disk is accepted, or refused, as if the client were there.
            await asyncio.gather(*self._working, return_exceptions=True)
        with contextlib.suppress(OSError, RuntimeError, WebSocketDisconnect):
            await self._routes.streams.send(
                self._websocket.scope,
                self._websocket.send,
                {"type": "websocket.close", "code": _GOING_AWAY if self._is_let_in() else _NOT_ALLOWED},
            )

    async def _until_stop(self) -> None:
        with self._routes.watches.open("") as watch:
            while not watch.is_closed and self._is_let_in():
                await watch.changes(_LOOK_EVERY_S)

    def _is_let_in(self) -> bool:
        """Whether the connection's token is still good; take its rights as they are now."""
        caller = caller_now(self._websocket.scope)
        self._caller = caller or self._caller
        return caller is not None

    async def _take(self) -> None:
        while True:
            # No message is read while so many are worked on: the client has to wait too.
            await self._places.acquire()
            message = await self._websocket.receive()
            if message["type"] == "websocket.disconnect" or not self._is_let_in():
                return
            work = asyncio.create_task(self._answer(message.get("text")))
            self._working.add(work)
            work.add_done_callback(self._done)

    def _done(self, work: asyncio.Task[None]) -> None:
        self._working.discard(work)
        self._places.release()
        if not work.cancelled() and (error := work.exception()) is not None:
            log.error("a message over a WebSocket could not be answered", exc_info=error)

    async def _answer(self, text: str | None) -> None:
        """Do what a message asks for and answer it; whatever is wrong with it, only it is refused."""
        ref: Ref = None
        try:
            if text is None:
                raise BadMessage("the message is binary; expected text, one JSON object")
            message = read_message(text)
            ref = message.get("ref")
            handler = self._handlers.get(message["type"])
            if handler is None:
                known = " ".join(self._handlers)
                raise UsageError(f"type: {shown(message['type'])} is none of {known}", "type")
            answer = await handler(message)
        except BadMessage as error:
            answer = {"type": "error", "ref": error.ref, "problem": self._problem(error)}
        except WwError as error:
            answer = {"type": "error", "problem": self._problem(error)}
        except Exception as error:
            log.exception("a message over a WebSocket could not be answered")
            answer = {"type": "error", "problem": self._problem(error)}
        if answer is not None:
            with contextlib.suppress(OSError):
                await self._send({"ref": ref} | answer)

    def _problem(self, error: Exception) -> dict[str, Any]:
        return problem_of(error).to_json(request_id_of(self._websocket.scope))

    async def _send(self, message: dict[str, Any]) -> None:
        """Send a message. OSError when the client is gone, or was dropped since it takes nothing."""
        text = json.dumps(message, ensure_ascii=False, separators=(",", ":"))
        if not text.isascii():
            # A problem names a field as it was sent, even half a character.
            text = text.encode(errors="replace").decode()
        packet = {"type": "websocket.send", "text": text}
        async with self._sending:
            try:
                await self._routes.streams.send(self._websocket.scope, self._websocket.send, packet)
            except (RuntimeError, WebSocketDisconnect):  # the connection is closed
                raise ConnectionAbortedError from None

    # What a message may ask for.

    async def _submit(self, message: dict[str, Any]) -> dict[str, Any] | None:
        self._caller.require(Scope.SUBMIT)
        task = TaskMessage(message.get("task"))
        wants = message.get("watch", False)
        if not isinstance(wants, bool):
            raise UsageError("watch: expected true or false", "watch")
        if wants:
            self._caller.require(Scope.READ)
            self._check_room()
        with contextlib.ExitStack() as stack:
            uploads = await task.arrive(lambda name: stack.enter_context(self._routes.submitter.upload(name)))
            taken = await self._routes.submitter.submit(task.fields, task.stdin, uploads, self._caller)
        id = taken.spec.id
        shown_task = await self._routes.task_json(id)
        answer = {"type": "accepted", "ref": message.get("ref"), "created": taken.is_new, "task": shown_task}
        with contextlib.suppress(OSError):
            await self._send(answer)
            if wants and id not in self._watching:
                await self._begin(id, 0)
        return None

    async def _watch(self, message: dict[str, Any]) -> None:
        self._caller.require(Scope.READ)
        id, after = text_of(message, "id"), message.get("after", 0)
        position = read_position(after if isinstance(after, str) else json.dumps(after))
        if id in self._watching:
            raise UsageError(f"id: {shown(id)} is watched already", "id")
        await self._begin(id, position)

    async def _begin(self, id: str, after: int | None) -> None:
        self._check_room()
        # Taken before anything is waited for, so that two at a time are noticed.
        begun = asyncio.get_running_loop().create_future()
        watching = asyncio.create_task(self._tell(id, begun))
        self._watching[id] = watching
        watching.add_done_callback(lambda _: self._ended(id, watching))
        try:
            reader = await self._routes.reader(id, self._caller)
            await reader.begin(after)
        except BaseException:
            watching.cancel()
            raise
        begun.set_result(reader)

    def _ended(self, id: str, watching: asyncio.Task[None]) -> None:
        if self._watching.get(id) is watching:
            del self._watching[id]
        if not watching.cancelled() and (error := watching.exception()) is not None:
            log.error("a task could not be told over a WebSocket", exc_info=error)

    async def _tell(self, id: str, begun: "asyncio.Future[Reader]") -> None:
        with self._routes.watches.open(id) as watch, contextlib.suppress(OSError):
            reader = await begun
            async for events in reader.events(watch, idle_s=_IDLE_S):
                for event in events:
                    position = {"position": event.position}
                    await self._send({"type": event.kind, "id": id} | position | {event.kind: event.data})

    async def _unwatch(self, message: dict[str, Any]) -> None:
        if (watching := self._watching.pop(text_of(message, "id"), None)) is not None:
            watching.cancel()

    async def _cancel(self, message: dict[str, Any]) -> dict[str, Any]:
        self._caller.require(Scope.SUBMIT)
        id = text_of(message, "id")
        await self._routes.cancel(id, self._caller)
        return {"type": "cancelled", "task": await self._routes.task_json(id)}

    async def _ping(self, message: dict[str, Any]) -> dict[str, Any]:
        return {"type": "pong"}

    def _check_room(self) -> None:
        if len(self._watching) >= self._routes.watches_max:
            raise Overloaded(f"{len(self._watching)} tasks are watched over this connection, the limit (--watches)")
