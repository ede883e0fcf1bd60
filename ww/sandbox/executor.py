"""The main loop of a child process: requests in, guests run or modules compiled, replies out.

Started by pool.py as `python -m ww.sandbox.executor ROLE FD PARENT`. Holds the process's own set-up and the wire format
of schema/sandbox.capnp. Must not know why a guest runs. An executor that has run guests may be theirs, so it only ever
reads the module cache; compiling is another child's role, which runs no guest. End of a task's life's way out; the
outcome goes back the way it came.
"""

import ctypes
import os
import resource
import signal
import socket
import struct
import sys
import tempfile
import threading
import traceback
from collections import OrderedDict
from pathlib import Path
from typing import Any, Final

import wasmtime

from ww import schema
from ww.sandbox import artefact
from ww.sandbox.engine import Engine, GuestFault, Invocation, Program, Result, compile_module

_GUEST_STACK_BYTES: Final = 8 << 20
_LOADED_MAX: Final = 32
_LOADED_BYTES_MAX: Final = 256 << 20
_FILE_BYTES_MAX: Final = 256 << 20
_DESCRIPTORS_MAX: Final = 64
_NICE: Final = 5
_WORDS_MAX: Final = 1 << 30
_PR_SET_PDEATHSIG: Final = 1
_PR_SET_NO_NEW_PRIVS: Final = 38


class Missing(Exception):
    """A compiled module is not there, or not to be used."""


class Wire:
    """Frames over the socket to the parent."""

    def __init__(self, fd: int) -> None:
        self._socket = socket.socket(fileno=fd)

    def receive(self) -> bytes:
        """Return the next request's bytes; exits when the parent is gone."""
        (length,) = struct.unpack("<I", self._exactly(4))
        return self._exactly(length)

    def send(self, reply: Any) -> None:
        data = reply.to_bytes()
        self._socket.sendall(struct.pack("<I", len(data)) + data)

    def _exactly(self, count: int) -> bytes:
        data = self._socket.recv(count, socket.MSG_WAITALL)
        if len(data) < count:
            os._exit(0)
        return data


class Executor:
    """Runs guests one after the other, keeping the modules of the latest ones loaded."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self._engine = Engine()
        self._loaded: OrderedDict[str, Program] = OrderedDict()

    def start(self) -> None:
        """Run guests in a thread with a stack of known size, and watch over them in this one."""
        threading.stack_size(_GUEST_STACK_BYTES)
        threading.Thread(target=_until_death, args=(self._serve,), daemon=True).start()
        self._engine.watchdog.watch()

    def _serve(self) -> None:
        self._wire.send(schema.sandbox.Reply.new_message(ready=None))
        while True:
            data = self._wire.receive()
            with schema.sandbox.Request.from_bytes(data, traversal_limit_in_words=_WORDS_MAX) as request:
                reply = self._answer(request.run)
            self._wire.send(reply)

    def _answer(self, request: Any) -> Any:
        reply = schema.sandbox.Reply.new_message()
        try:
            program = self._program(request.artefact)
            result = self._engine.run(program, _read_invocation(request.invocation, request.limits))
        except Missing as missing:
            reply.missing = str(missing)
            return reply
        except GuestFault as fault:
            result = Result(reason=fault.reason, detail=fault.detail)
        _write_outcome(reply.init("outcome"), result, request.limits.memoryBytes)
        return reply

    def _program(self, path: str) -> Program:
        known = self._loaded.get(path)
        if known is not None:
            self._loaded.move_to_end(path)
            return known
        serialized = artefact.read(Path(path))
        if serialized is None:
            raise Missing("not there, or damaged")
        try:
            program = self._engine.load(serialized)
        except wasmtime.WasmtimeError:
            raise Missing("compiled for another wasmtime or processor") from None
        self._loaded[path] = program
        while len(self._loaded) > 1 and (
            len(self._loaded) > _LOADED_MAX or sum(p.size_bytes for p in self._loaded.values()) > _LOADED_BYTES_MAX
        ):
            self._loaded.popitem(last=False)
        return program


class Compiler:
    """Compiles modules, and runs none."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire

    def start(self) -> None:
        """Serve for ever."""
        self._wire.send(schema.sandbox.Reply.new_message(ready=None))
        while True:
            with schema.sandbox.Request.from_bytes(self._wire.receive()) as request:
                reply = self._answer(request.compile)
            self._wire.send(reply)

    def _answer(self, request: Any) -> Any:
        reply = schema.sandbox.Reply.new_message()
        try:
            data = artefact.read_module(Path(request.module), request.digest)
            Path(request.artefact).write_bytes(artefact.pack(compile_module(data)))
            reply.compiled = None
        except GuestFault as fault:
            reply.failed = fault.detail
        except OSError as error:
            reply.missing = error.strerror or "unreadable"
        return reply


