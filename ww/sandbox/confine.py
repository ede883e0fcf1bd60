"""What a sandbox process gives up before it touches anything of a guest's.

wasmtime is the first wall; this is the second one, for the guest that finds a hole in it. Holds the protections, each
of which stands alone, and the order they have to come in. Must not know wasmtime or the wire: executor.py calls
`confine` once, when all that the process needs is imported and before it starts a thread. What a process is to work on
reaches it as descriptors, over its socket, so that there is nothing at all it has to be able to open, but for a guest's
files in a `Space`.

A host that cannot give a protection costs that one alone: it is reported (pool.py logs it, `ww doctor` shows it), never
raised.
"""

import contextlib
import errno
import os
import resource
import signal
import struct
import sys
import tempfile
from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from ww.sandbox import linux, seccomp

GIVEN: Final = "given"
MISSING: Final = "missing"
NEEDLESS: Final = "needless"
FILE_SYSTEM: Final = "file system size"
"""The protection that bounds what a guest can write; where it is missing, somebody has to measure."""

ESSENTIAL: Final = frozenset({"descriptors", "limits", "capabilities", "privileges", "system calls"})
"""Without one of these an escaped guest could do harm; the others are walls behind a wall."""

_FILE_BYTES_MAX: Final = 256 << 20
_DESCRIPTORS_MAX: Final = 64
_DESCRIPTORS_WITH_FILES_MAX: Final = 256
_NOBODY: Final = 65534
# systemd's UIDS-GIDS.md lists from here to 2**31 as used by nobody. With the process's own number added, which is below
# 2**22, no two sandbox processes of a machine are the same user: one cannot signal or trace another.
FIRST_USER: Final = 0x70000000
_CAP_KILL: Final = 5
_CAPABILITIES_MAX: Final = 64

# linux/landlock.h. The numbers are the same on all architectures.
_LANDLOCK_CREATE, _LANDLOCK_ADD, _LANDLOCK_RESTRICT = 444, 445, 446
_LANDLOCK_VERSION: Final = 1
_LANDLOCK_BENEATH: Final = 1
_EXECUTE, _MAKE_CHAR, _MAKE_SOCKET, _MAKE_FIFO, _MAKE_BLOCK, _IOCTL = 1 << 0, 1 << 6, 1 << 9, 1 << 10, 1 << 11, 1 << 15
_BIND_AND_CONNECT_TCP: Final = 0b11
_ABSTRACT_SOCKETS_AND_SIGNALS: Final = 0b11


@dataclass(frozen=True, slots=True)
class ConfinementConfig:
    """How sandbox processes are confined."""

    nice: int = 5
    """How much the processor prefers others, 0 to 19; added to the worker's own."""
    without: Collection[str] = ()
    """Protections to leave out, by name: for tests of what the others hold."""


@dataclass(frozen=True, slots=True)
class Space:
    """The file system that a sandbox process has to itself."""

    directory: Path
    """Empty, and closed to others. A file system in memory is mounted over it, for the process alone; where that cannot
    be, it is what the process works in."""
    bytes_max: int
    count_max: int
    """Files, folders and links. The file system takes a page and a file more: then it shows that there was more."""


@dataclass(frozen=True, slots=True)
class Protection:
    """One protection of a sandbox process, and what became of it."""

    name: str
    state: str
    """GIVEN, MISSING, or NEEDLESS where there is nothing to give up."""
    detail: str
    """What it holds, or why it is not there; a few words for people."""

    @property
    def is_essential(self) -> bool:
        """Whether guests should not run without it."""
        return self.name in ESSENTIAL


class _Missing(Exception):
    """The host cannot give it, for the reason that the message says."""


class _Needless(Exception):
    """There is nothing to give up, for the reason that the message says."""


def confine(config: ConfinementConfig, *, descriptors: Collection[int], space: Space | None = None) -> list[Protection]:
    """Give up, for good, whatever guests do not need, and return what became of each protection.

    descriptors are all that stay open. space, when there is one, becomes the working directory and all of the file
    system that is left, to read and to write; otherwise nothing is left. Call it once, in a process of one thread:
    some protections hold only for the thread that asks for them, and for those it starts later.
    """
    root = _Root(space)
    # In this order: what needs a privilege before it is gone, what opens a file before none can be, and the system
    # calls that all of it takes before the last.
    steps: dict[str, Callable[[], str]] = {
        "priority": partial(_lower_priority, config.nice),
        "limits": partial(_limit, space),
        "descriptors": partial(_close_others, descriptors),
        "network": _leave_namespaces,
        FILE_SYSTEM: root.mount,
        "directory": root.go_to,
        "root directory": root.take,
        "user": partial(_change_user, root),
        "capabilities": _drop_capabilities,
        "privileges": _renounce_privileges,
        "parent": _end_with_parent,
        "files": partial(_restrict_files, root),
        "system calls": partial(_restrict_calls, root),
    }
    return [_take(name, step, config.without) for name, step in steps.items()]


