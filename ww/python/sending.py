"""Pickling what travels to a sandbox, and saying what of it cannot.

Holds the pickler that tells which modules a value needs, and the search for the part that refuses. Must not know where
sources are: source.py.
"""

import io
import pickle
import socket
import threading
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import chain
from typing import Any, Final

from ww.errors import NotSendable

_LOCKS: Final = (type(threading.Lock()), type(threading.RLock()), threading.Condition, threading.Event)
_LOOKED_AT_MAX: Final = 10_000
_DEPTH_MAX: Final = 50

Refer = Callable[[Any], None]
"""Is told each class and function that a pickle names; raises NotSendable for what the guest cannot have."""
Arguments = tuple[Sequence[Any], dict[str, Any]]
PersistentId = Callable[[Any], object]


class _Pickler(pickle.Pickler):
    def __init__(self, file: io.BytesIO, refer: Refer, on_buffer: Callable[[pickle.PickleBuffer], Any] | None) -> None:
        super().__init__(file, protocol=5, buffer_callback=on_buffer)
        self._refer = refer

    def reducer_override(self, value: Any) -> Any:
        is_named = isinstance(value, type | types.FunctionType | types.BuiltinFunctionType)
        self._refer(value if is_named or hasattr(type(value), "__ww_function__") else type(value))
        return NotImplemented


class _FunctionsToo(_Pickler):
    def __init__(self, file: io.BytesIO, refer: Refer, persistent_id: PersistentId) -> None:
        super().__init__(file, refer, None)
        self.persistent_id = persistent_id  # type: ignore[method-assign]


def write_value(value: Any, refer: Refer, persistent_id: PersistentId, what: str) -> bytes:
    """Return the pickle of a value that belongs to code; what names it in errors."""
    file = io.BytesIO()
    try:
        _FunctionsToo(file, refer, persistent_id).dump(value)
    except NotSendable:
        raise
    except Exception as error:
        raise refusal(what, value, error) from None
    return file.getvalue()


def argument_pickler(refer: Refer) -> type[pickle.Pickler]:
    """Return the pickler of arguments, which tells what they refer to."""

    class ArgumentPickler(_Pickler):
        def __init__(self, file: io.BytesIO, protocol: int, buffer_callback: Any) -> None:
            super().__init__(file, refer, buffer_callback)

    return ArgumentPickler


def explain(error: Exception, calls: Sequence[Arguments], pickler: Any, what: str) -> NotSendable:
    """Return the error for arguments of what, of which at least one cannot be pickled: it says which."""
    for args, kwargs in calls:
        for place, value in chain(enumerate(args, 1), kwargs.items()):
            said = f"argument {place} of {what}"
            try:
                pickler(io.BytesIO(), 5, buffer_callback=lambda _: None).dump(value)
            except NotSendable as refused:
                return NotSendable(f"cannot send {said}: {refused}")
            except Exception as refused:
                return refusal(said, value, refused)
    return NotSendable(f"cannot send the arguments of {what}: {_line(error)}")


def _can_pickle(value: Any) -> bool:
    try:
        pickle.Pickler(io.BytesIO(), 5, buffer_callback=lambda _: None).dump(value)
    except Exception:
        return False
    return True


def refusal(what: str, value: Any, error: Exception) -> NotSendable:
    """Return the error for a value that pickle refuses: it names the innermost part that is to blame."""
    path, part = _culprit(value)
    where = f"{path.lstrip('.')} of it is " if path else ""
    return NotSendable(f"cannot send {what}: {where}{_described(part, error)}")


def _culprit(value: Any) -> tuple[str, Any]:
    """Return the innermost part of a value that cannot be pickled, and the way to it."""
    path, seen, left = "", {id(value)}, _LOOKED_AT_MAX
    for _ in range(_DEPTH_MAX):
        for step, part in _parts(value):
            left -= 1
            if left < 0:
                return path, value
            if id(part) not in seen and not _can_pickle(part):
                seen.add(id(part))
                path, value = path + step, part
                break
        else:
            return path, value
    return path, value


def _parts(value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        for key, part in value.items():
            yield f"[key {key!r}]"[:60], key
            yield f"[{key!r}]"[:60], part
    elif isinstance(value, list | tuple):
        for place, part in enumerate(value):
            yield f"[{place}]", part
    elif isinstance(value, set | frozenset):
        for part in value:
            yield "[an element]", part
    elif not isinstance(value, type | types.FunctionType | types.ModuleType):
        with suppress(TypeError):
            for name, part in list(vars(value).items()):
                yield f".{name}", part
        for kind in type(value).__mro__:
            slots = vars(kind).get("__slots__", ())
            for name in (slots,) if isinstance(slots, str) else slots:
                with suppress(AttributeError):
                    yield f".{name}", getattr(value, name)


def _described(value: Any, error: Exception) -> str:
    """Say what a thing is that cannot travel."""
    if isinstance(value, io.IOBase):
        name = getattr(value, "name", None)
        shown = f" ({str(name).rpartition('/')[2][:60]})" if isinstance(name, str) else ""
        return f"an open file{shown}; send what is in it, or its bytes"
    for kind, what in _KINDS:
        if isinstance(value, kind):
            return what
    if isinstance(value, types.FunctionType):
        name = "a lambda" if value.__name__ == "<lambda>" else f"{value.__name__}, a function inside a function,"
        return f"{name} which no module has under its name; expected a function at the top of a module"
    if isinstance(value, types.ModuleType):
        return f"the module {value.__name__}; import it where it is used"
    if isinstance(value, type):
        return f"the class {value.__qualname__}, which no module has under its name"
    kind = type(value)
    if "<locals>" in kind.__qualname__:
        return f"of the class {kind.__qualname__}, which is inside a function; expected one at the top of a module"
    return f"of the type {kind.__module__}.{kind.__qualname__}, which pickle refuses: {_line(error)}"


_KINDS: Final[list[tuple[Any, str]]] = [
    (socket.socket, "a socket"),
    (_LOCKS, "a lock, which means nothing in another process"),
    (threading.Thread, "a thread"),
    (types.GeneratorType, "a generator; send list(...) of it"),
    (types.CoroutineType, "a coroutine; await it first"),
    (types.AsyncGeneratorType, "an asynchronous generator"),
    ((types.FrameType, types.TracebackType), "a part of this program's stack"),
    (types.CodeType, "a code object"),
    (memoryview, "a memoryview; send bytes(...) of it"),
]


def _line(error: Exception) -> str:
    return " ".join(f"{error}".split())[:200] or type(error).__name__
