"""What the sandbox costs: runs in child processes against the same calls of wasmtime in this one.

    .venv/bin/python bench/sandbox.py [--runs N] [--rounds N]

One JSON line a case, ratios measured in one run, the machine's two sides in turn. The last line sets them against the
project's goals. Nothing else should run on the machine.
"""

import argparse
import asyncio
import ctypes
import hashlib
import importlib.util
import io
import json
import multiprocessing
import statistics
import sys
import tempfile
import time
import zipfile
from collections import defaultdict
from collections.abc import Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).resolve().parent.parent
sys.path[0] = str(ROOT)

import wasmtime  # noqa: E402
from wasmtime import _ffi as ffi  # noqa: E402

from ww import schema  # noqa: E402
from ww.clock import SystemClock  # noqa: E402
from ww.identity import Identity  # noqa: E402
from ww.net.memory import MemoryTransport, Network  # noqa: E402
from ww.node import LOOPBACK  # noqa: E402
from ww.python.build import component_path  # noqa: E402
from ww.python.request import write_call  # noqa: E402
from ww.records import OUTCOME_BYTES, Input, write_input  # noqa: E402
from ww.rpc.connection import Connection  # noqa: E402
from ww.rpc.errors import call  # noqa: E402
from ww.rpc.loop import run  # noqa: E402
from ww.rpc.vat import Vat  # noqa: E402
from ww.sandbox import native  # noqa: E402
from ww.sandbox.child import Child  # noqa: E402
from ww.sandbox.invocation import Invocation, RunLimits  # noqa: E402
from ww.sandbox.limits import SandboxLimits  # noqa: E402
from ww.sandbox.modules import ModuleCache  # noqa: E402
from ww.sandbox.pool import SandboxPool  # noqa: E402
from ww.sandbox.program import make_config  # noqa: E402
from ww.sandbox.world import I64  # noqa: E402
from ww.worker import Worker, WorkerConfig, WorkerServer  # noqa: E402

GROUP: Final = 64
_GROUPS_AT_ONCE: Final = 4
MIB: Final = 1 << 20
LIMITS: Final = RunLimits(duration_s=60.0, memory_bytes=256 * MIB, output_bytes=64 << 10)
WIDE: Final = SandboxLimits(input_bytes_max=256 * MIB, output_bytes_max=128 * MIB)
PUZZLE: Final = (7, 5)
STDIN: Final = b"a line of input\n"


def guest(name: str) -> bytes:
    return (ROOT / "wasm" / name / f"{name}.wasm").read_bytes()


@dataclass(frozen=True)
class Noop:
    """A guest that does nothing, and how it is asked to."""

    module: bytes
    invocations: list[Invocation]


NOOPS: Final = {
    "function": Noop(guest("noop"), [Invocation("run", (number, 0)) for number in range(GROUP)]),
    "command": Noop(
        bytes(
            wasmtime.wat2wasm(
                """(module (import "wasi_snapshot_preview1" "proc_exit" (func (param i32)))
                (memory (export "memory") 1) (func (export "_start")))"""
            )
        ),
        [Invocation(stdin=STDIN)] * GROUP,
    ),
}


def report(case: str, **figures: float) -> dict[str, float]:
    rounded = {name: float(f"{value:.4g}") for name, value in figures.items()}
    print(json.dumps({"case": case} | rounded), flush=True)
    return rounded


