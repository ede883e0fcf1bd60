"""What was measured, for people: rows become medians, ratios against the goals, tables and a plot in docs/bench/.

Holds the text. Must not measure anything.
"""

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from bench.comparison.chart import Panel

Row = Mapping[str, Any]
TITLES: Final = {
    "ww-native": "ww, native client",
    "ww-http": "ww, HTTP",
    "ww-http-plain": "ww, HTTP without its client",
    "ray": "ray",
    "dask": "dask.distributed",
    "celery": "celery on redis",
    "processpool": "ProcessPoolExecutor",
    "processpool-chunked": "ProcessPoolExecutor, chunks",
}
_SCALE_GROWTH_MAX: Final = 1.3
_SHARE_MIN: Final = 0.95


@dataclass(frozen=True, slots=True)
class Column:
    """One figure of a case."""

    case: str
    figure: str
    title: str
    form: Callable[[float], str]


def whole(value: float) -> str:
    """Show a count."""
    return f"{value:,.0f}"


def short(value: float) -> str:
    """Show some digits."""
    return f"{value:.3g}" if value < 100 else f"{value:,.0f}"


def _percent(value: float) -> str:
    return f"{value:.1%}"


COLUMNS: Final = (
    Column("noop", "runs_per_s", "no-op, runs/s", whole),
    Column("single", "p50_ms", "single, p50 ms", short),
    Column("single", "p99_ms", "single, p99 ms", short),
    Column("payload", "runs_per_s", "payloads, runs/s", whole),
    Column("compute", "share", "compute, of the limit", _percent),
)


def medians(rows: Sequence[Row]) -> dict[tuple[str, str], dict[str, float]]:
    """Return the median over rounds of each figure, by system and case."""
    by_key: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        if "error" not in row and "system" in row and row["case"] != "cost":
            by_key.setdefault((row["system"], row["case"]), []).append(row)
    return {
        key: {
            name: statistics.median(row[name] for row in of_key)
            for name, value in of_key[0].items()
            if isinstance(value, int | float) and name != "round"
        }
        for key, of_key in by_key.items()
    }


@dataclass(frozen=True, slots=True)
class Goal:
    """A ratio, and what it is to be at least, or at most."""

    what: str
    value: float
    bound: float
    at_least: bool = True

    @property
    def is_met(self) -> bool:
        """Whether it is what it is to be."""
        return self.value >= self.bound if self.at_least else self.value <= self.bound

    def row(self) -> dict[str, Any]:
        """Say it in plain data."""
        bound = {"at_least" if self.at_least else "at_most": self.bound}
        return {"case": "goal", "goal": self.what, "value": self.value, **bound, "met": self.is_met}


# What, system and case and figure, over the same of another system, bound, whether at least.
_RATIOS: Final = (
    ("batch of no-ops, native, over ray", "ww-native", "noop", "runs_per_s", "ray", 20.0, True),
    ("batch of no-ops, native, over ProcessPoolExecutor", "ww-native", "noop", "runs_per_s", "processpool", 1.0, True),
    ("single p50, native, over ray", "ww-native", "single", "p50_ms", "ray", 0.6, False),
    ("single p50, HTTP, over ray", "ww-http", "single", "p50_ms", "ray", 1.0, False),
    ("single p50, HTTP without ww's client, over ray", "ww-http-plain", "single", "p50_ms", "ray", 1.0, False),
    ("payloads, native, over ray", "ww-native", "payload", "runs_per_s", "ray", 3.0, True),
)


def goals(rows: Sequence[Row]) -> list[Goal]:
    """Return the goals that the rows say something of."""
    found = medians(rows)
    goals = [
        Goal(what, found[system, case][figure] / found[other, case][figure], bound, at_least)
        for what, system, case, figure, other, bound, at_least in _RATIOS
        if (system, case) in found and (other, case) in found
    ]
    for system in ("ww-native", "ww-http"):
        if (system, "compute") in found:
            share = found[system, "compute"]["share"]
            goals.append(Goal(f"compute, {TITLES[system]}, of the processors' limit", share, _SHARE_MIN))
    return goals + _scale_goals(scale(rows))


