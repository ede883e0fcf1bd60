"""Calling into an instance by wasmtime's C functions alone.

Holds the lookup of an export and the call of a function of integers. wasmtime-py's own classes look at every export and
at every type on each call, which is half of what a short run costs (bench/dispatch.py). These bindings are private:
pyproject.toml pins wasmtime. Nothing is checked here that engine.py has not checked when the module was loaded.
"""

import ctypes
from collections.abc import Sequence
from typing import Any, Final

import wasmtime
from wasmtime import _ffi as ffi

I32: Final = 0
I64: Final = 1
KINDS: Final = {"i32": I32, "i64": I64}
_TrapPointer: Final = ctypes.POINTER(ffi.wasm_trap_t)
_ARRAYS: Final = [ffi.wasmtime_val_t * count for count in range(2)]


def find(store: wasmtime.Store, instance: wasmtime.Instance, name: bytes) -> Any:
    """Return what the instance exports under name, a union of all kinds of externs; KeyError when there is none."""
    item = ffi.wasmtime_extern_t()
    if not ffi.wasmtime_instance_export_get(
        store._context(), ctypes.byref(instance._instance), name, len(name), ctypes.byref(item)
    ):
        raise KeyError(name)
    return item.of


def call(
    store: wasmtime.Store, function: Any, kinds: Sequence[int], arguments: Sequence[int], result: int | None
) -> int | None:
    """Call what `find` found. kinds are those of the arguments, result is that of the one result, if there is one.

    Raises Trap or WasmtimeError as wasmtime-py does.
    """
    count = len(kinds)
    given = (ffi.wasmtime_val_t * count)()
    for value, kind, argument in zip(given, kinds, arguments, strict=True):
        value.kind = kind
        if kind == I32:
            value.of.i32 = argument
        else:
            value.of.i64 = argument
    returned = _ARRAYS[result is not None]()
    trap = _TrapPointer()
    error = ffi.wasmtime_func_call(
        store._context(), ctypes.byref(function.func), given, count, returned, len(returned), ctypes.byref(trap)
    )
    if error:
        raise wasmtime.WasmtimeError._from_ptr(error)
    if trap:
        raise wasmtime.Trap._from_ptr(trap)
    if result is None:
        return None
    return int(returned[0].of.i32 if result == I32 else returned[0].of.i64)


def memory_bytes(store: wasmtime.Store, memory: Any) -> int:
    """Return the size of a memory that `find` found."""
    return int(ffi.wasmtime_memory_data_size(store._context(), ctypes.byref(memory.memory)))
