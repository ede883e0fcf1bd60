"""What a gateway remembers, whatever database it is in: on disk before anybody is told, once, and after a restart."""

import asyncio
import random
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from tests.gateway.places import Place
from tests.gateway.stored import LARGE, WALL, add, end, ids, result, results_of, spec
from ww.errors import StoreError
from ww.gateway.storage import Storage, StoreConfig
from ww.gateway.task import RunState

pytestmark = pytest.mark.anyio


@pytest.fixture
async def store(place: Place) -> AsyncIterator[Storage]:
    async with place.open() as store:
        yield store


# What is remembered.


async def test_a_task_is_the_same_after_a_restart(place: Place) -> None:
    whole = spec(
        "a.b:c-d_e",
        description="W\u00f6rter\n\U0001f600",
        complete=2**63 - 1,
        start_s=0.25,
        delay_s=1e9,
        repeats=1_000_000,
        input=0,
        difficulty=2**63 - 1,
        args=("", "a b", "\u56db"),
        env=(("K", "v=w"), ("EMPTY", "")),
        stdin=bytes(range(256)),
        arguments=(0, -(2**63), 2**63 - 1),
        files="f" * 64,
        dirs=("data", "\u56db"),
        files_bytes=1 << 40,
        artifacts=("/",),
        artifact_bytes=5,
        deterministic=True,
        seed=2**64 - 1,
        fuel=10**15,
        cpu_s=0.125,
    )
    bare = spec("bare", kind="command", entry="")
    async with place.open() as store:
        numbers = await add(store, whole, bare)
    async with place.open() as store:
        found = await store.tasks(limit=10)
        assert [row.spec for row in found] == [bare, whole]
        assert [row.number for row in found] == numbers[::-1]
        assert [(row.created_at, row.finished_at, row.cancelled, row.succeeded, row.failed) for row in found] == [
            (WALL, None, False, 0, 0)
        ] * 2
        assert await store.task("bare") == found[0]
        assert await store.task("nobody") is None


async def test_results_are_the_same_after_a_restart(place: Place) -> None:
    full = result(
        1, RunState.FAILED, reason="exit", detail="code 7", result="-9223372036854775808", exit_code=2**32 - 1,
        stdout=b"\0\xff\n", stderr="\u56db".encode(), stdout_truncated=True, stderr_truncated=False, wall_s=0.125,
        cpu_s=1e-9, memory_bytes=2**63 - 1, memory_limit_bytes=2**63 - 1, fuel=2**63 - 1, queue_s=0.5, compile_s=0.25,
        instantiate_s=0.75, files_bytes=2**63 - 1, artifacts="a" * 64, artifacts_bytes=7,
    )  # fmt: skip
    bare = result(0)
    async with place.open() as store:
        (number,) = await add(store, spec(repeats=2))
        await end(store, number, full, bare)
    async with place.open() as store:
        assert await results_of(store, number, limit=10, after=-1) == [bare, full]
        row = await store.task("t")
        assert row is not None
        assert (row.succeeded, row.failed, row.status, row.finished_at) == (1, 1, "failed", WALL)


async def test_a_task_has_ended_when_all_its_runs_have(store: Storage) -> None:
    (number,) = await add(store, spec(repeats=20))
    await end(store, number, *(result(run, finished_at=WALL + run) for run in range(18)))
    await end(store, number, result(18, RunState.FAILED, reason="trap"))
    assert (await store.tasks(limit=1))[0].finished_at is None
    await end(store, number, result(19, finished_at=WALL + 30))
    (row,) = await store.tasks(limit=1)
    assert (row.succeeded, row.failed, row.finished_at) == (19, 1, WALL + 30)


async def test_results_of_many_tasks_may_come_together(store: Storage) -> None:
    numbers = await add(store, *(spec(f"t{i}", repeats=3) for i in range(30)))
    await store.add_results([(number, result(run)) for run in range(3) for number in numbers])
    assert {(row.succeeded, row.finished_at) for row in await store.tasks(limit=100)} == {(3, WALL)}
    for number in numbers:
        assert [each.run for each in await results_of(store, number, limit=10, after=-1)] == [0, 1, 2]


async def test_after_a_restart_unfinished_tasks_go_on_where_they_were(place: Place) -> None:
    async with place.open() as store:
        numbers = await add(store, spec("ended"), spec("open", repeats=4), spec("cancelled"), spec("new"))
        await end(store, numbers[0], result())
        await end(store, numbers[1], result(2), result(0, RunState.FAILED, reason="trap"))
        await store.cancel_task(numbers[2], WALL)
    async with place.open() as store:
        older, newer = await store.open_tasks(now=0.0, wall=WALL)
    assert [older.spec.id, newer.spec.id] == ["open", "new"]
    assert [older.number, newer.number] == [numbers[1], numbers[3]]
    assert (older.succeeded, older.failed) == (1, 1)
    begun = [attempt.run for attempt in older.begin(0.0, WALL, 3)]
    assert begun == [1, 3]


