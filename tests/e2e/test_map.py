"""ww map and ww run -f with real processes: batches over HTTP and as a peer, interrupted and taken up again."""

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.leftovers import CleanCluster, clean_cluster_in
from tests.e2e.processes import BOUND_S, Gateway, wait_until
from tests.guests import ROOT, guest, zipped
from ww.client import Client, Result, Retry
from ww.errors import UsageError

ECHO, SPIN, FILES = "wasm/echo/echo.wasm", "wasm/spin/spin.wasm", "wasm/files/files.wasm"


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[CleanCluster]:
    with clean_cluster_in(tmp_path / "cluster") as cluster:
        yield cluster


class User:
    """Runs ww for one gateway with one worker."""

    def __init__(self, cluster: CleanCluster, *arguments: str) -> None:
        self.cluster = cluster
        self.gateway: Gateway = cluster.gateway(*arguments)
        self.worker = cluster.worker(self.gateway)
        self.environment = cluster.environment | {"WW_GATEWAY": f"http://{self.gateway.http}"}

    def start(self, *arguments: str, **settings: Any) -> "subprocess.Popen[bytes]":
        streams: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        command = [sys.executable, "-m", "ww", *arguments]
        return subprocess.Popen(command, cwd=ROOT, env=self.environment, **streams | settings)

    def ww(self, *arguments: str, input: bytes | None = None) -> tuple[int, bytes, str]:
        process = self.start(*arguments, **{} if input is None else {"stdin": subprocess.PIPE})
        out, err = process.communicate(input, timeout=BOUND_S)
        return process.returncode, out, err.decode()

    def tasks(self) -> list[Any]:
        found: list[Any] = self.gateway.client.get("/tasks").json()
        return found


@pytest.fixture
def user(cluster: CleanCluster) -> User:
    return User(cluster)


@pytest.fixture(params=["http", "native"])
def either(user: User, request: pytest.FixtureRequest) -> User:
    """Who names the gateway by its HTTP, or as a peer."""
    if request.param == "native":
        user.environment |= {"WW_GATEWAY": user.gateway.peer_id}
    return user


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    (tmp_path / "in").mkdir()
    return tmp_path / "in", tmp_path / "out"


def give(folder: Path, **files: bytes) -> None:
    for name, content in files.items():
        path = folder / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def found(folder: Path) -> dict[str, bytes]:
    found = {}
    for path in folder.rglob("*"):
        # What was still being written has its own name by now.
        with contextlib.suppress(FileNotFoundError, IsADirectoryError):
            found[str(path.relative_to(folder))] = path.read_bytes()
    return found


def test_a_folder_in_and_a_folder_out(either: User, folders: tuple[Path, Path]) -> None:
    source, target = folders
    files = {f"d{n % 7}__f{n}": b"\xff\0%d" % n for n in range(300)}
    give(source, **files)
    code, out, err = either.ww("map", ECHO, "--input", str(source), "--output", str(target), "--batch", "100", "x")
    assert (code, out) == (0, b""), err
    assert found(target) == {name.replace("__", "/"): b"x\n" + content for name, content in files.items()}
    assert [(task["status"], task["repeats"]) for task in either.tasks()] == [("succeeded", 100)] * 3


def test_failures_beside_and_only_what_is_missing(user: User, folders: tuple[Path, Path]) -> None:
    source, target = folders
    give(source, a=b"", b=b"", c=b"")
    arguments = ("map", ECHO, "--input", str(source), "--output", str(target))
    code, _, err = user.ww(*arguments, "--env", "EXIT=7")
    assert code == 1
    assert err.splitlines()[-1].startswith("ww: 0 succeeded, 3 failed, in ")
    assert found(target) == {f"{name}.error": b"exited with 7\n\nEXIT=7\n" for name in "abc"}
    (target / "b").write_bytes(b"mine")
    assert user.ww(*arguments)[0] == 0
    assert found(target) == {"a": b"", "b": b"mine", "b.error": b"exited with 7\n\nEXIT=7\n", "c": b""}


def test_the_file_is_there_under_its_name(either: User, folders: tuple[Path, Path]) -> None:
    source, target = folders
    give(source, sub__note=b"hello", other=b"world")
    code, _, err = either.ww("map", FILES, "--input", str(source), "--output", str(target), "cat", "{}")
    assert code == 0, err
    assert {name: content.strip() for name, content in found(target).items()} == {
        "sub/note": b"cat 0 hello", "other": b"cat 0 world",
    }  # fmt: skip


def test_lines(either: User) -> None:
    code, out, err = either.ww("map", ECHO, "--input", "-", input=b"one\ntwo\nthree\n")
    assert (code, out) == (0, b"one\ntwo\nthree\n"), err
    code, out, _ = either.ww(
        "map", "wasm/hash/hash.wasm", "--input", "-", "--entry", "run", "0", "{}", input=b"1\n2\n3\n"
    )
    assert (code, out) == (0, b"3\n563\n2832\n")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_interrupted_and_started_again(either: User, folders: tuple[Path, Path], number: signal.Signals) -> None:
    source, target = folders
    names = [f"f{n:02}" for n in range(30)]
    give(source, **dict.fromkeys(names, b""))
    arguments = (
        "map",
        SPIN,
        "--input",
        str(source),
        "--output",
        str(target),
        "--batch",
        "20",
        "--entry",
        "run",
        "30",
        "0",
    )
    process = either.start(*arguments)
    wait_until(lambda: target.exists() and len(found(target)) > 4)
    process.send_signal(number)
    process.communicate(timeout=BOUND_S)
    assert process.returncode == (130 if number == signal.SIGINT else -number)
    code, _, err = either.ww(*arguments)
    assert code == 0, err
    assert sorted(found(target)) == names
    if number == signal.SIGKILL:
        assert {task["status"] for task in either.tasks()} == {"succeeded"}
        assert sum(task["repeats"] for task in either.tasks()) == len(names), "nothing was sent twice"


