"""Reading a multipart body as it comes, within its limits.

Holds where a submission's fields, stdin, module and files come from in a form. Must not know what the fields mean:
request.py does. Text is UTF-8 whatever a header says, stdin is the very bytes that were sent, and what breaks off is no
form: its missing fields would be taken for defaults. What is wrong with a part shows only at the form's end, so that
what breaks off is called so. Files go on their way to disk as they come: upload.py.
"""

import re
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request

from ww.errors import UsageError
from ww.gateway.fields import UPLOADS
from ww.gateway.request import FIELDS, shown
from ww.gateway.upload import Upload

# What must be a file part, with how curl sends it.
_FILE_PARTS: Final = {each.name: each.how for each in UPLOADS if each.how}
# Those that may be larger than a body otherwise.
_BATCH_PARTS: Final = ("tasks", "inputs")
UPLOAD_OPTION: Final = "--upload-max"
_FIELDS_MAX: Final = 2000
_FILES_MAX: Final = 8
# RFC 2046, 5.1.1, without the blank that nobody uses.
_BOUNDARY: Final = re.compile(rb"[0-9A-Za-z'()+_,./:=?-]{1,70}")
# The same few come with every form of a client.
_DISPOSITIONS_KNOWN: Final = 256
_DISPOSITION_KNOWN_BYTES_MAX: Final = 200


@dataclass(frozen=True, slots=True)
class FormLimits:
    """How much a form may bring."""

    body_bytes_max: int
    part_bytes_max: int
    """Of stdin, and of all text parts together."""
    files_bytes_max: int
    """Of the zip of files: what is more is counted and dropped."""
    batch_bytes_max: int = 0
    """Of the parts of a batch, which are not counted to the body."""


@dataclass(slots=True)
class Form:
    """What came in a form."""

    fields: list[tuple[str, str]] = field(default_factory=list)
    stdin: bytes | None = None
    files: dict[str, Upload] = field(default_factory=dict)
    """The file parts but stdin, finished, as long as the form is open."""


@dataclass(slots=True)
class _Part:
    """A part while it comes."""

    disposition: bytes = b""
    name: str = ""
    is_file: bool = False
    data: bytearray | None = None
    """Where it is kept in memory."""
    upload: Upload | None = None
    size: int = 0


class _NoForm(Exception):
    """The body is no multipart form; says why."""


class _Reader:
    """Takes the body apart: the parser's callbacks."""

    def __init__(
        self, boundary: bytes, limits: FormLimits, uploads: Mapping[str, Callable[[], Upload]], stack: ExitStack
    ) -> None:
        self._limits = limits
        self._uploads = uploads
        self._stack = stack
        self._part = _Part()
        self._header = bytearray()
        self._value = bytearray()
        self._counts = [0, 0]
        self._text_bytes = 0
        self._batch_bytes = 0
        self._bytes = 0
        self._error: UsageError | None = None
        self._is_whole = False
        self.form = Form()
        self._parser = MultipartParser(
            boundary,
            {
                "on_part_begin": self._begin,
                "on_part_data": self._data,
                "on_part_end": self._end,
                "on_header_field": self._header_field,
                "on_header_value": self._header_value,
                "on_header_end": self._header_end,
                "on_headers_finished": self._headers_finished,
                "on_end": self._finish,
            },
        )

    async def feed(self, chunk: bytes) -> None:
        """Take the next bytes of the body."""
        try:
            self._parser.write(chunk)
        except FormParserError:
            raise _NoForm("Invalid multipart data.") from None
        self._bytes += len(chunk)
        if self._bytes - self._batch_bytes > self._limits.body_bytes_max:
            raise _too_large(self._limits.body_bytes_max)
        if self._batch_bytes > self._limits.batch_bytes_max:
            raise _too_large(self._limits.batch_bytes_max, "--batch-max")
        for upload in self.form.files.values():
            if upload.is_due:
                await upload.flush()

    async def finish(self) -> Form:
        """Return what came, at the body's end."""
        if not self._is_whole:
            raise _NoForm("it breaks off before its closing boundary")
        if self._error is not None:
            raise self._error
        for upload in self.form.files.values():
            await upload.finish()
        return self.form

    # The parser's callbacks.

    def _begin(self) -> None:
        self._part = _Part()

    def _header_field(self, data: bytes, start: int, end: int) -> None:
        self._header += data[start:end]

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _header_end(self) -> None:
        if self._header.lower() == b"content-disposition":
            self._part.disposition = bytes(self._value)
        self._header.clear()
        self._value.clear()

    def _headers_finished(self) -> None:
        part = self._part
        name, part.is_file = _read_disposition(part.disposition)
        if name is None:
            raise _NoForm('The Content-Disposition header field "name" must be provided.')
        self._counts[part.is_file] += 1
        if part.is_file and self._counts[True] > _FILES_MAX:
            raise _NoForm(f"Too many files. Maximum number of files is {_FILES_MAX}.")
        if not part.is_file and self._counts[False] > _FIELDS_MAX:
            raise _NoForm(f"Too many fields. Maximum number of fields is {_FIELDS_MAX}.")
        part.name = name
        if part.is_file and name in _FILE_PARTS and name in self._uploads:
            if name in self.form.files:
                self._blame(UsageError(f"{name}: given more than once", name))
            else:
                part.upload = self.form.files[name] = self._stack.enter_context(self._uploads[name]())
        elif not part.is_file or name == "stdin":
            part.data = bytearray()

    def _data(self, data: bytes, start: int, end: int) -> None:
        part = self._part
        part.size += end - start
        if part.upload is not None:
            part.upload.write(data[start:end])
            if part.name in _BATCH_PARTS:
                self._batch_bytes += end - start
            if part.name == "files" and part.size > self._limits.files_bytes_max and not part.upload.is_dropped:
                part.upload.drop(UsageError(f"files: more than {self._limits.files_bytes_max} bytes", "files"))
        elif part.data is not None:
            most = self._limits.part_bytes_max
            if part.name != "stdin":
                self._text_bytes += end - start
            if not part.is_file and max(part.size, self._text_bytes) > most:
                raise _NoForm(f"Part exceeded maximum size of {most // 1024}KB, with all text fields before it.")
            if part.size <= most:
                part.data += data[start:end]

    def _end(self) -> None:
        try:
            self._take(self._part)
        except UsageError as error:
            self._blame(error)
        self._part = _Part()

    def _finish(self) -> None:
        self._is_whole = True

    # What a part is to the form.

    def _take(self, part: _Part) -> None:
        name = part.name
        if name == "stdin":
            if self.form.stdin is not None:
                raise UsageError("stdin: given more than once", "stdin")
            most = self._limits.part_bytes_max
            if part.size > most:
                raise UsageError(f"stdin: {part.size} bytes, at most {most} are taken", "stdin")
            self.form.stdin = bytes(part.data or b"")
        elif name in _FILE_PARTS and name in self._uploads:
            if not part.is_file:
                expected = f"expected a file part (curl: -F {_FILE_PARTS[name]})"
                raise UsageError(f"{name}: is a text field; {expected}", name)
        elif not part.is_file:
            self.form.fields.append((name, _text(name, part.data or b"")))
        elif name in FIELDS and name not in _FILE_PARTS:
            raise UsageError(f"{name}: is a file part; expected a text field", name)
        else:
            self.form.fields.append((name, ""))  # refused as unknown, with the list of what is known

    def _blame(self, error: UsageError) -> None:
        self._error = self._error or error


