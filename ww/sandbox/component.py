"""Preview 2 command components: compiling, loading and running them, one at a time.

Holds what engine.py holds for modules, for components: a fresh instance per run, its limits, and what its end means.
Must not know processes, files or the wire. stdin, arguments and folders are given to a run; fd 1 and 2 of the process
are its outputs. component_determinism.py holds what a deterministic run meets in place of clocks and random numbers.
What the bytes ask for is known before (component_inspect.py). Source: WASI 0.2, wasi:cli/command; facts.md.
"""

import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import wasmtime
from wasmtime import _ffi as ffi
from wasmtime import component as wasip2

from ww.sandbox import component_determinism as determinism
from ww.sandbox.classes import wasi_of
from ww.sandbox.flusher import Flusher, call
from ww.sandbox.invocation import GuestFault, Invocation, Result, RunLimits
from ww.sandbox.world import World, one_line

_PREAMBLE: Final = b"\0asm\x0d\0\1\0"
# A component is several core instances: Rust's is 3, one with CPython inside under 16, with 2 tables. One memory, as
# both have, since each of several could be as large as the limit.
_INSTANCES_MAX: Final = 64
_MEMORIES_MAX: Final = 1
_TABLES_MAX: Final = 16
_TABLE_ELEMENTS_MAX: Final = 200_000
_FUEL_MAX: Final = (1 << 63) - 1
_RUN: Final = re.compile(r"wasi:cli/run@0\.2\.\d+")
_MEMORY_TEXTS: Final = ("exceeds memory limits", "memory minimum size")
_TRAP: Final = "wasm trap: "


def make_config(*, fuel: bool = False, deterministic: bool = False) -> wasmtime.Config:
    """Return the configuration that compiling and running share; a change of it must change artefact.py's number.

    fuel: runs have a limit of instructions. deterministic: floats that are no numbers have the same bits everywhere.
    """
    config = wasmtime.Config()
    config.epoch_interruption = True
    config.consume_fuel = fuel
    # What no preview 2 command needs is not there to be attacked.
    for feature in ("threads", "memory64", "multi_memory", "exceptions", "gc", "function_references"):
        setattr(config, f"wasm_{feature}", False)
    config.wasm_component_model = True
    ffi.wasmtime_config_wasm_component_model_async_set(config.ptr(), False)
    ffi.wasmtime_config_concurrency_support_set(config.ptr(), False)
    if deterministic:
        config.cranelift_nan_canonicalization = True
        config.wasm_relaxed_simd_deterministic = True
    return config


def compile_component(data: bytes, *, fuel: bool = False, deterministic: bool = False) -> bytes:
    """Compile a component and return it serialized. GuestFault, reason compile, says what is wrong with it."""
    if not data.startswith(_PREAMBLE):  # wasmtime-py would take it for text
        raise GuestFault("compile", "is no component")
    config = make_config(fuel=fuel, deterministic=deterministic)
    try:
        return bytes(wasip2.Component(wasmtime.Engine(config), data).serialize())
    except wasmtime.WasmtimeError as error:
        raise GuestFault("compile", one_line(error)) from None


@dataclass(slots=True)
class ComponentProgram:
    """A component that is loaded and known to link."""

    component: wasip2.Component
    run: wasip2.ExportIndex
    size_bytes: int
    is_warm: bool = False
    """Whether it had an instance yet: for the first, wasmtime writes the image of its memory to a file."""


