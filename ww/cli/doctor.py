"""`ww doctor`: see what this machine gives to ww, and what it does not."""

import argparse
import asyncio
import dataclasses
import importlib.metadata
import json
import os
import platform
import socket
import tempfile
from pathlib import Path

from ww import __version__
from ww.cli.parser import Parser
from ww.cli.process import log_to_stderr
from ww.cli.runtime import NATIVE, RUNTIMES, look_for
from ww.cli.table import show
from ww.directories import cache_directory, state_directory
from ww.discovery.interface import interfaces
from ww.discovery.multicast import DEFAULT_GROUP, Link
from ww.errors import WwError
from ww.sandbox.child import Child
from ww.sandbox.confine import GIVEN, NEEDLESS, ConfinementConfig
from ww.sandbox.limits import SandboxLimits


@dataclasses.dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at."""

    name: str
    given: bool | None
    """None where there is no need of it."""
    detail: str
    essential: bool = False

    @property
    def is_fine(self) -> bool:
        """Whether ww can do its work, as far as this goes."""
        return self.given is not False or not self.essential


def add_to(parser: Parser) -> None:
    """Add what the command takes."""
    parser.description = (
        "Start one sandbox process, say how it is confined, and look at what else ww uses of this"
        " machine. Exits with 1 when something is missing that a worker should not run without."
    )
    parser.option(
        "--state", Path, "directory for keys and a gateway's database ($XDG_STATE_HOME/ww)",
        default=state_directory(), metavar="DIR",
    )  # fmt: skip
    parser.option(
        "--cache", Path, "directory for modules ($XDG_CACHE_HOME/ww)", default=cache_directory(), metavar="DIR"
    )
    parser.add_argument("--json", action="store_true", help="one JSON object")
    parser.set_defaults(run=lambda arguments: asyncio.run(main(arguments)))


async def main(arguments: argparse.Namespace) -> int:
    """Look at everything once."""
    log_to_stderr("error")
    checks = [
        Check("ww", True, __version__),
        Check("Python", True, platform.python_version()),
        Check("wasmtime", True, importlib.metadata.version("wasmtime")),
        *_runtimes(),
        Check("cores", True, str(_cores())),
        _memfd(),
        _multicast(),
        _ip6(),
        _directory("state directory", arguments.state),
        _directory("cache directory", arguments.cache),
        *await _sandbox(),
    ]
    is_fine = all(check.is_fine for check in checks)
    if arguments.json:
        print(json.dumps({"ok": is_fine, "checks": [dataclasses.asdict(check) for check in checks]}), flush=True)
    else:
        show(("CHECK", "GIVEN", "DETAIL"), [(check.name, _given(check), check.detail) for check in checks])
    return 0 if is_fine else 1


def _given(check: Check) -> str:
    if check.given is None:
        return "-"
    return "yes" if check.given else "no" if check.is_fine else "no, and needed"


def _cores() -> int:
    # As workers count their slots.
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _runtimes() -> list[Check]:
    return [Check(f"--runtime {name}", *look_for(name)) for name in RUNTIMES if name != NATIVE]


def _memfd() -> Check:
    try:
        os.close(os.memfd_create("ww-doctor"))
    except (OSError, AttributeError):
        return Check("memfd", False, "guests' output goes through files in the temporary directory")
    return Check("memfd", True, "guests' output stays in memory")


def _multicast() -> Check:
    found = []
    for interface in interfaces():
        if interface.is_up:
            try:
                Link(DEFAULT_GROUP, interface, lambda *_: None).close()
            except OSError:
                continue
            found.append(interface.name)
    return Check("multicast", bool(found), ", ".join(found) or "nodes find each other by --addr alone")


def _ip6() -> Check:
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError as error:
        return Check("IPv6", False, (error.strerror or "refused").lower())
    return Check("IPv6", True, "::1")


def _directory(name: str, path: Path) -> Check:
    """Look whether path can be written, or made; nothing is left there."""
    try:
        nearest = path if path.exists() else next(above for above in path.absolute().parents if above.exists())
        with tempfile.TemporaryFile(dir=nearest):
            made = "" if nearest is path else ", which is made when it is needed"
            return Check(name, True, f"{path}{made}", essential=True)
    except OSError as error:
        return Check(name, False, f"{path}: {(error.strerror or 'unusable').lower()}", essential=True)


async def _sandbox() -> list[Check]:
    child = Child("executor", SandboxLimits(), ConfinementConfig())
    try:
        await child.start()
    except (WwError, OSError) as error:
        return [Check("sandbox", False, str(error), essential=True)]
    await child.aclose()
    return [
        Check(
            f"sandbox: {protection.name}",
            None if protection.state == NEEDLESS else protection.state == GIVEN,
            protection.detail,
            protection.is_essential,
        )
        for protection in child.protections
    ]
