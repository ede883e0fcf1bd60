"""Two machines on one: network namespaces joined by a cable."""

import contextlib
import os
import shutil
import subprocess
import uuid
from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class Machine:
    """A namespace: what runs with `prefix` before it runs there."""

    name: str
    address: str

    @property
    def prefix(self) -> tuple[str, ...]:
        return ("ip", "netns", "exec", self.name)


def why_not() -> str:
    """Say why namespaces cannot be made here, or nothing."""
    if shutil.which("ip") is None:
        return "needs ip, of iproute2"
    if os.geteuid() != 0:
        return "only root may make network namespaces"
    name = f"ww-probe-{uuid.uuid4().hex[:6]}"
    made = subprocess.run(["ip", "netns", "add", name], capture_output=True, text=True, check=False)
    if made.returncode:
        return f"network namespaces are not permitted here: {made.stderr.strip()}"
    subprocess.run(["ip", "netns", "delete", name], check=True)
    return ""


@contextlib.contextmanager
def two_machines() -> Iterator[tuple[Machine, Machine]]:
    """Make two machines that reach each other and nothing else."""
    tag = uuid.uuid4().hex[:6]
    machines = (Machine(f"ww-a-{tag}", "10.123.45.1"), Machine(f"ww-b-{tag}", "10.123.45.2"))
    cables = (f"wwa{tag}", f"wwb{tag}")
    with contextlib.ExitStack() as stack:
        for machine in machines:
            _ip("netns", "add", machine.name)
            stack.callback(_ip, "netns", "delete", machine.name)
        _ip("link", "add", cables[0], "netns", machines[0].name, "type", "veth",
            "peer", "name", cables[1], "netns", machines[1].name)  # fmt: skip
        for machine, cable in zip(machines, cables, strict=True):
            _ip("-n", machine.name, "address", "add", f"{machine.address}/24", "dev", cable)
            _ip("-n", machine.name, "link", "set", cable, "up")
            _ip("-n", machine.name, "link", "set", "lo", "up")
        yield machines


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)
