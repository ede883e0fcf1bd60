"""A sandbox process in which the guest has escaped: it tries what such a guest would, and says how it was refused.

Run in place of ww.sandbox.executor, whose `main` it goes through, confinement and all. Where the executor would wait
for runs it answers one request: JSON with what to try it on, answered by JSON of name and outcome, which is an errno's
name or DONE.
"""

import contextlib
import ctypes
import dataclasses
import errno
import fcntl
import json
import mmap
import os
import resource
import signal
import socket
import stat
import struct
import sys
import termios
import threading
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from ww.sandbox import linux
from ww.sandbox.confine import Protection
from ww.sandbox.output import Output
from ww.sandbox.process import Setup, Wire, begin, ready, until_death

DONE = "DONE"
# Said among what a child is to do without (argv), which is the way to tell it something: be an ordinary user's process
# though root started it; find a kernel that has nothing; have a file system, in place of the folder that follows; find
# that none can be mounted.
AS_USER = "~as-user"
WITHOUT_KERNEL = "~without-kernel"
WORK_IN = "~work-in="
WITHOUT_MOUNT = "~without-mount"
SPACE_BYTES, SPACE_COUNT = 8 << 20, 100
USER = 12_345
# Unlike PTRACE_ATTACH it stops nobody.
PTRACE_SEIZE = 0x4206
LIBC = ctypes.CDLL(None, use_errno=True)
# By number, on x86_64 and aarch64; from io_uring_setup on they are the same everywhere.
CALLS = {
    "mount": (165, 40),
    "unshare": (272, 97),
    "setns": (308, 268),
    "bpf": (321, 280),
    "keyctl": (250, 219),
    "userfaultfd": (323, 282),
    "perf_event_open": (298, 241),
    "init_module": (175, 105),
    "kexec_load": (246, 104),
    "io_uring_setup": (425, 425),
    "pidfd_getfd": (438, 438),
}


def libc(name: str, *arguments: Any) -> int:
    result: int = getattr(LIBC, name)(*arguments)
    if result < 0:
        raise OSError(ctypes.get_errno(), name)
    return result


def syscall(name: str, *arguments: int) -> int:
    return libc("syscall", CALLS[name][os.uname().machine == "aarch64"], *map(ctypes.c_long, (*arguments, 0, 0, 0)))


def outcome(attempt: Callable[[], object]) -> str:
    try:
        attempt()
    except OSError as error:
        return errno.errorcode.get(error.errno or 0, str(error))
    except ValueError as error:  # what Python makes of EPERM from setrlimit
        return str(error)
    return DONE


def fork() -> None:
    if os.fork() == 0:
        os._exit(0)


def read_by_any_descriptor() -> None:
    """Open a file beneath whatever folder is open."""
    for fd in range(resource.getrlimit(resource.RLIMIT_NOFILE)[0]):
        with contextlib.suppress(OSError):
            os.open("etc/passwd", os.O_RDONLY, dir_fd=fd)
            return
    raise FileNotFoundError(errno.ENOENT, "no folder is open")


def raise_limit(kind: int) -> None:
    _, hard = resource.getrlimit(kind)
    resource.setrlimit(kind, (hard, hard + 1))


def signal_by_input(pid: int) -> None:
    """Have the kernel send somebody a signal, when there is something to be read."""
    end, other_end = os.pipe()
    fcntl.fcntl(end, fcntl.F_SETOWN, pid)
    fcntl.fcntl(end, fcntl.F_SETFL, os.O_ASYNC)
    os.write(other_end, b"x")


def type_into_terminal() -> None:
    for fd in range(3):
        fcntl.ioctl(fd, termios.TIOCSTI, b"x")


def read_memory(pid: int, address: int) -> None:
    buffer = ctypes.create_string_buffer(8)
    vectors = (ctypes.c_size_t * 4)(ctypes.addressof(buffer), 8, address, 8)
    here = ctypes.byref(vectors)
    there = ctypes.byref(vectors, 16)
    libc("process_vm_readv", pid, here, 1, there, 1, 0)


