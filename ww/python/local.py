"""Which modules travel: those that are neither of the standard library nor installed, and packages that are named.

Holds where a module's source is and what it imports, without importing anything. Must not know functions or values:
source.py. Everything it is asked for is bounded by source.py's limits.
"""

import ast
import functools
import importlib.machinery
import importlib.util
import os
import site
import sys
import sysconfig
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Final

from ww.errors import NotSendable
from ww.python.definition import parse

_COMPILED: Final = tuple({*importlib.machinery.EXTENSION_SUFFIXES, ".so", ".pyd", ".dylib"})
_LEFT_OUT: Final = ("__pycache__", ".pyc", ".pyo")
# The guest has these itself.
_GUESTS: Final = frozenset({"ww", "wit_world", "componentize_py_runtime", "componentize_py_types"})


@dataclass(frozen=True, slots=True)
class Found:
    """A module's source."""

    path: str
    """In the zip."""
    text: str


def is_standard(name: str) -> bool:
    """Whether the guest has a module by itself, as far as it has it: the standard library, and ww."""
    top = name.partition(".")[0]
    return top in sys.stdlib_module_names or top in sys.builtin_module_names or top in _GUESTS


def is_installed(file: str) -> bool:
    """Whether a file belongs to an installed package."""
    path = os.path.abspath(file)
    return any(path.startswith(folder + os.sep) for folder in _installed()) or "/site-packages/" in path


@functools.cache
def _installed() -> tuple[str, ...]:
    folders = {sysconfig.get_path(name) for name in ("purelib", "platlib", "stdlib", "platstdlib")}
    folders |= {*site.getsitepackages(), site.getusersitepackages()}
    return tuple(sorted(os.path.abspath(folder) for folder in folders if folder))


def spec_of(name: str) -> importlib.machinery.ModuleSpec | None:
    """Find a module without importing it or what it is in; None where there is none."""
    module = sys.modules.get(name)
    if module is not None:
        spec = getattr(module, "__spec__", None)
        return spec if spec is not None else _spec_by_file(name, module)
    parent, _, _ = name.rpartition(".")
    path: Sequence[str] | None = None
    if parent:
        above = spec_of(parent)
        if above is None or above.submodule_search_locations is None:
            return None
        path = list(above.submodule_search_locations)
    for finder in sys.meta_path:
        try:
            spec = finder.find_spec(name, path)
        except (ImportError, AttributeError, ValueError, OSError):
            continue
        if spec is not None:
            return spec
    return None


def _spec_by_file(name: str, module: ModuleType) -> importlib.machinery.ModuleSpec | None:
    file = getattr(module, "__file__", None)
    return None if file is None else importlib.util.spec_from_file_location(name, file)


def is_local(name: str) -> bool:
    """Whether a module is the user's own: it travels without being named."""
    if not name or name == "__main__" or is_standard(name):
        return False
    spec = spec_of(name)
    if spec is None:
        return False
    if spec.origin is None or spec.loader is None:
        folders = list(spec.submodule_search_locations or ())
        return bool(folders) and not any(is_installed(os.path.join(folder, "x")) for folder in folders)
    return spec.origin not in ("built-in", "frozen") and not is_installed(spec.origin)


def source_of(name: str) -> Found | None:
    """Return a module's source; None for a folder alone, and for what has no source but bytes or machine code."""
    spec = spec_of(name)
    if spec is None or spec.origin is None or spec.origin.endswith(_COMPILED):
        return None
    text = _text_of(name, spec)
    if text is None:
        return None
    path = name.replace(".", "/")
    return Found(f"{path}.py" if spec.submodule_search_locations is None else f"{path}/__init__.py", text)


def _text_of(name: str, spec: importlib.machinery.ModuleSpec) -> str | None:
    try:
        if get_source := getattr(spec.loader, "get_source", None):
            text: str | None = get_source(name)
            if text is not None:
                return text
        if spec.origin is None or not spec.origin.endswith(".py"):
            return None
        return importlib.util.decode_source(Path(spec.origin).read_bytes())
    except (OSError, ImportError, SyntaxError, UnicodeDecodeError, ValueError):
        return None


def imports_of(found: Found, name: str) -> Iterator[str]:
    """Yield the modules that a module may import, wherever in it that stands; some may be no modules."""
    try:
        tree = parse(found.text)
    except (SyntaxError, ValueError, RecursionError) as error:
        raise NotSendable(f"cannot send the module {name}: its source is no Python: {error}"[:300]) from None
    return imports_in(tree, name if found.path.endswith("/__init__.py") else name.rpartition(".")[0])


def imports_in(tree: ast.Module, package: str) -> Iterator[str]:
    """Yield the same of code in a package, or in none."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = package.split(".") if package else []
                above = above[: len(above) - (node.level - 1)] if node.level > 1 else above
                base = ".".join([*above, *([base] if base else [])])
            if base:
                yield base
                for alias in node.names:
                    yield f"{base}.{alias.name}"


def parents_of(name: str) -> Iterator[str]:
    """Yield the packages that a module is in, the outermost first."""
    parts = name.split(".")
    for count in range(1, len(parts)):
        yield ".".join(parts[:count])


def package_files(name: str, bytes_max: int) -> dict[str, bytes]:
    """Return all files of an installed or local package that is named, by their paths in the zip.

    Raises NotSendable when it is not there, or has machine code in it.
    """
    spec = spec_of(name)
    if spec is None or is_standard(name):
        why = "it is the guest's own" if is_standard(name) else "nothing has that name here"
        raise NotSendable(f"packages: cannot send {name}: {why}; expected the name of an installed pure-Python package")
    if spec.submodule_search_locations is None:
        found = source_of(name)
        if found is None:
            raise NotSendable(f"packages: cannot send {name}: it is compiled ({_name_of(spec.origin)}), not Python")
        return {found.path: found.text.encode()}
    files: dict[str, bytes] = {}
    left = bytes_max
    for folder in spec.submodule_search_locations:
        for path, shown in _walk(folder):
            if shown.endswith(_COMPILED):
                raise NotSendable(f"packages: cannot send {name}: it has a compiled part, {_name_of(shown)}")
            content = _read(name, path, left)
            left -= len(content)
            files[f"{name.replace('.', '/')}/{shown}"] = content
    return files


def _walk(folder: str) -> Iterator[tuple[str, str]]:
    for here, folders, names in os.walk(folder):
        folders[:] = sorted(each for each in folders if not each.startswith(".") and each not in _LEFT_OUT)
        for each in sorted(names):
            if not each.startswith(".") and not each.endswith(_LEFT_OUT):
                path = os.path.join(here, each)
                yield path, os.path.relpath(path, folder).replace(os.sep, "/")


def _read(name: str, path: str, bytes_max: int) -> bytes:
    try:
        with open(path, "rb") as file:
            content = file.read(bytes_max + 1)
    except OSError as error:
        raise NotSendable(f"packages: cannot send {name}: {_name_of(path)}: {error.strerror}") from None
    if len(content) > bytes_max:
        raise NotSendable(f"packages: cannot send {name}: it has more bytes than the zip may have")
    return content


def _name_of(path: Any) -> str:
    return os.path.basename(str(path))
