"""The core modules of a component, and how they are linked, from its bytes.

wasmtime runs a component as a whole, and lets nobody see its memory or put it back. Taken apart it can be: this holds
the reader of what a component says about its core modules, which of them are instantiated in what order with what, and
which functions it asks of its host. Must not know how they are run (sandbox/python_link.py). It runs against bytes of
strangers: linear in their size, no recursion, no error but BadModule. Types of components are not looked at: what does
not fit is refused when it is linked. Source: Component Model, Binary.md and CanonicalABI.md.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from ww.component_inspect import ComponentReader, inspect_component
from ww.errors import BadModule
from ww.wasm_binary import shown
from ww.wasm_inspect import FunctionType
from ww.wasm_state import GLOBALS_MAX, Restorable, restorable

_PREAMBLE_BYTES: Final = 8
_MODULE, _CORE_INSTANCE, _COMPONENT, _INSTANCE, _ALIAS, _CANON, _START, _IMPORT, _EXPORT = 1, 2, 4, 5, 6, 8, 9, 10, 11
# Sorts of core items, and of those of components.
_FUNC, _TABLE, _MEMORY, _GLOBAL, _CORE_SORTS = 0, 1, 2, 3, frozenset({0, 1, 2, 3})
_CORE, _FUNCTION, _INSTANCES = 0, 1, 5
_LIFT, _LOWER, _RESOURCE_NEW, _RESOURCE_DROP, _RESOURCE_REP = range(5)
_UTF8, _OPTION_MEMORY, _OPTION_REALLOC, _OPTION_POST_RETURN = 0, 3, 4, 5
STEPS_MAX: Final = 32
"""Instances of core modules."""
_IMPORTS_MAX: Final = 50_000
HOSTS_MAX: Final = 1_000
_KINDS: Final = {"function": _FUNC, "table": _TABLE, "memory": _MEMORY, "global": _GLOBAL}


class Item(NamedTuple):
    """An export of an instance of a core module; or, with no instance, a function of the host by its number."""

    instance: int
    name: str
    host: int = -1


class Step(NamedTuple):
    """One instance of a core module."""

    module: int
    imports: Sequence[Item]
    """In the order of the module's."""


@dataclass(slots=True)
class HostFunction:
    """A function that the component asks of its host, as its core modules call it."""

    interface: str
    """Without its version; empty for what is no function of an interface."""
    name: str
    realloc: Item | None = None
    type: FunctionType | None = None
    """As it is imported."""


@dataclass(slots=True)
class Lift:
    """A function that the component gives, as its core modules have it."""

    function: Item
    realloc: Item | None
    post_return: Item | None


@dataclass(slots=True)
class Plan:
    """How a component is put together of its core modules."""

    modules: list[Restorable]
    steps: list[Step] = field(default_factory=list)
    hosts: list[HostFunction] = field(default_factory=list)
    lifts: dict[str, Lift] = field(default_factory=dict)
    """By the name of the core function."""
    memory: Item | None = None
    """The only one."""
    globals: list[tuple[Item, str]] = field(default_factory=list)
    """The mutable ones of all instances, and their types."""


def read_plan(data: bytes) -> Plan:
    """Take a component apart. BadModule when it is not made of core modules that can be put together again."""
    inspect_component(data)
    return _Component(data).plan()


