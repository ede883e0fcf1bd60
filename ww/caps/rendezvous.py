"""Which send meets which receive: the core of every channel.

Holds who waits on a channel, what is buffered, and the rules by which operations commit; no future, no loop, no wire.
An event comes in (an operation begins or is withdrawn, a channel is closed) and the operations that it ended go out, in
the order in which they ended; channel.py wakes those who wait for them. Semantics: docs/semantics.md.
"""

import bisect
import random
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from ww.errors import NotFound, Overloaded

WAITING: Final = -1
"""The index of an operation that has not ended."""


@dataclass(frozen=True, slots=True)
class Send:
    """A wish to hand value to a receiver of a channel."""

    channel: "Rendezvous"
    value: Any


@dataclass(frozen=True, slots=True)
class Receive:
    """A wish for the oldest value of a channel."""

    channel: "Rendezvous"


Case = Send | Receive


@dataclass(slots=True, eq=False)
class Operation:
    """One participant's wish: a send, a receive, or a select, of which exactly one case commits."""

    cases: Sequence[Case]
    index: int = WAITING
    """The case by which it ended."""
    value: Any = None
    """What it received."""
    is_closed: bool = False
    """Whether it ended because that case's channel is closed: then nothing was sent or received."""
    is_gone: Callable[[], bool] = lambda: False
    """Tells that nobody waits for it any more, though it was not withdrawn yet: nothing is to be matched with it."""
    handed: int = 0
    """Which of its channel's values it received, counted from the first."""
    _places: "list[tuple[_Queue, int]]" = field(default_factory=list)

    @property
    def has_ended(self) -> bool:
        """Whether a case has committed, or met a closed channel."""
        return self.index != WAITING

    def withdraw(self) -> None:
        """Want it no longer. Does nothing when it has ended."""
        for queue, key in self._places:
            queue.pop(key, None)
        self._places.clear()

    def _end(self, index: int, value: Any = None, *, is_closed: bool = False) -> None:
        self.withdraw()
        self.index, self.value, self.is_closed = index, value, is_closed

    def _wait(self, queue: "_Queue", key: int, index: int) -> None:
        queue[key] = (self, index)
        self._places.append((queue, key))


_Queue = OrderedDict[int, tuple[Operation, int]]


def begin(operation: Operation, *, may_wait: bool = True, rng: random.Random | None = None) -> list[Operation]:
    """Begin an operation and return what has ended by it: itself maybe, and whom it met.

    Of several cases that can commit one is chosen at random, so that none starves. When none can, the operation waits
    on all of its channels, or, unless it may_wait, is left as it was. Raises Overloaded when too many wait already.
    """
    cases = operation.cases
    ready = [index for index, case in enumerate(cases) if case.channel._is_ready(case)]
    if ready:
        index = ready[0] if len(ready) == 1 else (rng or random).choice(ready)
        return cases[index].channel._commit(operation, index)
    if may_wait:
        for case in cases:
            case.channel._check_room(case)
        for index, case in enumerate(cases):
            case.channel._wait(operation, index)
    return []


