"""The workers a gateway has, and the offers of theirs that wait.

Holds the two capabilities that workers get, Registry and the Sender facet of the channel, and the choice of a worker
for a Need. Must not know tasks' schedules or results: dispatch.py asks for a lease and runs attempts on it. An offer
belongs to the peer whose connection it came by, whatever it claims. A slot that a waiting run lends is no slot more: it
counts nowhere, takes what is deeper than that run alone, and takes it also where nothing else may go, since the run
that lends it cannot end before.
"""

import logging
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from ww import schema
from ww.caps.channel import Channel
from ww.caps.facets import SenderServer
from ww.caps.value import Codec
from ww.clock import Clock
from ww.errors import Conflict, NotAdmitted, NotFound, Overloaded, UsageError
from ww.gateway.breaker import Breaker, BreakerConfig, BreakerState
from ww.gateway.disagreement import Disagreements
from ww.gateway.lease import Invocations, Lease, Offer
from ww.gateway.placement import WorkerInfo, slots_for, why_not
from ww.gateway.pulse import PulseConfig, Pulses
from ww.gateway.registry import SLOTS_MAX, RegistryServer
from ww.gateway.spec import Need
from ww.identity import PeerId
from ww.rpc.exports import Peer

log = logging.getLogger("ww.gateway")

_WORKERS_MAX: Final = 4096
# Of one worker at a time, with those that are lent.
_OFFERS_MAX: Final = 8 * SLOTS_MAX
# Of a worker, remembered so that runs go where their module is.
_MODULES_MAX: Final = 256
_BREAKERS_MAX: Final = 4096
_LEFT_MAX: Final = 4096


@dataclass(slots=True, eq=False)
class WorkerEntry:
    """One registered worker."""

    peer: Peer
    info: WorkerInfo
    since: float
    """Seconds since the epoch."""
    leased: int = 0
    """Slots of it that are in use."""
    slots_seen: int = 0
    """Most slots of it that were on offer or in use at once: what it claims to have it may never offer."""
    leaving: bool = False
    runs_ended: int = 0
    """Attempts of it that ended with an outcome."""
    modules: dict[str, None] = field(default_factory=dict)
    """Digests (hex) of modules that it ran lately, oldest first."""
    disagreements: int = 0
    """Runs on which it was outvoted."""
    breaker: str = BreakerState.CLOSED
    """Both as of when `WorkerPool.workers` was asked."""
    shape: tuple[Any, ...] = ()
    """What workers have in common that can serve the same."""

    def __post_init__(self) -> None:
        info = self.info
        self.shape = (info.slots, info.cpus, info.memory_bytes, tuple(sorted(info.labels.items())), info.lacks)

    def has_run(self, module: str) -> None:
        """Note that it holds a module."""
        self.modules.pop(module, None)
        self.modules[module] = None
        if len(self.modules) > _MODULES_MAX:
            del self.modules[next(iter(self.modules))]


