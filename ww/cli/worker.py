"""`ww worker`: offer this machine's slots to a gateway."""

import argparse
import asyncio
import logging
from pathlib import Path
from typing import Final

from ww.cli.options import add_node_options, add_ticket_options, dialled, node_config
from ww.cli.parser import Parser, count, niceness, seconds, size, whole
from ww.cli.process import log_to_stderr, on_stop_signals
from ww.cli.runtime import NATIVE, add_runtime_options, become, check_native
from ww.clock import SystemClock
from ww.directories import cache_directory
from ww.errors import UsageError
from ww.identity import PeerId
from ww.node import Node
from ww.rpc.loop import run
from ww.sandbox.confine import ConfinementConfig
from ww.sandbox.limits import SandboxLimits
from ww.sandbox.modules import ModuleCache
from ww.sandbox.pool import SandboxPool
from ww.worker import Worker, WorkerConfig

log = logging.getLogger("ww.worker")

_MEMORY_MAX: Final = 4 << 30


def add_to(parser: Parser) -> None:
    """Add what the command takes."""
    parser.description = (
        "Offer this machine's slots to a gateway, and run there what it sends. Reconnects when the"
        " gateway goes away. The first ctrl-C lets running guests finish, the second stops at once."
    )
    add_node_options(parser)
    config, limits, confinement = WorkerConfig(), SandboxLimits(), ConfinementConfig()
    parser.option("--dial", PeerId.parse, "peer id of the gateway", metavar="PEER_ID")
    add_ticket_options(parser)
    parser.option("--key", Path, "file of the key pair (a new key each start)", metavar="FILE")
    parser.option("--slots", count, f"runs at once (one per core: {config.slots})", default=config.slots, metavar="N")
    parser.option(
        "--grace", seconds, f"seconds running guests may take to finish when stopping ({config.grace_s:g})",
        default=config.grace_s, metavar="N",
    )  # fmt: skip
    parser.option(
        "--cache", Path, "directory for modules, shared by the workers of a machine ($XDG_CACHE_HOME/ww)",
        default=cache_directory(), metavar="DIR",
    )  # fmt: skip
    parser.option(
        "--nice", niceness, f"how much the processor prefers others to guests, 0 to 19 ({confinement.nice})",
        default=confinement.nice, metavar="N",
    )  # fmt: skip
    parser.limits(
        ("--cache-max", size, 1 << 30, "bytes of that directory"),
        ("--module-max", size, config.module_bytes_max, "bytes of one module"),
        ("--memory-max", size, limits.memory_bytes_max, "bytes of memory of one run, whatever it asks for"),
        ("--duration-max", seconds, limits.duration_max_s, "seconds of one run, whatever it asks for"),
        ("--output-max", size, limits.output_bytes_max, "bytes kept of a run's stdout and of its stderr"),
        ("--input-max", size, limits.input_bytes_max, "bytes one run is given: stdin, args, env and files"),
        (
            "--held-max",
            size,
            config.held_bytes_max,
            "bytes of inputs, and of outcomes not asked for, that wait on a slot",
        ),
        (
            "--nesting",
            whole,
            config.nesting,
            "depth of calls within calls of Python functions; 0: no run calls another",
        ),
        ("--files-max", size, limits.files_bytes_max, "bytes of a run's file system"),
        ("--files-count", count, limits.files_count_max, "files and folders in it"),
        ("--artifacts-max", size, limits.artifact_bytes_max, "bytes a run may bring back as artifacts"),
        ("--compile-timeout", seconds, limits.compile_max_s, "seconds compiling a module may take"),
        ("--compile-memory", size, limits.compile_memory_bytes_max, "bytes of memory compiling a module may take"),
        ("--runs-per-process", count, limits.runs_per_child, "runs until a sandbox process is replaced by a fresh one"),
        ("--growth-per-process", size, limits.growth_bytes_per_child, "bytes it may have grown until it is"),
        (
            "--loaded-max",
            size,
            limits.module_bytes_max,
            "bytes of compiled modules a sandbox process keeps loaded",
        ),
    )
    add_runtime_options(parser)
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> int:
    _check(arguments)
    if arguments.runtime != NATIVE:
        return become(arguments)
    check_native(arguments)
    return run(lambda: main(arguments))


def _check(arguments: argparse.Namespace) -> None:
    for name in ("duration_max", "compile_timeout"):
        if not getattr(arguments, name):
            raise UsageError(f"--{name.replace('_', '-')} 0: expected a time above 0", name)
    if arguments.memory_max > _MEMORY_MAX:
        raise UsageError("--memory-max: WebAssembly has at most 4G of memory", "memory-max")


async def main(arguments: argparse.Namespace) -> int:
    """Work until told to stop."""
    log_to_stderr(arguments.log, as_json=arguments.log_json)
    gateway = dialled(arguments)
    config = WorkerConfig(
        slots=arguments.slots,
        labels=dict(arguments.meta),
        grace_s=arguments.grace,
        module_bytes_max=arguments.module_max,
        held_bytes_max=arguments.held_max,
        nesting=arguments.nesting,
    )
    limits = SandboxLimits(
        duration_max_s=arguments.duration_max,
        memory_bytes_max=arguments.memory_max,
        output_bytes_max=arguments.output_max,
        input_bytes_max=arguments.input_max,
        files_bytes_max=arguments.files_max,
        files_count_max=arguments.files_count,
        artifact_bytes_max=arguments.artifacts_max,
        compile_max_s=arguments.compile_timeout,
        compile_memory_bytes_max=arguments.compile_memory,
        runs_per_child=arguments.runs_per_process,
        growth_bytes_per_child=arguments.growth_per_process,
        module_bytes_max=arguments.loaded_max,
    )
    confinement = ConfinementConfig(nice=arguments.nice)
    task = asyncio.current_task()
    assert task is not None
    modules = ModuleCache(arguments.cache, quota_bytes=arguments.cache_max)
    try:
        async with (
            Node(node_config(arguments, arguments.key, "worker")) as node,
            SandboxPool(
                modules, slots=config.slots, limits=limits, confinement=confinement, nesting=config.nesting
            ) as sandbox,
        ):
            worker = Worker(node, gateway, sandbox, modules, SystemClock(), config)
            on_stop_signals(worker.drain, task.cancel)
            await node.listen(worker.load)
            log.info("worker %s", node.peer_id)
            await worker.serve()
    except asyncio.CancelledError:
        return 130
    return 0
