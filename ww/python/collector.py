"""Putting a zip of code together: which functions, modules, names and values it takes.

Holds the walk from a function to all that it needs; the form of what comes of it is specified in source.py. Must not
know calls or jobs: a job is whatever has `__ww_function__`.
"""

import ast
import io
import json
import sys
import threading
import types
import zipfile
from collections.abc import Iterable, Iterator
from itertools import chain
from typing import Any, Final

from ww.errors import NotSendable
from ww.python import definition, local
from ww.python.definition import Definition
from ww.python.sending import write_value

ZIP_BYTES_MAX: Final = 16 << 20
DATA_BYTES_MAX: Final = 8 << 20
MODULES_MAX: Final = 2_000
NAMES_MAX: Final = 10_000
_EPOCH: Final = (1980, 1, 1, 0, 0, 0)
_MISSING: Final = object()
# What the guest's own namespaces have.
_OF_IMPORT: Final = frozenset({
    "__annotations__", "__builtins__", "__cached__", "__file__", "__loader__", "__name__", "__package__", "__spec__",
})  # fmt: skip
_FIXED: Final = (int, float, complex, str, bytes, bool, type(None), type, types.FunctionType, types.ModuleType)
# inspect and linecache are not made for threads, and functions are seldom collected.
lock: Final = threading.RLock()


def function_of(value: Any) -> Any:
    """Return a job's function, and anything else as it is. A job is what has `__ww_function__`."""
    found = getattr(type(value), "__ww_function__", None)
    return value if found is None else value.__ww_function__()


def is_job(value: Any) -> bool:
    return hasattr(type(value), "__ww_function__")


def shown(function: Any) -> str:
    """Return how a function is called in messages."""
    name = getattr(function, "__qualname__", None) or type(function).__qualname__
    return "the lambda" if name.endswith("<lambda>") else str(name)


class _Space:
    """What is taken of one namespace, by name."""

    def __init__(self, name: str, names: dict[str, Any]) -> None:
        self.name = name
        self.names = names
        self.steps: list[dict[str, Any]] = []
        self.taken: set[str] = set()


