"""ww map from outside: a folder in, a folder out, whatever interrupts it; lines in, lines out."""

import contextlib
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

from tests.cli.batch_gateway import BatchGateway, serving
from tests.cli.test_cli import refused, ww
from tests.e2e.processes import BOUND_S, wait_until
from tests.guests import ROOT
from ww.cli.inputs import PART
from ww.cli.results import FolderSink
from ww.client import Result

MODULE = str(ROOT / "wasm" / "echo" / "echo.wasm")
LEDGER = ".ww-map.json"


@pytest.fixture
def gateway() -> Iterator[BatchGateway]:
    with serving() as gateway:
        yield gateway


class User:
    """Somebody with a folder of inputs."""

    def __init__(self, gateway: BatchGateway, folder: Path) -> None:
        self.folder = folder
        self.source, self.target = folder / "in", folder / "out"
        self.source.mkdir()
        self.environment = {n: v for n, v in os.environ.items() if not n.startswith("WW_")}
        self.environment |= {"WW_GATEWAY": gateway.url}
        self._started: list[subprocess.Popen[bytes]] = []

    def give(self, **files: str) -> None:
        for name, content in files.items():
            path = self.source / name.replace("__", "/").replace("_DOT_", ".")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content)

    def start(self, *arguments: str, stdin: Any = subprocess.DEVNULL) -> "subprocess.Popen[bytes]":
        folders = [] if "--input" in arguments else ["--input", str(self.source), "--output", str(self.target)]
        process = subprocess.Popen(
            [sys.executable, "-m", "ww", "map", MODULE, *folders, *arguments],
            cwd=ROOT, env=self.environment, stdin=stdin, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        self._started.append(process)
        return process

    def map(self, *arguments: str, input: bytes | None = None) -> tuple[int, bytes, list[str]]:
        process = self.start(*arguments, stdin=subprocess.DEVNULL if input is None else subprocess.PIPE)
        out, err = process.communicate(input, timeout=BOUND_S)
        return process.returncode, out, [line.removeprefix("ww: ") for line in err.decode().splitlines()]

    def found(self) -> dict[str, str]:
        found = {}
        for path in self.target.rglob("*"):
            # What was still being written has its own name by now.
            with contextlib.suppress(FileNotFoundError, IsADirectoryError):
                found[str(path.relative_to(self.target))] = path.read_text()
        return found

    def close(self) -> None:
        """Leave nothing of what was started, though its test failed."""
        for process in self._started:
            process.kill()
            process.wait(BOUND_S)
            for pipe in (process.stdin, process.stdout, process.stderr):
                if pipe is not None:
                    with contextlib.suppress(BrokenPipeError):
                        pipe.close()


@pytest.fixture
def user(gateway: BatchGateway, tmp_path: Path) -> Iterator[User]:
    with contextlib.closing(User(gateway, tmp_path)) as user:
        yield user


def batches(gateway: BatchGateway) -> list[int]:
    return [len(task.runs) for task in gateway.tasks.values()]


def test_every_file_becomes_a_file_of_the_same_name(gateway: BatchGateway, user: User) -> None:
    user.give(a="one", sub__deep__b="two", _DOT_hidden="three")
    (user.source / "link").symlink_to("a")
    (user.source / "loop").symlink_to(".")
    code, out, err = user.map("--env", "A=1", "--duration", "5", "--", "-x")
    assert (code, out) == (0, b"")
    assert user.found() == {"a": "-x ONE", "sub/deep/b": "-x TWO", ".hidden": "-x THREE", "link": "-x ONE"}
    (said,) = err
    assert said.startswith("4 succeeded, 0 failed, in ")
    (task,) = gateway.tasks.values()
    assert {key: task.parent[key] for key in ("args", "env", "duration", "output")} == {
        "args": ["-x"], "env": {"A": "1"}, "duration": "5", "output": "1048576",
    }  # fmt: skip
    assert [run["name"] for run in task.runs] == [".hidden", "a", "link", "sub/deep/b"]


def test_a_name_in_the_arguments_and_the_file_under_it(gateway: BatchGateway, user: User) -> None:
    user.give(a="one", sub__b="two")
    assert user.map("from", "<{}>", "{}")[0] == 0
    assert user.found() == {"a": "from <a> a /a ", "sub/b": "from <sub/b> sub/b /sub/b "}


def test_failures_are_told_beside_and_only_they_are_done_again(gateway: BatchGateway, user: User) -> None:
    user.give(a="one", b="fail", sub__c="fail")
    code, _, err = user.map()
    assert code == 1
    assert err[-1].startswith("1 succeeded, 2 failed, in ")
    assert user.found() == {
        "a": "ONE",
        "b.error": "exited with 3\n\nit went wrong\n",
        "sub/c.error": "exited with 3\n\nit went wrong\n",
    }
    user.give(b="two")
    (user.target / "a").write_text("mine")
    code, _, err = user.map()
    assert code == 1
    assert err[-1].startswith("1 succeeded, 1 failed, 1 were there, in ")
    assert sorted(user.found()) == ["a", "b", "sub/c.error"]
    assert user.found()["a"] == "mine"
    assert batches(gateway) == [3, 2]
    user.give(sub__c="three")
    code, out, _ = user.map("--json")
    assert (code, json.loads(out)) == (0, {"succeeded": 1, "failed": 0, "there": 2})
    code, _, err = user.map()
    assert (code, len(gateway.tasks)) == (0, 3), "nothing is left to do"


def test_an_output_that_was_cut_is_no_result(gateway: BatchGateway, user: User) -> None:
    gateway.longest = 5
    user.give(a="longer than that", b="short")
    assert user.map()[0] == 1
    assert user.found() == {
        "a.error": "stdout has more than the 5 bytes that are kept: see --output-max\n", "b": "SHORT",
    }  # fmt: skip


@pytest.mark.parametrize("bounds", [("--batch", "2"), ("--batch-bytes", "8")])
def test_tasks_are_of_bounded_size(gateway: BatchGateway, user: User, bounds: tuple[str, str]) -> None:
    user.give(**{f"f{n}": f"{n}..." for n in range(7)})
    assert user.map(*bounds)[0] == 0
    assert batches(gateway) == [2, 2, 2, 1]
    assert user.found() == {f"f{n}": f"{n}..." for n in range(7)}


def test_one_task_is_sent_ahead_and_no_more(gateway: BatchGateway, user: User) -> None:
    gateway.may_end = False
    user.give(**{f"f{n}": f"wait{n}" for n in range(8)})
    process = user.start("--batch", "2")
    wait_until(lambda: len(gateway.tasks) == 2)
    gateway.may_end = True
    process.communicate(timeout=BOUND_S)
    assert (process.returncode, batches(gateway)) == (0, [2, 2, 2, 2])


def test_connections_that_break_lose_nothing(gateway: BatchGateway, user: User) -> None:
    gateway.is_cut = True
    user.give(**{f"f{n}": "x" for n in range(5)})
    assert user.map()[0] == 0
    assert len(user.found()) == 5


def interrupted(gateway: BatchGateway, user: User, number: signal.Signals) -> tuple[int, str]:
    """Start it, and interrupt it when two of four results are there."""
    gateway.may_end = False
    user.give(a="one", b="fail", c="wait", d="wait")
    process = user.start()
    wait_until(lambda: {"a", "b.error"} <= set(user.found()))
    process.send_signal(number)
    _, err = process.communicate(timeout=BOUND_S)
    assert set(user.found()) == {"a", "b.error", LEDGER}
    return process.returncode, err.decode()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_ctrl_c_cancels_and_the_next_start_does_what_is_missing(
    gateway: BatchGateway, user: User, number: signal.Signals, code: int
) -> None:
    ended, said = interrupted(gateway, user, number)
    assert ended == code
    assert said.splitlines()[-1] == "ww: interrupted after 2 runs: the same command goes on with what is missing"
    assert [task.status for task in gateway.tasks.values()] == ["cancelled"]
    gateway.may_end = True
    code, _, err = user.map()
    assert code == 1
    assert err[-1].startswith("2 succeeded, 1 failed, 1 were there, in ")
    assert batches(gateway) == [4, 2]
    assert sorted(user.found()) == ["a", "b.error", "c", "d"]


def test_after_kill_9_the_task_that_still_runs_is_taken_up(gateway: BatchGateway, user: User) -> None:
    assert interrupted(gateway, user, signal.SIGKILL)[0] == -signal.SIGKILL
    gateway.may_end = True
    user.give(e="five")
    code, _, err = user.map()
    assert code == 1
    assert err[0].endswith("of an earlier start is taken up")
    assert batches(gateway) == [4, 1], "only what is new was sent"
    assert user.found() == {
        "a": "ONE", "b.error": "exited with 3\n\nit went wrong\n", "c": "WAIT", "d": "WAIT", "e": "FIVE",
    }  # fmt: skip


def test_a_task_that_never_arrived_or_was_forgotten_is_sent_again(gateway: BatchGateway, user: User) -> None:
    interrupted(gateway, user, signal.SIGKILL)
    gateway.tasks.clear()
    gateway.may_end = True
    assert user.map()[0] == 1
    assert batches(gateway) == [3]
    assert sorted(user.found()) == ["a", "b.error", "c", "d"]


def test_a_task_of_other_arguments_is_cancelled(gateway: BatchGateway, user: User) -> None:
    interrupted(gateway, user, signal.SIGKILL)
    (first,) = gateway.tasks.values()
    gateway.may_end = True
    code, _, err = user.map("--", "other")
    assert (code, first.status) == (1, "cancelled")
    assert "was made of something else: it is cancelled" in err[0]
    assert user.found()["c"] == "other WAIT"


def test_a_task_that_somebody_cancelled_is_said(gateway: BatchGateway, user: User) -> None:
    gateway.may_end = False
    user.give(a="wait", b="wait")
    process = user.start()
    wait_until(lambda: gateway.tasks)
    next(iter(gateway.tasks.values())).is_cancelled = True
    _, err = process.communicate(timeout=BOUND_S)
    assert process.returncode == 125
    assert b"was cancelled; 2 results are missing" in err


def test_it_stops_after_so_many_failures(gateway: BatchGateway, user: User) -> None:
    gateway.may_end = False
    user.give(**{f"f{n}": "fail" for n in range(6)}, w="wait")
    code, _, err = user.map("--limit-failures", "3", "--batch", "4")
    assert code == 1
    assert err[-2].startswith("stopped after 3 failures")
    assert err[-1].startswith("0 succeeded, 3 failed")
    assert {task.status for task in gateway.tasks.values() if len(task.results) < len(task.runs)} <= {"cancelled"}


def test_a_refusal_names_the_file(gateway: BatchGateway, user: User) -> None:
    gateway.refusal = {"status": 422, "code": "usage", "detail": "tasks[1].stdin: more than 5 bytes", "field": "stdin"}
    user.give(a="x", sub__b="too long")
    code, _, err = user.map()
    assert code == 125
    assert err[0].startswith("input sub/b: tasks[1].stdin: more than 5 bytes")
    assert not (user.target / LEDGER).exists()


@pytest.mark.parametrize(("status", "code"), [(422, "bad_module"), (401, "not_allowed")])
def test_what_was_refused_is_not_under_way(gateway: BatchGateway, user: User, status: int, code: str) -> None:
    gateway.refusal = {"status": status, "code": code, "detail": "not that"}
    user.give(a="x")
    assert user.map() == (125, b"", ["not that"])
    assert not (user.target / LEDGER).exists()


def test_two_at_a_time_do_not_write_into_one_folder(gateway: BatchGateway, user: User) -> None:
    gateway.may_end = False
    user.give(a="wait")
    process = user.start()
    wait_until(lambda: gateway.tasks)
    code, _, err = user.map()
    assert (code, len(err)) == (2, 1)
    assert "another ww map writes to" in err[0]
    gateway.may_end = True
    assert (process.wait(BOUND_S), process.communicate()[0]) == (0, b"")


def test_progress_is_a_line_now_and_then(gateway: BatchGateway, user: User) -> None:
    gateway.may_end = False
    user.give(a="one", b="wait")
    process = user.start("--interval", "0.05")
    assert process.stderr is not None
    wait_until(lambda: process.stderr.readline().startswith(b"ww: 1 of 2, "))
    gateway.may_end = True
    process.communicate(timeout=BOUND_S)
    assert process.returncode == 0


@pytest.mark.parametrize(
    ("names", "says"),
    [
        (["a", "a.error"], "input: a.error is where the failure of a would be told"),
        (["a", "a.error/b"], "input: a.error is where the failure of a would be told"),
        (["sub/.ww-map.json"], "input: sub/.ww-map.json has a name that ww map uses itself"),
        ([".ww-map.part"], "uses itself"),
        (["x" * 252], "has too long a name for .error behind it"),
        (["b\udcff"], "has a name that is not UTF-8"),
    ],
)
def test_names_that_can_be_no_results(gateway: BatchGateway, user: User, names: list[str], says: str) -> None:
    for name in names:
        (user.source / name).parent.mkdir(exist_ok=True)
        (user.source / name).write_text("x")
    code, _, err = user.map()
    assert (code, len(err)) == (2, 1)
    assert says in err[0]
    assert gateway.tasks == {}


def test_names_that_are_no_paths_of_guests(user: User) -> None:
    (user.source / "a\\b").write_text("x")
    assert user.map()[0] == 0
    code, _, err = user.map("{}")
    assert (code, err) == (2, ["the path 'a\\\\b' has a backslash in it"])


@pytest.mark.parametrize("name", ["../stolen", "/stolen", "a/../../stolen", ""])
def test_a_ledger_from_elsewhere_leads_nowhere_else(user: User, name: str) -> None:
    user.target.mkdir()
    task = {"id": "t", "made_of": "m", "names": ["a", name]}
    (user.target / LEDGER).write_text(json.dumps({"version": 1, "tasks": [task]}))
    code, _, err = user.map()
    assert (code, len(err)) == (2, 1)
    assert err[0].endswith("is not what ww map left there: remove it to begin anew")


def test_nothing_is_written_through_a_link(gateway: BatchGateway, user: User) -> None:
    user.give(a="x")
    other = user.folder / "other"
    other.write_text("mine")
    user.target.mkdir()
    (user.target / PART).symlink_to(other)
    code, _, err = user.map()
    assert code == 125
    assert err[0].startswith(f"output: {user.target / 'a'}: Too many levels of symbolic links")
    assert other.read_text() == "mine"


def test_folders_that_cannot_be(gateway: BatchGateway, user: User) -> None:
    user.give(a="x")
    file, inside = user.folder / "file", user.source / "out"
    file.write_text("x")
    for source, target, says in (
        (user.folder / "none", user.target, "is no folder"),
        (user.source, file, "is no folder"),
        (user.source, inside, "is in the input, or has it in it"),
        (user.source, user.source, "is in the input, or has it in it"),
        (user.source, user.folder, "is in the input, or has it in it"),
    ):
        code, _, err = user.map("--input", str(source), "--output", str(target))
        assert (code, len(err)) == (2, 1)
        assert says in err[0]
    user.target.mkdir()
    (user.target / LEDGER).write_text("{")
    code, _, err = user.map()
    assert code == 2
    assert "remove it to begin anew" in err[0]
    (user.target / LEDGER).unlink()
    (user.target / "a").mkdir()
    code, _, err = user.map()
    assert code == 125
    assert "is a folder" in err[0]
    assert gateway.tasks == {}
    assert user.map("--inputs-max", "1")[0] == 125
    user.give(b="y")
    assert "see --inputs-max" in user.map("--inputs-max", "1")[2][0]


def test_lines_are_printed_in_their_order(gateway: BatchGateway, user: User) -> None:
    code, out, err = user.map("--input", "-", input=b"one\ntwo\n\nfail\nlast")
    assert (code, out) == (1, b"ONE\nTWO\nLAST\n")
    assert err[:2] == ["it went wrong", "input 3: exited with 3"]
    (task,) = gateway.tasks.values()
    assert len(task.runs) == 5


def test_lines_as_arguments_and_as_json(gateway: BatchGateway, user: User) -> None:
    code, out, _ = user.map("--input", "-", "--json", "--batch", "2", "n={}", input=b"1\n2\n3\n")
    said = [json.loads(line) for line in out.splitlines()]
    assert (code, [(each["input"], each["stdout"]) for each in said]) == (0, [(0, "n=1 "), (1, "n=2 "), (2, "n=3 ")])
    assert batches(gateway) == [2, 1]


def test_lines_into_a_folder_go_on_where_they_were(gateway: BatchGateway, user: User) -> None:
    arguments = ("--input", "-", "--output", str(user.target))
    assert user.map(*arguments, input=b"a\nfail\nc\n")[0] == 1
    assert sorted(user.found()) == ["0", "1.error", "2"]
    code, _, err = user.map(*arguments, input=b"a\nb\nc\nd\n")
    assert (code, user.found()) == (0, {"0": "A", "1": "B", "2": "C", "3": "D"})
    assert err[-1].startswith("2 succeeded, 0 failed, 2 were there, in ")


def test_lines_are_taken_as_they_come(gateway: BatchGateway, user: User) -> None:
    process = user.start("--input", "-", stdin=subprocess.PIPE)
    assert process.stdin is not None
    assert process.stdout is not None
    for word in (b"one", b"two"):
        process.stdin.write(word + b"\n")
        process.stdin.flush()
        assert process.stdout.readline() == word.upper() + b"\n"
    process.send_signal(signal.SIGINT)
    assert process.wait(BOUND_S) == 130
    process.communicate()


def test_a_result_and_an_old_failure_are_never_there_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sink = FolderSink(tmp_path)
    sink.take("a", Result(run=0, state="failed", reason="trap"))
    seen = []
    rename = Path.rename

    def watched(self: Path, target: Path) -> Path:
        seen.append([(tmp_path / name).exists() for name in ("a", "a.error")])
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", watched)
    sink.take("a", Result(run=0, state="succeeded"))
    assert seen == [[False, False]]
    assert sink.has("a")


def test_a_folder_that_cannot_be_written_is_one_line(gateway: BatchGateway, user: User) -> None:
    user.give(a="x")
    (user.target / f"{LEDGER}.part").mkdir(parents=True)
    code, out, err = user.map()
    assert (code, out, err) == (125, b"", [f"output: {user.target / LEDGER}: Is a directory"])
    assert not gateway.tasks


def test_results_that_nobody_reads_end_it(gateway: BatchGateway, user: User) -> None:
    gateway.may_end = False
    process = user.start("--input", "-", stdin=subprocess.PIPE)
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(b"wait\nwait\n")
    process.stdin.flush()
    wait_until(lambda: gateway.tasks)
    process.stdout.close()
    gateway.may_end = True
    assert process.wait(BOUND_S) == 141
    process.stdin.close()
    assert process.stderr is not None
    process.stderr.close()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], ["--input"]),
        (["--input", "in"], ["--output: expected a folder"]),
        (["--input", "in", "--output", "out", "--batch", "0"], ["--batch", "above 0"]),
        (["--input", "in", "--output", "out", "--order", "random"], ["--order"]),
        (["--input", "in", "--output", "out", "--spread", "everywhere"], ["--spread"]),
        (["--input", "in", "--output", "out", "--files", "x", "{}"], ["--files", "{}"]),
        (["--input", "in", "--output", "out", "--repeats", "3"], ["--repeats"]),
        (["--input", "none", "--output", "out"], ["input: none is no folder"]),
    ],
)
def test_wrong_usage_is_one_line_and_2(tmp_path: Path, arguments: list[str], says: list[str]) -> None:
    refused(ww(tmp_path, "map", MODULE, *arguments), 2, *says)


