"""Taking a task on: from the fields of a submission to a task on disk, wherever they came from.

Holds the order in which things are looked at. Must not know HTTP or peers: POST /tasks, /ws and Tasks all end here. How
the runs of a batch are read: batch.py; the file that they are written to: inputs.py.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from ww import archive
from ww.errors import Overloaded, StoreError, UsageError
from ww.gateway.batch import BatchReader, RunFields
from ww.gateway.caller import Caller
from ww.gateway.content import in_thread
from ww.gateway.inputs import InputsWriter
from ww.gateway.modules import ModuleStore, mapped
from ww.gateway.perimeter import Perimeter
from ww.gateway.request import RequestLimits, Submission, read_fields
from ww.gateway.scheduler import Scheduler
from ww.gateway.task import Spec
from ww.gateway.upload import Upload
from ww.uuid7 import is_recent
from ww.wasm_inspect import Guest

# More is read in a thread: to hand it over costs a tenth of a millisecond.
_INLINE_BYTES_MAX: Final = 64 << 10
# Read at a time, so that others have their turn between them.
_RUNS_AT_ONCE: Final = 256
_ZIP_BYTES_AT_ONCE: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Parent:
    """What was said, looked at."""

    submission: Submission
    module: str
    """sha256, hex."""
    guest: Guest
    wasm: Upload | None
    zipped: Upload | None

    @property
    def files(self) -> str:
        """sha256 of the zip of files, hex; or empty."""
        return self.zipped.digest if self.zipped is not None else ""


class Taken(NamedTuple):
    """What became of a submission."""

    spec: Spec
    number: int
    """The task's, in the store; 0: it was there already."""

    @property
    def is_new(self) -> bool:
        return self.number > 0


class Submitter:
    """Takes submissions on, over one gateway's parts."""

    def __init__(self, scheduler: Scheduler, modules: ModuleStore, limits: RequestLimits, perimeter: Perimeter) -> None:
        self._scheduler = scheduler
        self._modules = modules
        self.limits = limits
        self._perimeter = perimeter

    def upload(self, name: str) -> Upload:
        """Make what takes in the file of that field."""
        in_use = self._scheduler.modules_in_use
        if name == "wasm":
            return self._modules.upload(in_use)
        return self._modules.upload_files(in_use) if name == "files" else self._modules.upload_inputs(in_use)

    async def submit(
        self,
        fields: Sequence[tuple[str, str]],
        stdin: bytes,
        uploads: Mapping[str, Upload],
        caller: Caller,
        *,
        is_fresh: bool = False,
        is_awaited: bool = False,
    ) -> Taken:
        """Take a task on, which is on disk on return.

        uploads are finished. is_fresh says that whoever asks has just made the id and never sent it before; is_awaited:
        see Scheduler.submit. Raises what read_fields, the stores and that do.
        """
        parent = await self.look_at(fields, stdin, uploads, is_batch=False)
        spec = parent.submission.spec(parent.module, parent.guest, parent.files, owner=caller.name)
        return await self._take_on(spec, parent, None, caller, is_fresh=is_fresh, is_awaited=is_awaited)

    @asynccontextmanager
    async def batch(
        self, fields: Sequence[tuple[str, str]], stdin: bytes, uploads: Mapping[str, Upload], caller: Caller
    ) -> AsyncIterator["Batch"]:
        """Begin a batch with what its runs have in common; add them, and `finish`. Leave it, and nothing stays of what
        was not finished.

        uploads are finished. Raises what read_fields and the stores do.
        """
        self._perimeter.require_room()
        parent = await self.look_at(fields, stdin, uploads, is_batch=True)
        with self.upload("inputs") as upload:
            yield self.begin(parent, upload, caller)

    def begin(self, parent: Parent, upload: Upload, caller: Caller) -> "Batch":
        """Begin a batch of what was looked at, whose inputs go into that upload."""
        reader = BatchReader(parent.submission, parent.guest, self.limits)

        async def finish(upload: Upload) -> Taken:
            spec = reader.spec(parent.module, upload.digest, parent.files, owner=caller.name)
            return await self._take_on(spec, parent, upload, caller)

        return Batch(reader, upload, self.limits, finish)

    async def look_at(
        self, fields: Sequence[tuple[str, str]], stdin: bytes, uploads: Mapping[str, Upload], *, is_batch: bool
    ) -> Parent:
        """Read what was said, and look at what came along, storing nothing."""
        wasm, zipped = uploads.get("wasm"), uploads.get("files")
        size = None if zipped is None else zipped.size
        submission = read_fields(fields, stdin, wasm is not None, self.limits, files_size=size, is_batch=is_batch)
        if wasm is None:
            assert submission.module is not None
            digest = submission.module
            guest = await self._modules.guest(digest, submission.entry)
        else:
            digest = wasm.digest
            guest = await self._modules.examine(wasm, submission.entry)
        if zipped is not None:
            most = {"bytes_max": submission.files_bytes, "count_max": self.limits.files_count_max}
            await self._modules.examine_files(zipped, **most)
        return Parent(submission, digest, guest, wasm, zipped)

    async def _take_on(
        self,
        spec: Spec,
        parent: Parent,
        inputs: Upload | None,
        caller: Caller,
        *,
        is_fresh: bool = False,
        is_awaited: bool = False,
    ) -> Taken:
        # Whoever names a task of another by its id does not get past the look at what is there.
        is_fresh = is_fresh and is_recent(spec.id) and self._scheduler.task(spec.id) is None
        is_new = parent.submission.is_id_made or is_fresh

        async def keep() -> None:
            # What may be too large first: the others are then not kept for nothing.
            for upload in (inputs, parent.zipped, parent.wasm):
                if upload is not None:
                    await upload.keep()
            if parent.wasm is None:
                await self._modules.require(spec.module)

        try:
            with self._perimeter.admit(caller, spec):
                return Taken(spec, await self._scheduler.submit(spec, keep, is_new=is_new, is_awaited=is_awaited))
        except Overloaded:
            # Who asks again since an answer was lost is told that its task is there, whatever has no room now.
            if is_new or not await self._scheduler.is_there(spec):
                raise
        except StoreError:
            # Also what comes of an id that is said to be new, and is not.
            if not is_fresh or not await self._scheduler.is_there(spec):
                raise
        return Taken(spec, 0)