def test_a_gateway_that_is_killed_meanwhile(either: User, folders: tuple[Path, Path]) -> None:
    source, target = folders
    names = [f"f{n:02}" for n in range(20)]
    give(source, **dict.fromkeys(names, b""))
    process = either.start("map", SPIN, "--input", str(source), "--output", str(target), "--entry", "run", "50", "0")
    wait_until(lambda: target.exists() and len(found(target)) > 4)
    either.gateway.kill()
    either.cluster.gateway("--listen", f"/ip4/127.0.0.1/tcp/{either.gateway.peer_port}", http=either.gateway.http)
    _, err = process.communicate(timeout=BOUND_S)
    assert process.returncode == 0, err.decode()
    assert sorted(found(target)) == names


def test_a_job_file(either: User, tmp_path: Path) -> None:
    (tmp_path / "files.wasm").write_bytes(guest("files"))
    (tmp_path / "root.zip").write_bytes(zipped(note=b"hello"))
    job = {
        "parent": {"wasm": "files.wasm", "args": ["cat", "note"], "files": "root.zip", "artifacts": ["out"]},
        "tasks": [{"args": ["mkdir", "out", "put", "out/x", "one"]}, {"args": ["mkdir", "out", "put", "out/x", "two"]}],
    }
    (tmp_path / "job.json").write_text(json.dumps(job))
    code, _, err = either.ww("run", "-f", str(tmp_path / "job.json"), "--out", str(tmp_path / "out"))
    assert code == 0, err
    assert {name: content.strip() for name, content in found(tmp_path / "out").items()} == {
        "0/out/x": b"one", "1/out/x": b"two",
    }  # fmt: skip
    echo = {"parent": {"wasm": str(ROOT / ECHO), "env": {"A": "1"}}, "tasks": [{"stdin": "x"}, {"env": {"EXIT": "9"}}]}
    code, out, err = either.ww("run", "-f", "-", input=json.dumps(echo).encode())
    assert (code, out) == (9, b"[0] x\n")
    assert [line for line in err.splitlines() if line.startswith("[")] == ["[0] A=1", "[1] A=1", "[1] EXIT=9"]


def client_of(gateway: Gateway) -> Client:
    return Client(f"http://{gateway.http}", retry=Retry(retries=100, most_s=0.3))


def test_the_client_streams_in_both_orders(user: User) -> None:
    with client_of(user.gateway) as client:
        runs = [{"stdin": b"%d" % n, "name": f"n{n}"} for n in range(1000)]
        task = client.submit_batch(guest("echo"), runs)  # type: ignore[arg-type]
        assert (task.repeats, task.batch) == (1000, True)

        def seen(results: "Iterator[Result]") -> list[tuple[int, str, bytes]]:
            return [(result.run, result.name, result.stdout) for result in results]

        expected = [(n, f"n{n}", b"%d" % n) for n in range(1000)]
        assert seen(client.stream(task.id, order="input")) == expected
        by_end = list(client.stream(task.id))
        assert sorted(result.run for result in by_end) == list(range(1000))
        assert [result.position for result in by_end] == sorted({result.position for result in by_end})
        later = client.stream(task.id, after=by_end[499].position)
        assert [result.run for result in later] == [result.run for result in by_end[500:]]
        assert seen(client.stream(task.id, order="input", after=989)) == expected[990:]


def test_a_stream_goes_on_over_a_kill(user: User) -> None:
    with client_of(user.gateway) as client:
        task = client.submit_batch(guest("spin"), [{"input": 30} for _ in range(40)])
        results: list[int] = []
        for result in client.stream(task.id):
            results.append(result.run)
            if len(results) == 10:
                user.gateway.kill()
                user.cluster.gateway("--listen", f"/ip4/127.0.0.1/tcp/{user.gateway.peer_port}", http=user.gateway.http)
        assert sorted(results) == list(range(40))


def test_refusals_name_the_run(user: User) -> None:
    with client_of(user.gateway) as client, pytest.raises(UsageError, match=r"^tasks\[1\]\.stdin: ") as refused:
        client.submit_batch(guest("echo"), [b"", bytes((32 << 20) + 1)])
    assert refused.value.field == "tasks[1].stdin"
    assert user.tasks() == []


def test_an_upload_that_breaks_off_leaves_nothing(user: User) -> None:
    def runs() -> Iterator[bytes]:
        for _ in range(100):
            yield os.urandom(100_000)
        raise ZeroDivisionError

    with client_of(user.gateway) as client:
        with pytest.raises(ZeroDivisionError):
            client.submit_batch(guest("echo"), runs())
        assert list(client.tasks()) == []
