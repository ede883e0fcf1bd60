"""What a gateway is sent and keeps: modules, and the zips and inputs that tasks bring along, by sha256.

Holds what is examined before it is kept. Must not know who wants it. Nothing is stored that wasm_inspect.py, or for a
zip archive.py, does not accept. How bytes arrive: upload.py; the folder: content.py.
"""

import asyncio
import mmap
import os
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, Final, TypeVar

from ww import archive
from ww.errors import Conflict, NotFound, StoreError, UsageError
from ww.gateway.content import ContentStore, InUse, Sort
from ww.gateway.guest import About, about, read_guest
from ww.gateway.upload import Upload
from ww.wasm_inspect import Guest

R = TypeVar("R")

_READ_WHOLE_BYTES: Final = 1 << 20
_KNOWN_MAX: Final = 1024
# Zips that are kept in memory: 16 MiB in all.
_ZIP_KEPT_BYTES_MAX: Final = 64 << 10
_ZIPS_KEPT_MAX: Final = 256
_MODULE: Final = Sort(".wasm", "wasm: the module")
_FILES: Final = Sort(".zip", "files: the zip")
_INPUTS: Final = Sort(".inputs", "tasks: the inputs")


class ModuleStore:
    """A folder of modules, `<sha256 hex>.wasm` each, and of zips and inputs beside them."""

    def __init__(self, directory: Path, *, quota_bytes: int, disk_reserve_bytes: int = 0) -> None:
        """Keep modules and files in directory, which is made when it is not there: at most quota_bytes together.

        What arrives leaves disk_reserve_bytes of the disk free: a batch may be larger than that, and come for an hour.
        """
        self._content = ContentStore(directory, quota_bytes=quota_bytes, disk_reserve_bytes=disk_reserve_bytes)
        self._guests: dict[tuple[str, str | None], Guest] = {}
        # The code of Python functions comes with every call, and goes to a worker with it.
        self._examined: set[tuple[str, int, int]] = set()
        self._zips: OrderedDict[str, bytes] = OrderedDict()

    def path(self, digest: str) -> Path:
        """Say where the module of that digest (hex) is, if it is there."""
        return self._content.path(digest, _MODULE)

    def upload(self, in_use: InUse) -> Upload:
        """Take a module in; room is made for it by removing what in_use does not name."""
        return Upload(self._content, _MODULE, in_use)

    def upload_files(self, in_use: InUse) -> Upload:
        """Take a zip of files in, likewise."""
        return Upload(self._content, _FILES, in_use)

    def upload_inputs(self, in_use: InUse) -> Upload:
        """Take the inputs of a batch in, likewise: see inputs.py."""
        return Upload(self._content, _INPUTS, in_use)

    def inputs_path(self, digest: str) -> Path:
        """Say where the inputs of that digest (hex) are, if they are there."""
        return self._content.path(digest, _INPUTS)

    async def guest(self, digest: str, entry: str | None) -> Guest:
        """Say what a stored module is run as: see guest.read_guest. NotFound when it is not here."""
        if (known := self._guests.get((digest, entry))) is not None and self.path(digest).exists():
            return known
        return self._remember(digest, entry, await asyncio.to_thread(self._guest, digest, entry))

    def _guest(self, digest: str, entry: str | None) -> Guest:
        with self._open(digest) as file:
            return _guest_in(file, entry)

    async def examine(self, upload: Upload, entry: str | None) -> Guest:
        """Say what a finished upload is run as, storing nothing. BadModule when it cannot be run."""
        if (known := self._guests.get((upload.digest, entry))) is not None:
            return known
        return self._remember(upload.digest, entry, await asyncio.to_thread(_examine, upload, entry))

    def _remember(self, digest: str, entry: str | None, guest: Guest) -> Guest:
        if len(self._guests) >= _KNOWN_MAX:
            self._guests.clear()
        self._guests[digest, entry] = guest
        return guest

    async def about(self, upload: Upload) -> About:
        """Say what a finished upload is, storing nothing. BadModule when no task could run it."""
        return await asyncio.to_thread(_about, upload)

    async def examine_files(self, upload: Upload, *, bytes_max: int, count_max: int) -> None:
        """Read an uploaded zip, storing nothing. UsageError when it is not to be unpacked."""
        key = upload.digest, bytes_max, count_max
        if key in self._examined:
            return
        await asyncio.to_thread(_examine_files, upload, bytes_max, count_max)
        if len(self._examined) >= _KNOWN_MAX:
            self._examined.clear()
        self._examined.add(key)

    async def require(self, digest: str) -> None:
        """Raise NotFound unless the module is here, and not being removed."""
        if not await self._content.has(digest, _MODULE):
            raise _not_here(digest)

    async def has(self, digest: str) -> bool:
        """Whether the module is here, and not being removed."""
        return await self._content.has(digest, _MODULE)

    async def open(self, digest: str) -> tuple[BinaryIO, int]:
        """Open a stored module and say how many bytes it has. NotFound when it is not here."""
        file = await asyncio.to_thread(self._open, digest)
        return file, os.fstat(file.fileno()).st_size

    def _open(self, digest: str) -> BinaryIO:
        try:
            return self.path(digest).open("rb")
        except FileNotFoundError:
            raise _not_here(digest) from None

    async def remove(self, digest: str, is_named: Callable[[], bool]) -> None:
        """Remove a stored module. NotFound when it is not here, Conflict when is_named says that a task wants it."""
        try:
            removed = await self._content.remove(digest, _MODULE, is_named)
        except FileNotFoundError:
            raise _not_here(digest) from None
        if not removed:
            raise Conflict(f"module: a task that has not ended names sha256:{digest}", "module")

    async def read_files(self, digest: str) -> bytes:
        """Return a stored zip. StoreError when it cannot be read."""
        if (known := self._zips.get(digest)) is not None:
            self._zips.move_to_end(digest)
            return known
        try:
            data = await asyncio.to_thread(self._content.path(digest, _FILES).read_bytes)
        except OSError as error:
            raise StoreError(f"files: the zip cannot be read: {error.strerror}") from None
        if len(data) <= _ZIP_KEPT_BYTES_MAX:
            self._zips[digest] = data
            if len(self._zips) > _ZIPS_KEPT_MAX:
                self._zips.popitem(last=False)
        return data


