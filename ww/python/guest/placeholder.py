"""What stands for a module that the sandbox does not have: it can be imported and named, and fails when it is used.

So that code which only mentions such a module (in annotations, as a base class, as a decorator) can be loaded. Must not
know what is missing, nor who imports it: imports.py.
"""

import functools
import sys
import types
from collections.abc import Callable
from typing import Any, Final, NoReturn

_KEPT_DUNDERS: Final = frozenset({"__version__", "__all__"})
_NEEDED: Final = (
    "add", "sub", "mul", "matmul", "truediv", "floordiv", "mod", "divmod", "pow", "lshift", "rshift", "and", "xor",
    "radd", "rsub", "rmul", "rmatmul", "rtruediv", "rfloordiv", "rmod", "rpow", "rlshift", "rrshift", "rand", "rxor",
    "iadd", "isub", "imul", "imatmul", "itruediv", "neg", "pos", "abs", "invert", "int", "float", "complex", "index",
    "lt", "le", "gt", "ge", "bool", "len", "iter", "next", "contains", "setitem", "delitem", "enter", "exit",
    "aenter", "aexit", "await", "aiter", "anext", "format", "fspath", "bytes", "reduce_ex",
)  # fmt: skip


class Placeholder(types.ModuleType):
    """A module, or whatever has a name in one, that is not there."""

    def __init__(self, name: str, missing: str, is_loading: Callable[[types.FrameType | None], bool]) -> None:
        """name: what this stands for. missing: the module. is_loading: whether a frame is a module's own, at import."""
        super().__init__(name, f"{missing} is not in the sandbox")
        own = self.__dict__
        own["__path__"] = []
        own["_ww_missing"] = missing
        own["_ww_is_loading"] = is_loading

    def __getattr__(self, name: str) -> Any:
        if name == "__all__":
            return []
        if name.startswith("__") and name.endswith("__") and name not in _KEPT_DUNDERS:
            raise AttributeError(f"{self.__name__} is not in the sandbox: it has no {name}")
        made = self._ww_of(f"{self.__name__}.{name}")
        self.__dict__[name] = made
        return made

    def _ww_of(self, name: str) -> "Placeholder":
        return Placeholder(name, self.__dict__["_ww_missing"], self.__dict__["_ww_is_loading"])

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        # At import: a decorator, or what is kept in a global for later. Where it is needed it fails.
        if not self.__dict__["_ww_is_loading"](sys._getframe(1)):
            refuse(self)
        if len(args) == 1 and not kwargs and isinstance(args[0], types.FunctionType):
            return self._ww_decorated(args[0])
        return self._ww_of(f"{self.__name__}(...)" if not self.__name__.endswith("(...)") else self.__name__)

    def _ww_decorated(self, function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def call(*args: Any, **kwargs: Any) -> NoReturn:
            refuse(self)

        return call

    def __getitem__(self, key: object) -> "Placeholder":
        return self._ww_of(f"{self.__name__}[...]" if not self.__name__.endswith("[...]") else self.__name__)

    def __or__(self, other: object) -> "Placeholder":
        # A union in an annotation.
        if other is not None and not isinstance(other, type | Placeholder | types.GenericAlias | types.UnionType):
            refuse(self)
        return self

    __ror__ = __or__

    def __mro_entries__(self, bases: tuple[Any, ...]) -> tuple[type, ...]:
        missing = self

        def new(cls: type, *args: Any, **kwargs: Any) -> NoReturn:
            refuse(missing)

        name = self.__name__.rpartition(".")[2]
        return (type(name if name.isidentifier() else "Missing", (), {"__new__": new, "__module__": self.__name__}),)

    def __instancecheck__(self, instance: object) -> bool:
        return False  # nothing can be one

    def __subclasscheck__(self, kind: type) -> bool:
        return False

    def __repr__(self) -> str:
        return f"<{self.__name__}, which is not in the sandbox>"

    __str__ = __repr__
    __hash__ = object.__hash__
    __eq__ = object.__eq__


def refuse(placeholder: Placeholder) -> NoReturn:
    """Say what is missing, and what to do about it."""
    missing = placeholder.__dict__["_ww_missing"]
    top = missing.partition(".")[0]
    raise ImportError(
        f"{missing} is not in the sandbox: {placeholder.__name__} cannot be used there"
        + ("" if top in sys.stdlib_module_names else f"; a pure-Python package is sent with packages=[{top!r}]"),
        name=missing,
    )


def _add_needed() -> None:
    def refusing(placeholder: Placeholder, *_: Any, **__: Any) -> NoReturn:
        refuse(placeholder)

    for name in _NEEDED:
        setattr(Placeholder, f"__{name}__", refusing)


_add_needed()
