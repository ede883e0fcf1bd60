"""The guest's world, inside a child process: what is loaded, and one run at a time under its limits.

Holds what a run is timed and watched by, whatever it is: modules run by program.py, components by component.py, Python
functions by python_program.py. Must not know sockets or the parent: executor.py calls it.
"""

import time
from collections.abc import Callable, Sequence
from typing import Any, Final

from ww.sandbox import classes
from ww.sandbox.artefact import About
from ww.sandbox.checkpoint import Pages
from ww.sandbox.component_program import ComponentKind
from ww.sandbox.directory import Directory
from ww.sandbox.invocation import GuestFault, Invocation, Result, RunLimits
from ww.sandbox.output import Output
from ww.sandbox.program import Modules
from ww.sandbox.python_calls import Asking
from ww.sandbox.python_program import PythonKind, Services
from ww.sandbox.python_state import Shelf
from ww.sandbox.watchdog import Watchdog

try:
    from ww.sandbox import native
except AttributeError:  # another wasmtime, which lacks a function
    native = None  # type: ignore[assignment]

# What takes less has used the processor all the time, as far as can be told: asking costs as much as a tenth of it.
_SHORT_S: Final = 100e-6
_FIGURES: Final[dict[str, Callable[[Result, RunLimits], str]]] = {
    "deadline": lambda result, limits: f"ran for {result.wall_s:.3f} s, it may for {limits.duration_s:g} s",
    "cpu": lambda result, limits: f"used {result.cpu_s:.3f} s of processor time, it may use {limits.cpu_s:g} s",
    "fuel": lambda result, limits: f"used {result.fuel} of fuel, all that it may",
    "memory": lambda result, limits: f"{result.detail[:200]}; it may have {limits.memory_bytes} bytes",
}


