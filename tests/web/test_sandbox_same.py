"""What runs in a tab ends as it does in the Python sandbox: the same invocations through both, in Node for the tab.

What is compared are facts: times differ, and so does what a browser cannot know of a run that was ended from outside.
"""

import os
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.guests import conformance_guest, guest, wat
from tests.sandbox.hostile import HOSTILE, Hostile, faults_of, module_of, run
from tests.sandbox.test_conformance import ARGS, ENV
from tests.sandbox.test_pool import Sandbox
from tests.web.sandbox_in_node import NodeSandbox, Refused, build, is_there
from ww import schema
from ww.errors import BadModule
from ww.outcome import read_invocation
from ww.records import Input, read_outcomes, write_input
from ww.sandbox.codec import result_of
from ww.sandbox.inputs import Inputs, Task
from ww.sandbox.invocation import Result
from ww.sandbox.limits import SandboxLimits
from ww.sandbox.modules import ModuleCache
from ww.sandbox.pool import SandboxPool
from ww.wasm_inspect import _WASI

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(
        not is_there() and not os.environ.get("CI"), reason="no node, or web/node_modules: scripts/web installs them"
    ),
    pytest.mark.timeout(120),
]

TRAPS = conformance_guest("trap")
# V8 has one trap where wasmtime has two, until its version 13: Node 20 cannot tell them apart.
ALIKE = {"bad_conversion_to_integer": "integer_overflow", "bad_signature": "indirect_call_to_null"}
ENVIRONMENT = [{"key": name, "value": value} for name, value in ENV]


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module")
async def both(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[tuple[Sandbox, NodeSandbox]]:
    cache = ModuleCache(tmp_path_factory.mktemp("cache"), quota_bytes=1 << 30)
    in_node = await NodeSandbox.start(build(tmp_path_factory.mktemp("web")))
    async with SandboxPool(cache, slots=1, limits=SandboxLimits(memory_bytes_max=256 << 20)) as pool:
        yield Sandbox(pool, cache), in_node
    await in_node.aclose()


Both = tuple[Sandbox, NodeSandbox]


def invocation(entry: str = "", *arguments: int, limits: dict[str, float] | None = None, **fields: Any) -> Any:
    message = schema.worker.Invocation.new_message(entry=entry, arguments=list(arguments), **fields)
    for name, value in (limits or {}).items():
        setattr(message.limits, name, value)
    return message


def facts(result: Result) -> dict[str, Any]:
    """What must be the same of an outcome wherever it was."""
    is_shown = result.reason in ("ok", "exit", "trap")
    return {
        "reason": result.reason,
        "detail": ALIKE.get(result.detail, result.detail) if is_shown else "",
        "value": result.value,
        "is_float": result.is_float,
        "exit_code": result.exit_code,
        "stdout": bytes(result.stdout),
        "stderr": bytes(result.stderr),
        "cut": (result.stdout_truncated, result.stderr_truncated),
        "memory_bytes": result.memory_bytes if is_shown else 0,
    }


async def same(both: Both, module: bytes, message: Any) -> Result:
    """Run it in both; return what both say."""
    python, node = both
    expected, got = await python.send(module, message), await node.send(module, message)
    assert facts(got) == facts(expected)
    return got


@pytest.mark.parametrize("number", [0, 1, 7])
async def test_the_hash_puzzle(both: Both, number: int) -> None:
    known = {0: (1, 3, 563, 2832), 1: (1, 25, 467, 2823), 7: (1, 19, 198, 7379)}[number]
    results = [await same(both, guest("hash"), invocation("run", number, difficulty)) for difficulty in range(4)]
    assert tuple(result.value for result in results) == known


async def test_a_command_with_all_that_it_can_be_given(both: Both) -> None:
    for stdin in (b"", b"in\0\xff", b"x" * 200_000):
        for code in ("0", "7", "255"):
            env = [*ENVIRONMENT, {"key": "EXIT", "value": code}]
            message = invocation(args=ARGS, env=env, stdin=stdin, limits={"outputBytes": 100_000})
            result = await same(both, guest("echo"), message)
            assert result.exit_code == int(code)
    assert result.stdout_truncated


async def test_runs_of_a_group_differ_in_all_that_a_record_can_say(both: Both) -> None:
    python, node = both
    inputs = b"".join(
        write_input(given)
        for given in (
            Input(),
            Input(args=["other", "żółw"], name="named"),
            Input(env=[("EXIT", "3"), ("ü", "")], stdin=b"own"),
            Input(args=[], env=[], stdin=b"", seed=2**64 - 1),
        )
    )
    message = invocation(args=["common"], env=ENVIRONMENT, stdin=b"of all")
    task = read_invocation(message)
    limits = python.pool.limits.of_run(message.limits, task)
    digest = await python.prepare(guest("echo"))
    async with python.pool.group(digest, Task.of(task), Inputs(inputs), limits) as group:
        expected: dict[int, Result] = {}
        while ended := await group.outcomes():
            for outcomes in ended:
                expected |= {raw.place: result_of(raw) for raw in read_outcomes(outcomes.records)}
    got = await node.group(guest("echo"), message, inputs)
    assert [facts(result) for result in got] == [facts(expected[place]) for place in range(4)]


@pytest.mark.parametrize(
    "inputs", [b"", b"\0\0\0\0", b"\1\0\0\0\x80", b"\5\0\0\0\4\7\0\0\0", b"\1\0\0", b"\7\0\0\0\2\2\0\0\0ab"]
)
async def test_records_that_are_none_are_refused(both: Both, inputs: bytes) -> None:
    with pytest.raises(Refused, match="usage: inputs: "):
        await both[1].group(guest("echo"), invocation(), inputs)


ROUND = wat(
    """
    (memory (export "memory") 1 3)
    (func (export "i32") (param i32) (result i32) (local.get 0))
    (func (export "i64") (param i64) (result i64) (local.get 0))
    (func (export "f32") (param f32) (result f32) (local.get 0))
    (func (export "f64") (param f64) (result f64) (local.get 0))
    (func (export "all") (param i32 i64 f32 f64) (result f64)
      (f64.add (f64.promote_f32 (local.get 2)) (local.get 3)))
    (func (export "nothing"))
    (func (export "grow") (param i32) (result i32) (memory.grow (local.get 0)))
    """
)


async def test_numbers_go_in_and_out_by_their_bits(both: Both) -> None:
    for value in (0, -1, 2**31 - 1, -(2**31), 2**32 - 1, 2**32, 2**63 - 1, -(2**63)):
        for entry in ("i32", "i64", "f64"):
            await same(both, ROUND, invocation(entry, value))
    # 1.5, the smallest number, the negative zero, and what are no numbers: quiet with a payload, and signalling.
    for bits in (0x3FF8 << 48, 1, -(1 << 63), 0x7FF8_0000_2000_0000, 0x7FF4 << 48):
        result = await same(both, ROUND, invocation("f32", bits))
        assert result.is_float
    await same(both, ROUND, invocation("all", 1, 2, 0x3FF8 << 48, 0x4000 << 48))
    await same(both, ROUND, invocation("nothing"))
    for pages in (0, 1, 2, 3, -1):
        await same(both, ROUND, invocation("grow", pages))
    await same(both, ROUND, invocation("grow", 2, limits={"memoryBytes": 2 << 16}))
    await same(both, ROUND, invocation("i32"))
    await same(both, ROUND, invocation("none", 1))
    await same(both, ROUND, invocation())


async def test_what_a_command_sees_of_its_world(both: Both) -> None:
    message = invocation(args=ARGS, env=ENVIRONMENT)
    result = await same(both, conformance_guest("process"), message)
    assert (result.reason, result.exit_code, result.stderr) == ("ok", 0, b"")


@pytest.mark.parametrize("name", ["dirs", "files", "open", "paths", "poll", "stdio"])
async def test_a_guest_that_misses_its_files_finds_the_same_wrong(both: Both, name: str) -> None:
    result = await same(both, conformance_guest(name), invocation(stdin=b"the input\n"))
    assert result.stderr, "it says which of its checks failed, and why"


@pytest.mark.parametrize("code", ["0", "1", "126", "256", "2147483648", "4294967295", "deep"])
async def test_exit_codes(both: Both, code: str) -> None:
    result = await same(both, conformance_guest("exit"), invocation(args=[code]))
    assert result.exit_code == (77 if code == "deep" else int(code))


async def test_a_plain_return_is_an_exit_with_0(both: Both) -> None:
    assert (await same(both, conformance_guest("exit"), invocation())).exit_code == 0


# The functions that a guest without files may call with anything, and what they return, on each descriptor.
CALLS = {
    "fd_advise": (0, 10, 0), "fd_allocate": (0, 10), "fd_close": (), "fd_datasync": (), "fd_fdstat_get": (4096,),
    "fd_fdstat_set_flags": (0,), "fd_fdstat_set_rights": (0, 0), "fd_filestat_get": (4096,),
    "fd_filestat_set_size": (0,), "fd_filestat_set_times": (0, 0, 0), "fd_pread": (512, 1, 0, 4096),
    "fd_prestat_dir_name": (4096, 1), "fd_prestat_get": (4096,), "fd_pwrite": (512, 1, 0, 4096),
    "fd_read": (512, 1, 4096), "fd_readdir": (4096, 100, 0, 4096), "fd_renumber": (1,), "fd_seek": (0, 0, 4096),
    "fd_sync": (), "fd_tell": (4096,), "fd_write": (512, 1, 4096), "path_create_directory": (4096, 1),
    "path_open": (0, 4096, 1, 0, 0, 0, 0, 4096), "path_unlink_file": (4096, 1), "sock_accept": (0, 4096),
    "sock_recv": (512, 1, 0, 4096, 4096), "sock_send": (512, 1, 0, 4096), "sock_shutdown": (0,),
}  # fmt: skip
ODD_CALLS = [
    ("fd_write", 1, 512, 1, 3), ("fd_write", 1, 513, 1, 4096), ("fd_write", 1, 512, 1, 131_071),
    ("fd_write", 1, 131_068, 1, 4096), ("fd_write", 1, 512, 0x2000_0000, 4096), ("fd_write", 1, 512, 0, 4096),
    ("fd_write", 99, -16, 1, 4096), ("fd_read", 0, 512, 0, 4096), ("random_get", 4096, -1),
    ("clock_time_get", 1, 0, 4097), ("clock_time_get", 4, 0, 4096), ("clock_time_get", 2, 0, 4096),
    ("clock_res_get", 4, 4096), ("clock_res_get", 2, 4096), ("args_sizes_get", 4097, 4096), ("args_get", 4096, -3),
    ("environ_get", -4, -4), ("fd_seek", 1, 0, 3, 4096), ("fd_seek", 1, 0, 0, -4), ("fd_fdstat_get", 1, -4),
    ("fd_fdstat_get", 1, 4097), ("fd_filestat_get", 1, 4100), ("fd_advise", 1, 0, 0, 6), ("proc_raise", 9),
    ("sock_accept", 1, 32, 4096), ("sock_shutdown", 99, 4), ("sched_yield",), ("fd_renumber", 1, 99),
    ("path_open", 1, 0, -16, 100, 0, 0, 0, 0, 4096), ("path_open", 1, 2, 4096, 1, 0, 0, 0, 0, 4096),
    ("poll_oneoff", 4096, 8192, 0, 16384), ("poll_oneoff", 4096, 8192, 513, 16384), ("poll_oneoff", 4097, 8192, 1, 0),
    ("poll_oneoff", -48, 8192, 1, 0), ("poll_oneoff", 4096, 8192, 1, 16384),
]  # fmt: skip


def _forwarding() -> bytes:
    """Assemble a guest whose every export is the function that it imports."""
    imports, exports = [], []
    for name, letters in _WASI.items():
        result = "" if name == "proc_exit" else "(result i32)"
        kind = f"(param {' '.join('i32' if letter == 'i' else 'i64' for letter in letters)}) {result}"
        given = " ".join(f"(local.get {index})" for index in range(len(letters)))
        imports.append(f'(import "wasi_snapshot_preview1" "{name}" (func ${name} {kind}))')
        exports.append(f'(func (export "{name}") {kind} (call ${name} {given}))')
    data = r'(data (i32.const 512) "\00\10\00\00\08\00\00\00")'
    return wat(f'{" ".join(imports)} (memory (export "memory") 2) {" ".join(exports)} {data}')


async def test_every_function_of_wasi_with_what_is_and_what_is_no_descriptor(both: Both) -> None:
    module, wrong = _forwarding(), []
    calls = [(name, fd, *rest) for name, rest in CALLS.items() for fd in (0, 1, 2, 3, 99, -1)] + ODD_CALLS
    for deterministic in (False, True):
        for name, *given in calls:
            message = invocation(name, *given, stdin=b"stdin", deterministic=deterministic)
            expected, got = await both[0].send(module, message), await both[1].send(module, message)
            if facts(expected) != facts(got):
                wrong.append((deterministic, name, given, facts(expected), facts(got)))
    assert not wrong


async def test_calls_that_no_correct_program_makes(both: Both) -> None:
    python, node = both
    # Without files: what needs one fails its checks in both, in the same way.
    wrong = {}
    for case in range(77):
        message = invocation(args=[str(case)], env=[{"key": "a", "value": "text"}])
        expected, got = await python.send(TRAPS, message), await node.send(TRAPS, message)
        # How much of what it copies it says is outside, is wasmtime's own.
        if (expected.reason, expected.exit_code) != (got.reason, got.exit_code):
            wrong[case] = (expected, got)
    assert not wrong


# Every operation that can make a NaN, of every pair of the odd numbers there are; each result's bits are written out.
_SCALAR = [
    *[(f"f{bits}.{name}", bits, bits, 2) for bits in (32, 64) for name in ("add", "sub", "mul", "div", "min", "max")],
    *[(f"f{bits}.{name}", bits, bits, 1) for bits in (32, 64) for name in
      ("sqrt", "ceil", "floor", "trunc", "nearest", "abs", "neg")],
    *[(f"f{bits}.copysign", bits, bits, 2) for bits in (32, 64)],
    ("f32.demote_f64", 64, 32, 1), ("f64.promote_f32", 32, 64, 1),
]  # fmt: skip
_VECTOR = [
    *[f"f{shape}.{name}" for shape in ("32x4", "64x2") for name in
      ("add", "sub", "mul", "div", "min", "max", "pmin", "pmax")],
    *[f"f{shape}.{name}" for shape in ("32x4", "64x2") for name in
      ("sqrt", "ceil", "floor", "trunc", "nearest", "abs", "neg")],
    "f32x4.demote_f64x2_zero", "f64x2.promote_low_f32x4",
]  # fmt: skip
_ODD = (0x7FF4567890ABCDEF, 0xFFF8000000000001, 0xFFA12345FFC00001, 0x7FF0000000000000, 0xFF8000007F800000, 0,
        0x8000000080000000, 0x3FF00000BF800000, 0x7F7FFFFF00000001)  # fmt: skip


def _floats() -> bytes:
    """Assemble a command that writes what all those operations give to stdout."""
    steps = []
    for operation, taken, given, count in _SCALAR:
        arguments = " ".join(
            f"(f{taken}.load (i32.add (i32.const 1024) (local.get ${name})))" for name in ("i", "j")[:count]
        )
        steps.append(f"(f{given}.store (local.get $at) ({operation} {arguments}))")
        steps.append(f"(local.set $at (i32.add (local.get $at) (i32.const {given // 8})))")
    for operation in _VECTOR:
        two = operation.rpartition(".")[2] in ("add", "sub", "mul", "div", "min", "max", "pmin", "pmax")
        arguments = " ".join(
            f"(v128.load (i32.add (i32.const 1024) (local.get ${name})))" for name in ("i", "j")[: 2 if two else 1]
        )
        steps.append(f"(v128.store (local.get $at) ({operation} {arguments}))")
        steps.append("(local.set $at (i32.add (local.get $at) (i32.const 16)))")
    data = "".join(f"\\{byte:02x}" for number in (*_ODD, _ODD[0]) for byte in number.to_bytes(8, "little"))
    top = 8 * len(_ODD)
    return wat(
        f"""
        (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
        (memory (export "memory") 4)
        (data (i32.const 1024) "{data}")
        (func (export "_start") (local $i i32) (local $j i32) (local $at i32)
          (local.set $at (i32.const 4096))
          (loop $next_i
            (local.set $j (i32.const 0))
            (loop $next_j
              {" ".join(steps)}
              (br_if $next_j (i32.lt_u (local.tee $j (i32.add (local.get $j) (i32.const 8))) (i32.const {top}))))
            (br_if $next_i (i32.lt_u (local.tee $i (i32.add (local.get $i) (i32.const 8))) (i32.const {top}))))
          (i32.store (i32.const 0) (i32.const 4096))
          (i32.store (i32.const 4) (i32.sub (local.get $at) (i32.const 4096)))
          (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8))))
        """
    )


async def test_floats_of_a_deterministic_run_have_the_same_bits(both: Both) -> None:
    result = await same(both, _floats(), invocation(deterministic=True, limits={"outputBytes": 1 << 20}))
    assert len(result.stdout) > 40_000


WORLD = wat(
    """
    (import "wasi_snapshot_preview1" "clock_time_get" (func $time (param i32 i64 i32) (result i32)))
    (import "wasi_snapshot_preview1" "random_get" (func $random (param i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "poll_oneoff" (func $poll (param i32 i32 i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
    (memory (export "memory") 1)
    (func (export "_start")
      (drop (call $time (i32.const 0) (i64.const 0) (i32.const 1024)))
      (drop (call $random (i32.const 2000) (i32.const 5)))
      (drop (call $random (i32.const 2005) (i32.const 3000)))
      (i32.store8 offset=8 (i32.const 0) (i32.const 0)) (i32.store offset=16 (i32.const 0) (i32.const 1))
      (i64.store offset=24 (i32.const 0) (i64.const 3600000000000))
      (drop (call $poll (i32.const 0) (i32.const 1104) (i32.const 1) (i32.const 1200)))
      (drop (call $time (i32.const 1) (i64.const 0) (i32.const 1032)))
      (i32.store (i32.const 0) (i32.const 1024)) (i32.store (i32.const 4) (i32.const 5000))
      (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8))))
    """
)


async def test_time_and_random_numbers_of_a_deterministic_run(both: Both) -> None:
    for seed in (0, 1, 2**64 - 1):
        result = await same(both, WORLD, invocation(deterministic=True, seed=seed))
        assert result.reason == "ok"


async def test_relaxed_simd_is_refused_where_it_would_differ(both: Both) -> None:
    module = wat(
        """(func (export "run") (result i32)
             (i32x4.extract_lane 0 (i32x4.relaxed_trunc_f32x4_s (v128.const f32x4 1 2 3 4))))"""
    )
    with pytest.raises(BadModule, match="relaxed SIMD"):
        await both[1].send(module, invocation("run", deterministic=True))


@pytest.mark.parametrize("limits", [{"fuel": 1}, {"cpuSeconds": 1.0}])
async def test_what_a_tab_cannot_hold_a_run_to_is_refused(both: Both, limits: dict[str, float]) -> None:
    with pytest.raises(Refused, match="usage: "):
        await both[1].send(guest("echo"), invocation(limits=limits))


def _is_for_a_tab(name: str, hostile: Hostile) -> bool:
    """Whether it needs nothing that a tab lacks, nor minutes of a test's time."""
    if hostile.files or hostile.artifacts or hostile.limits.keys() & {"fuel", "cpuSeconds"}:
        return False
    return not hostile.once


async def test_hostile_guests_end_as_they_must(both: Both) -> None:
    wrong = []
    for name, hostile in HOSTILE.items():
        if not _is_for_a_tab(name, hostile):
            continue
        outcome = await run(both[1], hostile, module_of(hostile.module))  # type: ignore[arg-type]
        alike = outcome.reason == hostile.reason and ALIKE.get(hostile.detail) == outcome.detail
        wrong += [] if alike else [f"{name}: {fault}" for fault in faults_of(hostile, outcome)]
    assert not wrong
    assert (await both[1].send(guest("noop"), invocation("run", 5, 0))).value == 5
