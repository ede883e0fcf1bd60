"""WASI preview 1 for guests: wasmtime's, with single functions replaced by ours.

Holds which are replaced, and how a function of ours is called from WebAssembly. Nothing here raises into wasmtime: a
host function that raises leaves its exception where another guest can meet it. Longer functions are in wasi_poll.py and
wasi_files.py; what they share is in wasi_host.py.
"""

import ctypes
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final

import wasmtime
from wasmtime import _ffi as ffi

from ww.sandbox.determinism import START_NS, STEP_NS
from ww.sandbox.wasi_files import Files, remove_directory
from ww.sandbox.wasi_host import Host, State, Watch
from ww.sandbox.wasi_originals import FUNCTIONS, SCRATCH_BYTES, WASI, Ended, Originals, make_trap
from ww.sandbox.wasi_poll import Poll

__all__ = ["Originals", "Preview1", "State", "Watch"]

_BADF: Final = 8
_INVAL: Final = 28
_MASK: Final = 0xFFFFFFFF
_REALTIME: Final = 0
_MONOTONIC: Final = 1
_CLOCKS: Final = 4
_IOVECS_MAX: Final = 1024
_READ_AT: Final = 16
"""Where in the scratch memory the original fd_read puts what it reads; before is its iovec, and the number read."""
_RANDOM_BYTES: Final = 1 << 18
"""Made at a time: a millisecond's work, and no more memory than that."""


