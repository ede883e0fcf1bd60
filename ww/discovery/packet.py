"""One datagram of the survey: written, signed, and read from any bytes.

Holds the wire form of schema/discovery.capnp. Must not know who is looked for or what is answered: survey.py does.
`read` never raises: whatever bytes come are a Packet, or the reason why they are none.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

import capnp

from ww import schema
from ww.errors import UsageError
from ww.identity import Identity, PeerId
from ww.net.multiaddr import Multiaddr

PACKET_BYTES_MAX: Final = 508
ANY_DISTANCE: Final = 255
_DOMAIN: Final = b"ww-survey"
_ADDRESSES_MAX: Final = 8
_TRAVERSAL_LIMIT_WORDS: Final = 4096


class Drop(StrEnum):
    """Why a datagram is not listened to."""

    TOO_LARGE = "too large"
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
class Packet:
    """What one datagram says, and who signed it."""

    sender: PeerId
    namespace: str
    incarnation: int
    sequence: int
    content: Survey | Response


def write(identity: Identity, namespace: str, incarnation: int, sequence: int, content: Survey | Response) -> bytes:
    """Sign and encode a packet. Addresses that do not fit are left out, the last ones first."""
    while True:
        data = _write(identity, namespace, incarnation, sequence, content)
        if len(data) <= PACKET_BYTES_MAX:
            return data
        if not isinstance(content, Response) or not content.addresses:
            raise UsageError(f"--ns {namespace!r}: too long for a packet", "ns")
        content = Response(content.nonce, content.addresses[:-1])


def _write(identity: Identity, namespace: str, incarnation: int, sequence: int, content: Survey | Response) -> bytes:
    packet = schema.discovery.Packet.new_message(namespace=namespace, incarnation=incarnation, sequence=sequence)
    if isinstance(content, Survey):
        said = packet.init("survey")
        said.nonce, said.distance = content.nonce, content.distance
        if content.wanted is not None:
            said.wanted = content.wanted.public_key
    else:
        said = packet.init("response")
        said.nonce = content.nonce
        said.addresses = [str(address) for address in content.addresses[:_ADDRESSES_MAX]]
    body = packet.to_bytes_packed()
    signature = identity.sign(_DOMAIN, body)
    envelope = schema.discovery.Envelope.new_message(peer=identity.peer_id.public_key, signature=signature, body=body)
    return bytes(envelope.to_bytes())


def read(data: bytes) -> Packet | Drop:
    """Read a datagram: what it says, once its signature holds, or why it is dropped."""
    if len(data) > PACKET_BYTES_MAX:
        return Drop.TOO_LARGE
    try:
        with schema.discovery.Envelope.from_bytes(data, traversal_limit_in_words=_TRAVERSAL_LIMIT_WORDS) as envelope:
            peer, signature, body = bytes(envelope.peer), bytes(envelope.signature), bytes(envelope.body)
    except (capnp.KjException, ValueError):
        return Drop.MALFORMED
    if len(peer) != 32 or len(signature) != 64:
        return Drop.MALFORMED
    sender = PeerId(peer)
    # Before the body is looked at: only its sender can have made it.
    if not _is_signed(sender, body, signature):
        return Drop.BAD_SIGNATURE
    try:
        packet = schema.discovery.Packet.from_bytes_packed(body, traversal_limit_in_words=_TRAVERSAL_LIMIT_WORDS)
        return Packet(sender, packet.namespace, packet.incarnation, packet.sequence, _content(packet))
    except (capnp.KjException, ValueError, UsageError):
        return Drop.MALFORMED


def _is_signed(sender: PeerId, body: bytes, signature: bytes) -> bool:
    try:
        return sender.verify(_DOMAIN, body, signature)
    except ValueError:  # the 32 bytes are no point of the curve
        return False


def _content(packet: Any) -> Survey | Response:
    kind = packet.which()
    if kind == "survey":
        wanted = bytes(packet.survey.wanted)
        return Survey(packet.survey.nonce, packet.survey.distance, PeerId(wanted) if wanted else None)
    if kind != "response":
        raise UsageError("a kind of packet that this version does not know")
    texts = list(packet.response.addresses)
    if len(texts) > _ADDRESSES_MAX:
        raise UsageError("more addresses than a packet may have")
    return Response(packet.response.nonce, tuple(Multiaddr.parse(text) for text in texts))
