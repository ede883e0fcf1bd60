"""What a Python component asks of its host: how its functions are found, called, and told what is wrong.

Holds the calling of a function of ours from WebAssembly, its reach into the guest's memory, and the handles of what the
guest has of its host. Must not know what the functions do: python_wasi.py and python_calls.py do. Nothing here raises
into wasmtime: a host function that raises leaves its exception where another guest can meet it. Source: Component
Model, CanonicalABI.md.
"""

import ctypes
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple

import wasmtime

from ww.sandbox.determinism import RandomStream, VirtualClock
from ww.sandbox.invocation import GuestFault
from ww.sandbox.python_link import Function, HostFunction, Instance
from ww.sandbox.wasi_host import Watch
from ww.sandbox.wasi_originals import Ended, make_trap

MASK: Final = 0xFFFFFFFF
_HANDLES_MAX: Final = 10_000
_LETTERS: Final = {"i": "i32", "I": "i64"}


class Pollable(NamedTuple):
    """What a guest can wait for: a time, or nothing."""

    due_ns: int | None
    """By the run's monotonic clock; None: it is ready."""


class Known(NamedTuple):
    """A function of ours: its type as core modules call it, by letters, i for i32 and I for i64; and what is called,
    with as many integers, unsigned, and returns one where it has a result."""

    parameters: str
    results: str
    function: Callable[..., int | None]


class Run:
    """What functions of the host know of one run."""

    __slots__ = (
        "calls",
        "clock",
        "code_ended",
        "ended",
        "env",
        "exit_code",
        "interrupted",
        "random",
        "stderr",
        "stderr_bytes_max",
        "stderr_is_cut",
        "watch",
    )  # fmt: skip

    def __init__(
        self,
        watch: Watch,
        env: Sequence[tuple[str, str]],
        stderr_bytes_max: int,
        seed: int | None,
        calls: Any = None,
    ) -> None:
        """seed is a deterministic run's, None of another. calls is what it may call: see python_calls.py."""
        self.watch = watch
        self.env = env
        self.stderr = bytearray()
        self.stderr_bytes_max = stderr_bytes_max
        self.stderr_is_cut = False
        self.clock = VirtualClock() if seed is not None else None
        self.random = RandomStream(seed) if seed is not None else None
        self.calls = calls
        self.exit_code: int | None = None
        """What exit was given; None while it was not called."""
        self.ended = ""
        """Why a function of ours ended the guest, for people."""
        self.interrupted = False
        """Whether it did because watch said so."""

    @property
    def room(self) -> int:
        """How much the guest may write to stderr yet."""
        return self.stderr_bytes_max - len(self.stderr)

    def print(self, data: bytes, size: int) -> None:
        """Keep what the guest writes to stderr: the first bytes of size, as many as there is room for."""
        self.stderr += data
        if size > len(data):
            self.stderr_is_cut = True

    def end_if_over(self) -> None:
        """End the guest if its run is over."""
        if self.watch.interrupted():
            self.interrupted = True
            raise Ended("interrupted", wasmtime.TrapCode.INTERRUPT)