class Engine:
    """Loads and runs guests, one at a time."""

    def __init__(
        self,
        memory_bytes_max: int,
        output: Output,
        directory: Directory | None,
        *,
        grace_s: float,
        give_up: Callable[[Result], None],
        at_files: Callable[[bool], None],
        with_classes: bool = False,
        pagemap: int = -1,
        programs_max: int = 1,
        program_bytes_max: int = 0,
    ) -> None:
        """Run guests of up to memory_bytes_max of linear memory, with files in directory, by wasmtime-py's classes or,
        faster, without.

        give_up is told how the run is to be taken for ended that still runs grace_s after it was to end. at_files is
        called with True when a guest with files begins, or one that had to be loaded, and with False when one with
        files has ended. pagemap is of checkpoint.open_pagemap. Of Python programs, so many are kept, and so many bytes
        of their states.
        """
        self._memory_bytes_max = memory_bytes_max
        self._instances: Any = classes if with_classes or native is None else native
        self._output = output
        self._directory = directory
        self._watched: RunLimits | None = None
        self._give_up = give_up
        self._at_files = at_files
        self._started_at = 0.0
        self._limits: RunLimits | None = None
        self.watchdog = Watchdog(self._interrupt, self._look, self._abandon, grace_s)
        self._modules: dict[bool, Modules] = {}
        self._components: dict[tuple[bool, bool], ComponentKind] = {}
        self._pythons: dict[bool, PythonKind] = {}
        self._services = Services(
            self.watchdog, Pages(pagemap), Shelf(programs_max, program_bytes_max), self._begin_call, output.cap.lift
        )
        self._cpu_at = 0.0

    def begin(self) -> None:
        """Call this in the thread that loads and runs guests, before it does."""
        self._modules_of(metered=False)

    def begin_group(self, asking: Asking | None = None) -> None:
        """Call this before the first of a group of runs; asking is the way to who answers their calls."""
        self._cpu_at = time.process_time()
        self._services.asking = asking
        self._services.group += 1
        self._services.failed = None

    def load(self, about: About, serialized: memoryview, *, metered: bool, deterministic: bool) -> Any:
        """Load what compiler.py made. GuestFault when it does not link or is too large for any run; WasmtimeError when
        it is of another wasmtime or processor."""
        if about.python is not None:
            python = self._pythons.get(metered)
            if python is None:
                python = self._pythons[metered] = PythonKind(self._services, metered=metered)
            return python.load(about, serialized)
        if not about.is_component:
            return self._modules_of(metered=metered).load(about, bytes(serialized), deterministic=deterministic)
        kind = self._components.get((metered, deterministic))
        if kind is None:
            kind = ComponentKind(self._output, self.watchdog, metered=metered, deterministic=deterministic)
            self._components[metered, deterministic] = kind
        return kind.load(about, bytes(serialized))

    def _modules_of(self, *, metered: bool) -> Modules:
        known = self._modules.get(metered)
        if known is None:
            known = self._modules[metered] = Modules(
                self._instances,
                self._output,
                self.watchdog,
                metered=metered,
                memory_bytes_max=self._memory_bytes_max,
            )
        return known

    def run(self, program: Any, invocation: Invocation, limits: RunLimits, has_files: bool) -> Result:
        """Run a guest to its end, in a fresh instance unless it is a reactor; has_files: with a file system."""
        return (
            self._run_with_files(program, invocation, limits) if has_files else self._run(program, invocation, limits)
        )

    def _run_with_files(self, program: Any, invocation: Invocation, limits: RunLimits) -> Result:
        directory = self._directory
        if directory is None:
            return Result(reason="files", detail="this worker has no place for files")
        try:
            self._output.cap.lift()
            directory.fill(invocation.files, limits)
            folders = directory.dirs(invocation.dirs)
            self._watched = limits
            self._at_files(True)
            result = self._run(program, invocation, limits, folders)
            self._at_files(False)
            self._watched = None
            fault = directory.fault(limits)
            if fault is not None and result.reason in ("ok", "exit", "trap", fault.reason):
                result.reason, result.detail = fault.reason, fault.detail
            result.files_bytes = directory.used().size_bytes
            if invocation.artifacts and result.reason in ("ok", "exit", "trap"):
                self._output.cap.lift()
                self._collect(directory, invocation, limits, result)
        except GuestFault as fault:
            result = Result(reason=fault.reason, detail=fault.detail)
        finally:
            self._watched = None
            directory.clear()
        return result

    @staticmethod
    def _collect(directory: Directory, invocation: Invocation, limits: RunLimits, result: Result) -> None:
        try:
            # What compression makes depends on the machine's zlib.
            level = 0 if invocation.deterministic else 1
            result.artifacts = directory.collect(invocation.artifacts, limits, level=level)
        except GuestFault as fault:
            # What a run that failed does not leave is no other failure.
            if result.reason == "ok":
                result.reason, result.detail = fault.reason, fault.detail

    def _run(
        self, program: Any, invocation: Invocation, limits: RunLimits, folders: Sequence[tuple[str, str]] = ()
    ) -> Result:
        if program.about.needs_wasi:
            self._output.begin(limits.output_bytes + program.framing_bytes)
        self._limits, self._started_at = limits, time.monotonic()
        self.watchdog.begin(limits.duration_s, limits.cpu_s)
        try:
            result: Result = program.kind.run(program, invocation, limits, folders)
        finally:
            self.watchdog.end()
        result.wall_s = time.monotonic() - self._started_at
        if result.wall_s < _SHORT_S:
            result.cpu_s = result.wall_s
            self._cpu_at += result.wall_s
        else:
            result.cpu_s = self._cpu_since_last()
        if result.reason in _FIGURES and (not result.detail or result.reason == "memory"):
            result.detail = _FIGURES[result.reason](result, limits)
        return result

    def settle(self) -> None:
        """Bring what was run back to where the next run begins, where that is kept. Between runs: nobody waits then."""
        if len(self._services.shelf):
            started = time.monotonic()
            self._services.shelf.settle()
            self._cpu_at += time.monotonic() - started

    def _begin_call(self) -> None:
        """Have a run's time begin now: what it runs had to be loaded first."""
        assert self._limits is not None
        self._at_files(True)
        self._cpu_at, self._started_at = time.process_time(), time.monotonic()
        self.watchdog.begin(self._limits.duration_s, self._limits.cpu_s)

    def _abandon(self, reason: str) -> None:
        """Say of the guest that runs and does not hear how it ended. Called by the watchdog's thread."""
        assert self._limits is not None
        result = Result(reason=reason, wall_s=time.monotonic() - self._started_at)
        result.cpu_s = time.process_time() - self._cpu_at
        if reason in _FIGURES:
            result.detail = _FIGURES[reason](result, self._limits)
        self._give_up(result)

    @property
    def has_kept(self) -> bool:
        """Whether there is an instance that waits for its next unit of work."""
        return len(self._services.shelf) > 0 or any(modules.has_reactor for modules in self._modules.values())

    def drop_kept(self) -> None:
        """Give those instances back."""
        self._services.shelf.clear()
        for modules in self._modules.values():
            modules.drop_reactor()

    def _cpu_since_last(self) -> float:
        """Return the processor time since this was called last."""
        before, self._cpu_at = self._cpu_at, time.process_time()
        return self._cpu_at - before

    # For the watchdog, in another thread.

    def _interrupt(self) -> None:
        # One guest runs, whichever engine it is of.
        engines = [modules.engine for modules in list(self._modules.values())]
        engines += [kind.engine for kind in list(self._components.values())]
        engines += [kind.engine for kind in list(self._pythons.values())]
        for engine in engines:
            engine.increment_epoch()

    def _look(self) -> str | None:
        self._output.cut()
        if self._directory is None or self._watched is None:
            return None
        fault = self._directory.watch(self._watched)
        return None if fault is None else fault.reason
