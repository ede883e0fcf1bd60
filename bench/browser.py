"""A worker in a browser's tab beside one in Deno and one in Python: no-op runs and the hash puzzle, in one run.

    scripts/setup browser,deno
    .venv/bin/python bench/browser.py [--quick] [--workers W,..] [--cases C,..] [--rounds N] [--slots N] [--write-docs]

One JSON line a case, worker and round, then one a goal; a table goes to stderr. All workers are of one gateway, and
take turns: each is measured while the others are idle. With --write-docs the rows and the table are written into
docs/bench/. Needs Chromium on the PATH; workers whose program is missing are said so, and left out.
"""

import argparse
import contextlib
import json
import statistics
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).resolve().parent.parent
sys.path[0] = str(ROOT)

from bench.cluster import Client, Processes, form, gateway, processes  # noqa: E402
from bench.compare import Rows, some_of  # noqa: E402
from bench.comparison.machine import commit, machine, versions  # noqa: E402
from bench.comparison.report import Column, Goal, goals_table, markdown, medians, short, whole  # noqa: E402
from bench.tab import NoBrowserError, chromium, join  # noqa: E402

WORKERS: Final = {"tab": "a tab of Chromium", "deno": "Deno", "python": "Python, wasmtime"}
CASES: Final = ("noop", "single", "hash")
# What each says of itself, by which tasks are sent to it.
_LABELS: Final = {"tab": "kind=browser", "deno": "kind=deno", "python": "place=python"}
_NOOP: Final = (ROOT / "wasm" / "noop" / "noop.wasm").read_bytes()
_HASH: Final = (ROOT / "wasm" / "hash" / "hash.wasm").read_bytes()
_JOIN_S: Final = 30.0
_WARM_UP: Final = 200
_WARM_UP_DIFFICULTY: Final = 4
_COLUMNS: Final = (
    Column("noop", "runs_per_s", "no-op, a batch, runs/s", whole),
    Column("single", "runs_per_s", "no-op, one at a time, runs/s", whole),
    Column("single", "p50_ms", "p50 ms", short),
    Column("single", "p99_ms", "p99 ms", short),
    Column("hash", "hashes_per_s", "hashes/s in the guest", whole),
    Column("hash", "hashes_per_s_in_all", "hashes/s in all", whole),
)
_NOOP_GOAL: Final = 1.0
_HASH_GOAL: Final = 0.8

