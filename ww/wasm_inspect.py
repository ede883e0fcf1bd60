"""What a WebAssembly module is, from its bytes alone: imports, exports, and which kind of guest it makes.

Holds a reader of the binary format and the rule that picks the kind. It compiles nothing and runs on the gateway
against bytes of strangers: linear in their size, no recursion, no error but BadModule. Whether the code inside is valid
is for the compiler to say, in a child process of a worker (sandbox/). Components: component_inspect.py.
Source: WebAssembly Core Specification 2.0, 5 (Binary Format); WASI preview 1, witx.
"""

import itertools
import mmap
import re
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from ww.errors import BadModule
from ww.wasm_binary import Reader, shown

_MAGIC: Final = b"\0asm"
_MODULE_VERSION: Final = b"\1\0\0\0"
_COMPONENT_VERSION: Final = b"\x0d\0\1\0"
_VALUE_TYPES: Final = {
    0x7F: "i32",
    0x7E: "i64",
    0x7D: "f32",
    0x7C: "f64",
    0x7B: "v128",
    0x70: "funcref",
    0x6F: "externref",
}
_NUMBERS: Final = frozenset({"i32", "i64", "f32", "f64"})
# What compilers make and workers do not run, so that it is refused here in its own name.
_OF_PROPOSALS: Final = {
    "exceptions": {0x69, 0x74},
    "garbage collection": {0x63, 0x64, 0x6A, 0x6B, 0x6C, 0x6D, 0x6E, 0x71, 0x72, 0x73, 0x77, 0x78},
}
_GC_TYPES: Final = frozenset({0x4E, 0x4F, 0x50, 0x5E, 0x5F})
# The instruction, and the first byte of the number of its memory, which is 0 in one form or another.
_MEMORY_GROW: Final = re.compile(b"\x40[\x00\x80]")
_PAGE_BYTES: Final = 1 << 16
# Compilers export a few functions, hostile modules a hundred thousand, which as objects are a gigabyte.
CALLABLE_MAX: Final = 5_000
_MEANT: Final = ("_initialize", "_start", "ProcessStdio", "run")
_LIMITS_HAVE_MAXIMUM, _LIMITS_SHARED, _LIMITS_64, _LIMITS_PAGE_SIZE = 1, 2, 4, 8
_KINDS: Final = {0: "function", 1: "table", 2: "memory", 3: "global", 4: "tag"}
_SECTIONS: Final = {
    1: "type", 2: "import", 3: "function", 4: "table", 5: "memory", 6: "global", 7: "export", 8: "start", 9: "element",
    10: "code", 11: "data", 12: "data count", 13: "tag",
}  # fmt: skip
# Where each section stands among the others; the numbers were given out in another order.
_ORDER: Final = {number: place for place, number in enumerate((1, 2, 3, 4, 5, 13, 6, 7, 8, 9, 12, 10, 11))}

# i = i32, I = i64; every function returns an errno (i32), but for the two at the end.
_WASI: Final = {
    "args_get": "ii", "args_sizes_get": "ii", "clock_res_get": "ii", "clock_time_get": "iIi", "environ_get": "ii",
    "environ_sizes_get": "ii", "fd_advise": "iIIi", "fd_allocate": "iII", "fd_close": "i", "fd_datasync": "i",
    "fd_fdstat_get": "ii", "fd_fdstat_set_flags": "ii", "fd_fdstat_set_rights": "iII", "fd_filestat_get": "ii",
    "fd_filestat_set_size": "iI", "fd_filestat_set_times": "iIIi", "fd_pread": "iiiIi", "fd_prestat_dir_name": "iii",
    "fd_prestat_get": "ii", "fd_pwrite": "iiiIi", "fd_read": "iiii", "fd_readdir": "iiiIi", "fd_renumber": "ii",
    "fd_seek": "iIii", "fd_sync": "i", "fd_tell": "ii", "fd_write": "iiii", "path_create_directory": "iii",
    "path_filestat_get": "iiiii", "path_filestat_set_times": "iiiiIIi", "path_link": "iiiiiii",
    "path_open": "iiiiiIIii", "path_readlink": "iiiiii", "path_remove_directory": "iii", "path_rename": "iiiiii",
    "path_symlink": "iiiii", "path_unlink_file": "iii", "poll_oneoff": "iiii", "proc_raise": "i", "random_get": "ii",
    "sched_yield": "", "sock_accept": "iii", "sock_recv": "iiiiii", "sock_send": "iiiii", "sock_shutdown": "ii",
    "proc_exit": "i",
}  # fmt: skip
_WASI_MODULE: Final = "wasi_snapshot_preview1"


