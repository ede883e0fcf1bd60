"""Reading a multipart body, within its limits.

Holds where a submission's fields, stdin, module and files come from in a form. Must not know what the fields mean:
request.py does. Text is UTF-8 whatever a header says, stdin is the very bytes that were sent, and what breaks off is no
form: its missing fields would be taken for defaults.
"""

import re
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import BinaryIO, Final

from python_multipart.multipart import parse_options_header
from starlette.datastructures import FormData, Headers, UploadFile
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request
from starlette.types import Message, Receive

from ww.errors import UsageError
from ww.gateway.request import FIELDS, shown

# What must be a file part, with how curl sends it.
_FILE_PARTS: Final = {"wasm": "wasm=@FILE", "files": "files=@FILE.zip"}
_FIELDS_MAX: Final = 2000
_FILES_MAX: Final = 8
# RFC 2046, 5.1.1, without the blank that nobody uses.
_BOUNDARY: Final = re.compile(rb"[0-9A-Za-z'()+_,./:=?-]{1,70}")


@dataclass(frozen=True, slots=True)
class Form:
    """What came in a form."""

    fields: list[tuple[str, str]]
    stdin: bytes
    wasm: BinaryIO | None
    """The module's file, open as long as the form."""
    files: BinaryIO | None
    """The zip of files, likewise."""
    files_size: int | None
    """Its bytes."""


class _TooLarge(OSError):
    """The body passes the limit. An OSError, because at that starlette's parser closes its files."""


class _Parser(MultiPartParser):
    """Starlette's parser, which notices the form's end."""

    has_ended = False

    def on_end(self) -> None:
        self.has_ended = True


@asynccontextmanager
async def open_form(request: Request, *, body_bytes_max: int, part_bytes_max: int) -> AsyncIterator[Form]:
    """Read the request's body; its files are gone afterwards.

    Raises HTTPException 400, 413 or 415 when it is no form or too large, UsageError when a part is not what its name
    asks for.
    """
    boundary = _boundary_of(request)
    length = request.headers.get("content-length", "0")
    if not (length.isascii() and length.isdigit()):
        raise HTTPException(400, f"content length {shown(length)} is no number of bytes")
    if int(length[:20]) > body_bytes_max:
        raise _too_large(body_bytes_max)
    limited = Request(request.scope, _limited(request.receive, body_bytes_max))
    # As latin-1, text keeps its bytes, whatever they are.
    headers = Headers({"content-type": f'multipart/form-data; boundary="{boundary}"; charset=latin-1'})

    async def whole() -> AsyncGenerator[bytes, None]:
        async for chunk in limited.stream():
            yield chunk
        if not parser.has_ended:
            raise MultiPartException("it breaks off before its closing boundary")

    parser = _Parser(headers, whole(), max_files=_FILES_MAX, max_fields=_FIELDS_MAX, max_part_size=part_bytes_max)
    try:
        form = await parser.parse()
    except _TooLarge:
        raise _too_large(body_bytes_max) from None
    except MultiPartException as error:
        raise HTTPException(400, f"the body is no multipart form: {error.message}") from None
    try:
        yield await _parts(form)
    finally:
        await form.close()


def _boundary_of(request: Request) -> str:
    kind, options = parse_options_header(request.headers.get("content-type", ""))
    if kind != b"multipart/form-data":
        got = shown(kind.decode("latin-1")) if kind else "none"
        raise HTTPException(415, f"content type {got}; expected multipart/form-data (curl -F)")
    boundary = options.get(b"boundary", b"")
    if not _BOUNDARY.fullmatch(boundary):
        raise HTTPException(400, "content type multipart/form-data without a boundary of 1 to 70 characters")
    return boundary.decode("ascii")


async def _parts(form: FormData) -> Form:
    """Split a form into text fields, stdin and files."""
    fields: list[tuple[str, str]] = []
    stdin: bytes | None = None
    files: dict[str, UploadFile] = {}
    for raw_name, value in form.multi_items():
        name = raw_name.encode("latin-1").decode(errors="replace")
        if name == "stdin":
            if stdin is not None:
                raise UsageError("stdin: given more than once", "stdin")
            stdin = value.encode("latin-1") if isinstance(value, str) else await value.read()
        elif name in _FILE_PARTS:
            if name in files:
                raise UsageError(f"{name}: given more than once", name)
            if isinstance(value, str):
                expected = f"expected a file part (curl: -F {_FILE_PARTS[name]})"
                raise UsageError(f"{name}: is a text field; {expected}", name)
            files[name] = value
        elif isinstance(value, str):
            fields.append((name, _text(name, value)))
        elif name in FIELDS:
            raise UsageError(f"{name}: is a file part; expected a text field", name)
        else:
            fields.append((name, ""))  # refused as unknown, with the list of what is known
    wasm, zipped = files.get("wasm"), files.get("files")
    return Form(
        fields,
        stdin or b"",
        wasm.file if wasm is not None else None,
        zipped.file if zipped is not None else None,
        zipped.size if zipped is not None else None,
    )


def _text(name: str, value: str) -> str:
    try:
        return value.encode("latin-1").decode()
    except UnicodeDecodeError:
        raise UsageError(f"{shown(name) if name not in FIELDS else name}: is not UTF-8 text", name) from None


def _limited(receive: Receive, most: int) -> Receive:
    """Wrap receive so that a body of more than most bytes raises _TooLarge, whatever its headers said."""
    left = most

    async def limited() -> Message:
        nonlocal left
        message = await receive()
        left -= len(message.get("body", b""))
        if left < 0:
            raise _TooLarge
        return message

    return limited


def _too_large(most: int) -> HTTPException:
    return HTTPException(413, f"the request is larger than {most} bytes, the limit (--upload-max)")
