"""The inputs of a map: the files of a folder, or the lines of stdin, in portions of bounded size.

Holds which inputs there are, what a run is given of one, and which names can be no results. Must not know tasks or
where results go. Nothing is read before it is sent, but for lines, of which one portion is held.
"""

import io
import os
import select
import zipfile
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

from ww import archive
from ww.cli.ledger import LEDGER_NAME
from ww.client import RunFields
from ww.errors import UsageError

PLACE: Final = "{}"
"""In an argument: an input's name, or its line."""
ERROR: Final = ".error"
"""Behind the name of a result: why there is none."""
PART: Final = ".ww-map.part"
"""A result that is being written."""
_RESERVED: Final = frozenset({LEDGER_NAME, f"{LEDGER_NAME}.part", PART})
_INPUT_BYTES_MAX: Final = 64 << 20
_NAME_BYTES_MAX: Final = 255
_SHOWN_NAME_MAX: Final = 128
_LINE_BYTES_MAX: Final = 1 << 20
_CHUNK_BYTES: Final = 256 << 10
# A portion is not held back for lines that may come later than this.
_LINES_PAUSE_S: Final = 0.2


@dataclass(frozen=True, slots=True)
class Bounds:
    """How large a portion may be."""

    count: int
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Portion:
    """Inputs that are sent together: names of their results, and runs, which can be iterated over again."""

    names: Sequence[str]
    runs: Iterable[RunFields]


def is_placed(words: Sequence[str]) -> bool:
    """Whether an argument has a place for an input's name."""
    return any(PLACE in word for word in words)


def _placed(words: Sequence[str], text: str) -> list[str]:
    return [word.replace(PLACE, text) for word in words]


# A folder.


@dataclass(frozen=True, slots=True)
class Found:
    """A file of the folder."""

    name: str
    """Relative, with / between folders."""
    size_bytes: int


class Folder:
    """The files of a folder, and of those in it."""

    def __init__(self, root: Path, words: Sequence[str], count_max: int) -> None:
        """Look at them. UsageError at what cannot be read, or be the name of a result."""
        self._root = root
        self._words = words
        self._is_placed = is_placed(words)
        self.files = _walk(root, count_max)
        _check_names([found.name for found in self.files], is_placed=self._is_placed)

    def portions(self, left: Sequence[Found], bounds: Bounds) -> Iterator[Portion]:
        """Yield those files in portions."""
        names: list[str] = []
        size_bytes = 0
        for found in left:
            if names and (len(names) >= bounds.count or size_bytes + found.size_bytes > bounds.size_bytes):
                yield self._portion(names)
                names, size_bytes = [], 0
            names.append(found.name)
            size_bytes += found.size_bytes
        if names:
            yield self._portion(names)

    def _portion(self, names: Sequence[str]) -> Portion:
        return Portion(names, _FileRuns(self, names))

    def run(self, name: str) -> RunFields:
        """Return what the run of a file is given."""
        try:
            with (self._root / name).open("rb") as file:
                content = file.read(_INPUT_BYTES_MAX + 1)
        except OSError as error:
            raise UsageError(f"input: {name}: {error.strerror}", "input") from None
        if len(content) > _INPUT_BYTES_MAX:
            raise UsageError(f"input: {name}: more than {_INPUT_BYTES_MAX} bytes", "input")
        fields: RunFields = {"stdin": content}
        if self._is_placed:
            fields = {"args": _placed(self._words, name), "files": _zipped(name, content)}
        if len(name) <= _SHOWN_NAME_MAX and name.isprintable():
            fields["name"] = name
        return fields


class _FileRuns(Iterable[RunFields]):
    def __init__(self, folder: Folder, names: Sequence[str]) -> None:
        self._folder, self._names = folder, names

    def __iter__(self) -> Iterator[RunFields]:
        return map(self._folder.run, self._names)


def _zipped(name: str, content: bytes) -> bytes:
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as pack:
        pack.writestr(zipfile.ZipInfo(name), content)
    return target.getvalue()