@dataclass(frozen=True, slots=True)
class FunctionType:
    """The types a function takes and returns."""

    parameters: tuple[str, ...]
    results: tuple[str, ...]

    def __str__(self) -> str:
        return f"({', '.join(self.parameters)}) -> ({', '.join(self.results)})"


@dataclass(frozen=True, slots=True)
class Import:
    """What a module wants from its host."""

    module: str
    name: str
    kind: str
    """function, table, memory, global or tag."""
    signature: FunctionType | None
    """Of a function."""


@dataclass(frozen=True, slots=True)
class Export:
    """What a module offers."""

    name: str
    kind: str
    signature: FunctionType | None


@dataclass(frozen=True, slots=True)
class ModuleInfo:
    """A module from outside."""

    imports: tuple[Import, ...]
    exports: dict[str, Export]
    memory_bytes: int = 0
    """What its own memory begins with."""
    may_grow: bool = True
    """Whether the memory can become larger: False when no instruction of it can be memory.grow."""


class Kind(StrEnum):
    """How a guest is run."""

    FUNCTION = "function"
    """One of its exported functions is called with numbers."""
    COMMAND = "command"
    """Its `_start` is run as a program's main is."""
    REACTOR = "reactor"
    """As a command to get ready, and then `ProcessStdio` for each unit of work, which is on stdin."""
    COMPONENT = "component"
    """A component, which is run as a command."""
    PYTHON = "python"
    """A component with CPython inside, in which a function of shipped source is called: see ww/python."""


@dataclass(frozen=True, slots=True)
class Guest:
    """What a module is run as."""

    kind: Kind
    entry: str = ""
    """Of a function, its name."""
    parameters: tuple[str, ...] = ()
    """Of a function: i32, i64, f32 or f64, each."""
    result: str | None = None
    """Of a function that returns something."""


def inspect(data: bytes | mmap.mmap) -> ModuleInfo:
    """Read a whole module. BadModule says in one line what is wrong with it."""
    return _Module(data).info()


def guest_of(info: ModuleInfo, wanted: str | None = None) -> Guest:
    """Say what a module is run as: the function `wanted`, else the function `run`, else a reactor, else a command.

    BadModule when it is none of them, or imports what no worker gives.
    """
    for wish in info.imports:
        _check_import(wish)
    if wanted is not None:
        signature = _signature(info, wanted)
        if signature is None:
            raise BadModule(f"wasm: exports no function {shown(wanted)}")
        guest = _function(wanted, signature)
        if wanted not in callable_of(info):
            raise BadModule(f"wasm: {shown(wanted)} is beyond the first {CALLABLE_MAX} functions that it exports")
        return guest
    if (signature := _signature(info, "run")) is not None:
        guest = _function("run", signature)
        if len(guest.parameters) != 2:
            expected = "expected two parameters (input, difficulty) and one result or none; entry=run gives it args"
            raise BadModule(f"wasm: 'run' has the signature {signature}; {expected}"[:400])
        return guest
    return _program(info)


def callable_of(info: ModuleInfo) -> dict[str, FunctionType]:
    """Return the exported functions that numbers alone go in and out of: the first CALLABLE_MAX, and those whose names
    mean something, wherever they are."""
    known = {
        name: export.signature
        for name, export in info.exports.items()
        if export.signature is not None
        and {*export.signature.parameters, *export.signature.results} <= _NUMBERS
        and len(export.signature.results) <= 1
    }
    if len(known) <= CALLABLE_MAX:
        return known
    chosen = {name: known[name] for name in _MEANT if name in known}
    return chosen | dict(itertools.islice(known.items(), CALLABLE_MAX))


def _signature(info: ModuleInfo, name: str) -> FunctionType | None:
    """Return the signature of an exported function; None when there is none of that name."""
    export = info.exports.get(name)
    return export.signature if export is not None else None


def _function(name: str, signature: FunctionType) -> Guest:
    if not {*signature.parameters, *signature.results} <= _NUMBERS or len(signature.results) > 1:
        expected = "expected parameters, and one result or none, of i32, i64, f32 or f64"
        raise BadModule(f"wasm: {shown(name)} has the signature {signature}; {expected}"[:400])
    return Guest(Kind.FUNCTION, name, signature.parameters, *signature.results)


