"""Instances of modules by wasmtime's C functions alone.

Holds the way of a run that has to be short: wasmtime-py's own classes look at every type on each call, which is most of
what a short run costs (bench/sandbox.py). classes.py does the same by them, for a wasmtime that has no such functions.
These bindings are private: pyproject.toml pins wasmtime. Nothing is checked here that was not checked when the module
was loaded. Functions that return at once keep the interpreter lock (PyDLL); those that run guests, or give their
memory back, do not.
"""

import ctypes
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import wasmtime
from wasmtime import _ffi as ffi

from ww.sandbox.invocation import GuestFault
from ww.sandbox.world import (
    F32,
    I32,
    I64,
    INSTANCES_MAX,
    MEMORIES_MAX,
    TABLE_ELEMENTS_MAX,
    TABLES_MAX,
    World,
    bits_of,
    float_of,
)

_Pointer = ctypes.c_void_p
_Value = ffi.wasmtime_val_t
_VALUE_WORDS: Final = ctypes.sizeof(_Value) // 8
_OF_WORD: Final = _Value.of.offset // 8
_F32: Final = struct.Struct("<f4x")
_I64: Final = struct.Struct("<q")
_SHORT: Final = ctypes.PyDLL(ffi.dll._name)
_LONG: Final = ctypes.CDLL(ffi.dll._name)


def _function(library: ctypes.CDLL, name: str, result: Any, *arguments: Any) -> Any:
    function = getattr(library, name)
    function.restype, function.argtypes = result, arguments
    return function


_store_new: Final = _function(_SHORT, "wasmtime_store_new", _Pointer, _Pointer, _Pointer, _Pointer)
_store_context: Final = _function(_SHORT, "wasmtime_store_context", _Pointer, _Pointer)
_store_limiter: Final = _function(_SHORT, "wasmtime_store_limiter", None, _Pointer, *[ctypes.c_int64] * 5)
_store_delete: Final = _function(_LONG, "wasmtime_store_delete", None, _Pointer)
_set_epoch_deadline: Final = _function(_SHORT, "wasmtime_context_set_epoch_deadline", None, _Pointer, ctypes.c_uint64)
_set_fuel: Final = _function(_SHORT, "wasmtime_context_set_fuel", _Pointer, _Pointer, ctypes.c_uint64)
_get_fuel: Final = _function(_SHORT, "wasmtime_context_get_fuel", _Pointer, _Pointer, _Pointer)
_set_wasi: Final = _function(_SHORT, "wasmtime_context_set_wasi", _Pointer, _Pointer, _Pointer)
_instantiate: Final = _function(_LONG, "wasmtime_instance_pre_instantiate", _Pointer, *[_Pointer] * 4)
_export_get: Final = _function(
    _SHORT, "wasmtime_instance_export_get", ctypes.c_bool, _Pointer, _Pointer, ctypes.c_char_p, ctypes.c_size_t,
    _Pointer,
)  # fmt: skip
_call: Final = _function(
    _LONG, "wasmtime_func_call", _Pointer, _Pointer, _Pointer, _Pointer, ctypes.c_size_t, _Pointer, ctypes.c_size_t,
    _Pointer,
)  # fmt: skip
_memory_size: Final = _function(_SHORT, "wasmtime_memory_data_size", ctypes.c_size_t, _Pointer, _Pointer)
_wasi_new: Final = _function(_SHORT, "wasi_config_new", _Pointer)
_wasi_argv: Final = _function(_SHORT, "wasi_config_set_argv", ctypes.c_bool, _Pointer, ctypes.c_size_t, _Pointer)
_wasi_env: Final = _function(
    _SHORT, "wasi_config_set_env", ctypes.c_bool, _Pointer, ctypes.c_size_t, _Pointer, _Pointer
)
_wasi_stdin: Final = _function(_SHORT, "wasi_config_set_stdin_bytes", None, _Pointer, _Pointer)
_wasi_stdout: Final = _function(_SHORT, "wasi_config_inherit_stdout", None, _Pointer)
_wasi_stderr: Final = _function(_SHORT, "wasi_config_inherit_stderr", None, _Pointer)
_wasi_preopen: Final = _function(
    _SHORT, "wasi_config_preopen_dir", ctypes.c_bool, _Pointer, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_bool
)
_bytes_new: Final = _function(_SHORT, "wasm_byte_vec_new", None, _Pointer, ctypes.c_size_t, _Pointer)


