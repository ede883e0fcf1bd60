"""What one run may use: each limit ends it, or cuts it, in its own name and with the figure that was reached."""

import asyncio
import re
import struct
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.guests import SLEEP_FOR_EVER, function, guest, wat
from tests.sandbox.test_pool import LIMITS, Sandbox, children
from ww.sandbox.modules import ModuleCache
from ww.sandbox.pool import SandboxPool

pytestmark = pytest.mark.anyio

# Prints 'x' as often as its first argument has characters times 4096, and then exits with 3 if a write failed.
PRINTS = wat(
    """
    (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "args_sizes_get" (func $sizes (param i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
    (memory (export "memory") 1)
    (func (export "_start") (local $left i32)
      (drop (call $sizes (i32.const 16) (i32.const 20)))
      (local.set $left (i32.sub (i32.load (i32.const 20)) (i32.const 11)))
      (i32.store (i32.const 0) (i32.const 1024)) (i32.store (i32.const 4) (i32.const 4096))
      (memory.fill (i32.const 1024) (i32.const 120) (i32.const 4096))
      (loop $again
        (if (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8)) (then (call $exit (i32.const 3))))
        (br_if $again (local.tee $left (i32.sub (local.get $left) (i32.const 1))))))
    """
)
FLOATS = wat(
    """
    (func (export "half") (param f64) (result f64) (f64.div (local.get 0) (f64.const 2)))
    (func (export "third") (param f32 i32) (result f32) (f32.div (local.get 0) (f32.convert_i32_s (local.get 1))))
    (func (export "nothing") (param i64))
    (func (export "none") (result i32) (i32.const -1))
    """
)
# Answers what clocks, random numbers and a division of zero by zero give, one after the other, as output.
CHANGEABLE = wat(
    """
    (import "wasi_snapshot_preview1" "clock_time_get" (func $time (param i32 i64 i32) (result i32)))
    (import "wasi_snapshot_preview1" "random_get" (func $random (param i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
    (memory (export "memory") 1)
    (func (export "_start")
      (drop (call $time (i32.const 0) (i64.const 1) (i32.const 104)))
      (drop (call $time (i32.const 1) (i64.const 1) (i32.const 112)))
      (drop (call $random (i32.const 120) (i32.const 32)))
      (f64.store (i32.const 152) (f64.div (f64.load (i32.const 4000)) (f64.load (i32.const 4000))))
      (i32.store (i32.const 0) (i32.const 104)) (i32.store (i32.const 4) (i32.const 56))
      (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8))))
    """
)


@pytest.fixture(params=["functions of C", "classes"])
async def sandbox(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Sandbox]:
    cache = ModuleCache(tmp_path / "cache", quota_bytes=1 << 30)
    async with SandboxPool(cache, slots=1, limits=LIMITS, with_classes=request.param == "classes") as pool:
        yield Sandbox(pool, cache)


def figures(text: str) -> list[float]:
    return [float(figure) for figure in re.findall(r"\d+\.?\d*", text)]


async def test_the_deadline_ends_a_guest_that_computes_and_one_that_sleeps(sandbox: Sandbox) -> None:
    before = children()
    for outcome in (
        await sandbox.call(guest("spin"), duration_s=0.1),
        await sandbox.run(SLEEP_FOR_EVER, duration_s=0.1),
    ):
        assert outcome.reason == "deadline"
        reached, limit = figures(outcome.detail)
        assert limit == 0.1
        assert reached >= 0.1
        assert outcome.wall_s == pytest.approx(reached, abs=1e-3)
    assert children() == before


async def test_processor_time_ends_a_guest_that_computes_and_not_one_that_sleeps(sandbox: Sandbox) -> None:
    outcome = await sandbox.call(guest("spin"), asked={"cpuSeconds": 0.05})
    assert outcome.reason == "cpu"
    reached, limit = figures(outcome.detail)
    assert limit == 0.05
    assert reached >= 0.05
    slept = await sandbox.run(SLEEP_FOR_EVER, duration_s=0.3, asked={"cpuSeconds": 0.1})
    assert slept.reason == "deadline"
    assert slept.cpu_s < 0.1
    # And the next one has processor time of its own.
    assert (await sandbox.call(guest("hash"), 7, 1, asked={"cpuSeconds": 5.0})).value == 19


async def test_fuel_ends_a_guest_and_is_counted(sandbox: Sandbox) -> None:
    outcome = await sandbox.call(guest("spin"), asked={"fuel": 100_000})
    assert outcome.reason == "fuel"
    assert outcome.fuel == 100_000
    assert figures(outcome.detail) == [100_000]
    first, second = [await sandbox.call(guest("hash"), 7, 2, asked={"fuel": 10**9}) for _ in range(2)]
    assert (first.value, (first.fuel is not None), first.fuel > 100_000) == (198, True, True)
    assert first.fuel == second.fuel
    assert (await sandbox.call(guest("hash"), 7, 2)).fuel is None


