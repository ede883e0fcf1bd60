"""Who a node is: an Ed25519 key pair and the peer id made from it.

Holds key files, their lock, signing and verifying. Knows no connection and no policy. A peer id is libp2p's: the
base58btc form of the identity multihash of the protobuf-encoded public key, "12D3KooW...". One key signs several
kinds of thing, so every signature is made over a domain prefix and the message.
Source: libp2p specification, peer-ids/peer-ids.md.
"""

import fcntl
import os
import time
from pathlib import Path
from typing import Self

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from ww.errors import UsageError

_BASE58 = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
# Multihash (identity, 36 bytes) of PublicKey{type: Ed25519, data: 32 bytes}.
_PREFIX = bytes.fromhex("002408011220")
_KEY_TRIES = 200
_KEY_PAUSE_S = 0.005


def _base58_encode(data: bytes) -> str:
    number = int.from_bytes(data, "big")
    digits = ""
    while number:
        number, digit = divmod(number, 58)
        digits = _BASE58[digit] + digits
    return "1" * (len(data) - len(data.lstrip(b"\0"))) + digits


def _base58_decode(text: str) -> bytes:
    number = 0
    for character in text:
        digit = _BASE58.find(character)
        if digit < 0:
            raise ValueError(f"{character!r} is no base58 digit")
        number = number * 58 + digit
    zeros = len(text) - len(text.lstrip("1"))
    return b"\0" * zeros + number.to_bytes((number.bit_length() + 7) // 8, "big")


class PeerId:
    """The name of a node: its public key, written as 12D3KooW..."""

    __slots__ = ("_text", "public_key")

    def __init__(self, public_key: bytes) -> None:
        """Name the node with this raw Ed25519 public key, 32 bytes."""
        if len(public_key) != 32:
            raise UsageError(f"an Ed25519 public key has 32 bytes, not {len(public_key)}")
        self.public_key = public_key
        self._text = _base58_encode(_PREFIX + public_key)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read the 12D3KooW... form; UsageError when it is not one."""
        try:
            # 52 digits hold 38 bytes; the bound keeps hostile text from costing quadratic time.
            raw = _base58_decode(text) if len(text) <= 64 else b""
        except ValueError:
            raw = b""
        if len(raw) != 38 or not raw.startswith(_PREFIX):
            raise UsageError(f"{text[:80]!r} is no peer id: expected 12D3KooW and 44 more base58 digits")
        return cls(raw[6:])

    def verify(self, domain: bytes, message: bytes, signature: bytes) -> bool:
        """Tell whether this peer signed message in that domain."""
        try:
            Ed25519PublicKey.from_public_bytes(self.public_key).verify(signature, _framed(domain, message))
        except InvalidSignature:
            return False
        return True

    def __str__(self) -> str:
        return self._text

    def __repr__(self) -> str:
        return f"PeerId({self._text})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, PeerId) and other.public_key == self.public_key

    def __hash__(self) -> int:
        return hash(self.public_key)


def _framed(domain: bytes, message: bytes) -> bytes:
    # The length keeps one domain from being a prefix of another.
    return b"ww-sig" + len(domain).to_bytes(1, "big") + domain + message


class Identity:
    """A node's key pair. Never leaves the process except into its key file."""

    __slots__ = ("_lock_fd", "peer_id", "private_key")

    def __init__(self, private_key: Ed25519PrivateKey) -> None:
        self.private_key = private_key
        self.peer_id = PeerId(
            private_key.public_key().public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
        )
        self._lock_fd: int | None = None

    @classmethod
    def generate(cls) -> Self:
        """Make a new key pair that lives as long as this process."""
        return cls(Ed25519PrivateKey.generate())

    @classmethod
    def load(cls, path: Path, *, lock: bool = True) -> Self:
        """Read the key file at path, or create it (mode 0600), and hold it for this process alone.

        Two processes under one key would answer for each other, so the file is locked until `close`. With `lock`
        false the key is only looked at. Raises UsageError when the file is in use, is no key, or cannot be used.
        """
        try:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as error:
            reason = (error.strerror or "it cannot be made").lower()
            raise UsageError(
                f"key file {path.name}: no directory for it, {reason}: see --state and --key", "key"
            ) from None
        try:
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except OSError as error:
            raise UsageError(f"key file {path.name}: {error.strerror}", "key") from None
        try:
            identity = cls._read_or_create(fd, path, lock)
        except BaseException:
            os.close(fd)
            raise
        if lock:
            identity._lock_fd = fd
        else:
            os.close(fd)
        return identity

    @classmethod
    def _read_or_create(cls, fd: int, path: Path, lock: bool) -> Self:
        if os.fstat(fd).st_mode & 0o077:
            raise UsageError(f"key file {path.name} can be read by others: expected mode 0600", "key")
        try:
            # A reader too takes the lock for a moment, so that it never sees a key half written.
            fcntl.flock(fd, (fcntl.LOCK_EX if lock else fcntl.LOCK_SH) | fcntl.LOCK_NB)
        except OSError:
            if lock:
                raise UsageError(
                    f"key file {path.name} is in use by another process: stop it, or name another key with --key", "key"
                ) from None
        data = os.pread(fd, 4096, 0)
        if not data and not lock:
            data = _wait_for_key(fd, path)
        if not data:
            key = Ed25519PrivateKey.generate()
            os.pwrite(fd, _pem(key), 0)
            os.fsync(fd)
            return cls(key)
        try:
            loaded = serialization.load_pem_private_key(data, password=None)
        except ValueError:
            loaded = None
        if not isinstance(loaded, Ed25519PrivateKey):
            raise UsageError(f"key file {path.name} holds no Ed25519 key: expected PKCS#8 PEM as ww writes it", "key")
        return cls(loaded)

    def sign(self, domain: bytes, message: bytes) -> bytes:
        """Sign message for one purpose; 64 bytes."""
        return self.private_key.sign(_framed(domain, message))

    def hand_over(self) -> None:
        """Have the key file held by the program, too, that this process becomes by exec: until that one's end."""
        if self._lock_fd is not None:
            os.set_inheritable(self._lock_fd, True)

    def close(self) -> None:
        """Let go of the key file."""
        if self._lock_fd is not None:
            os.close(self._lock_fd)
            self._lock_fd = None


def _wait_for_key(fd: int, path: Path) -> bytes:
    """Return what is in a key file once it is there; nothing when it is to be written here, alone: fd is locked."""
    # Those that begin at once have to be known by one key. Who asks for another lock lets go of its own, so that one of
    # them gets it, and who holds it longer has written.
    for _ in range(_KEY_TRIES):
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            time.sleep(_KEY_PAUSE_S)
            if data := os.pread(fd, 4096, 0):
                return data
        else:
            return os.pread(fd, 4096, 0)
    raise UsageError(f"key file {path.name} is empty, and another process holds it: expected a key", "key")


def _pem(key: Ed25519PrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
