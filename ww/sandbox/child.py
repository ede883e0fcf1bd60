"""One child process, seen from its parent: started, asked one thing at a time, killed.

Holds the process and the socket to it. Must not know what is asked, nor who waits: pool.py does. Nothing a child says
is trusted: replies have a size limit, and whatever is no reply is the child's end.
"""

import asyncio
import contextlib
import dataclasses
import logging
import os
import resource
import signal
import socket
import struct
import subprocess
import sys
from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar, Final

import capnp

import ww
from ww import schema
from ww.errors import WwError
from ww.sandbox import directory
from ww.sandbox.confine import FILE_SYSTEM, GIVEN, ConfinementConfig, Protection
from ww.sandbox.files import Files
from ww.sandbox.limits import SandboxLimits
from ww.sandbox.process import Setup

log = logging.getLogger("ww.sandbox")

_START_TIMEOUT_S: Final = 30.0
_KILL_TIMEOUT_S: Final = 10.0
_ENDING_TIMEOUT_S: Final = 1.0
_LAST_WORDS_MAX: Final = 2000
# What a child says at a time, and how much of it may wait to be read.
_REPLY_BYTES_MAX: Final = 4 << 20
_REPLIES_MAX: Final = 256

# A process that had less processor time than this, and wants more, is held up.
_HELD_UP_S: Final = 0.03

NONSENSE: Final = "it says what no child of ours says"


class ChildDied(Exception):
    """The child is gone, or no good any more; the message says how in a few words."""


