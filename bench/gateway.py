"""What a gateway takes on, and what it costs: acceptance over HTTP, dispatch of queued runs, cancelling.

    .venv/bin/python bench/gateway.py [--cases accept,cost,dispatch,cancel] [--seconds S] [--rounds N] [-- OPTIONS]

One JSON line a case, medians over rounds in which all cases take turns. OPTIONS go to `ww gateway`. Machines differ,
and others may use the same cores: processor time is beside each time of the clock, and so is that of a bare fsync. The
last line of a kind sets its cases against each other.
"""

import argparse
import contextlib
import hashlib
import json
import os
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).resolve().parent.parent
sys.path[0] = str(ROOT)

from bench.cluster import Client, cluster, form  # noqa: E402
from bench.draining import CASES as DISPATCH_CASES  # noqa: E402
from bench.draining import drain  # noqa: E402
from bench.processor import cpu_seconds, threads_cpu_seconds  # noqa: E402
from tests.components import sleeps  # noqa: E402
from tests.guests import SLEEP_FOR_EVER, guest  # noqa: E402
from ww.rpc.loop import run  # noqa: E402

NOOP: Final = guest("noop")
# Due in a year: nothing but the acceptance of a task is measured.
_START_S: Final = 31_536_000
_FLUSHES: Final = 50
_FLUSH_BYTES: Final = 4096
_CANCELS: Final = 20
_SETTLED_S: Final = 0.03
_KINDS: Final = ("upload", "module")
_CLIENTS: Final = (1, 64)


def report(case: str, **figures: Any) -> dict[str, Any]:
    shown = {name: float(f"{value:.4g}") if isinstance(value, float) else value for name, value in figures.items()}
    print(json.dumps({"case": case} | shown), flush=True)
    return shown


