"""Python functions where modules are run: a component that has loaded a program is called, and put back after each run.

Holds what happens between a program's sources and the end of one run. Must not know what is in the sources, nor how a
state is put back (python_state.py). A program is loaded once: its component, sources, function, what that may call, and
how much memory there is; every run of it begins in the state that loading left. What WASI and calls are, python_wasi.py
and python_calls.py say. Source: ww/python/world.wit.
"""

import ctypes
import hashlib
import json
import re
import struct
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import wasmtime

from ww.sandbox.artefact import About
from ww.sandbox.checkpoint import Pages
from ww.sandbox.invocation import LOAD_S, GuestFault, Invocation, Result, RunLimits
from ww.sandbox.python_calls import Asking, Jobs, Tickets
from ww.sandbox.python_compile import make_config
from ww.sandbox.python_host import Host, Run
from ww.sandbox.python_link import PAGE_BYTES, Code, Instance
from ww.sandbox.python_state import Kept, Maker, Shelf
from ww.sandbox.python_wasi import Wasi
from ww.sandbox.watchdog import Watchdog
from ww.sandbox.world import one_line

_FUEL_MAX: Final = (1 << 63) - 1
_DETAIL_CHARS_MAX: Final = 200
# Of a failure, more is not looked at to say what it is in one line.
_FAILURE_BYTES_MAX: Final = 1 << 20
_MEMORY_TEXTS: Final = ("exceeds memory limits", "memory minimum size", "minimum size", "resource limit exceeded")
_PAGES: Final = re.compile(r"memory minimum size of (\d+) pages exceeds")
_LIFTS: Final = {"load": 6, "call": 2}
_LATE: Final = {
    "deadline": "loading it took longer than it may",
    "cpu": "loading it took more processor time than it may",
    "fuel": "loading it took more fuel than there is",
}


@dataclass(slots=True)
class PythonProgram:
    """A component that is loaded and links."""

    kind: "PythonKind"
    about: About
    maker: Maker
    size_bytes: int
    framing_bytes: int = 0


@dataclass(slots=True)
class _Failed:
    """A program that did not load, as every run of its group is told."""

    key: Any
    group: int
    result: Result


@dataclass(slots=True)
class Services:
    """What Python programs need of the process that they run in."""

    watchdog: Watchdog
    pages: Pages
    shelf: Shelf
    begin_call: Callable[[], None]
    """Called when a program is loaded and its run begins: its time counts from now on."""
    lift_cap: Callable[[], None]
    """Called before a file in memory is made that may be large."""
    asking: Asking | None = None
    """The way to who answers calls; None for runs that may make none."""
    group: int = 0
    """Number of the group whose runs are run."""
    failed: _Failed | None = None


