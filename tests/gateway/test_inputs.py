"""The file of a batch's inputs: every record is read back, whatever its size, and what is no such file is refused."""

import os
import random
from pathlib import Path

import pytest

from ww.errors import StoreError
from ww.gateway.inputs import Extent, Inputs, InputsWriter
from ww.gateway.modules import ModuleStore
from ww.records import NOTHING, Input, write_input

pytestmark = pytest.mark.anyio

LARGE = 100 << 10


async def nothing() -> set[str]:
    return set()


@pytest.fixture
async def modules(tmp_path: Path) -> ModuleStore:
    return ModuleStore(tmp_path / "modules", quota_bytes=1 << 30)


async def stored(modules: ModuleStore, records: list[bytes]) -> str:
    """Write a file and return its digest."""
    with modules.upload_inputs(nothing) as upload:
        writer = InputsWriter(upload)
        for record in records:
            writer.add(record)
            if upload.is_due:
                await upload.flush()
        await writer.finish()
        await upload.keep()
        assert writer.count == len(records)
        return upload.digest


def whole(record: bytes | Extent) -> bytes:
    return record if isinstance(record, bytes) else record.read()


def some(count: int, *, large: tuple[int, ...] = ()) -> list[bytes]:
    """Make records of which some are large, each with its number as its name."""
    return [
        write_input(Input(stdin=bytes([run % 251]) * (LARGE if run in large else run % 7), name=f"run {run}"))
        for run in range(count)
    ]


@pytest.mark.parametrize("count", [1, 63, 64, 65, 128, 1000])
async def test_every_record_is_read_back_in_any_order(modules: ModuleStore, count: int) -> None:
    records = some(count, large=(0, 64, 65, 999))
    digest = await stored(modules, records)
    chance = random.Random(count)
    inputs = Inputs(modules.inputs_path)
    for _ in range(20):
        runs = [chance.randrange(count) for _ in range(chance.randint(1, 40))]
        assert [whole(each) for each in await inputs.records(digest, runs)] == [records[run] for run in runs]
        assert await inputs.names(digest, runs) == [f"run {run}" for run in runs]
        cached = inputs.cached(digest, runs)
        assert (cached is None) == any(run in (0, 64, 65, 999) for run in runs), (
            "long ones are read when they are needed"
        )
        assert cached is None or [whole(each) for each in cached] == [records[run] for run in runs]


async def test_what_is_large_is_not_read_but_told_where_it_is(modules: ModuleStore) -> None:
    sizes = [10, LARGE, (1 << 20) + 1, 3 << 20]
    records = [write_input(Input(stdin=bytes(size))) for size in sizes]
    digest = await stored(modules, records)
    inputs = Inputs(modules.inputs_path)
    found = await inputs.records(digest, range(4))
    assert [isinstance(each, Extent) for each in found] == [False, False, True, True]
    assert [whole(each) for each in found] == records
    assert inputs._bytes < LARGE, "what is long is not kept"
    assert inputs.mean_bytes(digest) == sum(map(len, records)) // 4


async def test_files_without_names_are_not_read_for_them(modules: ModuleStore) -> None:
    digest = await stored(modules, [write_input(Input(stdin=bytes(run))) for run in range(100)])
    inputs = Inputs(modules.inputs_path)
    assert await inputs.names(digest, [5]) == [""]
    inputs.forget(digest)
    modules.inputs_path(digest).unlink()
    assert await inputs.names(digest, [5, 99]) == ["", ""]


async def test_what_is_read_of_files_stays_bounded(modules: ModuleStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ww.gateway.inputs._CACHE_BYTES", 100_000)
    records = [write_input(Input(stdin=bytes(1000), name=str(run))) for run in range(2000)]
    digest = await stored(modules, records)
    inputs = Inputs(modules.inputs_path)
    for run in range(2000):
        assert (await inputs.names(digest, [run])) == [str(run)]
        assert inputs._bytes <= 200_000
    assert inputs.cached(digest, [0]) is None
    inputs.forget(digest)
    assert inputs._bytes == 0
    assert inputs.cached(digest, [1999]) is None


async def test_the_same_runs_are_the_same_file(modules: ModuleStore) -> None:
    assert await stored(modules, some(100)) == await stored(modules, some(100))
    assert await stored(modules, some(100)) != await stored(modules, some(101))


async def test_a_run_beyond_the_last_is_none(modules: ModuleStore) -> None:
    digest = await stored(modules, [NOTHING] * 3)
    inputs = Inputs(modules.inputs_path)
    assert await inputs.names(digest, [2]) == [""]
    for run in (3, 64, 10**9):
        with pytest.raises(StoreError, match=r"^the inputs of a batch are not what was stored$"):
            await inputs.records(digest, [run])


async def test_a_file_that_is_gone_or_damaged_is_a_store_error(modules: ModuleStore) -> None:
    digest = await stored(modules, some(200, large=(7,)))
    path = modules.inputs_path(digest)
    content = path.read_bytes()
    chance = random.Random(1)
    says = set()
    for _ in range(300):
        damaged = bytearray(content)
        if chance.random() < 0.3:
            del damaged[chance.randrange(len(damaged)) :]
        for _ in range(chance.randint(1, 3)):
            # The tables at the end are what is relied on.
            at = max(0, len(damaged) - 1 - chance.randrange(200))
            damaged[at : at + 1] = chance.randbytes(chance.choice((0, 1, 1, 2)))
        path.write_bytes(damaged)
        try:
            await Inputs(modules.inputs_path).names(digest, range(0, 200, 9))
        except StoreError as error:
            says.add(str(error))
    assert says == {"the inputs of a batch cannot be read", "the inputs of a batch are not what was stored"}
    os.remove(path)
    with pytest.raises(StoreError, match=r"^the inputs of a batch cannot be read$"):
        await Inputs(modules.inputs_path).records(digest, [0])
