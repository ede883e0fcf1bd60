"""The store of modules: named by content, whole or not there, and never more than the quota."""

import asyncio
import errno
import hashlib
import io
import os
import shutil
import threading
from pathlib import Path

import pytest

from tests.conftest import until
from tests.gateway.test_http import open_gateway
from tests.guests import function, guest, wat, zipped
from ww.errors import BadModule, NotFound, Overloaded, StoreError, UsageError, WwError
from ww.gateway import content
from ww.gateway.modules import ModuleStore
from ww.gateway.store import Store
from ww.gateway.task import Spec
from ww.gateway.upload import Upload
from ww.wasm_inspect import Guest, Kind

pytestmark = pytest.mark.anyio

ONE, TWO, THREE = (function(f"(i32.const {number})") for number in (1, 2, 3))
SIZE = len(ONE)
COMMAND = Guest(Kind.COMMAND)
RUN = Guest(Kind.FUNCTION, "run", ("i32", "i32"), "i32")
PIECE_BYTES = 64 << 10


async def arrive(upload: Upload, data: bytes) -> None:
    """Have an upload take data as a body brings it."""
    for start in range(0, len(data), PIECE_BYTES):
        upload.write(data[start : start + PIECE_BYTES])
        if upload.is_due:
            await upload.flush()
    await upload.finish()


class Modules:
    """A module store, with a short way to put something in."""

    def __init__(self, directory: Path, quota_bytes: int = 8 << 20) -> None:
        self.directory = directory
        self.store = ModuleStore(directory, quota_bytes=quota_bytes)
        self.in_use: set[str] = set()

    async def _in_use(self) -> set[str]:
        return self.in_use

    async def keep(self, module: bytes) -> str:
        with self.store.upload(self._in_use) as upload:
            await arrive(upload, module)
            await self.store.examine(upload, None)
            await upload.keep()
            return upload.digest

    async def examine(self, module: bytes, entry: str | None = None) -> Guest:
        with self.store.upload(self._in_use) as upload:
            await arrive(upload, module)
            return await self.store.examine(upload, entry)

    async def keep_files(self, data: bytes) -> str:
        with self.store.upload_files(self._in_use) as upload:
            await arrive(upload, data)
            await self.store.examine_files(upload, bytes_max=1 << 20, count_max=10)
            await upload.keep()
            return upload.digest

    @property
    def files(self) -> set[str]:
        return {path.name for path in self.directory.iterdir()}


@pytest.fixture
def modules(tmp_path: Path) -> Modules:
    return Modules(tmp_path / "modules")


def sha256(module: bytes) -> str:
    return hashlib.sha256(module).hexdigest()


def padded(module: bytes, size: int) -> bytes:
    """Return the module with a custom section of that size behind it."""
    length = bytes([size & 0x7F | 0x80, size >> 7 & 0x7F | 0x80, size >> 14 & 0x7F | 0x80, size >> 21])
    return module + b"\0" + length + b"\x01x" + bytes(size - 2)


async def test_a_module_is_kept_by_its_content(modules: Modules) -> None:
    digest = await modules.keep(ONE)
    assert digest == sha256(ONE)
    assert modules.store.path(digest).read_bytes() == ONE
    assert modules.files == {f"{digest}.wasm"}


async def test_keeping_it_again_changes_nothing(modules: Modules) -> None:
    first, second = await modules.keep(ONE), await modules.keep(ONE)
    assert first == second
    assert modules.files == {f"{first}.wasm"}


async def test_what_is_kept_is_there_after_a_restart(modules: Modules) -> None:
    digest = await modules.keep(guest("echo"))
    again = Modules(modules.directory)
    assert await again.store.guest(digest, None) == COMMAND
    assert again.store.path(digest).read_bytes() == guest("echo")


async def test_examining_stores_nothing(modules: Modules) -> None:
    for module in (ONE, padded(ONE, 1 << 20)):
        assert await modules.examine(module) == RUN
        assert modules.files == set()


@pytest.mark.parametrize("extra", [0, (1 << 20) - SIZE - 5, 1 << 20, 3 << 20])
async def test_a_module_of_any_size_is_examined_and_kept_whole(tmp_path: Path, extra: int) -> None:
    modules = Modules(tmp_path / "modules")
    module = padded(ONE, extra) if extra else ONE
    assert await modules.examine(module) == RUN
    digest = await modules.keep(module)
    assert digest == sha256(module)
    assert modules.files == {f"{digest}.wasm"}
    assert await modules.store.guest(digest, None) == RUN
    assert modules.store.path(digest).read_bytes() == module


