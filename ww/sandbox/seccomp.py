"""The system calls that a sandbox process may make, as a filter for the kernel.

Holds the list, its numbers on two architectures, and a small assembler. Must not know when the filter is installed:
confine.py does. A list of what is allowed, not of what is forbidden: what Python, libc and wasmtime call while guests
run is known (tests/sandbox/test_confine.py kills whoever calls anything else, and runs every guest), and a call that a
later kernel brings is then refused without anybody having heard of it. Source: man 2 seccomp, linux/filter.h.
"""

import ctypes
import errno
import os
import struct
import sys
from dataclasses import dataclass
from typing import Final

from ww.sandbox import linux

# Name, number on x86_64, number on aarch64; the most frequent first.
_COMPUTING: Final = """
    futex 202 98  read 0 63  write 1 64  recvmsg 47 212  recvfrom 45 207  sendto 44 206  lseek 8 62  pread64 17 67
    ftruncate 77 46  getppid 110 173  clock_nanosleep 230 115  clock_gettime 228 113  sched_yield 24 124
    mmap 9 222  munmap 11 215  mprotect 10 226  mremap 25 216  madvise 28 233  brk 12 214  membarrier 324 283
    memfd_create 319 279  getrandom 318 278  gettid 186 178  getpid 39 172  getuid 102 174  geteuid 107 175
    getgid 104 176  getegid 108 177  getrusage 98 165  clock_getres 229 114  nanosleep 35 101  gettimeofday 96 169
    sysinfo 99 179  uname 63 160  sched_getaffinity 204 123  getcpu 309 168
    rt_sigaction 13 134  rt_sigprocmask 14 135  rt_sigreturn 15 139  sigaltstack 131 132  restart_syscall 219 128
    set_robust_list 273 99  get_robust_list 274 100  rseq 334 293  set_tid_address 218 96  exit 60 93  exit_group 231 94
    close 3 57  close_range 436 436  dup 32 23  dup2 33 -  dup3 292 24  pipe2 293 59  eventfd2 290 19
    epoll_create1 291 20  epoll_ctl 233 21  epoll_wait 232 -  epoll_pwait 281 22  poll 7 -  ppoll 271 73  select 23 -
    pselect6 270 72  sendmsg 46 211  getsockname 51 204  getsockopt 55 209  readv 19 65  writev 20 66  pwrite64 18 68
    preadv 295 69  pwritev 296 70  preadv2 327 286  pwritev2 328 287  fstat 5 80  newfstatat 262 79  statx 332 291
    fsync 74 82  fdatasync 75 83  fadvise64 221 223  fallocate 285 47
"""
# Only where there is a folder to open something in.
_FILES: Final = """
    openat 257 56  openat2 437 437  faccessat 269 48  faccessat2 439 439  readlinkat 267 78  getdents64 217 61
    unlinkat 263 35  mkdirat 258 34  renameat 264 38  renameat2 316 276  linkat 265 37  symlinkat 266 36
    utimensat 280 88  getcwd 79 17  open 2 -  stat 4 -  lstat 6 -  access 21 -  readlink 89 -  unlink 87 -  mkdir 83 -
    rmdir 84 -  rename 82 -  link 86 -  symlink 88 -  fstatfs 138 44
"""
_CLONE_THREAD: Final = 0x10000
# Of the flags of clone: a thread, and none of the new namespaces.
_CLONE_LOOKED_AT: Final = 0x7E030000
_F_DUPFD_CLOEXEC, _F_ADD_SEALS, _F_GET_SEALS = 1030, 1033, 1034
# TCGETS, FIONREAD, FIONBIO, FIOCLEX, and PAGEMAP_SCAN, by which checkpoint.py asks which pages of its own differ.
_IOCTLS: Final = (0x5401, 0x541B, 0x5421, 0x5451, 0xC0606610)

# From here on calls came late (clone3 is the first): libc has another way where the kernel does not know them. clone3
# hides its flags in memory, where no filter sees them; clone shows them.
_LATE: Final = 435

_ALLOW: Final = 0x7FFF0000
_ERRNO: Final = 0x00050000
_KILL: Final = 0x80000000
# Of struct seccomp_data. Arguments have 64 bits; the lower half is all that the kernel looks at in those checked here.
_NUMBER, _ARCHITECTURE, _ARGUMENTS = 0, 4, 16
_LOAD, _AND, _EQUAL, _AT_LEAST, _RETURN = 0x20, 0x54, 0x15, 0x35, 0x06

_SET_MODE_FILTER: Final = 1
_ALL_THREADS: Final = 1