def scale(rows: Sequence[Row]) -> list[dict[str, float]]:
    """Return the medians over rounds of the simulated sizes, the smallest first."""
    by_size: dict[int, list[Row]] = {}
    for row in rows:
        if row.get("case") == "scale" and "error" not in row:
            by_size.setdefault(row["workers"], []).append(row)
    return [
        {name: statistics.median(row[name] for row in of_size) for name in of_size[0] if name not in ("case", "round")}
        for _, of_size in sorted(by_size.items())
    ]


def _scale_goals(sizes: Sequence[Mapping[str, float]]) -> list[Goal]:
    goals = []
    if len(sizes) > 1:
        costs = [size["cpu_us"] for size in sizes]
        # What grows is a cost over a smaller one of fewer workers; what one worker's lone runs cost more is no growth.
        growth = max(later / min(costs[: place + 1]) for place, later in enumerate(costs))
        goals.append(Goal("scheduler's time a run, growth with workers", growth, _SCALE_GROWTH_MAX, at_least=False))
        flat = max(costs) / min(costs)
        goals.append(Goal("scheduler's time a run, most over least", flat, _SCALE_GROWTH_MAX, at_least=False))
    for size in sizes:
        possible = min(size["ideal_per_s"], size["limit_per_s"])
        what = f"throughput of {size['workers']:,.0f} simulated workers, of what is possible"
        goals.append(Goal(what, size["runs_per_s"] / possible, _SHARE_MIN))
    return goals


def table(rows: Sequence[Row]) -> str:
    """Return the medians of all systems as a table."""
    found = medians(rows)
    lines = [["system", *(column.title for column in COLUMNS)]]
    for system, title in TITLES.items():
        if any((system, column.case) in found for column in COLUMNS):
            cells = [
                column.form(found[system, column.case][column.figure]) if (system, column.case) in found else ""
                for column in COLUMNS
            ]
            lines.append([title, *cells])
    return markdown(lines)


def goals_table(goals: Sequence[Goal]) -> str:
    """Return the goals as a table."""
    lines = [["goal", "is", "wanted", ""]]
    for goal in goals:
        wanted = f"at {'least' if goal.at_least else 'most'} {goal.bound:g}"
        lines.append([goal.what, f"{goal.value:.3g}", wanted, "met" if goal.is_met else "missed"])
    return markdown(lines)


def scale_table(sizes: Sequence[Mapping[str, float]]) -> str:
    """Return the simulated sizes as a table."""
    head = [
        "workers",
        "runs/s",
        "ideal",
        "share",
        "us a run",
        "gateway busy",
        "simulators busy",
        "waited",
        "limit, runs/s",
    ]
    lines = [
        [
            whole(size["workers"]), whole(size["runs_per_s"]), whole(size["ideal_per_s"]),
            _percent(size["share"]), whole(size["cpu_us"]), _percent(size["gateway_share"]),
            _percent(size["simulators_share"]), _percent(size["waited_share"]), whole(size["limit_per_s"]),
        ]
        for size in sizes
    ]  # fmt: skip
    return markdown([head, *lines])


def costs_table(rows: Sequence[Row]) -> str:
    """Return where time goes as a table."""
    processes = ("client", "gateway", "worker", "executors", "guests")
    lines = [["case", "wall", *processes, "of the gateway", "of the worker"]]
    for row in rows:
        if row.get("case") == "cost" and "error" not in row:
            figures = [short(row[f"{name}_us"]) for name in ("wall", *processes)]
            pieces = [_pieces(row[f"{name}_pieces_us"]) for name in ("gateway", "worker")]
            lines.append([f"{row['of']}, {TITLES[row['system']]}", *figures, *pieces])
    return markdown(lines) if len(lines) > 1 else ""


def _pieces(pieces: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {short(us)}" for name, us in pieces.items())


def markdown(lines: Sequence[Sequence[str]]) -> str:
    """Return rows of cells, the first of which names the columns, as a table."""
    head, *rest = lines
    text = [head, ["---"] + ["---:"] * (len(head) - 1), *rest]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in text)


