"""Importing what was sent: modules from a zip in memory, and placeholders for those that are nowhere.

Holds the finder, the loader and the import that knows placeholders. Must not know functions, jobs nor requests. What
tracebacks show of a file is put into linecache, under the name that the file has in the zip.
"""

import ast
import builtins
import importlib.machinery
import importlib.util
import inspect
import io
import linecache
import re
import sys
import types
import zipfile
from collections.abc import Iterator, Sequence
from typing import Any, Final

from ww.python.guest.placeholder import Placeholder

OWN_ENTRY: Final = "ww.json"
OWN_FOLDER: Final = ".ww/"
ENTRIES_MAX: Final = 20_000
UNPACKED_BYTES_MAX: Final = 256 << 20
_CATCHES: Final = frozenset({"ImportError", "ModuleNotFoundError", "Exception", "BaseException"})


class Sources:
    """The zip: what is in it, and what came of it."""

    def __init__(self, code: bytes) -> None:
        """code: the zip; empty for none. Raises ValueError where it is none, or unpacks to more than is taken."""
        self.archive = zipfile.ZipFile(io.BytesIO(code or _EMPTY))
        found = self.archive.infolist()
        if len(found) > ENTRIES_MAX or sum(entry.file_size for entry in found) > UNPACKED_BYTES_MAX:
            raise ValueError(f"the code unpacks to more than {UNPACKED_BYTES_MAX} bytes or {ENTRIES_MAX} files")
        self.names = {entry.filename for entry in found if not entry.is_dir()}
        self.folders = {folder for name in self.names for folder in _folders_of(name)}
        self.modules = {name.partition("/")[0].removesuffix(".py") for name in self.names if _is_module(name)}
        self.files: set[str] = set()
        self._guarded: dict[str, set[int]] = {}

    def read(self, name: str) -> bytes:
        """Return an entry."""
        return self.archive.read(name)

    def mention(self, words: re.Pattern[bytes]) -> bool:
        """Return whether a word is anywhere in it."""
        return any(words.search(self.read(name)) for name in self.names)

    def compile(self, text: str, file: str, line: int = 1) -> types.CodeType:
        """Compile a text whose first line is that line of a file, and have tracebacks show it."""
        self.files.add(file)
        show(text, file, line)
        padded = "\n" * (line - 1) + text
        tree = ast.parse(padded, file)
        self._guarded.setdefault(file, set()).update(_guarded_lines(tree))
        return compile(tree, file, "exec", dont_inherit=True)

    def is_own(self, frame: types.FrameType | None) -> bool:
        """Return whether a frame is the top of code that was sent: of a module, or of a class in it."""
        while frame is not None and frame.f_code.co_filename in self.files:
            if frame.f_code.co_name == "<module>":
                return True
            if frame.f_code.co_flags & inspect.CO_OPTIMIZED:
                return False  # a function's
            frame = frame.f_back  # a class's, which is executed where it stands
        return False

    def is_guarded(self, frame: types.FrameType) -> bool:
        """Return whether an import stands where its failure is expected: in a try that catches it."""
        return frame.f_lineno in self._guarded.get(frame.f_code.co_filename, ())


_EMPTY: Final = b"PK\x05\x06" + bytes(18)


def _folders_of(name: str) -> Iterator[str]:
    while name := name.rpartition("/")[0]:
        yield name


def _is_module(name: str) -> bool:
    return name.endswith(".py") and not name.startswith(OWN_FOLDER)


def show(text: str, file: str, line: int) -> None:
    """Have tracebacks show a text that is that part of a file."""
    known = linecache.cache.get(file)
    lines: list[str] = list(known[2]) if known is not None and len(known) == 4 else []
    added = text.splitlines(keepends=True)
    if added and not added[-1].endswith("\n"):
        added[-1] += "\n"
    lines += ["\n"] * (line - 1 + len(added) - len(lines))
    lines[line - 1 : line - 1 + len(added)] = added
    linecache.cache[file] = (sum(map(len, lines)), None, lines, file)


def _guarded_lines(tree: ast.Module) -> Iterator[int]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Try) and any(map(_catches_import_errors, node.handlers)):
            for statement in node.body:
                yield from range(statement.lineno, (statement.end_lineno or statement.lineno) + 1)


def _catches_import_errors(handler: ast.ExceptHandler) -> bool:
    kinds = handler.type.elts if isinstance(handler.type, ast.Tuple) else [handler.type]
    return any(kind is None or (isinstance(kind, ast.Name) and kind.id in _CATCHES) for kind in kinds)