_METHOD: Final = """\
# A tab, Deno and Python

Written by `bench/browser.py --write-docs`; the rows behind it are in [browser.jsonl](browser.jsonl). One run on one
machine: one gateway, and one worker of each kind, all of them real processes on loopback. They take turns, round by
round; while one is measured the others are idle. Figures are medians over rounds, and each result is checked.

- **no-op, a batch**: runs of wasm/noop in one task, from sending it to the answer that it has ended. The gateway sends
  them in groups. **one at a time**: `POST /tasks?wait=` of one run, one after the other, over one connection.
- **hashes/s in the guest**: wasm/hash with different inputs: how many hashes the
  answers took, over the time that the worker says its guests had. **in all**: over the time that the client waited.
- **a tab** and **Deno** run the same TypeScript, over a WebSocket, and each run on V8 is an instance of its own.
  **Python** is `ww worker`, over TLS: wasmtime in a sandbox process.
"""


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much is measured."""

    noops: int = 10_000
    """Runs of one batch."""
    singles: int = 300
    """Tasks, one after the other."""
    puzzles: int = 10
    """Different inputs of the hash puzzle."""
    difficulty: int = 5
    """Of the puzzle: zeros that the hash begins with, and so about 16 to that power of hashes."""


QUICK: Final = Sizes(noops=1000, singles=30, puzzles=2, difficulty=4)


def noop(client: Client, labels: str, sizes: Sizes) -> dict[str, float]:
    """Measure one task of many runs."""
    _ended(client, _NOOP, labels=labels, repeats=_WARM_UP)
    took_s = _ended(client, _NOOP, labels=labels, repeats=sizes.noops)
    return {"count": sizes.noops, "took_s": took_s, "runs_per_s": sizes.noops / took_s}


def single(client: Client, labels: str, sizes: Sizes) -> dict[str, float]:
    """Measure tasks of one run each, one after the other."""
    times_s = sorted(_ended(client, _NOOP, labels=labels) for _ in range(sizes.singles))
    return {
        "count": sizes.singles,
        "runs_per_s": sizes.singles / sum(times_s),
        "p50_ms": statistics.median(times_s) * 1e3,
        "p99_ms": times_s[int(len(times_s) * 0.99)] * 1e3,
    }


def hashes(client: Client, labels: str, sizes: Sizes) -> dict[str, float]:
    """Measure guests that compute: as many hashes as their answers say."""
    # V8 compiles twice: at once, and again, better, what runs for long.
    _ended(client, _HASH, labels=labels, input=0, difficulty=_WARM_UP_DIFFICULTY, repeats=4)
    start = time.perf_counter()
    ids = [
        client.post_task(_HASH, labels=labels, input=input, difficulty=sizes.difficulty)["id"]
        for input in range(sizes.puzzles)
    ]
    told = [_wait(client, client.request("GET", f"/tasks/{id}"))["results"][0] for id in ids]
    took_s = time.perf_counter() - start
    count = sum(int(result["result"]) for result in told)
    return {
        "count": sizes.puzzles,
        "hashes": count,
        "hashes_per_s": count / sum(result["wall_seconds"] for result in told),
        "hashes_per_s_in_all": count / took_s,
    }


_MEASURES: Final = {"noop": noop, "single": single, "hash": hashes}


def _ended(client: Client, wasm: bytes, **fields: object) -> float:
    """Return the seconds from sending a task to the answer that shows its end."""
    start = time.perf_counter()
    _wait(client, client.request("POST", "/tasks?wait=60", *form(wasm, **fields)))
    return time.perf_counter() - start


def _wait(client: Client, task: Any) -> Any:
    while task["finished_at"] is None:
        task = client.request("GET", f"/tasks/{task['id']}?wait=60")
    if task["status"] != "succeeded":
        raise RuntimeError(f"a task {task['status']}: {task['results'][:1]}")
    return task


@contextlib.contextmanager
def joined(name: str, started: Processes, client: Client, slots: int) -> Iterator[None]:
    """Have a worker of that kind; NoBrowserError or RuntimeError where it cannot be."""
    peer = client.request("GET", "/healthz")["peer"]
    many = ("--slots", str(slots))
    with contextlib.ExitStack() as stack:
        if name == "tab":
            context = stack.enter_context(chromium()).new_context()
            join(context, client.address, slots)
        elif name == "deno":
            where = ("--gateway", f"http://{client.address}")
            started.start("worker", "--dial", peer, "--runtime", "deno", *where, *many, ready="(joined) gateway")
        else:
            started.start("worker", "--dial", peer, "--meta", _LABELS[name], *many, ready="(joined) gateway")
        key, _, value = _LABELS[name].partition("=")
        end = time.monotonic() + _JOIN_S
        while not any(worker["labels"].get(key) == value for worker in client.request("GET", "/workers")):
            if time.monotonic() > end:
                raise RuntimeError(f"no worker with {_LABELS[name]} within {_JOIN_S:g} s")
            time.sleep(0.05)
        yield


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return the medians of all workers as a table."""
    found = medians(rows)
    lines = [["worker", *(column.title for column in _COLUMNS)]]
    for name, title in WORKERS.items():
        cells = [
            column.form(found[name, column.case][column.figure]) if (name, column.case) in found else ""
            for column in _COLUMNS
        ]
        if any(cells):
            lines.append([title, *cells])
    return markdown(lines)


