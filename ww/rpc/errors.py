"""How an exception crosses a connection: as a stable code and one line, never as a traceback.

Holds the encoding (importing this module installs it in pycapnp) and the decoding. pycapnp formats whatever a handler
raises with `traceback.format_exception` and sends that text, with paths and source lines, to the peer; it is replaced
here by "ww:CODE: message" for what ww raises on purpose, and by nothing but a code for everything else, which is
logged on this side. Source: facts.md, pycapnp.
"""

import logging
import re
import time
from collections.abc import Awaitable
from types import TracebackType
from typing import Any, Final

import capnp

from ww import errors

log = logging.getLogger("ww.rpc")

_MESSAGE_CHARACTERS_MAX: Final = 400
# Failures with a traceback in the log, within so many seconds.
_LOGGED_MAX: Final = 20
_LOGGED_WITHIN_S: Final = 60.0
_ENCODED = re.compile(r"ww:([a-z_]{1,40}): (.*)", re.DOTALL)


def _tree(kind: type[errors.WwError]) -> dict[str, type[errors.WwError]]:
    found = {kind.code: kind}
    for child in kind.__subclasses__():
        # What is derived elsewhere, without a code of its own, is for that place alone.
        if child.__module__ == errors.__name__:
            found |= _tree(child)
    return found


_BY_CODE: Final = _tree(errors.WwError)


def one_line(text: str) -> str:
    """Make text that a stranger wrote fit for a log line or a message: printable, one line, of bounded length."""
    if len(text) <= _MESSAGE_CHARACTERS_MAX and text.isprintable():
        return text
    line = "".join(c if c.isprintable() else " " for c in text[: _MESSAGE_CHARACTERS_MAX + 1])
    return line if len(line) <= _MESSAGE_CHARACTERS_MAX else line[:_MESSAGE_CHARACTERS_MAX] + "..."


class _Seldom:
    """Keeps a peer that makes calls fail from filling the log."""

    def __init__(self) -> None:
        self._count = 0
        self._until = 0.0

    def may_log(self, now: float) -> bool:
        """Whether one more may be logged."""
        if now >= self._until:
            if self._count > _LOGGED_MAX:
                log.error("%d more calls failed here", self._count - _LOGGED_MAX)
            self._count, self._until = 0, now + _LOGGED_WITHIN_S
        self._count += 1
        return self._count <= _LOGGED_MAX


_LOGGED: Final = _Seldom()


class _OneLine:
    """What pycapnp takes for the traceback module."""

    @staticmethod
    def format_exception(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> list[str]:
        if isinstance(error, errors.WwError):
            return [f"ww:{error.code}: {one_line(str(error))}"]
        if _LOGGED.may_log(time.monotonic()):
            log.error("a call failed here", exc_info=(kind, error, traceback))
        return [f"ww:{errors.RemoteError.code}: the peer failed to answer; its log says why"]


capnp.lib.capnp._traceback = _OneLine


def decode(error: BaseException) -> errors.WwError:
    """Turn what a call raised into the WwError that the peer meant, or the closest there is."""
    if isinstance(error, capnp.KjException):
        text = str(error.description)
        if error.type == "DISCONNECTED":
            return errors.Disconnected("the connection to the peer is gone")
        if error.type == "UNIMPLEMENTED":
            return errors.ProtocolMismatch("the peer does not know this call: it runs another version of ww")
        found = _ENCODED.search(text)
        if found is None:
            return errors.RemoteError(one_line(text))
        kind = _BY_CODE.get(found[1], errors.RemoteError)
        return kind(one_line(found[2]))
    # pycapnp makes an AttributeError of any remote text that contains "has no such".
    return errors.RemoteError(one_line(str(error)))


async def call(promise: Awaitable[Any]) -> Any:
    """Await a remote call's promise; every failure of it is a WwError."""
    try:
        return await promise
    except (capnp.KjException, AttributeError) as error:
        raise decode(error) from None
    finally:
        # An error's frames hold what is left in them, and may be collected in another thread, which ends the program.
        del promise
