"""How what a peer submits over capabilities becomes a task: what all of native.py's servers share.

Holds the order in which things are looked at, as submit.py does for HTTP, and what one peer may have on its way in.
Must not know who may come. A peer's tasks are its own, as a token's are.
"""

import asyncio
import json
from collections import Counter, OrderedDict
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from ww.caps.blob import fetch
from ww.clock import Clock
from ww.errors import BadModule, Draining, NotFound, Overloaded, StoreError, UsageError
from ww.gateway.artifacts import ArtifactStore
from ww.gateway.caller import EVERYBODY, Caller, Quota, Scope
from ww.gateway.events import Reader
from ww.gateway.modules import ModuleStore
from ww.gateway.perimeter import Perimeter
from ww.gateway.request import RequestLimits, Submission, check_spread, read_fields
from ww.gateway.results import Told
from ww.gateway.scheduler import Scheduler
from ww.gateway.storage import Storage, TaskRow
from ww.gateway.tail import Tail
from ww.gateway.task import Spec
from ww.gateway.upload import Upload
from ww.identity import PeerId
from ww.uuid7 import is_recent
from ww.wasm_inspect import Guest

_LATEST_MAX: Final = 10_000
_SCOPES: Final = frozenset({Scope.READ, Scope.SUBMIT})


@dataclass(frozen=True, slots=True)
class TasksConfig:
    """What a peer that gives work may hold."""

    quota: Quota = field(default_factory=Quota)
    """With tasks that have not ended."""
    arriving_max: int = 8
    """Modules, zips and batches of one peer that are on their way in."""
    arrive_timeout_s: float = 300.0
    """Seconds a module or zip may take to arrive, and a batch may say nothing."""
    module_bytes_max: int = 64 << 20
    """Of one module."""
    streams_max: int = 64
    """Streams of events of one peer."""
    page_bytes: int = 1 << 20
    """Output in one answer with results, roughly: one result is always given."""
    page_results: int = 1024
    """Results in one answer."""
    tail_bytes_max: int = 16 << 20
    """The latest results, kept in memory for those who follow tasks."""


class Desk(Protocol):
    """What HTTP answers with too: see HttpGateway."""

    async def row(self, id: str, caller: Caller | None = None) -> TaskRow: ...
    async def see(self, id: str, caller: Caller) -> None: ...
    async def cancel(self, id: str, caller: Caller) -> None: ...
    async def task_json(self, id: str) -> dict[str, Any]: ...
    async def told(self, row: TaskRow, run: int) -> Told | None: ...
    async def list_json(
        self, caller: Caller, status: str | None, limit: int, after: str | None
    ) -> list[dict[str, Any]]: ...
    async def workers_json(self, caller: Caller) -> list[dict[str, Any]]: ...
    def health_json(self) -> dict[str, Any]: ...
    async def reader(self, id: str, caller: Caller) -> Reader: ...


@dataclass(frozen=True, slots=True)
class Known:
    """What has to be known of a task to read its results."""

    number: int
    inputs: str
    """Digest of a batch's; or empty."""
    mark: int | None = None
    """What the tail's count was before it was submitted."""


@dataclass(slots=True)
class Prepared:
    """A submission whose module was looked at."""

    submission: Submission
    guest: Guest
    digest: str
    """Of the module."""
    wasm: Upload | None
    zipped: Upload | None

    @property
    def files(self) -> str:
        """Digest of the zip that came along; or empty."""
        return "" if self.zipped is None else self.zipped.digest