async def test_output_beyond_the_limit_is_cut_flagged_and_no_failure_of_the_guests(sandbox: Sandbox) -> None:
    for _ in range(2):
        outcome = await sandbox.run(PRINTS, args=["-" * 64], output_bytes=10_000)
        assert (outcome.reason, outcome.detail) == ("ok", "")
        assert (outcome.stdout, outcome.stdout_truncated) == (b"x" * 10_000, True)
    exact = await sandbox.run(PRINTS, args=["-"], output_bytes=4096)
    assert (exact.stdout, exact.stdout_truncated) == (b"x" * 4096, False)


async def test_a_flood_for_ever_ends_at_its_deadline_with_what_was_kept(sandbox: Sandbox) -> None:
    flood = wat(
        """
        (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
        (memory (export "memory") 20)
        (func (export "_start")
          (i32.store (i32.const 0) (i32.const 1024)) (i32.store (i32.const 4) (i32.const 1048576))
          (memory.fill (i32.const 1024) (i32.const 121) (i32.const 1048576))
          (loop $again
            (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8)))
            (drop (call $write (i32.const 2) (i32.const 0) (i32.const 1) (i32.const 8)))
            (br $again)))
        """
    )
    outcome = await sandbox.run(flood, duration_s=0.5, output_bytes=200_000)
    assert outcome.reason == "deadline"
    assert outcome.stdout == outcome.stderr == b"y" * 200_000
    assert outcome.stdout_truncated
    assert outcome.stderr_truncated
    after = await sandbox.run(guest("echo"), stdin=b"mine")
    assert (after.stdout, after.stderr) == (b"mine", b"")


async def test_memory_that_a_guest_starts_with_and_may_not_have_is_told_with_the_figure(sandbox: Sandbox) -> None:
    outcome = await sandbox.call(function("(i32.const 1)", "(memory 3)"), memory_bytes=2 << 16)
    assert outcome.reason == "memory"
    assert {3, 3 << 16} & set(figures(outcome.detail))


@pytest.mark.parametrize("table", ["(table 2000000 funcref)", "(table 1 funcref)"])
async def test_tables_are_limited(sandbox: Sandbox, table: str) -> None:
    grow = function("(table.grow (ref.null func) (i32.const 1500000))", table)
    outcome = await sandbox.call(grow)
    # Refused at the start, or when it grows.
    assert outcome.reason == "memory" or (outcome.reason, outcome.value) == ("ok", -1)


async def test_functions_of_floats_and_of_nothing(sandbox: Sandbox) -> None:
    half = await sandbox.run(FLOATS, entry="half", arguments=[bits(-3.0)])
    assert (half.is_float, half.value) == (True, bits(-1.5))
    third = await sandbox.run(FLOATS, entry="third", arguments=[bits(1.0), 4])
    assert (third.is_float, third.value) == (True, bits(0.25))
    nothing = await sandbox.run(FLOATS, entry="nothing", arguments=[5])
    assert (nothing.reason, nothing.value) == ("ok", None)
    none = await sandbox.run(FLOATS, entry="none")
    assert (none.is_float, none.value) == (False, -1)


def bits(value: float) -> int:
    return int(struct.unpack("<q", struct.pack("<d", value))[0])


async def test_deterministic_runs_give_the_same_bytes_and_the_same_fuel(sandbox: Sandbox) -> None:
    async def run(**say: Any) -> tuple[bytes, int]:
        outcome = await sandbox.run(CHANGEABLE, **say)
        assert outcome.reason == "ok"
        return outcome.stdout, outcome.fuel

    first = await run(deterministic=True)
    assert first == await run(deterministic=True)
    assert first != await run(deterministic=True, seed=1)
    assert await run(deterministic=True, seed=1) == await run(deterministic=True, seed=1)
    assert (await run())[0] != (await run())[0]
    # Canonical: no sign, no payload.
    assert first[0][48:] == bytes.fromhex("000000000000f87f")


async def test_statistics_are_told(sandbox: Sandbox) -> None:
    outcome = await sandbox.call(guest("hash"), 7, 3)
    assert 0 < outcome.instantiate_s < outcome.wall_s
    assert outcome.cpu_s > 0
    assert outcome.memory_bytes >= 1 << 16


async def test_a_preview_2_guest_that_sleeps_is_killed_and_costs_its_run_alone(sandbox: Sandbox) -> None:
    from tests.components import sleeps

    before = children()
    async with asyncio.timeout(5):
        outcome = await sandbox.run(sleeps(60), duration_s=0.1)
    assert outcome.reason == "deadline"
    assert (await sandbox.call(guest("noop"), 5, 0)).value == 5
    assert len(children()) == len(before)