def _read_invocation(invocation: Any, limits: Any) -> Invocation:
    return Invocation(
        entry=invocation.entry,
        arguments=list(invocation.arguments),
        args=list(invocation.args),
        env=[(variable.key, variable.value) for variable in invocation.env],
        stdin=invocation.stdin,
        duration_s=limits.durationSeconds,
        memory_bytes=limits.memoryBytes,
        output_bytes=limits.outputBytes,
    )


def _write_outcome(outcome: Any, result: Result, memory_limit_bytes: int) -> None:
    outcome.reason = result.reason
    if result.detail:
        outcome.detail = result.detail
    if result.value is not None:
        outcome.hasResult, outcome.result = True, result.value
    if result.exit_code is not None:
        outcome.hasExitCode, outcome.exitCode = True, result.exit_code
    if result.stdout:
        outcome.stdout, outcome.stdoutTruncated = result.stdout, result.stdout_truncated
    if result.stderr:
        outcome.stderr, outcome.stderrTruncated = result.stderr, result.stderr_truncated
    outcome.wallSeconds, outcome.cpuSeconds = result.wall_s, result.cpu_s
    outcome.memoryBytes, outcome.memoryLimitBytes = result.memory_bytes, memory_limit_bytes


def _until_death(serve: Any) -> None:
    """Run serve; if it fails, the process is no good any more, and the parent replaces it."""
    try:
        serve()
    except BaseException:
        resource.setrlimit(resource.RLIMIT_FSIZE, (_FILE_BYTES_MAX, _FILE_BYTES_MAX))
        traceback.print_exc()
    os._exit(70)


def _give_away_output() -> None:
    """Make fd 1 and 2 files in memory, the guest's stdout and stderr; keep the real stderr for last words."""
    sys.stderr = os.fdopen(os.dup(2), "w", buffering=1)
    for fd in (1, 2):
        if hasattr(os, "memfd_create"):
            file = os.memfd_create(f"ww-output-{fd}")
        else:
            file, name = tempfile.mkstemp()
            os.unlink(name)
        os.dup2(file, fd)
        os.close(file)


def _confine(parent: int) -> None:
    """Give up what a guest's process does not need, and do not outlive the parent."""
    if sys.platform == "linux":
        libc = ctypes.CDLL(None)
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    if os.getppid() != parent:  # it died before the line above
        os._exit(0)
    # A folder that is gone already: empty, nothing can be made in it, and nothing is left behind by a kill.
    nowhere = tempfile.mkdtemp(prefix="ww-sandbox-")
    os.chdir(nowhere)
    os.rmdir(nowhere)
    # Ctrl-C is the parent's to act on: guests may finish.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.nice(_NICE)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_NOFILE, (_DESCRIPTORS_MAX, _DESCRIPTORS_MAX))
    resource.setrlimit(resource.RLIMIT_FSIZE, (_FILE_BYTES_MAX, _FILE_BYTES_MAX))


def main() -> None:
    """Be a child process until the parent is gone."""
    role, fd, parent, memory_bytes_max = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
    _confine(parent)
    wire = Wire(fd)
    if role == "compiler":
        # Address space says nothing (wasmtime reserves gigabytes); private writable memory is what compiling takes.
        resource.setrlimit(resource.RLIMIT_DATA, (memory_bytes_max, memory_bytes_max))
        _until_death(Compiler(wire).start)
    _give_away_output()
    Executor(wire).start()


if __name__ == "__main__":
    main()
