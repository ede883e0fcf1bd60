"""What a guest writes to stdout and stderr: files in memory that its parent process reads too.

Holds the process's descriptors 1 and 2 while guests run. Must not know how guests run. A guest that writes more than is
kept is none the wiser: the rest goes to /dev/null. Runs append, one after the other, so that what is large can stay
where it is until the parent has fetched it.
"""

import os
import resource
from collections.abc import Callable
from typing import Final

from ww.sandbox.flusher import Flusher
from ww.sandbox.invocation import INLINE_BYTES_MAX

# How much more than it may a guest can write before that is noticed, without hearing of it: a tick of the watchdog's,
# at the speed of memory.
_SLACK_BYTES: Final = 64 << 20


class Stream:
    """One of the two."""

    def __init__(self, number: int, file: int, nowhere: int, flush: Callable[[], None]) -> None:
        """Be descriptor number, backed by file, an empty one in memory; nowhere is /dev/null. flush writes what
        somebody keeps of what the guest wrote."""
        self._number = number
        self._file = file
        self._nowhere = nowhere
        self._flush = flush
        self._start = 0
        self.is_cut = False
        """Whether what the run writes is thrown away by now."""
        os.dup2(file, number)

    @property
    def kept_bytes(self) -> int:
        """Bytes of earlier runs that the parent has not fetched yet."""
        return self._start

    def forget(self) -> None:
        """Drop what earlier runs wrote: the parent has it."""
        if self._start:
            self._start = 0
            self._rewind()

    def size(self) -> int:
        """Return how much the run has written."""
        return os.lseek(self._file, 0, os.SEEK_CUR) - self._start

    def peek(self, count: int) -> bytes:
        """Return the first bytes of what the run has written."""
        return os.pread(self._file, count, self._start)

    def keep(self, data: bytes) -> int:
        """Put a run's output into the file, of a run that writes nothing itself; return where it is."""
        start = self._start
        view = memoryview(data)
        while view:
            view = view[os.pwrite(self._file, view, self._start) :]
            self._start = start + len(data) - len(view)
        self._rewind()
        return start

    def skip(self, count: int) -> None:
        """Let what the run has written begin that much later."""
        self._start += count

    def cut(self, most: int) -> None:
        """Throw away what comes from now on, if more than most bytes were written. Called while the guest runs."""
        if not self.is_cut and self.size() > most:
            self.is_cut = True
            os.dup2(self._nowhere, self._number)

    def take(self, most: int) -> tuple[bytes, int, int, bool]:
        """Return what the run wrote, at most most bytes of it: the bytes and -1, or none and where in the file they
        are; how many; and whether there was more. Ready for the next run then."""
        size = max(0, self.size())
        if size > most or self.is_cut:
            # Of what did not fit there may be a rest that the next one's output would begin with.
            os.dup2(self._nowhere, self._number)
            self._flush()
            os.dup2(self._file, self._number)
            self.is_cut = False
        if size == 0:
            return b"", -1, 0, False
        kept, start = min(size, most), self._start
        if kept <= INLINE_BYTES_MAX:
            data = os.pread(self._file, kept, start)
            self._rewind()
            return data, -1, kept, size > most
        self._start += kept
        self._rewind()
        return b"", start, kept, size > most

    def _rewind(self) -> None:
        os.ftruncate(self._file, self._start)
        os.lseek(self._file, self._start, os.SEEK_SET)


class FileSizeCap:
    """The kernel's limit on the size of any file this process writes."""

    def __init__(self) -> None:
        self._soft, self._hard = resource.getrlimit(resource.RLIMIT_FSIZE)

    def set(self, most: int) -> None:
        """Let files grow to most bytes."""
        if self._hard != resource.RLIM_INFINITY:
            most = min(most, self._hard)
        if most != self._soft:
            self._soft = most
            resource.setrlimit(resource.RLIMIT_FSIZE, (most, self._hard))

    def lift(self) -> None:
        """Let files grow as far as they ever may."""
        if self._soft != self._hard:
            self._soft = self._hard
            resource.setrlimit(resource.RLIMIT_FSIZE, (self._hard, self._hard))


class Output:
    """Both streams, and how far they may grow."""

    def __init__(self, stdout: int, stderr: int, nowhere: int) -> None:
        self._flusher: Flusher | None = None
        self.stdout = Stream(1, stdout, nowhere, self._flush)
        # Nobody keeps anything of stderr.
        self.stderr = Stream(2, stderr, nowhere, lambda: None)
        self._most = 0
        self.cap = FileSizeCap()

    def _flush(self) -> None:
        if self._flusher is None:
            self._flusher = Flusher()
        self._flusher.flush()

    def begin(self, most: int) -> None:
        """Keep at most most bytes of each."""
        self._most = most

    def limit(self, others: int = 0) -> None:
        """Set how large files may become: output, and others that the guest may write."""
        kept = max(self.stdout.kept_bytes, self.stderr.kept_bytes)
        self.cap.set(max(kept + self._most + _SLACK_BYTES, others))

    def cut(self) -> None:
        """Look whether a stream is longer than it may be. Called every few milliseconds while the guest runs."""
        self.stdout.cut(self._most)
        self.stderr.cut(self._most)
