"""Modules that are loaded, and one run of one of them in the guest's thread.

Holds what happens between a module and its end: its instance, the calls that are made, and what their failing means.
Must not know components (component.py), nor what a run is timed and watched by (engine.py). Instances are made by
native.py, or else classes.py; which functions of WASI are ours, wasi.py says. Nothing here raises into wasmtime: a host
function that raises leaves its exception where another guest can meet it. Source: facts.md, wasmtime-py.
"""

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import wasmtime

from ww.errors import BadModule
from ww.sandbox import reactor
from ww.sandbox.artefact import About
from ww.sandbox.invocation import GuestFault, Invocation, Result, RunLimits
from ww.sandbox.output import Output
from ww.sandbox.reactor import Reactor
from ww.sandbox.wasi import Originals, Preview1, State
from ww.sandbox.watchdog import Watchdog
from ww.sandbox.world import F32, F64, I32, KINDS, World, one_line
from ww.wasm_inspect import inspect

# What is more than a guest may start with; tables are memory too.
_MEMORY_TEXTS: Final = (
    "minimum size",
    "exceeds the limit",
    "exceeds the per-instance limit",
    "minimum byte size",
    "minimum element size",
    "count too high",
)
# Where fuel is only counted.
_FUEL_MAX: Final = (1 << 63) - 1
# A reactor's memory that is kept for it while others run.
_KEPT_BYTES_MAX: Final = 16 << 20


@dataclass(slots=True)
class Program:
    """A module that is loaded and linked."""

    kind: "Modules"
    module: Any
    """native.Module or classes.Module."""
    world: Preview1
    """The functions that it is linked to."""
    about: About
    size_bytes: int
    entries: dict[str, Any] = field(default_factory=dict)
    is_warm: bool = False
    """Whether it had an instance yet."""
    framing_bytes: int = field(init=False)
    """What stdout holds beside a run's own."""
    is_reactor: bool = field(init=False)
    """Whether one instance answers many units of work."""
    initializer: Any = field(init=False)
    """The function that is called before any other, if there is one."""

    def __post_init__(self) -> None:
        self.is_reactor = is_reactor(self.about)
        self.framing_bytes = reactor.HEADER_BYTES if self.is_reactor else 0
        functions = self.about.functions or {}
        first = (name for name in ("_initialize", "_start") if name in functions)
        self.initializer = next((self.kind.instances.Function(name.encode()) for name in first), None)

    def entry(self, name: str) -> Any:
        """Find an exported function; GuestFault when it cannot be called."""
        known = self.entries.get(name)
        if known is not None:
            return known
        kinds = (self.about.functions or {}).get(name)
        if kinds is None:
            shown = name[:80]
            raise GuestFault("compile", f"exports no function {shown!r} that takes and returns i32, i64, f32 or f64")
        parameters, results = ([KINDS[kind] for kind in each] for each in kinds)
        result = results[0] if results else None
        made = self.entries[name] = self.kind.instances.Function(name.encode(), parameters, result)
        return made


def make_config(*, metered: bool) -> wasmtime.Config:
    """Return the configuration that compiling and running share; a change of it must change artefact.py's number.

    metered is for runs that count fuel, and for those that shall end alike on every machine.
    """
    config = wasmtime.Config()
    config.epoch_interruption = True
    if metered:
        config.consume_fuel = True
        config.cranelift_nan_canonicalization = True
        config.wasm_relaxed_simd_deterministic = True
    # What no guest of ours needs is not there to be attacked.
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


def compile_module(data: bytes, *, metered: bool) -> tuple[About, bytes]:
    """Compile a module and return what is known of it, and it serialized. GuestFault says what is wrong with it."""
    try:
        about = About.of(inspect(data))
        return about, bytes(wasmtime.Module(wasmtime.Engine(make_config(metered=metered)), data).serialize())
    except (BadModule, wasmtime.WasmtimeError) as error:
        raise GuestFault("compile", one_line(error)) from None


