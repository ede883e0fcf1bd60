"""A disk that fails: what was acknowledged is there, what was refused is not, and it goes on by itself afterwards."""

import asyncio
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.gateway.faults import Faults, small_disk, why_no_mount, why_no_shim
from tests.gateway.faulty_store import through
from tests.gateway.stored import ids, results_of, spec
from tests.guests import ROOT
from ww.gateway.integrity import defects
from ww.gateway.segments import directory_of
from ww.gateway.store import Store, StoreConfig

needs_shim = pytest.mark.skipif(bool(why_no_shim()), reason=why_no_shim())
needs_mount = pytest.mark.skipif(bool(why_no_mount()), reason=why_no_mount())

HOLD = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute(sys.argv[2])
print("held", flush=True)
sys.stdin.read()
"""


@pytest.fixture(scope="module")
def build(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fault")


def see_through(scenario: str, directory: Path, *prefix: str, environment: dict[str, str] | None = None) -> None:
    """Have a process of its own see a scenario through."""
    script = [sys.executable, "-m", "tests.gateway.faulty_store", scenario, str(directory)]
    done = subprocess.run(
        [*prefix, *script], cwd=ROOT, env=os.environ | (environment or {}), capture_output=True, text=True, timeout=50
    )
    assert done.returncode == 0, done.stdout + done.stderr


@needs_shim
@pytest.mark.parametrize(
    "scenario",
    [
        "fsync", "write", "read-only", "full", "fsync-once", "write-once", "payload-fsync-once", "payload-write-once",
        "loss",
    ],
)  # fmt: skip
def test_a_disk_that_fails_loses_nothing_that_was_acknowledged(scenario: str, tmp_path: Path, build: Path) -> None:
    directory = tmp_path / "gateway"
    directory.mkdir()
    faults = Faults(directory, build)
    try:
        see_through(scenario, directory, environment=faults.environment)
    finally:
        faults.end()


@needs_mount
@pytest.mark.parametrize("scenario", ["full-disk", "read-only-disk"])
def test_a_disk_that_is_full_or_read_only(scenario: str, tmp_path: Path) -> None:
    see_through(scenario, tmp_path, *small_disk(tmp_path, "4m"))


@pytest.mark.anyio
async def test_a_store_that_is_killed_has_what_it_acknowledged_and_nothing_half(tmp_path: Path) -> None:
    path = tmp_path / "ww.db"
    for lines in (30, 111, 250):
        acknowledged = killed_after(lines, tmp_path)
        async with Store(path, StoreConfig(keep=None)) as store:
            # All but the oldest were to be kept.
            for id in acknowledged[-50:]:
                there = await store.task(id)
                assert there is not None
                assert there.spec.stdin == id.encode() * 5000
                (found,) = await results_of(store, there.number, limit=9, after=-1)
                assert (found.outcome.stdout, found.outcome.stderr) == (id.encode() * 5000, id.encode())
        assert [line for line in defects(tmp_path) if not line.startswith("modules/")] == []
        for file in (path, path.with_name("ww.db-wal"), path.with_name("ww.db-shm")):
            file.unlink(missing_ok=True)
        shutil.rmtree(directory_of(path))


def killed_after(lines: int, directory: Path) -> list[str]:
    """Kill a store that writes, and return what it had acknowledged."""
    command = [sys.executable, "-m", "tests.gateway.faulty_store", "until-killed", str(directory)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        said = [process.stdout.readline() for _ in range(lines)]
        process.kill()
        said += process.stdout.readlines()
    return [line.strip() for line in said if line.endswith("\n")]


@contextmanager
def held(path: Path, statement: str) -> Iterator[None]:
    """Have another process hold the database."""
    command = [sys.executable, "-c", HOLD, str(path), statement]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        try:
            yield
        finally:
            process.communicate("")


@pytest.mark.anyio
@pytest.mark.parametrize("statement", ["BEGIN IMMEDIATE", "BEGIN EXCLUSIVE"])
async def test_a_database_that_another_process_locks(statement: str, tmp_path: Path) -> None:
    with ExitStack() as stack:
        await through(
            tmp_path,
            lambda: stack.enter_context(held(tmp_path / "ww.db", statement)),
            stack.close,
            "the database cannot be written: database is locked",
        )


@pytest.mark.anyio
async def test_a_lock_that_is_soon_released_is_waited_for(tmp_path: Path) -> None:
    async with Store(tmp_path / "ww.db") as store:
        with held(tmp_path / "ww.db", "BEGIN IMMEDIATE"):
            adding = asyncio.create_task(store.add_task(spec(), 1.0))
            await asyncio.sleep(0.05)
            assert await ids(store) == []
        await adding
        assert await ids(store) == ["t"]
        assert store.health() == ""
