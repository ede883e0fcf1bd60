"""One child process, seen from its parent: started, asked one thing at a time, killed.

Holds the process and the socket to it. Must not know what is asked, nor who waits: pool.py does. Nothing a child says
is trusted: replies have a size limit, and whatever is no reply is the child's end.
"""

import asyncio
import logging
import os
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Final

import ww
from ww import schema
from ww.errors import WwError
from ww.sandbox.confine import ConfinementConfig, Protection
from ww.sandbox.limits import SandboxLimits

log = logging.getLogger("ww.sandbox")

_START_TIMEOUT_S: Final = 30.0
_KILL_TIMEOUT_S: Final = 10.0
_LAST_WORDS_MAX: Final = 2000


class ChildDied(Exception):
    """The child is gone, or no good any more; the message says how in a few words."""


class Child(asyncio.Protocol):
    """A process of ww.sandbox.executor. At most one `ask` at a time."""

    module: ClassVar[str] = "ww.sandbox.executor"
    """What the process runs."""

    def __init__(self, role: str, limits: SandboxLimits, confinement: ConfinementConfig) -> None:
        self._role = role
        self._limits = limits
        self._confinement = confinement
        self._reply_bytes_max = 2 * limits.output_bytes_max + (64 << 10)
        self._buffer = bytearray()
        self._reply: asyncio.Future[bytes] | None = None
        self._transport: asyncio.Transport | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._dead = False
        self._deadline: float | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._socket: socket.socket | None = None
        self.runs = 0
        """Requests it answered."""
        self.protections: Sequence[Protection] = ()
        """How it is confined, once it has started."""

    async def start(self) -> None:
        """Start the process and wait until it is ready. WwError when it cannot be."""
        ours, theirs = socket.socketpair()
        with theirs:
            # On the loop, for a few milliseconds: the child dies with the thread that started it.
            self._launch(theirs.fileno())
        loop = asyncio.get_running_loop()
        self._reply = loop.create_future()
        try:
            # Inside: whoever is cancelled from here on has a process to end.
            self._transport, _ = await loop.create_connection(lambda: self, sock=ours)
            self._socket = ours
            async with asyncio.timeout(_START_TIMEOUT_S):
                self.protections = _read_ready(await self._reply)
        except (ChildDied, TimeoutError) as error:
            await self.aclose()
            raise WwError(f"a sandbox process does not start: {error or 'it says nothing'}") from None
        except BaseException:
            if self._transport is None:
                ours.close()
            await self.aclose()
            raise

    def _launch(self, fd: int) -> None:
        arguments = [self._role, str(fd), str(os.getpid()), str(self._limits.compile_memory_bytes_max)]
        arguments += [str(self._confinement.nice), ",".join(self._confinement.without)]
        self._process = subprocess.Popen(
            [sys.executable, "-s", "-P", "-m", self.module, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            # Not our own: it may be a terminal, and whoever holds one can read what is typed there.
            stderr=subprocess.PIPE,
            cwd="/",
            # Nothing of ours but where ww is: it may run from a checkout that nobody installed.
            env={"PYTHONPATH": str(Path(ww.__file__).resolve().parent.parent), "PYTHONDONTWRITEBYTECODE": "1"},
            pass_fds=(fd,),
        )
        assert self._process.stderr is not None
        os.set_blocking(self._process.stderr.fileno(), False)

    @property
    def is_alive(self) -> bool:
        """Whether it can be asked."""
        return not self._dead

    async def ask(self, request: Any, timeout_s: float, descriptors: Sequence[int] = ()) -> bytes:
        """Send a sandbox.Request, and copies of descriptors, and return the bytes of the sandbox.Reply.

        Raises ChildDied when the child ends instead, TimeoutError when it does not answer in time. After any failure,
        and when cancelled, the child must be closed.
        """
        if self._dead or self._transport is None:
            raise ChildDied("it is gone")
        data = request.to_bytes()
        message = struct.pack("<I", len(data)) + data
        if descriptors:
            message = self._send_with(descriptors, message)
        self._reply = asyncio.get_running_loop().create_future()
        self._transport.write(message)
        self._set_deadline(timeout_s)
        try:
            return await self._reply
        finally:
            self._deadline = None
            self._reply = None
            self.runs += 1

    def _send_with(self, descriptors: Sequence[int], message: bytes) -> bytes:
        """Send the length with the descriptors, past the transport, which cannot; return what is left to be sent."""
        assert self._socket is not None
        assert self._transport is not None
        # A child that answered has read what came before, if it is as it should be.
        if self._transport.get_write_buffer_size():
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
            self._fail(TimeoutError())
        else:
            self._timer = loop.call_at(self._deadline, self._ring)

    def kill(self) -> None:
        """Stop whatever it does, at once; `aclose` cleans up after it."""
        self._dead = True
        if self._process is not None:
            self._process.kill()

    async def aclose(self) -> str:
        """Kill the process, and say how it had ended if it had by itself. Idempotent."""
        self._dead = True
        if self._timer is not None:
            self._timer.cancel()
        if self._transport is not None:
            self._transport.abort()
        said = ""
        if self._process is not None:
            had_ended = self._process.poll() is not None
            self._process.kill()
            await asyncio.to_thread(self._process.wait, _KILL_TIMEOUT_S)
            said = _how(self._process.returncode) if had_ended or self._process.returncode != -signal.SIGKILL else ""
            self._log_last_words()
        return said

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
        if len(self._buffer) < 4:
            return
        (length,) = struct.unpack_from("<I", self._buffer)
        if length > self._reply_bytes_max or len(self._buffer) > 4 + length or self._reply is None:
            self._dead = True
            self._fail(ChildDied("it says what no child of ours says"))
        elif len(self._buffer) == 4 + length and not self._reply.done():
            reply = bytes(memoryview(self._buffer)[4:])
            self._buffer.clear()
            self._reply.set_result(reply)

    def connection_lost(self, exc: Exception | None) -> None:
        self._dead = True
        self._fail(ChildDied("it ended"))

    def _fail(self, error: Exception) -> None:
        if self._reply is not None and not self._reply.done():
            self._reply.set_exception(error)


def read_reply(data: bytes) -> Any:
    """Open a reply, as a context manager; its size was checked."""
    return schema.sandbox.Reply.from_bytes(data, traversal_limit_in_words=len(data) // 4 + 1024)


def _read_ready(data: bytes) -> Sequence[Protection]:
    try:
        with read_reply(data) as reply:
            return [Protection(said.name, said.state, said.detail) for said in reply.ready]
    except Exception:
        # Of another ww, which was installed in place of this one while it ran.
        raise ChildDied("it says what no child of ours says") from None


def _how(returncode: int | None) -> str:
    if returncode is None:
        return "does not end"
    if returncode >= 0:
        return f"exit code {returncode}"
    try:
        return signal.Signals(-returncode).name
    except ValueError:
        return f"signal {-returncode}"