# When it is there.


async def test_every_write_is_on_disk_when_it_returns(store: Storage, place: Place) -> None:
    (number,) = await add(store, spec(repeats=2))
    assert await place.rows("SELECT id FROM tasks") == [("t",)]
    await end(store, number, result())
    assert await place.rows("SELECT task, run, state FROM runs") == [(number, 0, "succeeded")]
    await store.cancel_task(number, WALL)
    assert await place.rows("SELECT cancelled FROM tasks") == [(1,)]


async def test_many_writes_at_a_time_are_all_there_in_the_order_they_came(place: Place) -> None:
    names = [f"t{i}" for i in range(500)]
    async with place.open() as store:
        numbers = await add(store, *map(spec, names))
    assert numbers == sorted(set(numbers))
    assert [id for (id,) in await place.rows("SELECT id FROM tasks ORDER BY number")] == names


async def test_a_store_that_is_closed_finishes_what_it_was_given(place: Place) -> None:
    async with place.open() as store:
        adding = asyncio.gather(*(store.add_task(spec(f"t{i}"), WALL) for i in range(20)))
        await asyncio.sleep(0)
    await asyncio.wait_for(adding, 10)
    assert await place.rows("SELECT count(*) FROM tasks") == [(20,)]


async def test_a_caller_that_gives_up_takes_nobody_with_it(store: Storage) -> None:
    adding = [asyncio.create_task(store.add_task(spec(f"t{i}"), WALL)) for i in range(10)]
    await asyncio.sleep(0)
    adding[3].cancel()
    done = await asyncio.gather(*adding, return_exceptions=True)
    assert [i for i, outcome in enumerate(done) if not isinstance(outcome, int)] == [3]
    assert await add(store, spec("after")) != []


# Once.


async def test_a_run_has_one_result_whatever_comes_later(store: Storage) -> None:
    (number,) = await add(store, spec(repeats=3))
    await end(store, number, result(0, result="1"))
    for late in ([result(0, result="2")], [result(1), result(0, RunState.FAILED, reason="trap")], [result(2)] * 2):
        with pytest.raises(StoreError, match="cannot be written"):
            await end(store, number, *late)
    assert [each.outcome.result for each in await results_of(store, number, limit=10, after=-1)] == ["1"]
    row = await store.task("t")
    assert row is not None
    assert (row.succeeded, row.failed, row.finished_at) == (1, 0, None)


async def test_one_callers_trouble_is_not_the_others(store: Storage) -> None:
    (number,) = await add(store, spec("t", repeats=10))
    await end(store, number, result(0))
    outcomes = await asyncio.gather(
        end(store, number, result(1)),
        end(store, number, result(0)),
        store.add_task(spec("t"), WALL),
        store.add_task(spec("u"), WALL),
        end(store, number, result(2)),
        return_exceptions=True,
    )
    assert [isinstance(outcome, StoreError) for outcome in outcomes] == [False, True, True, False, False]
    assert [each.run for each in await results_of(store, number, limit=10, after=-1)] == [0, 1, 2]
    assert await ids(store) == ["u", "t"]


async def test_a_value_that_no_database_takes_is_one_callers_trouble(store: Storage) -> None:
    (number,) = await add(store, spec(repeats=2))
    with pytest.raises(StoreError, match="cannot be written"):
        await asyncio.wait_for(end(store, number, result(0, memory_bytes=2**63)), 5)
    await asyncio.wait_for(end(store, number, result(1)), 5)


# Cancelling.


async def test_a_cancelled_task_keeps_what_it_had_and_ends(store: Storage) -> None:
    (number,) = await add(store, spec(repeats=5))
    await end(store, number, result(0))
    assert await store.cancel_task(number, WALL + 7)
    cancelled = [result(run, RunState.CANCELLED) for run in (1, 2)]
    await store.add_results([(number, each) for each in cancelled])
    (row,) = await store.tasks(limit=1)
    assert (row.status, row.cancelled, row.finished_at, row.succeeded, row.failed) == (
        "cancelled",
        True,
        WALL + 7,
        1,
        0,
    )
    states = [(each.run, each.state) for each in await results_of(store, number, limit=10, after=-1)]
    assert states == [(0, "succeeded"), (1, "cancelled"), (2, "cancelled")]
    assert await store.open_tasks(0.0, WALL) == []


async def test_a_task_that_has_ended_is_not_cancelled_any_more(store: Storage) -> None:
    (number,) = await add(store, spec())
    await end(store, number, result(finished_at=WALL + 1))
    assert not await store.cancel_task(number, WALL + 7)
    (row,) = await store.tasks(limit=1)
    assert (row.status, row.finished_at) == ("succeeded", WALL + 1)


