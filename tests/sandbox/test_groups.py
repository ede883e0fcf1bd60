"""Groups of runs: a group is only transport. Limits, failures and sandboxes stay a run's own."""

import asyncio
import os
import random
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.components import sleeps
from tests.conftest import until
from tests.guests import digest_of, guest, wat
from tests.sandbox.test_pool import LIMITS, Sandbox, busiest, children
from ww import schema
from ww.errors import BadModule, WwError
from ww.records import OUTCOME_BYTES, read_outcomes, write_outcome
from ww.sandbox.codec import Spilled, check_outcomes, read_run, read_spilled, write_run
from ww.sandbox.files import Files
from ww.sandbox.inputs import Inputs, Task
from ww.sandbox.invocation import Invocation, Result, RunLimits
from ww.sandbox.limits import SandboxLimits
from ww.sandbox.modules import ModuleCache
from ww.sandbox.pool import GROUP_MAX, SandboxPool

pytestmark = pytest.mark.anyio

MIB = 1 << 20
SHORT = RunLimits(duration_s=10.0, memory_bytes=64 * MIB, output_bytes=64 << 10)


@pytest.fixture
async def sandbox(tmp_path: Path) -> AsyncIterator[Sandbox]:
    cache = ModuleCache(tmp_path / "cache", quota_bytes=1 << 30)
    async with SandboxPool(cache, slots=1, limits=LIMITS) as pool:
        yield Sandbox(pool, cache)


async def test_results_come_in_the_order_of_the_invocations(sandbox: Sandbox) -> None:
    digest = await sandbox.prepare(guest("echo"))
    invocations = [
        Invocation(args=[f"number {number}"], env=[("N", str(number))], stdin=os.urandom(number * 700))
        for number in range(200)
    ]
    results = await sandbox.pool.run_group(digest, invocations, RunLimits(10.0, 64 * MIB, MIB))
    assert [result.reason for result in results] == ["ok"] * 200
    for number, (invocation, result) in enumerate(zip(invocations, results, strict=True)):
        assert result.stdout == f"number {number}\n".encode() + invocation.stdin
        assert result.stderr == f"N={number}\n".encode()


async def test_each_run_has_a_sandbox_and_a_failure_of_its_own(sandbox: Sandbox) -> None:
    counts_or_divides = wat(
        """
        (memory (export "memory") 1)
        (func (export "run") (param i32 i32) (result i32)
          (i32.store (i32.const 0) (i32.add (i32.load (i32.const 0)) (i32.const 1)))
          (i32.div_u (i32.load (i32.const 0)) (local.get 0)))
        """
    )
    digest = await sandbox.prepare(counts_or_divides)
    invocations = [Invocation("run", (number % 3, 0)) for number in range(9)]
    results = await sandbox.pool.run_group(digest, invocations, SHORT)
    assert [(result.reason, result.value) for result in results] == [("trap", None), ("ok", 1), ("ok", 0)] * 3


async def test_a_child_that_dies_costs_the_run_that_it_was_at(sandbox: Sandbox) -> None:
    digest = await sandbox.prepare(guest("spin"))
    invocations = [Invocation("run", (milliseconds, 0)) for milliseconds in (1, 1, 0, 1)]
    group = asyncio.ensure_future(sandbox.pool.run_group(digest, invocations, RunLimits(1.0, 64 * MIB, 64 << 10)))
    os.kill(await busiest(children()), signal.SIGKILL)
    results = await asyncio.wait_for(group, 20)
    # It is asked for again, alone, and then it ends by itself.
    assert [result.reason for result in results] == ["ok", "ok", "deadline", "ok"]


async def test_a_run_that_kills_its_child_twice_has_crashed_and_the_others_have_not(sandbox: Sandbox) -> None:
    digest = await sandbox.prepare(guest("spin"))
    invocations = [Invocation("run", (milliseconds, 0)) for milliseconds in (1, 0, 1)]
    group = asyncio.ensure_future(sandbox.pool.run_group(digest, invocations, RunLimits(30.0, 64 * MIB, 64 << 10)))
    for _ in range(2):
        # A process that starts is busy too.
        await until(lambda: len(sandbox.pool._children) == 2)
        os.kill(await busiest(children()), signal.SIGKILL)
        await until(lambda: len(sandbox.pool._children) == 1)
    results = await asyncio.wait_for(group, 20)
    assert [result.reason for result in results] == ["ok", "crash", "ok"]
    assert "SIGKILL" in results[1].detail


