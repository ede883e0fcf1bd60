"""Compiling a Python component: all of its core modules, and what is to be known to link them.

Holds the configuration that compiling and running share, and the form of a link plan in an artefact. Must not know how
it is linked: python_link.py does. Runs in the compiler's process.
"""

import re
from typing import Any, Final

import wasmtime
from wasmtime import _ffi as ffi

from ww.component_core import Item, Lift, Plan, read_plan
from ww.errors import BadModule
from ww.sandbox.artefact import About
from ww.sandbox.invocation import GuestFault
from ww.sandbox.program import make_config as make_module_config
from ww.sandbox.world import one_line
from ww.wasm_inspect import FunctionType
from ww.wasm_state import keeper

STACK_BYTES: Final = 64 << 20
"""Of the guest's calls. CPython looks at its stack in linear memory, of 1 MiB; this one must not be full before it."""
_NUMBERS: Final = frozenset({"i32", "i64", "f32", "f64"})
_EXPORT: Final = re.compile(r"ww:python/functions@1\.\d{1,4}\.\d{1,4}#(load|call)", re.ASCII)
_PARAMETERS: Final = {"load": 6, "call": 2}


def make_config(*, metered: bool) -> wasmtime.Config:
    """Return the configuration that compiling and running share; a change of it must change artefact.py's number.
    metered: see program.py."""
    config = make_module_config(metered=metered)
    config.max_wasm_stack = STACK_BYTES
    ffi.wasmtime_config_async_stack_size_set(config.ptr(), STACK_BYTES + (1 << 20))
    # Copied at once, so that every page that is not zero can be seen to be there: see checkpoint.py.
    ffi.wasmtime_config_memory_init_cow_set(config.ptr(), False)
    return config


def compile_python(data: bytes, *, metered: bool) -> tuple[About, bytes]:
    """Compile a component and return what is known of it, and its modules serialized, one after the other; the last one
    is the keeper. GuestFault says what is wrong with it."""
    try:
        plan = read_plan(data)
        said = _plan_json(plan)
        engine = wasmtime.Engine(make_config(metered=metered))
        sources = [module.data for module in plan.modules] + [keeper([kind for _, kind in plan.globals])]
        modules = [bytes(wasmtime.Module(engine, source).serialize()) for source in sources]
    except (BadModule, wasmtime.WasmtimeError) as error:
        raise GuestFault("compile", one_line(error)) from None
    said["sizes"] = [len(module) for module in modules]
    return About(is_component=True, needs_wasi=True, python=said), b"".join(modules)


def _plan_json(plan: Plan) -> dict[str, Any]:
    """Write a plan down. BadModule when its functions are not what they are to be."""
    lifts = {}
    for name, lift in plan.lifts.items():
        match = _EXPORT.fullmatch(name)
        if match is not None and match[1] not in lifts:
            lifts[match[1]] = lift
    for name, parameters in _PARAMETERS.items():
        if name not in lifts:
            raise BadModule(f"wasm: the component has no core function ww:python/functions@1#{name}")
        _check_lift(plan, name, lifts[name], parameters)
    assert plan.memory is not None
    return {
        "steps": [[step.module, [_item(item) for item in step.imports]] for step in plan.steps],
        "hosts": [
            [host.interface, host.name, host.realloc and _item(host.realloc), *_types(host.type, host.name)]
            for host in plan.hosts
        ],
        "memory": _item(plan.memory),
        "globals": [_item(item) for item, _ in plan.globals],
        "lifts": {
            name: [_item(item) for item in (lift.function, lift.realloc, lift.post_return) if item is not None]
            for name, lift in lifts.items()
        },
    }


def _check_lift(plan: Plan, name: str, lift: Lift, parameters: int) -> None:
    """See that numbers go in and out of it as the canonical ABI has it."""
    expected = (
        (lift.function, ("i32",) * parameters, ("i32",)),
        (lift.realloc, ("i32",) * 4, ("i32",)),
        (lift.post_return, ("i32",), ()),
    )
    for item, takes, gives in expected:
        if item is None and gives:
            raise BadModule(f"wasm: the component's function {name} has no realloc")
        if item is None:
            continue
        export = plan.modules[plan.steps[item.instance].module].info.exports.get(item.name) if item.host < 0 else None
        if export is None or export.signature != FunctionType(takes, gives):
            raise BadModule(f"wasm: the component's function {name} is not of the type that Python components have")


def _types(signature: FunctionType | None, name: str) -> list[Any]:
    if signature is None:  # nobody imports it
        return [[], []]
    if not {*signature.parameters, *signature.results} <= _NUMBERS:
        raise BadModule(f"wasm: the component asks for {name[:60]!r} with types that are no numbers")
    return [list(signature.parameters), list(signature.results)]


def _item(item: Item) -> list[Any]:
    return [item.instance, item.name] if item.host < 0 else [-1, item.host]
