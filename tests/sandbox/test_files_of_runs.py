"""Runs with files, in a sandbox process: with a file system of its own, and where the host gives none."""

import asyncio
import io
import os
import zipfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.components import sleeps
from tests.guests import guest
from tests.sandbox.hostile import module_of
from tests.sandbox.test_pool import LIMITS, Sandbox
from ww.sandbox import directory
from ww.sandbox.confine import FILE_SYSTEM, ConfinementConfig
from ww.sandbox.modules import ModuleCache
from ww.sandbox.pool import SandboxPool

pytestmark = pytest.mark.anyio

MIB = 1 << 20


@pytest.fixture(params=["", FILE_SYSTEM], ids=["mounted", "on disk"])
async def sandbox(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Sandbox]:
    cache = ModuleCache(tmp_path / "cache", quota_bytes=1 << 30)
    confinement = ConfinementConfig(without=(request.param,))
    async with SandboxPool(cache, slots=1, limits=LIMITS, confinement=confinement) as pool:
        yield Sandbox(pool, cache)


def zip_of(name: str, data: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(name, data)
    return buffer.getvalue()


async def test_what_is_unpacked_does_not_depend_on_the_run_before(sandbox: Sandbox) -> None:
    large = zip_of("large", bytes(100 * MIB))
    for _ in range(2):
        assert (await sandbox.run(guest("echo"), stdin=b"x", output_bytes=10)).stdout == b"x"
        outcome = await sandbox.run(guest("files"), files=large, args=["cat", "large"], output_bytes=10)
        assert (outcome.reason, outcome.detail) == ("ok", "")
        assert outcome.files_bytes >= 100 * MIB


async def test_a_guest_with_files_that_hears_no_deadline_holds_its_slot_no_longer_than_others(sandbox: Sandbox) -> None:
    async with asyncio.timeout(6):
        outcome = await sandbox.run(sleeps(60), duration_s=0.2, dirs=["/"], artifacts=["/"])
    assert outcome.reason == "deadline"
    assert outcome.wall_s >= 0.2


async def test_a_guest_that_opens_all_that_it_can_ends_in_its_own_name(sandbox: Sandbox) -> None:
    outcome = await sandbox.run(
        module_of("descriptors"), args=["for ever"], files=zip_of("inside.txt", b"in"), duration_s=0.5
    )
    assert outcome.reason in ("deadline", "files")
    assert (await sandbox.run(guest("echo"), stdin=b"x")).stdout == b"x"


def test_what_a_killed_worker_leaves_is_removed_and_what_another_uses_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr(directory, "_MAKING_S", -1.0)
    used, lock = directory.make()
    left, others = directory.make()
    (left / "deep").mkdir()
    (left / "deep" / "secret").write_text("of a task")
    os.close(others)
    directory.sweep()
    assert sorted(path.name for path in tmp_path.iterdir()) == [used.name]
    os.close(lock)
    directory.sweep()
    assert list(tmp_path.iterdir()) == []