class Host:
    """Where a function of ours finds what it needs, during one call of a guest. One guest runs at a time."""

    def __init__(self) -> None:
        self.run: Any = None
        """The Run that is served."""
        self.instance: Any = None
        """The Instance that calls."""
        self.handles: dict[int, Any] = {}
        """What the guest has of its host, by the number that it has for it."""
        self._failed = False
        self._gives = False
        """Whether the guest makes room: it may call nothing meanwhile, or it could go on within itself for ever."""
        self._base = self._size = 0
        self._reallocs: dict[int, Function] = {}

    def enter(self, instance: Instance, handles: Mapping[int, Any]) -> None:
        """Serve an instance from now on, which has these handles."""
        self.instance, self.handles = instance, dict(handles)
        self._gives = False

    # The guest's memory.

    def look(self) -> None:
        """See where the memory is: it may have grown since."""
        instance = self.instance
        if not instance.has_memory:
            raise Ended("a function of the host is called before there is a memory")
        self._base, self._size = instance.base, instance.size

    def at(self, address: int, size: int, alignment: int = 1) -> int:
        """Return where in this process that part of the memory is. Ended when it is not all there, or not aligned."""
        if address + size > self._size:
            raise Ended("pointer out of bounds", wasmtime.TrapCode.MEMORY_OUT_OF_BOUNDS)
        if address % alignment:
            raise Ended("pointer not aligned", wasmtime.TrapCode.HEAP_MISALIGNED)
        return self._base + address

    def read(self, address: int, size: int, most: int, what: str) -> bytes:
        """Read from the memory. Ended when it is more than most."""
        if size > most:
            raise Ended(f"{what} has {size} bytes, at most {most} are taken")
        return ctypes.string_at(self.at(address, size), size)

    def write(self, address: int, data: bytes, alignment: int = 4) -> None:
        """Write to the memory."""
        ctypes.memmove(self.at(address, len(data), alignment), data, len(data))

    def give(self, realloc: Sequence[Any] | None, data: bytes, alignment: int = 1) -> int:
        """Have the guest make room for data, and write it there; return its address."""
        if realloc is None or realloc[0] < 0:
            raise Ended("a function that gives memory was lowered without realloc")
        try:
            function = self.instance.function(realloc, 4, 1)
        except wasmtime.WasmtimeError:
            raise Ended("realloc is not there yet") from None
        self._gives = True
        address, trap = function.within(0, 0, alignment, len(data))
        self._gives = False
        if trap:
            raise Ended("", trap=trap)
        self.look()
        self.write(address, data, alignment)
        return int(address)

    # Handles.

    def add(self, thing: Any) -> int:
        """Give the guest a handle."""
        if len(self.handles) >= _HANDLES_MAX:
            raise Ended(f"has more than {_HANDLES_MAX} handles")
        number = len(self.handles) + 1
        while number in self.handles:
            number += 1
        self.handles[number] = thing
        return number

    def get(self, number: int, kind: type) -> Any:
        """Return what a handle of the guest's is. Ended when it is none of that kind."""
        thing = self.handles.get(number)
        if not isinstance(thing, kind):
            raise Ended("unknown handle")
        return thing

    def drop(self, number: int) -> None:
        """Take a handle back."""
        if self.handles.pop(number, None) is None:
            raise Ended("unknown handle")

    # Functions.

    def functions(
        self, wanted: Sequence[Sequence[Any]], known: Callable[[str, str, Any], Known | None]
    ) -> list[HostFunction]:
        """Make the functions that a component asks for: see python_compile.py for their form. known returns one by its
        interface and name, for a realloc. GuestFault when one is asked for as what it is not."""
        made = []
        for interface, name, realloc, parameters, results in wanted:
            found = known(interface, name, realloc)
            shown = f"{interface}.{name}"
            if found is None:
                made.append(HostFunction(parameters, results, self._refusing(shown)))
                continue
            takes, gives = ([_LETTERS[letter] for letter in letters] for letters in (found.parameters, found.results))
            # What nobody imports has no type.
            if (parameters or results) and (list(parameters), list(results)) != (takes, gives):
                raise GuestFault("compile", f"asks for {shown} with another type than it has")
            made.append(HostFunction(takes, gives, self._calling(shown, found)))
        return made

    def _calling(self, name: str, known: Known) -> Callable[..., int]:
        function, has_result = known.function, bool(known.results)
        # How an argument is read, by its number.
        masks = [MASK if letter == "i" else (1 << 64) - 1 for letter in known.parameters]
        result_mask = MASK if known.results == "i" else (1 << 64) - 1

        def callback(env: Any, caller: Any, values: Any, count: int) -> int:
            try:
                if self._gives:
                    raise Ended("called while realloc makes room")
                self.look()
                # Integers of 32 bits lie in the lower half.
                value = function(*[values[at].i64 & mask for at, mask in enumerate(masks)])
                if has_result:
                    assert value is not None
                    values[0].i64 = _signed(value & result_mask)
                return 0
            except Ended as ended:
                if why := str(ended):
                    self.run.ended = f"{name}: {why}"
                return ended.trap
            except BaseException as error:
                return self._fail(name, error)

        return callback

    def _refusing(self, name: str) -> Callable[..., int]:
        def callback(env: Any, caller: Any, values: Any, count: int) -> int:
            try:
                self.run.ended = f"{name}: is not there for Python functions"
                return make_trap(b"unknown import")
            except BaseException as error:
                return self._fail(name, error)

        return callback

    def _fail(self, name: str, error: BaseException) -> int:
        """End the guest by a trap for an error of ours."""
        self.run.ended = "host function failed"
        if not self._failed:
            # Once: what a process says is read when it ends, and has to fit into a pipe until then.
            self._failed = True
            print(f"a function of ours failed: {name}: {type(error).__name__}: {error}"[:1000], file=sys.stderr)  # noqa: T201
        return make_trap(b"host function failed")

    # Time.

    def now_ns(self) -> int:
        """Return the time by the run's monotonic clock."""
        clock = self.run.clock
        return int(clock.read_ns()) if clock is not None else time.monotonic_ns()


def _signed(value: int) -> int:
    return value - (1 << 64) if value >> 63 else value
