"""Instances of modules by wasmtime-py's own classes.

Holds the same as native.py, and is used in its place where wasmtime's C functions are not what that expects. It is
slower (bench/sandbox.py), and otherwise alike: tests run both.
"""

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import wasmtime
from wasmtime import _ffi as ffi

from ww.sandbox.invocation import GuestFault
from ww.sandbox.world import (
    F32,
    F64,
    INSTANCES_MAX,
    MEMORIES_MAX,
    TABLE_ELEMENTS_MAX,
    TABLES_MAX,
    World,
    bits_of,
    float_of,
)


@dataclass(slots=True)
class Module:
    """A module that is loaded and linked."""

    pre: wasmtime.InstancePre
    engine: wasmtime.Engine


def pooled(config: wasmtime.Config, memory_bytes_max: int) -> wasmtime.Config:
    """Return config as it is: the pool has no class."""
    return config


def module(engine: wasmtime.Engine, pre: wasmtime.InstancePre) -> Module:
    """Prepare a linked module for `Instance`."""
    return Module(pre, engine)


@dataclass(slots=True)
class Function:
    """An exported function of numbers: see native.Function."""

    name: bytes
    kinds: Sequence[int] = ()
    result: int | None = None


class Instance:
    """One instance in a store of its own. Close it. See native.Instance, which says all."""

    def __init__(self, module: Module, world: World | None, memory_bytes: int, fuel: int | None) -> None:
        self._store = store = wasmtime.Store(module.engine)
        store.set_limits(
            memory_size=memory_bytes,
            table_elements=TABLE_ELEMENTS_MAX,
            instances=INSTANCES_MAX,
            tables=TABLES_MAX,
            memories=MEMORIES_MAX,
        )
        try:
            self.renew(fuel)
            if world is not None:
                store.set_wasi(wasi_of(world))
            self._exports: Any = module.pre.instantiate(store).exports(store)
        except BaseException:
            self.close()
            raise

    def renew(self, fuel: int | None) -> None:
        """Give an instance that is called again the time and the fuel of a new one."""
        self._store.set_epoch_deadline(1)
        if fuel is not None:
            self._store.set_fuel(fuel)

    def call(self, function: Function, arguments: Sequence[int] = ()) -> int | None:
        """Call an exported function."""
        given = [
            float_of(argument) if kind in (F32, F64) else argument
            for kind, argument in zip(function.kinds, arguments, strict=True)
        ]
        value = self._exports[function.name.decode()](self._store, *given)
        if function.result is None:
            return None
        return bits_of(value) if function.result in (F32, F64) else int(value)

    def memory_bytes(self) -> int:
        """Return the size of the exported memory; there is one."""
        return int(self._exports["memory"].data_len(self._store))

    def fuel(self) -> int:
        """Return what is left of the fuel."""
        return int(self._store.get_fuel())

    def close(self) -> None:
        """Give everything back. Idempotent."""
        self._store.close()


def wasi_of(world: World) -> wasmtime.WasiConfig:
    """Return what wasmtime asks about the world."""
    wasi = wasmtime.WasiConfig()
    wasi.argv = ["main.wasm", *world.args]
    if world.env:
        wasi.env = world.env
    if world.stdin:
        # Taken over by the config, which frees it.
        data, size = ffi.wasm_byte_vec_t(), len(world.stdin)
        ffi.wasm_byte_vec_new(ctypes.byref(data), size, (ctypes.c_ubyte * size).from_buffer_copy(world.stdin))
        ffi.wasi_config_set_stdin_bytes(wasi.ptr(), ctypes.byref(data))
    wasi.inherit_stdout()
    wasi.inherit_stderr()
    for path, name in world.folders:
        try:
            wasi.preopen_dir(path, name)
        except wasmtime.WasmtimeError:
            raise GuestFault("files", f"the folder {name[:80]!r} does not open") from None
    return wasi
