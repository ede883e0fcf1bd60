"""The main job, shown: a gateway and two workers on loopback, a task posted with curl, its results.

Keeps its state in a temporary folder and stops everything it started, also when it is interrupted.
"""

import contextlib
import http.client
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).resolve().parent.parent
BOUND_S: Final = 60.0
FORM: Final = (
    ("id", "task1"), ("description", "Hash puzzle"), ("complete", "0"), ("duration", "5"), ("start", "1"),
    ("delay", "2"), ("repeats", "3"), ("wasm", "@wasm/hash/hash.wasm"), ("input", "0"), ("difficulty", "3"),
)  # fmt: skip
EXPECTED: Final = ["2832"] * 3


class DemoError(Exception):
    """The demo did not go as it should."""


def say(text: str = "") -> None:
    print(text, flush=True)


class Program:
    """A ww process whose log is kept, and shown when something goes wrong."""

    def __init__(self, name: str, arguments: list[str], environment: dict[str, str]) -> None:
        self.name = name
        self.log: list[str] = []
        self._process = subprocess.Popen(
            [sys.executable, "-m", "ww", *arguments],
            cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            start_new_session=True,  # ctrl-C is ours to pass on
        )  # fmt: skip
        assert self._process.stdout is not None
        self.stdout = self._process.stdout
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stderr is not None
        for line in self._process.stderr:
            self.log.append(line.rstrip())

    def logged(self, pattern: str) -> re.Match[str]:
        """Wait until a log line matches pattern."""
        end = time.monotonic() + BOUND_S
        while time.monotonic() < end:
            for line in list(self.log):
                if match := re.search(pattern, line):
                    return match
            if self._process.poll() is not None:
                break
            time.sleep(0.02)
        raise DemoError(f"{self.name} did not get ready")

    def stop(self) -> None:
        """End it in an orderly way, or at once when that takes too long."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(10)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        self.stdout.close()
        self._reader.join(1)


def post(address: str) -> dict[str, Any]:
    """Post the task with curl, or with Python's own HTTP client where there is no curl."""
    say("\n$ " + _curl_line(address) + "\n")
    if shutil.which("curl"):
        arguments = [word for name, value in FORM for word in ("-F", f"{name}={value}")]
        command = ["curl", "--silent", "--show-error", "-X", "POST", *arguments, f"http://{address}/tasks"]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        if done.returncode:
            raise DemoError(done.stderr.strip())
        text = done.stdout
    else:
        say("(curl is not installed: posting the same form with Python)\n")
        text = _post_with_python(address)
    task: dict[str, Any] = json.loads(text)
    if "status" not in task or "id" not in task:
        raise DemoError(f"the gateway answered: {text}")
    return task


def _curl_line(address: str) -> str:
    fields = [f'-F "{name}={value}"' if " " in value else f"-F {name}={value}" for name, value in FORM]
    return "curl -X POST " + " ".join(fields) + f" http://{address}/tasks"


def _post_with_python(address: str) -> str:
    boundary = uuid.uuid4().hex
    body = b""
    for name, value in FORM:
        disposition, content = f'name="{name}"', value.encode()
        if value.startswith("@"):
            disposition, content = f'{disposition}; filename="{name}"', (ROOT / value[1:]).read_bytes()
        head = f"--{boundary}\r\nContent-Disposition: form-data; {disposition}\r\n\r\n"
        body += head.encode() + content + b"\r\n"
    body += f"--{boundary}--\r\n".encode()
    return _request(address, "POST", "/tasks", body, {"Content-Type": f"multipart/form-data; boundary={boundary}"})


def _request(
    address: str, method: str, path: str, body: bytes | None = None, headers: dict[str, str] | None = None
) -> str:
    with contextlib.closing(http.client.HTTPConnection(address, timeout=BOUND_S)) as connection:
        connection.request(method, path, body, headers or {})
        return connection.getresponse().read().decode()


def follow(address: str, id: str) -> dict[str, Any]:
    """Show the task each time something about it changes, until it is complete."""
    shown = None
    end = time.monotonic() + BOUND_S
    while time.monotonic() < end:
        task: dict[str, Any] = json.loads(_request(address, "GET", f"/tasks/{id}"))
        results = [result["result"] for result in reversed(task["results"])]
        line = f"{task['status']:<10} {task['completions']}/{task['repeats']} runs complete   results {results}"
        if line != shown:
            say(line)
            shown = line
        if task["status"] in ("succeeded", "failed", "cancelled"):
            return task
        time.sleep(0.1)
    raise DemoError(f"the task is not complete after {BOUND_S:g} s")


@contextlib.contextmanager
def cluster(folder: str) -> Iterator[str]:
    """Run a gateway and two workers, and give the gateway's HTTP address."""
    environment = os.environ | {"XDG_STATE_HOME": f"{folder}/state", "XDG_CACHE_HOME": f"{folder}/cache"}
    environment = {name: value for name, value in environment.items() if not name.startswith("WW_")}
    programs: list[Program] = []
    try:
        say("$ ww gateway --http 127.0.0.1:0")
        gateway = Program("the gateway", ["gateway", "--http", "127.0.0.1:0"], environment)
        programs.append(gateway)
        address = gateway.logged(r"HTTP on http://(\S+)")[1]
        peer_id = gateway.stdout.readline().strip()
        say(peer_id)
        for number in (1, 2):
            say(f"$ ww worker --dial {peer_id} --slots 1    # worker {number}")
            arguments = ["worker", "--dial", peer_id, "--slots", "1"]
            programs.append(Program(f"worker {number}", arguments, environment))
        for program in programs[1:]:
            program.logged(r"joined gateway")
        yield address
    except DemoError:
        for program in programs:
            say(f"--- log of {program.name}:")
            say("\n".join(program.log[-20:]))
        raise
    finally:
        for program in reversed(programs):
            program.stop()


def interrupt(*_: object) -> None:
    """Have everything stopped on the way out. A second signal does not break that off: it is bounded."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt


def main() -> int:
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, interrupt)
    try:
        with tempfile.TemporaryDirectory(prefix="ww-demo-") as folder, cluster(folder) as address:
            task = follow(address, post(address)["id"])
            results = [result["result"] for result in task["results"]]
            if results != EXPECTED:
                raise DemoError(f"expected results {EXPECTED}, got {results}")
            workers = {result["worker"] for result in task["results"]}
            say(f"\ncomplete: {task['completions']} runs on {len(workers)} workers, result {results[0]} each time.")
    except DemoError as error:
        print(f"demo: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("demo: interrupted; everything is stopped", file=sys.stderr)
        return 130
    say('Everything that was started is stopped. Next: README.md, "By hand".')
    return 0


if __name__ == "__main__":
    sys.exit(main())
