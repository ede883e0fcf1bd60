"""What only Linux has and Python 3.11 has no function for.

Holds the calling of system calls and of prctl by ctypes, with OSError for what fails. Must not know what they are for:
confine.py and seccomp.py do. Importing it is harmless anywhere; calling it raises OSError, ENOSYS, elsewhere.
"""

import contextlib
import ctypes
import errno
import os
import sys
from collections.abc import Iterator
from typing import Any, Final

PR_SET_PDEATHSIG: Final = 1
PR_SET_DUMPABLE: Final = 4
PR_SET_NAME: Final = 15
PR_CAPBSET_READ: Final = 23
PR_CAPBSET_DROP: Final = 24
PR_SET_NO_NEW_PRIVS: Final = 38
PR_CAP_AMBIENT: Final = 47
PR_CAP_AMBIENT_CLEAR_ALL: Final = 4

CLONE_NEWNS: Final = 0x00020000
CLONE_NEWIPC: Final = 0x08000000
CLONE_NEWUSER: Final = 0x10000000
CLONE_NEWNET: Final = 0x40000000
MS_NOSUID: Final = 2
MS_NODEV: Final = 4
MS_NOEXEC: Final = 8
MS_REC: Final = 1 << 14
MS_SLAVE: Final = 1 << 19
MNT_DETACH: Final = 2

_LIBC: Final = ctypes.CDLL(None, use_errno=True)
_CAPABILITY_VERSION_3: Final = 0x20080522
_PIVOT_ROOT: Final = {"x86_64": 155, "aarch64": 41}


def syscall(number: int, *arguments: int | bytes | Any) -> int:
    """Make a system call by its number; arguments are integers, bytes or what ctypes.byref gives."""
    return _call("syscall", number, *arguments)


def prctl(option: int, *arguments: int) -> int:
    """Change or ask something of this process, man 2 prctl."""
    # All five are looked at by some options.
    return _call("prctl", option, *arguments, *(0,) * (4 - len(arguments)))


def unshare(flags: int) -> None:
    """Leave namespaces for new ones, man 2 unshare."""
    _call("unshare", flags)


def mount(kind: str, target: str, flags: int, options: str = "") -> None:
    """Mount a file system of a kind that needs no device, or, with no kind, change how the one at target is mounted."""
    _call("mount", b"none", os.fsencode(target), kind.encode() or None, flags, options.encode() or None)


def unmount(target: str, flags: int) -> None:
    """Take away what is mounted at target, man 2 umount."""
    _call("umount2", os.fsencode(target), flags)


def pivot_root(new: str, old: str) -> None:
    """Make the mount at new the root of this mount namespace, and mount the old root at old."""
    number = _PIVOT_ROOT.get(os.uname().machine)
    if number is None:
        raise OSError(errno.ENOTSUP, f"its number on {os.uname().machine} is not known")
    syscall(number, os.fsencode(new), os.fsencode(old))


def effective_capabilities() -> int:
    """Return the set of capabilities that this thread has now, a bit each."""
    # Three sets of 64 bits, each in two halves: effective, permitted, inheritable, then again.
    sets = (ctypes.c_uint32 * 6)()
    _call("capget", _capability_header(), ctypes.byref(sets))
    return int(sets[0]) | int(sets[3]) << 32


def clear_capabilities() -> None:
    """Give up every capability that this thread has or could take."""
    _call("capset", _capability_header(), ctypes.byref((ctypes.c_uint32 * 6)()))


@contextlib.contextmanager
def without_effective_capabilities() -> Iterator[None]:
    """Do something without capabilities, which this thread has again afterwards."""
    sets = (ctypes.c_uint32 * 6)()
    _call("capget", _capability_header(), ctypes.byref(sets))
    without = (ctypes.c_uint32 * 6)(*sets)
    without[0] = without[3] = 0
    _call("capset", _capability_header(), ctypes.byref(without))
    try:
        yield
    finally:
        _call("capset", _capability_header(), ctypes.byref(sets))


def _capability_header() -> Any:
    return ctypes.byref((ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0))


def _call(name: str, *arguments: Any) -> int:
    if sys.platform != "linux":
        raise OSError(errno.ENOSYS, "only Linux has it")
    function = getattr(_LIBC, name)
    function.restype = ctypes.c_long if name == "syscall" else ctypes.c_int
    # Variadic functions take whole registers: an int alone would leave the upper half as it was.
    result: int = function(*(ctypes.c_long(a) if isinstance(a, int) else a for a in arguments))
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result
