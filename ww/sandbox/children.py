"""Where a group of runs has its child processes from.

Holds the protocol alone, which pool.py keeps.
"""

import asyncio
from collections.abc import Coroutine
from typing import Any, Protocol

from ww.sandbox.child import Child
from ww.sandbox.limits import SandboxLimits


class Children(Protocol):
    """Where child processes come from."""

    limits: SandboxLimits

    def wait_for_child(self) -> "asyncio.Future[Child | None]":
        """Return what gets a child when there is one; whoever does not want it any more sets it to None before."""
        ...

    def release(self, child: Child, runs: int) -> None:
        """Give a child back, alive or not, that was taken for so many runs."""
        ...

    async def end(self, child: Child) -> str:
        """End a child, and say how it had ended if it had by itself."""
        ...

    def open_artefact(self, digest: bytes, metered: bool) -> int:
        """Return a descriptor of a module's compiled form; OSError when there is none."""
        ...

    async def prepare_anew(self, digest: bytes, metered: bool) -> float:
        """Have a module compiled whose compiled form is no good; return the seconds that this took."""
        ...

    def lend(self) -> None:
        """Note that a child that was taken waits for others, and that another may compute meanwhile."""
        ...

    def take_back(self) -> None:
        """Note that it goes on."""
        ...

    def spawn(self, coroutine: Coroutine[Any, Any, None]) -> "asyncio.Task[None]":
        """Do something beside, which is cancelled when there are no children any more."""
        ...