class Finder:
    """Finds modules in the zip: a meta path finder and the loader of what it finds."""

    def __init__(self, sources: Sources) -> None:
        self._sources = sources

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: types.ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """Return where a module of the zip is."""
        base = name.replace(".", "/")
        loader: Any = self
        for file, is_package in ((f"{base}/__init__.py", True), (f"{base}.py", False)):
            if file in self._sources.names:
                spec = importlib.machinery.ModuleSpec(name, loader, origin=file, is_package=is_package)
                spec.has_location = True
                if is_package:
                    spec.submodule_search_locations = [base]
                return spec
        if base in self._sources.folders:
            spec = importlib.machinery.ModuleSpec(name, None, is_package=True)
            spec.submodule_search_locations = [base]
            return spec
        return None

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> None:
        """Have Python make the module."""

    def exec_module(self, module: types.ModuleType) -> None:
        """Execute a module's source in it."""
        exec(self.get_code(module.__name__), module.__dict__)

    def _code(self, file: str) -> types.CodeType:
        return self._sources.compile(self._text(file), file)

    def _text(self, file: str) -> str:
        return importlib.util.decode_source(self._sources.read(file))

    def get_source(self, name: str) -> str:
        """Return a module's text, for inspect and linecache."""
        return self._text(self._file(name))

    def get_code(self, name: str) -> types.CodeType:
        """Return a module's code."""
        return self._code(self._file(name))

    def get_filename(self, name: str) -> str:
        """Return what `__file__` of a module is."""
        return self._file(name)

    def is_package(self, name: str) -> bool:
        """Return whether a module is a package."""
        return self._file(name).endswith("/__init__.py")

    def _file(self, name: str) -> str:
        spec = self.find_spec(name, None)
        if spec is None or spec.origin is None:
            raise ImportError(f"no module {name} was sent", name=name)
        return spec.origin

    def get_data(self, path: str) -> bytes:
        """Return a file of the zip, for pkgutil."""
        try:
            return self._sources.read(path.lstrip("./"))
        except KeyError:
            raise FileNotFoundError(2, "no such file was sent", path) from None

    def get_resource_reader(self, name: str) -> "Resources":
        """Return what importlib.resources reads a package's files with."""
        return Resources(zipfile.Path(self._sources.archive, name.replace(".", "/") + "/"))


class Resources:
    """The files of a package, for importlib.resources."""

    def __init__(self, root: zipfile.Path) -> None:
        self._root = root

    def files(self) -> zipfile.Path:
        """Return the package's folder."""
        return self._root


class Importer:
    """The import statement of the sandbox: as ever, and a placeholder for what is missing at the top of sent code."""

    def __init__(self, sources: Sources) -> None:
        self._sources = sources
        self._original = builtins.__import__
        self._finder = Finder(sources)
        self._missing: dict[str, Placeholder] = {}

    def install(self) -> None:
        """Have Python import by it. What was sent comes after the standard library: nothing can stand before that."""
        sys.meta_path.append(self._finder)
        builtins.__import__ = self.load  # type: ignore[assignment]

    def uninstall(self) -> None:
        """Leave Python as it was."""
        sys.meta_path.remove(self._finder)
        builtins.__import__ = self._original

    def load(
        self,
        name: str,
        globals: dict[str, Any] | None = None,
        locals: dict[str, Any] | None = None,
        fromlist: Sequence[str] | None = (),
        level: int = 0,
    ) -> Any:
        """Import as the statement does."""
        try:
            return self._original(name, globals, locals, fromlist or (), level)
        except ModuleNotFoundError as error:
            frame = sys._getframe(1)
            is_ours = level > 0 or name.partition(".")[0] in self._sources.modules
            if is_ours or not self._sources.is_own(frame) or self._sources.is_guarded(frame):
                raise explained(error, name, is_ours) from None
        return self.placeholder(name) if fromlist else self.placeholder(name.partition(".")[0])

    def placeholder(self, name: str) -> Any:
        """Return what stands for a missing module. `import a.b` is given a, which has b as any other name."""
        if name not in self._missing:
            self._missing[name] = Placeholder(name, name, self._sources.is_own)
        return self._missing[name]


def explained(error: ModuleNotFoundError, name: str, is_ours: bool) -> ModuleNotFoundError:
    """Return the error with what the sandbox has to do with it."""
    if is_ours or error.name is None or not str(error).startswith("No module named"):
        return error
    what = f"{name} is not in the sandbox" if error.name == name else f"{name} needs {error.name}, which is not there"
    top = name.partition(".")[0]
    if top not in sys.stdlib_module_names:
        what += f"; a pure-Python package is sent with packages=[{top!r}]"
    return ModuleNotFoundError(f"No module named {error.name!r}: {what}", name=error.name, path=error.path)
