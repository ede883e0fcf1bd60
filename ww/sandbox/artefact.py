"""Compiled modules as files: their name, their form, and the check before one is loaded.

Imports no wasmtime, so that the parent process can name artefacts without loading it. A file is a magic, the sha256 of
the rest, and wasmtime's serialized module: loading damaged code kills or owns the process, so nothing is loaded
unchecked. Files come as descriptors: a sandbox process can open none.
"""

import errno
import hashlib
import importlib.metadata
import platform
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


def read(fd: int) -> bytes | None:
    """Return the serialized module in a file, or None when it is damaged."""
    try:
        data = _read_all(fd)
    except OSError:
        return None
    body = data[_HEADER_BYTES:]
    if data[:_HEADER_BYTES] != _MAGIC + hashlib.sha256(body).digest():
        return None
    return body


def read_module(fd: int, digest: bytes) -> bytes:
    """Return a module's bytes. OSError when they are not what digest names."""
    data = _read_all(fd)
    if hashlib.sha256(data).digest() != digest:
        raise OSError(errno.EIO, "damaged")
    return data


def write(fd: int, data: bytes) -> None:
    """Write a file's whole contents. OSError when the disk or a limit does not let it."""
    with open(fd, "wb", closefd=False) as file:
        file.write(data)


def _read_all(fd: int) -> bytes:
    with open(fd, "rb", closefd=False) as file:
        return file.read()
