"""Components that say they are Python's and are not: whatever they do stays within their run."""

import asyncio
import hashlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import wasmtime

from tests.sandbox.test_pool import children
from ww.component_core import read_plan
from ww.component_inspect import check_component, inspect_component
from ww.errors import BadModule
from ww.sandbox.invocation import Invocation, Result, RunLimits
from ww.sandbox.modules import ModuleCache
from ww.sandbox.pool import SandboxPool
from ww.wasm_inspect import Kind

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("kj_loop")]

LOAD = "(i32.const 64)"
CALL = "(i32.const 64)"
REALLOC = "(i32.const 1024)"
# At 64: where the answer is, and how long; there: it ended well, and eight bytes more.
ANSWER = '(data (i32.const 64) "\\80\\00\\00\\00\\09\\00\\00\\00")'


def component(
    *, load: str = LOAD, call: str = CALL, realloc: str = REALLOC, more: str = "", memory: str = "1", imports: str = ""
) -> bytes:
    """Make a component of one core module."""
    name = "ww:python/functions@1.0.0"
    lists = '(memory (core memory $i "memory")) (realloc (core func $i "cabi_realloc"))'
    return bytes(
        wasmtime.wat2wasm(f"""
        (component
          {imports}
          (core module $m
            (memory (export "memory") {memory}) {ANSWER} {more}
            (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) {realloc})
            (func (export "{name}#load") (param i32 i32 i32 i32 i32 i32) (result i32) {load})
            (func (export "{name}#call") (param i32 i32) (result i32) {call}))
          (core instance $i (instantiate $m))
          (func $load (param "name" string) (param "code" (list u8)) (param "grants" (list u8)) (result (list u8))
            (canon lift (core func $i "{name}#load") {lists}))
          (func $call (param "request" (list u8)) (result (list u8)) (canon lift (core func $i "{name}#call") {lists}))
          (instance $f (export "load" (func $load)) (export "call" (func $call)))
          (export "{name}" (instance $f)))""")
    )


class Sandbox:
    def __init__(self, pool: SandboxPool, cache: ModuleCache) -> None:
        self._pool = pool
        self._cache = cache

    async def run(self, data: bytes, count: int = 1, **limits: float) -> list[Result]:
        digest = hashlib.sha256(data).digest()
        if not await self._cache.has(digest):
            async with self._cache.writer(digest) as writer:
                await writer.write(data)
        metered = "fuel" in limits
        await self._pool.prepare(digest, metered=metered)
        wanted = RunLimits(**{"duration_s": 10.0, "memory_bytes": 8 << 20, "output_bytes": 1000} | limits)
        invocation = Invocation(args=("a:b",), code=b"x", stdin=b"request")
        return await self._pool.run_group(digest, [invocation] * count, wanted)


@pytest.fixture
async def sandbox(tmp_path: Path) -> AsyncIterator[Sandbox]:
    cache = ModuleCache(tmp_path / "cache", quota_bytes=1 << 30)
    async with SandboxPool(cache, slots=1) as pool:
        yield Sandbox(pool, cache)


STATES = {
    "memory": ("", "(i32.store8 (i32.const 129) (i32.add (i32.load8_u (i32.const 129)) (i32.const 1)))"),
    "a global that is not exported": (
        "(global $g (mut i32) (i32.const 0))",
        "(global.set $g (i32.add (global.get $g) (i32.const 1))) (i32.store8 (i32.const 129) (global.get $g))",
    ),
    "a global of 64 bits": (
        '(global $g (mut i64) (i64.const 0)) (global (export "g") (mut f64) (f64.const 0))',
        "(global.set $g (i64.add (global.get $g) (i64.const 1)))"
        "(i32.store8 (i32.const 129) (i32.wrap_i64 (global.get $g)))",
    ),
    "a float": (
        "(global $g (mut f32) (f32.const 0))",
        "(global.set $g (f32.add (global.get $g) (f32.const 1)))"
        "(i32.store8 (i32.const 129) (i32.trunc_f32_u (global.get $g)))",
    ),
    "grown memory": (
        "",
        "(drop (memory.grow (i32.const 1))) (i32.store8 (i32.const 129) (i32.sub (memory.size) (i32.const 1)))",
    ),
    "memory at its end": (
        "",
        "(i32.store8 (i32.const 65535) (i32.add (i32.load8_u (i32.const 65535)) (i32.const 1)))"
        "(i32.store8 (i32.const 129) (i32.load8_u (i32.const 65535)))",
    ),
}


@pytest.mark.parametrize("metered", [False, True])
@pytest.mark.parametrize("state", STATES)
async def test_each_call_is_the_first(sandbox: Sandbox, state: str, metered: bool) -> None:
    more, code = STATES[state]
    limits = {"fuel": 10**6} if metered else {}
    results = await sandbox.run(component(more=more, call=code + CALL), 5, **limits)
    assert [result.reason for result in results] == ["ok"] * 5, results[0].detail
    assert [result.stdout[0] for result in results] == [1] * 5


