"""The options that say what a task is: those that ww run and ww map share.

Holds how they are read, and the fields that they become. Must not know what is done with them.
"""

import os
import sys
from argparse import Namespace
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any, Final

from ww.cli.parser import Append, Parser, argument, count, decimal, integer, key_value, seconds, size, whole
from ww.errors import UsageError

_STDIN_BYTES_MAX: Final = 64 << 20
_SPREADS: Final = ("pull", "roundrobin", "random", "everywhere")

_Option = tuple[str, str, Callable[[str], Any], str, str]
OPTIONS: Final[tuple[_Option, ...]] = (
    ("--id", "id", str, "ID", "the task's id; the same id with the same content is the same task (made)"),
    ("--name", "name", str, "TEXT", "what to call it"),
    ("--description", "description", str, "TEXT", "what it is"),
    ("--entry", "entry", str, "NAME", "exported function to call"),
    ("--input", "input", whole, "N", "first number for run(input, difficulty)"),
    ("--difficulty", "difficulty", whole, "N", "second number"),
    ("--files", "files", str, "DIR|ZIP", "what the guest's file system begins with; links are left out"),
    ("--repeats", "repeats", count, "N", "number of runs (1)"),
    ("--start", "start_s", seconds, "TIME", "until the first run: 30, 2.5s, 10m (0)"),
    ("--delay", "delay_s", seconds, "TIME", "between the starts of runs (0: all at once)"),
    ("--duration", "duration_s", seconds, "TIME", "one run may take"),
    ("--complete", "complete", whole, "N", "initial value of the completion counter (0)"),
    ("--memory", "memory_bytes", size, "BYTES", "a run may have: 65536, 64M"),
    ("--output", "output_bytes", size, "BYTES", "of stdout and of stderr that are kept, each"),
    ("--files-max", "files_bytes_max", size, "BYTES", "the guest's file system may hold"),
    ("--artifacts-max", "artifacts_bytes_max", size, "BYTES", "of artifacts a run may leave"),
    ("--cpu-seconds", "cpu_seconds", seconds, "TIME", "of processor time a run may take"),
    ("--fuel", "fuel", count, "N", "WebAssembly instructions a run may execute, roughly"),
    ("--cpus", "cpus", decimal, "N", "processors a run needs"),
    ("--priority", "priority", integer, "N", "-100 to 100: the higher, the earlier (0)"),
    ("--retries", "retries", whole, "N", "how often a run is run again when the guest fails (0)"),
    ("--seed", "seed", whole, "N", "of the random numbers of a deterministic run"),
    ("--spread", "spread", lambda text: _spread(text), "HOW", f"runs go to workers: {', '.join(_SPREADS)} (pull)"),
    ("--replicas", "replicas", count, "N", "peers that a run is given to, of which a quorum has to agree (1)"),
    ("--quorum", "quorum", count, "M", "peers that have to give the same result (a majority of --replicas)"),
)
REPEATED: Final[tuple[_Option, ...]] = (
    ("--dir", "dirs", str, "PATH", "folder that the guest may open, under that name; repeatable (all, as /)"),
    ("--artifact", "artifacts", str, "PATH", "file or folder of it to bring back; repeatable"),
    ("--env", "env", lambda text: _env(text), "NAME[=VALUE]", "a variable; without = its value here; repeatable"),
    ("--label", "labels", key_value, "KEY=VALUE", "what its worker has to say of itself; repeatable"),
)
_ALL: Final = frozenset(name for _, name, *_ in (*OPTIONS, *REPEATED))
_NOTHING: Final[Mapping[str, str]] = {}


def add_task_options(parser: Parser, names: Collection[str] = _ALL, flags: Mapping[str, str] = _NOTHING) -> None:
    """Add the options of the fields of those names. flags: those that are called otherwise."""
    for flag, name, kind, metavar, help in OPTIONS:
        if name in names:
            flag = flags.get(name, flag)
            parser.add_argument(flag, type=argument(kind), dest=f"task_{name}", metavar=metavar, help=help)
    for flag, name, kind, metavar, help in REPEATED:
        if name in names:
            parser.add_argument(
                flag, type=argument(kind), dest=f"task_{name}", action=Append, default=[], metavar=metavar, help=help
            )
    parser.add_argument("--deterministic", action="store_true", help="the same task has the same outcome everywhere")


def task_fields(arguments: Namespace) -> dict[str, Any]:
    """Return what the options say of a task."""
    values = {name: getattr(arguments, f"task_{name}", None) for name in sorted(_ALL)}
    fields: dict[str, Any] = {name: value for name, value in values.items() if value not in (None, [])}
    for name in ("env", "labels"):
        if name in fields:
            fields[name] = _mapping(name, fields[name])
    if arguments.deterministic:
        fields["deterministic"] = True
    return fields


def _mapping(name: str, pairs: list[tuple[str, str]]) -> dict[str, str]:
    mapping = dict(pairs)
    if len(mapping) < len(pairs):
        raise UsageError(f"{name}: a name is given more than once", name)
    return mapping


def _env(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not name:
        raise UsageError("expected NAME or NAME=VALUE")
    if not equals and (found := os.environ.get(name)) is not None:
        return name, found
    if not equals:
        raise UsageError(f"{name[:40]!r} has no value here: expected NAME=VALUE, or a variable that is set")
    return name, value


def _spread(text: str) -> str:
    if text not in _SPREADS:
        raise UsageError(f"{text[:40]!r} is not one of {', '.join(_SPREADS)}")
    return text


def read_stdin(name: str, field: str = "stdin") -> bytes:
    """Return what a guest is to read: a file's content, or with - what the command itself is given."""
    try:
        if name == "-":
            content = sys.stdin.buffer.read(_STDIN_BYTES_MAX + 1)
        else:
            with Path(name).open("rb") as file:
                content = file.read(_STDIN_BYTES_MAX + 1)
    except OSError as error:
        raise UsageError(f"{field}: {name}: {error.strerror}", field) from None
    if len(content) > _STDIN_BYTES_MAX:
        raise UsageError(f"{field}: {name}: more than {_STDIN_BYTES_MAX} bytes", field)
    return content
