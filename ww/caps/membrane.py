"""Membranes: a capability that does less than the one behind it, or that can be taken back.

    reader = attenuate(channel, allow={"Receiver.receive"})
    reference, revoke = revocable(worker)

Holds proxies that are made from the schema of what is behind them, so that they know no interface. Whatever capability
crosses a proxy, in a field whose type the schema names, comes out as a proxy of the same membrane; so nothing that was
reached through a membrane does more than the membrane allows, or longer. What the schema does not name (AnyPointer,
Capability) cannot be seen into, and is refused. A proxy is a server like any other: it crosses to other nodes.
"""

import asyncio
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final
from weakref import WeakSet

import capnp

from ww.errors import NotAllowed, Revoked, UsageError
from ww.rpc.errors import call

# Private names of pycapnp, whose version is pinned: a server class can be had by no other way from a schema alone.
_Module: Final = capnp.lib.capnp._InterfaceModule
_InterfaceSchema: Final = capnp.lib.capnp._InterfaceSchema
_StructSchema: Final = capnp.lib.capnp._StructSchema
_ListSchema: Final = capnp.lib.capnp._ListSchema
_Struct: Final = capnp.lib.capnp._StructModule
_Server: Final = capnp.lib.capnp._DynamicCapabilityServer
# Of the lists of one message. Elements may have no size on the wire, and then take seconds when they are copied.
_ELEMENTS_MAX: Final = 65_536
_REVOKED: Final = "the reference was revoked"


def attenuate(capability: Any, allow: Collection[str], types: Mapping[str, Any] | None = None) -> Any:
    """Return a reference to capability, a server or a client, on which only some methods work.

    allow names them, `Interface.method`, for capability and all that can be reached through it; another method raises
    NotAllowed. types says what an AnyPointer or Capability field holds, which is refused otherwise: a schema struct or
    interface by `Interface.method.field` or `Struct.field`. Raises UsageError for a method or field that cannot be
    reached.
    """
    membrane = _Membrane(frozenset(allow), _seen(types))
    target = _client_of(capability)
    membrane.check(target.schema)
    return membrane.wrap(target, target.schema, outward=True)


def revocable(capability: Any, types: Mapping[str, Any] | None = None) -> tuple[Any, Callable[[], None]]:
    """Return a reference to capability, a server or a client, and the function that takes it back.

    After that every call on it, or on anything obtained through it, fails with Revoked, those under way too, and
    nothing of what is behind it is held any more. types as for `attenuate`.
    """
    membrane = _Membrane(None, _seen(types))
    target = _client_of(capability)
    membrane.check(target.schema)
    return membrane.wrap(target, target.schema, outward=True), membrane.revoke


def _client_of(capability: Any) -> Any:
    return _Module(capability.schema, "")._new_client(capability) if isinstance(capability, _Server) else capability


def _seen(types: Mapping[str, Any] | None) -> dict[str, Any]:
    return {name: kind.schema for name, kind in (types or {}).items()}


def _name(schema: Any) -> str:
    return str(schema.node.displayName.rpartition(":")[2])


def _lineage(schema: Any) -> Iterator[Any]:
    """Iterate over an interface and all that it extends."""
    yield schema
    for parent in schema.superclasses:
        yield from _lineage(parent)


def _names_of(schema: Any, method: str) -> set[str]:
    """Return the names of a method: by the interface that is called, and by each that has it from there up."""
    return {f"{_name(s)}.{method}" for s in _lineage(schema) if method in s.methods_inherited}


@dataclass(frozen=True, slots=True)
class _Step:
    """How one field of a struct is copied through a membrane."""

    name: str
    kind: str
    """plain: a number, text or bytes. Or interface, struct, group, list, opaque.

    Structs and lists are always taken apart: a newer schema than is known here may have capabilities in them.
    """
    schema: Any = None
    is_pointer: bool = False
    """Whether it may be unset."""


