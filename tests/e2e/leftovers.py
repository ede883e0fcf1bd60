"""A cluster that must clean up after itself: what a killed or stopped process leaves behind fails the test."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from tests.e2e.processes import Cluster, Program, sandboxes_of, wait_until


def wait_without_sandboxes(program: Program) -> None:
    """Wait until no sandbox of a node that ended is left."""
    wait_until(lambda: not sandboxes_of(program.pid), f"the sandboxes of {program.pid} are gone")


class CleanCluster(Cluster):
    """Kills its nodes alone at the end, and asks that their sandboxes go by themselves."""

    def lose(self, program: Program) -> None:
        """kill -9 a node for good, in the midst of a test."""
        program.kill()
        wait_without_sandboxes(program)
        self.forget(program)

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