class Components:
    """Loads and runs components, one at a time, in one thread."""

    def __init__(self, engine: wasmtime.Engine, *, fuel: bool = False, deterministic: bool = False) -> None:
        """engine is made with make_config of the same fuel and deterministic. Whoever calls `run` raises its epoch by
        one when the run's time is over, and only then."""
        self._engine = engine
        self._fuel = fuel
        self._linker = wasip2.Linker(engine)
        self._linker.allow_shadowing = True
        self._linker.add_wasip2()
        self._determinism = determinism.define(self._linker) if deterministic else None
        self._flusher: Flusher | None = None
        self._traps = _trap_texts()

    def load(self, serialized: bytes) -> ComponentProgram:
        """Load what compile_component made. GuestFault, reason compile, when it does not link or is no command;
        WasmtimeError when it is of another wasmtime, configuration or processor."""
        component = wasip2.Component.deserialize(self._engine, serialized)
        if self._flusher is None:
            self._flusher = Flusher()
        run = _run_of(component, self._engine)
        self._check_links(component)
        return ComponentProgram(component, run, len(serialized))

    def run(
        self,
        program: ComponentProgram,
        invocation: Invocation,
        limits: RunLimits,
        result: Result,
        preopens: Sequence[tuple[str, str]] = (),
        on_instance: Callable[[], None] = lambda: None,
    ) -> None:
        """Run a command in a fresh instance to its end, and fill in exit_code, instantiate_s and fuel of result.

        preopens are folders of the host and the guest's names for them. on_instance is called when there is an
        instance and nothing but its start functions has run. GuestFault says how it ended otherwise than well; with
        reason deadline, that the epoch was raised.
        """
        if self._determinism is not None:
            if preopens:
                raise GuestFault("compile", "a deterministic run of a component has no files: they show when they were")
            self._determinism.begin(invocation.seed)
        store = wasmtime.Store(self._engine)
        try:
            self._run(store, program, invocation, limits, result, preopens, on_instance)
        finally:
            if self._fuel:
                result.fuel = self._fuel_of(limits) - store.get_fuel()
            store.close()
            assert self._flusher is not None
            self._flusher.flush()

    def _run(
        self,
        store: wasmtime.Store,
        program: ComponentProgram,
        invocation: Invocation,
        limits: RunLimits,
        result: Result,
        preopens: Sequence[tuple[str, str]],
        on_instance: Callable[[], None],
    ) -> None:
        _limit(store, limits.memory_bytes)
        if self._fuel:
            store.set_fuel(self._fuel_of(limits))
        store.set_epoch_deadline(1)
        store.set_wasi(wasi_of(World(invocation.args, invocation.env, invocation.stdin, preopens)))
        start = time.monotonic()
        try:
            instance = self._linker.instantiate(store, program.component)
        except wasmtime.WasmtimeError as error:
            self._judge(error, result, starting=True)
            return
        finally:
            result.instantiate_s = time.monotonic() - start
        program.is_warm = True
        on_instance()
        try:
            succeeded = call(store, instance, program.run)
        except wasmtime.WasmtimeError as error:
            self._judge(error, result, starting=False)
            return
        _exit(result, 0 if succeeded else 1)

    def _fuel_of(self, limits: RunLimits) -> int:
        return min(limits.fuel, _FUEL_MAX) or _FUEL_MAX

    def _check_links(self, component: wasip2.Component) -> None:
        """Have wasmtime compare all that it imports with what there is, in a store where nothing can start."""
        store = wasmtime.Store(self._engine)
        store.set_limits(instances=0)
        try:
            self._linker.instantiate(store, component)
        except wasmtime.WasmtimeError as error:
            if not str(error).startswith("resource limit exceeded"):
                raise GuestFault("compile", one_line(error)) from None
        finally:
            store.close()

    def _judge(self, error: wasmtime.WasmtimeError, result: Result, *, starting: bool) -> None:
        """Return when the guest exited with 0; otherwise raise what its end means."""
        if isinstance(error, wasmtime.ExitTrap):
            _exit(result, error.code)
            return
        # The cause comes last, after names that the guest chose.
        text = str(error)
        cause = next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "unknown")
        cause = re.sub(r"^\d+: ", "", cause)
        if cause.startswith(_TRAP):
            code = self._traps.get(cause.removeprefix(_TRAP))
            if code is wasmtime.TrapCode.INTERRUPT:
                raise GuestFault("deadline", "the run took longer than it may") from None
            if code is wasmtime.TrapCode.OUT_OF_FUEL:
                raise GuestFault("fuel", "the run took more fuel than it may") from None
            raise GuestFault("trap", code.name.lower() if code else cause.removeprefix(_TRAP)) from None
        if not starting:
            raise GuestFault("trap", cause) from None
        reason = "memory" if any(known in cause for known in _MEMORY_TEXTS) else "compile"
        raise GuestFault(reason, one_line(error)) from None


def _run_of(component: wasip2.Component, engine: wasmtime.Engine) -> wasip2.ExportIndex:
    """Find wasi:cli/run's function. GuestFault when there is none, or one that is not run as a command's."""
    for name, extern in component.type.exports(engine).items():
        kind = extern.ty if _RUN.fullmatch(name) else None
        if not isinstance(kind, wasip2.ComponentInstanceType):
            continue
        function = kind.exports(engine).get("run")
        if function is None or not _is_run(function.ty):
            raise GuestFault("compile", f"{name} has no function run that takes nothing and returns a result")
        index = component.get_export_index("run", component.get_export_index(name))
        assert index is not None
        return index
    raise GuestFault("compile", "exports no wasi:cli/run@0.2")


def _is_run(kind: Any) -> bool:
    if not isinstance(kind, wasip2.FuncType):
        return False
    result = kind.result
    return not kind.params and isinstance(result, wasip2.ResultType) and result.ok is None and result.err is None


def _exit(result: Result, code: int) -> None:
    result.exit_code = code
    if code:
        raise GuestFault("exit", f"exit code {code}")


def _limit(store: wasmtime.Store, memory_bytes: int) -> None:
    store.set_limits(
        memory_size=memory_bytes,
        table_elements=_TABLE_ELEMENTS_MAX,
        instances=_INSTANCES_MAX,
        tables=_TABLES_MAX,
        memories=_MEMORIES_MAX,
    )


def _trap_texts() -> dict[str, wasmtime.TrapCode]:
    """Return which trap wasmtime's texts mean: a component's comes as text alone."""
    texts = {}
    for code in wasmtime.TrapCode:
        trap: Any = wasmtime.Trap._from_ptr(ffi.wasmtime_trap_new_code(code.value))
        texts[trap.message.removeprefix(_TRAP)] = code
    return texts