class PythonKind:
    """Loads components and runs Python functions in them, one at a time."""

    def __init__(self, services: Services, *, metered: bool) -> None:
        self._services = services
        self._metered = metered
        self.engine = wasmtime.Engine(make_config(metered=metered))
        self._host = Host()
        self._code: tuple[Any, bytes] = None, b""
        """Sources, and their digest: those of a group are one object."""

    def load(self, about: About, serialized: memoryview) -> PythonProgram:
        """Load what compile_python made. See Engine.load."""
        assert about.python is not None
        code = Code(self.engine, about.python, serialized)
        wasi, jobs = Wasi(self._host), Jobs(self._host)
        hosts = self._host.functions(about.python["hosts"], lambda *asked: wasi.known(*asked) or jobs.known(*asked))
        maker = Maker(code, hosts, self._host, self._metered)
        return PythonProgram(self, about, maker, len(serialized) + about.size_bytes)

    def run(
        self, program: PythonProgram, invocation: Invocation, limits: RunLimits, folders: Sequence[tuple[str, str]]
    ) -> Result:
        """Call a function, and return how that ended, but for its times."""
        result = Result()
        try:
            if invocation.entry or not invocation.args or not invocation.code:
                raise GuestFault("compile", "a Python component is run with code, and with args=[module:qualname]")
            kept, run = self._loaded(program, invocation, limits, result)
            if kept is not None:
                self._call(program, kept, run, invocation, limits, result)
        except GuestFault as fault:
            result.reason, result.detail = fault.reason, fault.detail
        return result

    # Loading.

    def _digest(self, code: bytes) -> bytes:
        if code is not self._code[0]:
            self._code = code, hashlib.sha256(code).digest()
        return self._code[1]

    def _loaded(
        self, program: PythonProgram, invocation: Invocation, limits: RunLimits, result: Result
    ) -> tuple[Kept | None, Run]:
        """Find the program's state, or load it; None when that failed, and the result says how."""
        services = self._services
        key = (
            program.maker, self._digest(invocation.code), tuple(invocation.args), limits.memory_bytes,
            invocation.deterministic,
        )  # fmt: skip
        run = Run(
            services.watchdog,
            invocation.env,
            limits.output_bytes,
            invocation.seed if invocation.deterministic else None,
            Tickets(services.asking),
        )
        kept = services.shelf.find(key)
        if kept is not None:
            return kept, run
        failed = services.failed
        if failed is not None and failed.key == key and failed.group == services.group:
            _copy(failed.result, result)
            return None, run
        started = time.monotonic()
        services.watchdog.begin(max(limits.duration_s, LOAD_S), limits.cpu_s and max(limits.cpu_s, LOAD_S))
        try:
            kept = self._load(program, invocation, limits, result, run)
        except GuestFault as fault:
            result.reason, result.detail = (
                fault.reason,
                fault.detail or _LATE.get(fault.reason, ""),
            )
        result.instantiate_s = time.monotonic() - started
        if kept is None:
            services.failed = _Failed(key, services.group, replace(result))
            return None, run
        services.shelf.put(key, kept)
        services.begin_call()
        return kept, run

    def _load(
        self, program: PythonProgram, invocation: Invocation, limits: RunLimits, result: Result, run: Run
    ) -> Kept | None:
        """Load a program into a new instance; None when it raises, and the result says what."""
        services, host = self._services, self._host
        memory_bytes = limits.memory_bytes
        loading = Run(
            services.watchdog, (), limits.output_bytes, 0 if invocation.deterministic else None, Tickets(None)
        )
        loading.stderr = run.stderr
        host.run = loading
        instance: Instance | None = None
        try:
            instance = program.maker.make(memory_bytes)
            # So much the guest takes now and keeps, so that no run of it has to grow its memory: see python_state.py.
            reserve = max(0, memory_bytes // PAGE_BYTES * PAGE_BYTES - instance.size)
            loading.env = (("WW_RESERVE_BYTES", str(reserve)),)
            given = invocation.args[0].encode(), bytes(invocation.code), json.dumps(invocation.args[1:]).encode()
            status, body = _lifted(instance, program, "load", given, limits.output_bytes)
            if status:
                _say_failed(result, body)
                self._take_output(loading, result)
                instance.close()
                return None
            services.lift_cap()
            return Kept(program.maker, instance, memory_bytes, services.pages)
        except (wasmtime.WasmtimeError, wasmtime.Trap) as error:
            if instance is not None:
                instance.close()
            self._take_output(loading, result)
            self._judge(loading, error, result, is_starting=instance is None)
            return None
        except OSError as error:
            assert instance is not None
            instance.close()
            raise GuestFault("memory", f"its state after loading cannot be kept: {error.strerror}") from None
        except GuestFault:
            if instance is not None:
                instance.close()
            self._take_output(loading, result)
            raise

    # Calling.

    def _call(
        self,
        program: PythonProgram,
        kept: Kept,
        run: Run,
        invocation: Invocation,
        limits: RunLimits,
        result: Result,
    ) -> None:
        fuel = min(limits.fuel, _FUEL_MAX) or _FUEL_MAX if self._metered else None
        self._host.run = run
        try:
            instance = kept.begin(fuel)
        except (wasmtime.WasmtimeError, wasmtime.Trap) as error:
            self._judge(run, error, result, is_starting=True)
            return
        except OSError as error:
            raise GuestFault("memory", f"its state cannot be had: {error.strerror}") from None
        try:
            status, body = _lifted(instance, program, "call", (invocation.stdin,), limits.output_bytes)
            if status:
                _say_failed(result, body)
            else:
                result.exit_code, result.stdout = 0, body
        except (wasmtime.WasmtimeError, wasmtime.Trap) as error:
            self._judge(run, error, result, is_starting=False)
        finally:
            self._take_output(run, result)
            if fuel is not None:
                result.fuel = fuel - instance.fuel()
            result.memory_bytes = kept.used_bytes

    @staticmethod
    def _take_output(run: Run, result: Result) -> None:
        result.stderr, result.stderr_truncated = bytes(run.stderr), run.stderr_is_cut

    def _judge(self, run: Run, error: Exception, result: Result, *, is_starting: bool) -> None:
        """Say what the end of a guest means."""
        if run.exit_code is not None:
            result.exit_code = run.exit_code
            raise GuestFault("exit", f"exit code {run.exit_code}") from None
        if (reason := self._services.watchdog.reason) is not None:
            raise GuestFault(reason, "") from None
        if run.ended:
            raise GuestFault("trap", run.ended) from None
        if not isinstance(error, wasmtime.Trap):
            reason = "trap"
            if is_starting:
                if pages := _PAGES.search(str(error)):
                    raise GuestFault("memory", f"Python alone takes {int(pages[1]) * PAGE_BYTES} bytes") from None
                reason = "memory" if any(text in str(error) for text in _MEMORY_TEXTS) else "compile"
            raise GuestFault(reason, one_line(error)) from None
        kind = error.trap_code
        if kind is wasmtime.TrapCode.OUT_OF_FUEL:
            raise GuestFault("fuel", "") from None
        raise GuestFault("trap", kind.name.lower() if kind is not None else one_line(error)) from None


def _lifted(
    instance: Instance, program: PythonProgram, name: str, given: Sequence[bytes], bytes_max: int
) -> tuple[int, bytes]:
    """Call load or call with lists of bytes; return the first byte of what it gives, and the rest.

    Raises Trap or WasmtimeError, and GuestFault when it gives what cannot be taken. What call gives is not freed: the
    instance is put back.
    """
    function, realloc, *post_return = program.maker.code.plan["lifts"][name]
    make_room = instance.function(realloc, 4, 1)
    arguments: list[int] = []
    for data in given:
        at = make_room(0, 0, 1, len(data))
        if at + len(data) > instance.size:
            raise GuestFault("trap", "the component makes room where it has no memory")
        source: Any = data if isinstance(data, bytes) else (ctypes.c_char * len(data)).from_buffer(data)
        ctypes.memmove(instance.base + at, source, len(data))
        arguments += (at, len(data))
    returned = instance.function(function, _LIFTS[name], 1)(*arguments)
    base, size = instance.base, instance.size
    if returned + 8 > size:
        raise GuestFault("trap", "the component returns what is not in its memory")
    at, length = struct.unpack("<II", ctypes.string_at(base + returned, 8))
    if at + length > size or not length:
        raise GuestFault("trap", "the component returns what is not in its memory")
    status = ctypes.string_at(base + at, 1)[0]
    if status > 1:
        raise GuestFault("trap", f"the component returns the unknown status {status}")
    if length - 1 > bytes_max:
        what = "what was raised" if status else "the result"
        raise GuestFault("exit", f"{what} has {length - 1} bytes, at most {bytes_max} are taken")
    body = ctypes.string_at(base + at + 1, length - 1)
    if name == "load" and post_return:
        # It takes down what is left of the function's stack, which would otherwise not be where C has it be.
        instance.function(post_return[0], 1, 0)(returned)
    return status, body


def _say_failed(result: Result, body: bytes) -> None:
    """Put an exception into a result, and say in one line what it is."""
    result.reason, result.exit_code, result.stdout = "exit", 1, body
    kind, result.detail = _failure(body)
    if kind == "MemoryError":
        result.reason = "memory"


def _failure(body: bytes) -> tuple[str, str]:
    """Return the name of a built-in exception, empty of others, and what it says. See ww/python/failure.py."""
    try:
        said: Any = json.loads(body) if len(body) <= _FAILURE_BYTES_MAX else None
        module, name, text = (str(said[key]) for key in ("module", "name", "text"))
    except (ValueError, TypeError, KeyError, RecursionError):
        return "", "an exception"
    shown = name if module == "builtins" else f"{module}.{name}"
    line = (f"{shown}: {text}" if text else shown)[: 4 * _DETAIL_CHARS_MAX]
    line = "".join(letter if letter.isprintable() else " " for letter in line.split("\n", 1)[0])[:_DETAIL_CHARS_MAX]
    return name if module == "builtins" else "", line


def _copy(source: Result, to: Result) -> None:
    for name in ("reason", "detail", "exit_code", "stdout", "stderr", "stderr_truncated"):
        setattr(to, name, getattr(source, name))
