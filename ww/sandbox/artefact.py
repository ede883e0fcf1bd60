"""Compiled modules as files: their name, their form, and the check before one is loaded.

Imports no wasmtime, so that the parent process can name artefacts without loading it. A file is a magic, the sha256 of
the rest, what is to be known of the module as JSON, and wasmtime's serialized module: loading damaged code kills or
owns the process, so nothing is loaded unchecked. Files come as descriptors: a sandbox process can open none.
"""

import dataclasses
import errno
import hashlib
import json
import os
import platform
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from ww.errors import BadModule
from ww.wasm_inspect import FunctionType, ModuleInfo, callable_of

_MAGIC: Final = b"ww-cwasm"
_HEADER_BYTES: Final = len(_MAGIC) + 32
# Raised whenever engine.py's configuration, or this form, changes.
_CONFIGURATION: Final = 4
_FIRST: Final = ("_initialize", "_start")
# What JSON becomes as objects.
_SIZE_FACTOR: Final = 8


@dataclass(frozen=True, slots=True)
class About:
    """What is known of a module besides its code. wasmtime would tell too, but ends the process over types that its C
    interface does not know."""

    is_component: bool = False
    needs_wasi: bool = False
    shows_memory: bool = False
    """Whether it exports its memory, as `memory`."""
    functions: Mapping[str, tuple[Sequence[str], Sequence[str]]] | None = None
    """Types that exported functions take and return, of those that numbers alone go in and out of; of at most some
    thousand of them."""
    memory_bytes: int | None = None
    """How large its memory is at any time, where it cannot grow."""
    size_bytes: int = 0
    """About how much memory it takes."""
    python: Mapping[str, Any] | None = None
    """Of a Python component, how it is linked: see python_compile.py."""

    @classmethod
    def of(cls, info: ModuleInfo) -> "About":
        """Pick it from all that wasm_inspect.py reads. BadModule when what is called first cannot be."""
        for name in _FIRST:
            export = info.exports.get(name)
            if export is not None and (export.signature is None or any(_types(export.signature))):
                raise BadModule(f"{name} is no function that takes and returns nothing")
        functions = {name: _types(signature) for name, signature in callable_of(info).items()}
        memory = info.exports.get("memory")
        return cls(
            needs_wasi=bool(info.imports),
            shows_memory=memory is not None and memory.kind == "memory",
            functions=functions,
            memory_bytes=None if info.may_grow else info.memory_bytes,
        )


def _types(signature: FunctionType) -> tuple[Sequence[str], Sequence[str]]:
    return signature.parameters, signature.results


def fingerprint() -> str:
    """Name the compiler, and the processor: code compiled by or for another one is another file."""
    # Here: importing it takes as long as a tenth of a sandbox process's start, and those name nothing.
    from importlib.metadata import version as version_of

    version = version_of("wasmtime")
    features = hashlib.sha256(_processor_features()).hexdigest()[:8]
    return f"{platform.machine()}-{features}-{version}-{_CONFIGURATION}"


def _processor_features() -> bytes:
    """Return what tells processors of different abilities apart."""
    try:
        with open("/proc/cpuinfo", "rb") as file:
            lines = file.read(64 << 10).splitlines()
    except OSError:
        return platform.processor().encode()
    return next((line for line in lines if line.lower().startswith((b"flags", b"features"))), b"")


def pack(about: About, serialized: bytes) -> bytes:
    """Make the contents of an artefact file."""
    said = json.dumps(dataclasses.asdict(about), separators=(",", ":")).encode()
    body = b"".join((struct.pack("<I", len(said)), said, serialized))
    return _MAGIC + hashlib.sha256(body).digest() + body


def read(fd: int) -> tuple[About, memoryview] | None:
    """Return what a file holds, or None when it is damaged. What is returned is what was looked at: no mapping, which
    the file's owner could still change."""
    try:
        data = _read_all(fd)
    except OSError:
        return None
    body = memoryview(data)[_HEADER_BYTES:]
    if data[:_HEADER_BYTES] != _MAGIC + hashlib.sha256(body).digest():
        return None
    try:
        (length,) = struct.unpack_from("<I", body)
        about = About(**json.loads(bytes(body[4 : 4 + length])) | {"size_bytes": _SIZE_FACTOR * length})
    except (ValueError, TypeError, struct.error):
        return None
    return about, body[4 + length :]


def read_module(fd: int, digest: bytes) -> bytes:
    """Return a module's bytes. OSError when they are not what digest names."""
    data = bytes(_read_all(fd))
    if hashlib.sha256(data).digest() != digest:
        raise OSError(errno.EIO, "damaged")
    return data


def write(fd: int, data: bytes) -> None:
    """Write a file's whole contents. OSError when the disk or a limit does not let it."""
    with open(fd, "wb", closefd=False) as file:
        file.write(data)


def _read_all(fd: int) -> bytearray:
    """Read a file into memory that C can be given the address of: one copy, of files of tens of megabytes."""
    data = bytearray(os.fstat(fd).st_size)
    with open(fd, "rb", buffering=0, closefd=False) as file:
        view, at = memoryview(data), 0
        while at < len(data) and (count := file.readinto(view[at:])):
            at += count
    del view
    del data[at:]
    return data