def _program(info: ModuleInfo) -> Guest:
    """Say what a module is that has no function to call."""
    start, process = _signature(info, "_start"), _signature(info, "ProcessStdio")
    if start is None:
        raise BadModule("wasm: exports no function 'run' and no _start to run instead")
    if start != FunctionType((), ()):
        raise BadModule(f"wasm: _start has the signature {start}; a WASI command's takes and returns nothing"[:400])
    memory = info.exports.get("memory")
    if memory is None or memory.kind != "memory":
        raise BadModule("wasm: exports _start but no memory, which WASI commands do as 'memory'")
    if process is None:
        return Guest(Kind.COMMAND)
    if process != FunctionType(("i32",), ()):
        raise BadModule(
            f"wasm: ProcessStdio has the signature {process}; a reactor's takes an i32 and returns nothing"[:400]
        )
    return Guest(Kind.REACTOR)


def _check_import(wish: Import) -> None:
    letters = _WASI.get(wish.name) if wish.module == _WASI_MODULE else None
    if letters is None or wish.kind != "function":
        what = f"{wish.kind} {shown(wish.module)}.{shown(wish.name)}"
        raise BadModule(f"wasm: imports the unknown {what}; known are the functions of {_WASI_MODULE}")
    known = FunctionType(
        tuple("i32" if letter == "i" else "i64" for letter in letters), () if wish.name == "proc_exit" else ("i32",)
    )
    if wish.signature != known:
        raise BadModule(f"wasm: imports {wish.name} as {wish.signature}; it is {known}"[:400])


def _not_run(section: Reader, proposal: str, what: str) -> BadModule:
    return section.bad(f"holds {what} of WebAssembly's {proposal} proposal, which no worker runs")


