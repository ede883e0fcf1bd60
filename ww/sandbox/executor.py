"""The main loop of a child process that runs guests: requests in, guests run, replies out.

Started by child.py as `python -m ww.sandbox.executor SETUP`. Holds the modules that are loaded, and the groups of
runs on their way. Must not know why a guest runs, nor how: engine.py does. A process that has run guests may be theirs,
so it is confined (confine.py) and has no file but those that its parent gave it. End of a task's life's way out; the
outcome goes back the way it came.
"""

import mmap
import os
import sys
import threading
import time
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any, Final

import wasmtime

from ww import schema
from ww.records import write_outcome
from ww.sandbox import artefact, compiler
from ww.sandbox.asking import ParentAsking
from ww.sandbox.codec import KEPT_BYTES_MAX, Spilled, read_run
from ww.sandbox.confine import FILE_SYSTEM, GIVEN, Protection
from ww.sandbox.directory import Directory
from ww.sandbox.engine import Engine
from ww.sandbox.inputs import GROUP_MAX
from ww.sandbox.invocation import INLINE_BYTES_MAX, GuestFault, Invocation, Result, RunLimits
from ww.sandbox.output import Output
from ww.sandbox.process import Setup, Wire, begin, ready, until_death
from ww.sandbox.python_compile import STACK_BYTES

# Of a Python guest's calls, and of the functions of ours that they call; of the others', less.
_GUEST_STACK_BYTES: Final = STACK_BYTES + (16 << 20)
_LOADED_MAX: Final = 64
_WORDS_MAX: Final = 1 << 30
# Outcomes wait that long for others, so that short runs share a message.
_FLUSH_AFTER_S: Final = 0.005
_FLUSH_BYTES: Final = 1 << 20
_PARENT_LOOKED_AT_S: Final = 0.5


class _Missing(Exception):
    """A compiled module is not to be used."""


class _Wanted(Exception):
    """A compiled module is needed to go on."""


class Modules:
    """The modules that are loaded, as many of the latest ones as fit."""

    def __init__(self, engine: Engine, bytes_max: int) -> None:
        self._engine = engine
        self._bytes_max = bytes_max
        self._bytes = 0
        self._loaded: OrderedDict[tuple[bytes, bool, bool], Any] = OrderedDict()

    def find(self, run: Any, descriptors: Sequence[int]) -> Any:
        """Return the module of a sandbox.Request, which is loaded from the first of descriptors when it has to be.

        Raises GuestFault when it cannot run.
        """
        key = run.digest, run.metered, run.shared.deterministic
        known = self._loaded.get(key)
        if known is not None:
            self._loaded.move_to_end(key)
            return known
        if not descriptors:
            raise _Wanted
        made = artefact.read(descriptors[0])
        if made is None:
            raise _Missing("damaged")
        try:
            program = self._engine.load(*made, metered=run.metered, deterministic=run.shared.deterministic)
        except wasmtime.WasmtimeError:
            raise _Missing("compiled for another wasmtime or processor") from None
        self._loaded[key] = program
        self._bytes += program.size_bytes
        while len(self._loaded) > 1 and (len(self._loaded) > _LOADED_MAX or self._bytes > self._bytes_max):
            _, oldest = self._loaded.popitem(last=False)
            self._bytes -= oldest.size_bytes
        return program


_CANCELLED: Final = Result(reason="cancelled")


class Group:
    """The outcomes of a group of runs, on their way to the parent."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self._lock = threading.Lock()
        self._records: list[bytes] = []
        self._spilled: list[bytes] = []
        self._bytes = 0
        self._oldest_at = 0.0
        self._memory_limit_bytes = 0
        self._began_at = 0.0
        self._compile_s = 0.0

    def begin(self, memory_limit_bytes: int, queued_s: float, compile_s: float) -> None:
        """Call this before the first of a group's runs, which have waited for queued_s seconds by now."""
        self._memory_limit_bytes = memory_limit_bytes
        self._began_at = time.monotonic() - queued_s
        self._compile_s = compile_s

    def record(self, place: int, result: Result, now: float) -> bytes:
        """Return the outcome record of the run that ends now."""
        # Who was stopped waited for nothing that counts.
        queue_s = compile_s = 0.0
        if result is not _CANCELLED:
            queue_s = max(0.0, now - self._began_at - result.wall_s)
            compile_s, self._compile_s = self._compile_s, 0.0
        return write_outcome(
            place, result, memory_limit_bytes=self._memory_limit_bytes, queue_s=queue_s, compile_s=compile_s
        )

    def add(self, place: int, result: Result, spilled: Spilled | None) -> None:
        """Have a result sent soon."""
        now = time.monotonic()
        record = self.record(place, result, now)
        with self._lock:
            if not self._records:
                self._oldest_at = now
            self._records.append(record)
            self._bytes += len(record)
            if spilled is not None:
                self._spilled.append(spilled.to_bytes())
            if self._bytes > _FLUSH_BYTES or now - self._oldest_at > _FLUSH_AFTER_S:
                self._flush()

    def flush(self) -> None:
        """Have all sent now."""
        with self._lock:
            self._flush()

    def flush_old(self) -> None:
        """Have sent what has waited long enough: the run after it may take its time."""
        if self._records and time.monotonic() - self._oldest_at > _FLUSH_AFTER_S:
            self.flush()

    def _flush(self) -> None:
        if self._records:
            reply = schema.sandbox.Reply.new_message()
            outcomes = reply.init("outcomes")
            outcomes.records = b"".join(self._records)
            if self._spilled:
                outcomes.spilled = b"".join(self._spilled)
                self._spilled.clear()
            self._records.clear()
            self._bytes = 0
            self._wire.send(reply)