class NativeIntake:
    """One gateway's tasks, for peers."""

    def __init__(
        self,
        desk: Desk,
        scheduler: Scheduler,
        store: Storage,
        modules: ModuleStore,
        artifacts: ArtifactStore,
        limits: RequestLimits,
        perimeter: Perimeter,
        clock: Clock,
        operator: PeerId,
        config: TasksConfig | None = None,
    ) -> None:
        """operator is whose key sees all tasks: the gateway's own."""
        self.desk = desk
        self.scheduler = scheduler
        self.store = store
        self.modules = modules
        self.artifacts = artifacts
        self.limits = limits
        self.perimeter = perimeter
        self.config = config or TasksConfig()
        self.inputs = scheduler.inputs
        self.tail = Tail(bytes_max=self.config.tail_bytes_max)
        self.now = clock.now
        self._operator = operator
        self.latest: OrderedDict[str, Known] = OrderedDict()
        """By id: the tasks that were submitted last."""
        self._arriving: Counter[str] = Counter()
        self._streams: Counter[str] = Counter()
        store.on_results = self.tail.put

    def caller_of(self, peer_id: PeerId) -> Caller:
        """Say what a peer may do: what it submits carries its name as the owner."""
        if peer_id == self._operator:
            return EVERYBODY
        # No token can have such a name.
        return Caller(f"peer:{peer_id}", _SCOPES, self.config.quota)

    @contextmanager
    def arriving(self, caller: Caller) -> Iterator[None]:
        """Count something that a peer sends. Overloaded when it is too much at a time."""
        with _place(self._arriving, caller.name, self.config.arriving_max, "modules, zips and batches on their way in"):
            yield

    @contextmanager
    def streaming(self, caller: Caller) -> Iterator[None]:
        """Count a stream of events. Overloaded when a peer has too many."""
        with _place(self._streams, caller.name, self.config.streams_max, "streams of events"):
            yield

    def require_serving(self) -> None:
        """Raise Draining when the gateway is stopping."""
        if self.scheduler.watches.is_closed:
            raise Draining("the gateway is stopping")

    @contextmanager
    def serving(self) -> Iterator[None]:
        """Have what reads the store, which is closed at the end, fail as Draining when the gateway is stopping."""
        try:
            yield
        except StoreError:
            self.require_serving()
            raise

    # Submitting.

    async def prepare(self, params: Any, caller: Caller, stack: ExitStack, *, is_batch: bool = False) -> Prepared:
        """Read what a peer submits, and have what comes along arrive; it is gone with stack, unless it is kept."""
        self.require_serving()
        self.perimeter.require_room()
        fields, stdin, wanted = read_pairs(params.fields), params.stdin, read_digest(params.module)
        check_spread(dict(fields), is_batch)
        limits = self.limits
        zipped = None
        if params._has("files"):
            zipped = stack.enter_context(self.modules.upload_files(self.scheduler.modules_in_use))
            await self._arrive(params.files, zipped, limits.files_upload_max_bytes, "files", caller)
        fields.append(("module", f"sha256:{wanted}"))
        submission = read_fields(fields, stdin, False, limits, files_size=None if zipped is None else zipped.size)
        wasm: Upload | None = None
        try:
            guest = await self.modules.guest(wanted, submission.entry)
        except NotFound:
            if not params._has("wasm"):
                raise
            wasm = stack.enter_context(self.modules.upload(self.scheduler.modules_in_use))
            await self.module(params.wasm, wasm, wanted, caller)
            guest = await self.modules.examine(wasm, submission.entry)
        if zipped is not None:
            most = {"bytes_max": submission.files_bytes, "count_max": limits.files_count_max}
            await self.modules.examine_files(zipped, **most)
        return Prepared(submission, guest, wanted, wasm, zipped)

    async def module(self, blob: Any, upload: Upload, wanted: str, caller: Caller) -> None:
        """Have a module arrive. BadModule when it is another one."""
        await self._arrive(blob, upload, self.config.module_bytes_max, "wasm", caller)
        if upload.digest != wanted:
            raise BadModule(f"wasm: the bytes that came are not those of sha256:{wanted}")

    async def _arrive(self, blob: Any, upload: Upload, bytes_max: int, name: str, caller: Caller) -> None:
        timeout_s = self.config.arrive_timeout_s
        with self.arriving(caller):
            try:
                async with asyncio.timeout(timeout_s):
                    async for piece in fetch(blob, bytes_max=bytes_max):
                        upload.write(piece)
                        if upload.is_due:
                            await upload.flush()
                    await upload.finish()
            except TimeoutError:
                raise UsageError(f"{name}: did not arrive within {timeout_s:g} s", name) from None
            except UsageError as error:
                raise UsageError(f"{name}: {error}", name) from None

    async def take(
        self,
        spec: Spec,
        prepared: Prepared,
        caller: Caller,
        inputs: Upload | None,
        mark: int,
        *,
        fresh: bool = False,
        is_awaited: bool = False,
    ) -> int:
        """Take a task on, which is on disk on return; return its number, 0 when it was there already. See
        Scheduler.submit.

        mark is what the tail's count was before that; is_awaited says that results are asked for at once.
        """
        self.require_serving()
        # Whoever names a task of another by its id does not get past the look at what is there.
        is_fresh = fresh and is_recent(spec.id) and self.scheduler.task(spec.id) is None
        is_new = prepared.submission.is_id_made or is_fresh

        async def keep() -> None:
            if prepared.wasm is None:
                await self.modules.require(prepared.digest)
            for upload in (prepared.wasm, prepared.zipped, inputs):
                if upload is not None:
                    await upload.keep()

        try:
            with self.perimeter.admit(caller, spec):
                if number := await self.scheduler.submit(spec, keep, is_new=is_new, is_awaited=is_awaited):
                    self._note(spec, mark, number)
                return number
        except Overloaded:
            # Who asks again since an answer was lost is told that its task is there, whatever has no room now.
            if is_new or not await self.scheduler.is_there(spec):
                raise
        except StoreError:
            # Also what comes of an id that is said to be new, and is not.
            if not is_new or not await self.scheduler.is_there(spec):
                raise
        return 0

    def _note(self, spec: Spec, mark: int, number: int) -> None:
        """Remember a task, for who asks for its results soon."""
        self.latest[spec.id] = Known(number, spec.inputs, mark)
        if len(self.latest) > _LATEST_MAX:
            self.latest.popitem(last=False)


@contextmanager
def _place(held: Counter[str], name: str, most: int, what: str) -> Iterator[None]:
    if held[name] >= most:
        raise Overloaded(f"{most} {what} are this peer's, the limit", 5)
    held[name] += 1
    try:
        yield
    finally:
        held[name] -= 1
        if not held[name]:
            del held[name]


def read_pairs(data: bytes) -> list[tuple[str, str]]:
    """Read names and values in turn, each ended by a zero byte."""
    try:
        texts = data.decode().split("\0")
    except UnicodeDecodeError:
        raise UsageError("fields: expected UTF-8") from None
    if texts.pop() or len(texts) % 2:
        raise UsageError("fields: expected names and values in turn, each ended by a zero byte")
    return list(zip(texts[::2], texts[1::2], strict=True))


def read_digest(data: bytes) -> str:
    """Read a sha256."""
    if len(data) != 32:
        raise UsageError(f"module: {len(data)} bytes, expected the 32 of a sha256", "module")
    return data.hex()


def dumps(value: Any) -> str:
    """Return JSON as short as it can be."""
    return json.dumps(value, separators=(",", ":"))
