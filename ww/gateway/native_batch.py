"""The runs of a batch as a peer sends them: a stream of input records, looked at and stored as they come.

Holds the capability that takes them, and the checks of each. Must not know what becomes of them: they go into an
upload (inputs.py), and the task that names it is taken on with the last of them.
"""

import asyncio
import struct
import weakref
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from typing import Any, Final

from ww import archive, schema
from ww.errors import UsageError, WwError
from ww.gateway import number
from ww.gateway.caller import Caller
from ww.gateway.fields import shown
from ww.gateway.inputs import InputsWriter
from ww.gateway.limits import RequestLimits
from ww.gateway.native_intake import NativeIntake, Prepared, dumps
from ww.gateway.native_task import TaskServer
from ww.gateway.task import Spec
from ww.gateway.upload import Upload
from ww.records import Input, read_input, write_input
from ww.wasm_inspect import Guest, Kind

_ADD_BYTES_MAX: Final = 1 << 20
_LENGTH: Final = struct.Struct("<I")
_ARGUMENTS, _STDIN = 1, 8
_I32_LOW, _I32_HIGH = -(2**31), 2**31 - 1
# Looked at before others have a turn.
_RECORDS_AT_ONCE: Final = 1000
_NAME_BYTES_MAX: Final = 1024
_ZIP_IN_THREAD_BYTES: Final = 64 << 10
_OF_RUNS: Final = ("input", "difficulty", "args")


