"""A confined process that runs commands, and that the kernel kills for any system call that is not on the list.

As strict_executor.py, for components: plain and deterministic ones, each twice.
"""

import os
import threading

import wasmtime

from tests import components as guests
from tests.sandbox import strict_executor  # noqa: F401 - it replaces the filter
from ww.sandbox.component import ComponentProgram, Components, compile_component, make_config
from ww.sandbox.confine import ConfinementConfig, confine
from ww.sandbox.invocation import GuestFault, Invocation, Result, RunLimits

EXPECTED = [
    (guests.NOOP, "ok"), (guests.SAYS_ARGUMENTS, "ok"), (guests.ECHOES, "ok"), (guests.WRITES_ONLY, "ok"),
    (guests.exits(200), "exit"), (guests.TRAPS, "trap"), (guests.RECURSES, "trap"), (guests.GROWS, "trap"),
    (guests.SPINS, "deadline"), (guests.sleeps(0.05), "ok"), (guests.MAKES_SOCKETS, "ok"), (guests.HOARDS, "trap"),
    (guests.STARTS_LARGE, "memory"), (guests.SAYS_RANDOM_BYTES, "ok"), (guests.SAYS_WALL_CLOCK_AND_SEED, "ok"),
]  # fmt: skip


def run_all(answer: int) -> None:
    try:
        for deterministic, compiled in COMPILED.items():
            engine = wasmtime.Engine(make_config(deterministic=deterministic))
            components = Components(engine, deterministic=deterministic)
            for serialized, expected in compiled * 2:
                assert run(components, engine, components.load(serialized)) == expected
        os.write(answer, b"all ended as expected\n")
        os._exit(0)
    finally:
        os._exit(1)


def run(components: Components, engine: wasmtime.Engine, program: ComponentProgram) -> str:
    timer = threading.Timer(0.2, engine.increment_epoch)
    timer.start()
    try:
        limits = RunLimits(duration_s=0.2, memory_bytes=16 << 20, output_bytes=1 << 20)
        components.run(program, Invocation(args=["a"], env=[("b", "c")], stdin=b"d"), limits, Result())
    except GuestFault as fault:
        return fault.reason
    finally:
        timer.cancel()
        timer.join()
    return "ok"


if __name__ == "__main__":
    COMPILED = {
        deterministic: [
            (compile_component(component, deterministic=deterministic), reason) for component, reason in EXPECTED
        ]
        for deterministic in (False, True)
    }
    answer = os.dup(1)
    for fd in (1, 2):
        file = os.memfd_create("output")
        os.dup2(file, fd)
        os.close(file)
    confine(ConfinementConfig(nice=0), descriptors={0, 1, 2, answer})
    # A stack as an executor has it; and the filter has to hold for a thread that begins under it.
    threading.stack_size(8 << 20)
    thread = threading.Thread(target=run_all, args=(answer,))
    thread.start()
    thread.join()
