"""Where the processor time of a run in ww goes: by process, and by piece of the gateway and of the worker.

    python -m bench.comparison.costs SYSTEM CASE JSON SECONDS       prints one JSON line

Holds a cluster of its own, whose processes look at their stacks at each tick (../sampled.py): that costs a few percent,
so these are not the figures that are compared. Times are microseconds of a processor a run.

client: the process that submits and takes results. gateway, worker: theirs, all threads. executors: the sandbox's
processes, without guests, which is what guests used themselves. Pieces: `loop` is asyncio, sockets and Cap'n Proto;
`other_threads` the database's writer and polling.
"""

import contextlib
import json
import os
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from bench.comparison.cases import Sizes, measure, one_line, warm_up
from bench.comparison.ours import Cluster, Ww, asked, cluster
from bench.processor import cpu_seconds, descendants_cpu_seconds

# However little of its time a case uses.
_ROUNDS_MAX: Final = 50


def measured(system: str, case: str, sizes: Sizes, seconds: float) -> dict[str, Any]:
    """Repeat a case for about so long, and say what a run of it cost."""
    with tempfile.TemporaryDirectory(prefix="ww-bench-") as folder:
        files = {name: Path(folder, name) for name in ("gateway", "worker")}
        with cluster(files) as it, asked(it, natively=system == "ww-native") as asking:
            row = _run(it, asking, case, sizes, seconds)
        seen = {name: json.loads(path.read_text())["pieces"] for name, path in files.items()}
    for name, looks in seen.items():
        total = max(1, sum(looks.values()))
        row[f"{name}_pieces_us"] = {
            piece: row[f"{name}_us"] * count / total
            for piece, count in sorted(looks.items(), key=lambda each: -each[1])
        }
    return {"case": "cost", "system": system, "of": case} | row


def _run(it: Cluster, system: Ww, case: str, sizes: Sizes, seconds: float) -> dict[str, Any]:
    warm_up(system, [case], sizes)
    for pid in (it.gateway_pid, it.worker_pid):
        # From now on it looks.
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGUSR1)
    system.guests_s, before = 0.0, _used(it)
    runs = rounds = wall_s = client_s = 0.0
    begun_at = time.perf_counter()
    while time.perf_counter() - begun_at < seconds and rounds < _ROUNDS_MAX:
        found = measure(system, case, sizes)
        rounds += 1
        runs += found["count"]
        wall_s += found["wall_s"]
        client_s += found["client_us"] * found["count"] / 1e6
    gateway_s, worker_s, sandboxes_s = (now - then for now, then in zip(_used(it), before, strict=True))
    used_s = {
        "wall": wall_s,
        "client": client_s,
        "gateway": gateway_s,
        "worker": worker_s,
        "executors": sandboxes_s - system.guests_s,
        "guests": system.guests_s,
    }
    return {"count": int(runs)} | {f"{name}_us": value / runs * 1e6 for name, value in used_s.items()}


def _used(it: Cluster) -> tuple[float, float, float]:
    """Return the processor time that gateway, worker, and the sandbox's processes have used."""
    return cpu_seconds(it.gateway_pid), cpu_seconds(it.worker_pid), descendants_cpu_seconds(it.worker_pid)


def main(words: Sequence[str]) -> int:
    """Measure once."""
    system, case, sizes, seconds = words
    try:
        row = measured(system, case, Sizes(**json.loads(sizes)), float(seconds))
    except Exception as error:
        print(json.dumps({"error": one_line(error)}))
        return 1
    print(json.dumps(row))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
