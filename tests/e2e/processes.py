"""Real ww processes for tests: started, asked, signalled, and never left behind."""

import contextlib
import json
import os
import random
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx

from tests.guests import ROOT
from ww.sandbox.process import Setup

BOUND_S = 20.0


def wait_until(condition: Callable[[], Any], what: str = "", bound_s: float = BOUND_S) -> Any:
    """Return what condition returns once that is true; fail when it stays false."""
    end = time.monotonic() + bound_s
    while True:
        if value := condition():
            return value
        assert time.monotonic() < end, f"not within {bound_s} s: {what or condition}"
        time.sleep(0.01)


def children_of(pid: int) -> list[int]:
    """Return the processes that pid started."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if (folder / "stat").read_text().rpartition(")")[2].split()[1] == str(pid):
                found.append(int(folder.name))
    return found


def is_running(pid: int) -> bool:
    try:
        return (Path("/proc") / str(pid) / "stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def ticks_of(pid: int) -> int:
    """Return the processor time pid has used, in clock ticks."""
    fields = (Path("/proc") / str(pid) / "stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


class Program:
    """A ww process; its log is read as it comes."""

    def __init__(
        self,
        *arguments: str,
        environment: dict[str, str],
        command: tuple[str, ...] = ("-m", "ww"),
        prefix: tuple[str, ...] = (),
    ) -> None:
        self.lines: list[str] = []
        self._process = subprocess.Popen(
            [*prefix, sys.executable, *command, *arguments],
            cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        self.pid = self._process.pid
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stderr is not None
        for line in self._process.stderr:
            self.lines.append(line.rstrip("\n"))

    @property
    def log(self) -> str:
        return "\n".join(self.lines)

    def logged(self, pattern: str) -> re.Match[str]:
        """Wait for a log line that matches."""

        def look() -> re.Match[str] | None:
            return next((m for line in list(self.lines) if (m := re.search(pattern, line))), None)

        def look_while_alive() -> re.Match[str] | bool | None:
            return look() or (self._process.poll() is not None and not self._reader.is_alive() and look() is None)

        found = wait_until(look_while_alive, f"{pattern!r} in the log:\n{self.log}")
        assert isinstance(found, re.Match), f"ended without {pattern!r}:\n{self.log}"
        return found

    @contextlib.contextmanager
    def _nothing_left_unless_ready(self) -> Iterator[None]:
        """Close it when it does not get ready: nobody has it yet, who could."""
        try:
            yield
        except BaseException:
            Program.close(self)
            raise

    def stdout_line(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()

    def send(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def wait(self, bound_s: float = BOUND_S) -> int:
        """Return the exit code, and have the log complete."""
        code = self._process.wait(bound_s)
        self._reader.join(BOUND_S)
        return code

    def kill(self) -> None:
        """kill -9."""
        self._process.kill()
        self.wait()

    def close(self) -> None:
        """Leave nothing of it."""
        # The parent first: it would replace its children.
        for pid in [self.pid, *children_of(self.pid)]:
            with contextlib.suppress(ProcessLookupError):
                if is_running(pid):
                    os.kill(pid, signal.SIGKILL)
        self.wait()
        for pipe in (self._process.stdout, self._process.stderr):
            if pipe is not None:
                pipe.close()


class Gateway(Program):
    """A gateway process and its HTTP interface."""

    def __init__(
        self, *arguments: str, environment: dict[str, str], http: str = "127.0.0.1:0", prefix: tuple[str, ...] = ()
    ) -> None:
        super().__init__("gateway", "--http", http, *arguments, environment=environment, prefix=prefix)
        with self._nothing_left_unless_ready():
            self.http = self.logged(r"HTTP on http://(\S+)")[1]
            self.address = self.logged(r"listening on (\S+)")[1]
            self.peer_id = self.stdout_line()
        self.client = httpx.Client(base_url=f"http://{self.http}", timeout=BOUND_S)

    @property
    def peer_port(self) -> int:
        return int(re.findall(r"/tcp/(\d+)", self.address)[0])

    def post(self, wasm: bytes, **fields: Any) -> Any:
        """Submit a task and return it; a refusal fails the test."""
        answer = self.client.post("/tasks", data=fields, files={"wasm": ("guest.wasm", wasm)})
        assert answer.status_code in (200, 201), answer.text
        return answer.json()

    def task(self, id: str) -> Any:
        return self.client.get(f"/tasks/{id}").json()

    def ended(self, id: str, bound_s: float = BOUND_S) -> Any:
        """Wait for a task's end and return it."""
        end = time.monotonic() + bound_s
        while (task := self.client.get(f"/tasks/{id}?wait=1").json())["finished_at"] is None:
            assert time.monotonic() < end, json.dumps(task, indent=1)
        return task

    def workers(self) -> Any:
        return self.client.get("/workers").json()

    def close(self) -> None:
        self.client.close()
        super().close()


