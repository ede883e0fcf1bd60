"""A gateway and workers as real processes on loopback, and an HTTP client that costs them little. For benchmarks."""

import contextlib
import http.client
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).resolve().parent.parent


class Client:
    """One kept connection to the gateway."""

    def __init__(self, address: str) -> None:
        self.address = address
        self._connection = http.client.HTTPConnection(address, timeout=120)

    def request(self, method: str, path: str, body: bytes | None = None, content_type: str = "") -> Any:
        """Return the JSON of a 2xx answer; RuntimeError for any other."""
        self._connection.request(method, path, body, {"Content-Type": content_type} if content_type else {})
        answer = self._connection.getresponse()
        text = answer.read()
        if answer.status >= 300:
            raise RuntimeError(f"{method} {path}: {answer.status} {text.decode()}")
        return json.loads(text)

    def post_task(self, wasm: bytes, **fields: object) -> Any:
        """Submit a task as curl -F does, the module with it."""
        return self.request("POST", "/tasks", *form(wasm, **fields))

    def close(self) -> None:
        self._connection.close()


def form(wasm: bytes, **fields: object) -> tuple[bytes, str]:
    """Return a multipart body and its content type."""
    boundary = uuid.uuid4().hex
    parts = [
        f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'.encode()
        for name, value in fields.items()
    ]
    head = f'--{boundary}\r\nContent-Disposition: form-data; name="wasm"; filename="guest.wasm"\r\n\r\n'
    parts += [head.encode(), wasm, f"\r\n--{boundary}--\r\n".encode()]
    return b"".join(parts), f"multipart/form-data; boundary={boundary}"


class Processes:
    """ww processes that share a state and a cache of their own, and are stopped in the end."""

    def __init__(self, folder: str, stack: contextlib.ExitStack) -> None:
        self._folder = folder
        self._stack = stack
        self._environment = {name: value for name, value in os.environ.items() if not name.startswith("WW_")}
        self._environment |= {"XDG_STATE_HOME": f"{folder}/state", "XDG_CACHE_HOME": f"{folder}/cache"}
        self.pids: list[int] = []
        """In the order in which they were started."""

    def start(self, *arguments: str, ready: str, sampled: Path | None = None) -> str:
        """Start one, wait for a line of its log, and return the group in its pattern. sampled: see spawn."""
        process, log = self.spawn(*arguments, sampled=sampled)
        self._stack.callback(_stop, process)
        with log.open() as reading:
            seen = ""
            while (found := re.search(ready, seen)) is None:
                if process.poll() is not None:
                    raise RuntimeError(seen)
                seen += reading.read()
        return found[1]

    def spawn(self, *arguments: str, sampled: Path | None = None) -> "tuple[subprocess.Popen[bytes], Path]":
        """Start one and do not wait for anything. Where its time goes is written to sampled, by sampled.py."""
        program = ["-m", "ww"] if sampled is None else [str(ROOT / "bench" / "sampled.py"), "--runs", str(sampled)]
        command = [sys.executable, *program, *arguments]
        log = Path(self._folder, f"{uuid.uuid4().hex}.log")
        with log.open("w") as file:
            process = subprocess.Popen(command, cwd=ROOT, env=self._environment, stdout=subprocess.DEVNULL, stderr=file)
        self.pids.append(process.pid)
        return process, log


@contextlib.contextmanager
def processes() -> Iterator[Processes]:
    """Give a way to start ww processes."""
    with tempfile.TemporaryDirectory(prefix="ww-bench-") as folder, contextlib.ExitStack() as stack:
        yield Processes(folder, stack)


@contextlib.contextmanager
def cluster(*, workers: int, slots: int) -> Iterator[Client]:
    """Run a gateway with that many workers of that many slots each."""
    with processes() as started, gateway(started) as client:
        peer = client.request("GET", "/healthz")["peer"]
        for _ in range(workers):
            started.start("worker", "--dial", peer, "--slots", str(slots), ready=r"(joined) gateway")
        yield client


@contextlib.contextmanager
def gateway(started: Processes, *arguments: str) -> Iterator[Client]:
    """Run a gateway."""
    address = started.start("gateway", "--http", "127.0.0.1:0", *arguments, ready=r"HTTP on http://(\S+)")
    with contextlib.closing(Client(address)) as it:
        yield it


@contextlib.contextmanager
def worker_of(started: Processes, peer: str, *arguments: str) -> Iterator[None]:
    """Run a worker of that gateway, from its start on."""
    process, _ = started.spawn("worker", "--dial", peer, *arguments)
    try:
        yield
    finally:
        _stop(process)


def _stop(process: "subprocess.Popen[bytes]") -> None:
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(20)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