# Payloads.


async def test_one_callers_trouble_leaves_the_others_payloads(store: Storage) -> None:
    (number,) = await add(store, spec(repeats=10))
    await end(store, number, result(0))
    large = [result(run, stdout=bytes([run]) * LARGE) for run in range(1, 5)]
    outcomes = await asyncio.gather(
        end(store, number, large[0]),
        end(store, number, large[1], result(0)),
        end(store, number, large[2]),
        end(store, number, large[3]),
        return_exceptions=True,
    )
    assert [isinstance(outcome, StoreError) for outcome in outcomes] == [False, True, False, False]
    assert await results_of(store, number, limit=9, after=0) == [large[0], large[2], large[3]]
    assert store.health() == ""


# Ending as a whole.


async def test_a_task_that_fails_as_a_whole_says_why_and_counts_all_its_runs(store: Storage, place: Place) -> None:
    (number,) = await add(store, spec(repeats=5))
    await end(store, number, result(0))
    assert await store.fail_task(number, WALL + 7, "nobody could run it")
    for again in (store.fail_task(number, WALL + 8, "other"), store.cancel_task(number, WALL + 8)):
        assert not await again
    await end(store, number, result(1, RunState.FAILED, reason="lost"))  # was under way
    (row,) = await store.tasks(limit=1)
    assert (row.status, row.reason, row.finished_at) == ("failed", "nobody could run it", WALL + 7)
    assert (row.succeeded, row.failed, row.cancelled) == (1, 4, False)
    assert await store.open_tasks(0.0, WALL) == []


async def test_a_task_that_failed_as_a_whole_has_failed_even_without_a_failed_run(store: Storage) -> None:
    (number,) = await add(store, spec(repeats=1))
    assert await store.fail_task(number, WALL, "why")
    (row,) = await store.tasks(limit=1)
    assert (row.status, row.succeeded, row.failed) == ("failed", 0, 1)


# Forgetting: more in test_retention.py.


async def test_modules_and_files_are_those_of_the_tasks_that_are_remembered(place: Place) -> None:
    async with place.open(StoreConfig(keep=0)) as store:
        assert await store.modules() == set()
        first, _ = await add(store, spec("a", module="a" * 64, files="f" * 64), spec("b", module="b" * 64))
        assert await store.modules() == {"a" * 64, "b" * 64, "f" * 64}
        await end(store, first, result())
        await store.housekeep()
        assert await store.modules() == {"b" * 64}


async def test_artifacts_are_those_of_the_runs_that_are_remembered(place: Place) -> None:
    async with place.open(StoreConfig(keep=0)) as store:
        assert await store.artifacts() == set()
        first, second = await add(store, spec("a", repeats=2), spec("b", repeats=3))
        await end(store, first, result(0, artifacts="a" * 64))
        await end(store, second, result(0, artifacts="b" * 64), result(1))
        assert await store.artifacts() == {"a" * 64, "b" * 64}
        await end(store, first, result(1, artifacts="b" * 64))
        await store.housekeep()
        assert await store.artifacts() == {"b" * 64}


# Reading.


async def test_tasks_come_newest_first_a_page_at_a_time(store: Storage) -> None:
    numbers = await add(store, *(spec(f"t{i}") for i in range(5)))
    assert [row.spec.id for row in await store.tasks(limit=2)] == ["t4", "t3"]
    assert [row.spec.id for row in await store.tasks(limit=2, before=numbers[3])] == ["t2", "t1"]
    assert await store.tasks(limit=2, before=numbers[0]) == []


async def test_results_come_in_the_order_in_which_they_were_recorded_from_any_position(store: Storage) -> None:
    one, two = await add(store, spec("a", repeats=9), spec("b", repeats=9))
    for run in (3, 0, 7):
        await store.add_results([(one, result(run)), (two, result(run))])
    found = await store.results_since(one, position=0, limit=2)
    assert [each.run for _, each in found] == [3, 0]
    assert [each.run for _, each in await store.results_since(one, position=found[-1][0], limit=9)] == [7]
    assert (await store.results_since(two, position=0, limit=1))[0][0] > found[0][0]


async def test_runs_are_restored_in_their_order_whatever_order_they_ended_in(place: Place) -> None:
    async with place.open() as store:
        (number,) = await add(store, spec(repeats=3000))
        for first in (2000, 1000, 0):
            await end(store, number, *(result(run) for run in reversed(range(first, min(first + 1000, 2999)))))
    async with place.open() as store:
        (task,) = await store.open_tasks(0.0, WALL)
        assert not task._done, "a count is kept of them, and not each"
        assert (task.succeeded, [attempt.run for attempt in task.begin(0.0, WALL)]) == (2999, [2999])


