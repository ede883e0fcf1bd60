"""Instances of Python components, put together of their core modules by wasmtime's C functions.

Holds the linking, and the calls into one instance. Must not know what the functions of the host do (python_host.py),
nor when an instance is put back to what it was (checkpoint.py). As native.py, whose bindings these are like, it rests
on private ones: pyproject.toml pins wasmtime. Types were compared when the component was compiled, and wasmtime
compares them again when it links.
"""

import ctypes
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import wasmtime
from wasmtime import _ffi as ffi

from ww.sandbox.wasi_originals import make_trap

_Pointer = ctypes.c_void_p
_Value = ffi.wasmtime_val_t
_Extern = ffi.wasmtime_extern_t
_VALUE_WORDS: Final = ctypes.sizeof(_Value) // 8
_OF_WORD: Final = _Value.of.offset // 8
_EXTERN_BYTES: Final = ctypes.sizeof(_Extern)
_OF_EXTERN: Final = _Extern.of.offset
_MASK: Final = 0xFFFFFFFF
PAGE_BYTES: Final = 1 << 16
"""Of WebAssembly."""
_SHORT: Final = ctypes.PyDLL(ffi.dll._name)
_LONG: Final = ctypes.CDLL(ffi.dll._name)
# Of a component, and the keeper.
_INSTANCES_MAX: Final = 40
_MEMORIES_MAX: Final = 2
_TABLES_MAX: Final = 32
_TABLE_ELEMENTS_MAX: Final = 200_000
_TYPES: Final = {
    "i32": wasmtime.ValType.i32,
    "i64": wasmtime.ValType.i64,
    "f32": wasmtime.ValType.f32,
    "f64": wasmtime.ValType.f64,
}


def _bind(library: ctypes.CDLL, name: str, result: Any, *arguments: Any) -> Any:
    function = library[name]  # an object of our own: native.py's has other types
    function.restype, function.argtypes = result, arguments
    return function


_store_new: Final = _bind(_SHORT, "wasmtime_store_new", _Pointer, _Pointer, _Pointer, _Pointer)
_store_context: Final = _bind(_SHORT, "wasmtime_store_context", _Pointer, _Pointer)
_store_limiter: Final = _bind(_SHORT, "wasmtime_store_limiter", None, _Pointer, *[ctypes.c_int64] * 5)
_store_delete: Final = _bind(_LONG, "wasmtime_store_delete", None, _Pointer)
_set_epoch_deadline: Final = _bind(_SHORT, "wasmtime_context_set_epoch_deadline", None, _Pointer, ctypes.c_uint64)
_set_fuel: Final = _bind(_SHORT, "wasmtime_context_set_fuel", _Pointer, _Pointer, ctypes.c_uint64)
_get_fuel: Final = _bind(_SHORT, "wasmtime_context_get_fuel", _Pointer, _Pointer, _Pointer)
_deserialize: Final = _bind(
    _LONG, "wasmtime_module_deserialize", _Pointer, _Pointer, _Pointer, ctypes.c_size_t, _Pointer
)
_module_delete: Final = _bind(_SHORT, "wasmtime_module_delete", None, _Pointer)
_instance_new: Final = _bind(
    _LONG, "wasmtime_instance_new", _Pointer, *[_Pointer] * 3, ctypes.c_size_t, _Pointer, _Pointer
)
_export_get: Final = _bind(
    _SHORT, "wasmtime_instance_export_get", ctypes.c_bool, _Pointer, _Pointer, ctypes.c_char_p, ctypes.c_size_t,
    _Pointer,
)  # fmt: skip
_func_new: Final = _bind(_SHORT, "wasmtime_func_new_unchecked", None, *[_Pointer] * 6)
_func_call: Final = _bind(
    _LONG, "wasmtime_func_call", _Pointer, _Pointer, _Pointer, _Pointer, ctypes.c_size_t, _Pointer, ctypes.c_size_t,
    _Pointer,
)  # fmt: skip
_memory_data: Final = _bind(_SHORT, "wasmtime_memory_data", _Pointer, _Pointer, _Pointer)
_memory_data_size: Final = _bind(_SHORT, "wasmtime_memory_data_size", ctypes.c_size_t, _Pointer, _Pointer)
_memory_grow: Final = _bind(
    _LONG, "wasmtime_memory_grow", _Pointer, _Pointer, _Pointer, ctypes.c_uint64, _Pointer
)  # fmt: skip

_FUNCTION: Final = 0


class HostFunction:
    """A function of the host: its type, and what is called."""

    __slots__ = ("callback", "callback_at", "kind", "kind_at")

    def __init__(self, parameters: Sequence[str], results: Sequence[str], callback: Callable[..., int]) -> None:
        """callback is given what wasmtime_func_unchecked_callback_t is, and returns the address of a trap or 0."""
        kinds = [[_TYPES[name]() for name in names] for names in (parameters, results)]
        self.kind = wasmtime.FuncType(*kinds)
        self.kind_at = ctypes.cast(self.kind.ptr(), _Pointer).value
        self.callback = ffi.wasmtime_func_unchecked_callback_t(callback)
        self.callback_at = ctypes.cast(self.callback, _Pointer).value


