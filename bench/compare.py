"""ww against what one would pick instead, on this machine: ray, dask.distributed, celery on redis, ProcessPoolExecutor.

    scripts/setup bench
    .venv/bin/python bench/compare.py [--quick] [--parts systems,cost,scale] [--systems S,..] [--cases C,..]
                                      [--rounds N] [--scale N,..] [--write-docs]

One JSON line a case, system and round, then one a goal; tables go to stderr. With --write-docs the rows, the tables and
a plot are written into docs/bench/. Each system is measured by a process of its own (comparison/driver.py), one after
the other. Systems whose packages are missing are said so, and left out.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).resolve().parent.parent
sys.path[0] = str(ROOT)

from bench.comparison import report  # noqa: E402
from bench.comparison.cases import CASES, QUICK, Sizes  # noqa: E402
from bench.comparison.chart import chart  # noqa: E402
from bench.comparison.driver import SYSTEMS  # noqa: E402
from bench.comparison.machine import commit, machine, versions  # noqa: E402
from bench.comparison.peers import redis_version  # noqa: E402

# What each system is measured in, where that is not all.
_CASES_OF: Final = {"ww-http-plain": ("single",), "processpool-chunked": ("noop", "payload")}
_PARTS: Final = ("systems", "cost", "scale")
_COST_SYSTEMS: Final = ("ww-native", "ww-http")
_COST_CASES: Final = ("noop", "single", "payload")
_PACKAGES: Final = ("ray", "distributed", "celery", "redis", "wasmtime", "pycapnp")
_SCALE: Final = (1, 10, 100, 1000)
_RUN_S: Final = 0.1
_ENDS_WITHIN_S: Final = 10.0


def rows_of(module: str, *arguments: str, timeout_s: float) -> Iterator[dict[str, Any]]:
    """Run a module in a process of its own, and yield its lines; what it leaves running is killed with it."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("WW_")}
    environment["PYTHONPATH"] = str(ROOT)  # for the processes that a system begins
    with tempfile.TemporaryFile("w+") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", module, *arguments],
            cwd=ROOT, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log, text=True,
            start_new_session=True,
        )  # fmt: skip
        try:
            said, _ = process.communicate(timeout=timeout_s)
        except subprocess.TimeoutExpired:
            yield {"error": f"was not done within {timeout_s:g} s"}
            return
        finally:
            _end(process)
        lines = [json.loads(line) for line in said.splitlines()]
        yield from lines
        if process.returncode and not any("error" in line for line in lines):
            log.seek(0)
            last = next((line.strip() for line in reversed(log.readlines()) if line.strip()), "")
            yield {"error": f"ended with code {process.returncode}: {last[:200]}"}


def _end(process: "subprocess.Popen[str]") -> None:
    """End a process and its group: politely, since it has processes of its own to end, then not."""
    if process.poll() is None:
        process.send_signal(signal.SIGINT)
        with suppress(subprocess.TimeoutExpired):
            process.wait(_ENDS_WITHIN_S)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    if process.stdout is not None:
        process.stdout.close()


class Rows:
    """All rows, said as they come."""

    def __init__(self) -> None:
        self.all: list[dict[str, Any]] = []
        self.begun_at = time.monotonic()

    def add(self, row: dict[str, Any]) -> None:
        """Say one."""
        shown = _rounded(row)
        self.all.append(shown)
        print(json.dumps(shown), flush=True)


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.4g}")
    if isinstance(value, dict):
        return {name: _rounded(each) for name, each in value.items()}
    return value


def systems(rows: Rows, arguments: argparse.Namespace, sizes: Sizes) -> None:
    """Measure each system in turn, as often as there are rounds; one that cannot be measured is not tried again."""
    failed = set()
    for number in range(arguments.rounds):
        for name in arguments.systems:
            cases = [case for case in arguments.cases if case in _CASES_OF.get(name, CASES)]
            if not cases or name in failed:
                continue
            asked = json.dumps({"cases": cases, "sizes": asdict(sizes), "round": number})
            for row in rows_of("bench.comparison.driver", name, asked, timeout_s=arguments.timeout):
                rows.add({"system": name} | row)
                if "error" in row:
                    failed.add(name)