class Modules:
    """Loads and runs modules, one at a time: an engine of wasmtime's, and the functions that guests are given."""

    def __init__(
        self, instances: Any, output: Output, watchdog: Watchdog, *, metered: bool, memory_bytes_max: int
    ) -> None:
        """instances is native or classes, memory_bytes_max what any run may have."""
        self.instances = instances
        self._output = output
        self._watchdog = watchdog
        self._metered = metered
        self.engine = wasmtime.Engine(instances.pooled(make_config(metered=metered), memory_bytes_max))
        self._originals = Originals(self.engine)
        self._worlds: dict[tuple[bool, bool], Preview1] = {}
        self._reactor: Reactor | None = None
        self._has_failed = False

    def load(self, about: About, serialized: bytes, *, deterministic: bool) -> Program:
        """Load what compile_module made. GuestFault when it does not link or is too large for any run; WasmtimeError
        when it is of another wasmtime or processor."""
        try:
            module = wasmtime.Module.deserialize(self.engine, serialized)
        except wasmtime.WasmtimeError as error:
            # Its memory does not fit where that of any guest has to.
            if any(text in str(error) for text in _MEMORY_TEXTS):
                raise GuestFault("memory", one_line(error)) from None
            raise
        key = deterministic, is_reactor(about)
        world = self._worlds.get(key)
        if world is None:
            world = self._worlds[key] = Preview1(
                self.engine, deterministic=key[0], reactor=key[1], originals=self._originals
            )
        try:
            pre = world.linker.instantiate_pre(module)
        except wasmtime.WasmtimeError as error:
            raise GuestFault("compile", one_line(error)) from None
        return Program(self, self.instances.module(self.engine, pre), world, about, len(serialized) + about.size_bytes)

    def run(
        self, program: Program, invocation: Invocation, limits: RunLimits, folders: Sequence[tuple[str, str]]
    ) -> Result:
        """Run a module, in a fresh instance unless it is a reactor, and return how it ended, but for its times.

        folders are those of the process that it may open, and its names for them.
        """
        result = Result()
        if self._reactor is not None and self._reactor.program is not program:
            self.drop_reactor(_KEPT_BYTES_MAX)
        try:
            if program.is_reactor and not invocation.entry:
                self._serve(program, invocation, limits, folders, result)
            else:
                self._run(program, invocation, limits, folders, result)
        except GuestFault as fault:
            result.reason, result.detail = fault.reason, fault.detail
        return result

    @property
    def has_reactor(self) -> bool:
        """Whether an instance waits for its next unit of work."""
        return self._reactor is not None

    def drop_reactor(self, larger_than_bytes: int = -1) -> None:
        """Give back the instance that waits, if its memory is larger than that."""
        kept = self._reactor
        if kept is not None and kept.used_bytes > larger_than_bytes:
            self._reactor = None
            kept.instance.close()

    def _run(
        self,
        program: Program,
        invocation: Invocation,
        limits: RunLimits,
        folders: Sequence[tuple[str, str]],
        result: Result,
    ) -> None:
        entry = program.entry(invocation.entry or "_start")
        arguments = _fit_all(invocation, entry) if invocation.entry else ()
        program.world.state.reset(self._watchdog, invocation.seed)
        instance = self._open(program, invocation, limits, folders, result)
        try:
            if not invocation.entry:
                instance.call(entry)
                result.exit_code = 0
                return
            if (initializer := program.initializer) is not None and initializer.name != entry.name:
                instance.call(initializer)
            result.value = instance.call(entry, arguments)
            result.is_float = entry.result == F64 or entry.result == F32
        except (wasmtime.WasmtimeError, wasmtime.Trap) as error:
            self._judge(program, error, result)
        finally:
            self._measure(program, instance, limits, result)
            instance.close()

    def _serve(
        self,
        program: Program,
        invocation: Invocation,
        limits: RunLimits,
        folders: Sequence[tuple[str, str]],
        result: Result,
    ) -> None:
        """Have a reactor do a unit of work, in the instance that did those before it where there is one."""
        kept, self._reactor = self._reactor, None
        if kept is not None and (folders or not kept.may_serve(program, invocation, limits.memory_bytes)):
            kept.instance.close()
            kept = None
        instance = kept.instance if kept is not None else None
        state = program.world.state = kept.state if kept is not None else State()
        is_good = False
        try:
            if instance is None:
                state.reset(self._watchdog, invocation.seed)
                instance = self._open(program, invocation, limits, folders, result)
                reactor.begin(program, instance, self._output.stdout)
            else:
                instance.renew(self._fuel(program, limits))
                self._output.limit(limits.files_bytes)
            state.resume(self._watchdog, invocation.stdin)
            reactor.work(program, instance, len(invocation.stdin), self._output.stdout)
            is_good = True
        except (wasmtime.WasmtimeError, wasmtime.Trap) as error:
            self._judge(program, error, result)
            raise GuestFault("exit", "the reactor ended in the middle of its work") from None
        finally:
            state.stdin = b""
            program.world.state = State()
            if instance is not None:
                self._measure(program, instance, limits, result)
                # What it has of a file system is cleared after the run.
                self._keep(program, invocation, limits, instance, state, is_good=is_good and not folders)

    def _keep(
        self,
        program: Program,
        invocation: Invocation,
        limits: RunLimits,
        instance: Any,
        state: State,
        *,
        is_good: bool,
    ) -> None:
        """Keep a reactor's instance for its next unit of work, where there may be one."""
        used_bytes = instance.memory_bytes() if program.about.shows_memory else 0
        kept = Reactor(
            program,
            invocation.context,
            invocation.args,
            invocation.env,
            limits.memory_bytes,
            instance,
            state,
            used_bytes,
        )
        if is_good and kept.may_serve(program, invocation, limits.memory_bytes):
            self._reactor = kept
        else:
            instance.close()

    def _open(
        self,
        program: Program,
        invocation: Invocation,
        limits: RunLimits,
        folders: Sequence[tuple[str, str]],
        result: Result,
    ) -> Any:
        """Make an instance, and have its start section run."""
        world = None
        if program.about.needs_wasi:
            world = World(invocation.args, invocation.env, b"" if program.is_reactor else invocation.stdin, folders)
        start = time.monotonic()
        # A module's first instance is made without a limit, since wasmtime then writes the image of its memory to a
        # file.
        if not program.is_warm:
            self._output.cap.lift()
        elif world is not None:
            self._output.limit(limits.files_bytes)
        try:
            instance = self.instances.Instance(program.module, world, limits.memory_bytes, self._fuel(program, limits))
        except (wasmtime.WasmtimeError, wasmtime.Trap) as error:
            self._judge(program, error, result, is_starting=True)
            # It exited with 0 before it had begun, which is an end too.
            raise GuestFault("ok", "") from None
        if not program.is_warm:
            program.is_warm = True
            if world is not None:
                self._output.limit(limits.files_bytes)
        result.instantiate_s = time.monotonic() - start
        return instance

    def _fuel(self, program: Program, limits: RunLimits) -> int | None:
        return limits.fuel or _FUEL_MAX if self._metered else None

    def _measure(self, program: Program, instance: Any, limits: RunLimits, result: Result) -> None:
        about = program.about
        if about.memory_bytes is not None:
            result.memory_bytes = about.memory_bytes
        elif about.shows_memory:
            result.memory_bytes = instance.memory_bytes()
        if self._metered:
            result.fuel = (limits.fuel or _FUEL_MAX) - instance.fuel()

    def _judge(self, program: Program, error: Exception, result: Result, *, is_starting: bool = False) -> None:
        """Return when the guest exited with 0; otherwise raise what its end means."""
        state = program.world.state
        if state.exit_code is not None:
            result.exit_code = state.exit_code
            if state.exit_code:
                raise GuestFault("exit", f"exit code {state.exit_code}") from None
            return
        if self._watchdog.reason is not None:
            raise GuestFault(self._watchdog.reason, "") from None
        if state.failure and not self._has_failed:
            # Once: what a process says is read when it ends, and has to fit into a pipe until then.
            self._has_failed = True
            print(f"a function of ours failed: {state.failure[:1000]}", file=sys.stderr)  # noqa: T201
        if state.ended:
            raise GuestFault("trap", state.ended) from None
        if not isinstance(error, wasmtime.Trap):
            if not is_starting:
                raise GuestFault("trap", one_line(error)) from None
            reason = "memory" if any(text in str(error) for text in _MEMORY_TEXTS) else "compile"
            raise GuestFault(reason, one_line(error)) from None
        kind = error.trap_code
        if kind is wasmtime.TrapCode.OUT_OF_FUEL:
            raise GuestFault("fuel", "") from None
        raise GuestFault("trap", kind.name.lower() if kind is not None else one_line(error)) from None


def is_reactor(about: About) -> bool:
    """Whether one instance of a module answers many units of work."""
    functions = about.functions or {}
    return reactor.ENTRY in functions and "_start" in functions


def _fit_all(invocation: Invocation, entry: Any) -> Sequence[int]:
    """Fit the arguments to an entry's parameters, integers as two's complement."""
    arguments, kinds = invocation.arguments, entry.kinds
    if len(kinds) != len(arguments):
        name = invocation.entry[:80]
        raise GuestFault("compile", f"{name!r} takes {len(kinds)} arguments, {len(arguments)} are given")
    if I32 not in kinds:
        return arguments
    return [_fit(value, kind) for value, kind in zip(arguments, kinds, strict=True)]


def _fit(value: int, kind: int) -> int:
    if kind != I32:
        return value
    if not -(1 << 31) <= value < 1 << 32:
        raise GuestFault("trap", f"the argument {value} does not fit into i32")
    return value - (1 << 32) if value >= 1 << 31 else value
