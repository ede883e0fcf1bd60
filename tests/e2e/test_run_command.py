"""The command line and real processes: what comes out of which stream, exit codes, ctrl-C, terminals, and pipes that
nobody reads; over HTTP and as a peer."""

import copy
import json
import os
import pty
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.leftovers import CleanCluster, clean_cluster_in
from tests.e2e.processes import BOUND_S, Gateway, wait_until
from tests.guests import ROOT, UNREACHABLE, guest


class User:
    """Runs ww for one gateway with one worker."""

    def __init__(self, cluster: CleanCluster) -> None:
        self.gateway: Gateway = cluster.gateway()
        self.worker = cluster.worker(self.gateway)
        self.kind = "http"
        self.started: list[subprocess.Popen[bytes]] = []
        self.environment = cluster.environment | {"WW_GATEWAY": f"http://{self.gateway.http}", "COLUMNS": "200"}

    def by(self, kind: str) -> "User":
        """Return the same user, who names the gateway by its HTTP or as a peer."""
        other = copy.copy(self)
        other.kind = kind
        if kind == "native":
            other.environment = self.environment | {"WW_GATEWAY": self.gateway.peer_id}
        return other

    def ww(self, *arguments: str, **settings: Any) -> "subprocess.CompletedProcess[bytes]":
        command = [sys.executable, "-m", "ww", *arguments]
        settings = {"env": self.environment, "stdin": None if "input" in settings else subprocess.DEVNULL} | settings
        return subprocess.run(command, cwd=ROOT, capture_output=True, timeout=BOUND_S, check=False, **settings)

    def start(self, *arguments: str) -> "tuple[subprocess.Popen[bytes], str]":
        """Start a ww run; return it with its task's id."""
        process = subprocess.Popen(
            [sys.executable, "-m", "ww", "run", *arguments],
            cwd=ROOT, env=self.environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        self.started.append(process)
        assert process.stderr is not None
        return process, process.stderr.readline().decode().removeprefix("ww: task ").strip()


@pytest.fixture(scope="module")
def user(tmp_path_factory: pytest.TempPathFactory) -> Iterator[User]:
    with clean_cluster_in(tmp_path_factory.mktemp("run")) as cluster:
        user = User(cluster)
        yield user
        for process in user.started:
            # One that a failed test left would be counted by the tests of others.
            if process.poll() is None:
                process.kill()
                process.communicate()


@pytest.fixture(params=["http", "native"])
def either(user: User, request: pytest.FixtureRequest) -> User:
    return user.by(request.param)


def said(done: "subprocess.CompletedProcess[bytes]") -> list[str]:
    """Return what was written to stderr beside the task's id."""
    first, *rest = done.stderr.decode().splitlines()
    assert first.startswith("ww: task ")
    return rest


def test_a_function_prints_what_it_returns(either: User) -> None:
    done = either.ww("run", "wasm/hash/hash.wasm", "--input", "0", "--difficulty", "3")
    assert (done.returncode, done.stdout, said(done)) == (0, b"2832\n", [])


def test_runs_are_told_apart_and_in_order(either: User) -> None:
    done = either.ww("run", "wasm/echo/echo.wasm", "--repeats", "3", "hello", "--stdin", "-", input=b"a\nb")
    assert done.stdout.decode() == "".join(f"[{run}] hello\n[{run}] a\n[{run}] b\n" for run in range(3))


def test_streams_are_what_they_were_and_options_stand_anywhere(either: User) -> None:
    done = either.ww(
        "run", "--env", "A=1", "wasm/echo/echo.wasm", "x", "--env", "EXIT=7", "y", "--stdin", "-", "--", "--json", "-x",
        input=b"\xff\0\r\n",
    )  # fmt: skip
    assert done.returncode == 7
    assert done.stdout == b"x y --json -x\n\xff\0\r\n"
    assert said(done) == ["A=1", "EXIT=7"]


def test_a_variable_is_passed_on_by_its_name(user: User) -> None:
    environment = user.environment | {"SECRET": "s3cret"}
    assert said(user.ww("run", "wasm/echo/echo.wasm", "--env", "SECRET", env=environment)) == ["SECRET=s3cret"]


def test_exit_codes(either: User, tmp_path: Path) -> None:
    (tmp_path / "trap.wasm").write_bytes(UNREACHABLE)
    trap, spin, echo = str(tmp_path / "trap.wasm"), "wasm/spin/spin.wasm", "wasm/echo/echo.wasm"
    for arguments, code, reason in (
        ([trap], 1, "trap"),
        ([spin, "--input", "0", "--duration", "0.2"], 124, "deadline"),
        ([spin, "--input", "0", "--cpu-seconds", "0.2"], 124, "cpu"),
        ([spin, "--input", "0", "--fuel", "1000"], 1, "fuel"),
    ):
        done = either.ww("run", *arguments)
        (line,) = said(done)
        assert (done.returncode, line.startswith(f"ww: failed ({reason})")) == (code, True), line
    done = either.ww("run", echo, "--env", "EXIT=255")
    assert (done.returncode, said(done)) == (255, ["EXIT=255"])
    done = either.ww("run", echo, "--env", "EXIT=3", "--repeats", "2")
    assert done.returncode == 3
    assert [line for line in said(done) if "ww: " in line] == ["ww: run 0: exited with 3", "ww: run 1: exited with 3"]
    done = either.ww("run", echo, "--repeats", "99999999999")
    assert (done.returncode, done.stdout) == (125, b"")
    assert done.stderr.decode().startswith("ww: repeats: '99999999999' is not")


def test_artifacts_are_unpacked(either: User, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "given").write_text("here")
    arguments = ["wasm/files/files.wasm", "mkdir", "out", "put", "out/note", "hello", "--files", str(tmp_path / "in")]
    out = tmp_path / "new" / "out"
    done = either.ww("run", *arguments, "--artifact", "out", "--artifact", "given", "--out", str(out))
    assert done.returncode == 0, done.stderr
    assert {path.name: path.read_text() for path in out.rglob("*") if path.is_file()} == {
        "note": "hello",
        "given": "here",
    }
    done = either.ww("run", *arguments, "--artifact", "out", "--out", str(tmp_path / "many"), "--repeats", "2")
    assert sorted(str(path.relative_to(tmp_path)) for path in tmp_path.glob("many/*/out/note")) == [
        "many/0/out/note", "many/1/out/note",
    ]  # fmt: skip


def test_json_is_one_result_a_line(either: User) -> None:
    done = either.ww("run", "wasm/hash/hash.wasm", "--repeats", "2", "--input", "7", "--difficulty", "1", "--json")
    assert [json.loads(line)["result"] for line in done.stdout.splitlines()] == ["19", "19"]


def test_detached_and_looked_at_later(either: User) -> None:
    later = f"later-{either.kind}"
    done = either.ww("run", "wasm/echo/echo.wasm", "hello", "--detach", "--id", later, "--description", "a\x1b[31m b")
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{later}\n".encode(), b"")
    done = either.ww("logs", "-f", later)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"hello\n", b"")
    assert either.ww("logs", later, "--run", "0").stdout == b"hello\n"
    assert json.loads(either.ww("logs", later, "--json").stdout)["stdout"] == "hello\n"
    assert json.loads(either.ww("status", "--id", later, "--json").stdout) == either.gateway.task(later)
    for command in (["status", later], ["tasks"]):
        text = either.ww(*command).stdout.decode()
        assert "\x1b" not in text
        assert "succeeded" in text
        assert "a [31m b" in text
    (listed,) = json.loads(either.ww("tasks", "--limit", "1", "--json").stdout)
    assert listed["id"] == later
    assert either.ww("run", "wasm/echo/echo.wasm", "hello", "--id", later).returncode == 125, "another description"


