"""What a deterministic run of a component meets in place of clocks, random numbers and waiting.

Holds functions that stand before wasmtime's own of WASI 0.2. Nothing here raises into wasmtime, nor uses wasmtime-py's
callbacks, which do. Time goes on by a fixed step whenever it is asked for; every pollable is ready at once, and a wait
is a step: what is ready, and when, would otherwise be the host's to say. Sockets need nothing
here: wasmtime refuses to make any before it asks the host.
"""

import ctypes
import hashlib
import struct
from collections.abc import Callable
from typing import Any, Final

import wasmtime
from wasmtime import _ffi as ffi
from wasmtime import component as wasip2

# Of the WASI that wasmtime's linker defines. Imports of other versions 0.2.x meet the same.
VERSION: Final = "0.2.12"
FIRST_SECOND: Final = 946_684_800
"""The wall clock's first reading: 2000-01-01."""
STEP_NS: Final = 1_000_000
RANDOM_BYTES_MAX: Final = 1 << 20
"""At once; more is a trap."""
_POLLABLES_MAX: Final = 1 << 16

# wasmtime/component/val.h
_BOOL, _U8, _U32, _U64, _LIST, _RECORD, _TUPLE = 0, 2, 6, 8, 13, 14, 15
_VALUE_BYTES: Final = ctypes.sizeof(ffi.wasmtime_component_val_t)
_OF: Final = ffi.wasmtime_component_val_t.of.offset
_NO_FINALIZER: Final = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(0)

_Function = Callable[[Any, Any, Any], None]


class Refused(Exception):
    """The guest asks for what it cannot have: it traps, with that line."""


class Determinism:
    """The state of one run after the other."""

    def __init__(self) -> None:
        self._seed = 0
        self._drawn = 0
        self._steps = 0
        self._callbacks: list[Any] = []

    def begin(self, seed: int) -> None:
        """Start over, for a run with that seed."""
        self._seed, self._drawn, self._steps = seed & (1 << 64) - 1, 0, 0

    def keep(self, callback: Any) -> None:
        """Hold what C has only the address of."""
        self._callbacks.append(callback)

    def wall_now(self, context: Any, arguments: Any, results: Any) -> None:
        seconds, nanoseconds = divmod(self._step(), 1_000_000_000)
        _set_datetime(results[0], FIRST_SECOND + seconds, nanoseconds)

    def wall_resolution(self, context: Any, arguments: Any, results: Any) -> None:
        _set_datetime(results[0], 0, STEP_NS)

    def now(self, context: Any, arguments: Any, results: Any) -> None:
        _set_u64(results[0], self._step())

    def resolution(self, context: Any, arguments: Any, results: Any) -> None:
        _set_u64(results[0], STEP_NS)

    def block(self, context: Any, arguments: Any, results: Any) -> None:
        self._step()
        _give_back(context, arguments[0])

    def ready(self, context: Any, arguments: Any, results: Any) -> None:
        _give_back(context, arguments[0])
        results[0].kind, results[0].of.boolean = _BOOL, True

    def poll(self, context: Any, arguments: Any, results: Any) -> None:
        self._step()
        pollables = arguments[0].of.list
        count = int(pollables.size)
        if not 0 < count <= _POLLABLES_MAX:
            raise Refused(f"polls {count} pollables, 1 to {_POLLABLES_MAX} can be")
        for i in range(count):
            _give_back(context, pollables.data[i])
        _set_list(results[0], _U32, 4, struct.pack(f"={count}I", *range(count)))

    def random_bytes(self, context: Any, arguments: Any, results: Any) -> None:
        _set_list(results[0], _U8, 1, self._random(int(arguments[0].of.u64)))

    def random_u64(self, context: Any, arguments: Any, results: Any) -> None:
        _set_u64(results[0], int.from_bytes(self._random(8), "little"))

    def insecure_seed(self, context: Any, arguments: Any, results: Any) -> None:
        first, second = struct.unpack("<QQ", self._random(16))
        values = (ffi.wasmtime_component_val_t * 2)()
        _set_u64(values[0], first)
        _set_u64(values[1], second)
        results[0].kind = _TUPLE
        ffi.wasmtime_component_valtuple_new(ctypes.byref(results[0].of.tuple), 2, values)

    def _step(self) -> int:
        self._steps += 1
        return self._steps * STEP_NS

    def _random(self, count: int) -> bytes:
        if count > RANDOM_BYTES_MAX:
            raise Refused(f"draws {count} random bytes at once, at most {RANDOM_BYTES_MAX} are given")
        self._drawn += 1
        return hashlib.shake_256(struct.pack("<QQ", self._seed, self._drawn)).digest(count)