class Collector:
    """Puts a zip together."""

    def __init__(self, packages: Iterable[str]) -> None:
        self.modules: set[str] = set()
        self.missing: set[tuple[str, str]] = set()
        self._entries: dict[str, bytes] = {}
        self._spaces: dict[int, _Space] = {}
        self._functions: dict[str, dict[str, Any]] = {}
        self._keys: dict[int, tuple[str, Any]] = {}
        self._packages = tuple(dict.fromkeys(packages))
        # What was looked at: is it the same the next time?
        self._seen: list[tuple[dict[str, Any], str, Any]] = []
        self._cells: list[tuple[Any, Any]] = []
        self._pickled: list[tuple[Any, bytes]] = []
        self._imports: dict[int, set[str]] = {}
        self._count = 0
        for name in self._packages:
            files = local.package_files(name, ZIP_BYTES_MAX)
            self._entries.update(files)
            self.modules.add(name)
        self._check_data()

    def knows(self, module: str) -> bool:
        """Whether a module, or space, was taken."""
        return module in self.modules or self._is_of_package(module) or module in self._space_names

    def find_class(self, module: str, qualname: str) -> type | None:
        """Return a class of what was taken, without asking anybody's code for it."""
        if not self.knows(module):
            return None
        spaces = [space.names for space in self._spaces.values() if space.name == module]
        names: Any = spaces[0] if spaces else vars(sys.modules[module]) if module in sys.modules else {}
        value: Any = None
        for part in qualname.split("."):
            value = names.get(part)
            names = type.__getattribute__(value, "__dict__") if isinstance(value, type) else {}
        return value if isinstance(value, type) else None

    @property
    def _space_names(self) -> set[str]:
        return {space.name for space in self._spaces.values()}

    def _check_data(self) -> None:
        data = sum(len(content) for path, content in self._entries.items() if not path.endswith(".py"))
        if data > DATA_BYTES_MAX:
            raise NotSendable(f"packages: their data files have {data} bytes, at most {DATA_BYTES_MAX} can be sent")

    # Functions.

    def name_of(self, function: Any) -> str:
        """Take a function; return the name by which the guest finds it."""
        module, qualname = getattr(function, "__module__", None), getattr(function, "__qualname__", None)
        is_named = isinstance(module, str) and isinstance(qualname, str)
        if is_named and function_of(_found(str(module), str(qualname))) is function:
            module, qualname = str(module), str(qualname)
            self._need_installed(module, shown(function))
            self.need(module, qualname)
            return f"{module}:{qualname}"
        if isinstance(function, types.FunctionType):
            return self._unnamed(function)
        if not callable(function):
            raise NotSendable(f"cannot send {type(function).__qualname__}: it cannot be called; expected a function")
        key = self._key(function, type(function).__module__, type(function).__qualname__)
        if key not in self._functions:
            self._functions[key] = {}
            self._functions[key] = {"pickle": self._pickle(function, shown(function))}
        return key

    def _key(self, function: Any, module: str, qualname: str) -> str:
        if id(function) not in self._keys:
            key, number = f"{module}:{qualname}", 1
            taken = {key for key, _ in self._keys.values()}
            while key in taken or (number == 1 and _found(module, qualname) is not None and "<" not in qualname):
                number += 1
                key = f"{module}:{qualname}#{number}"
            self._keys[id(function)] = key, function
        return self._keys[id(function)][0]

    def _unnamed(self, function: types.FunctionType) -> str:
        code, names = function.__code__, function.__globals__
        module = str(names.get("__name__"))
        key = self._key(function, module, function.__qualname__)
        if key in self._functions:
            return key
        found = definition.of_code(code, names)
        if found is None:
            raise NotSendable(f"cannot send {shown(function)}: {_why_without_source(code)}")
        said: dict[str, Any] = {"name": code.co_name, "qualname": function.__qualname__}
        self._functions[key] = said
        if _is_whole(module, names):
            self._need_installed(module, shown(function))
            self.module(module)
            said["module"] = module
        else:
            said["space"] = self._take(names, chain(*definition.globals_of(code)))
            self._take_imports(self._spaces[id(names)], found.text)
        said |= {"source": self._entry(found.text.encode(), "py"), "file": found.file, "line": found.line}
        said["self"], said["cells"] = [], {}
        for name, cell in zip(code.co_freevars, function.__closure__ or (), strict=True):
            try:
                value = cell.cell_contents
            except ValueError:
                continue
            self._cells.append((cell, value))
            if value is function:
                said["self"].append(name)
            else:
                said["cells"][name] = self._pickle(value, f"{name}, which {shown(function)} uses")
        defaults = (function.__defaults__, function.__kwdefaults__)
        said["defaults"] = "" if defaults == (None, None) else self._pickle(defaults, f"defaults of {shown(function)}")
        return key

    # Modules.

    def need(self, module: str, name: str) -> None:
        """Take what a reference to module and name needs."""
        if module == "__main__" and (main := sys.modules.get(module)) is not None:
            self._take(vars(main), [name.partition(".")[0]])
        else:
            self.module(module)

    def module(self, name: str) -> None:
        """Take a local module, and those that it imports."""
        waiting = [name]
        while waiting:
            name = waiting.pop()
            if name in self.modules or self._is_of_package(name) or not local.is_local(name):
                continue
            self.modules.add(name)
            if len(self.modules) > MODULES_MAX:
                raise NotSendable(f"cannot send {name}: it imports more than {MODULES_MAX} modules")
            waiting += local.parents_of(name)
            if (found := local.source_of(name)) is not None:
                self._entries[found.path] = found.text.encode()
                waiting += local.imports_of(found, name)

    def _is_of_package(self, name: str) -> bool:
        return any(name == each or name.startswith(each + ".") for each in self._packages)

    def _need_installed(self, module: str, what: str) -> None:
        """Refuse what the guest cannot have, since it is installed here alone."""
        if module == "__main__" or local.is_standard(module) or self._is_of_package(module) or local.is_local(module):
            return
        top = module.partition(".")[0]
        if local.spec_of(module) is None:
            raise NotSendable(f"cannot send {what}: no file has its module, {module}")
        raise NotSendable(
            f"cannot send {what}: it is of {top}, which is not in the sandbox; expected packages=[{top!r}], "
            "if that is pure Python"
        )

    def refer(self, value: Any) -> None:
        """Take what a pickle refers to."""
        value = function_of(value)
        module, qualname = getattr(value, "__module__", None), getattr(value, "__qualname__", None)
        if isinstance(module, str) and isinstance(qualname, str) and not local.is_standard(module):
            self._need_installed(module, f"{module}.{qualname}")
            self.need(module, qualname)

    def refer_later(self, value: Any) -> None:
        """Note what a pickle refers to that was not taken."""
        value = function_of(value)
        module, qualname = getattr(value, "__module__", None), getattr(value, "__qualname__", None)
        if not isinstance(module, str) or not isinstance(qualname, str) or module in self.modules or "<" in qualname:
            return  # pickle refuses what is inside of a function
        if module == "__main__":
            name = qualname.partition(".")[0]
            main = self._spaces.get(id(vars(sys.modules["__main__"])))
            if main is None or name not in main.taken:
                self.missing.add((module, name))
        elif not local.is_standard(module) and not self._is_of_package(module):
            self._need_installed(module, f"{module}.{qualname}")
            self.missing.add((module, qualname))

    # Spaces.

    def _take(self, names: dict[str, Any], wanted: Iterable[str]) -> str:
        space = self._spaces.get(id(names))
        if space is None:
            main = sys.modules.get("__main__")
            is_main = main is not None and vars(main) is names
            name = "__main__" if is_main else f"__ww_space_{len(self._spaces) + 1}__"
            space = self._spaces[id(names)] = _Space(name, names)
        for each in wanted:
            self._add(space, each)
        return space.name

    def _add(self, space: _Space, name: str) -> None:
        """Take one global name, behind what it needs when it is defined and before what it needs when it is called."""
        # Not by recursion: a chain of functions may be longer than Python's stack.
        waiting = [self._added(space, name)]
        while waiting:
            needed = next(waiting[-1], None)
            if needed is None:
                waiting.pop()
            else:
                waiting.append(self._added(space, needed))

    def _added(self, space: _Space, name: str) -> Iterator[str]:
        """Take a name, and yield each that has to be taken at that point."""
        if name in space.taken:
            return
        value = space.names.get(name, _MISSING)
        self._seen.append((space.names, name, value))
        if value is _MISSING or name in _OF_IMPORT:
            return  # a builtin, or nothing: the guest says so
        space.taken.add(name)
        if len(space.taken) > NAMES_MAX:
            raise NotSendable(f"cannot send {name}: more than {NAMES_MAX} names are used")
        if isinstance(value, types.ModuleType):
            self._add_module(space, name, value)
        elif not self._add_elsewhere(space, name, value):
            if found := self._sources(space, name, value):
                for each in found:
                    yield from self._add_text(space, each)
            else:
                self._add_value(space, name, value)

    def _add_module(self, space: _Space, name: str, value: types.ModuleType) -> None:
        space.steps.append({"import": name, "module": value.__name__})
        self.module(value.__name__)
        # `import a.b` binds a alone.
        for other in sorted(sys.modules):
            if other.startswith(value.__name__ + ".") and self._is_imported(space, other):
                space.steps.append({"import": "", "module": other})
                self.module(other)

    def _is_imported(self, space: _Space, module: str) -> bool:
        key = id(space.names)
        if key not in self._imports:
            self._imports[key] = {
                alias.name
                for _, text in definition.texts_of_space(space.names)
                for node in _walk(text)
                if isinstance(node, ast.Import)
                for alias in node.names
            }
        return module in self._imports[key]

    def _add_elsewhere(self, space: _Space, name: str, value: Any) -> bool:
        """Take what another module has under a name."""
        module, qualname = getattr(value, "__module__", None), getattr(value, "__qualname__", None)
        if not isinstance(value, type | types.FunctionType | types.BuiltinFunctionType) and not is_job(value):
            # Objects may say so of themselves: those that are the very thing that a module has.
            qualname = qualname or getattr(value, "__name__", None)
        if not isinstance(module, str) or not isinstance(qualname, str) or module == space.names.get("__name__"):
            return False
        if module.split(".")[0] == "ww":
            if getattr(sys.modules.get("ww"), qualname, None) is not value:
                return False
            module = "ww"
        if _found(module, qualname) is not value:
            return False
        space.steps.append({"from": name, "module": module, "qualname": qualname})
        self.module(module)
        return True

    def _sources(self, space: _Space, name: str, value: Any) -> list[Definition]:
        """Return the source of what is defined here: a function, a class, what a decorator made of them."""
        function = function_of(value)
        if getattr(function, "__module__", None) != space.names.get("__name__"):
            return []
        qualname = getattr(function, "__qualname__", None)
        is_function = isinstance(function, types.FunctionType)
        if not isinstance(function, type) and (qualname != name or not callable(function)):
            return []
        if is_job(value) and qualname != name:
            return []
        is_wrapped = is_job(value) or not is_function or hasattr(function, "__wrapped__")
        found = definition.of_name(name, space.names, _code_of(function, space.names), is_wrapped=is_wrapped)
        if not found and not is_function:
            raise NotSendable(f"cannot send {name}: its source is not there")
        return found

    def _add_text(self, space: _Space, found: Definition) -> Iterator[str]:
        padded = "\n" * (found.line - 1) + found.text
        now, later = definition.globals_of(compile(padded, found.file, "exec", dont_inherit=True))
        yield from now
        path = self._entry(found.text.encode(), "py")
        space.steps.append({"source": path, "file": found.file, "line": found.line})
        self._take_imports(space, found.text)
        yield from later

    def _take_imports(self, space: _Space, text: str) -> None:
        """Take the local modules that functions of a space import themselves."""
        package = space.names.get("__package__") or ""
        tree = definition.parse(text)
        for module in local.imports_in(tree, package):
            self.module(module)
        if package and "__package__" not in space.taken and any(_is_relative(node) for node in ast.walk(tree)):
            space.taken.add("__package__")
            self.module(package)
            self._add_value(space, "__package__", package)

    def _add_value(self, space: _Space, name: str, value: Any) -> None:
        if is_job(value):
            function = function_of(value)
            is_itself = getattr(function, "__globals__", None) is space.names and function.__qualname__ == name
            # By the name that it is granted by; its own it has not, where no source gives it that.
            key = self._unnamed(function) if is_itself else self.name_of(function)
            space.steps.append({"job": name, "key": key, "options": _options_of(value)})
        elif isinstance(value, types.FunctionType) and value.__globals__ is space.names:
            space.steps.append({"function": name, "key": self._unnamed(value)})
        else:
            path = self._pickle(value, f"{name}, which is used")
            space.steps.append({"value": name, "pickle": path})

    # Values and entries.

    def _persistent_id(self, value: Any) -> object:
        if is_job(value):
            return ("job", self.name_of(function_of(value)), _options_of(value))
        if isinstance(value, types.FunctionType) and _found(value.__module__, value.__qualname__) is not value:
            return ("function", self.name_of(value))
        if isinstance(value, types.ModuleType):
            self.module(value.__name__)
            return ("module", value.__name__)
        return None

    def _pickle(self, value: Any, what: str) -> str:
        content = write_value(value, self.refer, self._persistent_id, what)
        if not isinstance(value, _FIXED):
            self._pickled.append((value, content))
        return self._entry(content, "pickle")

    def _entry(self, content: bytes, ending: str) -> str:
        path = f".ww/{self._count}.{ending}"
        self._count += 1
        self._entries[path] = content
        return path

    def is_current(self) -> bool:
        """Whether all that was looked at is as it was."""
        with lock:
            if any(names.get(name, _MISSING) is not value for names, name, value in self._seen):
                return False
            if any(_content(cell) is not value for cell, value in self._cells):
                return False
            try:
                return all(
                    write_value(value, self.refer, self._persistent_id, "") == content
                    for value, content in list(self._pickled)
                )
            except NotSendable:
                return False

    def zip(self) -> bytes:
        """Return the zip: the same bytes for the same entries."""
        about = {
            "version": 1,
            "python": f"{sys.version_info[0]}.{sys.version_info[1]}",
            "spaces": {space.name: space.steps for space in self._spaces.values()},
            "functions": self._functions,
        }
        entries = self._entries | {"ww.json": json.dumps(about, sort_keys=True).encode()}
        file = io.BytesIO()
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as made:
            for path in sorted(entries):
                made.writestr(zipfile.ZipInfo(path, _EPOCH), entries[path], zipfile.ZIP_DEFLATED)
        content = file.getvalue()
        if len(content) > ZIP_BYTES_MAX:
            largest = max(entries, key=lambda path: len(entries[path]))
            raise NotSendable(
                f"cannot send the code: it has {len(content)} bytes, at most {ZIP_BYTES_MAX} can be sent; "
                f"the largest part is {largest} ({len(entries[largest])} bytes): send data as arguments"
            )
        return content


