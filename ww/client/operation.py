"""What a client can ask of a gateway, each operation as steps without I/O.

Holds which calls an operation takes, and in which order. Who makes them, and how: sync.py and aio.py.
"""

import math
from collections.abc import Callable, Iterable
from typing import Final, Generic, TypeVar
from urllib.parse import quote

from ww.client.answer import ENDED, Health, Readiness, Result, Task, Worker, read_all, read_as
from ww.client.batch import Batch, Runs
from ww.client.call import Call, Contact, Pause, Steps, Work, error_of, json_of
from ww.client.submission import (
    Module,
    Source,
    Submission,
    TaskFields,
    prepare,
    prepare_batch,
    read_digest,
    read_module,
)
from ww.errors import NotAllowed, NotFound, PeerError, UsageError, WwError

T = TypeVar("T")

_PAGE: Final = 100
_WAIT_MAX_S: Final = 30
_STATUSES: Final = ("scheduled", "queued", "running", "unsatisfiable", *sorted(ENDED))
# Less than that is sent as quickly as it is asked for.
_ASKED_FOR_FIRST_BYTES: Final = 64 << 10
_WASM: Final = {"Content-Type": "application/wasm"}
_NDJSON: Final = {"Content-Type": "application/x-ndjson"}


def task_path(id: str) -> str:
    """Return where a task is."""
    if not id or id in (".", ".."):
        raise UsageError(f"id: {id!r} is no task's id", "id")
    return f"/tasks/{quote(id, safe=':')}"


