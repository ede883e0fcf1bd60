"""Where the source of a function or class is: in files, zips, cells of notebooks, prompts and what was piped in.

Holds how text is found and which part of it defines what. Must not know what of it travels: source.py.
"""

import __future__

import ast
import contextlib
import dis
import functools
import inspect
import linecache
import os
import re
import stat
import sys
import types
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

TEXT_BYTES_MAX: Final = 8 << 20
_PARSE_AGAIN: Final = 20
_Function = ast.FunctionDef | ast.AsyncFunctionDef
# What only code at the top asks for by this instruction; in functions it is LOAD_GLOBAL.
_LOADS: Final = frozenset({"LOAD_GLOBAL", "LOAD_NAME", "LOAD_FROM_DICT_OR_GLOBALS"})
_NEWLINE: Final = re.compile("\r\n|\r|\n")
_INLINE: Final = frozenset({"<listcomp>", "<setcomp>", "<dictcomp>", "<genexpr>"})


@dataclass(frozen=True, slots=True)
class Definition:
    """A piece of source."""

    text: str
    file: str
    """As tracebacks show it: no path of this machine."""
    line: int
    """Where the text begins."""


def text_of(file: str, space: dict[str, Any] | None = None) -> str:
    """Return the whole text that a code object's file names; "" where nobody has it."""
    linecache.checkcache(file)
    if lines := linecache.getlines(file, space):
        return "".join(lines)
    if file == "<stdin>":
        return _of_stdin()
    if file == "<string>" and "-c" in (words := sys.orig_argv)[1:-1]:
        return words[words.index("-c") + 1] + "\n"
    return ""


def _of_stdin() -> str:
    """Return a program that is redirected from a file; what comes through a pipe is gone when it was read."""
    try:
        if not stat.S_ISREG(os.fstat(0).st_mode):
            return ""
        return os.pread(0, TEXT_BYTES_MAX, 0).decode()
    except (OSError, UnicodeDecodeError):
        return ""


def shown(file: str) -> str:
    return file if file.startswith("<") else os.path.basename(file)


def texts_of_space(space: dict[str, Any]) -> list[tuple[str, str]]:
    """Return the texts that a namespace may have come of, as file and text, the latest first."""
    if file := space.get("__file__"):
        return [(file, text_of(file, space))]
    # Cells and lines of prompts, in the order in which they were executed.
    files = [name for name in list(linecache.cache) if _is_typed(name)]
    return [(name, text) for name in [*reversed(files), "<stdin>", "<string>"] if (text := text_of(name))]


def _is_typed(name: str) -> bool:
    return name.startswith(("<ipython-input", "<python-input", "<input", "<stdin>-")) or "ipykernel_" in name


def parse(text: str) -> ast.Module:
    """Return the tree of a text; raises as ast.parse does."""
    for _ in range(_PARSE_AGAIN):
        # Python 3.11 counts how deep it is for all threads together, and fails when another one parses, which printing
        # a traceback does.
        with contextlib.suppress(SystemError):
            return ast.parse(text)
    return ast.parse(text)


@functools.lru_cache(maxsize=64)
def _tree(text: str) -> ast.Module | None:
    try:
        return parse(text)
    except (SyntaxError, ValueError, RecursionError):
        return None


def first_line(node: ast.AST) -> int:
    """Return where a statement begins, with its decorators."""
    decorators = getattr(node, "decorator_list", None)
    line: int = min([node.lineno, *(each.lineno for each in decorators or ())])  # type: ignore[attr-defined]
    return line


def of_code(code: types.CodeType, space: dict[str, Any]) -> Definition | None:
    """Return text whose compilation holds the code of that name before any other: see source.py, Functions."""
    text = text_of(code.co_filename, space)
    if (tree := _tree(text)) is None:
        return None
    if code.co_name == "<lambda>":
        return _of_lambda(tree, text, code)
    for node in ast.walk(tree):
        if isinstance(node, _Function) and node.name == code.co_name and first_line(node) == code.co_firstlineno:
            lines = _lines(text, node.lineno, node)
            line = node.lineno
            if node.col_offset:
                lines, line = [_wrapper(code.co_freevars) + "\n", *lines], line - 1
            return _with_futures(Definition("".join(lines), shown(code.co_filename), line), tree, code.co_flags)
    return None


def _wrapper(free: tuple[str, ...]) -> str:
    return f"def __ww_outer__({', '.join(free)}):"


def _of_lambda(tree: ast.Module, text: str, code: types.CodeType) -> Definition | None:
    found = [node for node in ast.walk(tree) if isinstance(node, ast.Lambda) and node.lineno == code.co_firstlineno]
    if len(found) > 1:
        found = _closest(found, code)
    if len(found) != 1 or (segment := ast.get_source_segment(text, found[0])) is None:
        return None
    arguments = found[0].args
    if any(isinstance(each, ast.Lambda) for default in _defaults(arguments) for each in ast.walk(default)):
        # A default that is a lambda too would be found before.
        nothing = ast.Constant(None)
        arguments = ast.arguments(
            **dict(ast.iter_fields(arguments))
            | {"defaults": [nothing] * len(arguments.defaults)}
            | {"kw_defaults": [each and nothing for each in arguments.kw_defaults]}
        )
        segment = ast.unparse(ast.Lambda(arguments, found[0].body))
    one = f"{_wrapper(code.co_freevars)} return ({segment})\n"
    return _with_futures(Definition(one, shown(code.co_filename), found[0].lineno), tree, code.co_flags)


