"""The runs of a batch as a peer sends them: a stream of input records, stored as they come.

Holds the capability that takes them, and finds them in what comes. Must not know what a record may say (batch.py), nor
what becomes of it: submit.py takes the task on with the last of them.
"""

import asyncio
import struct
import weakref
from contextlib import ExitStack
from typing import Any, Final

from ww import schema
from ww.errors import UsageError, WwError
from ww.gateway.caller import Caller
from ww.gateway.limits import RequestLimits
from ww.gateway.native_intake import NativeIntake, dumps
from ww.gateway.native_task import TaskServer
from ww.gateway.submit import Batch
from ww.wasm_inspect import Guest

_ADD_BYTES_MAX: Final = 1 << 20
_LENGTH: Final = struct.Struct("<I")
# Of what is in a record beside stdin, files and texts.
_REST_BYTES_MAX: Final = 16 << 10


class Records:
    """Finds the records in what comes, which may be cut anywhere."""

    def __init__(self, limits: RequestLimits) -> None:
        self._bytes_max = (
            limits.stdin_max_bytes + limits.files_upload_max_bytes + 2 * limits.text_max_bytes + _REST_BYTES_MAX
        )
        self._rest = bytearray()
        self._wanted = 4
        self._count = 0

    def put(self, data: bytes) -> list[bytes]:
        """Take the next bytes; return the records that are complete now, each with its length before it."""
        self._rest += data
        found: list[bytes] = []
        if len(self._rest) < self._wanted:
            return found
        whole, at = bytes(self._rest), 0
        size = len(whole)
        while True:
            self._wanted = 4
            if size - at < 4:
                break
            (length,) = _LENGTH.unpack_from(whole, at)
            if length > self._bytes_max:
                raise self._wrong(f"{length} bytes, at most {self._bytes_max} are taken")
            end = at + 4 + length
            if end > size:
                self._wanted = 4 + length
                break
            found.append(whole[at:end])
            self._count += 1
            at = end
        self._rest = bytearray(whole[at:])
        return found

    def finish(self) -> None:
        """Raise UsageError unless all that came was whole."""
        if self._rest:
            raise self._wrong("the record is cut off")

    def _wrong(self, what: str) -> UsageError:
        field = f"tasks[{self._count}]"
        return UsageError(f"{field}: {what}", field)


class BatchServer(schema.tasks.Batch.Server):  # type: ignore[misc]
    """A batch on its way in. `begin` it; what was not taken on is gone with it."""

    def __init__(self, intake: NativeIntake, caller: Caller) -> None:
        self._intake = intake
        self._caller = caller
        self._stack = ExitStack()
        self._turn = asyncio.Lock()
        self._problem: WwError | None = None
        self._idle: asyncio.TimerHandle | None = None
        self._records = Records(intake.limits)
        self._batch: Batch

    async def begin(self, params: Any) -> Guest:
        """Read what the runs have in common, and say what the guest is."""
        intake, caller, stack = self._intake, self._caller, self._stack
        parent = await intake.submitter.look_at(*await intake.arrive(params, caller, stack), is_batch=True)
        stack.enter_context(intake.arriving(caller))
        self._batch = intake.submitter.begin(parent, stack.enter_context(intake.submitter.upload("inputs")), caller)
        self._hear()
        return parent.guest

    async def add_context(self, context: Any) -> None:
        data = context.params.records
        async with self._turn:
            self._require_sound()
            if len(data) > _ADD_BYTES_MAX:
                self._fail(
                    UsageError(f"tasks: {len(data)} bytes in a call, at most {_ADD_BYTES_MAX} are taken", "tasks")
                )
            self._hear()
            try:
                await self._batch.add_records(self._records.put(data))
            except WwError as error:
                self._fail(error)

    async def finish_context(self, context: Any) -> None:
        async with self._turn:
            self._require_sound()
            self._cancel_idle()
            mark = self._intake.tail.count
            try:
                self._records.finish()
                self._intake.require_serving()
                taken = await self._batch.finish()
            except WwError as error:
                self._fail(error)
            self._intake.note(taken, mark)
            self._problem = UsageError("tasks: this batch is finished; expected another for other runs")
            self.close()
        results = context.results
        results.shown = dumps(await self._intake.desk.task_json(taken.spec.id))
        results.task = TaskServer(self._intake, self._caller, taken.spec.id)
        results.created = taken.is_new

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