def panels(rows: Sequence[Row]) -> list[Panel]:
    """Return what is plotted: a panel for each case."""
    found = medians(rows)
    made = []
    for column, title, is_log in (
        (COLUMNS[0], "no-op runs a second", True),
        (COLUMNS[1], "one at a time: p50, ms", True),
        (COLUMNS[3], "100 kB in and out, runs a second", True),
        (COLUMNS[4], "100 ms of computing: share of the processors' limit", False),
    ):
        bars = [
            (TITLES[system], found[system, column.case][column.figure])
            for system in TITLES
            if (system, column.case) in found
        ]
        if bars:
            made.append(Panel(title, bars, column.form, is_log))
    return made


_METHOD: Final = """\
# ww and what else one would pick

Written by `bench/compare.py --write-docs`; the rows behind it are in [compare.jsonl](compare.jsonl). One run on one
machine. Each system has two slots and processes of its own; they take turns, round by round, and are never there at
once. A round begins a system anew and warms it up; figures are medians over rounds. All inputs differ, all results are
brought back to the client, and each is checked.

- **no-op**: a batch of small inputs whose results are the inputs. **single**: the same, one after the other, each from
  its submission to its result. **payloads**: bytes that cannot be compressed, in and out. **compute**: runs that use a
  processor for about that long; *of the limit* is the processor time that they used against what two processors have.
- **ww** is `ww gateway` and one `ww worker` as real processes over TLS. Everything is on disk before it is answered,
  and each run is in a WebAssembly sandbox of its own; wasm/noop, wasm/echo (copies stdin to stdout) and wasm/spin.
- **The others** run the same as Python functions, on one machine, without encryption and without a sandbox, and lose
  what is under way when they are killed. To compute they spin until they have used that much processor time, so that
  none has more to do. ray: one `ray.get` of all references; payloads are small enough to travel inline. dask: `map` and
  one `gather`, payloads scattered. celery: prefork, 64 runs prefetched for each process, a redis that writes nothing to
  disk, results by subscription. ProcessPoolExecutor: `map`, one input at a time as is its default, and with chunks,
  where a message holds many inputs and the runs in it share their fate.
"""


def document(rows: Sequence[Row], about: Mapping[str, Any]) -> str:
    """Return the page of docs/bench/."""
    parts = [_METHOD, "## Results\n", table(rows), ""]
    if panels(rows):
        parts.append("![The same as bars](compare.svg)\n")
    if errors := [row for row in rows if "error" in row]:
        parts += ["Not measured:\n", *(f"- {row.get('system', row.get('case', ''))}: {row['error']}" for row in errors)]
        parts.append("")
    if found := goals(rows):
        parts += ["## Goals\n", goals_table(found), ""]
    if text := costs_table(rows):
        parts += ["## Where the time of a run goes\n", _COSTS, text, ""]
    if sizes := scale(rows):
        parts += ["## Many workers, simulated\n", _SCALE, scale_table(sizes), ""]
    parts += ["## Machine and versions\n", *(f"- {name}: {value}" for name, value in about.items())]
    return "\n".join(parts) + "\n"


_COSTS: Final = """\
Microseconds a run; wall is what a run takes of a batch, or one after the other, the rest processor time. executors are
the sandbox's processes without guests. Of the gateway's and the worker's threads it was looked where they are at each
tick: `loop` is asyncio, sockets and Cap'n Proto, `other_threads` the database's writer and polling. Looking slows them
a little, so a batch takes longer here than above. What bounds it, and what was tried: [limits.md](limits.md).
"""
_SCALE: Final = """\
One gateway, without HTTP, and workers that only wait, each with a connection of its own and one slot, in a process
beside it. us a run is processor time of the whole gateway but what it uses while nothing is queued. The limit is what
its one scheduling thread could do in a second at that cost. Waited is the time in which the gateway had something to do
and no processor to do it on: where that is much, the machine was at its limit, with the workers on it. With few workers
a run costs more, since each finds the gateway asleep and is alone in its commit.
"""