@pytest.mark.parametrize(
    ("module", "entry", "error"),
    [
        (b"", None, UsageError),
        (b"#!/bin/sh\n", None, BadModule),
        (ONE[:-1], None, BadModule),
        (padded(ONE, 2 << 20)[:-1], None, BadModule),
        (wat(""), None, BadModule),
        (ONE, "walk", BadModule),
    ],
)
async def test_what_cannot_be_run_is_refused_and_named_as_the_file(
    modules: Modules, tmp_path: Path, module: bytes, entry: str | None, error: type[WwError]
) -> None:
    with pytest.raises(error, match=r"^wasm: ") as caught:
        await modules.examine(module, entry)
    assert str(tmp_path) not in str(caught.value)
    assert modules.files == set()


async def test_the_kind_of_a_stored_module_is_found(modules: Modules) -> None:
    digest = await modules.keep(
        wat('(memory (export "memory") 1) (func (export "f") (param i64)) (func (export "_start"))')
    )
    assert await modules.store.guest(digest, None) == COMMAND
    assert await modules.store.guest(digest, "f") == Guest(Kind.FUNCTION, "f", ("i64",))
    with pytest.raises(BadModule, match="exports no function 'g'"):
        await modules.store.guest(digest, "g")


async def test_a_module_that_is_not_here_is_not_found(modules: Modules) -> None:
    await modules.keep(ONE)
    with pytest.raises(NotFound, match=f"sha256:{sha256(TWO)}") as error:
        await modules.store.guest(sha256(TWO), None)
    assert error.value.field == "module"


async def test_uploads_that_were_cut_off_by_a_crash_are_removed_and_nothing_else(modules: Modules) -> None:
    digest = await modules.keep(ONE)
    for name in ("tmpabc.part", "x.part"):
        (modules.directory / name).write_bytes(ONE)
    assert Modules(modules.directory).files == {f"{digest}.wasm"}


# The quota.


async def test_past_the_quota_modules_nobody_uses_make_room(tmp_path: Path) -> None:
    modules = Modules(tmp_path / "modules", 2 * SIZE)
    one, two = await modules.keep(ONE), await modules.keep(TWO)
    modules.in_use = {two}
    three = await modules.keep(THREE)
    assert modules.files == {f"{two}.wasm", f"{three}.wasm"}
    with pytest.raises(NotFound):
        await modules.store.guest(one, None)


async def test_the_quota_may_be_used_up_to_the_last_byte(tmp_path: Path) -> None:
    modules = Modules(tmp_path / "modules", 2 * SIZE)
    kept = {await modules.keep(ONE), await modules.keep(TWO)}
    assert modules.files == {f"{digest}.wasm" for digest in kept}


async def test_when_all_are_in_use_a_further_one_is_refused_for_now(tmp_path: Path) -> None:
    modules = Modules(tmp_path / "modules", 2 * SIZE)
    modules.in_use = {await modules.keep(ONE), await modules.keep(TWO)}
    before = modules.files
    with pytest.raises(Overloaded, match=f"reached {2 * SIZE} bytes, the limit") as error:
        await modules.keep(THREE)
    assert error.value.retry_after_s > 0
    assert modules.files == before
    modules.in_use = set()
    three = await modules.keep(THREE)
    assert modules.files == {f"{three}.wasm"}


async def test_what_is_there_already_is_kept_however_full_it_is(tmp_path: Path) -> None:
    modules = Modules(tmp_path / "modules", SIZE)
    modules.in_use = {await modules.keep(ONE)}
    assert await modules.keep(ONE) in modules.in_use


async def test_a_module_larger_than_the_quota_is_refused(tmp_path: Path) -> None:
    modules = Modules(tmp_path / "modules", SIZE - 1)
    with pytest.raises(Overloaded):
        await modules.keep(ONE)
    assert modules.files == set()


async def test_what_goes_on_outside_is_noticed_when_room_is_needed(tmp_path: Path) -> None:
    modules = Modules(tmp_path / "modules", 2 * SIZE)
    modules.in_use = {await modules.keep(ONE), await modules.keep(TWO)}
    modules.store.path(sha256(ONE)).unlink()
    await modules.keep(THREE)
    assert modules.files == {f"{sha256(module)}.wasm" for module in (TWO, THREE)}


# Uploads.

LARGE = padded(ONE, 1 << 20)


def parts(modules: Modules) -> int:
    """Return the bytes that are on disk of what is arriving."""
    return sum(path.stat().st_size for path in modules.directory.glob("*.part"))


async def test_what_arrives_is_on_disk_once_and_gone_when_it_is_left(modules: Modules) -> None:
    with modules.store.upload(modules._in_use) as upload:
        await arrive(upload, LARGE)
        assert upload.digest == sha256(LARGE)
        assert parts(modules) == len(LARGE)
    assert modules.files == set()


