"""The guest's world, inside a child process: wasmtime, WASI, and the limits they hold.

Holds compiling, loading and running one guest at a time. Must not know sockets or the parent: executor.py calls it.
Nothing here raises into wasmtime: a host function that raises leaves its exception where another guest can meet it.
Source: facts.md, wasmtime-py.
"""

import ctypes
import os
import resource
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final, cast

import wasmtime
from wasmtime import _ffi as ffi

from ww.sandbox import native

_WASI: Final = "wasi_snapshot_preview1"
_TABLE_ELEMENTS_MAX: Final = 1_000_000
_MEMORY_TEXTS: Final = ("exceeds memory limits", "memory minimum size", "exceeds the limit")


class GuestFault(Exception):
    """A run that ended otherwise than well, by a schema reason and a line for people."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail[:300]


@dataclass(slots=True)
class Invocation:
    """One run's input and limits."""

    entry: str
    arguments: Sequence[int]
    args: Sequence[str]
    env: Sequence[tuple[str, str]]
    stdin: bytes
    duration_s: float
    memory_bytes: int
    output_bytes: int


@dataclass(slots=True)
class Result:
    """One run's end."""

    reason: str = "ok"
    detail: str = ""
    value: int | None = None
    exit_code: int | None = None
    stdout: bytes = b""
    stderr: bytes = b""
    stdout_truncated: bool = False
    stderr_truncated: bool = False
    wall_s: float = 0.0
    cpu_s: float = 0.0
    memory_bytes: int = 0


@dataclass(slots=True)
class Program:
    """A module that is loaded and linked."""

    prepared: wasmtime.InstancePre
    exports: dict[str, Any]
    """Types by name."""
    needs_wasi: bool
    size_bytes: int
    entries: dict[str, tuple[bytes, list[int], int]] = field(default_factory=dict)
    """Of functions that can be called: name, kinds of the parameters, kind of the result."""
    is_warm: bool = False
    """Whether it had an instance yet."""


def make_config() -> wasmtime.Config:
    """Return the configuration that compiling and running share; a change of it must change artefact.py's number."""
    config = wasmtime.Config()
    config.epoch_interruption = True
    # What no command guest needs is not there to be attacked.
    for feature in (
        "threads",
        "memory64",
        "multi_memory",
        "exceptions",
        "gc",
        "function_references",
        "component_model",
    ):
        setattr(config, f"wasm_{feature}", False)
    return config


def compile_module(data: bytes) -> bytes:
    """Compile a module and return it serialized. GuestFault, reason compile, says what is wrong with it."""
    try:
        return bytes(wasmtime.Module(wasmtime.Engine(make_config()), data).serialize())
    except wasmtime.WasmtimeError as error:
        raise GuestFault("compile", _first_line(error)) from None


class Watchdog:
    """Interrupts the guest when its time is over. Its `watch` runs in the process's main thread."""

    _TICK_S: Final = 0.01
    _IDLE_S: Final = 1.0

    def __init__(self, engine: wasmtime.Engine) -> None:
        self._engine = engine
        self._lock = threading.Lock()
        self._ends_at: float | None = None
        self._asleep = False
        self._wake = threading.Event()

    def begin(self, duration_s: float) -> None:
        """Interrupt the guest in that many seconds, unless `end` comes first."""
        with self._lock:
            self._ends_at = time.monotonic() + duration_s
        if self._asleep:
            self._wake.set()

    def end(self) -> None:
        """Leave the next guest alone."""
        with self._lock:
            self._ends_at = None

    def watch(self) -> None:
        """Watch for ever, at next to no cost while no guest runs."""
        parent, idle_since = os.getppid(), time.monotonic()
        while os.getppid() == parent:
            with self._lock:
                running, now = self._ends_at is not None, time.monotonic()
                if self._ends_at is not None and now >= self._ends_at:
                    self._engine.increment_epoch()
                    self._ends_at = None
            if running:
                idle_since = now
            if now - idle_since < self._IDLE_S:
                time.sleep(self._TICK_S)
                continue
            self._asleep = True
            self._wake.clear()
            with self._lock:
                running = self._ends_at is not None
            if not running:
                self._wake.wait(self._IDLE_S)
            self._asleep = False
        # Nobody is left to want an answer.
        os._exit(0)


