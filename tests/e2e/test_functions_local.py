"""Python functions in sandboxes of the program's own process: no gateway, no worker."""

import asyncio
import concurrent.futures
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from tests.e2e import function_jobs as jobs
from tests.e2e.processes import wait_until
from tests.guests import ROOT
from ww.errors import BadResult, DeadlineExceeded, NotGranted, OutOfFuel

pytestmark = pytest.mark.timeout(120)


@pytest.fixture(scope="module", autouse=True)
def _ended() -> object:
    """Leave no process of it behind for other tests."""
    yield
    from ww.jobs import local

    local._shared.close()


def test_a_call_in_a_sandbox_here() -> None:
    assert jobs.square.local(3) == 9
    future = jobs.talk.local_async("hello")
    assert future.result() is None
    assert future.stdout == "hello\nalso this\n"
    assert [future.result() for future in [jobs.square.local_async(n) for n in range(20)]] == [n * n for n in range(20)]


def test_it_ends_as_on_a_cluster() -> None:
    with pytest.raises(ValueError, match="bad value"):
        jobs.fail.local("value")
    with pytest.raises(DeadlineExceeded):
        jobs.spin.local()
    with pytest.raises(OutOfFuel):
        jobs.burn.local()
    with pytest.raises(MemoryError):
        jobs.hoard.local()
    with pytest.raises(BadResult):
        jobs.chatter.local()
    with pytest.raises(BadResult):
        jobs.lie.local("no json")


def test_jobs_call_what_was_granted() -> None:
    assert jobs.sum_of_squares.local(5) == 30
    assert jobs.tree.local(3) == 8
    with pytest.raises(NotGranted, match="square is not granted"):
        jobs.ungranted.local()


def test_calls_nested_too_deep_are_refused() -> None:
    with pytest.raises(NotGranted, match="nested deeper than 4"):
        jobs.tree.local(6)


def test_it_can_be_cancelled() -> None:
    future = jobs.spin_long.local_async()
    wait_until(future.running)
    assert future.cancel()
    with pytest.raises(concurrent.futures.CancelledError):
        future.result()
    assert jobs.square.local(3) == 9


def test_it_can_be_awaited() -> None:
    async def main() -> list[int]:
        return await asyncio.gather(*(jobs.square.local_async(n) for n in range(5)))

    assert asyncio.run(main()) == [0, 1, 4, 9, 16]


def test_a_program_ends_while_calls_are_under_way(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        textwrap.dedent("""
        import os, threading, time
        import ww

        @ww.job
        def sleep():
            time.sleep(100)

        future = sleep.local_async()
        while not future.running():
            time.sleep(0.01)

        def wait():
            print(type(future.exception()).__name__)

        # Not a daemon would keep the program: this one is told when it ends.
        threading.Thread(target=wait, daemon=True).start()
    """)
    )
    done = subprocess.run(
        [sys.executable, str(script)], env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True,
        timeout=50, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