def _take(name: str, step: Callable[[], str], without: Collection[str]) -> Protection:
    if name in without:
        return Protection(name, MISSING, "left out")
    try:
        return Protection(name, GIVEN, step())
    except _Needless as reason:
        return Protection(name, NEEDLESS, str(reason))
    except _Missing as reason:
        return Protection(name, MISSING, str(reason))
    except OSError as error:
        if error.errno == errno.ENOSYS and sys.platform == "linux":
            return Protection(name, MISSING, "the kernel does not have it")
        text = error.strerror or "refused"
        return Protection(name, MISSING, text[:1].lower() + text[1:])
    except (AttributeError, ValueError):  # what Python lacks here, and what setrlimit says
        return Protection(name, MISSING, "this system does not have it")


def _lower_priority(nice: int) -> str:
    return f"nice {os.nice(nice)}"


def _limit(space: Space | None) -> str:
    file_bytes_max = max(_FILE_BYTES_MAX, space.bytes_max if space is not None else 0)
    descriptors_max = _DESCRIPTORS_MAX if space is None else _DESCRIPTORS_WITH_FILES_MAX
    # Never RLIMIT_AS (wasmtime reserves gigabytes of addresses), nor NPROC (which counts all processes of a user).
    for kind, most in (
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_NOFILE, descriptors_max),
        (resource.RLIMIT_FSIZE, file_bytes_max),
    ):
        _, hard = resource.getrlimit(kind)
        most = most if hard == resource.RLIM_INFINITY else min(hard, most)
        resource.setrlimit(kind, (most, most))
    return f"{descriptors_max} descriptors, files of {file_bytes_max >> 20} MiB, no core dumps"


def _close_others(descriptors: Collection[int]) -> str:
    """Close what imports left open: pycapnp keeps the schema's folders, and one above them is the root of all files."""
    open_now = [int(name) for name in os.listdir("/dev/fd")]
    nothing = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    for fd in set(open_now) - set(descriptors):
        # Replaced, not only closed: its owner may close the number again, when it is another's.
        with contextlib.suppress(OSError):  # the one that listed the folder is gone
            os.fstat(fd)
            os.dup2(nothing, fd, inheritable=False)
    os.close(nothing)
    return "its socket and its output, nothing inherited"


def _leave_namespaces() -> str:
    """Leave the network, by a network of its own that has nothing in it, and the shared memory of others."""
    # Whoever is not root may do so as root of a user namespace. Root itself stays out of one, where it could not
    # become another user.
    _unshare(linux.CLONE_NEWNET | linux.CLONE_NEWIPC, in_user_namespace=os.geteuid() != 0)
    return "a namespace with no network in it"


def _unshare(namespaces: int, *, in_user_namespace: bool) -> None:
    user, group = os.geteuid(), os.getegid()
    try:
        linux.unshare(namespaces | (linux.CLONE_NEWUSER if in_user_namespace else 0))
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise _Missing("namespaces are used up or switched off (sysctl user.max_user_namespaces)") from None
        raise
    if in_user_namespace:
        # It stays who it was: whoever has no number there can make no files in what is mounted there (see mount).
        with contextlib.suppress(OSError):
            for name, text in (
                ("setgroups", "deny"),
                ("uid_map", f"{user} {user} 1"),
                ("gid_map", f"{group} {group} 1"),
            ):
                Path("/proc/self", name).write_text(text)


