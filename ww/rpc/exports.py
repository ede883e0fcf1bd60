"""What a vat exports: under which name, for whom, and until when.

Holds the names, and the revoking of what was given out under one that is withdrawn. Must not know connections.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final
from weakref import WeakSet

import capnp

from ww import schema
from ww.errors import NotAdmitted, NotAllowed, NotFound, Revoked
from ww.identity import PeerId
from ww.rpc.admission import Admission
from ww.rpc.errors import call, one_line

_WITHDRAWN: Final = "the name that this was obtained by was withdrawn"
# Private names of pycapnp, whose version is pinned: a server class can be had by no other way from a schema alone.
_Module: Final = capnp.lib.capnp._InterfaceModule
_Server: Final = capnp.lib.capnp._DynamicCapabilityServer


@dataclass(frozen=True, slots=True, eq=False)
class Peer:
    """Who is at the other end of one connection, as far as it is proved. Two connections are two Peers."""

    peer_id: PeerId
    """The key that the connection was authenticated with."""
    remote: str
    """Where it comes from, for logs."""
    hang_up: Callable[[], None] = lambda: None
    """Closes the connection."""
    closed: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when the connection is gone."""


Export = Callable[[Peer], Any]
"""Makes the capability, a server or a client, that one peer gets for a name. Called once a connection and name."""


class Gate:
    """Stands before one server: lets calls in until it is shut, and knows those that are under way."""

    def __init__(self) -> None:
        self.is_shut = False
        # Weakly: pycapnp may drop a call's task before its end, and what it holds is to go with it.
        self.calls: WeakSet[asyncio.Task[Any]] = WeakSet()

    def shut(self) -> None:
        """Fail every call from now on, and those that are under way, with Revoked. Idempotent."""
        self.is_shut = True
        for task in list(self.calls):
            task.cancel()


def guarded(server: Any) -> tuple[Any, Gate]:
    """Return a server that passes calls on to another's handlers, by a gate of its own."""
    kind = type(server)
    if kind not in _GUARDED:
        handlers = {
            f"{method}_context": _by_gate(f"{method}_context")
            for method in server.schema.methods_inherited
            if hasattr(kind, f"{method}_context")  # others are answered as unknown
        }
        _GUARDED[kind] = type(kind.__name__, (_Module(server.schema, "").Server,), handlers)
    guard = _GUARDED[kind]()
    guard._server, guard._gate = server, Gate()
    return guard, guard._gate


# By the class of a server, of which there are as many as programs define.
_GUARDED: Final[dict[type, Any]] = {}


def _by_gate(name: str) -> Callable[[Any, Any], Any]:
    async def handle(self: Any, context: Any) -> None:
        gate = self._gate
        if gate.is_shut:
            raise Revoked(_WITHDRAWN)
        gate.calls.add(asyncio.current_task())
        try:
            await getattr(self._server, name)(context)
        except asyncio.CancelledError:
            if gate.is_shut:
                raise Revoked(_WITHDRAWN) from None
            raise

    return handle


def _served(capability: Any) -> Any:
    """Return a server for a capability: itself, or for a client one that passes calls on, since that can be shut."""
    if isinstance(capability, _Server):
        return capability
    schema_ = capability.schema
    if schema_.node.id not in _PASSING_ON:
        handlers = {f"{name}_context": _passing_on(name, m) for name, m in schema_.methods_inherited.items()}
        _PASSING_ON[schema_.node.id] = type("PassedOn", (_Module(schema_, "").Server,), handlers)
    server = _PASSING_ON[schema_.node.id]()
    server._client = capability
    return server


# By the id of an interface, of which there are as many as schemas have.
_PASSING_ON: Final[dict[int, Any]] = {}


def _passing_on(method: str, signature: Any) -> Callable[[Any, Any], Any]:
    async def pass_on(self: Any, context: Any) -> None:
        if method == "present":  # what is not itself a facet must not pass for one: see caps/facets.py
            raise NotAllowed("this reference is no case of a select")
        request = getattr(self._client, f"{method}_request")()
        _copy(context.params, request, signature.param_type)
        _copy(await call(request.send()), context.results, signature.result_type)

    return pass_on


def _copy(source: Any, target: Any, struct: Any) -> None:
    """Copy what a struct holds, capabilities as they are."""
    for name, field_ in struct.fields.items():
        if name in struct.union_fields and source.which() != name:
            continue
        if field_.proto.which() == "group":
            inner = target.init(name) if name in struct.union_fields else getattr(target, name)
            _copy(source._get(name), inner, field_.schema)
        elif source._has(name):
            setattr(target, name, source._get(name))


@dataclass(slots=True)
class _Name:
    make: Export
    admission: Admission | None
    gates: "WeakSet[Gate]" = field(default_factory=WeakSet)


class Exports:
    """The names of one vat."""

    def __init__(self) -> None:
        self._names: dict[str, _Name] = {}
        self._withdrawn: set[str] = set()

    def add(self, name: str, make: Export, admission: Admission | None = None) -> None:
        """Let peers ask for name; each that admission lets gets what make returns for it."""
        self.withdraw(name)
        self._withdrawn.discard(name)
        self._names[name] = _Name(make, admission)

    def withdraw(self, name: str) -> None:
        """Revoke what was given out under name, and refuse it from now on."""
        entry = self._names.pop(name, None)
        if entry is not None:
            self._withdrawn.add(name)
            for gate in list(entry.gates):
                gate.shut()

    async def make(self, name: str, peer: Peer) -> tuple[Any, Gate]:
        """Return the server that peer gets for name, and its gate.

        Raises NotFound when nothing is exported under it, Revoked when nothing is any more, NotAdmitted when not to it.
        """
        entry = self._names.get(name)
        if entry is not None and entry.admission is not None:
            refusal = await entry.admission.refusal(peer.peer_id)
            if refusal is not None:
                raise NotAdmitted(f"{name}: {refusal}")
            entry = self._names.get(name)  # it may have been withdrawn meanwhile
        if entry is None:
            if name in self._withdrawn:
                raise Revoked(f"{name} was withdrawn")
            raise NotFound(f"this node exports nothing named {one_line(name)[:64]!r}")
        server, gate = guarded(_served(entry.make(peer)))
        entry.gates.add(gate)
        return server, gate


class ExportsServer(schema.vat.Exports.Server):  # type: ignore[misc]
    """What one admitted peer may ask for."""

    def __init__(self, exports: Exports, peer: Peer) -> None:
        self._exports = exports
        self._peer = peer
        self._made: dict[str, tuple[Any, Gate]] = {}
        self._turn = asyncio.Lock()

    async def connect_context(self, context: Any) -> None:
        name = context.params.name
        async with self._turn:  # two that ask at once get the same
            made = self._made.get(name)
            if made is None or made[1].is_shut:
                self._made.pop(name, None)
                made = self._made[name] = await self._exports.make(name, self._peer)
        context.results.capability = made[0]

    def forget(self) -> None:
        """Drop what was made for this connection."""
        self._made.clear()