class Bare:
    """A no-op in a fresh, pooled instance: nothing but the C calls that a run takes, one after the other in a loop.

    As a function, which has no WASI; or as a command, which is given a world of its own.
    """

    def __init__(self, kind: str) -> None:
        self._engine = wasmtime.Engine(native.pooled(make_config(metered=False), 1 << 30))
        linker = wasmtime.Linker(self._engine)
        linker.define_wasi()
        self._pre = linker.instantiate_pre(wasmtime.Module(self._engine, NOOPS[kind].module))
        self._name = b"_start" if kind == "command" else b"run"
        self._arity = 0 if kind == "command" else 2
        self._argv = (ctypes.c_char_p * 1)(b"main.wasm")
        self._stdin = ctypes.cast(ctypes.c_char_p(STDIN), ctypes.c_void_p)

    def runs_per_s(self, count: int) -> float:
        pre, engine = native._address(self._pre), native._address(self._engine)
        instance, item, trap = ffi.wasmtime_instance_t(), ffi.wasmtime_extern_t(), ctypes.c_void_p()
        given, returned = (ffi.wasmtime_val_t * 2)(), (ffi.wasmtime_val_t * 1)()
        given[0].kind = given[1].kind = ctypes.c_uint8(I64)
        stdin = ffi.wasm_byte_vec_t()
        where_stdin = ctypes.addressof(stdin)
        addresses = [ctypes.addressof(each) for each in (instance, item, trap, given, returned, item.of)]
        where_instance, where_item, where_trap, where_given, where_returned, where_function = addresses
        name, length, arity, results = self._name, len(self._name), self._arity, self._arity // 2
        start = time.perf_counter()
        for number in range(count):
            store = native._store_new(engine, None, None)
            context = native._store_context(store)
            native._store_limiter(store, 256 * MIB, 200_000, 2, 16, 2)
            native._set_epoch_deadline(context, 1)
            if not arity:
                wasi = native._wasi_new()
                native._wasi_argv(wasi, 1, self._argv)
                native._bytes_new(where_stdin, len(STDIN), self._stdin)
                native._wasi_stdin(wasi, where_stdin)
                native._wasi_stdout(wasi)
                native._wasi_stderr(wasi)
                native._set_wasi(context, wasi)
            native._instantiate(pre, context, where_instance, where_trap)
            native._export_get(context, where_instance, name, length, where_item)
            given[0].of.i64 = number
            native._call(context, where_function, where_given, arity, where_returned, results, where_trap)
            native._store_delete(store)
        assert returned[0].of.i64 == (number if arity else 0)
        return count / (time.perf_counter() - start)


def bare_process(pipe: Any, kind: str) -> None:
    """Answer how many runs a second, for as often as asked how many shall be done."""
    bare = Bare(kind)
    while count := pipe.recv():
        pipe.send(bare.runs_per_s(count))


def bare_compute_s() -> float:
    """Solve a puzzle in wasmtime as it is by default."""
    engine = wasmtime.Engine()
    store = wasmtime.Store(engine)
    solve = wasmtime.Linker(engine).instantiate(store, wasmtime.Module(engine, guest("hash"))).exports(store)["run"]
    start = time.perf_counter()
    solve(store, *PUZZLE)  # type: ignore[operator]
    return time.perf_counter() - start


class Sandbox:
    """A pool, and its cache."""

    def __init__(self, pool: SandboxPool, cache: ModuleCache) -> None:
        self.pool = pool
        self.cache = cache

    async def store(self, module: bytes) -> bytes:
        digest = hashlib.sha256(module).digest()
        async with self.cache.writer(digest) as writer:
            await writer.write(module)
        return digest

    async def prepare(self, name: str) -> bytes:
        digest = await self.store(guest(name))
        await self.pool.prepare(digest)
        return digest

    async def noops_per_s(self, kind: str, count: int, *, at_once: int) -> float:
        """Have at_once callers run groups until count runs are done."""
        digest = await self.store(NOOPS[kind].module)
        await self.pool.prepare(digest)
        left = count // GROUP

        async def ask() -> None:
            nonlocal left
            while left > 0:
                left -= 1
                results = await self.pool.run_group(digest, NOOPS[kind].invocations, LIMITS)
                assert results[-1].reason == "ok"

        start = time.perf_counter()
        await asyncio.gather(*(ask() for _ in range(at_once)))
        return count // GROUP * GROUP / (time.perf_counter() - start)


@asynccontextmanager
async def sandbox(slots: int, *, with_classes: bool = False) -> Any:
    with tempfile.TemporaryDirectory(prefix="ww-bench-") as folder:
        cache = ModuleCache(Path(folder), quota_bytes=1 << 30)
        async with SandboxPool(cache, slots=slots, limits=WIDE, with_classes=with_classes) as pool:
            yield Sandbox(pool, cache)


