"""poll_oneoff, which can be interrupted: wasmtime's own sleeps to the end, whatever the deadline.

Holds the reading of subscriptions, the waiting, the writing of events. What it knows of descriptors it asks wasmtime's
own. Source: WASI preview 1, poll_oneoff; what it leaves open is as wasmtime has it.
"""

import ctypes
import struct
import time
from collections.abc import Sequence
from typing import Any, Final

from ww.sandbox.determinism import START_NS
from ww.sandbox.wasi_host import Host

_INVAL: Final = 28
_NOMEM: Final = 48
_REALTIME: Final = 0
_MONOTONIC: Final = 1
_CLOCK: Final = 0
_FD_WRITE: Final = 2
_ABSOLUTE: Final = 1
_SUBSCRIPTION: Final = struct.Struct("<QB7xIxxxxQQHxxxxxx")
"""userdata, tag, clock or descriptor, timeout, precision, flags."""
_EVENT: Final = struct.Struct("<QHBxxxxxQHxxxxxx")
"""userdata, error, type, nbytes, flags."""
_OURS: Final = (1 << 64) - 1
"""userdata of the clock that we add; those of descriptors are their places."""
SUBSCRIPTIONS_MAX: Final = 512
"""More than a guest has descriptors, and what fits into the scratch memory."""
SLICE_NS: Final = 20_000_000
"""How long at most a wait goes on when the run is over."""
MASK: Final = 0xFFFFFFFF


class _Subscriptions:
    """What a guest waits for."""

    def __init__(self) -> None:
        self.userdata: list[int] = []
        self.clocks: list[tuple[int, int]] = []
        """When, by the host's monotonic or the virtual clock, and the place among the subscriptions."""
        self.descriptors: list[tuple[int, int, int]] = []
        """Read or write, descriptor, place."""

    def due_ns(self) -> int | None:
        """Return when the first clock rings, if there is one."""
        return min(self.clocks)[0] if self.clocks else None

    def ring(self, now_ns: int, events: dict[int, bytes]) -> None:
        """Put an event for each clock that is due into events."""
        for at_ns, place in self.clocks:
            if at_ns <= now_ns:
                events[place] = _EVENT.pack(self.userdata[place], 0, _CLOCK, 0, 0)