def define(linker: wasip2.Linker) -> Determinism:
    """Put it before what linker has of WASI; the linker must allow that."""
    state = Determinism()
    functions: dict[str, dict[str, _Function]] = {
        "clocks/wall-clock": {"now": state.wall_now, "resolution": state.wall_resolution},
        "clocks/monotonic-clock": {"now": state.now, "resolution": state.resolution},
        "io/poll": {
            "[method]pollable.block": state.block, "[method]pollable.ready": state.ready, "poll": state.poll,
        },
        "random/random": {"get-random-bytes": state.random_bytes, "get-random-u64": state.random_u64},
        "random/insecure": {
            "get-insecure-random-bytes": state.random_bytes, "get-insecure-random-u64": state.random_u64,
        },
        "random/insecure-seed": {"insecure-seed": state.insecure_seed},
    }  # fmt: skip
    with linker.root() as root:
        for interface, members in functions.items():
            with root.add_instance(f"wasi:{interface}@{VERSION}") as instance:
                for name, function in members.items():
                    callback = _callback(function)
                    state.keep(callback)
                    error = ffi.wasmtime_component_linker_instance_add_func(
                        instance.ptr(), name.encode(), len(name), callback, None, _NO_FINALIZER
                    )
                    if error:
                        raise wasmtime.WasmtimeError._from_ptr(error)
    return state


def _callback(function: _Function) -> Any:
    def call(data: Any, context: Any, kind: Any, arguments: Any, count: int, results: Any, results_count: int) -> Any:
        try:
            function(context, arguments, results)
            return 0
        except Refused as refused:
            text = str(refused)
        except BaseException:
            text = "the host failed"
        return ctypes.cast(ffi.wasmtime_error_new(text.encode()), ctypes.c_void_p).value

    return ffi.wasmtime_component_func_callback_t(call)


def _set_u64(value: Any, number: int) -> None:
    value.kind, value.of.u64 = _U64, number


def _set_name(name: Any, data: bytes) -> None:
    ffi.wasm_byte_vec_new(ctypes.byref(name), len(data), (ctypes.c_ubyte * len(data)).from_buffer_copy(data))


def _set_datetime(value: Any, seconds: int, nanoseconds: int) -> None:
    entries = (ffi.wasmtime_component_valrecord_entry_t * 2)()
    _set_name(entries[0].name, b"seconds")
    _set_u64(entries[0].val, seconds)
    _set_name(entries[1].name, b"nanoseconds")
    entries[1].val.kind, entries[1].val.of.u32 = _U32, nanoseconds
    value.kind = _RECORD
    ffi.wasmtime_component_valrecord_new(ctypes.byref(value.of.record), 2, entries)


def _set_list(value: Any, kind: int, size: int, data: bytes) -> None:
    """Make a list of numbers that take size bytes each, in the order that this processor has them in."""
    count = len(data) // size
    image = bytearray(count * _VALUE_BYTES)
    image[::_VALUE_BYTES] = bytes([kind]) * count
    for i in range(size):
        image[_OF + i :: _VALUE_BYTES] = data[i::size]
    value.kind = _LIST
    ffi.wasmtime_component_vallist_new_uninit(ctypes.byref(value.of.list), count)
    ctypes.memmove(value.of.list.data, (ctypes.c_char * len(image)).from_buffer(image), len(image))


def _give_back(context: Any, value: Any) -> None:
    """End the loan of a resource."""
    error = ffi.wasmtime_component_resource_any_drop(context, value.of.resource)
    if error:
        ffi.wasmtime_error_delete(error)
        raise Refused("a pollable is none")
