"""One group of runs from outside: results as they come, and every run exactly one, whoever is cancelled or dies."""

import asyncio
import contextlib
import signal
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.conftest import until
from tests.guests import guest, zipped
from tests.sandbox.test_pool import LIMITS, Sandbox, busiest, children
from tests.sandbox.test_reactor import MINE, REACTOR
from ww.errors import UsageError, WwError
from ww.records import REASONS, Input, RawOutcome, read_outcomes, write_input
from ww.sandbox.child import Child
from ww.sandbox.group import SandboxGroup
from ww.sandbox.inputs import Inputs, Task
from ww.sandbox.invocation import Invocation, RunLimits
from ww.sandbox.modules import ModuleCache
from ww.sandbox.pool import SandboxPool

pytestmark = pytest.mark.anyio

MIB = 1 << 20
LONG = RunLimits(duration_s=30.0, memory_bytes=64 * MIB, output_bytes=64 << 10)
SPIN = Task.of(Invocation("run", (1, 0)))
ENDLESS = 0


@pytest.fixture
async def sandbox(tmp_path: Path) -> AsyncIterator[Sandbox]:
    cache = ModuleCache(tmp_path / "cache", quota_bytes=1 << 30)
    async with SandboxPool(cache, slots=1, limits=LIMITS) as pool:
        yield Sandbox(pool, cache)


def records(*inputs: Input) -> Inputs:
    return Inputs(b"".join(map(write_input, inputs)))


async def spins(sandbox: Sandbox, *milliseconds: int, limits: RunLimits = LONG) -> SandboxGroup:
    """Return a group of runs that take about so many milliseconds each."""
    digest = await sandbox.prepare(guest("spin"))
    return sandbox.pool.group(digest, SPIN, records(*(Input((each, 0)) for each in milliseconds)), limits)


class Seen:
    """What a group has said, in its order."""

    def __init__(self, group: SandboxGroup) -> None:
        self._group = group
        self.outcomes: list[RawOutcome] = []

    async def more(self) -> bool:
        """Take further outcomes; False when all were given."""
        found = await self._group.outcomes()
        for outcomes in found:
            read = read_outcomes(outcomes.records)
            assert len(read) == outcomes.runs
            self.outcomes += read
        return bool(found)

    async def until_place(self, place: int) -> None:
        async with asyncio.timeout(20):
            while all(raw.place != place for raw in self.outcomes):
                assert await self.more()

    async def all(self) -> list[str]:
        """Take all that are left; return the reasons of all, by place."""
        async with asyncio.timeout(30):
            while await self.more():
                pass
        assert not await self.more()
        places = [raw.place for raw in self.outcomes]
        assert sorted(places) == list(range(len(places)))
        return [REASONS[raw.reason] for raw in sorted(self.outcomes, key=lambda raw: raw.place)]


def pids(sandbox: Sandbox) -> set[int]:
    return {child._process.pid for child in sandbox.pool._children if child.files is not None and child._process}


async def test_outcomes_come_as_runs_end(sandbox: Sandbox) -> None:
    async with await spins(sandbox, 1, 2, ENDLESS) as group:
        seen = Seen(group)
        await seen.until_place(1)
        assert [(raw.place, raw.result) for raw in seen.outcomes] == [(0, 1), (1, 2)]
    assert group.is_done, "leaving it stops what is left"


async def test_what_has_not_begun_never_does_and_the_others_go_on_in_the_same_process(sandbox: Sandbox) -> None:
    async with await spins(sandbox, 400, 1, 2, 3, 4) as group:
        seen, before = Seen(group), pids(sandbox)
        more = asyncio.ensure_future(seen.more())
        await busiest(children())
        group.cancel((1, 3, 3, 99))
        group.cancel((1,))
        await more
        assert await seen.all() == ["ok", "cancelled", "ok", "cancelled", "ok"]
        assert [raw.place for raw in seen.outcomes] == [0, 1, 2, 3, 4]
        assert [raw.wall_s for raw in seen.outcomes if REASONS[raw.reason] == "cancelled"] == [0.0, 0.0]
        group.cancel((0,))
        assert not await seen.more(), "what has ended stays as it is"
    assert pids(sandbox) == before
    async with await spins(sandbox, 1, 1, 1, 1, 1) as group:
        assert await Seen(group).all() == ["ok"] * 5, "what was withdrawn was of one group only"