class Rendezvous:
    """One channel."""

    def __init__(
        self, capacity: int = 0, *, waiting_max: int = 65_536, on_waiting: Callable[[], None] | None = None
    ) -> None:
        """Make an open channel that buffers up to capacity values; waiting_max sends, and as many receives, may wait.

        on_waiting is called each time a send begins to wait.
        """
        self._on_waiting = on_waiting
        self._capacity = capacity
        self._waiting_max = waiting_max
        self._buffer: deque[Any] = deque()
        # Received by somebody who is gone, with which of the values each was: they are the next, in that order.
        self._returned: list[tuple[int, Any]] = []
        self._handed = 0
        # OrderedDict: taking the first out of a dict over and over gets slower the more were taken.
        self._sends: _Queue = OrderedDict()
        self._receives: _Queue = OrderedDict()
        self._next_key = 0
        self.is_closed = False
        """Whether nothing is sent any more; what is buffered can still be received."""

    def waiting(self) -> Iterator[tuple[int, Any]]:
        """Iterate over the values of waiting sends with their keys, oldest first."""
        for key, (operation, index) in self._sends.items():
            case = operation.cases[index]
            if not operation.is_gone():
                assert isinstance(case, Send)
                yield key, case.value

    def take(self, key: int) -> tuple[Any, list[Operation]]:
        """Commit that waiting send; the others keep their place. NotFound when it does not wait any more."""
        operation, index = self._sends.get(key, (None, 0))
        if operation is None or operation.is_gone():
            raise NotFound("that send does not wait any more")
        case = operation.cases[index]
        assert isinstance(case, Send)
        operation._end(index)
        return case.value, [operation]

    def put_back(self, operation: Operation) -> list[Operation]:
        """Undo a receive that nobody is left to have had: the value goes to the next, before all later ones."""
        bisect.insort(self._returned, (operation.handed, operation.value), key=lambda entry: entry[0])
        if (other := self._oldest(self._receives)) is None:
            return []
        receiver, index = other
        self._hand(receiver, index, self._returned.pop(0)[1])
        return [receiver]

    def close(self) -> list[Operation]:
        """Fail what waits, on both sides, and every later send. Idempotent."""
        self.is_closed = True
        ended = []
        for operation, index in [*self._sends.values(), *self._receives.values()]:
            if not operation.has_ended and not operation.is_gone():  # a select may wait here twice
                operation._end(index, is_closed=True)
                ended.append(operation)
        return ended

    def _is_ready(self, case: Case) -> bool:
        if isinstance(case, Send):
            has_room = len(self._buffer) < self._capacity
            return self.is_closed or has_room or self._oldest(self._receives) is not None
        return bool(self._returned or self._buffer) or self.is_closed or self._oldest(self._sends) is not None

    def _commit(self, operation: Operation, index: int) -> list[Operation]:
        case = operation.cases[index]
        if isinstance(case, Send):
            return self._commit_send(operation, index, case.value)
        return self._commit_receive(operation, index)

    def _commit_send(self, operation: Operation, index: int, value: Any) -> list[Operation]:
        if self.is_closed:
            operation._end(index, is_closed=True)
            return [operation]
        operation._end(index)
        if (other := self._oldest(self._receives)) is None:
            self._buffer.append(value)
            return [operation]
        receiver, place = other
        self._hand(receiver, place, value)
        return [receiver, operation]

    def _commit_receive(self, operation: Operation, index: int) -> list[Operation]:
        if self._returned:
            self._hand(operation, index, self._returned.pop(0)[1])
            return [operation]
        if self._buffer:
            self._hand(operation, index, self._buffer.popleft())
            return [operation, *self._refill()]
        if (other := self._oldest(self._sends)) is None:
            operation._end(index, is_closed=True)
            return [operation]
        sender, place = other
        case = sender.cases[place]
        assert isinstance(case, Send)
        sender._end(place)
        self._hand(operation, index, case.value)
        return [sender, operation]

    def _hand(self, operation: Operation, index: int, value: Any) -> None:
        self._handed += 1
        operation.handed = self._handed
        operation._end(index, value)

    def _refill(self) -> list[Operation]:
        """Move the oldest waiting value into the room that a receive has made."""
        if len(self._buffer) >= self._capacity or (other := self._oldest(self._sends)) is None:
            return []
        sender, place = other
        case = sender.cases[place]
        assert isinstance(case, Send)
        sender._end(place)
        self._buffer.append(case.value)
        return [sender]

    def _oldest(self, queue: _Queue) -> tuple[Operation, int] | None:
        """Return who has waited longest, and for which of its cases, past those that have gone."""
        while queue:
            key = next(iter(queue))
            if not queue[key][0].is_gone():
                return queue[key]
            del queue[key]
        return None

    def _check_room(self, case: Case) -> None:
        queue, kind = (self._sends, "sends") if isinstance(case, Send) else (self._receives, "receives")
        if len(queue) >= self._waiting_max:
            raise Overloaded(f"{self._waiting_max} {kind} are waiting, the limit")

    def _wait(self, operation: Operation, index: int) -> None:
        self._next_key += 1
        if isinstance(operation.cases[index], Receive):
            operation._wait(self._receives, self._next_key, index)
            return
        operation._wait(self._sends, self._next_key, index)
        if self._on_waiting is not None:
            self._on_waiting()
