"""What `import ww` gives inside a sandbox: jobs, whose calls elsewhere are those that were granted, and the errors.

The rest of ww needs a cluster to speak to, which a sandbox has none of: its names are there and refuse. Must not know
how a run was begun: runtime.py.
"""

import concurrent.futures
import functools
from collections.abc import Callable, Generator, Iterable
from typing import Any, Final, NoReturn

from ww import errors
from ww.errors import NotGranted, NotSendable, UsageError
from ww.python.exception import RemoteException, RemoteTraceback
from ww.python.guest.nested import Calls, NestedFuture
from ww.python.request import Arguments, write_call

_OUTSIDE: Final = frozenset({"Executor", "connect", "progress", "JobFuture", "Client", "AsyncClient"})
__all__ = ["Job", "RemoteException", "RemoteTraceback", "job"]
_FANOUTS: Final = ("pull", "roundrobin", "random")


class Link:
    """What jobs call through: set once a run's code is loaded."""

    def __init__(self) -> None:
        self.calls: Calls | None = None
        self.name_of: Callable[[Any], str] = lambda function: f"{function.__module__}:{function.__qualname__}"


link: Final = Link()


class Job:
    """A function that can be called here, and elsewhere where that was granted."""

    def __init__(self, function: Callable[..., Any], name: str | None, options: dict[str, Any]) -> None:
        """name: what it is called outside; found by its function where that is not given."""
        functools.update_wrapper(self, function)
        self._function = function
        self._name = name
        self._options = options

    def __ww_function__(self) -> Callable[..., Any]:
        return self._function

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._function(*args, **kwargs)

    def local(self, *args: Any, **kwargs: Any) -> Any:
        """Call it in place: this is a sandbox already."""
        return self._function(*args, **kwargs)

    def local_async(self, *args: Any, **kwargs: Any) -> "Here":
        """Call it in place, and return a future that is done."""
        return Here(self._function, args, kwargs)

    def remote(self, *args: Any, **kwargs: Any) -> Any:
        """Call it on some worker, and wait."""
        return self.remote_async(*args, **kwargs).result()

    def remote_async(self, *args: Any, **kwargs: Any) -> NestedFuture:
        """Begin a call on some worker."""
        return self._start([(args, kwargs)])[0]

    def remote_fanout(self, items: Iterable[Any], fanout: str = "pull", *, star: bool = False) -> list[Any]:
        """Call it once for each item, over the cluster; return the results in order. star: an item is its arguments."""
        if fanout not in _FANOUTS:
            raise UsageError(f"fanout {fanout!r}: expected {', '.join(_FANOUTS)}", "fanout")
        return [future.result() for future in self._start((tuple(one) if star else (one,), {}) for one in items)]

    def _start(self, calls: Iterable[Arguments]) -> list[NestedFuture]:
        shown = self._function.__qualname__
        if link.calls is None:
            raise NotGranted(f"{shown} cannot be called elsewhere while code is loaded; expected a call in a function")
        trust = bool(self._options.get("trust"))
        requests = (_request(args, kwargs, shown, trust) for args, kwargs in calls)
        return link.calls.start(self._name or link.name_of(self._function), requests, trust=trust)

    def __reduce__(self) -> str:
        return str(self.__qualname__)  # type: ignore[attr-defined]

    def __repr__(self) -> str:
        return f"<job {link.name_of(self._function)}>"


def _request(args: tuple[Any, ...], kwargs: dict[str, Any], shown: str, trust: bool) -> bytes:
    try:
        return write_call(args, kwargs, trust=trust)
    except Exception as error:
        raise NotSendable(f"cannot send the arguments of {shown}: {error}") from None


class Here(concurrent.futures.Future[Any]):
    """A future of a call that was made in place."""

    stdout: Final = ""

    def __init__(self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        super().__init__()
        try:
            self.set_result(function(*args, **kwargs))
        except Exception as error:
            self.set_exception(error)

    def try_get(self, default: Any = None) -> Any:
        """Return what result does."""
        return self.result()

    def __await__(self) -> Generator[Any, None, Any]:
        return self.result()
        yield


def job(function: Callable[..., Any] | None = None, /, **options: Any) -> Any:
    """Make a job of a function: `@ww.job` and `@ww.job(...)`. What limits it has is settled outside."""
    if function is None:
        return functools.partial(job, **options)
    if isinstance(function, Job):
        return function
    if not callable(function):
        raise UsageError(f"a job is made of a function, not of {type(function).__name__}")
    return Job(function, None, options)


def __getattr__(name: str) -> Any:
    """Return an error of ww.errors, or what refuses to be used in a sandbox."""
    if isinstance(found := vars(errors).get(name), type) and issubclass(found, errors.WwError):
        return found
    if name in _OUTSIDE:
        return _refusing(name)
    raise AttributeError(f"ww has no {name} in a sandbox")


def _refusing(name: str) -> Any:
    def refuse(*_: Any, **__: Any) -> NoReturn:
        raise UsageError(f"ww.{name} is not there in a sandbox; expected calls of functions in grants=[...]")

    refuse.__name__ = name
    return refuse
