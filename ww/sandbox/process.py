"""What both kinds of sandbox process begin with: their setting-up and the frames of their socket.

Holds the process's own side of child.py. Must not know what is asked of it: executor.py and compiler.py do.
"""

import dataclasses
import json
import os
import resource
import select
import signal
import socket
import struct
import sys
import threading
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

from ww import schema
from ww.sandbox.checkpoint import open_pagemap
from ww.sandbox.confine import ConfinementConfig, Protection, Space, confine

# A request comes with at most two descriptors.
_ANCILLARY_BYTES: Final = socket.CMSG_SPACE(2 * struct.calcsize("i"))


@dataclass(frozen=True, slots=True)
class Setup:
    """What a process is told when it is started, as text. Descriptors are numbers of the process's own."""

    role: str
    """executor or compiler."""
    parent: int
    """Process id."""
    socket: int
    input: int = -1
    """A file in memory for what is too large for a request."""
    stdout: int = -1
    stderr: int = -1
    artifacts: int = -1
    control: int = -1
    """Files in memory, of an executor alone."""
    directory: str = ""
    """Where an executor's guests have their file system; empty: they have none."""
    files_bytes_max: int = 0
    files_count_max: int = 0
    nice: int = 0
    without: tuple[str, ...] = ()
    """Protections to leave out, by name."""
    memory_bytes_max: int = 0
    """Linear memory of one run."""
    module_bytes_max: int = 0
    """Compiled modules kept loaded."""
    compile_memory_bytes_max: int = 0
    kill_grace_s: float = 0.5
    """Seconds a guest may go on after it was to end."""
    with_classes: bool = False
    """Whether to use wasmtime-py's classes where its C functions are faster."""
    programs_max: int = 1
    program_bytes_max: int = 0
    """Python programs kept loaded, and their states."""
    kept_s: float = 10.0
    """Seconds that what is kept waits for its next run while nothing else comes."""
    pagemap: int = -1
    """Of checkpoint.open_pagemap; the process opens it itself."""

    def to_text(self) -> str:
        return json.dumps(dataclasses.asdict(self))

    @classmethod
    def from_text(cls, text: str) -> Self:
        return cls(**json.loads(text))

    @property
    def space(self) -> Space | None:
        """The file system of its own."""
        if not self.directory:
            return None
        return Space(Path(self.directory), self.files_bytes_max, self.files_count_max)

    @property
    def descriptors(self) -> tuple[int, ...]:
        """All that the parent gives."""
        files = self.input, self.stdout, self.stderr, self.artifacts, self.control
        return self.socket, *(fd for fd in files if fd >= 0)


class Wire:
    """Frames over the socket to the parent."""

    def __init__(self, fd: int) -> None:
        self._socket = socket.socket(fileno=fd)
        # Results that have waited long enough are sent by another thread than the others.
        self._turn = threading.Lock()

    def receive(self) -> tuple[bytes, Sequence[int]]:
        """Return the next request's bytes and descriptors, which are the caller's to close; exits when the parent is
        gone."""
        header, ancillary, _, _ = self._socket.recvmsg(4, _ANCILLARY_BYTES, socket.MSG_WAITALL)
        if len(header) < 4:
            os._exit(0)
        descriptors = struct.unpack(f"{len(ancillary[0][2]) // 4}i", ancillary[0][2]) if ancillary else ()
        (length,) = struct.unpack("<I", header)
        data = self._socket.recv(length, socket.MSG_WAITALL)
        if len(data) < length:
            os._exit(0)
        return data, descriptors

    def is_readable(self, within_s: float) -> bool:
        """Wait until there is something to receive, no longer than that."""
        poll = select.poll()
        poll.register(self._socket, select.POLLIN)
        return bool(poll.poll(within_s * 1000))

    def send(self, reply: Any) -> None:
        """Send a sandbox.Reply."""
        data = reply.to_bytes()
        with self._turn:
            self._socket.sendall(struct.pack("<I", len(data)) + data)


Start = Callable[[Wire, Setup, Sequence[Protection]], None]


def begin(setup: Setup, start: Start) -> None:
    """Give up what guests do not need, and start, with what became of it, which is to be said first."""
    wire = Wire(setup.socket)
    # Ctrl-C is the parent's to act on: guests may finish.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if setup.role == "compiler":
        # Address space says nothing (wasmtime reserves gigabytes); private writable memory is what compiling takes.
        resource.setrlimit(resource.RLIMIT_DATA, (setup.compile_memory_bytes_max,) * 2)
    config = ConfinementConfig(nice=setup.nice, without=setup.without)
    # The guest gets 1 and 2: last words go elsewhere.
    sys.stderr = os.fdopen(os.dup(2), "w", buffering=1)
    if setup.role == "executor":
        setup = dataclasses.replace(setup, pagemap=open_pagemap())
    kept = {0, 1, 2, sys.stderr.fileno(), *setup.descriptors, *(fd for fd in (setup.pagemap,) if fd >= 0)}
    protections = confine(config, descriptors=kept, space=setup.space)
    if os.getppid() != setup.parent:  # it died before this process was made to die with it
        os._exit(0)
    start(wire, setup, protections)


def until_death(serve: Callable[[], None]) -> None:
    """Run serve; if it fails, the process is no good any more, and the parent replaces it."""
    try:
        serve()
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(70)


def ready(protections: Sequence[Protection]) -> Any:
    """Make the first reply of a process."""
    reply = schema.sandbox.Reply.new_message()
    for said, protection in zip(reply.init("ready", len(protections)), protections, strict=True):
        said.name, said.state, said.detail = protection.name, protection.state, protection.detail
    return reply
