"""The fields of a submission: their names, kinds, bounds and defaults.

Holds one table, by which request.py reads and openapi.py describes. Must not know where a field's text comes from.
Bounds that the operator chooses are named by their RequestLimits.
"""

import math
import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

from ww.errors import UsageError
from ww.gateway.limits import RequestLimits
from ww.gateway.spec import Spread

INT64_MAX: Final = 2**63 - 1
_UINT64_MAX: Final = 2**64 - 1
_SHOWN_CHARACTERS: Final = 60
# About 30 years: longer is a typing error.
_SECONDS_MAX: Final = 1e9
_DECIMAL: Final = re.compile(r"\d{1,12}(\.\d{0,20})?|\.\d{1,20}", re.ASCII)
_WHOLE: Final = re.compile(r"-?\d{1,20}", re.ASCII)

ID_PATTERN: Final = "[A-Za-z0-9][A-Za-z0-9._:-]{0,127}"
DIGEST_PATTERN: Final = "sha256:[0-9a-f]{64}"
ENTRY_CHARACTERS_MAX: Final = 200
NAME_CHARACTERS_MAX: Final = 128
PATHS_MAX: Final = 128
# What archive.clean takes, but for `.` and `..`: those depend on what stands around them.
_PATH: Final = r"[^\u0000-\u001f\u007f-\u009f\\]{1,1000}"
FUNCTION_PATTERN: Final = r"[^\W\d][\w.]*:[\w.<>]+"
"""module:qualname."""
FUNCTION_CHARACTERS_MAX: Final = 512
GRANTS_MAX: Final = 100
REPLICAS_MAX: Final = 16
LABELS_MAX: Final = 16
LABEL_PATTERN: Final = "[A-Za-z0-9][A-Za-z0-9._/-]{0,63}"
LABEL_VALUE_CHARACTERS_MAX: Final = 256

Bound = int | float | str
"""A number, or the name of the limit that it is."""


def shown(text: str) -> str:
    """Quote a user's value for an error message: escaped, and cut when long."""
    return repr(text if len(text) <= _SHOWN_CHARACTERS else text[:_SHOWN_CHARACTERS] + "...")


