"""Which tasks a map has under way: a file in its output folder, by which a later start takes them up.

Holds the file's form and when it is written: before a task is sent, and when its results are all there. Must not know
what a task is.
"""

import contextlib
import fcntl
import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from ww.errors import UsageError

LEDGER_NAME: Final = ".ww-map.json"
_VERSION: Final = 1
_BYTES_MAX: Final = 256 << 20


@dataclass(frozen=True, slots=True)
class Entry:
    """One task: its id, what it was made of, and which result belongs to which of its runs."""

    id: str
    made_of: str
    names: Sequence[str]


class Ledger:
    """The tasks of one output folder, or of none, when nothing is kept. One process at a time has it."""

    def __init__(self, folder: Path | None) -> None:
        """Read what an earlier start left. UsageError when another process maps into the folder, or it is no ledger."""
        self._path = None if folder is None else folder / LEDGER_NAME
        self._lock = None if folder is None else _lock(folder)
        self.entries: dict[str, Entry] = {}
        if self._path is not None:
            self.entries = _read(self._path)

    def add(self, entry: Entry) -> None:
        """Note a task that will be sent. UsageError when that cannot be written: then it is not to be."""
        self.entries[entry.id] = entry
        try:
            self._write()
        except UsageError:
            del self.entries[entry.id]
            raise

    def remove(self, id: str) -> None:
        """Forget a task. UsageError when that cannot be written: a later start finds it."""
        if self.entries.pop(id, None) is not None:
            self._write()

    def close(self) -> None:
        """Let others have the folder."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _write(self) -> None:
        if self._path is None:
            return
        new = self._path.with_name(f"{LEDGER_NAME}.part")
        try:
            if self.entries:
                _replace(self._path, new, self.entries.values())
            else:
                self._path.unlink(missing_ok=True)
        except OSError as error:
            with contextlib.suppress(OSError):
                new.unlink()
            raise UsageError(f"output: {self._path}: {error.strerror}", "output") from None


def _replace(path: Path, new: Path, entries: Iterable[Entry]) -> None:
    said = {
        "version": _VERSION,
        "tasks": [{"id": e.id, "made_of": e.made_of, "names": list(e.names)} for e in entries],
    }
    with new.open("w", encoding="utf-8") as file:
        json.dump(said, file)
        file.flush()
        os.fsync(file.fileno())
    new.replace(path)


def _lock(folder: Path) -> int:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise UsageError(f"output: another ww map writes to {folder}", "output") from None
    return descriptor


def _read(path: Path) -> dict[str, Entry]:
    content = b""
    with contextlib.suppress(FileNotFoundError), path.open("rb") as file:
        content = file.read(_BYTES_MAX + 1)
    if not content:
        return {}
    try:
        said: Any = json.loads(content)
        if said["version"] != _VERSION or len(content) > _BYTES_MAX:
            raise ValueError
        entries = [Entry(_text(e["id"]), _text(e["made_of"]), [_name(n) for n in e["names"]]) for e in said["tasks"]]
    except (ValueError, KeyError, TypeError, RecursionError):
        raise UsageError(f"output: {path} is not what ww map left there: remove it to begin anew", "output") from None
    return {entry.id: entry for entry in entries}


def _name(value: Any) -> str:
    """Read a result's name. The folder may have come from anywhere: none leads out of it."""
    name = _text(value)
    if not name or name.startswith("/") or ".." in name.split("/") or "\0" in name:
        raise ValueError
    return name


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError
    return value
