"""What of a function travels: the zip of code that the guest's importer reads. This text is its specification.

The zip (stored or deflated entries, at most 16 MiB, names as on sys.path, the same bytes for the same code) holds

- sources of whole modules: `a.py`, `a/__init__.py`, `a/b.py`. A folder without `__init__.py` is a namespace package.
  They are imported when something asks for them, under their own names. Other entries that stand beside them are data
  of packages that were named, for importlib.resources and pkgutil.get_data.
- `ww.json`, UTF-8, which says the rest, and entries under `.ww/`, which it names.

`ww.json` is an object:

    {"version": 1,
     "python": "3.11",                    the interpreter that it comes from
     "spaces": {NAME: [STEP, ...]},       namespaces that are put together of parts
     "functions": {KEY: FUNCTION}}        functions that no module has under a name

**Spaces.** Code of a script, of a notebook or of a prompt is no module that could be imported: that would do all its
work again. Of it travels what is used, by name. The guest makes a module object NAME (`__main__`, for others
`__ww_space_1__` and so on), puts it into sys.modules with `__name__` = NAME, and does the steps in their order:

    {"import": "np", "module": "numpy"}                       np = the module numpy; with "" it is only imported
    {"from": "root", "module": "math", "qualname": "sqrt"}    root = math.sqrt; qualname may have dots
    {"source": ".ww/0.py", "file": "count.py", "line": 12}    execute that text, whose first line is line 12 of the file
    {"value": "limit", "pickle": ".ww/1.pickle"}              limit = what is unpickled
    {"function": "cube", "key": KEY}                          cube = the function of that name, see Names
    {"job": "cubes", "key": KEY, "options": {}}               cubes = ww.job(**options)(that function)

An import or a value that fails because the guest lacks a module binds a placeholder, which fails when it is used.
`file` is what tracebacks show; texts of the same file lie at their lines of it, so that its lines can be shown. A text
is compiled with as many empty lines before it as put it there.

**Functions.** KEY is `module:qualname` of the function, with `#2` and so on where several have one name. FUNCTION is

    {"space": "__main__" or "module": "a.b",                  whose namespace are its globals
     "source": ".ww/2.py", "file": "count.py", "line": 7,     the text, as above
     "name": "inner", "qualname": "outer.<locals>.inner",
     "cells": {"n": ".ww/3.pickle"},                          each free variable's value
     "self": ["inner"],                                       free variables that are this function itself
     "defaults": ".ww/4.pickle"}                              of (__defaults__, __kwdefaults__); "" for (None, None)

Its text is compiled and not executed: the code of KEY is the first code object named `name` among its constants, looked
through in order, each before what is in it. The function is made of that code, its namespace, defaults and cells by
types.FunctionType: neither decorators, defaults nor annotations are evaluated. It exists, with empty cells, before its
cells are unpickled, so that functions may refer to each other. "qualname" is the function's __qualname__.
Or it is `{"pickle": ".ww/5.pickle"}`: something else that can be called (functools.partial, a bound method).

**Pickles** are of protocol 5, read with find_class as ever, and with persistent_load for three kinds of tuples:
`("function", KEY)` is the function of that name (see Names), `("job", KEY, options)` is ww.job(**options) of it,
`("module", NAME)` that module, or a placeholder.

**Names.** What is called, and granted, is named as `module:qualname`. It is looked up in "functions" first; otherwise
it is that attribute of that module, a space's included, and where that is a job the job's function. A job that
is made in the guest has the name of the function it is made of, so its `__module__` and `__qualname__`.

Must not know clusters, futures or the guest.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ww.python import request
from ww.python.collector import Collector, function_of, lock
from ww.python.sending import Arguments, argument_pickler, explain


@dataclass(frozen=True, slots=True)
class Code:
    """What of functions travels, and whether it still is what they are."""

    names: Mapping[int, str] = field(repr=False)
    """What the functions that were asked for are called, by their id."""
    content: bytes = field(repr=False)
    """The zip."""
    digest: str
    extras: frozenset[tuple[str, str]] = field(repr=False)
    """What was asked for beside the functions."""
    _collector: Collector = field(repr=False)
    _pickler: Any = field(repr=False)

    def name_of(self, function: Any) -> str:
        """Return what a function, or job, that was asked for is called."""
        return self.names[id(function_of(function))]

    def is_current(self) -> bool:
        """Whether nothing that was taken by value or by name has changed since."""
        return self._collector.is_current()

    def knows(self, module: str) -> bool:
        """Whether a module, or space, is in the zip."""
        return self._collector.knows(module)

    def find_class(self, module: str, qualname: str) -> type | None:
        """Return a class that the zip has too, as it is here: imports nothing, runs nothing."""
        return self._collector.find_class(module, qualname)

    def write_call(self, args: Sequence[Any], kwargs: dict[str, Any], what: str, *, trust: bool) -> bytes:
        """Return the request for one call of what. NotSendable names what of it cannot travel.

        What it needs and is not in the zip is in `missing` then, and the zip has to be made anew.
        """
        try:
            return request.write_call(args, kwargs, trust=trust, pickler=self._pickler)
        except Exception as error:
            raise explain(error, [(args, kwargs)], self._pickler, what) from None

    def write_calls(self, calls: Sequence[Arguments], what: str, *, trust: bool) -> bytes:
        """Return the request for several calls."""
        try:
            return request.write_calls(calls, trust=trust, pickler=self._pickler)
        except Exception as error:
            raise explain(error, calls, self._pickler, what) from None

    @property
    def missing(self) -> set[tuple[str, str]]:
        """Modules and names of theirs that arguments need beside what is in the zip."""
        return self._collector.missing


def collect(functions: Sequence[Any], packages: Iterable[str] = (), extras: Iterable[tuple[str, str]] = ()) -> Code:
    """Return what travels so that functions, or jobs, can be called. extras: module and name of what it holds too.

    NotSendable names what cannot travel.
    """
    with lock:
        collector = Collector(packages)
        names = {id(function_of(each)): collector.name_of(function_of(each)) for each in functions}
        for module, name in extras:
            collector.need(module, name)
        content = collector.zip()
    pickler = argument_pickler(collector.refer_later)
    return Code(names, content, hashlib.sha256(content).hexdigest(), frozenset(extras), collector, pickler)