class Engine:
    """Loads and runs guests, one at a time."""

    def __init__(self) -> None:
        self._engine = wasmtime.Engine(make_config())
        self.watchdog = Watchdog(self._engine)
        self._linker = wasmtime.Linker(self._engine)
        self._linker.allow_shadowing = True
        self._linker.define_wasi()
        self._exit_code: int | None = None
        self._define_proc_exit()
        self._file_size = _FileSizeCap()

    def load(self, serialized: bytes) -> Program:
        """Load what compile_module made. GuestFault, reason compile, when it does not link; WasmtimeError when it is of
        another wasmtime or processor."""
        module = wasmtime.Module.deserialize(self._engine, serialized)
        try:
            prepared = self._linker.instantiate_pre(module)
        except wasmtime.WasmtimeError as error:
            raise GuestFault("compile", _first_line(error)) from None
        exports = {export.name: export.type for export in module.exports}
        return Program(prepared, exports, bool(module.imports), len(serialized))

    def run(self, program: Program, invocation: Invocation) -> Result:
        """Run a guest in a fresh instance to its end."""
        result = Result()
        self._exit_code = None
        cpu, start = time.thread_time(), time.monotonic()
        self.watchdog.begin(invocation.duration_s)
        try:
            self._run(program, invocation, result)
        except GuestFault as fault:
            result.reason, result.detail = fault.reason, fault.detail
        finally:
            self.watchdog.end()
        result.wall_s, result.cpu_s = time.monotonic() - start, time.thread_time() - cpu
        result.stdout, result.stdout_truncated = _take_output(1, invocation.output_bytes)
        result.stderr, result.stderr_truncated = _take_output(2, invocation.output_bytes)
        return result

    def _run(self, program: Program, invocation: Invocation, result: Result) -> None:
        name, kinds, returns = _entry(program, invocation.entry) if invocation.entry else (b"", [], 0)
        arguments = _fit_all(invocation, kinds)
        store = wasmtime.Store(self._engine)
        store.set_limits(
            memory_size=invocation.memory_bytes, table_elements=_TABLE_ELEMENTS_MAX, instances=1, tables=16, memories=1
        )
        # The watchdog raises the epoch by one when the time is over, and only then.
        store.set_epoch_deadline(1)
        if program.needs_wasi:
            store.set_wasi(_wasi(invocation))
        # One byte more than is kept tells that there was more. A module's first instance is made without, since
        # wasmtime then writes the image of its memory to a file.
        self._file_size.set(invocation.output_bytes + 1) if program.is_warm else self._file_size.lift()
        try:
            instance = program.prepared.instantiate(store)
            program.is_warm = True
            self._file_size.set(invocation.output_bytes + 1)
            try:
                if not invocation.entry:
                    self._call(store, instance, b"_start", result)
                    result.exit_code = result.exit_code or 0
                    return
                for first in ("_initialize", "_start"):
                    if first in program.exports:
                        self._call(store, instance, first.encode(), result)
                        break
                result.value = self._call(store, instance, name, result, kinds, arguments, returns)
            finally:
                if isinstance(program.exports.get("memory"), wasmtime.MemoryType):
                    result.memory_bytes = native.memory_bytes(store, native.find(store, instance, b"memory"))
        except (wasmtime.WasmtimeError, wasmtime.Trap) as error:  # of instantiating, or of the start section
            self._judge(error, result)

    def _call(
        self,
        store: wasmtime.Store,
        instance: wasmtime.Instance,
        name: bytes,
        result: Result,
        kinds: Sequence[int] = (),
        arguments: Sequence[int] = (),
        returns: int | None = None,
    ) -> int | None:
        try:
            return native.call(store, native.find(store, instance, name), kinds, arguments, returns)
        except (wasmtime.WasmtimeError, wasmtime.Trap) as error:
            self._judge(error, result)
            return None

    def _judge(self, error: Exception, result: Result) -> None:
        """Return when the guest exited with 0; otherwise raise what its end means."""
        if self._exit_code is not None:
            result.exit_code, self._exit_code = self._exit_code, None
            if result.exit_code:
                raise GuestFault("exit", f"exit code {result.exit_code}") from None
            return
        if not isinstance(error, wasmtime.Trap):
            reason = "memory" if any(text in str(error) for text in _MEMORY_TEXTS) else "compile"
            raise GuestFault(reason, _first_line(error)) from None
        code = error.trap_code
        if code is wasmtime.TrapCode.INTERRUPT:
            raise GuestFault("deadline", "the run took longer than it may") from None
        raise GuestFault("trap", code.name.lower() if code is not None else _first_line(error)) from None

    def _define_proc_exit(self) -> None:
        """Replace WASI's proc_exit, which forgets codes above 125, by one that keeps them.

        It ends the guest by returning a trap, from a callback of our own: wasmtime-py's callbacks end one by raising.
        """

        def proc_exit(env: Any, caller: Any, arguments: Any, count: int, results: Any, results_count: int) -> Any:
            self._exit_code = arguments[0].of.i32 & 0xFFFFFFFF
            return ctypes.cast(ffi.wasmtime_trap_new(b"exit", 4), ctypes.c_void_p).value

        self._proc_exit = ffi.wasmtime_func_callback_t(proc_exit)  # kept: C holds only its address
        kind = wasmtime.FuncType([wasmtime.ValType.i32()], [])
        error = ffi.wasmtime_linker_define_func(
            self._linker.ptr(), _WASI.encode(), len(_WASI), b"proc_exit", 9, kind.ptr(), self._proc_exit, None,
            ctypes.CFUNCTYPE(None, ctypes.c_void_p)(0),
        )  # fmt: skip
        if error:
            raise wasmtime.WasmtimeError._from_ptr(error)


