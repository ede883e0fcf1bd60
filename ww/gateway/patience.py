"""How long a worker's slot may seem stuck before what waits on it is sent elsewhere.

Holds a time for each worker, which grows when the run that seemed to take long was short: then the worker, or the way
to it, was held up, and to send its runs elsewhere, and have them done twice, makes that worse. Knows no clock, no slot:
it is told what happened and `now`.
"""

from collections import OrderedDict
from typing import Final

from ww.identity import PeerId

FIRST_S: Final = 0.05
_MAX_S: Final = 3.2
# So long after it was wrong, it is halved.
_FORGIVEN_S: Final = 20.0
_REMEMBERED_MAX: Final = 4096


class Patience:
    """With each worker, where it is not the usual one."""

    def __init__(self) -> None:
        self._known: OrderedDict[PeerId, tuple[float, float]] = OrderedDict()
        """How long, and when that was found."""

    def of(self, peer_id: PeerId, now: float) -> float:
        """Return how many seconds a worker's slot may be at the same run while others wait behind it."""
        known = self._known.get(peer_id)
        if known is None:
            return FIRST_S
        patience_s, since = known
        while patience_s > FIRST_S and now - since >= _FORGIVEN_S:
            patience_s, since = patience_s / 2, since + _FORGIVEN_S
        self._set(peer_id, patience_s, since)
        return patience_s

    def judge(self, peer_id: PeerId, waited_s: float, took_s: float, now: float) -> None:
        """Note that a run that seemed to take long took took_s there, and was waited for waited_s."""
        patience_s = self.of(peer_id, now)
        if took_s < waited_s / 2:
            self._set(peer_id, min(_MAX_S, patience_s * 2), now)
        else:
            self._set(peer_id, patience_s / 2, now)

    def _set(self, peer_id: PeerId, patience_s: float, since: float) -> None:
        self._known.pop(peer_id, None)
        if patience_s > FIRST_S:
            self._known[peer_id] = patience_s, since
            if len(self._known) > _REMEMBERED_MAX:
                self._known.popitem(last=False)
