"""What comes over a WebSocket, read: JSON of strangers into what a form would have brought.

Holds the reading of messages. Must not know connections. Shapes: docs/http.md.
"""

import json
import math
from collections.abc import Callable
from typing import Any, Final

from ww.errors import UsageError
from ww.gateway.batch import bytes_of
from ww.gateway.request import shown
from ww.gateway.strict_json import NoJson, read_json
from ww.gateway.upload import Upload

_REF_CHARACTERS_MAX: Final = 256
_BYTES: Final = {"wasm_base64": "wasm", "files_base64": "files"}
_PAIRS: Final = frozenset({"env", "labels"})
_LISTS: Final = frozenset({"args", "dirs", "artifacts"}) | _PAIRS

Ref = str | int | float | None


class BadMessage(UsageError):
    """A message that says nothing that can be done; ref names it, where it could be read."""

    def __init__(self, why: str, field: str | None = None, ref: Ref = None) -> None:
        super().__init__(why, field)
        self.ref = ref


def read_message(text: str) -> dict[str, Any]:
    """Read one message: an object with a type, and a ref if it has one."""
    try:
        message = read_json(text)
    except NoJson as error:
        raise BadMessage(f"the message is no JSON that can be read: {error}") from None
    if not isinstance(message, dict):
        raise BadMessage("the message is no JSON object")
    ref = message.get("ref")
    is_ref = ref is None or (isinstance(ref, str | int | float) and not isinstance(ref, bool))
    if not is_ref or len(str(ref)) > _REF_CHARACTERS_MAX:
        raise BadMessage(f"ref: expected text or a number of at most {_REF_CHARACTERS_MAX} characters", "ref")
    if isinstance(ref, str):
        _encodable("ref", ref)
    if not isinstance(message.get("type"), str):
        raise BadMessage("type: expected text", "type", ref)
    return message


def text_of(message: dict[str, Any], name: str) -> str:
    """Return a member that is text."""
    value = message.get(name)
    if not isinstance(value, str):
        raise UsageError(f"{name}: expected text", name)
    _encodable(name, value)
    return value


class TaskMessage:
    """The task of a submission: its fields, its stdin and its files, as a form has them."""

    def __init__(self, task: Any, called: str = "task") -> None:
        """Read an object; called is what a message calls it."""
        if not isinstance(task, dict):
            raise UsageError(f"{called}: expected an object of fields", called)
        self.fields: list[tuple[str, str]] = []
        self.stdin = b""
        self._files: dict[str, bytes] = {}
        for name, value in task.items():
            if value is None:
                continue
            if name in _BYTES:
                self._files[_BYTES[name]] = bytes_of(name, value)
            elif name in ("stdin", "stdin_base64"):
                if "stdin" in task and "stdin_base64" in task:
                    raise UsageError("stdin: given as text and as base64", "stdin")
                self.stdin = bytes_of(name, value) if name == "stdin_base64" else text_of(task, "stdin").encode()
            else:
                self.fields += [(name, text) for text in _texts(name, value)]

    async def arrive(self, make: Callable[[str], Upload]) -> dict[str, Upload]:
        """Put its files where uploads are; make makes what takes one in, which the caller closes."""
        uploads = {}
        for name, data in self._files.items():
            upload = uploads[name] = make(name)
            upload.write(data)
            await upload.finish()
        return uploads


def _texts(name: str, value: Any) -> list[str]:
    """Return what a field's value is in a form: itself, or several times what is in it."""
    if isinstance(value, dict) and name in _PAIRS:
        if wrong := next((key for key in value if not key or "=" in key), None):
            raise UsageError(f"{name}: {shown(wrong)} is no name", name)
        return [f"{_text(name, key)}={_text(name, each)}" for key, each in value.items()]
    if isinstance(value, list) and name in _LISTS:
        return [_text(name, each) for each in value]
    if isinstance(value, list) and name == "grants":
        return [json.dumps(value)]
    if isinstance(value, dict | list):
        expected = "a list or an object" if name in _PAIRS else "a list" if name in _LISTS else "text or a number"
        raise UsageError(f"{shown(name)}: expected {expected}", name[:60])
    return [_text(name, value)]


def _text(name: str, value: Any) -> str:
    if isinstance(value, str):
        _encodable(name, value)
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float) and math.isfinite(value):
        return str(int(value)) if value.is_integer() else f"{value:.9f}".rstrip("0")
    raise UsageError(f"{shown(name)}: expected text or a number", name[:60])


def _encodable(name: str, value: str) -> None:
    try:
        if not value.isascii():
            value.encode()
    except UnicodeEncodeError:  # half of a pair, as \\ud800
        raise UsageError(f"{shown(name)}: is not Unicode text", name[:60]) from None
