"""When a reader of what happens to a task looks again.

Holds the pauses alone. Must not know what is looked at: events.py and results.py read it from the store.
"""

import asyncio
from typing import Final

from ww.gateway.watch import Watch

# Between two looks while there is always something new: it doubles from the first to the last, and begins anew when
# there was nothing.
_GAP_MIN_S: Final = 0.002
_GAP_MAX_S: Final = 0.1


class Pace:
    """One reader's."""

    def __init__(self) -> None:
        self._gap_s = 0.0

    async def wait(self, watch: Watch, until: float) -> None:
        """Return when there may be something new, and no later than until, by the loop's clock."""
        loop = asyncio.get_running_loop()
        if self._gap_s and not watch.is_closed:
            await asyncio.sleep(self._gap_s)
        began = loop.time()
        await watch.changes(max(0.0, until - began))
        is_idle = loop.time() - began > max(self._gap_s, _GAP_MIN_S)
        self._gap_s = 0.0 if is_idle else min(_GAP_MAX_S, max(_GAP_MIN_S, 2 * self._gap_s))
