"""When a store looks after itself: now and then, when much has come, and more often while its disk refuses.

Holds the waiting. Must not know what is done then, nor any database: each store says it.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Final

from ww.clock import Clock
from ww.errors import StoreError
from ww.gateway.storage import StoreConfig

log = logging.getLogger("ww.gateway")

# Of what is looked at anew when it has grown, a part: housekeeping is early then.
_GROWN_PART: Final = 16


class Housekeeping:
    """The times of one store's housekeeping."""

    def __init__(
        self,
        config: StoreConfig,
        clock: Clock,
        *,
        health: Callable[[], str],
        probe: Callable[[], Awaitable[object]],
        housekeep: Callable[[], Awaitable[None]],
    ) -> None:
        """health says why writing is refused, or nothing; probe writes something, to see whether it still is."""
        self._config = config
        self._clock = clock
        self._health = health
        self._probe = probe
        self._housekeep = housekeep
        self._grown_tasks = 0
        self._grown_bytes = 0
        self._has_grown = asyncio.Event()

    def begins(self) -> None:
        """Note that housekeeping begins: what comes from now on is for the next one."""
        self._grown_tasks = self._grown_bytes = 0
        self._has_grown.clear()

    def note_growth(self, tasks: int, size: int) -> None:
        """Have housekeeping early when much has come since the last."""
        self._grown_tasks += tasks
        self._grown_bytes += size
        is_many = self._config.keep is not None and self._grown_tasks > self._config.keep // _GROWN_PART + 64
        if is_many or self._grown_bytes > self._config.results_bytes_max // _GROWN_PART:
            self._has_grown.set()

    async def always(self) -> None:
        """Housekeep now and then, and while the disk refuses, see whether it still does; for ever."""
        while True:
            try:
                if self._health():
                    await self._probe()
                await self._housekeep()
            except StoreError as error:
                log.debug("housekeeping waits: %s", error)
            except Exception:
                # Without it the store only grows, which can be mended later.
                log.exception("housekeeping failed")
            pause_s = self._config.probe_every_s if self._health() else self._config.housekeep_every_s
            sleeping = asyncio.ensure_future(self._clock.sleep(pause_s))
            growing = asyncio.ensure_future(self._has_grown.wait())
            try:
                await asyncio.wait((sleeping, growing), return_when=asyncio.FIRST_COMPLETED)
            finally:
                sleeping.cancel()
                growing.cancel()