@dataclass(frozen=True, slots=True)
class Architecture:
    """How the kernel calls a kind of processor, and what number its seccomp(2) and its calls have."""

    audit: int
    seccomp: int
    column: int
    calls: dict[str, int]
    """Those that are allowed for some arguments only."""


ARCHITECTURES: Final = {
    "x86_64": Architecture(
        0xC000003E, 317, 0,
        {"clone": 56, "ioctl": 16, "fcntl": 72, "prctl": 157, "prlimit64": 302, "tgkill": 234},
    ),
    "aarch64": Architecture(
        0xC00000B7, 277, 1,
        {"clone": 220, "ioctl": 29, "fcntl": 25, "prctl": 167, "prlimit64": 261, "tgkill": 131},
    ),
}  # fmt: skip


def install(*, with_files: bool) -> int:
    """Hold this process to the list, all its threads, for good; return how many calls are left to it.

    with_files says whether there is anything it may open. Refused calls fail with EPERM. Raises OSError when the kernel
    or the processor is none that this works on.
    """
    if sys.platform != "linux":
        raise OSError(errno.ENOSYS, "only Linux has it")
    architecture = ARCHITECTURES.get(os.uname().machine)
    if architecture is None or sys.maxsize < 1 << 32 or sys.byteorder != "little":
        raise OSError(errno.ENOTSUP, f"there is no filter for {os.uname().machine}")
    allowed = calls(architecture, with_files=with_files)
    program = assemble(architecture, allowed, os.getpid())
    code = ctypes.create_string_buffer(program, len(program))
    filter = struct.pack("HP", len(program) // 8, ctypes.addressof(code))
    failed = linux.syscall(architecture.seccomp, _SET_MODE_FILTER, _ALL_THREADS, filter)
    if failed:
        raise OSError(errno.EBUSY, "a thread of it has another filter")
    return len(allowed) + len(architecture.calls)


def calls(architecture: Architecture, *, with_files: bool) -> list[int]:
    """Return the numbers of the calls that are allowed whatever their arguments."""
    words = (_COMPUTING + (_FILES if with_files else "")).split()
    numbers = (words[i + 1 + architecture.column] for i in range(0, len(words), 3))
    return [int(number) for number in numbers if number != "-"]


def assemble(architecture: Architecture, allowed: list[int], pid: int, refused: int = _ERRNO | errno.EPERM) -> bytes:
    """Make the filter of a process: 8 bytes an instruction. refused is what becomes of what is not allowed."""
    own = architecture.calls
    limited = (
        # No process but itself: not by clone, and limits and signals for nobody else.
        _when(own["clone"], 0, (_CLONE_THREAD,), refused, mask=_CLONE_LOOKED_AT),
        _when(own["prlimit64"], 0, (0, pid), refused),
        _when(own["tgkill"], 0, (pid,), refused),
        _when(own["prctl"], 0, (linux.PR_SET_NAME,), refused),
        # Not those that have the kernel send signals, or a terminal take what its user did not type.
        _when(own["fcntl"], 1, (*range(5), _F_DUPFD_CLOEXEC, _F_ADD_SEALS, _F_GET_SEALS), refused),
        _when(own["ioctl"], 1, _IOCTLS, refused),
    )
    return b"".join((
        # Another architecture has other numbers: such a call can only be meant to get round the filter.
        _instruction(_LOAD, _ARCHITECTURE),
        _instruction(_EQUAL, architecture.audit, yes=1),
        _instruction(_RETURN, _KILL),
        _instruction(_LOAD, _NUMBER),
        *(_if(_EQUAL, number, _ALLOW) for number in allowed),
        *limited,
        _if(_AT_LEAST, _LATE, _ERRNO | errno.ENOSYS),
        _instruction(_RETURN, refused),
    ))  # fmt: skip


def _when(number: int, argument: int, values: tuple[int, ...], refused: int, mask: int = 0xFFFFFFFF) -> bytes:
    """Allow a call when an argument has one of the values, and refuse it otherwise."""
    body = b"".join((
        _instruction(_LOAD, _ARGUMENTS + 8 * argument),
        _instruction(_AND, mask),
        *(_if(_EQUAL, value, _ALLOW) for value in values),
        _instruction(_RETURN, refused),
    ))  # fmt: skip
    return _instruction(_EQUAL, number, no=len(body) // 8) + body


def _if(comparison: int, value: int, result: int) -> bytes:
    return _instruction(comparison, value, no=1) + _instruction(_RETURN, result)


def _instruction(code: int, value: int, *, yes: int = 0, no: int = 0) -> bytes:
    """yes and no: how many instructions are skipped then."""
    return struct.pack("<HBBI", code, yes, no, value)
