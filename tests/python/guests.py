"""A guest's runtime in this very process, and the zips that it loads."""

import io
import json
import os
import zipfile
from collections.abc import Mapping
from typing import Any

import pytest

from ww.python.failure import Failure, loads_failure
from ww.python.guest import runtime, surroundings
from ww.python.guest.shim import link
from ww.python.request import read_requests, write_call, write_calls
from ww.python.values import loads


def zipped(files: Mapping[str, str | bytes], **about: Any) -> bytes:
    """Return a zip of sources; about: what ww.json says."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in files.items():
            archive.writestr(name, text)
        archive.writestr("ww.json", json.dumps({"version": 1, "python": "3.11", "spaces": {}, "functions": {}} | about))
    return content.getvalue()


class Host:
    """Answers nested calls with what it was given, and remembers them."""

    def __init__(self) -> None:
        self.answers: list[bytes] = []
        self.started: list[tuple[str, list[bytes]]] = []

    def start(self, name: str, requests: bytes) -> int:
        self.started.append((name, read_requests(requests)))
        return len(self.started) - 1

    def wait(self, ticket: int) -> bytes:
        return self.answers[ticket]


class Guest:
    """One runtime with code in it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(surroundings, "settle", lambda: None)
        self.host = Host()
        self._runtime = runtime.Runtime(self.host, lambda: os.environ.items())

    def load(self, name: str, code: bytes, *grants: str) -> Failure | None:
        """Load code; return what that raised."""
        self.end()
        answer = self._runtime.load(name, code, json.dumps(grants).encode())
        return loads_failure(answer[1:], self.find_class) if answer[0] else None

    def call(self, *args: Any, **kwargs: Any) -> Any:
        """Return the value, or the failure."""
        return self._read(self._runtime.call(write_call(args, kwargs)))

    def call_several(self, *calls: tuple[Any, ...]) -> Any:
        """Return the values of several calls, or the failure."""
        return self._read(self._runtime.call(write_calls([(args, {}) for args in calls])))

    def _read(self, answer: bytes) -> Any:
        if answer[0]:
            return loads_failure(answer[1:], self.find_class)
        return loads(answer[1:], self.find_class)

    def find_class(self, module: str, name: str) -> type | None:
        return None if self._runtime._code is None else self._runtime._code.find_class(module, name)

    def end(self) -> None:
        if self._runtime._code is not None:
            self._runtime._code.end()
            self._runtime._code = None
        link.calls = None
