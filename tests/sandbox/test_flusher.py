"""No guest's output begins with another's."""

import contextlib
import os
import resource
from collections.abc import Iterator

import wasmtime

from tests.guests import wat
from ww.sandbox.flusher import Flusher


@contextlib.contextmanager
def output() -> Iterator[int]:
    """Make fd 1 a file in memory; within a test, since pytest has fd 1 otherwise before and after it."""
    kept, file = os.dup(1), os.memfd_create("output")
    os.dup2(file, 1)
    try:
        yield file
    finally:
        os.dup2(kept, 1)
        os.close(kept)
        os.close(file)


@contextlib.contextmanager
def limited(most: int) -> Iterator[None]:
    """Let no file grow beyond most bytes."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def say(text: str, most: int | None = None) -> None:
    """Have a module write text to stdout, where files may have no more than most bytes."""
    engine = wasmtime.Engine()
    linker = wasmtime.Linker(engine)
    linker.define_wasi()
    wasi = wasmtime.WasiConfig()
    wasi.inherit_stdout()
    store = wasmtime.Store(engine)
    store.set_wasi(wasi)
    module = wat(
        f"""
        (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
        (memory (export "memory") 1) (data (i32.const 100) "{text}")
        (func (export "_start")
          (i32.store (i32.const 0) (i32.const 100)) (i32.store (i32.const 4) (i32.const {len(text)}))
          (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8))))
        """
    )
    instance = linker.instantiate(store, wasmtime.Module(engine, module))
    with limited(most) if most is not None else contextlib.nullcontext():
        instance.exports(store)["_start"](store)  # type: ignore[operator]


def test_what_did_not_fit_is_flushed_when_it_fits() -> None:
    with output() as file:
        say("one", most=0)
        assert os.pread(file, 100, 0) == b""
        Flusher().flush()
        assert os.pread(file, 100, 0) == b"one"
        say("two")
        assert os.pread(file, 100, 0) == b"onetwo"


def test_what_still_does_not_fit_is_thrown_away() -> None:
    with output() as file:
        flusher = Flusher()
        say("one", most=0)
        with limited(0):
            flusher.flush()
        say("two")
        assert os.pread(file, 100, 0) == b"two"