class Child(asyncio.Protocol):
    """A process of ww.sandbox.executor. At most one `ask` at a time."""

    module: ClassVar[str] = "ww.sandbox.executor"
    """What the process runs."""

    def __init__(
        self, role: str, limits: SandboxLimits, confinement: ConfinementConfig, *, with_classes: bool = False
    ) -> None:
        self._role = role
        self._limits = limits
        self._confinement = confinement
        self._with_classes = with_classes
        self._buffer = bytearray()
        self._said: deque[bytes] = deque()
        self._said_bytes = 0
        self._is_paused = False
        self._waiter: asyncio.Future[None] | None = None
        self._transport: asyncio.Transport | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._failure: Exception | None = None
        self._deadline: float | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._socket: socket.socket | None = None
        self.files: Files | None = None
        """What is too large for messages, of an executor."""
        self.runs = 0
        """Runs it has done."""
        self.requests = 0
        """Requests that it answered, whatever they asked for."""
        self.has_successor = False
        """Whether another is started in its place."""
        self.is_retired = False
        """Whether another has its place."""
        self.is_marked = False
        """Whether its control file says of any run that it is not to begin."""
        self.has_loaded = False
        """Whether it was given a module since its memory was looked at."""
        self.protections: Sequence[Protection] = ()
        """How it is confined, once it has started."""
        self._first_bytes = 0
        self._has_ended_by_itself = False
        self._directory: Path | None = None
        self._directory_lock = -1

    async def start(self) -> None:
        """Start the process and wait until it is ready. WwError when it cannot be."""
        ours, theirs = socket.socketpair()
        try:
            with theirs:
                # On the loop, for a few milliseconds: the child dies with the thread that started it.
                self._make_directory()
                self._launch(theirs.fileno())
            self._transport, _ = await asyncio.get_running_loop().create_connection(lambda: self, sock=ours)
            self._socket = ours
            self.protections = _read_ready(await self.reply(_START_TIMEOUT_S))
            self._first_bytes = self.private_bytes()
            if any(each.name == FILE_SYSTEM and each.state == GIVEN for each in self.protections):
                await self._remove_directory()  # it has another in its place, in memory
        except (ChildDied, TimeoutError) as error:
            await self.aclose()
            raise WwError(f"a sandbox process does not start: {error or 'it says nothing'}") from None
        except BaseException:
            if self._transport is None:
                ours.close()
            await self.aclose()
            raise

    def _make_directory(self) -> None:
        if self._role == "executor" and self._limits.files_bytes_max:
            try:
                self._directory, self._directory_lock = directory.make()
            except OSError as error:
                log.warning("guests get no file system: there is nowhere to make one: %s", error.strerror)

    def _launch(self, fd: int) -> None:
        files = self.files = Files.make() if self._role == "executor" else None
        setup = Setup(
            role=self._role,
            parent=os.getpid(),
            socket=fd,
            **(dataclasses.asdict(files) if files else {}),
            directory=str(self._directory or ""),
            files_bytes_max=self._limits.files_bytes_max,
            files_count_max=self._limits.files_count_max,
            nice=self._confinement.nice,
            without=tuple(self._confinement.without),
            memory_bytes_max=self._limits.memory_bytes_max,
            module_bytes_max=self._limits.module_bytes_max,
            compile_memory_bytes_max=self._limits.compile_memory_bytes_max,
            kill_grace_s=self._limits.kill_grace_s,
            with_classes=self._with_classes,
            programs_max=self._limits.programs_max,
            program_bytes_max=self._limits.program_bytes_max,
            kept_s=self._limits.kept_s,
        )
        self._process = subprocess.Popen(
            [sys.executable, "-s", "-P", "-m", self.module, setup.to_text()],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            # Not our own: it may be a terminal, and whoever holds one can read what is typed there.
            stderr=subprocess.PIPE,
            cwd="/",
            # Nothing of ours but where ww is: it may run from a checkout that nobody installed.
            env={"PYTHONPATH": str(Path(ww.__file__).resolve().parent.parent), "PYTHONDONTWRITEBYTECODE": "1"},
            pass_fds=setup.descriptors,
        )
        assert self._process.stderr is not None
        os.set_blocking(self._process.stderr.fileno(), False)

    @property
    def is_alive(self) -> bool:
        """Whether it can be asked."""
        return self._failure is None

    async def ask(self, request: Any, timeout_s: float, descriptors: Sequence[int] = ()) -> bytes:
        """Send a sandbox.Request, and copies of descriptors, and return the bytes of the first sandbox.Reply.

        Raises as `reply` does.
        """
        self.send(request, descriptors)
        return await self.reply(timeout_s)

    def send(self, request: Any, descriptors: Sequence[int] = ()) -> None:
        """Send a sandbox.Request, and copies of descriptors. ChildDied when the child is gone."""
        if self._said:
            raise ChildDied("it answers what it was not asked")
        self.tell(request, descriptors)

    def tell(self, request: Any, descriptors: Sequence[int] = ()) -> None:
        """As `send`, in the middle of a run, of which there may be replies to read."""
        if self._failure is not None or self._transport is None:
            raise ChildDied("it is gone")
        data = request.to_bytes()
        message = struct.pack("<I", len(data)) + data
        if descriptors:
            message = self._send_with(descriptors, message)
        self._transport.write(message)

    async def reply(self, timeout_s: float) -> bytes:
        """Return the bytes of the next sandbox.Reply.

        Raises ChildDied when the child ends instead, TimeoutError when it does not answer in time. After any failure,
        and when cancelled, the child must be closed.
        """
        if not self._said:
            if self._failure is not None:
                raise self._failure
            self._set_deadline(timeout_s)
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
                self._deadline = None
        said = self._said.popleft()
        self._said_bytes -= len(said)
        if self._is_paused and not self._is_full and self._failure is None and self._transport is not None:
            self._take_in()
            if not self._is_full:
                self._is_paused = False
                self._transport.resume_reading()
        return said

    @property
    def is_behind(self) -> bool:
        """Whether it has not read all that it was told."""
        return self._transport is not None and self._transport.get_write_buffer_size() > 0

    def _send_with(self, descriptors: Sequence[int], message: bytes) -> bytes:
        """Send the length with the descriptors, past the transport, which cannot; return what is left to be sent."""
        assert self._socket is not None
        assert self._transport is not None
        # A child that answered has read what came before, if it is as it should be.
        if self.is_behind:
            raise ChildDied("it answers what it has not read")
        try:
            sent = socket.send_fds(self._socket, [message[:4]], descriptors)
        except OSError as error:
            raise ChildDied(f"it takes nothing: {error.strerror}") from None
        return message[sent:]

    def _set_deadline(self, timeout_s: float) -> None:
        """Fail the reply at that time. A timer for each request would cost more than the request: one is kept, and when
        it rings too early it is set anew."""
        loop = asyncio.get_running_loop()
        self._deadline = loop.time() + timeout_s
        if self._timer is None or self._timer.when() > self._deadline:
            if self._timer is not None:
                self._timer.cancel()
            self._timer = loop.call_at(self._deadline, self._ring)

    def _ring(self) -> None:
        self._timer = None
        loop = asyncio.get_running_loop()
        if self._deadline is None:
            return
        if loop.time() >= self._deadline:
            if self._waiter is not None and not self._waiter.done():
                self._waiter.set_exception(TimeoutError())
        else:
            self._timer = loop.call_at(self._deadline, self._ring)

    def kill(self) -> None:
        """Stop whatever it does, at once; `aclose` cleans up after it."""
        self._fail(ChildDied("it was killed"))
        if self._process is not None:
            self._process.kill()

    def private_bytes(self) -> int:
        """Return how much memory it has that is nobody else's; 0 where that cannot be known."""
        assert self._process is not None
        try:
            with open(f"/proc/{self._process.pid}/statm", "rb", buffering=0) as file:
                _, resident, shared, *_ = file.read(200).split()
        except OSError:
            return 0
        return (int(resident) - int(shared)) * resource.getpagesize()

    def grown_bytes(self) -> int:
        """Return how much more memory it has than when it had started."""
        return self.private_bytes() - self._first_bytes

    def processor_s(self) -> float:
        """Return how much processor time it has used; 0 where that cannot be known."""
        fields = _stat(self._process.pid if self._process is not None else 0)
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK") if fields else 0.0

    def is_held_up(self, used_s: float) -> bool:
        """Whether it has answered, and nobody looked yet, or would go on and gets no processor: next to none since it
        had used used_s seconds of it."""
        if self._said:
            return True
        if self._process is None or self.processor_s() - used_s >= _HELD_UP_S:
            return False
        try:
            threads = os.listdir(f"/proc/{self._process.pid}/task")
        except OSError:
            return False
        return any(_stat(self._process.pid, f"task/{thread}/")[:1] == ["R"] for thread in threads)

    async def aclose(self) -> str:
        """Kill the process, and say how it had ended if it had by itself. Idempotent."""
        self._fail(ChildDied("it is gone"))
        if self._timer is not None:
            self._timer.cancel()
        if self._transport is not None:
            self._transport.abort()
        said = ""
        if self._process is not None:
            if self._has_ended_by_itself:
                # What it said last may be here before the kernel knows how it ended.
                await asyncio.to_thread(self._wait_for_end)
            had_ended = self._process.poll() is not None
            self._process.kill()
            await asyncio.to_thread(self._process.wait, _KILL_TIMEOUT_S)
            said = _how(self._process.returncode) if had_ended or self._process.returncode != -signal.SIGKILL else ""
            self._log_last_words()
        await self._remove_directory()
        if self.files is not None:
            files, self.files = self.files, None
            files.close()
        return said

    def _wait_for_end(self) -> None:
        assert self._process is not None
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_ENDING_TIMEOUT_S)

    async def _remove_directory(self) -> None:
        path, self._directory = self._directory, None
        if path is not None:
            try:
                await asyncio.to_thread(directory.remove, path)
            except OSError as error:
                log.warning("a guest's files stay on disk: %s", error.strerror)
            finally:
                os.close(self._directory_lock)

    def _log_last_words(self) -> None:
        assert self._process is not None
        assert self._process.stderr is not None
        if self._process.stderr.closed:
            return
        with self._process.stderr as stderr:
            words = (stderr.read() or b"").decode(errors="replace").strip()
        if words:
            log.error("a sandbox process said, before it ended: %s", words[-_LAST_WORDS_MAX:])

    # asyncio.Protocol

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        self._take_in()
        if self._is_full and self._transport is not None and not self._is_paused:
            self._is_paused = True
            self._transport.pause_reading()

    @property
    def _is_full(self) -> bool:
        """Whether as much waits to be read as may."""
        return self._said_bytes > _REPLY_BYTES_MAX or len(self._said) >= _REPLIES_MAX

    def _take_in(self) -> None:
        """Take replies out of what has come, as long as they may wait."""
        while len(self._buffer) >= 4 and not self._is_full:
            (length,) = struct.unpack_from("<I", self._buffer)
            if length > _REPLY_BYTES_MAX:
                self._fail(ChildDied(NONSENSE))
                return
            if len(self._buffer) < 4 + length:
                return
            self._said.append(bytes(memoryview(self._buffer)[4 : 4 + length]))
            self._said_bytes += length
            del self._buffer[: 4 + length]
            if self._waiter is not None and not self._waiter.done():
                self._waiter.set_result(None)

    def connection_lost(self, exc: Exception | None) -> None:
        self._has_ended_by_itself = self._failure is None
        self._fail(ChildDied("it ended"))

    def _fail(self, error: Exception) -> None:
        if self._failure is None:
            self._failure = error
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_exception(error)