class Code:
    """The core modules of a component, loaded, and how they are linked."""

    def __init__(self, engine: wasmtime.Engine, plan: Mapping[str, Any], serialized: memoryview) -> None:
        """serialized are the modules one after the other, in writable memory, which is only read. WasmtimeError when
        they are of another wasmtime or processor."""
        self.engine = engine
        self.plan = plan
        self.modules: list[int] = []
        at = ctypes.addressof(ctypes.c_char.from_buffer(serialized))
        module = _Pointer()
        engine_at = ctypes.cast(engine.ptr(), _Pointer)
        for size in plan["sizes"]:
            _raise(_deserialize(engine_at, at, size, ctypes.byref(module)), None)
            assert module.value is not None
            self.modules.append(module.value)
            at += size

    def __del__(self) -> None:
        for module in self.modules:
            _module_delete(module)


class Function:
    """A function of i32 in one instance, and room for its arguments and its result. Not to be called while it runs."""

    __slots__ = (
        "_at", "_context", "_count", "_extern", "_given", "_given_at", "_results", "_returned", "_returned_at", "_trap",
    )  # fmt: skip

    def __init__(self, context: int, extern: Any, count: int, results: int) -> None:
        self._context, self._extern, self._count, self._results = context, extern, count, results
        self._at = ctypes.addressof(extern) + _OF_EXTERN
        given = (_Value * max(1, count))()
        self._given_at = ctypes.addressof(given)
        # Looking at the bytes costs a fifth of going through the union. The kind of i32 is 0, as new memory is.
        self._given = (ctypes.c_int64 * (_VALUE_WORDS * len(given))).from_buffer(given)
        self._returned = (_Value * 1)()
        self._returned_at = ctypes.addressof(self._returned)
        self._trap = _Pointer()

    def __call__(self, *arguments: int) -> int:
        """Call it; i32 are unsigned here. Raises Trap or WasmtimeError."""
        error = self._call(arguments)
        if error or self._trap:
            _raise(error, self._trap)
        return int(self._returned[0].of.i32) & _MASK if self._results else 0

    def _call(self, arguments: Sequence[int]) -> int | None:
        given, at = self._given, _OF_WORD
        for argument in arguments:
            given[at] = argument
            at += _VALUE_WORDS
        error: int | None = _func_call(
            self._context, self._at, self._given_at, self._count, self._returned_at, self._results,
            ctypes.byref(self._trap),
        )  # fmt: skip
        return error

    def within(self, *arguments: int) -> tuple[int, int]:
        """Call it from within a function of the host: return its result, and the address of the trap that it ended in,
        which is the caller's to give to wasmtime, or 0."""
        error = self._call(arguments)
        if error:
            ffi.wasmtime_error_delete(ctypes.cast(error, ctypes.POINTER(ffi.wasmtime_error_t)))
            return 0, make_trap(b"a function of the guest cannot be called")
        if trap := self._trap.value:
            self._trap.value = None
            return 0, trap
        return int(self._returned[0].of.i32) & _MASK if self._results else 0, 0


