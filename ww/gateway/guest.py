"""Which kind of guest an upload is, be it a module or a component.

Holds the choice between the two readers. Must not know where the bytes come from, nor what a task wants of them.
"""

import mmap

from ww.component_inspect import check_command, inspect_component, is_component
from ww.errors import UsageError
from ww.wasm_inspect import Guest, Kind, guest_of, inspect


def read_guest(data: bytes | mmap.mmap, wanted: str | None) -> Guest:
    """Say what the bytes are run as; wanted is the exported function that was asked for.

    BadModule when no worker can run them, UsageError when they cannot be what was asked for.
    """
    if is_component(data):
        if wanted is not None:
            raise UsageError("entry: a component is run as a command, and has no functions to call by name", "entry")
        check_command(inspect_component(data))
        return Guest(Kind.COMPONENT)
    if wanted in ("_start", "_initialize"):
        raise UsageError(f"entry: {wanted} is called by itself; leave entry out to run a WASI command", "entry")
    return guest_of(inspect(data), wanted)