class Operations:
    """The operations of one client."""

    def __init__(self, contact: Contact, now: Callable[[], float]) -> None:
        self._contact = contact
        self._now = now

    # Tasks.

    def submit(self, wasm: Source, fields: TaskFields, wait_s: float = 0.0) -> Steps[Task]:
        """Send a task, and its module only when it is small or not there; have the answer wait for its end."""
        submission: Submission = yield Work(lambda: prepare(wasm, fields))
        return (yield from self.submit_prepared(submission, max(0, int(min(_WAIT_MAX_S, wait_s)))))

    def run(self, wasm: Source, fields: TaskFields) -> Steps[Task]:
        """Send a task, and have the answer wait for the end of one that has one run."""
        return (yield from self.submit(wasm, fields, _WAIT_MAX_S if fields.get("repeats") in (None, 1) else 0.0))

    def submit_prepared(self, submission: Submission, wait_s: int = 0) -> Steps[Task]:
        """Send a task that was read."""
        content = submission.module.content
        is_there = content is None
        if content is not None and len(content) > _ASKED_FOR_FIRST_BYTES:
            is_there = yield from self._has(submission.module)
        try:
            return (yield from self._post(submission, wait_s, by_digest=is_there))
        except NotFound:
            if not is_there or content is None:
                raise
            # It was removed since it was asked for.
            return (yield from self._post(submission, wait_s, by_digest=False))

    def _post(self, submission: Submission, wait_s: int, *, by_digest: bool) -> Steps[Task]:
        query = {"wait": str(wait_s)} if wait_s else {}
        call = Call("POST", "/tasks", query, parts=submission.parts(by_digest=by_digest), extra_s=wait_s)
        return read_as(Task, (yield from self._contact.json(call, 200, 201)))

    def submit_batch(self, wasm: Source, runs: Runs, fields: TaskFields) -> Steps[Task]:
        """Send a task of many runs; its module before it when that is large and not there."""
        batch = Batch(runs)
        submission: Submission = yield Work(lambda: prepare_batch(wasm, fields))
        content = submission.module.content
        is_large = content is not None and len(content) > _ASKED_FOR_FIRST_BYTES
        if is_large:
            yield from self._have(submission.module)
        head = submission.head(by_digest=is_large)
        try:
            return (yield from self._post_batch(submission.id, head, batch))
        except NotFound:
            if not is_large or not batch.can_send:
                raise
            # It was removed since it was asked for.
            yield from self._have(submission.module)
            return (yield from self._post_batch(submission.id, head, batch))

    def _post_batch(self, id: str, head: bytes, batch: Batch) -> Steps[Task]:
        call = Call("POST", "/tasks", headers=_NDJSON, content=head, body=batch)
        try:
            answer = yield from self._contact.ask(call)
        except PeerError as error:
            return (yield from self._taken(id, batch, error))
        if answer.status in (200, 201):
            return read_as(Task, json_of(answer))
        if answer.status in (502, 504):  # of a proxy, behind which the task may be
            return (yield from self._taken(id, batch, error_of(answer)))
        raise error_of(answer)

    def _taken(self, id: str, batch: Batch, error: WwError) -> Steps[Task]:
        """Return a task whose answer was lost if it is there. Raises error when it is not, or was sent often enough."""
        if batch.can_send:
            raise error
        if batch.is_whole:
            try:
                task = yield from self.task(id)
            except NotFound:
                pass
            except WwError:
                raise PeerError(f"{error}; whether task {id} was taken is not known: look for it") from None
            else:
                if task.repeats == batch.count:
                    return task
        why = "what is left of an iterator cannot be sent again: expected a list, or what can be iterated over anew"
        raise PeerError(f"{error}; {why}")

    def task(self, id: str) -> Steps[Task]:
        """Look at a task."""
        return read_as(Task, (yield from self._contact.json(Call("GET", task_path(id)))))

    def wait(self, id: str, timeout_s: float | None) -> Steps[Task]:
        """Look at a task until it has ended or that time is over."""
        end = math.inf if timeout_s is None else self._now() + timeout_s
        while True:
            left_s = end - self._now()
            wait_s = max(0, int(min(_WAIT_MAX_S, left_s)))
            if wait_s == 0 and left_s > 0:
                yield Pause(left_s)
            query = {"wait": str(wait_s)} if wait_s else {}
            call = Call("GET", task_path(id), query, extra_s=wait_s)
            task = read_as(Task, (yield from self._contact.json(call)))
            if task.has_ended or self._now() >= end:
                return task
            # A gateway that is stopping answers at once.
            yield Pause(0.05)

    def cancel(self, id: str) -> Steps[Task]:
        """Cancel a task."""
        return read_as(Task, (yield from self._contact.json(Call("DELETE", task_path(id)))))

    def result(self, id: str, run: int) -> Steps[Result]:
        """Look at a run."""
        call = Call("GET", f"{task_path(id)}/runs/{_whole('run', run)}")
        return read_as(Result, (yield from self._contact.json(call)))

    def artifacts(self, id: str, run: int) -> Steps[bytes]:
        """Fetch a run's zip of artifacts."""
        answer = yield from self._contact.ask(Call("GET", f"{task_path(id)}/runs/{_whole('run', run)}/artifacts"))
        if answer.status != 200:
            raise error_of(answer)
        return answer.body

    # Lists.

    def tasks(self, status: str | None, limit: int | None, after: str | None) -> "Pages[Task]":
        """List tasks, newest first."""
        if status is not None and status not in _STATUSES:
            raise UsageError(f"status: {status[:40]!r} is not one of {' '.join(_STATUSES)}", "status")
        query = {} if status is None else {"status": status}
        return Pages(self._contact, "/tasks", query, Task, lambda task: task.id, limit, after)

    def results(self, id: str, after: int | None, limit: int | None) -> "Pages[Result]":
        """List results by run number."""
        path = f"{task_path(id)}/runs"
        start = None if after is None or after < 0 else str(after)
        return Pages(self._contact, path, {}, Result, lambda result: str(result.run), limit, start, is_cut=True)

    # Modules.

    def upload(self, wasm: Source) -> Steps[str]:
        """Send a module unless it is there; return its digest."""
        module: Module = yield Work(lambda: read_module(wasm))
        return (yield from self._have(module))

    def _have(self, module: Module) -> Steps[str]:
        is_there = yield from self._has(module)
        if is_there:
            return module.digest
        if module.content is None:
            raise NotFound(f"module: no module {module.digest} is stored there", "module")
        call = Call("POST", "/modules", headers=_WASM, content=module.content)
        said = yield from self._contact.json(call, 200, 201)
        if not isinstance(said, dict) or said.get("module") != module.digest:
            raise PeerError(f"the gateway stored another module than {module.digest}")
        return module.digest

    def _has(self, module: Module) -> Steps[bool]:
        answer = yield from self._contact.ask(Call("HEAD", f"/modules/{read_digest(module.digest)}"))
        if answer.status == 401:
            raise NotAllowed("the gateway wants a token, or another one")
        return answer.status == 200

    # The gateway.

    def workers(self) -> Steps[list[Worker]]:
        """List workers."""
        return list(read_all(Worker, (yield from self._contact.json(Call("GET", "/workers")))))

    def ready(self) -> Steps[Readiness]:
        """Ask whether the gateway can work: an answer that it cannot is no error."""
        answer = yield from self._contact.ask(Call("GET", "/readyz"))
        if answer.status not in (200, 503):
            raise error_of(answer)
        return read_as(Readiness, json_of(answer))

    def health(self) -> Steps[Health]:
        """Ask whether the gateway lives."""
        return read_as(Health, (yield from self._contact.json(Call("GET", "/healthz"))))


class Pages(Generic[T]):
    """A list that comes in pages, until one is not full (is_cut: until one is empty) or the limit is reached."""

    def __init__(
        self,
        contact: Contact,
        path: str,
        query: dict[str, str],
        kind: type[T],
        key: Callable[[T], str],
        limit: int | None,
        after: str | None,
        *,
        is_cut: bool = False,
    ) -> None:
        self._contact = contact
        self._path, self._query, self._kind, self._key = path, query, kind, key
        self._left = math.inf if limit is None else _whole("limit", limit)
        self._after = after
        self._is_cut = is_cut
        self.is_over = self._left == 0

    def page(self) -> Steps[Iterable[T]]:
        """Fetch the next page."""
        size = int(min(_PAGE, self._left))
        query = self._query | {"limit": str(size)} | ({} if self._after is None else {"after": self._after})
        found = read_all(self._kind, (yield from self._contact.json(Call("GET", self._path, query))))
        self._left -= len(found)
        self.is_over = len(found) < (1 if self._is_cut else size) or self._left <= 0
        if found:
            self._after = self._key(found[-1])
        return found


def _whole(name: str, value: int) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise UsageError(f"{name}: {value!r} is not a whole number from 0"[:120], name)
    return value
