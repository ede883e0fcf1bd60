"""Python functions in ww against what one would pick instead: ray, dask.distributed, ProcessPoolExecutor.

    scripts/setup bench,python
    .venv/bin/python bench/functions.py [--quick] [--systems S,..] [--cases C,..] [--rounds N] [--write-docs]

One JSON line a case, system and round, then one a goal; tables go to stderr. With --write-docs the rows and the tables
are written into docs/bench/. Each system is measured by a process of its own (comparison/functions.py), one after the
other. Systems whose packages are missing are said so, and left out.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).resolve().parent.parent
sys.path[0] = str(ROOT)

from bench.compare import Rows, rows_of, some_of  # noqa: E402
from bench.comparison.function_systems import CHUNK, SYSTEMS  # noqa: E402
from bench.comparison.functions import CASES, QUICK, Sizes  # noqa: E402
from bench.comparison.machine import commit, machine, versions  # noqa: E402
from bench.comparison.report import Column, Goal, goals_table, markdown, medians, short, whole  # noqa: E402

_PACKAGES: Final = ("ray", "distributed", "componentize-py", "wasmtime", "pycapnp")
TITLES: Final = {
    "ww": "ww, each call in a fresh sandbox",
    "ww-100": f"ww, chunksize={CHUNK}: {CHUNK} calls a sandbox",
    "ray": "ray",
    "dask": "dask.distributed",
    "processpool": "ProcessPoolExecutor",
    "processpool-100": f"ProcessPoolExecutor, chunksize={CHUNK}",
}
_COLUMNS: Final = (
    Column("noop", "calls_per_s", "map of a no-op, calls/s", whole),
    Column("millisecond", "calls_per_s", "map of 1 ms, calls/s", whole),
    Column("call", "p50_ms", "one call, p50 ms", short),
    Column("call", "p99_ms", "one call, p99 ms", short),
    Column("first", "start_s", "start, s", short),
    Column("first", "first_s", "first call, s", short),
)
# What, system and case and figure, over the same of another system, bound, whether at least.
_RATIOS: Final = (
    ("map of a no-op, fresh sandboxes, over ray", "ww", "noop", "calls_per_s", "ray", 1.0, True),
    ("one call p50, fresh sandbox, over ray", "ww", "call", "p50_ms", "ray", 2.0, False),
)
# Others that are worth reading, without a bound.
_AGAINST: Final = ("ray", "dask", "processpool")

_METHOD: Final = f"""\
# Python functions, and what else one would pick

Written by `bench/functions.py --write-docs`; the rows behind it are in [functions.jsonl](functions.jsonl). One run on
one machine. Each system has two processes that work; they take turns, round by round, and are never there at once. A
round begins a system anew; after the first call it is warmed up; figures are medians over rounds. All inputs differ,
all results are brought back in the order of the inputs, and each is checked.

- **map of a no-op**, **of 1 ms**: 10,000 items; the function returns its argument, at once or after a millisecond in
  which it keeps its processor: two processors can do 2,000 of those a second. **one call**: a no-op, 100 times, one
  after the other, each from its submission to its result.
- **start**: until the system's processes are there. **first call**: the first result after that: in ww the guest, a
  CPython of about 40 MB, is sent to the worker and compiled there, once a machine; here the worker's cache is empty.
- **ww** is `ww gateway` and one `ww worker` with two slots as real processes over TLS, asked by `ww.Executor`. Every
  call and result is on disk before it is answered. With `chunksize=0`, the default, each call has a guest that is as it
  was after the code was loaded, nothing of another call in it; with `chunksize={CHUNK}` so many calls share one.
- **The others** call the same functions in plain processes, without encryption and without a sandbox; what one call
  leaves behind, the next one finds. ray: one `ray.get` of all references. dask: `map` and one `gather`.
"""


def ratios(rows: Sequence[Mapping[str, Any]]) -> list[Goal]:
    """Return the goals that the rows say something of."""
    found = medians(rows)
    return [
        Goal(what, found[system, case][figure] / found[other, case][figure], bound, at_least)
        for what, system, case, figure, other, bound, at_least in _RATIOS
        if (system, case) in found and (other, case) in found
    ]


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return the medians of all systems as a table."""
    found = medians(rows)
    lines = [["system", *(column.title for column in _COLUMNS)]]
    for system, title in TITLES.items():
        cells = [_cell(found, system, column.case, column.figure, column.form) for column in _COLUMNS]
        if any(cells):
            lines.append([title, *cells])
    return markdown(lines)


