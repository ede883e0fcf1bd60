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
from ww.errors import NotAdmitted, NotFound, Revoked
from ww.identity import PeerId
from ww.rpc.admission import Admission
from ww.rpc.errors import call, one_line

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

    def __init__(self, server: Any) -> None:
        """Let calls to server, whose handlers take a context, go by this gate."""
        self.is_shut = False
        self._calls: set[asyncio.Task[Any]] = set()
        for method in server.schema.methods_inherited:
            handler = getattr(server, f"{method}_context", None)
            if handler is not None:  # others are answered as unknown
                setattr(server, f"{method}_context", self._guard(handler))

    def _guard(self, handler: Callable[[Any], Any]) -> Callable[[Any], Any]:
        async def guarded(context: Any) -> None:
            if self.is_shut:
                raise Revoked("what this was obtained under was withdrawn")
            task = asyncio.current_task()
            assert task is not None
            self._calls.add(task)
            try:
                await handler(context)
            except asyncio.CancelledError:
                if self.is_shut:
                    raise Revoked("what this was obtained under was withdrawn") from None
                raise
            finally:
                self._calls.discard(task)

        return guarded

    def shut(self) -> None:
        """Fail every call from now on, and those that are under way, with Revoked. Idempotent."""
        self.is_shut = True
        for task in list(self._calls):
            task.cancel()


def _served(capability: Any) -> Any:
    """Return a server for a capability: itself, or for a client one that passes calls on, since that can be shut."""
    if isinstance(capability, _Server):
        return capability
    handlers = {
        f"{name}_context": _passing_on(capability, name, signature)
        for name, signature in capability.schema.methods_inherited.items()
    }
    return type("PassedOn", (_Module(capability.schema, "").Server,), handlers)()


def _passing_on(client: Any, method: str, signature: Any) -> Callable[[Any, Any], Any]:
    async def pass_on(self: Any, context: Any) -> None:
        request = getattr(client, f"{method}_request")()
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
            _copy(getattr(source, name), inner, field_.schema)
        elif source._has(name):
            setattr(target, name, getattr(source, name))


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
        server = _served(entry.make(peer))
        gate = Gate(server)
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
