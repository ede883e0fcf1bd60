"""`ww doctor`: what it says of this machine, and of one that lacks something."""

import asyncio
import json
import logging
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.guests import ROOT
from ww import __version__
from ww.cli import doctor, main
from ww.cli.runtime import look_for
from ww.sandbox.confine import ESSENTIAL, ConfinementConfig

on_linux = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere there is next to nothing to confine with")


@pytest.fixture(autouse=True)
def logging_as_it_was() -> Iterator[None]:
    """A command sets up the log of its process, which is that of all tests here."""
    root, own = logging.getLogger(), logging.getLogger("ww")
    handlers, level = list(root.handlers), own.level
    yield
    root.handlers[:] = handlers
    own.setLevel(level)


@pytest.fixture(autouse=True)
def _directories(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def say(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, dict[str, Any]]:
    """Run the command with --json; return its exit code and the checks by name."""
    code = main(["doctor", "--json", *arguments])
    said = json.loads(capsys.readouterr().out)
    assert said["ok"] is (code == 0)
    return code, {check["name"]: check for check in said["checks"]}


def leave_out(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    monkeypatch.setattr(doctor, "ConfinementConfig", lambda: ConfinementConfig(without=names))


@on_linux
def test_it_exits_with_0_and_leaves_nothing(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "ww", "doctor"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=30, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    rows = [line.split("  ")[0] for line in done.stdout.splitlines()]
    assert rows[0] == "CHECK"
    assert {f"sandbox: {name}" for name in ESSENTIAL} < set(rows)
    assert list(tmp_path.iterdir()) == []


@on_linux
def test_it_says_what_there_is(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "cache" / "ww").mkdir(parents=True)
    code, checks = say(capsys)
    assert code == 0
    assert checks["ww"]["detail"] == __version__
    assert checks["Python"]["detail"].startswith(f"{sys.version_info.major}.{sys.version_info.minor}.")
    assert checks["cores"]["detail"] == str(len(os.sched_getaffinity(0)))
    assert checks["memfd"]["given"] is True
    assert checks["multicast"]["given"] is True
    assert checks["cache directory"]["detail"] == str(tmp_path / "cache" / "ww")
    assert checks["state directory"]["detail"].startswith(f"{tmp_path / 'state' / 'ww'}, which is made")
    for name in ESSENTIAL:
        assert checks[f"sandbox: {name}"]["given"] is True
        assert checks[f"sandbox: {name}"]["essential"] is True


@pytest.mark.parametrize("name", sorted(ESSENTIAL))
def test_what_a_worker_needs_and_has_not_is_1(
    name: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    leave_out(monkeypatch, name)
    assert main(["doctor"]) == 1
    (row,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith(f"sandbox: {name} ")]
    assert row.endswith("  no, and needed  left out")


@on_linux
def test_what_only_stands_behind_something_else_is_told_and_0(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    leave_out(monkeypatch, "network", "files")
    code, checks = say(capsys)
    assert code == 0
    assert (checks["sandbox: files"]["given"], checks["sandbox: files"]["detail"]) == (False, "left out")


@pytest.mark.parametrize("which", ["state", "cache"])
def test_a_directory_that_cannot_be_is_1(which: str, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no directory")
    for path in (tmp_path / "file", tmp_path / "file" / "below", Path("/proc/ww")):
        code, checks = say(capsys, f"--{which}", str(path))
        assert code == 1
        assert checks[f"{which} directory"]["given"] is False
        assert str(path) in checks[f"{which} directory"]["detail"]


def test_a_sandbox_that_does_not_start_is_1(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ww.sandbox.child.Child.module", "ww.nothing_there")
    code, checks = say(capsys)
    assert code == 1
    assert "does not start" in checks["sandbox"]["detail"]


def test_what_is_not_there_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> Any:
        raise OSError(97, "Address family not supported by protocol")

    async def look() -> None:
        with monkeypatch.context() as patch:
            patch.setattr(socket, "socket", refuse)
            patch.delattr(os, "memfd_create")
            assert doctor._memfd().given is False
            assert (doctor._ip6().given, doctor._ip6().detail) == (False, "address family not supported by protocol")
            assert doctor._multicast().given is False

    asyncio.run(look())


def test_a_runtime_that_is_not_there_is_named_and_not_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "look_for", lambda name: look_for(name, tmp_path))
    (tmp_path / "worker.mjs").touch()
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    for name in ("deno", "node"):
        check = {check.name: check for check in doctor._runtimes()}[f"--runtime {name}"]
        assert not check.given
        assert f"{name} is not on the PATH" in check.detail
        assert not check.essential