class _Module:
    """A module while it is read: what is known so far, section by section."""

    def __init__(self, data: bytes | mmap.mmap) -> None:
        self._data = data
        self._types: list[FunctionType] = []
        self._functions: list[int] = []
        self._imports: list[Import] = []
        self._exports: dict[str, tuple[str, int]] = {}
        self._memories = 0
        self._memory_pages = 0
        self._code = (0, 0)
        self._counts: dict[int, int] = {}

    def info(self) -> ModuleInfo:
        """Read everything."""
        self._read_header()
        self._read_sections()
        self._check_counts()
        imported = [wish.signature for wish in self._imports if wish.kind == "function"]
        signatures = imported + [self._types[index] for index in self._functions]
        exports = {}
        for name, (kind, index) in self._exports.items():
            if kind == "function" and index >= len(signatures):
                raise BadModule(f"wasm: the export section names function {index}, there are {len(signatures)}")
            if kind == "memory" and index >= self._memories:
                raise BadModule(f"wasm: the export section names memory {index}, there are {self._memories}")
            exports[name] = Export(name, kind, signatures[index] if kind == "function" else None)
        may_grow = _MEMORY_GROW.search(self._data, *self._code) is not None
        return ModuleInfo(tuple(self._imports), exports, self._memory_pages * _PAGE_BYTES, may_grow)

    def _read_header(self) -> None:
        head = bytes(self._data[:8])
        if head[:4] != _MAGIC:
            raise BadModule("wasm: not WebAssembly: the bytes do not begin with \\0asm")
        if head[4:] == _COMPONENT_VERSION:
            raise BadModule("wasm: is a component; expected a core module")
        if head[4:] != _MODULE_VERSION:
            raise BadModule(
                "wasm: not a WebAssembly module of version 1" if len(head) == 8 else "wasm: cut off: 8 bytes at least"
            )

    def _read_sections(self) -> None:
        reader = Reader(self._data, 8, len(self._data), "cut off or damaged: a section")
        reading: dict[int, Callable[[Reader], None]] = {
            1: self._read_types, 2: self._read_imports, 3: self._read_functions, 4: self._read_tables,
            5: self._read_memories, 7: self._read_exports, 13: self._read_tags,
        }  # fmt: skip
        last = -1
        while reader.at < reader.end:
            number = reader.byte()
            size = reader.number()
            start = reader.skip(size)
            if number == 0:
                continue
            if number not in _SECTIONS:
                raise BadModule(f"wasm: holds a section of the unknown kind {number}")
            where = f"the {_SECTIONS[number]} section"
            if _ORDER[number] <= last:
                raise BadModule(f"wasm: {where} is there twice or in the wrong place")
            last = _ORDER[number]
            section = Reader(self._data, start, start + size, where)
            if number in reading:
                reading[number](section)
                if section.at != section.end:
                    raise section.bad("holds more than its entries")
            elif number in (10, 11, 12):
                self._counts[number] = section.number() if number == 12 else section.count()
                if number == 10:
                    self._code = start, start + size

    def _check_counts(self) -> None:
        """Notice a file cut off between two sections."""
        bodies = self._counts.get(10, 0)
        if bodies != len(self._functions):
            raise BadModule(f"wasm: cut off or damaged: {len(self._functions)} functions, but the code of {bodies}")
        segments = self._counts.get(11, 0)
        announced = self._counts.get(12, segments)
        if announced != segments:
            raise BadModule(f"wasm: cut off or damaged: {announced} data segments announced, {segments} there")

    def _read_types(self, section: Reader) -> None:
        for _ in range(section.count()):
            form = section.byte()
            if form in _GC_TYPES:
                raise _not_run(section, "garbage collection", "a type")
            if form != 0x60:
                raise section.bad("holds a type that is not a function's")
            self._types.append(FunctionType(self._value_types(section), self._value_types(section)))

    def _value_types(self, section: Reader) -> tuple[str, ...]:
        return tuple(self._value_type(section) for _ in range(section.count()))

    def _value_type(self, section: Reader) -> str:
        byte = section.byte()
        if (known := _VALUE_TYPES.get(byte)) is not None:
            return known
        for proposal, types in _OF_PROPOSALS.items():
            if byte in types:
                raise _not_run(section, proposal, "a type")
        raise section.bad(f"holds the unknown value type 0x{byte:02x}")

    def _read_imports(self, section: Reader) -> None:
        for _ in range(section.count()):
            module, name = section.name(), section.name()
            kind = _KINDS.get(section.byte())
            signature = None
            if kind == "function":
                signature = self._type(section, section.number())
            elif kind == "table":
                self._read_table(section)
            elif kind == "memory":
                self._read_memory(section)
            elif kind == "global":
                self._value_type(section)
                section.byte()
            elif kind == "tag":
                raise _not_run(section, "exceptions", "a tag")
            else:
                raise section.bad("holds an import of an unknown kind")
            self._imports.append(Import(module, name, kind, signature))

    def _read_limits(self, section: Reader, what: str) -> int:
        """Return the minimum."""
        flags = section.byte()
        if flags > 15:
            raise section.bad("holds limits of an unknown form")
        if flags & _LIMITS_SHARED:
            raise _not_run(section, "threads", f"a shared {what}")
        if flags & _LIMITS_64:
            raise _not_run(section, "memory64", f"a 64-bit {what}")
        if flags & _LIMITS_PAGE_SIZE:
            raise _not_run(section, "custom-page-sizes", f"a {what}")
        minimum = section.number()
        if flags & _LIMITS_HAVE_MAXIMUM:
            section.number()
        return minimum

    def _read_tables(self, section: Reader) -> None:
        for _ in range(section.count()):
            self._read_table(section)

    def _read_table(self, section: Reader) -> None:
        if self._value_type(section) not in ("funcref", "externref"):
            raise section.bad("holds a table of something else than references")
        self._read_limits(section, "table")

    def _read_memories(self, section: Reader) -> None:
        for _ in range(section.count()):
            self._read_memory(section)

    def _read_memory(self, section: Reader) -> None:
        self._memories += 1
        if self._memories > 1:
            raise _not_run(section, "multi-memory", "a second memory")
        self._memory_pages = self._read_limits(section, "memory")

    def _read_tags(self, section: Reader) -> None:
        if section.count():
            raise _not_run(section, "exceptions", "tags")

    def _read_functions(self, section: Reader) -> None:
        for _ in range(section.count()):
            index = section.number()
            self._type(section, index)
            self._functions.append(index)

    def _read_exports(self, section: Reader) -> None:
        for _ in range(section.count()):
            name, kind, index = section.name(), _KINDS.get(section.byte()), section.number()
            if kind is None:
                raise section.bad("holds an export of an unknown kind")
            if name in self._exports:
                raise section.bad(f"holds the name {shown(name)} twice")
            self._exports[name] = (kind, index)

    def _type(self, section: Reader, index: int) -> FunctionType:
        if index >= len(self._types):
            raise section.bad(f"names type {index}, there are {len(self._types)}")
        return self._types[index]