async def test_each_call_begins_where_load_ended(sandbox: Sandbox) -> None:
    more = "(global $g (mut i32) (i32.const 5))"
    load = "(drop (memory.grow (i32.const 3))) (global.set $g (i32.const 9)) (i32.store8 (i32.const 130) (i32.const 7))"
    call = f"(i32.store8 (i32.const 129) (global.get $g)) (i32.store8 (i32.const 131) (memory.size)) {CALL}"
    results = await sandbox.run(component(more=more, load=load + LOAD, call=call), 3)
    assert {result.stdout[:3] for result in results} == {bytes((9, 7, 4))}


@pytest.mark.parametrize(
    "code",
    [
        "(table.set $t (i32.const 0) (ref.null func))",
        "(drop (table.grow $t (ref.null func) (i32.const 1)))",
        "(table.fill $t (i32.const 0) (ref.null func) (i32.const 1))",
        "(table.copy $t $t (i32.const 0) (i32.const 1) (i32.const 1))",
        "(table.init $t $e (i32.const 0) (i32.const 0) (i32.const 1))",
        "(elem.drop $e)",
        "(data.drop $d)",
        "(block (br_table 0 0 0 (i32.const 1))) (v128.store (i32.const 0) (v128.const i64x2 1 2)) (elem.drop $e)",
    ],
)
async def test_what_cannot_be_put_back_is_no_python_component(sandbox: Sandbox, code: str) -> None:
    more = '(table $t 2 funcref) (func $f) (elem $e func $f) (data $d "x")'
    with pytest.raises(BadModule, match="cannot be undone"):
        await sandbox.run(component(more=more, call=code + CALL))


@pytest.mark.parametrize(
    "code",
    [
        "(drop (table.get $t (i32.const 0)))",
        "(drop (table.size $t))",
        "(call_indirect $t (i32.const 0))",
        "(memory.init $d (i32.const 0) (i32.const 0) (i32.const 1))",
        "(memory.copy (i32.const 0) (i32.const 8) (i32.const 8))",
        "(memory.fill (i32.const 0) (i32.const 8) (i32.const 8))",
        "(drop (i8x16.extract_lane_s 3 (v128.load8_lane 1 (i32.const 0) (v128.const i64x2 1 2))))",
        "(drop (select (result i32) (i32.const 1) (i32.const 2) (i32.const 3)))",
        "(drop (i64.trunc_sat_f64_u (f64.const 1e300))) (drop (f32.const 0.5))",
        "(block (block (block (br_table 0 1 2 0 1 2 0 1 2 (i32.const 200)))))",
        "(drop (i64.const -1234567890123456789)) (drop (i32.const -2147483648))",
    ],
)
async def test_what_changes_nothing_else_is_taken(sandbox: Sandbox, code: str) -> None:
    more = '(table $t 2 funcref) (func $f) (elem (i32.const 0) $f) (data $d "x")'
    (result,) = await sandbox.run(component(more=more, call=code + CALL))
    assert result.reason == "ok", result.detail


BAD_ANSWERS = {
    "beyond the memory": "(i32.const -4)",
    "at its end": "(i32.const 65532)",
    "a length beyond it": "(i32.store (i32.const 68) (i32.const -1)) (i32.const 64)",
    "an address beyond it": "(i32.store (i32.const 64) (i32.const -1)) (i32.const 64)",
    "nothing": "(i32.store (i32.const 68) (i32.const 0)) (i32.const 64)",
    "an unknown status": "(i32.store8 (i32.const 128) (i32.const 2)) (i32.const 64)",
    "a trap": "(unreachable)",
}


@pytest.mark.parametrize("answer", BAD_ANSWERS)
async def test_a_bad_answer_is_a_trap(sandbox: Sandbox, answer: str) -> None:
    before = children()
    for given in ({"call": BAD_ANSWERS[answer]}, {"load": BAD_ANSWERS[answer]}):
        results = await sandbox.run(component(**given), 2)
        assert [result.reason for result in results] == ["trap"] * 2
    assert children() == before


@pytest.mark.parametrize("realloc", ["(i32.const -1)", "(i32.const 65535)", "(unreachable)"])
async def test_a_bad_realloc_is_a_trap(sandbox: Sandbox, realloc: str) -> None:
    (result,) = await sandbox.run(component(realloc=realloc))
    assert result.reason == "trap"


# Has random bytes before there is what makes room for them: by a table, as Python's components do.
RANDOM = """
  (core module $shim
    (type $random (func (param i64 i32))) (table (export "t") 1 funcref)
    (func (export "random") (param i64 i32)
      (call_indirect (type $random) (local.get 0) (local.get 1) (i32.const 0))))
  (core module $fix
    (import "s" "t" (table 1 funcref)) (import "h" "f" (func $f (param i64 i32))) (elem (i32.const 0) $f))
  (core instance $shim (instantiate $shim))"""