class Batch:
    """A batch on its way in."""

    def __init__(
        self,
        reader: BatchReader,
        upload: Upload,
        limits: RequestLimits,
        finish: Callable[[Upload], Awaitable[Taken]],
    ) -> None:
        self._reader = reader
        self._upload = upload
        self._writer = InputsWriter(upload)
        self._limits = limits
        self._finish = finish

    @property
    def count(self) -> int:
        """Runs that came."""
        return self._reader.count

    async def add(self, runs: Sequence[RunFields]) -> None:
        """Take the next runs. UsageError names the one that cannot be, as tasks[3].args."""
        for first in range(0, len(runs), _RUNS_AT_ONCE):
            some = runs[first : first + _RUNS_AT_ONCE]
            size = sum(len(run.stdin or b"") + len(run.files or b"") for run in some)
            await self._take(self._reader.read_runs, some, size)

    async def add_records(self, records: Sequence[bytes]) -> None:
        """Take the next runs, a record each, its length before it: see BatchReader.read_records."""
        for first in range(0, len(records), _RUNS_AT_ONCE):
            some = records[first : first + _RUNS_AT_ONCE]
            # Whose records are short is read at once; a zip in one is looked through.
            await self._take(self._reader.read_records, some, max(map(len, some)))
            await asyncio.sleep(0)

    async def add_lines(self, lines: Sequence[bytes]) -> None:
        """Take the next runs, a line of JSON each."""
        for first in range(0, len(lines), _RUNS_AT_ONCE):
            some = lines[first : first + _RUNS_AT_ONCE]
            await self._take(self._reader.read_lines, some, sum(map(len, some)))

    async def add_objects(self, values: Sequence[Any]) -> None:
        """Take the next runs, an object of JSON each."""
        for first in range(0, len(values), _RUNS_AT_ONCE):
            await self._take(self._reader.read_objects, values[first : first + _RUNS_AT_ONCE], 0)
            await asyncio.sleep(0)

    async def add_zip(self, source: Upload) -> None:
        """Take a run for each file of a zip, which is its stdin, and its path its name."""
        with source.open() as file, mapped(file, "inputs", "a zip") as data:
            most = {"bytes_max": self._limits.stdin_max_bytes, "count_max": self._limits.runs_max}
            entries = archive.contents(memoryview(data), **most)
            try:
                while records := await in_thread(self._read_entries, entries):
                    await self._write(records)
            finally:
                entries.close()

    def _read_entries(self, entries: Generator[tuple[str, bytes], None, None]) -> list[bytes]:
        records: list[bytes] = []
        size = 0
        try:
            for name, content in entries:
                records += self._reader.read_runs([RunFields(stdin=content, name=name)])
                if (size := size + len(content)) >= _ZIP_BYTES_AT_ONCE or len(records) >= _RUNS_AT_ONCE:
                    break
        except UsageError as error:
            raise error if error.field != "files" else UsageError(f"inputs: {error}", "inputs") from None
        return records

    async def _take(self, read: Callable[[Any], list[bytes]], given: Sequence[Any], size: int) -> None:
        records = await in_thread(read, given) if size > _INLINE_BYTES_MAX else read(given)
        await self._write(records)

    async def _write(self, records: Sequence[bytes]) -> None:
        upload, writer = self._upload, self._writer
        for record in records:
            writer.add(record)
            if upload.is_due:
                await upload.flush()
        if upload.size > self._limits.batch_bytes_max:
            most = self._limits.batch_bytes_max
            raise UsageError(f"tasks: the runs hold more than {most} bytes, the limit (--batch-max)", "tasks")

    async def finish(self) -> Taken:
        """Take the task on, which is on disk on return."""
        await self._writer.finish()
        return await self._finish(self._upload)
