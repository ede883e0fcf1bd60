"""How fast nodes find each other, and what an idle cluster says: simulated, and with real processes.

    .venv/bin/python bench/discovery.py [--starts N] [--searches N] [--write-docs]

One JSON line a case. With --write-docs the searches, in simulated time, are many, and their table and plot are written
into docs/.
"""

import argparse
import json
import random
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).resolve().parent.parent
sys.path[0] = str(ROOT)

from bench.cluster import Client, Processes, gateway, processes, worker_of  # noqa: E402
from bench.plot import plot  # noqa: E402
from bench.simulation import Network, idle, without_signatures  # noqa: E402

SIZES: Final = (2, 3, 5, 10, 20, 50, 100, 200, 500, 1000)
LOSS: Final = 0.1
_BOUND_S: Final = 60.0
_IDLE_S: Final = 600.0


def report(case: str, **figures: float | str) -> None:
    rounded = {name: float(f"{value:.4g}") if isinstance(value, float) else value for name, value in figures.items()}
    print(json.dumps({"case": case} | rounded), flush=True)


@dataclass(frozen=True)
class Finding:
    """How searches in clusters of one size went."""

    nodes: int
    wanted: str
    p50_ms: float
    p99_ms: float
    p999_ms: float
    max_ms: float
    packets_mean: float
    packets_max: int


def finding(nodes: int, searches: int, *, for_one: bool) -> Finding:
    """Search that often in a cluster of that size, at 10 % loss."""
    rng = random.Random(nodes * 2 + for_one)
    with without_signatures():
        network = Network(nodes, loss=LOSS, rng=rng)
        found = [network.search(for_one=for_one, bound_s=_BOUND_S) for _ in range(searches)]
    times = sorted(search.seconds * 1e3 for search in found)
    p50, p99, p999 = (times[min(len(times) - 1, int(len(times) * share))] for share in (0.5, 0.99, 0.999))
    packets = [search.packets for search in found]
    wanted = "one" if for_one else "anybody"
    return Finding(nodes, wanted, p50, p99, p999, times[-1], statistics.mean(packets), max(packets))


def show_idle() -> None:
    for nodes in (2, 10, 100):
        with without_signatures():
            did = idle(nodes, seconds=_IDLE_S, loss=0.0, rng=random.Random(nodes))
        minutes = _IDLE_S / 60
        report(
            "idle_cluster",
            nodes=nodes,
            packets_per_minute=did.packets / minutes,
            bytes_per_minute=did.bytes / minutes,
            packets_per_minute_and_node=did.packets / minutes / nodes,
            bytes_per_packet=did.bytes / did.packets,
            taken_for_gone_by_mistake=did.mistaken,
        )


def process_start(*arguments: str) -> float:
    start = time.perf_counter()
    subprocess.run([sys.executable, *arguments], cwd=ROOT, check=True)
    return time.perf_counter() - start


def first_offer(started: Processes, client: Client, peer: str, state: Path | None) -> float:
    """Start a worker and return the seconds until the gateway has a free slot of it."""
    before = {worker["peer"] for worker in client.request("GET", "/workers")}
    start = time.perf_counter()
    with worker_of(started, peer, *(("--state", str(state)) if state else ()), "--slots", "1"):
        while not any(w["free"] for w in client.request("GET", "/workers") if w["peer"] not in before):
            if time.perf_counter() - start > _BOUND_S:
                raise RuntimeError(f"no offer within {_BOUND_S:g} s")
            time.sleep(0.002)
        return time.perf_counter() - start


def show_starts(count: int) -> None:
    """Measure from a worker's start to its first offer: found by survey, and by the registry of the machine."""
    with (
        tempfile.TemporaryDirectory(prefix="ww-bench-") as folder,
        processes() as started,
        gateway(started) as client,
    ):
        peer: str = client.request("GET", "/healthz")["peer"]
        times: dict[str, list[float]] = {"interpreter": [], "imports": [], "survey": [], "registry": []}
        for number in range(-1, count):
            # In turn, so that what else the machine does falls on all alike.
            one = {
                "interpreter": process_start("-c", "pass"),
                "imports": process_start("-c", "import ww.cli"),
                "survey": first_offer(started, client, peer, Path(folder, str(number))),
                "registry": first_offer(started, client, peer, None),
            }
            if number >= 0:  # the first of each warms the caches
                for case, seconds in one.items():
                    times[case].append(seconds)
    middle = {case: statistics.median(seconds) for case, seconds in times.items()}
    for case in ("survey", "registry"):
        report(
            "worker_start_to_first_offer",
            found_by=case,
            starts=count,
            p50_s=middle[case],
            max_s=max(times[case]),
            p50_without_interpreter_start_s=middle[case] - middle["interpreter"],
            p50_without_imports_s=middle[case] - middle["imports"],
        )
    report("process_start", interpreter_p50_s=middle["interpreter"], imports_p50_s=middle["imports"])


def write_docs(found: Sequence[Finding]) -> None:
    """Put the table between its marks in docs/discovery.md, and draw docs/discovery.svg."""
    head = "| nodes | looks for | p50 ms | p99 ms | p99.9 ms | max ms | packets, mean | packets, max |"
    head += "\n|--:|---|--:|--:|--:|--:|--:|--:|"
    rows = [
        f"| {f.nodes} | {f.wanted} | {f.p50_ms:.0f} | {f.p99_ms:.0f} | {f.p999_ms:.0f} | {f.max_ms:.0f}"
        f" | {f.packets_mean:.1f} | {f.packets_max} |"
        for f in found
    ]
    page = ROOT / "docs" / "discovery.md"
    table = "\n".join([head, *rows])
    mark = r"(<!-- table of bench/discovery.py -->\n).*?(\n<!-- end of table -->)"
    text, count = re.subn(mark, lambda m: m[1] + table + m[2], page.read_text(), flags=re.DOTALL)
    if count != 1:
        raise RuntimeError("docs/discovery.md has no place for the table")
    page.write_text(text)
    lines: dict[str, list[tuple[float, float]]] = {}
    for wanted in ("anybody", "one"):
        of_kind = [f for f in found if f.wanted == wanted]
        lines[f"{wanted}, p99.9 ms"] = [(f.nodes, f.p999_ms) for f in of_kind]
        lines[f"{wanted}, median ms"] = [(f.nodes, f.p50_ms) for f in of_kind]
        lines[f"{wanted}, packets"] = [(f.nodes, f.packets_mean) for f in of_kind]
    (ROOT / "docs" / "discovery.svg").write_text(plot(lines))


def main(arguments: argparse.Namespace) -> None:
    found = []
    for nodes in SIZES if arguments.write_docs else (2, 10, 100, 1000):
        for for_one in (False, True):
            result = finding(nodes, arguments.searches, for_one=for_one)
            found.append(result)
            figures: dict[str, Any] = {name: getattr(result, name) for name in result.__dataclass_fields__}
            report("found_in_simulated", loss=LOSS, searches=arguments.searches, **figures)
    if arguments.write_docs:
        write_docs(found)
        return
    show_idle()
    show_starts(arguments.starts)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Measure how fast nodes find each other; one JSON line a case.")
    parser.add_argument("--starts", type=int, default=15, help="starts of a real worker (15)")
    parser.add_argument(
        "--searches", type=int, default=2000, help="simulated searches in a cluster of each size (2000)"
    )
    parser.add_argument("--write-docs", action="store_true", help="write the table and the plot of searches into docs/")
    main(parser.parse_args())