class Executor:
    """Runs guests one after the other."""

    def __init__(self, wire: Wire, setup: Setup, protections: Sequence[Protection]) -> None:
        """Serve over wire, as set up and confined."""
        self._wire = wire
        self._ready = ready(protections)
        self._input = setup.input
        self._artifacts = setup.artifacts
        self._artifacts_bytes = 0
        self._output = Output(setup.stdout, setup.stderr, nowhere=0)
        directory = _directory(setup, protections)
        self._engine = Engine(
            setup.memory_bytes_max,
            self._output,
            directory,
            grace_s=setup.kill_grace_s,
            give_up=self._give_up,
            at_files=self._at_files,
            with_classes=setup.with_classes,
            pagemap=setup.pagemap,
            programs_max=setup.programs_max,
            program_bytes_max=setup.program_bytes_max,
        )
        self._kept_s = setup.kept_s
        self._asking = ParentAsking(wire)
        self._modules = Modules(self._engine, setup.module_bytes_max)
        self._group = Group(wire)
        # Only read: see schema/sandbox.capnp.
        self._marks = mmap.mmap(setup.control, GROUP_MAX, access=mmap.ACCESS_READ)
        self._place = 0
        self._parent, self._looked_at = os.getppid(), 0.0

    def start(self) -> None:
        """Run guests in a thread with a stack of known size, and watch over them in this one."""
        threading.stack_size(_GUEST_STACK_BYTES)
        threading.Thread(target=until_death, args=(self._serve,), daemon=True).start()
        self._engine.watchdog.watch(self._tick)
        # Nobody is left to want an answer.
        os._exit(0)

    def _tick(self) -> bool:
        self._group.flush_old()
        now = time.monotonic()
        if now - self._looked_at < _PARENT_LOOKED_AT_S:
            return False
        self._looked_at = now
        return os.getppid() != self._parent

    def _serve(self) -> None:
        self._engine.begin()
        self._wire.send(self._ready)
        while True:
            if self._engine.has_kept and not self._wire.is_readable(self._kept_s):
                self._engine.drop_kept()
            data, descriptors = self._wire.receive()
            with schema.sandbox.Request.from_bytes(data, traversal_limit_in_words=_WORDS_MAX) as request:
                # An answer to calls that comes now is one that the run did not wait for any more.
                reply = self._answer(request.run, descriptors) if request.which() == "run" else None
            for fd in descriptors:
                os.close(fd)
            if reply is not None:
                self._wire.send(reply)

    def _answer(self, run: Any, descriptors: Sequence[int]) -> Any:
        """Run a group; its outcomes go by themselves, and what is returned is all else that is to be said."""
        reply = schema.sandbox.Reply.new_message()
        program: Any
        try:
            program = self._modules.find(run, descriptors)
        except _Missing as missing:
            reply.missing = str(missing)
            return reply
        except _Wanted:
            reply.wanted = None
            return reply
        except GuestFault as fault:
            program = fault
        self._forget_fetched()
        # Not unmapped by hand: that happens when nothing refers to a part of it any more.
        spilled = memoryview(mmap.mmap(self._input, run.spilledBytes)) if run.spilledBytes else None
        try:
            limits, has_files, invocations = read_run(run, spilled)
        except ValueError as error:
            reply.refused = f"inputs: {error}"
            return reply
        self._group.begin(limits.memory_bytes, run.queuedSeconds, run.compileSeconds)
        self._engine.begin_group(self._asking if run.hasCalls else None)
        is_done = self._run_all(program, limits, has_files, run.first, invocations)
        self._group.flush()
        self._engine.settle()
        if is_done:
            return None
        reply.full = None
        return reply

    def _give_up(self, result: Result) -> None:
        """Have the parent end this process, and the run."""
        self._group.flush()
        reply = schema.sandbox.Reply.new_message()
        reply.init("stuck").records = self._group.record(self._place, result, time.monotonic())
        self._wire.send(reply)

    def _at_files(self, is_beginning: bool) -> None:
        """Say where a run with files is: only between these two its own time counts."""
        self._group.flush()
        reply = schema.sandbox.Reply.new_message()
        setattr(reply, "begins" if is_beginning else "packs", None)
        self._wire.send(reply)

    def _run_all(
        self, program: Any, limits: RunLimits, has_files: bool, first: int, invocations: Sequence[Invocation]
    ) -> bool:
        """Run a group, and tell whether that is all of it."""
        marks, add, last = self._marks, self._group.add, first + len(invocations) - 1
        for place, invocation in enumerate(invocations, first):
            if place != first and self._kept_bytes > KEPT_BYTES_MAX:
                return False
            self._place = place
            spilled = None
            if marks[place]:
                result = _CANCELLED
            elif isinstance(program, GuestFault):
                result = Result(reason=program.reason, detail=program.detail)
            else:
                result = self._engine.run(program, invocation, limits, has_files)
                if program.about.python is not None:
                    spilled = self._spill(place, result)
                elif program.about.needs_wasi:
                    spilled = self._take(place, result, limits)
            add(place, result, spilled)
            if place != last:
                self._engine.settle()
        return True

    # Output that is large stays where it is until the parent has fetched it: at the next request.

    @property
    def _kept_bytes(self) -> int:
        return self._output.stdout.kept_bytes + self._output.stderr.kept_bytes + self._artifacts_bytes

    def _forget_fetched(self) -> None:
        self._output.stdout.forget()
        self._output.stderr.forget()
        if self._artifacts_bytes:
            os.ftruncate(self._artifacts, 0)
            self._artifacts_bytes = 0

    def _spill(self, place: int, result: Result) -> Spilled | None:
        """Put what is large of a result that has its output into files; return where it is then."""
        if len(result.stdout) <= INLINE_BYTES_MAX and len(result.stderr) <= INLINE_BYTES_MAX:
            return None
        self._output.cap.lift()
        where = [place]
        for name, stream in (("stdout", self._output.stdout), ("stderr", self._output.stderr)):
            data = getattr(result, name)
            is_large = len(data) > INLINE_BYTES_MAX
            where += (stream.keep(data), len(data)) if is_large else (0, 0)
            if is_large:
                setattr(result, name, b"")
        return Spilled(*where)

    def _take(self, place: int, result: Result, limits: RunLimits) -> Spilled | None:
        """Take a run's output, so that the next one finds none; return where it is that is not in the result now."""
        most = limits.output_bytes
        result.stdout, stdout_at, stdout_bytes, result.stdout_truncated = self._output.stdout.take(most)
        result.stderr, stderr_at, stderr_bytes, result.stderr_truncated = self._output.stderr.take(most)
        artifacts_bytes = len(result.artifacts)
        if stdout_at < 0 and stderr_at < 0 and artifacts_bytes <= INLINE_BYTES_MAX:
            return None
        artifacts_at = -1
        if artifacts_bytes > INLINE_BYTES_MAX:
            artifacts_at = self._artifacts_bytes
            self._output.cap.lift()
            os.pwrite(self._artifacts, result.artifacts, artifacts_at)
            self._artifacts_bytes += artifacts_bytes
            result.artifacts = b""
        where = ((stdout_at, stdout_bytes), (stderr_at, stderr_bytes), (artifacts_at, artifacts_bytes))
        return Spilled(place, *(number for at, size in where for number in ((at, size) if at >= 0 else (0, 0))))


def main() -> None:
    """Be a child process until the parent is gone."""
    setup = Setup.from_text(sys.argv[1])
    begin(setup, compiler.start if setup.role == "compiler" else _start)


def _directory(setup: Setup, protections: Sequence[Protection]) -> Directory | None:
    """Take the working directory for guests, if it is the one that is meant for them."""
    given = {protection.name for protection in protections if protection.state == GIVEN}
    if not setup.directory or "directory" not in given:
        return None
    return Directory(is_mounted=FILE_SYSTEM in given)


def _start(wire: Wire, setup: Setup, protections: Sequence[Protection]) -> None:
    Executor(wire, setup, protections).start()


if __name__ == "__main__":
    main()