def against(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return how often as fast as the others ww is, as a table."""
    found = medians(rows)
    lines = [["ww, times as fast as", *(f"{column.title.partition(',')[0]}" for column in _COLUMNS[:3])]]
    for mine in ("ww", "ww-100"):
        for other in _AGAINST:
            cells = []
            for column in _COLUMNS[:3]:
                key = column.figure
                one, two = found.get((mine, column.case), {}).get(key), found.get((other, column.case), {}).get(key)
                value = None if not one or not two else one / two if key == "calls_per_s" else two / one
                cells.append("" if value is None else f"{value:.3g}")
            if any(cells):
                lines.append([f"{TITLES[other]} ({TITLES[mine].removeprefix('ww, ')})", *cells])
    return markdown(lines) if len(lines) > 1 else ""


def _cell(
    found: Mapping[tuple[str, str], Mapping[str, float]], system: str, case: str, figure: str,
    form: Callable[[float], str],
) -> str:  # fmt: skip
    return form(found[system, case][figure]) if (system, case) in found else ""


def document(rows: Sequence[Mapping[str, Any]], about: Mapping[str, Any]) -> str:
    """Return the page docs/bench/functions.md."""
    parts = [_METHOD, "## Results\n", table(rows), "", against(rows), ""]
    if errors := [row for row in rows if "error" in row]:
        parts += ["Not measured:\n", *(f"- {row.get('system', '')}: {row['error']}" for row in errors), ""]
    if found := ratios(rows):
        parts += ["## Goals\n", goals_table(found), ""]
    parts += ["## Machine and versions\n", *(f"- {name}: {value}" for name, value in about.items())]
    return "\n".join(parts) + "\n"


def measure(rows: Rows, arguments: argparse.Namespace, sizes: Sizes) -> None:
    """Measure each system in turn, as often as there are rounds; one that cannot be measured is not tried again."""
    failed = set()
    for number in range(arguments.rounds):
        for name in (name for name in arguments.systems if name not in failed):
            asked = json.dumps({"cases": arguments.cases, "sizes": asdict(sizes), "round": number})
            for row in rows_of("bench.comparison.functions", name, asked, timeout_s=arguments.timeout):
                rows.add({"system": name} | row)
                if "error" in row:
                    failed.add(name)


def main(arguments: argparse.Namespace) -> int:
    """Measure what was chosen; the exit code says whether all of it could be."""
    sizes = QUICK if arguments.quick else Sizes()
    rows = Rows()
    found = {"commit": commit(ROOT), "date": time.strftime("%Y-%m-%d", time.gmtime()), "rounds": arguments.rounds}
    about = found | asdict(sizes) | machine() | versions(_PACKAGES)
    rows.add({"case": "machine"} | about)
    measure(rows, arguments, sizes)
    goals = ratios(rows.all)
    for goal in goals:
        rows.add(goal.row())
    shown = [table(rows.all), against(rows.all), goals_table(goals)]
    print("\n\n".join(text for text in shown if text.count("\n") > 1), file=sys.stderr)
    if arguments.write_docs:
        folder = Path(arguments.write_docs)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "functions.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows.all))
        (folder / "functions.md").write_text(document(rows.all, about))
    return 1 if any("error" in row for row in rows.all) else 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Compare calls of Python functions; one JSON line a case.")
    parser.add_argument("--systems", type=some_of(list(SYSTEMS)), default=list(SYSTEMS), help="by commas (all)")
    parser.add_argument("--cases", type=some_of(CASES), default=CASES, help="first, noop, millisecond, call (all)")
    parser.add_argument("--rounds", type=int, default=3, help="how often each is measured (3)")
    parser.add_argument("--quick", action="store_true", help="a tenth of everything: to see that it works")
    parser.add_argument("--timeout", type=float, default=600.0, help="seconds for a system and round (600)")
    parser.add_argument(
        "--write-docs", nargs="?", const=str(ROOT / "docs" / "bench"), default="", metavar="DIR",
        help="write tables and rows (docs/bench)",
    )  # fmt: skip
    sys.exit(main(parser.parse_args()))
