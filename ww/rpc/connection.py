"""A connection that this node dialled, and the share that each of its users has in it.

Holds the dialling side of a vat: the Link, one a peer, and the Connections that share it. It closes when the last of
them does. Must not know why anybody connects.
"""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Final, Self

import capnp

from ww import schema
from ww.errors import Disconnected
from ww.identity import PeerId
from ww.net.transport import Stream
from ww.rpc.errors import call
from ww.rpc.frame import WORDS_MAX
from ww.rpc.loop import first_of
from ww.rpc.stream import CapnpStream

# Whoever sends more in a message is disconnected.
TRAVERSAL_LIMIT_WORDS: Final = WORDS_MAX
NESTING_LIMIT: Final = 32


class Link:
    """The bytes to and from one peer, and its capabilities."""

    def __init__(self, peer_id: PeerId, stream: Stream, on_close: Callable[["Link"], None]) -> None:
        self.peer_id = peer_id
        self._stream = stream
        self._on_close = on_close
        self._pipe = CapnpStream(stream)
        self._client = capnp.TwoPartyClient(self._pipe.capnp_stream, TRAVERSAL_LIMIT_WORDS, NESTING_LIMIT)
        self.bootstrap: Any = self._client.bootstrap().cast_as(schema.vat.Vat)
        self.exports: Any = None
        self.users = 0
        self.has_joined = False
        """Whether heartbeats are exchanged over it."""

    @property
    def is_open(self) -> bool:
        """Whether calls can be made over it, as far as is known."""
        return self._client is not None and not self._stream.is_closing()

    async def connect(self, name: str, interface: Any) -> Any:
        """Return what the peer exports under name, as a client of that schema interface; NotFound when nothing."""
        if self.exports is None:
            raise Disconnected("the connection was closed")
        answer = await call(self.exports.connect(name))
        return answer.capability.as_interface(interface)

    async def wait_closed(self) -> None:
        """Return when it is gone, or good for nothing any more: the peer does not speak Cap'n Proto."""
        if self._client is None:  # closed by us
            await self._stream.wait_closed()
        else:
            await first_of(self._stream.wait_closed(), self._client.on_disconnect())

    def abort(self) -> None:
        """Break it: calls under way fail with Disconnected, which those of a closed one need not. Close it later."""
        self._on_close(self)
        self._stream.abort()

    def close(self) -> None:
        """Let go of everything obtained through it. Idempotent."""
        if self._client is not None:
            self._on_close(self)
            self._client.close()
            self._client = self.exports = self.bootstrap = None
            self._pipe.capnp_stream.close()
            self._stream.close()


class Connection:
    """One user's share in a link."""

    def __init__(self, link: Link) -> None:
        self.link = link
        self._closed = asyncio.Event()
        link.users += 1

    @property
    def peer_id(self) -> PeerId:
        """Who is at the other end."""
        return self.link.peer_id

    async def connect(self, name: str, interface: Any) -> Any:
        """Return what the peer exports under name, as a client of that schema interface; NotFound when nothing."""
        if self._closed.is_set():
            raise Disconnected("the connection was closed")
        return await self.link.connect(name, interface)

    async def wait_closed(self) -> None:
        """Return when it was closed here, and the link with it where it was the last, or the link is gone."""
        await first_of(self._closed.wait(), self.link.wait_closed())
        if not self.link.users:
            await self.link.wait_closed()

    def close(self) -> None:
        """Have no share in the link any more; the last one closes it. Idempotent."""
        if not self._closed.is_set():
            self._closed.set()
            self.link.users -= 1
            if self.link.users == 0:
                self.link.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()


class Dialling:
    """A link that is being made, and those that wait for it."""

    def __init__(self, reaching: Coroutine[Any, Any, Link]) -> None:
        self.task = asyncio.ensure_future(reaching)
        self._waiting = 0
        self.is_given_up = False
        """Whether nobody waits for it any more."""

    async def share(self) -> Connection:
        """Wait for the link and return a share in it. When nobody waits any more, it is given up."""
        self._waiting += 1
        try:
            # Shielded: one that stops waiting does not stop the others.
            return Connection(await asyncio.shield(self.task))
        finally:
            self._waiting -= 1
            if not self._waiting:
                self._give_up()

    def _give_up(self) -> None:
        self.is_given_up = True
        self.task.cancel()
        if self.task.done() and not self.task.cancelled() and self.task.exception() is None:
            link = self.task.result()
            if not link.users:
                link.close()
