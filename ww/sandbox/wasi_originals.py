"""Reaching into a guest from inside a host function: its memory, and wasmtime's own WASI functions.

Holds raw bindings alone, as native.py does. Must not know which functions are replaced, nor why. What is raised here is
for wasi.py to turn into a trap; nothing may pass into wasmtime.
"""

import ctypes
from typing import Any, Final

import wasmtime
from wasmtime import _ffi as ffi

WASI: Final = "wasi_snapshot_preview1"
SCRATCH_BYTES: Final = 1 << 16
"""Of the memory that the original functions are called on: one page, so that no store is too small for it."""

FUNCTIONS: Final = {
    "clock_res_get": ("i32", "i32"),
    "clock_time_get": ("i32", "i64", "i32"),
    "fd_filestat_get": ("i32", "i32"),
    "fd_read": ("i32", "i32", "i32", "i32"),
    "fd_readdir": ("i32", "i32", "i32", "i64", "i32"),
    "path_filestat_get": ("i32", "i32", "i32", "i32", "i32"),
    "path_remove_directory": ("i32", "i32", "i32"),
    "poll_oneoff": ("i32", "i32", "i32", "i32"),
    "random_get": ("i32", "i32"),
}
"""Parameters of those that wasi.py replaces or calls; each returns an errno."""

_I32: Final = 0
_I64: Final = 1
_MEMORY: Final = ffi.WASMTIME_EXTERN_MEMORY.value
_SHARED: Final = ffi.WASMTIME_EXTERN_SHAREDMEMORY.value
_Pointer: Final = ctypes.c_void_p
_Error: Final = ctypes.POINTER(ffi.wasmtime_error_t)


def _bind(library: Any, name: str, result: Any, *parameters: Any) -> Any:
    function = library[name]  # an object of our own: wasmtime-py's has other types
    function.restype, function.argtypes = result, parameters
    return function


# What returns at once keeps the interpreter lock; what runs WebAssembly gives it away.
_short: Final = ctypes.PyDLL(str(ffi.filename))
_long: Final = ctypes.CDLL(str(ffi.filename))
_caller_export_get: Final = _bind(
    _short, "wasmtime_caller_export_get", ctypes.c_bool, _Pointer, ctypes.c_char_p, ctypes.c_size_t, _Pointer
)
_caller_context: Final = _bind(_short, "wasmtime_caller_context", _Pointer, _Pointer)
_memory_data: Final = _bind(_short, "wasmtime_memory_data", _Pointer, _Pointer, _Pointer)
_memory_data_size: Final = _bind(_short, "wasmtime_memory_data_size", ctypes.c_size_t, _Pointer, _Pointer)
_instance_export_get: Final = _bind(
    _short,
    "wasmtime_instance_export_get",
    ctypes.c_bool, _Pointer, _Pointer, ctypes.c_char_p, ctypes.c_size_t, _Pointer,
)  # fmt: skip
_get_fuel: Final = _bind(_short, "wasmtime_context_get_fuel", _Error, _Pointer, _Pointer)
_set_fuel: Final = _bind(_short, "wasmtime_context_set_fuel", _Error, _Pointer, ctypes.c_uint64)
_trap_new: Final = _bind(_short, "wasmtime_trap_new", _Pointer, ctypes.c_char_p, ctypes.c_size_t)
_trap_new_code: Final = _bind(_short, "wasmtime_trap_new_code", _Pointer, ctypes.c_uint8)
_instantiate: Final = _bind(_long, "wasmtime_instance_pre_instantiate", _Error, _Pointer, _Pointer, _Pointer, _Pointer)
_func_call: Final = _bind(
    _long,
    "wasmtime_func_call",
    _Error, _Pointer, _Pointer, _Pointer, ctypes.c_size_t, _Pointer, ctypes.c_size_t, _Pointer,
)  # fmt: skip


class Ended(Exception):
    """The guest ends here, by a trap that exactly one callback must return."""

    def __init__(self, why: str, code: wasmtime.TrapCode | None = None, trap: int | None = None) -> None:
        """trap is the address of a wasm_trap_t if there is one already; else one is made, of code or in words."""
        super().__init__(why)
        self.trap: int = trap or (make_trap(why.encode()) if code is None else _trap_new_code(code.value))


def make_trap(message: bytes) -> int:
    """Make a trap that says so, and return its address; whoever has it must give it to wasmtime. wasmtime-py makes a
    WasmtimeError of it, and a Trap only of one that has a code."""
    return int(_trap_new(message, len(message)))


class GuestMemory:
    """The memory of the guest that calls, for the time of one call: it may have grown by the next."""

    __slots__ = ("_at", "_base", "_extern", "_memory_at", "_size", "context")

    def __init__(self) -> None:
        self._extern: Any = ffi.wasmtime_extern_t()
        self._at = ctypes.addressof(self._extern)
        self._memory_at = self._at + ffi.wasmtime_extern_t.of.offset
        self._base = self._size = 0
        self.context: int = 0
        """Address of the store's wasmtime_context_t."""

    def bind(self, caller: Any) -> None:
        """Look at the guest that calls. Ended when it exports no memory, as wasmtime's own functions have it."""
        if not _caller_export_get(caller, b"memory", 6, self._at) or self._extern.kind != _MEMORY:
            if self._extern.kind == _SHARED:
                ffi.wasmtime_extern_delete(ctypes.byref(self._extern))
            self._extern.kind = 0
            raise Ended("exports no memory")
        self.context = _caller_context(caller)
        self._base = _memory_data(self.context, self._memory_at) or 0
        self._size = _memory_data_size(self.context, self._memory_at)

    @property
    def store_id(self) -> int:
        """Number of the store, which no other store of this process ever has."""
        return int(self._extern.of.memory._anon_1.store_id)

    def check(self, address: int, size: int, alignment: int = 1) -> int:
        """Return where in this process that part of the memory is. Ended when it is not all there, or not aligned."""
        if address + size > self._size:
            raise Ended("pointer out of bounds", wasmtime.TrapCode.MEMORY_OUT_OF_BOUNDS)
        if address % alignment:
            raise Ended("pointer not aligned", wasmtime.TrapCode.HEAP_MISALIGNED)
        return self._base + address