def _found(module: str, qualname: str) -> Any:
    """Return what a module has under a name; None where it has nothing."""
    value: Any = sys.modules.get(module)
    for part in qualname.split("."):
        value = getattr(value, part, None)
    return value


def _is_whole(module: str, names: dict[str, Any]) -> bool:
    """Whether a namespace is that of a module that can be imported."""
    found = sys.modules.get(module)
    return module != "__main__" and found is not None and vars(found) is names and local.spec_of(module) is not None


def _code_of(value: Any, names: dict[str, Any]) -> types.CodeType | None:
    """Return the code of a function, of what it wraps, or of a method that a class defines itself."""
    for _ in range(20):
        if not hasattr(value, "__wrapped__"):
            break
        value = value.__wrapped__
    if isinstance(value, type):
        # Not one that dataclass, namedtuple or another made.
        own = [each for each in vars(value).values() if isinstance(each, types.FunctionType)]
        own = [each for each in own if each.__qualname__ == f"{value.__qualname__}.{each.__code__.co_name}"]
    else:
        own = [value] if isinstance(value, types.FunctionType) else []
    for each in own:
        if each.__globals__ is names and definition.text_of(each.__code__.co_filename):
            return each.__code__
    return None


def _options_of(job: Any) -> dict[str, Any]:
    """Return what of a job's options counts where it calls others."""
    return {"trust": True} if getattr(getattr(job, "options", None), "trust", False) else {}


def _is_relative(node: ast.AST) -> bool:
    return isinstance(node, ast.ImportFrom) and node.level > 0


def _why_without_source(code: types.CodeType) -> str:
    file = definition.shown(code.co_filename)
    if code.co_name == "<lambda>" and definition.text_of(code.co_filename):
        return f"several lambdas stand in line {code.co_firstlineno} of {file}; expected one, or a def"
    if file == "<stdin>":
        return "its source came through a pipe or a prompt and is gone; expected a program in a file"
    return f"its source ({file}) is not there; expected a function that is defined in a file or a notebook"


def _content(cell: Any) -> Any:
    try:
        return cell.cell_contents
    except ValueError:
        return _MISSING


def _walk(text: str) -> Iterable[ast.AST]:
    try:
        return ast.walk(definition.parse(text))
    except (SyntaxError, ValueError):
        return ()
