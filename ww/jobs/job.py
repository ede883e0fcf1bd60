"""A job: a function that is called in place, in a sandbox of this node, or on the cluster.

Holds how a function becomes a job, and what of it is sent, which is made once and anew when something changed. Where
calls go: runner.py.
"""

import functools
import inspect
import threading
from collections.abc import Callable, Coroutine, Iterable, Sequence
from typing import Any, Final, Generic, ParamSpec, Protocol, TypeVar, Unpack, overload

from ww.errors import UsageError
from ww.jobs.call import Grant, Target
from ww.jobs.future import JobFuture
from ww.jobs.options import JobOptions, OptionFields, check_fanout
from ww.python import source
from ww.python.collector import function_of, shown

P = ParamSpec("P")
R = TypeVar("R")

_ATTEMPTS: Final = 3


class _Decorator(Protocol):
    """What ww.job with options returns."""

    @overload
    def __call__(self, function: Callable[P, Coroutine[Any, Any, R]], /) -> "AsyncJob[P, R]": ...
    @overload
    def __call__(self, function: Callable[P, R], /) -> "Job[P, R]": ...


@overload
def job(function: Callable[P, Coroutine[Any, Any, R]], /) -> "AsyncJob[P, R]": ...
@overload
def job(function: Callable[P, R], /) -> "Job[P, R]": ...
@overload
def job(**options: Unpack[OptionFields]) -> _Decorator: ...
def job(function: Callable[..., Any] | None = None, /, **options: Unpack[OptionFields]) -> Any:
    """Make a function a job, which can be called in sandboxes. Use it with options or without.

    Options: see OptionFields. UsageError names an option that is none, or a function that cannot be a job.
    """
    known = JobOptions.__dataclass_fields__
    for name in options:
        if name not in known:
            raise UsageError(f"{name}: no option of a job, which has {', '.join(known)}", name)
    made = JobOptions(**options)

    def make(function: Callable[..., Any]) -> Job[..., Any]:
        return (AsyncJob if inspect.iscoroutinefunction(function) else Job)(function, made)

    return make if function is None else make(function)


