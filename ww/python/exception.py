"""What a function raised in a sandbox, as an exception here. It comes from a guest, whom nobody believes.

Holds which types are made, and that no constructor of a program's class runs for it. Must not know runs: outcome.py.
"""

import builtins
import sys
from collections.abc import Callable
from typing import Any, Final

import ww.errors
from ww.errors import GuestError
from ww.python.failure import Failure

Classes = Callable[[str, str], type | None]

# Raised here they would mean something to this program's own flow.
_CONTROL: Final = (SystemExit, KeyboardInterrupt, GeneratorExit, StopIteration, StopAsyncIteration)
_BUILTIN: Final = {
    name: kind
    for name, kind in vars(builtins).items()
    if isinstance(kind, type) and issubclass(kind, Exception) and not issubclass(kind, _CONTROL)
}
_OWN: Final = frozenset({"ww", "ww.errors"})
_ATTRIBUTES_MAX: Final = 100
_PLAIN: Final = {code: f"\\x{code:02x}" for code in (*range(32), *range(127, 160)) if chr(code) not in "\n\t"}


class RemoteTraceback(Exception):
    """The cause of what a function raised in a sandbox: its traceback there, which Python prints first."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text

    def __str__(self) -> str:
        return f'\n"""\n{self.text}"""'


class RemoteException(GuestError):
    """A function raised an exception whose type this program does not have, or must not raise."""

    code = "remote_exception"

    def __init__(self, type_name: str, message: str = "") -> None:
        super().__init__(f"{type_name}: {message}" if message else type_name)
        self.type_name = type_name
        """With its module, where that is not builtins."""
        self.message = message


def exception_of(failure: Failure, classes: Classes) -> Exception:
    """Return the exception of a failure, with the remote traceback as its cause."""
    error = _made(failure, classes)
    if failure.traceback:
        # As Python does it: a frozen class refuses all that is set, and others do what they like with it.
        BaseException.__setattr__(error, "__cause__", RemoteTraceback(plain(failure.traceback)))
    return error


def plain(text: str) -> str:
    """Return a text of a guest without what a terminal would obey."""
    return text.translate(_PLAIN)


def _made(failure: Failure, classes: Classes) -> Exception:
    kind = _kind(failure, classes)
    error: Exception | None = None
    if kind is not None and issubclass(kind, BaseExceptionGroup):
        error = _group(kind, failure, classes)
    elif kind is not None and failure.args is not None:
        error = _instance(kind, _plain_value(failure.args))
    if error is not None:
        _set_attributes(error, failure.attributes)
    if error is None or not _can_be_printed(error):
        where = "" if failure.type_module == "builtins" else f"{failure.type_module}."
        error = RemoteException(plain(f"{where}{failure.type_name}"), plain(failure.text))
    if failure.notes:
        BaseException.__setattr__(error, "__notes__", list(map(plain, failure.notes)))
    return error


def _can_be_printed(error: Exception) -> bool:
    """Return whether one of the standard library has what it needs to say: an attribute may be nothing that is sent."""
    module = type(error).__module__.partition(".")[0]
    if module == "builtins" or module not in sys.stdlib_module_names:
        return True  # it can; and a program's own code is for the program to call
    try:
        return isinstance(str(error), str)
    except Exception:
        return False


def _plain_value(value: Any) -> Any:
    """Return what an exception may print of a value of a guest's as it is: a text, or texts in a tuple."""
    if type(value) is str:
        return plain(value)
    return tuple(map(_plain_value, value)) if type(value) is tuple else value


def _kind(failure: Failure, classes: Classes) -> type[Exception] | None:
    module, name = failure.type_module, failure.type_name
    found: Any = None
    if module == "builtins":
        found = _BUILTIN.get(name)
    elif module in _OWN:
        found = vars(ww.errors).get(name)
    elif module.partition(".")[0] in sys.stdlib_module_names:
        # Of what is loaded here: a guest has nothing imported.
        found = getattr(sys.modules.get(module), "__dict__", {}).get(name) if module != "__main__" else None
    if found is None:
        found = classes(module, name)
    is_one = isinstance(found, type) and issubclass(found, Exception) and not issubclass(found, _CONTROL)
    return found if is_one and not hasattr(found, "__del__") else None


def _instance(kind: type[Exception], args: tuple[Any, ...]) -> Exception | None:
    """Make one without what the class would do when it is made; that of Python itself is sound."""
    if issubclass(kind, SyntaxError) and not _is_syntax_error(args):
        return None
    try:
        if kind.__module__ == "builtins":
            return kind(*args)
    except Exception:
        # Other arguments than it takes, as when somebody set them.
        pass
    base: Any = next(each for each in kind.__mro__ if each.__module__ == "builtins")
    try:
        error: Exception = base.__new__(kind, *args)
        BaseException.__setattr__(error, "args", args)
    except Exception:
        return None
    return error if isinstance(error, Exception) and isinstance(error, kind) else None


def _is_syntax_error(args: tuple[Any, ...]) -> bool:
    """Return whether Python can print a SyntaxError of these: file, line, column, text, and where it ends."""
    if len(args) < 2:
        return True
    place = args[1]
    if len(args) > 2 or type(place) is not tuple or len(place) not in (4, 6):
        return False
    texts, numbers = (place[0], place[3]), (*place[1:3], *place[4:])
    return all(isinstance(one, str | None) for one in texts) and all(isinstance(one, int | None) for one in numbers)


def _group(kind: Any, failure: Failure, classes: Classes) -> Exception | None:
    text = failure.args[0] if failure.args and isinstance(failure.args[0], str) else failure.text
    parts = [_made(part, classes) for part in failure.parts]
    if not parts:
        return None
    try:
        group: Exception = ExceptionGroup.__new__(kind, plain(text), parts)
        return group
    except Exception:
        return None


def _set_attributes(error: Exception, attributes: dict[str, Any]) -> None:
    own = getattr(error, "__dict__", None)
    if own is None:
        return
    for name, value in list(attributes.items())[:_ATTRIBUTES_MAX]:
        # Python's own methods stay: whoever handles the exception calls them.
        if not name.startswith("__") and not hasattr(BaseException, name):
            own[name] = _plain_value(value)
