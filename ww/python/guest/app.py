"""The component's entry: its exports, and the only place that knows its bindings.

Executed once, when the component is built: what is imported here is what the sandbox has.
"""

from wit_world.imports import environment, jobs

from ww.python.guest import standard, surroundings
from ww.python.guest.runtime import Runtime

MODULES = standard.import_all()
surroundings.prepare()
_runtime = Runtime(jobs, environment.get_environment)


class Functions:
    """The interface functions of world.wit."""

    def load(self, name: str, code: bytes, grants: bytes) -> bytes:
        """Import code and find a function in it."""
        return _runtime.load(name, code, grants)

    def call(self, request: bytes) -> bytes:
        """Call the function."""
        return _runtime.call(request)
