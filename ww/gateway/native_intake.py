"""How what a peer submits over capabilities becomes a task: what all of native.py's servers share.

Holds what arrives of a submission, and what one peer may have on its way in; submit.py takes it on. Must not know who
may come. A peer's tasks are its own, as a token's are.
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
from ww.errors import BadModule, Draining, Overloaded, StoreError, UsageError
from ww.gateway.artifacts import ArtifactStore
from ww.gateway.caller import EVERYBODY, Caller, Quota, Scope
from ww.gateway.events import Reader
from ww.gateway.modules import ModuleStore
from ww.gateway.perimeter import Perimeter
from ww.gateway.request import RequestLimits
from ww.gateway.results import Told
from ww.gateway.scheduler import Scheduler
from ww.gateway.storage import Storage, TaskRow
from ww.gateway.submit import Submitter, Taken
from ww.gateway.tail import Tail
from ww.gateway.upload import Upload
from ww.identity import PeerId

_LATEST_MAX: Final = 10_000
_ZIP_BYTES_MAX: Final = 1 << 20
_SCOPES: Final = frozenset({Scope.READ, Scope.SUBMIT})


@dataclass(frozen=True, slots=True)
class TasksConfig:
    """What a peer that gives work may hold."""

    quota: Quota = field(default_factory=Quota)
    """With tasks that have not ended."""
    arriving_max: int = 8
    """Modules, zips and batches of one peer that are on their way in."""
    arrive_timeout_s: float = 300.0
    """Seconds for which nothing of a module, a zip or a batch may arrive."""
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


Arrived = tuple[list[tuple[str, str]], bytes, dict[str, Upload]]
"""Fields, stdin and uploads, as a Submitter takes them."""


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
        self.submitter = Submitter(scheduler, modules, limits, perimeter)
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

    async def arrive(self, params: Any, caller: Caller, stack: ExitStack) -> Arrived:
        """Have what a peer submits arrive, its module where that is not here; with stack it is gone, unless kept."""
        self.require_serving()
        self.perimeter.require_room()
        fields, stdin, wanted = read_pairs(params.fields), params.stdin, read_digest(params.module)
        uploads: dict[str, Upload] = {}
        if params._has("zip"):
            await self._zip(params.zip, uploads, stack)
        elif params._has("files"):
            zipped = uploads["files"] = stack.enter_context(self.submitter.upload("files"))
            await self._arrive(params.files, zipped, self.limits.files_upload_max_bytes, "files", caller)
        if params._has("wasm") and not await self.modules.has(wanted):
            wasm = uploads["wasm"] = stack.enter_context(self.submitter.upload("wasm"))
            await self.module(params.wasm, wasm, wanted, caller)
        else:
            fields.append(("module", f"sha256:{wanted}"))
        return fields, stdin, uploads

    async def _zip(self, data: bytes, uploads: dict[str, Upload], stack: ExitStack) -> None:
        if len(data) > _ZIP_BYTES_MAX:
            raise UsageError(f"zip: {len(data)} bytes, at most {_ZIP_BYTES_MAX} come with a call", "files")
        zipped = uploads["files"] = stack.enter_context(self.submitter.upload("files"))
        zipped.write(data)
        await zipped.finish()

    async def module(self, blob: Any, upload: Upload, wanted: str, caller: Caller) -> None:
        """Have a module arrive. BadModule when it is another one."""
        await self._arrive(blob, upload, self.config.module_bytes_max, "wasm", caller)
        if upload.digest != wanted:
            raise BadModule(f"wasm: the bytes that came are not those of sha256:{wanted}")

    async def _arrive(self, blob: Any, upload: Upload, bytes_max: int, name: str, caller: Caller) -> None:
        timeout_s = self.config.arrive_timeout_s
        with self.arriving(caller):
            try:
                async with asyncio.timeout(timeout_s) as patience:
                    async for piece in fetch(blob, bytes_max=bytes_max):
                        patience.reschedule(asyncio.get_running_loop().time() + timeout_s)
                        upload.write(piece)
                        if upload.is_due:
                            await upload.flush()
                    await upload.finish()
            except TimeoutError:
                raise UsageError(f"{name}: nothing of it arrived for {timeout_s:g} s", name) from None
            except UsageError as error:
                raise UsageError(f"{name}: {error}", name) from None

    def note(self, taken: Taken, mark: int) -> None:
        """Remember a task for who asks for its results soon; mark is what the tail's count was before it was there."""
        if taken.is_new:
            self.latest[taken.spec.id] = Known(taken.number, taken.spec.inputs, mark)
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