async def test_results_come_by_run_or_latest_first(store: Storage) -> None:
    one, two, none = await add(store, spec("a", repeats=9), spec("b", repeats=9), spec("c"))
    for run in (3, 0, 7, 5):
        await end(store, one, result(run))
    await end(store, two, result(1))
    assert [each.run for each in await results_of(store, one, limit=2, after=0)] == [3, 5]
    latest = await store.latest_results((one, two, none), limit=3, output_bytes_max=1)
    assert {number: [each.run for each in found] for number, found in latest.items()} == {
        one: [5, 7, 0],
        two: [1],
        none: [],
    }


async def test_a_page_of_results_is_cut_when_their_output_is_large_but_never_empty(store: Storage) -> None:
    (number,) = await add(store, spec(repeats=9))
    await end(store, number, *(result(run, stdout=b"x" * 60, stderr=b"y" * 40) for run in range(5)))
    for most, runs in ((300, [1, 2, 3]), (299, [1, 2]), (1, [1])):
        page = await results_of(store, number, limit=100, after=0, output_bytes_max=most)
        assert [each.run for each in page] == runs
    assert await results_of(store, number, limit=100, after=4, output_bytes_max=1) == []
    placed = await store.results_by_run(number, limit=100, after=0, output_bytes_max=299)
    assert [each.run for _, each in placed] == [1, 2]
    since = await store.results_since(number, position=0, limit=100, output_bytes_max=299)
    assert [each.run for _, each in since] == [0, 1]
    assert since[1] == placed[0], "the same result has the same position, whatever it was asked by"
    last = since[-1][0]
    (one,) = await store.results_since(number, position=last, limit=100, output_bytes_max=1)
    assert one[1].run == 2


async def test_the_inputs_of_a_batch_are_in_use_as_long_as_its_task_is_remembered(store: Storage) -> None:
    batch = spec("batch", module="a" * 64, inputs="b" * 64, files="c" * 64, repeats=3, spread="random")
    await add(store, batch, spec("plain", module="a" * 64))
    assert await store.modules() == {"a" * 64, "b" * 64, "c" * 64}
    row = await store.task("batch")
    assert row is not None
    assert row.spec == batch


async def test_the_latest_results_are_fewer_when_their_output_is_large(store: Storage) -> None:
    (number,) = await add(store, spec(repeats=9))
    await end(store, number, *(result(run, stdout=b"x" * 60, stderr=b"y" * 40) for run in range(5)))
    latest = await store.latest_results((number,), limit=100, output_bytes_max=299)
    assert [each.run for each in latest[number]] == [4, 3]


async def test_a_list_of_tasks_leaves_large_stdin_out(store: Storage) -> None:
    large, small = spec("large", stdin=b"\0i" * LARGE, env=(("K", "v" * LARGE),)), spec("small", stdin=b"\0s")
    await add(store, large, small)
    assert {row.spec.id: row.spec.stdin for row in await store.tasks(limit=9)} == {"large": b"", "small": b"\0s"}
    listed = next(row.spec for row in await store.tasks(limit=9) if row.spec.id == "large")
    assert replace(listed, stdin=large.stdin) == large
    whole = await store.task("large")
    assert whole is not None
    assert whole.spec == large


async def test_the_modules_of_an_owner_are_those_its_tasks_name(store: Storage) -> None:
    await add(store, spec("a", owner="ann", module="a" * 64), spec("b", owner="bob", module="b" * 64))
    assert await store.modules_of("ann") == {"a" * 64}
    assert await store.modules_of("eve") == set()


async def test_ends_are_read_without_what_they_said(place: Place) -> None:
    async with place.open() as store:
        one, other = await add(store, spec("t", repeats=100), spec("u", repeats=100))
        order = random.Random(1).sample(range(100), 60)
        state = {run: RunState.FAILED if run % 7 == 0 else RunState.SUCCEEDED for run in order}
        for run in order:
            await end(store, one, result(run, state[run], stdout=b"x" * 20_000 if run == 3 else b""))
            await end(store, other, result(run, RunState.CANCELLED))
        found: dict[int, RunState] = {}
        for first in range(0, 100, 30):
            for run, count, of_span in await store.spans(one, first=first, count=30):
                assert not found.keys() & set(range(run, run + count))
                found |= dict.fromkeys(range(run, run + count), of_span)
        assert found == state
        told = await store.ends_since(one, position=0, limit=1000)
        assert [run for _, run, _ in told] == order
        assert {run: of_run for _, run, of_run in told} == state
        assert await store.ends_since(one, position=told[9][0], limit=5) == told[10:15]
        assert await store.ends_since(one, position=told[-1][0], limit=5) == []
        assert await store.spans(one, first=200, count=10) == []
