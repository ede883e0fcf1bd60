"""POST /tasks: a form, one JSON text, or lines of it.

Holds what comes in which form. Must not know what a field means: request.py and batch.py do; submit.py takes on what
they read. A batch of lines is read as it comes and never held whole. Shapes: docs/http.md.
"""

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from functools import partial
from typing import Any, Final, ParamSpec, TypeVar

from starlette.exceptions import HTTPException
from starlette.requests import Request

from ww.errors import UsageError
from ww.gateway.batch import Lines
from ww.gateway.caller import Caller, caller_of
from ww.gateway.content import in_thread
from ww.gateway.form import Form, content_type_of
from ww.gateway.intake import Intake
from ww.gateway.message import TaskMessage
from ww.gateway.request import RequestLimits, shown
from ww.gateway.strict_json import NoJson, read_json
from ww.gateway.submit import Batch, Submitter, Taken
from ww.gateway.upload import Upload

P = ParamSpec("P")
T = TypeVar("T")

_FORM: Final = b"multipart/form-data"
_JSON: Final = b"application/json"
_LINES: Final = b"application/x-ndjson"
_SHOWN_CHARACTERS: Final = 60
_PIECE_BYTES: Final = 256 << 10
# What is longer is read in a thread.
_INLINE_BYTES_MAX: Final = 64 << 10


class Posting:
    """Reads submissions, over one gateway's parts."""

    def __init__(self, submitter: Submitter, intake: Intake, limits: RequestLimits) -> None:
        self._submitter = submitter
        self._intake = intake
        self._limits = limits

    async def take(self, request: Request, *, is_awaited: bool = False) -> Taken:
        """Take on what a request brings. is_awaited: see Scheduler.submit."""
        kind, _ = content_type_of(request)
        caller = caller_of(request.scope)
        if kind == _FORM:
            return await self._form(request, caller, is_awaited)
        if kind == _JSON:
            return await self._json(request, caller, is_awaited)
        if kind == _LINES:
            return await self._lines(request, caller)
        got = shown(kind.decode("latin-1")) if kind else "none"
        expected = "multipart/form-data (curl -F), application/json or application/x-ndjson"
        raise HTTPException(415, f"content type {got}; expected {expected}")

    # A form.

    async def _form(self, request: Request, caller: Caller, is_awaited: bool) -> Taken:
        uploads = {name: partial(self._submitter.upload, name) for name in ("wasm", "files", "tasks", "inputs")}
        limits = self._limits
        most = {
            "part_bytes_max": limits.stdin_max_bytes,
            "files_bytes_max": limits.files_upload_max_bytes,
            "batch_bytes_max": limits.batch_bytes_max,
        }
        async with self._intake.form(request, uploads, **most) as form:
            tasks, inputs = form.files.pop("tasks", None), form.files.pop("inputs", None)
            if tasks is None and inputs is None:
                given = form.fields, form.stdin or b"", form.files, caller
                return await self._submitter.submit(*given, is_awaited=is_awaited)
            if tasks is not None and inputs is not None:
                raise UsageError("inputs: given beside tasks; expected one of them", "inputs")
            with self._intake.batch():
                return await self._form_of_batch(form, tasks, inputs, caller)

    async def _form_of_batch(self, form: Form, tasks: Upload | None, inputs: Upload | None, caller: Caller) -> Taken:
        async with self._submitter.batch(form.fields, form.stdin or b"", form.files, caller) as batch:
            if inputs is not None:
                await batch.add_zip(inputs)
            elif tasks is not None:
                await _add_lines(batch, _pieces(tasks), Lines(self._limits.line_bytes_max))
            return await batch.finish()

    # JSON.

    async def _json(self, request: Request, caller: Caller, is_awaited: bool) -> Taken:
        body = await self._intake.whole(request, self._limits.json_bytes_max, "--json-max")
        given = await _sized(body, _json_of, body, "the body")
        if not isinstance(given, dict) or "parent" not in given:
            raise UsageError('parent: missing; expected {"parent": {...}, "tasks": [...]}', "parent")
        _require_known(given, "parent", "tasks")
        tasks = given.get("tasks")
        async with AsyncExitStack() as stack:
            arrived = await self._parent(given["parent"], body, stack)
            if tasks is None:
                return await self._submitter.submit(*arrived, caller, is_awaited=is_awaited)
            if not isinstance(tasks, list):
                raise UsageError("tasks: expected an array of objects", "tasks")
            batch = await stack.enter_async_context(self._submitter.batch(*arrived, caller))
            await batch.add_objects(tasks)
            return await batch.finish()

    async def _lines(self, request: Request, caller: Caller) -> Taken:
        limits = self._limits
        async with AsyncExitStack() as stack:
            async with self._intake.stream(request, limits.batch_bytes_max, "--batch-max") as body:
                lines = Lines(limits.line_bytes_max, parents=1)
                first, *others = await _first_lines(body, lines)
                given = await _sized(first, _json_of, first, "the first line")
                if not isinstance(given, dict) or "parent" not in given:
                    raise UsageError('parent: missing; expected {"parent": {...}} as the first line', "parent")
                _require_known(given, "parent")
                arrived = await self._parent(given["parent"], first, stack)
                batch = await stack.enter_async_context(self._submitter.batch(*arrived, caller))
                await batch.add_lines(others)
                await _add_lines(batch, body, lines)
            return await batch.finish()

    async def _parent(
        self, value: Any, text: bytes | bytearray, stack: AsyncExitStack
    ) -> tuple[list[tuple[str, str]], bytes, dict[str, Upload]]:
        """Read what the runs have in common, which came in that text."""
        parent: TaskMessage = await _sized(text, TaskMessage, value, "parent")
        uploads = await parent.arrive(lambda name: stack.enter_context(self._submitter.upload(name)))
        return parent.fields, parent.stdin, uploads


async def _sized(text: bytes | bytearray, work: Callable[P, T], *arguments: P.args, **named: P.kwargs) -> T:
    """Do work whose time goes by the size of a text, in a thread where that is large."""
    if len(text) <= _INLINE_BYTES_MAX:
        return work(*arguments, **named)
    return await in_thread(work, *arguments, **named)


def _json_of(text: bytes | bytearray, what: str) -> Any:
    try:
        return read_json(text)
    except NoJson as error:
        raise UsageError(f"{what} is no JSON that can be read: {error}") from None


def _require_known(given: dict[str, Any], *known: str) -> None:
    for name in given:
        if name not in known:
            raise UsageError(f"{shown(name)}: no such member beside {' and '.join(known)}", name[:_SHOWN_CHARACTERS])


async def _first_lines(body: AsyncIterator[bytes], lines: Lines) -> list[bytes]:
    """Return the first line of a body, and those that came with it. An empty one, where there is none."""
    async for piece in body:
        if found := lines.feed(piece):
            return found
    return lines.end() or [b"{}"]


async def _add_lines(batch: Batch, pieces: AsyncIterator[bytes], lines: Lines) -> None:
    async for piece in pieces:
        if found := lines.feed(piece):
            await batch.add_lines(found)
    await batch.add_lines(lines.end())


async def _pieces(upload: Upload) -> AsyncIterator[bytes]:
    with upload.open() as file:
        while piece := await in_thread(file.read, _PIECE_BYTES):
            yield piece
