"""What a WebAssembly component is, from its bytes alone: what it imports and exports, and whether ww can run it.

Holds a reader of the outermost layer of the binary format, and the rules for preview 2 commands and for components that
Python functions run in. As wasm_inspect.py, it compiles nothing and runs on the gateway against bytes of strangers:
linear in their size, no recursion, no error but BadModule. Whether what is inside is valid is for the compiler to say.
Source: Component Model, Binary.md; WASI 0.2.
"""

import mmap
import re
from dataclasses import dataclass
from typing import Final

from ww.errors import BadModule
from ww.wasm_binary import Reader, shown
from ww.wasm_inspect import Kind

_PREAMBLE: Final = b"\0asm\x0d\0\1\0"
_SECTIONS_MAX: Final = 12
_IMPORTS, _EXPORTS = 10, 11
# By the number that stands before an import's type, or, as a sort, before an export's index.
_KINDS: Final = {0: "module", 1: "function", 2: "value", 3: "type", 4: "component", 5: "instance"}

# What wasmtime's linker has of WASI 0.2 (sandbox/component.py). There is no network behind the sockets.
_INTERFACES: Final = frozenset(
    f"wasi:{package}/{name}"
    for package, names in {
        "cli": "environment exit stdin stdout stderr terminal-input terminal-output terminal-stdin terminal-stdout "
        "terminal-stderr",
        "clocks": "monotonic-clock wall-clock",
        "filesystem": "preopens types",
        "io": "error poll streams",
        "random": "insecure insecure-seed random",
        "sockets": "instance-network ip-name-lookup network tcp tcp-create-socket udp udp-create-socket",
    }.items()
    for name in names.split()
)
_RUN: Final = "wasi:cli/run"
_VERSION: Final = re.compile(r"0\.2\.[0-9]{1,4}", re.ASCII)
# Of a Python component: what it is told by, and what it may ask for beside WASI.
_FUNCTIONS: Final = "ww:python/functions"
_JOBS: Final = "ww:python/jobs"
_PYTHON_VERSION: Final = re.compile(r"1\.[0-9]{1,4}\.[0-9]{1,4}", re.ASCII)


@dataclass(frozen=True, slots=True)
class ComponentInfo:
    """A component from outside. Kinds are module, function, value, type, component and instance."""

    imports: dict[str, str]
    """Kinds by name."""
    exports: dict[str, str]


def is_component(data: bytes | mmap.mmap) -> bool:
    """Whether the bytes begin as a component's do."""
    return data[: len(_PREAMBLE)] == _PREAMBLE


def inspect_component(data: bytes | mmap.mmap) -> ComponentInfo:
    """Read the outermost layer. BadModule says in one line what is wrong with it."""
    if not is_component(data):
        raise BadModule("wasm: is no component of version 0x0d")
    info = ComponentInfo({}, {})
    reader = ComponentReader(data, len(_PREAMBLE), len(data), "cut off or damaged: a section")
    while reader.at < reader.end:
        number = reader.byte()
        size = reader.number()
        start = reader.skip(size)
        if number > _SECTIONS_MAX:
            raise BadModule(f"wasm: holds a section of the unknown kind {number}")
        if number == _IMPORTS:
            _read_imports(ComponentReader(data, start, start + size, "an import section"), info.imports)
        elif number == _EXPORTS:
            _read_exports(ComponentReader(data, start, start + size, "an export section"), info.exports)
    return info


def check_component(info: ComponentInfo) -> Kind:
    """Say how a component is run. BadModule says what it is instead, or what it wants, when ww cannot run it."""
    functions = [name for name in info.exports if name.partition("@")[0] == _FUNCTIONS]
    if not functions:
        check_command(info)
        return Kind.COMPONENT
    _check_imports(info, {_JOBS: _PYTHON_VERSION}, "WASI 0.2 and ww:python/jobs@1 for Python functions")
    if not any(info.exports[name] == "instance" and _is_python(name) for name in functions):
        name = functions[0]
        raise BadModule(f"wasm: the component exports the {info.exports[name]} {shown(name)}; known is version 1")
    return Kind.PYTHON


def _is_python(name: str) -> bool:
    return _PYTHON_VERSION.fullmatch(name.partition("@")[2]) is not None


def check_command(info: ComponentInfo) -> None:
    """Return when it is a preview 2 command that ww can run; BadModule says what it is instead, or what it wants."""
    _check_imports(info, {}, "WASI 0.2 for commands")
    runs = [name for name in info.exports if name.partition("@")[0] == _RUN]
    for name in runs:
        if info.exports[name] == "instance" and _VERSION.fullmatch(name.partition("@")[2]):
            return
    if runs:
        raise BadModule(
            f"wasm: the component exports the {info.exports[runs[0]]} {shown(runs[0])}; known is version 0.2"
        )
    others = ", ".join(shown(name) for name in list(info.exports)[:3]) or "nothing"
    raise BadModule(f"wasm: the component is no command: it exports {others}; expected {_RUN}@0.2"[:400])


def _check_imports(info: ComponentInfo, more: dict[str, re.Pattern[str]], known: str) -> None:
    """Refuse what imports something else than WASI 0.2 and more, whose versions are as it says."""
    for name, kind in info.imports.items():
        interface, _, version = name.partition("@")
        if (interface not in _INTERFACES and interface not in more) or kind != "instance":
            raise BadModule(f"wasm: the component imports the unknown {kind} {shown(name)}; known is {known}")
        if not more.get(interface, _VERSION).fullmatch(version):
            of = "1" if interface in more else "0.2"
            raise BadModule(f"wasm: the component imports {shown(name)}; known is version {of}")


def _read_imports(section: "ComponentReader", imports: dict[str, str]) -> None:
    for _ in range(section.count()):
        name = section.extern_name()
        kind = section.extern_type()
        if name in imports:
            raise section.bad(f"holds the name {shown(name)} twice")
        imports[name] = kind
    section.finish()


def _read_exports(section: "ComponentReader", exports: dict[str, str]) -> None:
    for _ in range(section.count()):
        name = section.extern_name()
        sort = section.byte()
        kind = _KINDS.get(sort)
        if kind is None or (sort == 0 and section.byte() != 0x11):
            raise section.bad("holds an export of an unknown kind")
        section.number()
        if section.flag() and section.extern_type() != kind:
            raise section.bad(f"gives {shown(name)} a type of another kind")
        if name in exports:
            raise section.bad(f"holds the name {shown(name)} twice")
        exports[name] = kind
    section.finish()


class ComponentReader(Reader):
    """Reads what only components have."""

    def flag(self) -> bool:
        value = self.byte()
        if value > 1:
            raise self.bad("holds something that is neither there nor left out")
        return bool(value)

    def extern_name(self) -> str:
        """Read the name of an import or export."""
        if self.byte() > 1:
            raise self.bad("holds a name of an unknown form")
        return self.name()

    def extern_type(self) -> str:
        """Read the type of an import or export, and return its kind."""
        number = self.byte()
        kind = _KINDS.get(number)
        if kind is None or (number == 0 and self.byte() != 0x11):
            raise self.bad("holds a type of an unknown kind")
        if kind in ("value", "type"):
            # One by itself, or one that is another's; of a value, its type, which is a number below 0x40 or signed.
            if self.flag():
                if kind == "value":
                    self.number(33)
            else:
                self.number()
        else:
            self.number()
        return kind

    def finish(self) -> None:
        """See that nothing is left."""
        if self.at != self.end:
            raise self.bad("holds more than its entries")
