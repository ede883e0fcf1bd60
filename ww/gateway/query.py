"""What may follow the question mark of a path: names, bounds and defaults.

Holds one table, by which http.py reads and openapi.py describes. Must not know what is done with a number.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from ww.errors import UsageError
from ww.gateway.fields import shown
from ww.gateway.task import RunState

_POSITION_MAX: Final = 1 << 62
# Of a task: what its status may be.
STATUSES: Final = (*(str(state) for state in RunState), "unsatisfiable")


@dataclass(frozen=True, slots=True)
class Whole:
    """A whole number, once."""

    name: str
    help: str
    high: int
    low: int = 1
    default: int | None = None

    def read(self, query: Mapping[str, str], otherwise: int = 0) -> int:
        """Return what the query says, else the default, else `otherwise`. UsageError names what was expected."""
        text = query.get(self.name)
        if text is None:
            return otherwise if self.default is None else self.default
        if text.isascii() and text.isdigit() and len(text) <= 19 and self.low <= int(text) <= self.high:
            return int(text)
        raise UsageError(f"{self.name}: {shown(text)} is not a whole number from {self.low} to {self.high}", self.name)

    def schema(self) -> dict[str, Any]:
        """Describe it, as JSON Schema."""
        default = {} if self.default is None else {"default": self.default}
        return {"type": "integer", "minimum": self.low, "maximum": self.high, **default}


@dataclass(frozen=True, slots=True)
class Word:
    """One of some words."""

    name: str
    help: str
    words: tuple[str, ...]

    def read(self, query: Mapping[str, str]) -> str | None:
        """Return what the query says. UsageError names what was expected."""
        text = query.get(self.name)
        if text is None or text in self.words:
            return text
        raise UsageError(f"{self.name}: {shown(text)} is not one of {' '.join(self.words)}", self.name)

    def schema(self) -> dict[str, Any]:
        """Describe it, as JSON Schema."""
        return {"type": "string", "enum": list(self.words)}


@dataclass(frozen=True, slots=True)
class Text:
    """Text that its reader looks at."""

    name: str
    help: str
    pattern: str

    def schema(self) -> dict[str, Any]:
        """Describe it, as JSON Schema."""
        return {"type": "string", "pattern": self.pattern}


LIMIT: Final = Whole("limit", "How many at most.", 1000, default=100)
WAIT: Final = Whole("wait", "Seconds to wait for the task's end at most.", 60)
STATUS: Final = Word("status", "Only tasks of that status.", STATUSES)
AFTER_TASK: Final = Text("after", "The id of a task: only those that are older.", "^[A-Za-z0-9][A-Za-z0-9._:-]{0,127}$")
AFTER_RUN: Final = Whole("after", "A run number: only results of later ones.", _POSITION_MAX, 0)
AFTER_RESULT: Final = Whole(
    "after", "The position of the last result that was read, or by input its run number: what follows it.",
    _POSITION_MAX, 0,
)  # fmt: skip
ORDER: Final = Word("order", "As the runs ended, or by their numbers: then each when all before it were.",
                    ("completion", "input"))  # fmt: skip
FOLLOW: Final = Word("follow", "Whether it goes on until the task has ended: true, if it is not said.",
                     ("true", "false"))  # fmt: skip
AFTER_POSITION: Final = Text(
    "after", "The id of an event: what came since; now: only what ends from now on.", "^([0-9]{1,19}|now)$"
)

Parameter = Whole | Word | Text

PARAMETERS: Final[dict[tuple[str, str], tuple[Parameter, ...]]] = {
    ("GET", "/tasks"): (STATUS, LIMIT, AFTER_TASK),
    ("POST", "/tasks"): (WAIT,),
    ("GET", "/tasks/{id}"): (WAIT,),
    ("GET", "/tasks/{id}/runs"): (LIMIT, AFTER_RUN),
    ("GET", "/tasks/{id}/results"): (ORDER, AFTER_RESULT, FOLLOW),
    ("GET", "/tasks/{id}/events"): (AFTER_POSITION,),
}
"""Those of each endpoint."""