async def test_a_guest_that_hears_no_deadline_costs_its_own_run(sandbox: Sandbox) -> None:
    digest = await sandbox.prepare(sleeps(60))
    results = await sandbox.pool.run_group(digest, [Invocation(), Invocation()], RunLimits(0.1, 64 * MIB, 64 << 10))
    assert [result.reason for result in results] == ["deadline", "deadline"]


async def test_output_larger_than_what_waits_to_be_fetched(sandbox: Sandbox) -> None:
    digest = await sandbox.prepare(guest("echo"))
    source = random.Random(1)
    invocations = [Invocation(stdin=source.randbytes(11 * MIB)) for _ in range(8)]
    results = await sandbox.pool.run_group(digest, invocations, RunLimits(10.0, 64 * MIB, 12 * MIB))
    for invocation, result in zip(invocations, results, strict=True):
        assert result.stdout == invocation.stdin


async def test_more_than_one_run_is_given_here_is_refused(sandbox: Sandbox) -> None:
    digest = await sandbox.prepare(guest("echo"))
    small = SandboxLimits(input_bytes_max=100)
    async with SandboxPool(sandbox.cache, slots=0, limits=small) as pool:
        with pytest.raises(WwError, match="at most 100 bytes"):
            await pool.run(digest, Invocation(stdin=bytes(101)), SHORT)


async def test_a_group_is_bounded(sandbox: Sandbox) -> None:
    digest = await sandbox.prepare(guest("noop"))
    with pytest.raises(WwError, match="at most 256 runs"):
        await sandbox.pool.run_group(digest, [Invocation("run", (0, 0))] * (GROUP_MAX + 1), SHORT)


async def test_a_process_that_has_grown_is_replaced(tmp_path: Path) -> None:
    cache = ModuleCache(tmp_path / "cache", quota_bytes=1 << 30)
    async with SandboxPool(cache, slots=1, limits=SandboxLimits(growth_bytes_per_child=1)) as pool:
        sandbox = Sandbox(pool, cache)
        await sandbox.prepare(guest("noop"))
        await until(lambda: len(children()) == 2)
        before = children()
        assert (await sandbox.call(guest("noop"), 1, 0)).value == 1
        assert (await sandbox.call(guest("noop"), 2, 0)).value == 2
        assert children() != before
        await until(lambda: len(children()) == len(before))


async def test_two_workers_with_one_cache_compile_a_module_once(tmp_path: Path) -> None:
    cache = ModuleCache(tmp_path / "cache", quota_bytes=1 << 30)
    async with SandboxPool(cache, slots=1) as one, SandboxPool(cache, slots=1) as other:
        made: list[Path] = []
        adopt = cache.adopt

        async def counting(temporary: Path, path: Path) -> None:
            made.append(path)
            await adopt(temporary, path)

        cache.adopt = counting  # type: ignore[method-assign]
        digest = await store(cache, guest("hash"))
        made.clear()
        await asyncio.gather(*(pool.prepare(digest) for pool in (one, other) for _ in range(25)))
        assert made == [cache.artefact_path(digest)]
        for pool in (one, other):
            assert (await pool.run(digest, Invocation("run", (7, 1)), SHORT)).value == 19


async def test_a_compiler_that_somebody_ends_is_no_fault_of_the_modules(sandbox: Sandbox) -> None:
    slow = wat("".join(f"(func (result i32) {'(i32.const 1) (drop) ' * 2000} (i32.const {i}))" for i in range(400)))
    digest = await store(sandbox.cache, slow)
    executors = {child._process.pid for child in sandbox.pool._children if child.files is not None}  # type: ignore[union-attr]
    await until(lambda: len(children()) == 2)
    preparing = asyncio.ensure_future(sandbox.pool.prepare(digest))
    os.kill(await busiest(children() - executors), signal.SIGKILL)
    await asyncio.wait_for(preparing, 30)


async def test_what_is_not_in_its_file_is_refused() -> None:
    files = Files.make()
    try:
        for at in (0, 2**63 - 1):
            with pytest.raises(ValueError, match="there"):
                await files.fetch([Spilled(0, at, 10)])
    finally:
        files.close()


