"""A cluster that must clean up after itself: what a killed or stopped process leaves behind fails the test.

Holds the finding of sandbox processes whose node is gone, which nobody's list of children names any more.
"""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from tests.e2e.processes import Cluster, Program, is_running, wait_until


def sandboxes_of(pid: int, role: str = "") -> list[int]:
    """Return the sandbox processes that node pid started, also when it is gone; those of one role when it is named."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            # ... -m ww.sandbox.executor ROLE DESCRIPTOR PID-OF-THE-NODE BYTES
            words = (folder / "cmdline").read_bytes().decode(errors="replace").split("\0")
            if "ww.sandbox.executor" in words:
                its_role, _, node = words[words.index("ww.sandbox.executor") + 1 :][:3]
                if node == str(pid) and its_role.startswith(role) and is_running(int(folder.name)):
                    found.append(int(folder.name))
    return found


def wait_without_sandboxes(program: Program) -> None:
    """Wait until no sandbox of a node that ended is left."""
    wait_until(lambda: not sandboxes_of(program.pid), f"the sandboxes of {program.pid} are gone")


class CleanCluster(Cluster):
    """Kills its nodes alone at the end, and asks that their sandboxes go by themselves."""

    def close(self) -> None:
        try:
            for program in reversed(self._programs):
                program.kill()
                wait_without_sandboxes(program)
        finally:
            super().close()


@contextlib.contextmanager
def clean_cluster_in(directory: Path) -> Iterator[CleanCluster]:
    cluster = CleanCluster(directory)
    try:
        yield cluster
    finally:
        cluster.close()
