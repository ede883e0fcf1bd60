"""Who asks, and what it may do: what a token stands for. Must not know HTTP, nor how a token is told."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final

from ww.errors import NotAllowed


class Scope(StrEnum):
    """What a caller may do."""

    READ = "read"
    """See its own tasks, and modules by their digest."""
    SUBMIT = "submit"
    """Submit and cancel its own tasks, upload modules."""
    ADMIN = "admin"
    """All of it, for everybody's tasks; remove modules."""


@dataclass(frozen=True, slots=True)
class Quota:
    """How much of a gateway one caller may hold with tasks that have not ended. None: no limit but the gateway's."""

    tasks_max: int | None = None
    """Tasks."""
    runs_max: int | None = None
    """Their runs that have not ended."""
    bytes_max: int | None = None
    """What was sent with them to be kept in memory: stdin, env, args, labels and other texts."""

    @property
    def is_limited(self) -> bool:
        """Whether there is anything to count."""
        return not (self.tasks_max is None and self.runs_max is None and self.bytes_max is None)


@dataclass(frozen=True, slots=True)
class Caller:
    """One caller."""

    name: str = ""
    """Of its token, or `peer:` and its peer id: its tasks carry it as their owner. Empty where none are asked for."""
    scopes: frozenset[Scope] = field(default_factory=lambda: frozenset(Scope))
    quota: Quota = field(default_factory=Quota)

    @property
    def called(self) -> str:
        """What to call it in a message."""
        return f"the {self.name.replace(':', ' ', 1)}" if ":" in self.name else f"the token {self.name!r}"

    def may(self, scope: Scope) -> bool:
        """Whether the caller has a right."""
        return scope in self.scopes or Scope.ADMIN in self.scopes

    def require(self, scope: Scope) -> None:
        """Raise NotAllowed unless the caller has a right."""
        if not self.may(scope):
            raise NotAllowed(f"{self.called} has no scope {scope}")

    def may_see(self, owner: str) -> bool:
        """Whether the caller may see the tasks of that owner."""
        return owner == self.name or Scope.ADMIN in self.scopes


EVERYBODY: Final = Caller()
"""Who asks where no tokens are asked for: loopback, without --token-file."""


def caller_now(scope: Mapping[str, Any]) -> Caller | None:
    """Return whom a connection that goes on belongs to by now; None when its token is good no more."""
    ask = scope.get("state", {}).get("caller_now")
    if ask is None:
        return caller_of(scope)
    caller = ask()
    assert caller is None or isinstance(caller, Caller)
    return caller


def caller_of(scope: Mapping[str, Any]) -> Caller:
    """Return whom the perimeter found behind an ASGI scope; everybody, where it asks nobody."""
    caller = scope.get("state", {}).get("caller", EVERYBODY)
    assert isinstance(caller, Caller)
    return caller
