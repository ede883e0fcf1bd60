"""One thing that the live page follows: looked at when it was touched, and not too often, for all readers at once.

Holds when to look. Must not know what is looked at.
"""

import asyncio
import logging
from typing import ClassVar

from ww.errors import WwError

log = logging.getLogger("ww.gateway")


class Topic:
    """What there is to tell has a version, which grows; readers ask what is new since theirs."""

    every_s: ClassVar[float]
    """Least seconds from one look to the next."""

    def __init__(self) -> None:
        self.version = 0
        self._is_touched = asyncio.Event()
        self._is_touched.set()
        self.is_ready = asyncio.Event()
        """Set once it was looked at."""
        self._news = asyncio.Event()

    def touch(self) -> None:
        """Note that something may have changed."""
        self._is_touched.set()

    async def follow(self, tell: "asyncio.Event") -> None:
        """Look whenever it was touched, for ever; tell is set when there was something new."""
        while True:
            await self._is_touched.wait()
            self._is_touched.clear()
            before = self.version
            try:
                await self.look()
            except WwError as error:
                log.warning("the live page misses something: %s", error)
            except Exception:  # what is only shown must not end what is done
                log.exception("the live page misses something")
            self.is_ready.set()
            if self.version != before:
                tell.set()
            await asyncio.sleep(self.every_s)

    async def look(self) -> None:
        """Bring what there is to tell up to date."""
        raise NotImplementedError
