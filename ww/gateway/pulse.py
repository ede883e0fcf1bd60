"""Whether workers live whose connections prove nothing: a browser answers for a tab that is frozen.

Holds the beating of their pulses, one task a worker for as long as it is registered, and what becomes of those that do
not answer. Must not know what workers run: pool.py says who comes and goes.
"""

import asyncio
import logging
from dataclasses import dataclass
from typing import Any, Final

from ww.clock import Clock
from ww.errors import Disconnected, WwError
from ww.rpc.errors import call
from ww.rpc.exports import Peer
from ww.rpc.loop import first_of

log = logging.getLogger("ww.gateway")

# Looks within the patience with one beat.
_LOOKS: Final = 20


@dataclass(frozen=True, slots=True)
class PulseConfig:
    """How closely a gateway minds whether its workers live."""

    every_s: float = 2.0
    """Seconds between an answer and the next beat."""
    timeout_s: float = 10.0
    """Seconds a worker has to answer; then it is disconnected."""


class Pulses:
    """Those of a gateway's workers."""

    def __init__(self, clock: Clock, config: PulseConfig) -> None:
        self._clock = clock
        self._config = config
        self._watching: dict[Peer, asyncio.Task[None]] = {}

    def watch(self, peer: Peer, pulse: Any) -> None:
        """Hang up on a peer when its pulse, a client of schema interface Pulse, beats no more, until `forget`."""
        task = self._watching[peer] = asyncio.get_running_loop().create_task(self._watch(peer, pulse))
        # Its frames hold what is of the connection.
        task.add_done_callback(lambda _: self._forget(peer, task))

    def forget(self, peer: Peer) -> None:
        """Mind a peer no more. Idempotent."""
        if (task := self._watching.pop(peer, None)) is not None:
            task.cancel()

    def _forget(self, peer: Peer, task: "asyncio.Task[None]") -> None:
        if self._watching.get(peer) is task:
            del self._watching[peer]

    async def _watch(self, peer: Peer, pulse: Any) -> None:
        while not peer.closed.is_set():
            try:
                why = await self._why_dead(peer, pulse)
            except Disconnected:
                return
            except WwError as error:
                why = f"its pulse cannot be called: {error}"
            if why:
                log.warning("worker %s is taken for gone: %s", peer.peer_id, why)
                peer.hang_up()
                return
            await first_of(self._clock.sleep(self._config.every_s), peer.closed.wait())

    async def _why_dead(self, peer: Peer, pulse: Any) -> str:
        """Beat once; return why the peer is taken for dead, or nothing. Raises WwError when it cannot be called."""
        beating = asyncio.ensure_future(call(pulse.beat()))
        beating.add_done_callback(lambda done: done.cancelled() or done.exception())
        try:
            look_s = self._config.timeout_s / _LOOKS
            silent_s, looked_at = 0.0, self._clock.now()
            while silent_s < self._config.timeout_s:
                await first_of(asyncio.wait((beating,)), self._clock.sleep(look_s), peer.closed.wait())
                if beating.done():
                    beating.result()
                    return ""
                if peer.closed.is_set():
                    return ""
                now = self._clock.now()
                # A look that comes late says that this process was held up, and nothing of the worker: its answer may
                # not have been read yet.
                if now - looked_at <= 2 * look_s:
                    silent_s += now - looked_at
                looked_at = now
            return f"no answer to its pulse within {self._config.timeout_s:g} s"
        finally:
            beating.cancel()