@asynccontextmanager
async def open_form(
    request: Request, limits: FormLimits, uploads: Mapping[str, Callable[[], Upload]]
) -> AsyncIterator[Form]:
    """Read the request's body; uploads makes what takes a file part of each name. What is not kept is gone afterwards.

    Raises HTTPException 400, 413 or 415 when it is no form or too large, UsageError when a part is not what its name
    asks for, Overloaded or StoreError when there is no room on disk.
    """
    boundary = _boundary_of(request)
    with ExitStack() as stack:
        reader = _Reader(boundary, limits, uploads, stack)
        try:
            # How large it may be shows as it comes.
            async for chunk in body_of(request, *_most(limits)):
                await reader.feed(chunk)
            form = await reader.finish()
        except _NoForm as error:
            raise HTTPException(400, f"the body is no multipart form: {error}") from None
        yield form


def _most(limits: FormLimits) -> tuple[int, str]:
    if not limits.batch_bytes_max:
        return limits.body_bytes_max, UPLOAD_OPTION
    return limits.body_bytes_max + limits.batch_bytes_max, "--upload-max and --batch-max"


async def body_of(request: Request, bytes_max: int, option: str = UPLOAD_OPTION) -> AsyncIterator[bytes]:
    """Give the request's body as it comes. HTTPException 413, which names the option, once it is more than bytes_max,
    whatever its headers said, ClientDisconnect when it breaks off."""
    length = request.headers.get("content-length", "0")
    if not (length.isascii() and length.isdigit()):
        raise HTTPException(400, f"content length {shown(length)} is no number of bytes")
    left = bytes_max
    if int(length[:20]) > left:
        raise _too_large(bytes_max, option)
    while True:
        message = await request.receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        chunk = message.get("body", b"")
        left -= len(chunk)
        if left < 0:
            raise _too_large(bytes_max, option)
        if chunk:
            yield chunk
        if not message.get("more_body", False):
            return


def content_type_of(request: Request) -> tuple[bytes, dict[bytes, bytes]]:
    """Take a content type and its options apart."""
    return parse_options_header(request.headers.get("content-type", ""))


def _boundary_of(request: Request) -> bytes:
    kind, options = content_type_of(request)
    if kind != b"multipart/form-data":
        got = shown(kind.decode("latin-1")) if kind else "none"
        raise HTTPException(415, f"content type {got}; expected multipart/form-data (curl -F)")
    boundary = options.get(b"boundary", b"")
    if not _BOUNDARY.fullmatch(boundary):
        raise HTTPException(400, "content type multipart/form-data without a boundary of 1 to 70 characters")
    return boundary


def _read_disposition(header: bytes) -> tuple[str | None, bool]:
    """Return a part's name and whether it is a file."""
    return _known_disposition(header) if len(header) <= _DISPOSITION_KNOWN_BYTES_MAX else _disposition(header)


def _disposition(header: bytes) -> tuple[str | None, bool]:
    _, options = parse_options_header(header)
    name = options.get(b"name")
    return None if name is None else name.decode(errors="replace"), b"filename" in options


_known_disposition: Final = lru_cache(_DISPOSITIONS_KNOWN)(_disposition)


def _text(name: str, value: bytes | bytearray) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError:
        raise UsageError(f"{shown(name) if name not in FIELDS else name}: is not UTF-8 text", name) from None


def _too_large(most: int, option: str = UPLOAD_OPTION) -> HTTPException:
    return HTTPException(413, f"the request is larger than {most} bytes, the limit ({option})")