class _Component:
    """A component while it is read: its index spaces so far."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._plan = Plan([])
        self._core: dict[int, list[Item]] = {sort: [] for sort in _CORE_SORTS}
        self._core_instances: list[int | dict[tuple[int, str], Item]] = []
        """The number of a step, or what one that is put together has."""
        self._functions: list[tuple[str, str] | None] = []
        """The interface and name of those that are imported."""
        self._instances: list[str] = []
        """Names of those that are imported; empty for others."""
        self._components = 0
        self._imports = 0
        self._host_numbers: dict[tuple[Any, ...], int] = {}

    def plan(self) -> Plan:
        readers: dict[int, Callable[[ComponentReader], None]] = {
            _CORE_INSTANCE: lambda section: self._each(section, self._read_core_instance),
            _INSTANCE: lambda section: self._each(section, self._read_instance),
            _ALIAS: lambda section: self._each(section, self._read_alias),
            _CANON: lambda section: self._each(section, self._read_canon),
            _IMPORT: lambda section: self._each(section, self._read_import),
            _EXPORT: lambda section: self._each(section, self._read_export),
        }
        reader = ComponentReader(self._data, _PREAMBLE_BYTES, len(self._data), "a section")
        while reader.at < reader.end:
            number = reader.byte()
            size = reader.number()
            start = reader.skip(size)
            if number == _MODULE:
                if len(self._plan.modules) >= STEPS_MAX:
                    raise BadModule(f"wasm: the component has more than {STEPS_MAX} core modules")
                self._plan.modules.append(restorable(bytes(self._data[start : start + size])))
            elif number == _START:
                raise BadModule("wasm: the component has a start function; a Python component has none")
            elif number in readers:
                readers[number](ComponentReader(self._data, start, start + size, f"component section {number}"))
        self._find_memory()
        return self._plan

    def _each(self, section: ComponentReader, read: Callable[[ComponentReader], None]) -> None:
        for _ in range(section.count()):
            read(section)
        section.finish()

    def _find_memory(self) -> None:
        plan = self._plan
        owners = [at for at, step in enumerate(plan.steps) if plan.modules[step.module].memories]
        if len(owners) != 1 or plan.modules[plan.steps[owners[0]].module].memories != 1:
            raise BadModule("wasm: the component has not one memory; a Python component has one")
        exports = plan.modules[plan.steps[owners[0]].module].info.exports
        name = next((name for name, export in exports.items() if export.kind == "memory"), None)
        if name is None:
            raise BadModule("wasm: the component's memory is not exported")
        plan.memory = Item(owners[0], name)
        for at, step in enumerate(plan.steps):
            own = plan.modules[step.module].globals
            if len(plan.globals) + len(own) > GLOBALS_MAX:
                raise BadModule(f"wasm: the component has more than {GLOBALS_MAX} mutable globals")
            plan.globals += [(Item(at, name), kind) for name, kind in own]

    # Core instances.

    def _read_core_instance(self, section: ComponentReader) -> None:
        if section.byte() == 1:
            exports: dict[tuple[int, str], Item] = {}
            for _ in range(section.count()):
                name, sort = section.name(), section.byte()
                index = section.number()
                if sort in _CORE_SORTS:
                    exports[sort, name] = _at(section, self._core[sort], index)
            self._core_instances.append(exports)
            return
        module = section.number()
        arguments: dict[str, int | dict[tuple[int, str], Item]] = {}
        for _ in range(section.count()):
            name = section.name()
            if section.byte() != 0x12:
                raise section.bad("instantiates a core module with what is no instance")
            arguments[name] = _at(section, self._core_instances, section.number())
        self._core_instances.append(len(self._plan.steps))
        self._plan.steps.append(self._step(section, module, arguments))

    def _step(
        self, section: ComponentReader, module: int, arguments: dict[str, int | dict[tuple[int, str], Item]]
    ) -> Step:
        wishes = _at(section, self._plan.modules, module).info.imports
        self._imports += len(wishes)
        if len(self._plan.steps) >= STEPS_MAX or self._imports > _IMPORTS_MAX:
            raise BadModule("wasm: the component has too many core instances, or imports between them")
        imports = []
        for wish in wishes:
            source = arguments.get(wish.module)
            item = None
            if isinstance(source, int):
                item = Item(source, wish.name)
            elif source is not None:
                item = source.get((_KINDS.get(wish.kind, -1), wish.name))
            if item is None:
                raise BadModule(
                    f"wasm: a core module imports {shown(wish.module)}.{shown(wish.name)}, which is not there"
                )
            if item.host >= 0:
                host = self._plan.hosts[item.host]
                host.type = host.type or wish.signature
            imports.append(item)
        return Step(module, imports)

    # Index spaces.

    def _read_alias(self, section: ComponentReader) -> None:
        sort = section.byte()
        core = section.byte() if sort == _CORE else -1
        target = section.byte()
        if target == 2:
            section.number()
            section.number()
            if sort in (_FUNCTION, _INSTANCES) or core in _CORE_SORTS:
                raise section.bad("takes a function or an instance from outside")
            return
        instance, name = section.number(), section.name()
        if target == 1 and core in _CORE_SORTS:
            source = _at(section, self._core_instances, instance)
            item = Item(source, name) if isinstance(source, int) else source.get((core, name))
            if item is None:
                raise section.bad(f"takes {shown(name)} from an instance that has none")
            self._core[core].append(item)
        elif target != 0 or sort == _CORE:
            raise section.bad("holds an alias of an unknown kind")
        elif sort == _FUNCTION:
            interface = _at(section, self._instances, instance)
            self._functions.append((interface, name) if interface else None)
        elif sort == _INSTANCES:
            self._instances.append("")

    def _read_import(self, section: ComponentReader) -> None:
        name = section.extern_name()
        kind = section.extern_type()
        if kind == "instance":
            self._instances.append(name.partition("@")[0])
        elif kind == "function":
            self._functions.append(("", name))
        elif kind in ("module", "component"):
            raise section.bad(f"imports a {kind}")

    def _read_export(self, section: ComponentReader) -> None:
        section.extern_name()
        sort = section.byte()
        if sort == _CORE:
            section.byte()
        index = section.number()
        if section.flag():
            section.extern_type()
        if sort == _FUNCTION:
            self._functions.append(_at(section, self._functions, index))
        elif sort == _INSTANCES:
            self._instances.append(_at(section, self._instances, index))

    def _read_instance(self, section: ComponentReader) -> None:
        is_inline = section.byte() == 1
        if not is_inline:
            section.number()
        for _ in range(section.count()):
            if is_inline:
                section.extern_name()
            else:
                section.name()
            if section.byte() == _CORE:
                section.byte()
            section.number()
        self._instances.append("")

    # Canonical definitions.

    def _read_canon(self, section: ComponentReader) -> None:
        kind = section.byte()
        if kind in (_LIFT, _LOWER):
            section.byte()
            index = section.number()
            options = self._read_options(section)
            if kind == _LOWER:
                known = _at(section, self._functions, index)
                if known is None:
                    raise section.bad("lowers a function that is not imported")
                interface, name = known
                self._add_host(interface, name, options.get(_OPTION_REALLOC))
                return
            section.number()
            function = _at(section, self._core[_FUNC], index)
            lift = Lift(function, options.get(_OPTION_REALLOC), options.get(_OPTION_POST_RETURN))
            self._plan.lifts.setdefault(function.name, lift)
            self._functions.append(None)
        elif kind in (_RESOURCE_NEW, _RESOURCE_DROP, _RESOURCE_REP):
            section.number()
            self._add_host("", ("resource.new", "resource.drop", "resource.rep")[kind - _RESOURCE_NEW], None)
        else:
            raise section.bad(f"holds the canonical definition {kind:#x}, which no Python component needs")

    def _read_options(self, section: ComponentReader) -> dict[int, Item]:
        options: dict[int, Item] = {}
        for _ in range(section.count()):
            option = section.byte()
            if option == _OPTION_MEMORY:
                _at(section, self._core[_MEMORY], section.number())
            elif option in (_OPTION_REALLOC, _OPTION_POST_RETURN):
                options[option] = _at(section, self._core[_FUNC], section.number())
            elif option != _UTF8:
                raise section.bad(f"holds the canonical option {option:#x}; known are those of UTF-8 and a memory")
        return options

    def _add_host(self, interface: str, name: str, realloc: Item | None) -> None:
        key = interface, name, realloc
        number = self._host_numbers.get(key)
        if number is None:
            number = self._host_numbers[key] = len(self._plan.hosts)
            if number >= HOSTS_MAX:
                raise BadModule(f"wasm: the component asks for more than {HOSTS_MAX} functions")
            self._plan.hosts.append(HostFunction(interface, name, realloc))
        self._core[_FUNC].append(Item(-1, "", number))


def _at(section: ComponentReader, space: Sequence[Any], index: int) -> Any:
    if index >= len(space):
        raise section.bad(f"names item {index} of {len(space)}")
    return space[index]