async def test_what_arrives_at_a_time_counts_together(tmp_path: Path) -> None:
    modules = Modules(tmp_path / "modules", 2 * len(LARGE))
    first, second, third = (modules.store.upload(modules._in_use) for _ in range(3))
    with first, second:
        for upload in (first, second):
            await arrive(upload, LARGE)
        with third:
            await arrive(third, padded(TWO, 1 << 20))
            assert parts(modules) == 2 * len(LARGE), "nothing of the third is written"
            for use in (third.keep(), modules.store.examine(third, None), modules.keep(THREE)):
                with pytest.raises(Overloaded, match=r"^wasm: the module has no room"):
                    await use
    assert modules.files == set()
    await modules.keep(padded(TWO, 1 << 20))
    await modules.keep(THREE)


async def test_a_large_one_that_is_there_already_needs_no_room(tmp_path: Path) -> None:
    modules = Modules(tmp_path / "modules", len(LARGE))
    modules.in_use = {await modules.keep(LARGE)}
    assert await modules.keep(LARGE) in modules.in_use
    assert modules.files == {f"{sha256(LARGE)}.wasm"}
    modules.in_use = set()
    await modules.keep(TWO)


async def test_room_is_made_while_a_large_one_arrives_and_nothing_that_arrives_is_removed(tmp_path: Path) -> None:
    modules = Modules(tmp_path / "modules", 2 * len(LARGE))
    await modules.keep(padded(TWO, 1 << 20))
    with modules.store.upload(modules._in_use) as upload:
        await arrive(upload, LARGE)
        third = await modules.keep(padded(THREE, 1 << 20))
        await upload.keep()
    assert modules.files == {f"{third}.wasm", f"{sha256(LARGE)}.wasm"}


async def test_the_same_large_one_twice_at_a_time_is_there_once(modules: Modules) -> None:
    assert len({*await asyncio.gather(*(modules.keep(LARGE) for _ in range(3)))}) == 1
    assert modules.files == {f"{sha256(LARGE)}.wasm"}


async def test_an_upload_that_is_cancelled_while_it_is_written_leaves_nothing(
    modules: Modules, monkeypatch: pytest.MonkeyPatch
) -> None:
    writing, may_write = threading.Event(), threading.Event()

    class Slow(io.FileIO):
        def write(self, data: object) -> int:  # type: ignore[override]
            writing.set()
            assert may_write.wait(10)
            return super().write(data)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "fdopen", lambda fd, *_, **__: Slow(fd, "w+b"))
    keeping = asyncio.create_task(modules.keep(LARGE))
    await asyncio.to_thread(writing.wait, 10)
    keeping.cancel()
    asyncio.get_running_loop().call_soon(may_write.set)
    with pytest.raises(asyncio.CancelledError):
        await keeping
    assert modules.files == set()
    monkeypatch.undo()
    await modules.keep(LARGE)


# Files of tasks.

ZIP, OTHER_ZIP = zipped(a=b"one"), zipped(a=b"two")


async def test_files_are_kept_beside_modules(modules: Modules) -> None:
    module, files = await modules.keep(ONE), await modules.keep_files(ZIP)
    assert await modules.keep_files(ZIP) == files == sha256(ZIP)
    assert modules.files == {f"{module}.wasm", f"{files}.zip"}
    again = Modules(modules.directory)
    assert await again.store.read_files(files) == ZIP
    with pytest.raises(NotFound):
        await again.store.guest(files, None)
    with pytest.raises(StoreError, match=r"^files: the zip cannot be read: No such file"):
        await again.store.read_files(module)


async def test_files_and_modules_share_a_quota(tmp_path: Path) -> None:
    modules = Modules(tmp_path / "modules", SIZE + len(ZIP))
    module, files = await modules.keep(ONE), await modules.keep_files(ZIP)
    modules.in_use = {module, files}
    with pytest.raises(Overloaded, match=r"^files: the zip has no room: those stored here have reached"):
        await modules.keep_files(OTHER_ZIP)
    with pytest.raises(Overloaded, match=r"^wasm: the module has no room"):
        await modules.keep(TWO)
    modules.in_use = {module}
    other = await modules.keep_files(OTHER_ZIP)
    assert modules.files == {f"{module}.wasm", f"{other}.zip"}


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "the file is empty"),
        (b"no zip", "the files are no zip"),
        (zipped(a=bytes((1 << 20) + 1)), "1048577 bytes when it is unpacked, the limit is 1048576"),
        (zipped(**{f"f{i}": b"" for i in range(11)}), "11 entries, the limit is 10"),
    ],
)
async def test_files_that_are_not_to_be_unpacked_are_refused(modules: Modules, data: bytes, says: str) -> None:
    with pytest.raises(UsageError, match=f"^files: .*{says}") as error:
        await modules.keep_files(data)
    assert error.value.field == "files"
    assert modules.files == set()


# The disk.