@dataclass(slots=True)
class Module:
    """A module that is loaded and linked."""

    pre: wasmtime.InstancePre
    address: int
    """Of pre."""
    engine: wasmtime.Engine
    engine_address: int


def module(engine: wasmtime.Engine, pre: wasmtime.InstancePre) -> Module:
    """Prepare a linked module for `Instance`."""
    return Module(pre, _address(pre), engine, _address(engine))


class Function:
    """An exported function of numbers, and room for what goes in."""

    __slots__ = ("count", "given_at", "given_words", "kinds", "length", "name", "result", "results_count")

    def __init__(self, name: bytes, kinds: Sequence[int] = (), result: int | None = None) -> None:
        """kinds are those of the parameters, result that of the result, if it has one; see world.py."""
        self.name, self.length, self.kinds, self.result = name, len(name), kinds, result
        self.count, self.results_count = len(kinds), 0 if result is None else 1
        given = (_Value * max(1, len(kinds)))()
        for value, kind in zip(given, kinds, strict=False):
            value.kind = kind
        self.given_at = ctypes.addressof(given)
        # Looking at the bytes costs a fifth of going through the union.
        self.given_words = (ctypes.c_int64 * (_VALUE_WORDS * len(given))).from_buffer(given)

    def put(self, arguments: Sequence[int]) -> None:
        """Have the next call go with these arguments, as many as there are parameters."""
        at = _OF_WORD
        for kind, argument in zip(self.kinds, arguments, strict=True):
            if kind == F32:
                (argument,) = _I64.unpack(_F32.pack(float_of(argument)))
            self.given_words[at] = argument
            at += _VALUE_WORDS


class _Scratch:
    """Where C puts what it answers. One guest runs at a time in a process."""

    def __init__(self) -> None:
        self.item = ffi.wasmtime_extern_t()
        self.item_at, self.function_at = ctypes.addressof(self.item), ctypes.addressof(self.item.of)
        self.trap = _Pointer()
        self.trap_at = ctypes.addressof(self.trap)
        self.returned = (_Value * 1)()
        self.returned_at = ctypes.addressof(self.returned)
        self.fuel = ctypes.c_uint64()


_SCRATCH: Final = _Scratch()


class Instance:
    """One instance in a store of its own. Close it."""

    __slots__ = ("_at", "_context", "_instance", "_store")

    def __init__(self, module: Module, world: World | None, memory_bytes: int, fuel: int | None) -> None:
        """Make the instance and run its start section.

        Raises Trap or WasmtimeError, as calls do, when it does not start.
        """
        self._store = store = _store_new(module.engine_address, None, None)
        self._context = context = _store_context(store)
        self._instance = instance = ffi.wasmtime_instance_t()
        self._at = ctypes.addressof(instance)
        _store_limiter(store, memory_bytes, TABLE_ELEMENTS_MAX, INSTANCES_MAX, TABLES_MAX, MEMORIES_MAX)
        # The watchdog raises the epoch by one when the time is over, and only then.
        _set_epoch_deadline(context, 1)
        try:
            if fuel is not None:
                _raise_from(_set_fuel(context, fuel))
            if world is not None:
                _raise_from(_set_wasi(context, _wasi(world)))
            error = _instantiate(module.address, context, self._at, _SCRATCH.trap_at)
            if error or _SCRATCH.trap:
                _raise_from(error)
        except BaseException:
            self.close()
            raise

    def renew(self, fuel: int | None) -> None:
        """Give it the time and the fuel of a new one."""
        _set_epoch_deadline(self._context, 1)
        if fuel is not None:
            _raise_from(_set_fuel(self._context, fuel))

    def call(self, function: Function, arguments: Sequence[int] = ()) -> int | None:
        """Call an exported function. Floats come and go as the bits of a float64. Raises Trap or WasmtimeError."""
        context, name, scratch = self._context, function.name, _SCRATCH
        if not _export_get(context, self._at, name, function.length, scratch.item_at):
            raise wasmtime.WasmtimeError("there is no such export")
        if arguments:
            function.put(arguments)
        error = _call(
            context, scratch.function_at, function.given_at, function.count, scratch.returned_at,
            function.results_count, scratch.trap_at,
        )  # fmt: skip
        if error or scratch.trap:
            _raise_from(error)
        return None if function.result is None else _get(scratch.returned[0], function.result)

    def memory_bytes(self) -> int:
        """Return the size of the exported memory; there is one."""
        _export_get(self._context, self._at, b"memory", 6, _SCRATCH.item_at)
        return int(_memory_size(self._context, _SCRATCH.function_at))

    def fuel(self) -> int:
        """Return what is left of the fuel."""
        _raise_from(_get_fuel(self._context, ctypes.byref(_SCRATCH.fuel)))
        return _SCRATCH.fuel.value

    def close(self) -> None:
        """Give everything back. Idempotent."""
        store, self._store = self._store, None
        if store is not None:
            _store_delete(store)