def read_reply(data: bytes) -> Any:
    """Open a reply, as a context manager; its size was checked."""
    return schema.sandbox.Reply.from_bytes(data, traversal_limit_in_words=len(data) // 4 + 1024)


@contextlib.contextmanager
def reading(data: bytes) -> Iterator[Any]:
    """Open a reply; ChildDied when what it says cannot be."""
    try:
        with read_reply(data) as reply:
            yield reply
    except (ValueError, capnp.KjException):
        raise ChildDied(NONSENSE) from None


def _read_ready(data: bytes) -> Sequence[Protection]:
    try:
        with read_reply(data) as reply:
            return [Protection(said.name, said.state, said.detail) for said in reply.ready]
    except Exception:
        # Of another ww, which was installed in place of this one while it ran.
        raise ChildDied(NONSENSE) from None


def _stat(pid: int, of: str = "") -> list[str]:
    """Return what /proc says of a process, or a thread of it, from its state on; nothing where that cannot be known."""
    try:
        with open(f"/proc/{pid}/{of}stat", "rb", buffering=0) as file:
            return file.read(1000).decode(errors="replace").rpartition(")")[2].split()
    except OSError:
        return []


def _how(returncode: int | None) -> str:
    if returncode is None:
        return "does not end"
    if returncode >= 0:
        return f"exit code {returncode}"
    try:
        return signal.Signals(-returncode).name
    except ValueError:
        return f"signal {-returncode}"
