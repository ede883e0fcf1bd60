"""Getting out of wasmtime what it still keeps of a guest's stdout.

wasmtime writes stdout through Rust's standard library, which keeps up to 1 KiB of a line that has no end yet: what a
component does not flush, and what of a module's output does not fit under the file size limit. It is the process's, not
the guest's: the next guest's output would begin with it.
"""

import ctypes
import os
from typing import Final

import wasmtime
from wasmtime import _ffi as ffi
from wasmtime import component as wasip2

_FLUSH: Final = """
(component
  (import "wasi:io/error@0.2.0" (instance $error (export "error" (type (sub resource)))))
  (alias export $error "error" (type $error-type))
  (import "wasi:io/streams@0.2.0" (instance $streams
    (alias outer 1 $error-type (type $t)) (export "error" (type $e (eq $t)))
    (export "output-stream" (type $out (sub resource)))
    (type $failure (variant (case "last-operation-failed" (own $e)) (case "closed")))
    (export "stream-error" (type $stream-error (eq $failure)))
    (export "[method]output-stream.blocking-flush"
      (func (param "self" (borrow $out)) (result (result (error $stream-error)))))))
  (alias export $streams "output-stream" (type $output-stream))
  (import "wasi:cli/stdout@0.2.0" (instance $stdout
    (alias outer 1 $output-stream (type $t)) (export "output-stream" (type $out (eq $t)))
    (export "get-stdout" (func (result (own $out))))))
  (core module $memory (memory (export "memory") 1))
  (core instance $memory (instantiate $memory))
  (core func $get-stdout (canon lower (func $stdout "get-stdout")))
  (core func $drop (canon resource.drop $output-stream))
  (core func $flush (canon lower (func $streams "[method]output-stream.blocking-flush")
    (memory (core memory $memory "memory"))))
  (core module $main
    (import "m" "memory" (memory 1))
    (import "m" "get-stdout" (func $get-stdout (result i32)))
    (import "m" "drop" (func $drop (param i32)))
    (import "m" "flush" (func $flush (param i32 i32)))
    (func (export "run") (result i32) (local $out i32)
      (local.set $out (call $get-stdout))
      (call $flush (local.get $out) (i32.const 0))
      (call $drop (local.get $out))
      (i32.load8_u (i32.const 0))))
  (core instance $main (instantiate $main (with "m" (instance
    (export "memory" (memory $memory "memory")) (export "get-stdout" (func $get-stdout))
    (export "drop" (func $drop)) (export "flush" (func $flush))))))
  (func (export "run") (result (result)) (canon lift (core func $main "run"))))
"""


class Flusher:
    """A component of our own, kept ready, that flushes the process's stdout: 3 us a time."""

    def __init__(self) -> None:
        engine = wasmtime.Engine()
        component = wasip2.Component(engine, _FLUSH)
        linker = wasip2.Linker(engine)
        linker.add_wasip2()
        self._store = wasmtime.Store(engine)
        wasi = wasmtime.WasiConfig()
        wasi.inherit_stdout()
        self._store.set_wasi(wasi)
        self._instance = linker.instantiate(self._store, component)
        index = component.get_export_index("run")
        assert index is not None
        self._index = index

    def flush(self) -> None:
        """Write what is left to fd 1, or throw it away if it cannot be written."""
        if call(self._store, self._instance, self._index):
            return
        # At most 1 KiB, which fits into a pipe.
        reader, writer = os.pipe()
        stdout = os.dup(1)
        try:
            os.dup2(writer, 1)
            if not call(self._store, self._instance, self._index):
                raise RuntimeError("what is left of a guest's output cannot be got rid of")
        finally:
            os.dup2(stdout, 1)
            for fd in (reader, writer, stdout):
                os.close(fd)


def call(store: wasmtime.Store, instance: wasip2.Instance, index: wasip2.ExportIndex) -> bool:
    """Call a function that takes nothing and returns a result, and say whether that is ok. Raises WasmtimeError."""
    function = instance.get_func(store, index)
    assert function is not None
    value = ffi.wasmtime_component_val_t()
    error = ffi.wasmtime_component_func_call(
        ctypes.byref(function._func), store._context(), None, 0, ctypes.byref(value), 1
    )
    if error:
        raise wasmtime.WasmtimeError._from_ptr(error)
    return bool(value.of.result.is_ok)