def _defaults(arguments: ast.arguments) -> list[ast.expr]:
    return [*arguments.defaults, *(each for each in arguments.kw_defaults if each is not None)]


def _closest(found: list[ast.Lambda], code: types.CodeType) -> list[ast.Lambda]:
    """Choose among several lambdas by the columns of their code."""
    places = [
        ((line, column), (end_line, end_column))
        for line, end_line, column, end_column in code.co_positions()
        if line is not None and column is not None and end_line is not None and end_column is not None and end_column
    ]
    if not places:
        return found
    start, end = min(place[0] for place in places), max(place[1] for place in places)

    def holds(node: ast.Lambda) -> bool:
        body = node.body
        last = (body.end_lineno or 0, body.end_col_offset or 0)
        return (body.lineno, body.col_offset) <= start and end <= last

    def size(node: ast.Lambda) -> tuple[int, int]:
        body = node.body
        return (body.end_lineno or 0) - body.lineno, (body.end_col_offset or 0) - body.col_offset

    return sorted((node for node in found if holds(node)), key=size)[:1]


def of_name(
    name: str, space: dict[str, Any], code: types.CodeType | None = None, *, is_wrapped: bool = True
) -> list[Definition]:
    """Return what gives a global name of a script, notebook or prompt what it has: the last statement that binds it.

    Before it stand those that it builds on: `f = cache(f)` is nothing without `def f`. code is the function's or that
    of a method of the class, where it has one: it says which text and which of several. is_wrapped: it may be what
    later statements made of that function.
    """
    texts = texts_of_space(space)
    if code is not None and (text := text_of(code.co_filename, space)):
        texts = [(code.co_filename, text), *texts]
    for file, text in texts:
        if (tree := _tree(text)) is None:
            continue
        found = [node for node in _at_top(tree.body) if name in _bound(node)]
        if not found:
            continue
        last = first = len(found) - 1
        if code is not None and file == code.co_filename:
            line = code.co_firstlineno
            here = [at for at, node in enumerate(found) if first_line(node) <= line <= (node.end_lineno or 0)]
            last = first = here[-1] if here else last
            while is_wrapped and last + 1 < len(found) and _reads(found[last + 1], name):
                last += 1
        while first > 0 and _reads(found[first], name):
            first -= 1
        return [_with_futures(_statement(text, node, file), tree, 0) for node in found[first : last + 1]]
    return []


def _reads(node: ast.stmt, name: str) -> bool:
    """Whether an assignment to a name begins with what the name had before."""
    value = node.value if isinstance(node, ast.Assign | ast.AnnAssign) else None
    return value is not None and any(isinstance(each, ast.Name) and each.id == name for each in ast.walk(value))


def _statement(text: str, node: ast.stmt, file: str) -> Definition:
    line = first_line(node)
    if not isinstance(node, _Function | ast.ClassDef):
        # Other statements may stand in its lines.
        return Definition((ast.get_source_segment(text, node) or "") + "\n", shown(file), line)
    lines = _lines(text, line, node)
    if node.col_offset:
        lines, line = ["if True:\n", *lines], line - 1
    return Definition("".join(lines), shown(file), line)


def _at_top(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """Yield statements that are executed in the namespace itself, those in if, try and with too."""
    for node in body:
        yield node
        for name in ("body", "orelse", "finalbody"):
            if not isinstance(node, _Function | ast.ClassDef):
                yield from _at_top(getattr(node, name, []))
        for handler in getattr(node, "handlers", []):
            yield from _at_top(handler.body)


def _bound(node: ast.stmt) -> set[str]:
    if isinstance(node, _Function | ast.ClassDef):
        return {node.name}
    targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
    return {each.id for target in targets for each in ast.walk(target) if isinstance(each, ast.Name)}


def _lines(text: str, first: int, node: ast.stmt) -> list[str]:
    # Not splitlines, for which a form feed and others end a line too.
    return [line + "\n" for line in _NEWLINE.split(text)[first - 1 : node.end_lineno]]


def _with_futures(found: Definition, tree: ast.Module, flags: int) -> Definition:
    """Have the text compiled as the whole was."""
    names = {"annotations"} if flags & __future__.annotations.compiler_flag else set()
    for node in tree.body:
        if isinstance(node, ast.ImportFrom) and node.module == "__future__":
            names.update(alias.name for alias in node.names)
    if not names:
        return found
    first = f"from __future__ import {', '.join(sorted(names))}\n"
    return Definition(first + found.text, found.file, max(1, found.line - 1))


def globals_of(code: types.CodeType) -> tuple[list[str], list[str]]:
    """Return the global names that code asks for: when it is executed, and when functions in it are called."""
    now: dict[str, None] = {}
    later: dict[str, None] = {}
    _collect(code, now, later)
    return list(now), [name for name in later if name not in now]


def _collect(code: types.CodeType, now: dict[str, None], later: dict[str, None]) -> None:
    for each in dis.get_instructions(code):
        if each.opname in _LOADS and isinstance(each.argval, str):
            now[each.argval] = None
    for inner in code.co_consts:
        if isinstance(inner, types.CodeType):
            # A class's body is executed with what is around it; a function's when it is called.
            is_executed = not inner.co_flags & inspect.CO_NEWLOCALS or inner.co_name in _INLINE
            _collect(inner, now if is_executed else later, later)
