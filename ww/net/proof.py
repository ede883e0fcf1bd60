"""What a peer and a gateway sign before they talk over a WebSocket, so that each knows whose key the other has.

Holds the messages, what is signed, and the gateway's side: a WebSocket has no certificate that says so.
Must not know the socket. The nonces make a proof good for one connection, the gateway's name keeps one gateway from
passing a proof on to another, the origin one web page from being another's. The peer's side: web/src/identity/proof.ts.
"""

import base64
import binascii
import json
import secrets
import struct
from dataclasses import dataclass
from typing import Any, Final

from ww.errors import NotAdmitted, UsageError
from ww.identity import Identity, PeerId

PEER_DOMAIN: Final = b"ww peer over WebSocket 1"
GATEWAY_DOMAIN: Final = b"ww gateway over WebSocket 1"
PROOF_VERSION: Final = 1
PROOF_BYTES_MAX: Final = 4096
WORK: Final = "work"
_NONCE_BYTES: Final = 32
_KEY_BYTES: Final = 32
_SIGNATURE_BYTES: Final = 64
_FIELDS: Final = ("key", "nonce", "purpose", "signature")


def to_text(data: bytes) -> str:
    """Write bytes as base64url without padding."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def statement(*texts: str) -> bytes:
    """Return what is signed of texts: each with its length before it, so that they cannot be cut otherwise."""
    return b"".join(struct.pack("<I", len(data)) + data for data in (text.encode() for text in texts))


@dataclass(frozen=True, slots=True)
class Proof:
    """What a peer answers a challenge with."""

    peer_id: PeerId
    key: str
    nonce: str
    purpose: str
    signature: bytes


def read_proof(text: str) -> Proof:
    """Read a peer's answer; UsageError says what was wrong with it."""
    try:
        value: Any = json.loads(text)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict) or value.get("type") != "proof":
        raise UsageError('expected a JSON object of type "proof"')
    for name in _FIELDS:
        if not isinstance(value.get(name), str):
            raise UsageError(f"{name}: expected a text", name)
    _bytes_of(value["nonce"], "nonce", _NONCE_BYTES)
    key = _bytes_of(value["key"], "key", _KEY_BYTES)
    signature = _bytes_of(value["signature"], "signature", _SIGNATURE_BYTES)
    return Proof(PeerId(key), value["key"], value["nonce"], value["purpose"], signature)


def _bytes_of(text: str, name: str, count: int) -> bytes:
    try:
        data = base64.b64decode(text.encode("ascii") + b"=" * (-len(text) % 4), b"-_", validate=True)
    except (binascii.Error, UnicodeEncodeError):
        data = b""
    # One text for one key: what is written in two ways could be signed as the one and read as the other.
    if len(data) != count or to_text(data) != text:
        raise UsageError(f"{name}: expected {count} bytes as base64url without padding", name)
    return data


class Challenger:
    """The gateway's side of one connection."""

    def __init__(self, identity: Identity, origin: str) -> None:
        """Challenge a peer whose browser names origin; empty where it is none."""
        self._identity = identity
        self._origin = origin
        self.nonce = to_text(secrets.token_bytes(_NONCE_BYTES))

    def challenge(self) -> dict[str, Any]:
        """Return what is said first."""
        gateway = str(self._identity.peer_id)
        return {"type": "challenge", "version": PROOF_VERSION, "gateway": gateway, "nonce": self.nonce}

    def welcome(self, text: str) -> tuple[PeerId, dict[str, Any]]:
        """Return whose proof that is, and what it is answered. UsageError when it is none, NotAdmitted a wrong one."""
        proof = read_proof(text)
        if proof.purpose != WORK:
            raise UsageError(f'purpose: expected "{WORK}"', "purpose")
        texts = str(self._identity.peer_id), self._origin, proof.purpose, self.nonce, proof.nonce
        if not proof.peer_id.verify(PEER_DOMAIN, statement(*texts), proof.signature):
            origin = f"origin {self._origin[:80]!a}" if self._origin else "no origin"
            raise NotAdmitted(f"the signature is not of that key for this gateway, its nonce, and {origin}")
        signature = self._identity.sign(GATEWAY_DOMAIN, statement(*texts, proof.key))
        return proof.peer_id, {"type": "welcome", "signature": to_text(signature)}
