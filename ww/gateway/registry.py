"""What a peer registers itself as a worker with, and what it has of that.

Holds the two capabilities, and the reading of what a worker says of itself. Must not know offers: pool.py, which keeps
who is registered.
"""

from typing import TYPE_CHECKING, Any, Final

from ww import schema
from ww.errors import UsageError
from ww.gateway.lease import INT64_MAX, finite
from ww.gateway.placement import WorkerInfo
from ww.rpc.errors import one_line
from ww.rpc.exports import Peer
from ww.rpc.message import listed

if TYPE_CHECKING:
    from ww.gateway.pool import WorkerPool

SLOTS_MAX: Final = 1024
_LABELS_MAX: Final = 64
_LACKS_MAX: Final = 16


class RegistryServer(schema.worker.Registry.Server):  # type: ignore[misc]
    """What a peer registers itself as a worker with."""

    def __init__(self, pool: "WorkerPool", peer: Peer) -> None:
        self._pool = pool
        self._peer = peer

    async def register_context(self, context: Any) -> None:
        said = context.params.info
        if not 0 < said.slots <= SLOTS_MAX:
            raise UsageError(f"slots: {said.slots} is not from 1 to {SLOTS_MAX}")
        labels = listed("labels", said.labels, _LABELS_MAX)
        info = WorkerInfo(
            kind=one_line(said.kind)[:32],
            slots=said.slots,
            cpus=finite(said.cpus),
            memory_bytes=min(said.memoryBytes, INT64_MAX),
            labels={one_line(label.key)[:64]: one_line(label.value)[:256] for label in labels},
            host=one_line(said.host)[:256],
            lacks=frozenset(one_line(word)[:32] for word in listed("lacks", said.lacks, _LACKS_MAX)),
        )
        pulse = context.params.pulse if context.params._has("pulse") else None
        self._pool.register(self._peer, info, pulse)
        context.results.registration = RegistrationServer(self._pool, self._peer)


class RegistrationServer(schema.worker.Registration.Server):  # type: ignore[misc]
    """A worker's registration; its end, or its connection's, is the worker's."""

    def __init__(self, pool: "WorkerPool", peer: Peer) -> None:
        self._pool = pool
        self._peer = peer

    async def leave_context(self, context: Any) -> None:
        self._pool.leave(self._peer)

    def __del__(self) -> None:
        # The last reference went: dropped by the worker, or with its connection.
        self._pool.unregister(self._peer, "left")