async def test_a_disk_that_refuses_is_one_error_without_a_path(modules: Modules, tmp_path: Path) -> None:
    shutil.rmtree(modules.directory)
    with pytest.raises(StoreError, match=r"^wasm: the module cannot be stored: ") as error:
        await modules.keep(ONE)
    assert str(tmp_path) not in str(error.value)


@pytest.mark.parametrize("call", ["write", "fsync"])
@pytest.mark.parametrize("size", [SIZE, 1 << 20])
async def test_a_disk_that_is_full_while_a_module_arrives_keeps_nothing_of_it(
    modules: Modules, monkeypatch: pytest.MonkeyPatch, call: str, size: int
) -> None:
    module = padded(ONE, size) if size > SIZE else ONE
    with monkeypatch.context() as patch:
        refuse(patch, call)
        with pytest.raises(StoreError, match=r"^wasm: the module cannot be stored: No space left on device$"):
            await modules.keep(module)
    assert modules.files == set()
    assert await modules.keep(module) == sha256(module)


def refuse(patch: pytest.MonkeyPatch, call: str) -> None:
    """Have the disk be full at that call."""

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    class Full(io.FileIO):
        write = full  # type: ignore[assignment]

    if call == "fsync":
        patch.setattr(os, "fsync", full)
    else:
        patch.setattr(os, "fdopen", lambda fd, *_, **__: Full(fd, "w+b"))


async def test_what_arrives_stops_before_the_reserve_of_the_disk(
    modules: Modules, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(content, "_free_bytes", lambda _: (4 << 20) - parts(modules))
    store = ModuleStore(modules.directory, quota_bytes=1 << 30, disk_reserve_bytes=3 << 20)
    with store.upload_inputs(modules._in_use) as upload:
        upload.write(bytes(1 << 20))
        await upload.flush()
        upload.write(b"x")
        says = r"^tasks: the inputs cannot be stored: of 3145728 bytes that are free on the disk 3145728 are kept "
        with pytest.raises(StoreError, match=says):
            await upload.flush()
    assert modules.files == set()


async def test_a_disk_that_refuses_after_room_was_made_is_the_same_error(tmp_path: Path) -> None:
    modules = Modules(tmp_path / "modules", SIZE)
    await modules.keep(ONE)

    async def in_use() -> set[str]:
        shutil.rmtree(modules.directory)
        return set()

    with modules.store.upload(in_use) as upload:
        await arrive(upload, TWO)
        with pytest.raises(StoreError, match=r"^wasm: the module cannot be stored: "):
            await upload.keep()


async def test_a_disk_that_refuses_files_is_one_error_without_a_path(modules: Modules, tmp_path: Path) -> None:
    shutil.rmtree(modules.directory)
    with pytest.raises(StoreError, match=r"^files: the zip cannot be stored: ") as error:
        await modules.keep_files(ZIP)
    assert str(tmp_path) not in str(error.value)


# While tasks are being added.


async def test_room_is_not_made_by_removing_the_module_of_a_task_that_is_just_being_added(tmp_path: Path) -> None:
    may_write, asked, may_answer = (asyncio.Event() for _ in range(3))

    class Slow(Store):
        """Writes when it may, and says which modules are in use when it may."""

        async def add_task(self, spec: Spec, created_at: float) -> int:
            await may_write.wait()
            return await super().add_task(spec, created_at)

        async def modules(self) -> set[str]:
            found = await super().modules()
            asked.set()
            await may_answer.wait()
            return found

    async with open_gateway(tmp_path, kind=Slow, modules_bytes_max=SIZE) as gateway, asyncio.TaskGroup() as group:
        first = group.create_task(gateway.added(id="first", wasm=ONE))
        await until(lambda: bool(gateway.module_files()))
        second = group.create_task(gateway.post(id="second", wasm=TWO))
        await asked.wait()
        may_write.set()
        await first
        may_answer.set()
        assert (await second).status_code == 429
        assert gateway.module_files() == {f"{sha256(ONE)}.wasm"}


async def test_a_module_that_is_removed_while_it_is_being_named(tmp_path: Path) -> None:
    was_read, may_answer = asyncio.Event(), asyncio.Event()

    class Slow(ModuleStore):
        """Says what it read when it may."""

        async def guest(self, digest: str, entry: str | None) -> Guest:
            found = await super().guest(digest, entry)
            was_read.set()
            await may_answer.wait()
            return found

    async with open_gateway(tmp_path, modules_kind=Slow, modules_bytes_max=SIZE) as gateway:
        await gateway.json("/modules", 201, "POST", files=[("wasm", ("m.wasm", ONE))])  # used by no task
        async with asyncio.TaskGroup() as group:
            naming = group.create_task(gateway.post(id="t", wasm=None, module=f"sha256:{sha256(ONE)}"))
            await was_read.wait()
            await gateway.added(id="u", wasm=TWO)
            may_answer.set()
        assert naming.result().status_code == 404
        assert await gateway.ids() == ["u"]