def goals(rows: Sequence[Mapping[str, Any]]) -> list[Goal]:
    """Return what the rows say of the goals, and other ratios of the same run."""
    found = medians(rows)
    told = []
    if ("tab", "noop") in found:
        thousands = found["tab", "noop"]["runs_per_s"] / 1000
        told.append(Goal("no-op in a tab, a batch, thousands of runs/s", thousands, _NOOP_GOAL, True))
    for name in ("tab", "deno"):
        if (name, "hash") in found and ("python", "hash") in found:
            ratio = found[name, "hash"]["hashes_per_s"] / found["python", "hash"]["hashes_per_s"]
            told.append(Goal(f"hash rate in the guest, {name} over wasmtime", ratio, _HASH_GOAL, True))
    return told


def ratios(rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Return what tabs and Deno do of what Python does, by worker, case and figure."""
    found = medians(rows)
    return {
        f"{name}_{column.case}_{column.figure}": found[name, column.case][column.figure]
        / found["python", column.case][column.figure]
        for name in ("tab", "deno")
        for column in _COLUMNS
        if (name, column.case) in found and ("python", column.case) in found
    }


def document(rows: Sequence[Mapping[str, Any]], about: Mapping[str, Any]) -> str:
    """Return the page docs/bench/browser.md."""
    parts = [_METHOD, "## Results\n", table(rows), ""]
    if errors := [row for row in rows if "error" in row]:
        parts += ["Not measured:\n", *(f"- {row['system']}: {row['error']}" for row in errors), ""]
    if found := goals(rows):
        parts += ["## Goals\n", goals_table(found), ""]
    parts += ["## Machine and versions\n", *(f"- {name}: {value}" for name, value in about.items())]
    return "\n".join(parts) + "\n"


def measure(rows: Rows, arguments: argparse.Namespace, sizes: Sizes) -> None:
    """Have all workers join one gateway, and measure each in turn."""
    with processes() as started, gateway(started) as client, contextlib.ExitStack() as stack:
        there = []
        for name in arguments.workers:
            try:
                stack.enter_context(joined(name, started, client, arguments.slots))
            except (NoBrowserError, RuntimeError) as error:
                rows.add({"system": name, "error": str(error).strip().splitlines()[-1]})
            else:
                there.append(name)
        for number in range(arguments.rounds):
            for name in there:
                for case in arguments.cases:
                    figures = _MEASURES[case](client, _LABELS[name], sizes)
                    rows.add({"system": name, "case": case, "round": number} | figures)


def main(arguments: argparse.Namespace) -> int:
    """Measure what was chosen; the exit code says whether all of it could be."""
    sizes = QUICK if arguments.quick else Sizes()
    rows = Rows()
    found = {"commit": commit(ROOT), "date": time.strftime("%Y-%m-%d", time.gmtime()), "rounds": arguments.rounds}
    about = found | {"slots": arguments.slots} | asdict(sizes) | machine() | versions(("wasmtime", "deno", "pycapnp"))
    rows.add({"case": "machine"} | about)
    measure(rows, arguments, sizes)
    told = goals(rows.all)
    rows.add({"case": "ratios"} | ratios(rows.all))
    for goal in told:
        rows.add(goal.row())
    print(f"{table(rows.all)}\n\n{goals_table(told)}", file=sys.stderr)
    if arguments.write_docs:
        folder = Path(arguments.write_docs)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "browser.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows.all))
        (folder / "browser.md").write_text(document(rows.all, about))
    return 1 if any("error" in row for row in rows.all) else 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Compare workers in a tab, in Deno and in Python.")
    parser.add_argument("--workers", type=some_of(list(WORKERS)), default=list(WORKERS), help="by commas (all)")
    parser.add_argument("--cases", type=some_of(CASES), default=CASES, help="noop, single, hash (all)")
    parser.add_argument("--rounds", type=int, default=3, help="how often each is measured (3)")
    parser.add_argument("--slots", type=int, default=1, help="slots of each worker (1)")
    parser.add_argument("--quick", action="store_true", help="a tenth of everything: to see that it works")
    parser.add_argument(
        "--write-docs", nargs="?", const=str(ROOT / "docs" / "bench"), default="", metavar="DIR",
        help="write the table and rows (docs/bench)",
    )  # fmt: skip
    sys.exit(main(parser.parse_args()))