async def test_a_run_under_way_is_stopped_and_those_behind_it_go_on(sandbox: Sandbox) -> None:
    async with await spins(sandbox, 1, ENDLESS, 2, ENDLESS, 3) as group:
        seen = Seen(group)
        await seen.until_place(0)
        group.cancel((1, 3))
        assert await seen.all() == ["ok", "cancelled", "ok", "cancelled", "ok"]
        assert [raw.result for raw in sorted(seen.outcomes)] == [1, 0, 2, 0, 3]


async def test_all_can_be_cancelled_before_any_has_begun(sandbox: Sandbox) -> None:
    async with await spins(sandbox, ENDLESS) as first:
        async with await spins(sandbox, 1, 2) as second:
            under_way = asyncio.ensure_future(first.outcomes())
            await busiest(children())
            seen = Seen(second)
            waiting = asyncio.ensure_future(seen.all())
            await asyncio.sleep(0)
            second.cancel((1,))
            second.cancel()
            assert await waiting == ["cancelled"] * 2
        first.cancel()
        assert REASONS[read_outcomes((await under_way)[0].records)[0].reason] == "cancelled"


async def test_short_runs_that_are_cancelled_cost_no_process(sandbox: Sandbox) -> None:
    async with await spins(sandbox, *[1] * 200) as group:
        before = pids(sandbox)
        seen = Seen(group)
        await seen.until_place(0)
        group.cancel()
        assert set(await seen.all()) == {"ok", "cancelled"}
    assert pids(sandbox) == before