def test_without_a_gateway(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a").write_text("x")
    arguments = ["--input", str(tmp_path / "in"), "--output", str(tmp_path / "out")]
    refused(ww(tmp_path, "map", MODULE, *arguments, "--gateway", "http://127.0.0.1:1"), 125, "connection refused")


def test_a_terminal_gets_a_bar(gateway: BatchGateway, user: User) -> None:
    gateway.may_end = False
    user.give(a="one", b="wait")
    outer, inner = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "ww", "map", MODULE, "--input", str(user.source), "--output", str(user.target)],
        cwd=ROOT, env=user.environment | {"COLUMNS": "80"}, stdin=inner, stdout=inner, stderr=inner,
    )  # fmt: skip
    os.close(inner)
    shown = b""
    with os.fdopen(outer, "rb", buffering=0) as terminal:
        while b"] 1 of 2, " not in shown:
            shown += terminal.read(4096)
        gateway.may_end = True
        with contextlib.suppress(OSError):  # the other end is closed
            while piece := terminal.read(4096):
                shown += piece
    assert process.wait(BOUND_S) == 0
    assert b"\r\x1b[K[###############...............] 1 of 2, " in shown
    assert shown.rpartition(b"\x1b[K")[2].startswith(b"ww: 2 succeeded, 0 failed, in ")


def test_a_second_ctrl_c_does_not_wait(gateway: BatchGateway, user: User) -> None:
    gateway.may_end = False
    gateway.may_cancel.clear()
    user.give(a="wait")
    process = user.start()
    wait_until(lambda: gateway.tasks)
    process.send_signal(signal.SIGINT)
    assert process.stderr is not None
    assert process.stderr.readline() == b"ww: cancelling what is under way; ctrl-C again leaves it as it is\n"
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=BOUND_S) == (b"", b"")
    assert process.returncode == 130
    gateway.may_end = True
    assert user.map()[0] == 0
    assert batches(gateway) == [1], "it was left, and is taken up"
    gateway.may_cancel.set()