class Job(Generic[P, R]):
    """A function that can be called in sandboxes. A plain call is the function's own. Threads may share it."""

    __wrapped__: Callable[P, R]
    __qualname__: str

    def __init__(self, function: Callable[P, R], options: JobOptions) -> None:
        _check_function(function)
        functools.update_wrapper(self, function)
        self._function = function
        self.options = options
        self._lock = threading.RLock()
        self._target: Target | None = None
        self._extras: set[tuple[str, str]] = set()

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call the function here, as if it were no job."""
        return self._function(*args, **kwargs)

    def local(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call it in a sandbox on this node, and wait for the result."""
        return _waited(self.local_async(*args, **kwargs))

    def local_async(self, *args: P.args, **kwargs: P.kwargs) -> JobFuture[R]:
        """Call it in a sandbox on this node; return a future."""
        from ww.jobs.local import shared

        return shared().submit(self, args, kwargs)

    def remote(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call it on the cluster, and wait for the result."""
        return _waited(self.remote_async(*args, **kwargs))

    def remote_async(self, *args: P.args, **kwargs: P.kwargs) -> JobFuture[R]:
        """Call it on the cluster; return a future. Calls that are made while others are sent go together."""
        from ww.jobs.cluster import shared

        return shared().submit(self, args, kwargs)

    def remote_fanout(self, items: Iterable[Any], fanout: str = "pull", *, star: bool = False) -> list[R]:
        """Call it on the cluster once for each item; return the results in the order of the items.

        An item is the only argument, also where it is a tuple; with star it is all of them. fanout: to which workers
        runs go: "pull" (who is free), "roundrobin" or "random". The first failure is raised, and cancels the rest.
        """
        from ww.jobs.cluster import shared

        check_fanout(fanout)
        return list(shared().map(self, items, star=star, spread=fanout))

    def __get__(self, instance: object, owner: type | None = None) -> "Job[P, R]":
        """Return the job itself: on an object it would be a method."""
        if instance is None:
            return self
        raise UsageError(f"{self.__qualname__}: a job is no method; expected a function outside of the class")

    def __reduce__(self) -> str:
        """Travel as the name that a module has for it."""
        return self.__qualname__

    def __repr__(self) -> str:
        return f"<ww.job {self.__module__}.{self.__qualname__}>"

    def __ww_function__(self) -> Callable[P, R]:
        """Return the function: by this a job is known where code is collected."""
        return self._function

    # For whoever sends calls.

    def target(self) -> Target:
        """Return what is sent of it now. NotSendable when it cannot be."""
        with self._lock:
            target = self._target
            if target is None or not target.code.is_current() or self._extras - target.code.extras:
                target = self._target = self._made()
            return target

    def write(self, args: Sequence[Any], kwargs: dict[str, Any], target: Target | None = None) -> tuple[Target, bytes]:
        """Return what is sent of it, and the request of one call. NotSendable names what cannot travel."""
        return self._written(target, lambda to: to.code.write_call(args, kwargs, to.shown, trust=self.options.trust))

    def write_several(self, calls: Sequence[Any], target: Target | None = None) -> tuple[Target, bytes]:
        """Return the same for several calls in one run: each is its arguments."""
        listed: list[tuple[Sequence[Any], dict[str, Any]]] = [(args, {}) for args in calls]
        return self._written(target, lambda to: to.code.write_calls(listed, to.shown, trust=self.options.trust))

    def _written(self, target: Target | None, write: Callable[[Target], bytes]) -> tuple[Target, bytes]:
        for _ in range(_ATTEMPTS):
            target = target or self.target()
            request = write(target)
            missing = target.code.missing - self._extras
            if not missing:
                return target, request
            # Arguments have types that the function does not name: their modules travel from now on.
            with self._lock:
                self._extras |= missing
            target = None
        raise UsageError(f"{shown(self._function)}: what its arguments need cannot be told")

    def _made(self) -> Target:
        granted = _all_granted(self)
        functions = [self._function, *(function for function, _ in granted.values())]
        packages = [*self.options.packages]
        for _, options in granted.values():
            packages += options.packages
        code = source.collect(functions, packages, sorted(self._extras))
        grants = {}
        for function, options in granted.values():
            names = tuple(code.name_of(function_of(each)) for each in options.granted())
            name = code.name_of(function)
            grants[name] = Grant(name, options, names)
        own = tuple(code.name_of(function_of(each)) for each in self.options.granted())
        return Target(code.name_of(self._function), shown(self._function), self.options, code, own, grants)


class AsyncJob(Job[P, R]):
    """A job of an async function: the sandbox awaits it, and so does whoever calls it here."""

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, R]:  # type: ignore[override]
        """Call the function here: await what it returns."""
        called: Any = self._function(*args, **kwargs)
        return called  # type: ignore[no-any-return]


def _all_granted(job: Job[Any, Any]) -> dict[int, tuple[Any, JobOptions]]:
    """Return what a job may call, and what that may call in turn, by the function's id."""
    found: dict[int, tuple[Any, JobOptions]] = {}
    waiting = [*job.options.granted()]
    while waiting:
        each = waiting.pop()
        function, options = function_of(each), each.options if isinstance(each, Job) else JobOptions()
        if id(function) not in found:
            found[id(function)] = function, options
            waiting += options.granted()
    return found


def _waited(future: JobFuture[R]) -> R:
    try:
        return future.result()
    except BaseException:
        # Interrupted (ctrl-C), if it has not ended: nobody has the future.
        future.cancel()
        raise


def _check_function(function: Any) -> None:
    name = getattr(function, "__qualname__", type(function).__qualname__)
    if isinstance(function, Job):
        raise UsageError(f"{name}: it is a job already")
    if isinstance(function, staticmethod | classmethod | property) or not callable(function):
        raise UsageError(f"{name}: a job is a function; expected one outside of a class")
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise UsageError(f"{name}: a generator is no job; expected a function that returns a list")