def _walk(root: Path, count_max: int) -> list[Found]:
    """Return all files by name: hidden ones too, and what links to files lead to, but not through links to folders."""
    found: list[Found] = []
    pending = [""]
    while pending:
        folder = pending.pop()
        try:
            with os.scandir(root / folder) as entries:
                for entry in entries:
                    name = f"{folder}/{entry.name}" if folder else entry.name
                    if entry.is_dir(follow_symlinks=False):
                        pending.append(name)
                    elif entry.is_file():
                        if not os.access(entry.path, os.R_OK):
                            raise UsageError(f"input: {_shown(name)} cannot be read", "input")
                        found.append(Found(name, entry.stat().st_size))
        except OSError as error:
            raise UsageError(f"input: {_shown(folder) if folder else root}: {error.strerror}", "input") from None
        if len(found) > count_max:
            raise UsageError(f"input: more than {count_max:,} files, the limit: see --inputs-max", "input")
    found.sort(key=lambda each: each.name)
    return found


def _check_names(names: Collection[str], *, is_placed: bool) -> None:
    """Refuse names that are no results' names, and those that would be written twice."""
    taken = set(names)
    taken.update(str(parent) for parent in {name.rpartition("/")[0] for name in names} if parent)
    for name in names:
        last = name.rpartition("/")[2]
        try:
            size_bytes = len((last + ERROR).encode())
        except UnicodeEncodeError:
            raise UsageError(f"input: {_shown(name)} has a name that is not UTF-8", "input") from None
        if last in _RESERVED:
            raise UsageError(f"input: {name} has a name that ww map uses itself", "input")
        if name + ERROR in taken:
            raise UsageError(f"input: {name}{ERROR} is where the failure of {name} would be told", "input")
        if size_bytes > _NAME_BYTES_MAX:
            raise UsageError(f"input: {_shown(name)} has too long a name for {ERROR} behind it", "input")
        if is_placed:
            archive.clean(name, "input")


def _shown(name: str) -> str:
    return ascii(name if len(name) <= 80 else f"{name[:77]}...")


# Lines.


class Lines:
    """The lines of a stream, by number from 0."""

    def __init__(self, stream: BinaryIO, words: Sequence[str]) -> None:
        self._stream = stream
        self._words = words
        self._is_placed = is_placed(words)
        self._rest = bytearray()
        self._lines: list[bytes] = []
        self._number = 0
        self._is_over = False
        self.is_stopped = False
        """To be set when no more will be asked for."""

    def portion(self, bounds: Bounds, is_wanted: Callable[[str], bool]) -> Portion | None:
        """Wait for lines, and return those wanted that are there; None at the end. Blocks, never long when stopped."""
        names: list[str] = []
        runs: list[RunFields] = []
        size_bytes = 0
        while not self.is_stopped and len(names) < bounds.count and size_bytes < bounds.size_bytes:
            if not self._lines and not self._more(is_urgent=not names):
                break
            if not self._lines:
                continue
            line, name = self._lines.pop(), str(self._number)
            self._number += 1
            if is_wanted(name):
                names.append(name)
                runs.append(self._run(line, name))
                size_bytes += len(line)
        return Portion(names, runs) if names else None

    def _more(self, *, is_urgent: bool) -> bool:
        """Take what there is. False at the end, and when nothing is there and that is not urgent."""
        if self._is_over:
            return False
        if not select.select([self._stream], [], [], _LINES_PAUSE_S)[0]:
            return is_urgent
        data = os.read(self._stream.fileno(), _CHUNK_BYTES)
        self._rest += data
        *lines, rest = self._rest.split(b"\n")
        self._rest = rest
        self._is_over = not data
        if self._is_over and rest:
            lines.append(rest)
        if len(rest) > _LINE_BYTES_MAX or any(len(line) > _LINE_BYTES_MAX for line in lines):
            raise UsageError(f"input: a line has more than {_LINE_BYTES_MAX} bytes, the limit", "input")
        # The last one is taken first.
        self._lines = [bytes(line) for line in reversed(lines)]
        return True

    def _run(self, line: bytes, name: str) -> RunFields:
        if not self._is_placed:
            return {"stdin": line, "name": name}
        try:
            return {"args": _placed(self._words, line.decode()), "name": name}
        except UnicodeDecodeError:
            raise UsageError(f"input: line {int(name) + 1} is not UTF-8, and so no argument", "input") from None