async def noops(kind: str, runs: int, rounds: int) -> dict[str, float]:
    """Runs a second: bare, by one executor, by two, by one that uses wasmtime-py's classes; and bare by two processes,
    which is what two executors could do at most on this machine. All in turn, round after round."""
    ours, theirs = multiprocessing.get_context("spawn").Pipe()
    other = multiprocessing.get_context("spawn").Process(target=bare_process, args=(theirs, kind), daemon=True)
    other.start()
    bare, rates = Bare(kind), defaultdict[str, list[float]](list)
    async with sandbox(1) as one, sandbox(2) as two, sandbox(1, with_classes=True) as slow:
        for each in (one, two, slow):
            await each.noops_per_s(kind, 8 * GROUP, at_once=4)
        for _ in range(rounds):
            rates["bare"].append(bare.runs_per_s(runs))
            rates["one"].append(await one.noops_per_s(kind, runs, at_once=3))
            rates["two"].append(await two.noops_per_s(kind, 2 * runs, at_once=6))
            rates["classes"].append(await slow.noops_per_s(kind, runs // 4, at_once=3))
            ours.send(runs)
            own = bare.runs_per_s(runs)
            rates["bare_two"].append(own + ours.recv())
    ours.send(0)
    other.join()
    best = {name: max(values) for name, values in rates.items()}
    ratios = {
        "one_over_bare": best["one"] / best["bare"],
        "two_over_one": best["two"] / best["one"],
        "bare_two_over_bare": best["bare_two"] / best["bare"],
        "classes_over_bare": best["classes"] / best["bare"],
    }
    return report(f"noop_{kind}", group=GROUP, **{f"{name}_per_s": rate for name, rate in best.items()}, **ratios)


class Leased:
    """A whole worker, seen from a gateway: vats over memory in this process, no network and no encryption."""

    def __init__(self, one: Sandbox, connection: Connection) -> None:
        self._sandbox = one
        self._connection = connection

    async def noops_per_s(self, count: int, group: int, slots: int) -> tuple[float, float]:
        """Run distinct no-ops by leases on slots, several groups at once on each; return runs a second, and the
        processor's microseconds that each took of this process, which is the worker and its gateway."""
        digest = await self._sandbox.prepare("noop")
        inputs = b"".join(write_input(Input((number, 0))) for number in range(group))
        left = count // group

        async def ask(runs: Any) -> None:
            nonlocal left
            while left > 0:
                left -= 1
                answer = await call(runs.start(inputs=inputs))
                size, rest = len(answer.outcomes), answer.group
                while not answer.ended:
                    answer = await call(rest.more())
                    size += len(answer.outcomes)
                assert size == group * OUTCOME_BYTES

        leases = [await self._connection.connect(f"slot-{number}", schema.worker.Worker) for number in range(slots)]
        programs = [(await call(lease.load(digest=digest))).program for lease in leases]
        invocation = {"entry": "run", "arguments": (0, 0)}
        runs = [(await call(program.task(invocation=invocation))).runs for program in programs]
        start, cpu = time.perf_counter(), time.process_time()
        await asyncio.gather(*(ask(each) for each in runs for _ in range(_GROUPS_AT_ONCE)))
        done = count // group * group
        return done / (time.perf_counter() - start), (time.process_time() - cpu) / done * 1e6


@asynccontextmanager
async def leased(slots: int) -> Any:
    network = Network()
    ours, theirs = Identity.generate(), Identity.generate()
    async with (
        sandbox(slots) as one,
        Vat(ours, MemoryTransport(network, ours)) as gateway,
        Vat(theirs, MemoryTransport(network, theirs)) as vat,
    ):
        nowhere: Any = None  # it serves no gateway of its own accord
        worker = Worker(nowhere, ours.peer_id, one.pool, one.cache, SystemClock(), WorkerConfig(slots=slots))
        for number in range(slots):
            vat.export(f"slot-{number}", lambda peer: WorkerServer(worker, asyncio.Event()))
        address = (await vat.listen(LOOPBACK))[0].of_peer(theirs.peer_id)
        async with await gateway.dial(theirs.peer_id, [address]) as connection:
            yield Leased(one, connection)


async def through_worker(runs: int, rounds: int) -> dict[str, float]:
    """No-ops through a whole worker, in groups of 64 and 256, on one slot and two; and the sandbox alone, in turn."""
    rates = defaultdict[str, list[float]](list)
    async with leased(2) as worker, sandbox(2) as alone:
        for each in (64, 256):
            await worker.noops_per_s(4096, each, 2)
        for _ in range(rounds):
            for each in (64, 256):
                for slots in (1, 2):
                    rate, cpu_us = await worker.noops_per_s(slots * runs, each, slots)
                    rates[f"group_{each}_slots_{slots}_per_s"].append(rate)
                    rates[f"group_{each}_slots_{slots}_less_cpu"].append(1 / cpu_us)
            rates["sandbox_two_per_s"].append(await alone.noops_per_s("function", 2 * runs, at_once=6))
    best = {name: max(values) for name, values in rates.items()}
    figures = {name.replace("less_cpu", "cpu_us"): 1 / rate if "less" in name else rate for name, rate in best.items()}
    return report("through_worker", **figures)


async def compute(rounds: int) -> dict[str, float]:
    """A long hash puzzle, here and in a run; the best of each. nice, as workers are by default, counts too."""
    async with sandbox(1) as one:
        digest = await one.prepare("hash")
        bare_s, run_s = [], []
        for _ in range(rounds):
            bare_s.append(bare_compute_s())
            start = time.perf_counter()
            await one.pool.run(digest, Invocation("run", PUZZLE), LIMITS)
            run_s.append(time.perf_counter() - start)
    return report("compute", bare_s=min(bare_s), run_s=min(run_s), speed_over_bare=min(bare_s) / min(run_s))


async def latency(count: int) -> dict[str, float]:
    """One warm no-op after the other, from asking to its result."""
    async with sandbox(1) as one:
        digest = await one.prepare("noop")
        times_s = await timed(count, lambda: one.pool.run(digest, Invocation("run", (1, 0)), LIMITS))
    return report("noop_single", count=count, **quantiles(times_s))


async def cold(count: int) -> dict[str, float]:
    """A module that nobody has seen, from its bytes to its first result: compiled, loaded, run."""
    async with sandbox(1) as one:
        await one.prepare("noop")  # the compiler is there

        async def first(name: str, number: int) -> None:
            digest = await one.store(guest(name) + custom_section(number))
            await one.pool.prepare(digest)
            await one.pool.run(digest, Invocation("run", (1, 1)), LIMITS)

        small = [await seconds(first("noop", number)) for number in range(count)]
        larger = [await seconds(first("hash", number)) for number in range(count)]
    return report("cold", noop_ms=statistics.median(small) * 1e3, hash_ms=statistics.median(larger) * 1e3)


async def first_uses(count: int) -> dict[str, float]:
    """The same module wanted by many at the same time: compiled once."""
    async with sandbox(2) as two:
        await two.prepare("noop")
        one_digest, many_digest = [await two.store(guest("echo") + custom_section(number)) for number in (1, 2)]

        async def use(digest: bytes) -> None:
            await two.pool.prepare(digest)
            await two.pool.run(digest, Invocation(), LIMITS)

        one_s = await seconds(use(one_digest))
        many_s = await seconds(gather(*(use(many_digest) for _ in range(count))))
        artefacts = len(list(two.cache.artefact_path(many_digest).parent.glob(f"{many_digest.hex()}-*.cwasm")))
    return report("first_uses", count=count, one_ms=one_s * 1e3, all_ms=many_s * 1e3, artefacts=artefacts)


async def python(runs: int, rounds: int) -> dict[str, float]:
    """Calls of a Python function that does nothing: in groups by one executor and by two, one after the other; what
    loading takes, and what an executor has to itself then. Where componentize-py is installed: ww[python]."""
    if importlib.util.find_spec("componentize_py") is None:
        return report("python", calls_per_s=0.0)
    component, figures = component_path().read_bytes(), defaultdict[str, list[float]](list)
    noop = Invocation(args=("noop:noop",), stdin=write_call((5,), {}), code=NOOP_SOURCES)
    async with sandbox(1) as one, sandbox(2) as two:
        digest = await one.store(component)
        compile_s = await seconds(one.pool.prepare(digest))
        await two.store(component)
        await two.pool.prepare(digest)

        async def calls_per_s(of: Sandbox, at_once: int) -> float:
            start = time.perf_counter()
            groups = (of.pool.run_group(digest, [noop] * GROUP, LIMITS) for _ in range(at_once * runs // GROUP // 10))
            results = await asyncio.gather(*groups)
            assert all(result.reason == "ok" for group in results for result in group), results[0][0]
            return sum(map(len, results)) / (time.perf_counter() - start)

        (child,) = (child for child in one.pool._children if child.files is not None)
        first = await one.pool.run(digest, noop, LIMITS)
        for _ in range(rounds):
            figures["one_per_s"].append(await calls_per_s(one, 1))
            figures["two_per_s"].append(await calls_per_s(two, 2))
        times_s = await timed(runs // 10, lambda: one.pool.run(digest, noop, LIMITS))
        second = await one.pool.run(digest, replace(noop, args=("noop:noop", "another:grant")), LIMITS)
        figures["executor_mib"].append(private_bytes(child) / MIB)
    best = {name: max(values) for name, values in figures.items()}
    loads = {"first_load_ms": first.instantiate_s * 1e3, "load_ms": second.instantiate_s * 1e3}
    return report("python", compile_s=compile_s, **loads, **best, **quantiles(times_s))


def noop_sources() -> bytes:
    """Return the code of a function that returns what it is given: see ww/python/source.py."""
    code = io.BytesIO()
    with zipfile.ZipFile(code, "w") as archive:
        archive.writestr("noop.py", "def noop(value):\n    return value\n")
        archive.writestr("ww.json", json.dumps({"version": 1, "python": "3.11", "spaces": {}, "functions": {}}))
    return code.getvalue()


NOOP_SOURCES = noop_sources()


async def memory() -> dict[str, float]:
    """What an idle executor has to itself: before its first run, and after some."""
    async with sandbox(1) as one:
        (child,) = (child for child in one.pool._children if child.files is not None)
        fresh = private_bytes(child)
        await one.noops_per_s("function", 1000, at_once=1)
        digest = await one.prepare("echo")
        await one.pool.run(digest, Invocation(stdin=bytes(1000)), LIMITS)
        used = private_bytes(child)
    return report("memory", idle_mib=fresh / MIB, used_mib=used / MIB)


async def throughput(rounds: int) -> dict[str, float]:
    """A guest that copies stdin to stdout, of 1, 16 and 64 MiB; both ways counted once."""
    figures: dict[str, float] = {}
    async with sandbox(1) as one:
        digest = await one.prepare("echo")
        for size in (1, 16, 64):
            data = bytes(size * MIB)
            limits = RunLimits(60.0, 256 * MIB, 128 * MIB)
            times_s = [await seconds(echo(one, digest, data, limits)) for _ in range(rounds + 1)]
            figures[f"mib_per_s_{size}"] = size / min(times_s[1:])
    return report("throughput", **figures)


async def echo(one: Sandbox, digest: bytes, data: bytes, limits: RunLimits) -> None:
    result = await one.pool.run(digest, Invocation(stdin=data), limits)
    assert len(result.stdout) >= len(data), result


def custom_section(number: int) -> bytes:
    """Return a section that makes a module another one and changes nothing."""
    return bytes((0, 6, 1, ord("n"))) + number.to_bytes(4, "little")


def private_bytes(child: Child) -> int:
    """Return what a process has that is not shared with others, by the kernel's account."""
    assert child._process is not None
    lines = Path(f"/proc/{child._process.pid}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) << 10 for line in lines if line.startswith("Private_"))


async def timed(count: int, once: Callable[[], Awaitable[object]]) -> list[float]:
    for _ in range(count // 10):
        await once()
    return [await seconds(once()) for _ in range(count)]


async def seconds(what: Awaitable[object]) -> float:
    start = time.perf_counter()
    await what
    return time.perf_counter() - start


async def gather(*what: Awaitable[object]) -> None:
    await asyncio.gather(*what)


def quantiles(times_s: list[float]) -> dict[str, float]:
    ordered = sorted(times_s)
    return {"p50_us": statistics.median(ordered) * 1e6, "p99_us": ordered[int(len(ordered) * 0.99)] * 1e6}


async def main(arguments: argparse.Namespace) -> int:
    functions = await noops("function", arguments.runs, arguments.rounds)
    commands = await noops("command", arguments.runs, arguments.rounds)
    await through_worker(arguments.runs, arguments.rounds)
    computed = await compute(arguments.rounds)
    single = await latency(arguments.runs // 10)
    await cold(arguments.rounds)
    await first_uses(50)
    await memory()
    await python(arguments.runs, arguments.rounds)
    await throughput(arguments.rounds)
    report(
        "goals",
        command_over_bare_of_0_7=commands["one_over_bare"],
        function_over_bare_of_0_7=functions["one_over_bare"],
        two_over_one_of_1_8=commands["two_over_one"],
        compute_of_0_95=computed["speed_over_bare"],
        noop_p50_us_of_250=single["p50_us"],
    )
    return 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Measure what the sandbox costs; one JSON line a case.")
    parser.add_argument("--runs", type=int, default=20_000, help="no-op runs a round (20000)")
    parser.add_argument("--rounds", type=int, default=5, help="rounds of each case, of which the best counts (5)")
    parsed = parser.parse_args()
    sys.exit(run(lambda: main(parsed)))
