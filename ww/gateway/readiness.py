"""Whether the gateway can take new work, and run it: what is missing, by name.

Holds the checks. Must not know HTTP. What is asked for each submission costs a look at the clock; the file system is
asked once a second.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from ww.errors import StoreError

_LOOK_EVERY_S: Final = 1.0


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at."""

    name: str
    ok: bool
    detail: str

    def to_json(self) -> dict[str, Any]:
        """Render it."""
        return {"name": self.name, "ok": self.ok, "detail": self.detail}


class Readiness:
    """The checks of one gateway."""

    def __init__(
        self,
        directory: Path,
        *,
        reserve_bytes: int,
        now: Callable[[], float],
        store: Callable[[], str],
        workers: Callable[[], tuple[int, int]],
    ) -> None:
        """Keep reserve_bytes free where directory is.

        store says why the database refuses, or nothing; workers how many are connected, and how many may get new work.
        """
        self._directory = directory
        self._reserve_bytes = reserve_bytes
        self._now = now
        self._store = store
        self._workers = workers
        self._looked_at = float("-inf")
        self._lack = ""
        self.is_stopping = False

    def require_room(self) -> None:
        """Raise StoreError, with the reason, when nothing new may be put on disk."""
        if why := self._store():
            raise StoreError(f"nothing new is taken: {why}")
        if why := self._disk():
            raise StoreError(f"nothing new is taken: {why}")

    def checks(self) -> list[Check]:
        """Look at everything."""
        store, disk = self._store(), self._disk()
        connected, usable = self._workers()
        missing = "no worker is connected" if not connected else "all that are connected are being drained"
        return [
            Check("database", not store, store or "takes what is written"),
            Check("disk", not disk, disk or f"more than the {self._reserve_bytes} bytes that are kept are free"),
            Check("workers", usable > 0, f"{usable} may get new work" if usable else missing),
            Check("serving", not self.is_stopping, "is stopping" if self.is_stopping else "takes requests"),
        ]

    def _disk(self) -> str:
        """Say why the disk is too full, or nothing."""
        now = self._now()
        if now - self._looked_at >= _LOOK_EVERY_S:
            self._looked_at = now
            try:
                free = _free_bytes(self._directory)
            except OSError as error:
                self._lack = f"the state directory cannot be looked at: {error.strerror}"
                return self._lack
            need = f"{self._reserve_bytes} are kept for what was accepted (--disk-reserve)"
            self._lack = f"only {free} bytes are free on the disk, and {need}" if free < self._reserve_bytes else ""
        return self._lack


def _free_bytes(directory: Path) -> int:
    status = os.statvfs(directory)
    return status.f_bavail * status.f_frsize
