"""One signed packet: written, and read from any bytes.

Holds the wire form of schema/discovery.capnp. Must not know who is looked for, what is answered or who is a member:
survey.py and cluster/membership.py do. `read` never raises: whatever bytes come are a Packet, or the reason why they
are none.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, Final

import capnp

from ww import schema
from ww.errors import UsageError
from ww.identity import Identity, PeerId
from ww.net.multiaddr import Multiaddr

PACKET_BYTES_MAX: Final = 508
"""Of a datagram."""
HEARTBEAT_BYTES_MAX: Final = 32 << 10
"""Of a heartbeat that travels by a connection."""
ANY_DISTANCE: Final = 255
ADDRESSES_MAX: Final = 8
META_MAX: Final = 64
_DOMAIN: Final = b"ww-survey"
_TRAVERSAL_LIMIT_WORDS: Final = 2 * HEARTBEAT_BYTES_MAX // 8


class Drop(StrEnum):
    """Why a packet is not listened to."""

    TOO_LARGE = "too large"
    TOO_MANY = "too many"
    MALFORMED = "malformed"
    BAD_SIGNATURE = "bad signature"
    OTHER_NAMESPACE = "other namespace"
    OWN = "own"
    REPLAYED = "replayed"
    NOT_ASKED_FOR = "not asked for"


@dataclass(frozen=True, slots=True)
class Survey:
    """Somebody looks for peers."""

    nonce: int
    distance: int
    wanted: PeerId | None = None


@dataclass(frozen=True, slots=True)
class Response:
    """Somebody says where it is."""

    nonce: int
    addresses: tuple[Multiaddr, ...]


@dataclass(frozen=True, slots=True)
class Load:
    """How busy a member is, in runs."""

    slots: int = 0
    free: int = 0
    queue: int = 0


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """A member says that it is there, or that it leaves."""

    ttl_ms: int
    """It is gone when nothing later comes within that time; 0: it leaves."""
    role: str = ""
    host: str = ""
    meta: tuple[tuple[str, str], ...] = ()
    addresses: tuple[Multiaddr, ...] = ()
    load: Load = Load()
    abridged: bool = False
    """Whether meta or addresses did not fit and were left out."""


Content = Survey | Response | Heartbeat


@dataclass(frozen=True, slots=True)
class Packet:
    """What one packet says, and who signed it."""

    sender: PeerId
    namespace: str
    incarnation: int
    sequence: int
    content: Content


class Writer:
    """Numbers, signs and encodes what one node says."""

    def __init__(self, identity: Identity, namespace: str, incarnation: int) -> None:
        """Speak for identity; incarnation is larger at each start under the same key."""
        self.peer_id = identity.peer_id
        self.namespace = namespace
        self.incarnation = incarnation
        self._identity = identity
        self._sequence = 0

    def write(self, content: Content) -> bytes:
        """Write a datagram. What does not fit is left out: meta first, then addresses, the last ones first."""
        self._sequence += 1
        return self._fitting(content, PACKET_BYTES_MAX)

    def write_heartbeat(self, heartbeat: Heartbeat) -> tuple[bytes, bytes, tuple[int, int]]:
        """Write a heartbeat whole, for connections, and as a datagram; with their incarnation and sequence."""
        datagram = self.write(heartbeat)
        return self._fitting(heartbeat, HEARTBEAT_BYTES_MAX), datagram, (self.incarnation, self._sequence)

    def _fitting(self, content: Content, bytes_max: int) -> bytes:
        for version in _ever_shorter(content):
            data = write(self._identity, self.namespace, self.incarnation, self._sequence, version)
            if len(data) <= bytes_max:
                return data
        raise UsageError(f"--ns {self.namespace!r}: too long for a packet", "ns")


def _ever_shorter(content: Content) -> Iterator[Content]:
    yield content
    while isinstance(content, Heartbeat) and content.meta:
        content = replace(content, meta=content.meta[:-1], abridged=True)
        yield content
    while not isinstance(content, Survey) and content.addresses:
        content = replace(content, addresses=content.addresses[:-1])
        if isinstance(content, Heartbeat):
            content = replace(content, abridged=True)
        yield content
    if isinstance(content, Heartbeat):
        yield replace(content, host=content.host[:32])


def write(identity: Identity, namespace: str, incarnation: int, sequence: int, content: Content) -> bytes:
    """Sign and encode a packet."""
    packet = schema.discovery.Packet.new_message(namespace=namespace, incarnation=incarnation, sequence=sequence)
    if isinstance(content, Survey):
        survey = packet.init("survey")
        survey.nonce, survey.distance = content.nonce, content.distance
        if content.wanted is not None:
            survey.wanted = content.wanted.public_key
    elif isinstance(content, Response):
        response = packet.init("response")
        response.nonce = content.nonce
        response.addresses = _texts(content.addresses)
    else:
        fill_heartbeat(packet.init("heartbeat"), content)
    body = packet.to_bytes_packed()
    signature = identity.sign(_DOMAIN, body)
    envelope = schema.discovery.Envelope.new_message(peer=identity.peer_id.public_key, signature=signature, body=body)
    return bytes(envelope.to_bytes())


def _texts(addresses: tuple[Multiaddr, ...]) -> list[str]:
    return [str(address) for address in addresses[:ADDRESSES_MAX]]


def fill_heartbeat(heartbeat: Any, content: Heartbeat) -> None:
    """Fill in the schema's struct Heartbeat."""
    heartbeat.ttlMilliseconds = content.ttl_ms
    heartbeat.role, heartbeat.host = content.role, content.host
    heartbeat.meta = [{"key": key, "value": value} for key, value in content.meta]
    heartbeat.addresses = _texts(content.addresses)
    load = content.load
    heartbeat.slots, heartbeat.free, heartbeat.queue = load.slots, load.free, load.queue
    heartbeat.abridged = content.abridged