class Records:
    """Finds the records in what comes, and sees that each could be a run's of that task."""

    def __init__(self, spec: Spec, guest: Guest, limits: RequestLimits, *, needs_arguments: bool) -> None:
        """needs_arguments says that the task has no arguments for its function: each run brings its own."""
        self._spec = spec
        self._types = guest.parameters if guest.kind is Kind.FUNCTION else None
        self._guest = guest
        self._limits = limits
        self._needs_arguments = needs_arguments
        self._rest = bytearray()
        self._wanted = 4
        count = len(guest.parameters)
        # What most records are is told by their first bytes alone.
        self._arguments_bytes = 3 + 8 * count if self._types is not None else -1
        self._arguments_head = bytes((_ARGUMENTS, count & 255, count >> 8))
        self._numbers_form = struct.Struct(f"<{count}q")
        self._narrow = [place for place, kind in enumerate(guest.parameters) if kind == "i32"]
        self._record_bytes_max = (
            limits.stdin_max_bytes + limits.files_upload_max_bytes + 2 * limits.text_max_bytes + _NAME_BYTES_MAX + 64
        )
        self.count = 0
        self.has_files = False

    def put(self, data: bytes) -> None:
        """Take the next bytes."""
        self._rest += data

    def whole(self) -> Iterator[bytes]:
        """Yield each record that is complete now, its length before it, as it is to be stored."""
        if len(self._rest) < self._wanted:
            return
        data, at = bytes(self._rest), 0
        size = len(data)
        try:
            while True:
                if size - at < 4:
                    self._wanted = 4
                    return
                (length,) = _LENGTH.unpack_from(data, at)
                if length > self._record_bytes_max:
                    raise self._wrong(f"{length} bytes, at most {self._record_bytes_max} are taken")
                end = at + 4 + length
                if end > size:
                    self._wanted = 4 + length
                    return
                yield self._checked(data, at, end)
                self.count += 1
                at = end
        finally:
            self._rest = bytearray(data[at:])

    def finish(self) -> None:
        """Raise UsageError unless all that came was whole, and there was any."""
        if self._rest:
            raise self._wrong("the record is cut off")
        if not self.count:
            raise UsageError("tasks: no run is given; expected one input record for each", "tasks")

    def _wrong(self, what: str, name: str = "") -> UsageError:
        field = f"tasks[{self.count}]{'.' + name if name else ''}"
        return UsageError(f"{field}: {what}", field)

    def _checked(self, data: bytes, at: int, end: int) -> bytes:
        """Return a record that is fit to be stored."""
        if self.count >= self._limits.runs_max:
            raise UsageError(f"tasks: more than {self._limits.runs_max} runs are given, the limit", "tasks")
        flags = data[at + 4] if end > at + 4 else -1
        if not self._needs_arguments and flags == _STDIN and end - at >= 9:
            (length,) = _LENGTH.unpack_from(data, at + 5)
            if length == end - at - 9 and length <= self._limits.stdin_max_bytes:
                return data[at:end]
        is_as_long = end - at - 4 == self._arguments_bytes
        if flags == _ARGUMENTS and is_as_long and data.startswith(self._arguments_head, at + 4):
            values = self._numbers_form.unpack_from(data, at + 7)
            for place in self._narrow:
                if not _I32_LOW <= values[place] <= _I32_HIGH:
                    break
            else:
                return data[at:end]
        try:
            given = read_input(data, at + 4, end)
        except ValueError as error:
            raise self._wrong(str(error)) from None
        return self._read(given) or data[at:end]

    def _read(self, given: Input) -> bytes | None:
        """Look at a record; return another to be stored in its place, or None."""
        limits = self._limits
        if given.stdin is not None and len(given.stdin) > limits.stdin_max_bytes:
            raise self._wrong(f"{len(given.stdin)} bytes, at most {limits.stdin_max_bytes} are taken", "stdin")
        self._check_texts(given)
        if given.seed is not None and not self._spec.deterministic:
            raise self._wrong("given without deterministic=true, whose random numbers it is of", "seed")
        if given.files is not None:
            self._check_files(given.files)
        if self._types is None:
            if given.arguments is not None:
                raise self._wrong("the guest is no function: expected args", "arguments")
            return None
        if given.args is not None:
            return write_input(given._replace(args=None, arguments=self._numbers(given)))
        if given.arguments is not None:
            self._check_arguments(given)
        elif self._needs_arguments:
            raise self._wrong("missing; expected them in parent, or in every run", "args")
        return None

    def _check_texts(self, given: Input) -> None:
        texts = list(given.args or ()) + [text for pair in given.env or () for text in pair]
        if sum(map(len, texts)) and sum(len(text.encode()) for text in texts) > self._limits.text_max_bytes:
            raise self._wrong(f"args and env are larger than {self._limits.text_max_bytes} bytes", "args")
        names = [name for name, _ in given.env or ()]
        if any(not name or "=" in name for name in names) or len(set(names)) < len(names):
            raise self._wrong("expected names, without '=' and each once, with their values", "env")
        if given.name and (len(given.name.encode()) > _NAME_BYTES_MAX or not given.name.isprintable()):
            raise self._wrong(f"expected at most {_NAME_BYTES_MAX} bytes, all printable", "name")

    def _numbers(self, given: Input) -> tuple[int, ...]:
        assert given.args is not None
        assert self._types is not None
        if given.arguments is not None:
            raise self._wrong("given beside args; expected one of them", "arguments")
        self._check_count(len(given.args))
        found = []
        for place, (text, kind) in enumerate(zip(given.args, self._types, strict=True), 1):
            bits = number.to_bits(kind, text)
            if bits is None:
                of = f"parameter {place} of {shown(self._guest.entry)} is {kind}"
                raise self._wrong(f"{of}: {shown(text)} is not {number.EXPECTED[kind]}", "args")
            found.append(bits)
        return tuple(found)

    def _check_arguments(self, given: Input) -> None:
        assert given.arguments is not None
        assert self._types is not None
        self._check_count(len(given.arguments))
        for place, (value, kind) in enumerate(zip(given.arguments, self._types, strict=True), 1):
            if kind == "i32" and not -(2**31) <= value < 2**31:
                of = f"parameter {place} of {shown(self._guest.entry)} is i32"
                raise self._wrong(f"{of}: {value} is not {number.EXPECTED[kind]}", "arguments")

    def _check_count(self, count: int) -> None:
        assert self._types is not None
        if count != len(self._types):
            takes = f"({', '.join(self._types)})" if len(self._types) <= 20 else f"{len(self._types)} parameters"
            raise self._wrong(f"{shown(self._guest.entry)} takes {takes}, {count} were given", "args")

    def _check_files(self, data: bytes) -> None:
        limits = self._limits
        if len(data) > limits.files_upload_max_bytes:
            raise self._wrong(f"{len(data)} bytes, at most {limits.files_upload_max_bytes} are taken", "files")
        if self._guest.kind is Kind.COMPONENT and self._spec.deterministic:
            raise self._wrong("a component sees when its files were made; expected none with deterministic", "files")
        self.has_files = True

    def files_in(self, record: bytes) -> bytes | None:
        """Return the zip in a checked record, which is still to be looked through."""
        return read_input(record).files if record[4] & 16 else None


