"""The hostile set of wasm/hostile: how each guest is run, and how it must end.

Holds a table, and what runs a row of it in a pool. test_hostile.py goes through it, one by one and at random.
"""

import importlib.util
import io
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from tests.guests import ROOT
from tests.sandbox.test_pool import Sandbox
from ww import schema
from ww.errors import BadModule
from ww.sandbox.invocation import Result

FOLDER: Final = ROOT / "wasm" / "hostile"
MEMORY_BYTES: Final = 16 << 20
OUTPUT_BYTES: Final = 64 << 10
SHORT_S: Final = 0.15
"""Of those that never end by themselves."""
LONG_S: Final = 3.0
"""Of all others: none comes near."""
_spec = importlib.util.spec_from_file_location("wasm_hostile_generate", FOLDER / "generate.py")
assert _spec is not None
assert _spec.loader is not None
_generate = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_generate)


def zipped(files: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return out.getvalue()


FILES: Final = zipped({"inside.txt": b"inside\n", "folder/file.txt": b"file\n", "folder/deep/file.txt": b"deep\n"})


@dataclass(frozen=True, slots=True)
class Hostile:
    """A guest, what it is given, and its right end."""

    module: str
    """Of wasm/hostile: NAME.wasm, or what generate.py makes."""
    reason: str = "ok"
    detail: str = ""
    """A part of it; the whole of it where reason is trap and there is any."""
    entry: str = ""
    arguments: Sequence[int] = ()
    args: Sequence[str] = ()
    is_trap_or_refused: bool = False
    """Whether it is as well if it returns an errno."""
    result: int | None = None
    exit_code: int | None = None
    is_cut: tuple[bool, bool] | None = None
    """Whether there was more of stdout, and of stderr, than is kept."""
    files: bytes = b""
    artifacts: Sequence[str] = ()
    limits: dict[str, float] = field(default_factory=dict)
    """Fields of worker.Limits beside those that all have."""
    once: bool = False
    """Large: not for a loop, in which the sandbox's own size is measured."""


def module_of(name: str, *how: int) -> bytes:
    """Return the bytes of a hostile module; how is for the one that makes it."""
    path = FOLDER / f"{name}.wasm"
    return path.read_bytes() if path.exists() else bytes(_generate.MODULES[name](*how))


async def run(sandbox: Sandbox, hostile: Hostile, module: bytes) -> Any:
    """Run a hostile guest. A module that is refused before it runs ends as one of reason compile."""
    invocation = schema.worker.Invocation.new_message(entry=hostile.entry, args=list(hostile.args))
    if hostile.entry:
        invocation.arguments = list(hostile.arguments or (0, 0))
    if hostile.files:
        invocation.files = hostile.files
    if hostile.artifacts:
        invocation.artifacts = list(hostile.artifacts)
    limits = {
        "durationSeconds": SHORT_S if hostile.reason in ("deadline", "cpu", "fuel") else LONG_S,
        "memoryBytes": MEMORY_BYTES,
        "outputBytes": OUTPUT_BYTES,
    }
    for name, value in (limits | hostile.limits).items():
        setattr(invocation.limits, name, value)
    try:
        return await sandbox.send(module, invocation)
    except BadModule as error:
        return Result(reason="compile", detail=str(error))


def faults_of(hostile: Hostile, outcome: Any) -> list[str]:
    """Say what is not as it must be in how a guest ended: nothing, if all is well."""
    detail, wrong = outcome.detail, []
    if hostile.is_trap_or_refused and outcome.reason == "ok" and outcome.value:
        return []
    if outcome.reason != hostile.reason:
        wrong.append(f"reason {outcome.reason}, not {hostile.reason}")
    if hostile.reason == "trap" and hostile.detail and detail != hostile.detail:
        wrong.append(f"not {hostile.detail!r}")
    if hostile.detail not in detail:
        wrong.append(f"does not say {hostile.detail!r}")
    if (hostile.reason != "ok" and not detail) or len(detail) > 300 or not detail.isprintable():
        wrong.append("not a line for people")
    if str(ROOT) in detail or any(word in detail for word in ("Traceback", ".py", "wasm backtrace")):
        wrong.append("tells what is none of the guest's")
    if hostile.exit_code is not None and outcome.exit_code != hostile.exit_code:
        wrong.append(f"exit code {outcome.exit_code}, not {hostile.exit_code}")
    if hostile.result is not None and outcome.value != hostile.result:
        wrong.append(f"result {outcome.value}, not {hostile.result}")
    if max(len(outcome.stdout), len(outcome.stderr)) > OUTPUT_BYTES:
        wrong.append("more output than it may have")
    if hostile.is_cut is not None and (outcome.stdout_truncated, outcome.stderr_truncated) != hostile.is_cut:
        wrong.append(f"cut: {outcome.stdout_truncated, outcome.stderr_truncated}")
    if outcome.memory_bytes > hostile.limits.get("memoryBytes", MEMORY_BYTES):
        wrong.append(f"{outcome.memory_bytes} bytes of memory")
    if wrong:
        wrong.append(f"detail {detail!r}, stdout {bytes(outcome.stdout[:300])!r}")
    return wrong


def _entries(module: str, *entries: str, **how: Any) -> dict[str, Hostile]:
    return {f"{module} {entry}": Hostile(module, entry=entry, **how) for entry in entries}


def _modules(*modules: str, **how: Any) -> dict[str, Hostile]:
    return {module.replace("_", " "): Hostile(module, **how) for module in modules}


def _traps(*entries: str) -> dict[str, Hostile]:
    return {
        f"traps {entry}": Hostile("traps", "trap", entry.partition("/")[0], entry=entry, arguments=(0, 0))
        for entry in entries
    }


def _exits(*codes: int) -> dict[str, Hostile]:
    return {
        f"exits {code}": Hostile("exits", "exit" if code else "ok", entry="exit", arguments=(code, 0), exit_code=code)
        for code in codes
    }


def _files(how: str, reason: str = "ok", **more: Any) -> dict[str, Hostile]:
    limits = {"filesBytes": 1 << 20} | more.pop("limits", {})
    ends = {"exit_code": 0} if reason == "ok" else {}
    return {f"files {how}": Hostile("files", reason, args=[how], files=FILES, limits=limits, **ends, **more)}


HOSTILE: Final[dict[str, Hostile]] = {
    # Never done.
    **_entries(
        "loops", "loop", "br_table", "tail_call", "tail_call_indirect", "fill", "grow_refused", "clock", "yield",
        "random", "refused", reason="deadline", detail="it may for",
    ),
    "start loop": Hostile("start_loop", "deadline", "it may for"),
    "initialize loop": Hostile("initialize_loop", "deadline", "it may for", entry="run"),
    "start flood": Hostile("start_flood", "deadline", "it may for", is_cut=(True, False)),
    "loops fuel": Hostile("loops", "fuel", entry="loop", limits={"fuel": 1_000_000, "durationSeconds": LONG_S}),
    "loops cpu": Hostile("loops", "cpu", entry="loop", limits={"cpuSeconds": 0.05, "durationSeconds": LONG_S}),
    "loops cpu in host calls": Hostile(
        "loops", "cpu", entry="random", limits={"cpuSeconds": 0.05, "durationSeconds": LONG_S}
    ),
    "start loop fuel": Hostile("start_loop", "fuel", limits={"fuel": 1_000_000, "durationSeconds": LONG_S}),
    "start loop cpu": Hostile("start_loop", "cpu", limits={"cpuSeconds": 0.05, "durationSeconds": LONG_S}),
    # Asleep.
    **_entries(
        "sleep", "hour", "hour_of_day", "until", "longest", "latest", "naps", "no_naps", "stdin",
        reason="deadline", detail="it may for",
    ),
    "sleep hour without processor": Hostile("sleep", "deadline", entry="hour", limits={"cpuSeconds": 0.05}),
    "sleep hour without fuel": Hostile("sleep", "deadline", entry="hour", limits={"fuel": 1_000_000}),
    **_entries(
        "sleep", "none", "thousands", "too_many", "most", "unknown_tag", "unknown_clock", "unknown_descriptor",
        reason="trap", is_trap_or_refused=True,
    ),
    **_entries("sleep", "outside", "events_outside", "count_outside", reason="trap", is_trap_or_refused=True),
    # Too deep.
    **_entries(
        "recursion", "plain", "mutual", "indirect", "wide", "host_clock", "host_poll", "host_write",
        reason="trap", detail="stack_overflow",
    ),
    "start recursion": Hostile("start_recursion", "trap", "stack_overflow"),
    "recursion exit_below": Hostile("recursion", "exit", entry="exit_below", arguments=(5000, 255), exit_code=255),
    "recursion fuel": Hostile("recursion", "fuel", entry="plain", limits={"fuel": 1000}),
    # Too much memory.
    "memory grow": Hostile("memory", entry="grow", result=MEMORY_BYTES >> 16),
    "memory touch": Hostile("memory", "trap", "memory_out_of_bounds", entry="touch"),
    **_entries("memory", "fill", "copy", reason="deadline"),
    **_entries("memory", "grow_at_once", "grow_too_far", result=-1),
    "memory minimum": Hostile("memory_minimum", "memory"),
    "table minimum": Hostile("table_minimum", "memory"),
    "table at start": Hostile("table_at_start", "memory", entry="run"),
    "tables": Hostile("tables", "memory", entry="run"),
    "tables grow": Hostile("table_bomb", entry="grow"),
    "tables grow_all": Hostile("table_bomb", entry="grow_all"),
    "tables grow_at_once": Hostile("table_bomb", entry="grow_at_once", result=-1),
    "tables fill": Hostile("table_bomb", "deadline", entry="fill"),
    # Too much said.
    "floods stdout": Hostile("floods", "deadline", entry="stdout", is_cut=(True, False)),
    "floods stderr": Hostile("floods", "deadline", entry="stderr", is_cut=(False, True)),
    "floods both": Hostile("floods", "deadline", entry="both", is_cut=(True, True)),
    "floods bytes": Hostile("floods", "deadline", entry="bytes"),
    "floods nothings": Hostile("floods", "deadline", entry="nothings", is_cut=(False, False)),
    "floods vectors": Hostile("floods", "deadline", entry="vectors", is_cut=(True, False)),
    "floods ends": Hostile("floods", entry="ends", result=0, is_cut=(True, True)),
    "floods fuel": Hostile("floods", "fuel", entry="both", limits={"fuel": 10_000, "durationSeconds": LONG_S}),
    # Gone.
    **_exits(0, 1, 7, 125, 126, 127, 128, 255, 256, 2**31 - 1, 2**32 - 1),
    "exits loop": Hostile("exits", "exit", entry="exit_loop", arguments=(3, 0), exit_code=3),
    "start exit 0": Hostile("start_exit_0", exit_code=0),
    "start exit 7": Hostile("start_exit_7", "exit", "7", exit_code=7),
    "initialize exit": Hostile("initialize_exit", entry="run", exit_code=0),
    **_traps(
        "unreachable", "stack_overflow", "integer_division_by_zero", "integer_overflow", "integer_overflow/trunc",
        "bad_conversion_to_integer", "indirect_call_to_null", "bad_signature", "table_out_of_bounds",
        "table_out_of_bounds/get", "table_out_of_bounds/fill", "table_out_of_bounds/copy", "table_out_of_bounds/init",
        "memory_out_of_bounds", "memory_out_of_bounds/far", "memory_out_of_bounds/store", "memory_out_of_bounds/fill",
        "memory_out_of_bounds/copy", "memory_out_of_bounds/init", "memory_out_of_bounds/dropped",
    ),
    "start trap": Hostile("start_trap", "trap", "unreachable"),
    "segment outside": Hostile("segment_outside", "trap", "memory_out_of_bounds"),
    "element outside": Hostile("element_outside", "trap", "table_out_of_bounds"),
    # Calls of the host.
    **{
        f"exits raise {number}": Hostile(
            "exits", "trap", entry="raise", arguments=(number, 0), is_trap_or_refused=True
        )
        for number in (*range(31), 255, 2**32 - 1)
    },
    **{
        f"calls pointers {which} {far:x}": Hostile(
            "calls", "trap", entry="pointers", arguments=(which, far), is_trap_or_refused=True
        )
        for which in range(34)
        if which not in (3, 20)  # nothing is written where there is no environment, or nothing to read
        for far in (2**31, 2**32 - 1)
    },
    **{
        f"calls random {seed}{' with files' if files else ''}": Hostile(
            "calls", "trap", entry="random", arguments=(seed, 30_000), files=files, is_trap_or_refused=True
        )
        for seed in range(12)
        for files in (b"", FILES)
    },
    **_entries("calls", "names", "sockets", "sizes", "stdio", result=0),
    "memory is no memory": Hostile("memory_is_no_memory", "trap", entry="run", is_trap_or_refused=True),
    # Files.
    "paths": Hostile("paths", files=FILES, exit_code=0, limits={"durationSeconds": 20}),
    "descriptors": Hostile("descriptors", files=FILES, exit_code=0),
    "descriptors and an artifact": Hostile("descriptors", files=FILES, artifacts=["inside.txt"], exit_code=0),
    "descriptors for ever": Hostile("descriptors", "deadline", args=["for ever"], files=FILES),
    **_files("large", "files"),
    **_files("stubborn", "files"),
    **_files("sparse"),
    **_files("many", "files"),
    **_files("hard links", "files"),
    **_files("deep", "files"),
    **_files("links"),
    **_files("names"),
    "files links brought back": Hostile(
        "files", "artifacts", "link", args=["links"], files=FILES, artifacts=["a", "here", "up", "passwd", "etc"]
    ),
    "files names brought back": Hostile("files", "artifacts", args=["names"], files=FILES, artifacts=["."]),
    "files artifact": Hostile(
        "files", "artifacts", args=["artifact"], files=FILES, artifacts=["artifact"], limits={"artifactBytes": 1000}
    ),
    # Large, but not wrong.
    **_modules(
        "one_function", "values_alive", "blocks", "nested_loops", "expressions", "br_table", "functions", "types",
        "parameters", "globals", "exports", "imports", "data_segments", "elements", "custom", "debug_names", "locals",
        "odd_exports", entry="run", once=True,
    ),
    "data far": Hostile("data_far", entry="run", once=True, limits={"memoryBytes": 128 << 20}),
    "data far in little memory": Hostile("data_far", "memory", entry="run"),
    # Never to be run.
    **_modules(
        "too_many_locals", "memories", "atomics", "memory64", "exceptions", "not_valid", "cut_off",
        reason="compile", entry="run",
    ),
    **_modules(
        "import_unknown", "import_thread", "import_sockets", "import_of_another", "import_signature", "import_memory",
        "import_table", "import_global", "import_odd_name", "import_long_name", "start_is_no_function",
        "start_takes_arguments", "start_returns", "no_start", reason="compile",
    ),
    **_modules(
        "initialize_is_no_function", "initialize_takes_arguments", "run_is_no_function",
        reason="compile", entry="run",
    ),
}  # fmt: skip