def _wasi(invocation: Invocation) -> wasmtime.WasiConfig:
    wasi = wasmtime.WasiConfig()
    wasi.argv = ["main.wasm", *invocation.args]
    if invocation.env:
        wasi.env = invocation.env
    if invocation.stdin:
        # Taken over by the config, which frees it.
        data = ffi.wasm_byte_vec_t()
        size = len(invocation.stdin)
        ffi.wasm_byte_vec_new(ctypes.byref(data), size, (ctypes.c_ubyte * size).from_buffer_copy(invocation.stdin))
        ffi.wasi_config_set_stdin_bytes(wasi.ptr(), ctypes.byref(data))
    wasi.inherit_stdout()
    wasi.inherit_stderr()
    return wasi


class _FileSizeCap:
    """The kernel's limit on the size of any file this process writes: what keeps a flood of output small."""

    def __init__(self) -> None:
        self._soft, self._hard = resource.getrlimit(resource.RLIMIT_FSIZE)

    def set(self, most: int) -> None:
        if most != self._soft:
            self._soft = most
            resource.setrlimit(resource.RLIMIT_FSIZE, (most, self._hard))

    def lift(self) -> None:
        self.set(self._hard)


def _take_output(fd: int, most: int) -> tuple[bytes, bool]:
    """Return what the guest wrote to fd 1 or 2, at most that many bytes, and whether there was more; empty the file.

    Both are files in memory (executor.py) that every run finds empty.
    """
    size = os.lseek(fd, 0, os.SEEK_END)
    if size == 0:
        return b"", False
    data = os.pread(fd, min(size, most), 0)
    os.ftruncate(fd, 0)
    os.lseek(fd, 0, os.SEEK_SET)
    return data, size > most


def _entry(program: Program, entry: str) -> tuple[bytes, list[int], int]:
    """Find an exported function and what it takes; GuestFault when it cannot be called."""
    known = program.entries.get(entry)
    if known is not None:
        return known
    kind = program.exports.get(entry)
    if not isinstance(kind, wasmtime.FuncType):
        raise GuestFault("compile", f"exports no function {entry[:80]!r}")
    parameters, results = ([native.KINDS.get(str(kind)) for kind in kinds] for kinds in (kind.params, kind.results))
    if None in parameters or None in results or len(results) != 1:
        raise GuestFault("compile", f"{entry[:80]!r} takes or returns something other than i32 and i64")
    made = program.entries[entry] = (entry.encode(), cast(list[int], parameters), cast(int, results[0]))
    return made


def _fit_all(invocation: Invocation, kinds: Sequence[int]) -> list[int]:
    """Fit the arguments to an entry's parameters, as two's complement."""
    arguments = invocation.arguments if invocation.entry else ()
    if len(kinds) != len(arguments):
        raise GuestFault(
            "compile", f"{invocation.entry[:80]!r} takes {len(kinds)} arguments, {len(arguments)} are given"
        )
    return [_fit(value, 32 if kind == native.I32 else 64) for value, kind in zip(arguments, kinds, strict=True)]


def _fit(value: int, bits: int) -> int:
    if not -(1 << (bits - 1)) <= value < 1 << bits:
        raise GuestFault("trap", f"the argument {value} does not fit into i{bits}")
    return value - (1 << bits) if value >= 1 << (bits - 1) else value


def _first_line(error: Exception) -> str:
    """Say what wasmtime says, without its backtraces and offsets into our own files."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    causes = [line.partition(": ")[2] for line in lines if line[:1].isdigit()]
    return ": ".join([lines[0], *causes])[:300] if lines else "unknown"
