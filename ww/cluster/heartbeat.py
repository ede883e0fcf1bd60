"""Heartbeats on their way: this node's own, at their time, and everybody's, to whoever is connected.

Holds the shell around membership.py: its timer, and a session with each member that this node is connected to, by which
both push what the other lacks. A push that is not answered gives the connection up, so that a peer that is stopped or
cut off is noticed. Must not know what members do, nor how datagrams travel.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any, Final

from ww import schema
from ww.clock import Clock
from ww.cluster.membership import Beat, Membership, Position, Record
from ww.discovery.packet import HEARTBEAT_BYTES_MAX, Heartbeat, Load, Packet, read, sender_of
from ww.errors import Conflict, Disconnected, NotFound, Overloaded, WwError
from ww.identity import PeerId
from ww.rpc.connection import Link
from ww.rpc.errors import call
from ww.rpc.exports import Peer
from ww.rpc.loop import first_of
from ww.rpc.message import listed

log = logging.getLogger("ww.cluster")

_PUSH_MAX: Final = 256
_PUSHES_MAX: Final = 4
_DIGEST_MAX: Final = 16_384
# More than any clock says: a peer that claims this much of us is not believed.
_INCARNATION_MAX: Final = 2**62
# Seconds that news waits for more of it: who is there goes out soon, load may wait.
_NOTABLE_S: Final = 0.05
_LOAD_S: Final = 1.0
# Least seconds that a peer has to answer a push.
_ANSWER_MIN_S: Final = 2.0
# Heartbeats of one peer looked at between two breaths of the loop, and seconds for each: checking a signature is work.
_BREATH: Final = 16
_CHECK_S: Final = 0.0005


class Heartbeats:
    """What a node says and hears of who is there."""

    def __init__(
        self,
        membership: Membership,
        clock: Clock,
        *,
        send: Callable[[bytes], object],
        on_news: Callable[[Record], object],
        on_overtaken: Callable[[int], Coroutine[Any, Any, None]],
    ) -> None:
        """send takes a datagram for everybody; on_news is told of members that are new, or say something new.

        on_overtaken is told when others remember a later incarnation of this node: they do not listen to this one.
        """
        self.membership = membership
        self._connected: Counter[PeerId] = Counter()
        membership.connected = self._connected
        self._clock = clock
        self._send = send
        self._on_news = on_news
        self._on_overtaken = on_overtaken
        self._sessions: set[Session] = set()
        self._changed = asyncio.Event()
        self._group: asyncio.TaskGroup | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self.load: Callable[[], Load] = Load
        """How busy this node is; asked once a second."""

    def now(self) -> float:
        """Return the clock's monotonic seconds."""
        return self._clock.now()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Send heartbeats and note who is gone while the context is open; say goodbye at its end."""
        async with asyncio.TaskGroup() as self._group:
            self._start(self._beat_for_ever())
            try:
                yield
            finally:
                self._say(self.membership.leave(self._clock.now()))
                for task in self._tasks:
                    task.cancel()

    def _start(self, coroutine: Coroutine[Any, Any, None]) -> None:
        assert self._group is not None
        task = self._group.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _beat_for_ever(self) -> None:
        pause_s = min(self.membership.config.load_interval_s, self.membership.config.ttl_s / 4)
        while True:
            now = self._clock.now()
            self.membership.set_load(self.load(), now)
            self.beat()
            delay_s = min(pause_s, self.membership.next_poll() - now)
            await self._clock.sleep(max(0.001, delay_s))

    def beat(self) -> None:
        """Do what is due."""
        version = self.membership.version
        self._say(self.membership.poll(self._clock.now()))
        if self.membership.version != version:
            self._note()

    def _say(self, beat: Beat | None) -> None:
        if beat is not None:
            self._send(beat.datagram)
            self._note()

    def _note(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    async def changed(self) -> None:
        """Return when something more has become known."""
        await self._changed.wait()

    def hear(self, packet: Packet, data: bytes, *, age_s: float = 0.0, source: object = None) -> None:
        """Take a heartbeat whose signature was checked."""
        notable = self.membership.notable
        if self.membership.receive(packet, data, self._clock.now(), age_s=age_s, source=source):
            if self.membership.notable != notable:
                record = self.membership.find(packet.sender, self._clock.now())
                if record is not None:
                    self._on_news(record)
            self._note()

    def lose(self, peer_id: PeerId, position: Position | None = None) -> None:
        """Take a peer for gone until it says more."""
        if not any(session.peer_id == peer_id for session in self._sessions):
            record = self.membership.find(peer_id, self._clock.now())
            if self.membership.lose(peer_id, position) and record is not None:
                log.debug("%s %s is gone", record.heartbeat.role or "node", peer_id)
            self._note()

    def members_for(self, peer: Peer) -> Any:
        """Make what peer gets as "members"."""
        return MembersServer(self, peer)

    def join(self, connection: Link) -> None:
        """Begin to exchange heartbeats with a node that was dialled; ends with the connection, and does not keep it."""
        self._start(self._join(connection))

    async def _join(self, connection: Link) -> None:
        session = Session(self, connection.peer_id, is_trusted=True)
        try:
            members = await connection.connect("members", schema.cluster.Members)
            answer = await call(members.join(known=self._digest(), news=NewsServer(session)))
            self._begin(session, answer.known, answer.news)
        except NotFound:  # it takes no part
            return
        except WwError as error:
            log.debug("no heartbeats with %s: %s", connection.peer_id, error)
            return
        await first_of(self._push_for_ever(session, connection.close), connection.wait_closed())

    def _begin(self, session: "Session", known: Any, news: Any) -> None:
        theirs = _read_digest(known)
        incarnation, _ = theirs.get(self.membership.peer_id, (0, 0))
        if self.membership.incarnation < incarnation < _INCARNATION_MAX:
            self._start(self._on_overtaken(incarnation))
        session.begin(theirs, news)

    def serve(self, session: "Session", peer: Peer, known: Any, news: Any) -> None:
        """Begin to exchange heartbeats with a node that dialled this one; ends with the connection."""
        self._begin(session, known, news)
        self._start(first_of(self._push_for_ever(session, peer.hang_up), peer.closed.wait()))

    async def _push_for_ever(self, session: "Session", hang_up: Callable[[], object]) -> None:
        """Push what a session's peer lacks, and hang up when it does not answer."""
        self._sessions.add(session)
        self._connected[session.peer_id] += 1
        self.membership.speak_up(self._clock.now())
        try:
            while True:
                try:
                    await self._push(session)
                except Disconnected:
                    return
                except WwError as error:
                    log.warning("%s takes no heartbeats, trying again: %s", session.peer_id, error)
                await self._clock.sleep(self.membership.config.ttl_s / 2)
        except TimeoutError:
            log.warning("%s does not answer: giving up the connection", session.peer_id)
            hang_up()
        finally:
            self._sessions.discard(session)
            self._connected[session.peer_id] -= 1
            if not self._connected[session.peer_id]:
                del self._connected[session.peer_id]
            self.lose(session.peer_id)

    async def _push(self, session: "Session") -> None:
        membership = self.membership
        records = membership.lacking(session.theirs, self._clock.now())
        while True:
            session.version = membership.version
            told = [r for r in records if r.peer_id != session.peer_id and r.source is not session]
            for start in range(0, len(told), _PUSH_MAX):
                await self._answered(self._request(session, told[start : start + _PUSH_MAX]))
            await self._wait_for_news(session)
            records = list(membership.since(session.version))

    async def _answered(self, promise: Any) -> None:
        """Wait for the answer to a push. TimeoutError when it takes too long."""
        answer = asyncio.ensure_future(call(promise))
        patience = asyncio.ensure_future(self._clock.sleep(max(_ANSWER_MIN_S, self.membership.config.ttl_s / 2)))
        try:
            await asyncio.wait((answer, patience), return_when=asyncio.FIRST_COMPLETED)
            if not answer.done():
                raise TimeoutError
            answer.result()
        finally:
            answer.cancel()
            patience.cancel()

    async def _wait_for_news(self, session: "Session") -> None:
        """Return when something should be pushed: soon when it is notable, otherwise not more than once a second."""
        membership = self.membership
        begin = self._clock.now()
        while membership.notable <= session.version:
            if membership.version > session.version:
                remaining_s = begin + min(_LOAD_S, membership.patience_s(session.version)) - self._clock.now()
                if remaining_s <= 0:
                    return
                await first_of(self.changed(), self._clock.sleep(remaining_s))
            else:
                await self.changed()
        await self._clock.sleep(_NOTABLE_S)

    def _request(self, session: "Session", records: list[Record]) -> Any:
        now = self._clock.now()
        heartbeats = [
            {"heartbeat": record.data, "ageMilliseconds": max(0, min(2**32 - 1, round((now - record.heard_at) * 1000)))}
            for record in records
        ]
        lost = [_known(record.peer_id, record.lost) for record in records if record.lost >= record.position]
        assert session.news is not None
        return session.news.push(heartbeats=heartbeats, lost=lost)

    def _digest(self) -> list[dict[str, Any]]:
        return [_known(peer_id, position) for peer_id, position in self.membership.digest().items()]

    async def take(self, session: "Session", heartbeats: list[Any], lost: list[Any]) -> None:
        """Take what a session's peer pushed."""
        for number, told in enumerate(heartbeats):
            if number % _BREATH == _BREATH - 1:
                await self._clock.sleep(_BREATH * _CHECK_S)
            data = bytes(told.heartbeat)
            if not self._is_known(data):
                packet = read(data, HEARTBEAT_BYTES_MAX)
                if isinstance(packet, Packet) and isinstance(packet.content, Heartbeat):
                    self.hear(packet, data, age_s=told.ageMilliseconds / 1000, source=session)
        if session.is_trusted:
            for peer_id, position in _read_digest(lost).items():
                self.lose(peer_id, position)

    def _is_known(self, data: bytes) -> bool:
        """Whether these very bytes were heard before: then their signature need not be checked again."""
        sender = sender_of(data)
        return sender is not None and self.membership.has_heard(sender, data)

    def digest_for(self, results: Any) -> None:
        """Fill in how much is known here."""
        results.known = self._digest()


