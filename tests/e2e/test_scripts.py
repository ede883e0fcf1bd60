"""scripts/demo and scripts/test, the commands of README.md's "Try it", run as a newcomer runs them: from anywhere."""

import contextlib
import os
import signal
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.processes import children_of, is_running, wait_until
from tests.e2e.test_readme import blocks, commands
from tests.guests import ROOT


class Script:
    """A script in a terminal of its own, and all processes that descend from it as long as they are seen."""

    def __init__(self, line: str, directory: Path) -> None:
        """Start line's script with directory as its home, its folder for temporary files and its working directory."""
        script, *arguments = line.split()
        environment = {name: value for name, value in os.environ.items() if not name.startswith(("WW_", "PYTEST_"))}
        self.temporary = directory / "tmp"
        self.temporary.mkdir()
        self.process = subprocess.Popen(
            [ROOT / script, *arguments],
            cwd=directory, env=environment | {"HOME": str(directory), "TMPDIR": str(self.temporary)},
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
        )  # fmt: skip
        self._lines: list[str] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self._descendants: set[int] = set()

    def _read(self) -> None:
        assert self.process.stdout is not None
        self._lines.extend(self.process.stdout)  # line by line, as they come

    @property
    def output(self) -> str:
        return "".join(self._lines)

    def look(self) -> set[int]:
        """Take note of the processes that descend from it now, and return all that were ever seen."""
        found = [self.process.pid]
        for pid in found:  # which grows on the way
            found.extend(children_of(pid))
        self._descendants.update(found[1:])
        return self._descendants

    def has_ended(self) -> bool:
        self.look()
        return self.process.poll() is not None

    def has_posted(self) -> bool:
        """Whether the demo waits for its task now; True also when there is nothing to wait for."""
        return self.has_ended() or "0/3 runs complete" in self.output

    def wait(self, bound_s: float) -> int:
        """Return its exit code when it has ended and said everything."""
        wait_until(self.has_ended, f"{self.process.args} ends", bound_s)
        self._reader.join(bound_s)
        return self.process.returncode

    def remaining(self) -> list[int]:
        """Return what it started and left running."""
        return [pid for pid in self._descendants if is_running(pid)]

    def close(self) -> None:
        self.look()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        # After it: what it started is in process groups of its own.
        for pid in self._descendants:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait()
        self._reader.join(10)
        assert self.process.stdout is not None
        self.process.stdout.close()


@contextlib.contextmanager
def script(line: str, directory: Path) -> Iterator[Script]:
    started = Script(line, directory)
    try:
        yield started
    finally:
        started.close()


def test_these_are_the_commands() -> None:
    assert commands("Try it") == ["scripts/demo", "scripts/test"]


@pytest.mark.timeout(300)
def test_the_demo(tmp_path: Path) -> None:
    demo, _ = commands("Try it")
    with script(demo, tmp_path) as run:
        assert run.wait(240) == 0, run.output
        (shown,) = blocks("Try it", "text")
        assert shown.count("2832") == 3
        assert shown in run.output
        assert len(run.look()) >= 5, "a gateway, two workers and their sandboxes were seen"
        assert run.remaining() == []
        assert list(run.temporary.iterdir()) == []


@pytest.mark.timeout(300)
def test_the_demo_interrupted_leaves_nothing(tmp_path: Path) -> None:
    demo, _ = commands("Try it")
    with script(demo, tmp_path) as run:
        wait_until(run.has_posted, "the task is posted", 120)
        os.killpg(run.process.pid, signal.SIGINT)
        assert run.wait(60) == 130, run.output
        assert run.remaining() == []
        assert list(run.temporary.iterdir()) == []


@pytest.mark.timeout(300)
def test_the_demo_interrupted_twice_leaves_nothing(tmp_path: Path) -> None:
    demo, _ = commands("Try it")
    with script(demo, tmp_path) as run:
        wait_until(run.has_posted, "the task is posted", 120)
        os.killpg(run.process.pid, signal.SIGINT)
        # The second comes while it stops its processes: when one of them is gone.
        wait_until(lambda: len(run.remaining()) < len(run.look()) or run.has_ended(), "it stops", 60)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(run.process.pid, signal.SIGINT)
        assert run.wait(60) == 130, run.output
        assert run.remaining() == []


@pytest.mark.timeout(300)
def test_the_tests_are_found_from_anywhere(tmp_path: Path) -> None:
    _, test = commands("Try it")
    # Not all tests: they are what runs here.
    with script(f"{test} --collect-only -q tests/test_identity.py", tmp_path) as run:
        assert run.wait(240) == 0, run.output
        assert "tests/test_identity.py" in run.output


def test_arguments_reach_pytest(tmp_path: Path) -> None:
    _, test = commands("Try it")
    with script(f"{test} -q tests/no_such_file.py", tmp_path) as run:
        assert run.wait(60) == 4, run.output
