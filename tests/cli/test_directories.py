"""Directories and files that cannot be used: one line that says which, exit code 1, and nothing begun."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.guests import ROOT
from ww.identity import Identity

PEER = str(Identity.generate().peer_id)


def ww(directory: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    environment = {name: value for name, value in os.environ.items() if not name.startswith("WW_")}
    environment |= {"XDG_STATE_HOME": str(directory / "state"), "XDG_CACHE_HOME": str(directory / "cache")}
    command = [sys.executable, "-m", "ww", *arguments]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=30, check=False)


def the_line(done: "subprocess.CompletedProcess[str]") -> str:
    assert (done.returncode, done.stdout) == (1, ""), done.stderr
    (line,) = done.stderr.splitlines()
    assert line.startswith("ww: ")
    return line


@pytest.fixture
def file(tmp_path: Path) -> str:
    path = tmp_path / "a-file"
    path.write_text("no directory")
    return str(path)


@pytest.mark.parametrize("command", [["gateway", "--http", "127.0.0.1:0"], ["worker", "--dial", PEER], ["id"]])
def test_a_state_directory_that_is_a_file(tmp_path: Path, file: str, command: list[str]) -> None:
    assert "director" in the_line(ww(tmp_path, *command, "--state", file))
    assert Path(file).read_text() == "no directory"


def test_a_cache_directory_that_is_a_file(tmp_path: Path, file: str) -> None:
    the_line(ww(tmp_path, "worker", "--dial", PEER, "--slots", "1", "--cache", file))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_state_directory_that_may_not_be_read(tmp_path: Path) -> None:
    locked = tmp_path / "locked"
    locked.mkdir(mode=0)
    assert "ermission" in the_line(ww(tmp_path, "gateway", "--http", "127.0.0.1:0", "--state", str(locked)))


def test_a_key_file_that_is_a_directory(tmp_path: Path) -> None:
    assert tmp_path.name in the_line(ww(tmp_path, "id", "--key", str(tmp_path)))


def test_a_list_of_admitted_peers_that_is_not_there_or_names_nobody(tmp_path: Path) -> None:
    for text in (None, "nobody\n"):
        if text is not None:
            (tmp_path / "allowed").write_text(text)
        done = ww(tmp_path, "gateway", "--http", "127.0.0.1:0", "--admit", f"allow:{tmp_path}/allowed")
        assert done.returncode in (1, 2)
        (line,) = done.stderr.splitlines()
        assert "--admit" in line