@dataclass(eq=False)
class _Membrane:
    """One boundary: what crosses it is wrapped."""

    allowed: frozenset[str] | None
    types: Mapping[str, Any]
    is_revoked: bool = False
    _left: int = 0
    proxies: "WeakSet[Any]" = field(default_factory=WeakSet)
    under_way: set["asyncio.Future[Any]"] = field(default_factory=set)
    _plans: dict[tuple[int, str], list[_Step]] = field(default_factory=dict)
    _classes: dict[tuple[int, bool], Any] = field(default_factory=dict)

    def revoke(self) -> None:
        """Let nothing through any more. Idempotent."""
        self.is_revoked = True
        for proxy in self.proxies:
            proxy.target = None
        for future in list(self.under_way):
            future.cancel()

    def wrap(self, target: Any, schema: Any, *, outward: bool) -> Any:
        """Return a client of a proxy of target; outward: for those that the membrane keeps from what is inside."""
        if self.is_revoked:
            raise Revoked(_REVOKED)
        key = (schema.node.id, outward)
        kind = self._classes.get(key)
        if kind is None:
            kind = self._classes[key] = _proxy_class(self, schema, outward)
        proxy = kind()
        proxy.target = target
        self.proxies.add(proxy)
        return _Module(schema, "")._new_client(proxy)

    def check(self, schema: Any) -> None:
        """Raise UsageError when something is named that cannot be reached from an interface."""
        methods: set[str] = set()
        fields: set[str] = set()
        reachable = _reachable(self, schema)
        if self.allowed is not None:
            _refuse_ambiguous(reachable)
        for interface in reachable:
            for method, signature in interface.methods_inherited.items():
                names = _names_of(interface, method)
                methods |= names
                for struct in (signature.param_type, signature.result_type):
                    fields |= {f"{name}.{step.name}" for name in names for step in self.plan(struct, names)}
        for name in sorted((self.allowed or frozenset()) - methods):
            known = ", ".join(sorted(methods))
            raise UsageError(f"{name!r} is no method that can be reached: expected some of {known}")
        fields |= {f"{owner}.{step.name}" for (_, owner), steps in self._plans.items() for step in steps}
        for name in sorted(set(self.types) - fields):
            raise UsageError(f"{name!r} is no field that can be reached")

    # Copying.

    def plan(self, struct: Any, methods: Collection[str] = ()) -> list[_Step]:
        """Return how a struct is copied; methods are the names of the method whose parameters or results it is."""
        name = min(methods, default="") or _name(struct)
        key = (struct.node.id, name)
        if key not in self._plans:
            self._plans[key] = []  # of a struct that holds itself
            names = methods or (_name(struct),)
            self._plans[key] = [self._step(field_name, field, names) for field_name, field in struct.fields.items()]
        return self._plans[key]

    def _step(self, name: str, field: Any, owners: Collection[str]) -> _Step:
        if field.proto.which() == "group":
            return _Step(name, "group", field.schema)
        kind = field.proto.slot.type.which()
        if kind == "anyPointer":
            given = next((self.types[f"{owner}.{name}"] for owner in owners if f"{owner}.{name}" in self.types), None)
            if given is None:
                return _Step(name, "opaque", None, is_pointer=True)
            what = "seen interface" if isinstance(given, _InterfaceSchema) else "seen struct"
            return _Step(name, what, given, is_pointer=True)
        is_pointer = kind in ("text", "data", "list", "struct", "interface")
        if kind in ("struct", "interface"):
            return _Step(name, kind, field.schema, is_pointer)
        if kind == "list":
            element = field.proto.slot.type.list.elementType
            while element.which() == "list":
                element = element.list.elementType
            if element.which() == "anyPointer":
                return _Step(name, "opaque", None, is_pointer)
            return _Step(name, kind, _element(field.schema), is_pointer)
        return _Step(name, "plain", None, is_pointer)

    def copy(self, source: Any, target: Any, steps: list[_Step], *, outward: bool) -> None:
        """Copy a message's content, wrapping the capabilities. Raises NotAllowed for what cannot be seen into."""
        if self.is_revoked:
            raise Revoked(_REVOKED)
        self._left = _ELEMENTS_MAX
        self._copy_struct(source, target, steps, outward=outward)

    def _copy_struct(self, source: Any, target: Any, steps: list[_Step], *, outward: bool) -> None:
        union = source.schema.union_fields
        active = source.which() if union else None
        for step in steps:
            is_member = step.name in union
            if is_member and step.name != active:
                continue
            if step.is_pointer and not source._has(step.name):
                if is_member:
                    _choose_unset(target, step)
                continue
            self._copy_field(source._get(step.name), target, step, is_member=is_member, outward=outward)

    def _copy_field(self, value: Any, target: Any, step: _Step, *, is_member: bool, outward: bool) -> None:
        name, kind = step.name, step.kind
        if kind == "opaque":
            raise NotAllowed(f"{name} cannot be seen into: a membrane lets nothing through that no schema names")
        if kind == "plain":
            setattr(target, name, value)
        elif kind == "interface":
            setattr(target, name, self.wrap(value, step.schema, outward=outward))
        elif kind == "seen interface":
            setattr(target, name, self.wrap(value.as_interface(step.schema), step.schema, outward=outward))
        elif kind == "seen struct":
            inner = _Struct(step.schema, "").new_message()
            self._copy_struct(value.as_struct(step.schema), inner, self.plan(step.schema), outward=outward)
            setattr(target, name, inner)
        elif kind == "list":
            self._copy_list(value, target.init(name, self._counted(value)), step.schema, outward=outward)
        else:
            inner = target.init(name) if kind == "struct" or is_member else target._get(name)
            self._copy_struct(value, inner, self.plan(step.schema), outward=outward)

    def _counted(self, value: Any) -> int:
        """Return how many elements a list has. NotAllowed when they are too many, with those of the whole message."""
        self._left -= len(value)
        if self._left < 0:
            raise NotAllowed(f"lists of more than {_ELEMENTS_MAX} elements in a message: too many for a membrane")
        return len(value)

    def _copy_list(self, source: Any, target: Any, element: Any, *, outward: bool) -> None:
        for number, value in enumerate(source):
            if element is None:
                target[number] = value
            elif isinstance(element, _InterfaceSchema):
                target[number] = self.wrap(value, element, outward=outward)
            elif isinstance(element, _ListSchema):
                inner = target.init(number, self._counted(value))
                self._copy_list(value, inner, _element(element), outward=outward)
            else:
                self._copy_struct(value, target[number], self.plan(element), outward=outward)