class _Root:
    """What becomes the process's root directory, step by step."""

    def __init__(self, space: Space | None) -> None:
        self._space = space
        self._user = os.geteuid()
        self._is_mounted = False
        self.has_files = False
        """Whether the working directory is the space: what is not is never to be given to a guest."""

    def mount(self) -> str:
        """Mount a file system of its own, of limited size, which is gone with the process."""
        if self._space is None:
            raise _Needless("it has no file system")
        try:
            _unshare(linux.CLONE_NEWNS, in_user_namespace=False)
        except PermissionError:
            if os.geteuid() == 0:
                raise
            _unshare(linux.CLONE_NEWNS, in_user_namespace=True)
        if os.geteuid() != self._user:
            raise _Missing("its user has no number in its namespace")
        # What is mounted here is not to be seen elsewhere; what is unmounted elsewhere is not to be kept here.
        linux.mount("", "/", linux.MS_REC | linux.MS_SLAVE)
        page = resource.getpagesize()
        size = -(-self._space.bytes_max // page) * page + page
        # The root directory counts too.
        options = f"mode=0700,size={size},nr_inodes={self._space.count_max + 2}"
        flags = linux.MS_NOSUID | linux.MS_NODEV | linux.MS_NOEXEC
        linux.mount("tmpfs", str(self._space.directory), flags, options)
        self._is_mounted = True
        return f"{self._space.bytes_max >> 20} MiB and {self._space.count_max} files in memory"

    def go_to(self) -> str:
        if self._space is not None:
            os.chdir(self._space.directory)
            self.has_files = True
            return "its own"
        # A folder that is gone already: empty, nothing can be made in it, and nothing is left behind by a kill.
        nowhere = tempfile.mkdtemp(prefix="ww-sandbox-")
        os.chdir(nowhere)
        os.rmdir(nowhere)
        return "an empty one, which is gone already"

    def take(self) -> str:
        """Have nothing above the working directory. As root, or as root of the user namespace."""
        if not self.has_files and os.listdir("."):
            raise _Missing("there is no empty directory")
        if self._is_mounted and self.has_files:
            with contextlib.suppress(OSError):  # a root in initramfs stays where it is
                # The old root is then above the new one, and everything else beneath the old one.
                linux.pivot_root(".", ".")
                linux.unmount(".", linux.MNT_DETACH)
                os.chdir("/")
                return "the working directory, and nothing else is mounted"
        os.chroot(".")
        os.chdir("/")
        return "the working directory"


def _change_user(root: _Root) -> str:
    if os.geteuid() != 0:
        raise _Needless("not started as root: it stays the worker's user")
    if not linux.effective_capabilities() >> _CAP_KILL & 1:
        raise _Missing("the worker has no CAP_KILL, to end a process of another user")
    # While it may: a user who is not root cannot.
    _drop_bounding_set()
    os.setgroups([])
    group = _become(lambda number: os.setresgid(number, number, number))

    def become(number: int) -> None:
        if root.has_files:
            os.chown(".", number, group)
        os.setresuid(number, number, number)

    return f"uid {_become(become)}, no groups"


def _become(change: Callable[[int], None]) -> int:
    """Become nobody else's user or group; `nobody` where a container has no number as high. Return the number."""
    number = FIRST_USER + os.getpid()
    try:
        change(number)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        number = _NOBODY
        change(number)
    return number


def _drop_capabilities() -> str:
    _drop_bounding_set()
    with contextlib.suppress(OSError):  # Linux before 4.3 has none to clear
        linux.prctl(linux.PR_CAP_AMBIENT, linux.PR_CAP_AMBIENT_CLEAR_ALL)
    linux.clear_capabilities()
    return "none"


def _drop_bounding_set() -> None:
    """Have no program ever get a capability back. Needs CAP_SETPCAP, and is needless without: nothing gives any then,
    for what may not gain privileges."""
    for capability in range(_CAPABILITIES_MAX):
        try:
            linux.prctl(linux.PR_CAPBSET_DROP, capability)
        except OSError:  # not allowed, or beyond the last one there is
            return


def _renounce_privileges() -> str:
    linux.prctl(linux.PR_SET_NO_NEW_PRIVS, 1)
    # Others of the same user cannot trace it, nor read its memory.
    linux.prctl(linux.PR_SET_DUMPABLE, 0)
    return "none to be gained, its memory closed to others"


def _end_with_parent() -> str:
    # A change of user or capabilities forgets it, so not before.
    linux.prctl(linux.PR_SET_PDEATHSIG, signal.SIGKILL)
    return "killed when the worker ends"


def _restrict_files(root: _Root) -> str:
    """Landlock: no file by any path, but beneath its directory; no TCP; no signals to processes beyond itself."""
    try:
        version = linux.syscall(_LANDLOCK_CREATE, 0, 0, _LANDLOCK_VERSION)
    except OSError as error:
        if error.errno == errno.EOPNOTSUPP:
            raise _Missing("Landlock is switched off in this kernel (its option lsm=)") from None
        raise
    # Each version of the interface added rights, and some a field for another kind of them.
    rights = (1 << (13, 14, 15, 15, 16)[min(version, 5) - 1]) - 1
    network = _BIND_AND_CONNECT_TCP
    ruleset = struct.pack("=QQQ", rights, network, _ABSTRACT_SOCKETS_AND_SIGNALS)
    size = 8 if version < 4 else 16 if version < 6 else 24
    fd = linux.syscall(_LANDLOCK_CREATE, ruleset, size, 0)
    try:
        if root.has_files:
            # Plain files, folders and links; nothing to execute.
            beneath = rights & ~(_EXECUTE | _MAKE_CHAR | _MAKE_SOCKET | _MAKE_FIFO | _MAKE_BLOCK | _IOCTL)
            here = os.open(".", os.O_PATH | os.O_CLOEXEC)
            try:
                linux.syscall(_LANDLOCK_ADD, fd, _LANDLOCK_BENEATH, struct.pack("=Qi", beneath, here), 0)
            finally:
                os.close(here)
        # It takes nothing from whoever could gain privileges.
        linux.prctl(linux.PR_SET_NO_NEW_PRIVS, 1)
        linux.syscall(_LANDLOCK_RESTRICT, fd, 0)
    finally:
        os.close(fd)
    return f"Landlock {version}: {'those of its directory' if root.has_files else 'none'}"


def _restrict_calls(root: _Root) -> str:
    linux.prctl(linux.PR_SET_NO_NEW_PRIVS, 1)  # as for Landlock
    count = seccomp.install(with_files=root.has_files)
    return f"seccomp: {count} allowed"