class BatchServer(schema.tasks.Batch.Server):  # type: ignore[misc]
    """A batch on its way in. `begin` it; what was not taken on is gone with it."""

    def __init__(self, intake: NativeIntake, caller: Caller) -> None:
        self._intake = intake
        self._caller = caller
        self._stack = ExitStack()
        self._turn = asyncio.Lock()
        self._problem: WwError | None = None
        self._idle: asyncio.TimerHandle | None = None
        self._prepared: Prepared
        self._spec: Spec
        self._records: Records
        self._upload: Upload
        self._writer: InputsWriter

    async def begin(self, params: Any) -> Guest:
        """Read what the runs have in common, and say what the guest is."""
        intake = self._intake
        prepared = self._prepared = await intake.prepare(params, self._caller, self._stack, is_batch=True)
        self._stack.enter_context(intake.arriving(self._caller))
        submission, guest = prepared.submission, prepared.guest
        values = submission.values
        lacks = guest.kind is Kind.FUNCTION and submission.entry is not None and bool(guest.parameters)
        lacks = lacks and not any(values.get(name) not in (None, ()) for name in _OF_RUNS)
        if lacks:
            zeros = ("0",) * len(guest.parameters)
            submission = replace(submission, values={**values, "args": zeros})
        spec = submission.spec(prepared.digest, guest, prepared.files, owner=self._caller.name)
        self._spec = replace(spec, args=()) if lacks else spec
        self._records = Records(self._spec, guest, intake.limits, needs_arguments=lacks)
        upload = intake.modules.upload_inputs(intake.scheduler.modules_in_use)
        self._upload = self._stack.enter_context(upload)
        self._writer = InputsWriter(upload)
        self._hear()
        return guest

    async def add_context(self, context: Any) -> None:
        data = context.params.records
        async with self._turn:
            self._require_sound()
            if len(data) > _ADD_BYTES_MAX:
                self._fail(
                    UsageError(f"tasks: {len(data)} bytes in a call, at most {_ADD_BYTES_MAX} are taken", "tasks")
                )
            if self._upload.size + len(data) > self._intake.limits.batch_bytes_max:
                most = self._intake.limits.batch_bytes_max
                self._fail(UsageError(f"tasks: the inputs are larger than {most} bytes together, the limit", "tasks"))
            self._hear()
            try:
                await self._take(data)
            except WwError as error:
                self._fail(error)

    async def _take(self, data: bytes) -> None:
        records, writer, upload = self._records, self._writer, self._upload
        records.put(data)
        for record in records.whole():
            if (files := records.files_in(record)) is not None:
                await self._examine(files)
            writer.add(record)
            if upload.is_due:
                await upload.flush()
            if writer.count % _RECORDS_AT_ONCE == 0:
                await asyncio.sleep(0)

    async def _examine(self, files: bytes) -> None:
        """Look through a run's zip."""
        limits = self._intake.limits
        most = {"bytes_max": self._spec.files_bytes or limits.files_default_bytes, "count_max": limits.files_count_max}
        try:
            if len(files) > _ZIP_IN_THREAD_BYTES:
                await asyncio.to_thread(lambda: archive.check(files, **most))
            else:
                archive.check(files, **most)
        except UsageError as error:
            field = f"tasks[{self._records.count}].files"
            raise UsageError(f"{field}: {error}", field) from None

    async def finish_context(self, context: Any) -> None:
        async with self._turn:
            self._require_sound()
            self._cancel_idle()
            try:
                self._records.finish()
                await self._writer.finish()
                spec = self._complete()
                mark = self._intake.tail.count
                number = await self._intake.take(spec, self._prepared, self._caller, self._upload, mark)
            except WwError as error:
                self._fail(error)
            self._problem = UsageError("tasks: this batch is finished; expected another for other runs")
            self.close()
        results = context.results
        results.shown = dumps(await self._intake.desk.task_json(spec.id))
        results.task = TaskServer(self._intake, self._caller, spec.id)
        results.created = bool(number)

    def _complete(self) -> Spec:
        """Say what the task is, now that its runs are known."""
        spec = replace(self._spec, inputs=self._upload.digest, repeats=self._writer.count)
        if self._records.has_files and not spec.files_bytes:
            # Whether there is a file system is the task's to say.
            spec = replace(spec, dirs=("/",), files_bytes=self._intake.limits.files_default_bytes)
        return spec

    # Its end.

    def _fail(self, error: WwError) -> None:
        """Refuse it all, now and from now on."""
        self._problem = error
        self.close()
        raise error

    def _require_sound(self) -> None:
        if self._problem is not None:
            raise type(self._problem)(str(self._problem))

    def _hear(self) -> None:
        """Note that something came: who says nothing for long is not waited for."""
        self._cancel_idle()
        # Weakly: it is gone when its peer holds it no more, and not only then.
        timeout_s, give_up = self._intake.config.arrive_timeout_s, weakref.WeakMethod(self._give_up)
        self._idle = asyncio.get_running_loop().call_later(timeout_s, lambda: (call := give_up()) and call())

    def _cancel_idle(self) -> None:
        if self._idle is not None:
            self._idle.cancel()
            self._idle = None

    def _give_up(self) -> None:
        if not self._turn.locked() and self._problem is None:
            self._problem = UsageError("tasks: no further runs came in time")
            self.close()

    def close(self) -> None:
        """Leave nothing of what was not taken on. Idempotent."""
        self._cancel_idle()
        self._stack.close()

    def __del__(self) -> None:
        self.close()
