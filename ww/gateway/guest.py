"""Which kind of guest an upload is, be it a module or a component.

Holds the choice between the two readers. Must not know where the bytes come from, nor what a task wants of them.
"""

import itertools
import mmap
from dataclasses import dataclass
from typing import Final

from ww.component_inspect import check_component, inspect_component, is_component
from ww.errors import BadModule, UsageError
from ww.gateway.fields import ENTRY_CHARACTERS_MAX
from ww.wasm_inspect import Guest, Kind, callable_of, guest_of, inspect

_BY_ITSELF: Final = ("_start", "_initialize")
# Shown of a module; the others can be called all the same.
_ENTRIES_MAX: Final = 1000


@dataclass(frozen=True, slots=True)
class About:
    """What a module is, whatever a task would want of it."""

    kind: Kind
    """How it is run when no entry is named, or, where it has to be, how it is run then."""
    entries: tuple[str, ...]
    """The exported functions that a task can name, in their order: the first 1,000."""


def read_guest(data: bytes | mmap.mmap, wanted: str | None) -> Guest:
    """Say what the bytes are run as; wanted is the exported function that was asked for.

    BadModule when no worker can run them, UsageError when they cannot be what was asked for.
    """
    if is_component(data):
        kind = check_component(inspect_component(data))
        if wanted is not None:
            why = "a component is run as a command, and has no functions to call by name"
            if kind is Kind.PYTHON:
                why = "a Python component's function is named in args, as module:qualname"
            raise UsageError(f"entry: {why}", "entry")
        return Guest(kind)
    if wanted in _BY_ITSELF:
        raise UsageError(f"entry: {wanted} is called by itself; leave entry out to run a WASI command", "entry")
    return guest_of(inspect(data), wanted)


def about(data: bytes | mmap.mmap) -> About:
    """Say what the bytes are. BadModule when no task can run them."""
    if is_component(data):
        return About(read_guest(data, None).kind, ())
    info = inspect(data)
    names = (name for name in callable_of(info) if name not in _BY_ITSELF and 0 < len(name) <= ENTRY_CHARACTERS_MAX)
    entries = tuple(itertools.islice(names, _ENTRIES_MAX))
    try:
        return About(guest_of(info).kind, entries)
    except BadModule:
        if not entries:
            raise
        return About(guest_of(info, entries[0]).kind, entries)