def test_cancelling(either: User) -> None:
    c1, c2 = f"c1-{either.kind}", f"c2-{either.kind}"
    for id in (c1, c2):
        either.gateway.post(guest("spin"), id=id, input=0)
    done = either.ww("cancel", c1, "none", c2)
    assert (done.returncode, done.stderr) == (1, b"ww: no task 'none'\n")
    assert [line.split() for line in done.stdout.decode().splitlines()[1:]] == [
        [c1, "cancelled"],
        [c2, "cancelled"],
    ]
    assert either.ww("logs", c1).stdout == b""
    done = either.ww("logs", c1, "--run", "1")
    assert (done.returncode, b"has no run" in done.stderr) == (1, True)


def test_a_run_that_has_not_ended_has_no_logs(either: User) -> None:
    soon = f"soon-{either.kind}"
    either.gateway.post(guest("noop"), id=soon, start=1000)
    done = either.ww("logs", soon, "--run", "0")
    assert (done.returncode, done.stderr.decode()) == (
        1, f"ww: run 0 of task {soon!r} has not ended: it is scheduled (-f waits)\n",
    )  # fmt: skip
    assert either.ww("logs", soon).returncode == 0


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_ctrl_c_cancels_the_task(either: User, number: signal.Signals, code: int) -> None:
    process, id = either.start("wasm/spin/spin.wasm", "--input", "0")
    wait_until(lambda: either.gateway.task(id)["runs"]["running"])
    process.send_signal(number)
    assert process.communicate(timeout=BOUND_S)[1] == b"ww: cancelling the task; ctrl-C again leaves it as it is\n"
    assert process.returncode == code
    assert either.gateway.task(id)["status"] == "cancelled"


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_ctrl_c_before_anything_was_sent_cancels_nothing(user: User, number: signal.Signals, code: int) -> None:
    id = f"other{number}"
    user.gateway.post(guest("spin"), id=id, input=0)
    process = subprocess.Popen(
        [sys.executable, "-m", "ww", "run", "wasm/echo/echo.wasm", "--id", id, "--stdin", "-"],
        cwd=ROOT, env=user.environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    # It waits for its stdin: the system call that it is in is a read.
    wait_until(lambda: (Path("/proc") / str(process.pid) / "wchan").read_text().startswith(("pipe_", "anon_pipe_")))
    process.send_signal(number)
    assert process.communicate(timeout=BOUND_S) == (b"", b"")
    assert process.returncode == code
    assert user.gateway.task(id)["finished_at"] is None
    user.gateway.client.delete(f"/tasks/{id}")


def test_a_second_ctrl_c_does_not_wait(either: User) -> None:
    process, id = either.start("wasm/spin/spin.wasm", "--input", "0")
    os.kill(either.gateway.pid, signal.SIGSTOP)
    try:
        process.send_signal(signal.SIGINT)
        assert process.stderr is not None
        assert process.stderr.readline().startswith(b"ww: cancelling")
        process.send_signal(signal.SIGINT)
        assert process.wait(BOUND_S) == 130
        assert b"Traceback" not in process.communicate()[1]
    finally:
        os.kill(either.gateway.pid, signal.SIGCONT)
    either.gateway.client.delete(f"/tasks/{id}")


def test_output_that_nobody_reads_ends_the_task(either: User) -> None:
    process, id = either.start("wasm/echo/echo.wasm", "x", "--repeats", "1000", "--delay", "0.02")
    assert process.stdout is not None
    assert process.stdout.readline() == b"[0] x\n"
    process.stdout.close()
    assert process.wait(BOUND_S) == 141
    assert process.stderr is not None
    assert process.stderr.read() == b"ww: cancelling the task; ctrl-C again leaves it as it is\n"
    process.stderr.close()
    assert either.gateway.task(id)["status"] == "cancelled"


def in_shell(user: User, line: str, **variables: str) -> "subprocess.CompletedProcess[bytes]":
    """Run a line of sh, in which $ww is ww."""
    environment = user.environment | {"ww": f"{sys.executable} -m ww"} | variables
    return subprocess.run(["sh", "-c", line], cwd=ROOT, env=environment, capture_output=True, timeout=30, check=False)


def test_a_pipe_of_both_streams_that_nobody_reads_ends_the_task_too(user: User) -> None:
    run = "$ww run wasm/echo/echo.wasm x --repeats 1000 --delay 0.02 --id both"
    done = in_shell(user, f"({run} 2>&1; echo $? >&3) 3>&2 | head -1")
    assert (done.stdout, done.stderr) == (b"ww: task both\n", b"141\n")
    assert user.gateway.task("both")["status"] == "cancelled"


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_output_that_there_is_no_room_for_is_one_line(user: User, unbuffered: str) -> None:
    for command, code in (("tasks", 1), ("tasks --json", 1), ("run wasm/echo/echo.wasm x", 125)):
        done = in_shell(user, f"$ww {command} > /dev/full", PYTHONUNBUFFERED=unbuffered)
        assert done.returncode == code
        assert b"ww: the output cannot be written: no space left on device\n" in done.stderr
        assert b"Traceback" not in done.stderr
        assert b"ignored" not in done.stderr


def test_closed_streams_are_nobody_and_stay_apart(user: User) -> None:
    run = "$ww run wasm/echo/echo.wasm x"
    done = in_shell(user, f"{run} 2>&-")
    assert (done.returncode, done.stdout) == (0, b"x\n"), "what ww says is not output"
    for line in (f"{run} >&-", "$ww tasks >&-", f"{run} --stdin - <&-"):
        assert in_shell(user, line).returncode == 0


def test_a_name_that_the_terminal_cannot_show_is_no_traceback(user: User) -> None:
    user.gateway.post(guest("noop"), id="named", name="\N{SNOWMAN}")
    done = in_shell(user, "$ww tasks --limit 1; $ww status named", PYTHONIOENCODING="ascii")
    assert (done.returncode, done.stderr, done.stdout.count(b"\\u2603")) == (0, b"", 2)


def test_a_table_in_a_closed_pipe_is_no_traceback(user: User) -> None:
    line = f"{sys.executable} -m ww tasks | head -1; {sys.executable} -m ww tasks --json | true"
    done = subprocess.run(
        ["sh", "-c", line], cwd=ROOT, env=user.environment, capture_output=True, timeout=30, check=False
    )
    assert done.stdout.startswith(b"ID ")
    assert done.stderr == b""


def in_terminal(environment: dict[str, str], *arguments: str) -> str:
    """Run ww in a terminal and return what it showed."""
    outer, inner = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "ww", *arguments],
        cwd=ROOT, env=environment | {"TERM": "xterm"}, stdin=inner, stdout=inner, stderr=inner,
    )  # fmt: skip
    os.close(inner)
    shown = b""
    try:
        while piece := os.read(outer, 65536):
            shown += piece
    except OSError:  # the other end is closed
        pass
    os.close(outer)
    assert process.wait(BOUND_S) == 0
    return shown.decode()


