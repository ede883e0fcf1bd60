"""Components where modules are run: the same way in, and the same limits.

Holds what joins component.py to engine.py. Must not know how a component runs.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import wasmtime

from ww.component_inspect import check_command, inspect_component
from ww.errors import BadModule
from ww.sandbox.artefact import About
from ww.sandbox.component import ComponentProgram as Loaded
from ww.sandbox.component import Components, compile_component, make_config
from ww.sandbox.invocation import GuestFault, Invocation, Result, RunLimits
from ww.sandbox.output import Output
from ww.sandbox.watchdog import Watchdog


def compile_command(data: bytes, *, metered: bool) -> tuple[About, bytes]:
    """Compile a component and return what is known of it, and it serialized. GuestFault says what is wrong with it."""
    try:
        check_command(inspect_component(data))
    except BadModule as error:
        raise GuestFault("compile", str(error)) from None
    serialized = compile_component(data, fuel=metered, deterministic=metered)
    return About(is_component=True, needs_wasi=True), serialized


@dataclass(slots=True)
class ComponentProgram:
    """A component that is loaded and known to link."""

    kind: "ComponentKind"
    about: About
    loaded: Loaded
    size_bytes: int
    framing_bytes: int = 0


class ComponentKind:
    """Loads and runs components, one at a time."""

    def __init__(self, output: Output, watchdog: Watchdog, *, metered: bool, deterministic: bool) -> None:
        self._output = output
        self._watchdog = watchdog
        self.engine = wasmtime.Engine(make_config(fuel=metered, deterministic=metered))
        self._components = Components(self.engine, fuel=metered, deterministic=deterministic)

    def load(self, about: About, serialized: bytes) -> ComponentProgram:
        """Load what compile_command made. See Engine.load."""
        return ComponentProgram(self, about, self._components.load(serialized), len(serialized))

    def run(
        self, program: ComponentProgram, invocation: Invocation, limits: RunLimits, folders: Sequence[tuple[str, str]]
    ) -> Result:
        """Run a command in a fresh instance to its end. See Modules.run."""
        result = Result()
        # A component's first instance is made without a limit: wasmtime writes the image of its memory to a file.
        if program.loaded.is_warm:
            self._output.limit(limits.files_bytes)
        else:
            self._output.cap.lift()
        try:
            if invocation.entry:
                raise GuestFault("compile", "a component has no entry to name: it is run as a command")
            self._components.run(
                program.loaded, invocation, limits, result, folders, lambda: self._output.limit(limits.files_bytes)
            )
        except GuestFault as fault:
            result.reason, result.detail = fault.reason, fault.detail
            if fault.reason == "deadline" and self._watchdog.reason is not None:
                result.reason = self._watchdog.reason
            if fault.reason in ("deadline", "fuel"):
                result.detail = ""  # engine.py has the figures
        return result