def cost(rows: Rows, arguments: argparse.Namespace, sizes: Sizes) -> None:
    """Say where the time of a run in ww goes."""
    seconds = 1.0 if arguments.quick else 5.0
    for name in (name for name in _COST_SYSTEMS if name in arguments.systems):
        for case in (case for case in _COST_CASES if case in arguments.cases):
            given = (name, case, json.dumps(asdict(sizes)), str(seconds))
            for row in rows_of("bench.comparison.costs", *given, timeout_s=arguments.timeout):
                rows.add({"case": "cost", "system": name, "of": case} | row)


def scale(rows: Rows, arguments: argparse.Namespace) -> None:
    """Say what a run costs the scheduler with so many workers."""
    # One worker alone ends ten runs a second: fewer would say little.
    seconds = 1.0 if arguments.quick else 10.0
    for number in range(arguments.rounds):
        for workers in arguments.scale:
            given = (str(workers), str(seconds), str(_RUN_S))
            for row in rows_of("bench.comparison.scale", *given, timeout_s=arguments.timeout):
                rows.add({"case": "scale", "workers": workers, "round": number} | row)


def about(sizes: Sizes, rounds: int) -> dict[str, Any]:
    """Describe what was measured, and on what."""
    found = {"commit": commit(ROOT), "date": time.strftime("%Y-%m-%d", time.gmtime()), "rounds": rounds}
    return found | asdict(sizes) | machine() | versions(_PACKAGES) | redis_version()


def write_docs(rows: Sequence[dict[str, Any]], described: dict[str, Any], folder: Path) -> None:
    """Write the page, its plot and the rows."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "compare.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    (folder / "README.md").write_text(report.document(rows, described))
    if panels := report.panels(rows):
        (folder / "compare.svg").write_text(chart("ww compared: see the table", panels, "ww,"))


def main(arguments: argparse.Namespace) -> int:
    """Measure what was chosen; the exit code says whether all of it could be."""
    sizes = QUICK if arguments.quick else Sizes()
    if arguments.noops:
        sizes = replace(sizes, noops=arguments.noops)
    rows = Rows()
    described = about(sizes, arguments.rounds)
    rows.add({"case": "machine"} | described)
    if "systems" in arguments.parts:
        systems(rows, arguments, sizes)
    if "cost" in arguments.parts:
        cost(rows, arguments, sizes)
    if "scale" in arguments.parts:
        scale(rows, arguments)
    found = report.goals(rows.all)
    for goal in found:
        rows.add(goal.row())
    shown = [report.table(rows.all), report.goals_table(found), report.costs_table(rows.all)]
    shown.append(report.scale_table(report.scale(rows.all)))
    print("\n\n".join(text for text in shown if text.count("\n") > 1), file=sys.stderr)
    if arguments.write_docs:
        write_docs(rows.all, described, Path(arguments.write_docs))
    return 1 if any("error" in row for row in rows.all) else 0


def some_of(known: Sequence[str]) -> Any:
    """Return what reads names of those, by commas."""

    def read(text: str) -> list[str]:
        names = text.split(",")
        if unknown := [name for name in names if name not in known]:
            raise argparse.ArgumentTypeError(f"{unknown[0]!r} is none of {', '.join(known)}")
        return names

    return read


def _counts(text: str) -> list[int]:
    counts = [int(each) for each in text.split(",")]
    if not all(1 <= each <= 10_000 for each in counts):
        raise argparse.ArgumentTypeError("workers are 1 to 10,000")
    return counts


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Compare ww with what one would pick instead; one JSON line a case.")
    parser.add_argument("--parts", type=some_of(_PARTS), default=_PARTS, help="systems, cost, scale (all)")
    parser.add_argument("--systems", type=some_of(list(SYSTEMS)), default=list(SYSTEMS), help="by commas (all)")
    parser.add_argument("--cases", type=some_of(CASES), default=CASES, help="noop, single, payload, compute (all)")
    parser.add_argument("--rounds", type=int, default=3, help="how often each is measured (3)")
    parser.add_argument("--quick", action="store_true", help="a tenth of everything: to see that it works")
    parser.add_argument("--noops", type=int, default=0, help="runs in the batch of no-ops (10000)")
    parser.add_argument("--scale", type=_counts, default=_SCALE, help="simulated workers, by commas (1,10,100,1000)")
    parser.add_argument("--timeout", type=float, default=600.0, help="seconds for a system and round (600)")
    parser.add_argument(
        "--write-docs", nargs="?", const=str(ROOT / "docs" / "bench"), default="", metavar="DIR",
        help="write table, plot and rows (docs/bench)",
    )  # fmt: skip
    sys.exit(main(parser.parse_args()))
