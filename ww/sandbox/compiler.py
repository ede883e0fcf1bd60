"""The main loop of a child process that compiles modules, and runs none.

Holds the way from a module's bytes to its artefact, both descriptors. Must not know who wants it. It is confined as an
executor is: compiling is a million lines of code that strangers feed.
"""

import os
from collections.abc import Sequence
from typing import Any

from ww import schema
from ww.component_inspect import check_component, inspect_component, is_component
from ww.errors import BadModule
from ww.sandbox import artefact
from ww.sandbox.component_program import compile_command
from ww.sandbox.confine import Protection
from ww.sandbox.invocation import GuestFault
from ww.sandbox.process import Setup, Wire, ready, until_death
from ww.sandbox.program import compile_module
from ww.sandbox.python_compile import compile_python
from ww.wasm_inspect import Kind


def start(wire: Wire, setup: Setup, protections: Sequence[Protection]) -> None:
    """Serve for ever, after the first reply."""
    until_death(lambda: _serve(wire, ready(protections)))


def _serve(wire: Wire, first: Any) -> None:
    wire.send(first)
    while True:
        data, descriptors = wire.receive()
        with schema.sandbox.Request.from_bytes(data) as request:
            reply = _answer(request.compile.digest, request.compile.metered, *descriptors)
        for fd in descriptors:
            os.close(fd)
        wire.send(reply)


def _compile_component(data: bytes, *, metered: bool) -> tuple[artefact.About, bytes]:
    try:
        kind = check_component(inspect_component(data))
    except BadModule as error:
        raise GuestFault("compile", str(error)) from None
    return (compile_python if kind is Kind.PYTHON else compile_command)(data, metered=metered)


def _answer(digest: bytes, metered: bool, module: int, compiled: int) -> Any:
    reply = schema.sandbox.Reply.new_message()
    try:
        data = artefact.read_module(module, digest)
        compile = _compile_component if is_component(data) else compile_module
        artefact.write(compiled, artefact.pack(*compile(data, metered=metered)))
        reply.compiled = None
    except GuestFault as fault:
        reply.failed = fault.detail
    except OSError as error:
        reply.missing = error.strerror or "unreadable"
    return reply