def _choose_unset(target: Any, step: _Step) -> None:
    """Say that a union has a member which is a pointer that was not set."""
    if step.kind == "plain":
        setattr(target, step.name, "")
    elif step.kind == "struct":
        target.init(step.name)
    elif step.kind == "list":
        target.init(step.name, 0)
    else:
        raise NotAllowed(f"{step.name} is chosen and not set, which a membrane cannot pass on")


def _proxy_class(membrane: _Membrane, schema: Any, outward: bool) -> Any:
    """Make the server class of an interface's proxies: one handler a method."""
    handlers = {
        f"{name}_context": _handler(membrane, name, signature, _names_of(schema, name), outward)
        for name, signature in schema.methods_inherited.items()
    }
    return type(f"{_name(schema)}Proxy", (_Module(schema, "").Server,), {"target": None} | handlers)


def _handler(membrane: _Membrane, method: str, signature: Any, names: set[str], outward: bool) -> Any:
    asked, answered = membrane.plan(signature.param_type, names), membrane.plan(signature.result_type, names)
    is_allowed = not outward or membrane.allowed is None or bool(names & membrane.allowed)

    async def handle(self: Any, context: Any) -> None:
        if membrane.is_revoked:
            raise Revoked(_REVOKED)
        if not is_allowed:
            raise NotAllowed(f"this reference does not allow {min(names)}")
        if "Facet.present" in names:
            # By it a facet is used in a select, which would go around the membrane: see facets.py.
            raise NotAllowed("a reference through a membrane is no case of a select")
        request = getattr(self.target, f"{method}_request")()
        membrane.copy(context.params, request, asked, outward=not outward)
        answering = asyncio.ensure_future(call(request.send()))
        del request
        membrane.under_way.add(answering)
        try:
            answer = await answering
        except asyncio.CancelledError:
            answering.cancel()
            if membrane.is_revoked:
                raise Revoked(_REVOKED) from None
            raise
        finally:
            membrane.under_way.discard(answering)
        membrane.copy(answer, context.results, answered, outward=outward)

    return handle


def _reachable(membrane: _Membrane, schema: Any) -> list[Any]:
    """Return an interface and those that can be reached through it."""
    found: dict[int, Any] = {}
    structs: set[tuple[int, str]] = set()

    def visit(schema: Any, names: Collection[str] = ()) -> None:
        if isinstance(schema, _InterfaceSchema):
            if schema.node.id not in found:
                found[schema.node.id] = schema
                for method, signature in schema.methods_inherited.items():
                    for struct in (signature.param_type, signature.result_type):
                        visit(struct, _names_of(schema, method))
        elif isinstance(schema, _ListSchema):
            visit(_element(schema))
        elif isinstance(schema, _StructSchema) and (key := (schema.node.id, min(names, default=""))) not in structs:
            structs.add(key)
            for step in membrane.plan(schema, names):
                if step.schema is not None:
                    visit(step.schema)

    visit(schema)
    return list(found.values())


def _refuse_ambiguous(interfaces: list[Any]) -> None:
    """Raise UsageError when one name would stand for two methods: a name could not say which is allowed."""
    ids: dict[str, int] = {}
    for interface in interfaces:
        declared: dict[str, int] = {}
        for ancestor in _lineage(interface):
            name, number = _name(ancestor), ancestor.node.id
            if ids.setdefault(name, number) != number:
                raise UsageError(f"two interfaces are named {name}: what is allowed cannot be told by name")
            for method in ancestor.methods:
                if declared.setdefault(method, number) != number:
                    raise UsageError(f"{name}.{method} is declared twice: what is allowed cannot be told by name")


def _element(schema: Any) -> Any:
    """Return the schema of a list's elements; None for numbers, text and the like."""
    try:
        return schema.elementType
    except capnp.KjException:
        return None
