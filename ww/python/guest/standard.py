"""The standard library of the sandbox: what is imported when the component is built is there, and nothing else.

Must not know what runs. `ww python modules` shows what import_all found: build.py reads it out of the component.
"""

import contextlib
import importlib
import io
import json
import pkgutil
import sys
import warnings
from collections.abc import Iterator
from typing import Final

LIST_BEGIN: Final = b"ww-modules-begin:"
LIST_END: Final = b":ww-modules-end"
# No use in a sandbox, or what importing them does is of none.
_LEFT_OUT: Final = frozenset(
    {
        *(
            "antigravity",
            "curses",
            "dbm",
            "ensurepip",
            "idlelib",
            "lib2to3",
            "msilib",
            "nturl2path",
            "pip",
            "pydoc_data",
        ),
        *("site", "sitecustomize", "test", "this", "tkinter", "turtle", "turtledemo", "usercustomize", "venv"),
        *("__hello__", "__phello__", "_aix_support", "_android_support", "_apple_support", "_ios_support"),
        *("_osx_support", "_pyrepl", "asyncio.windows_events", "asyncio.windows_utils", "encodings.cp65001"),
        *("encodings.mbcs", "encodings.oem", "multiprocessing.popen_spawn_win32"),
    }
)


def import_all() -> bytes:
    """Import what can be imported; return the sorted names between marks, as JSON."""
    for name in _names():
        _try(name)
    # Names of the interpreter's own parts are nothing that a program imports.
    there = {name for name in sys.modules if name.partition(".")[0] in sys.stdlib_module_names}
    shown = sorted(name for name in there if not any(part.startswith("_") for part in name.split(".")))
    return LIST_BEGIN + json.dumps(shown).encode() + LIST_END


def _names() -> Iterator[str]:
    for name in sorted(sys.stdlib_module_names):
        if not _is_left_out(name):
            yield name
            if (module := sys.modules.get(name)) is not None and hasattr(module, "__path__"):
                yield from _within(name, list(module.__path__))


def _within(package: str, path: list[str]) -> Iterator[str]:
    for found in pkgutil.iter_modules(path, f"{package}."):
        if not _is_left_out(found.name):
            yield found.name
            if found.ispkg and (module := sys.modules.get(found.name)) is not None:
                yield from _within(found.name, list(module.__path__))


def _is_left_out(name: str) -> bool:
    parts = name.split(".")
    return name in _LEFT_OUT or parts[0] in _LEFT_OUT or parts[-1] in ("__main__", "test", "tests", "idle_test")


def _try(name: str) -> None:
    # Some say on import that they are old, and some that they are for other systems.
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(BaseException):
        warnings.simplefilter("ignore")
        importlib.import_module(name)
