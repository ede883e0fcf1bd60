"""Reactor guests: one instance answers many units of work of one task, and none of another."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.guests import guest, wat
from tests.sandbox.test_pool import LIMITS, Sandbox, children
from ww.sandbox.modules import ModuleCache
from ww.sandbox.pool import SandboxPool

pytestmark = pytest.mark.anyio

# Answers each unit with itself, after how many the instance has had, as a digit. A unit that begins with t traps, one
# with s spins, with n answers without a frame, with e exits with 0, and with l says more than it writes.
ECHO = """
    (import "wasi_snapshot_preview1" "fd_read" (func $read (param i32 i32 i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
    (memory (export "memory") 200)
    (global $count (mut i32) (i32.const 0))
    (func $say (param $at i32) (param $size i32)
      (i32.store (i32.const 0) (local.get $at)) (i32.store (i32.const 4) (local.get $size))
      (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8))))
    (func (export "_start") (i32.store (i32.const 16) (i32.const 0)) (call $say (i32.const 16) (i32.const 4)))
    (func (export "ProcessStdio") (param $size i32) (local $had i32) (local $first i32)
      (global.set $count (i32.add (global.get $count) (i32.const 1)))
      (loop $more
        (if (i32.lt_u (local.get $had) (local.get $size)) (then
          (i32.store (i32.const 0) (i32.add (i32.const 1029) (local.get $had)))
          (i32.store (i32.const 4) (i32.sub (local.get $size) (local.get $had)))
          (drop (call $read (i32.const 0) (i32.const 0) (i32.const 1) (i32.const 8)))
          (if (i32.eqz (i32.load (i32.const 8))) (then unreachable))
          (local.set $had (i32.add (local.get $had) (i32.load (i32.const 8))))
          (br $more))))
      (if (local.get $size) (then (local.set $first (i32.load8_u (i32.const 1029)))))
      (if (i32.eq (local.get $first) (i32.const 116)) (then unreachable))
      (if (i32.eq (local.get $first) (i32.const 115)) (then (loop $again (br $again))))
      (if (i32.eq (local.get $first) (i32.const 101)) (then (call $exit (i32.const 0))))
      (i32.store8 (i32.const 1028) (i32.add (i32.const 48) (global.get $count)))
      (i32.store (i32.const 1024) (i32.add (local.get $size) (i32.const 1)))
      (if (i32.eq (local.get $first) (i32.const 108)) (then (i32.store (i32.const 1024) (i32.const 1000))))
      (if (i32.eq (local.get $first) (i32.const 110)) (then
        (call $say (i32.const 1028) (i32.add (local.get $size) (i32.const 1))) (return)))
      (call $say (i32.const 1024) (i32.add (local.get $size) (i32.const 5))))
"""
REACTOR = wat(ECHO)
MINE, OTHERS = b"m" * 32, b"o" * 32


@pytest.fixture(params=["functions of C", "classes"])
async def sandbox(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Sandbox]:
    cache = ModuleCache(tmp_path / "cache", quota_bytes=1 << 30)
    async with SandboxPool(cache, slots=1, limits=LIMITS, with_classes=request.param == "classes") as pool:
        yield Sandbox(pool, cache)


async def answer(sandbox: Sandbox, unit: bytes, context: bytes = MINE, **say: Any) -> bytes:
    outcome = await sandbox.run(REACTOR, stdin=unit, context=context, output_bytes=1 << 20, **say)
    assert (outcome.reason, outcome.detail) == ("ok", "")
    return bytes(outcome.stdout)


async def test_one_instance_answers_the_units_of_a_task(sandbox: Sandbox) -> None:
    assert [await answer(sandbox, unit) for unit in (b"a", b"", b"c" * 100_000)] == [b"1a", b"2", b"3" + b"c" * 100_000]


async def test_an_instance_serves_no_other_task(sandbox: Sandbox) -> None:
    assert await answer(sandbox, b"a") == b"1a"
    assert await answer(sandbox, b"b", OTHERS) == b"1b"
    assert await answer(sandbox, b"c") == b"1c"
    assert await answer(sandbox, b"d", args=["different"]) == b"1d"
    assert await answer(sandbox, b"e" * 0, env=[{"key": "K", "value": "v"}]) == b"1"


async def test_without_a_context_every_unit_has_an_instance_of_its_own(sandbox: Sandbox) -> None:
    assert [await answer(sandbox, b"a", b"") for _ in range(2)] == [b"1a", b"1a"]
    assert [await answer(sandbox, b"a", deterministic=True) for _ in range(2)] == [b"1a", b"1a"]


async def test_an_instance_waits_while_other_guests_run(sandbox: Sandbox) -> None:
    assert await answer(sandbox, b"a") == b"1a"
    assert (await sandbox.call(guest("hash"), 7, 1)).value == 19
    assert (await sandbox.run(guest("echo"), stdin=b"x")).stdout == b"x"
    assert await answer(sandbox, b"b") == b"2b"


@pytest.mark.parametrize(
    ("unit", "reason", "detail"),
    [
        (b"t", "trap", "unreachable"),
        (b"s", "deadline", ""),
        (b"n", "trap", "the reactor's answer is not one frame"),
        (b"l", "trap", "the reactor's answer is not one frame"),
        (b"e", "exit", "the reactor ended in the middle of its work"),
    ],
)
async def test_an_instance_that_fails_is_never_used_again(
    sandbox: Sandbox, unit: bytes, reason: str, detail: str
) -> None:
    before = children()
    assert await answer(sandbox, b"a") == b"1a"
    outcome = await sandbox.run(REACTOR, stdin=unit, context=MINE, duration_s=0.2)
    assert outcome.reason == reason
    assert detail in outcome.detail
    assert await answer(sandbox, b"b") == b"1b"
    assert children() == before


async def test_a_reactor_that_does_not_say_that_it_is_ready_fails(sandbox: Sandbox) -> None:
    silent = wat(ECHO.replace("(call $say (i32.const 16) (i32.const 4))", ""))
    outcome = await sandbox.run(silent, stdin=b"a", context=MINE)
    assert (outcome.reason, "ready" in outcome.detail) == ("trap", True)


async def test_what_a_reactor_answers_is_cut_at_its_limit(sandbox: Sandbox) -> None:
    outcome = await sandbox.run(REACTOR, stdin=b"a" * 5000, context=MINE, output_bytes=1000)
    assert (outcome.stdout, outcome.stdout_truncated) == (b"1" + b"a" * 999, True)
    assert await answer(sandbox, b"b") == b"2b"


@pytest.mark.parametrize("size", [96, 97, 99, 100, 101])
async def test_an_answer_about_as_long_as_it_may_be_leaves_the_outputs_as_they_were(
    sandbox: Sandbox, size: int
) -> None:
    # It lives on, so that its output is looked at.
    lingers = wat(
        ECHO.replace(
            "(call $say (i32.const 1024) (i32.add (local.get $size) (i32.const 5))))",
            """(call $say (i32.const 1024) (i32.add (local.get $size) (i32.const 5)))
            (local.set $had (i32.const 100000000))
            (loop $again (br_if $again (local.tee $had (i32.sub (local.get $had) (i32.const 1))))))""",
        )
    )
    for number in (1, 2):
        outcome = await sandbox.run(lingers, stdin=b"a" * (size - 1), context=MINE, output_bytes=100)
        assert (outcome.reason, outcome.stdout) == ("ok", (b"%d" % number + b"a" * 100)[: min(size, 100)])
        assert outcome.stdout_truncated == (size > 100)
        assert (await sandbox.run(guest("echo"), stdin=b"hello")).stdout == b"hello"


async def test_each_unit_has_fuel_and_time_of_its_own(sandbox: Sandbox) -> None:
    asked = {"fuel": 100_000}
    fuels = []
    for number in range(3):
        outcome = await sandbox.run(REACTOR, stdin=b"a", context=MINE, asked=asked)
        assert outcome.stdout == b"%da" % (number + 1)
        fuels.append(outcome.fuel)
    assert fuels[0] > fuels[1] == fuels[2]
