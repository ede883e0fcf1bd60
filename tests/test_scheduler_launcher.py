"""cmd/scheduler.py: the launcher of a checkout stands for `ww gateway` and `ww worker`."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.guests import ROOT


def launch(directory: Path, *arguments: str, **variables: str) -> "subprocess.CompletedProcess[str]":
    environment = {name: value for name, value in os.environ.items() if not name.startswith("WW_")}
    environment |= {"XDG_STATE_HOME": str(directory)} | variables
    command = [sys.executable, str(ROOT / "cmd" / "scheduler.py"), *arguments]
    return subprocess.run(
        command, cwd=directory, env=environment, capture_output=True, text=True, timeout=30, check=False
    )


@pytest.mark.parametrize(
    "arguments", [["--gateway"], ["--gateway", "true"], ["--gateway=true"], ["--ns", "x", "--gateway", "yes"]]
)
def test_gateway_means_the_gateway(tmp_path: Path, arguments: list[str]) -> None:
    done = launch(tmp_path, *arguments, "--help")
    assert (done.returncode, done.stdout.split()[:3]) == (0, ["usage:", "ww", "gateway"])


@pytest.mark.parametrize("arguments", [["--dial", "x"], [], ["--gateway", "false"], ["--gateway=no"]])
def test_anything_else_means_a_worker(tmp_path: Path, arguments: list[str]) -> None:
    done = launch(tmp_path, "--help", *arguments)
    assert (done.returncode, done.stdout.split()[:3]) == (0, ["usage:", "ww", "worker"])


def test_the_variable_says_it_too_and_argv_counts_more(tmp_path: Path) -> None:
    assert "ww gateway" in launch(tmp_path, "--help", WW_GATEWAY="true").stdout
    assert "ww worker" in launch(tmp_path, "--help", "--gateway", "false", WW_GATEWAY="true").stdout


def test_a_mistake_is_one_line(tmp_path: Path) -> None:
    done = launch(tmp_path, "--gateway=maybe")
    assert done.returncode in (1, 2)
    assert done.stderr.splitlines() == ["scheduler.py: --gateway 'maybe': expected true or false"]
    done = launch(tmp_path, "--dial", "nobody")
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1


def test_the_folder_does_not_shadow_the_standard_librarys_cmd() -> None:
    assert not (ROOT / "cmd" / "__init__.py").exists()
    done = subprocess.run(
        [sys.executable, "-c", "import pdb, cmd; print(cmd.Cmd.prompt)"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (0, "(Cmd) \n")
