"""What was sent, made callable: spaces, functions without a name, and what is found under a name.

source.py's docstring is the specification of the zip. Must not know requests nor results.
"""

import importlib
import io
import json
import pickle
import sys
import types
from collections.abc import Callable, Iterator
from typing import Any, Final

from ww.python.guest.imports import OWN_ENTRY, Importer, Sources

_VERSION: Final = 1
MakeJob = Callable[[Any, str, dict[str, Any]], Any]
"""Makes a job of a function, its name and its options."""


class Code:
    """The code of one zip."""

    def __init__(self, code: bytes, make_job: MakeJob) -> None:
        """code: the zip. make_job: what a job is here. Raises ValueError where the zip is none."""
        self.sources = Sources(code)
        self.importer = Importer(self.sources)
        self._make_job = make_job
        about = json.loads(self.sources.read(OWN_ENTRY)) if OWN_ENTRY in self.sources.names else {}
        version = about.get("version", _VERSION)
        if version != _VERSION:
            raise ValueError(f"the code is in version {version} of its format: expected {_VERSION}")
        self._spaces: dict[str, list[dict[str, Any]]] = about.get("spaces", {})
        self._functions: dict[str, dict[str, Any]] = about.get("functions", {})
        self._made: dict[str, Any] = {}
        self._keys: dict[int, str] = {}

    def begin(self) -> None:
        """Make the spaces. Before this nothing of the code is executed."""
        self.importer.install()
        modules = {name: types.ModuleType(name) for name in self._spaces}
        for module in modules.values():
            module.__dict__["__builtins__"] = __builtins__
        sys.modules.update(modules)
        for name, steps in self._spaces.items():
            for step in steps:
                self._do(step, vars(modules[name]))

    def end(self) -> None:
        """Leave Python as it was, for tests."""
        self.importer.uninstall()
        for name in [*self._spaces, *self.sources.modules]:
            for loaded in [one for one in sys.modules if one == name or one.startswith(f"{name}.")]:
                del sys.modules[loaded]

    def is_shipped(self, kind: type) -> bool:
        """Return whether a class is of a module that was sent, and is found there."""
        module = kind.__module__
        if module not in self._spaces and module.partition(".")[0] not in self.sources.modules:
            return False
        return self.find_class(module, kind.__qualname__) is kind

    def find_class(self, module: str, name: str) -> type | None:
        """Return a class of a module that was sent; importing nothing."""
        if module not in self._spaces and module.partition(".")[0] not in self.sources.modules:
            return None
        found: Any = sys.modules.get(module)
        for part in name.split("."):
            found = vars(found).get(part) if isinstance(found, types.ModuleType | type) else None
        return found if isinstance(found, type) else None

    def _do(self, step: dict[str, Any], names: dict[str, Any]) -> None:
        if "source" in step:
            exec(self._compiled(step), names)
        elif "import" in step:
            module = self._module(step["module"])
            if step["import"]:
                names[step["import"]] = module
        elif "from" in step:
            names[step["from"]] = self._attribute(step["module"], step["qualname"])
        elif "value" in step:
            try:
                names[step["value"]] = self._unpickled(step["pickle"])
            except ModuleNotFoundError as error:
                names[step["value"]] = self.importer.placeholder(error.name or step["value"])
        elif "function" in step:
            names[step["function"]] = self.find(step["key"])
        elif "job" in step:
            names[step["job"]] = self._job(step["key"], step["options"])
        else:
            raise ValueError("the code has a step that is none")

    def _module(self, name: str) -> Any:
        try:
            return importlib.import_module(name)
        except ModuleNotFoundError as error:
            if error.name is not None and error.name.partition(".")[0] in self.sources.modules:
                raise
            return self.importer.placeholder(name)

    def _attribute(self, module: str, name: str) -> Any:
        found = self._module(module)
        for part in name.split("."):
            found = getattr(found, part)
        return found

    def _compiled(self, said: dict[str, Any]) -> types.CodeType:
        text = self.sources.read(said["source"]).decode()
        return self.sources.compile(text, said["file"], said["line"])

    def _unpickled(self, entry: str) -> Any:
        return self.unpickler(io.BytesIO(self.sources.read(entry))).load()

    def unpickler(self, file: Any, *, buffers: Any = None) -> pickle.Unpickler:
        """Return what reads pickles that may name functions and jobs of this code."""
        reader = _Unpickler(file, buffers=buffers)
        reader.code = self
        return reader

    def refer(self, reference: Any) -> Any:
        """Return what a pickle names."""
        match reference:
            case ("function", str(key)):
                return self.find(key)
            case ("job", str(key), dict(options)):
                return self._job(key, options)
            case ("module", str(name)):
                return self._module(name)
        raise pickle.UnpicklingError("a pickle names something that is no function")

    def _job(self, key: str, options: dict[str, Any]) -> Any:
        return self._make_job(self.find(key), key, options)

    def name_of(self, function: Any) -> str:
        """Return the name that a function has outside: what is called and granted by."""
        return self._keys.get(id(function)) or f"{function.__module__}:{function.__qualname__}"

    def find(self, name: str) -> Any:
        """Return the function of a name. Raises LookupError where there is none."""
        if name in self._made:
            return self._made[name]
        if name in self._functions:
            return self._make(name, self._functions[name])
        module, colon, qualified = name.partition(":")
        if not colon:
            raise LookupError(f"{name} names no function: expected module:name")
        found: Any = importlib.import_module(module)
        for part in qualified.split("."):
            found = getattr(found, part, None)
        if hasattr(type(found), "__ww_function__"):
            found = found.__ww_function__()
        if not callable(found):
            raise LookupError(f"the code that was sent has no function {name}")
        return found

    def _make(self, key: str, said: dict[str, Any]) -> Any:
        if "pickle" in said:
            self._made[key] = self._unpickled(said["pickle"])
            self._keys[id(self._made[key])] = key
            return self._made[key]
        names = vars(sys.modules[said["space"]] if "space" in said else importlib.import_module(said["module"]))
        code = next((one for one in _inner(self._compiled(said)) if one.co_name == said["name"]), None)
        if code is None:
            raise LookupError(f"the code that was sent has no function {key}")
        cells = {name: types.CellType() for name in code.co_freevars}
        function = types.FunctionType(code, names, code.co_name, None, tuple(cells.values()))
        function.__qualname__ = said["qualname"]
        self._made[key] = function  # before its cells: they may refer to it
        self._keys[id(function)] = key
        for name in said["self"]:
            cells[name].cell_contents = function
        for name, entry in said["cells"].items():
            cells[name].cell_contents = self._unpickled(entry)
        if said["defaults"]:
            function.__defaults__, function.__kwdefaults__ = self._unpickled(said["defaults"])
        return function


class _Unpickler(pickle.Unpickler):
    code: Code

    def persistent_load(self, pid: Any) -> Any:
        return self.code.refer(pid)


def _inner(code: types.CodeType) -> Iterator[types.CodeType]:
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield constant
            yield from _inner(constant)