async def store(cache: ModuleCache, module: bytes) -> bytes:
    digest = digest_of(module)
    async with cache.writer(digest) as writer:
        await writer.write(module)
    return digest


async def test_a_failed_compilation_fails_all_that_asked_each_with_an_error_of_its_own(sandbox: Sandbox) -> None:
    digest = await store(sandbox.cache, guest("hash")[:-400])
    errors = await asyncio.gather(*(sandbox.pool.prepare(digest) for _ in range(3)), return_exceptions=True)
    assert [type(error) for error in errors] == [BadModule] * 3
    assert len({id(error) for error in errors}) == 3
    assert len({str(error) for error in errors}) == 1


TEXTS = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=5)


@given(
    st.lists(
        st.tuples(
            st.lists(
                st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=5), max_size=3
            ),
            st.binary(max_size=20),
            st.integers(0, 2**64 - 1),
        ),
        min_size=1,
        max_size=5,
    ),
    st.booleans(),
)
def test_what_is_written_of_a_group_is_read(rows: list[tuple[list[str], bytes, int]], with_files: bool) -> None:
    files = b"zip" if with_files else b""
    invocations = [
        Invocation("run", (number, -number), args, [("k", each) for each in args], stdin, files, seed=seed)
        for number, (args, stdin, seed) in enumerate(rows)
    ]
    message = schema.sandbox.Request.new_message()
    task, inputs = Task.of(invocations[0]), Inputs.of(invocations)
    assert write_run(message.init("run"), bytes(32), True, SHORT, task, inputs, range(len(inputs))) == ()
    limits, has_files, read = read_run(message.run, None)
    assert (limits, has_files) == (SHORT, with_files)
    assert [(tuple(each.arguments), list(each.args), list(each.env)) for each in read] == [
        (tuple(each.arguments), list(each.args), list(each.env)) for each in invocations
    ]
    assert [(each.stdin, each.files, each.seed) for each in read] == [
        (each.stdin, each.files, each.seed) for each in invocations
    ]


def outcomes(first: int, results: list[Result]) -> bytes:
    return b"".join(write_outcome(place, result, memory_limit_bytes=1) for place, result in enumerate(results, first))


@settings(max_examples=500)
@given(st.integers(0, 3), st.lists(st.binary(max_size=9), min_size=1, max_size=4), st.data())
def test_whatever_a_child_says_is_an_outcome_of_a_run_or_refused(
    first: int, outputs: list[bytes], draw: st.DataObject
) -> None:
    data = bytearray(outcomes(first, [Result(stdout=output) for output in outputs]))
    for _ in range(draw.draw(st.integers(0, 3))):
        data[draw.draw(st.integers(0, len(data) - 1))] = draw.draw(st.integers(0, 255))
    del data[draw.draw(st.integers(1, len(data))) :]
    places = range(1, 4)
    try:
        count = check_outcomes(bytes(data), places, SHORT)
    except ValueError:
        return
    read = read_outcomes(bytes(data))
    assert [raw.place for raw in read] == list(places[:count])
    assert all(len(part) <= SHORT.output_bytes for raw in read for part in raw[-4:])


@given(st.binary(max_size=200))
def test_where_a_child_says_that_output_is_is_bounded(data: bytes) -> None:
    try:
        found = read_spilled(data, range(3), SHORT)
    except ValueError:
        return
    assert all(place in range(3) and row.stdout_bytes <= SHORT.output_bytes for place, row in found.items())


def test_an_outcome_with_more_output_than_a_run_may_have_is_refused() -> None:
    most = SHORT.output_bytes
    assert check_outcomes(outcomes(0, [Result(stdout=bytes(most), stderr=bytes(most))]), range(1), SHORT) == 1
    for result in (Result(stdout=bytes(most + 1)), Result(stderr=bytes(most + 1)), Result(artifacts=b"1")):
        with pytest.raises(ValueError, match="bytes"):
            check_outcomes(outcomes(0, [result]), range(1), SHORT)
    for places in (range(1), range(1, 3)):
        with pytest.raises(ValueError, match="place"):
            check_outcomes(outcomes(0, [Result(), Result()]), places, SHORT)
    with pytest.raises(ValueError, match="cut off"):
        check_outcomes(outcomes(0, [Result()])[: OUTCOME_BYTES - 1], range(1), SHORT)