class Session:
    """One connection by which heartbeats are exchanged."""

    def __init__(self, heartbeats: Heartbeats, peer_id: PeerId, *, is_trusted: bool) -> None:
        """is_trusted: whether it is believed that others are lost; so is only who was dialled."""
        self.heartbeats = heartbeats
        self.peer_id = peer_id
        self.is_trusted = is_trusted
        self.version = 0
        """Of the table, up to which everything was pushed."""
        self.theirs: dict[PeerId, Position] = {}
        self.news: Any = None
        self.pushes = 0
        """Under way, from the peer."""

    def begin(self, theirs: dict[PeerId, Position], news: Any) -> None:
        """Note what the peer knows, and where to push what it does not."""
        self.theirs, self.news = theirs, news


class MembersServer(schema.cluster.Members.Server):  # type: ignore[misc]
    """What a peer joins by."""

    def __init__(self, heartbeats: Heartbeats, peer: Peer) -> None:
        self._heartbeats = heartbeats
        self._peer = peer
        self._has_joined = False

    async def join_context(self, context: Any) -> None:
        if self._has_joined:
            raise Conflict("this connection has joined already")
        session = Session(self._heartbeats, self._peer.peer_id, is_trusted=False)
        self._heartbeats.serve(session, self._peer, context.params.known, context.params.news)
        self._has_joined = True
        self._heartbeats.digest_for(context.results)
        context.results.news = NewsServer(session)


class NewsServer(schema.cluster.News.Server):  # type: ignore[misc]
    """Where a session's peer pushes."""

    def __init__(self, session: Session) -> None:
        self._session = session

    async def push_context(self, context: Any) -> None:
        session = self._session
        if session.pushes >= _PUSHES_MAX:
            raise Overloaded(f"{_PUSHES_MAX} pushes are under way, the limit")
        session.pushes += 1
        try:
            heartbeats = listed("heartbeats", context.params.heartbeats, _PUSH_MAX)
            lost = listed("lost", context.params.lost, _PUSH_MAX)
            await session.heartbeats.take(session, heartbeats, lost)
        finally:
            session.pushes -= 1


def _known(peer_id: PeerId, position: Position) -> dict[str, Any]:
    return {"peer": peer_id.public_key, "incarnation": position[0], "sequence": position[1]}


def _read_digest(known: Any) -> dict[PeerId, Position]:
    entries = listed("known", known, _DIGEST_MAX)
    return {PeerId(bytes(entry.peer)): (entry.incarnation, entry.sequence) for entry in entries}