def random_component(realloc: str) -> bytes:
    """Make a component whose calls ask for random bytes, which realloc makes room for and may ask for too."""
    name = "ww:python/functions@1.0.0"
    lists = '(memory (core memory $i "memory")) (realloc (core func $i "cabi_realloc"))'
    return bytes(
        wasmtime.wat2wasm(f"""
        (component
          (import "wasi:random/random@0.2.0" (instance $r
            (export "get-random-bytes" (func (param "len" u64) (result (list u8))))))
          {RANDOM}
          (core module $m
            (import "h" "random" (func $random (param i64 i32)))
            (memory (export "memory") 1) {ANSWER}
            (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) {realloc} {REALLOC})
            (func (export "{name}#load") (param i32 i32 i32 i32 i32 i32) (result i32) {LOAD})
            (func (export "{name}#call") (param i32 i32) (result i32)
              (call $random (i64.const 5) (i32.const 512)) {CALL}))
          (core instance $i (instantiate $m (with "h" (instance (export "random" (func $shim "random"))))))
          (core func $lowered (canon lower (func $r "get-random-bytes") {lists}))
          (core instance (instantiate $fix
            (with "s" (instance $shim)) (with "h" (instance (export "f" (func $lowered))))))
          (func $load (param "name" string) (param "code" (list u8)) (param "grants" (list u8)) (result (list u8))
            (canon lift (core func $i "{name}#load") {lists}))
          (func $call (param "request" (list u8)) (result (list u8)) (canon lift (core func $i "{name}#call") {lists}))
          (instance $f (export "load" (func $load)) (export "call" (func $call)))
          (export "{name}" (instance $f)))""")
    )


async def test_a_realloc_that_calls_its_host_within_a_call_of_the_host_is_a_trap(sandbox: Sandbox) -> None:
    # What is asked for is five bytes: the request has seven.
    code = "(if (i32.eq (local.get 3) (i32.const 5)) (then (call $random (i64.const 5) (i32.const 512))))"
    (result,) = await sandbox.run(random_component(code))
    assert (result.reason, result.detail) == (
        "trap",
        "wasi:random/random.get-random-bytes: called while realloc makes room",
    )
    (result,) = await sandbox.run(random_component(""))
    assert result.reason == "ok", result.detail


@pytest.mark.parametrize("part", ["realloc", "load", "call"])
async def test_an_endless_loop_ends_wherever_it_is(
    sandbox: Sandbox, part: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = children()
    # Loading may take ten seconds.
    limits = {"duration_s": 0.3} if part == "call" else {"duration_s": 0.3, "fuel": 10**6}
    code = "(loop (br 0)) (unreachable)"
    if part == "call":
        (result,) = await sandbox.run(component(call=code), **limits)
        assert result.reason == "deadline"
    else:
        (result,) = await sandbox.run(component(**{part: code}), **limits)
        assert result.reason in ("deadline", "fuel")
    assert children() == before


@pytest.mark.parametrize(
    "failure", ["not json", '{"module": 1}', "[" * 900, "\\ff\\fe", "{\\22module\\22:\\22builtins\\22}"]
)
async def test_a_failure_that_is_none_is_an_exception(sandbox: Sandbox, failure: str) -> None:
    size = len(failure) + 1
    more = f'(data (i32.const 2000) "\\01{failure.replace(chr(34), chr(92) + "22")}")'
    call = f"(i32.store (i32.const 64) (i32.const 2000)) (i32.store (i32.const 68) (i32.const {size})) {CALL}"
    (result,) = await sandbox.run(component(more=more, call=call))
    assert (result.reason, result.exit_code, result.detail) == ("exit", 1, "an exception")


async def test_memory_that_does_not_fit_is_refused(sandbox: Sandbox) -> None:
    (result,) = await sandbox.run(component(memory="200"))
    assert result.reason == "memory"


async def test_it_is_told_by_what_it_exports_and_read_in_bounded_time() -> None:
    data = component()
    assert check_component(inspect_component(data)) is Kind.PYTHON
    plan = read_plan(data)
    assert [len(plan.modules), len(plan.steps), plan.memory and plan.memory.name] == [1, 1, "memory"]
    for end in range(8, len(data)):
        try:
            read_plan(data[:end])
        except BadModule:
            continue
    for at in range(8, len(data)):
        changed = data[:at] + bytes((data[at] ^ 0x55,)) + data[at + 1 :]
        try:
            read_plan(changed)
        except BadModule:
            continue


async def test_several_hostile_ones_at_a_time_leave_the_pool_as_it_was(sandbox: Sandbox) -> None:
    bad = [component(call=code) for code in BAD_ANSWERS.values()]
    results = await asyncio.gather(*(sandbox.run(data, 3) for data in bad))
    assert {result.reason for group in results for result in group} == {"trap"}
    (result,) = await sandbox.run(component())
    assert result.reason == "ok"