def medians(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    return {name: statistics.median(float(row[name]) for row in rows) for name in rows[0]}


def fsync_ms(folder: Path) -> float:
    """What one flush of 4 KB at the end of a file takes there, with nothing around it."""
    times_s = []
    path = folder / "flushed"
    with path.open("ab", buffering=0) as file:
        for _ in range(_FLUSHES):
            file.write(b"x" * _FLUSH_BYTES)
            start = time.perf_counter()
            os.fsync(file.fileno())
            times_s.append(time.perf_counter() - start)
    path.unlink()
    return statistics.median(times_s) * 1e3


class Served:
    """A gateway process without workers."""

    def __init__(self, folder: Path, options: Sequence[str], *, sampled: Path | None = None) -> None:
        self.folder = folder
        environment = {name: value for name, value in os.environ.items() if not name.startswith("WW_")}
        environment |= {"XDG_STATE_HOME": f"{folder}/state", "XDG_CACHE_HOME": f"{folder}/cache"}
        program = ["-m", "ww"] if sampled is None else [str(ROOT / "bench" / "sampled.py"), str(sampled)]
        # Room for all that a round brings; what is given in options comes after it, and counts.
        arguments = ["gateway", "--http", "127.0.0.1:0", "--tasks-max", "10000000", *options]
        self._log = (folder / "gateway.log").open("w+")
        self._process = subprocess.Popen(
            [sys.executable, *program, *arguments],
            cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, stderr=self._log,
        )  # fmt: skip
        self.pid = self._process.pid
        try:
            self.http = self._logged(r"HTTP on http://(\S+)")
        except BaseException:
            self.stop()
            raise

    def _logged(self, pattern: str) -> str:
        while True:
            has_ended = self._process.poll() is not None
            seen = Path(self._log.name).read_text()
            if found := re.search(pattern, seen):
                return found[1]
            if has_ended:
                raise RuntimeError(seen)
            time.sleep(0.01)

    def signal(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def stop(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._log.close()


@contextlib.contextmanager
def served(options: Sequence[str], *, sampled: Path | None = None) -> Iterator[Served]:
    with tempfile.TemporaryDirectory(prefix="ww-bench-") as folder:
        it = Served(Path(folder), options, sampled=sampled)
        try:
            yield it
        finally:
            it.stop()


def request_of(kind: str) -> bytes:
    """A whole POST /tasks, whose id the gateway makes."""
    if kind == "upload":
        body, content_type = form(NOOP, start=_START_S, input=7)
    else:
        boundary = "b" * 32
        fields = {"start": _START_S, "input": 7, "module": f"sha256:{hashlib.sha256(NOOP).hexdigest()}"}
        parts = [
            f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'
            for name, value in fields.items()
        ]
        body = "".join([*parts, f"--{boundary}--\r\n"]).encode()
        content_type = f"multipart/form-data; boundary={boundary}"
    head = ["POST /tasks HTTP/1.1", "Host: 127.0.0.1", f"Content-Type: {content_type}", f"Content-Length: {len(body)}"]
    return "\r\n".join([*head, "", ""]).encode() + body


def loaded(gateway: Served, kind: str, clients: int, seconds: float) -> dict[str, float]:
    """Have a process of its own ask for that long; say what came of it, and what the gateway used meanwhile."""
    command = [sys.executable, str(ROOT / "bench" / "http_load.py"), gateway.http, str(clients), str(seconds)]
    before = threads_cpu_seconds(gateway.pid)
    done = subprocess.run(command, input=request_of(kind), stdout=subprocess.PIPE, check=True)
    main_s, others_s = (now - then for now, then in zip(threads_cpu_seconds(gateway.pid), before, strict=True))
    said = json.loads(done.stdout)
    accepted = max(1, said["accepted"])
    return {
        "tasks_per_s": said["accepted"] / said["wall_s"],
        "p50_ms": said["p50_ms"] or 0.0,
        "p99_ms": said["p99_ms"] or 0.0,
        "refused": sum(count for status, count in said["statuses"].items() if int(status) >= 300),
        "gateway_us": (main_s + others_s) / accepted * 1e6,
        "gateway_loop_us": main_s / accepted * 1e6,
        "gateway_share": (main_s + others_s) / said["wall_s"],
        "client_share": said["cpu_s"] / said["wall_s"],
        "fsync_ms": fsync_ms(gateway.folder),
    }


def accept(seconds: float, rounds: int, options: Sequence[str]) -> None:
    """How many tasks a second are taken on, each on disk before its 201: by one client, and by 64 at a time.

    gateway_us is processor time a task, gateway_loop_us that of the thread which answers; the shares are of one core.
    """
    cases = [(kind, clients) for clients in _CLIENTS for kind in _KINDS]
    rows: dict[tuple[str, int], list[dict[str, float]]] = {case: [] for case in cases}
    with served(options) as gateway:
        loaded(gateway, "upload", 1, 0.5)
        for _ in range(rounds):
            for kind, clients in cases:
                rows[kind, clients].append(loaded(gateway, kind, clients, seconds))
    found = {
        (kind, clients): report(f"accept_{kind}_{clients}", clients=clients, **medians(rows[kind, clients]))
        for kind, clients in cases
    }
    report(
        "accept_ratios",
        tasks_per_s_64_over_1=found["upload", 64]["tasks_per_s"] / max(1e-9, found["upload", 1]["tasks_per_s"]),
        upload_over_module_us=found["upload", 1]["gateway_us"] / max(1e-9, found["module", 1]["gateway_us"]),
        p50_over_fsync_1=found["upload", 1]["p50_ms"] / found["upload", 1]["fsync_ms"],
    )


def cost(seconds: float, options: Sequence[str]) -> None:
    """Where the processor time of one POST goes, by looking at the gateway at each tick of the kernel: see sampled.py.

    Times are microseconds a task. other_threads is what the writer of the database and others use, and polling.
    """
    for clients in _CLIENTS:
        with tempfile.TemporaryDirectory(prefix="ww-bench-") as folder:
            out = Path(folder) / "samples.json"
            with served(options, sampled=out) as gateway:
                loaded(gateway, "upload", clients, 0.5)
                gateway.signal(signal.SIGUSR1)
                found = loaded(gateway, "upload", clients, seconds)
            seen = json.loads(out.read_text())
        looks = sum(seen["pieces"].values())
        # Shares of what was measured: stopping at the end was looked at too, a few thousandths.
        pieces = {f"{name}_us": found["gateway_us"] * n / looks for name, n in sorted(seen["pieces"].items())}
        report(f"accept_cost_{clients}", clients=clients, gateway_us=found["gateway_us"], looks=looks, **pieces)
        top = {name: round(count / looks, 3) for name, count in seen["functions"][:15]}
        report(f"accept_top_{clients}", clients=clients, shares=top)


def dispatch(rounds: int) -> None:
    """What one run costs a gateway when many are queued: see draining.py. Another process answers runs at once."""
    rows: dict[str, list[dict[str, Any]]] = {name: [] for name in DISPATCH_CASES}
    for _ in range(rounds):
        for name, queue in DISPATCH_CASES.items():
            with tempfile.TemporaryDirectory(prefix="ww-bench-") as folder:
                rows[name].append(run(lambda queue=queue, folder=folder: drain(Path(folder), queue)))  # type: ignore[misc]
    for name, queue in DISPATCH_CASES.items():
        report(f"dispatch_{name}", queued=queue.queued, tasks=queue.tasks, **medians(rows[name]))
    for what in ("queued", "tasks"):
        names = [name for name in DISPATCH_CASES if name.startswith(what)]
        # Each round by itself, since the machine is not the same throughout.
        over_first = {
            name: statistics.median(
                row["gateway_us"] / first["gateway_us"] for row, first in zip(rows[name], rows[names[0]], strict=True)
            )
            for name in names
        }
        most, least = max(over_first.values()), min(over_first.values())
        report(f"dispatch_flat_{what}", most_over_least=most / least, **over_first)


def cancel(count: int) -> None:
    """From sending DELETE to its answer, to the guest's process being gone, and to its slot being on offer again."""
    guests: dict[str, tuple[bytes, dict[str, object]]] = {
        "spin": (guest("spin"), {"input": 0}),
        "sleep": (SLEEP_FOR_EVER, {}),
        "component": (sleeps(3600), {}),
    }
    times: dict[str, list[tuple[float, float, float]]] = {name: [] for name in guests}
    with cluster(workers=1, slots=1) as client:
        for name, (wasm, fields) in guests.items():  # compiled once, so that all of them run when they are cancelled
            client.request("GET", f"/tasks/{client.post_task(wasm, **fields, id=name, duration=0.1)['id']}?wait=60")
        for number in range(count):
            for name, (wasm, fields) in guests.items():
                times[name].append(cancel_once(client, wasm, **fields, id=f"{name}-{number}"))
    for name, of_guest in times.items():
        answered, stopped, free = ([value * 1e3 for value in column] for column in zip(*of_guest, strict=True))
        report(
            f"cancel_{name}",
            count=count,
            answered_p50_ms=statistics.median(answered),
            stopped_p50_ms=statistics.median(stopped),
            stopped_max_ms=max(stopped),
            free_p50_ms=statistics.median(free),
            free_max_ms=max(free),
        )


def cancel_once(client: Client, wasm: bytes, **fields: object) -> tuple[float, float, float]:
    wait_for(lambda: len(executors(os.getpid())) == 1)  # a new one, where the one before was killed
    (executor,) = executors(os.getpid())
    wait_for(lambda: is_idle(executor, _SETTLED_S))
    used_s = cpu_seconds(executor)
    id = client.post_task(wasm, **fields)["id"]
    # Nobody is told that a guest has begun: it has when its process worked for it, and then computes or waits.
    spins = "input" in fields
    wait_for(lambda: cpu_seconds(executor) > used_s + (_SETTLED_S if spins else 0))
    wait_for(lambda: spins or is_idle(executor, _SETTLED_S))
    start = time.perf_counter()
    client.request("DELETE", f"/tasks/{id}")
    answered_s = time.perf_counter() - start
    wait_for(lambda: is_gone(executor))
    stopped_s = time.perf_counter() - start
    wait_for(lambda: client.request("GET", "/workers")[0]["free"] == 1)
    return answered_s, stopped_s, time.perf_counter() - start


def executors(pid: int) -> list[int]:
    """The sandbox processes among the descendants of pid that run guests and not the compiler."""
    found, parents = [], [pid]
    for parent in parents:
        for entry in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if (entry / "stat").read_text().rpartition(")")[2].split()[1] == str(parent):
                    parents.append(int(entry.name))
                    words = (entry / "cmdline").read_text()
                    if "ww.sandbox.executor" in words and '"role": "compiler"' not in words:
                        found.append(int(entry.name))
    return found


def is_idle(pid: int, seconds: float) -> bool:
    """Whether a process does not use its processor, looked at for that long; one that is gone does not."""
    try:
        before = cpu_seconds(pid)
        time.sleep(seconds)
        return cpu_seconds(pid) - before < seconds / 10
    except OSError:
        return True


def is_gone(pid: int) -> bool:
    """Whether a process has ended, be it that its parent has noticed or not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def wait_for(condition: Callable[[], bool], bound_s: float = 30.0) -> None:
    end = time.monotonic() + bound_s
    while not condition():
        if time.monotonic() > end:
            raise RuntimeError(f"not within {bound_s} s")
        time.sleep(0.001)


def main(arguments: argparse.Namespace, options: Sequence[str]) -> int:
    chosen = arguments.cases.split(",")
    if "accept" in chosen:
        accept(arguments.seconds, arguments.rounds, options)
    if "cost" in chosen:
        cost(2 * arguments.seconds, options)
    if "dispatch" in chosen:
        dispatch(arguments.rounds)
    if "cancel" in chosen:
        cancel(_CANCELS)
    return 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Measure what a gateway takes on; one JSON line a case.")
    parser.add_argument("--cases", default="accept,cost,dispatch,cancel", help="kinds of cases, by commas (all)")
    parser.add_argument("--seconds", type=float, default=3.0, help="of each acceptance case and round (3)")
    parser.add_argument("--rounds", type=int, default=3, help="how often each case is measured (3)")
    # argparse would take what follows "--" for arguments of its own.
    end = sys.argv.index("--") if "--" in sys.argv else len(sys.argv)
    sys.exit(main(parser.parse_args(sys.argv[1:end]), sys.argv[end + 1 :]))
