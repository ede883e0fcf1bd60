"""Who is there, for the live page: the workers, the members of the cluster, and the packets by which nodes find others.

Holds how they look as JSON, and that they are told when that changed. Must not know readers. Packets are kept, a few,
only while somebody listens.
"""

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Final, NamedTuple

import orjson

from ww.clock import Clock
from ww.cluster.heartbeat import Heartbeats
from ww.discovery.multicast import Heard
from ww.discovery.packet import Packet, Survey
from ww.discovery.sources import Discovery
from ww.gateway.pool import WorkerEntry, WorkerPool
from ww.gateway.topic import Topic
from ww.gateway.view import worker_json
from ww.rpc.exports import Peer

LISTED_MAX: Final = 500
"""Workers, and members, in one message."""
PACKETS_MAX: Final = 20


class _Listing(Topic):
    """What is told whole whenever it changed."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self._name = name
        self._shown: Any = None
        self._data = b""

    def since(self, version: int) -> tuple[int, bytes] | None:
        """Return what is told who knows a version, and the version that it knows then; None: nothing."""
        return None if version >= self.version else (self.version, self._data)

    def _show(self, found: list[dict[str, Any]], also: Sequence[dict[str, Any]] = ()) -> bool:
        """Have that told, if it is not what was told before; also is what changes all the time."""
        if found == self._shown:
            return False
        self._shown = found
        if also:
            found = [each | more for each, more in zip(found, also, strict=True)]
        told = {self._name: found[:LISTED_MAX], "more": max(0, len(found) - LISTED_MAX)}
        self._data = orjson.dumps(told)
        self.version += 1
        return True


class _Speed(NamedTuple):
    ended: int
    per_s: float


class Workers(_Listing):
    """The registered workers."""

    every_s: ClassVar[float] = 0.5

    def __init__(self, pool: WorkerPool) -> None:
        super().__init__("workers")
        self._pool = pool
        self._speeds: dict[Peer, _Speed] = {}

    def note_second(self) -> None:
        """Note that a second has passed."""
        speeds = {}
        for entry, _ in self._pool.workers():
            before = self._speeds.get(entry.peer, _Speed(entry.runs_ended, 0.0))
            speeds[entry.peer] = _Speed(entry.runs_ended, float(entry.runs_ended - before.ended))
        if speeds != self._speeds:
            self._speeds = speeds
            self.touch()

    async def look(self) -> None:
        if self._show([self._render(entry, free) for entry, free in self._pool.workers()]):
            # A slot becomes free with nothing said, a moment after the last run on it.
            self.touch()

    def _render(self, entry: WorkerEntry, free: int) -> dict[str, Any]:
        speed = self._speeds.get(entry.peer)
        rendered = worker_json(entry, free)
        rendered["busy"] = entry.leased
        rendered["runs_ended"] = entry.runs_ended
        rendered["runs_per_second"] = speed.per_s if speed is not None else 0.0
        return rendered


class Members(_Listing):
    """The members of the cluster."""

    every_s: ClassVar[float] = 1.0

    def __init__(self, heartbeats: Heartbeats) -> None:
        super().__init__("members")
        self._heartbeats = heartbeats

    async def listen(self) -> None:
        """Hear of what becomes known, for ever."""
        while True:
            await self._heartbeats.changed()
            self.touch()

    async def look(self) -> None:
        now = self._heartbeats.now()
        records = sorted(self._heartbeats.membership.members(now), key=lambda record: record.peer_id.public_key)
        found = []
        for record in records:
            said = record.shown
            found.append(
                {
                    "peer": str(record.peer_id),
                    "role": said.role,
                    "host": said.host,
                    "addresses": [str(address) for address in said.addresses],
                    "meta": dict(said.meta),
                    "slots": said.load.slots,
                    "free": said.load.free,
                    "queued": said.load.queue,
                }
            )
        ages = [{"age_seconds": round(max(0.0, now - record.heard_at), 3)} for record in records]
        self._show(found, ages)


class Packets(Topic):
    """Packets of discovery that were heard or sent."""

    every_s: ClassVar[float] = 0.5

    def __init__(self, discovery: Discovery, clock: Clock) -> None:
        super().__init__()
        self._discovery = discovery
        self._clock = clock
        self._latest: deque[tuple[float, Heard]] = deque(maxlen=PACKETS_MAX)
        self._count = 0
        self._told: list[dict[str, Any]] = []
        self._made: dict[int, bytes] = {}

    def open(self) -> Callable[[], None]:
        """Listen, until what is returned is called."""
        self._discovery.tapped = self._hear

        def close() -> None:
            if self._discovery.tapped == self._hear:
                self._discovery.tapped = None

        return close

    def _hear(self, heard: Heard) -> None:
        self._latest.append((self._clock.wall(), heard))
        self._count += 1
        self.touch()

    async def look(self) -> None:
        if self.version != self._count:
            self.version = self._count
            self._told = [_packet_json(wall, heard) for wall, heard in self._latest]
            self._made.clear()

    def since(self, version: int) -> tuple[int, bytes] | None:
        """Return what is told who knows a version, and the version that it knows then; None: nothing."""
        if (new := self.version - version) <= 0:
            return None
        if (data := self._made.get(version)) is None:
            told = self._told[-new:]
            data = self._made[version] = orjson.dumps({"packets": told, "more": new - len(told)})
        return self.version, data


def _packet_json(wall: float, heard: Heard) -> dict[str, Any]:
    said = heard.packet
    return {
        "t": round(wall, 3),
        "kind": type(said.content).__name__.lower() if said is not None else None,
        "size": heard.size_bytes,
        "namespace": said.namespace if isinstance(said, Packet) else None,
        "peer": str(said.sender) if said is not None else None,
        "distance": said.content.distance if said is not None and isinstance(said.content, Survey) else None,
        "dropped": str(heard.dropped) if heard.dropped is not None else None,
    }