def run_thread() -> None:
    ran = threading.Event()
    thread = threading.Thread(target=ran.set)
    thread.start()
    thread.join(5)
    if not ran.is_set():
        raise OSError(errno.EAGAIN, "the thread did not run")


def map_code() -> None:
    mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC).close()


def connect(address: Any) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as sock:
        sock.connect(tuple(address))


def bind() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as sock:
        sock.bind(("127.0.0.1", 0))
        sock.listen()


def send_datagram(address: Any) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.sendto(b"x", tuple(address))


def attempts(on: Any) -> dict[str, Callable[[], object]]:
    """Return what an escaped guest would try, by name."""
    key, cache, victim, address = on["key"], on["cache"], on["victim"], on["address"]
    write = os.O_WRONLY | os.O_CREAT
    return {
        "read the key": lambda: os.open(key, os.O_RDONLY),
        "read /etc/passwd": lambda: os.open("/etc/passwd", os.O_RDONLY),
        "read by a descriptor": read_by_any_descriptor,
        "read the cache": lambda: os.open(f"{cache}/module.wasm", os.O_RDONLY),
        "list the cache": lambda: os.listdir(cache),
        "add to the cache": lambda: os.open(f"{cache}/new", write, 0o600),
        "change the cache": lambda: os.open(f"{cache}/module.wasm", os.O_WRONLY),
        "remove from the cache": lambda: os.unlink(f"{cache}/module.wasm"),
        "chmod": lambda: os.chmod(key, 0o666),
        "write anywhere": lambda: os.open(on["anywhere"], write, 0o600),
        "write here": lambda: os.open("escaped", write, 0o600),
        "read memory by a file": lambda: os.open(f"/proc/{victim}/mem", os.O_RDONLY),
        "read the environment": lambda: os.open(f"/proc/{victim}/environ", os.O_RDONLY),
        "read memory": lambda: read_memory(victim, on["memory"]),
        "ptrace": lambda: libc("ptrace", PTRACE_SEIZE, victim, None, None),
        "signal": lambda: os.kill(victim, 0),
        "signal a thread": lambda: libc("syscall", 234 if os.uname().machine == "x86_64" else 131, victim, victim, 0),
        "signal by input": lambda: signal_by_input(victim),
        "limit another": lambda: resource.prlimit(victim, resource.RLIMIT_CPU),
        "connect": lambda: connect(address),
        "bind": bind,
        "send a datagram": lambda: send_datagram(address),
        "socket": lambda: socket.socket(socket.AF_INET).close(),
        "unix socket": lambda: socket.socket(socket.AF_UNIX).close(),
        "socketpair": lambda: [end.close() for end in socket.socketpair()],
        "fork": fork,
        "vfork": lambda: os.posix_spawn("/bin/true", ["true"], {}),
        "clone3": lambda: libc("syscall", 435, None, 0),
        "execve": lambda: os.execv("/bin/true", ["true"]),
        "execve by descriptor": lambda: os.execve(os.memfd_create("x"), ["true"], {}),
        "become root": lambda: os.setresuid(0, 0, 0) if os.getuid() else os.open(key, os.O_RDONLY),
        "raise NOFILE": lambda: raise_limit(resource.RLIMIT_NOFILE),
        "raise FSIZE": lambda: raise_limit(resource.RLIMIT_FSIZE),
        "raise CORE": lambda: raise_limit(resource.RLIMIT_CORE),
        "raise priority": lambda: os.nice(-1),
        "leave the root": lambda: os.chroot("/"),
        "type into a terminal": type_into_terminal,
        "hold a capability": lambda: libc("prctl", 47, 2, 13, 0, 0),
        "work with files": work_with_files,
        "mount another": lambda: linux.mount("tmpfs", ".", 0),
        "go up": lambda: os.open("../../../../../../etc/passwd", os.O_RDONLY),
        "link to the key": lambda: os.link(key, "key"),
        "follow a link": follow_link,
        "make a device": lambda: os.mknod("device", 0o600 | stat.S_IFCHR, os.makedev(1, 1)),
        "make a pipe": lambda: os.mkfifo("pipe"),
        "own it": lambda: os.chown(".", 0, 0),
        "fill the disk": fill_up,
        "make files for ever": make_files,
        **{name: lambda name=name: syscall(name, *CALL_ARGUMENTS.get(name, ())) for name in CALLS},
        # What has to work.
        "thread": run_thread,
        "machine code": map_code,
        "own signal": lambda: signal.pthread_kill(threading.get_ident(), 0),
        "lower a limit": lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 256 << 20)),
        "memfd": lambda: os.write(os.memfd_create("ww-probe"), b"x"),
    }


