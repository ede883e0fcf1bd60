"""Every command of README.md, taken from it and run: a command that is added there without a test fails here."""

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.namespaces import two_machines, why_not
from tests.e2e.processes import BOUND_S, children_of, is_running, wait_until
from tests.guests import ROOT

NO_NAMESPACES = why_not()
needs_curl = pytest.mark.skipif(shutil.which("curl") is None, reason="README.md posts tasks with curl")


def commands(section: str) -> list[str]:
    """Return the commands of a section's code blocks, in order."""
    text = (ROOT / "README.md").read_text()
    body = re.search(rf"^## {section}\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
    assert body is not None, section
    blocks = re.findall(r"^```sh\n(.*?)^```", body[1], re.MULTILINE | re.DOTALL)
    return [line for block in blocks for line in block.replace("\\\n", " ").splitlines() if line.strip()]


class Shell:
    """Runs README.md's lines as a user would, with what is in capitals filled in."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.values: dict[str, str] = {}
        self.prefix: tuple[str, ...] = ()
        self.environment = {name: value for name, value in os.environ.items() if not name.startswith("WW_")} | {
            "XDG_STATE_HOME": str(directory / "state"),
            "XDG_CACHE_HOME": str(directory / "cache"),
            "WW_HTTP": "127.0.0.1:0",  # 8080 may be somebody's
        }
        self._running: list[subprocess.Popen[str]] = []

    def _fill_in(self, line: str) -> str:
        for name in sorted(self.values, key=len, reverse=True):
            line = line.replace(name, self.values[name])
        return line

    def run(self, line: str) -> str:
        """Run a command to its end and return what it printed."""
        words = [*self.prefix, "sh", "-c", self._fill_in(line)]
        done = subprocess.run(
            words, cwd=ROOT, env=self.environment, capture_output=True, text=True, timeout=120, check=False
        )
        assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"
        return done.stdout

    def start(self, line: str, ready: str) -> tuple["subprocess.Popen[str]", re.Match[str]]:
        """Start a command that stays, and wait for a line of its log."""
        words = [*self.prefix, *shlex.split(self._fill_in(line))]
        process = subprocess.Popen(
            words, cwd=ROOT, env=self.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        self._running.append(process)
        log: list[str] = []

        def read() -> None:
            assert process.stderr is not None
            log.extend(process.stderr)  # line by line, as they come

        threading.Thread(target=read, daemon=True).start()
        found = wait_until(lambda: re.search(ready, "".join(log)) or process.poll() is not None, f"{line}: {log}")
        assert isinstance(found, re.Match), "".join(log)
        return process, found

    def start_gateway(self, line: str) -> "subprocess.Popen[str]":
        process, http = self.start(line, r"HTTP on http://(\S+)")
        assert process.stdout is not None
        self.values["PEER_ID"] = process.stdout.readline().strip()
        self.values["localhost:8080"] = http[1]
        return process

    def stop(self, process: "subprocess.Popen[str]") -> None:
        """Press ctrl-C."""
        process.send_signal(signal.SIGINT)
        assert process.wait(BOUND_S) == 0

    def close(self) -> None:
        for process in reversed(self._running):
            for pid in [*children_of(process.pid), process.pid]:
                if is_running(pid):
                    os.kill(pid, signal.SIGKILL)
            process.communicate()


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[Shell]:
    shell = Shell(tmp_path)
    yield shell
    shell.close()


def test_these_sections_have_commands() -> None:
    text = (ROOT / "README.md").read_text()
    with_commands = [title for title in re.findall(r"^## (.*)$", text, re.MULTILINE) if commands(re.escape(title))]
    assert with_commands == ["Try it", "By hand", "Two machines"]
    assert len(re.findall(r"^```", text, re.MULTILINE)) == 2 * len(re.findall(r"^```sh$", text, re.MULTILINE))


def test_what_the_readme_links_to_is_there() -> None:
    links = re.findall(r"\]\(([^)#:]+)\)", (ROOT / "README.md").read_text())
    assert len(links) > 8
    assert [link for link in links if not (ROOT / link).exists()] == []


@pytest.mark.timeout(300)
def test_try_it(shell: Shell) -> None:
    demo, test = commands("Try it")
    shown = shell.run(demo)
    assert "['2832', '2832', '2832']" in shown
    assert test == "scripts/test"
    # The tests themselves are what runs here; that they are found from anywhere is left to see.
    shell.values[test] = f"cd / && {ROOT / test} --collect-only -q tests/test_identity.py"
    assert "test_identity" in shell.run(test)


@needs_curl
@pytest.mark.timeout(120)
def test_by_hand(shell: Shell) -> None:
    setup, gateway_line, worker_line, *curls, scheduler_line, dial_line = commands("By hand")
    shell.run(setup)
    gateway = shell.start_gateway(gateway_line)
    worker, _ = shell.start(worker_line, "joined gateway")

    post, wait, post_echo, wait_echo, post_spin, delete, listing, workers = curls
    assert json.loads(shell.run(post))["id"] == "task1"
    task = json.loads(shell.run(wait))
    assert (task["status"], [result["result"] for result in task["results"]]) == ("succeeded", ["2832"] * 3)
    shell.run(post_echo)
    (result,) = json.loads(shell.run(wait_echo))["results"]
    assert (result["stdout"], result["exit_code"]) == ("hello\nworld", 3)
    shell.run(post_spin)
    assert json.loads(shell.run(delete))["status"] == "cancelled"
    assert [task["id"] for task in json.loads(shell.run(listing))] == ["task3", "task2", "task1"]
    assert len(json.loads(shell.run(workers))) == 1
    shell.stop(worker)
    shell.stop(gateway)

    gateway = shell.start_gateway(scheduler_line)
    worker, _ = shell.start(dial_line, "joined gateway")
    assert len(json.loads(shell.run(listing))) == 3, "the same gateway again"
    shell.stop(worker)
    shell.stop(gateway)


def in_directory(line: str, directory: Path) -> str:
    """Have a line's own files in that directory instead of in the checkout."""
    return re.sub(r"(?<![\w.-])(worker\.key|workers\.txt)", lambda match: str(directory / match[1]), line)


@needs_curl
@pytest.mark.skipif(bool(NO_NAMESPACES), reason=NO_NAMESPACES or "namespaces can be made")
def test_two_machines(shell: Shell, tmp_path: Path) -> None:
    make_key, admit, gateway_line, worker_line = (in_directory(line, tmp_path) for line in commands("Two machines"))
    with two_machines() as (a, b):
        states: Any = {a: tmp_path / "a", b: tmp_path / "b"}
        try:
            for machine, lines in ((b, [make_key]), (a, [admit, gateway_line]), (b, [worker_line])):
                shell.prefix = machine.prefix
                shell.environment["XDG_STATE_HOME"] = str(states[machine])
                for line in lines:
                    if line is gateway_line:
                        shell.start_gateway(line)
                        shell.values["ADDRESS_OF_A"] = a.address
                    elif line is worker_line:
                        shell.start(line, "joined gateway")
                    else:
                        printed = shell.run(line)
                        shell.values.setdefault("WORKER_PEER_ID", printed.strip())
            shell.prefix = a.prefix
            post, wait = [line for line in commands("By hand") if line.startswith("curl")][:2]
            shell.run(post)
            task = json.loads(shell.run(wait))
            assert [result["result"] for result in task["results"]] == ["2832"] * 3
            assert {result["worker"] for result in task["results"]} == {shell.values["WORKER_PEER_ID"]}
            stranger_is_refused(shell, tmp_path, worker_line, b.prefix)
        finally:
            shell.close()


def stranger_is_refused(shell: Shell, directory: Path, worker_line: str, prefix: tuple[str, ...]) -> None:
    """A key that is in no file gets nowhere, and is told so."""
    shell.prefix = prefix
    line = worker_line.replace(str(directory / "worker.key"), str(directory / "stranger.key"))
    shell.start(line, "refuses this node")
