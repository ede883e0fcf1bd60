"""Lines in the log about peers that are refused: few, however often they come.

Holds who was told of lately. Must not know why anybody is refused.
"""

import logging
from collections import OrderedDict
from collections.abc import Callable
from time import monotonic
from typing import Final

from ww.bucket import Bucket

log = logging.getLogger("ww.rpc")

# The same of the same peer is told once in that time, others so many at once and then so many a second.
_AGAIN_S: Final = 300.0
_BURST: Final = 100
_PER_S: Final = 0.2
_KEPT_MAX: Final = 1024


class Refusals:
    """Of one vat or door."""

    def __init__(self, now: Callable[[], float] = monotonic) -> None:
        """Tell what is refused from now on."""
        self._now = now
        self._bucket = Bucket(_BURST, _PER_S, now())
        self._told: OrderedDict[tuple[str, str], tuple[float, int]] = OrderedDict()
        """When a peer and its reason were told, and how often they came since."""
        self._left_out = 0

    def tell(self, key: str, who: str, why: str) -> None:
        """Log that a peer, known by that key, is refused, unless it was told lately."""
        now, told = self._now(), (key, why)
        told_at, count = self._told.get(told, (None, 0))
        if told_at is not None and now - told_at < _AGAIN_S:
            self._told[told] = told_at, count + 1
            return
        if not self._bucket.take(now):
            self._left_out += 1
            return
        if self._left_out:
            log.warning("%d lines about refused peers were left out", self._left_out)
            self._left_out = 0
        self._told[told] = now, 0
        self._told.move_to_end(told)
        if len(self._told) > _KEPT_MAX:
            self._told.popitem(last=False)
        often = f", {count} times more since that was told" if count else ""
        log.warning("refused %s: %s%s", who, why, often)