class Preview1:
    """A linker with the WASI of one kind of guest, and the run that it serves at the moment.

    Stores need room for one instance and one memory (of 64 KiB) more than the guest's; a pool needs as much for each.
    One guest runs at a time.
    """

    def __init__(
        self,
        engine: wasmtime.Engine,
        *,
        deterministic: bool = False,
        reactor: bool = False,
        originals: Originals | None = None,
    ) -> None:
        """deterministic: time, random numbers and folders are the same wherever and whenever the guest runs. reactor:
        its stdin is State.stdin. originals may be shared by all of one engine; making them takes milliseconds."""
        self._host = Host(originals or Originals(engine))
        self._callbacks: list[Any] = []  # C holds only their addresses
        self.linker = wasmtime.Linker(engine)
        self.linker.allow_shadowing = True
        self.linker.define_wasi()
        self._define_proc_exit()
        self._replace("poll_oneoff", Poll(self._host, deterministic=deterministic).poll_oneoff)
        self._replace("path_remove_directory", remove_directory(self._host))
        if deterministic:
            files = Files(self._host)
            self._replace("clock_time_get", self._clock_time_get)
            self._replace("clock_res_get", self._clock_res_get)
            self._replace("random_get", self._random_get)
            self._replace("fd_filestat_get", files.fd_filestat_get)
            self._replace("path_filestat_get", files.path_filestat_get)
            self._replace("fd_readdir", files.fd_readdir)
        if reactor:
            self._replace("fd_read", self._fd_read)

    @property
    def state(self) -> State:
        """The run that is served. Set it to that of another store before calling into that one."""
        return self._host.state

    @state.setter
    def state(self, state: State) -> None:
        self._host.state = state

    def _replace(self, name: str, function: Callable[[Any], int]) -> None:
        """Link function in place of wasmtime's: it takes the arguments and returns an errno, or raises Ended."""
        host = self._host

        def callback(env: Any, caller: Any, arguments: Any, count: int, results: Any, results_count: int) -> int:
            try:
                host.memory.bind(caller)
                error = function(arguments)
                result = results[0]
                result.kind = 0
                result.of.i32 = error
                return 0
            except Ended as ended:
                why = str(ended)
                host.state.ended = f"{name}: {why}" if why else ""
                return ended.trap
            except BaseException as error:
                return self._fail(name, error)

        kinds = [wasmtime.ValType.i32() if kind == "i32" else wasmtime.ValType.i64() for kind in FUNCTIONS[name]]
        self._define(name, wasmtime.FuncType(kinds, [wasmtime.ValType.i32()]), callback)

    def _define_proc_exit(self) -> None:
        """Replace proc_exit, which forgets codes above 125, by one that keeps them and ends the guest by a trap."""
        host = self._host

        def callback(env: Any, caller: Any, arguments: Any, count: int, results: Any, results_count: int) -> int:
            try:
                host.state.exit_code = arguments[0].of.i32 & _MASK
                return make_trap(b"exit")
            except BaseException as error:
                return self._fail("proc_exit", error)

        self._define("proc_exit", wasmtime.FuncType([wasmtime.ValType.i32()], []), callback)

    def _define(self, name: str, kind: wasmtime.FuncType, function: Callable[..., int]) -> None:
        callback = ffi.wasmtime_func_callback_t(function)
        self._callbacks.append(callback)
        error = ffi.wasmtime_linker_define_func(
            self.linker.ptr(), WASI.encode(), len(WASI), name.encode(), len(name), kind.ptr(), callback, None,
            ctypes.CFUNCTYPE(None, ctypes.c_void_p)(0),
        )  # fmt: skip
        if error:
            raise wasmtime.WasmtimeError._from_ptr(error)

    def _fail(self, name: str, error: BaseException) -> int:
        """End the guest by a trap for an error of ours."""
        state = self._host.state
        state.ended, state.failure = "host function failed", name
        with suppress(BaseException):
            state.failure = f"{name}: {error!r}"
        return make_trap(b"host function failed")

    # Deterministic runs

    def _clock_time_get(self, arguments: Any) -> int:
        clock = arguments[0].of.i32
        at = self._host.memory.check(arguments[2].of.i32 & _MASK, 8, 8)
        if clock == _MONOTONIC:
            start_ns = 0
        elif clock == _REALTIME:
            start_ns = START_NS
        else:
            return _no_clock(clock)
        ctypes.c_uint64.from_address(at).value = start_ns + self._host.state.virtual_clock().read_ns()
        return 0

    def _clock_res_get(self, arguments: Any) -> int:
        clock = arguments[0].of.i32
        at = self._host.memory.check(arguments[1].of.i32 & _MASK, 8, 8)
        if clock not in (_REALTIME, _MONOTONIC):
            return _no_clock(clock)
        ctypes.c_uint64.from_address(at).value = STEP_NS
        return 0

    def _random_get(self, arguments: Any) -> int:
        size = arguments[1].of.i32 & _MASK
        at = self._host.memory.check(arguments[0].of.i32 & _MASK, size)
        stream = self._host.state.random_stream()
        while size:
            if size > _RANDOM_BYTES:
                self._host.end_if_over()
            data = stream.read(min(size, _RANDOM_BYTES))
            ctypes.memmove(at, data, len(data))
            at += len(data)
            size -= len(data)
        return 0

    # Reactors

    def _fd_read(self, arguments: Any) -> int:
        """Read stdin from what the host put there last, and other descriptors as wasmtime does.

        A guest that closes or renumbers its descriptor 0 reads stdin there nevertheless.
        """
        memory = self._host.memory
        fd, given, count, result = (arguments[index].of.i32 & _MASK for index in range(4))
        if count > _IOVECS_MAX:
            return _INVAL
        result_at = memory.check(result, 4, 4)
        vectors = (ctypes.c_uint32 * (2 * count)).from_address(memory.check(given, 8 * count, 4))
        regions = [(memory.check(at, size), size) for at, size in zip(vectors[::2], vectors[1::2], strict=True) if size]
        total = 0
        if fd == 0:
            for at, size in regions:
                total += self._read_stdin(at, size)
        else:
            at, size = regions[0] if regions else (0, 0)
            error, total = self._read_other(fd, at, size)
            if error:
                return error
        ctypes.c_uint32.from_address(result_at).value = total
        return 0

    def _read_stdin(self, at: int, size: int) -> int:
        state = self._host.state
        data = bytes(state.stdin[state.stdin_at : state.stdin_at + size])
        ctypes.memmove(at, data, len(data))
        state.stdin_at += len(data)
        return len(data)

    def _read_other(self, fd: int, at: int, size: int) -> tuple[int, int]:
        """Read into the first region alone, as wasmtime does; return an errno and how many bytes."""
        host, scratch = self._host, self._host.scratch()
        vector = (ctypes.c_uint32 * 3).from_address(scratch)
        vector[:] = [_READ_AT, min(size, SCRATCH_BYTES - _READ_AT), 0]
        error = host.original("fd_read", fd, 0, 1, 8)
        if not error:
            ctypes.memmove(at, scratch + _READ_AT, vector[2])
        return error, vector[2]


def _no_clock(clock: int) -> int:
    """Return the errno of a clock that is not there, or that nobody knows."""
    return _BADF if 0 <= clock < _CLOCKS else _INVAL