def bound(value: Bound, limits: RequestLimits) -> int | float:
    """Return a bound as a number."""
    found: int | float = getattr(limits, value) if isinstance(value, str) else value
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Field:
    """One field of a form."""

    name: str
    help: str
    is_repeated: bool = False
    is_file: bool = False
    """Whether it comes as a file part, and not as text."""

    def read(self, text: str, limits: RequestLimits) -> Any:
        """Return what a text says. UsageError when it says nothing that the field may hold."""
        return text

    def schema(self, limits: RequestLimits) -> dict[str, Any]:
        """Describe one value, as JSON Schema."""
        return {"type": "string"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Value(Field):
    """A field that stands for itself in a Spec."""

    to: str
    """Its name there."""
    default: Bound | bool | None = None
    """What it is when it is not given."""

    def filled_in(self, limits: RequestLimits) -> int | float | str | None:
        """Return what it is then."""
        return bound(self.default, limits) if isinstance(self.default, str) else self.default


@dataclass(frozen=True, slots=True, kw_only=True)
class Whole(Value):
    """A whole number."""

    low: int = 0
    high: Bound = INT64_MAX

    def read(self, text: str, limits: RequestLimits) -> int:
        # The pattern, since isdigit lets through digits of other scripts, and int underscores and blanks.
        high = bound(self.high, limits)
        if _WHOLE.fullmatch(text) and self.low <= (number := int(text)) <= high and (text[0] != "-" or self.low < 0):
            return number
        raise UsageError(f"{self.name}: {shown(text)} is not a whole number from {self.low} to {high}", self.name)

    def schema(self, limits: RequestLimits) -> dict[str, Any]:
        return {"type": "integer", "minimum": self.low, "maximum": bound(self.high, limits)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Decimal(Value):
    """A decimal number, not below 0."""

    high: Bound
    unit: str = ""
    is_zero_default: bool = False
    """Whether 0 asks for the default."""
    may_be_zero: bool = True

    def read(self, text: str, limits: RequestLimits) -> float:
        high = bound(self.high, limits)
        if _DECIMAL.fullmatch(text) and math.isfinite(number := float(text)) and number <= high:
            if self.is_zero_default and not number and self.default is not None:
                return float(bound(self.default, limits))
            if number or self.may_be_zero:
                return number
        of, low = f"a number of {self.unit}" if self.unit else "a number", "from 0" if self.may_be_zero else "above 0"
        raise UsageError(f"{self.name}: {shown(text)} is not {of} {low} to {high:g}", self.name)

    def schema(self, limits: RequestLimits) -> dict[str, Any]:
        low = {"minimum": 0} if self.may_be_zero else {"exclusiveMinimum": 0}
        return {"type": "number", **low, "maximum": bound(self.high, limits)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Truth(Value):
    """true or false."""

    def read(self, text: str, limits: RequestLimits) -> bool:
        if text not in ("true", "false"):
            raise UsageError(f"{self.name}: {shown(text)} is not true or false", self.name)
        return text == "true"

    def schema(self, limits: RequestLimits) -> dict[str, Any]:
        return {"type": "boolean"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Word(Value):
    """One of some words."""

    words: tuple[str, ...]

    def filled_in(self, limits: RequestLimits) -> int | float | str | None:
        return self.default

    def read(self, text: str, limits: RequestLimits) -> str:
        if text not in self.words:
            raise UsageError(f"{self.name}: {shown(text)} is not one of {' '.join(self.words)}", self.name)
        return text

    def schema(self, limits: RequestLimits) -> dict[str, Any]:
        return {"type": "string", "enum": list(self.words)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Text(Field):
    """Text of a form of its own; what reads it is request.py."""

    pattern: str = ""
    characters_min: int = 0
    characters_max: int = 0
    count_max: int = 0
    """How often it may be given, where it may be repeated; 0: as often as there is room."""

    def schema(self, limits: RequestLimits) -> dict[str, Any]:
        bounds = {"minLength": self.characters_min, "maxLength": self.characters_max}
        pattern = {"pattern": f"^{self.pattern}$"} if self.pattern else {}
        return {"type": "string"} | {name: value for name, value in bounds.items() if value} | pattern


@dataclass(frozen=True, slots=True, kw_only=True)
class Upload(Field):
    """A file part."""

    bytes_max: str = ""
    """The limit of its size, if it has one of its own."""
    how: str = ""
    """How curl sends it."""
    is_file: bool = True

    def schema(self, limits: RequestLimits) -> dict[str, Any]:
        most = {"maxLength": bound(self.bytes_max, limits)} if self.bytes_max else {}
        return {"type": "string", "contentMediaType": "application/octet-stream", **most}


VALUES: Final[tuple[Value, ...]] = (
    Whole(name="complete", to="complete", default=0, help="Initial value of the completion counter."),
    Decimal(
        name="duration", to="duration_s", default="duration_default_s", high="duration_max_s", unit="seconds",
        is_zero_default=True, help="Seconds one run may take; 0: the gateway's default.",
    ),
    Decimal(name="start", to="start_s", default=0.0, high=_SECONDS_MAX, unit="seconds",
            help="Seconds before the first run."),
    Decimal(name="delay", to="delay_s", default=0.0, high=_SECONDS_MAX, unit="seconds",
            help="Seconds between the starts of consecutive runs; 0: all at once."),
    Whole(name="repeats", to="repeats", default=1, low=1, high="runs_max", help="Number of runs."),
    Whole(name="input", to="input", help="First of the two integers given to run; else the first argument."),
    Whole(name="difficulty", to="difficulty", help="The second one."),
    Whole(name="memory", to="memory_bytes", default="memory_default_bytes", low=1, high="memory_max_bytes",
          help="Bytes of memory of one run; when given, its worker must have them."),
    Whole(name="output", to="output_bytes", default="output_default_bytes", low=1, high="output_max_bytes",
          help="Bytes of stdout and of stderr that are kept, each."),
    Decimal(name="cpu_seconds", to="cpu_s", default="cpu_default_s", high="cpu_max_s", unit="seconds",
            is_zero_default=True, help="Seconds of processor time one run may take; 0: the gateway's default."),
    Whole(name="fuel", to="fuel", default="fuel_default", low=1, high="fuel_max",
          help="WebAssembly instructions one run may execute, roughly."),
    Truth(name="deterministic", to="deterministic", default=False,
          help="Whether the same task gives the same outcomes on every worker."),
    Whole(name="seed", to="seed", default=0, high=_UINT64_MAX,
          help="Of the random numbers of a deterministic run."),
    Whole(name="priority", to="priority", default=0, low=-100, high=100, help="Higher goes first."),
    Decimal(name="cpus", to="cpus", default=0.0, high=1024.0, may_be_zero=False,
            help="Cores that one run needs of its worker; absent: one slot, whatever that is."),
    Whole(name="retries", to="retries", default=0, high=100,
          help="How often a run whose guest failed is tried again."),
    Word(name="spread", to="spread", default=str(Spread.PULL), words=tuple(map(str, Spread)),
         help="Which workers the runs go to: whoever is free, one after the other, any, or each of them once."),
    Whole(name="replicas", to="replicas", default="replicas_default", low=1, high=REPLICAS_MAX,
          help="Peers that each run is given to, until a quorum of them agrees; with quorum alone as many as make that"
          " a majority."),
    Whole(name="quorum", to="quorum", default="quorum_default", low=1, high=REPLICAS_MAX,
          help="Peers that must give the same result; with replicas alone: a majority of them."),
)  # fmt: skip
FILES_MAX: Final = Whole(name="files_max", to="files_bytes", default="files_default_bytes", low=1,
    high="files_max_bytes", help="Bytes that a run's file system may hold, with files.")  # fmt: skip
ARTIFACTS_MAX: Final = Whole(name="artifacts_max", to="artifact_bytes", default="artifacts_default_bytes", low=1,
    high="artifacts_max_bytes", help="Bytes of all artifacts of a run, before they are compressed.")  # fmt: skip
TEXTS: Final[tuple[Text, ...]] = (
    Text(name="id", pattern=ID_PATTERN, help="Unique; made when absent. The same id with the same content is the same"
         " task."),
    Text(name="name", characters_max=NAME_CHARACTERS_MAX, help="What people call the task; need not be unique."),
    Text(name="description", help="Free text."),
    Text(name="module", pattern=DIGEST_PATTERN, help="A module or component that is stored here already."),
    Text(name="entry", characters_min=1, characters_max=ENTRY_CHARACTERS_MAX, help="Exported function to call."),
    Text(name="args", is_repeated=True, help="Arguments, one each time."),
    Text(name="env", is_repeated=True, pattern="[^=]+=[\\s\\S]*",
         help="Environment variables, NAME=VALUE each; never shown."),
    Text(name="dirs", is_repeated=True, pattern=_PATH, count_max=PATHS_MAX,
         help="Folders of its file system that the guest may open; absent: all of it."),
    Text(name="artifacts", is_repeated=True, pattern=_PATH, count_max=PATHS_MAX,
         help="Files and folders of its file system to bring back."),
    Text(name="labels", is_repeated=True, pattern=LABEL_PATTERN + "=[ -~]{0,256}", count_max=LABELS_MAX,
         help="What the worker must say of itself, KEY=VALUE each."),
    Text(name="grants", help="Functions of a Python guest that its runs may have called, as a JSON array of objects."),
)  # fmt: skip
UPLOADS: Final[tuple[Upload, ...]] = (
    Upload(name="wasm", how="wasm=@FILE", help="A WebAssembly module or component; required unless module names one."),
    Upload(name="files", how="files=@FILE.zip", bytes_max="files_upload_max_bytes",
           help="A zip that is unpacked into the guest's file system."),
    Upload(name="tasks", how="tasks=@FILE.ndjson", bytes_max="batch_bytes_max",
           help="A batch: one JSON object a line, what one run has of its own."),
    Upload(name="inputs", how="inputs=@FILE.zip", bytes_max="batch_bytes_max",
           help="A batch: a zip of which each file is one run's stdin, and its path the run's name."),
    Upload(name="stdin", bytes_max="stdin_max_bytes", help="What the guest reads: text, or a file part."),
)  # fmt: skip
ALL: Final[dict[str, Field]] = {each.name: each for each in (*TEXTS, *VALUES, FILES_MAX, ARTIFACTS_MAX, *UPLOADS)}
OF_RUNS: Final = ("args", "env", "stdin", "files", "input", "difficulty", "seed", "name")
"""What each run of a batch may have of its own."""
RUN_NAME_CHARACTERS_MAX: Final = 1024
"""A run's name may be a path."""
NAMES: Final = tuple(sorted(ALL))
REPEATED: Final = frozenset(name for name, each in ALL.items() if each.is_repeated)
SINGLE: Final = frozenset(name for name, each in ALL.items() if not (each.is_repeated or each.is_file))


@lru_cache(maxsize=16)
def defaults(limits: RequestLimits) -> dict[str, Any]:
    """Return what the values of a Spec are when nothing is given, by their names there. Not to be changed."""
    return {each.to: each.filled_in(limits) for each in VALUES if each.default is not None}
