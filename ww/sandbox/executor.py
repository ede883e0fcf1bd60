"""The main loop of a child process: requests in, guests run or modules compiled, replies out.

Started by child.py as `python -m ww.sandbox.executor ROLE FD PARENT ...`. Holds the process's own set-up and the wire
format of schema/sandbox.capnp. Must not know why a guest runs. An executor that has run guests may be theirs, so it is
confined (confine.py) and cannot so much as open a file; compiling is another child's role, which runs no guest, and is
as confined. End of a task's life's way out; the outcome goes back the way it came.
"""

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
from collections.abc import Sequence
from typing import Any, Final

import wasmtime

from ww import schema
from ww.sandbox import artefact
from ww.sandbox.confine import ConfinementConfig, Protection, confine
from ww.sandbox.engine import Engine, GuestFault, Invocation, Program, Result, compile_module

_GUEST_STACK_BYTES: Final = 8 << 20
_LOADED_MAX: Final = 32
_LOADED_BYTES_MAX: Final = 256 << 20
_WORDS_MAX: Final = 1 << 30
# A request comes with at most two descriptors.
_ANCILLARY_BYTES: Final = socket.CMSG_SPACE(2 * struct.calcsize("i"))


class Missing(Exception):
    """A compiled module is not to be used."""


class Wanted(Exception):
    """A compiled module is needed to go on."""


class Wire:
    """Frames over the socket to the parent."""

    def __init__(self, fd: int) -> None:
        self._socket = socket.socket(fileno=fd)

    @property
    def fd(self) -> int:
        """The socket's descriptor."""
        return self._socket.fileno()

    def receive(self) -> tuple[bytes, Sequence[int]]:
        """Return the next request's bytes and descriptors, which are the caller's to close; exits when the parent is
        gone."""
        header, ancillary, _, _ = self._socket.recvmsg(4, _ANCILLARY_BYTES, socket.MSG_WAITALL)
        if len(header) < 4:
            os._exit(0)
        descriptors = struct.unpack(f"{len(ancillary[0][2]) // 4}i", ancillary[0][2]) if ancillary else ()
        (length,) = struct.unpack("<I", header)
        return self._exactly(length), descriptors

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

    def __init__(self, wire: Wire, ready: Any) -> None:
        """Serve over wire; ready is the first reply."""
        self._wire = wire
        self._ready = ready
        self._engine = Engine()
        self._loaded: OrderedDict[bytes, Program] = OrderedDict()

    def start(self) -> None:
        """Run guests in a thread with a stack of known size, and watch over them in this one."""
        threading.stack_size(_GUEST_STACK_BYTES)
        threading.Thread(target=_until_death, args=(self._serve,), daemon=True).start()
        self._engine.watchdog.watch()

    def _serve(self) -> None:
        self._wire.send(self._ready)
        while True:
            data, descriptors = self._wire.receive()
            with schema.sandbox.Request.from_bytes(data, traversal_limit_in_words=_WORDS_MAX) as request:
                reply = self._answer(request.run, descriptors)
            for fd in descriptors:
                os.close(fd)
            self._wire.send(reply)

    def _answer(self, request: Any, descriptors: Sequence[int]) -> Any:
        reply = schema.sandbox.Reply.new_message()
        try:
            program = self._program(request.digest, descriptors)
            result = self._engine.run(program, _read_invocation(request.invocation, request.limits))
        except Missing as missing:
            reply.missing = str(missing)
            return reply
        except Wanted:
            reply.wanted = None
            return reply
        except GuestFault as fault:
            result = Result(reason=fault.reason, detail=fault.detail)
        _write_outcome(reply.init("outcome"), result, request.limits.memoryBytes)
        return reply

    def _program(self, digest: bytes, descriptors: Sequence[int]) -> Program:
        known = self._loaded.get(digest)
        if known is not None:
            self._loaded.move_to_end(digest)
            return known
        if not descriptors:
            raise Wanted
        serialized = artefact.read(descriptors[0])
        if serialized is None:
            raise Missing("damaged")
        try:
            program = self._engine.load(serialized)
        except wasmtime.WasmtimeError:
            raise Missing("compiled for another wasmtime or processor") from None
        self._loaded[digest] = program
        while len(self._loaded) > 1 and (
            len(self._loaded) > _LOADED_MAX or sum(p.size_bytes for p in self._loaded.values()) > _LOADED_BYTES_MAX
        ):
            self._loaded.popitem(last=False)
        return program


class Compiler:
    """Compiles modules, and runs none."""

    def __init__(self, wire: Wire, ready: Any) -> None:
        """Serve over wire; ready is the first reply."""
        self._wire = wire
        self._ready = ready

    def start(self) -> None:
        """Serve for ever."""
        self._wire.send(self._ready)
        while True:
            data, descriptors = self._wire.receive()
            with schema.sandbox.Request.from_bytes(data) as request:
                reply = self._answer(request.compile.digest, *descriptors)
            for fd in descriptors:
                os.close(fd)
            self._wire.send(reply)

    def _answer(self, digest: bytes, module: int, compiled: int) -> Any:
        reply = schema.sandbox.Reply.new_message()
        try:
            data = artefact.read_module(module, digest)
            artefact.write(compiled, artefact.pack(compile_module(data)))
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
        traceback.print_exc()
    finally:
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


def _ready(protections: Sequence[Protection]) -> Any:
    reply = schema.sandbox.Reply.new_message()
    for said, protection in zip(reply.init("ready", len(protections)), protections, strict=True):
        said.name, said.state, said.detail = protection.name, protection.state, protection.detail
    return reply


def main() -> None:
    """Be a child process until the parent is gone."""
    role, fd, parent, memory_bytes_max, nice, without = sys.argv[1:]
    wire = Wire(int(fd))
    # Ctrl-C is the parent's to act on: guests may finish.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if role == "compiler":
        # Address space says nothing (wasmtime reserves gigabytes); private writable memory is what compiling takes.
        resource.setrlimit(resource.RLIMIT_DATA, (int(memory_bytes_max),) * 2)
    else:
        _give_away_output()
    config = ConfinementConfig(nice=int(nice), without=without.split(","))
    ready = _ready(confine(config, descriptors={0, 1, 2, wire.fd, sys.stderr.fileno()}))
    if os.getppid() != int(parent):  # it died before this process was made to die with it
        os._exit(0)
    if role == "compiler":
        _until_death(Compiler(wire, ready).start)
    Executor(wire, ready).start()


if __name__ == "__main__":
    main()
