"""Guests that mean harm, in child processes: each ends with its right reason, and the next run finds all as it was."""

import asyncio
import contextlib
import gc
import os
import random
import weakref
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import until
from tests.guests import guest
from tests.sandbox.hostile import HOSTILE, Hostile, faults_of, module_of, run
from tests.sandbox.test_pool import Sandbox, children
from ww.errors import BadModule
from ww.sandbox.limits import SandboxLimits
from ww.sandbox.modules import ModuleCache
from ww.sandbox.pool import SandboxPool

pytestmark = pytest.mark.anyio

RUNS = int(os.environ.get("WW_HOSTILE_RUNS", "200"))
SEED = int(os.environ.get("WW_HOSTILE_SEED") or random.randrange(2**32))
SLOTS = 2
WARM_UP_RUNS = 100
PARENT_MAY_GROW_BYTES = 8 << 20
CHILD_MAY_GROW_BYTES = 24 << 20
MODULES_MAY_TAKE_BYTES = 300 << 20
LIMITS = SandboxLimits(memory_bytes_max=256 << 20, kill_grace_s=0.5, files_count_max=2000)


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module")
async def sandbox(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Sandbox]:
    """One for all: what one guest leaves behind is there for the next."""
    cache = ModuleCache(tmp_path_factory.mktemp("cache"), quota_bytes=1 << 30)
    async with SandboxPool(cache, slots=1, limits=LIMITS) as pool:
        sandbox = Sandbox(pool, cache)
        await sandbox.prepare(guest("noop"))
        await until(lambda: len(children()) == 2)
        yield sandbox


@pytest.mark.parametrize("name", HOSTILE)
async def test_a_hostile_guest_ends_with_its_reason_and_harms_nobody(sandbox: Sandbox, name: str) -> None:
    before = children()
    hostile = HOSTILE[name]
    async with asyncio.timeout(30):
        outcome = await run(sandbox, hostile, module_of(hostile.module))
    after = await sandbox.run(guest("echo"), args=["well"], stdin=b"in")
    assert (after.reason, after.stdout, after.stderr) == ("ok", b"well\nin", b"")
    assert not faults_of(hostile, outcome)
    if not hostile.once:  # those are large, and a process that has grown by one is replaced
        assert children() == before, "no process was replaced: none had to be killed, and none died"
    else:
        await until(lambda: len(children()) == len(before))


async def test_many_at_random_leave_the_sandbox_as_it_was(tmp_path: Path) -> None:
    others = children()
    cache = ModuleCache(tmp_path / "cache", quota_bytes=1 << 30)
    async with SandboxPool(cache, slots=SLOTS, limits=LIMITS) as pool:
        sandbox = Sandbox(pool, cache)
        await sandbox.prepare(guest("noop"))
        chosen = at_random(random.Random(SEED))
        wrong = await run_many(sandbox, chosen, WARM_UP_RUNS)
        before = await measure(others)
        wrong += await run_many(sandbox, chosen, RUNS)
        after = await measure(others)
        print(f"seed {SEED}, {RUNS} runs: {before} became {after}")  # noqa: T201
        said = f"WW_HOSTILE_SEED={SEED}"
        assert not wrong, said
        assert after[0] == before[0], said
        assert after[1] - before[1] < PARENT_MAY_GROW_BYTES, said
        grown = [now - then for then, now in zip(before[2], after[2], strict=True)]
        assert max(grown) < CHILD_MAY_GROW_BYTES, said
        served = await asyncio.gather(*(sandbox.call(guest("noop"), number, 0) for number in range(2 * SLOTS)))
        assert [outcome.value for outcome in served] == list(range(2 * SLOTS)), said


class Caller:
    """Whoever asks for a module, and is held by nobody but those who still work for it."""

    async def prepare(self, sandbox: Sandbox, module: bytes) -> None:
        await sandbox.prepare(module)


async def test_a_module_that_does_not_compile_keeps_nobody(sandbox: Sandbox) -> None:
    # The lease on a worker's slot is such a caller: its last reference going is how the slot comes back.
    gc.collect()
    gc.disable()
    try:
        caller = Caller()
        reference = weakref.ref(caller)
        with pytest.raises(BadModule):
            await caller.prepare(sandbox, module_of("not_valid"))
        del caller
        await until(lambda: reference() is None, 1.0)
    finally:
        gc.enable()


async def test_modules_of_many_exports_do_not_add_up(tmp_path: Path) -> None:
    others = children()
    cache = ModuleCache(tmp_path / "cache", quota_bytes=1 << 30)
    async with SandboxPool(cache, slots=1, limits=LIMITS) as pool:
        sandbox = Sandbox(pool, cache)
        await sandbox.call(guest("noop"), 1, 0)
        before = sum(map(resident_bytes, children() - others))
        for more in range(4):
            outcome = await sandbox.call(module_of("exports", 100_000 + more), 1, 0)
            assert outcome.reason == "ok"
        assert sum(map(resident_bytes, children() - others)) - before < MODULES_MAY_TAKE_BYTES


def at_random(source: random.Random) -> Iterator[tuple[str, Hostile]]:
    """Choose guests for ever: a module, then one of the ways to run it."""
    ways: dict[str, list[str]] = {}
    for name, hostile in HOSTILE.items():
        if not hostile.once:
            ways.setdefault(hostile.module, []).append(name)
    while True:
        name = source.choice(ways[source.choice(list(ways))])
        yield name, HOSTILE[name]


async def run_many(sandbox: Sandbox, chosen: Iterator[tuple[str, Hostile]], count: int) -> list[str]:
    """Run that many, as many at a time as there are slots; say what went wrong."""
    queue, wrong = iter([next(chosen) for _ in range(count)]), []

    async def run_some() -> None:
        for name, hostile in queue:
            async with asyncio.timeout(30):
                outcome = await run(sandbox, hostile, module_of(hostile.module))
            wrong.extend(f"{name}: {fault}" for fault in faults_of(hostile, outcome))

    await asyncio.gather(*(run_some() for _ in range(SLOTS)))
    return wrong


async def measure(others: set[int]) -> tuple[Counter[str], int, list[int]]:
    """Return what this process's descriptors are of, its size in memory, and that of each child but others."""
    await until(lambda: len(children() - others) == SLOTS + 1)  # one compiles
    gc.collect()
    return descriptors(), resident_bytes("self"), sorted(map(resident_bytes, children() - others))


def descriptors() -> Counter[str]:
    found: Counter[str] = Counter()
    for number in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):  # that of the listing
            found[os.readlink(f"/proc/self/fd/{number}").partition(":[")[0]] += 1
    return found


def resident_bytes(pid: Any) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