def sender_of(data: bytes) -> PeerId | None:
    """Return whom a packet claims to be from, without looking at its signature; None for what is no packet."""
    try:
        with schema.discovery.Envelope.from_bytes(data, traversal_limit_in_words=_TRAVERSAL_LIMIT_WORDS) as envelope:
            return PeerId(bytes(envelope.peer))
    except (capnp.KjException, ValueError, UsageError):
        return None


def read(
    data: bytes, bytes_max: int = PACKET_BYTES_MAX, *, may_check: Callable[[], bool] = lambda: True
) -> Packet | Drop:
    """Read a packet: what it says, once its signature holds, or why it is dropped.

    may_check is asked before the signature is checked, which costs about 0.1 ms.
    """
    if len(data) > bytes_max:
        return Drop.TOO_LARGE
    try:
        with schema.discovery.Envelope.from_bytes(data, traversal_limit_in_words=_TRAVERSAL_LIMIT_WORDS) as envelope:
            peer, signature, body = bytes(envelope.peer), bytes(envelope.signature), bytes(envelope.body)
    except (capnp.KjException, ValueError):
        return Drop.MALFORMED
    if len(peer) != 32 or len(signature) != 64:
        return Drop.MALFORMED
    sender = PeerId(peer)
    if not may_check():
        return Drop.TOO_MANY
    # Before the body is looked at: only its sender can have made it.
    if not _is_signed(sender, body, signature):
        return Drop.BAD_SIGNATURE
    try:
        unpacked = unpack(body, 2 * bytes_max)
        with schema.discovery.Packet.from_bytes(unpacked, traversal_limit_in_words=_TRAVERSAL_LIMIT_WORDS) as packet:
            namespace = _text(packet.namespace, 64)
            return Packet(sender, namespace, packet.incarnation, packet.sequence, _content(packet))
    except (capnp.KjException, ValueError, UsageError):
        return Drop.MALFORMED


def unpack(packed: bytes, bytes_max: int) -> bytes:
    """Undo the packing of Cap'n Proto. ValueError when packed is cut short, or longer than bytes_max unpacked.

    Not pycapnp's: that reads on while a message is used, and bytes that end too soon then abort the process.
    """
    data = bytearray()
    place = 0
    try:
        while place < len(packed):
            tag = packed[place]
            place += 1
            for bit in range(8):
                if tag >> bit & 1:
                    data.append(packed[place])
                    place += 1
                else:
                    data.append(0)
            if tag in (0x00, 0xFF):
                # So many words follow: of zeros, which are left out, or of bytes as they are.
                count = 8 * packed[place]
                place += 1
                data += bytes(count) if tag == 0x00 else packed[place : place + count]
                place += count if tag == 0xFF else 0
            if len(data) > bytes_max or place > len(packed):
                raise ValueError("too long, or cut short")
    except IndexError:
        raise ValueError("cut short") from None
    return bytes(data)


def _is_signed(sender: PeerId, body: bytes, signature: bytes) -> bool:
    try:
        return sender.verify(_DOMAIN, body, signature)
    except ValueError:  # the 32 bytes are no point of the curve
        return False


def _content(packet: Any) -> Content:
    kind = packet.which()
    if kind == "survey":
        wanted = bytes(packet.survey.wanted)
        return Survey(packet.survey.nonce, packet.survey.distance, PeerId(wanted) if wanted else None)
    if kind == "response":
        return Response(packet.response.nonce, _addresses(packet.response.addresses))
    if kind == "heartbeat":
        return read_heartbeat(packet.heartbeat)
    raise UsageError("a kind of packet that this version does not know")


def read_heartbeat(said: Any) -> Heartbeat:
    """Read the schema's struct Heartbeat; UsageError or KjException when it cannot be."""
    meta = list(said.meta)
    if len(meta) > META_MAX:
        raise UsageError("more meta than a packet may have")
    return Heartbeat(
        ttl_ms=said.ttlMilliseconds,
        role=_text(said.role, 32),
        host=_text(said.host, 256),
        meta=tuple((_text(entry.key, 64), _text(entry.value, 256)) for entry in meta),
        addresses=_addresses(said.addresses),
        load=Load(said.slots, said.free, said.queue),
        abridged=said.abridged,
    )


def _addresses(said: Any) -> tuple[Multiaddr, ...]:
    texts = list(said)
    if len(texts) > ADDRESSES_MAX:
        raise UsageError("more addresses than a packet may have")
    return tuple(Multiaddr.parse(text) for text in texts)


def _text(text: str, characters_max: int) -> str:
    if len(text) > characters_max or not text.isprintable():
        raise UsageError("a text that is too long, or not for people")
    return text