def _not_here(digest: str) -> NotFound:
    return NotFound(f"module: no module sha256:{digest} is stored here; send it as wasm", "module")


def _examine(upload: Upload, entry: str | None) -> Guest:
    with upload.open() as file:
        return _guest_in(file, entry)


def _guest_in(file: BinaryIO, entry: str | None) -> Guest:
    return _with_bytes(file, lambda data: read_guest(data, entry))


def _with_bytes(file: BinaryIO, read: Callable[[bytes | mmap.mmap], R]) -> R:
    """Call read with all of a file, without holding a large one in memory."""
    with mapped(file, "wasm", "a WebAssembly module") as data:
        return read(data)


@contextmanager
def mapped(file: BinaryIO, field: str, expected: str) -> Iterator[bytes | mmap.mmap]:
    """Give all of a file, without holding a large one in memory. UsageError, naming field, when it is empty."""
    size = file.seek(0, os.SEEK_END)
    if size == 0:
        raise UsageError(f"{field}: the file is empty; expected {expected}", field)
    file.seek(0)
    if size <= _READ_WHOLE_BYTES:
        yield file.read()
        return
    data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    try:
        yield data
    finally:
        # Who failed over it may still hold a part: then it goes with that.
        with suppress(BufferError):
            data.close()


def _about(upload: Upload) -> About:
    with upload.open() as file:
        return _with_bytes(file, about)


def _examine_files(upload: Upload, bytes_max: int, count_max: int) -> None:
    with upload.open() as file:
        data = file.read()
    if not data:
        raise UsageError("files: the file is empty; expected a zip", "files")
    try:
        archive.check(data, bytes_max=bytes_max, count_max=count_max)
    except UsageError as error:
        raise UsageError(f"files: {error}", "files") from None
