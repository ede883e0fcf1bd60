"""What travels through a channel, on its way between Python and Cap'n Proto.

Holds the codecs: how a value is written into a message's `value` and `capability` fields, and how it is read out of
them so that it outlives the message. Must not know channels.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import capnp

from ww import schema
from ww.errors import UsageError

T = TypeVar("T")

_STRUCTS = (capnp.lib.capnp._DynamicStructBuilder, capnp.lib.capnp._DynamicStructReader)


@dataclass(frozen=True, slots=True)
class Codec(Generic[T]):
    """How one kind of value crosses. The other side, which sees its schema alone, may use another codec."""

    write: Callable[[T, Any], None]
    """Writes a value into a message: `write(value, message)`."""
    read: Callable[[Any], T]
    """Reads one from a message that is about to be gone. Raises UsageError for what is no such value."""
    normalise: Callable[[Any], T] = lambda value: value
    """Makes of what is sent what is received, where no message is between. Raises UsageError for what is no value."""


class _Nowhere(schema.channel.Sender.Server):  # type: ignore[misc]
    """Never called: a request to it is a message that may hold capabilities for as long as it is not sent."""


def _message() -> Any:
    return schema.channel.Sender._new_client(_Nowhere()).send_request()


def hold(message: Any) -> Any:
    """Copy a message's value, whatever it is, capabilities included, into one that lives until it is dropped."""
    held = _message()
    held.value = message.value
    held.capability = message.capability
    return held


def _pass_on(value: Any, message: Any) -> None:
    message.value = value.value
    message.capability = value.capability


ANYTHING: Codec[Any] = Codec(_pass_on, lambda message: hold(message).as_reader())
"""Any struct or capability, unseen: a value has `value.as_struct(...)` and `capability.as_interface(...)`."""


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise UsageError(f"the value is {type(value).__name__}: expected text")
    return value


def _write_text(value: str, message: Any) -> None:
    message.value = _text(value)


def _read_text(message: Any) -> str:
    try:
        return str(message.value.as_text())
    except (capnp.KjException, UnicodeDecodeError):
        raise UsageError("the value cannot be read: expected text") from None


TEXT: Codec[str] = Codec(_write_text, _read_text, _text)
"""Text."""


def struct(kind: Any) -> Codec[Any]:
    """Return the codec for a schema struct, capabilities inside it included.

    What is sent may be a builder or a reader of it, or a dict of its fields; what is received can be read.
    """
    name = kind.schema.node.displayName.rpartition(":")[2]

    def normalise(value: Any) -> Any:
        if isinstance(value, dict):
            try:
                return kind.new_message(**value)
            except (capnp.KjException, AttributeError, TypeError, ValueError):
                raise UsageError(f"the value has fields that no {name} has") from None
        if not isinstance(value, _STRUCTS) or value.schema.node.id != kind.schema.node.id:
            raise UsageError(f"the value is {type(value).__name__}: expected a {name}")
        return value

    def write(value: Any, message: Any) -> None:
        message.value = normalise(value)

    def read(message: Any) -> Any:
        try:
            return hold(message).as_reader().value.as_struct(kind)
        except capnp.KjException:
            raise UsageError(f"the value cannot be read: expected a {name}") from None

    return Codec(write, read, normalise)


def interface(kind: Any) -> Codec[Any]:
    """Return the codec for capabilities of an interface: a server object or a client goes in, a client comes out."""
    name = kind.schema.node.displayName.rpartition(":")[2]

    def normalise(value: Any) -> Any:
        if isinstance(value, capnp.lib.capnp._DynamicCapabilityClient):
            return value
        if not isinstance(value, capnp.lib.capnp._DynamicCapabilityServer):
            raise UsageError(f"the value is {type(value).__name__}: expected a {name}")
        # By a message: it may serve more than this interface, and a client made of it for this one could not.
        held = _message()
        held.capability = value
        return held.as_reader().capability.as_interface(kind)

    def write(value: Any, message: Any) -> None:
        message.capability = normalise(value)

    def read(message: Any) -> Any:
        if not message._has("capability"):
            raise UsageError(f"the value is no capability: expected a {name}")
        return message.capability.as_interface(kind)

    return Codec(write, read, normalise)
