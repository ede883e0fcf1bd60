"""Load and call: what the component exports, without its bindings.

A run begins from memory as it was after load, so everything that can be done before a call is done there. What ends in
an exception is an answer too: nothing but a trap leaves the guest otherwise.
"""

import asyncio
import inspect
import json
import re
import sys
from collections.abc import Callable, Sequence
from typing import Any, Final

from ww.errors import NotSendable
from ww.python.failure import dumps_failure
from ww.python.guest import surroundings
from ww.python.guest.code import Code
from ww.python.guest.nested import Calls, Host
from ww.python.guest.report import traceback_of
from ww.python.guest.shim import Job, link
from ww.python.request import read_calls, write_call
from ww.python.values import Unsendable, dumps

_ENDED_WELL: Final = b"\0"
# What the modules are called that take random numbers.
_RANDOM: Final = re.compile(b"random|statistics|uuid|email|tempfile|imaplib")
# The interpreter settles on the fast form of an instruction after some tens of executions.
_WARM_UPS: Final = 24
_RAISED: Final = b"\1"
_OUT_OF_MEMORY: Final = (
    b'{"module":"builtins","name":"MemoryError","text":"the sandbox has no more memory","traceback":""}'
)


class Runtime:
    """One component: code is loaded into it once, and called then."""

    def __init__(self, host: Host, environment: surroundings.Environment) -> None:
        self._host = host
        self._environment = environment
        self._renewal = surroundings.Renewal(environment)
        self._code: Code | None = None
        self._function: Callable[..., Any] | None = None
        self._spare: object = None  # what saying that memory is short takes of it

    def load(self, name: str, code: bytes, grants: bytes) -> bytes:
        """Import the code and find the function `module:qualname` in it. grants: a JSON list of what it may call."""
        surroundings.reserve(dict(self._environment()))
        self._renewal.renew()
        return self._answer(lambda: self._load(name, code, json.loads(grants or b"[]")))

    def _load(self, name: str, code: bytes, grants: Sequence[str]) -> bytes:
        self._code = found = Code(code, Job)
        link.name_of = found.name_of
        link.calls = None
        found.begin()
        self._function = found.find(name)
        calls = Calls(self._host, grants, found.find_class)
        self._warm_up()
        self._renewal.is_random = found.sources.mention(_RANDOM)
        link.calls = calls
        self._spare = surroundings.spare()
        surroundings.settle()
        return b""

    def _warm_up(self) -> None:
        """Do what each call does until it is done the same way each time: pages that a call changes are its cost."""
        function, self._function = self._function, _same
        for value in (0, "", [0, (0,)]):
            for _ in range(_WARM_UPS):
                self.call(write_call((value,), {}))
        self._function = function
        traceback_of(ValueError())

    def call(self, request: bytes) -> bytes:
        """Call it, with what a request says."""
        return self._answer(lambda: self._call(request))

    def _call(self, request: bytes) -> bytes:
        if self._code is None or self._function is None:
            raise RuntimeError("there is no code to call: expected load before")
        # An argument may be a function of that module too.
        self._renewal.renew(is_random=_RANDOM.search(request) is not None)
        asked = read_calls(request, self._code.unpickler)
        values = [self._result(args, kwargs) for args, kwargs in asked.calls]
        value = values if asked.are_several else values[0]
        try:
            return dumps(value, trust=asked.trust, is_shipped=self._code.is_shipped).encode()
        except Unsendable as error:
            raise NotSendable(str(error)) from None

    def _result(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        assert self._function is not None
        value = self._function(*args, **kwargs)
        return asyncio.run(value) if inspect.iscoroutine(value) else value

    def _answer(self, do: Callable[[], bytes]) -> bytes:
        try:
            answer = _ENDED_WELL + do()
        except BaseException as error:
            answer = _RAISED + self._failure(error)
        _flush()
        return answer

    def _failure(self, error: BaseException) -> bytes:
        self._spare = None
        try:
            text = traceback_of(error)
            written = dumps_failure(error, text, is_shipped=self._code.is_shipped if self._code else None)
            sys.stderr.write(text)
            return written.encode()
        except BaseException:
            return _OUT_OF_MEMORY if isinstance(error, MemoryError) else _unsaid(error)


def _same(value: Any) -> Any:
    return value


def _unsaid(error: BaseException) -> bytes:
    """Return the failure for an exception that cannot be printed."""
    name = type(error).__qualname__[:200]
    return json.dumps({"module": "ww", "name": name, "text": "it cannot be printed", "traceback": ""}).encode()


def _flush() -> None:
    stdout, stderr = sys.stdout, sys.stderr
    try:
        stderr.flush()
        if stdout is not stderr:
            stdout.flush()
    except Exception:
        return  # closed, or replaced by code that was sent