def test_a_terminal_gets_colours_and_no_color_none(user: User) -> None:
    user.gateway.post(guest("noop"), id="shown")
    user.gateway.ended("shown")
    shown = in_terminal(user.environment, "tasks", "--limit", "1")
    assert "\x1b[32msucceeded" in shown
    shown = in_terminal(user.environment | {"NO_COLOR": "1"}, "tasks", "--limit", "1")
    assert "succeeded" in shown
    assert "\x1b[32m" not in shown
    assert user.worker.peer_id in in_terminal(user.environment, "workers")
    assert json.loads(in_terminal(user.environment, "tasks", "--limit", "1", "--json"))[0]["id"] == "shown"


def test_a_gateway_that_is_killed_while_a_run_is_followed(cluster: CleanCluster) -> None:
    user = User(cluster)
    process, id = user.start("wasm/spin/spin.wasm", "--input", "50", "--repeats", "20")
    wait_until(lambda: user.gateway.task(id)["runs"]["succeeded"] > 3)
    user.gateway.kill()
    cluster.gateway("--listen", f"/ip4/127.0.0.1/tcp/{user.gateway.peer_port}", http=user.gateway.http)
    out, err = process.communicate(timeout=BOUND_S)
    assert (process.returncode, err) == (0, b"")
    assert out.decode() == "".join(f"[{run}] 50\n" for run in range(20))


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[CleanCluster]:
    with clean_cluster_in(tmp_path) as cluster:
        yield cluster