CALL_ARGUMENTS = {"unshare": (0x10000000,), "io_uring_setup": (1,), "keyctl": (0, -3, 1)}


def work_with_files() -> None:
    """Do what files can be used for, in the working directory."""
    file = Path("sub/file")
    file.parent.mkdir()
    file.write_text("text")
    assert file.read_text() == "text"
    assert os.listdir("sub") == ["file"]
    file.rename("moved")
    os.symlink("moved", "link")
    with open("link", "r+b") as opened:
        opened.truncate(2)
    assert Path("moved").stat().st_size == 2
    os.unlink("link")
    os.rmdir("sub")


def fill_up() -> None:
    """Write more than twice what there may be."""
    with open("filled", "wb") as file:
        for _ in range(2 * SPACE_BYTES >> 16):
            file.write(bytes(1 << 16))


def make_files() -> None:
    for number in range(2 * SPACE_COUNT):
        os.close(os.open(f"made-{number}", os.O_WRONLY | os.O_CREAT, 0o600))


def follow_link() -> None:
    os.symlink("/etc/passwd", "passwd")
    os.open("passwd", os.O_RDONLY)


def answer(wire: Wire) -> None:
    data, _ = wire.receive()
    on = json.loads(data)
    said = {name: outcome(attempt) for name, attempt in attempts(on).items() if name in on.get("only", [name])}
    reply = json.dumps(said).encode()
    wire._socket.sendall(struct.pack("<I", len(reply)) + reply)


def serve(wire: Wire, setup: Setup, protections: Sequence[Protection]) -> None:
    if setup.role == "executor":
        Output(setup.stdout, setup.stderr, nowhere=0)
    # As in an executor: the guest has a thread, beside that which watches over it.
    thread = threading.Thread(target=until_death, args=(partial(work, wire, protections),))
    thread.start()
    thread.join()


def work(wire: Wire, protections: Sequence[Protection]) -> None:
    wire.send(ready(protections))
    answer(wire)
    wire.receive()  # until the parent is gone


def become_ordinary_user() -> None:
    os.setgroups([])
    os.setresgid(USER, USER, USER)
    os.setresuid(USER, USER, USER)
    # As after an exec: the files of /proc/self are its own.
    linux.prctl(linux.PR_SET_DUMPABLE, 1)


def fail(*_: object) -> int:
    raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))


if __name__ == "__main__":
    setup = Setup.from_text(sys.argv[1])
    for word in setup.without:
        if word == AS_USER:
            become_ordinary_user()
        elif word == WITHOUT_KERNEL:
            linux._call = fail
            os.chroot = fail
        elif word.startswith(WORK_IN):
            setup = dataclasses.replace(
                setup,
                directory=word.removeprefix(WORK_IN),
                files_bytes_max=SPACE_BYTES,
                files_count_max=SPACE_COUNT,
            )
        elif word == WITHOUT_MOUNT:
            linux.mount = fail
    begin(setup, serve)
