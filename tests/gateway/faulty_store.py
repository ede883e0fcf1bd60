"""What a process sees whose disk fails, for test_faults.py: SCENARIO DIRECTORY. It says nothing when all is well."""

import asyncio
import errno
import itertools
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from tests.gateway.stored import LARGE, add, change, end, ids, result, results_of, spec
from ww.errors import StoreError
from ww.gateway.integrity import defects
from ww.gateway.store import Store, StoreConfig
from ww.gateway.task import RunResult

CONFIG = StoreConfig(probe_every_s=0.01, housekeep_every_s=0.01, busy_timeout_s=0.1)
FLAG = Path(os.environ.get("WW_FAULT_FLAG", "/nonexistent"))


def fail(which: str, number: int, part: str, once: str = "always") -> Callable[[], object]:
    def begin() -> None:
        FLAG.with_suffix(".new").write_text(f"{which} {number} {part} {once}")
        FLAG.with_suffix(".new").replace(FLAG)

    return begin


def stop_failing() -> None:
    FLAG.unlink(missing_ok=True)


async def healthy(store: Store) -> None:
    """Return when the store says that it can be written again, by itself."""
    async with asyncio.timeout(20):
        while store.health():  # noqa: ASYNC110 what is waited for has no event
            await asyncio.sleep(0.005)


async def refused(store: Store, count: int, stdin: bytes) -> str:
    """Submit that many tasks; all must be refused. Returns why."""
    outcomes = await asyncio.gather(
        *(store.add_task(spec(f"refused{i}", stdin=stdin), 1.0) for i in range(count)), return_exceptions=True
    )
    assert all(isinstance(outcome, StoreError) for outcome in outcomes), outcomes
    (why,) = {str(outcome) for outcome in outcomes}
    assert "\n" not in why
    assert not re.search(r"(^|\s)/", why), why
    return why


def killed_copy(directory: Path) -> Path:
    """Return a copy of what is on disk at this moment, with nothing closed."""
    copy = directory.parent / "killed"
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(directory, copy)
    (copy / "ww.db-shm").unlink(missing_ok=True)
    return copy


async def through(directory: Path, begin: Callable[[], object], stop: Callable[[], object], words: str) -> None:
    """See a store through trouble that begins and stops: what was acknowledged is there, what was refused is not."""
    before = [result(run, stdout=bytes([run]) * LARGE) for run in range(3)]
    during = result(3, stdout=b"d" * LARGE)
    async with Store(directory / "ww.db", CONFIG) as store:
        (number,) = await add(store, spec("first", repeats=4))
        await end(store, number, *before)
        begin()
        for size in (0, LARGE):
            assert words in await refused(store, 20, b"s" * size), store.health()
            assert words in store.health()
        for attempt in (end(store, number, during), store.cancel_task(number, 1.0)):
            try:
                await attempt
            except StoreError:
                continue
            raise AssertionError("it was taken")
        assert await ids(store) == ["first"], "what is there can be read"
        assert await results_of(store, number, limit=9, after=-1) == before
        stop()
        await healthy(store)
        await holds(killed_copy(directory), ["first"], before)
        await end(store, number, during)
        await add(store, *(spec(f"refused{i}", stdin=b"s" * LARGE) for i in range(20)))
    everything = [*(f"refused{i}" for i in reversed(range(20))), "first"]
    await holds(directory, everything, [*before, during])


async def holds(directory: Path, expected: list[str], results: list[RunResult]) -> None:
    """Check what a store has at its next start."""
    async with Store(directory / "ww.db", CONFIG) as store:
        assert await ids(store) == expected
        assert await results_of(store, 1, limit=9, after=-1) == results
    found = [line for line in defects(directory) if not line.startswith("modules/")]
    assert not found, found


