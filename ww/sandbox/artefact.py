"""Compiled modules as files: their name, their form, and the check before one is loaded.

Imports no wasmtime, so that the parent process can name artefacts without loading it. A file is a magic, the sha256 of
the rest, and wasmtime's serialized module: loading damaged code kills or owns the process, so nothing is loaded
unchecked.
"""

import errno
import hashlib
import importlib.metadata
import platform
from pathlib import Path
from typing import Final

_MAGIC: Final = b"ww-cwasm"
_HEADER_BYTES: Final = len(_MAGIC) + 32
# Raised whenever engine.py's configuration changes what compiled code looks like.
_CONFIGURATION: Final = 1


def fingerprint() -> str:
    """Name the compiler: code compiled by another one is another file."""
    version = importlib.metadata.version("wasmtime")
    return f"{platform.machine()}-{version}-{_CONFIGURATION}"


def pack(serialized: bytes) -> bytes:
    """Make the contents of an artefact file."""
    return _MAGIC + hashlib.sha256(serialized).digest() + serialized


def read(path: Path) -> bytes | None:
    """Return the serialized module in the file, or None when it is missing or damaged."""
    try:
        data = path.read_bytes()
    except OSError:
        return None
    body = data[_HEADER_BYTES:]
    if data[:_HEADER_BYTES] != _MAGIC + hashlib.sha256(body).digest():
        return None
    return body


def read_module(path: Path, digest: bytes) -> bytes:
    """Return a module's bytes. OSError when they are missing or are not what digest names."""
    data = path.read_bytes()
    if hashlib.sha256(data).digest() != digest:
        raise OSError(errno.EIO, "damaged")
    return data
