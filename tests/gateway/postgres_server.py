"""A PostgreSQL server of a test's own, in a temporary folder, on a socket there and on a port of loopback."""

import contextlib
import functools
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

_BOUND_S: Final = 40.0
_NOBODY: Final = "nobody"
PASSWORD: Final = "a password: 100% of/its @own"


@functools.cache
def binaries() -> Path | None:
    """Return the folder of the server's programs."""
    found = shutil.which("initdb")
    if found is not None and (Path(found).parent / "postgres").exists():
        return Path(found).resolve().parent
    folders = [path.parent for path in Path("/usr/lib/postgresql").glob("*/bin/initdb")]
    return max(folders, key=lambda folder: float(folder.parent.name), default=None)


def why_no_server() -> str:
    """Say why there can be no server here, or nothing."""
    return "" if binaries() is not None else "needs PostgreSQL's initdb and postgres (Debian: postgresql)"


class Server:
    """A server that can be killed and started again."""

    def __init__(self, folder: Path) -> None:
        """Make it below a folder that is nobody else's; its clusters' user is ww, and so is the database."""
        self.folder = folder
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port: int = free.getsockname()[1]
        self._process: subprocess.Popen[bytes] | None = None
        # It refuses to be root.
        self._user: dict[str, Any] = {}
        if os.geteuid() == 0:
            entry = pwd.getpwnam(_NOBODY)
            os.chown(folder, entry.pw_uid, entry.pw_gid)
            self._user = {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}

    def make(self) -> None:
        """Make the cluster, and start it."""
        self._run("initdb", "-D", str(self.folder / "data"), "-U", "ww", "-A", "trust", "-E", "UTF8", "--no-sync", "-N")
        (self.folder / "data" / "pg_hba.conf").write_text(
            "local all all trust\nhost all all 127.0.0.1/32 scram-sha-256\nhost all all ::1/128 scram-sha-256\n"
        )
        self.start()
        self.sql(f"ALTER ROLE ww PASSWORD '{PASSWORD}'", database="postgres")
        self.sql("CREATE DATABASE ww", database="postgres")

    @property
    def url(self) -> str:
        """Its address by the socket."""
        return f"postgresql://ww@/ww?host={self.folder}&port={self.port}"

    @property
    def tcp_url(self) -> str:
        """Its address by the port, which wants a password."""
        return f"postgresql://ww@127.0.0.1:{self.port}/ww"

    def start(self, *settings: str) -> None:
        """Start it, unless it runs, and return when it answers."""
        if self._process is not None:
            return
        command = [
            str(self._binary("postgres")), "-D", str(self.folder / "data"), "-k", str(self.folder),
            "-p", str(self.port), "-h", "127.0.0.1", "-c", "max_connections=50", "-c", "shared_buffers=16MB",
        ]  # fmt: skip
        command += [word for setting in settings for word in ("-c", setting)]
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log, cwd=self.folder, **self._user)
        end = time.monotonic() + _BOUND_S
        while not self._answers():
            assert time.monotonic() < end, (self.folder / "log").read_text()
            assert self._process.poll() is None, (self.folder / "log").read_text()
            time.sleep(0.02)

    def encrypt(self, certificate: bytes, key: bytes) -> None:
        """Start it again, with TLS."""
        for name, data in (("server.crt", certificate), ("server.key", key)):
            path = self.folder / "data" / name
            path.write_bytes(data)
            path.chmod(0o600)
            if self._user:
                os.chown(path, self._user["user"], self._user["group"])
        self.stop()
        self.start("ssl=on")

    def sql(self, statement: str, database: str = "ww") -> str:
        """Have one statement done, and return what it prints."""
        return self._run(
            "psql", "-h", str(self.folder), "-p", str(self.port), "-U", "ww", "-d", database, "-XAtq",
            "-v", "ON_ERROR_STOP=1", "-c", statement,
        )  # fmt: skip

    def kill(self) -> None:
        """kill -9, and all its processes, as when its machine loses power but for the disk."""
        assert self._process is not None
        pids = [self._process.pid, *_children(self._process.pid)]
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._process.wait(_BOUND_S)
        self._process = None
        end = time.monotonic() + _BOUND_S
        while any(_is_running(pid) for pid in pids):
            assert time.monotonic() < end
            time.sleep(0.005)

    def stop(self) -> None:
        """Stop it at once, and all its sessions."""
        if self._process is not None:
            self._process.send_signal(signal.SIGQUIT)
            self._process.wait(_BOUND_S)
            self._process = None

    def _answers(self) -> bool:
        try:
            self.sql("SELECT 1", database="postgres")
        except subprocess.CalledProcessError:
            return False
        return True

    def _binary(self, name: str) -> Path:
        folder = binaries()
        assert folder is not None
        return folder / name

    def _run(self, name: str, *arguments: str) -> str:
        command = [str(self._binary(name)), *arguments]
        done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=self.folder, **self._user)
        return done.stdout.strip()


def _children(pid: int) -> list[int]:
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if (folder / "stat").read_text().rpartition(")")[2].split()[1] == str(pid):
                found.append(int(folder.name))
    return found


def _is_running(pid: int) -> bool:
    try:
        return (Path("/proc") / str(pid) / "stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@contextlib.contextmanager
def running_server(directory: Path | None = None) -> Iterator[Server]:
    """Have a server while the context is open, in a folder below that directory, or the temporary one."""
    # Not below pytest's folders, which the server's user may not enter; and a socket's path is short.
    folder = Path(tempfile.mkdtemp(prefix="ww-postgres-", dir=directory))
    server = Server(folder)
    try:
        server.make()
        yield server
    finally:
        server.stop()
        shutil.rmtree(folder, ignore_errors=True)
