"""What the metrics ask a gateway's parts when somebody looks: queue, workers, bytes, the process.

Holds the questions and their names. Must not know HTTP, nor count anything itself: metrics.py does.
"""

import os
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from ww.gateway.metrics import Labels, Metrics
from ww.gateway.pool import WorkerPool
from ww.gateway.scheduler import Scheduler

# How often a folder is looked through: it may hold a hundred thousand files.
_LOOK_EVERY_S: Final = 15.0
_PAGE_BYTES: Final = os.sysconf("SC_PAGE_SIZE")
_STATUS: Final = Path("/proc/self/statm")
_DESCRIPTORS: Final = Path("/proc/self/fd")


def add_gauges(
    metrics: Metrics,
    scheduler: Scheduler,
    directory: Path,
    node: Callable[[], dict[str, Any]],
    now: Callable[[], float],
) -> None:
    """Have the metrics show a gateway's parts; directory is where its state is, node how its node gets on."""
    stored = _Stored(directory, now)
    metrics.before(stored.look)
    gauge, gauges = metrics.gauge, metrics.gauges
    gauge("open_tasks", "Tasks that have not ended.", lambda: sum(1 for _ in scheduler.open_tasks()))
    gauge("queue_runs", "Runs that are due and wait for a slot.", scheduler.queue_length)
    gauge("queue_oldest_seconds", "How long the oldest of them has been due.", scheduler.agenda.oldest_wait_s)
    metrics.counter("late_outcomes", "Outcomes of attempts that counted no more.", (), _late(scheduler))
    metrics.counter("outvoted", "Votes of peers that a quorum of others outvoted.", (), _outvoted(scheduler))
    metrics.counter("peers_refused", "Peers that were outvoted too often.", (), _refused(scheduler))
    gauge("workers", "Registered workers.", lambda: len(scheduler.pool.workers()))
    gauges("slots", "Slots of registered workers.", ("state",), lambda: _slots(scheduler.pool))
    gauges("stored_bytes", "Bytes on disk, looked at four times a minute.", ("kind",), lambda: stored.sizes)
    metrics.counter("discovery_packets_dropped", "Packets of discovery that were dropped.", ("reason",), _drops(node))
    gauge("cluster_members", "Members of the cluster that this node sees.", lambda: node()["members"])
    gauge("process_resident_bytes", "Memory of the gateway's process.", _resident_bytes)
    gauge("process_open_fds", "File descriptors of the gateway's process.", lambda: len(os.listdir(_DESCRIPTORS)))
    started_at = time.time()
    gauge("process_start_time_seconds", "When the gateway started, in seconds since the epoch.", lambda: started_at)


def _late(scheduler: Scheduler) -> Callable[[], dict[Labels, float]]:
    return lambda: {(): scheduler.late_outcomes}


def _outvoted(scheduler: Scheduler) -> Callable[[], dict[Labels, float]]:
    return lambda: {(): scheduler.pool.disagreements.total}


def _refused(scheduler: Scheduler) -> Callable[[], dict[Labels, float]]:
    return lambda: {(): scheduler.pool.disagreements.refused}


def _drops(node: Callable[[], dict[str, Any]]) -> Callable[[], dict[Labels, float]]:
    return lambda: {(reason,): number for reason, number in node()["packets_dropped"].items()}


def _slots(pool: WorkerPool) -> dict[Labels, float]:
    found: Counter[Labels] = Counter({("free",): 0, ("all",): 0})
    for entry, free in pool.workers():
        found["all",] += entry.info.slots
        found["free",] += free
    return dict(found)


def _resident_bytes() -> float:
    return int(_STATUS.read_text().split()[1]) * _PAGE_BYTES


class _Stored:
    """How much is in a gateway's folders."""

    def __init__(self, directory: Path, now: Callable[[], float]) -> None:
        self._directory = directory
        self._now = now
        self._looked_at = float("-inf")
        self.sizes: dict[Labels, float] = {}

    def look(self) -> None:
        if self._now() - self._looked_at < _LOOK_EVERY_S:
            return
        self._looked_at = self._now()
        total, modules, artifacts = (_bytes_in(self._directory / name) for name in ("", "modules", "artifacts"))
        self.sizes = {
            ("modules",): modules,
            ("artifacts",): artifacts,
            # The database, and what lies beside it.
            ("results",): max(0, total - modules - artifacts),
        }


def _bytes_in(directory: Path) -> int:
    total = 0
    for folder, _, names in os.walk(directory):
        for name in names:
            try:
                total += os.lstat(os.path.join(folder, name)).st_size
            except OSError:
                continue  # it went while it was looked at
    return total