async def test_a_process_that_gets_no_processor_is_waited_for_but_not_for_ever(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = []

    def is_held_up(child: Child, used_s: float) -> bool:
        looks.append(used_s)
        return True

    monkeypatch.setattr(Child, "is_held_up", is_held_up)
    async with await spins(sandbox, 1, ENDLESS, 1) as group:
        seen = Seen(group)
        await seen.until_place(0)
        group.cancel((1,))
        assert await seen.all() == ["ok", "cancelled", "ok"]
    assert len(looks) > 1


async def test_only_a_process_that_wants_the_processor_is_held_up(sandbox: Sandbox) -> None:
    (child,) = sandbox.pool._children - {child for child in sandbox.pool._children if child._role != "executor"}
    await until(lambda: not child.is_held_up(child.processor_s()))  # it waits for work
    async with await spins(sandbox, ENDLESS) as group:
        under_way = asyncio.ensure_future(group.outcomes())
        before = child.processor_s()
        await until(lambda: child.processor_s() > before + 0.1)
        assert not child.is_held_up(before), "it has had its share"
        await until(lambda: child.is_held_up(child.processor_s()))
        group.cancel()
        await under_way


async def test_whoever_stops_asking_may_ask_again(sandbox: Sandbox) -> None:
    async with await spins(sandbox, 1, 300, 2) as group:
        seen = Seen(group)
        await seen.until_place(0)
        for _ in range(3):
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(seen.more(), 0.01)
        assert await seen.all() == ["ok"] * 3


async def test_a_compiled_form_that_vanishes_in_the_middle_is_made_again(sandbox: Sandbox) -> None:
    async with await spins(sandbox, 1, ENDLESS, 2, 3) as group:
        seen = Seen(group)
        await seen.until_place(0)
        sandbox.cache.artefact_path(await sandbox.prepare(guest("spin"))).unlink()
        group.cancel((1,))
        assert await seen.all() == ["ok", "cancelled", "ok", "ok"]


async def test_a_module_that_vanishes_in_the_middle_fails_what_is_left(sandbox: Sandbox) -> None:
    async with await spins(sandbox, 1, ENDLESS, 2, 3) as group:
        seen = Seen(group)
        await seen.until_place(0)
        digest = await sandbox.prepare(guest("spin"))
        sandbox.cache.artefact_path(digest).unlink()
        sandbox.cache.module_path(digest).unlink()
        group.cancel((1,))
        with pytest.raises(WwError, match="not in the cache any more"):
            await seen.all()
    assert [raw.place for raw in seen.outcomes] == [0, 1]


@pytest.mark.parametrize(
    ("record", "says"),
    [
        (Input((1, 2, 3)), "3 arguments are given, the task has 2"),
        (Input(files=zipped(a=b"")), "files are given where the task has no file system"),
    ],
)
async def test_what_no_guest_can_be_given_is_refused_before_anything_runs(
    sandbox: Sandbox, record: Input, says: str
) -> None:
    digest = await sandbox.prepare(guest("spin"))
    async with sandbox.pool.group(digest, SPIN, records(Input(), record), LONG) as group:
        with pytest.raises(UsageError, match=says):
            await group.outcomes()
    async with await spins(sandbox, 1) as group:
        assert await Seen(group).all() == ["ok"]


HOSTILE = [
    b"\1\0\0\0\x80",  # a flag that there is not
    b"\2\0\0\0\0\0",  # longer than it says
    b"\3\0\0\0\2\1\0",  # cut off
    b"\x06\0\0\0\2\1\0\0\0a",  # a text that is not ended
    b"\x07\0\0\0\2\2\0\0\0\xff\0",  # no UTF-8
    b"\x07\0\0\0\4\2\0\0\0a\0",  # env with a name alone
    b"\x05\0\0\0\x08\xff\xff\xff\xff",  # more than there is
    b"\3\0\0\0\1\xff\xff",  # more arguments than any function has
]


@pytest.mark.parametrize("record", HOSTILE)
async def test_records_that_are_none_are_refused(sandbox: Sandbox, record: bytes) -> None:
    digest = await sandbox.prepare(guest("spin"))
    before = pids(sandbox)
    async with sandbox.pool.group(digest, SPIN, Inputs(write_input(Input()) + record), LONG) as group:
        with pytest.raises(UsageError, match="inputs: "):
            await group.outcomes()
    async with await spins(sandbox, 1) as group:
        assert await Seen(group).all() == ["ok"]
    assert pids(sandbox) == before


async def test_units_of_a_reactor_share_an_instance_until_one_fails(sandbox: Sandbox) -> None:
    digest = await sandbox.prepare(REACTOR)
    task = Task.of(Invocation(context=MINE))
    units = (b"a", b"b", b"t", b"c", b"e", b"d", b"f")
    async with sandbox.pool.group(digest, task, records(*(Input(stdin=unit) for unit in units)), LONG) as group:
        seen = Seen(group)
        assert await seen.all() == ["ok", "ok", "trap", "ok", "exit", "ok", "ok"]
    assert [raw.stdout for raw in seen.outcomes if raw.reason == 0] == [b"1a", b"2b", b"1c", b"1d", b"2f"]


async def test_runs_of_a_group_differ_in_all_that_a_record_can_say(sandbox: Sandbox) -> None:
    digest = await sandbox.prepare(guest("echo"))
    task = Task.of(Invocation(args=["task's"], env=[("K", "task's")], stdin=b"task's"))
    inputs = records(
        Input(),
        Input(args=["\u56db", ""]),
        Input(env=[("EXIT", "7"), ("L", "m=n")], name="for people"),
        Input(stdin=b"\0\xff", seed=2**64 - 1),
        Input(args=[], env=[], stdin=b""),
        Input(stdin=bytes(200_000)),
    )
    async with sandbox.pool.group(digest, task, inputs, RunLimits(30.0, 64 * MIB, MIB)) as group:
        seen = Seen(group)
        assert await seen.all() == ["ok", "ok", "exit", "ok", "ok", "ok"]
    assert [raw.stdout for raw in seen.outcomes] == [
        b"task's\ntask's", "\u56db \ntask's".encode(), b"task's\ntask's", b"task's\n\0\xff", b"",
        b"task's\n" + bytes(200_000),
    ]  # fmt: skip
    assert [raw.stderr for raw in seen.outcomes] == [b"K=task's\n"] * 2 + [b"EXIT=7\nL=m=n\n"] + [
        b"K=task's\n", b"", b"K=task's\n",
    ]  # fmt: skip


async def test_inputs_by_reference_are_waited_for_and_not_by_the_runs_before_them(sandbox: Sandbox) -> None:
    digest = await sandbox.prepare(guest("echo"))
    small, large = write_input(Input(stdin=b"small")), write_input(Input(stdin=bytes(2 * MIB)))
    inputs = Inputs(small + b"\xff" * 4 + small + b"\xff" * 4)
    assert list(inputs.missing) == [1, 3]
    limits = RunLimits(30.0, 64 * MIB, 3 * MIB)
    async with sandbox.pool.group(digest, Task.of(Invocation()), inputs, limits) as group:
        seen = Seen(group)
        await seen.until_place(0)
        waiting = asyncio.ensure_future(seen.more())
        await asyncio.sleep(0)
        assert not waiting.done()
        group.put(1, large[4:])
        await waiting
        await seen.until_place(2)
        assert [len(raw.stdout) for raw in seen.outcomes] == [5, 2 * MIB, 5]
        waiting = asyncio.ensure_future(seen.more())
        await asyncio.sleep(0)
        group.fail(UsageError("there is no more"))
        with pytest.raises(UsageError, match="there is no more"):
            await waiting


Scenario = tuple[Sequence[int], Sequence[tuple[int, frozenset[int]]], int | None]
"""Milliseconds of each run; after how many outcomes which places are cancelled (none: all); after how many a process
is killed."""

scenarios = st.integers(1, 9).flatmap(
    lambda count: st.tuples(
        st.lists(st.sampled_from((1, 1, 1, 20, ENDLESS)), min_size=count, max_size=count),
        st.lists(
            st.tuples(st.integers(0, count), st.frozensets(st.integers(0, count - 1), max_size=count)), max_size=3
        ),
        st.none() | st.integers(0, count),
    )
)


@settings(
    max_examples=30,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(scenario=scenarios)
async def test_every_run_has_one_outcome_whatever_is_cancelled_and_dies(sandbox: Sandbox, scenario: Scenario) -> None:
    milliseconds, cancels, kill_after = scenario
    limits = RunLimits(duration_s=0.2, memory_bytes=64 * MIB, output_bytes=64 << 10)
    cancelled: set[int] = set()
    killed = []
    left = sorted(cancels, key=lambda cancel: cancel[0])
    async with await spins(sandbox, *milliseconds, limits=limits) as group:
        seen = Seen(group)
        has_more = True
        while has_more:
            while left and left[0][0] <= len(seen.outcomes):
                _, places = left.pop(0)
                group.cancel(places)
                cancelled |= places or set(range(len(milliseconds)))
            if kill_after is not None and kill_after <= len(seen.outcomes):
                kill_after = None
                killed = [child for child in sandbox.pool._children if child._process is not None and child.files]
                for child in killed:
                    child._process.send_signal(signal.SIGKILL)  # type: ignore[union-attr]
            has_more = await asyncio.wait_for(seen.more(), 20)
        reasons = await seen.all()
    await until(lambda: not any(child.is_alive for child in killed))
    assert len(reasons) == len(milliseconds)
    for place, (reason, each) in enumerate(zip(reasons, milliseconds, strict=True)):
        own = "deadline" if each == ENDLESS else "ok"
        assert reason in {own, "crash"} or (place in cancelled and reason == "cancelled")
    # A run that is the only one that is left is not asked for again here: its gateway does.
    assert reasons.count("crash") <= len(killed)
    not_cancelled = [raw.place for raw in seen.outcomes if REASONS[raw.reason] != "cancelled"]
    assert not_cancelled == sorted(not_cancelled), "they end in their order"