class Instance:
    """One instance of a whole component, in a store of its own. Close it."""

    def __init__(
        self,
        code: Code,
        hosts: Sequence[HostFunction],
        memory_bytes: int,
        fuel: int | None,
        enter: Callable[["Instance"], None],
    ) -> None:
        """Link it, and have its start functions run. enter is given it before the first of them.

        Raises Trap or WasmtimeError when it does not start.
        """
        self._code = code
        self._store = store = _store_new(ctypes.cast(code.engine.ptr(), _Pointer), None, None)
        self.context: int = _store_context(store)
        self._instances: list[Any] = []
        self._functions: dict[tuple[int, str], Function] = {}
        self._memory: Any = None
        self._memory_at = 0
        self._fuel = ctypes.c_uint64()
        self._trap = _Pointer()
        try:
            self.renew(memory_bytes, fuel)
            self._hosts = self._make_hosts(hosts)
            enter(self)
            for module, imports in code.plan["steps"]:
                self._add(code.modules[module], imports)
            self._add(code.modules[-1], code.plan["globals"])
            keeper = len(self._instances) - 1
            self.save, self.restore = (self.function((keeper, name), 0, 0) for name in ("save", "restore"))
            """Of the globals: see ww/wasm_state.py."""
            self._kept = self._export(keeper, "memory")
        except BaseException:
            self.close()
            raise

    def _make_hosts(self, hosts: Sequence[HostFunction]) -> Any:
        made = (_Extern * max(1, len(hosts)))()
        for extern, host in zip(made, hosts, strict=False):
            extern.kind = _FUNCTION
            at = ctypes.addressof(extern) + _OF_EXTERN
            _func_new(self.context, host.kind_at, host.callback_at, None, None, at)
        return made

    def _add(self, module: int, imports: Sequence[Sequence[Any]]) -> None:
        given = (_Extern * max(1, len(imports)))()
        at, hosts_at = ctypes.addressof(given), ctypes.addressof(self._hosts)
        for instance, name in imports:
            if instance < 0:
                ctypes.memmove(at, hosts_at + _EXTERN_BYTES * name, _EXTERN_BYTES)
            else:
                self._get(instance, name, at)
            at += _EXTERN_BYTES
        instance = ffi.wasmtime_instance_t()
        error = _instance_new(
            self.context, module, ctypes.byref(given), len(imports), ctypes.byref(instance), ctypes.byref(self._trap)
        )
        if error or self._trap:
            _raise(error, self._trap)
        self._instances.append(instance)
        owner, name = self._code.plan["memory"]
        if self._memory is None and owner == len(self._instances) - 1:
            self._memory = self._export(owner, name)
            self._memory_at = ctypes.addressof(self._memory) + _OF_EXTERN

    def _get(self, instance: int, name: str, at: int) -> None:
        encoded = name.encode()
        if instance >= len(self._instances) or not _export_get(
            self.context, ctypes.byref(self._instances[instance]), encoded, len(encoded), at
        ):
            raise wasmtime.WasmtimeError("a core module imports what is not there")

    def _export(self, instance: int, name: str) -> Any:
        extern = _Extern()
        self._get(instance, name, ctypes.addressof(extern))
        return extern

    def function(self, item: Sequence[Any], parameters: int, results: int) -> Function:
        """Find a function of i32 by its instance and its name. WasmtimeError when it is not there yet."""
        instance, name = item
        known = self._functions.get((instance, name))
        if known is None:
            extern = self._export(instance, name)
            if extern.kind != _FUNCTION:
                raise wasmtime.WasmtimeError("an export is no function")
            known = self._functions[instance, name] = Function(self.context, extern, parameters, results)
        return known

    def renew(self, memory_bytes: int, fuel: int | None) -> None:
        """Give it the time, the memory and the fuel of a new run."""
        _store_limiter(self._store, memory_bytes, _TABLE_ELEMENTS_MAX, _INSTANCES_MAX, _TABLES_MAX, _MEMORIES_MAX)
        # The watchdog raises the epoch by one when the time is over, and only then.
        _set_epoch_deadline(self.context, 1)
        if fuel is not None:
            _raise(_set_fuel(self.context, fuel), None)

    def fuel(self) -> int:
        """Return what is left of the fuel."""
        _raise(_get_fuel(self.context, ctypes.byref(self._fuel)), None)
        return self._fuel.value

    # Memory.

    @property
    def has_memory(self) -> bool:
        """Whether it is linked that far."""
        return self._memory is not None

    @property
    def base(self) -> int:
        """Where in this process its memory begins."""
        return _memory_data(self.context, self._memory_at) or 0

    @property
    def size(self) -> int:
        """How large its memory is, in bytes."""
        return int(_memory_data_size(self.context, self._memory_at))

    def grow(self, size: int) -> None:
        """Have its memory be as large as that, which is no less than it is. WasmtimeError when it may not be."""
        before = ctypes.c_uint64()
        pages = (size - self.size) // PAGE_BYTES
        if pages:
            _raise(_memory_grow(self.context, self._memory_at, pages, ctypes.byref(before)), None)

    def globals(self) -> bytes:
        """Return what `save` saved."""
        return ctypes.string_at(*self._keeper_memory())

    def set_globals(self, data: bytes) -> None:
        """Have `restore` restore what is another instance's globals()."""
        at, size = self._keeper_memory()
        ctypes.memmove(at, data, min(len(data), size))

    def _keeper_memory(self) -> tuple[int, int]:
        at = ctypes.addressof(self._kept) + _OF_EXTERN
        return _memory_data(self.context, at) or 0, int(_memory_data_size(self.context, at))

    def close(self) -> None:
        """Give everything back. Idempotent."""
        store, self._store = self._store, None
        if store is not None:
            _store_delete(store)


def _raise(error: int | None, trap: Any) -> None:
    """Raise what C gave as an error or as a trap, if it did; both are freed with the exception."""
    if error:
        raise wasmtime.WasmtimeError._from_ptr(ctypes.cast(error, ctypes.POINTER(ffi.wasmtime_error_t)))
    if trap is not None and (address := trap.value):
        trap.value = None
        raise wasmtime.Trap._from_ptr(ctypes.cast(address, ctypes.POINTER(ffi.wasm_trap_t)))