class Worker(Program):
    """A worker process that has joined its gateway."""

    def __init__(self, gateway: Gateway, *arguments: str, environment: dict[str, str]) -> None:
        super().__init__("worker", "--dial", gateway.peer_id, "--slots", "1", *arguments, environment=environment)
        with self._nothing_left_unless_ready():
            self.peer_id = self.logged(r"worker (12D3KooW\w+)")[1]
            self.logged("joined gateway")


def sandboxes_of(pid: int, role: str = "") -> list[int]:
    """Return the sandbox processes that node pid started, also when it is gone; those of one role when it is named."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            words = (folder / "cmdline").read_bytes().decode(errors="replace").split("\0")
            if "ww.sandbox.executor" not in words:
                continue
            # ... -m ww.sandbox.executor SETUP; that of others, of another ww, is no such text
            with contextlib.suppress(ValueError, TypeError, IndexError):
                setup = Setup.from_text(words[words.index("ww.sandbox.executor") + 1])
                if setup.parent == pid and setup.role.startswith(role) and is_running(int(folder.name)):
                    found.append(int(folder.name))
    return found


def wait_busy(worker: Worker) -> None:
    """Wait until a guest of that worker computes."""
    before = {pid: ticks_of(pid) for pid in sandboxes_of(worker.pid, "executor")}
    wait_until(lambda: any(ticks_of(pid) > ticks + 5 for pid, ticks in before.items()), "a guest computes")


class Cluster:
    """Starts processes that share a state and a cache directory of their own."""

    def __init__(self, directory: Path) -> None:
        self.state = directory / "state" / "ww"
        self.environment = {name: value for name, value in os.environ.items() if not name.startswith("WW_")} | {
            "XDG_STATE_HOME": str(directory / "state"),
            "XDG_CACHE_HOME": str(directory / "cache"),
            # What other tests run at the same time is not heard.
            "WW_DISCOVER": f"/ip4/239.255.88.22/udp/{random.randrange(20_000, 60_000)}/multicast",
        }
        self._programs: list[Program] = []

    def gateway(self, *arguments: str, **settings: Any) -> Gateway:
        return self._keep(Gateway(*arguments, environment=self.environment, **settings))

    def worker(self, gateway: Gateway, *arguments: str) -> Worker:
        return self._keep(Worker(gateway, *arguments, environment=self.environment))

    def program(self, *arguments: str, **settings: Any) -> Program:
        return self._keep(Program(*arguments, environment=self.environment, **settings))

    def forget(self, program: Program) -> None:
        """Leave nothing of a program that was killed. Its pid may soon be another's, which close() must not kill."""
        self._programs.remove(program)
        program.close()

    def _keep(self, program: Any) -> Any:
        self._programs.append(program)
        return program

    def close(self) -> None:
        for program in reversed(self._programs):
            program.close()


@contextlib.contextmanager
def cluster_in(directory: Path) -> Iterator[Cluster]:
    cluster = Cluster(directory)
    try:
        yield cluster
    finally:
        cluster.close()