class WorkerPool:
    """Who is connected, and which of their slots are free."""

    def __init__(
        self,
        module_path: Callable[[str], Path],
        *,
        clock: Clock,
        on_offer: Callable[[], None],
        on_workers: Callable[[], None] = lambda: None,
        breaker: BreakerConfig | None = None,
        disagreements_max: int = 3,
        pulse: PulseConfig | None = None,
    ) -> None:
        """Serve workers the module of a digest (hex) from its path.

        on_offer is called whenever a slot becomes free, on_workers when a worker comes, goes, or may have runs again.
        """
        self._module_path = module_path
        self._clock = clock
        self._on_offer = on_offer
        self._on_workers = on_workers
        self.channel: Channel[Offer] = Channel(on_waiting=self._offered)
        # Exported by name: it stays open when the last worker has gone.
        self.channel.add_sender()
        self._workers: dict[Peer, WorkerEntry] = {}
        self._labelled: dict[tuple[str, str], dict[Peer, None]] = {}
        """Workers by what they say of themselves: most of many workers have nothing to do with most of many needs."""
        self._shapes: list[WorkerInfo] | None = None
        """What workers that can be given something say, each once; None when that has to be looked at."""
        self._draining: set[PeerId] = set()
        self._refused: set[PeerId] = set()
        self.disagreements = Disagreements(disagreements_max)
        self._reserved: dict[Peer, Need] = {}
        self._breaker_config = breaker or BreakerConfig()
        self._pulses = Pulses(clock, pulse or PulseConfig())
        self._breakers: dict[PeerId, Breaker] = {}
        self._invocations = Invocations()
        self._free: dict[Peer, list[int]] = {}  # keys of waiting offers, oldest first
        self._lent: dict[Peer, list[tuple[int, int]]] = {}  # depth and key of those that are lent, the deepest last
        self._is_free_known = True
        self._since = clock.now()
        self._left: dict[str, float] = {}
        """When workers went, by peer id."""
        self.slots = 1
        """Of all workers that may be given something; 1 when there are none."""

    # What peers do.

    def registry_for(self, peer: Peer) -> Any:
        """Make what peer gets as "registry"."""
        return RegistryServer(self, peer)

    def sender_for(self, peer: Peer) -> Any:
        """Make what peer gets as "channel": it may send offers, and nothing else."""

        def read(message: Any) -> Offer:
            if peer not in self._workers:
                raise UsageError("register before you send offers")
            offer = message.value.as_struct(schema.worker.Offer)
            return Offer(peer, offer.worker, offer.depth)

        return SenderServer(self.channel, Codec(_never_sent, read), waiting_max=_OFFERS_MAX)

    def register(self, peer: Peer, info: WorkerInfo, pulse: Any | None = None) -> None:
        """Let peer send offers until `unregister`, and for as long as pulse, a client of schema interface Pulse, beats
        where there is one."""
        if peer.peer_id in self._refused:
            raise NotAdmitted("this gateway refuses it: too many of its results were outvoted")
        if peer in self._workers:
            raise Conflict("this connection has a worker registered already")
        if len(self._workers) >= _WORKERS_MAX:
            raise Overloaded(f"{_WORKERS_MAX} workers are registered, the limit")
        self._workers[peer] = WorkerEntry(peer, info, self._clock.wall())
        for label in info.labels.items():
            self._labelled.setdefault(label, {})[peer] = None
        if pulse is not None:
            self._pulses.watch(peer, pulse)
        log.info("worker %s (%s) joined from %s with %d slots", peer.peer_id, info.kind, peer.remote, info.slots)
        self._have_changed()

    def unregister(self, peer: Peer, why: str) -> None:
        """Forget a worker."""
        self._reserved.pop(peer, None)
        self._pulses.forget(peer)
        if (entry := self._workers.pop(peer, None)) is not None:
            self._left.pop(str(peer.peer_id), None)
            self._left[str(peer.peer_id)] = self._clock.now()
            if len(self._left) > _LEFT_MAX:
                del self._left[next(iter(self._left))]
            for label in entry.info.labels.items():
                del self._labelled[label][peer]
                if not self._labelled[label]:
                    del self._labelled[label]
            log.info("worker %s %s", peer.peer_id, why)
            self._have_changed()

    def leave(self, peer: Peer) -> None:
        """Note that a worker is stopping: what it runs may still finish."""
        if (entry := self._workers.get(peer)) and not entry.leaving:
            entry.leaving = True
            log.info("worker %s is leaving", peer.peer_id)
            self._have_changed()

    def _have_changed(self) -> None:
        self._shapes = None
        self.slots = max(1, sum(entry.info.slots for entry in self._able()))
        self._on_workers()

    # What the operator does.

    def drain(self, peer_id: PeerId, value: bool = True) -> None:
        """Give a peer nothing new to run, or again."""
        if value:
            self._draining.add(peer_id)
        else:
            self._draining.discard(peer_id)
        self._have_changed()

    def refuse(self, peer_id: PeerId, value: bool = True) -> None:
        """Hang up on a peer and let it register no more; or again, as if nobody had ever said something else."""
        if not value:
            self._refused.discard(peer_id)
            self.disagreements.forgive(str(peer_id))
            return
        self._refused.add(peer_id)
        for peer, entry in self._workers.items():
            if peer.peer_id == peer_id:
                entry.leaving = True
                peer.hang_up()
        self._have_changed()

    def is_refused(self, peer_id: PeerId) -> bool:
        """Whether a peer may not be here."""
        return peer_id in self._refused

    # What the dispatcher asks.

    def workers(self) -> list[tuple[WorkerEntry, int]]:
        """Return the registered workers and how many of each one's offers wait."""
        self._is_free_known = False
        free = self._waiting()
        now = self._clock.now()
        for peer, entry in self._workers.items():
            breaker = self._breakers.get(peer.peer_id)
            entry.disagreements = self.disagreements.of(str(peer.peer_id))
            entry.breaker = BreakerState.CLOSED if breaker is None else breaker.state(now)
        return [(entry, len(free.get(peer, ()))) for peer, entry in self._workers.items()]

    @property
    def has_free_slot(self) -> bool:
        """Whether a slot is free that may be given something to run."""
        if any(keys and self._may_run(self._workers.get(peer), None) for peer, keys in self._waiting().items()):
            return True
        return any(lent and self._may_lend(self._workers.get(peer)) for peer, lent in self._lent.items())

    def has_room(self, need: Need, only: Collection[PeerId] | None = None) -> bool:
        """Whether `take` would return a lease."""
        return self._choose(need, "", only=only) is not None

    def take(
        self,
        need: Need,
        module: str = "",
        *,
        avoiding: Collection[PeerId] = (),
        only: Collection[PeerId] | None = None,
        shunned: str = "",
    ) -> Lease | None:
        """Take as many free slots of one worker as a run with that need takes; None when no worker has them.

        One that ran the module before is preferred, then the least busy one, then the one that offered first: spreading
        runs over machines before filling one up uses all of their memory bandwidth and caches. The shunned peer comes
        after all others; those that are avoided, and others than only those where they are given, do not come at all.
        """
        while (found := self._choose(need, module, avoiding, only, shunned)) is not None:
            entry, keys = found
            try:
                offers = [self.channel.take(key) for key in keys]
                break
            except NotFound:  # withdrawn; those taken before it are of the same worker, which is going
                self._is_free_known = False
        else:
            return None
        if offers[0].depth:
            lent = self._lent[entry.peer]
            self._lent[entry.peer] = [each for each in lent if each[1] != keys[0]]
            return Lease(offers, self._invocations, self._module_path, lambda _: None)
        del self._waiting()[entry.peer][: len(offers)]
        entry.leased += len(offers)
        if self._reserved.get(entry.peer) == need:
            del self._reserved[entry.peer]

        def on_close(slots: int) -> None:
            entry.leased -= slots

        return Lease(offers, self._invocations, self._module_path, on_close)

    def _choose(
        self,
        need: Need,
        module: str,
        avoiding: Collection[PeerId] = (),
        only: Collection[PeerId] | None = None,
        shunned: str = "",
    ) -> tuple[WorkerEntry, list[int]] | None:
        best: tuple[tuple[bool, bool, int, int], WorkerEntry, list[int]] | None = None
        waiting = self._waiting()
        peers = {**waiting, **self._lent} if need.depth and self._lent else waiting
        for peer in self._with_labels(need) if need.labels else peers:
            entry, keys = self._workers.get(peer), waiting.get(peer)
            if entry is None or (avoiding and peer.peer_id in avoiding):
                continue
            if only is not None and peer.peer_id not in only:
                continue
            slots = slots_for(need, entry.info)
            if slots == 1 and need.depth and (lent := self._lent_for(need, entry)) is not None:
                keys = [lent]
            elif not (keys and slots and len(keys) >= slots and self._may_run(entry, need)):
                continue
            is_shunned = bool(shunned) and str(peer.peer_id) == shunned
            score = (is_shunned, module not in entry.modules, entry.leased, keys[0])
            if best is None or score < best[0]:
                best = (score, entry, keys[:slots])
        return None if best is None else best[1:]

    def _lent_for(self, need: Need, entry: WorkerEntry) -> int | None:
        """Return the key of a slot that a worker lends to runs of that depth: the one that fewest others could have."""
        if not self._may_lend(entry):
            return None
        return next((key for depth, key in reversed(self._lent.get(entry.peer, ())) if depth <= need.depth), None)

    def _offered(self) -> None:
        self._is_free_known = False
        self._on_offer()

    def _waiting(self) -> dict[Peer, list[int]]:
        """Return the keys of waiting offers by peer. One may be withdrawn that is still here: nobody tells of that."""
        if not self._is_free_known:
            self._is_free_known = True
            self._free, self._lent = {}, {}
            for key, offer in self.channel.waiting():
                if offer.depth:
                    self._lent.setdefault(offer.peer, []).append((offer.depth, key))
                else:
                    self._free.setdefault(offer.peer, []).append(key)
            for lent in self._lent.values():
                lent.sort(key=lambda each: each[0])
        return self._free

    def _may_run(self, entry: WorkerEntry | None, need: Need | None) -> bool:
        """Whether a worker may be given something new; without a need, anything at all."""
        if entry is None or entry.leaving or entry.peer.peer_id in self._draining:
            return False
        if need is not None and self._reserved and self._reserved.get(entry.peer, need) != need:
            return False
        breaker = self._breakers.get(entry.peer.peer_id)
        if breaker is None or (state := breaker.state(self._clock.now())) is BreakerState.CLOSED:
            return True
        return state is BreakerState.HALF_OPEN and entry.leased == 0

    def _may_lend(self, entry: WorkerEntry | None) -> bool:
        """Whether the slots that a worker lends may be used: neither a drain nor a reservation stops that, since both
        wait for the runs that lend them, and so does a worker that is leaving."""
        if entry is None:
            return False
        breaker = self._breakers.get(entry.peer.peer_id)
        return breaker is None or breaker.state(self._clock.now()) is not BreakerState.OPEN

    def may_go_on(self, lease: Lease, need: Need) -> bool:
        """Whether a lease may be given another run, of that need."""
        entry = self._workers.get(lease.peer)
        if lease.depth:
            is_fit = entry is not None and lease.depth <= need.depth and slots_for(need, entry.info) == 1
            return is_fit and self._may_lend(entry)
        if entry is None or entry.leaving or lease.peer_id in self._draining:
            return False
        if self._reserved.get(lease.peer, need) != need:
            return False
        breaker = self._breakers.get(lease.peer_id)
        return (breaker is None or breaker.state(self._clock.now()) is not BreakerState.OPEN) and slots_for(
            need, entry.info
        ) == lease.slots

    def reserve(self, need: Need, ahead: Sequence[Need] = (), only: Collection[PeerId] | None = None) -> bool:
        """Keep slots of one worker, of only those peers, for a run that takes several, until enough are free at once.

        Otherwise small runs would have them for ever. Not of a worker that could serve what is ahead of it. False when
        it would take one slot, of some worker.
        """
        if not (need.cpus or need.memory_bytes):
            return False
        able = [entry for entry in self._able() if self._can_have(need, entry)]
        able = [entry for entry in able if only is None or entry.peer.peer_id in only]
        if any(slots_for(need, entry.info) == 1 for entry in able):
            return False
        if need not in self._reserved.values():
            able = [entry for entry in able if entry.peer not in self._reserved]
            able = [entry for entry in able if not any(slots_for(other, entry.info) for other in ahead)]
            if able:
                self._reserved[min(able, key=lambda entry: entry.leased).peer] = need
        return True

    def release(self, needs: set[Need]) -> None:
        """Keep slots for those needs only, and of workers only that can still be given something."""
        able = {entry.peer: entry for entry in self._able()} if self._reserved else {}
        self._reserved = {
            peer: need
            for peer, need in self._reserved.items()
            if need in needs and peer in able and self._can_have(need, able[peer])
        }

    def _can_have(self, need: Need, entry: WorkerEntry) -> bool:
        """Whether a worker has, by what it did and not only by what it says, the slots for a run with that need."""
        free = len(self._waiting().get(entry.peer, ()))
        entry.slots_seen = max(entry.slots_seen, entry.leased + free)
        breaker = self._breakers.get(entry.peer.peer_id)
        if breaker is not None and breaker.state(self._clock.now()) is BreakerState.OPEN:
            return False
        return 0 < slots_for(need, entry.info) <= entry.slots_seen

    def why_not(self, need: Need) -> str:
        """Say why no connected worker could ever meet a need; empty when one could, or when none is connected."""
        if self._shapes is None:
            self._shapes = list({entry.shape: entry.info for entry in self._able()}.values())
        shapes = self._shapes[:1] if need.labels and not self._with_labels(need) else self._shapes
        if (reason := why_not(need, shapes)) or need.quorum == 1 or not shapes:
            return reason
        if (peers := len(self.able(need))) >= need.quorum:
            return ""
        are = "peer that could run it is" if peers == 1 else "peers that could run it are"
        return f"quorum {need.quorum}: {peers} {are} connected"

    def _with_labels(self, need: Need) -> Collection[Peer]:
        """Return the workers that have the rarest of a need's labels."""
        return min((self._labelled.get(label, {}) for label in need.labels), key=len)

    def able(self, need: Need) -> list[PeerId]:
        """Return the workers that may be given a run with that need once they have a free slot, oldest first."""
        now = self._clock.now()
        found = {
            entry.peer.peer_id: None
            for entry in self._able()
            if slots_for(need, entry.info)
            and ((breaker := self._breakers.get(entry.peer.peer_id)) is None or breaker.state(now) != BreakerState.OPEN)
        }
        return list(found)

    def absent_s(self, peer_id: str) -> float:
        """Return for how long no worker of that peer is here; 0 when one is."""
        if any(str(peer.peer_id) == peer_id for peer in self._workers):
            return 0.0
        return self._clock.now() - self._left.get(peer_id, self._since)

    def _able(self) -> list[WorkerEntry]:
        return [
            entry for entry in self._workers.values() if not entry.leaving and entry.peer.peer_id not in self._draining
        ]

    def is_draining(self, peer_id: PeerId) -> bool:
        """Whether a peer is to get nothing new."""
        return peer_id in self._draining

    def attempt_ended(self, lease: Lease, module: str, *, well: bool, was_lost: bool = False, count: int = 1) -> None:
        """Note how attempts ended as far as their worker is at fault; was_lost: they have no outcome."""
        peer_id, now = lease.peer_id, self._clock.now()
        breaker = self._breakers.get(peer_id)
        entry = self._workers.get(lease.peer)
        if entry is not None and not was_lost:
            entry.runs_ended += count
        if well:
            if entry is not None:
                entry.has_run(module)
            if breaker is not None:
                breaker.succeeded(now)
                if breaker.state(now) is BreakerState.CLOSED:
                    del self._breakers[peer_id]
            return
        if breaker is None:
            while len(self._breakers) >= _BREAKERS_MAX:
                del self._breakers[next(iter(self._breakers))]
            breaker = self._breakers[peer_id] = Breaker(self._breaker_config)
        # A guest may crash here and not there. What is lost here and runs elsewhere, the module is not to blame for.
        is_proven = was_lost and any(
            module in other.modules for other in self._workers.values() if other.peer.peer_id != peer_id
        )
        if breaker.failed(module, now, is_proven=is_proven):
            log.warning("worker %s gets nothing to run for a while: too many of its runs failed by its fault", peer_id)


def _never_sent(offer: Offer, message: Any) -> None:
    raise AssertionError("nobody elsewhere receives offers")
