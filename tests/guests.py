"""Guests for tests: the ones of wasm/, and small ones written as text."""

import hashlib
import io
import zipfile
from pathlib import Path

import wasmtime

ROOT = Path(__file__).resolve().parent.parent
CONFORMANCE = sorted(path.stem for path in (ROOT / "wasm" / "conformance").glob("*.c"))


def guest(name: str) -> bytes:
    """Return the prebuilt guest of that name."""
    return (ROOT / "wasm" / name / f"{name}.wasm").read_bytes()


def conformance_guest(name: str) -> bytes:
    """Return the prebuilt guest of that name that checks preview 1."""
    return (ROOT / "wasm" / "conformance" / f"{name}.wasm").read_bytes()


def wat(text: str) -> bytes:
    """Assemble a module."""
    return bytes(wasmtime.wat2wasm(f"(module {text})"))


def function(body: str, before: str = "") -> bytes:
    """Assemble a module whose run(input, difficulty) has that body; parameters and result are i32."""
    return wat(f'{before} (func $run (export "run") (param i32 i32) (result i32) {body})')


def zipped(**files: bytes) -> bytes:
    """Make a zip of files by name, in which "__" stands for "/"."""
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name.replace("__", "/"), content)
    return target.getvalue()


def digest_of(module: bytes) -> bytes:
    return hashlib.sha256(module).digest()


GROW_4_GIB = function(
    "(drop (memory.grow (i32.const 65535))) (i32.store (i32.const 4294901760) (i32.const 1)) (i32.const 1)",
    '(memory (export "memory") 1)',
)
START_WITH_4_GIB = function("(i32.const 1)", "(memory 65536)")
UNREACHABLE = function("unreachable")
SLEEP_FOR_EVER = wat(
    """
    (import "wasi_snapshot_preview1" "poll_oneoff" (func $poll (param i32 i32 i32 i32) (result i32)))
    (memory (export "memory") 1)
    (func (export "_start")
      (i32.store8 (i32.const 8) (i32.const 0))                          ;; a clock
      (i32.store (i32.const 16) (i32.const 1))                          ;; monotonic
      (i64.store (i32.const 24) (i64.const 3600000000000))              ;; an hour
      (drop (call $poll (i32.const 0) (i32.const 104) (i32.const 1) (i32.const 200))))
    """
)
FLOOD = wat(
    """
    (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
    (memory (export "memory") 1)
    (func (export "_start") (local $i i32)
      (i32.store (i32.const 0) (i32.const 1024)) (i32.store (i32.const 4) (i32.const 4096))
      (loop $again
        (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8)))
        (drop (call $write (i32.const 2) (i32.const 0) (i32.const 1) (i32.const 8)))
        (br_if $again (i32.lt_u (local.tee $i (i32.add (local.get $i) (i32.const 1))) (i32.const 10000)))))
    """
)