class Bound:
    """The original functions in one store."""

    __slots__ = ("functions", "scratch", "store_id")

    def __init__(self, store_id: int, scratch: int, functions: dict[str, Any]) -> None:
        self.store_id = store_id
        self.scratch = scratch
        """Where in this process the memory is that they are called on, SCRATCH_BYTES of it."""
        self.functions = functions


class Originals:
    """wasmtime's own WASI functions, made callable from host functions. One serves all stores of an engine.

    They look for their caller's memory, and a host function has none: a module of ours forwards the calls, and has a
    memory of its own, so that they never see the guest's. Its instance is made in the guest's store on first use. Of
    the guest's fuel it takes nothing, so that how often we ask is not the guest's to pay.
    """

    def __init__(self, engine: wasmtime.Engine) -> None:
        linker = wasmtime.Linker(engine)
        linker.define_wasi()
        self._prepared = linker.instantiate_pre(wasmtime.Module(engine, _forwarding()))
        self._prepared_at = ctypes.cast(self._prepared.ptr(), _Pointer)
        self._arguments = {name: _arguments(kinds) for name, kinds in FUNCTIONS.items()}
        self._fuel = ctypes.c_uint64() if _counts_fuel(engine) else None
        self._result = ffi.wasmtime_val_t()
        self._trap = _Pointer()

    def bind(self, memory: GuestMemory, known: Bound | None) -> Bound:
        """Return the functions of the store that memory is of: known, if it is of that store. Ended when there is no
        room for them, in the store's limits or the engine's pool."""
        store_id = memory.store_id
        if known is not None and known.store_id == store_id:
            return known
        instance, item = ffi.wasmtime_instance_t(), ffi.wasmtime_extern_t()
        self._finish(
            _instantiate(self._prepared_at, memory.context, ctypes.addressof(instance), ctypes.addressof(self._trap))
        )
        functions = {}
        for name in FUNCTIONS:
            self._export(memory.context, instance, name, item)
            functions[name] = ffi.wasmtime_func_t.from_buffer_copy(item.of.func)
        self._export(memory.context, instance, "memory", item)
        scratch = _memory_data(memory.context, ctypes.addressof(item) + ffi.wasmtime_extern_t.of.offset)
        return Bound(store_id, scratch, functions)

    def call(self, memory: GuestMemory, bound: Bound, name: str, *arguments: int) -> int:
        """Call a function, whose pointers are offsets in bound.scratch, and return its errno. Ended when it traps."""
        given = self._arguments[name]
        for value, argument in zip(given, arguments, strict=True):
            if value.kind == _I32:
                value.of.i32 = argument
            else:
                value.of.i64 = argument
        if self._fuel is not None:
            self._finish(_get_fuel(memory.context, ctypes.addressof(self._fuel)))
        self._finish(
            _func_call(
                memory.context,
                ctypes.addressof(bound.functions[name]),
                ctypes.addressof(given),
                len(given),
                ctypes.addressof(self._result),
                1,
                ctypes.addressof(self._trap),
            )
        )
        if self._fuel is not None:
            self._finish(_set_fuel(memory.context, self._fuel))
        return int(self._result.of.i32)

    def _finish(self, error: Any) -> None:
        if error:
            # Before the cause is where in our module it was.
            where, _, cause = str(wasmtime.WasmtimeError._from_ptr(error)).partition("Caused by:")
            raise Ended(" ".join((cause or where).split()))
        if self._trap:
            trapped, self._trap.value = self._trap.value, None
            raise Ended("", trap=trapped)

    @staticmethod
    def _export(context: int, instance: Any, name: str, item: Any) -> None:
        if not _instance_export_get(
            context, ctypes.addressof(instance), name.encode(), len(name), ctypes.addressof(item)
        ):
            raise KeyError(name)


def _counts_fuel(engine: wasmtime.Engine) -> bool:
    store = wasmtime.Store(engine)
    try:
        store.get_fuel()
    except wasmtime.WasmtimeError:
        return False
    finally:
        store.close()
    return True


def _forwarding() -> str:
    """Write the module that forwards calls."""
    imports, exports = [], []
    for name, kinds in FUNCTIONS.items():
        parameters = f"(param {' '.join(kinds)}) (result i32)"
        given = " ".join(f"(local.get {index})" for index in range(len(kinds)))
        imports.append(f'(import "{WASI}" "{name}" (func ${name} {parameters}))')
        exports.append(f'(func (export "{name}") {parameters} (call ${name} {given}))')
    return f'(module {" ".join(imports)} (memory (export "memory") 1 1) {" ".join(exports)})'


def _arguments(kinds: tuple[str, ...]) -> Any:
    values = (ffi.wasmtime_val_t * len(kinds))()
    for value, kind in zip(values, kinds, strict=True):
        value.kind = _I32 if kind == "i32" else _I64
    return values
