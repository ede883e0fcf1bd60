"""What is forgotten and when: ended tasks alone, the oldest first, bit by bit, and their room with them."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import until
from tests.gateway.places import Place, SqlitePlace, until_rows
from tests.gateway.stored import LARGE, WALL, add, end, ids, result, results_of, spec
from ww.clock import ManualClock
from ww.errors import StoreError
from ww.gateway.segments import directory_of, numbers_in, shared
from ww.gateway.storage import Storage, StoreConfig

pytestmark = pytest.mark.anyio

DAY_S = 86_400.0


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ww.db"


@asynccontextmanager
async def opened(place: Place | Path, clock: ManualClock | None = None, **config: Any) -> AsyncIterator[Any]:
    place = SqlitePlace(place) if isinstance(place, Path) else place
    async with place.open(StoreConfig(**config), clock or ManualClock(wall=WALL)) as store:
        yield store


async def ended(store: Storage, *names: str, **outcome: Any) -> list[int]:
    """Add tasks that end one after the other."""
    numbers = await add(store, *map(spec, names))
    for index, number in enumerate(numbers):
        await end(store, number, result(finished_at=WALL + index, **outcome))
    return numbers


def size(path: Path) -> int:
    return path.stat().st_size


async def test_by_count_the_first_to_end_are_forgotten_and_never_an_open_one(place: Place) -> None:
    async with opened(place, keep=3) as store:
        first, *_ = await add(store, spec("slow"), spec("open"))
        await ended(store, *(f"t{i}" for i in range(5)))
        await end(store, first, result(finished_at=WALL + 100))
        await store.housekeep()
        assert await ids(store) == ["t4", "t3", "open", "slow"]
        assert await place.rows("SELECT count(*) FROM runs") == [(3,)]
        assert await store.task("t0") is None
        assert await ended(store, "t0"), "its id may be used again"


async def test_by_time_what_ended_long_ago_is_forgotten_also_when_nothing_is_submitted(place: Place) -> None:
    clock = ManualClock(wall=WALL)
    async with opened(place, clock, keep=None, keep_s=7 * DAY_S) as store:
        await add(store, spec("open"))
        await ended(store, *(f"t{i}" for i in range(300)))
        clock.advance(7 * DAY_S)
        await store.housekeep()
        assert len(await ids(store)) == 301
        await until(lambda: bool(clock._sleepers))  # housekeeping itself is done with the last time
        clock.advance(150)  # which housekeeping hears by itself
        await until_rows(place, "SELECT count(*) FROM tasks", lambda rows: rows == [(151,)])
        assert "open" in await ids(store)


async def test_by_size_the_first_to_end_are_forgotten(place: Place) -> None:
    async with opened(place, results_bytes_max=10 * 50_000, fresh_s=-100.0) as store:
        numbers = await add(store, spec("open", repeats=2))
        await end(store, numbers[0], result(stdout=b"o" * 100_000))
        await ended(store, *(f"t{i}" for i in range(12)), stdout=b"x" * 49_000)
        await store.housekeep()
        assert await ids(store) == [*(f"t{i}" for i in range(11, 3, -1)), "open"]
        assert len(await results_of(store, numbers[0], limit=9, after=-1)) == 1


async def test_whoever_waits_for_a_large_task_can_read_it_first(place: Place) -> None:
    clock = ManualClock(wall=WALL + 30)
    async with opened(place, clock, results_bytes_max=1000, fresh_s=60.0) as store:
        await ended(store, *(f"t{i}" for i in range(3)), stdout=b"x" * 49_000)
        await store.housekeep()
        assert len(await ids(store)) == 3
        clock.set_wall(WALL + 61)
        await store.housekeep()
        assert await ids(store) == ["t2"]


async def test_runs_of_a_large_task_go_bit_by_bit_and_the_task_at_once(place: Place) -> None:
    async with opened(place, keep=0) as store:
        (number,) = await add(store, spec("large", repeats=10_000))
        for first in range(0, 10_000, 1000):
            await end(store, number, *(result(run) for run in range(first, first + 1000)))
        await place.refuse("DELETE ON forgetting", "not yet")
        with pytest.raises(StoreError, match="not yet"):
            await store.housekeep()
        assert await ids(store) == []
        ((left,),) = await place.rows("SELECT count(*) FROM runs")
        assert 0 < left < 10_000
    await place.take("DELETE ON forgetting")
    async with opened(place) as store:  # goes on after a restart
        await store.housekeep()
        assert await place.rows("SELECT (SELECT count(*) FROM runs) + (SELECT count(*) FROM forgetting)") == [(0,)]


async def test_results_that_come_for_a_forgotten_task_are_forgotten_too(place: Place) -> None:
    async with opened(place, keep=0) as store:
        (number,) = await add(store, spec(repeats=5))
        await store.cancel_task(number, WALL)
        await store.housekeep()
        await end(store, number, result(3, stdout=b"x" * LARGE))
        await store.housekeep()
        assert await place.rows("SELECT (SELECT count(*) FROM runs) + (SELECT count(*) FROM forgetting)") == [(0,)]
        if isinstance(place, SqlitePlace):
            assert await place.rows("SELECT count(*) FROM payloads") == [(0,)]


async def test_room_of_rows_goes_back_to_the_file_system(path: Path) -> None:
    async with opened(path) as store:
        await ended(store, *(f"t{i}" for i in range(1500)), detail="d" * 10_000)
    before = size(path)
    async with opened(path, keep=10) as store:
        await store.housekeep()
        assert len(await ids(store)) == 10
    assert size(path) < before / 2


async def test_segments_that_nobody_names_are_removed_and_the_others_are_moved_together(path: Path) -> None:
    directory = directory_of(path)
    async with opened(path, segment_bytes=10 * LARGE, keep=8) as store:
        # Each segment has a payload of a task that stays.
        names = [f"t{i}" for i in range(40)]
        numbers = await add(store, *map(spec, names))
        for index, number in enumerate(numbers):
            late = WALL + 1000 * (index % 5 == 0) + index
            await end(store, number, result(finished_at=late, stdout=bytes([index]) * LARGE))
        assert set(numbers_in(directory)) == {1, 2, 3, 4}
        with shared(directory):
            await store.housekeep()
            assert set(numbers_in(directory)) >= {1, 2, 3, 4}, "as long as another process reads"
        await store.housekeep()
        assert set(numbers_in(directory)) == {5}
        assert await ids(store) == [f"t{i}" for i in range(35, -1, -5)]
        for index in range(0, 40, 5):
            (found,) = await results_of(store, numbers[index], limit=9, after=-1)
            assert found.outcome.stdout == bytes([index]) * LARGE


async def test_a_damaged_payload_is_not_moved_and_does_not_stop_the_rest(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    directory = directory_of(path)
    async with opened(path, segment_bytes=4 * LARGE, keep=2) as store:
        for index, number in enumerate(await add(store, *(spec(f"t{i}") for i in range(9)))):
            late = WALL + 1000 * (index in (0, 4)) + index
            await end(store, number, result(finished_at=late, stdout=bytes([index]) * LARGE))
        first = directory / "000000000001.seg"
        first.write_bytes(b"damage" + first.read_bytes()[6:])
        await store.housekeep()
        await store.housekeep()
        assert set(numbers_in(directory)) == {1, 3}
        assert caplog.text.count("payload 1 is damaged, and segment 1 stays") == 1
        assert store.health() == ""


async def test_much_growth_is_looked_at_before_its_time(place: Place) -> None:
    async with opened(place, keep=10) as store:  # whose clock stands still
        await ended(store, *(f"t{i}" for i in range(100)))
        await until_rows(place, "SELECT count(*) FROM tasks", lambda rows: rows[0][0] < 100)