async def a_passing_failure(directory: Path, begin: Callable[[], object]) -> None:
    """See a store through one failure: it goes on at once."""
    async with Store(directory / "ww.db", CONFIG) as store:
        await add(store, spec("first"))
        begin()
        assert "cannot be written" in await refused(store, 1, b"s" * LARGE)
        await add(store, spec("second", stdin=b"s" * LARGE))
        assert await ids(store) == ["second", "first"]
        assert store.health() == ""
    async with Store(directory / "ww.db", CONFIG) as store:
        assert await ids(store) == ["second", "first"]


async def a_full_disk(directory: Path) -> None:
    directory = directory / "gateway"
    directory.mkdir()
    filler = directory / "filler"

    def fill() -> None:
        with filler.open("wb", buffering=0) as file:
            for size in (1 << 16, 4096, 1):
                try:
                    while True:
                        file.write(bytes(size))
                except OSError:
                    continue

    await through(directory, fill, filler.unlink, "full")


async def a_read_only_disk(directory: Path) -> None:
    async with Store(directory / "ww.db", CONFIG) as store:
        await add(store, spec("first"))
    remount(directory, "ro")
    why = ""
    try:
        async with Store(directory / "ww.db", CONFIG):
            pass
    except StoreError as error:
        why = str(error)
    assert why == "the database ww.db cannot be opened: Read-only file system", why
    remount(directory, "rw")
    async with Store(directory / "ww.db", CONFIG) as store:
        await add(store, spec("second"))
        assert await ids(store) == ["second", "first"]


def remount(directory: Path, how: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{how}", str(directory)], check=True)


async def a_loss(directory: Path) -> None:
    """See a store find, when it opens its database again, that what it acknowledged is not there."""
    async with Store(directory / "ww.db", CONFIG) as store:
        await add(store, *(spec(f"t{i}") for i in range(3)))
        # As after a log that was cut: the last commit is an older one than was acknowledged.
        change(directory / "ww.db", "UPDATE store SET serial = -1")
        fail("fsync", errno.EIO, "ww.db-wal", "once")()
        await refused(store, 1, b"")
        for _ in range(3):
            assert "the database lost what had been written" in await refused(store, 1, b"")
        assert "the database lost what had been written" in store.health()
        assert await ids(store) == ["t2", "t1", "t0"]


async def until_killed(directory: Path) -> None:
    """Write for ever, and say what was acknowledged."""

    async def client(name: int) -> None:
        for number in itertools.count():
            id = f"t{name}-{number}"
            task = await store.add_task(spec(id, stdin=id.encode() * 5000), 1.0)
            await end(store, task, result(stdout=id.encode() * 5000, stderr=id.encode()))
            sys.stdout.write(f"{id}\n")
            sys.stdout.flush()

    config = StoreConfig(segment_bytes=1 << 20, keep=100, housekeep_every_s=0.01)
    async with Store(directory / "ww.db", config) as store, asyncio.TaskGroup() as group:
        for name in range(8):
            group.create_task(client(name))


SCENARIOS = {
    "until-killed": until_killed,
    "fsync": lambda path: through(path, fail("fsync", errno.EIO, "ww.db"), stop_failing, "cannot be written"),
    "write": lambda path: through(path, fail("write", errno.EIO, "ww.db"), stop_failing, "cannot be written"),
    "read-only": lambda path: through(path, fail("write", errno.EROFS, "ww.db"), stop_failing, "cannot be written"),
    "full": lambda path: through(path, fail("write", errno.ENOSPC, "ww.db"), stop_failing, "full"),
    "fsync-once": lambda path: a_passing_failure(path, fail("fsync", errno.EIO, "ww.db-wal", "once")),
    "write-once": lambda path: a_passing_failure(path, fail("write", errno.EIO, "ww.db-wal", "once")),
    "payload-fsync-once": lambda path: a_passing_failure(path, fail("fsync", errno.EIO, ".seg", "once")),
    "payload-write-once": lambda path: a_passing_failure(path, fail("write", errno.ENOSPC, ".seg", "once")),
    "loss": a_loss,
    "full-disk": a_full_disk,
    "read-only-disk": a_read_only_disk,
}

if __name__ == "__main__":
    asyncio.run(SCENARIOS[sys.argv[1]](Path(sys.argv[2])))
