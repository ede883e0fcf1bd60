"""Several machines on one: network namespaces, joined by a cable. Gone when the test ends, however it ends."""

import contextlib
import functools
import os
import shutil
import subprocess
import uuid
from collections.abc import Iterator
from dataclasses import dataclass

LOOPBACK = "127.0.0.1"


@dataclass(frozen=True)
class Machine:
    """A namespace: what runs with `prefix` before it runs there."""

    name: str
    address: str

    @property
    def prefix(self) -> tuple[str, ...]:
        """Words to put before a command, which then has the process id that was started: ip is replaced by it."""
        return ("ip", "netns", "exec", self.name)


@functools.cache
def why_not() -> str:
    """Say why namespaces cannot be made here, or nothing."""
    if shutil.which("ip") is None:
        return "needs ip, of iproute2"
    if os.geteuid() != 0:
        return "only root may make network namespaces"
    try:
        # All of it: containers exist that may make a namespace and not enter it, or have no cables.
        with two_machines() as (machine, _):
            subprocess.run([*machine.prefix, "true"], check=True, capture_output=True, text=True)
    except (subprocess.CalledProcessError, OSError) as error:
        said = error.stderr.strip() if isinstance(error, subprocess.CalledProcessError) else str(error)
        return f"network namespaces are not permitted here: {said}"
    return ""


@contextlib.contextmanager
def one_machine() -> Iterator[Machine]:
    """Make a machine that reaches nothing but itself; every port of it is free."""
    machine = Machine(f"ww-{uuid.uuid4().hex[:8]}", LOOPBACK)
    with contextlib.ExitStack() as stack:
        _add(machine, stack)
        yield machine


@contextlib.contextmanager
def two_machines() -> Iterator[tuple[Machine, Machine]]:
    """Make two machines that reach each other and nothing else."""
    tag = uuid.uuid4().hex[:6]
    machines = (Machine(f"ww-a-{tag}", "10.123.45.1"), Machine(f"ww-b-{tag}", "10.123.45.2"))
    cables = (f"wwa{tag}", f"wwb{tag}")
    with contextlib.ExitStack() as stack:
        for machine in machines:
            _add(machine, stack)
        _ip("link", "add", cables[0], "netns", machines[0].name, "type", "veth",
            "peer", "name", cables[1], "netns", machines[1].name)  # fmt: skip
        for machine, cable in zip(machines, cables, strict=True):
            _ip("-n", machine.name, "address", "add", f"{machine.address}/24", "dev", cable)
            _ip("-n", machine.name, "link", "set", cable, "up")
        yield machines


class Lan:
    """Machines on one switch."""

    def __init__(self, machines: tuple[Machine, ...], switch: str) -> None:
        self.machines = machines
        self._switch = switch

    def cut(self, machine: Machine) -> None:
        """Pull a machine's cable out of the switch."""
        self._set(machine, "down")

    def plug_in(self, machine: Machine) -> None:
        """Put it back."""
        self._set(machine, "up")

    def _set(self, machine: Machine, state: str) -> None:
        _ip("-n", self._switch, "link", "set", f"port{self.machines.index(machine)}", state)


@contextlib.contextmanager
def lan(count: int) -> Iterator[Lan]:
    """Make that many machines that reach each other, by a switch, and nothing else."""
    tag = uuid.uuid4().hex[:6]
    machines = tuple(Machine(f"ww-{number}-{tag}", f"10.123.46.{number + 1}") for number in range(count))
    switch = f"ww-switch-{tag}"
    with contextlib.ExitStack() as stack:
        _add(Machine(switch, LOOPBACK), stack)
        _ip("-n", switch, "link", "add", "bridge0", "type", "bridge", "mcast_snooping", "0")
        _ip("-n", switch, "link", "set", "bridge0", "up")
        for number, machine in enumerate(machines):
            _add(machine, stack)
            port = f"port{number}"
            _ip("-n", switch, "link", "add", port, "type", "veth", "peer", "name", "eth0", "netns", machine.name)
            _ip("-n", switch, "link", "set", port, "master", "bridge0", "up")
            _ip("-n", machine.name, "address", "add", f"{machine.address}/24", "dev", "eth0")
            _ip("-n", machine.name, "link", "set", "eth0", "up")
        yield Lan(machines, switch)


def _add(machine: Machine, stack: contextlib.ExitStack) -> None:
    _ip("netns", "add", machine.name)
    # The cable goes with the namespace at its end.
    stack.callback(_ip, "netns", "delete", machine.name)
    _ip("-n", machine.name, "link", "set", "lo", "up")


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True)