class Poll:
    """poll_oneoff for one host."""

    def __init__(self, host: Host, *, deterministic: bool) -> None:
        self._host = host
        self._deterministic = deterministic

    def poll_oneoff(self, arguments: Any) -> int:
        """Wait until one subscription has an event at least, and write all that have."""
        host = self._host
        given, out, count, result = (arguments[index].of.i32 & MASK for index in range(4))
        if count == 0:
            return _INVAL
        if count > SUBSCRIPTIONS_MAX:
            return _NOMEM
        given_at = host.memory.check(given, _SUBSCRIPTION.size * count, 8)
        out_at = host.memory.check(out, _EVENT.size * count, 8)
        result_at = host.memory.check(result, 4, 4)
        subscriptions = _Subscriptions()
        error = self._read(ctypes.string_at(given_at, _SUBSCRIPTION.size * count), subscriptions)
        if error:
            # The first that is wrong decides, and it may be a descriptor.
            first = self._ask(subscriptions, subscriptions.descriptors, 0, {}) if subscriptions.descriptors else 0
            return first or error
        events: dict[int, bytes] = {}
        error = self._skip(subscriptions, events) if self._deterministic else self._wait(subscriptions, events)
        if error:
            return error
        data = b"".join(events[place] for place in sorted(events))
        ctypes.memmove(out_at, data, len(data))
        ctypes.c_uint32.from_address(result_at).value = len(events)
        return 0

    def _read(self, data: bytes, subscriptions: _Subscriptions) -> int:
        """Read what the guest waits for, until the first that is wrong; return an errno."""
        now_ns = self._now_ns()
        for place, (userdata, tag, subject, timeout, _, flags) in enumerate(_SUBSCRIPTION.iter_unpack(data)):
            subscriptions.userdata.append(userdata)
            if tag != _CLOCK:
                if tag > _FD_WRITE:
                    return _INVAL
                subscriptions.descriptors.append((tag, subject, place))
                continue
            if subject > _MONOTONIC or flags & ~_ABSOLUTE:
                return _INVAL
            if flags:
                # The guest's clock first: what passes between the two makes the wait longer, never shorter.
                started = self._guest_now_ns(subject)
                subscriptions.clocks.append((self._now_ns() + timeout - started, place))
            else:
                subscriptions.clocks.append((now_ns + timeout, place))
        return 0

    def _wait(self, subscriptions: _Subscriptions, events: dict[int, bytes]) -> int:
        """Wait for the first events, and put all that there are into events, by place; return an errno."""
        host = self._host
        due_ns = subscriptions.due_ns()
        while True:
            now_ns = time.monotonic_ns()
            left_ns = SLICE_NS if due_ns is None else min(SLICE_NS, max(0, due_ns - now_ns))
            if left_ns or subscriptions.descriptors:
                host.end_if_over()
            if subscriptions.descriptors:
                error = self._ask(subscriptions, subscriptions.descriptors, left_ns, events)
                if error:
                    return error
                # It took its time.
                now_ns = time.monotonic_ns()
            subscriptions.ring(now_ns, events)
            if events:
                return 0
            if not subscriptions.descriptors:
                host.state.watch.wait(left_ns / 1e9)

    def _skip(self, subscriptions: _Subscriptions, events: dict[int, bytes]) -> int:
        """Wait as `_wait` does, in virtual time; return an errno.

        Descriptors are taken to be always ready, as files and bytes in memory are. wasmtime reads ahead in threads of
        its own: it is asked about one after the other, for as long as it takes, so that no race decides.
        """
        clock = self._host.state.virtual_clock()
        for descriptor in subscriptions.descriptors:
            before = len(events)
            while len(events) == before:
                self._host.end_if_over()
                error = self._ask(subscriptions, [descriptor], SLICE_NS, events)
                if error:
                    return error
        due_ns = subscriptions.due_ns()
        if due_ns is not None and not events:
            clock.sleep_until(due_ns)
            # Which is not there for one that sleeps for ever.
            subscriptions.ring(due_ns, events)
        subscriptions.ring(clock.now_ns, events)
        return 0

    def _ask(
        self,
        subscriptions: _Subscriptions,
        descriptors: Sequence[tuple[int, int, int]],
        timeout_ns: int,
        events: dict[int, bytes],
    ) -> int:
        """Ask wasmtime for the events of descriptors, for so long at most; return an errno."""
        host, scratch = self._host, self._host.scratch()
        asked = [_SUBSCRIPTION.pack(place, tag, fd, 0, 0, 0) for tag, fd, place in descriptors]
        asked.append(_SUBSCRIPTION.pack(_OURS, _CLOCK, _MONOTONIC, timeout_ns, 0, 0))
        data = b"".join(asked)
        ctypes.memmove(scratch, data, len(data))
        out = len(data)
        result = out + _EVENT.size * len(asked)
        error = host.original("poll_oneoff", 0, out, len(asked), result)
        if error:
            return error
        count = ctypes.c_uint32.from_address(scratch + result).value
        for place, error, kind, size, flags in _EVENT.iter_unpack(ctypes.string_at(scratch + out, _EVENT.size * count)):
            if place != _OURS:
                events[place] = _EVENT.pack(subscriptions.userdata[place], error, kind, size, flags)
        return 0

    def _now_ns(self) -> int:
        return self._host.state.virtual_clock().now_ns if self._deterministic else time.monotonic_ns()

    def _guest_now_ns(self, clock: int) -> int:
        """Return the time that the guest reads on that clock."""
        if self._deterministic:
            return self._host.state.virtual_clock().now_ns + (START_NS if clock == _REALTIME else 0)
        if clock == _REALTIME:
            return time.time_ns()
        # It counts from when the guest was given its WASI.
        self._host.original("clock_time_get", clock, 0, 0)
        return ctypes.c_uint64.from_address(self._host.scratch()).value