def pooled(config: wasmtime.Config, memory_bytes_max: int) -> wasmtime.Config:
    """Have an engine with that configuration keep the memory of instances for those that come after them."""
    pooling = ffi.wasmtime_pooling_allocation_config_new()
    for name, value in {
        # A guest, a reactor that waits for its next unit of work, and one of each that is being given back.
        "total_memories": 3 * MEMORIES_MAX,
        "total_core_instances": 3 * INSTANCES_MAX,
        "total_tables": 3 * TABLES_MAX,
        "total_stacks": 1,
        "max_memory_size": memory_bytes_max,
        "max_memories_per_module": 1,
        "max_tables_per_module": TABLES_MAX,
        "table_elements": TABLE_ELEMENTS_MAX,
        "max_core_instance_size": 16 << 20,
        # Cleared by writing zeros, up to that much: cheaper than having the kernel map it anew.
        "linear_memory_keep_resident": 256 << 10,
        "table_keep_resident": 16 << 10,
    }.items():
        getattr(ffi, f"wasmtime_pooling_allocation_config_{name}_set")(pooling, value)
    ffi.wasmtime_pooling_allocation_strategy_set(config.ptr(), pooling)
    ffi.wasmtime_pooling_allocation_config_delete(pooling)
    return config


def _get(value: Any, kind: int) -> int:
    if kind == I32:
        return int(value.of.i32)
    if kind == I64:
        return int(value.of.i64)
    return bits_of(value.of.f32 if kind == F32 else value.of.f64)


def _wasi(world: World) -> int:
    """Make what wasmtime asks about the world; it is the store's then, which frees it."""
    wasi = _wasi_new()
    _wasi_argv(wasi, len(world.args) + 1, _ARGV.of(world.args))
    if world.env:
        names, values = zip(*world.env, strict=True)
        _wasi_env(wasi, len(names), _texts(names), _texts(values))
    if world.stdin:
        size = len(world.stdin)
        whole = ctypes.c_ubyte * size
        # Copied by wasm_byte_vec_new, and then freed by whoever frees wasi.
        source: Any = whole.from_buffer(world.stdin) if isinstance(world.stdin, memoryview) else world.stdin
        data = ffi.wasm_byte_vec_t()
        _bytes_new(ctypes.byref(data), size, ctypes.cast(source, _Pointer))
        del source
        _wasi_stdin(wasi, ctypes.byref(data))
    _wasi_stdout(wasi)
    _wasi_stderr(wasi)
    for path, name in world.folders:
        if not _wasi_preopen(wasi, path.encode(), name.encode(), True):
            ffi.wasi_config_delete(ctypes.cast(wasi, ctypes.POINTER(ffi.wasi_config_t)))
            raise GuestFault("files", f"the folder {name[:80]!r} does not open")
    return int(wasi)


class _Argv:
    """The arguments of a command for C, which runs of a group often share."""

    def __init__(self) -> None:
        self._args: Sequence[str] | None = None
        self._array: Any = None

    def of(self, args: Sequence[str]) -> Any:
        """Return them after the guest's own name."""
        if args is not self._args:
            self._args, self._array = args, _texts(["main.wasm", *args])
        return self._array


_ARGV: Final = _Argv()


def _texts(texts: Sequence[str]) -> Any:
    return (ctypes.c_char_p * len(texts))(*[text.encode() for text in texts])


def _address(thing: Any) -> int:
    return int(ctypes.cast(thing.ptr(), _Pointer).value or 0)


def _raise_from(error: int | None) -> None:
    """Raise what C gave as an error or, in the scratch, as a trap, if it did; both are freed with the exception."""
    if error:
        raise wasmtime.WasmtimeError._from_ptr(ctypes.cast(error, ctypes.POINTER(ffi.wasmtime_error_t)))
    if address := _SCRATCH.trap.value:
        _SCRATCH.trap.value = None
        raise wasmtime.Trap._from_ptr(ctypes.cast(address, ctypes.POINTER(ffi.wasm_trap_t)))
